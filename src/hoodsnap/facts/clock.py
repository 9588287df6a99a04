"""Readers for the time formats of databases, APIs and logs, and for a database's own clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, value_of
from hoodsnap.phrase import since


def moment(written: object) -> datetime | None:
    """Return in UTC a time as databases, APIs, clocks and logs write it; None if it can't be read.

    A time without a zone is in UTC: nova's databases, its API and our collector write only UTC. A
    decimal comma comes from dmesg. None also for years that no real clock shows.
    """
    found = wall_time(written)
    return _in_utc(found) if found is not None else None


def wall_time(written: object) -> datetime | None:
    """Return a time as it is written; None if it can't be read.

    Any year from 1 to 9999, with a zone only if the text names one. To compare times, use `moment`.
    """
    if not isinstance(written, str):
        return None
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return None


def since_written(written: object, now: datetime) -> str:
    """Return ` since 09:02 (5 h 49 min)`, with a space in front; "" if the time can't be read."""
    then = moment(written)
    return f" {since(then, now)}" if then is not None else ""


def http_moment(written: object) -> datetime | None:
    """Return the time of an HTTP `Date` header, in UTC; None if it can't be read."""
    from email.utils import parsedate_to_datetime  # imports all of email, so only when needed

    if not isinstance(written, str):
        return None
    try:
        return _in_utc(parsedate_to_datetime(written))
    except (ValueError, TypeError, OverflowError):
        return None


def _in_utc(time: datetime) -> datetime | None:
    """Return the time in UTC; None for years so far off that arithmetic would overflow."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    elif time.tzinfo is not UTC:
        try:
            time = time.astimezone(UTC)
        except OverflowError:
            return None
    return time if 1900 < time.year < 9000 else None


def clock_of(answers: Iterable[Answer]) -> tuple[Answer, datetime] | None:
    """Return the answer that read a database's clock, and the time it showed; None without one."""
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
