"""Can a guest's monitor be asked about its disks without stopping the guest?

QEMU answers `query-block` and `query-named-block-nodes` in its main loop, where the vCPUs wait for
it. For a disk of a network driver it may read from the disk first: rbd (since 6.1) looks for a LUKS
header. For a file it calls fstat, which waits where an NFS server is dead. No question to a storage
cluster covers the very object that QEMU reads, so a guest with a network disk is never asked. Files
are looked at before, by us and for a bounded time.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial

from hoodsnap.collect import file
from hoodsnap.collect.domain import SeenDomain
from hoodsnap.collect.header import HEAD_SIZE, read_header
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import RefusedError, patiently
from hoodsnap.facts.process.command_line import CommandLine

LOOK = 2.0
"""Seconds for all files of one guest. A healthy file system needs less than a millisecond."""

LONGEST_CHAIN = 50
"""Images below each other. nova makes two, snapshots some more."""

_LOCAL = frozenset(["file", "host_device", "host_cdrom", "null-co", "null-aio", "fat", "nvme"])
"""The drivers of QEMU that reach no network by themselves."""


_NETWORK = re.compile(
    r"(?:=|\":\s?\")(rbd|nbd|iscsi|iser|gluster|ssh|https?|ftps?|nfs|sheepdog|vxhs)(?=[:+,\"]|$)"
)
"""A network driver or protocol at the beginning of a value, be it in JSON."""


def obstacle(
    domain: SeenDomain | None, processes: Iterable[tuple[int | None, CommandLine]]
) -> RefusedError | None:
    """Return why a monitor must not be asked about its disks; None if it may be.

    `domain`: libvirt's view of the guest, if there is one; `processes`: PID and arguments of each
    QEMU of the guest.
    """
    processes = list(processes)
    if domain is not None and domain.remote is None:
        return _not_asked("the definition of the guest, which names its disks, was not read")
    remote = set((domain.remote if domain else None) or ())
    remote |= {name for _, argv in processes for name in _remote(argv)}
    if not remote:
        paths = set(domain.images if domain is not None else ())
        paths |= {path for _, argv in processes for path in _paths(argv)}
        found = patiently(partial(_look, [pid for pid, _ in processes], sorted(paths)), LOOK)
        if isinstance(found, TimeoutError):
            return _not_asked(f"the files of its disks did not answer within {LOOK:g} s")
        if isinstance(found, BaseException):
            return _not_asked(f"its disks could not be looked at: {found}")
        remote = {str(found)} if found else set()
    if not remote:
        return None
    names = ", ".join(sorted(remote))
    return _not_asked(
        f"the guest has a network disk ({names}), and QEMU may read from it to answer, which stops "
        "the guest while the storage does not respond"
    )


def _not_asked(reason: str) -> RefusedError:
    return RefusedError("denied", f"not asked: {reason}")


def _remote(argv: CommandLine) -> Iterator[str]:
    """Drivers on a command line that reach a network or are unknown."""
    for drive in argv.disks:
        for protocol in (drive.protocol, *(node.protocol for node in drive.backing or ())):
            if protocol not in _LOCAL:
                yield protocol
    # Firmware, and what is passed through to the guest, are no disks of it, and nodes all the same.
    for word in argv.words:
        yield from _NETWORK.findall(word)


def _paths(argv: CommandLine) -> Iterator[str]:
    for drive in argv.disks:
        for source in (drive.source, *(node.source for node in drive.backing or ())):
            if source is not None and source.startswith("/"):
                yield source


def _look(pids: Iterable[int | None], paths: Iterable[str]) -> str | None:
    """Look at each file, also through the processes that have it open; return the first backing
    file that is no path."""
    for pid in filter(None, pids):
        try:
            numbers = file.names(f"/proc/{pid}/fd")
        except OSError:  # it has ended, or only root may know
            continue
        for number in numbers:
            must_go_on()
            _stat(f"/proc/{pid}/fd/{number}")
    return next(filter(None, map(_backing_elsewhere, paths)), None)


def _backing_elsewhere(path: str) -> str | None:
    """The backing file that a chain of qcow2 headers leads to, if it is on a network."""
    for _ in range(LONGEST_CHAIN):
        must_go_on()
        _stat(path)
        try:
            header = read_header(file.head(path, HEAD_SIZE))
        except (OSError, RefusedError):  # a device, or a file that only QEMU sees
            return None
        if header.backing is None:
            return None
        if ":" in header.backing.partition("/")[0]:
            return header.backing.partition(":")[0]
        path = os.path.join(os.path.dirname(path), header.backing)
    return None


def _stat(path: str) -> None:
    with contextlib.suppress(OSError):  # gone, stale, or hidden: it did answer
        os.stat(path)
