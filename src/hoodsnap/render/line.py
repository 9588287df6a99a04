"""Styled lines of text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from hoodsnap.printable import clean

UNBOUNDED = 1_000_000
"""The width of a pipe: nothing is wrapped or cut there, so that whole paths can be searched."""

LONGEST_WRAPPED = 4_000
"""Characters of a text whose long words are broken at the width of a terminal: textwrap copies the
rest of a word for each line, which takes hours for one of a megabyte. A pipe has the whole text."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its parts, each with its rich style (empty for none)."""

    parts: tuple[tuple[str, str], ...]

    @property
    def plain(self) -> str:
        """The text without styles, as written to a pipe."""
        return "".join(text for text, _ in self.parts)


def line(*parts: str | tuple[str, str]) -> Line:
    """Make a line of plain and styled parts."""
    return Line(tuple((part, "") if isinstance(part, str) else part for part in parts))


def wrapped(width: int, words: str, style: str, hanging: int) -> Iterator[Line]:
    """Wrap words to a width; indent all lines but the first by `hanging` columns."""
    for part in textwrap.wrap(
        clean(words),
        width,
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield line((part, style))


def shortened(query: str) -> str:
    """Shorten a query but keep it recognizable: lists of columns and UUIDs become `…`."""
    query = re.sub(r"^SELECT .* FROM ", "SELECT … FROM ", query, flags=re.DOTALL)
    query = re.sub(r" IN \([^()]{40,}+\)", " IN (…)", query)
    return query if len(query) <= 160 else query[:157] + "…"
