"""Older bundle formats, brought up to today's.

The only file that knows what a bundle used to look like. It works on plain dicts, one function per
step, so that no old shape lives on inside today's classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FORMAT = 1
"""The number of the format that this release writes. It grows by one with each change of
`Answer` or `Bundle`; a new layer or a new query is no change of the format."""

Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: dict[int, Step] = {}
"""For each old format the function that makes the next one of it."""


class UnknownFormatError(ValueError):
    """The bundle's format number is none that this release can read."""


def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    """Bring a parsed bundle of any known format to `FORMAT`.

    Raises `UnknownFormatError`, whose text says what to do about it.
    """
    number = raw.get("format")
    # `True == 1`, and a bundle whose format is `true` was not written by us.
    if type(number) is not int or number < 1:
        raise UnknownFormatError("it has no format number, so it is no hoodsnap bundle")
    if number > FORMAT:
        raise UnknownFormatError(
            f"it has format {number} and this release reads up to {FORMAT}: please update hoodsnap"
        )
    while number < FORMAT:
        raw = STEPS[number](raw)
        number += 1
    return raw
