"""Allow-list for nova.conf: the options that decide how guests are set up."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hoodsnap.keep.secret import WITHHELD

Configuration = dict[str, dict[str, str]]
"""Section → option → value. It holds passwords when it is read; only what `kept` returns is
recorded."""

KEPT: Mapping[str, frozenset[str]] = {
    section: frozenset(options.split())
    for section, options in {
        "DEFAULT": """
            host my_ip my_block_storage_ip compute_driver enabled_apis state_path instances_path
            instance_name_template base_dir_name image_cache_subdirectory_name
            image_cache_manager_interval remove_unused_base_images remove_unused_kernels
            remove_unused_original_minimum_age_seconds remove_unused_resized_minimum_age_seconds
            use_cow_images force_raw_images preallocate_images default_ephemeral_format
            force_config_drive config_drive_format flat_injected
            reclaim_instance_interval running_deleted_instance_action
            running_deleted_instance_poll_interval running_deleted_instance_timeout
            resume_guests_state_on_host_boot sync_power_state_interval
            heal_instance_info_cache_interval update_resources_interval shelved_offload_time
            shelved_poll_interval instance_build_timeout instance_delete_interval rescue_timeout
            reboot_timeout resize_confirm_window shutdown_timeout volume_usage_poll_interval
            report_interval service_down_time servicegroup_driver periodic_enable
            cpu_allocation_ratio ram_allocation_ratio disk_allocation_ratio
            initial_cpu_allocation_ratio initial_ram_allocation_ratio initial_disk_allocation_ratio
            reserved_host_cpus reserved_host_memory_mb reserved_host_disk_mb reserved_huge_pages
            vcpu_pin_set allow_resize_to_same_host allow_migrate_to_same_host
            max_concurrent_builds max_concurrent_live_migrations max_concurrent_snapshots
            block_device_allocate_retries block_device_allocate_retries_interval
            vif_plugging_is_fatal vif_plugging_timeout network_api_class firewall_driver use_neutron
            libvirt_type libvirt_uri libvirt_images_type libvirt_images_rbd_pool
            libvirt_images_volume_group libvirt_cpu_mode libvirt_cpu_model libvirt_vif_driver
            libvirt_snapshot_compression libvirt_use_virtio_for_bridges
        """,
        "libvirt": """
            virt_type connection_uri images_type images_rbd_pool images_rbd_ceph_conf
            images_rbd_glance_store_name images_volume_group sparse_logical_volumes
            cpu_mode cpu_model cpu_models cpu_model_extra_flags cpu_power_management
            hw_machine_type hw_disk_discard disk_cachemodes disk_prefix sysinfo_serial
            live_migration_uri live_migration_scheme live_migration_inbound_addr
            live_migration_bandwidth live_migration_downtime live_migration_downtime_delay
            live_migration_downtime_steps live_migration_completion_timeout
            live_migration_timeout_action live_migration_permit_auto_converge
            live_migration_permit_post_copy live_migration_tunnelled
            live_migration_with_native_tls live_migration_flag live_migration_progress_timeout
            live_migration_parallel_connections
            snapshots_directory snapshot_image_format snapshot_compression
            remove_unused_kernels remove_unused_resized_minimum_age_seconds
            volume_use_multipath volume_clear num_volume_scan_tries nfs_mount_point_base
            rescue_image_id use_virtio_for_bridges max_queues rx_queue_size tx_queue_size
            num_pcie_ports num_memory_encrypted_guests file_backed_memory swtpm_enabled
            mem_stats_period_seconds wait_soft_reboot_seconds device_detach_attempts
            device_detach_timeout tb_cache_size
        """,
        "image_cache": """
            manager_interval subdirectory_name precache_concurrency remove_unused_base_images
            remove_unused_original_minimum_age_seconds remove_unused_resized_minimum_age_seconds
        """,
        "compute": """
            cpu_dedicated_set cpu_shared_set max_disk_devices_to_attach max_concurrent_disk_ops
            image_type_exclude_list live_migration_wait_for_vif_plug shutdown_retry_interval
            resource_provider_association_refresh provider_config_location
            consecutive_build_service_disable_threshold vmdk_allowed_types
            packing_host_numa_cells_allocation_strategy sharing_providers_max_uuids_per_request
        """,
        "workarounds": """
            disable_rootwrap disable_libvirt_livesnapshot handle_virt_lifecycle_events
            disable_group_policy_check_upcall enable_numa_live_migration
            ensure_libvirt_rbd_instance_dir_cleanup disable_fallback_pcpu_query
            never_download_image_if_on_rbd reserve_disk_resource_for_image_cache
            libvirt_disable_apic wait_for_vif_plugged_event_during_hard_reboot
            enable_qemu_monitor_announce_self qemu_monitor_announce_self_count
            qemu_monitor_announce_self_interval disable_compute_service_check_for_ffu
            skip_hypervisor_version_check_on_lm skip_cpu_compare_on_dest
            skip_cpu_compare_at_startup unified_limits_count_pcpu_as_vcpu
            skip_reserve_in_use_ironic_nodes disable_deep_image_inspection
            destroy_after_evacuate disable_native_luksv1 rbd_volume_local_attach
            report_ivshmem_memory_as_reserved
        """,
        "vnc": "enabled server_listen server_proxyclient_address",
        "spice": "enabled agent_enabled server_listen server_proxyclient_address",
        "devices": "enabled_mdev_types enabled_vgpu_types",
        "cinder": "cross_az_attach",
        "upgrade_levels": "compute",
    }.items()
}
"""Options that decide how guests are set up, by section. No others are kept."""


def is_kept(section: str, option: str) -> bool:
    """Return True if the value of an option may be kept."""
    return option in KEPT.get(section, ())


def kept(configuration: Configuration) -> Configuration:
    """Return the options that may be recorded, sorted, without credentials."""
    found: Configuration = {}
    for section, options in sorted(configuration.items()):
        for option, value in sorted(options.items()):
            if is_kept(section, option):
                found.setdefault(section, {})[option] = _without_credentials(value)
    return found


def _without_credentials(value: str) -> str:
    # An indented line belongs to the option before it, even if it was meant as another option.
    if "\n" in value:
        return WITHHELD
    scheme, slashes, rest = value.partition("://")
    if not slashes:
        return value
    # A password may contain `@`, `/` or `?`, so everything before the last `@` is withheld.
    user, at, rest = rest.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        user = (name if name in _ACCOUNTS else WITHHELD) + (f":{WITHHELD}" if colon else "")
    place, mark, query = rest.partition("#")[0].partition("?")
    return f"{scheme}://{user}{at}{place}{mark}{'&'.join(map(_parameter, query.split('&')))}"


_ACCOUNTS = ("nova", "root", "stack")
"""User names in a URI that are kept; any other may be a token."""


def _parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    if not parameter or name in _PARAMETERS:
        return parameter
    return f"{name}={WITHHELD}" if equals else WITHHELD


_PARAMETERS = ("socket", "mode", "no_verify", "no_tty")
"""Parameters of libvirt URIs whose values are kept."""


_COMPUTE_ID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def is_compute_id(text: str) -> bool:
    """Return True if the content of the file compute_id is a UUID only; then it may be kept."""
    return _COMPUTE_ID.fullmatch(text.strip()) is not None
