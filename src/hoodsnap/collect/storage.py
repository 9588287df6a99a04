"""Can a guest's monitor be asked about its disks without stopping the guest?

QEMU answers `query-block` and `query-named-block-nodes` in its main loop, and meanwhile the vCPUs
wait. For a network disk QEMU may read from the disk first: rbd (since 6.1) looks for a LUKS header.
For a file QEMU calls fstat, which hangs if an NFS server is dead. No test of a storage cluster
covers the exact object that QEMU reads, so a guest with a network disk is never asked. For files,
the collector first calls stat itself, with a time limit.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from hoodsnap.collect import file
from hoodsnap.collect.domain import SeenDomain
from hoodsnap.collect.image_header import HEAD_SIZE, read_header
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import RefusedError, patiently
from hoodsnap.facts.process.command_line import CommandLine

LOOK = 2.0
"""Seconds for all files of one guest. A healthy file system needs less than a millisecond."""

LONGEST_CHAIN = 50
"""Images in a backing chain. nova makes two, snapshots add more."""

_LOCAL = frozenset(["file", "host_device", "host_cdrom", "null-co", "null-aio", "fat", "nvme"])
"""QEMU drivers that do not use the network themselves."""


_NETWORK = re.compile(
    r"(?:=|\":\s?\")(rbd|nbd|iscsi|iser|gluster|ssh|https?|ftps?|nfs|sheepdog|vxhs)(?=[:+,\"]|$)"
)
"""Network driver or protocol at the beginning of a value, also in JSON."""


def obstacle(
    domain: SeenDomain | None,
    processes: Iterable[tuple[int | None, CommandLine]],
    wait: Callable[[Callable[[], object], float], object] = patiently,
) -> RefusedError | None:
    """Return why a monitor must not be asked about its disks; None if it may be.

    `domain`: the guest's domain, if one exists; `processes`: PID and arguments of each QEMU process
    of the guest. `wait`: calls a function with a time limit, as `patiently` does.
    """
    processes = list(processes)
    if domain is not None and domain.remote is None:
        return _not_asked("the domain's definition, which lists the disks, was not collected")
    remote = set((domain.remote if domain else None) or ())
    remote |= {name for _, argv in processes for name in _remote(argv)}
    if not remote:
        paths = set(domain.images if domain is not None else ())
        paths |= {path for _, argv in processes for path in _paths(argv)}
        found = wait(partial(_look, [pid for pid, _ in processes], sorted(paths)), LOOK)
        if isinstance(found, TimeoutError):
            return _not_asked(f"stat on the guest's disk files took more than {LOOK:g} s")
        if isinstance(found, BaseException):
            return _not_asked(f"the guest's disks could not be inspected: {found}")
        remote = {str(found)} if found else set()
    if not remote:
        return None
    names = ", ".join(sorted(remote))
    return _not_asked(
        f"the guest has a network disk ({names}); QEMU may read from the disk before it answers, "
        "which would stop the guest if the storage does not respond"
    )


def _not_asked(reason: str) -> RefusedError:
    return RefusedError("denied", f"not asked: {reason}")


def _remote(argv: CommandLine) -> Iterator[str]:
    """Yield the drivers on a command line that use the network or are unknown."""
    for drive in argv.disks:
        for protocol in (drive.protocol, *(node.protocol for node in drive.backing or ())):
            if protocol not in _LOCAL:
                yield protocol
    # Firmware and passed-through devices are no disks of the guest, but QEMU has nodes for them.
    for word in argv.words:
        yield from _NETWORK.findall(word)


def _paths(argv: CommandLine) -> Iterator[str]:
    for drive in argv.disks:
        for source in (drive.source, *(node.source for node in drive.backing or ())):
            if source is not None and source.startswith("/"):
                yield source


def _look(pids: Iterable[int | None], paths: Iterable[str]) -> str | None:
    """Call stat on each file, also through the processes that have it open.

    Returns the protocol of the first backing file that is not a local path; None if all are local.
    """
    for pid in filter(None, pids):
        try:
            numbers = file.names(f"/proc/{pid}/fd")
        except OSError:  # it has ended, or only root may read it
            continue
        for number in numbers:
            must_go_on()
            _stat(f"/proc/{pid}/fd/{number}")
    return next(filter(None, map(_backing_elsewhere, paths)), None)


def _backing_elsewhere(path: str) -> str | None:
    """Return the protocol of the first backing file in a qcow2 chain that is not a local path.

    None if the whole chain is local.
    """
    for _ in range(LONGEST_CHAIN):
        must_go_on()
        _stat(path)
        try:
            header = read_header(file.head(path, HEAD_SIZE))
        except (OSError, RefusedError):  # a device, or a file that only QEMU can see
            return None
        if header.backing is None:
            return None
        if ":" in header.backing.partition("/")[0]:
            return header.backing.partition(":")[0]
        path = os.path.join(os.path.dirname(path), header.backing)
    return None


def _stat(path: str) -> None:
    with contextlib.suppress(OSError):  # missing, stale or denied: the file system did answer
        os.stat(path)
