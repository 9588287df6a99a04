"""The timeline: order, folding, filters, and clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import RecordedHost, healthy
from tests.daemons import listed

from hoodsnap.bundle import Answer
from hoodsnap.facts.cloud.cloud import read as read_cloud
from hoodsnap.timeline.event import Event
from hoodsnap.timeline.timeline import Timeline, about, between, folded, read

SOURCE = Answer(
    layer="logs", host="vm", query="q", at=datetime(2026, 1, 1, tzinfo=UTC), took=0, value=""
)


def timeline(host: RecordedHost) -> Timeline:
    return read(read_cloud(host.bundle))


def event(second: int, kind: str, server: str) -> Event:
    at = SOURCE.at + timedelta(seconds=second)
    return Event(at, "logs", kind, SOURCE, server=server, host="vm", kind=kind)


def test_every_layer_with_times_has_events_in_order(host: RecordedHost) -> None:
    found = timeline(host)

    assert {event.layer for event in found.events} == {
        *("nova-db", "libvirt", "kernel", "images", "cinder", "neutron", "logs", "glance"),
        "capture",
    }
    times = [event.at for event in found.events]
    assert times == sorted(times, key=lambda at: at or SOURCE.at)
    assert found.undated == ()


def test_the_boot_and_the_start_of_a_process_are_by_the_hosts_clock(host: RecordedHost) -> None:
    found = timeline(host)
    [boot] = [event for event in found.events if event.what == "host booted"]
    pid = host.pid("vm-rescued")
    [start] = [event for event in found.events if event.what == f"QEMU process {pid} started"]

    # btime in /proc/stat is 1795623542; the log of QEMU has its start at 18:34:09.
    assert boot.at is not None and round(boot.at.timestamp()) in (1795623542, 1795623543)
    assert start.at is not None and f"{start.at:%H:%M:%S}" == "18:34:09"


def test_the_start_of_a_daemon_is_an_event_and_those_of_its_workers_are_not(
    served: RecordedHost,
) -> None:
    starts = [one for one in timeline(served).events if one.layer == "daemons"]

    assert sum(one.what.startswith("cinder-volume started") for one in starts) == 1
    [compute] = [one for one in starts if one.what == "nova-compute started (process 8673)"]
    assert compute.at is not None
    assert f"{compute.at:%Y-%m-%d %H:%M:%S}" == "2026-11-30 08:37:07"


def test_every_helper_of_a_guest_has_a_start(served: RecordedHost) -> None:
    listed(
        served,
        lambda rows: [
            *rows,
            *(rows[0] | {"name": "swtpm", "pid": pid, "started": 10 * pid} for pid in (7001, 7002)),
        ],
    )
    starts = [one.what for one in timeline(served).events if one.kind == "swtpm started"]

    assert starts == ["swtpm started (process 7001)", "swtpm started (process 7002)"]


def test_without_nova_databases_the_api_has_the_actions(host: RecordedHost) -> None:
    host.silence("nova-db")
    uuid = host.uuid("vm-plain")

    found = [e.what for e in timeline(host).events if e.server == uuid and e.layer == "nova"]

    assert any(what.startswith("create by admin (req-5900d5ef-") for what in found)
    assert "server launched" in found


def test_one_server_has_its_own_events_and_those_of_its_host(host: RecordedHost) -> None:
    found = about(timeline(host), [host.guest("vm-plain")])

    assert {event.server for event in found.events} == {host.uuid("vm-plain"), None}
    assert "host booted" in [event.what for event in found.events]
    assert not [event for event in found.events if event.layer == "images" and not event.server]


def test_a_span_has_both_of_its_ends(host: RecordedHost) -> None:
    whole = timeline(host)
    first, last = whole.events[10].at, whole.events[-10].at

    found = between(whole, first, last).events

    assert found[0].at == first
    assert found[-1].at == last
    assert between(whole, last, first).events == () or first == last


def test_a_clock_that_differs_is_remarked(host: RecordedHost) -> None:
    host.set(
        "nova-db",
        "SELECT UTC_TIMESTAMP(6)",
        {"columns": ["UTC_TIMESTAMP(6)"], "rows": [["2026-11-25 18:40:36.390527"]]},
    )

    [remark] = timeline(host).remarks

    assert remark.startswith("the database's clock is 24")
    assert remark.endswith("ahead of the clock of vm; times are shown as recorded")


def test_an_unreadable_source_costs_its_own_events() -> None:
    bundle = healthy()
    broken = bundle.with_answers(
        answer.model_copy(update={"value": {"images": [{"created_at": "2026", "name": []}]}})
        if answer.query.startswith("GET /v2/images")
        else answer
        for answer in bundle.answers
    )

    assert len(read(read_cloud(broken)).events) > 500


def test_repeats_without_another_event_between_are_one() -> None:
    found = folded([event(1, "x", "a"), event(2, "y", "b"), event(3, "x", "a"), event(4, "x", "a")])

    assert [(one.what, len(one.repeats)) for one in found] == [("x", 2), ("y", 0)]


def test_starts_and_ends_in_turn_are_not_folded() -> None:
    events = [event(n, "start" if n % 2 else "end", "a") for n in range(6)]

    assert len(folded(events)) == 6


def test_the_same_event_of_many_servers_at_once_is_one() -> None:
    found = folded(event(1, "start", name) for name in "abcdef")

    assert [len(one.repeats) for one in found] == [5]


@given(st.lists(st.tuples(st.sampled_from(["x", "y", ""]), st.sampled_from("abc")), max_size=30))
def test_folding_loses_no_event(drawn: list[tuple[str, str]]) -> None:
    events = [event(number, kind, server) for number, (kind, server) in enumerate(drawn)]

    shown = folded(events)

    times = [one.at for event_ in shown for one in (event_, *event_.repeats)]
    assert sorted(times, key=lambda at: at or SOURCE.at) == [one.at for one in events]
