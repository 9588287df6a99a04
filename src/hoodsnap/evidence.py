"""What a check finds: evidence, each piece naming who said what, and where that can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact


class Severity(IntEnum):
    """How bad it is."""

    NOTE = 1
    """Worth knowing; nothing is wrong."""
    WARNING = 2
    """Wrong, but no guest is harmed by it yet."""
    ERROR = 3
    """A guest is broken, in danger, or not what its owner believes."""

    @property
    def word(self) -> str:
        """`note`, `warning`, `error`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Where:
    """The answer that says so, and the place in it."""

    answer: Answer
    place: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One layer's word: what it said, by name, and where."""

    layer: str
    noun: str
    said: tuple[tuple[str, object], ...]
    source: Fact | Where
    """Where it was read: nearly all evidence agrees, and nobody asks for more."""
    fields: tuple[str, ...] = ()
    """The fields of the fact that were read."""

    @property
    def where(self) -> tuple[Where, ...]:
        """The answers that say so, and the places in them."""
        if isinstance(self.source, Where):
            return (self.source,)
        found: dict[tuple[int, str], Where] = {}
        for answer, place in map(self.source.where, self.fields):
            if answer is not None:
                found.setdefault((id(answer), place), Where(answer, place))
        return tuple(found.values())

    def and_so(self, **derived: object) -> Evidence:
        """The same, with what follows from it."""
        return replace(self, said=(*self.said, *derived.items()))

    def __str__(self) -> str:
        said = ", ".join(f"{name} = {_shown(value)}" for name, value in self.said)
        return f"{self.noun} says {said}"


def says(fact: Fact, **said: object) -> Evidence:
    """What a fact says: `says(domain, vcpus=domain.vcpus)`.

    The names must be fields of the fact, so that evidence can quote where each was read.
    """
    return Evidence(fact.layer, fact.noun, tuple(said.items()), fact, tuple(said))


def hears(answer: Answer, noun: str, place: str = "", **said: object) -> Evidence:
    """What one answer says, where no fact stands for it: that a list has no such entry, a clock."""
    return Evidence(answer.layer, noun, tuple(said.items()), Where(answer, place))


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
