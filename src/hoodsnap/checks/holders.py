"""Wrong holders of a disk: a guest that writes into a base image, a program that locks a disk."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from hoodsnap import phrase
from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.corruption import is_stray
from hoodsnap.checks.traps import building, migrating, task_in_flight, volume_moving
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.held_files import inode_of
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught, known, value_of
from hoodsnap.facts.host.instances_directory import FolderEntry, disk_owner, is_base
from hoodsnap.facts.host.locks import LOCKS, FileLock
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.process.process import Process

RESTS = frozenset(["stopped", "suspended", "shelved", "soft-delete"])
"""States of a server whose guest is off."""

_LOCK = re.compile(r"\block\b")
"""The word in QEMU's and libvirt's messages: `Failed to get "write" lock`."""


@check(Severity.ERROR)
def guest_writes_into_base(host: Host, cloud: Cloud) -> Problems:
    """A guest writes into a base image that other disks are based on.

    A base image is shared: every disk above it reads it for all that its guest has not written
    itself. A disk that was committed into its base (`virsh blockcommit`, `qemu-img commit`), or a
    definition that names the base as a disk, makes one guest change the data of all others, and of
    every server that nova builds from the image later.

    Authority: The kernel, for who has the file open for writing; libvirt, for the disk of a guest.

    Traps: Base images that guests only read. A disk of nova is never a file in `_base`.

    Next: Check which disk the guest uses, and which other disks are based on this file:

        virsh domblklist --details NAME
        ls -l /proc/PID/fd
        grep -l BASE /proc/[0-9]*/cmdline

    Then stop the writes of this guest. It is paused, and can be resumed:

        virsh suspend NAME

    If libvirt has no running domain for it, stop its process (`kill -CONT` lets it continue):

        kill -STOP WRONG_PID

    It worked if the guest is paused, or the process is in state T:

        virsh domstate --reason NAME
        ps -o pid,stat -p PID

    While it is paused, copy the base image; the copy is this guest's disk, complete:

        cp --sparse=always BASE COPY

    It worked if both files have the same size:

        ls -ls BASE COPY

    The other guests need the original contents. See how the file differs from the one of that name
    in `_base` of another host:

        sha256sum BASE

    Not yet: Do not run `virsh resume`, `openstack server reboot --hard` or `rebuild` for this
    server: its own disk file lacks what was written into the base. Do not build servers from this
    image on this host. Do not start guests that use this base.

    Source: QEMU documentation, live block operations (commit); nova virt/libvirt/imagecache.py.
    """
    writers: dict[tuple[str, str], tuple[Guest | None, list[Evidence]]] = {}
    by_pid = {one.pid: guest for guest in cloud.guests_of(host) for one in guest.processes}
    unknown = None
    for guest in cloud.guests_of(host):
        try:
            for path in _bases_as_disks(guest):
                evidence = _writes(guest, path)
                _, told = writers.setdefault((path, guest.uuid), (guest, []))
                told.append(evidence)
        except UnheardError as reason:
            unknown = reason
    for process in host.processes.everyones:
        owner = by_pid.get(process.pid)
        try:
            for path in _bases_written(host, process):
                key = path, owner.uuid if owner is not None else str(process.pid)
                _, told = writers.setdefault(key, (owner, []))
                told.append(says(process, pid=process.pid, files=f"{path} (rw)"))
        except UnheardError as reason:
            unknown = reason
    for (path, user), (writer, evidence_of) in writers.items():
        others = [it for it in cloud.guests_of(host) if it is not writer and _stands_on(it, path)]
        title = writer.title if writer is not None else f"PID {user}"
        use = "also uses" if len(others) == 1 else "also use"
        shared = f", which {phrase.several(it.title for it in others)} {use}" if others else ""
        process_of = writer.process if writer is not None else host.processes.find(int(user))
        stray = process_of is not None and is_stray(cloud, host, process_of)
        name = known(partial(_name, process_of)) if process_of is not None else None
        yield problem(
            f"{title} writes into base image {phrase.place(path)}{shared}",
            *evidence_of,
            NAME="" if stray else name,
            PID=process_of.pid if process_of is not None else "",
            WRONG_PID=process_of.pid if process_of is not None and stray else "",
            BASE=path,
        )
    if unknown is not None and not writers:
        raise unknown


def _name(process: Process) -> str:
    return process.name


def _bases_as_disks(guest: Guest) -> Iterator[str]:
    if guest.domain is None:
        return
    for disk in guest.domain.current.disks:
        if disk.source is not None and not disk.read_only and is_base(disk.source):
            yield disk.source


def _writes(guest: Guest, path: str) -> Evidence:
    assert guest.domain is not None  # noqa: S101 (its definition named the path)
    return says(guest.domain, disks=f"{path} (rw)")


def _bases_written(host: Host, process: Process) -> Iterator[str]:
    found = {
        host.images.listed_path(file.path)
        for file in process.files
        if file.writable and stat.S_ISREG(file.mode) and is_base(file.path)
    }
    yield from sorted(found)


def _stands_on(guest: Guest, path: str) -> bool:
    for image in guest.images or ():
        try:
            if any(layer.path == path for layer in image.chain[1:]):
                return True
        except Exception as error:
            caught(error)
            continue
    return False


@check(
    Severity.WARNING, heard=["kernel"], traps=[building, task_in_flight, migrating, volume_moving]
)
def disk_locked_by_another(
    guest: Guest, host: Host, domain: Domain, process: Process | None, log: Log | None
) -> Problems:
    """A program that is not the guest's QEMU has locked a disk of the guest.

    QEMU and its tools (qemu-nbd, qemu-img, guestfs) lock an image while they have it open. If
    a backup, a repair or a mounted image was left behind, the guest can't be started ("Failed to
    get write lock"), and what the program writes is mixed with what the guest writes.

    Authority: The kernel's list of locks.

    Traps: nova itself copies and converts disks, but only while the server has a task; cinder does
    so while it moves a volume. libvirt's lock daemon locks the first byte of a file.
    A guest that nova wants to run, or that is in error, may have ended after the locks were read:
    the lock must be a process' and the guest have been off before, or QEMU's log or nova's fault
    has to name a lock.

    Next: Check which program has the disk open, and who started it:

        lsof DISK
        fuser -v DISK
        grep INODE /proc/locks
        ps -ww -o pid,user,lstart,args -p LOCKER

    If it is a program that was forgotten, end it by its own means (`qemu-nbd --disconnect`,
    `guestunmount`, the backup's own command).

    It worked if the disk has no lock any more:

        grep INODE /proc/locks

    Not yet: Do not start or resume the server, do not run `qemu-img` without `-U`, and do not use
    `--force-share` to write.

    Source: QEMU block/file-posix.c (`RAW_LOCK_PERM_BASE`); Linux fcntl(2), open file description
    locks.
    """
    runs = process is not None or domain.id is not None
    if runs and process is None:
        raise UnheardError("QEMU's process was not collected")
    is_foreign = runs or _rests(guest) or _complains(log) or _failed_on_a_lock(guest)
    own = {one.pid for one in guest.processes}
    for disk in domain.current.disks:
        if disk.image.type != "file" or disk.source is None or disk.read_only or disk.shareable:
            continue
        if disk_owner(disk.source) not in (None, guest.uuid):
            continue  # of another guest, whose QEMU may well hold it
        entry = host.images.entry(disk.source)
        for lock in _strange_locks(host, entry, own, runs=runs) if entry is not None else ():
            # QEMU's own locks belong to no process.
            if not is_foreign and (lock.pid is None or not _was_off(host, domain)):
                raise UnheardError("its QEMU may have ended after the locks were read")
            where = phrase.place(disk.source)
            holder, evidence, pid = _holder(host, entry, lock)
            yield problem(
                f"{holder} has locked {guest.title}'s disk {where}"
                f"{'' if runs else f'; {guest.title} is off'}",
                _told(host, lock),
                says(domain, state=domain.state_words, disks=disk.source),
                *evidence,
                DISK=disk.source,
                INODE=entry.ino if entry is not None else None,
                LOCKER=pid,
            )


def _rests(guest: Guest) -> bool:
    """True if the guest is off for nova, too."""
    return guest.record is not None and guest.record.vm_state in RESTS


def _was_off(host: Host, domain: Domain) -> bool:
    """True if the guest was already off when the locks were read, so none of them is its QEMU's."""
    now, locks = domain.said["state"], host.bundle.last("kernel", LOCKS, host.name)
    earlier = [
        answer.value
        for answer in host.bundle.asked("libvirt", now.query, host.name)
        if answer.query == now.query and locks is not None and answer.at < locks.at
    ]
    return now.value in earlier


def _complains(log: Log | None) -> bool:
    """True if QEMU's last complaint is about a lock."""
    said = known(partial(_complaint, log)) if log is not None else None
    return _LOCK.search(said or "") is not None


def _failed_on_a_lock(guest: Guest) -> bool:
    """True if the server is in error, and its last fault is about a lock."""
    record = guest.instance or guest.record
    if record is None or record.vm_state != "error":
        return False
    said = known(lambda: record.fault_message)
    return _LOCK.search(said or "") is not None


def _complaint(log: Log) -> str | None:
    return log.complaint


def _strange_locks(
    host: Host, entry: FolderEntry, own: set[int], *, runs: bool
) -> Iterator[FileLock]:
    """Yield the locks of programs that are not the guest's QEMU, one for each program."""
    seen: set[int | None] = set()
    for lock in host.locks.get(inode_of(entry), ()):
        # A running guest's own QEMU holds locks without a process, too.
        if lock.is_libvirts or lock.pid in own or lock.pid in seen or (lock.pid is None and runs):
            continue
        seen.add(lock.pid)
        yield lock


class _Holder(NamedTuple):
    """The program that holds a lock: the start of a headline, evidence, and its PID if known."""

    words: str
    evidence: tuple[Evidence, ...] = ()
    pid: int | None = None


def _holder(host: Host, entry: FolderEntry | None, lock: FileLock) -> _Holder:
    tools, answer = _tools(host)
    if lock.pid is not None:
        name = tools.get(lock.pid)
        return _Holder(f"{name} (PID {lock.pid})" if name else f"PID {lock.pid}", (), lock.pid)
    for process in host.processes.everyones:
        files = known(partial(_inodes, process)) or frozenset()
        if entry is not None and inode_of(entry) in files:
            return _Holder(f"Another QEMU (PID {process.pid})", (), process.pid)
    if not tools or answer is None:
        return _Holder("A program")
    # The lock names no process, and the files that tools have open were not collected.
    named = [f"{name} (PID {pid})" for pid, name in tools.items()]
    evidence = hears(answer, "kernel", "ps", running=", ".join(named))
    pid = next(iter(tools)) if len(tools) == 1 else None
    return _Holder(f"A program, perhaps {phrase.several(named)},", (evidence,), pid)


_TOOL = re.compile(
    r"^ *(?P<pid>\d{1,10}) \S+ +\S+ +\S+ (?:\S*/)?(?P<name>qemu-(?:nbd|img|io|storage-daemon))\b",
    re.MULTILINE,
)
"""A line of ps about a tool of QEMU that opens images, but is no guest."""


def _tools(host: Host) -> tuple[Mapping[int, str], Answer | None]:
    """Return PID → name of QEMU's tools that run, and the answer that lists them."""
    answer = host.bundle.last("kernel", "pgrep qemu | xargs ps ww", host.name)
    listed = known(lambda: value_of(answer, "the list of QEMU processes", str)) or ""
    return {int(found["pid"]): found["name"] for found in _TOOL.finditer(listed)}, answer


def _inodes(process: Process) -> frozenset[tuple[str, int]]:
    return frozenset((file.dev, file.ino) for file in process.files)


def _told(host: Host, lock: FileLock) -> Evidence:
    answer = host.bundle.last("kernel", LOCKS, host.name)
    assert answer is not None  # noqa: S101 (the lock was read from it)
    return hears(answer, "kernel", lock.line, lock=lock.line)
