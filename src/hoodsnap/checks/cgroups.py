"""Control groups: the limits that the kernel enforces on a guest, and the groups themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import of_another_libvirt, task_in_flight
from hoodsnap.evidence import Severity, derives, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.hardware import DEFAULT_PERIOD
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.cgroup import MACHINE, Cgroup, machine_of
from hoodsnap.phrase import several, size, sizes


@check(Severity.WARNING, traps=[task_in_flight])
def cpu_quota_not_applied(guest: Guest, domain: Domain, cgroup: Cgroup) -> Problems:
    """The kernel's limit on the guest's CPU time differs from libvirt's definition of the guest.

    libvirt writes the flavor's `quota:cpu_quota` into the control group of each vCPU, and a limit
    of the whole guest (`global_quota`), which nova never sets, into the guest's group. A script
    that writes to /sys/fs/cgroup, or a service manager that is reloaded, changes the group without
    libvirt's knowledge. The guest then is slow for no reason that nova or libvirt shows, or uses
    more CPU time than it was sold.

    Authority: The kernel, for the limit in force; libvirt, for the limit that was configured.

    Traps: All values are in percent of one host CPU; that of the whole guest is shared by its vCPUs
    and QEMU's own threads. For a running guest `virsh schedinfo` shows the kernel's values, not the
    definition's.

    Next: Check the limit in the definition (without `<quota>` or `<global_quota>`: no limit), and
    the kernel's:

        virsh dumpxml NAME | grep -E '<(global_)?(quota|period)>'
        virsh schedinfo NAME

    Then set the kernel's limit to the definition's quota (-1: no limit), which works at once:

        virsh schedinfo NAME --live vcpu_period=100000 vcpu_quota=QUOTA

    If it is the limit of the whole guest, set that to the definition's global quota, also at once:

        virsh schedinfo NAME --live global_period=100000 global_quota=GLOBAL_QUOTA

    It worked if the quota that was set is shown:

        virsh schedinfo NAME

    Not yet: Do not write to /sys/fs/cgroup by hand. Do not resize the server: the next start
    applies libvirt's limit anyway.

    Source: libvirt src/hypervisor/domain_cgroup.c; kernel Documentation/admin-guide/cgroup-v2.rst,
    `cpu.max`.
    """
    if domain.state in ON and domain.vcpu_percent != cgroup.vcpu_percent:
        sold = domain.vcpu_percent
        yield problem(
            f"{guest.title}'s vCPUs have {_words(cgroup.vcpu_percent)} in the kernel, but "
            f"{_words(sold)} in libvirt",
            says(domain, vcpu_percent=limited(sold)),
            says(cgroup, vcpu_percent=limited(cgroup.vcpu_percent)),
            QUOTA=_quota(sold),
            GLOBAL_QUOTA="",
        )
    allowed = known(lambda: (cgroup.global_percent,))
    if domain.state in ON and allowed is not None and domain.global_percent != allowed[0]:
        defined = domain.global_percent
        yield problem(
            f"{guest.title} as a whole has {_words(allowed[0])} in the kernel, but "
            f"{_words(defined)} in libvirt",
            says(domain, global_percent=limited(defined)),
            says(cgroup, global_percent=limited(allowed[0])),
            QUOTA="",
            GLOBAL_QUOTA=_quota(defined),
        )


def _quota(percent: int | None) -> int:
    """Return a limit as libvirt's quota, in µs of the default period; -1 for no limit."""
    return -1 if percent is None else percent * DEFAULT_PERIOD // 100


def limited(percent: int | None) -> str:
    """Return a limit as evidence shows it; None is no limit."""
    return "no limit" if percent is None else str(percent)


def _words(percent: int | None) -> str:
    return "no limit" if percent is None else f"a limit of {percent} % of a CPU"


@check(Severity.ERROR, traps=[task_in_flight])
def memory_limit_below_guest(guest: Guest, domain: Domain, cgroup: Cgroup) -> Problems:
    """The guest's control group allows less memory than the guest has, or than libvirt defined.

    If the limit is below the guest's memory, the kernel kills QEMU as soon as the guest uses all
    memory of its flavor. The limit comes from the flavor (`quota:memory_limit`), from `virsh
    memtune`, or from a write to /sys/fs/cgroup. A limit that only the kernel has is a warning even
    if the guest's memory fits: QEMU needs memory beside it. If the group may not be killed
    (`oom_kill_disable`), QEMU waits for memory at the limit, and the guest stands still.

    Authority: The kernel, for the limit in force; libvirt, for the limit that was configured.

    Traps: A limit that libvirt defined, and that is only slightly too low for the guest and QEMU,
    is not found. The kernel rounds a limit to whole pages. Huge pages do not count toward the
    limit, and a guest with huge pages is not checked.

    Next: Check the limit and the guest's memory:

        virsh memtune NAME
        virsh dommemstat NAME

    Then remove the limit, or set it to the one that libvirt defined, in KiB, which takes effect at
    once:

        virsh memtune NAME --hard-limit=ALLOWED --live

    It worked if hard_limit is unlimited or the defined one:

        virsh memtune NAME

    Not yet: Do not reboot the guest: a booting guest touches more memory.

    Source: libvirt docs/formatdomain.rst, `hard_limit`, which warns of it; kernel
    Documentation/admin-guide/cgroup-v2.rst, `memory.max`.
    """
    if domain.state not in ON or domain.has_huge_pages:
        return
    limit, memory = cgroup.memory_limit_kib, domain.current_memory_kib
    if limit is not None and cgroup.waits_for_memory:
        used = cgroup.memory_used_kib
        yield problem(
            f"{guest.title} stands still: its control group has used up the {size(limit << 10)} of "
            "memory that the kernel allows, and may not be killed (oom_kill_disable)",
            says(cgroup, memory_limit_kib=limit, memory_used_kib=used, waits_for_memory=True),
            says(domain, current_memory_kib=memory),
            ALLOWED=-1,
        )
        return
    if limit is not None and limit < memory:
        used, log = cgroup.memory_used_kib, guest.log
        allowed, has = sizes(limit << 10, memory << 10)
        kills = log.oom_kills if log is not None else ()
        headline = (
            f"{guest.title}'s control group allows {allowed} of memory, but the guest has {has}"
        )
        yield problem(
            f"{headline}{': the kernel has killed its QEMU before' if kills else ''}",
            says(cgroup, memory_limit_kib=limit, memory_used_kib=used),
            says(domain, current_memory_kib=memory),
            *([derives(log, "oom_kill", oom_kill=kills[-1])] if log is not None and kills else []),
            ALLOWED=-1,
        )
        return
    defined = domain.memory_hard_limit_kib
    if limit is not None and (defined is None or limit < defined - LARGEST_PAGE):
        configured = "no limit" if defined is None else f"a limit of {size(defined << 10)}"
        yield problem(
            f"{guest.title}'s control group allows {size(limit << 10)} of memory in the kernel, "
            f"but libvirt has {configured}",
            says(cgroup, memory_limit_kib=limit, memory_used_kib=cgroup.memory_used_kib),
            says(domain, memory_hard_limit_kib=limited(defined)),
            severity=Severity.WARNING,
            ALLOWED=-1 if defined is None else defined,
        )


LARGEST_PAGE = 64
"""KiB. The kernel rounds a memory limit down to whole pages, which have up to 64 KiB."""


@check(Severity.NOTE, traps=[task_in_flight, of_another_libvirt])
def qemu_outside_machine_group(
    guest: Guest, host: Host, domain: Domain, cgroup: Cgroup
) -> Problems:
    """The guest's QEMU process runs outside of the control group that libvirt makes for a guest.

    Limits set through libvirt do not apply to the process. If the process is in the group of a
    service or a login session, the service manager kills the guest when that service or session
    ends.

    Authority: The kernel.

    Traps: libvirt may be configured to use no control groups (`cgroup_controllers = []` in
    qemu.conf), or run in a container that does not allow them. Only controllers in which libvirt
    makes groups are compared. A process in another guest's group is a warning: the limits of that
    guest apply to it.

    Next: Check the groups of the process, and libvirt's configuration:

        cat /proc/PID/cgroup
        grep ^cgroup_controllers /etc/libvirt/qemu.conf

    Check that the server's volumes and ports are right, because a stop and start defines the guest
    again from all of nova's records:

        openstack server volume list UUID
        openstack port list --server UUID

    Then, if libvirt is to use control groups, stop and start the server at a time that suits its
    owner: a process gets its groups when it is started. The guest ends and boots again:

        openstack server stop UUID
        openstack server start UUID

    It worked if the new process is in a group named after the domain:

        cat /proc/$(cat /run/libvirt/qemu/NAME.pid)/cgroup

    Not yet: Do not restart the service in whose group the process runs.

    Source: libvirt docs/cgroups.rst.
    """
    if domain.state not in ON:
        return
    if cgroup.machine is None:
        yield problem(
            f"{guest.title}'s QEMU (PID {cgroup.pid}) is in the control group "
            f"{several(cgroup.groups, 2) or '/'}, which libvirt did not make",
            says(domain, state=domain.state_words),
            says(cgroup, groups=" ".join(cgroup.groups)),
        )
        return
    who = f"{guest.title}'s QEMU (PID {cgroup.pid})"
    chosen = known(lambda: host.hypervisor.setting("cgroup_controllers", ""))
    for controllers, path in cgroup.hierarchies.items():
        where = f"the control group {path}{_of(controllers)}"
        *_, name, below = ("", *_split(path))
        machine = machine_of(name)
        if machine is not None and machine[0] != domain.id:
            yield problem(
                f"{who} is in {where}, but its domain has the id {domain.id}",
                says(domain, name=domain.name, id=domain.id),
                derives(cgroup, "hierarchies", group=path),
                severity=Severity.WARNING,
            )
            return
        limits = not chosen and LIMITING & set(controllers.split(","))
        if not name and limits and _others(cgroup, controllers):
            yield problem(
                f"{who} is in {where}, although libvirt made a group for it",
                says(domain, name=domain.name, id=domain.id),
                derives(cgroup, "hierarchies", group=path),
            )
            return
        if below and not SUBGROUP.fullmatch(below):
            yield problem(
                f"{who} is in {where}, whose last part libvirt did not make",
                says(domain, name=domain.name, id=domain.id),
                derives(cgroup, "hierarchies", group=path),
            )
            return
    yield from _without_it(guest, host, domain, cgroup)


LIMITING = frozenset(["cpu", "memory", "blkio", "freezer", "cpuset"])
"""Controllers in which libvirt makes a group for each guest. In others (`pids`, `name=systemd`) the
service manager or nobody does."""

SUBGROUP = re.compile(r"(?:libvirt(?:/|$))?(?:(?:emulator|vcpu\d+|iothread\d+)(?:/.*)?)?")
"""What libvirt makes in the group of a guest."""


def _split(path: str) -> tuple[str, str]:
    """Return the part of a group's path that is a guest's group, and what is below it."""
    parts = path.strip("/").split("/")
    for at, part in enumerate(parts):
        if MACHINE.fullmatch(part):
            return part, "/".join(parts[at + 1 :])
    return "", ""


def _others(cgroup: Cgroup, controllers: str) -> bool:
    """True if the process is in a guest's group in most hierarchies that can limit it."""
    limiting = [
        bool(_split(path)[0])
        for names, path in cgroup.hierarchies.items()
        if names != controllers and LIMITING & set(names.split(","))
    ]
    return sum(limiting) * 2 > len(limiting)


def _of(controllers: str) -> str:
    return f" of {controllers}" if controllers else ""


def _without_it(guest: Guest, host: Host, domain: Domain, cgroup: Cgroup) -> Iterator[Problem]:
    """Yield a group of the domain that has processes, but not its QEMU."""
    listing = host.census.get("cgroup")
    own = host.cgroups.of_machines.get((domain.id or 0, domain.name), ())
    for group in own:
        if listing is not None and group.pids and cgroup.pid not in group.pids:
            others = ", ".join(map(str, group.pids))
            yield problem(
                f"{guest.title}'s control group {group.path} has the processes {others}, but not "
                f"its QEMU (PID {cgroup.pid})",
                says(domain, name=domain.name, id=domain.id),
                hears(listing, "cgroup", group.path, path=group.path, processes=others),
                severity=Severity.WARNING,
            )
            return


@check(Severity.NOTE)
def control_group_leftover(host: Host) -> Problems:
    """A guest's control group has no process: it is a leftover.

    libvirt removes a guest's group when QEMU ends. If libvirt was down at that time, the group
    stays and takes kernel memory. With systemd a scope that failed also keeps its name.

    Authority: The kernel.

    Traps: The group of a guest that was just started or stopped. Groups of running domains are not
    found.

    Next: Check that neither the group nor its subgroups have a process:

        grep -r . GROUP --include cgroup.procs

    Check whether systemd has a scope of this name:

        systemctl status SCOPE

    Then, if systemd has a scope that failed, make systemd forget it, which removes the group:

        systemctl reset-failed SCOPE

    If systemd has no such scope, remove the empty group and its subgroups (the kernel refuses to
    remove a group that has a process):

        find GROUP -depth -type d -exec rmdir {} +

    It worked if the group does not exist:

        ls -d GROUP

    Not yet: Do not kill a process that is in the group by now: it may belong to a new guest.

    Source: libvirt docs/cgroups.rst; systemd.scope(5).
    """
    for layer in ("cgroup", "libvirt"):
        if layer in host.unheard:
            raise UnheardError(host.unheard[layer])
    running = {(one.id, one.name) for one in host.domains.values() if one.id is not None}
    for group in host.cgroups.machines:
        if not group.pids and group.machine not in running:
            name = group.path.rpartition("/")[2]
            state = host.cgroups.units.get(name)
            said = hears(host.census["cgroup"], "cgroup", group.path, path=group.path, processes=0)
            failed = f": systemd has its scope as {state}" if state is not None else ""
            yield problem(
                f"Host {host.name} has the control group {name} without a process{failed}",
                said if state is None else said.and_so(unit=state),
                GROUP=group.path,
                SCOPE=name if name.endswith(".scope") else "",
            )
