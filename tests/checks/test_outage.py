"""One event that ended many guests at once."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.checks.test_error import switch_off
from tests.conftest import RecordedHost

RUNNING = (
    *("vm-bfv", "vm-config", "vm-data", "vm-duo", "vm-linux", "vm-paused", "vm-plain"),
    *("vm-rescued", "vm-resized", "vm-snap", "vm-tenant", "vm-verify"),
)


def boot(host: RecordedHost, ago: float) -> None:
    host.set("kernel", "/proc/uptime", f"{ago:.2f} 12.00\n")


def _logged(host: RecordedHost, name: str, when: datetime, reason: str) -> None:
    log = next(
        answer for answer in host.bundle.asked("logs", "tail ") if answer.subject == host.uuid(name)
    )
    end = f"\n{when:%Y-%m-%d %H:%M:%S.000}+0000: shutting down, reason={reason}\n"
    host.set("logs", log.query, log.value + end)


def test_guests_ended_at_once(host: RecordedHost) -> None:
    for name in RUNNING:
        switch_off(host, name, 0)
    boot(host, 60)

    [headline] = [finding.headline for finding in host.report().findings]
    assert headline.startswith("12 of the 12 guests that nova has running on vm are off: vm booted")
    folded = [line.partition(":")[0] for line in host.folded()]
    halted = {"vm-rescued", "vm-verify"}
    assert sorted(folded) == sorted(
        f"guests-ended-at-once ← {check} of {name}"
        for name in RUNNING
        for check in ["rescued-or-resized-but-off" if name in halted else "active-but-domain-off"]
    )


def test_guests_ended_at_once_without_a_boot(host: RecordedHost) -> None:
    when = host.bundle.started - timedelta(minutes=1)
    for name in RUNNING[:8]:
        switch_off(host, name, 3)
        _logged(host, name, when, "crashed")

    [headline] = [finding.headline for finding in host.report().findings]
    assert headline.startswith(
        "8 of the 12 guests that nova has running on vm are off: they ended within one minute at"
    )
    assert headline.endswith("UTC (crashed)")


def test_guests_that_were_started_after_the_boot_have_another_reason(host: RecordedHost) -> None:
    for name in RUNNING:
        switch_off(host, name, 0)
    boot(host, 8000)  # before QEMU's logs begin

    assert "guests-ended-at-once" not in "".join(host.findings())


def test_a_finding_of_another_guest_is_not_folded_under_the_event(host: RecordedHost) -> None:
    when = host.bundle.started - timedelta(minutes=1)
    for name in RUNNING[:8]:
        switch_off(host, name, 3)
        _logged(host, name, when, "crashed")
    switch_off(host, "vm-snap", 3)
    _logged(host, "vm-snap", when - timedelta(hours=1), "crashed")

    assert "active-but-domain-off of vm-snap" in "".join(host.findings())


def test_two_guests_are_no_event(host: RecordedHost) -> None:
    for name in RUNNING[:2]:
        switch_off(host, name, 0)
    boot(host, 60)

    assert "guests-ended-at-once" not in "".join(host.findings())
