"""The leaves of a JSON value: their places, and the general path that all leaves of a kind share.

A place is a tuple of keys and indexes. Lists with column names (the rows of MySQL and of Open
vSwitch) have the column's name in their path; JSON inside a cell is read too.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from tests.census.question import UUID


class Step(Enum):
    """A step of a place that is no key and no index."""

    INSIDE = "inside"
    """Into the JSON that a string holds."""


INSIDE = Step.INSIDE

Place = tuple[Any, ...]

TABLES = (("columns", "rows"), ("headings", "data"))
"""The keys of names and rows, in answers of MySQL and of Open vSwitch."""


def leaves(value: object) -> Iterator[tuple[Place, str]]:
    """Yield the place and the general path of each value that holds no other."""
    if isinstance(value, dict):
        names = _table(value)
        if names is not None:
            yield from _cells(value, *names)
            return
        for key, inner in value.items():
            name = _named(key)
            for place, path in leaves(inner):
                yield (key, *place), name + path
    elif isinstance(value, list):
        word = _word(value)
        if word == "map":
            for at, (key, _) in enumerate(value[1]):
                yield (1, at, 1), f"{{{key}}}"
            return
        for at, inner in enumerate(value):
            if at > 0 or word is None:
                for place, path in leaves(inner):
                    yield (at, *place), "[]" + path
    else:
        yield (), ""


def members(value: object) -> Iterator[tuple[Place, str]]:
    """Yield the place and the general path of each row, and of each object in a list."""
    if isinstance(value, dict):
        names = _table(value)
        if names is not None:
            for at in range(len(value[names[1]])):
                yield (names[1], at), f"[{names[1]}]"
            return
        for key, inner in value.items():
            name = _named(key)
            for place, path in members(inner):
                yield (key, *place), name + path
    elif isinstance(value, list) and _word(value) is None:
        for at, inner in enumerate(value):
            yield (at,), "[]"
            for place, path in members(inner):
                yield (at, *place), "[]" + path


def get(value: Any, place: Place) -> Any:
    """Return the value at a place."""
    for key in place:
        value = json.loads(value) if key is INSIDE else value[key]
    return value


def put(value: Any, place: Place, new: object) -> Any:
    """Return a copy with another value at a place; what is beside the way there is shared."""
    if not place:
        return new
    if place[0] is INSIDE:
        return json.dumps(put(json.loads(value), place[1:], new))
    changed = copy.copy(value)
    changed[place[0]] = put(value[place[0]], place[1:], new)
    return changed


def without(value: Any, place: Place) -> Any:
    """Return a copy without what is at a place: a key, a member of a list, a row."""
    *above, last = place
    inner = copy.copy(get(value, tuple(above)))
    del inner[last]
    return put(value, tuple(above), inner)


def beside(value: Any, place: Place, new: object) -> Any:
    """Return a copy of a value with one more member right after the one at a place."""
    *above, last = place
    inner = list(get(value, tuple(above)))
    inner.insert(last + 1, new)
    return put(value, tuple(above), inner)


_NUMBERS = re.compile(r"[0-9]+")
_HASH = re.compile(r"[0-9a-f]{32}")


def _named(key: object) -> str:
    """Return the step of a path for a key, which may be a UUID or a process's number."""
    name = _HASH.sub("HASH", UUID.sub("UUID", str(key)))
    return ".N" if _NUMBERS.fullmatch(name) else f".{name}"


def _table(value: dict[str, Any]) -> tuple[str, str] | None:
    for names, rows in TABLES:
        if isinstance(value.get(names), list) and isinstance(value.get(rows), list):
            return names, rows
    return None


def _cells(table: dict[str, Any], names: str, rows: str) -> Iterator[tuple[Place, str]]:
    for at, row in enumerate(table[rows]):
        for column, cell in enumerate(row):
            name = f"[{table[names][column]}]"
            inner = _json(cell)
            if inner is not None:
                for place, path in leaves(inner):
                    yield (rows, at, column, INSIDE, *place), name + path
            else:
                for place, path in leaves(cell):
                    yield (rows, at, column, *place), name + path


def _json(cell: object) -> Any:
    """Return the object that a cell holds as JSON, if it holds one."""
    if not isinstance(cell, str) or cell[:1] not in ("{", "["):
        return None
    try:
        return json.loads(cell) or None
    except ValueError:
        return None


def _word(value: list[Any]) -> str | None:
    """Return the word before a value that Open vSwitch marks: ["uuid", …], ["map", [[key, …], …]]."""
    marked = len(value) == 2 and value[0] in ("map", "set", "uuid")
    return value[0] if marked else None
