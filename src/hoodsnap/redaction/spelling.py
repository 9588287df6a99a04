"""Other spellings of the same text: escaped characters, and encoded words.

A text is searched in its unescaped form, and a replacement is written in the spelling of the word
around it. So the device mapper's `a--b`, systemd's `a\\x2db` and a URL's `a%2Db` still mean the
same after redaction, for every reader that undoes the escape.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Replacement(NamedTuple):
    """A part of a text, and the text that replaces it."""

    start: int
    end: int
    made: str
    kind: str


@dataclass(frozen=True)
class Escape:
    """One way to escape single characters of a word."""

    mark: str
    """String that every text with such an escape contains."""
    unit: re.Pattern[str]
    """Pattern of one escape."""
    plain: Callable[[str], str]
    """Function that returns the character of an escape."""
    written: Callable[[str, str], str]
    """Function that returns the escape of a character, written like an example."""


def _percent(char: str, like: str) -> str:
    made = "".join(f"%{byte:02X}" for byte in char.encode(errors="surrogatepass"))
    return made if like == like.upper() else made.lower()


ESCAPES = (
    Escape("--", re.compile("--"), lambda unit: "-", lambda char, like: char * 2),
    Escape(
        "\\x",
        re.compile(r"\\{1,4}x[0-7][0-9a-fA-F]"),
        lambda unit: chr(int(unit[-2:], 16)),
        lambda char, like: f"{like[:-2]}{ord(char):02x}",
    ),
    Escape(
        "\\",
        re.compile(r"\\{1,4}[01][0-7]{2}"),
        lambda unit: chr(int(unit[-3:], 8)),
        lambda char, like: f"{like[:-3]}{ord(char):03o}",
    ),
    Escape(
        "%",
        re.compile("%[0-7][0-9A-Fa-f]"),
        lambda unit: chr(int(unit[1:], 16)),
        _percent,
    ),
    Escape(
        "\\u00",
        re.compile(r"\\{1,4}u00[0-7][0-9a-fA-F]"),
        lambda unit: chr(int(unit[-2:], 16)),
        lambda char, like: f"{like[:-2]}{ord(char):02x}",
    ),
    Escape(
        "&#",
        re.compile(r"&#(?:[0-9]{2,3}|x[0-7][0-9a-fA-F]);"),
        lambda unit: chr(int(unit[3:-1], 16) if unit[2] == "x" else int(unit[2:-1])),
        lambda char, like: f"&#x{ord(char):x};" if "x" in like else f"&#{ord(char)};",
    ),
)
"""Escapes of the device mapper, systemd, mountinfo, URLs, JSON and XML."""

_ENDS = frozenset(" \t\n\r\0\"'/,;|()[]{}<>=")
"""Characters that end a word; inside a word, a character is escaped everywhere or nowhere."""


def respelled(
    text: str, escape: Escape, find: Callable[[str], list[Replacement]]
) -> Iterator[Replacement]:
    """Yield the replacements that `find` finds in the unescaped text, with positions and spelling
    of the text itself. Only words with an escape are changed."""
    places: list[int] = []
    plain: list[str] = []
    units: dict[int, tuple[str, str]] = {}
    at = 0
    for found in escape.unit.finditer(text):
        plain.append(text[at : found.start()])
        places.extend(range(at, found.start()))
        units[found.start()] = (escape.plain(found[0]), found[0])
        plain.append(units[found.start()][0])
        places.append(found.start())
        at = found.end()
    plain.append(text[at:])
    places.extend(range(at, len(text) + 1))
    words = _words(text, units)
    for span in find("".join(plain)):
        start, end = places[span.start], places[span.end]
        written, raw = words(start), text[start:end]
        # Skip a part without an escape that contains such a character unescaped.
        if written and (escape.unit.search(raw) or not written.keys() & set(raw)):
            made = "".join(
                escape.written(char, written[char]) if char in written else char
                for char in span.made
            )
            yield Replacement(start, end, made, span.kind)


def _words(text: str, units: dict[int, tuple[str, str]]) -> Callable[[int], dict[str, str]]:
    """Return a function for the characters that the word at a place escapes, with their escapes."""
    known: list[tuple[int, int, dict[str, str]]] = []
    end = -1
    for place, (char, written) in units.items():
        if place >= end:
            start = place
            while start > 0 and text[start - 1] not in _ENDS:
                start -= 1
            end = place
            while end < len(text) and text[end] not in _ENDS:
                end += 1
            known.append((start, end, {}))
        known[-1][2].setdefault(char, written)
    current = 0

    def escaped(place: int) -> dict[str, str]:
        nonlocal current
        while current < len(known) and known[current][1] <= place:
            current += 1
        return known[current][2] if current < len(known) and known[current][0] <= place else {}

    return escaped


ENCODED = re.compile(
    r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{6,}+={0,2}+(?![A-Za-z0-9+/=_-])"
    r"|(?<![A-Za-z0-9=_-])[A-Za-z0-9_-]{6,}+={0,2}+(?![A-Za-z0-9=_-])"
)
"""Pattern of words that may be base64 or hexadecimal digits."""

LONGEST = 4096
"""Largest number of characters in an encoded word that is decoded."""

_HEX = re.compile("(?:0x)?((?:[0-9a-fA-F]{2}){4,})")
_PRINTED = re.compile(r"[\t\n\r -~]{3,}\0?")


def decoded(word: str) -> tuple[str, Callable[[str], str]] | None:
    """Decode a word; return its text and a function to encode another text, or None."""
    if len(word) > LONGEST:
        return None
    if hexadecimal := _HEX.fullmatch(word):
        text = bytes.fromhex(hexadecimal[1]).decode("latin-1")
        if _PRINTED.fullmatch(text):
            head, upper = word[: hexadecimal.start(1)], any(char in "ABCDEF" for char in word)

            def as_hex(new: str) -> str:
                made = new.encode(errors="replace").hex()
                return head + (made.upper() if upper else made)

            return text, as_hex
    bare = word.rstrip("=")
    if len(bare) % 4 == 1 or (("+" in bare or "/" in bare) and ("-" in bare or "_" in bare)):
        return None
    url = "-" in bare or "_" in bare
    standard = bare.replace("-", "+").replace("_", "/") if url else bare
    try:
        raw = binascii.a2b_base64(standard + "=" * (-len(bare) % 4))
        text = raw.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not text or not (text.isprintable() or _PRINTED.fullmatch(text)):
        return None
    padded = word != bare or len(bare) % 4 == 0

    def as_base64(new: str) -> str:
        encode = urlsafe_b64encode if url else b64encode
        made = encode(new.encode(errors="replace")).decode()
        return made if padded else made.rstrip("=")

    return text, as_base64
