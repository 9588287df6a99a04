"""Older bundle formats, converted to the current one.

Only this file knows what a bundle used to look like. It works on plain dicts, one function per
step, so that no old shape lives on inside the current classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FORMAT = 1
"""Number of the format that this release writes. It grows by one with each change of `Answer` or
`Bundle`; a new layer or a new query does not change the format."""

Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: dict[int, Step] = {}
"""Functions by old format number; each converts that format to the next."""


class UnknownFormatError(ValueError):
    """This release can't read the bundle's format number."""


def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    """Convert a parsed bundle of any known format to `FORMAT`.

    Raises `UnknownFormatError`, whose text tells the user what to do.
    """
    number = raw.get("format")
    # `True == 1`, but a bundle whose format is `true` was not written by hoodsnap.
    if type(number) is not int or number < 1:
        raise UnknownFormatError("it has no format number, so it is not a hoodsnap bundle")
    if number > FORMAT:
        raise UnknownFormatError(
            f"it has format {number}, and this release reads up to {FORMAT}: update hoodsnap"
        )
    while number < FORMAT:
        raw = STEPS[number](raw)
        number += 1
    return raw
