"""Daemons of the host that failed, that do nothing, or that do not start with the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, hears
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.host.daemon import Condition, Unit
from hoodsnap.keep.daemon import KNOWN, daemon_of_unit
from hoodsnap.phrase import since

LIBVIRT = ("libvirtd", "virtqemud")
"""The daemons that answer for libvirt's domains: the monolithic one, and the modular one."""

SWITCH = "ovs-vswitchd"

CONTROLLERS = ("nova-conductor", "nova-scheduler")

AGENTS = tuple(name for name in KNOWN if name.startswith("neutron-") and "agent" in name)
AGENTS += ("ovn-controller",)

JUDGED = frozenset(["nova-compute", *CONTROLLERS, *LIBVIRT, SWITCH, *AGENTS])
"""The daemons of which services.py judges whether they run."""

CLUSTER_MANAGERS = ("pacemakerd", "pacemaker-remoted")


@check(Severity.WARNING)
def nova_compute_frozen(host: Host) -> Problems:
    """nova-compute runs, but does nothing: it was stopped, paused, or waits for a device.

    Its connections stay open, so nova and RabbitMQ notice nothing until the service has not
    reported for `service_down_time` (60 s). Commands for servers of this host wait, and are carried
    out all at once when it continues.

    Authority: The kernel, for the state of the process.

    Traps: A process waits for its disk for moments: it counts only if it did not run at all between
    two looks, seconds apart. A debugger stops a process as long as it is attached: gcore and pstack
    for moments, gdb until its user detaches it.

    Next: Check the process: state T was stopped by a signal, t by a debugger, D waits for a device,
    and WCHAN is the place in the kernel:

        ps -o pid,stat,lstart,wchan:24,args -p DAEMON
        grep -E 'State|TracerPid' /proc/DAEMON/status
        cat /proc/DAEMON/stack

    If its container is paused, continue the container. If it waits for a device (D), mend the disk
    or the NFS server; it continues by itself, and can't be ended before.

    If a debugger has stopped it (t), no signal lets it continue. Find out who uses the debugger:

        ps -ww -o pid,user,tty,lstart,args -p TRACER

    Then ask its user to detach (`detach` and `quit` in gdb), or end the debugger, which lets the
    daemon continue:

        kill TRACER

    If it was stopped by a signal (T), let it continue:

        kill -CONT STOPPED

    It worked if the state is S or R, and nova lists a report (Updated At) of the last ten seconds:

        ps -o pid,stat,lstart,wchan:24,args -p DAEMON
        openstack compute service list --host HOST --service nova-compute

    Not yet: Do not evacuate the host: its guests run. Do not run `openstack compute service
    delete`.

    Source: Linux proc(5), state; nova servicegroup/drivers/db.py `is_up`.
    """
    yield from _frozen(host, "nova-compute")


@check(Severity.WARNING)
def daemon_frozen(host: Host) -> Problems:
    """A daemon runs, but does nothing: it was stopped, paused, or waits for a device.

    Its connections stay open, so its clients wait for it instead of failing: with a frozen
    libvirtd, every command of virsh and nova-compute hangs; with a frozen ovs-vswitchd, guests lose
    connections one after another.

    Authority: The kernel, for the state of the process.

    Traps: A process waits for its disk for moments: it counts only if it did not run at all between
    two looks, seconds apart. A debugger stops a process as long as it is attached: gcore and pstack
    for moments, gdb until its user detaches it.

    Next: Check the process: state T was stopped by a signal, t by a debugger, D waits for a device,
    and WCHAN is the place in the kernel:

        ps -o pid,stat,lstart,wchan:24,args -p DAEMON
        grep -E 'State|TracerPid' /proc/DAEMON/status
        cat /proc/DAEMON/stack

    If its container is paused, continue the container. If it waits for a device (D), mend the disk
    or the NFS server; it continues by itself, and can't be ended before.

    If a debugger has stopped it (t), no signal lets it continue. Find out who uses the debugger:

        ps -ww -o pid,user,tty,lstart,args -p TRACER

    Then ask its user to detach (`detach` and `quit` in gdb), or end the debugger, which lets the
    daemon continue:

        kill TRACER

    If it was stopped by a signal (T), let it continue:

        kill -CONT STOPPED

    It worked if the state is S or R:

        ps -o pid,stat,lstart,wchan:24,args -p DAEMON

    Not yet: Do not restart the daemon before you know what it waits for. Do not restart the host.

    Source: Linux proc(5), state.
    """
    for name in KNOWN:
        if name != "nova-compute":
            yield from _frozen(host, name)


@check(Severity.WARNING)
def daemon_failed(host: Host) -> Problems:
    """A daemon of the host failed.

    systemd reports a service as failed if it ended with an error, or too often in a short time;
    then it stays off. Which guests that concerns depends on the daemon: without multipathd and
    iscsid, volumes are not attached, and a lost path is not replaced; without virtlogd, guests that
    write to their console may wait.

    Authority: systemd, for the unit; the kernel, for the process.

    Traps: A unit that failed while another process of the same daemon runs (in a container, or
    started by hand). The daemons of nova, neutron, libvirt and Open vSwitch have checks of their
    own.

    Next: Check the unit and its log:

        systemctl status UNIT
        journalctl -u UNIT -n 50

    Then start it, once the reason is mended:

        systemctl restart UNIT

    It worked if systemd reports the unit as active (running):

        systemctl status UNIT

    Not yet: Do not restart the host, or other daemons, before you know why this one failed.

    Source: systemd manual, systemd.service(5) and systemctl(1).
    """
    for name in KNOWN:
        if name in JUDGED:
            continue
        dead = missing(host, name, only_failed=True)
        if dead is not None:
            yield problem(f"{name} {dead.words}", *dead.evidence, UNIT=dead.unit)


@check(Severity.NOTE)
def daemon_not_enabled(host: Host) -> Problems:
    """A daemon runs, but systemd does not start it with the host.

    After the next restart of the host, nova's, neutron's or libvirt's daemon is missing, and the
    host looks dead to nova although its machine is up.

    Authority: The host; whether that is intended, its operator.

    Traps: A daemon that its socket or another unit starts. A daemon that a cluster manager
    (Pacemaker) starts. A daemon in a container, which its container engine starts.

    Next: Check which unit starts the daemon:

        systemctl status UNIT

    If it is to start with the host, enable it:

        systemctl enable UNIT

    It worked if systemd reports the unit as enabled:

        systemctl status UNIT

    Not yet: Do not restart the host before the unit is enabled.

    Source: systemd manual, systemctl(1) `enable`.
    """
    daemons = host.daemons
    if any(name in daemons.by_name for name in CLUSTER_MANAGERS):
        return
    for name in sorted(JUDGED & daemons.by_name.keys()):
        for daemon in daemons.by_name[name]:
            unit = daemons.units.get(daemon.unit or "")
            if unit is not None and unit.file == "disabled" and not _has_socket(host, name):
                evidence = hears(daemons.units_answer, "systemd", unit.name, unit=unit.name)
                yield problem(
                    f"{unit.name} runs on {host.name}, but is not enabled",
                    evidence.and_so(pid=daemon.pid, file="disabled"),
                    UNIT=unit.name,
                )
                break


@check(Severity.WARNING)
def libvirt_daemons_compete(host: Host) -> Problems:
    """libvirtd and virtqemud are both in use on one host, but only one of them can have the guests.

    libvirt's daemon for QEMU is either libvirtd or virtqemud. Both use the same definitions and the
    same state of running guests, and a lock (`/run/libvirt/qemu/driver.pid`) admits one of them, so
    the other one fails when it starts. After the next restart of the host, the other one may be
    first, and nova-compute and virsh look for the socket of the one that is missing. This state is
    left by a change to the modular daemons, or back, after which the old units are still enabled.

    Authority: The kernel, for the processes; systemd, for the units.

    Traps: virtproxyd, which only passes on connections that were made for libvirtd. A daemon in a
    container, which may have its own definitions. A unit that failed in the past, but that nothing
    starts again.

    Next: Check which of the two holds the lock, and which units are enabled:

        cat /run/libvirt/qemu/driver.pid
        systemctl status libvirtd.service virtqemud.service
        systemctl show -p Id,UnitFileState libvirtd.service libvirtd.socket
        systemctl show -p Id,UnitFileState virtqemud.service virtqemud.socket

    Check that the daemon with the lock has all guests:

        virsh list --all

    Then disable the service and the sockets of the other daemon. Running guests continue:

        systemctl disable --now UNITS

    It worked if one of the two daemons runs, and the units of the other one are inactive:

        systemctl status libvirtd.service virtqemud.service

    Not yet: Do not restart the host, libvirtd, virtqemud or nova-compute before one of the daemons
    is disabled.

    Source: libvirt src/qemu/qemu_driver.c `qemuStateInitialize`; libvirt manual, daemons.
    """
    daemons = host.daemons
    running = {name: daemons.lasting(name) for name in LIBVIRT}
    processes = [one for one in running.values() if one is not None]
    if len(processes) == len(LIBVIRT) and (
        all(one.unit is not None for one in processes) or not daemons.has_systemd
    ):
        names = " and ".join(f"{one.name} (process {one.pid})" for one in processes)
        evidence = (
            hears(daemons.census, "daemons", one.name, daemon=one.name, pid=one.pid)
            for one in processes
        )
        yield problem(f"{names} both run on {host.name}", *evidence)
        return
    for name, other in (LIBVIRT, LIBVIRT[::-1]):
        process = running[name]
        if process is None or process.unit is None or running[other] is not None:
            continue
        units = {unit.name: unit for unit in units_of(host, (other,))}
        failed = units.get(f"{other}.service")
        if failed is None or not failed.has_failed:
            continue
        started = [unit.name for unit in units.values() if unit.file == "enabled"]
        if failed.sub != "auto-restart" and not started:
            continue  # nothing starts it again
        said = hears(daemons.units_answer, "systemd", failed.name, unit=failed.name)
        yield problem(
            f"{failed.name} fails on {host.name} while {name} (process {process.pid}) runs",
            hears(daemons.census, "daemons", name, daemon=name, pid=process.pid),
            said.and_so(state=failed.active, enabled=", ".join(sorted(started)) or "none"),
            UNITS=" ".join(sorted({failed.name, *started})),
        )


def _has_socket(host: Host, name: str) -> bool:
    return any(
        unit.name.endswith(".socket")
        and unit.file == "enabled"
        and daemon_of_unit(unit.name) == name
        for unit in host.daemons.units.values()
    )


def _frozen(host: Host, name: str) -> Iterator[Problem]:
    if name not in host.daemons.by_name:
        return
    condition, daemon = host.daemons.condition(name)
    if condition in (Condition.RUNNING, Condition.MISSING) or daemon is None:
        return
    evidence = hears(host.daemons.census, "daemons", name, daemon=name, pid=daemon.pid)
    evidence = evidence.and_so(state=condition.value)
    words, stopped = str(condition), ""
    tracer: str | None = ""
    if condition is Condition.STOPPED:
        stopped = str(daemon.pid)
    if condition is Condition.TRACED or (condition is Condition.STOPPED and daemon.tracer):
        tracer, stopped = str(daemon.tracer) if daemon.tracer else None, ""
        program = daemon.tracer_name or "a debugger"
        number = f"PID {tracer}, " if tracer else ""
        words = f"stopped by {program} ({number}state {daemon.state})"
        evidence = evidence.and_so(tracer=daemon.tracer)
    yield problem(
        f"{name} on {host.name} (process {daemon.pid}) is {words}",
        evidence,
        severity=Severity.ERROR if name == SWITCH else None,
        DAEMON=daemon.pid,
        TRACER=tracer,
        STOPPED=stopped,
    )


class MissingDaemon(NamedTuple):
    """A daemon that does not run: the end of a headline, evidence, and its unit."""

    words: str
    """`has not run on vm since 09:02 (5 min): its unit failed (oom-kill)`."""
    evidence: tuple[Evidence, ...]
    unit: str | None


def missing(
    host: Host, *names: str, is_expected: bool = False, only_failed: bool = False
) -> MissingDaemon | None:
    """Return what is known of a daemon that does not run; None if it runs or is not expected.

    A daemon is expected if nova or neutron has a record of it (`is_expected`), or if its unit
    failed or is enabled but inactive (`only_failed`: only if it failed). `names`: the daemon may
    have any of them. Raises `UnheardError` if it is unknown whether the daemon runs.
    """
    units = [unit for unit in units_of(host, names) if unit.name.endswith(".service")]
    broken = [
        unit
        for unit in units
        if unit.has_failed
        or (not only_failed and unit.active == "inactive" and unit.file == "enabled")
    ]
    if not is_expected and not broken:
        return None
    condition, _ = host.daemons.condition(*names)
    if condition is not Condition.MISSING:
        return None
    unit = next(iter(broken or units), None)
    name = (daemon_of_unit(unit.name) if unit else None) or names[0]
    census = hears(host.daemons.census, "daemons", name, daemon=name, state=condition.value)
    if unit is None:
        return MissingDaemon(f"is {condition} on {host.name}", (census,), None)
    said = hears(host.daemons.units_answer, "systemd", unit.name, unit=unit.name)
    states = {"state": unit.active, "result": unit.result, "ended_with": unit.end}
    known = {key: value for key, value in states.items() if value is not None}
    evidence = (census, said.and_so(**known, restarts=unit.restarts or 0))
    return MissingDaemon(_off(unit, host), evidence, unit.name)


def _off(unit: Unit, host: Host) -> str:
    """Return since when a unit has been off, and why, as the end of a headline.

    `has not run on vm since 09:02 (5 min): its unit failed (oom-kill)`
    """
    words = f"is not running on {host.name}"
    if unit.since is not None:
        words = f"has not run on {host.name} {since(unit.since, host.bundle.ended)}"
    if not unit.has_failed:
        return f"{words}: its unit is {unit.active}"
    reasons = [one for one in (unit.result, unit.end) if one not in (None, "success", "exit-code")]
    how = f" ({', '.join(reasons)})" if reasons else ""
    return f"{words}: its unit failed{how}"


def units_of(host: Host, names: Iterable[str]) -> Iterator[Unit]:
    """Yield the services and sockets of systemd that start these daemons."""
    wanted = set(names)
    for unit in host.daemons.units.values():
        if daemon_of_unit(unit.name) in wanted:
            yield unit
