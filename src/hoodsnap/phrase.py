"""Phrases for headlines: how a time, a size or a list of names is written for people.

Both sides of a comparison use the same function, so they always have the same unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

_LONG = re.compile(r"([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}|([0-9a-f]{8})[0-9a-f]{32}")
"""A UUID, or the SHA-1 that is a base image's name."""

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def since(then: datetime, now: datetime) -> str:
    """Return the start and length of a span: `since 09:02 (5 h 49 min)`.

    The date is left out if both times, in UTC, are on the same day.
    """
    form = "%H:%M" if then.date() == now.date() else "%Y-%m-%d %H:%M"
    return f"since {then:{form}} ({lasting(now - then)})"


def lasting(span: timedelta | float) -> str:
    """Return a length of time (seconds, or a timedelta) in its two largest units: `2 d 3 h`."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 "))


def sizes(*counts: int) -> tuple[str, ...]:
    """Return counts of bytes, all in the largest unit in which each of them is a whole number.

    `sizes(64 << 20, 96 << 20)` is `("64 MiB", "96 MiB")`.
    """
    power = 0
    while power + 1 < len(UNITS) and all(count % 1024 ** (power + 1) == 0 for count in counts):
        if not any(counts):
            break
        power += 1
    return tuple(f"{count // 1024**power} {UNITS[power]}" for count in counts)


def size(count: int) -> str:
    """Return one count of bytes: `64 MiB`."""
    return sizes(count)[0]


def several(names: Iterable[object], most: int = 3) -> str:
    """Return a list of names, cut after `most` of them: `vm-a, vm-b, vm-c and 4 more`."""
    listed: Sequence[str] = [str(name) for name in names]
    if len(listed) > most:
        return f"{', '.join(listed[:most])} and {len(listed) - most} more"
    return " and ".join(filter(None, (", ".join(listed[:-1]), *listed[-1:])))


def brief(text: str) -> str:
    """Return a text whose UUIDs and SHA-1 hashes are cut to eight characters."""
    return _LONG.sub(lambda found: found[1] or found[3], text)


def place(path: str) -> str:
    """Return the last two parts of a path, shortened as by `brief`: `…/3970aa18/disk`."""
    parts = path.split("/")
    kept = path if len(parts) < 4 else "/".join(("…", *parts[-2:]))
    return brief(kept)


def state(state: str | None) -> str:
    """Return the state of a server or volume after `is`: `active`, `in error`."""
    return "in error" if state == "error" else state or "in no state"


def counted(count: int, noun: str) -> str:
    """Return a number of things: `1 server`, `2 servers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
