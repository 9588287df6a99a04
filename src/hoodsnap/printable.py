"""Printable text: a stranger's text in one line, without characters that a terminal obeys.

A name, a command line or a message of a bundle may hold anything: line ends, characters that move
the cursor or turn the direction of writing, and bytes that were not UTF-8. Everything that is
printed, or written for people to read, goes through a function of this file.
"""

from __future__ import annotations

MARK = "�"
"""It stands for a character that is not shown."""


def clean(text: str, mark: str = MARK) -> str:
    """Return the text with a mark for each character that is not printable, line ends included."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else mark for char in text)


def cut(text: str, most: int) -> str:
    """Return a text of at most this many characters; the last is `…` where some are missing."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def escaped(text: str, *, newlines: bool = False) -> str:
    """Return the text with an escape for each character that is not printable: `\\u001b`.

    The escapes are JSON's, so that a JSON document stays one. `newlines`: line feeds stay.
    """
    if text.isprintable():
        return text
    if newlines:
        # By lines, as most of a long text's lines need no look at each character.
        return "\n".join(map(escaped, text.split("\n")))
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    """Return JSON's escape; beyond U+FFFF that is one for each half of a surrogate pair."""
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
