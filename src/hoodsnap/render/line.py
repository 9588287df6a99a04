"""A line for the eye, and what of a stranger's text may stand in one."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its parts, each with its style in rich's words (empty: none)."""

    parts: tuple[tuple[str, str], ...]

    @property
    def plain(self) -> str:
        """Without styles, as it goes into a pipe."""
        return "".join(text for text, _ in self.parts)


def line(*parts: str | tuple[str, str]) -> Line:
    """A line of plain and of styled parts."""
    return Line(tuple((part, "") if isinstance(part, str) else part for part in parts))


def clean(said: str) -> str:
    """Text of a stranger's bundle, without what could move the cursor or turn the line around."""
    if said.isprintable():
        return said
    return "".join(char if char.isprintable() else "�" for char in said)


def wrapped(width: int, words: str, style: str, hanging: int) -> Iterator[Line]:
    """Words in as many lines as they need; all but the first begin `hanging` to the right."""
    for part in textwrap.wrap(
        clean(words),
        width,
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield line((part, style))


def shortened(query: str) -> str:
    """A query short enough to be recognised: column lists and lists of UUIDs become `…`."""
    query = re.sub(r"^SELECT .* FROM ", "SELECT … FROM ", query, flags=re.DOTALL)
    query = re.sub(r" IN \([^()]{40,}+\)", " IN (…)", query)
    return query if len(query) <= 160 else query[:157] + "…"
