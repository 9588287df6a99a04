"""QEMU's monitor: does it answer, and does it agree with libvirt?"""

from __future__ import annotations

import json
import re

import pytest
from tests.checks.test_state import _state
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer, Failure


def _status(host: RecordedHost, name: str, status: str) -> None:
    query = f'virsh qemu-monitor-command {host.domain(name)} \'{{"execute": "query-status"}}\''
    said = {"status": status, "running": status == "running"}
    host.set("qemu", query, {**host.last("qemu", query).value, **said})


def _unanswered(host: RecordedHost, query: str, message: str = "no answer within 10 s") -> int:
    """Leave all queries of this kind unanswered; return their number."""
    failed = 0

    def fail(answer: Answer) -> Answer:
        nonlocal failed
        if not re.search(query, answer.query):
            return answer
        failed += 1
        kind = "timeout" if "answer" in message else "failed"
        said = answer.model_dump(exclude={"value", "error"})
        return Answer(**said, error=Failure(kind=kind, message=message))

    host.bundle = host.bundle.with_answers(tuple(map(fail, host.bundle.answers)))
    return failed


def _kernel_state(host: RecordedHost, name: str, state: str) -> None:
    host.edit("kernel", f"/proc/{host.pid(name)}/stat", ") S ", f") {state} ")


def _words(host: RecordedHost, name: str) -> str:
    """Return libvirt's recorded state; its reason depends on how the domain was last started."""
    (domain,) = (guest.domain for guest in host.report().cloud.guests if guest.name == name)
    assert domain is not None
    assert domain.state == 1
    return domain.state_words


def test_libvirt_vs_qmp_status(monitored: RecordedHost) -> None:
    words = _words(monitored, "vm-plain")
    _status(monitored, "vm-plain", "paused")

    assert monitored.findings() == [
        f"libvirt-vs-qmp-status of vm-plain: domain reports state = {words};"
        " monitor reports status = paused"
    ]
    assert monitored.headlines() == [
        "vm-plain is running (unpaused) in libvirt, but paused in QEMU",
    ]


@pytest.mark.parametrize(("state", "reason", "status"), [
    (1, 5, "running"),
    (3, 1, "paused"),
    (3, 3, "save-vm"),
    (3, 6, "watchdog"),
    (4, 1, "shutdown"),
    (7, 0, "suspended"),
])  # fmt: skip
def test_matching_states_are_no_finding(
    monitored: RecordedHost, state: int, reason: int, status: str
) -> None:
    _state(monitored, "vm-plain", state, reason)
    _status(monitored, "vm-plain", status)

    assert "libvirt-vs-qmp-status" not in "".join(monitored.findings())


def test_an_io_error_has_a_check_of_its_own(monitored: RecordedHost) -> None:
    _status(monitored, "vm-plain", "io-error")

    assert [finding.split()[0] for finding in monitored.findings()] == ["io-error-paused"]


def test_states_may_differ_during_a_migration(monitored: RecordedHost) -> None:
    _status(monitored, "vm-verify", "postmigrate")
    assert "libvirt-vs-qmp-status of vm-verify" in "".join(monitored.findings())
    now = f"{monitored.bundle.started:%Y-%m-%d %H:%M:%S}"
    monitored.row("migrations", monitored.uuid("vm-verify"), status="running", updated_at=now)

    assert "libvirt-vs-qmp-status" not in "".join(monitored.findings())


def test_qemu_monitor_dead(host: RecordedHost) -> None:
    _kernel_state(host, "vm-plain", "T")

    assert host.findings() == [
        f"qemu-monitor-dead of vm-plain: process reports pid = {host.pid('vm-plain')}, state = T;"
        f" domain reports state = {_words(host, 'vm-plain')}"
    ]
    assert host.headlines() == [
        f"vm-plain's QEMU (PID {host.pid('vm-plain')}) is stopped (state T), but its domain is running (unpaused)",
    ]


def test_qemu_monitor_dead_by_a_debugger(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    _kernel_state(host, "vm-plain", "t")
    host.edit("kernel", f"/proc/{pid}/status", "TracerPid:\t0", "TracerPid:\t77")
    raw = host.last("kernel", f"/proc/{pid}/stat").model_dump(exclude={"value", "error", "query"})
    host.add(Answer(**raw, query="cat /proc/77/comm", value="gdb\n"))

    assert host.headlines() == [
        f"vm-plain's QEMU (PID {pid}) is stopped by gdb (PID 77, state t), but its domain is "
        "running (unpaused)",
    ]
    [finding] = host.report().findings
    assert (finding.names["TRACER"], finding.names["STOPPED"]) == ("77", "")


@pytest.mark.parametrize(("state", "severity"), [("D", "error"), ("S", "warning")])
def test_qemu_monitor_dead_if_libvirts_query_timed_out(
    host: RecordedHost, state: str, severity: str
) -> None:
    name = host.domain("vm-plain")
    if state != "S":
        _kernel_state(host, "vm-plain", state)
    assert _unanswered(host, f"virsh blockjob {name} vda") >= 1

    [finding] = [f for f in host.report().findings if f.check.name == "qemu-monitor-dead"]
    assert finding.severity.word == severity
    assert (
        f"qemu-monitor-dead of vm-plain: process reports pid = {host.pid('vm-plain')}, state = {state};"
        " libvirt reports error = no answer within 10 s"
    ) in host.findings()


def test_a_migrating_guest_may_not_answer(host: RecordedHost) -> None:
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    assert _unanswered(host, f"virsh blockjob {host.domain('vm-verify')} vda")
    assert [f.split(":")[0] for f in host.findings()] == ["qemu-monitor-dead of vm-verify"]

    host.row("migrations", host.uuid("vm-verify"), status="running", updated_at=now)
    assert "qemu-monitor-dead" not in "".join(host.findings())


def test_qemu_monitor_dead_if_stopped_during_a_task(host: RecordedHost) -> None:
    _kernel_state(host, "vm-plain", "T")
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("instances", host.uuid("vm-plain"), task_state="rebooting", updated_at=now)

    assert [f.split(":")[0] for f in host.findings()] == ["qemu-monitor-dead of vm-plain"]
    assert host.headlines() == [
        f"vm-plain's QEMU (PID {host.pid('vm-plain')}) is stopped (state T), but its domain is running (unpaused)",
    ]


def test_qemu_monitor_dead_by_a_held_lock(host: RecordedHost) -> None:
    lock = "Timed out during operation: cannot acquire state change lock (held by monitor=x)"
    assert _unanswered(host, f"virsh blockjob {host.domain('vm-plain')} vda", lock)

    assert [f.split(":")[0] for f in host.findings()] == ["qemu-monitor-dead of vm-plain"]
    assert host.headlines() == [
        f"vm-plain's QEMU (PID {host.pid('vm-plain')}) did not answer libvirt: Timed out during operation: cannot acquire state change loc…",
    ]


def test_a_silent_libvirt_is_not_a_silent_qemu(host: RecordedHost) -> None:
    _unanswered(host, "^virsh ")

    assert host.findings() == []


def test_qemu_monitor_dead_if_its_monitor_timed_out(monitored: RecordedHost) -> None:
    name = monitored.domain("vm-plain")
    assert _unanswered(monitored, f"qemu-monitor-command {name} .*query-status")

    assert [f.split(":")[0] for f in monitored.findings()] == ["qemu-monitor-dead of vm-plain"]
    assert monitored.headlines() == [
        "vm-plain's QEMU (PID 11660) did not answer on its monitor: no answer within 10 s",
    ]


def test_no_finding_if_every_monitor_timed_out(monitored: RecordedHost) -> None:
    assert _unanswered(monitored, "qemu-monitor-command") > 11

    assert monitored.findings() == []


def test_libvirt_that_froze_is_not_blamed_on_the_guest_that_it_was_asked_about(
    host: RecordedHost,
) -> None:
    """Of the second guest nothing was asked, and libvirt answered nobody any more."""
    answers = list(host.bundle.answers)
    froze = next(
        number for number, answer in enumerate(answers) if answer.query.startswith("virsh blockjob")
    )

    def silent(answer: Answer, message: str) -> Answer:
        asked = answer.model_dump(exclude={"value", "error"})
        return Answer(**asked, error=Failure(kind="timeout", message=message))

    unasked = "not asked: libvirt did not answer an earlier question about the domain"
    for number, answer in enumerate(answers[froze:], froze):
        if answer.layer == "libvirt":
            was_asked = number == froze or answer.query == "virsh list --all"
            answers[number] = silent(answer, "no answer within 5 s" if was_asked else unasked)
    host.bundle = host.bundle.with_answers(tuple(answers))

    assert "qemu-monitor-dead" not in "".join(host.findings())
    assert "libvirt" in {one.layer.id for one in host.report().uncollected}


def test_a_guest_that_was_not_asked_is_not_blamed(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    message = "not asked: libvirt left 5 questions about domains unanswered"
    assert _unanswered(host, rf"domjobinfo {name}|blockjob {name}", message)

    assert "qemu-monitor-dead" not in "".join(host.findings())


def _disks(host: RecordedHost, name: str, **changes: object) -> str:
    """Change what QEMU reports of the guest's first disk; return the path that it had."""
    query = f'virsh qemu-monitor-command {host.domain(name)} \'{{"execute": "query-block"}}\''
    first, *rest = host.last("qemu", query).value
    host.set("qemu", query, [first | {"inserted": first["inserted"] | changes}, *rest])
    path = first["inserted"]["file"]
    assert isinstance(path, str)
    return path


def _of_disks(host: RecordedHost) -> list[str]:
    found = [it for it in host.report().findings if it.check.name == "qemu-has-another-disk"]
    return [f"{it.severity.word}: {it.headline}" for it in found]


def test_qemu_has_another_disk(monitored: RecordedHost) -> None:
    _disks(monitored, "vm-plain", file="/srv/copy/disk")

    [line] = _of_disks(monitored)
    assert line.startswith("error: vm-plain's vda is ")
    assert line.endswith(" in libvirt, but QEMU has …/copy/disk open")


def test_a_disk_of_another_format_in_qemu_is_found(monitored: RecordedHost) -> None:
    _disks(monitored, "vm-plain", drv="raw")

    assert _of_disks(monitored) == ["error: vm-plain's vda is qcow2 in libvirt, but raw in QEMU"]


def test_a_disk_that_qemu_may_not_write_is_found(monitored: RecordedHost) -> None:
    _disks(monitored, "vm-plain", ro=True)

    assert _of_disks(monitored) == [
        "warning: vm-plain's vda is writable in libvirt, but read-only in QEMU"
    ]


@pytest.mark.parametrize(
    "changes",
    [{"file": 'json:{"driver":"qcow2","file":{"filename":"/x"}}'}, {"drv": "throttle"}],
)
def test_another_way_to_name_a_disk_is_not_another_disk(
    monitored: RecordedHost, changes: dict[str, object]
) -> None:
    _disks(monitored, "vm-plain", **changes)

    assert _of_disks(monitored) == []


def _reported(host: RecordedHost, command: str) -> str:
    return f'virsh qemu-monitor-command {host.domain("vm-plain")} \'{{"execute": "{command}"}}\''


def test_monitor_differs(monitored: RecordedHost) -> None:
    monitored.set("qemu", _reported(monitored, "query-balloon"), {"actual": 33554432})

    assert monitored.headlines() == [
        "vm-plain's memory (KiB, without the balloon's) is 32768 in QEMU, but 65536 in libvirt"
    ]
    assert monitored.findings() == [
        "monitor-differs of vm-plain: monitor reports balloon_kib = 32768;"
        " domain reports size_told = 65536"
    ]


@pytest.mark.parametrize(
    ("command", "old", "new", "headline"),
    [
        ("query-vnc", '"service": "59', '"service": "58', "VNC console is 127.0.0.1:58"),
        ("query-vnc", '"host": "127.0.0.1"', '"host": "192.0.2.1"', "is 192.0.2.1:59"),
        ("query-cpus-fast", '"thread-id": ', '"thread-id": 1', "vCPUs are threads 1"),
    ],
)
def test_what_the_monitor_reports_otherwise_is_found(
    monitored: RecordedHost, command: str, old: str, new: str, headline: str
) -> None:
    query = _reported(monitored, command)
    value = json.dumps(monitored.last("qemu", query).value)
    monitored.set("qemu", query, json.loads(value.replace(old, new, 1)))

    [finding] = monitored.report().findings
    assert finding.check.name == "monitor-differs"
    assert headline in finding.headline


def test_vcpus_that_do_not_run_are_found(monitored: RecordedHost) -> None:
    query = _reported(monitored, "query-status")
    monitored.set("qemu", query, {**monitored.last("qemu", query).value, "running": False})

    assert monitored.headlines() == [
        "vm-plain is running (unpaused) in libvirt, but its vCPUs do not run in QEMU"
    ]
