"""Guests that are off in states that nova's power sync ignores, and QEMUs that do not end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.checks.test_error import changes, fail, fault_in_api, switch_off
from tests.checks.test_moves import state as set_state
from tests.conftest import RecordedHost

from hoodsnap.findings.advice import instructions

CRASHED, BY_ITSELF = 3, 1


@pytest.mark.parametrize(("reason", "severity"), [(CRASHED, "error"), (BY_ITSELF, "warning")])
def test_rescued_or_resized_but_off(host: RecordedHost, reason: int, severity: str) -> None:
    switch_off(host, "vm-rescued", reason)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("rescued-or-resized-but-off", severity)
    assert finding.headline.startswith("vm-rescued is rescued in nova, but its domain is shut off")
    assert changes(host) == [f"openstack server unrescue {host.uuid('vm-rescued')}"]


def test_rescued_or_resized_but_off_if_resized(host: RecordedHost) -> None:
    switch_off(host, "vm-verify", CRASHED)

    assert host.headlines() == [
        "vm-verify is waiting for its resize's confirmation in nova, but its domain is shut off"
        " (crashed)"
    ]
    uuid = host.uuid("vm-verify")
    assert changes(host) == [
        f"openstack server resize confirm {uuid}",
        f"openstack server start {uuid}",
    ]


def test_a_server_that_was_stopped_before_its_resize_stays_off(host: RecordedHost) -> None:
    switch_off(host, "vm-verify", CRASHED)
    _before_the_resize(host, "stopped")

    assert host.findings() == []


def _before_the_resize(host: RecordedHost, state: str) -> None:
    uuid = host.uuid("vm-verify")
    for answer in host.bundle.asked("nova-db", "SELECT"):
        if ".instance_system_metadata" not in answer.query or answer.error:
            continue
        columns = answer.value["columns"]
        rows = [
            [
                state if name == "value" and "old_vm_state" in row else cell
                for name, cell in zip(columns, row, strict=True)
            ]
            if uuid in row
            else row
            for row in answer.value["rows"]
        ]
        host.set("nova-db", answer.query, {"columns": columns, "rows": rows})


def test_qemu_does_not_end(host: RecordedHost) -> None:
    set_state(host, "vm-plain", 4, 0)
    pid = host.pid("vm-plain")
    host.edit("kernel", f"/proc/{pid}/stat", ") S ", ") D ")

    assert host.headlines() == [
        f"vm-plain's domain is in shutdown (unknown), but its QEMU (PID {pid}) does not end and"
        " waits in the kernel (state D)"
    ]


def test_qemu_does_not_end_if_nova_gave_up(host: RecordedHost) -> None:
    set_state(host, "vm-plain", 4, 0)
    fail(host, "vm-plain")
    fault_in_api(host, "vm-plain", "Failed to terminate process 17 with SIGKILL")

    [finding] = host.report().findings
    assert finding.check.name == "qemu-does-not-end"


def test_a_guest_that_shuts_down_takes_moments(host: RecordedHost) -> None:
    set_state(host, "vm-plain", 4, 0)

    assert "qemu-does-not-end" not in "".join(host.findings())


@pytest.mark.parametrize(("seconds", "found"), [(20, False), (90, True)])
def test_a_qemu_whose_threads_wait_does_not_end_either(
    host: RecordedHost, seconds: int, found: bool
) -> None:
    """The process is in state S, because only one of its threads waits in the kernel."""
    set_state(host, "vm-plain", 4, 0)
    asked = host.last("libvirt", f"virsh domstate --reason {host.domain('vm-plain')}").at
    told = asked - timedelta(seconds=seconds)
    query = f"tail -c 65536 /var/log/libvirt/qemu/{host.domain('vm-plain')}.log"
    line = f"{told:%Y-%m-%dT%H:%M:%S.%fZ} qemu-system-x86_64: terminating on signal 15 from pid 9 (libvirtd)"
    host.set("logs", query, f"{host.last('logs', query).value}\n{line}\n")

    said = f"vm-plain's domain is in shutdown (unknown), but its QEMU (PID {host.pid('vm-plain')}) does not end"
    assert (said in host.headlines()) is found


def test_a_server_in_error_whose_guest_shuts_down(host: RecordedHost) -> None:
    """Its QEMU is alive, and nothing tells that it was ended: the error is reported, not the QEMU."""
    set_state(host, "vm-plain", 4, 0)
    fail(host, "vm-plain")

    [finding] = host.report().findings
    assert finding.check.name == "server-in-error"
    assert finding.headline.startswith("vm-plain is in error in nova")
    assert "its domain is in shutdown (unknown)" in finding.headline
    assert not any(command.changes for step in instructions(finding) for command in step.commands)


def test_qemu_crashed(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    status = host.last("kernel", f"/proc/{pid}/status").value
    assert "CoreDumping:\t0" in status
    host.set("kernel", f"/proc/{pid}/status", status.replace("CoreDumping:\t0", "CoreDumping:\t1"))

    assert host.headlines() == [
        f"vm-plain's QEMU (PID {pid}) crashed, and its core dump is being written, but its domain "
        "is running (unpaused)"
    ]
