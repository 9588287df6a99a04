"""Mutations of a bundle: odd values at every place of every kind of answer."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fuzz.slices import Raw
from hoodsnap.facts.uuids import UUID

Way = tuple[str | int, ...]
"""Path to a value: keys and indices, from the bundle downwards."""

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**30, 10**400, 1.5, -0.0, 1e308, "", " ",
    "\0", "0", "-1", "x" * 5000, "\ud800", "\udcff", "\x1b]0;pwned\x07", "\x9b31m", "\u202e", "\x7f",
    "\u2028", "a\nb", "../../etc/passwd", "/" * 300, "{}", "[]", "null", "[" * 500, '{"a":' * 500,
    "<a>", "<domain/>", "<domain type='kvm'><name>x</name></domain>", "%s%n%(x)s", "9" * 4000,
    "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "1e999", "nan", "ffffffff-ffff",
    "00000000-0000-0000-0000-000000000000", "::", "1.2.3", "٣", "ÿ", {}, [], [[]], [{}], {"": ""},
    {"id": {}}, [None], ["", 1, {}], {"a": {"a": {"a": [[[{}]]]}}}, [1] * 300,
)  # fmt: skip
"""Values of every type, and texts that have a meaning to some parser."""

TOP = ("layer", "host", "query", "subject", "at", "took", "error")
"""Fields of an answer around its value."""

_VARYING = re.compile(rf"{UUID.pattern}|/\S*/|\d+|[0-9a-f]{{8,}}")
_INSIDE = re.compile(r"\d+|[\w.-]+|'[^']*'|\"[^\"]*\"|<[^<>]*>|\S")


@dataclass(frozen=True)
class Mutation:
    """One edit of a bundle. `apply` changes it in place."""

    way: Way
    apply: Callable[[Raw], object]
    says: str


def kinds(raw: Raw) -> Iterator[tuple[str, Way]]:
    """Yield every place of a bundle with its kind; places of one kind have the same meaning."""
    for name in ("tool", "started", "ended"):
        yield name, (name,)
    for number, answer in enumerate(raw["answers"]):
        kind = f"{answer['layer']} {_VARYING.sub('*', answer['query'])[:120]}"
        for name in TOP:
            if name in answer or name == "subject":
                yield f"{kind} .{name}", ("answers", number, name)
        if "value" in answer:
            yield from _below(kind, ("answers", number, "value"), answer["value"])


def _below(kind: str, way: Way, value: Any) -> Iterator[tuple[str, Way]]:
    yield kind, way
    if isinstance(value, dict):
        columns = value.get("columns")
        for key, item in value.items():
            if key == "rows" and isinstance(columns, list) and isinstance(item, list):
                yield f"{kind} .rows", (*way, key)
                for at, row in enumerate(item[:3]):
                    yield f"{kind} .rows[]", (*way, key, at)
                    for number, name in enumerate(columns):
                        if isinstance(row, list) and number < len(row):
                            yield f"{kind} .rows[].{name}", (*way, key, at, number)
                continue
            yield from _below(f"{kind} .{_VARYING.sub('*', str(key))}", (*way, key), item)
    elif isinstance(value, list):
        for at, item in enumerate(value[:3]):
            yield from _below(f"{kind} []", (*way, at), item)


def at(raw: Raw, way: Way) -> tuple[Any, Any]:
    """Return the container of a place and the key in it; `(None, None)` if it no longer exists."""
    place: Any = raw
    for step in way[:-1]:
        try:
            place = place[step]
        except (LookupError, TypeError):
            return None, None
    # An earlier edit may have put a list where an object was.
    is_there = isinstance(place, dict) or (isinstance(place, list) and isinstance(way[-1], int))
    return (place, way[-1]) if is_there else (None, None)


def replaced(way: Way, value: Any) -> Mutation:
    """Return an edit that replaces the value."""

    def apply(raw: Raw) -> None:
        place, key = at(raw, way)
        if isinstance(place, dict) or (isinstance(place, list) and key < len(place)):
            place[key] = copy.deepcopy(value)

    return Mutation(way, apply, f"{way} = {str(value)[:60]!a}")


def random_mutation(raw: Raw, places: list[Way], chance: random.Random) -> Mutation:
    """Return a random edit: replace, remove, double or swap a value, or change a text."""
    way = chance.choice(places)
    place, key = at(raw, way)
    try:
        value = place[key]
    except (LookupError, TypeError):
        value = None
    what = chance.random()
    if isinstance(value, str) and len(value) > 3 and what < 0.5:
        return replaced(way, within(value, chance))
    if what < 0.65:
        return replaced(way, chance.choice(ODD))
    if what < 0.75:
        return Mutation(way, lambda raw: _remove(raw, way), f"{way} removed")
    if what < 0.85:
        return Mutation(way, lambda raw: _double(raw, way), f"{way} twice")
    other = chance.choice(places)
    return Mutation(way, lambda raw: _swap(raw, way, other), f"{way} swapped with {other}")


def within(text: str, chance: random.Random) -> str:
    """Return a text in which a word, tag or number is replaced, removed or repeated; a JSON text
    may be edited as a value instead."""
    if text[:1] in "{[" and chance.random() < 0.7:
        try:
            inner: Any = {"inner": json.loads(text)}
        except (ValueError, RecursionError):
            pass
        else:
            places = [way for _, way in _below("", ("inner",), inner["inner"])]
            random_mutation(inner, places, chance).apply(inner)
            return json.dumps(inner.get("inner"))
    words = [*_INSIDE.finditer(text[:200_000])]
    if not words:
        return text * 2
    word = chance.choice(words)
    odd = str(chance.choice(ODD))[:5000]
    other = chance.choice(words)[0]
    instead = chance.choice((odd, odd, "", other, word[0] * 50, word[0][::-1], word[0][:-1]))
    return text[: word.start()] + instead + text[word.end() :]


def _remove(raw: Raw, way: Way) -> None:
    place, key = at(raw, way)
    if isinstance(place, dict):
        place.pop(key, None)
    elif isinstance(place, list) and key < len(place):
        del place[key]


def _double(raw: Raw, way: Way) -> None:
    place, key = at(raw, way)
    if isinstance(place, list) and key < len(place):
        place.insert(key, copy.deepcopy(place[key]))
    elif isinstance(place, dict) and key in place:
        place[key] = [copy.deepcopy(place[key]), place[key]]


def _swap(raw: Raw, way: Way, other: Way) -> None:
    (one, first), (two, second) = at(raw, way), at(raw, other)
    try:
        one[first], two[second] = copy.deepcopy(two[second]), copy.deepcopy(one[first])
    except (LookupError, TypeError):
        return  # an earlier edit removed one of the places
