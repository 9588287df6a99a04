"""One event behind many findings, from recorded logs and the recorded boot of the host."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from tests.conftest import RecordedHost

from hoodsnap.findings.event import BOOTING, common_event

GUESTS = ("vm-plain", "vm-duo", "vm-snap", "vm-config")


def _ended(host: RecordedHost, name: str, when: datetime, reason: str = "shutdown") -> None:
    """Make a guest's log end like that of a domain that was shut down."""
    host.end(name)
    [query] = {
        answer.query
        for answer in host.bundle.asked("logs", "tail ")
        if answer.query.endswith(f"/{host.domain(name)}.log")
    }
    said = str(host.last("logs", query).value)
    line = f"{when:%Y-%m-%d %H:%M:%S}.123+0000: shutting down, reason={reason}\n"
    host.set("logs", query, f"{said.rstrip()}\n{line}")


def _event(host: RecordedHost, names: tuple[str, ...] = GUESTS) -> str | None:
    guests = host.report().cloud.guests
    return common_event(guest for guest in guests if guest.name in names)


def test_guests_that_ended_together_share_an_event(host: RecordedHost) -> None:
    when = host.bundle.started - timedelta(minutes=3)
    for number, name in enumerate(GUESTS):
        _ended(host, name, when + timedelta(seconds=10 * number))

    expected = f"all 4 ended within one minute at {when:%Y-%m-%d %H:%M} UTC (shutdown)"
    assert _event(host) == expected


def test_a_boot_right_after_their_end_is_named(host: RecordedHost) -> None:
    asked = host.last("kernel", "/proc/uptime").at
    when = host.bundle.started - timedelta(minutes=3)

    def up_since(boot: datetime) -> str:
        return f"{(asked - boot).total_seconds():.2f} 3152.88\n"

    host.set("kernel", "/proc/uptime", up_since(when + timedelta(minutes=1)))
    for name in GUESTS:
        _ended(host, name, when)

    assert (_event(host) or "").endswith(" UTC (shutdown), just before vm booted")

    host.set("kernel", "/proc/uptime", up_since(when - BOOTING))
    assert (_event(host) or "").endswith(" UTC (shutdown)")
    host.set("kernel", "/proc/uptime", "x")
    assert (_event(host) or "").endswith(" UTC (shutdown)")
    boot = int((when + timedelta(minutes=1)).timestamp())
    host.set("kernel", "grep btime /proc/stat", f"btime {boot}\n")
    assert (_event(host) or "").endswith(" UTC (shutdown), just before vm booted")


def test_most_of_them_are_enough(host: RecordedHost) -> None:
    when = host.bundle.started - timedelta(minutes=3)
    for name in GUESTS[:3]:
        _ended(host, name, when)

    assert (_event(host) or "").startswith("3 of them ended within one minute at ")


@pytest.mark.parametrize("apart", [timedelta(minutes=2), timedelta(days=1)])
def test_ends_that_are_apart_are_no_event(host: RecordedHost, apart: timedelta) -> None:
    for number, name in enumerate(GUESTS):
        _ended(host, name, host.bundle.started - timedelta(minutes=3) - number * apart)

    assert _event(host) is None


def test_two_guests_are_no_event(host: RecordedHost) -> None:
    for name in GUESTS[:2]:
        _ended(host, name, host.bundle.started - timedelta(minutes=3))

    assert _event(host, GUESTS[:2]) is None
