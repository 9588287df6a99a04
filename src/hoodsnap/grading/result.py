"""Results of grading: for one task or question, and for one student."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """Outcome of grading one task or question."""

    RIGHT = "right"
    PARTLY = "partly"
    WRONG = "wrong"
    UNANSWERED = "unanswered"
    WAITS = "waits"
    """A task that must be done first is not done."""
    UNGRADED = "ungraded"
    """It can't be graded, because the bundle lacks what is needed to decide."""


@dataclass(frozen=True)
class Result:
    """Result for the conditions of a task, or for one of its questions."""

    id: str
    title: str
    status: Status
    points: float
    worth: float
    expected: str = ""
    found: tuple[str, ...] = ()
    """Values that the bundle shows, without those that a question asks for."""
    reason: str = ""
    """The reason why it can't be graded, or why it waits."""
    hint: str = ""
    hidden: bool = False

    @property
    def is_graded(self) -> bool:
        """True if points were decided."""
        return self.status is not Status.UNGRADED


class Sure(StrEnum):
    """Relation between submissions: how certain it is that they are copies."""

    CERTAIN = "certain"
    """Copies: no two visits leave the same traces."""
    LIKELY = "likely"
    """Probably copies; a person should look."""
    SAME_HOST = "same host"
    """Not copies: one host, or one snapshot of it, recorded at different times."""


@dataclass(frozen=True)
class Copy:
    """Group of submissions that are copies of one another, or come from one host."""

    students: tuple[str, ...]
    shared: tuple[str, ...]
    """Evidence: the first line names the relation, the others list equal traces."""
    sure: Sure = Sure.CERTAIN

    @property
    def first(self) -> str:
        """The first of its students."""
        return self.students[0]

    @property
    def second(self) -> str:
        """The second of its students."""
        return self.students[1]

    def __str__(self) -> str:
        *most, last = self.students
        return f"{', '.join(most)} and {last}: {'; '.join(self.shared)}"

    def short(self, student: str) -> str:
        """Return a remark for one of its students, whose length does not grow with the group."""
        others = [*self.students]
        others.remove(student)  # only once: a student may have handed in two files
        more = len(others) - 1
        named = f"{others[0]} and {more} other{'s' * (more > 1)}" if more else others[0]
        return f"with {named}: {'; '.join(self.shared)}"


@dataclass(frozen=True)
class Traces:
    """Traces that show if two bundles come from one machine, or were recorded at one moment."""

    fingerprints: frozenset[str] = frozenset()
    boots: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    marks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Traces by kind, which survive renaming: see `grading/copies.py`."""
    started: datetime | None = None


@dataclass(frozen=True)
class Grade:
    """The grade of one student."""

    student: str
    server: str
    results: tuple[Result, ...]
    remarks: tuple[str, ...] = ()
    """Problems of the submission: damaged files, stale bundles, answers without a question."""
    traces: Traces = field(default_factory=Traces)

    def shown(self, hidden: bool) -> tuple[Result, ...]:
        """Return the results, including hidden ones only if `hidden` is true."""
        return tuple(result for result in self.results if hidden or not result.hidden)

    @property
    def ungraded(self) -> tuple[Result, ...]:
        """Results that a person must grade."""
        return tuple(result for result in self.results if not result.is_graded)


def points(results: Iterable[Result]) -> float:
    """Return the sum of the points achieved."""
    return round(sum(result.points for result in results), 2)


def worth(results: Iterable[Result]) -> float:
    """Return the sum of the points that can be achieved."""
    return round(sum(result.worth for result in results), 2)
