"""Bounds of a bundle: sizes beyond which a file is refused before it costs memory or time.

A bundle comes from a stranger. Each bound is several times what real recordings need (the measured
numbers are given beside it) and grows with the size of the file where a real bundle's number would.
The size and the number of values are checked on the raw bytes, before any object is created from
them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LARGEST = 2 << 30
"""Bytes of JSON, uncompressed. Ten thousand guests take 0.6 GB."""

LONGEST_TEXT = 64 << 20
"""Characters of one string. hoodsnap never keeps a longer answer, so it did not write one."""

DEEPEST = 64
"""Levels of nesting. Recordings have 9."""

UNPACKED, UNPACKED_PER_BYTE = 16 << 20, 250
"""Bytes that a compressed file may unpack to: a fixed number, plus a number for each byte of the
file. Recordings unpack to 6 to 15 bytes for each byte; ten thousand copies of one guest, which no
real host has, to 127."""


class Share(NamedTuple):
    """Upper bound for a count: a fixed number for any file, plus a number for each byte of it."""

    what: str
    marks: tuple[bytes, ...]
    """The bytes that each counted thing begins with. They are counted inside strings as well,
    because a string may itself hold JSON or XML."""
    free: int
    per_byte: float


SHARES = (
    # Recordings have 0.013 for each byte (a single answer of Open vSwitch has 0.05).
    Share("lists and objects", (b"[", b"{"), 100_000, 0.04),
    # Recordings have 0.035 (an answer of the database has 0.11).
    Share("values", (b",",), 500_000, 0.2),
    # Recordings have 0.012 (an answer of libvirt has 0.04).
    Share("XML elements", (b"<",), 200_000, 0.06),
)
"""Things that each take a hundred times their own bytes in memory."""

ANSWERS, BYTES_PER_ANSWER = 20_000, 400
"""Answers: a fixed number, plus one for each `BYTES_PER_ANSWER` bytes. Recordings have 1,200 to
2,200 bytes per answer."""

LENGTHS = {"layer": 256, "host": 1024, "query": 4 << 20, "subject": 64 << 10}
"""Characters of an answer's fields. A query that names ten thousand servers has 0.4 million."""

TOOL, KIND, MESSAGE = 1024, 256, 1 << 20
"""Characters of the bundle's `tool`, of an error's kind and of its message."""


class OutOfBoundsError(ValueError):
    """A file exceeds one of the bounds of a bundle. The text is one sentence."""


def unpacked(packed: int) -> int:
    """Return how many bytes a compressed file of `packed` bytes may unpack to."""
    return min(LARGEST, UNPACKED + UNPACKED_PER_BYTE * packed)


def check_bytes(data: bytes) -> None:
    """Check the size of JSON that is not parsed yet, and the number of values in it.

    Raises `OutOfBoundsError`.
    """
    if len(data) > LARGEST:
        raise OutOfBoundsError(f"it is larger than {LARGEST >> 30} GiB")
    for share in SHARES:
        count = sum(map(data.count, share.marks))
        most = share.free + int(share.per_byte * len(data))
        if count > most:
            raise OutOfBoundsError(
                f"it holds {count} {share.what}; a bundle of {len(data)} bytes may hold {most}"
            )


def check_depth(value: Any) -> None:
    """Check how deeply values are nested, without recursion. Raises `OutOfBoundsError`."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise OutOfBoundsError("it is nested too deeply for a hoodsnap bundle")


def check_answers(answers: list[Any], size: int) -> None:
    """Check the number of answers in a bundle of `size` bytes, and the length of their fields.

    Fields that are not strings are left to the validation of the shape. Raises `OutOfBoundsError`.
    """
    most = ANSWERS + size // BYTES_PER_ANSWER
    if len(answers) > most:
        raise OutOfBoundsError(
            f"it holds {len(answers)} answers; a bundle of {size} bytes may hold {most}"
        )
    for number, answer in enumerate(answers):
        if type(answer) is not dict:
            continue
        for name, length in LENGTHS.items():
            value = answer.get(name)
            if type(value) is str and len(value) > length:
                _check_length(value, length, f"the {name} of answer {number}")
        error = answer.get("error")
        if type(error) is dict:
            _check_length(error.get("kind"), KIND, f"the error of answer {number}")
            _check_length(error.get("message"), MESSAGE, f"the error of answer {number}")


def check_tool(tool: object) -> None:
    """Check the length of the name of the program that wrote it. Raises `OutOfBoundsError`."""
    _check_length(tool, TOOL, "the tool")


def _check_length(value: object, most: int, what: str) -> None:
    if type(value) is str and len(value) > most:
        raise OutOfBoundsError(f"{what} has {len(value)} characters; at most {most} are allowed")
