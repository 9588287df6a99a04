"""Block devices of guests' volumes that the host can't write to."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import in_a_container
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.host.device import Device
from hoodsnap.phrase import several


@check(Severity.ERROR, traps=[in_a_container])
def volume_device_read_only(guest: Guest, host: Host, domain: Domain) -> Problems:
    """The block device of a volume that a guest writes to is read-only on the host.

    The guest's writes fail, or its next start does: QEMU can't open the device. If only some paths
    of a multipath device are read-only, this is a warning. The kernel marks a device read-only if
    the storage reports its LUN as write-protected, as it does for the second copy of a replication
    and for a full pool, or if somebody did so with `blockdev --setro`.

    Authority: The kernel, for whether the device can be written to; libvirt, for whether the guest
    may write.

    Traps: Disks that the guest only reads. In a container the devices may be other ones.

    Next: Check the devices, what the kernel reports about them, and the guest's state:

        lsblk
        journalctl -k --grep='write protect|read-only|i/o error'
        virsh domstate --reason NAME

    If the kernel reports write protection, find out on the storage why it protects the LUN, and end
    that there: a replication that failed over, or a pool that is full. The kernel then has to read
    the LUN's state again, for each path of it:

        echo 1 > /sys/block/DEVICE/device/rescan

    If the storage allows writes and somebody set the device read-only, make it writable again:

        blockdev --setrw /dev/DEVICE

    It worked if RO is 0 for the device and all devices that are built on it:

        lsblk

    Not yet: Do not make the device writable while the storage protects the LUN: another site may
    write to its copy. Do not stop, hard-reboot or migrate the guest: it may not start again.

    Source: Linux drivers/scsi/sd.c `sd_read_write_protect_flag`; blockdev(8); lsblk(8).
    """
    if domain.id is None or not guest.is_here:
        return
    for disk in domain.disks:
        if disk.image.type != "block" or disk.source is None or volume_of(disk) is None:
            continue
        device = host.devices.find(disk.source) if not disk.read_only else None
        if device is not None and disk.device != "cdrom":
            yield from _protected(guest, host, domain, disk, device)


def _protected(
    guest: Guest, host: Host, domain: Domain, disk: Disk, device: Device
) -> Iterator[Problem]:
    bottom = [host.devices.by_name[name] for name in sorted(host.devices.below(device))]
    named = {one.kname: one for one in (device, *bottom) if one.read_only}
    if not named:
        return
    # A map sends writes to the paths that are left, until it uses another one.
    whole = device.read_only or all(one.read_only for one in bottom)
    title = guest.storage.volumes.title_of(volume_of(disk) or "")
    lowest = [*named][-1]
    what = "is" if whole else "has a path that is"
    yield problem(
        f"{guest.title}'s {title}, disk {disk.target}, {what} read-only on {host.name}: "
        f"{several(named)}",
        says(domain, disks=f"{disk.target} {disk.source}"),
        *(says(one, kname=one.kname, read_only=True) for one in [*named.values()][:4]),
        severity=None if whole else Severity.WARNING,
        VOLUME=volume_of(disk),
        DEVICE=lowest,
    )
