"""The kinds of leaves of a recording, each with the instance that is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from tests.census import texts, tree
from tests.census.question import is_counted, kind
from tests.census.texts import Span

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.keep.secret import WITHHELD


class Kind(NamedTuple):
    """What all leaves of a kind have in common."""

    layer: str
    question: str
    path: str


@dataclass(frozen=True, eq=False)
class Leaf:
    """One value in one answer."""

    kind: Kind
    answer: int
    """Its number in the bundle."""
    place: tree.Place | Span
    value: Any
    pool: tuple[Any, ...]
    """Other values of the same kind."""


class Leaves:
    """The leaves of a recording by kind. Those of a running guest stand for their kind."""

    def __init__(self, bundle: Bundle, guest: Guest | None) -> None:
        self.bundle = bundle
        self._first, self._second = _marks(guest)

    @cached_property
    def groups(self) -> Mapping[tuple[str, str], tuple[int, ...]]:
        """The numbers of the answers by layer and kind of question."""
        found = defaultdict(list)
        for number, answer in enumerate(self.bundle.answers):
            if is_counted(answer):
                found[answer.layer, kind(answer.query)].append(number)
        return {key: tuple(numbers) for key, numbers in sorted(found.items())}

    @cached_property
    def all(self) -> tuple[Leaf, ...]:
        """One leaf of each kind."""
        return tuple(leaf for group in self.groups for leaf in self._of(group))

    @cached_property
    def members(self) -> tuple[Leaf, ...]:
        """One whole row, object, element or option of each kind."""
        return tuple(leaf for group in self.groups for leaf in self._of(group, whole=True))

    def _of(self, group: tuple[str, str], *, whole: bool = False) -> Iterator[Leaf]:
        chosen: dict[str, tuple[int, int, Any, Any]] = {}
        pools: dict[str, dict[Any, None]] = defaultdict(dict)
        for number in self.groups[group]:
            answer = self.bundle.answers[number]
            weigh = _Weight(answer, self._first, self._second)
            for place, path in (members if whole else places)(answer):
                value = at(answer.value, place)
                if value == WITHHELD:  # changing it would say nothing
                    continue
                if not whole:
                    pools[path][value] = None
                weight = weigh(place) + (value not in (None, ""))
                if path not in chosen or weight > chosen[path][0]:
                    chosen[path] = (weight, number, place, value)
        for path, (_, number, place, value) in chosen.items():
            pool = tuple(pools[path])
            if whole or any(one not in (None, "") for one in pool):  # some answer has a value
                yield Leaf(Kind(*group, path), number, place, value, pool)


def places(answer: Answer) -> Iterator[tuple[tree.Place | Span, str]]:
    """Yield the place and the general path of each leaf of an answer."""
    if isinstance(answer.value, str):
        yield from texts.leaves(answer.value, kind(answer.query))
    else:
        yield from tree.leaves(answer.value)


def members(answer: Answer) -> Iterator[tuple[tree.Place | Span, str]]:
    """Yield the place and the general path of each member of an answer: `member .volumes[]`."""
    if not isinstance(answer.value, str):
        found: Iterator[tuple[tree.Place | Span, str]] = tree.members(answer.value)
    else:
        found = texts.members(answer.value, kind(answer.query))
    yield from ((place, f"member {path}") for place, path in found)


def at(value: Any, place: tree.Place | Span) -> Any:
    """Return the value at a place of an answer's value."""
    return value[place.start : place.end] if isinstance(place, Span) else tree.get(value, place)


class _Weight:
    """How closely a leaf belongs to the chosen guest, as an even number."""

    def __init__(self, answer: Answer, first: frozenset[str], second: frozenset[str]) -> None:
        self._value, self._first, self._second = answer.value, first, second
        # A statement or a filter names every server that it asks about.
        asked = "" if answer.query.startswith("SELECT") else answer.query.partition("?")[0]
        self._least = self._of_text(f"{asked} {answer.subject}")
        self._known: dict[tree.Place, int] = {}

    def __call__(self, place: tree.Place | Span) -> int:
        if isinstance(place, Span):
            return self._least or self._of_text(self._value[place.start : place.end])
        best = self._least
        for length, key in enumerate(place, start=1):
            if isinstance(key, int) and best < 4:
                best = max(best, self._of_member(place[:length]))
        return best

    def _of_member(self, place: tree.Place) -> int:
        if place not in self._known:
            self._known[place] = self._of_text(str(tree.get(self._value, place)))
        return self._known[place]

    def _of_text(self, text: str) -> int:
        if any(mark in text for mark in self._first):
            return 4
        return 2 if any(mark in text for mark in self._second) else 0


def _marks(guest: Guest | None) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that are the guest's own, and those of what it uses."""
    if guest is None:
        return frozenset(), frozenset()
    first = {guest.uuid, *(tap.name for tap in guest.taps or ())}
    if guest.domain is not None:
        first.add(guest.domain.name)
    if guest.process is not None:
        first |= {f"/proc/{guest.process.pid}/"}
    first |= {port.id for port in guest.ports or ()}
    second = {volume.id for volume in guest.volumes or ()}
    second |= {port.network_id for port in guest.ports or () if port.network_id}
    return frozenset(first), frozenset(second)
