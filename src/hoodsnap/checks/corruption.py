"""Faults that destroy data, now or at the next start. Look at these before touching anything."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.saved_state import SAVES, damage, lost_save
from hoodsnap.checks.state import complaint
from hoodsnap.checks.traps import (
    disk_is_copied,
    disks_out_of_sight,
    in_a_container,
    live_migration_at_work,
    migrating,
    moved_between_captures,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.held_files import (
    detached_file,
    held_at,
    inode_of,
    is_disk,
    named_files,
    renamed_file,
)
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.host_processes import held_by
from hoodsnap.facts.cloud.network_disks import NetworkUser
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON, DomainState, PauseReason
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.hypervisor import FreeSpace
from hoodsnap.facts.host.image import Image, path_in
from hoodsnap.facts.host.instances_directory import disk_owner, is_base
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import OpenFile, Process

FULL = 1 << 20
"""Bytes that are free on a full file system at most: QEMU could not allocate a cluster."""

IO_ERROR = re.compile(r"block I/O error in device '[^']*': (?P<error>.+?)(?: \(\d+\))?")
"""QEMU's message about a failed read or write, with the error's name and number."""

AFTERMATH = timedelta(minutes=1)
"""QEMU may still write to a guest's disk for this long after saving its memory, on closing it."""


@check(Severity.ERROR, traps=[live_migration_at_work, moved_between_captures])
def disk_shared_by_two_qemu(guest: Guest, host: Host, cloud: Cloud, process: Process) -> Problems:
    """Two QEMU processes hold one disk image open, and at least one of them writes to it.

    Each process has its own view of the file system inside and overwrites the other's blocks: the
    image is being destroyed while you read this. Causes are a split brain (a live migration that
    stopped half way, an evacuation without fencing), a second start outside nova, or a disk
    attached by hand.

    Authority: The kernel. Device and inode identify an open file beyond doubt, whatever the paths
    are. An rbd image is identified by its name: the kernel has no file of it.

    Traps: Base images, which guest-writes-into-base reports. Volumes declared shareable on every
    side. Images of one name in two Ceph clusters, whose monitors differ. The command line still
    names a volume that was detached since.

    Next: Find out which guest is the right one. Compare the server's host and state with the
    domain's state on every host that has it:

        openstack server show UUID
        virsh domstate --reason NAME

    Then stop the writes of the guest that is wrong. It is paused, and can be resumed:

        virsh suspend WRONG

    If libvirt has no running domain for it, stop its process (`kill -CONT` lets it continue):

        kill -STOP WRONG_PID

    It worked if the domain is paused, or the process is in state T:

        virsh domstate --reason WRONG
        ps -o pid,stat -p WRONG_PID

    Not yet: Do not run `openstack server reboot` or `delete` (which removes the disk that both
    use), `virsh start` or `qemu-img check -r`. Do not migrate either guest.

    Source: QEMU manual, image locking (2.10 and later); nova bugs 1628606, 1905944.
    """
    yield from _of_network_disks(guest, cloud)
    shareable, undecided = _shareable(host, guest.domain)
    maybe = False
    for file in process.files:
        holders = host.processes.contested.get(held_by(file), ())
        others = [(other, held) for other, held in holders if other.pid != process.pid]
        if not others or not is_disk(file) or held_by(file) in shareable or is_base(file.path):
            continue  # a guest that writes into a base is guest-writes-into-base's
        if undecided is not None and stat.S_ISBLK(file.mode):
            maybe = True
            continue
        name, pid = _wrong(cloud, host, file.path, [process, *(other for other, _ in others)])
        yield problem(
            _of_users(cloud, host, guest, file, others),
            says(process, pid=process.pid, files=_held(file)),
            *(says(other, pid=other.pid, files=_held(held)) for other, held in others),
            NAME=known(lambda: process.name),
            WRONG=name,
            WRONG_PID=pid,
        )
    if maybe and undecided is not None:
        raise undecided
    if host.processes.unseen_holder is not None:
        raise UnheardError(host.processes.unseen_holder)


def _of_network_disks(guest: Guest, cloud: Cloud) -> Problems:
    for user in cloud.network_disks.of(guest):
        others = cloud.network_disks.others(user)
        if others:
            protocol, name = user.name
            users = [(guest.title, user.writable)]
            users += [(_title_elsewhere(guest, other), other.writable) for other in others]
            processes = [other.process for other in others if other.process is not None]
            yield problem(
                _who_uses(f"{protocol} image {phrase.brief(name)}", users),
                _uses(user),
                *map(_uses, others),
                NAME=guest.domain_name,
                WRONG=_wrong_name(guest, name, processes),
            )


def _title_elsewhere(guest: Guest, other: NetworkUser) -> str:
    host, pid = other.place
    here = guest.host is not None and guest.host.name == host
    process = f"PID {pid}{'' if here else f' on {host}'}"
    return f"{other.title} ({process})" if other.title else f"another QEMU ({process})"


def _uses(user: NetworkUser) -> Evidence:
    protocol, name = user.name
    named = f"{protocol}:{name} ({'rw' if user.writable else 'ro'})"
    if user.domain is not None:
        return says(user.domain, disks=named)
    assert user.process is not None  # noqa: S101 (a use is named by a domain or by a process)
    return says(user.process, pid=user.process.pid, disks=named)


def _wrong(cloud: Cloud, host: Host, disk: str, users: Sequence[Process]) -> tuple[object, object]:
    """Return the guest that must not run: the name of its domain, or its process id if libvirt has
    no running domain of it ("" for the other). (None, None) unless the disk's name tells it.
    """
    owner = disk_owner(disk)
    strangers = [one for one in users if known(partial(_uuid, one)) != owner]
    if len(strangers) != 1 or len(users) == 1:
        return None, None
    [wrong] = strangers
    if is_stray(cloud, host, wrong):
        return "", wrong.pid
    return known(partial(_name, wrong)), ""


def is_stray(cloud: Cloud, host: Host, process: Process) -> bool:
    """Return True if libvirt was collected, and has no running domain (paused or not) of a QEMU."""
    guests = cloud.guests_of(host)
    owners = [one for one in guests if any(own.pid == process.pid for own in one.processes)]
    if any("libvirt" in guest.unheard for guest in guests):
        return False
    return known(lambda: any(one.domain and one.domain.state in ON for one in owners)) is False


def _wrong_name(guest: Guest, disk: str, others: Sequence[Process]) -> str | None:
    """Return the name of the domain that must not run; None unless the disk's name tells it."""
    owner = disk_owner(disk)
    domains = {known(partial(_uuid, other)): known(partial(_name, other)) for other in others}
    domains[guest.uuid] = guest.domain_name
    strangers = [name for uuid, name in domains.items() if uuid != owner]
    return strangers[0] if owner in domains and len(strangers) == 1 else None


def _uuid(process: Process) -> str:
    return process.uuid


def _name(process: Process) -> str:
    return process.name


def _held(file: OpenFile) -> str:
    return f"{file.path} ({file.dev} inode {file.ino}, {'rw' if file.writable else 'ro'})"


def _of_users(
    cloud: Cloud,
    host: Host,
    guest: Guest,
    file: OpenFile,
    others: Sequence[tuple[Process, OpenFile]],
) -> str:
    """Return who uses a file: `vm-a and vm-b (PID 7) both write to …`. The guest comes first."""
    users = [(guest.title, file.writable)]
    users += [(_title(cloud, host, other), held.writable) for other, held in others]
    return _who_uses(phrase.place(file.path), users)


def _who_uses(disk: str, users: Sequence[tuple[str, bool]]) -> str:
    """Return who writes to a disk and who reads it; `users` are names, True for a writer."""
    writers = [name for name, writes in users if writes]
    readers = [name for name, writes in users if not writes]
    if not readers:
        number = "both" if len(writers) == 2 else "all"
        return f"{phrase.several(writers)} {number} write to {disk}"
    write = f"{phrase.several(writers, 2)} {'writes' if len(writers) == 1 else 'write'}"
    read = f"{phrase.several(readers, 2)} {'reads' if len(readers) == 1 else 'read'}"
    return f"{write} to {disk}, which {read}"


def _title(cloud: Cloud, host: Host, process: Process) -> str:
    """Return the display name of a process's guest, and its PID."""
    for guest in cloud.guests_of(host):
        if any(own.pid == process.pid for own in guest.processes):
            return f"{guest.title} (PID {process.pid})"
    return f"PID {process.pid}"


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
        ls -l /proc/PID/fd /proc/OTHER_PID/fd

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
            twice = f"runs twice on {host.name}: PID {process.pid} and PID {pid}"
            named = f"and PID {pid} on {host.name} are both called {process.name}"
            yield problem(
                f"{guest.title} {twice if other.uuid == process.uuid else named}",
                says(process, pid=process.pid, uuid=process.uuid, name=process.name),
                says(other, pid=other.pid, uuid=other.uuid, name=other.name),
                NAME=process.name,
                OTHER_PID=pid,
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
    there. When the process ends, a deleted file is lost for good, and the next start finds no file
    or another one.

    Authority: The kernel, for the file that is open; the disk images, for what the path leads to
    now.

    Traps: Guest memory and libraries are deleted files by design. A block job changes which files
    are open. In a container the same path leads to another file. A replaced base image is reported
    by base-replaced-or-truncated, a share that was unmounted by share-not-mounted, and a file that
    another host removed from a file server by file-handle-stale.

    Next: See the open files, with their current names and their sizes:

        ls -l /proc/PID/fd
        ls -lLi /proc/PID/fd

    If the file was renamed (the evidence shows its new name), give it the old name as a second one.
    Nothing is copied, and the guest is not disturbed:

        ln FOUND MISSING

    If the file was deleted or replaced, copy it out. The guest is paused for as long as the copy
    takes; only for a base image, which no guest writes to, leave out the first and last command:

        virsh suspend NAME
        cp --sparse=always /proc/PID/fd/FD COPY
        virsh resume NAME

    It worked if the file with the old name, or the copy, has the size of QEMU's open file:

        ls -lLi /proc/PID/fd/FD MISSING
        ls -lLi /proc/PID/fd/FD COPY

    Not yet: Do nothing that ends the process: do not stop, reboot, migrate or resize the guest, do
    not run `virsh destroy`, do not restart the host. Do not restart nova-compute, which may do one
    of these.

    Source: Linux proc(5); nova bugs 1398999, 1550919, 1769131.
    """
    named = dict(named_files(domain))
    held = [file for file in process.files if is_disk(file)]
    deleted = {file.path: file for file in held if file.deleted and file.path in named}
    for path, file in deleted.items():
        entry = host.images.entry(path)  # raises if it is unknown what the path leads to
        there = entry.ino if entry is not None else None
        # The file may have its name back; a replaced base is base-replaced-or-truncated's.
        if there != file.ino and (file.writable or there is None):
            yield problem(
                f"{guest.title}'s {_kind(path)} {phrase.place(path)} was deleted while QEMU has it"
                f" open (fd {file.fd}, {phrase.size(file.size)})",
                says(process, pid=process.pid, files=f"{path} (deleted, fd {file.fd})"),
                FD=file.fd,
                FOUND="",
                MISSING="",
            )
    disks_out_of_sight(guest)  # raises if nothing is known about the other files
    numbers = {(file.dev, file.ino) for file in held}
    lost = {file.path for file in process.lost_files}
    for path, written in named.items():
        if path in deleted or path in lost or detached_file(host, process, path) is not None:
            continue
        entry = host.images.entry(path)
        if entry is None:
            yield _of_a_missing_file(guest, host, domain, process, path)
        elif written and entry.type == "f" and inode_of(entry) not in numbers:
            other = hears(host.listing, "images", path, inode=entry.ino)
            file_held = next((file for file in held if file.path == path), None)
            holds = _held(file_held) if file_held is not None else "another file"
            yield problem(
                f"{guest.title}'s {_kind(path)} {phrase.place(path)} was replaced: QEMU has"
                f" {f'inode {file_held.ino}' if file_held is not None else 'another file'} open,"
                f" and the path leads to inode {entry.ino}",
                says(process, pid=process.pid, files=holds),
                says(domain, disks=path),
                other,
                FD=file_held.fd if file_held is not None else None,
                FOUND="",
                MISSING="",
            )


def _of_a_missing_file(
    guest: Guest, host: Host, domain: Domain, process: Process, path: str
) -> Problem:
    """Return the problem of a file that does not exist under the name in the definition."""
    found = known(lambda: renamed_file(host, process, domain, path))
    # Its folder may be hidden: then the kernel still shows the file at this path.
    held = found if found is not None else held_at(process.files, path)
    shown = f"{held.path} (fd {held.fd}, inode {held.ino})" if held is not None else None
    if found is not None:
        what = (
            f"was renamed to {phrase.place(found.path)} while QEMU (PID {process.pid}) runs on it"
        )
    elif held is not None:
        what = f"{phrase.place(path)} is missing, but QEMU has it open (fd {held.fd})"
    else:
        what = f"{phrase.place(path)} is missing while QEMU (PID {process.pid}) runs on it"
    return problem(
        f"{guest.title}'s {_kind(path)} {what}",
        says(process, pid=process.pid, **({"files": shown} if shown else {})),
        says(domain, disks=path),
        hears(host.listing, "images", path, file="missing"),
        FD=held.fd if held is not None else None,
        FOUND=found.path if found is not None else ("" if held is not None else None),
        MISSING=path if found is not None or held is None else "",
        COPY="" if found is not None else None,
    )


def _kind(path: str) -> str:
    return "base image" if is_base(path) else "disk"


@check(Severity.ERROR)
def qcow2_corrupt_bit(guest: Guest, images: tuple[Image, ...], monitor: Monitor | None) -> Problems:
    """A disk image is marked as corrupt, so QEMU opens it read-only.

    QEMU sets the mark when the tables of a qcow2 image contradict each other: two parts of the disk
    share a cluster, or a table points into the middle of another. In a running guest every write
    fails with an I/O error.

    Authority: The image's own header; QEMU, for the image that it has open.

    Traps: Leaked clusters waste space, do no harm, and set no mark. The mark of an image that was
    not closed is reported by qcow2-dirty-bit.

    Next: Check the mark, and look for "Marking image as corrupt" in the QEMU logs:

        qemu-img info -U -f qcow2 DISK
        grep "Marking image as corrupt" /var/log/libvirt/qemu/*.log

    Then, while the guest is off, copy the image:

        cp --sparse=always DISK COPY

    It worked if the check of the copy runs to its end; it lists what is damaged, and repairs
    nothing:

        qemu-img check -f qcow2 COPY

    Then repair only the copy: the same check with the repair option for all errors. If it has no
    errors and no mark after that, put it in the disk's place, with the disk's name, owner and mode,
    and keep the original: a repair may drop data.

    Not yet: Do not run `qemu-img check -r all` on the original, or on any image in use. Do not run
    `openstack server reboot --hard` or `rebuild`.

    Source: QEMU docs/interop/qcow2 (incompatible features, bit 1); qemu-img manual, check.
    """
    for image in images:
        if image.corrupt:
            yield problem(
                f"{guest.title}'s disk {phrase.place(image.path)} is marked as corrupt",
                says(image, path=image.path, corrupt=image.corrupt),
                DISK=image.path,
            )
    for disk in monitor.disks if monitor is not None else ():
        if disk.node is not None and disk.node.corrupt and monitor is not None:
            file = path_in(disk.node.file or "")
            yield problem(
                f"{guest.title}'s QEMU found {phrase.place(file)} corrupt, and won't write to it",
                says(monitor, disks=disk.node.file).and_so(corrupt=True),
                DISK=file or None,
            )


@check(Severity.NOTE, heard=["kernel"])
def qcow2_dirty_bit(guest: Guest, images: tuple[Image, ...]) -> Problems:
    """QEMU ended without closing a disk image of the guest.

    A qcow2 image with lazy reference counts is marked as dirty while QEMU has it open. If QEMU is
    killed or the host loses power, the mark stays. The guest's data is complete: the next process
    that opens the image for writing repairs the reference counts, which takes a moment.

    Authority: The image's own header.

    Traps: An image in use is dirty by design.

    Next: Check the mark, and how the guest's last run ended:

        qemu-img info -U -f qcow2 DISK
        tail /var/log/libvirt/qemu/NAME.log

    Nothing has to be done: the next start of the server repairs the image.

    Not yet: Do not run `qemu-img check -r` while a process has the image open.

    Source: QEMU docs/interop/qcow2 (incompatible features, bit 0).
    """
    if guest.process is not None:
        return
    for image in images:
        if image.dirty and not image.corrupt:
            yield problem(
                f"{guest.title}'s disk {phrase.place(image.path)} was not closed cleanly (it is"
                " marked as dirty)",
                says(image, path=image.path, dirty=image.dirty),
                DISK=image.path,
            )


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def managed_save_mismatch(
    guest: Guest, host: Host, domain: Domain, record: Server | Instance
) -> Problems:
    """The guest's managed save does not match its disk or nova's state, or is missing.

    A domain with a managed save resumes from the saved memory at its next start through libvirt. If
    the disk was written to since, what the guest writes back destroys the file system. If it was
    not, the save is good, and the guest goes on where it was. nova knows nothing of a save that the
    service libvirt-guests or a person made, stops the server in its records, and deletes the save
    at its own start.

    Authority: libvirt, for the saved memory; the time of its file and of the disks, for whether it
    is good.

    Traps: A server that is suspended in nova has a managed save by design, as long as its disk is
    not newer. The time of a disk that is not a file is unknown.

    Next: Compare the time of the saved memory with the time of the disk:

        virsh managedsave-dumpxml NAME
        ls -l --full-time /var/lib/libvirt/qemu/save DISK

    If the disk is newer than the saved memory, remove the managed save. The saved memory is lost,
    which is right, because it no longer matches the disk:

        virsh managedsave-remove STALE

    It worked if libvirt reports no managed save:

        virsh dominfo STALE

    Then boot the guest from its disk, once nova reports the server as SHUTOFF (nova takes up to
    ten minutes to notice):

        openstack server start STARTED

    A suspended server without good saved memory boots from its disk, too:

        openstack server resume RESUMED

    If the saved memory is newer than all disks, it is good. Make the server active in nova, so that
    nova does not stop the guest again, and at once start the domain, which restores the memory:

        openstack server set --state active SHUTOFF_SERVER
        virsh start GOOD

    If nova still has the server as active, start the domain before nova notices, which restores
    the memory:

        virsh start UNNOTICED

    It worked if the domain runs, and with good saved memory is running (restored):

        virsh domstate --reason NAME

    Not yet: While the saved memory is good, do not start, hard-reboot or resume the server through
    nova, unless nova suspended it, and do not remove the managed save: nova's own start deletes it.
    While the disk is newer, do not start the domain with virsh. Do not reboot the host while
    libvirt-guests is enabled.

    Source: libvirt virDomainManagedSave; nova driver.py `suspend`, `_hard_reboot`; nova bugs
    1293480, 1443186.
    """
    if record.deleted:
        return
    suspended = record.vm_state == "suspended"
    if not domain.managed_save:
        if suspended and domain.state == DomainState.SHUTOFF:
            lost = f"suspended in nova, but {domain.state_words} in libvirt without saved memory"
            names = {**_NO_SAVE, "RESUMED": guest.uuid}
            yield _of_a_save(guest, record, domain, lost, names, severity=Severity.WARNING)
        return
    if domain.state in ON:
        if lost_save(host, domain) is not None and not in_a_container(guest):
            return  # libvirt remembers a file that does not exist: nothing can be resumed from it
        also = f"{domain.state_words} in libvirt, which also has a managed save of its memory"
        yield _of_a_save(guest, record, domain, also, {**_NO_SAVE, "STALE": domain.name})
        return
    if damage(host, domain) is not None and not in_a_container(guest):
        return  # saved-memory-damaged reports it: nothing can be resumed, whatever the times are
    newer = list(written_after(host, domain))
    if newer:
        path, after = newer[0].place, newer[0].after
        yield problem(
            f"{guest.title}'s saved memory is stale: its disk {phrase.place(path)} was written to "
            f"{phrase.lasting(after)} later",
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words, managed_save=domain.managed_save),
            *(one.evidence for one in newer),
            severity=None,
            **{
                **_NO_SAVE,
                **_booted(guest, suspended=suspended),
                "STALE": domain.name,
                "DISK": path,
            },
        )
    elif not suspended:
        yield _saved_behind(guest, host, record, domain)


_NO_SAVE = dict.fromkeys(
    ("STALE", "GOOD", "SHUTOFF_SERVER", "UNNOTICED", "STARTED", "RESUMED", "DISK"), ""
)
"""The placeholders of the advice for each state of a save: none applies."""


def _booted(guest: Guest, *, suspended: bool) -> dict[str, str]:
    """Return the placeholder of the server that boots from its disk, without its saved memory."""
    return {"RESUMED" if suspended else "STARTED": guest.uuid}


def _saved_behind(guest: Guest, host: Host, record: Server | Instance, domain: Domain) -> Problem:
    """Return the problem of a save that nova does not know and no disk is known to be newer than.

    It is good if the times of the save and of all disks are known; otherwise the advice for both
    cases is given.
    """
    save, written = _saved_at(host, domain), _last_written(host, domain)
    good = save is not None and written is not None
    stopped = record.vm_state == "stopped"
    names = {
        **_NO_SAVE,
        "GOOD": domain.name,
        "SHUTOFF_SERVER": guest.uuid if stopped else "",
        "UNNOTICED": domain.name if record.vm_state in ("active", "paused") else "",
        "DISK": next(_written_files(domain), ""),
    }
    times = []
    behind = f"{record.vm_state} in nova, but its memory was saved without nova"
    if save is not None and written is not None:
        behind += f" at {save:%H:%M:%S} and is good: no disk was written to since"
        times = [hears(host.listing, "images", names["DISK"], saved=save, written=written)]
    else:
        behind += f": it is {domain.state_words}"
    if not good:
        names |= {"STALE": domain.name, **_booted(guest, suspended=False)}
    return _of_a_save(guest, record, domain, behind, names, *times, severity=Severity.WARNING)


def _of_a_save(
    guest: Guest,
    record: Server | Instance,
    domain: Domain,
    what: str,
    names: Mapping[str, str],
    *more: Evidence,
    severity: Severity | None = None,
) -> Problem:
    return problem(
        f"{guest.title} is {what}",
        says(record, vm_state=record.vm_state),
        says(domain, state=domain.state_words, managed_save=domain.managed_save),
        *more,
        severity=severity,
        **names,
    )


def _saved_at(host: Host, domain: Domain) -> datetime | None:
    save = host.images.entry(f"{SAVES}/{domain.name}.save")
    return moment(save.mtime) if save is not None else None


def _last_written(host: Host, domain: Domain) -> datetime | None:
    """Return when the last of the disks was written to; None if that is unknown for any of them."""
    latest: datetime | None = None
    for disk in domain.inactive_disks:
        if disk.source is None or disk.read_only:
            continue
        entry = host.images.entry(disk.source) if disk.image.type == "file" else None
        written = moment(entry.mtime) if entry is not None else None
        if written is None:
            return None
        latest = written if latest is None else max(latest, written)
    return latest


class Written(NamedTuple):
    """A disk that was written to after the memory was saved, how long after, and the evidence."""

    place: str
    after: timedelta
    evidence: Evidence


def _written_files(domain: Domain) -> Iterator[str]:
    for disk in domain.inactive_disks:
        if disk.source is not None and not disk.read_only and disk.image.type == "file":
            yield disk.source


def written_after(host: Host, domain: Domain) -> Iterator[Written]:
    """Yield the disks that were written to after the memory was saved."""
    saved = _saved_at(host, domain)
    listing = host.listing
    for path in _written_files(domain):
        entry = host.images.entry(path)
        written = moment(entry.mtime) if entry is not None else None
        if saved and written and written - saved > AFTERMATH:
            evidence = hears(listing, "images", path, saved=saved, written=written)
            yield Written(path, written - saved, evidence)


@check(Severity.ERROR)
def io_error_paused(
    guest: Guest, domain: Domain, monitor: Monitor | None, log: Log | None
) -> Problems:
    """QEMU paused the guest because its disk returned an I/O error.

    A full file system is the usual cause: QEMU pauses the guest instead of passing on the failed
    write. nova shows the server as PAUSED or still ACTIVE and does nothing.

    Authority: QEMU, and libvirt's reason for the pause.

    Traps: A pause for a snapshot or a migration has another reason.

    Next: Check the disk's error, and the space on the file system of the disk and on the volume's
    storage:

        virsh domblkerror NAME
        df -h DISK

    Then make space, or restore the path to the storage, and resume the guest; no data is lost:

        virsh resume NAME

    It worked if the domain runs, and none of its disks has an error:

        virsh domstate --reason NAME
        virsh domblkerror NAME

    Not yet: Do not run `openstack server reboot --hard`: writes that the guest has not completed
    are lost. Do not delete files in `_base` or `*_resize` to make space.

    Source: QEMU manual, `werror`; libvirt qemu_monitor.c; nova bug 1097806 (the power sync ignores
    PAUSED).
    """
    stopped = (domain.state, domain.reason) == (DomainState.PAUSED, PauseReason.IOERROR)
    if stopped:
        yield problem(
            f"{guest.title} is {domain.state_words}{_cause(guest, domain)}",
            says(domain, state=domain.state_words),
            *_full(guest, domain),
            *complaint(log),
            DISK=_own_disk(domain),
        )
    elif monitor is not None and (monitor.status == "io-error" or monitor.io_errors):
        errors = ", ".join(f"{device}: {error}" for device, error in monitor.io_errors.items())
        yield problem(
            f"{guest.title}'s QEMU reports I/O errors ({errors or monitor.status})"
            f"{_cause(guest, domain)}",
            says(domain, state=domain.state_words),
            says(monitor, status=monitor.status, io_errors=errors),
            *_full(guest, domain),
            *complaint(log),
            DISK=_own_disk(domain),
        )


def _own_disk(domain: Domain) -> str:
    """Return the first file that the guest writes to; "" if all its disks are devices."""
    files = known(lambda: [path for path, written in named_files(domain) if written]) or []
    return next(iter(files), "")


def _full(guest: Guest, domain: Domain) -> Iterator[Evidence]:
    """Yield the file systems of the guest's disks that are full."""
    host = guest.host
    if host is None:
        return
    paths = known(lambda: [path for path, _ in named_files(domain)]) or []
    rooms = {id(room.answer): room for path in paths if (room := known(partial(_room, host, path)))}
    for room in rooms.values():
        if room.free < FULL:
            folder = room.answer.query.removeprefix("stat -f ")
            yield hears(room.answer, "images", folder, file_system=folder, bytes_free=room.free)


def _room(host: Host, path: str) -> FreeSpace:
    return host.hypervisor.room(path)


def _cause(guest: Guest, domain: Domain) -> str:
    for evidence in _full(guest, domain):
        said = dict(evidence.said)
        return f": {said['file_system']} is full"
    log = guest.log
    complained = known(lambda: log.complaint if log is not None else None) or ""
    found = IO_ERROR.fullmatch(complained)
    return f": {found['error']}" if found else ""
