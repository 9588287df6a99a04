"""The mounts of a host: file systems of guests' disks that can't be written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught, is_true, known
from hoodsnap.facts.host.device import Mount

LISTED = 3
"""Number of guests whose definitions are shown as evidence."""


@check(Severity.ERROR)
def mount_read_only(host: Host, cloud: Cloud) -> Problems:
    """A file system with disks that guests write to is mounted read-only on the host.

    If only the host's mount is read-only, running guests keep writing: each QEMU has mounts of its
    own, copied when the guest started. But QEMU can't open the disk for writing again: the next
    start, hard reboot, snapshot, resize or attachment fails with "Read-only file system". If the
    file system itself is read-only, the writes of running guests fail, too. The kernel makes a file
    system read-only after an error of its disk or of its own structures.

    Authority: The kernel's table of mounts.

    Traps: Disks that guests only read, and base images, may be on a read-only mount. A path that
    leads elsewhere through a link is left out: the file's device is compared with the mount's. In a
    container the mounts of libvirt are others, as are those of a collector whose own root is
    mounted read-only (a unit with `ProtectSystem=strict`): then only a file system that is itself
    read-only counts.

    Next: Check the mount, what the kernel reports of its disk, and how the mount is meant:

        findmnt -T FOLDER
        journalctl -k --grep='read-only|i/o error|ext4-fs|xfs|nfs'
        grep FOLDER /etc/fstab /proc/self/mountinfo

    If nobody made it read-only on purpose, make the mount writable again. Running guests don't
    notice:

        mount -o remount,bind,rw BOUND

    If the file system itself is read-only and the kernel reports errors, its disk has to be
    repaired first, with the guests shut down from inside and the file system unmounted. If the
    kernel reports none, mount it writable again:

        mount -o remount,rw REMOUNTED

    It worked if the mount's options begin with rw:

        findmnt -T FOLDER

    Not yet: Do not stop, hard-reboot, resize or migrate the guests, or attach or detach volumes,
    before the mount is writable. Do not mount a file system with errors writable: that damages it
    further. Do not run fsck on a mounted file system.

    Source: proc(5), `mountinfo`; mount(8), `remount,bind`; libvirt qemu.conf, `namespaces`;
    ext4(5), `errors=remount-ro`.
    """
    users: dict[Mount, dict[str, tuple[Guest, Domain, Disk]]] = {}
    unknown: UnheardError | None = None
    for guest in cloud.guests_of(host):
        try:
            for mount, domain, disk in _read_only(host, guest):
                users.setdefault(mount, {}).setdefault(guest.uuid, (guest, domain, disk))
        except UnheardError as reason:
            unknown = reason
    own = known(partial(_of_instances, host))
    if own is not None:
        users.setdefault(own, {})
    table = host.bundle.last("kernel", "/proc/self/mountinfo", host.name)
    for mount, those in users.items():
        assert table is not None  # noqa: S101 (its mounts were read)
        system = mount.read_only_system
        state = "a read-only file system" if system else "mounted read-only"
        yield problem(
            f"{phrase.brief(mount.folder)} on {host.name} is {state}, but {_writers(those)}",
            hears(
                table,
                "kernel",
                mount.folder,
                folder=mount.folder,
                device=mount.number,
                read_only="the file system" if system else "the mount",
            ),
            *(
                says(domain, disks=f"{disk.target} {disk.source}")
                for _, domain, disk in [*those.values()][:LISTED]
            ),
            FOLDER=mount.folder,
            BOUND="" if system else mount.folder,
            REMOUNTED=mount.folder if system else "",
        )
    if unknown is not None and not users:
        raise unknown


def _writers(those: dict[str, tuple[Guest, Domain, Disk]]) -> str:
    if not those:
        return "nova-compute keeps its instances there"
    names = phrase.several(guest.title for guest, *_ in those.values())
    return f"{names} {'writes' if len(those) == 1 else 'write'} to disks there"


def _read_only(host: Host, guest: Guest) -> Iterator[tuple[Mount, Domain, Disk]]:
    """Yield the read-only mounts of the disks that the guest, running or at its next start, writes
    to."""
    domain = guest.domain
    if domain is None or guest.moving is not None:
        return
    runs = domain.id is not None
    for disk in domain.disks if runs or not domain.persistent else domain.inactive_disks:
        path = disk.source or ""
        if disk.image.type != "file" or disk.read_only or disk.transient or disk.device == "cdrom":
            continue
        mount = _mount_of(host, host.images.listed_path(path))
        if mount is not None and (mount.read_only_system or not _is_apart(host, guest)):
            yield mount, domain, disk


def _of_instances(host: Host) -> Mount | None:
    """Return the mount of the instances directory if it is read-only; None otherwise."""
    for top in host.images.tops:
        mount = _mount_of(host, top)
        if mount is not None and (mount.read_only_system or not _is_apart(host, None)):
            return mount
    return None


def _mount_of(host: Host, path: str) -> Mount | None:
    """Return the mount of a path if it is read-only and has the file, by its device."""
    mount = host.devices.mount_of(path)
    if mount is None or not mount.read_only:
        return None
    try:
        entry = host.images.entry(path)
    except UnheardError as reason:
        caught(reason)
        return None  # a link may lead to another file system
    return mount if entry is not None and entry.dev == mount.number else None


def _is_apart(host: Host, guest: Guest | None) -> bool:
    """True if libvirt, or the guest's QEMU, may have other mounts than the collector."""
    root = host.devices.mount_of("/")
    if root is None or (root.read_only and not root.read_only_system):
        return True
    process = guest.process if guest is not None else None
    if process is not None:
        return is_true(partial(host.in_container, process))
    return host.contains
