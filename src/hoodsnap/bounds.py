"""Bounds of a bundle: sizes beyond which a file is refused before it costs memory or time.

A bundle comes from a stranger. Each bound is several times what recordings have (their numbers
stand beside it), grows with the size of the file where a real bundle's would, and is checked on
bytes, before an object is made of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LARGEST = 2 << 30
"""Bytes of JSON, uncompressed. Ten thousand guests are 0.6 GB."""

LONGEST_TEXT = 64 << 20
"""Characters. No layer's answer is kept if it is longer, so a longer one is not ours."""

DEEPEST = 64
"""Values in values. Recordings have 9."""

UNPACKED, UNPACKED_PER_BYTE = 16 << 20, 250
"""Bytes that a compressed file may unpack to: so many, and so many for each byte of the file.
Recordings have 6 to 15 for each; ten thousand copies of one guest, which no host has, 127."""


class Share(NamedTuple):
    """Bound of a number of things: a number for any file, and one for each byte of it."""

    what: str
    marks: tuple[bytes, ...]
    """The bytes that each of them begins with. Those inside of texts are counted too: a text may
    hold JSON or XML itself."""
    free: int
    per_byte: float


SHARES = (
    # For each byte recordings have 0.013 (a single answer, of Open vSwitch, 0.05).
    Share("lists and objects", (b"[", b"{"), 100_000, 0.04),
    # 0.035 (an answer of the database 0.11).
    Share("values", (b",",), 500_000, 0.2),
    # 0.012 (an answer of libvirt 0.04).
    Share("XML elements", (b"<",), 200_000, 0.06),
)
"""Values that each cost a hundred times their own bytes in memory."""

ANSWERS, BYTES_PER_ANSWER = 20_000, 400
"""Answers: a number, and one more for so many bytes. Recordings have 1,200 to 2,200 for each."""

LENGTHS = {"layer": 256, "host": 1024, "query": 4 << 20, "subject": 64 << 10}
"""Characters of an answer's own words. A query that names ten thousand servers has 0.4 million."""

TOOL, KIND, MESSAGE = 1024, 256, 1 << 20
"""Characters of the bundle's `tool`, of an error's kind and of its message."""


class OutOfBoundsError(ValueError):
    """A file is larger than a bundle may be, in one respect. The text is one sentence."""


def unpacked(packed: int) -> int:
    """Bytes that a compressed file of `packed` bytes may unpack to."""
    return min(LARGEST, UNPACKED + UNPACKED_PER_BYTE * packed)


def check_bytes(data: bytes) -> None:
    """Count what is in JSON that is not parsed yet. Raises `OutOfBoundsError`."""
    if len(data) > LARGEST:
        raise OutOfBoundsError(f"it is larger than {LARGEST >> 30} GiB")
    for share in SHARES:
        count = sum(map(data.count, share.marks))
        most = share.free + int(share.per_byte * len(data))
        if count > most:
            raise OutOfBoundsError(
                f"it holds {count} {share.what}, and a bundle of {len(data)} bytes at most {most}"
            )


def check_depth(value: Any) -> None:
    """Look how deep values are nested, without recursion. Raises `OutOfBoundsError`."""
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
    """Count the answers of a bundle of `size` bytes, and measure their words.

    Words of another type than text are left to the shape's own check. Raises `OutOfBoundsError`.
    """
    most = ANSWERS + size // BYTES_PER_ANSWER
    if len(answers) > most:
        raise OutOfBoundsError(
            f"it holds {len(answers)} answers, and a bundle of {size} bytes at most {most}"
        )
    for number, answer in enumerate(answers):
        if type(answer) is not dict:
            continue
        for name, length in LENGTHS.items():
            _check_length(answer.get(name), length, f"the {name} of answer {number}")
        error = answer.get("error")
        if type(error) is dict:
            _check_length(error.get("kind"), KIND, f"the error of answer {number}")
            _check_length(error.get("message"), MESSAGE, f"the error of answer {number}")


def check_tool(tool: object) -> None:
    """Measure the name of the program that wrote it. Raises `OutOfBoundsError`."""
    _check_length(tool, TOOL, "the tool")


def _check_length(said: object, most: int, what: str) -> None:
    if type(said) is str and len(said) > most:
        raise OutOfBoundsError(f"{what} has {len(said)} characters, and may have {most}")
