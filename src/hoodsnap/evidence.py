"""Evidence: the values that a check compared, which layer each comes from, and where to read it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact


class Severity(IntEnum):
    """Severity of a finding; a higher number is worse."""

    NOTE = 1
    """Worth knowing; nothing is wrong."""
    WARNING = 2
    """Wrong, but no guest is harmed by it yet."""
    ERROR = 3
    """A guest is broken, in danger, or not what its owner expects."""

    @property
    def word(self) -> str:
        """`note`, `warning`, `error`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Where:
    """An answer, and the place in it where a value was read."""

    answer: Answer
    place: str


class Evidence(NamedTuple):
    """Values that one layer returned, by name, and where they were read.

    A named tuple, because checks make much more evidence than they yield.
    """

    layer: str
    noun: str
    said: tuple[tuple[str, object], ...]
    source: Fact | Where
    """The fact or place that was read. `where` looks the exact places up only when they are asked
    for, which is rare."""
    fields: tuple[str, ...] = ()
    """Names of the fields of the fact that were read."""

    @property
    def where(self) -> tuple[Where, ...]:
        """The answers that hold the values, and the places in them."""
        if isinstance(self.source, Where):
            return (self.source,)
        found: dict[tuple[int, str], Where] = {}
        for answer, place in map(self.source.where, self.fields):
            place = place.removesuffix(".")  # of a value that is not in a single field
            if answer is not None:
                found.setdefault((id(answer), place), Where(answer, place))
        return tuple(found.values())

    def and_so(self, **derived: object) -> Evidence:
        """Return the same evidence, extended by values derived from it."""
        return self._replace(said=(*self.said, *derived.items()))

    def __str__(self) -> str:
        return f"{self.noun} reports {', '.join(_shown(*part) for part in self.said)}"


def says(fact: Fact, **said: object) -> Evidence:
    """Return evidence from fields of a fact: `says(domain, vcpus=domain.vcpus)`.

    The names must be fields of the fact, so that evidence can quote where each was read.
    """
    return Evidence(fact.layer.id, fact.noun, tuple(said.items()), fact, tuple(said))


def derives(fact: Fact, *fields: str, **said: object) -> Evidence:
    """Return evidence of values that follow from fields of a fact, under names of their own."""
    return Evidence(fact.layer.id, fact.noun, tuple(said.items()), fact, fields)


def hears(answer: Answer, noun: str, place: str = "", **said: object) -> Evidence:
    """Return evidence from one answer that no fact represents: a clock, or a list that lacks an
    entry."""
    return Evidence(answer.layer, noun, tuple(said.items()), Where(answer, place))


def _shown(name: str, value: object) -> str:
    return f"no {name}" if value is None else f"{name} = {value}"
