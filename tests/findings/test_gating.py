"""Commands that must not be typed yet."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tests.checks.test_moves import believe, second
from tests.conftest import RecordedHost

from hoodsnap.checks.dangers import DANGERS
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding
from hoodsnap.findings.gating import NotYet, closed_by


def _guest_of(report: Report, name: str) -> dict[str, NotYet]:
    [guest] = [guest for guest in report.cloud.guests if guest.name == name]
    return {item.danger.command: item for item in report.gates.of(guest)}


def _by(findings: Iterable[Finding]) -> set[str]:
    return {item.danger.command for item in closed_by(findings)}


def _share_a_disk(host: RecordedHost, writer: str, owner: str) -> None:
    """Let one guest's process hold the disk file of another, too."""
    held = host.last("kernel", f"ls -lL /proc/{host.pid(owner)}/fd").value
    disk = next(file for file in held if str(file["path"]).endswith(f"{host.uuid(owner)}/disk"))
    query = f"ls -lL /proc/{host.pid(writer)}/fd"
    host.set("kernel", query, [*host.last("kernel", query).value, disk])


def test_no_command_is_forbidden_for_a_healthy_guest(host: RecordedHost) -> None:
    closed = _guest_of(host.report(), "vm-plain").values()

    assert [item for item in closed if item.forbidden_by] == []


def test_a_finding_closes_the_gates_of_its_guest_alone(host: RecordedHost) -> None:
    _share_a_disk(host, "vm-plain", "vm-duo")
    report = host.report()

    assert {finding.check.name for finding in report.findings} == {"disk-shared-by-two-qemu"}
    for name in ("vm-plain", "vm-duo"):
        closed = _guest_of(report, name)
        assert closed["openstack server reboot --hard UUID"].forbidden_by == (
            "disk-shared-by-two-qemu",
        )
    for item in _guest_of(report, "vm-snap").values():
        assert item.forbidden_by == ()


def test_an_undecided_gate_is_not_open(host: RecordedHost) -> None:
    host.silence("kernel", "denied")
    closed = _guest_of(host.report(), "vm-plain")

    reboot = closed["openstack server reboot --hard UUID"]
    assert reboot.forbidden_by == ()
    assert "disk-shared-by-two-qemu" in reboot.undecided


def test_a_note_closes_no_gate(host: RecordedHost) -> None:
    uuid = host.uuid("vm-stopped")
    lines = host.last("libvirt", "virsh list --all").value
    host.set("libvirt", "virsh list --all", [line for line in lines if line["uuid"] != uuid])
    host.drop(lambda answer: not (answer.layer == "libvirt" and answer.subject == uuid))

    [finding] = host.report().findings

    assert finding.severity.word == "note"
    assert _by([finding]) == set()


def test_a_finding_about_a_host_closes_the_gates_of_its_guests(host: RecordedHost) -> None:
    answer = host.last("kernel", "/proc/sys/kernel/random/boot_id")
    host.add(answer.model_copy(update={"value": "00000000-0000-0000-0000-000000000000\n"}))
    report = host.report()

    assert {finding.check.name for finding in report.findings} == {"capture-untrustworthy"}
    assert _guest_of(report, "vm-plain")["nova-manage placement audit --delete"].forbidden_by == (
        "capture-untrustworthy",
    )


@pytest.mark.parametrize("danger", DANGERS, ids=lambda danger: danger.command)
def test_each_danger_says_why_and_when(danger: object) -> None:
    [item] = [each for each in DANGERS if each is danger]

    assert item.why
    assert item.gates or item.only, "it is forbidden by nothing"
    assert len(set(item.gates)) == len(item.gates)


def test_each_command_is_listed_once() -> None:
    commands = [danger.command for danger in DANGERS]

    assert len(commands) == len(set(commands))


def test_a_domain_on_another_host_forbids_commands_where_nova_has_the_server(
    host: RecordedHost,
) -> None:
    """A hard reboot runs on the host where nova has the server, not where the domain runs."""
    believe(host, "vm-plain")
    second(host, "vm-plain", None)
    report = host.report()

    [there] = [g for g in report.cloud.guests if g.name == "vm-plain" and g.is_here]
    assert there.host is not None and there.host.name == "other"
    closed = {item.danger.command: item for item in report.gates.of(there)}
    assert "domain-running-on-wrong-host" in (
        closed["openstack server reboot --hard UUID"].forbidden_by
    )
