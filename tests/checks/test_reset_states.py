"""Servers that were set to active by hand while other records still show another one."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, changes

CHECK = "state-reset-by-hand"


def _act(host: RecordedHost, name: str, *actions: str) -> None:
    """Add actions after the last one of a server to the database."""
    uuid = host.uuid(name)
    for answer in host.bundle.by_layer["nova-db"]:
        if ".instance_actions WHERE" not in answer.query or uuid not in answer.query:
            continue
        columns, rows = answer.value["columns"], answer.value["rows"]
        last = max(rows, key=lambda row: row[columns.index("id")])
        number = last[columns.index("id")]
        own = dict(zip(columns, last, strict=True)) | {"instance_uuid": uuid}
        more = [
            own | {"id": number + at, "action": action, "request_id": f"req-{at}"}
            for at, action in enumerate(actions, 1)
        ]
        cells = [[row[name] for name in columns] for row in more]
        host.set("nova-db", answer.query, {"columns": columns, "rows": [*rows, *cells]})


def _reset(host: RecordedHost, name: str, *actions: str) -> None:
    """Set a server to active, as `openstack server set --state active` does, before `actions`."""
    host.row("instances", host.uuid(name), vm_state="active")
    _act(host, name, "resetState", *actions)


def _checks(host: RecordedHost) -> set[str]:
    return {one.check.name for one in host.report().findings}


def test_state_reset_by_hand(host: RecordedHost) -> None:
    _reset(host, "vm-verify")

    [finding] = host.report().findings
    assert finding.check.name == CHECK
    assert finding.severity.word == "warning"
    assert finding.headline.startswith(
        "vm-verify waits for its resize to be confirmed, but was set to active by hand at "
    )
    uuid = host.uuid("vm-verify")
    assert changes(finding) == [
        f"UPDATE nova.instances SET vm_state = 'resized' WHERE uuid = '{uuid}'",
        f"openstack server resize confirm {uuid}",
        f"openstack server resize revert {uuid}",
    ]
    folded = {one.check.name for one in finding.folded}
    assert {"flavor-three-way-drift", "orphan-instance-dir"} <= folded


def test_a_shelved_server_that_was_reset(host: RecordedHost) -> None:
    _reset(host, "vm-shelved")

    [finding] = host.report().findings
    assert finding.check.name == CHECK
    assert finding.severity.word == "error"
    uuid = host.uuid("vm-shelved")
    assert changes(finding) == [
        f"UPDATE nova.instances SET vm_state = 'shelved_offloaded' WHERE uuid = '{uuid}'",
        f"openstack server unshelve {uuid}",
    ]


def test_a_suspended_server_that_was_reset(host: RecordedHost) -> None:
    _reset(host, "vm-suspended")

    [finding] = host.report().findings
    assert finding.check.name == CHECK
    uuid = host.uuid("vm-suspended")
    assert changes(finding) == [
        f"UPDATE nova.instances SET vm_state = 'suspended' WHERE uuid = '{uuid}'",
        f"openstack server resume {uuid}",
    ]


@pytest.mark.parametrize("name", ["vm-verify", "vm-shelved", "vm-suspended"])
@pytest.mark.parametrize("action", ["reboot", "start", "rebuild"])
def test_a_later_action_ends_the_earlier_state(host: RecordedHost, name: str, action: str) -> None:
    _reset(host, name, action)

    assert CHECK not in _checks(host)


def test_an_action_that_changes_no_state_does_not(host: RecordedHost) -> None:
    _reset(host, "vm-verify", "lock", "resetState", "createImage")

    assert CHECK in _checks(host)


@pytest.mark.parametrize("name", ["vm-verify", "vm-shelved", "vm-suspended"])
def test_a_state_that_was_not_reset_by_hand(host: RecordedHost, name: str) -> None:
    host.row("instances", host.uuid(name), vm_state="active")

    assert CHECK not in _checks(host)


@pytest.mark.parametrize("name", ["vm-plain", "vm-stopped", "vm-rescued"])
def test_a_reset_without_another_state_left(host: RecordedHost, name: str) -> None:
    _reset(host, name)

    assert CHECK not in _checks(host)


def test_memory_that_is_older_than_the_disk_is_not_to_be_resumed(host: RecordedHost) -> None:
    _reset(host, "vm-suspended")
    host.file(f"{host.folder('vm-suspended')}/disk", mtime="2031-01-01T00:00:00.000000Z")

    assert CHECK not in _checks(host)


def test_unknown_actions_are_no_evidence(host: RecordedHost) -> None:
    _reset(host, "vm-verify")
    host.drop(lambda answer: ".instance_actions WHERE" not in answer.query)

    assert CHECK not in _checks(host)
    assert CHECK in {skip.check.name for skip in host.report().skips}
