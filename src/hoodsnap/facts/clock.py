"""Times as databases, APIs and logs write them, and what a database's own clock showed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, value_of


def moment(written: object) -> datetime | None:
    """Return a time as databases, APIs, clocks and logs write it, in UTC; None if it is none.

    One without a zone is in UTC: nova's databases, its API and our collector write no other. A
    decimal comma is dmesg's. A year that no computer's clock had is no time.
    """
    found = wall_time(written)
    return _in_utc(found) if found is not None else None


def wall_time(written: object) -> datetime | None:
    """Return a time as it is written: any year from 1 to 9999, with a zone only if it names one;
    None if it is none. `moment` is for times that are compared."""
    if not isinstance(written, str):
        return None
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return None


def http_moment(written: object) -> datetime | None:
    """Return the time of an HTTP `Date` header, in UTC; None if it is none."""
    from email.utils import parsedate_to_datetime  # it brings along all of email

    if not isinstance(written, str):
        return None
    try:
        return _in_utc(parsedate_to_datetime(written))
    except (ValueError, TypeError, OverflowError):
        return None


def _in_utc(time: datetime) -> datetime | None:
    """The time, if a computer may have had it: with others it can't be reckoned."""
    try:
        found = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        return None
    return found if 1900 < found.year < 9000 else None


def clock_of(answers: Iterable[Answer]) -> tuple[Answer, datetime] | None:
    """When a database's clock was read, and what it showed."""
    for answer in answers:
        if answer.query.startswith("SELECT UTC_TIMESTAMP") and answer.error is None:
            try:
                rows = value_of(answer, "the clock", dict[str, list[list[str]] | list[str]])["rows"]
                shown = moment(rows[0][0])
            except (UnheardError, KeyError, IndexError):
                continue
            if shown is not None:
                return answer, shown
    return None
