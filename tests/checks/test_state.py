"""The state of the guest in nova, and its actual state."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.checks.test_moves import migrated
from tests.conftest import RecordedHost, healthy_report

from hoodsnap.bundle import Answer
from hoodsnap.checks.legal_states import LEGAL, NO_DOMAIN
from hoodsnap.findings.advice import instructions
from hoodsnap.findings.analysis import Report


def _state(host: RecordedHost, name: str, state: int, reason: int) -> None:
    query = f"virsh domstate --reason {host.domain(name)}"
    host.set("libvirt", query, {"state": state, "reason": reason})


def _reasons(report: Report, check: str, guest: str) -> list[str]:
    """Return the reasons for which a check was skipped for a guest."""
    return [
        skip.reason
        for skip in report.skips
        if skip.check.name == check and skip.guest and skip.guest.name == guest
    ]


def test_active_but_domain_off(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 3)

    assert host.findings() == [
        "active-but-domain-off of vm-plain: instance reports vm_state = active;"
        " domain reports state = shut off (crashed)"
    ]
    assert host.headlines() == [
        "vm-plain is active in nova, but its domain is shut off (crashed)",
    ]


def test_active_but_domain_off_if_paused_in_nova(host: RecordedHost) -> None:
    host.end("vm-paused")
    _state(host, "vm-paused", 5, 3)

    assert host.findings() == [
        "active-but-domain-off of vm-paused: instance reports vm_state = paused;"
        " domain reports state = shut off (crashed)"
    ]
    assert host.headlines() == [
        "vm-paused is paused in nova, but its domain is shut off (crashed)",
    ]


@pytest.mark.parametrize(
    ("seconds", "reason", "quiet"), [(20, 1, True), (90, 1, False), (20, 3, False)]
)
def test_a_guest_that_has_just_shut_itself_down_is_not_stopped_yet(
    host: RecordedHost, seconds: int, reason: int, quiet: bool
) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, reason)
    asked = host.last("libvirt", f"virsh domstate --reason {host.domain('vm-plain')}").at
    ended = asked - timedelta(seconds=seconds)
    _logged(host, "vm-plain", f"{ended:%Y-%m-%d %H:%M:%S.000}+0000: shutting down, reason=shutdown")

    assert ("active-but-domain-off" not in "".join(host.findings())) is quiet


def test_stopped_but_domain_on_if_paused_in_nova(host: RecordedHost) -> None:
    _state(host, "vm-paused", 1, 5)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("stopped-but-domain-on", "warning")
    assert host.headlines() == [
        "vm-paused is paused in nova, but its domain is running (unpaused)",
    ]


def test_paused_or_crashed_guest_if_asleep(host: RecordedHost) -> None:
    _state(host, "vm-plain", 7, 0)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("paused-or-crashed-guest", "warning")
    assert host.headlines() == [
        "vm-plain put itself to sleep (pmsuspended (unknown)), and nova will stop it",
    ]


def test_a_guest_whose_process_lives_is_not_off(host: RecordedHost) -> None:
    _state(host, "vm-plain", 5, 3)

    assert "active-but-domain-off" not in "".join(host.findings())


def test_active_but_domain_off_if_only_the_api_answered(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 2)
    host.silence("nova-db", "missing")

    assert host.findings() == [
        "active-but-domain-off of vm-plain: server reports vm_state = active;"
        " domain reports state = shut off (destroyed)"
    ]
    assert host.headlines() == [
        "vm-plain is active in nova, but its domain is shut off (destroyed)",
    ]


def test_a_server_that_is_being_stopped_may_be_off(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 1)
    row = {"task_state": "powering-off", "updated_at": f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"}
    host.row("instances", host.uuid("vm-plain"), **row)

    report = host.report()
    assert report.findings == ()
    assert _reasons(report, "active-but-domain-off", "vm-plain") == [
        "nova is working on the server (task_state is set)"
    ]


def test_a_migrating_server_may_be_off_here(host: RecordedHost) -> None:
    host.end("vm-verify")
    _state(host, "vm-verify", 5, 4)
    uuid, now = host.uuid("vm-verify"), f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("instances", uuid, vm_state="active")
    assert host.findings()[0].startswith("active-but-domain-off of vm-verify")

    host.row("migrations", uuid, status="running", updated_at=now)

    assert host.findings() == []


def test_an_abandoned_migration_is_no_excuse(host: RecordedHost) -> None:
    host.end("vm-verify")
    _state(host, "vm-verify", 5, 4)
    uuid = host.uuid("vm-verify")
    host.row("instances", uuid, vm_state="active")
    host.row("migrations", uuid, status="running", updated_at="2019-01-01 00:00:00")

    assert host.findings()[0].startswith("active-but-domain-off of vm-verify")


def test_migrations_that_were_not_collected_may_be_in_progress(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 3)
    host.drop(lambda answer: ".migrations" not in answer.query)

    assert host.findings() == []


def test_a_guest_that_changed_during_the_capture_is_not_judged(host: RecordedHost) -> None:
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
    assert reason.startswith("the guest changed during the capture (state ")


def test_stopped_but_domain_on(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state="stopped", power_state=4)

    assert host.findings() == [
        "stopped-but-domain-on of vm-plain: instance reports vm_state = stopped,"
        " next_power_sync = forces the guest off without a shutdown;"
        " domain reports state = running (unpaused)"
    ]
    assert host.headlines() == [
        "vm-plain is stopped in nova, but its domain is running (unpaused), and nova will force it off",
    ]


@pytest.mark.parametrize(
    ("vm_state", "sync"),
    [("soft-delete", "only logs a warning"), ("shelved", "nothing"), ("suspended", "nothing")],
)
def test_stopped_but_domain_on_in_other_vm_states(
    host: RecordedHost, vm_state: str, sync: str
) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state=vm_state, power_state=4)

    assert host.findings() == [
        f"stopped-but-domain-on of vm-plain: instance reports vm_state = {vm_state},"
        f" next_power_sync = {sync};"
        " domain reports state = running (unpaused)"
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
        "stuck-task-state of vm-paused: instance reports task_state = powering-off,"
        " updated_at = 2026-11-20 00:00:00, restart_of_nova_compute = powers it off"
    ]
    assert host.headlines() == [
        "vm-paused has been stuck in powering-off since 2026-11-20 00:00 (5 d 18 h)",
    ]
    [finding] = host.report().findings
    steps = [command.text for step in instructions(finding) for command in step.commands]
    cleared = steps.index(f"openstack server set --state active {uuid}")
    assert steps[cleared + 1] == f"openstack server pause {uuid}"


def test_only_a_paused_server_is_paused_again(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, task_state="powering-off", updated_at="2026-11-20 00:00:00")

    [finding] = host.report().findings
    assert not any("pause" in step.prose for step in instructions(finding))


@pytest.mark.parametrize(("task", "minutes", "stuck"), [
    ("restoring", 9, ""),
    ("restoring", 11, "error"),
    ("image_uploading", 11, ""),
    ("image_uploading", 241, "warning"),
    ("image_uploading", 1450, "error"),
])  # fmt: skip
def test_a_task_may_take_its_time(host: RecordedHost, task: str, minutes: int, stuck: str) -> None:
    since = host.bundle.started - timedelta(minutes=minutes)
    row = {"task_state": task, "updated_at": f"{since:%Y-%m-%d %H:%M:%S}"}
    host.row("instances", host.uuid("vm-paused"), **row)

    assert "".join(it.severity.word for it in host.report().findings) == stuck


def test_stuck_task_state_shows_the_request_behind_it(host: RecordedHost) -> None:
    uuid = host.uuid("vm-paused")
    host.row("instances", uuid, task_state="powering-off", updated_at="2026-11-20 00:00:00")
    asked = {"action": "stop", "request_id": "req-7", "user_id": "u7"}
    host.row("instance_actions", uuid, start_time="2026-11-19 23:59:59", **asked)

    [finding] = [one for one in host.findings() if one.startswith("stuck-task-state")]
    assert finding.endswith(
        "; instance reports action = stop, action_at = 2026-11-19 23:59:59, action_by = u7,"
        " request = req-7"
    )


def test_a_shutdown_may_take_the_time_in_nova_conf(host: RecordedHost) -> None:
    since = f"{host.bundle.started - timedelta(minutes=20):%Y-%m-%d %H:%M:%S}"
    host.row("instances", host.uuid("vm-paused"), task_state="powering-off", updated_at=since)
    assert len(host.findings()) == 1

    host.conf("DEFAULT", shutdown_timeout="1800")
    assert host.findings() == []


def test_a_shutdown_may_take_the_time_in_the_image(host: RecordedHost) -> None:
    uuid = host.uuid("vm-paused")
    since = f"{host.bundle.started - timedelta(minutes=20):%Y-%m-%d %H:%M:%S}"
    host.row("instances", uuid, task_state="powering-off", updated_at=since)
    for answer in host.bundle.by_layer["nova-db"]:
        if ".instance_system_metadata" in answer.query and answer.query.startswith("SELECT"):
            row = [uuid, "image_os_shutdown_timeout", "1800", 0]
            value = {**answer.value, "rows": [*answer.value["rows"], row]}
            host.set("nova-db", answer.query, value)

    assert host.findings() == []


def test_resuming_much_memory_may_take_hours(host: RecordedHost) -> None:
    since = f"{host.bundle.started - timedelta(minutes=30):%Y-%m-%d %H:%M:%S}"
    host.row("instances", host.uuid("vm-suspended"), task_state="resuming", updated_at=since)

    assert host.findings() == []


def test_a_task_with_an_unreadable_start_is_not_judged(host: RecordedHost) -> None:
    row = {"task_state": "restoring", "updated_at": "yesterday"}
    host.row("instances", host.uuid("vm-paused"), **row)

    report = host.report()
    assert report.findings == ()
    assert "the start time of the task can't be read" in [skip.reason for skip in report.skips]


def _logged(host: RecordedHost, name: str, *lines: str) -> None:
    """Append lines to the log of a guest's QEMU."""
    query = f"tail -c 65536 /var/log/libvirt/qemu/{host.domain(name)}.log"
    host.set("logs", query, "\n".join([host.last("logs", query).value, *lines]))


def test_the_log_shows_how_a_guest_ended(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 0)  # libvirtd was restarted since, and forgot why
    _logged(host, "vm-plain", "2027-01-01 00:00:00.000+0000: shutting down, reason=crashed")
    kill = "2026-12-31T23:59:59,000000+00:00 oom-kill:constraint=CONSTRAINT_NONE,task_memcg="
    kill += f"/machine.slice/machine-qemu\\x2d1\\x2d{host.domain('vm-plain')}.scope,pid=7"
    kill = kill.replace(host.domain("vm-plain"), host.domain("vm-plain").replace("-", "\\x2d"))
    host.set("logs", "dmesg --time-format iso", kill)

    assert host.findings() == [
        "active-but-domain-off of vm-plain: instance reports vm_state = active;"
        " domain reports state = shut off (unknown); log reports ended = 2027-01-01 00:00:00.000+0000,"
        f" end_reason = crashed; log reports oom_kill = {kill}"
    ]


def test_the_finding_stays_without_the_log(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 3)
    host.silence("logs")

    assert [finding.split(":")[0] for finding in host.findings()] == [
        "active-but-domain-off of vm-plain"
    ]


def test_the_recorded_cloud_is_in_legal_states() -> None:
    for guest in healthy_report().cloud.guests:
        assert guest.server is not None
        assert guest.instance is not None
        legal = LEGAL[guest.instance.vm_state]
        assert guest.server.status == legal.status
        assert legal.power is None or guest.instance.power_state in legal.power
        state = guest.domain.state if guest.domain is not None else NO_DOMAIN
        assert legal.domain is None or state in legal.domain


def test_power_state_stale(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), power_state=4)

    assert host.findings() == [
        "power-state-stale of vm-plain: instance reports power_state = 4 (shut down);"
        " domain reports state = running (unpaused)"
    ]
    assert host.headlines() == [
        "nova's power state of vm-plain is shut down, but its domain is running (unpaused)",
    ]


@pytest.mark.parametrize(("name", "power"), [
    ("vm-stopped", 0),  # it was not found once
    ("vm-plain", None),  # it was never asked
    ("vm-shelved", 1),  # it is on no host
])  # fmt: skip
def test_legal_power_states(host: RecordedHost, name: str, power: int | None) -> None:
    host.row("instances", host.uuid(name), power_state=power)

    assert host.findings() == []


def test_a_power_state_may_be_stale_while_nova_works_on_the_server(host: RecordedHost) -> None:
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    row = {"power_state": 4, "task_state": "powering-on", "updated_at": now}
    host.row("instances", host.uuid("vm-plain"), **row)

    assert host.findings() == []


def test_paused_or_crashed_guest(host: RecordedHost) -> None:
    _state(host, "vm-plain", 3, 1)

    assert host.findings() == [
        "paused-or-crashed-guest of vm-plain: instance reports vm_state = active; domain reports"
        " state = paused (user), cause = it was paused on the host"
    ]
    assert host.headlines() == [
        "vm-plain is active in nova, but its domain is paused (user): it was paused on the host",
    ]


@pytest.mark.parametrize("reason", [4, 6, 7, 9, 10, 14])
def test_paused_or_crashed_guest_for_other_reasons(host: RecordedHost, reason: int) -> None:
    _state(host, "vm-plain", 3, reason)

    assert [f.split(":")[0] for f in host.findings()] == ["paused-or-crashed-guest of vm-plain"]


def test_paused_or_crashed_guest_after_a_panic(host: RecordedHost) -> None:
    _state(host, "vm-plain", 6, 1)

    assert host.findings() == [
        "paused-or-crashed-guest of vm-plain: instance reports vm_state = active;"
        " domain reports state = crashed (panicked)"
    ]
    assert host.headlines() == [
        "vm-plain is active in nova, but its domain is crashed (panicked)",
    ]


def test_paused_or_crashed_guest_with_its_monitor(monitored: RecordedHost) -> None:
    name = monitored.domain("vm-plain")
    query = f'virsh qemu-monitor-command {name} \'{{"execute": "query-status"}}\''
    _state(monitored, "vm-plain", 3, 6)
    monitored.set("qemu", query, {"status": "watchdog", "running": False})

    [finding] = monitored.findings()
    assert finding.endswith("cause = its watchdog fired; monitor reports status = watchdog")
    assert monitored.headlines() == [
        "vm-plain is active in nova, but its domain is paused (watchdog): its watchdog fired",
    ]


@pytest.mark.parametrize("reason", [2, 3, 5, 8, 11, 12, 13])
def test_a_transient_pause_is_no_finding(host: RecordedHost, reason: int) -> None:
    _state(host, "vm-plain", 3, reason)

    assert "paused-or-crashed-guest" not in "".join(host.findings())


def test_a_guest_that_nova_paused_is_no_finding(host: RecordedHost) -> None:
    name = host.domain("vm-paused")
    assert host.last("libvirt", f"virsh domstate --reason {name}").value["state"] == 3

    assert host.findings() == []


def test_a_guest_may_be_paused_during_a_dump(host: RecordedHost) -> None:
    _state(host, "vm-plain", 3, 4)
    host.set("libvirt", f"virsh domjobinfo {host.domain('vm-plain')}", {"type": 1, "operation": 6})

    report = host.report()
    assert report.findings == ()
    assert _reasons(report, "paused-or-crashed-guest", "vm-plain") == [
        "libvirt is running a job on the domain (a migration, a save, a dump)"
    ]


def test_error_but_running(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state="error")

    assert host.findings() == [
        "error-but-running of vm-plain: instance reports vm_state = error;"
        f" domain reports state = running (unpaused); process reports pid = {host.pid('vm-plain')}"
    ]
    assert host.headlines() == [
        "vm-plain is in error in nova, but its domain is running (unpaused)",
    ]


def test_error_but_running_shows_the_fault(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, vm_state="error")
    fault = {"id": 7, "instance_uuid": uuid, "code": 500, "message": "Build failed", "host": "vm"}
    fault |= {"created_at": "2026-11-25 01:02:03", "deleted": 0}

    def failed(answer: Answer) -> Answer:
        if " FROM nova.instance_faults " not in answer.query:
            return answer
        columns = answer.value["columns"]
        value = {"columns": columns, "rows": [[fault[name] for name in columns]]}
        return answer.model_copy(update={"value": value})

    host.bundle = host.bundle.with_answers(tuple(map(failed, host.bundle.answers)))

    assert host.findings() == [
        "error-but-running of vm-plain: instance reports vm_state = error;"
        " instance reports fault_at = 2026-11-25 01:02:03, fault_message = Build failed,"
        " fault_code = 500, fault_host = vm;"
        f" domain reports state = running (unpaused); process reports pid = {host.pid('vm-plain')}"
    ]
    assert host.headlines() == [
        "vm-plain is in error in nova after a fault (Build failed), but its domain is running (unpaused)",
    ]


def test_error_but_running_shows_the_action_that_failed(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, vm_state="error")
    asked = {"action": "resize", "request_id": "req-8", "user_id": "u8", "message": "Error"}
    host.row("instance_actions", uuid, start_time="2026-11-25 18:00:00", **asked)

    [finding] = [one for one in host.findings() if one.startswith("error-but-running")]
    assert (
        "; instance reports action = resize, action_at = 2026-11-25 18:00:00, action_by = u8,"
        " request = req-8; domain reports"
    ) in finding


def test_paused_or_crashed_guest_shows_qemus_last_error(host: RecordedHost) -> None:
    _state(host, "vm-plain", 3, 6)
    _logged(host, "vm-plain", "2026-11-25T18:00:00Z qemu-system-x86_64: virtio: bogus descriptor")

    [finding] = host.findings()
    assert finding.endswith("; log reports complaint = virtio: bogus descriptor")


def test_error_but_running_shows_nova_computes_log(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, vm_state="error")
    [query] = {a.query for a in host.bundle.answers if a.query.endswith("/nova-compute.log")}
    line = f"2026-11-25 13:15:18.707 ERROR [instance: {uuid}] Failed to plug its ports"
    host.set("logs", query, line)

    [finding] = host.findings()
    assert finding.endswith(f"; log reports trouble = {line}")
    assert host.headlines() == [
        "vm-plain is in error in nova, but its domain is running (unpaused)",
    ]


def test_a_migrating_server_in_error_may_run_here(host: RecordedHost) -> None:
    uuid, now = host.uuid("vm-verify"), f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("instances", uuid, vm_state="error")
    host.row("migrations", uuid, status="running", updated_at=now)

    assert host.findings() == []


def test_stuck_task_state_if_its_migration_has_ended(host: RecordedHost) -> None:
    at = f"{host.bundle.started - timedelta(minutes=30):%Y-%m-%d %H:%M:%S}"
    migrated(host, "vm-plain", "error")
    host.row("migrations", host.uuid("vm-plain"), updated_at=at)
    host.row("instances", host.uuid("vm-plain"), task_state="migrating", updated_at=at)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("stuck-task-state", "error")
    assert finding.headline.endswith("min), but its live migration has ended (error)")
    assert ("restart_of_nova_compute", "clears the task") in finding.evidence[0].said


@pytest.mark.parametrize(("minutes", "found"), [(30, True), (5, False)])
def test_stuck_task_state_if_its_action_has_ended(
    host: RecordedHost, minutes: int, found: bool
) -> None:
    uuid = host.uuid("vm-suspended")
    ended = host.bundle.started - timedelta(minutes=minutes)
    at = f"{ended - timedelta(seconds=9):%Y-%m-%d %H:%M:%S}"
    instance = host.guest("vm-suspended").instance
    assert instance is not None
    last = instance.actions[-1]
    for answer in host.bundle.asked("nova-db", "SELECT id, action_id"):
        if " FROM nova.instance_actions_events " in answer.query:
            columns = answer.value["columns"]
            rows = [dict(zip(columns, row, strict=True)) for row in answer.value["rows"]]
            for row in rows:
                if row["action_id"] == last.id:
                    row["finish_time"] = f"{ended:%Y-%m-%d %H:%M:%S}"
            cells = [[row[name] for name in columns] for row in rows]
            host.set("nova-db", answer.query, {"columns": columns, "rows": cells})
    host.row("instances", uuid, task_state="suspending", updated_at=at)

    headlines = [one for one in host.headlines() if "stuck in suspending" in one]
    assert bool(headlines) == found
    if found:
        assert headlines[0].endswith(", but its suspend has ended")


def test_an_unknown_time_for_the_shutdown_is_not_a_short_one(host: RecordedHost) -> None:
    """The image may allow the guest half an hour, and only the database tells."""
    since = f"{host.bundle.started - timedelta(minutes=15):%Y-%m-%dT%H:%M:%SZ}"
    uuid = host.uuid("vm-plain")
    host.server(uuid, **{"OS-EXT-STS:task_state": "powering-off", "updated": since})
    host.silence("nova-db")

    report = host.report()
    assert "stuck-task-state" not in {found.check.name for found in report.everything()}
    assert _reasons(report, "stuck-task-state", "vm-plain") == [
        "how long nova waits for the guest's shutdown was not collected"
    ]


def test_a_guest_in_error_that_is_shutting_down_does_not_run(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state="error")
    _state(host, "vm-plain", 4, 0)

    assert host.headlines() == [
        "vm-plain is in error in nova, and its domain is in shutdown (unknown);"
        " its disk and ports are there"
    ]
    [finding] = host.report().findings
    commands = [command for step in instructions(finding) for command in step.commands]
    assert commands
    assert not [command.text for command in commands if command.changes]


def test_active_but_domain_off_names_qemus_error_at_its_start(host: RecordedHost) -> None:
    host.end("vm-plain")
    _state(host, "vm-plain", 5, 6)
    said = "-netdev {[withheld]}: could not configure /dev/net/tun: Operation not permitted"
    _logged(host, "vm-plain", f"2026-11-25T18:35:00Z qemu-system-x86_64: {said}")

    assert host.headlines() == [
        "vm-plain is active in nova, but its domain is shut off (failed): QEMU did not start"
        " (could not configure /dev/net/tun: Operation not permitted)"
    ]


def test_paused_or_crashed_guest_explains_the_power_state(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state="error", power_state=1)
    _state(host, "vm-plain", 3, 1)

    [finding] = host.findings()
    assert finding.startswith("paused-or-crashed-guest of vm-plain")
    assert [line.partition(":")[0] for line in host.folded()] == [
        "paused-or-crashed-guest ← power-state-stale of vm-plain"
    ]
