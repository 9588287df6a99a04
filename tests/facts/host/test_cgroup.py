"""Control groups of both versions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.cgroup import CENSUS, UNITS, Cgroup, ControlGroups, machine_of

SCOPE = r"machine-qemu\x2d2\x2dinstance\x2d00000005.scope"


def said(query: str, value: object = None, error: Failure | None = None) -> Answer:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    subject = "41" if query.startswith(("/proc", "grep")) else None
    raw = {"layer": "cgroup", "host": "vm", "query": query, "subject": subject, "at": at, "took": 0}
    return Answer(**raw, value=value) if error is None else Answer(**raw, error=error)


def read(**files: str) -> Cgroup:
    """Return the groups of a QEMU in a scope of version 2, with these files."""
    names = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    answers = [
        said("/proc/41/cgroup", f"0::/machine.slice/{SCOPE}/libvirt/emulator\n"),
        said(f"grep -r . '/sys/fs/cgroup/machine.slice/{SCOPE}'", names),
    ]
    return ControlGroups.read(answers).of(41)


def test_a_scope_of_version_2_is_read() -> None:
    found = read(
        memory_max="536870912\n",
        memory_current="268435456\n",
        memory_events="low 0\noom 2\noom_kill 1\n",
        cpu_pressure="some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n",
        cpu_stat="usage_usec 5\nnr_periods 0\nnr_throttled 0\n",
        libvirt__vcpu0__cpu_max="50000 100000\n",
        libvirt__vcpu0__cpu_stat="nr_periods 150\nnr_throttled 40\n",
        libvirt__vcpu1__cpu_max="20000 100000\n",
        libvirt__vcpu1__cpu_stat="nr_periods 50\nnr_throttled 10\n",
        libvirt__emulator__cpu_max="1000 100000\n",
        libvirt__emulator__cpuset_cpus_effective="0-3,8\n",
    )

    assert found.machine == SCOPE
    assert (found.vcpu_percent, found.throttled_percent) == (20, 25)
    assert (found.memory_limit_kib, found.memory_used_kib) == (524288, 262144)
    assert (found.oom_kills, found.cpus, found.cpu_pressure) == (1, "0-3,8", 12.5)


def test_a_scope_without_limits_has_none() -> None:
    found = read(memory_max="max\n", libvirt__vcpu0__cpu_max="max 100000\n")

    assert (found.vcpu_percent, found.memory_limit_kib, found.throttled_percent) == (None,) * 3


@pytest.mark.parametrize(
    ("field", "files"),
    [
        ("vcpu_percent", {}),
        ("vcpu_percent", {"cpu_max": "max 100000\n"}),
        ("vcpu_percent", {"vcpu0__cpu_max": "many 100000\n"}),
        ("vcpu_percent", {"vcpu0__cpu_max": "5 0\n"}),
        ("vcpu_percent", {"vcpu0__cpu_max": "\n"}),
        ("memory_limit_kib", {"memory_max": "-1\n"}),
        ("memory_limit_kib", {"memory_max": "9" * 21}),
        ("oom_kills", {"memory_max": "max\n", "memory_events": "low 0\n"}),
        ("cpus", {}),
        ("cpu_pressure", {"cpu_pressure": "some avg10=nan avg60=0.00\n"}),
    ],
)
def test_unreadable_settings_are_unheard(field: str, files: dict[str, str]) -> None:
    with pytest.raises(UnheardError):
        getattr(read(**files), field)


def test_a_group_with_denied_access_is_unheard() -> None:
    refused = Failure(kind="denied", message="Permission denied")
    query = "grep -r . /sys/fs/cgroup/cpu/machine/qemu-2-vm.libvirt-qemu"
    answers = [
        said("/proc/41/cgroup", "1:cpu:/machine/qemu-2-vm.libvirt-qemu/emulator\n"),
        said(query, error=refused),
    ]
    found = ControlGroups.read(answers).of(41)

    assert found.machine == "qemu-2-vm.libvirt-qemu"
    with pytest.raises(UnheardError, match="Permission denied"):
        found.vcpu_percent  # noqa: B018


def test_a_process_that_nobody_asked_for_is_unheard() -> None:
    with pytest.raises(UnheardError, match="/proc/41/cgroup was not collected"):
        ControlGroups.read([]).of(41).machine  # noqa: B018


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        (SCOPE, (2, "instance-00000005")),
        ("qemu-2-instance-00000005.libvirt-qemu", (2, "instance-00000005")),
        ("instance-00000005.libvirt-qemu", None),
        ("libvirtd.service", None),
    ],
)
def test_a_groups_name_contains_its_domain(name: str, machine: object) -> None:
    assert machine_of(name) == machine


def test_the_lists_of_groups_and_units_are_read() -> None:
    found = ControlGroups.read(
        [
            said(CENSUS, [{"path": f"/sys/fs/cgroup/machine.slice/{SCOPE}", "pids": [41, 42]}]),
            said(UNITS, f"{SCOPE} loaded failed failed\n"),
        ]
    )

    [group] = found.machines
    assert (group.pids, group.machine) == ((41, 42), (2, "instance-00000005"))
    assert found.units == {SCOPE: "failed"}
