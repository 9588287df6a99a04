"""One event behind many findings: guests that ended within a minute, and what their host did then.

Ten guests that are off are ten faults, or one reboot. The ends are in QEMU's logs, the host's boot
is in /proc/uptime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import caught
from hoodsnap.phrase import several

FEWEST = 3
"""Guests that must have ended together to call it one event."""

TOGETHER = timedelta(minutes=1)
"""Time within which the guests of one event end."""

BOOTING = timedelta(minutes=15)
"""Time that a host takes at most from the end of its guests until it has booted again."""


def common_event(guests: Iterable[Guest]) -> str | None:
    """Return the event that ended most of these guests, in one sentence without a period.

    `all 12 ended within one minute at 2026-11-25 09:14 UTC (shutdown), just before vm booted`.
    None if fewer than `FEWEST` ended together, or at least half of the guests did not.
    """
    affected = tuple(guests)
    ends = sorted(_ends(affected), key=lambda end: end[0])
    together: list[tuple[datetime, str, Guest]] = []
    for first, *_ in ends:
        same = [end for end in ends if first <= end[0] <= first + TOGETHER]
        together = max(together, same, key=len)
    if len(together) < FEWEST or len(together) * 2 < len(affected):
        return None
    when = together[0][0]
    every = len(together) == len(affected)
    count = f"all {len(together)}" if every else f"{len(together)} of them"
    reasons = dict.fromkeys(reason for _, reason, _ in together if reason)
    why = f" ({several(reasons)})" if reasons else ""
    return f"{count} ended within one minute at {when:%Y-%m-%d %H:%M} UTC{why}{_boots(together)}"


def _ends(guests: Iterable[Guest]) -> Iterator[tuple[datetime, str, Guest]]:
    for guest in guests:
        try:
            if guest.process is None and guest.log is not None and guest.log.ended_at is not None:
                yield guest.log.ended_at, guest.log.end_reason or "", guest
        except Exception as error:  # a net: the log of this guest can't be read
            caught(error)


def _boots(ends: Iterable[tuple[datetime, str, Guest]]) -> str:
    last = {guest.host: when for when, _, guest in ends if guest.host is not None}
    booted = [
        host.name
        for host, when in last.items()
        if (boot := host.booted) is not None and when - TOGETHER <= boot[0] <= when + BOOTING
    ]
    return f", just before {several(sorted(booted))} booted" if booted else ""
