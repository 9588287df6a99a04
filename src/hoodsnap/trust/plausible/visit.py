"""The answers collected on one host, and that host's clocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.clock import http_moment, moment
from hoodsnap.facts.cloud.movement import moved

SKEW = timedelta(minutes=5)
"""Largest difference between two clocks, and longest time for a step, that raises no doubt."""


class HostAnswers:
    """The successful answers of one host."""

    def __init__(self, bundle: Bundle, host: str) -> None:
        self.bundle = bundle
        self.host = host
        self.answers = [
            answer for answer in bundle.answers if answer.host == host and answer.error is None
        ]

    @cached_property
    def _by_query(self) -> dict[tuple[str, str], Answer]:
        return {(answer.layer, answer.query): answer for answer in self.answers}

    def last(self, layer: str, query: str) -> Answer | None:
        """Return the newest answer to a query; None if there is no answer."""
        return self._by_query.get((layer, query))

    def text(self, layer: str, query: str) -> str:
        """Return the newest answer to a query if it is text, else an empty string."""
        answer = self.last(layer, query)
        return answer.value if answer is not None and isinstance(answer.value, str) else ""

    def asked(self, layer: str, start: str) -> Iterator[Answer]:
        """Yield the answers to every query that begins with `start`."""
        return (
            answer
            for answer in self.answers
            if answer.layer == layer and answer.query.startswith(start)
        )

    @cached_property
    def moved(self) -> frozenset[str]:
        """UUIDs of guests that changed during the collection, so answers about them may differ."""
        return frozenset(moved(self.bundle.answers))

    @cached_property
    def boot(self) -> datetime | None:
        """Boot time of the host, by its clock at the time of the collection; None if unknown."""
        date = self.last("host", "date --utc")
        value = date.value if date is not None else None
        if not isinstance(value, dict):
            return None
        now, since = moment(value.get("utc")), number(value.get("boottime"))
        if now is None or since is None:
            return None
        return now - timedelta(seconds=since)

    @cached_property
    def latest(self) -> datetime:
        """The latest time that a clock of the collector, the database or an API showed."""
        times = [self.bundle.ended]
        for answer in self.answers:
            if answer.query.startswith("SELECT UTC_TIMESTAMP"):
                found = [row[0] for row in rows_of(answer) if row]
                times += filter(None, map(moment, found))
            elif answer.query.startswith("HEAD ") and isinstance(answer.value, dict):
                date = http_moment(answer.value.get("date"))
                times += [date] if date is not None else []
        return max(times)

    def uptime(self, at: datetime) -> float | None:
        """Return the host's uptime in seconds at a moment of the collector's clock."""
        return (at - self.boot).total_seconds() if self.boot is not None else None

    def has_own(self, path: str) -> bool:
        """True if something is mounted over a file in /proc, as in a container."""
        return f" {path} " in self.text("kernel", "/proc/self/mountinfo")


def number(value: object) -> float | None:
    """Return the value if it is a number that a clock may show, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e10:
        return float(value)
    return None


def rows_of(answer: Answer) -> list[list[Any]]:
    """Return those rows of a database answer that have as many cells as there are columns."""
    value = answer.value
    if not isinstance(value, dict) or not isinstance(value.get("columns"), list):
        return []
    rows = value.get("rows")
    width = len(value["columns"])
    listed = rows if isinstance(rows, list) else []
    return [row for row in listed if isinstance(row, list) and len(row) == width]
