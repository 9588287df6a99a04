"""The kernel's list of file locks: `/proc/locks`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import value_of

_LINE = re.compile(
    r"(?P<line>\d{1,10}: (?P<kind>POSIX|FLOCK|OFDLCK) +(?:ADVISORY|MANDATORY) +(?P<mode>READ|WRITE)"
    r" +(?P<pid>-?\d{1,10}) (?P<major>[0-9a-f]{2,8}):(?P<minor>[0-9a-f]{2,8}):(?P<ino>\d{1,20})"
    r" (?P<first>\d{1,20}) (?P<last>\d{1,20}|EOF))"
)

LOCKS = "/proc/locks"
"""The question whose answer lists all locks."""

LIBVIRTS = ("0", "1")
"""First bytes that libvirt locks: its lock daemon, and its notes about owners."""


class FileLock(NamedTuple):
    """One lock that is held, not waited for."""

    line: str
    kind: str
    """`POSIX`, `FLOCK` or `OFDLCK`."""
    writes: bool
    pid: int | None
    """None for a lock of an open file (`OFDLCK`), which belongs to no process."""
    first: str
    last: str

    @property
    def is_libvirts(self) -> bool:
        """True if libvirt takes such locks itself: of one byte at the beginning of a disk."""
        return self.kind == "POSIX" and self.first == self.last and self.first in LIBVIRTS


def read_locks(answer: Answer | None) -> Mapping[tuple[str, int], tuple[FileLock, ...]]:
    """Return device and inode → the locks of the file. Raises `UnheardError`."""
    found: dict[tuple[str, int], list[FileLock]] = {}
    for line in value_of(answer, LOCKS, str).splitlines():
        lock = _LINE.fullmatch(line.strip())
        if lock is None:
            continue  # a lease, or a process that waits for a lock (`1: -> …`)
        device = f"{int(lock['major'], 16)}:{int(lock['minor'], 16)}"
        pid = int(lock["pid"])
        found.setdefault((device, int(lock["ino"])), []).append(
            FileLock(
                lock["line"],
                lock["kind"],
                lock["mode"] == "WRITE",
                pid if pid > 0 else None,
                lock["first"],
                lock["last"],
            )
        )
    return {inode: tuple(locks) for inode, locks in found.items()}
