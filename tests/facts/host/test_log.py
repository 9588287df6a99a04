"""Log lines about a guest, from the ends of the logs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.log import Log, last_complaint

UUID = "5ff9ffcb-a23f-4a79-8e0a-1f1f2d0e8b11"

FIRST = f"""\
2026-11-25 13:15:10.466+0000: starting up libvirt version: 9.0.0, hostname: vm
-uuid {UUID}
2026-11-25T13:15:18.707135Z qemu-system-x86_64: terminating on signal 15 from pid 1 (libvirtd)
2026-11-25 13:15:20.309+0000: shutting down, reason=destroyed
"""
AGAIN = f"""\
2026-11-25 13:16:00.000+0000: starting up libvirt version: 9.0.0, hostname: vm
-uuid {UUID.upper()}
"""


def _answer(query: str, value: object, subject: str | None = None) -> Answer:
    at = datetime(2026, 11, 25, 13, 20, tzinfo=UTC)
    return Answer(
        layer="logs", host="vm", query=query, subject=subject, at=at, took=0.1, value=value
    )


def _log(text: object, *more: Answer) -> Log:
    tail = "tail -c 65536 /var/log/libvirt/qemu/instance-00000006.log"
    return Log.read_all([_answer(tail, text, UUID), *more])[UUID]


def _kill(time: str, cgroup: str) -> Answer:
    line = f"{time} oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0"
    line += f",global_oom,task_memcg=/machine.slice/{cgroup},task=qemu-system-x86,pid=7,uid=64055"
    return _answer("dmesg --time-format iso", line)


def test_only_an_end_after_the_last_start_counts() -> None:
    log = _log(FIRST)
    assert log.started == "2026-11-25 13:15:10.466+0000"
    assert (log.ended, log.end_reason) == ("2026-11-25 13:15:20.309+0000", "destroyed")

    log = _log(FIRST + AGAIN)
    assert log.started == "2026-11-25 13:16:00.000+0000"
    assert (log.ended, log.end_reason) == (None, None)


def test_an_end_has_no_reason_before_libvirt_3_1() -> None:
    log = _log("2016-01-01 00:00:00.000+0000: shutting down")

    assert (log.started, log.ended) == (None, "2016-01-01 00:00:00.000+0000")
    assert log.end_reason is None


@pytest.mark.parametrize(
    "cgroup",
    [
        "machine-qemu\\x2d6\\x2dinstance\\x2d00000006.scope/libvirt/emulator",
        "qemu-6-instance-00000006.libvirt-qemu/emulator",
    ],
)
def test_the_kernel_names_the_domain_that_it_killed(cgroup: str) -> None:
    kill = _kill("2026-11-25T13:15:19,500000+00:00", cgroup)

    log = _log(FIRST, kill)
    assert log.oom_kill == kill.value
    assert log.where("oom_kill") == (kill, "oom-kill")
    assert _log(FIRST + AGAIN, kill).oom_kill is None, "the kernel killed it before its last start"


def test_the_kill_of_another_domain_does_not_count() -> None:
    kill = _kill(
        "2026-11-25T13:15:19,5+00:00", "machine-qemu\\x2d7\\x2dinstance\\x2d00000007.scope"
    )

    assert _log(FIRST, kill).oom_kill is None


def test_the_log_of_another_guest_with_the_same_domain_name_does_not_count() -> None:
    other = "0a9d8b7c-1111-4222-8333-444455556666"

    assert _log(FIRST.replace(UUID, other) + AGAIN).started is not None
    with pytest.raises(UnheardError, match="belongs to another guest"):
        _log(FIRST + AGAIN.replace(UUID.upper(), other)).ended  # noqa: B018


def test_nova_computes_last_error_is_the_trouble() -> None:
    lines = [
        f"2026-11-25 13:15:18.707 ERROR [instance: {UUID}] it failed",
        f"2026-11-25 13:15:19.707 ERROR [instance: {UUID}] it failed again",
        f"2026-11-25 13:15:20.707 INFO [instance: {UUID}] VM Stopped (Lifecycle Event)",
    ]
    answer = _answer("tail -c 4194304 /var/log/nova/nova-compute.log", "\n".join(lines))

    assert _log(FIRST, answer).trouble == lines[1]
    assert _log(FIRST).trouble is None


def test_an_unreadable_log_is_unheard() -> None:
    with pytest.raises(UnheardError):
        _log(["a", "list"]).started  # noqa: B018
    assert _log(FIRST, _answer("dmesg --time-format iso", 7)).oom_kill is None
    assert _log(FIRST, _answer("tail -c 4194304 /var/log/nova/nova-compute.log", {})).nova == ()


def test_novas_lines_belong_to_the_instance_that_they_name(host: RecordedHost) -> None:
    guest = host.guest("vm-suspended")

    assert guest.log is not None
    assert any("VM Stopped (Lifecycle Event)" in line for line in guest.log.nova)
    assert all(f"[instance: {guest.uuid}]" in line for line in guest.log.nova)


def test_the_recorded_logs_show_each_guests_start_and_end(host: RecordedHost) -> None:
    for name in ("vm-plain", "vm-verify"):
        guest = host.guest(name)
        assert guest.log is not None
        assert guest.log.started is not None
        assert guest.log.ended is None
    for name, reason in (("vm-stopped", "destroyed"), ("vm-suspended", "saved")):
        log = host.guest(name).log
        assert log is not None
        assert log.end_reason == reason


def test_logs_that_were_not_listed_are_unheard(host: RecordedHost) -> None:
    listed = next(a for a in host.bundle.answers if a.layer == "logs" and a.query.startswith("ls "))
    said = listed.model_dump(exclude={"value", "error"})
    failed = Answer(**said, error=Failure(kind="denied", message="Permission denied"))
    host.bundle = host.bundle.with_answers(
        failed if answer is listed else answer for answer in host.bundle.answers
    )

    [guest] = [guest for guest in host.report().cloud.guests if guest.name == "vm-plain"]
    assert guest.unheard["logs"] == "logs: Permission denied"


def test_qemus_last_error_since_its_start_is_its_complaint() -> None:
    said = (
        "2026-11-25T13:16:01.000000Z qemu-system-x86_64: warning: CPU does not support it\n"
        "2026-11-25T13:16:02.000000Z qemu-system-x86_64: Could not open 'disk': No such file\n"
        "qemu-system-x86_64: terminating on signal 15 from pid 1 (libvirtd)\n"
    )

    assert _log(FIRST).complaint is None
    assert _log(FIRST + said + AGAIN).complaint is None, "it was an earlier process"
    assert _log(FIRST + AGAIN + said).complaint == "Could not open 'disk': No such file"
    assert _log(FIRST + AGAIN + said).where("complaint")[1] == "qemu-system"


@pytest.mark.parametrize(
    "option",
    [
        "-drive file=/disk,id=drive-virtio-disk0",
        "-blockdev {[withheld]}",
        "-netdev tap,fd=30,id=hostnet0",
    ],
)
def test_a_complaint_about_an_option_is_a_complaint(option: str) -> None:
    said = f"2026-11-25T13:16:02.000000Z qemu-system-x86_64: {option}: Failed to get lock\n"
    assert _log(AGAIN + said).complaint == "Failed to get lock"


@pytest.mark.parametrize(
    "said",
    ["char device redirected to /dev/pts/1 (label charserial0)", "warning: CPU does not have it"],
)
def test_what_qemu_writes_at_every_start_is_no_complaint(said: str) -> None:
    line = f"2026-11-25T13:16:02.000000Z qemu-kvm: -chardev pty,id=charserial0: {said}\n"
    assert _log(AGAIN + line).complaint is None


def test_the_last_complaint_may_be_in_the_words_of_libvirt() -> None:
    words = "internal error: qemu unexpectedly closed the monitor: 2026-11-25T13:16:02.000000Z"
    assert last_complaint([f"{words} qemu-kvm: -device vfio: no group"]) == "no group"
