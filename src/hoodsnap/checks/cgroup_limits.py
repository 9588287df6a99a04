"""Limits of control groups that hold a guest back: soft limits of memory, and access to disks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.cgroups import LARGEST_PAGE, limited
from hoodsnap.checks.traps import task_in_flight
from hoodsnap.evidence import Severity, derives, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import known
from hoodsnap.facts.host.cgroup import USUAL_WEIGHTS, Cgroup
from hoodsnap.phrase import several, size


@check(Severity.WARNING, traps=[task_in_flight])
def memory_held_back(guest: Guest, domain: Domain, cgroup: Cgroup) -> Problems:
    """The kernel takes memory away from the guest above a limit that libvirt did not define.

    Above the soft limit of its control group, the kernel moves a guest's memory to swap. In version
    2 of control groups (`memory.high`) it also stops QEMU again and again while QEMU is above it:
    the guest is extremely slow, and nova and libvirt show no reason. A limit below the guest's
    memory is an error there. In version 1 (`memory.soft_limit_in_bytes`) it matters only if the
    host has no free memory. Causes: a write to /sys/fs/cgroup, `systemctl set-property
    MemoryHigh=`, `virsh memtune --soft-limit` for the running guest only.

    Authority: The kernel, for the limit in force; libvirt, for the limit that was configured.

    Traps: The kernel rounds a limit to whole pages. Huge pages do not count toward the limit, and a
    guest with huge pages is not checked. Limits of the group of all guests are not judged.

    Next: Check the limit (soft_limit), and the guest's memory:

        virsh memtune NAME
        virsh dommemstat NAME

    Then set the limit that libvirt defined, in KiB (-1: no limit), which takes effect at once:

        virsh memtune NAME --soft-limit=SOFT_LIMIT --live

    It worked if soft_limit is unlimited or the defined one:

        virsh memtune NAME

    Not yet: Do not reboot the guest, and do not resize the server: neither changes why the limit
    was set, and a booting guest touches more memory.

    Source: kernel Documentation/admin-guide/cgroup-v2.rst, `memory.high`; libvirt
    src/util/vircgroupv2.c `virCgroupV2SetMemorySoftLimit`, docs/formatdomain.rst, `soft_limit`.
    """
    if domain.state not in ON or domain.has_huge_pages:
        return
    limit, defined = cgroup.memory_soft_limit_kib, domain.memory_soft_limit_kib
    if limit is None and defined is None:
        return
    if limit is not None and defined is not None and abs(limit - defined) <= LARGEST_PAGE:
        return
    slow = limit is not None and limit < domain.current_memory_kib and cgroup.holds_back
    yield problem(
        f"{guest.title} has {_soft(limit)} in the kernel, but {_soft(defined)} in libvirt",
        says(cgroup, memory_soft_limit_kib=limited(limit), memory_used_kib=cgroup.memory_used_kib),
        says(
            domain,
            memory_soft_limit_kib=limited(defined),
            current_memory_kib=domain.current_memory_kib,
        ),
        severity=Severity.ERROR if slow else None,
        SOFT_LIMIT=-1 if defined is None else defined,
    )


def _soft(kib: int | None) -> str:
    return "no soft limit of memory" if kib is None else f"a soft limit of {size(kib << 10)}"


IO_WORDS = {
    "read_bytes_sec": "bytes/s read",
    "write_bytes_sec": "bytes/s written",
    "read_iops_sec": "reads/s",
    "write_iops_sec": "writes/s",
}
"""Limit in libvirt's words → its unit for people."""


@check(Severity.WARNING, traps=[task_in_flight])
def disk_access_limited(guest: Guest, host: Host, domain: Domain, cgroup: Cgroup) -> Problems:
    """The kernel limits the guest's access to host disks in another way than libvirt defined.

    A limit of a guest's control group (`io.max`, `blkio.throttle.*`) slows all its disks on one
    disk of the host, and a weight decides who waits when the disk is busy. nova sets neither; the
    flavor's `quota:disk_*` are limits inside QEMU. So the guest's disks are slow, and nova, libvirt
    and QEMU show no reason. Causes: a write to /sys/fs/cgroup, `systemctl set-property
    IOReadBandwidthMax=`, or `virsh blkiotune` for the running guest only.

    Authority: The kernel, for what is in force; libvirt's `<blkiotune>`, for what was configured.

    Traps: Limits that both have are meant. Which of libvirt's devices a limit is for is not
    compared. A weight is judged only if it is neither the kernel's own (100; 500 or 1000 in version
    1) nor libvirt's. Limits of the group of all guests are not judged.

    Next: Check the limits of the group, and libvirt's:

        grep -rs . GROUP --include=*io.max --include=*weight --include=*throttle*_device
        virsh blkiotune NAME
        lsblk

    Then set the limit that libvirt defined (0: no limit), which works at once:

        virsh blkiotune NAME --live --IO_LIMIT PATH,AMOUNT

    If the weight differs, set the one that libvirt defined, or else the kernel's default, which
    works at once:

        virsh blkiotune NAME --live --weight IO_WEIGHT

    It worked if the group has only libvirt's limits:

        grep -rs . GROUP --include=*io.max --include=*weight --include=*throttle*_device

    Not yet: Do not write to /sys/fs/cgroup by hand: libvirt and systemd do not notice. Do not
    resize or migrate the server to make it faster.

    Source: kernel Documentation/admin-guide/cgroup-v2.rst, `io.max`, and
    cgroup-v1/blkio-controller.rst; libvirt docs/formatdomain.rst, `blkiotune`.
    """
    if domain.state not in ON:
        return
    defined = domain.io_limits
    name = _folder(cgroup)
    found = {(limit.name, limit.value) for limit in cgroup.io_limits}
    for limit in cgroup.io_limits:
        if (limit.name, limit.value) in defined:
            continue
        wanted = {value for kind, value in defined if kind == limit.name}
        disk = known(lambda: _path_of(host, limit.disk))  # noqa: B023
        has = f"libvirt has {several(sorted(wanted))}" if wanted else "libvirt has no limit"
        yield problem(
            f"{guest.title} has a limit of {limit.value} {IO_WORDS[limit.name]} for the host's "
            f"disk {disk or limit.disk} in the kernel; {has}",
            derives(cgroup, "io_limits", disk=limit.disk, **{limit.name: limit.value}),
            derives(domain, "io_limits", **{limit.name: several(sorted(wanted)) or "no limit"}),
            GROUP=name,
            IO_LIMIT=f"device-{limit.name.replace('_', '-')}",
            PATH=disk,
            AMOUNT=min(wanted, default=0),
            IO_WEIGHT="",
        )
    for kind, value in sorted(defined - found):
        if any(limit.name == kind for limit in cgroup.io_limits):
            continue  # the difference was reported
        yield problem(
            f"{guest.title} has no limit of {IO_WORDS[kind]} in the kernel, but {value} in libvirt",
            derives(cgroup, "io_limits", **{kind: "no limit"}),
            derives(domain, "io_limits", **{kind: value}),
            GROUP=name,
            IO_LIMIT=f"device-{kind.replace('_', '-')}",
            AMOUNT=value,
            IO_WEIGHT="",
        )
    yield from _weights(guest, domain, cgroup, name)


def _weights(guest: Guest, domain: Domain, cgroup: Cgroup, group: str | None) -> Iterator[Problem]:
    wanted, weights = domain.io_weight, cgroup.io_weights
    if wanted in weights.values() or not weights:
        return
    for file, weight in sorted(weights.items()):
        if wanted is None and weight in USUAL_WEIGHTS[file]:
            continue
        has = f"libvirt has {wanted}" if wanted is not None else "libvirt has set none"
        yield problem(
            f"{guest.title}'s access to the host's disks has weight {weight} in the kernel "
            f"({file}); {has}",
            derives(cgroup, "io_weights", **{file: weight}),
            says(domain, io_weight=wanted),
            GROUP=group,
            IO_LIMIT="",
            IO_WEIGHT=wanted if wanted is not None else min(USUAL_WEIGHTS[file]),
        )
        return


def _folder(cgroup: Cgroup) -> str | None:
    """Return the folder of the guest's group that has the limits of disks."""
    answer = cgroup.said.get("io")
    words = shlex.split(answer.query) if answer is not None else []
    return words[3] if words[:3] == ["grep", "-r", "."] and len(words) == 4 else None


def _path_of(host: Host, number: str) -> str | None:
    """Return the path of the host's disk with these numbers; None if no disk has them."""
    for device in host.devices.by_name.values():
        if device.number.strip() == number:
            return f"/dev/{device.kname}"
    return None
