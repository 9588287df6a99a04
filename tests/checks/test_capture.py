"""Bundles that contradict themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.conftest import RecordedHost, healthy_report

APPLIANCE = "0f2e4f6a-1111-4222-8333-9d8c7b6a5040"


def _running() -> int:
    return sum(guest.process is not None for guest in healthy_report().cloud.guests)


def test_capture_untrustworthy_when_no_process_is_visible(host: RecordedHost) -> None:
    host.set("kernel", "ls -l /proc/*/exe", [])
    host.drop(lambda answer: not (answer.layer == "kernel" and (answer.subject or "").isdigit()))

    assert host.findings() == [
        f"capture-untrustworthy: kernel reports guests = 0; libvirt reports guests = {_running()}"
    ]
    assert any("another PID namespace" in skip.reason for skip in host.report().skips)
    assert host.headlines() == [
        "On vm, libvirt lists 12 running domains, but the kernel shows QEMU of 0 guests",
    ]


@pytest.mark.parametrize("kind", ["denied", "timeout"])
def test_processes_whose_command_lines_were_not_read_contradict_nothing(
    host: RecordedHost, kind: str
) -> None:
    """They may be the QEMUs of libvirt's running domains: the answer is missing, not wrong."""
    for row in host.last("kernel", "ls -l /proc/*/exe").value:
        host.fail("kernel", f"/proc/{row['pid']}/cmdline", kind, "no answer")

    assert host.findings() == []
    assert [skip for skip in host.report().skips if not skip.legal] != []


def test_capture_untrustworthy(host: RecordedHost) -> None:
    host.set("libvirt", "virsh list --all", [])

    assert host.findings() == [
        f"capture-untrustworthy: libvirt reports guests = 0; kernel reports guests = {_running()}"
    ]
    assert any("another libvirt" in skip.reason for skip in host.report().skips)
    assert host.headlines() == [
        "On vm, libvirt lists 0 running domains, but the kernel shows QEMU of 12 guests",
    ]


def test_another_clouds_database_proves_nothing(host: RecordedHost) -> None:
    """The database belongs to a cloud that has other servers, or none."""
    running = [it for it in host.last("libvirt", "virsh list --all").value if it["id"] is not None]
    tables = ("FROM nova.instances ", "FROM nova_cell0.instances ")
    for answer in [it for it in host.bundle.answers if it.layer == "nova-db"]:
        if any(table in answer.query for table in tables):
            host.set("nova-db", answer.query, answer.value | {"rows": []})

    assert host.findings() == [
        f"capture-untrustworthy: libvirt reports guests = {len(running)};"
        " nova-db reports known_instances = 0"
    ]
    [finding] = host.report().findings
    [where] = finding.evidence[1].where
    assert where.answer == next(it for it in host.bundle.answers if tables[1] in it.query)
    assert any("the database of another cloud" in skip.reason for skip in host.report().skips)


def _only(host: RecordedHost, name: str) -> None:
    """Leave libvirt one running domain and the kernel no QEMU process."""
    listed = host.last("libvirt", "virsh list --all").value
    uuid = host.uuid(name)
    host.set("libvirt", "virsh list --all", [line for line in listed if line["uuid"] == uuid])
    host.set("kernel", "ls -l /proc/*/exe", [])
    host.drop(lambda answer: not (answer.layer == "kernel" and (answer.subject or "").isdigit()))


def test_in_a_container_one_guest_without_a_process_is_enough(host: RecordedHost) -> None:
    _only(host, "vm-plain")
    assert "domain-without-qemu of vm-plain" in "".join(host.findings())

    spaces = host.last("host", "readlink /proc/self/ns/*").value
    host.set("host", "readlink /proc/self/ns/*", spaces | {"pid": "pid:[4026532281]"})

    found = host.findings()
    assert "domain-without-qemu" not in "".join(found)
    assert "capture-untrustworthy: kernel reports guests = 0; libvirt reports guests = 1" in found


def _only_process(host: RecordedHost, name: str) -> None:
    """Leave libvirt no domain and the kernel one QEMU process."""
    pid = host.pid(name)
    listed = host.last("kernel", "ls -l /proc/*/exe").value
    host.set("libvirt", "virsh list --all", [])
    host.set("kernel", "ls -l /proc/*/exe", [line for line in listed if line["pid"] == pid])
    host.drop(
        lambda answer: (
            answer.layer != "kernel" or answer.subject == str(pid) or not _is_pid(answer.subject)
        )
    )


def _checks(host: RecordedHost) -> set[str]:
    """Return the names of the checks that found something, folded or not."""
    return {finding.check.name for finding in host.report().everything()}


def _is_pid(subject: str | None) -> bool:
    return (subject or "").isdigit()


def _another_uri(host: RecordedHost) -> None:
    host.set("libvirt", "virsh uri", "qemu:///session")


def _another_host(host: RecordedHost) -> None:
    host.set("libvirt", "virsh hostname", "compute7.example.org")


def _session(host: RecordedHost) -> None:
    query = f"/proc/{host.pid('vm-plain')}/cmdline"
    home = "/home/stack/.config/libvirt/qemu/lib/domain-1-"
    host.edit("kernel", query, '"file":"/var/lib/libvirt/qemu/domain-1-', f'"file":"{home}')


def _container(host: RecordedHost) -> None:
    query = f"readlink /proc/{host.pid('vm-plain')}/ns/*"
    spaces = host.last("kernel", query).value
    host.set("kernel", query, spaces | {"pid": "pid:[4026539999]"})


@pytest.mark.parametrize("elsewhere", [_another_uri, _another_host, _session, _container])
def test_one_guest_of_another_libvirt_daemon(
    host: RecordedHost, elsewhere: Callable[[RecordedHost], None]
) -> None:
    _only_process(host, "vm-plain")
    assert "qemu-without-domain" in _checks(host)

    elsewhere(host)

    said = "capture-untrustworthy: libvirt reports guests = 0; kernel reports guests = 1"
    assert said in host.findings()
    assert not {"qemu-without-domain", "server-without-domain"} & _checks(host)


def test_a_libvirt_uri_with_the_fully_qualified_host_name_is_local(host: RecordedHost) -> None:
    _only_process(host, "vm-plain")
    host.set("libvirt", "virsh hostname", "VM.example.org")

    assert "qemu-without-domain" in _checks(host)


def test_a_qemu_process_unknown_to_nova_need_not_be_in_its_libvirt(host: RecordedHost) -> None:
    """A user runs an appliance in a session of their own, on a host without guests."""
    _only_process(host, "vm-plain")
    _session(host)
    query = f"/proc/{host.pid('vm-plain')}/cmdline"
    host.edit("kernel", query, "guest=instance-00000001", "guest=guestfs-1a2b3c")
    host.edit("kernel", query, "product=OpenStack Nova", "product=Standard PC")
    host.edit("kernel", query, f"-uuid\0{host.uuid('vm-plain')}", f"-uuid\0{APPLIANCE}")

    assert not {"capture-untrustworthy", "qemu-without-domain"} & _checks(host)


def test_an_empty_host_is_not_a_contradiction(host: RecordedHost) -> None:
    host.set("libvirt", "virsh list --all", [])
    host.set("kernel", "ls -l /proc/*/exe", [])
    host.drop(lambda answer: not (answer.layer == "kernel" and (answer.subject or "").isdigit()))

    assert "capture-untrustworthy" not in "".join(host.findings())


def _with_a_second_asker(host: RecordedHost, service: dict[str, str]) -> None:
    """The recorded services, as another host collected them."""
    answer = host.last("nova", "GET /v2.1/os-services [2.93]")
    services = [one | service for one in answer.value["services"]]
    host.add(answer.model_copy(update={"host": "other", "value": {"services": services}}))


def test_bundles_of_two_clouds(host: RecordedHost) -> None:
    _with_a_second_asker(host, {"host": "other", "id": "0"})

    first = next(host.bundle.asked("nova", "GET /v2.1/os-services")).value["services"]
    theirs = min(f"{one['binary']} on {one['host']}, id {one['id']}" for one in first)
    assert host.findings() == [
        "bundles-of-two-clouds: nova reports asked_on = other, service = nova-compute on other, id 0;"
        f" nova reports asked_on = vm, service = {theirs}"
    ]
    [finding] = host.report().findings
    assert finding.headline == (
        "The bundles of other and vm are of two clouds: their nova APIs have no service in common"
    )
    # The hypervisors of one cloud are compared with the services of the other.
    assert {one.check.name for one in finding.folded} == {"api-list-differs"}


def test_a_cloud_that_was_asked_twice_is_one_cloud(host: RecordedHost) -> None:
    _with_a_second_asker(host, {})

    assert host.findings() == []


def test_an_api_that_lists_no_service_proves_nothing(host: RecordedHost) -> None:
    answer = host.last("nova", "GET /v2.1/os-services [2.93]")
    host.add(answer.model_copy(update={"host": "other", "value": {"services": []}}))

    assert host.findings() == []


def test_clocks_apart(host: RecordedHost) -> None:
    asked = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    ahead = asked.at.replace(year=asked.at.year + 1)
    host.set(
        "nova-db",
        "SELECT UTC_TIMESTAMP(6)",
        {"columns": ["UTC_TIMESTAMP(6)"], "rows": [[f"{ahead:%Y-%m-%d %H:%M:%S.%f}"]]},
    )

    # By that clock nova-compute last reported a year ago, so nova considers it down.
    finding, *others = host.findings()
    assert finding.startswith(f"clocks-apart: clock of nova-db reports time = {ahead.year}-")
    assert [it.partition(":")[0] for it in others] == ["service-state-skew"]
    assert "The clock of nova-db is 365 d ahead of the collector's on vm" in host.headlines()


def test_clocks_apart_in_the_api(host: RecordedHost) -> None:
    host.set("nova", "HEAD /v2.1/", {"date": "Thu, 01 Jan 1970 00:00:00 GMT"})

    [finding] = host.findings()
    assert finding.startswith(
        "clocks-apart: clock of nova reports time = 1970-01-01T00:00:00+00:00"
    )
    assert host.headlines() == [
        "The clock of nova is 20782 d 18 h behind the collector's on vm",
    ]


def test_a_slow_answer_is_not_a_clock_difference(host: RecordedHost) -> None:
    clock = "SELECT UTC_TIMESTAMP(6)"
    asked = next(answer for answer in host.bundle.answers if answer.query == clock)
    late = asked.at + timedelta(seconds=8)
    rows = [[f"{late:%Y-%m-%d %H:%M:%S.%f}"]]
    host.set("nova-db", clock, {"columns": ["UTC_TIMESTAMP(6)"], "rows": rows})
    assert len(host.findings()) == 1

    host.take("nova-db", clock, 9.0)

    assert host.findings() == []
