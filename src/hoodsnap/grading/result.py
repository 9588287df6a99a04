"""What came of grading: of one task or question, of one student."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
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


class Sure(StrEnum):
    """Certainty that submissions belong together, and in which way."""

    CERTAIN = "certain"
    """Copies: no two visits leave the same."""
    LIKELY = "likely"
    """Copies, as far as can be seen; a person should look."""
    SAME_HOST = "same host"
    """No copies: one host, or one snapshot of it, recorded at different times."""


@dataclass(frozen=True)
class Copy:
    """Submissions that are copies of one another, or of one host."""

    students: tuple[str, ...]
    shared: tuple[str, ...]
    """Traces that are the same in all of them; the first line names what they are."""
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
        """A remark for one of its students, whose length does not grow with the group."""
        others = [*self.students]
        others.remove(student)  # once: a student may have handed in two files
        more = len(others) - 1
        named = f"{others[0]} and {more} other{'s' * (more > 1)}" if more else others[0]
        return f"with {named}: {'; '.join(self.shared)}"


@dataclass(frozen=True)
class Traces:
    """By what two bundles are known to be of one machine, or of one moment of it."""

    fingerprints: frozenset[str] = frozenset()
    boots: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    marks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Traces that survive when everything is renamed, by kind: see `grading/copies.py`."""
    started: datetime | None = None


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
