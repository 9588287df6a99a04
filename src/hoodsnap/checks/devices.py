"""The host has the block devices of its guests, and no others of cinder's."""

from __future__ import annotations

from hoodsnap.check import Problems, check
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_in
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.device import Device, Session


@check(Severity.WARNING)
def host_device_leftover(host: Host) -> Problems:
    """The host still has a volume's device that no guest of it uses.

    A detach that failed half way. When the storage gives the LUN's number to another volume, the
    device is that one's, and the next guest that is given the old one gets the other's data.

    Authority: the kernel, for which devices are open; the nova database, for what this host is to
    have.

    Traps: the host's own storage; devices of others than nova; attaching and detaching; one iSCSI
    session may have many LUNs.

    Next: `lsblk`, `multipath -ll`, `iscsiadm -m session -P 3`, and `ls -l /proc/*/fd` for who has
    the device. Then, if nobody has, flush the one map (`multipath -f WWID`) and delete its paths.

    Not yet: `iscsiadm -m node -u`, `multipath -F`, rescan-scsi-bus -r: they take away the devices
    of other guests.

    Source: nova bug 2004555, os-brick, cinder's documentation on troubleshooting.
    """
    devices = host.devices
    found = [
        (session, lun, devices.by_name[kname])
        for session in devices.sessions
        for lun, kname in session.disks
        if kname in devices.by_name and _is_cinders(host, session, lun)
    ]
    if not found:
        return
    used, mapped = _used(host), _mapped(host)
    for session, lun, disk in found:
        stack = list(devices.above(disk))
        if (session.target, lun) in mapped or any(_is_in_use(one, used) for one in stack):
            continue
        brought = hears(
            devices.said["iscsiadm -m session -P 3"],
            "iscsi",
            session.target,
            target=session.target,
            lun=lun,
        )
        yield brought, *(says(one, name=one.name, number=one.number) for one in stack)


def _is_cinders(host: Host, session: Session, lun: int) -> bool:
    """Whether a LUN is a volume: by its target's name, or by a row that had it."""
    return volume_in(session.target.partition(":")[2]) is not None or (
        (session.target, lun) in _ever_mapped(host)
    )


def _ever_mapped(host: Host) -> frozenset[tuple[str, int]]:
    """The LUNs that rows of this host's guests name, plugged out ones too, as far as was read."""
    return frozenset(
        target
        for guest in host.guests
        if guest.instance is not None
        for row in guest.instance.mappings_ever
        for target in row.targets_shown
    )


def _mapped(host: Host) -> frozenset[tuple[str, int]]:
    """The LUNs that live rows of this host's guests name. All of them must have been read."""
    found: set[tuple[str, int]] = set()
    for guest in host.guests:
        if guest.moving:
            raise UnheardError(f"a guest changed while it was captured ({guest.moving})")
        if guest.instance is None:
            if guest.record is not None or "nova-db" in guest.unheard:
                raise UnheardError("which volumes nova has plugged in was not read")
            continue
        for row in guest.instance.mappings:
            connection = row.connection
            found |= connection.targets if connection is not None else frozenset()
    return frozenset(found)


def _used(host: Host) -> frozenset[str]:
    """The numbers of the devices that QEMU processes have open. All must have been read."""
    if "kernel" in host.unheard or host.nameless:
        raise UnheardError(host.unheard.get("kernel") or host.nameless or "")
    processes = (*host.processes.values(), *host.strangers.values())
    return frozenset(file.rdev for process in processes for file in process.files)


def _is_in_use(device: Device, used: frozenset[str]) -> bool:
    """A guest has it open, or the host itself uses it: mounted, as swap, or as part of LVM."""
    own = device.mountpoints or device.type in ("part", "lvm", "raid0", "raid1", "raid5", "raid10")
    return bool(own) or device.number in used
