"""The answers that the page quotes: as they were recorded, each once, bounded and packed.

A page of 500 servers quotes tens of megabytes. An answer that is too long is quoted in part: the
entries that name the server, or its beginning or end. The page always says what it left out.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hoodsnap.bundle import Answer
from hoodsnap.facts.layer import TABLE
from hoodsnap.facts.uuids import UUID
from hoodsnap.printable import clean, cut, escaped

LONGEST = 16_000
"""Characters that are quoted of one answer."""

LARGEST = 2_600_000
"""Bytes that all quoted answers may take in the page, packed."""

LARGEST_UNPACKED = 48_000_000
"""Characters of all quoted answers, unpacked in the browser's memory."""

_WORD = re.compile(r"[0-9A-Za-z-]{6,}")

_TITLES = {layer.id: layer.title for layer in TABLE}


def title(layer: str) -> str:
    """Return the title of a layer; its id if it is unknown here."""
    return _TITLES.get(layer) or cut(clean(layer), 40)


class Verbatim:
    """The quoted answers, numbered in the order in which they were added."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(9, wbits=31)  # gzip: the browser can unpack it
        self._parts = [self._packer.compress(b"[")]
        self._size, self._unpacked = 0, 0
        self._numbers: dict[tuple[int, str | None], int] = {}
        self._answers: dict[int, _Quoted] = {}
        self._count = 0

    def add(self, answer: Answer, keys: Collection[str]) -> int:
        """Quote an answer and return its number. `keys` name the server that it is quoted for."""
        quoted = self._answers.setdefault(id(answer), _Quoted(answer))
        text, note = quoted.part(keys)
        mark = (id(answer), text if note else None)
        if mark not in self._numbers:
            self._numbers[mark] = self._write(answer, text, note)
        return self._numbers[mark]

    def _write(self, answer: Answer, text: str, note: str) -> int:
        if self._size > LARGEST or self._unpacked > LARGEST_UNPACKED:
            text = ""
            note = "Not on this page, which would be too large. Use --server for a smaller page."
        entry = {
            "layer": title(answer.layer),
            "host": cut(clean(answer.host), 80),
            "query": cut(escaped(answer.query, newlines=True), LONGEST),
            "at": f"{answer.at:%Y-%m-%d %H:%M:%S} UTC",
            "failed": answer.error is not None,
            "text": text,
            "note": note,
        }
        raw = json.dumps(entry, separators=(",", ":"))
        self._unpacked += len(raw)
        packed = self._packer.compress(f"{',' if self._count else ''}{raw}".encode())
        if not self._count % 16:  # count what the packer holds back, too
            packed += self._packer.flush(zlib.Z_SYNC_FLUSH)
        self._size += len(packed) * 4 // 3
        self._parts.append(packed)
        self._count += 1
        return self._count - 1

    def packed(self) -> str:
        """Return the answers as a JSON list, compressed by gzip, in base64. Add none afterwards."""
        self._parts.append(self._packer.compress(b"]") + self._packer.flush())
        return base64.b64encode(b"".join(self._parts)).decode()


def packed(text: str) -> str:
    """Return a text compressed by gzip, in base64: the browser can unpack it."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@dataclass(frozen=True, eq=False)
class _Quoted:
    """One answer, and the parts of it that name a server."""

    answer: Answer

    @cached_property
    def text(self) -> str:
        if self.answer.error is not None:
            return _shown(f"{self.answer.error.kind}: {self.answer.error.message}")
        value = self.answer.value
        if isinstance(value, str):
            return _shown(value)
        text = _json(value)
        if len(text) <= LONGEST:  # a longer one is quoted in part
            indented = json.dumps(value, indent=1, ensure_ascii=False)
            text = indented if len(indented) <= LONGEST else text
        return _shown(text)

    def part(self, keys: Collection[str]) -> tuple[str, str]:
        """Return the text to quote, and a note about what is left out of it ("" for nothing)."""
        if len(self.text) <= LONGEST:
            return self.text, ""
        total = len(self._items)
        chosen = sorted({at for key in keys for at in self._places.get(key, ())})
        if not chosen or total < 2:
            return _cut(self.text, "")
        text = "\n".join(self._items[at] for at in chosen)
        what = "lines" if isinstance(self.answer.value, str) else "entries"
        count = f"{len(chosen):,} of {total:,} {what}"
        return _cut(text, f"The answer is long. These are the {count} that name the server.")

    @cached_property
    def _items(self) -> Sequence[str]:
        """The lines of a text, or the entries of all lists in an object."""
        value = self.answer.value
        if isinstance(value, str):
            return self.text.split("\n")
        return [_shown(item) for item in _entries(value)]

    @cached_property
    def _places(self) -> Mapping[str, Sequence[int]]:
        """Word → the items in which it stands."""
        found: dict[str, list[int]] = {}
        for at, item in enumerate(self._items):
            words = {*_WORD.findall(item), *UUID.findall(item)}
            for word in words:
                found.setdefault(word, []).append(at)
        return found


def _entries(value: object) -> Iterator[str]:
    """Yield the entries of a list, or of the lists in an object; rows get their columns' names."""
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        columns = value.get("columns")
        for row in value["rows"]:
            if isinstance(columns, list) and isinstance(row, list):
                row = dict(zip(map(str, columns), row, strict=False))
            yield _json(row)
    elif isinstance(value, dict):
        for name, inside in value.items():
            if isinstance(inside, list):
                yield from map(_json, inside)
            else:
                yield _json({name: inside})
    elif isinstance(value, list):
        yield from map(_json, value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, note: str) -> tuple[str, str]:
    if len(text) <= LONGEST:
        return text, note
    left = f"The first {LONGEST:,} of {len(text):,} characters."
    return text[:LONGEST], f"{note} {left}".strip()


def _shown(text: str) -> str:
    """Return the text with escapes for all that is not printable except for line ends."""
    return escaped(text.expandtabs(), newlines=True)


def keys_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the words of these texts by which an entry of a long answer is found: UUIDs, and words
    with a digit, because `status` is in every entry."""
    found = {word for text in texts for word in (*_WORD.findall(text), *UUID.findall(text))}
    return frozenset(word for word in found if any(char.isdigit() for char in word))
