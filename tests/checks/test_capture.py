"""Bundles that contradict themselves."""

from __future__ import annotations

from datetime import timedelta

from tests.conftest import RecordedHost


def test_capture_untrustworthy_when_no_process_is_to_be_seen(host: RecordedHost) -> None:
    host.set("kernel", "ls -l /proc/*/exe", [])
    host.drop(lambda answer: not (answer.layer == "kernel" and (answer.subject or "").isdigit()))

    assert host.findings() == [
        "capture-untrustworthy: kernel says guests = 0; libvirt says guests = 11"
    ]
    assert any("another PID namespace" in skip.reason for skip in host.report().skips)


def test_capture_untrustworthy(host: RecordedHost) -> None:
    host.set("libvirt", "virsh list --all", [])

    assert host.findings() == [
        "capture-untrustworthy: libvirt says guests = 0; kernel says guests = 11"
    ]
    assert any("another libvirt" in skip.reason for skip in host.report().skips)


def test_an_empty_host_is_no_contradiction(host: RecordedHost) -> None:
    host.set("libvirt", "virsh list --all", [])
    host.set("kernel", "ls -l /proc/*/exe", [])
    host.drop(lambda answer: not (answer.layer == "kernel" and (answer.subject or "").isdigit()))

    assert "capture-untrustworthy" not in "".join(host.findings())


def test_clocks_apart(host: RecordedHost) -> None:
    asked = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    ahead = asked.at.replace(year=asked.at.year + 1)
    host.set(
        "nova-db",
        "SELECT UTC_TIMESTAMP(6)",
        {"columns": ["UTC_TIMESTAMP(6)"], "rows": [[f"{ahead:%Y-%m-%d %H:%M:%S.%f}"]]},
    )

    [finding] = host.findings()
    assert finding.startswith(f"clocks-apart: clock of nova-db says time = {ahead.year}-")


def test_clocks_apart_in_the_api(host: RecordedHost) -> None:
    host.set("nova", "HEAD /v2.1/", {"date": "Thu, 01 Jan 1970 00:00:00 GMT"})

    [finding] = host.findings()
    assert finding.startswith("clocks-apart: clock of nova says time = 1970-01-01T00:00:00+00:00")


def test_a_slow_answer_is_no_skew(host: RecordedHost) -> None:
    clock = "SELECT UTC_TIMESTAMP(6)"
    asked = next(answer for answer in host.bundle.answers if answer.query == clock)
    late = asked.at + timedelta(seconds=8)
    rows = [[f"{late:%Y-%m-%d %H:%M:%S.%f}"]]
    host.set("nova-db", clock, {"columns": ["UTC_TIMESTAMP(6)"], "rows": rows})
    assert len(host.findings()) == 1

    host.take("nova-db", clock, 9.0)

    assert host.findings() == []
