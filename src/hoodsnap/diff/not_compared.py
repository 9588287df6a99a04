"""Fields of facts that are not compared, each with the reason.

Every other field is compared. tests/diff/test_not_compared.py holds that each entry names a field,
and that every compared field has a value that can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping

RAW = "the verbatim answer, whose fields are compared one by one"
COUNTER = "a counter or a gauge: it differs in every collection"
TIME = "a time of the last change: hoodsnap timeline shows it"
PER_START = "the host assigns it anew at every start"
SAME = "repeats another field"
KEY = "the key by which the objects of the two bundles are matched"
KERNEL = "the kernel's number of an object, which says nothing by itself"

NOT_COMPARED: Mapping[str, str] = {
    # nova API and databases
    "Server.uuid": KEY,
    "Server.raw": RAW,
    "Server.older": RAW,
    "Server.updated_at": TIME,
    "Server.launched_at": TIME,
    "Server.fault_at": TIME,
    **{
        f"Server.{field}": "the API returns it only of a server in error; nova's database has it"
        for field in ("fault_message", "fault_code")
    },
    "Server.vm_state": "status is derived from it; nova's database has it too",
    "Instance.uuid": KEY,
    "Instance.raw": RAW,
    "Instance.database": "the same as cell",
    "Instance.instance_extra": RAW,
    "Instance.devices": "mappings has the same rows",
    "Instance.mappings_ever": "mappings has the rows that count",
    "Instance.mappings_shown": "mappings has the same rows",
    "Instance.info_cache": RAW,
    "Instance.virtual_interfaces": RAW,
    "Instance.newer": RAW,
    "Instance.tables": RAW,
    "Instance.fault": RAW,
    "Instance.fault_at": TIME,
    **{
        f"Instance.{field}": "hoodsnap timeline shows the actions"
        for field in (
            *("last_action", "action", "action_at", "action_by", "action_failed", "request"),
            "actions",
        )
    },
    "Instance.updated_at": TIME,
    "Instance.launched_at": TIME,
    "Instance.deleted_at": TIME,
    "Instance.flavor_memory_mib": SAME,
    "Instance.flavor_vcpus": SAME,
    "Instance.flavor_root_gb": SAME,
    "Instance.base_image": "image_copy has it",
    "Instance.cached_ports": "the ids in network_info",
    "Migration.id": KEY,
    "Migration.uuid": KEY,
    "Migration.instance_uuid": KEY,
    "Migration.raw": RAW,
    "Migration.database": "the database of the server's row",
    "Migration.created_at": TIME,
    "Migration.updated_at": TIME,
    "Migration.unfinished": "follows from status",
    "BlockDeviceMapping.raw": RAW,
    "BlockDeviceMapping.database": "the database of the server's row",
    "BlockDeviceMapping.instance_uuid": KEY,
    "BlockDeviceMapping.deleted": "only live rows are compared",
    "BlockDeviceMapping.is_volume": "follows from destination_type and volume_id",
    "BlockDeviceMapping.targets_shown": "the targets of connection",
    "RequestSpec.raw": RAW,
    "RequestSpec.database": "the API database",
    "InstanceMapping.uuid": KEY,
    "InstanceMapping.raw": RAW,
    "InstanceMapping.tables": RAW,
    "InstanceMapping.cell_id": "the number of cell",
    "InstanceMapping.created_at": TIME,
    "HostRecord.id": KEY,
    "HostRecord.raw": RAW,
    "HostRecord.updated_at": TIME,
    **{
        f"{kind}.{field}": reason
        for kind in ("Service", "ComputeNode", "HostMapping")
        for field, reason in (
            ("raw", RAW),
            ("updated_at", TIME),
            ("database", "the cell of the host, which host mappings have"),
        )
    },
    "Service.last_seen_up": TIME,
    # libvirt, kernel, QEMU
    "Domain.uuid": KEY,
    "Domain.listed": RAW,
    "Domain.id": PER_START,
    "Domain.state": "state_words has it in words",
    "Domain.reason": "state_words has it in words",
    "Domain.xml": RAW,
    "Domain.inactive": RAW,
    "Domain.definition": RAW,
    "Domain.current": RAW,
    "Domain.nova": "nova_note has it also of a domain that is off",
    "Domain.is_nova": "follows from name and nova_note",
    "Domain.macs": "the interfaces have them",
    "Domain.taps": "the interfaces have them",
    "Domain.job": "a job of seconds or minutes: hoodsnap explain shows it",
    "Graphics.port": PER_START,
    "NovaMetadata.created": TIME,
    "Process.pid": PER_START,
    "Process.argv": RAW,
    "Process.files": "every process has its own descriptors; deleted_files is compared",
    "Process.state": "R, S and D alternate; stopped is compared",
    "Process.incoming": "how the process began, which restarted covers",
    "Process.threads": COUNTER,
    "Process.swap_kib": COUNTER,
    "Process.namespaces": KERNEL,
    "Process.space": KERNEL,
    "Process.vcpu_threads": "the pins in the domain's definition",
    "Process.is_emulator": "every process of a guest is one",
    "Process.is_probe": "every process of a guest is none",
    "Display.port": PER_START,
    "Drive.name": "QEMU numbers its nodes anew at every start",
    "Node.name": "QEMU numbers its nodes anew at every start",
    "BlockNode.name": "QEMU numbers its nodes anew at every start",
    "Monitor.nodes": "the nodes of disks",
    "Cgroup.pid": PER_START,
    "Cgroup.groups": PER_START,
    "Cgroup.machine": PER_START,
    "Cgroup.throttled_percent": COUNTER,
    "Cgroup.memory_used_kib": COUNTER,
    "Cgroup.cpu_pressure": COUNTER,
    # daemons
    "Daemon.name": KEY,
    "Daemon.pid": PER_START,
    "Daemon.started": "a restart is reported once",
    "Daemon.state": "R, S and D alternate; the condition of the daemon is compared",
    "Daemon.is_paused": "the condition of the daemon is compared",
    "Daemon.switches": COUNTER,
    "Daemon.unit": "the states of the units are compared",
    "Unit.name": KEY,
    "Unit.sub": "active has it in words",
    "Unit.result": "active has it of a unit that failed",
    "Unit.end": "hoodsnap explain shows how a unit failed",
    "Unit.restarts": COUNTER,
    "Unit.since": TIME,
    # disks
    "Image.path": KEY,
    "Image.top": "the first of chain",
    "Image.actual_size": COUNTER,
    "Image.format": SAME,
    "Image.virtual_size": SAME,
    "Image.corrupt": SAME,
    "Image.dirty": "a running QEMU sets and clears it",
    "Image.data_file": SAME,
    "Image.backing_filename": SAME,
    "Image.backing_format": SAME,
    "ImageInfo.actual_size": COUNTER,
    "ImageInfo.dirty": "a running QEMU sets and clears it",
    "ImageInfo.full_backing_filename": "the next file of chain",
    "Device.kname": KEY,
    "Device.raw": RAW,
    "Device.parents": "number and name are compared of each device",
    "Device.children": "number and name are compared of each device",
    "Volume.id": KEY,
    "Volume.raw": RAW,
    "Volume.updated_at": TIME,
    "Volume.is_moving": "follows from status",
    "Volume.image": "a copy of glance's image, made once",
    "Attachment.id": KEY,
    "Attachment.listed_volume": "the volume that lists it",
    "Attachment.server": "instance has it",
    "Attachment.raw": RAW,
    "Attachment.entry": RAW,
    # network
    "Port.id": KEY,
    "Port.raw": RAW,
    "Port.updated_at": TIME,
    "Port.tap": "follows from the id",
    "Port.is_guests": "follows from device_owner",
    "Network.raw": RAW,
    "Tap.prefix": KEY,
    "Tap.links": RAW,
    "Tap.rows": RAW,
    "Tap.ofport": PER_START,
    "Tap.tag": "the Open vSwitch agent numbers networks anew at every start; is_dead is compared",
    "Agent.raw": RAW,
    "Agent.heartbeat": TIME,
    "OfferedFlavor.answer": RAW,
    # placement
    "Allocation.consumer": KEY,
    "Allocation.entries": RAW,
    "Allocation.providers": "the providers are compared with their hosts",
    "Allocation.held": "resources and names are compared",
    "Allocation.roots": "names has the providers in words",
    "Allocation.hosts": "names has the providers in words",
    "Allocation.words": SAME,
    "Provider.uuid": KEY,
    "Provider.raw": RAW,
    "Provider.consumers": "the allocations are compared with their servers",
    # logs
    "Log.uuid": KEY,
    **{
        f"Log.{field}": "hoodsnap timeline shows the lines of logs"
        for field in (
            "lines",
            "nova",
            "oom_kills",
            "started",
            "started_at",
            "ended",
            "ended_at",
            "trouble",
        )
    },
    "Log.end_reason": "the reason of the domain's state",
}
"""`Class.field` → the reason why the field is not compared."""
