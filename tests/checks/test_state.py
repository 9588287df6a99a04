"""What nova believes a guest is doing, and what it does."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost

from hoodsnap.analysis import Report


def _state(host: RecordedHost, name: str, state: int, reason: int) -> None:
    query = f"virsh domstate --reason {host.domain(name)}"
    host.set("libvirt", query, {"state": state, "reason": reason})


def _reasons(report: Report, check: str, guest: str) -> list[str]:
    """Why a check was not decided for a guest."""
    return [
        skip.reason
        for skip in report.skips
        if skip.check.name == check and skip.guest and skip.guest.name == guest
    ]


def test_active_but_domain_off(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 3)

    assert host.findings() == [
        "active-but-domain-off of vm-plain: instance says vm_state = active;"
        " domain says state = shut off (crashed)"
    ]


def test_a_guest_whose_process_lives_is_not_off(host: RecordedHost) -> None:
    _state(host, "vm-plain", 5, 3)

    assert "active-but-domain-off" not in "".join(host.findings())


def test_active_but_domain_off_where_only_the_api_was_heard(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 2)
    host.silence("nova-db", "missing")

    assert host.findings() == [
        "active-but-domain-off of vm-plain: server says vm_state = active;"
        " domain says state = shut off (destroyed)"
    ]


def test_a_server_that_is_being_switched_off_may_be_off(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 1)
    row = {"task_state": "powering-off", "updated_at": f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"}
    host.row("instances", host.uuid("vm-plain"), **row)

    report = host.report()
    assert report.findings == ()
    assert _reasons(report, "active-but-domain-off", "vm-plain") == [
        "nova is doing something with it (task_state is set)"
    ]


def test_a_server_that_migrates_may_be_off_here(host: RecordedHost) -> None:
    host.end("vm-verify")
    _state(host, "vm-verify", 5, 4)
    uuid, now = host.uuid("vm-verify"), f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("instances", uuid, vm_state="active")
    host.remove(f"{host.folder('vm-verify')}_resize")
    assert len(host.findings()) == 1

    host.row("migrations", uuid, status="running", updated_at=now)

    assert host.findings() == []


def test_a_migration_that_nobody_closed_excuses_nothing(host: RecordedHost) -> None:
    host.end("vm-verify")
    _state(host, "vm-verify", 5, 4)
    uuid = host.uuid("vm-verify")
    host.row("instances", uuid, vm_state="active")
    host.row("migrations", uuid, status="running", updated_at="2019-01-01 00:00:00")

    host.remove(f"{host.folder('vm-verify')}_resize")
    assert len(host.findings()) == 1


def test_migrations_that_were_not_read_may_be_under_way(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 3)
    host.drop(lambda answer: ".migrations" not in answer.query)

    assert host.findings() == []


def test_what_moved_while_it_was_captured_is_not_judged(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    query = f"virsh domstate --reason {name}"
    host.end("vm-plain")
    looks = [answer for answer in host.bundle.answers if answer.query == query]
    assert len(looks) >= 2
    moved = looks[-1].model_copy(update={"value": {"state": 5, "reason": 1}})
    answers = (moved if answer is looks[-1] else answer for answer in host.bundle.answers)
    host.bundle = host.bundle.with_answers(tuple(answers))

    report = host.report()
    assert report.findings == ()
    [reason] = _reasons(report, "active-but-domain-off", "vm-plain")
    assert reason.startswith("it changed while it was captured (state ")


def test_stopped_but_domain_on(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state="stopped", power_state=4)

    assert host.findings() == [
        "stopped-but-domain-on of vm-plain: instance says vm_state = stopped;"
        " domain says state = running (unpaused)"
    ]


@pytest.mark.parametrize("vm_state", ["soft-delete", "shelved"])
def test_stopped_but_domain_on_in_other_states_of_rest(host: RecordedHost, vm_state: str) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state=vm_state, power_state=4)

    assert host.findings() == [
        f"stopped-but-domain-on of vm-plain: instance says vm_state = {vm_state};"
        " domain says state = running (unpaused)"
    ]


def test_a_suspended_server_is_off(host: RecordedHost) -> None:
    name = host.domain("vm-suspended")
    assert host.last("libvirt", f"virsh domstate --reason {name}").value == {
        "state": 5,
        "reason": 5,
    }

    assert host.findings() == []


def test_stuck_task_state(host: RecordedHost) -> None:
    uuid = host.uuid("vm-paused")
    host.row("instances", uuid, task_state="powering-off", updated_at="2026-11-20 00:00:00")

    assert host.findings() == [
        "stuck-task-state of vm-paused: instance says task_state = powering-off,"
        " updated_at = 2026-11-20 00:00:00, after_a_restart_nova_compute = powers it off"
    ]


@pytest.mark.parametrize(("task", "minutes", "stuck"), [
    ("deleting", 9, False),
    ("deleting", 11, True),
    ("image_uploading", 11, False),
    ("image_uploading", 241, True),
])  # fmt: skip
def test_a_task_may_take_its_time(host: RecordedHost, task: str, minutes: int, stuck: bool) -> None:
    from datetime import timedelta

    since = host.bundle.started - timedelta(minutes=minutes)
    row = {"task_state": task, "updated_at": f"{since:%Y-%m-%d %H:%M:%S}"}
    host.row("instances", host.uuid("vm-paused"), **row)

    assert len(host.findings()) == stuck


def test_a_task_whose_begin_can_not_be_read_is_not_judged(host: RecordedHost) -> None:
    row = {"task_state": "deleting", "updated_at": "yesterday"}
    host.row("instances", host.uuid("vm-paused"), **row)

    report = host.report()
    assert report.findings == ()
    assert "when the task began can't be read" in [skip.reason for skip in report.skips]
