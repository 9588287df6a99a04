"""The kernel's list of file locks."""

from __future__ import annotations

from datetime import UTC, datetime

from hoodsnap.bundle import Answer
from hoodsnap.facts.host.locks import read_locks

LOCKS = """1: OFDLCK ADVISORY  READ -1 fe:00:1515745 203 203
1: -> OFDLCK ADVISORY  WRITE -1 fe:00:1515745 203 203
2: POSIX  ADVISORY  WRITE 815 fd:01:77 0 0
3: FLOCK  ADVISORY  WRITE 4711 fd:01:77 0 EOF
4: LEASE  ACTIVE    READ  12 fd:01:77 0 EOF
"""


def test_locks_are_read_by_device_and_inode() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    answer = Answer(layer="kernel", host="h", query="/proc/locks", at=at, took=0, value=LOCKS)

    locks = read_locks(answer)

    assert {file: [lock.pid for lock in held] for file, held in locks.items()} == {
        ("254:0", 1515745): [None],
        ("253:1", 77): [815, 4711],
    }
    assert [lock.is_libvirts for lock in locks["253:1", 77]] == [True, False]
