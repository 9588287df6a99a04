"""Daemons that failed, do nothing, or do not start with the host."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import FAULTS, RecordedHost
from tests.daemons import alter, end, listed, systemd

from hoodsnap.bundle import load


def found(host: RecordedHost) -> list[str]:
    return [f"{one.check.name}: {one.title}" for one in host.report().findings]


def test_nova_compute_frozen() -> None:
    host = RecordedHost(load(FAULTS / "compute-frozen.json.zst"))

    [finding] = host.report().findings
    assert finding.check.name == "nova-compute-frozen"
    assert finding.title.endswith("is stopped by a signal (state T)")
    assert finding.names["DAEMON"] in finding.title


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "T"}, "stopped by a signal (state T)"),
        ({"state": "t"}, "stopped by a debugger (state t)"),
        (
            {"state": "t", "tracer": 7, "tracer_name": "gdb"},
            "stopped by gdb (PID 7, state t)",
        ),
        ({"frozen": True}, "paused with its container (frozen control group)"),
        ({"state": "D", "switches": 7}, "waiting for a device that does not answer (state D)"),
    ],
)
def test_daemon_frozen(served: RecordedHost, fields: dict[str, Any], words: str) -> None:
    alter(served, "libvirtd", **fields)

    [line] = found(served)
    assert line.startswith("daemon-frozen: libvirtd on vm (process ")
    assert line.endswith(f") is {words}")


def test_a_signal_does_not_continue_a_daemon_that_a_debugger_has_stopped(
    served: RecordedHost,
) -> None:
    alter(served, "libvirtd", state="t", tracer=7, tracer_name="gdb")

    [finding] = served.report().findings
    assert (finding.names["TRACER"], finding.names["STOPPED"]) == ("7", "")


@pytest.mark.parametrize("state", ["T", "t", "D"])
def test_a_state_that_lasts_for_a_moment_is_normal(served: RecordedHost, state: str) -> None:
    alter(served, "virtlogd", looks=1, state=state, switches=7)

    assert found(served) == []


def test_a_process_that_waits_for_its_disk_and_runs_in_between_works(served: RecordedHost) -> None:
    alter(served, "ovs-vswitchd", state="D", switches=7)
    alter(served, "ovs-vswitchd", looks=1, switches=9)

    assert found(served) == []


def test_a_daemon_is_frozen_if_one_of_its_processes_is(served: RecordedHost) -> None:
    """ovs-vswitchd has a process that watches the one that works."""

    def watched(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        [worker] = [row for row in rows if row["name"] == "ovs-vswitchd"]
        return [*rows, worker | {"pid": 99, "state": "T"}]

    listed(served, watched)

    [finding] = served.report().findings
    assert finding.names["DAEMON"] == "99"
    assert finding.severity.word == "error"


def test_daemon_failed(served: RecordedHost) -> None:
    shown = {"Id": "multipathd.service", "Result": "exit-code", "ExecMainCode": "1"}
    systemd(
        served,
        "multipathd.service loaded failed failed\niscsid.service loaded active running\n",
        shown=[shown | {"ExecMainStatus": "3"}],
    )

    assert found(served) == [
        "daemon-failed: multipathd is not running on vm: its unit failed (exit status 3)"
    ]


def test_a_failed_unit_of_a_daemon_that_runs_elsewhere_is_normal(served: RecordedHost) -> None:
    systemd(served, "virtlogd.service loaded failed failed\n")

    assert found(served) == []


def test_a_unit_that_is_off_has_not_failed(served: RecordedHost) -> None:
    systemd(served, "multipathd.service loaded inactive dead\n", "multipathd.service enabled\n")

    assert found(served) == []


def in_unit(host: RecordedHost, name: str, unit: str, file: str, sockets: str = "") -> None:
    alter(host, name, unit=unit)
    systemd(host, f"{unit} loaded active running\n", f"{unit} {file}\n")
    if sockets:
        systemd(host, f"{unit} loaded active running\n{sockets} loaded active listening\n",
                f"{unit} {file}\n{sockets} enabled\n")  # fmt: skip


def test_daemon_not_enabled(served: RecordedHost) -> None:
    in_unit(served, "nova-compute", "openstack-nova-compute.service", "disabled")

    [finding] = served.report().findings
    assert finding.title == "openstack-nova-compute.service runs on vm, but is not enabled"
    assert finding.severity.word == "note"


@pytest.mark.parametrize("file", ["enabled", "static", "indirect", "generated", "enabled-runtime"])
def test_a_unit_that_starts_otherwise_is_normal(served: RecordedHost, file: str) -> None:
    in_unit(served, "nova-compute", "nova-compute.service", file)

    assert found(served) == []


def test_a_daemon_that_its_socket_starts_need_not_be_enabled(served: RecordedHost) -> None:
    in_unit(served, "libvirtd", "libvirtd.service", "disabled", "libvirtd.socket")

    assert found(served) == []


def test_a_cluster_manager_starts_what_is_disabled(served: RecordedHost) -> None:
    in_unit(served, "nova-compute", "nova-compute.service", "disabled")
    listed(served, lambda rows: [*rows, dict(rows[0], name="pacemakerd", pid=77)])

    assert found(served) == []


def test_a_daemon_that_ends_is_not_frozen(served: RecordedHost) -> None:
    end(served, "virtlogd")

    assert found(served) == []


def _virtqemud(host: RecordedHost, unit: str | None, *, looks: int = 2) -> None:
    """Add a process of virtqemud beside libvirtd."""

    def more(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        [daemon] = [row for row in rows if row["name"] == "libvirtd"]
        return [*rows, daemon | {"name": "virtqemud", "pid": 99, "unit": unit}]

    listed(host, more, looks=looks)


def test_libvirt_daemons_compete(served: RecordedHost) -> None:
    alter(served, "libvirtd", unit="libvirtd.service", pid=98)
    _virtqemud(served, "virtqemud.service")

    assert found(served) == [
        "libvirt-daemons-compete: libvirtd (process 98) and virtqemud (process 99) both run on vm"
    ]


@pytest.mark.parametrize(("unit", "looks"), [(None, 2), ("virtqemud.service", 1)])
def test_a_daemon_in_a_container_or_one_that_ended_does_not_compete(
    served: RecordedHost, unit: str | None, looks: int
) -> None:
    alter(served, "libvirtd", unit="libvirtd.service")
    systemd(served, "libvirtd.service loaded active running\n", "libvirtd.service enabled\n")
    _virtqemud(served, unit, looks=looks)

    assert found(served) == []


@pytest.mark.parametrize(
    ("state", "file", "units"),
    [
        ("activating auto-restart", "disabled", "virtqemud.service"),
        ("failed failed", "enabled", "virtqemud.service virtqemud.socket"),
    ],
)
def test_libvirt_daemons_compete_if_one_fails(
    served: RecordedHost, state: str, file: str, units: str
) -> None:
    alter(served, "libvirtd", unit="libvirtd.service", pid=98)
    systemd(
        served,
        f"libvirtd.service loaded active running\nvirtqemud.service loaded {state}\n"
        "virtqemud.socket loaded active listening\n",
        f"libvirtd.service enabled\nvirtqemud.service disabled\nvirtqemud.socket {file}\n",
    )

    [finding] = served.report().findings
    assert finding.title == ("virtqemud.service fails on vm while libvirtd (process 98) runs")
    assert finding.names["UNITS"] == units


@pytest.mark.parametrize(
    ("service", "files"),
    [
        ("virtqemud.service loaded failed failed", "virtqemud.socket disabled"),
        ("virtqemud.service loaded inactive dead", "virtqemud.socket enabled"),
        ("virtproxyd.service loaded active running", "virtproxyd.socket enabled"),
    ],
)
def test_units_that_nothing_starts_or_that_only_pass_on_do_not_compete(
    served: RecordedHost, service: str, files: str
) -> None:
    alter(served, "libvirtd", unit="libvirtd.service")
    systemd(
        served,
        f"libvirtd.service loaded active running\n{service}\n{files.split()[0]} loaded active"
        " listening\n",
        f"libvirtd.service enabled\n{files}\n",
    )

    assert found(served) == []
