"""The control groups of the guests, in the recording that has them."""

from __future__ import annotations

import json
import re

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.facts.layer import CGROUP

LIMITED = "instance-00000005"
"""vm-duo's domain."""

PID = "16692"
"""Its QEMU."""


def settings(host: RecordedHost, tree: str) -> str:
    """The question about vm-duo's group in one tree."""
    return f"grep -r . /sys/fs/cgroup/{tree}/machine/qemu-2-{LIMITED}.libvirt-qemu"


def limits(host: RecordedHost, quota: str) -> None:
    """Set the quota of both vCPUs of vm-duo."""
    value = dict(host.last("cgroup", settings(host, "cpu")).value)
    value |= {f"vcpu{number}/cpu.cfs_quota_us": f"{quota}\n" for number in (0, 1)}
    host.set("cgroup", settings(host, "cpu"), value)


def tune(host: RecordedHost, xml: str) -> None:
    """Let vm-duo's flavor have sold these limits, and libvirt have set them."""
    guest = next(guest for guest in host.report().cloud.guests if guest.name == "vm-duo")
    instance = guest.instance
    assert instance is not None and instance.instance_extra is not None
    stored = json.loads(str(instance.instance_extra["flavor"]))
    sold = {f"quota:cpu_{name}": value for name, value in re.findall(r"<(\w+)>(-?\d+)", xml)}
    stored["cur"]["nova_object.data"]["extra_specs"] = sold
    host.row("instance_extra", guest.uuid, flavor=json.dumps(stored))
    host.edit("libvirt", f"virsh dumpxml {LIMITED}", "</vcpu>", f"</vcpu><cputune>{xml}</cputune>")
    host.edit(
        "libvirt",
        f"virsh dumpxml --inactive {LIMITED}",
        "</vcpu>",
        f"</vcpu><cputune>{xml}</cputune>",
    )


def test_the_recording_with_control_groups_is_quiet(grouped: RecordedHost) -> None:
    report = grouped.report()

    assert report.findings == ()
    guests = report.cloud.guests
    assert sum(guest.cgroup is not None for guest in guests) == 12
    assert all(guest.cgroup is None for guest in guests if guest.process is None)
    assert not any("control groups" in skip.reason for skip in report.skips)


@pytest.mark.parametrize("kind", ["unreachable", "denied", "timeout"])
def test_silent_control_groups_are_no_finding(grouped: RecordedHost, kind: str) -> None:
    grouped.silence("cgroup", kind)

    assert grouped.findings() == []


def test_a_bundle_of_before_says_that_it_has_no_control_groups(host: RecordedHost) -> None:
    report = host.report()

    reasons = {skip.reason for skip in report.skips if skip.check.topic == "cgroups" and skip.host}
    assert reasons == {CGROUP.silence} == {"control groups were not collected"}


def test_a_process_that_was_not_asked_is_no_finding(grouped: RecordedHost) -> None:
    grouped.drop(lambda answer: answer.layer != "cgroup" or answer.subject != PID)

    report = grouped.report()
    assert report.findings == ()
    reasons = [skip.reason for skip in report.skips if skip.check.topic == "cgroups" and skip.guest]
    assert f"/proc/{PID}/cgroup was not collected" in reasons


def test_cpu_quota_not_applied(grouped: RecordedHost) -> None:
    limits(grouped, "20000")

    assert grouped.findings() == [
        "cpu-quota-not-applied of vm-duo: domain reports vcpu_percent = no limit; cgroup reports vcpu_percent = 20"
    ]
    assert grouped.headlines() == [
        "vm-duo's vCPUs have a limit of 20 % of a CPU in the kernel, but no limit in libvirt",
    ]


def test_a_quota_that_the_kernel_forgot(grouped: RecordedHost) -> None:
    tune(grouped, "<period>50000</period><quota>25000</quota>")

    assert grouped.findings() == [
        "cpu-quota-not-applied of vm-duo: domain reports vcpu_percent = 50; cgroup reports vcpu_percent = no limit"
    ]
    assert grouped.headlines() == [
        "vm-duo's vCPUs have no limit in the kernel, but a limit of 50 % of a CPU in libvirt",
    ]


def test_a_quota_that_both_have_is_as_sold(grouped: RecordedHost) -> None:
    tune(grouped, "<period>50000</period><quota>10000</quota>")
    limits(grouped, "20000")

    assert grouped.findings() == []


def test_a_quota_of_libvirts_that_is_negative_is_no_limit(grouped: RecordedHost) -> None:
    tune(grouped, "<quota>-1</quota>")

    assert grouped.findings() == []


def test_memory_limit_below_guest(grouped: RecordedHost) -> None:
    grouped.edit("cgroup", settings(grouped, "memory"), "9223372036854771712", str(100 << 20))
    used = grouped.last("cgroup", settings(grouped, "memory")).value["memory.usage_in_bytes"]

    assert grouped.findings() == [
        "memory-limit-below-guest of vm-duo: cgroup reports memory_limit_kib = 102400,"
        f" memory_used_kib = {int(used) // 1024}; domain reports current_memory_kib = 131072"
    ]
    assert grouped.headlines() == [
        "vm-duo's control group allows 100 MiB of memory, but the guest has 128 MiB",
    ]


def test_a_guest_waits_for_memory_at_its_limit(grouped: RecordedHost) -> None:
    grouped.edit("cgroup", settings(grouped, "memory"), "9223372036854771712", str(200 << 20))
    groups = grouped.last("cgroup", settings(grouped, "memory")).value
    [path] = [one for one in groups if one == "memory.oom_control"]
    full = groups | {path: "oom_kill_disable 1\nunder_oom 1\noom_kill 0\n"}
    grouped.set("cgroup", settings(grouped, "memory"), full)

    assert grouped.headlines() == [
        "vm-duo stands still: its control group has used up the 200 MiB of memory that the kernel "
        "allows, and may not be killed (oom_kill_disable)"
    ]


def test_qemu_outside_machine_group(grouped: RecordedHost) -> None:
    query = f"/proc/{PID}/cgroup"
    grouped.set("cgroup", query, "1:cpu:/\n0::/system.slice/libvirtd.service\n")

    assert grouped.findings() == [
        "qemu-outside-machine-group of vm-duo: domain reports state = running (unpaused);"
        " cgroup reports groups = / /system.slice/libvirtd.service"
    ]
    assert grouped.headlines() == [
        "vm-duo's QEMU (PID 16692) is in the control group / and /system.slice/libvirtd.service, which libvirt did not make",
    ]


def test_a_scope_of_systemd_is_a_machine_group(grouped: RecordedHost) -> None:
    query = f"/proc/{PID}/cgroup"
    scope = r"machine-qemu\x2d2\x2dinstance\x2d00000005.scope"
    grouped.set("cgroup", query, f"0::/machine.slice/{scope}/libvirt/emulator\n")

    assert grouped.findings() == []


def left(host: RecordedHost, name: str, pids: list[int]) -> None:
    path = f"/sys/fs/cgroup/machine.slice/{name}"
    listed = host.last("cgroup", CGROUP.census_query).value
    host.set("cgroup", CGROUP.census_query, [*listed, {"path": path, "pids": pids}])


def test_control_group_leftover(grouped: RecordedHost) -> None:
    left(grouped, r"machine-qemu\x2d99\x2dinstance\x2d0000dead.scope", [])

    assert grouped.findings() == [
        "control-group-leftover: cgroup reports path = /sys/fs/cgroup/machine.slice/"
        r"machine-qemu\x2d99\x2dinstance\x2d0000dead.scope, processes = 0"
    ]
    assert grouped.headlines() == [
        "Host vm has the control group machine-qemu\\x2d99\\x2dinstance\\x2d0000dead.scope without a process",
    ]


@pytest.mark.parametrize(
    ("name", "pids"),
    [
        (r"machine-qemu\x2d99\x2dinstance\x2d0000dead.scope", [4711]),
        (r"machine-qemu\x2d2\x2dinstance\x2d00000005.scope", []),
    ],
)
def test_a_group_in_use_is_no_leftover(grouped: RecordedHost, name: str, pids: list[int]) -> None:
    left(grouped, name, pids)

    assert grouped.findings() == []


def _groups(host: RecordedHost, old: str, new: str) -> None:
    host.edit("cgroup", f"/proc/{PID}/cgroup", old, new)


@pytest.mark.parametrize(
    ("old", "new", "headline"),
    [
        ("memory:/machine/qemu-2-", "memory:/machine/qemu-1-", "but its domain has the id 2"),
        ("blkio:/machine/qemu-2-instance-00000005.libvirt-qemu", "blkio:/", "made a group for it"),
        ("0::/machine/qemu-2-instance-00000005.libvirt-qemu/emulator",
         "0::/machine/qemu-2-instance-00000005.libvirt-qemu/other", "whose last part libvirt did"),
    ],
)  # fmt: skip
def test_a_process_in_another_group_of_one_hierarchy_is_found(
    grouped: RecordedHost, old: str, new: str, headline: str
) -> None:
    _groups(grouped, old, new)

    [finding] = [f for f in grouped.report().everything() if "group" in f.check.name]
    assert finding.check.name == "qemu-outside-machine-group"
    assert headline in finding.headline


def test_a_group_without_its_process_is_found(grouped: RecordedHost) -> None:
    query = "find /sys/fs/cgroup -path '*/machine*' -name '*qemu*' -type d"
    groups = [
        {**row, "pids": [1 if pid == int(PID) else pid for pid in row["pids"]]}
        for row in grouped.last("cgroup", query).value
    ]
    grouped.set("cgroup", query, groups)

    [finding] = [f for f in grouped.report().everything() if "group" in f.check.name]
    assert f"but not its QEMU (PID {PID})" in finding.headline
    assert finding.severity.word == "warning"


def test_a_quota_of_the_whole_group_that_libvirt_does_not_know(grouped: RecordedHost) -> None:
    value = dict(grouped.last("cgroup", settings(grouped, "cpu")).value)
    value |= {"cpu.cfs_quota_us": "5000\n", "cpu.cfs_period_us": "100000\n"}
    grouped.set("cgroup", settings(grouped, "cpu"), value)

    assert grouped.headlines() == [
        "vm-duo as a whole has a limit of 5 % of a CPU in the kernel, but no limit in libvirt",
    ]
    [finding] = grouped.report().findings
    assert changes(finding) == [
        f"virsh schedinfo {LIMITED} --live global_period=100000 global_quota=-1"
    ]


@pytest.mark.parametrize("file", ["cpu.max", "libvirt/cpu.max"])
def test_a_quota_of_the_whole_group_in_version_2(grouped: RecordedHost, file: str) -> None:
    value = {"cpu.max": "max 100000\n", "vcpu0/cpu.max": "max 100000\n", file: "50000 100000\n"}
    grouped.set("cgroup", settings(grouped, "cpu"), value)

    assert grouped.headlines() == [
        "vm-duo as a whole has a limit of 50 % of a CPU in the kernel, but no limit in libvirt",
    ]


def test_a_quota_of_the_whole_group_that_libvirt_set_is_legal(grouped: RecordedHost) -> None:
    xml = "<global_period>50000</global_period><global_quota>25000</global_quota>"
    for query in (f"virsh dumpxml {LIMITED}", f"virsh dumpxml --inactive {LIMITED}"):
        grouped.edit("libvirt", query, "</vcpu>", f"</vcpu><cputune>{xml}</cputune>")
    value = dict(grouped.last("cgroup", settings(grouped, "cpu")).value)
    value |= {"cpu.cfs_quota_us": "25000\n", "cpu.cfs_period_us": "50000\n"}
    grouped.set("cgroup", settings(grouped, "cpu"), value)

    assert "cpu-quota-not-applied" not in str(grouped.findings())


def memory_limit(host: RecordedHost, kib: int) -> None:
    """Let the kernel limit the memory of vm-duo's group."""
    host.edit("cgroup", settings(host, "memory"), "9223372036854771712", str(kib << 10))


def test_a_memory_limit_that_libvirt_does_not_know(grouped: RecordedHost) -> None:
    memory_limit(grouped, 300 << 10)

    assert grouped.headlines() == [
        "vm-duo's control group allows 300 MiB of memory in the kernel, but libvirt has no limit",
    ]


@pytest.mark.parametrize("kib", [307200, 307232])
def test_a_memory_limit_that_libvirt_set_is_legal(grouped: RecordedHost, kib: int) -> None:
    xml = f"<memtune><hard_limit unit='KiB'>{kib}</hard_limit></memtune>"
    for query in (f"virsh dumpxml {LIMITED}", f"virsh dumpxml --inactive {LIMITED}"):
        grouped.edit("libvirt", query, "</vcpu>", f"</vcpu>{xml}")
    memory_limit(grouped, 300 << 10)

    assert "memory-limit-below-guest" not in str(grouped.findings())
