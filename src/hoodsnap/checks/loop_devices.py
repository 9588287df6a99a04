"""Loop devices of the host over the files of guests' disks."""

from __future__ import annotations

import posixpath
from functools import partial

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, in_a_container, migrating, task_in_flight
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.held_files import inode_of
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import known
from hoodsnap.facts.host.device import LOOPS
from hoodsnap.facts.host.instances_directory import disk_owner


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, in_a_container])
def loop_device_on_disk(guest: Guest, host: Host, domain: Domain) -> Problems:
    """A loop device of the host can write to a disk of a guest.

    What the host writes through it, even if only the journal of a mounted file system, mixes with
    what the running guest writes, and damages the guest's file system. If the guest is off (a
    warning), its next start has the same consequence. `losetup` or `mount -o loop` made a block
    device of the disk's file, to look into it or to repair it; QEMU's locks do not keep a loop
    device out.

    Authority: The kernel's list of loop devices.

    Traps: A loop device that is read-only. nova itself makes one while it builds or starts a
    server, for a config drive or an LXC container. A loop device that is itself a disk of the
    guest, or below the file system that holds the guests' files.

    Next: Check which file system or volume group is on the loop device, and who uses it:

        losetup --list
        lsblk
        lsof /dev/LOOP

    If nobody works with it any more, unmount its file systems first, because they go on writing:

        umount MOUNTED

    Then deactivate partitions and volume groups that the host found on it (`kpartx -d`, `vgchange
    -an`), and detach it, unless the unmounting did so:

        losetup -d /dev/LOOP

    It worked if the loop device is not listed any more:

        losetup --list

    If anything was written through it while the guest ran, check the guest's file system from
    inside the guest, after a backup.

    Not yet: Do not mount or repair (fsck) anything on the loop device; even a read-only mount may
    replay a journal. Do not run `umount -l`: it hides a file system that goes on writing. Do not
    start the server before the loop device is gone.

    Source: losetup(8), loop(4); QEMU block/file-posix.c (`RAW_LOCK_PERM_BASE`).
    """
    own = {posixpath.basename(disk.source or "") for disk in domain.current.disks}
    for kname, file in host.devices.writable_loops.items():
        its = _belongs_to(guest, host, domain, file)
        if its is None or kname in own:
            continue
        runs = domain.id is not None
        mounted = known(partial(_mounted, host, kname)) or ()
        title = guest.title
        yield problem(
            f"/dev/{kname} on {host.name} can write to {title}'s {its} {phrase.place(file)}"
            f"{f', mounted in {phrase.several(mounted)}' if mounted else ''}"
            f"{'' if runs else f'; {title} is off'}",
            hears(host.devices.said[LOOPS], "losetup", kname, file=file, ro=False),
            says(domain, state=domain.state_words),
            severity=None if runs else Severity.WARNING,
            LOOP=kname,
            MOUNTED=mounted[-1] if mounted else "",
        )


def _belongs_to(guest: Guest, host: Host, domain: Domain, file: str) -> str | None:
    """Return the word for a file that is a guest's: disk, volume or file; None if it is not."""
    for disk in domain.current.disks:
        if disk.image.type == "file" and disk.source and _is_same(host, disk.source, file):
            return "disk" if volume_of(disk) is None else "volume"
    return "file" if disk_owner(file) == guest.uuid else None


def _is_same(host: Host, source: str, file: str) -> bool:
    """True if a disk is this file: by its path, by its inode, or in two mounts of one share."""
    if host.images.listed_path(source) == file:
        return True
    one, other = (known(partial(host.images.entry, path)) for path in (source, file))
    if one is not None and other is not None:
        return bool(one.ino) and inode_of(one) == inode_of(other)
    # nova, cinder and the export itself may have the same share in different folders. A file of
    # the same name on another file system is a copy, which may be looked into.
    mount, another = (known(partial(host.devices.mount_of, path)) for path in (source, file))
    return (
        mount is not None
        and another is not None
        and mount.number == another.number
        and source.removeprefix(mount.folder) == file.removeprefix(another.folder)
    )


def _mounted(host: Host, kname: str) -> tuple[str, ...]:
    """Return the mount points of a device and of all devices on it."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [kname]
    while waiting:
        device = host.devices.by_name.get(waiting.pop())
        if device is not None and device.kname not in seen:
            seen.add(device.kname)
            found |= dict.fromkeys(device.mountpoints)
            waiting += device.children
    return tuple(found)
