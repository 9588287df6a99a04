"""The storage of a host's guests: shares, file servers, free space, and the key for Ceph."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.state import complaint
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.held_files import detached_file, named_files
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import Disk, Secret
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import DomainState, PauseReason
from hoodsnap.facts.fact import UnheardError, caught, is_true, known, value_of
from hoodsnap.facts.host.device import Mount, mount_of, read_mounts
from hoodsnap.facts.host.instances_directory import is_base
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.process.drive import Drive
from hoodsnap.facts.process.process import Process

FULL = 1 << 20
"""Bytes that are free on a full file system at most: QEMU could not allocate a cluster."""


@check(Severity.ERROR)
def share_not_mounted(host: Host, cloud: Cloud) -> Problems:
    """A file system with disks of running guests is no longer mounted on the host.

    A share was unmounted (`umount -l` ignores open files), or another file system was mounted over
    it. Running guests keep their disks, and nothing is lost.

    QEMU has the files open. Whatever opens a file by its path finds nothing: the next start, a
    snapshot, an attachment of another volume.

    Authority: The kernel, for the file that QEMU has open; the host's mounts, for what a path leads
    to.

    Traps: A file that was deleted (the kernel marks it). A QEMU in a container has mounts of its
    own. The instances directory itself is instances-path-not-mounted's.

    Next: Check which file system the folder is on now, and which one QEMU has:

        findmnt -T FOLDER
        ls -lLi /proc/PID/fd/FD PATH
        grep FOLDER /proc/PID/mountinfo /etc/fstab

    Then mount the share there again, with the other shares' options:

        mount SHARE FOLDER

    It worked if the path and QEMU's file have the same inode and size:

        ls -lLi /proc/PID/fd/FD PATH

    Not yet: Do not stop, reboot or migrate the guests, attach or detach volumes of the share, or
    create anything in the empty folder.

    Source: Linux umount(2), `MNT_DETACH`; nova virt/libvirt/volume/mount.py.
    """
    users: dict[str, list[tuple[Guest, Process, str, int]]] = {}
    unknown: UnheardError | None = None
    for guest in cloud.guests_of(host):
        try:
            for process, path, fd in _detached(host, guest):
                users.setdefault(path.rpartition("/")[0], []).append((guest, process, path, fd))
        except UnheardError as reason:
            unknown = reason
    for folder, those in users.items():
        names = phrase.several(dict.fromkeys(guest.title for guest, *_ in those))
        guest, process, path, fd = those[0]
        mount = known(partial(_mount_in, process, path))
        listed = [
            says(other, pid=other.pid, files=f"{where} (fd {number})")
            for _, other, where, number in those
        ]
        look = host.hypervisor.answer("images", f"stat -L {path}") or host.listing
        yield problem(
            f"{phrase.brief(folder)} is not mounted on {host.name}, but {names}"
            f" {'has' if len({it[0].uuid for it in those}) == 1 else 'have'} a disk open in it",
            *listed,
            hears(look, "images", path, file=None),
            NAME=guest.domain_name,
            PID=process.pid,
            FD=fd,
            PATH=path,
            FOLDER=mount.folder if mount is not None else folder,
            SHARE=mount.source if mount is not None else None,
        )
    if unknown is not None and not users:
        raise unknown


def _mount_in(process: Process, path: str) -> Mount | None:
    """Return the mount of a path in QEMU's own mount namespace; None for the root file system."""
    text = value_of(process.said.get("mountinfo"), f"/proc/{process.pid}/mountinfo", str)
    mount = mount_of(path, read_mounts(text))
    return mount if mount is not None and mount.folder != "/" else None


def _detached(host: Host, guest: Guest) -> Iterator[tuple[Process, str, int]]:
    process, domain = guest.process, guest.domain
    if process is None or domain is None or guest.moving is not None:
        return
    for path, _ in named_files(domain):
        file = detached_file(host, process, path)
        if file is not None:
            yield process, path, file.fd


@check(Severity.ERROR)
def file_handle_stale(
    guest: Guest, host: Host, cloud: Cloud, process: Process, log: Log | None
) -> Problems:
    """A file that QEMU has open no longer exists on its file server: the guest gets I/O errors.

    On a network file system another host can remove a file that is open here. The descriptor is
    then stale: it holds no data, and every read or write of it fails. Often another nova-compute
    that shares the directory removed a base image that it took for unused.

    Authority: The kernel: stat(2) of the open file fails.

    Traps: A file that was removed on this host stays readable through its descriptor, and is
    disk-deleted-but-open's. A file server that is restarting makes its files stale for a moment.

    Next: Check the open file and the path, what QEMU reports, and which host removed the file:

        ls -lL /proc/PID/fd/FD MISSING
        grep -i stale /var/log/libvirt/qemu/NAME.log
        grep "Removable base files" /var/log/nova/nova-compute.log

    If it is a base image, put its contents back under the same name, from `_base` of another host
    or from glance. The name is the SHA-1 of the image's id:

        printf %s IMAGE | sha1sum

    Any other file has to come from the file server's snapshots or a backup.

    It worked if qemu-img shows the whole chain of the disk, without an error:

        qemu-img info -U -f qcow2 --backing-chain DISK

    QEMU's descriptor stays stale all the same: the guest needs a stop and a start after that.

    Not yet: Do not copy the file out of `/proc/PID/fd`, which holds nothing. Do not start or
    hard-reboot the server before the file is back. Do not start nova-compute on a host that removes
    files of a shared `_base`.

    Source: Linux errno ESTALE; nova bugs 1252659, 1602193; nova admin guide, image caching.
    """
    for lost in process.lost_files:
        if not _may_be_a_disk(host, guest.domain, lost.path):
            continue
        base = is_base(lost.path)
        name = lost.path.rpartition("/")[2]
        images = guest.images or ()
        yield problem(
            f"{guest.title}'s {'base image' if base else 'disk'} {phrase.place(lost.path)} is gone"
            f" from its file server while QEMU has it open (fd {lost.fd}: {lost.error})",
            says(process, pid=process.pid, lost_files=f"{lost.path} (fd {lost.fd}, {lost.error})"),
            *complaint(log),
            FD=lost.fd,
            MISSING=lost.path,
            IMAGE=cloud.image_of_base.get(name) if base else "",
            DISK=images[0].path if images else "",
        )


def _may_be_a_disk(host: Host, domain: Domain | None, path: str) -> bool:
    if is_base(path) or any(path.startswith(f"{top}/") for top in host.images.tops):
        return not path.endswith("/console.log")
    return domain is not None and any(path == named for named, _ in named_files(domain))


@check(Severity.ERROR)
def file_system_full(host: Host, cloud: Cloud) -> Problems:
    """The file system with the guests' disks is full.

    The next guest whose disk needs another cluster is paused by QEMU in the middle of a write.
    Nothing is lost by that: the write is repeated when the guest is resumed. nova shows a paused
    server as ACTIVE or PAUSED and does nothing.

    Authority: The file system.

    Traps: Space that is reserved for root does not count as free: QEMU can't use it.

    Next: Check the file system, and where its space went:

        df -h INSTANCES_PATH
        du -ah --max-depth=1 INSTANCES_PATH | sort -h | tail -n 20
        virsh list --all

    Then make room outside of the guests' folders: old logs, core dumps, files that are not nova's
    or cinder's, also hidden ones. If nothing can go, grow the file system.

    Then resume each guest that QEMU paused; no data is lost:

        virsh resume DOMAIN

    It worked if the file system has room again, and no domain is paused with an I/O error:

        df -h INSTANCES_PATH
        virsh domstate --reason DOMAIN

    Not yet: Do not remove files in `_base`, `UUID_resize` or a guest's folder to make room, and no
    files of volumes or of their snapshots (`volume-…`). Do not run `openstack server reboot
    --hard`: writes that the guest has not completed are lost.

    Source: QEMU manual, `werror=enospc`; nova bug 1097806 (the power sync ignores PAUSED).
    """
    rooms = host.hypervisor.rooms
    if not rooms:
        raise UnheardError("free space of the instances directory's file system was not collected")
    for folder, room in rooms.items():
        if room.free >= FULL or not room.total:
            continue
        paused = [guest for guest in cloud.guests_of(host) if is_true(partial(_is_stopped, guest))]
        on_it: list[str] = []
        if folder not in host.images.tops:  # all guests have something in those
            on_it = [it.title for it in cloud.guests_of(host) if _has_disk_in(it, folder)]
        whose = f": disks of {phrase.several(on_it)} are on it" if on_it else ""
        stopped = f"; QEMU paused {phrase.several(it.title for it in paused)}" if paused else ""
        yield problem(
            f"{folder} on {host.name} is full{whose}{stopped}",
            hears(room.answer, "images", "bavail", folder=folder, bytes_free=room.free),
            *(says(it.domain, state=it.domain.state_words) for it in paused if it.domain),
            INSTANCES_PATH=folder,
            DOMAIN=paused[0].domain_name if paused else "",
        )


@check(Severity.WARNING)
def host_file_system_full(host: Host) -> Problems:
    """A file system that libvirt, nova-compute or other daemons write to is full.

    Guests that run keep running. But libvirt can't write the log, the state or the definition of a
    guest, so it starts none and attaches nothing. nova-compute can't make its locks or write its
    log, and Open vSwitch can't save its database. Such errors name no cause in nova's API.

    Authority: The file system.

    Traps: Space that is reserved for root does not count as free: nova-compute can't use it. A file
    system with disks of guests is reported by file-system-full. A file system without a number of
    inodes makes them as needed.

    Next: Check the file system, and where its space or its inodes went:

        df -h FOLDER
        df -i FOLDER
        du -xh --max-depth=2 FOLDER

    Then make room: remove old logs, core dumps and packages, or grow the file system. A file that
    was removed while a daemon has it open takes its space until the daemon closes it.

    Check that the daemons work again:

        df -h FOLDER
        systemctl list-units --failed

    Not yet: Do not start, hard-reboot or migrate guests, and do not restart daemons, before there
    is room. Do not remove anything in the instances directory or in `/var/lib/libvirt`.

    Source: Linux statvfs(3); libvirt qemu_domain.c, qemu_process.c (status files and logs);
    oslo.concurrency, `lock_path`.
    """
    # The instances directory may be on the same file system.
    disks = {(room.total, room.free) for room in host.hypervisor.rooms.values()}
    for folder, room in host.hypervisor.own_rooms.items():
        if (room.total, room.free) in disks or not room.total:
            continue
        lacks = "inode" if room.inodes and not room.free_inodes else "space"
        if room.free >= FULL and lacks == "space":
            continue
        yield problem(
            f"{folder} on {host.name} is full: no {lacks} is free",
            hears(
                room.answer,
                "host",
                folder,
                folder=folder,
                bytes_free=room.free,
                free_inodes=room.free_inodes,
            ),
            FOLDER=folder,
        )


def _has_disk_in(guest: Guest, folder: str) -> bool:
    """True if a guest that runs, or is paused, has a disk or volume in the folder."""
    domain = guest.domain
    if domain is None or domain.id is None:
        return False
    named = known(lambda: [path for path, _ in named_files(domain)]) or ()
    return any(path.startswith(f"{folder}/") for path in named)


def _is_stopped(guest: Guest) -> bool:
    domain = guest.domain
    return domain is not None and (domain.state, domain.reason) == (
        DomainState.PAUSED,
        PauseReason.IOERROR,
    )


@check(Severity.ERROR)
def storage_secret_missing(host: Host, cloud: Cloud) -> Problems:
    """libvirt has no secret for the Ceph cluster that guests' definitions name.

    The definition of a disk on Ceph names a secret of libvirt, by which QEMU authenticates to the
    cluster. Without it, no such guest can be started, rebooted or migrated to this host, and no
    volume can be attached. Running guests keep working, because QEMU has its key.

    Authority: libvirt's list of secrets.

    Traps: nova writes the definition of a guest that is off again when it starts it, so that an old
    secret in it may do no harm (a warning). A running QEMU that reaches the storage without a key
    of libvirt's (it reads a keyring) does not need the secret. A container may have a libvirt of
    its own.

    Next: Compare libvirt's secrets with the one that the definitions and nova.conf name:

        virsh secret-list
        virsh dumpxml --inactive NAME | grep -A1 "<auth"
        grep -r rbd_secret_uuid /etc/nova

    Then define the secret again, from an XML file with this UUID, and give it the key of the user
    that nova.conf names (`rbd_user`). Nothing that runs is disturbed:

        virsh secret-define FILE
        virsh secret-set-value SECRET --file KEYFILE

    It worked if libvirt lists the secret:

        virsh secret-list

    Not yet: Do not stop, reboot or migrate the guests of this host: they can't be started here
    again.

    Source: libvirt formatsecret; Ceph's documentation, rbd and OpenStack; nova `rbd_secret_uuid`.
    """
    needed: dict[str, list[tuple[Guest, Disk]]] = {}
    idle: set[str] = set()
    for guest in cloud.guests_of(host):
        try:
            for disk in _defined_disks(guest):
                # nova itself makes and removes the secrets of other storage.
                if disk.login is not None and disk.login.type == "ceph":
                    needed.setdefault(_named(disk.login), []).append((guest, disk))
                    if _does_without(guest, disk):
                        idle.add(_named(disk.login))
        except Exception as error:
            caught(error)
            continue  # the definition's own checks report why
    if not needed:
        return
    answer = host.bundle.last("libvirt", "virsh secret-list", host.name)
    listed = value_of(answer, "virsh secret-list", list[dict[str, object]])
    present = {str(secret.get("uuid")).lower() for secret in listed}
    present |= {f"usage {secret.get('usage_id')}" for secret in listed}
    for secret, those in needed.items():
        if secret in present | idle or answer is None:
            continue
        runs = any(guest.runs for guest, _ in those)
        guests = dict.fromkeys(guest.title for guest, _ in those)
        first, disk = those[0]
        domain = first.domain
        assert domain is not None and disk.login is not None  # noqa: S101 (read from it)
        yield problem(
            f"libvirt on {host.name} has no {disk.login.type or 'storage'} secret"
            f" {phrase.brief(secret)}, which the disks of {phrase.several(guests)} need",
            says(domain, inactive_disks=f"{disk.target} {disk.source}").and_so(secret=secret),
            hears(answer, "libvirt", secret=None),
            severity=Severity.ERROR if runs else Severity.WARNING,
            NAME=first.domain_name,
            SECRET=disk.login.uuid,
        )


def _does_without(guest: Guest, disk: Disk) -> bool:
    """True if the guest's QEMU has this disk, and got no key for its storage."""
    drives = known(partial(_drives, guest.process)) if guest.process is not None else None
    same = [drive for drive in drives or () if drive.source == disk.source]
    return bool(same) and not any(drive.has_key for drive in same)


def _drives(process: Process) -> tuple[Drive, ...]:
    return process.disks


def _defined_disks(guest: Guest) -> tuple[Disk, ...]:
    domain = guest.domain
    if domain is None:
        return ()
    return domain.inactive_disks if domain.persistent else domain.disks


def _named(secret: Secret) -> str:
    return secret.uuid or f"usage {secret.usage}"
