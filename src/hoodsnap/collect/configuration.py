"""nova.conf as nova itself would read it, and which of its options may be kept.

The syntax is oslo.config's (its iniparser.py and cfg.py), which differs from Python's configparser:
lines that go on, quotes, `$other_option`, options given twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hoodsnap.collect.ownership import Owners, names_in, read_owned
from hoodsnap.collect.recorder import WITHHELD, Recorder, RefusedError
from hoodsnap.collect.service import COMPUTE, Found, RunningService, account, find

Configuration = dict[str, dict[str, str]]
"""Section → option → value. As read, it holds passwords: only what is `kept` of it is recorded."""

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
class NovaConf:
    """Configuration of the running service; without a running one, of the service if it ran."""

    options: Configuration
    """Options of the files that are followed. Holds passwords."""
    found: Found
    """The processes that carry the service's name."""
    refused: tuple[tuple[str, RefusedError], ...] = ()
    """The files that the service reads and that are not believed: path, and why."""
    files: tuple[str, ...] = ()
    """The files that were read."""

    @classmethod
    def nothing(cls, why: object) -> NovaConf:
        """Return a configuration that could not be read; `why` is what reading it raised."""
        late = isinstance(why, TimeoutError)
        refusal = RefusedError(
            "timeout" if late else "failed", f"nova.conf was not read: {why or 'it took too long'}"
        )
        return cls({}, Found(COMPUTE, (), ()), (("/etc/nova/nova.conf", refusal),))

    @property
    def owners(self) -> Owners:
        """The accounts whose word the configuration is: root's and the service's."""
        return _owners(self.found)

    @property
    def knows_account(self) -> bool:
        """Is nova's account on this host known?"""
        return self.found.service is not None or account("nova") is not None

    @property
    def service(self) -> RunningService | None:
        """The service that is followed; None if none runs."""
        return self.found.service

    @property
    def unread(self) -> RefusedError | None:
        """Return why the configuration is not known, or only in part; None if it is."""
        if self.refused:
            return self.refused[0][1]
        return None if self.files else RefusedError("absent", "nova has no configuration file here")

    def say(self, recorder: Recorder) -> None:
        """Put into the bundle which processes and files are not followed, and why."""
        self.found.say(recorder)
        for path, refusal in self.refused:
            recorder.ask("host", f"ls -ld {path}", partial(_raise, refusal))


def read_nova_conf(program: str = COMPUTE, root: Path = Path("/")) -> NovaConf:
    """Read the configuration of the running service of this name, or the host's if none runs.

    Files that don't exist, or that only root may read, are left out. Files that others than root
    and the service's account could have written are not believed.
    """
    found = find(program)
    running = found.service
    reader = _Reader(_owners(found), running.root if running else root)
    files = _files_of(running, program, reader) if running else _files_on(program, reader)
    merged: Configuration = {}
    for file in files:
        for section, options in parse(reader.lines(file)).items():
            merged.setdefault(section, {}).update(options)
    refused, read = tuple(reader.refused.items()), tuple(reader.read)
    return NovaConf(substituted(merged), found, refused, read)


def _raise(refusal: RefusedError) -> None:
    raise refusal


def _owners(found: Found) -> Owners:
    """Root, the collector's account, and that of the running service or else the account nova."""
    if found.service is not None:
        own = found.service.owners
    else:
        nova = account("nova")
        own = Owners(frozenset({nova.pw_uid}), frozenset({nova.pw_gid})) if nova else Owners()
    return Owners(own.uids | {os.geteuid()}, own.gids | {os.getegid()})


class _Reader:
    """Reads the files of a service inside its root, and notes those that are not believed."""

    def __init__(self, owners: Owners, root: Path) -> None:
        self.refused: dict[str, RefusedError] = {}
        self.read: list[str] = []
        self._owners = owners
        self._root = str(root)

    def lines(self, path: str) -> list[str]:
        """The lines of a file; none if it does not exist or is not believed."""
        try:
            text = read_owned(path, self._owners, root=self._root)
        except RefusedError as refusal:
            self._note(path, refusal)
            return []
        self.read.append(path)
        return text.splitlines(keepends=True)

    def files_in(self, folder: str) -> list[str]:
        """The paths of the configuration files in a folder, sorted."""
        try:
            names = names_in(folder, self._owners, root=self._root)
        except RefusedError as refusal:
            self._note(folder, refusal)
            return []
        return [f"{folder}/{name}" for name in names if _is_conf(name)]

    def exists(self, path: str) -> bool:
        """Does a file exist, followed or not?"""
        return os.path.lexists(f"{self._root.rstrip('/')}{path}")

    def _note(self, path: str, refusal: RefusedError) -> None:
        if refusal.kind != "absent":
            self.refused[path] = refusal


def _is_conf(name: str) -> bool:
    return name.endswith(".conf") and not name.startswith(".")


def _files_of(running: RunningService, program: str, reader: _Reader) -> list[str]:
    """The files that a service was started with, in the order in which it reads them."""
    explicit: list[str] = []
    named = {"--config-file": False, "--config-dir": False}
    words = iter(running.arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in named:
            continue
        named[option] = True
        path = "/" + (value if equals else next(words, "")).lstrip("/")
        explicit += [path] if option == "--config-file" else reader.files_in(path)
    files = [] if named["--config-file"] else _default_files(program)
    # Naming files does not switch the default folders off; they are read before.
    folders = [] if named["--config-dir"] else _default_folders(program, reader)
    return files + folders + explicit


def _files_on(program: str, reader: _Reader) -> list[str]:
    """The files that a service would read on this host, wherever its distribution put them."""
    places = [
        [*_default_files(program), *_default_folders(program, reader)],
        [f"/etc/kolla/{program}/nova.conf"],
        ["/var/lib/config-data/puppet-generated/nova_libvirt/etc/nova/nova.conf"],
    ]
    if program == COMPUTE:  # DevStack gives it one of its own, without databases
        places.insert(0, ["/etc/nova/nova-cpu.conf"])
    return next((files for files in places if any(map(reader.exists, files))), [])


def _default_files(program: str) -> list[str]:
    return [
        "/usr/share/nova/nova-dist.conf",  # RDO
        "/etc/nova/nova.conf",
        f"/etc/nova/{program}.conf",
    ]


def _default_folders(program: str, reader: _Reader) -> list[str]:
    return [
        *reader.files_in("/etc/nova/nova.conf.d"),
        *reader.files_in(f"/etc/nova/{program}.conf.d"),
    ]


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


LONGEST = 1 << 20
"""Characters and references that all references together bring in. nova's own have a thousand;
ten references to an option that has ten itself, and so on, would fill any memory."""


def substituted(configuration: Configuration) -> Configuration:
    """Replace `$option` and `${section.option}` by their values, as far as these are set.

    In an option that is recorded, a reference to one that is not stays as it was written.
    """
    values = _Values(configuration)
    return {
        section: {
            option: values.value(section, value, ((section, option),))
            for option, value in options.items()
        }
        for section, options in configuration.items()
    }


_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[_a-z][._a-z0-9]*)|\{(?P<braced>[_a-z][._a-z0-9]*)\})",
    re.IGNORECASE,
)


class _Values:
    """The values of a configuration, with what they refer to."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._left = LONGEST

    def value(self, section: str, value: str, within: tuple[tuple[str, str], ...]) -> str:
        """A value of this section; `within`: the options that led to it."""
        recorded = _is_kept(*within[0])

        def meaning(reference: re.Match[str]) -> str:
            if reference["dollar"]:
                return "$"
            group, dot, option = (reference["plain"] or reference["braced"]).rpartition(".")
            for place in (group,) if dot else (section, "DEFAULT"):
                if recorded and not _is_kept(place, option):
                    continue
                found = self._configuration.get(place, {}).get(option)
                if found is not None and (place, option) not in within:  # else it leads to itself
                    self._left -= 1 + len(found)
                    if self._left < 0:
                        break
                    return self.value(place, found, (*within, (place, option)))
            return reference[0]

        return _REFERENCE.sub(meaning, value.replace("\\$", "$$"))


def _is_kept(section: str, option: str) -> bool:
    return option in KEPT.get(section, ())


def kept(configuration: Configuration) -> Configuration:
    """The options that may be recorded, sorted."""
    found: Configuration = {}
    for section, options in sorted(configuration.items()):
        for option, value in sorted(options.items()):
            if _is_kept(section, option):
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
