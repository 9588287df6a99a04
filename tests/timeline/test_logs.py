"""Times in logs: zones, owners of a log file's runs, and OOM kills."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer
from hoodsnap.facts.cloud.cloud import read
from hoodsnap.timeline import logs
from hoodsnap.timeline.event import Event

NOVA = "tail -c 4194304 /var/log/nova/nova-compute.log"


def events(host: RecordedHost) -> list[Event]:
    return [*logs.events(read(host.bundle))]


def nova_line(host: RecordedHost, line: str) -> None:
    host.set("logs", NOVA, f"{line} ERROR [instance: {host.uuid('vm-plain')}] disk is gone")


def the_error(host: RecordedHost) -> Event:
    [found] = [event for event in events(host) if "disk is gone" in event.what]
    return found


def renamed_query(host: RecordedHost, new: str) -> None:
    """Let nova-compute's log come from another place."""
    answer = host.last("logs", NOVA)
    host.drop(lambda one: one is not answer)
    host.add(Answer(**{**answer.model_dump(exclude={"error"}), "query": new}))


def test_the_last_start_and_end_of_qemu_are_those_of_the_log(host: RecordedHost) -> None:
    found = [event for event in events(host) if event.server == host.uuid("vm-rescued")]
    qemu = [f"{event.at:%H:%M:%S} {event.what}" for event in found if "nova" not in event.what]

    # Read from the log of instance-0000000c in the recording.
    assert qemu[-2:] == [
        "18:34:09 shutting down, reason=destroyed",
        "18:34:09 QEMU starting up (libvirt 9.0.0, QEMU 7.2.22)",
    ]


def test_lines_of_an_earlier_guest_with_the_same_domain_name_are_left_out(
    host: RecordedHost,
) -> None:
    uuid = host.uuid("vm-plain")
    name = f"/var/log/libvirt/qemu/{host.domain('vm-plain')}.log"
    written = str(host.last("logs", f"tail -c 65536 {name}").value)
    assert written.count("-uuid ") > written.count(f"-uuid {uuid}") == 1

    starts = [one for one in events(host) if one.server == uuid and "starting up" in one.what]

    assert [f"{one.at:%H:%M}" for one in starts] == ["18:33"]


@pytest.mark.parametrize(
    ("offset", "utc"), [("+0000 UTC", "12:00"), ("+0530 +0530", "06:30"), ("-0330 -0330", "15:30")]
)
def test_nova_compute_writes_the_hosts_local_time(
    host: RecordedHost, offset: str, utc: str
) -> None:
    host.set("host", "date '+%z %Z'", offset)
    nova_line(host, "2026-11-25 12:00:00.000")

    found = the_error(host)

    assert found.at is not None and f"{found.at:%H:%M}" == utc
    assert found.is_failure


def test_a_time_is_unknown_without_the_hosts_zone(host: RecordedHost) -> None:
    nova_line(host, "2026-11-25 12:00:00.000")
    host.drop(lambda answer: answer.query != "date '+%z %Z'")

    found = the_error(host)

    assert (found.at, found.written) == (None, "2026-11-25 12:00:00.000")


def test_a_container_may_have_another_zone_than_its_host(host: RecordedHost) -> None:
    host.set("host", "date '+%z %Z'", "+0100 CET")
    nova_line(host, "2026-11-25 12:00:00.000")
    renamed_query(host, "tail -c 4194304 /var/log/kolla/nova/nova-compute.log")

    assert the_error(host).at is None


def test_a_zone_that_is_written_counts(host: RecordedHost) -> None:
    host.set("host", "date '+%z %Z'", "+0100 CET")
    nova_line(host, "2026-11-25T12:00:00+0200")

    found = the_error(host)

    assert found.at is not None and f"{found.at:%H:%M}" == "10:00"


def test_an_oom_kill_belongs_to_its_server(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    line = (
        "2026-11-25T18:35:00,5+00:00 oom-kill:constraint=CONSTRAINT_NONE,task_memcg="
        rf"/machine.slice/machine-qemu\x2d7\x2d{name.replace('-', chr(92) + 'x2d')}.scope,"
        "task=qemu-system-x86,pid=1,uid=64055"
    )
    host.set("logs", "dmesg --time-format iso", line)

    [killed] = [event for event in events(host) if "oom-kill" in event.what]

    assert killed.server == host.uuid("vm-plain")
    assert killed.is_failure
    assert killed.at is not None and f"{killed.at:%H:%M:%S}" == "18:35:00"


@pytest.mark.parametrize(
    ("offset", "time"), [("+0530 +0530", "0001-01-01"), ("-0330 -0330", "9999-12-31")]
)
def test_a_time_that_no_clock_shows_costs_no_other_line(
    host: RecordedHost, offset: str, time: str
) -> None:
    host.set("host", "date '+%z %Z'", offset)
    nova_line(host, f"{time} 00:00:00.000")

    assert the_error(host).at is None
    assert len([one for one in events(host) if one.what.startswith("QEMU")]) > 10


def test_an_offset_that_no_zone_has_is_unknown(host: RecordedHost) -> None:
    nova_line(host, "2026-11-25 12:00:00.000")
    host.set("host", "date '+%z %Z'", "+9900 X")

    assert the_error(host).at is None
