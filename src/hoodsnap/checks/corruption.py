"""Faults that destroy data, now or at the next start. Look at these before touching anything."""

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
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.host_processes import held_by
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON, DomainState, PauseReason
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import OpenFile, Process

AFTERMATH = timedelta(minutes=1)
"""QEMU may still write to a guest's disk for this long after saving its memory, on closing it."""


@check(Severity.ERROR, traps=[live_migration_at_work])
def disk_shared_by_two_qemu(guest: Guest, host: Host, process: Process) -> Problems:
    """Two QEMU processes hold one disk image open, and at least one of them writes to it.

    Each process has its own view of the file system inside and overwrites the other's blocks: the
    image is being destroyed while you read this. Causes are a split brain (a live migration that
    stopped half way, an evacuation without fencing), a second start outside nova, or a disk
    attached by hand.

    Authority: The kernel. Device and inode identify an open file beyond doubt, whatever the paths
    are.

    Traps: Base images that many guests only read. Volumes declared shareable on every side.

    Next: Find out which guest is the right one. Compare the server's host and state with the
    domain's state on every host that has it:

        openstack server show UUID
        virsh domstate --reason NAME

    Then stop the writes of the guest that is wrong, in a way that can be undone; WRONG is its
    domain name:

        virsh suspend WRONG

    Not yet: Do not run `openstack server reboot` or `delete` (which removes the disk that both
    use), `virsh start` or `qemu-img check -r`. Do not migrate either guest.

    Source: QEMU manual, image locking (2.10 and later); nova bugs 1628606, 1905944.
    """
    shareable, undecided = _shareable(host, guest.domain)
    maybe = False
    for file in process.files:
        holders = host.processes.contested.get(held_by(file), ())
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
    if host.processes.unseen_holder is not None:
        raise UnheardError(host.processes.unseen_holder)


def _held(file: OpenFile) -> str:
    return f"{file.path} ({file.dev} inode {file.ino}, {'rw' if file.writable else 'ro'})"


def _is_disk(file: OpenFile) -> bool:
    # Guest memory may be shared with a helper process by design.
    memory = file.path.startswith(("/dev/shm/", "/dev/hugepages", "/memfd:"))  # noqa: S108
    return not memory and (stat.S_ISREG(file.mode) or stat.S_ISBLK(file.mode))


def _shareable(
    host: Host, domain: Domain | None
) -> tuple[frozenset[tuple[str, int]], UnheardError | None]:
    """Return the disks (`held_by`) that the guest's definition shares with other writers.

    The second value is the reason why the list may be incomplete; None if it is complete.
    """
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
            # A definition may use any name of a device; the kernel identifies it by number.
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
    """Two live QEMU processes claim to be the same instance.

    libvirt controls at most one of them. The other one writes to the same disks, answers with the
    same MAC address, and cannot be reached by any nova command.

    Authority: The kernel, for which processes exist; libvirt, for which one it controls.

    Traps: QEMU processes that libvirt starts briefly to probe capabilities have no UUID. A guest
    that migrates within one host exists twice for a while. In a container with its own libvirt,
    another guest may have the same name. Any account can start QEMU with any UUID, so a process
    does not count unless its account is root, libvirt's or a service's.

    Next: See which process libvirt uses, and which of the two processes holds the disks:

        virsh domstate UUID
        cat /run/libvirt/qemu/NAME.pid
        ls -l /proc/PID/fd

    Not yet: Do not run `virsh start`. Do not kill either process before you know which one wrote
    last.

    Source: libvirt qemu_process.c (reconnect after the loss of /run); containers/podman issue
    12717.
    """
    same_name = (
        other
        for other in host.processes.by_name.get(process.name, ())
        if _are_neighbors(process, other)
    )
    claimants = (*guest.processes, *same_name)
    for pid, other in {claimant.pid: claimant for claimant in claimants}.items():
        if pid != process.pid:
            yield (
                says(process, pid=process.pid, uuid=process.uuid, name=process.name),
                says(other, pid=other.pid, uuid=other.uuid, name=other.name),
            )
    if host.processes.nameless is not None:
        raise UnheardError(host.processes.nameless)


def _are_neighbors(process: Process, other: Process) -> bool:
    """True if both processes run in the same PID namespace, as far as that is known.

    Domain names repeat in containers that have a libvirt and processes of their own; UUIDs do not.
    """
    return None in (process.space, other.space) or process.space == other.space


@check(Severity.ERROR, traps=[migrating, disk_is_copied])
def disk_deleted_but_open(guest: Guest, host: Host, domain: Domain, process: Process) -> Problems:
    """A file of the guest's disk was deleted, renamed or replaced while QEMU has it open.

    The file stays with the process that has it open, and everything that the guest writes goes
    there. When the process ends, a deleted file is lost for good, and the next start finds no file,
    or another one in its place.

    Authority: The kernel, for the file that is open; the disk images, for what the path leads to
    now.

    Traps: Guest memory and libraries are deleted files by design. A block job changes which files
    are open. In a container the same path leads to another file. A replaced base image is reported
    by base-replaced-or-truncated.

    Next: See the open files and their sizes; FD is the number of the one that is missing or
    replaced:

        ls -l /proc/PID/fd
        ls -lL /proc/PID/fd

    Then copy the file out while the guest is suspended:

        virsh suspend NAME
        cp --sparse=always /proc/PID/fd/FD /safe/disk
        virsh resume NAME

    A base image can be copied back to its old name in the same way, without suspending the guest.

    Not yet: Do nothing that ends the process: do not stop, reboot, migrate or resize the guest, do
    not run `virsh destroy`, do not restart the host. Do not restart nova-compute, which may do one
    of these.

    Source: Linux proc(5); nova bugs 1398999, 1550919, 1769131.
    """
    named = dict(_named_files(domain))
    held = [file for file in process.files if _is_disk(file)]
    deleted = {file.path: file for file in held if file.deleted and file.path in named}
    for path, file in deleted.items():
        there = _inode(host, path)
        # The file may have its name back; a replaced base is base-replaced-or-truncated's.
        if there != file.ino and (file.writable or there is None):
            yield (says(process, pid=process.pid, files=f"{path} (deleted, fd {file.fd})"),)
    disks_out_of_sight(guest)  # raises if nothing is known about the other files
    numbers = {file.ino for file in held}
    for path, written in named.items():
        if path in deleted:
            continue
        entry = host.images.entry(path)
        if entry is None:
            gone = hears(host.listing, "images", path, file="missing")
            yield says(process, pid=process.pid), says(domain, disks=path), gone
        elif written and entry.type == "f" and entry.ino not in numbers:
            other = hears(host.listing, "images", path, inode=entry.ino)
            holds = next((_held(file) for file in held if file.path == path), "another file")
            yield says(process, pid=process.pid, files=holds), says(domain, disks=path), other


def _named_files(domain: Domain) -> Iterator[tuple[str, bool]]:
    """Yield the files that the domain's definition names; True if the guest writes to the file."""
    for disk in domain.disks:
        if disk.image.type == "file" and not disk.transient and disk.source is not None:
            for below in disk.backing or ():
                if below.type == "file" and below.source is not None:
                    yield below.source, False
            yield disk.source, not disk.read_only


def _inode(host: Host, path: str) -> int | None:
    """Return the inode that a path leads to now; None if there is no file or no listing."""
    try:
        entry = host.images.entry(path)
    except UnheardError:
        return None
    return entry.ino if entry is not None else None


@check(Severity.ERROR)
def qcow2_corrupt_bit(guest: Guest, images: tuple[Image, ...], monitor: Monitor | None) -> Problems:
    """A disk image is marked as corrupt, so QEMU opens it read-only.

    QEMU sets the mark when the tables of a qcow2 image contradict each other: two parts of the disk
    share a cluster, or a table points into the middle of another. In a running guest every write
    fails with an I/O error. The lesser mark, dirty, remains when QEMU ended without closing the
    image; the next process that opens the image repairs it.

    Authority: The image's own header; QEMU, for the image that it has open.

    Traps: An image in use is dirty by design. Leaked clusters waste space, do no harm, and set no
    mark.

    Next: Check the mark, and look for "Marking image as corrupt" in the QEMU logs:

        qemu-img info -U -f qcow2 DISK
        grep "Marking image as corrupt" /var/log/libvirt/qemu/*.log

    Then, while the guest is off, copy the image and check the copy:

        cp --sparse=always DISK COPY
        qemu-img check -f qcow2 COPY

    Not yet: Do not run `qemu-img check -r all` on the original, or on any image in use. Do not run
    `openstack server reboot --hard` or `rebuild`.

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
    """The guest's managed save is missing, or does not match its disk or state.

    A domain with a managed save resumes from the saved memory at its next start. If the guest ran
    in between, its disk has changed under the file system state in that memory, and what the guest
    then writes back destroys the file system. The service libvirt-guests saves every guest when the
    host shuts down, and nova does not know about it. For a suspended server, on the other hand, the
    managed save is the server's memory.

    Authority: libvirt, for the saved memory; the disk images, for when the disk was last written.

    Traps: A server that is suspended in nova has a managed save by design, as long as its disk is
    not newer.

    Next: Compare the time of the saved memory with the time of the disk:

        virsh managedsave-dumpxml NAME
        ls -l --full-time /var/lib/libvirt/qemu/save DISK

    If the disk is newer, remove the managed save before the next start; the saved memory is lost,
    which is right:

        virsh managedsave-remove NAME

    Not yet: Do not run `virsh start`, `openstack server start` or `openstack server resume`. Do not
    run `virsh managedsave-remove` for a server that really is suspended. Do not reboot the host
    while libvirt-guests is enabled.

    Source: libvirt virDomainManagedSave; nova driver.py `suspend`, `_hard_reboot`; nova bugs
    1293480, 1443186.
    """
    if record.deleted:
        return
    suspended = record.vm_state == "suspended"
    known = says(record, vm_state=record.vm_state)
    if not domain.managed_save:
        if suspended and domain.state == DomainState.SHUTOFF:
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
    """Yield the disks that were written to after the memory was saved."""
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
    """QEMU paused the guest because its disk returned an I/O error.

    A full file system is the usual cause: QEMU pauses the guest instead of passing on the failed
    write. nova shows the server as PAUSED or still ACTIVE and does nothing.

    Authority: QEMU, and libvirt's reason for the pause.

    Traps: A pause for a snapshot or a migration has another reason.

    Next: Check the disk's error, and the space in the instances directory and on the volume's
    storage:

        virsh domblkerror NAME
        df -h INSTANCES_PATH

    Then make space, or restore the path to the storage, and resume the guest; no data is lost:

        virsh resume NAME

    Not yet: Do not run `openstack server reboot --hard`: writes that the guest has not completed
    are lost. Do not delete files in `_base` or `*_resize` to make space.

    Source: QEMU manual, `werror`; libvirt qemu_monitor.c; nova bug 1097806 (the power sync ignores
    PAUSED).
    """
    if (domain.state, domain.reason) == (DomainState.PAUSED, PauseReason.IOERROR):
        yield (says(domain, state=domain.state_words),)
    elif monitor is not None and (monitor.status == "io-error" or monitor.io_errors):
        errors = ", ".join(f"{device}: {error}" for device, error in monitor.io_errors.items())
        yield (
            says(domain, state=domain.state_words),
            says(monitor, status=monitor.status, io_errors=errors),
        )
