"""What came of grading: of one task or question, of one student."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """What came of it."""

    RIGHT = "right"
    PARTLY = "partly"
    WRONG = "wrong"
    UNANSWERED = "unanswered"
    WAITS = "waits"
    """A task that it needs is not done."""
    UNGRADED = "ungraded"
    """It can't be graded: nobody knows whether it is right."""


@dataclass(frozen=True)
class Result:
    """Of what must hold in a task, or of one of its questions."""

    id: str
    title: str
    status: Status
    points: float
    worth: float
    expected: str = ""
    found: tuple[str, ...] = ()
    """What the bundle shows; never what a question asks for."""
    reason: str = ""
    """Why it can't be graded, or waits."""
    hint: str = ""
    hidden: bool = False

    @property
    def is_graded(self) -> bool:
        """Whether it is known what it is worth."""
        return self.status is not Status.UNGRADED


@dataclass(frozen=True)
class Copy:
    """Two submissions that are of one machine, or of one moment of it."""

    first: str
    second: str
    shared: tuple[str, ...]
    """What is the same in both."""

    def __str__(self) -> str:
        return f"{self.first} and {self.second}: {'; '.join(self.shared)}"


@dataclass(frozen=True)
class Traces:
    """By what two bundles are known to be of one machine, or of one moment of it."""

    fingerprints: frozenset[str] = frozenset()
    boots: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    moments: frozenset[int] = frozenset()
    """When each answer was asked and how long it took: what renaming everything leaves."""


@dataclass(frozen=True)
class Grade:
    """What one student has."""

    student: str
    server: str
    results: tuple[Result, ...]
    remarks: tuple[str, ...] = ()
    """Damaged files, stale bundles, answers to no question."""
    traces: Traces = field(default_factory=Traces)

    def shown(self, hidden: bool) -> tuple[Result, ...]:
        """The results, the hidden ones only if they are wanted."""
        return tuple(result for result in self.results if hidden or not result.hidden)

    @property
    def ungraded(self) -> tuple[Result, ...]:
        """What a person must look at."""
        return tuple(result for result in self.results if not result.is_graded)


def points(results: Iterable[Result]) -> float:
    """The sum of what was got."""
    return round(sum(result.points for result in results), 2)


def worth(results: Iterable[Result]) -> float:
    """The sum of what can be got."""
    return round(sum(result.worth for result in results), 2)
