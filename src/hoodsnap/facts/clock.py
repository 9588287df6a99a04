"""Times as databases and APIs write them, and what a database's own clock showed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, value_of


def moment(written: str | None) -> datetime | None:
    """A time as the database or the API writes it, in UTC; None if it is none."""
    if not written:
        return None
    try:
        found = datetime.fromisoformat(written.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def clock_of(answers: Iterable[Answer]) -> tuple[Answer, datetime] | None:
    """When a database's clock was read, and what it showed."""
    for answer in answers:
        if answer.query.startswith("SELECT UTC_TIMESTAMP") and answer.error is None:
            try:
                rows = value_of(answer, "the clock", dict[str, list[list[str]] | list[str]])["rows"]
                shown = moment(str(rows[0][0]))
            except (UnheardError, KeyError, IndexError):
                continue
            if shown is not None:
                return answer, shown
    return None
