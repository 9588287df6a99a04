"""The host's block devices: volumes that are still connected but not used by any guest."""

from __future__ import annotations

from collections.abc import Iterable

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_in
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.device import Device, Session


@check(Severity.WARNING)
def host_device_leftover(host: Host, cloud: Cloud) -> Problems:
    """The host still has the device of a volume that no guest on it uses.

    A detach failed half way. If the storage assigns the LUN to another volume, the old device leads
    to that volume's data, and the next guest that gets the device gets another owner's data.

    Authority: The kernel, for which devices are open; the nova database, for which volumes this
    host should have.

    Traps: The host's own storage. Devices that do not belong to nova. Attaching and detaching. One
    iSCSI session may have many LUNs.

    Next: List the devices, and check which process has the device open:

        lsblk
        multipath -ll
        iscsiadm -m session -P 3
        ls -l /proc/*/fd

    If no process has it open, flush its multipath map:

        multipath -f WWID

    Then delete the device (and each other path that `multipath -ll` listed for a map), which
    disconnects it from the host:

        echo 1 > /sys/block/DEVICE/device/delete

    It worked if the device is not listed any more:

        lsblk

    Not yet: Do not run `iscsiadm -m node -u`, `multipath -F` or `rescan-scsi-bus.sh -r`: they
    remove the devices of other guests.

    Source: nova bug 2004555, os-brick, cinder's documentation on troubleshooting.
    """
    devices = host.devices
    guests = cloud.guests_of(host)
    found = [
        (session, lun, devices.by_name[kname])
        for session in devices.sessions
        for lun, kname in session.disks
        if kname in devices.by_name and _is_cinders(guests, session, lun)
    ]
    if not found:
        return
    used, mapped = _used(host), _mapped(guests)
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
        volume = volume_in(session.target.partition(":")[2])
        title = cloud.storage.volumes.title_of(volume) if volume else f"LUN {lun}"
        yield problem(
            f"Host {host.name} still has device {disk.kname} of {title}, which no guest uses",
            brought,
            *(says(one, name=one.name, number=one.number) for one in stack),
            DEVICE=disk.kname,
            WWID=_wwid(host, stack),
        )


def _wwid(host: Host, stack: Iterable[Device]) -> str | None:
    """Return the WWID of the multipath map among the devices; "" without one, None if unknown."""
    names = {device.kname for device in stack}
    maps = known(lambda: host.devices.maps)
    if maps is None:
        return None
    return next((one.wwid for one in maps if one.kname in names), "")


def _is_cinders(guests: Iterable[Guest], session: Session, lun: int) -> bool:
    """True if a LUN is a cinder volume: by its target's name, or because a database row has it."""
    return volume_in(session.target.partition(":")[2]) is not None or (
        (session.target, lun) in _ever_mapped(guests)
    )


def _ever_mapped(guests: Iterable[Guest]) -> frozenset[tuple[str, int]]:
    """Return the LUNs in the mappings of this host's guests, detached ones too, as far as
    collected."""
    return frozenset(
        target
        for guest in guests
        if guest.instance is not None
        for row in guest.instance.mappings_ever
        for target in row.targets_shown
    )


def _mapped(guests: Iterable[Guest]) -> frozenset[tuple[str, int]]:
    """Return the LUNs in the live mappings of this host's guests. All mappings must be known."""
    found: set[tuple[str, int]] = set()
    for guest in guests:
        if guest.moving:
            raise UnheardError(f"a guest changed while it was captured ({guest.moving})")
        if guest.instance is None:
            if guest.record is not None or "nova-db" in guest.unheard:
                raise UnheardError("the volumes attached in nova were not collected")
            continue
        for row in guest.instance.mappings:
            connection = row.connection
            found |= connection.targets if connection is not None else frozenset()
    return frozenset(found)


def _used(host: Host) -> frozenset[str]:
    """Return the device numbers that QEMU processes have open. All must have been collected."""
    if "kernel" in host.unheard or host.processes.nameless:
        raise UnheardError(host.unheard.get("kernel") or host.processes.nameless or "")
    return frozenset(file.rdev for process in host.processes.everyones for file in process.files)


def _is_in_use(device: Device, used: frozenset[str]) -> bool:
    """True if a guest has the device open, or the host uses it: mounted, as swap, or as part of
    LVM."""
    own = device.mountpoints or device.type in ("part", "lvm", "raid0", "raid1", "raid5", "raid10")
    return bool(own) or device.number in used
