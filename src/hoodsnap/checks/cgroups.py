"""Control groups: the limits that the kernel enforces on a guest, and the groups themselves."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import of_another_libvirt, task_in_flight
from hoodsnap.evidence import Severity, derives, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.hardware import DEFAULT_PERIOD
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, is_true
from hoodsnap.facts.host.cgroup import Cgroup
from hoodsnap.phrase import several, sizes


@check(Severity.WARNING, traps=[task_in_flight])
def cpu_quota_not_applied(guest: Guest, domain: Domain, cgroup: Cgroup) -> Problems:
    """The kernel's limit on the guest's CPU time differs from libvirt's definition of the guest.

    libvirt writes the flavor's `quota:cpu_quota` into the control group of each vCPU. A script that
    writes to /sys/fs/cgroup, or a service manager that is reloaded, changes the group without
    libvirt's knowledge. The guest then is slow for no reason that nova or libvirt shows, or uses
    more CPU time than it was sold.

    Authority: The kernel, for the limit in force; libvirt, for the limit that was configured.

    Traps: Both values are per vCPU, in percent of one host CPU. For a running guest `virsh
    schedinfo` shows the kernel's values, not the definition's. The limit of the whole guest
    (`global_quota`) is not compared.

    Next: Check the limit in the definition (without `<quota>`: no limit), and the kernel's:

        virsh dumpxml NAME | grep -E '<(quota|period)>'
        virsh schedinfo NAME

    Then set the kernel's limit to the definition's quota (-1: no limit), which works at once:

        virsh schedinfo NAME --live vcpu_period=100000 vcpu_quota=QUOTA

    It worked if vcpu_quota shows it:

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
            says(domain, vcpu_percent=_limit(sold)),
            says(cgroup, vcpu_percent=_limit(cgroup.vcpu_percent)),
            QUOTA=-1 if sold is None else sold * DEFAULT_PERIOD // 100,
        )


def _limit(percent: int | None) -> str:
    return "no limit" if percent is None else str(percent)


def _words(percent: int | None) -> str:
    return "no limit" if percent is None else f"a limit of {percent} % of a CPU"


@check(Severity.ERROR, traps=[task_in_flight])
def memory_limit_below_guest(guest: Guest, domain: Domain, cgroup: Cgroup) -> Problems:
    """The guest's control group allows less memory than the guest has.

    As soon as the guest uses all memory of its flavor, the kernel kills QEMU. The limit comes from
    the flavor (`quota:memory_limit`), from `virsh memtune`, or from a write to /sys/fs/cgroup.

    Authority: The kernel.

    Traps: QEMU needs memory beside the guest's, so a limit that is only slightly too low is not
    found. Huge pages do not count toward the limit, and a guest with huge pages is not checked.

    Next: Check the limit and the guest's memory:

        virsh memtune NAME
        virsh dommemstat NAME

    Then remove the limit, which takes effect at once:

        virsh memtune NAME --hard-limit -1 --live

    It worked if hard_limit is unlimited:

        virsh memtune NAME

    Not yet: Do not reboot the guest: a booting guest touches more memory.

    Source: libvirt docs/formatdomain.rst, `hard_limit`, which warns of it; kernel
    Documentation/admin-guide/cgroup-v2.rst, `memory.max`.
    """
    if domain.state not in ON or domain.has_huge_pages:
        return
    limit, memory = cgroup.memory_limit_kib, domain.current_memory_kib
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
        )


@check(Severity.NOTE, traps=[task_in_flight, of_another_libvirt])
def qemu_outside_machine_group(guest: Guest, domain: Domain, cgroup: Cgroup) -> Problems:
    """The guest's QEMU process runs outside of the control group that libvirt makes for a guest.

    Limits set through libvirt do not apply to the process. If the process is in the group of a
    service or a login session, the service manager kills the guest when that service or session
    ends. Somebody may also have moved it out for some controllers only (a warning).

    Authority: The kernel.

    Traps: libvirt may be configured to use no control groups (`cgroup_controllers = []` in
    qemu.conf), or run in a container that does not allow them. A controller counts as left only if
    all other guests of the host are in their own groups for it.

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
    if domain.state in ON and cgroup.machine is None:
        yield problem(
            f"{guest.title}'s QEMU (PID {cgroup.pid}) is in the control group "
            f"{several(cgroup.groups, 2) or '/'}, which libvirt did not make",
            says(domain, state=domain.state_words),
            says(cgroup, groups=" ".join(cgroup.groups)),
        )
    elif domain.state in ON and guest.host is not None:
        yield from _partly_outside(guest, guest.host, domain, cgroup)


def _partly_outside(guest: Guest, host: Host, domain: Domain, cgroup: Cgroup) -> Problems:
    """Report hierarchies in which other guests are in a group of their own, but not this one."""
    others = [other for pid, other in host.cgroups.by_pid.items() if pid != cgroup.pid]
    left = [
        names
        for names in cgroup.hierarchies
        if not cgroup.is_inside(names)
        and others
        and all(is_true(lambda: other.is_inside(names)) for other in others)  # noqa: B023
    ]
    if left:
        shown = several(name or "unified" for name in left)
        yield problem(
            f"{guest.title}'s QEMU (PID {cgroup.pid}) is in its own control group {cgroup.machine},"
            f" but not for {shown}: limits there do not apply",
            says(domain, state=domain.state_words),
            says(cgroup, groups=" ".join(f"{name}:{cgroup.hierarchies[name]}" for name in left)),
            severity=Severity.WARNING,
        )


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
