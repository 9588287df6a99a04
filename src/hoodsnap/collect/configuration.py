"""nova.conf as nova itself would read it, and which of its options may be kept.

The syntax is oslo.config's (its iniparser.py and cfg.py), which differs from Python's configparser:
lines that go on, quotes, `$other_option`, options given twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hoodsnap.collect.recorder import WITHHELD

Configuration = dict[str, dict[str, str]]
"""Section → option → value. As read, it holds passwords: only what is `kept` of it is recorded."""

COMPUTE = "nova-compute"

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
"""The options that say how guests ought to look. No other is kept."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running nova service."""

    pid: int

    root: Path
    """How its `/` is reached from here: another one if it runs in a container."""

    program: Path
    """Where its program is, in there."""

    arguments: tuple[str, ...]


def service(program: str = COMPUTE, proc: Path = Path("/proc")) -> Service | None:
    """The running nova service of this name: of several, one that is not in a container or chroot,
    and the one with the lowest PID."""
    pids = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())
    found = [it for pid in pids if (it := _service(program, proc / str(pid))) is not None]
    return min(found, key=lambda it: (_is_elsewhere(proc, it.pid), it.pid), default=None)


def _service(program: str, process: Path) -> Service | None:
    try:
        argv = (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return None
    if program.encode() not in argv:
        return None
    words = os.fsdecode(argv).rstrip("\0").split("\0")
    names = [Path(word).name for word in words[:4]]
    place = names.index(program) if program in names else -1
    if place != 0 and (place < 0 or not names[0].startswith("python")):
        return None
    root = _root_of(process / "root")
    return Service(int(process.name), root, Path(words[place]), tuple(words[place + 1 :]))


def _is_elsewhere(proc: Path, pid: int) -> bool:
    """Whether a process sees other files than we do; no, where only root may know."""
    try:
        chroot = os.readlink(proc / f"{pid}/root") != os.readlink(proc / "self/root")
        return chroot or os.readlink(proc / f"{pid}/ns/mnt") != os.readlink(proc / "self/ns/mnt")
    except OSError:
        return False


def _root_of(link: Path) -> Path:
    try:
        next(link.iterdir(), None)
    except OSError:  # only root may look through it
        return Path("/")
    return link


def read_nova_conf(program: str = COMPUTE, root: Path = Path("/")) -> Configuration:
    """What the running service of this name has as its configuration; without one, what it would.

    Files that can't be read are left out. Holds passwords.
    """
    found = service(program)
    files = _files_of(found, program) if found else _files_on(root, program)
    merged: Configuration = {}
    for file in files:
        try:
            with file.open(errors="surrogateescape") as lines:
                parsed = parse(lines)
        except OSError:
            continue
        for section, options in parsed.items():
            merged.setdefault(section, {}).update(options)
    return substituted(merged)


def _files_of(found: Service, program: str) -> list[Path]:
    """The files that a service was started with, in the order in which it reads them."""
    explicit: list[Path] = []
    named = {"--config-file": False, "--config-dir": False}
    words = iter(found.arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in named:
            continue
        named[option] = True
        path = found.root / (value if equals else next(words, "")).lstrip("/")
        explicit += [path] if option == "--config-file" else _files_in(path)
    files = [] if named["--config-file"] else _default_files(found.root, program)
    # Naming files does not switch the default folders off; they are read before.
    folders = [] if named["--config-dir"] else _default_folders(found.root, program)
    return files + folders + explicit


def _files_on(root: Path, program: str) -> list[Path]:
    """The files that a service would read on this host, wherever its distribution put them."""
    places = [
        [*_default_files(root, program), *_default_folders(root, program)],
        [root / f"etc/kolla/{program}/nova.conf"],
        [root / "var/lib/config-data/puppet-generated/nova_libvirt/etc/nova/nova.conf"],
    ]
    if program == COMPUTE:  # DevStack gives it one of its own, without databases
        places.insert(0, [root / "etc/nova/nova-cpu.conf"])
    return next((files for files in places if any(file.exists() for file in files)), [])


def _default_files(root: Path, program: str) -> list[Path]:
    return [
        root / "usr/share/nova/nova-dist.conf",  # RDO
        root / "etc/nova/nova.conf",
        root / f"etc/nova/{program}.conf",
    ]


def _default_folders(root: Path, program: str) -> list[Path]:
    return [
        *_files_in(root / "etc/nova/nova.conf.d"),
        *_files_in(root / f"etc/nova/{program}.conf.d"),
    ]


def _files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.conf"))


def parse(lines: Iterable[str]) -> Configuration:
    """Read one file. Of an option that is given twice the last value holds; what is no option, a
    section or a comment (nova would refuse to start) is left out."""
    parsed: Configuration = {}
    section = "DEFAULT"
    for line in _whole(lines):
        if line.startswith("["):
            # oslo.config ignores the case of a section, but not of this one.
            name = line[1:-1]
            section = name if name == "DEFAULT" else name.lower()
        elif match := _ASSIGNMENT.match(line):
            value = _unquoted(match["value"])
            parsed.setdefault(section, {})[match["option"].strip()] = value
    return parsed


_ASSIGNMENT = re.compile(r"(?P<option>[^#;:=][^:=]*)[:=](?P<value>.*)", re.DOTALL)


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """The lines, each together with the indented ones that go on with it."""
    whole = ""
    for line in lines:
        line = line.rstrip()
        if line.startswith((" ", "\t")) and whole:
            whole += "\n" + line.lstrip()
            continue
        yield whole
        whole = line
    yield whole


def _unquoted(value: str) -> str:
    first, newline, rest = value.partition("\n")
    first = first.strip()
    if first and first[0] == first[-1] and first[0] in "\"'":
        first = first[1:-1]
    return first + newline + rest


def substituted(configuration: Configuration) -> Configuration:
    """With `$option` and `${section.option}` replaced by their values, as far as these are set."""
    return {
        section: {
            option: _substituted(configuration, section, value, ((section, option),))
            for option, value in options.items()
        }
        for section, options in configuration.items()
    }


_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[_a-z][._a-z0-9]*)|\{(?P<braced>[_a-z][._a-z0-9]*)\})",
    re.IGNORECASE,
)


def _substituted(
    configuration: Configuration, section: str, value: str, within: tuple[tuple[str, str], ...]
) -> str:
    def meaning(reference: re.Match[str]) -> str:
        if reference["dollar"]:
            return "$"
        group, dot, option = (reference["plain"] or reference["braced"]).rpartition(".")
        for place in (group,) if dot else (section, "DEFAULT"):
            found = configuration.get(place, {}).get(option)
            if found is not None and (place, option) not in within:  # else it leads back to itself
                return _substituted(configuration, place, found, (*within, (place, option)))
        return reference[0]

    return _REFERENCE.sub(meaning, value.replace("\\$", "$$"))


def kept(configuration: Configuration) -> Configuration:
    """The options that may be recorded, sorted."""
    found: Configuration = {}
    for section, options in sorted(configuration.items()):
        for option, value in sorted(options.items()):
            if option in KEPT.get(section, ()):
                found.setdefault(section, {})[option] = _without_credentials(value)
    return found


def _without_credentials(value: str) -> str:
    # An indented line belongs to the option before it, even if it was meant to be another one.
    if "\n" in value:
        return WITHHELD
    scheme, slashes, rest = value.partition("://")
    if not slashes:
        return value
    # A password may have an `@`, `/` or `?` in it, so all up to the last `@` goes.
    user, at, rest = rest.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        user = (name if name in _ACCOUNTS else WITHHELD) + (f":{WITHHELD}" if colon else "")
    place, mark, query = rest.partition("#")[0].partition("?")
    return f"{scheme}://{user}{at}{place}{mark}{'&'.join(map(_parameter, query.split('&')))}"


_ACCOUNTS = ("nova", "root", "stack")
"""Names of users that may stand in a URI; any other may be a token."""


def _parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    if not parameter or name in _PARAMETERS:
        return parameter
    return f"{name}={WITHHELD}" if equals else WITHHELD


_PARAMETERS = ("socket", "mode", "no_verify", "no_tty")
"""Parameters of libvirt's URIs whose values are kept."""
