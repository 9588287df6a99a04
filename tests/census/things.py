"""Things: what several layers tell about one guest, host or cloud.

An identity (a UUID, an address, a path) shows by its value that two leaves tell the same thing. A
number or a word does not, so `RELATED` lists who tells it: the layer, and patterns of the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from tests.census.leaf import Kind
from tests.census.patterns import matches

from hoodsnap.facts.cloud.guest import Guest

SHORT = 6
"""Characters up to which a text is an identity only by itself: the number of a process."""

Tellers = Mapping[str, tuple[str, ...]]
"""Layer → patterns of the paths that tell a thing; `QUESTION|PATH` for one kind of question."""


def _flavor(name: str, metadata: str, column: str, of_api: str) -> Tellers:
    """Return who tells a property of a flavor, besides those that tell what became of it."""
    return {
        "nova": (f"*.flavor.{of_api}", f".flavors[].{of_api}"),
        "nova-db": (
            f"SELECT nova*.instances|[{column}]",
            f"SELECT nova_api.flavors|[{column}]",
            f"*flavor*.data.{column}",
        ),
        "libvirt": (f"*/nova:flavor/nova:{metadata}",),
    }


RELATED: Mapping[str, Tellers] = {
    "vCPUs of a flavor": {
        **_flavor("vcpus", "vcpus", "vcpus", "vcpus"),
        "placement": (".allocations.UUID.resources.VCPU",),
        "kernel": ("-smp ",),
        "qemu": ("[].cpu-index",),
    },
    "memory of a flavor": {
        **_flavor("memory", "memory", "memory_mb", "ram"),
        "placement": (".allocations.UUID.resources.MEMORY_MB",),
        "kernel": ("-m *", "-object memory-backend-ram.size"),
        "qemu": (".base-memory", ".actual"),
    },
    "root disk of a flavor": {
        **_flavor("disk", "disk", "root_gb", "disk"),
        "placement": (".allocations.UUID.resources.DISK_GB",),
        "images": ("[].virtual-size",),
        "qemu": ("*.image.virtual-size",),
    },
    "ephemeral disk of a flavor": _flavor("ephemeral", "ephemeral", "ephemeral_gb", "*ephemeral"),
    "swap of a flavor": _flavor("swap", "swap", "swap", "swap"),
    "CPU topology": {
        "libvirt": ("domain/cpu/topology@*",),
        "kernel": ("-smp sockets", "-smp dies", "-smp cores", "-smp threads"),
        "nova-db": ("[vcpu_model]*.topology*.data.*",),
    },
    "CPU model": {
        "libvirt": ("domain/cpu/model", "domain/cpu/feature@*"),
        "kernel": ("-cpu *",),
    },
    "power state": {
        "nova": ("*.OS-EXT-STS:power_state",),
        "nova-db": ("[power_state]",),
        "libvirt": (".state", "[].id"),
        "qemu": (".status", ".running"),
    },
    "vm_state and task_state": {
        "nova": ("*.OS-EXT-STS:vm_state", "*.OS-EXT-STS:task_state", ".server*.status"),
        "nova-db": ("[vm_state]", "[task_state]"),
    },
    "host of a server": {
        "nova": ("*.OS-EXT-SRV-ATTR:host", "*.OS-EXT-SRV-ATTR:hypervisor_hostname"),
        "nova-db": ("[host]", "[node]", "[launched_on]", "[hypervisor_hostname]"),
        "neutron": ("*.binding:host_id", ".bindings[].host", ".agents[].host"),
        "cinder": ("*.attachments[].host_name", "*.connector.host"),
        "libvirt": ("line vm",),
        "host": (".DEFAULT.host", "line vm"),
        "placement": (".resource_providers[].name",),
    },
    "state of a service": {
        "nova": (".services[].status", ".services[].state", ".services[].forced_down"),
        "nova-db": ("[disabled]", "[forced_down]", "[last_seen_up]"),
    },
    "state of a migration": {
        "nova": (".migrations[].status", ".migrations[].migration_type"),
        "nova-db": ("[status]", "[migration_type]"),
    },
    "vCPUs of a host": {
        "nova": (".hypervisors[].vcpus",),
        "nova-db": ("SELECT nova.compute_nodes|[vcpus]",),
        "placement": (".inventories.VCPU.total",),
        "libvirt": (".cpus", "capabilities/host/topology/cells/cell/cpus@num"),
    },
    "memory of a host": {
        "nova": (".hypervisors[].memory_mb",),
        "nova-db": ("SELECT nova.compute_nodes|[memory_mb]",),
        "placement": (".inventories.MEMORY_MB.total",),
        "libvirt": (".memory_mib", "capabilities/host/topology/cells/cell/memory"),
        "kernel": ("line MemTotal:*",),
    },
    "disk of a host": {
        "nova": (".hypervisors[].local_gb",),
        "nova-db": ("[local_gb]",),
        "placement": (".inventories.DISK_GB.total",),
    },
    "resources in use": {
        "nova": (".hypervisors[].*_used", ".hypervisors[].running_vms"),
        "nova-db": ("[*_used]", "[running_vms]", "[stats].num_instances"),
        "placement": (".usages.*",),
    },
    "allocation ratio": {
        "nova-db": ("[*_allocation_ratio]",),
        "placement": (".inventories.*.allocation_ratio",),
        "host": (".DEFAULT.*_allocation_ratio",),
    },
    "reserved memory": {
        "placement": (".inventories.MEMORY_MB.reserved",),
        "host": (".DEFAULT.reserved_host_memory_mb",),
    },
    "version of the hypervisor": {
        "nova": (".hypervisors[].hypervisor_version",),
        "nova-db": ("[hypervisor_version]",),
        "libvirt": (".hypervisor",),
        "host": ("line QEMU emulator version *",),
        "qemu": (".qemu.*",),
    },
    "version of nova": {
        "libvirt": ("*/nova:package@version", "domain/sysinfo/system/entry"),
        "kernel": ("-smbios version",),
        "host": ("line N.N.N",),
    },
    "size of a volume": {
        "cinder": (".volume*.size",),
        "nova-db": ("[volume_size]",),
        "images": ("[].virtual-size",),
        "block": (".blockdevices[].size",),
    },
    "attachment of a volume": {
        "cinder": ("*.attach_mode", "*.access_mode", "*.encrypted", "*.attachments[].status"),
        "nova-db": ("[connection_info].data.access_mode", "[encrypted]", "[attach_mode]"),
    },
    "delete on termination": {
        "nova": ("*.delete_on_termination",),
        "nova-db": ("[delete_on_termination]",),
    },
    "size of an image": {
        "glance": (".images[].size", ".size"),
        "cinder": ("*.volume_image_metadata.size",),
        "nova-db": ("*image*.data.size",),
    },
    "limits of an image": {
        "glance": ("*.min_disk", "*.min_ram"),
        "cinder": ("*.volume_image_metadata.min_*",),
        "nova-db": ("*image*.data.min_*", "[image_min_*]"),
    },
    "format of an image": {
        "glance": ("*disk_format", "*container_format"),
        "cinder": ("*.volume_image_metadata.*_format",),
        "nova-db": ("*image*.data.*_format",),
    },
    "format of a disk": {
        "images": ("[].format", "*backing-filename-format"),
        "libvirt": ("domain/devices/disk/driver@type", "*/backingStore/format@type"),
        "kernel": ("-blockdev *.driver",),
        "qemu": ("*.drv", "*.format"),
        "host": (".libvirt.images_type",),
    },
    "cache mode of a disk": {
        "libvirt": ("domain/devices/disk/driver@cache",),
        "kernel": ("-blockdev *.direct", "-blockdev *.no-flush", "*.write-cache"),
        "qemu": ("*.cache.direct", "*.cache.writeback", "*.cache.no-flush"),
    },
    "read-only disk": {
        "libvirt": ("member domain/devices/disk/readonly",),
        "kernel": ("-blockdev *.read-only",),
        "qemu": ("*.ro",),
    },
    "bus and device of a disk": {
        "libvirt": ("domain/devices/disk/target@*", "domain/devices/disk@device"),
        "nova-db": ("[disk_bus]", "[device_type]", "[device_name]"),
        "glance": (".hw_disk_bus", ".hw_cdrom_bus"),
        "cinder": ("*.hw_disk_bus", "*.device"),
        "nova": ("*.OS-EXT-SRV-ATTR:root_device_name",),
        "kernel": ("-device virtio-blk-pci.driver", "-device ide-cd.driver"),
    },
    "boot order": {
        "nova-db": ("[boot_index]",),
        "libvirt": ("domain/os/boot@dev",),
        "kernel": ("-device *.bootindex",),
    },
    "model of a network card": {
        "libvirt": ("domain/devices/interface/model@type",),
        "glance": (".hw_vif_model",),
        "kernel": ("-device virtio-net-pci.driver",),
    },
    "model of a device": {
        "libvirt": ("domain/devices/video/model@type", "domain/devices/input@*"),
        "glance": (".hw_video_model", ".hw_input_bus", ".hw_pointer_model"),
        "kernel": ("-device virtio-vga.driver", "-device usb-tablet.driver"),
    },
    "machine type": {
        "libvirt": ("domain/os/type@machine",),
        "glance": (".hw_machine_type",),
        "kernel": ("-machine ",),
    },
    "kind of virtualization": {
        "libvirt": ("domain@type",),
        "kernel": ("-accel ",),
        "host": (".libvirt.virt_type",),
        "nova": (".hypervisors[].hypervisor_type",),
        "nova-db": ("[hypervisor_type]",),
    },
    "MTU of a network": {
        "neutron": (".networks[].mtu",),
        "nova-db": ("*.network.meta.mtu",),
        "libvirt": ("domain/devices/interface/mtu@size",),
        "kernel": ("-device virtio-net-pci.host_mtu",),
        "network": ("[].mtu", "[mtu]"),
    },
    "segment of a network": {
        "neutron": (".networks[].provider:*",),
        "network": ("[other_config]{segmentation_id}", "[other_config]{network_type}"),
    },
    "binding of a port": {
        "neutron": ("*vif_type", "*vnic_type", "*.vif_details.*", "*:vif_details.*"),
        "nova-db": ("[network_info][].type", "[network_info][].details.*", "*.vnic_type"),
    },
    "state of a port": {
        "neutron": (".ports[].status", ".ports[].admin_state_up"),
        "nova-db": ("[network_info][].active",),
        "network": ("[].operstate", "[admin_state]", "[link_state]", "*{iface-status}"),
    },
    "console": {
        "libvirt": ("domain/devices/graphics@*", "domain/devices/graphics/listen@address"),
        "kernel": ("-vnc ", "line LISTEN *"),
        "host": (".vnc.server_listen", ".vnc.server_proxyclient_address", ".vnc.enabled"),
        "qemu": (".service", ".host", ".enabled"),
    },
    "availability zone": {
        "nova": ("*OS-EXT-AZ:availability_zone", ".services[].zone"),
        "nova-db": ("[availability_zone]", "*.data.availability_zone"),
        "cinder": ("*.availability_zone",),
    },
    "lock of a server": {
        "nova": ("*.locked",),
        "nova-db": ("[locked]", "[locked_by]"),
    },
    "namespace": {
        "host": (".cgroup", ".ipc", ".mnt", ".net", ".pid", ".user", ".uts"),
        "kernel": (".cgroup", ".ipc", ".mnt", ".net", ".pid", ".user", ".uts"),
    },
    "user of QEMU": {
        "libvirt": ("domain/seclabel/*label", "capabilities/host/secmodel/baselabel"),
        "kernel": ("line Uid:*", "line Gid:*"),
        "images": ("*.uid", "*.gid"),
    },
}
"""Numbers and words that several layers tell, by the thing they tell."""


@cache
def related(kind: Kind) -> str | None:
    """Return the thing that a leaf tells by a number or a word."""
    for name, tellers in RELATED.items():
        if any(_matches(pattern, kind) for pattern in tellers.get(kind.layer, ())):
            return name
    return None


def _matches(pattern: str, kind: Kind) -> bool:
    question, _, path = pattern.rpartition("|")
    return matches(path, kind.path) and matches(question or "*", kind.question)


def thing(value: object, known: Mapping[str, tuple[str, ...]], kind: Kind) -> str:
    """Return the thing that a leaf tells, given the identities of its guest; "" if it is none.

    A path that holds a UUID is told by the path, so the longest identity in a value decides.
    """
    text = str(value).lower()
    found = [
        (len(identity), name)
        for name, identities in known.items()
        for identity in identities
        if identity.lower() == text or (len(identity) > SHORT and identity.lower() in text)
    ]
    return max(found)[1] if found else related(kind) or ""


def identities(guest: Guest) -> Mapping[str, tuple[str, ...]]:
    """Return the identities of a guest and of what it uses, by what they identify."""
    found: dict[str, tuple[object, ...]] = {
        "UUID": (guest.uuid,),
        "name": (guest.name,),
        "domain name": (guest.domain_name,),
        "process": (guest.process.pid,) if guest.process is not None else (),
        "port": tuple(port.id for port in guest.ports or ()),
        "MAC address": tuple(port.mac for port in guest.ports or ()),
        "fixed address": tuple(address for port in guest.ports or () for address in port.addresses),
        "network": tuple(port.network_id for port in guest.ports or ()),
        "tap": tuple(tap.name for tap in guest.taps or ()),
        "volume": tuple(volume.id for volume in guest.volumes or ()),
    }
    if guest.domain is not None:
        found["disk file"] = tuple(disk.source for disk in guest.domain.disks)
    if guest.server is not None:
        raw = guest.server.raw
        found |= {"project": (raw.get("tenant_id"),), "user": (raw.get("user_id"),)}
        found["image"] = (guest.server.image,)
    return {
        name: tuple(str(value) for value in values if value)
        for name, values in found.items()
        if any(values)
    }
