"""Limits of memory and disks in the guests' control groups."""

from __future__ import annotations

import pytest
from tests.checks.test_cgroups import LIMITED, settings
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer

UNLIMITED = "9223372036854771712\n"

DISK = "254:0"
"""The host's only disk in this recording, /dev/vda."""


def memory(host: RecordedHost, **files: str) -> None:
    """Set files of vm-duo's group; `__` in a name stands for a dot."""
    query = settings(host, "memory")
    value = dict(host.last("cgroup", query).value)
    value |= {name.replace("__", "."): text for name, text in files.items()}
    host.set("cgroup", query, value)


def disks(host: RecordedHost, **files: str) -> None:
    """Add the group of disks of vm-duo, as a kernel with the scheduler BFQ makes it."""
    like = host.last("cgroup", settings(host, "memory")).model_dump(exclude={"value", "query"})
    own = {
        "blkio.bfq.weight": "100\n",
        "blkio.throttle.read_bps_device": "",
        "blkio.throttle.read_iops_device": "",
        "blkio.throttle.write_bps_device": "",
        "blkio.throttle.write_iops_device": "",
    }
    own |= {name.replace("__", "."): text for name, text in files.items()}
    host.add(Answer(**{**like, "query": settings(host, "blkio"), "value": own}))


def define(host: RecordedHost, xml: str) -> None:
    """Add elements to both definitions of vm-duo's domain."""
    for query in (f"virsh dumpxml {LIMITED}", f"virsh dumpxml --inactive {LIMITED}"):
        host.edit("libvirt", query, "</vcpu>", f"</vcpu>{xml}")


def test_memory_held_back(grouped: RecordedHost) -> None:
    memory(grouped, memory__soft_limit_in_bytes=f"{64 << 20}\n")

    [finding] = grouped.report().findings
    assert (finding.check.name, finding.severity.word) == ("memory-held-back", "warning")
    assert finding.headline == (
        "vm-duo has a soft limit of 64 MiB in the kernel, but no soft limit of memory in libvirt"
    )
    assert changes(finding) == [f"virsh memtune {LIMITED} --soft-limit=-1 --live"]


def test_in_version_2_the_kernel_stops_the_guest(grouped: RecordedHost) -> None:
    memory(grouped, memory__high="max\n")
    assert grouped.findings() == []

    memory(grouped, memory__high=f"{64 << 20}\n")
    [finding] = grouped.report().findings
    assert (finding.check.name, finding.severity.word) == ("memory-held-back", "error")


def test_a_limit_in_the_group_that_libvirt_made_inside(grouped: RecordedHost) -> None:
    query = settings(grouped, "memory")
    value = dict(grouped.last("cgroup", query).value)
    value |= {"memory.high": "max\n", "libvirt/memory.high": f"{1 << 30}\n"}
    grouped.set("cgroup", query, value)

    [finding] = grouped.report().findings
    assert finding.headline.startswith("vm-duo has a soft limit of 1 GiB in the kernel")
    assert finding.severity.word == "warning"


def test_a_soft_limit_that_libvirt_set(grouped: RecordedHost) -> None:
    define(grouped, "<memtune><soft_limit unit='KiB'>65537</soft_limit></memtune>")
    memory(grouped, memory__soft_limit_in_bytes=f"{64 << 20}\n")  # whole pages

    assert not any("memory-held-back" in line for line in grouped.findings())

    memory(grouped, memory__soft_limit_in_bytes=UNLIMITED)
    [finding] = [one for one in grouped.report().findings if one.check.name == "memory-held-back"]
    assert changes(finding) == [f"virsh memtune {LIMITED} --soft-limit=65537 --live"]


@pytest.mark.parametrize("text", [UNLIMITED, "9223372036854775807\n"])
def test_no_soft_limit(grouped: RecordedHost, text: str) -> None:
    memory(grouped, memory__soft_limit_in_bytes=text)

    assert grouped.findings() == []


def test_disk_access_limited(grouped: RecordedHost) -> None:
    disks(grouped)
    assert grouped.findings() == []

    grouped.drop(lambda answer: "/blkio/" not in answer.query)
    disks(grouped, blkio__throttle__write_bps_device=f"{DISK} 1048576\n")
    [finding] = grouped.report().findings
    assert (finding.check.name, finding.severity.word) == ("disk-access-limited", "warning")
    assert finding.headline == (
        "vm-duo has a limit of 1048576 bytes/s written for the host's disk /dev/vda in the kernel;"
        " libvirt has no limit"
    )
    assert changes(finding) == [
        f"virsh blkiotune {LIMITED} --live --device-write-bytes-sec /dev/vda,0"
    ]


def test_the_limits_of_version_2(grouped: RecordedHost) -> None:
    disks(grouped, io__max=f"{DISK} rbps=max wbps=max riops=max wiops=max\n", io__weight="100\n")
    assert grouped.findings() == []

    grouped.drop(lambda answer: "/blkio/" not in answer.query)
    disks(grouped, io__max=f"{DISK} rbps=max wbps=max riops=120 wiops=max\n")
    [finding] = grouped.report().findings
    assert "a limit of 120 reads/s for the host's disk" in finding.headline


def test_limits_that_libvirt_set(grouped: RecordedHost) -> None:
    limit = "<read_iops_sec>120</read_iops_sec><write_bytes_sec>0</write_bytes_sec>"
    define(grouped, f"<blkiotune><device><path>/dev/vda</path>{limit}</device></blkiotune>")
    disks(grouped, blkio__throttle__read_iops_device=f"{DISK} 120\n")
    assert not any("disk-access-limited" in line for line in grouped.findings())

    grouped.drop(lambda answer: "/blkio/" not in answer.query)
    disks(grouped, blkio__throttle__read_iops_device=f"{DISK} 7\n")
    [finding] = [it for it in grouped.report().findings if it.check.name == "disk-access-limited"]
    assert finding.headline.endswith("in the kernel; libvirt has 120")
    assert changes(finding)[0].endswith("--device-read-iops-sec /dev/vda,120")

    grouped.drop(lambda answer: "/blkio/" not in answer.query)
    disks(grouped)
    [finding] = [it for it in grouped.report().findings if it.check.name == "disk-access-limited"]
    assert finding.headline == "vm-duo has no limit of reads/s in the kernel, but 120 in libvirt"


@pytest.mark.parametrize(
    ("file", "usual", "other", "back"),
    [
        ("blkio__weight", "500\n", "10\n", 500),
        ("blkio__weight", "1000\n", "10\n", 500),
        ("blkio__bfq__weight", "100\n", "500\n", 100),
        ("io__weight", "default 100\n", "default 1\n", 100),
        ("io__bfq__weight", "default 100\n8:0 200\n", "default 10\n", 100),
    ],
)
def test_a_weight_is_the_kernels_own(
    grouped: RecordedHost, file: str, usual: str, other: str, back: int
) -> None:
    disks(grouped, **{file: usual})
    assert grouped.findings() == []

    grouped.drop(lambda answer: "/blkio/" not in answer.query)
    disks(grouped, **{file: other})
    [finding] = grouped.report().findings
    assert finding.headline.startswith("vm-duo's access to the host's disks has weight ")
    assert changes(finding) == [f"virsh blkiotune {LIMITED} --live --weight {back}"]


def test_a_weight_that_libvirt_set(grouped: RecordedHost) -> None:
    define(grouped, "<blkiotune><weight>300</weight></blkiotune>")
    disks(grouped, blkio__bfq__weight="300\n")
    assert not any("disk-access-limited" in line for line in grouped.findings())

    grouped.drop(lambda answer: "/blkio/" not in answer.query)
    disks(grouped)
    [finding] = [it for it in grouped.report().findings if it.check.name == "disk-access-limited"]
    assert finding.headline == (
        "vm-duo's access to the host's disks has weight 100 in the kernel (blkio.bfq.weight); "
        "libvirt has 300"
    )


def test_a_recording_without_the_group_of_disks(grouped: RecordedHost) -> None:
    report = grouped.report()

    reasons = {skip.reason for skip in report.skips if skip.check.name == "disk-access-limited"}
    assert "the control group's io data was not collected" in reasons


@pytest.mark.parametrize(
    "files",
    [
        {"blkio__throttle__write_bps_device": "default max\n"},
        {"io__max": "\n"},
        {"io__max": "254:0 rbps=many\n"},
        {"io__weight": "default\n"},
    ],
)
def test_a_limit_that_cannot_be_read(grouped: RecordedHost, files: dict[str, str]) -> None:
    disks(grouped, **files)

    report = grouped.report()
    assert report.findings == ()
    [reason] = {
        skip.reason
        for skip in report.skips
        if skip.check.name == "disk-access-limited" and skip.guest and skip.guest.name == "vm-duo"
    }
    assert reason.endswith("in the control group can't be read")


def test_a_weight_that_virsh_set_back_stays_in_the_running_definition(
    grouped: RecordedHost,
) -> None:
    """virsh blkiotune --live --weight 100, as the advice has it: libvirt can't remove a weight."""
    xml = "</vcpu><blkiotune><weight>100</weight></blkiotune>"
    grouped.edit("libvirt", f"virsh dumpxml {LIMITED}", "</vcpu>", xml)
    disks(grouped)
    assert grouped.findings() == []

    grouped.edit("libvirt", f"virsh dumpxml {LIMITED}", "<weight>100<", "<weight>300<")
    assert [line for line in grouped.headlines() if "blkiotune weight 300 now" in line]


@pytest.mark.parametrize(
    ("file", "text", "hierarchy", "thaws"),
    [
        ("freezer__state", "FROZEN\n", "freezer", "freezer.state"),
        ("cgroup__events", "populated 1\nfrozen 1\n", "unified", "cgroup.freeze"),
    ],
)
def test_a_frozen_group(
    grouped: RecordedHost, file: str, text: str, hierarchy: str, thaws: str
) -> None:
    memory(grouped, **{file: text})

    [finding] = grouped.report().findings
    assert finding.check.name == "qemu-monitor-dead"
    assert "is frozen with its control group" in finding.headline
    [thaw] = [line for line in changes(finding) if line.startswith("echo")]
    assert f" > /sys/fs/cgroup/{hierarchy}/machine/" in thaw
    assert thaw.endswith(f".libvirt-qemu/{thaws}")


@pytest.mark.parametrize("frozen", ["freezer", "unified"])
@pytest.mark.parametrize("last", ["freezer", "unified"])
def test_a_group_that_is_frozen_in_one_of_two_hierarchies(
    grouped: RecordedHost, frozen: str, last: str
) -> None:
    """Where version 1's freezer is mounted beside version 2, either can freeze a group."""
    like = grouped.last("cgroup", settings(grouped, "memory"))
    files = {
        "freezer": {"freezer.state": "FROZEN\n" if frozen == "freezer" else "THAWED\n"},
        "unified": {"cgroup.events": f"populated 1\nfrozen {int(frozen == 'unified')}\n"},
    }
    grouped.drop(lambda answer: answer.query != settings(grouped, "unified"))
    for name in sorted(files, key=lambda name: name == last):
        own = {"query": settings(grouped, name), "value": files[name]}
        grouped.add(Answer(**{**like.model_dump(exclude={"value", "query"}), **own}))

    [finding] = grouped.report().findings
    assert "is frozen with its control group" in finding.headline
    [thaw] = [line for line in changes(finding) if line.startswith("echo")]
    assert f"/sys/fs/cgroup/{frozen}/machine/" in thaw


@pytest.mark.parametrize(
    ("file", "text"),
    [("freezer__state", "THAWED\n"), ("cgroup__events", "populated 1\nfrozen 0\n")],
)
def test_a_group_that_is_not_frozen(grouped: RecordedHost, file: str, text: str) -> None:
    memory(grouped, **{file: text})

    assert grouped.findings() == []
