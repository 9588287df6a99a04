"""Mutations: what may go wrong with one leaf, one realistic way each."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.census import tree
from tests.census.edit import IDENTITY, Edit, How
from tests.census.leaf import Kind, Leaf, Leaves
from tests.census.question import UUID
from tests.census.texts import Span


class Mutation(NamedTuple):
    """One change of one leaf."""

    kind: Kind
    name: str
    """`other`, `near`, `less`, `earlier`, `later`, `gone`, `twice`."""
    old: Any
    edit: Edit


def mutations(leaf: Leaf) -> Iterator[Mutation]:
    """Yield the mutations of a leaf, those that are noticed most often first."""
    is_line = isinstance(leaf.place, Span) and leaf.kind.path.startswith("line ")
    seen = {repr(leaf.value)}
    for name, new in (*_values(leaf), *_times(leaf.value)):
        if repr(new) not in seen:
            seen.add(repr(new))
            yield _made(leaf, name, How.PUT, new)
    if leaf.value in (None, "") and not is_line:
        return
    place = leaf.place
    if not isinstance(place, Span) and _is_cell(leaf, place):
        yield _made(leaf, "gone", How.PUT, None)
    elif place:
        yield _made(leaf, "gone", How.DROP)


def _made(leaf: Leaf, name: str, how: How, new: Any = None) -> Mutation:
    edit = Edit(leaf.kind[:2], leaf.answer, leaf.place, how, new)
    return Mutation(leaf.kind, name, leaf.value, edit)


def _is_cell(leaf: Leaf, place: tree.Place) -> bool:
    """True for a cell of a row, which is empty instead of gone."""
    return len(place) == 3 and place[0] in ("rows", "data")


def _values(leaf: Leaf) -> Iterator[tuple[str, Any]]:
    value = leaf.value
    others = (x for x in leaf.pool if x not in (value, None, ""))
    if not leaf.kind.path.startswith("line "):
        for other in others:
            if value is None or type(other) is type(value):
                yield "other", other
                break
    if value not in (None, ""):
        # A number that others share may be near enough; one that nobody shares is also made far.
        limit = 1 if len(leaf.pool) > 1 else 2
        for new in itertools.islice(_near(value), limit):
            yield "near", new
        if isinstance(value, int) and value > 1:  # more may be legal where less is not
            yield "less", value // 2


_SWITCHES = (("yes", "no"), ("on", "off"), ("true", "false"), ("True", "False"), ("up", "down"))
SWITCH = {one: other for a, b in _SWITCHES for one, other in ((a, b), (b, a))}
"""Each word of a pair and its opposite."""

MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.I)
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_HEX = re.compile(r"0x[0-9a-f]+")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")


def _near(value: Any) -> Iterator[Any]:
    """Yield a value that is hard to tell from this one."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        yield value * 2 + 7
    elif isinstance(value, float):
        yield value * 2 + 1
    elif isinstance(value, str) and not _MOMENT.match(value):
        yield near_text(value)


def near_text(value: str) -> str:
    """Return a text that is hard to tell from this one, of the same form."""
    if value in SWITCH:
        return SWITCH[value]
    if value.isdigit():
        return str(int(value) * 2 + 7)
    if _HEX.fullmatch(value):
        return f"0x{int(value, 16) ^ 1:0{len(value) - 2}x}"
    if found := UUID.search(value):
        return value.replace(found[0], _twisted(found[0]))
    if found := MAC.search(value):
        return value.replace(found[0], found[0][:-2] + f"{int(found[0][-2:], 16) ^ 1:02x}")
    if found := ADDRESS.search(value):
        return value.replace(found[0], found[0].rsplit(".", 1)[0] + ".251")
    if "\t" in value or " " in value:
        number = re.search(r"\d+(?!.*\d)", value)
        if number:
            return f"{value[: number.start()]}{int(number[0]) * 2 + 7}{value[number.end() :]}"
    return value + "x"


def _twisted(text: str) -> str:
    return str(uuid.UUID(int=uuid.UUID(text).int ^ (1 << 64)))


def _times(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a time hours earlier and one hours later, written as this one."""
    found = _MOMENT.match(value) if isinstance(value, str) else None
    if found is None:
        return
    moment = datetime.fromisoformat(found[0])
    for name, shift in (("earlier", timedelta(hours=-50)), ("later", timedelta(hours=5))):
        written = (moment + shift).isoformat(found[0][10])
        yield name, written + value[found.end() :]


def of_member(leaves: Leaves, leaf: Leaf) -> Iterator[Mutation]:
    """Yield the mutations of a whole row, object, element or option: gone, and one too many."""
    yield _made(leaf, "gone", How.DROP)
    if isinstance(leaf.place, Span):
        between = "\0" if "\0" in leaf.value else ""
        yield _made(leaf, "twice", How.PUT, leaf.value + between + near_text(leaf.value))
    else:
        yield _made(leaf, "twice", How.BESIDE, _renamed(leaf, leaves))


def _renamed(leaf: Leaf, leaves: Leaves) -> Any:
    """Return a copy of a member with an identity of its own."""
    value = leaf.value
    if isinstance(value, dict):
        for name in IDENTITY:
            if value.get(name):
                return value | {name: _other(value[name])}
        return dict(value)
    if isinstance(value, list) and leaf.place and not isinstance(leaf.place, Span):
        table = tree.get(leaves.bundle.answers[leaf.answer].value, leaf.place[:-2])
        for name in IDENTITY:
            column = next(
                (table[n].index(name) for n, _ in tree.TABLES if name in table.get(n, ())), -1
            )
            if column >= 0 and value[column]:
                return [*value[:column], _other(value[column]), *value[column + 1 :]]
        return list(value)
    return _other(value)


def _other(value: Any) -> Any:
    """Return another identity: of ["uuid", …], as Open vSwitch writes it, too."""
    if isinstance(value, list):
        return [*value[:-1], _other(value[-1])] if value else value
    return next(_near(value), value) if value not in (None, "") else value
