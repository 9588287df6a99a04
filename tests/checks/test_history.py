"""Moves and actions in the nova API and in nova's database."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.conftest import RecordedHost


def api(host: RecordedHost, name: str, key: str, what: str, value: object) -> None:
    """Set a field of a server's first action or migration in the API."""
    uuid = host.uuid(name)
    for answer in host.bundle.by_layer["nova"]:
        body: Any = json.loads(json.dumps(answer.value))
        for item in body.get(key, []) if isinstance(body, dict) else []:
            if item["instance_uuid"] == uuid:
                item[what] = value
                host.set("nova", answer.query, body)
                return
    raise AssertionError(f"the API listed no {key} of {name}")


def test_histories_apart(host: RecordedHost) -> None:
    api(host, "vm-stopped", "instanceActions", "user_id", "somebody")

    user = host.guest("vm-stopped").instance
    assert user is not None
    assert host.headlines() == [
        "vm-stopped's stop has user_id somebody in the nova API, but "
        f"{user.action_by} in nova's database"
    ]


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("action", "reboot"),
        ("project_id", "p"),
        ("start_time", "2026-11-25T18:30:00.000000"),
        ("request_id", "req-0"),
    ],
)
def test_histories_apart_in_an_action(host: RecordedHost, what: str, value: str) -> None:
    api(host, "vm-stopped", "instanceActions", what, value)

    [finding] = host.report().findings
    assert finding.check.name == "histories-apart"


@pytest.mark.parametrize("what", ["dest_host", "user_id", "uuid", "new_instance_type_id"])
def test_histories_apart_in_a_move(host: RecordedHost, what: str) -> None:
    api(host, "vm-verify", "migrations", what, "other")

    [headline] = host.headlines()
    assert headline.startswith("vm-verify's move ")
    assert f" has {what} other in the nova API, but " in headline


def test_a_move_in_progress_changes_between_the_questions(host: RecordedHost) -> None:
    api(host, "vm-verify", "migrations", "dest_host", "other")
    api(host, "vm-verify", "migrations", "updated_at", "2026-11-25T18:36:30.000000")

    assert host.findings() == []


@pytest.mark.parametrize(
    ("what", "value"),
    [("migration_type", "migration"), ("source_compute", "vm9"), ("source_node", "vm9")],
)
def test_histories_apart_in_the_kind_of_a_move(host: RecordedHost, what: str, value: str) -> None:
    api(host, "vm-verify", "migrations", what, value)

    [headline] = host.headlines()
    assert f" has {what} {value} in the nova API, but " in headline


def test_a_move_that_is_over_has_one_status(host: RecordedHost) -> None:
    api(host, "vm-verify", "migrations", "status", "error")

    assert "status error in the nova API, but finished" in host.headlines()[0]


def test_histories_apart_in_the_end_of_an_action(host: RecordedHost) -> None:
    api(host, "vm-stopped", "instanceActions", "message", "Error")

    assert host.headlines() == [
        "vm-stopped's stop has message Error in the nova API, but none in nova's database"
    ]


@pytest.mark.parametrize(("seconds", "found"), [(50, 0), (70, 1)])
def test_an_action_that_the_database_had_not_written(
    host: RecordedHost, seconds: int, found: int
) -> None:
    """All rows are as they were when the snapshot began, which may be long before the question."""
    [clock, *_] = host.bundle.asked("nova-db", "SELECT UTC_TIMESTAMP(6)")
    began = clock.at - timedelta(seconds=seconds)
    api(host, "vm-stopped", "instanceActions", "request_id", "req-0")
    api(host, "vm-stopped", "instanceActions", "start_time", f"{began:%Y-%m-%dT%H:%M:%S.000000}")

    assert len(host.findings()) == found
