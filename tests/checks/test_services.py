"""Daemons that nova, neutron and the guests need, and that do not run."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from tests.conftest import FAULTS, RecordedHost, changes
from tests.daemons import alter, end, listed, systemd

from hoodsnap.bundle import load
from hoodsnap.facts.host.daemon import CENSUS

ENABLED = "{0}.service loaded inactive dead\n"
FAILED = "{0}.service loaded failed failed\n"


def found(host: RecordedHost) -> list[str]:
    """Return the checks that find something, with the headlines."""
    return [f"{one.check.name}: {one.title}" for one in host.report().findings]


def skipped(host: RecordedHost, check: str) -> str:
    [reason] = [skip.reason for skip in host.report().skips if skip.check.name == check]
    return reason


def services(recorded: RecordedHost, name: str, /, **fields: object) -> None:
    """Set fields of a service in the list of nova's API."""
    for query in ("GET /v2.1/os-services [2.93]", "GET /v2.1/os-services"):
        rows = [dict(row) for row in recorded.last("nova", query).value["services"]]
        for row in rows:
            if row["binary"] == name:
                row |= fields
        recorded.set("nova", query, {"services": rows})


def without_api(host: RecordedHost) -> None:
    host.drop(lambda answer: "os-services" not in answer.query)


def test_the_recording_with_daemons_is_quiet(served: RecordedHost) -> None:
    report = served.report()

    assert report.findings == ()
    topics = {"services", "daemons"}
    assert [skip.reason for skip in report.skips if skip.check.topic in topics] == []


def test_a_bundle_of_before_has_no_daemons(host: RecordedHost) -> None:
    reasons = {skip.reason for skip in host.report().skips if skip.check.topic == "services"}

    assert "the host's daemons were not collected" in reasons
    assert host.findings() == []


@pytest.mark.parametrize("kind", ["unreachable", "denied", "timeout"])
def test_silent_daemons_are_no_finding(served: RecordedHost, kind: str) -> None:
    served.silence("daemons", kind)

    assert served.findings() == []


def test_nova_compute_not_running(served: RecordedHost) -> None:
    end(served, "nova-compute")

    [finding] = served.report().findings
    assert finding.title.startswith("nova-compute is not running on vm; nova reports it as up, ")
    assert finding.title.endswith(" s after its last report")
    assert finding.severity.word == "warning"


def test_nova_compute_not_running_by_the_database(served: RecordedHost) -> None:
    end(served, "nova-compute")
    without_api(served)

    [finding] = served.report().findings
    assert "nova reports it as up" in finding.title
    assert finding.evidence[-1].layer == "nova-db"


def test_an_end_that_nova_has_noticed_is_one_finding() -> None:
    """The record that is late is folded under the daemon that ended."""
    host = RecordedHost(load(FAULTS / "compute-down.json.zst"))
    without_api(host)
    [captured] = host.report().cloud.hosts
    service = captured.service
    assert service is not None and service.uuid is not None
    late = host.last("daemons", CENSUS).at - timedelta(minutes=4, seconds=40)
    host.row("services", service.uuid, last_seen_up=f"{late:%Y-%m-%d %H:%M:%S}")

    finding = next(
        one for one in host.report().findings if one.check.name == "nova-compute-not-running"
    )
    assert "nova reports it as down, 4 min" in finding.title
    assert [one.check.name for one in finding.folded] == ["service-state-skew"]


def test_a_controller_has_no_nova_compute(served: RecordedHost) -> None:
    end(served, "nova-compute")
    query = "GET /v2.1/os-services [2.93]"
    rows = served.last("nova", query).value["services"]
    for asked in (query, "GET /v2.1/os-services"):
        kept = [row for row in rows if row["binary"] != "nova-compute"]
        served.set("nova", asked, {"services": kept})

    assert not any("nova-compute" in line for line in found(served))


def test_a_compute_node_has_no_conductor(served: RecordedHost) -> None:
    end(served, "nova-conductor")
    end(served, "nova-scheduler")
    for name in ("nova-conductor", "nova-scheduler"):
        services(served, name, host="controller")
        listed = served.last("nova", "GET /v2.1/os-services [2.93]").value["services"]
        [uuid] = [one["id"] for one in listed if one["binary"] == name]
        served.row("services", uuid, host="controller")

    assert found(served) == []


def test_a_service_that_was_disabled_for_maintenance_is_a_note(served: RecordedHost) -> None:
    end(served, "nova-compute")
    services(served, "nova-compute", status="disabled", disabled_reason="new memory")

    [finding] = [
        one for one in served.report().findings if one.check.name == "nova-compute-not-running"
    ]
    assert finding.severity.word == "note"
    assert finding.title.endswith("and disabled")


def test_a_service_that_was_forced_down_is_expected_to_be_off(served: RecordedHost) -> None:
    end(served, "nova-compute")
    services(served, "nova-compute", forced_down=True, state="down")

    assert not any(line.startswith("nova-compute-not-running") for line in found(served))


def test_a_daemon_that_restarts_between_two_looks_runs(served: RecordedHost) -> None:
    end(served, "nova-compute", looks=1)

    assert found(served) == []


def test_a_process_that_only_has_the_name_proves_nothing(served: RecordedHost) -> None:
    alter(served, "nova-compute", doubt="it runs as uid 4242, which is neither root nor nova")

    assert found(served) == []
    assert "is called nova-compute, but it runs as uid 4242" in skipped(
        served, "nova-compute-not-running"
    )


@pytest.mark.parametrize(
    ("query", "value", "reason"),
    [
        ("id", "uid=1000(stack) gid=1000(stack) groups=1000(stack)", "the collector was not root"),
        ("readlink /proc/self/ns/*", {"pid": "pid:[4026532841]"}, "PID namespace"),
    ],
)
def test_a_collector_that_may_not_see_all_processes_proves_no_absence(
    served: RecordedHost, query: str, value: object, reason: str
) -> None:
    end(served, "nova-compute")
    before = served.last("host", query).value
    served.set("host", query, before | value if isinstance(value, dict) else value)

    assert not any(line.startswith("nova-compute") for line in found(served))
    assert reason in skipped(served, "nova-compute-not-running")


def test_a_failed_unit_shows_since_when_and_why(served: RecordedHost) -> None:
    end(served, "nova-compute")
    clock = served.last("host", "date --utc").value
    shown = {
        "Id": "nova-compute.service",
        "Result": "oom-kill",
        "ExecMainCode": "2",
        "ExecMainStatus": "9",
        "StateChangeTimestampMonotonic": str(int((clock["monotonic"] - 300) * 1e6)),
    }
    systemd(served, FAILED.format("nova-compute"), shown=[shown])

    [finding] = served.report().findings
    assert ": its unit failed (oom-kill, signal 9); nova reports it as up" in finding.title
    assert " (5 min" in finding.title
    assert finding.names["UNIT"] == "nova-compute.service"


def test_a_unit_without_a_record_of_nova(served: RecordedHost) -> None:
    """A compute node without a database password and with a tenant's credentials."""
    end(served, "nova-compute")
    without_api(served)
    served.silence("nova-db", "denied")

    assert not any(line.startswith("nova-compute") for line in found(served))
    assert skipped(served, "nova-compute-not-running") == "nova database: no answer"


@pytest.mark.parametrize("name", ["nova-conductor", "nova-scheduler"])
def test_nova_controller_not_running(served: RecordedHost, name: str) -> None:
    end(served, name)

    [line] = found(served)
    assert line.startswith(
        f"nova-controller-not-running: {name} is not running on vm; nova reports it as up, "
    )


def test_a_record_that_was_left_behind_needs_no_daemon(served: RecordedHost) -> None:
    end(served, "nova-conductor")
    services(served, "nova-conductor", state="down", updated_at="2026-01-01T00:00:00.000000")
    [uuid] = [
        service["id"]
        for service in served.last("nova", "GET /v2.1/os-services [2.93]").value["services"]
        if service["binary"] == "nova-conductor"
    ]
    long_ago = "2026-01-01 00:00:00"
    served.row("services", uuid, updated_at=long_ago, last_seen_up=long_ago)

    assert found(served) == []


def test_libvirt_not_running() -> None:
    host = RecordedHost(load(FAULTS / "libvirt-lost.json.zst"))

    [finding] = host.report().findings
    assert finding.title == "libvirt's daemon is not running on vm; 12 guests run without it"
    assert {one.check.name for one in finding.folded} <= {"service-state-skew"}


def test_libvirt_accepts_no_connection(served: RecordedHost) -> None:
    served.silence("libvirt", "timeout")
    assert found(served) == []

    _take_all_connections(served)
    [headline] = served.headlines()
    assert re.fullmatch(r"libvirtd \(PID \d+\) runs on vm, but accepts no connection", headline)


def test_a_libvirt_that_is_only_slow_has_connections_left(served: RecordedHost) -> None:
    message = "qemu:///system accepted no connection within 10 s"
    served.fail("libvirt", "virsh version", "timeout", message)

    assert found(served) == []


def test_no_process_of_libvirt_accepts_no_connection_either(served: RecordedHost) -> None:
    _take_all_connections(served)
    end(served, "libvirtd")

    assert not any("accepts-no-connection" in line for line in found(served))


def _take_all_connections(host: RecordedHost) -> None:
    message = "qemu:///system accepted no connection within 10 s"
    for answer in host.bundle.answers:
        if answer.layer == "libvirt":
            host.fail("libvirt", answer.query, "timeout", message)


@pytest.mark.parametrize(
    ("units", "is_found"),
    [
        (
            "virtqemud.service loaded inactive dead\nvirtqemud.socket loaded active listening\n",
            False,
        ),
        ("virtqemud.service loaded inactive dead\nvirtqemud.socket loaded inactive dead\n", True),
        ("virtqemud.service loaded failed failed\nvirtqemud.socket loaded failed failed\n", True),
    ],
)
def test_a_modular_daemon_is_started_by_its_socket(units: str, is_found: bool) -> None:
    host = RecordedHost(load(FAULTS / "libvirt-lost.json.zst"))
    systemd(host, units)

    assert any(line.startswith("libvirt-not-running") for line in found(host)) == is_found


def test_a_libvirt_that_answers_runs_wherever_it_does(served: RecordedHost) -> None:
    end(served, "libvirtd")

    assert found(served) == []


def test_a_host_without_guests_and_nova_compute_needs_no_libvirt() -> None:
    host = RecordedHost(load(FAULTS / "libvirt-lost.json.zst"))
    services(host, "nova-compute", host="other")
    host.set("kernel", "ls -l /proc/*/exe", [])
    host.drop(lambda answer: answer.layer != "kernel" or answer.subject is None)

    assert not any(line.startswith("libvirt") for line in found(host))


@pytest.mark.parametrize(
    "name",
    [
        *("neutron-openvswitch-agent", "neutron-dhcp-agent"),
        *("neutron-l3-agent", "neutron-metadata-agent"),
    ],
)
def test_network_agent_not_running(served: RecordedHost, name: str) -> None:
    end(served, name)

    assert found(served) == [
        f"network-agent-not-running: {name} is not running on vm; neutron reports it as alive"
    ]


@pytest.mark.parametrize("name", ["neutron-openvswitch-agent", "neutron-dhcp-agent"])
def test_an_agent_that_is_disabled(served: RecordedHost, name: str) -> None:
    query = "GET /v2.0/agents?host=vm"
    rows = served.last("neutron", query).value["agents"]
    off = [row | {"admin_state_up": row["binary"] != name} for row in rows]
    served.set("neutron", query, {"agents": off})

    assert found(served) == [
        f"network-agent-not-running: {name} runs, but it is disabled in neutron"
    ]
    [finding] = served.report().findings
    [agent] = [row["id"] for row in rows if row["binary"] == name]
    assert finding.severity.word == "note"
    assert changes(finding) == [f"openstack network agent set --enable {agent}"]


def test_an_agent_that_neutron_has_noticed_is_one_finding() -> None:
    host = RecordedHost(load(FAULTS / "ovs-agent-down.json.zst"))

    [finding] = host.report().findings
    assert finding.check.name == "network-agent-not-running"
    assert [one.check.name for one in finding.folded] == ["network-agent-dead"]


def test_an_agent_that_was_removed_is_not_expected(served: RecordedHost) -> None:
    end(served, "neutron-l3-agent")
    query = "GET /v2.0/agents?host=vm"
    rows = [dict(row) for row in served.last("neutron", query).value["agents"]]
    old = {"alive": False, "heartbeat_timestamp": "2026-01-01 00:00:00"}
    agents = [row | old if row["binary"] == "neutron-l3-agent" else row for row in rows]
    served.set("neutron", query, {"agents": agents})

    # Its networks are still assigned to it, which is another finding.
    assert [line.partition(":")[0] for line in found(served)] == ["serving-agent-dead"]


def test_open_vswitch_not_running(served: RecordedHost) -> None:
    end(served, "ovs-vswitchd")

    [finding] = served.report().findings
    assert finding.title == "ovs-vswitchd is not running on vm"
    assert finding.severity.word == "error"


def test_a_host_without_taps_in_open_vswitch_needs_no_switch(served: RecordedHost) -> None:
    end(served, "ovs-vswitchd")
    served.drop(lambda answer: "ovs-vsctl" not in answer.query)

    assert not any(line.startswith("open-vswitch") for line in found(served))


def test_two_missing_daemons_are_two_findings(served: RecordedHost) -> None:
    listed(served, lambda rows: [row for row in rows if not row["name"].endswith("-agent")])

    assert len(found(served)) == 4


def test_an_enabled_unit_that_is_off_is_found_without_a_record(served: RecordedHost) -> None:
    end(served, "nova-compute")
    services(served, "nova-compute", host="other")
    systemd(served, ENABLED.format("nova-compute"), "nova-compute.service enabled\n")
    quiet = found(served)
    systemd(served, FAILED.format("nova-compute"), "nova-compute.service enabled\n")

    assert not any(line.startswith("nova-compute") for line in quiet)
    assert any("its unit failed" in line for line in found(served))
