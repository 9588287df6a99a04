"""What destroys data, or soon will. Look at these before touching anything."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import timedelta

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import (
    disk_is_copied,
    disks_out_of_sight,
    live_migration_at_work,
    migrating,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host, held_by
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import OFF, ON, Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import OpenFile, Process

AFTERMATH = timedelta(minutes=1)
"""How long after its memory was saved a guest's disk may still be written: QEMU closes it then."""


@check(Severity.ERROR, traps=[live_migration_at_work])
def disk_shared_by_two_qemu(guest: Guest, host: Host, process: Process) -> Problems:
    """Two QEMU processes hold one disk image open, and at least one of them writes.

    Each has its own idea of the filesystem inside and overwrites the other's blocks: the image is
    being destroyed while you read this. It happens after a split brain (half a live migration, an
    evacuation without fencing), by a second start behind nova's back, or by a disk attached by
    hand.

    Authority: the kernel. Device and inode of an open file can't be mistaken, whatever the paths
    say.

    Traps: base images that many guests only read; volumes declared shareable on every side.

    Next: find out which guest is the legal one: compare `openstack server show UUID` (host, state)
    with `virsh domstate --reason NAME` on every host that has it. Then stop the *other* one's
    writes with `virsh suspend`, which can be taken back.

    Not yet: `openstack server reboot` or `delete` (it removes the disk that both use), `virsh
    start`, `qemu-img check -r`, a migration.

    Source: QEMU manual, image locking (2.10 and later); nova bugs 1628606, 1905944.
    """
    shareable, undecided = _shareable(host, guest.domain)
    maybe = False
    for file in process.files:
        holders = host.contested.get(held_by(file), ())
        others = [(other, held) for other, held in holders if other.pid != process.pid]
        if not others or not _is_disk(file) or held_by(file) in shareable:
            continue
        if undecided is not None and stat.S_ISBLK(file.mode):
            maybe = True
            continue
        yield (
            says(process, pid=process.pid, files=_held(file)),
            *(says(other, pid=other.pid, files=_held(held)) for other, held in others),
        )
    if maybe and undecided is not None:
        raise undecided
    if host.unseen_holder is not None:
        raise UnheardError(host.unseen_holder)


def _held(file: OpenFile) -> str:
    return f"{file.path} ({file.dev} inode {file.ino}, {'rw' if file.writable else 'ro'})"


def _is_disk(file: OpenFile) -> bool:
    # Guest memory may be shared with a helper process on purpose.
    memory = file.path.startswith(("/dev/shm/", "/dev/hugepages", "/memfd:"))  # noqa: S108
    return not memory and (stat.S_ISREG(file.mode) or stat.S_ISBLK(file.mode))


def _shareable(
    host: Host, domain: Domain | None
) -> tuple[frozenset[tuple[str, int]], UnheardError | None]:
    """The disks (`held_by`) that the guest's definition lets others write to; and why that may not
    be all of them."""
    found: set[tuple[str, int]] = set()
    undecided = None
    try:
        disks = domain.disks if domain is not None else ()
    except UnheardError as reason:
        return frozenset(), reason
    for disk in disks:
        if disk.source is None or not disk.shareable:
            continue
        try:
            # A definition names a device by any of its names; the kernel has one.
            file = host.images.entry(disk.source)
        except UnheardError as reason:
            undecided = reason
            continue
        if file is not None and file.type == "b":
            found.add((f"block {file.rdev}", 0))
        elif file is not None:
            found.add((file.dev or "", file.ino or 0))
    return frozenset(found), undecided


@check(Severity.ERROR, traps=[live_migration_at_work])
def duplicate_qemu_identity(guest: Guest, host: Host, process: Process) -> Problems:
    """Two live QEMU processes claim to be the same VM.

    libvirt controls one of them at most. The other one writes to the same disks and answers with
    the same MAC address, and no nova command reaches it.

    Authority: the kernel for which processes exist; libvirt for which of them it controls.

    Traps: QEMU that libvirt starts for a moment to ask what it can do has no UUID; a guest that
    migrates within one host exists twice for a while; in a container with a libvirt of its own,
    another guest may have the same name; any account can start QEMU with any UUID, so a process of
    an account that is neither root's, nor libvirt's, nor a service's is not counted.

    Next: `virsh domstate UUID; cat /run/libvirt/qemu/NAME.pid` shows which PID libvirt means; `ls
    -l /proc/PID/fd` of both shows which one holds the disks.

    Not yet: `virsh start`, killing either before you know which one wrote last.

    Source: libvirt qemu_process.c (reconnect after the loss of /run); containers/podman issue
    12717.
    """
    same_name = (
        other for other in host.by_name.get(process.name, ()) if _are_neighbours(process, other)
    )
    claimants = (*guest.processes, *same_name)
    for pid, other in {claimant.pid: claimant for claimant in claimants}.items():
        if pid != process.pid:
            yield (
                says(process, pid=process.pid, uuid=process.uuid, name=process.name),
                says(other, pid=other.pid, uuid=other.uuid, name=other.name),
            )
    if host.nameless is not None:
        raise UnheardError(host.nameless)


def _are_neighbours(process: Process, other: Process) -> bool:
    """Whether both live among the same processes. Names are given anew in every container that has
    a libvirt and processes of its own; UUIDs are not."""
    return None in (process.space, other.space) or process.space == other.space


@check(Severity.ERROR, traps=[migrating, disk_is_copied])
def disk_deleted_but_open(guest: Guest, host: Host, domain: Domain, process: Process) -> Problems:
    """The guest uses a disk file that is no longer where its definition says: it lives on in QEMU.

    A file that was deleted, renamed or replaced stays with the process that has it open, and all
    that the guest writes goes there. When that process ends, a deleted file is gone for good, and
    the next start finds nothing, or the file that took its place.

    Authority: the kernel for what is open; the disk images for what the path leads to now.

    Traps: the memory of guests and libraries are deleted files on purpose; a block job changes
    what is open; in a container the same path leads elsewhere; a base that was replaced is told by
    base-replaced-or-truncated.

    Next: `ls -lL /proc/PID/fd` shows it, and its size. Then copy it out while the guest is
    suspended: `virsh suspend NAME; cp --sparse=always /proc/PID/fd/FD /safe/disk; virsh resume
    NAME`. A base goes back to its old name in the same way, without any pause.

    Not yet: whatever ends the process: stopping, rebooting, migrating or resizing the guest,
    `virsh destroy`, a restart of the host. A restart of nova-compute, which may do one of these.

    Source: Linux proc(5); nova bugs 1398999, 1550919, 1769131.
    """
    named = dict(_named_files(domain))
    held = [file for file in process.files if _is_disk(file)]
    deleted = {file.path: file for file in held if file.deleted and file.path in named}
    for path, file in deleted.items():
        there = _inode(host, path)
        # It may have been given its name back; and what replaced a base is another check's.
        if there != file.ino and (file.writable or there is None):
            yield (says(process, pid=process.pid, files=f"{path} (deleted, fd {file.fd})"),)
    disks_out_of_sight(guest)  # raises: then nothing is known of the others
    numbers = {file.ino for file in held}
    for path, written in named.items():
        if path in deleted:
            continue
        entry = host.images.entry(path)
        if entry is None:
            gone = hears(host.listing, "images", path, that_file="missing")
            yield says(process, pid=process.pid), says(domain, disks=path), gone
        elif written and entry.type == "f" and entry.ino not in numbers:
            other = hears(host.listing, "images", path, inode=entry.ino)
            holds = next((_held(file) for file in held if file.path == path), "another file")
            yield says(process, pid=process.pid, files=holds), says(domain, disks=path), other


def _named_files(domain: Domain) -> Iterator[tuple[str, bool]]:
    """The files that its definition names, and whether the guest writes to each."""
    for disk in domain.disks:
        if disk.image.type == "file" and not disk.transient and disk.source is not None:
            for below in disk.backing or ():
                if below.type == "file" and below.source is not None:
                    yield below.source, False
            yield disk.source, not disk.read_only


def _inode(host: Host, path: str) -> int | None:
    """The file that a path leads to now; None if to none that was heard of."""
    try:
        entry = host.images.entry(path)
    except UnheardError:
        return None
    return entry.ino if entry is not None else None


@check(Severity.ERROR)
def qcow2_corrupt_bit(guest: Guest, images: tuple[Image, ...], monitor: Monitor | None) -> Problems:
    """QEMU found a disk image damaged and marked it: it is opened for reading only from then on.

    QEMU sets the mark when the tables of a qcow2 image contradict each other: two parts of the
    disk share a cluster, or a table points into the middle of another. A running guest gets
    nothing but I/O errors for what it writes. The lesser mark (dirty) stays where QEMU ended
    without closing the image, and the next one who opens it repairs it.

    Authority: the image's own header, and QEMU for the one it has open.

    Traps: an image that is in use is dirty by right; leaked clusters, which waste space and harm
    nothing, set no mark.

    Next: `qemu-img info -U DISK`, and the QEMU log under /var/log/libvirt/qemu for "Marking image
    as corrupt". Then copy the image (`cp --sparse=always`) and try `qemu-img check` on the copy.

    Not yet: `qemu-img check -r all` on the original, or on any image in use; `openstack server
    reboot --hard` or `rebuild`.

    Source: QEMU docs/interop/qcow2 (incompatible features, bit 1); qemu-img manual, check.
    """
    for image in images:
        if image.corrupt:
            yield (says(image, path=image.path, corrupt=image.corrupt),)
        elif image.dirty and guest.process is None and "kernel" not in guest.unheard:
            evidence = says(image, path=image.path, dirty=image.dirty)
            yield Problem(Severity.NOTE, (evidence,))
    for disk in monitor.disks if monitor is not None else ():
        if disk.node is not None and disk.node.corrupt and monitor is not None:
            yield (says(monitor, disks=disk.node.file).and_so(corrupt=True),)


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def stale_managed_save(
    guest: Guest, host: Host, domain: Domain, record: Server | Instance
) -> Problems:
    """libvirt would start the guest from a saved memory that its disk does not fit, or has lost it.

    The next start of a domain with a saved memory goes on from there. If the guest ran in between,
    its disk has changed below the filesystem that the memory holds, and what that writes back
    destroys it. The service libvirt-guests saves every guest when the host shuts down, and nova
    knows nothing of it; for a suspended server, on the other hand, the saved memory is the server.

    Authority: libvirt for the saved memory; the disk images for when the disk was last written.

    Traps: a server that nova has as suspended has one by right, as long as its disk is not newer.

    Next: `virsh managedsave-dumpxml NAME`, `ls -l --full-time` of /var/lib/libvirt/qemu/save and of
    the disk. If the disk is newer, `virsh managedsave-remove NAME` before the next start: the
    memory is lost, as it has to be.

    Not yet: `virsh start`, `openstack server start` or `resume`; `virsh managedsave-remove` for a
    server that really is suspended; a reboot of the host while libvirt-guests is enabled.

    Source: libvirt virDomainManagedSave; nova driver.py `suspend`, `_hard_reboot`; nova bugs
    1293480, 1443186.
    """
    if record.deleted:
        return
    suspended = record.vm_state == "suspended"
    known = says(record, vm_state=record.vm_state)
    if not domain.managed_save:
        if suspended and domain.state == OFF:
            lost = says(domain, state=domain.state_words, managed_save=domain.managed_save)
            yield Problem(Severity.WARNING, (known, lost))
        return
    saved = says(domain, state=domain.state_words, managed_save=domain.managed_save)
    if domain.state in ON:
        yield known, saved
        return
    newer = list(_written_after(host, domain))
    if newer:
        yield (known, saved, *newer)
    elif not suspended:
        yield Problem(Severity.WARNING, (known, saved))


def _written_after(host: Host, domain: Domain) -> Iterator[Evidence]:
    """The disks that were written to after the memory was saved."""
    save = host.images.entry(f"/var/lib/libvirt/qemu/save/{domain.name}.save")
    saved = moment(save.mtime) if save is not None else None
    listing = host.listing
    for disk in domain.inactive_disks:
        if disk.source is None or disk.read_only or disk.image.type != "file":
            continue
        entry = host.images.entry(disk.source)
        written = moment(entry.mtime) if entry is not None else None
        if saved and written and written - saved > AFTERMATH:
            yield hears(listing, "images", disk.source, saved=saved, written=written)


@check(Severity.ERROR)
def io_error_paused(domain: Domain, monitor: Monitor | None) -> Problems:
    """QEMU stopped the guest because its disk gave an I/O error.

    A full filesystem is the usual cause: QEMU pauses the guest rather than let it see a failed
    write. nova shows it as PAUSED or still ACTIVE and does nothing.

    Authority: QEMU, and libvirt's reason for the pause.

    Traps: a pause for a snapshot or a migration has another reason.

    Next: `virsh domblkerror NAME`, `df -h` of the instances directory and of the volume's storage.
    Make space (or bring the path back), then `virsh resume NAME`: nothing is lost.

    Not yet: `openstack server reboot --hard` (loses what the guest has not written yet), deleting
    files in `_base` or `*_resize` to make space.

    Source: QEMU manual, `werror`; libvirt qemu_monitor.c; nova bug 1097806 (the power sync ignores
    PAUSED).
    """
    if (domain.state, domain.reason) == (3, 5):
        yield (says(domain, state=domain.state_words),)
    elif monitor is not None and (monitor.status == "io-error" or monitor.io_errors):
        errors = ", ".join(f"{device}: {error}" for device, error in monitor.io_errors.items())
        yield (
            says(domain, state=domain.state_words),
            says(monitor, status=monitor.status, io_errors=errors),
        )
