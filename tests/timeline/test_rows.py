"""Times in nova's databases: which ones are events, and who requested what."""

from __future__ import annotations

import re

import pytest
from tests.conftest import RecordedHost

from hoodsnap.facts.cloud.cloud import read
from hoodsnap.keep import tables
from hoodsnap.keep.tables import ReadableTable
from hoodsnap.timeline import rows
from hoodsnap.timeline.event import Event

READ = tuple(
    {
        table.name: table
        for member in vars(tables).values()
        for table in (member if isinstance(member, tuple) else (member,))
        if isinstance(table, ReadableTable)
    }.values()
)
A_TIME = re.compile(r"\w+_at|\w+_time|last_seen_up|expires")


@pytest.mark.parametrize("table", READ, ids=lambda table: table.name)
def test_every_time_that_is_collected_is_an_event_or_left_out_with_a_reason(
    table: ReadableTable,
) -> None:
    every = {
        column
        for other in vars(tables).values()
        for one in (other if isinstance(other, tuple) else (other,))
        if isinstance(one, ReadableTable) and one.name == table.name
        for column in one.columns
        if A_TIME.fullmatch(column)
    }
    left_out = {column for column in every if f"{table.name}.{column}" in rows.LEFT_OUT}

    assert every - left_out == set(rows.TIMES.get(table.name, {}))


def events_of(host: RecordedHost, name: str) -> list[Event]:
    found = rows.events(read(host.bundle))
    return [event for event in found if event.server == host.uuid(name)]


def shown(events: list[Event]) -> list[str]:
    return [f"{event.at:%H:%M:%S} {event.what}" for event in events]


def test_an_action_has_its_user_its_request_and_its_result(host: RecordedHost) -> None:
    found = shown(events_of(host, "vm-resized"))

    # Read from instance_actions and instance_actions_events in the recording.
    request = "req-47bc3c92-7beb-44e3-bb27-2f2ade59498b"
    assert f"18:34:07 confirmResize requested by admin ({request})" in found
    assert "18:34:08 confirm_resize on vm ended after 1 s: Success" in found
    assert "18:34:07 resize 1 on vm last updated: confirmed" in found


def test_a_user_without_a_known_name_is_shown_by_id(host: RecordedHost) -> None:
    host.silence("keystone")

    [created] = [one for one in shown(events_of(host, "vm-plain")) if "create requested" in one]

    assert "by 474c33efbdf042b28a6b0a0f4b1d4898 of project ec29b23033654c5aac6e3915cecf191a" in (
        created
    )


def test_a_fault_is_a_failure(host: RecordedHost) -> None:
    [fault] = [
        event
        for event in events_of(host, "vm-error")
        if event.is_failure and event.what.startswith("fault")
    ]

    assert fault.what == "fault 500 on vm: No valid host was found. "


def test_a_failed_step_is_a_failure(host: RecordedHost) -> None:
    query = next(
        answer.query
        for answer in host.bundle.by_layer["nova-db"]
        if "FROM nova.instance_actions_events WHERE" in answer.query
    )
    value = host.last("nova-db", query).value
    result = value["columns"].index("result")
    first = [*value["rows"][0]]
    assert first[result] == "Success"
    first[result] = "Error"
    host.set("nova-db", query, {**value, "rows": [first, *value["rows"][1:]]})

    failed = [event for event in rows.events(read(host.bundle)) if event.is_failure]

    ended = [event.what for event in failed if "ended" in event.what]
    assert len(ended) == 2  # vm-error has one in the recording
    assert all(what.endswith(": Error") for what in ended)


def test_a_step_without_an_end_has_an_event_of_its_start(host: RecordedHost) -> None:
    query = next(
        answer.query
        for answer in host.bundle.by_layer["nova-db"]
        if "FROM nova.instance_actions_events WHERE" in answer.query
    )
    value = host.last("nova-db", query).value
    names = value["columns"]
    first = dict(zip(names, value["rows"][0], strict=True)) | {"finish_time": None, "result": None}
    host.set("nova-db", query, {**value, "rows": [[*first.values()], *value["rows"][1:]]})

    found = [event.what for event in rows.events(read(host.bundle)) if "started" in event.what]

    assert found == ["build_and_run_instance on vm started; no end was recorded"]


@pytest.mark.parametrize("value", [7, [], {}, "yesterday", "9999-12-31 23:59:59", None, True])
def test_a_time_that_can_not_be_read_is_no_event(host: RecordedHost, value: object) -> None:
    host.row("instances", host.uuid("vm-plain"), launched_at=value)

    assert "launched" not in [event.what for event in events_of(host, "vm-plain")]
