"""Daemons of the host: programs that nova, neutron and libvirt rely on and that do not work.

nova and neutron notice that only after a minute without a report, libvirt and Open vSwitch report
nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.host import DOWN_TIME, seconds_silent
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.agent import Agent
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.service import Service
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.daemon import Condition, Unit
from hoodsnap.facts.quantity import whole
from hoodsnap.keep.daemon import KNOWN, daemon_of_unit
from hoodsnap.phrase import lasting, several, since

RETIRED = 86_400
"""Seconds without a report after which a service or an agent without a process was removed."""

LIBVIRT = ("libvirtd", "virtqemud")
"""The daemons that answer for libvirt's domains: the monolithic one, and the modular one."""

SWITCH = "ovs-vswitchd"

CONTROLLERS = ("nova-conductor", "nova-scheduler")

AGENTS = tuple(name for name in KNOWN if name.startswith("neutron-") and "agent" in name)
AGENTS += ("ovn-controller",)

JUDGED = frozenset(["nova-compute", *CONTROLLERS, *LIBVIRT, SWITCH, *AGENTS])
"""The daemons that have a check of their own."""

CLUSTER_MANAGERS = ("pacemakerd", "pacemaker-remoted")


@check(Severity.WARNING)
def nova_compute_not_running(host: Host, cloud: Cloud) -> Problems:
    """nova-compute does not run on its host.

    Running guests are not affected. But nova accepts commands for them that nothing carries out:
    reboots, deletions and attachments wait, and servers that were stopped do not start. nova itself
    notices that only when the service has not reported for `service_down_time` (60 s).

    Authority: The host.

    Traps: A host without a nova-compute service in nova, as a controller. A service that was forced
    down for an evacuation. A nova-compute that restarts: it is looked for twice, seconds apart. A
    collector that can't see the host's processes.

    Next: Check the process, its unit and its log:

        ps -o pid,stat,lstart,args -C nova-compute
        systemctl status UNIT
        tail -n 50 /var/log/nova/nova-compute.log

    Then start it:

        systemctl start UNIT

    Then check that nova reports it as up:

        openstack compute service list --host HOST --service nova-compute

    Not yet: Do not evacuate the host: its guests run. Do not run `openstack compute service
    delete`. Do not send commands for its servers again: each is carried out once nova-compute runs.

    Source: nova servicegroup/drivers/db.py `is_up`; nova admin guide, compute service.
    """
    service = next(iter(_services(host)), None)
    if service is not None and _is_forced_down(service):
        return
    dead = _missing(host, "nova-compute", is_expected=service is not None)
    if dead is None:
        return
    headline = f"nova-compute is {dead.words} on {host.name}"
    guests = sum(guest.process is not None for guest in cloud.guests_of(host))
    evidence = [*dead.evidence]
    severity = None
    if service is not None:
        age = seconds_silent(host, service)
        down = whole(host.option("DEFAULT", "service_down_time")) or DOWN_TIME
        state = "down" if age > down else "up"
        headline += f"; nova reports it as {state}, {lasting(age)} after its last report"
        said = says(service, last_seen_up=service.last_seen_up)
        evidence.append(said.and_so(seconds_ago=round(age), running_guests=guests))
        if service.disabled and not (service.disabled_reason or "").startswith("AUTO:"):
            severity = Severity.NOTE
            headline = f"nova-compute is {dead.words} on {host.name}, where it is disabled in nova"
            evidence.append(says(service, disabled=True, disabled_reason=service.disabled_reason))
    yield problem(headline, *evidence, severity=severity, UNIT=dead.unit)


@check(Severity.WARNING)
def nova_controller_not_running(host: Host, cloud: Cloud) -> Problems:
    """nova-conductor or nova-scheduler does not run on the host where nova lists it.

    nova-compute writes to the database through nova-conductor, and servers are built and moved by
    nova-scheduler. If no other host has them, requests wait and end after a minute
    (`MessagingTimeout`), and servers stay in their task state. If other hosts have them, those have
    more to do.

    Authority: The host.

    Traps: A service that did not report for a day was moved to another host, and its record was
    left behind. A disabled service. A service that restarts: it is looked for twice, seconds apart.

    Next: Check the process, its unit and its log, and which others are up:

        ps -o pid,stat,lstart,args -C nova-conductor,nova-scheduler
        systemctl status UNIT
        openstack compute service list

    Then start it:

        systemctl start UNIT

    Not yet: Do not reset the state of servers (`openstack server set --state`) whose task waits for
    the conductor. Do not restart nova-compute: it waits for a conductor when it starts.

    Source: nova conductor/api.py `wait_until_ready`; nova reference, conductor.
    """
    rows = [row for row in host.records.services if row.host in (host.nova_name, host.name)]
    for name in CONTROLLERS:
        own = [row for row in rows if row.binary == name and not row.deleted and not row.disabled]
        own = [row for row in own if seconds_silent(host, row) < RETIRED]
        dead = _missing(host, name, is_expected=bool(own))
        if dead is None:
            continue
        headline = f"{name} is {dead.words} on {host.name}"
        evidence = [*dead.evidence]
        for row in own[:1]:
            age = seconds_silent(host, row)
            headline += f", {lasting(age)} after its last report"
            said = says(row, last_seen_up=row.last_seen_up)
            evidence.append(said.and_so(seconds_ago=round(age)))
        others = sorted(
            {
                row.host
                for row in host.records.services
                if row.binary == name and row.host and row not in rows and not row.deleted
            }
        )
        if others:
            headline += f"; nova lists it on {several(others)}, too"
        yield problem(headline, *evidence, UNIT=dead.unit)


@check(Severity.WARNING)
def libvirt_not_running(host: Host, cloud: Cloud) -> Problems:
    """libvirt's daemon does not run on a compute host.

    Guests keep running without libvirt, but nothing can be done with them: nova-compute disables
    its service, and every command for a server of this host fails. When libvirt starts, it finds
    the guests again.

    Authority: The host.

    Traps: A modular daemon (virtqemud) ends after two idle minutes and is started by its socket:
    if libvirt answers, or a socket is active, it is not missing. A host without nova-compute and
    without guests needs no libvirt. A collector that can't see the host's processes.

    Next: Check the daemon, its sockets and its log:

        systemctl status libvirtd.service virtqemud.service virtqemud.socket
        ps -o pid,stat,lstart,args -C libvirtd,virtqemud
        journalctl -u libvirtd -u virtqemud -n 50

    Then start the unit that this host uses:

        systemctl start UNIT

    Then check that it lists the guests:

        virsh list --all

    Not yet: Do not start guests by hand and do not end their processes. Do not evacuate the host.

    Source: libvirt manual, libvirtd and virtqemud (sockets, `--timeout`); nova
    virt/libvirt/host.py `_close_callback`.
    """
    asked = [one for one in cloud.bundle.by_layer.get("libvirt", ()) if one.host == host.name]
    if not asked:
        raise UnheardError("libvirt was not collected")
    if any(answer.error is None for answer in asked):
        return
    refused = [one for one in asked if one.error and one.error.kind in ("unreachable", "timeout")]
    if not refused:
        raise UnheardError("libvirt could not be asked, so it may run")
    guests = len(host.processes.own)
    if not guests and not _has_compute(host):
        return
    sockets = [unit for unit in _units(host, LIBVIRT) if unit.name.endswith(".socket")]
    if any(unit.active == "active" for unit in sockets):
        return
    dead = _missing(host, *LIBVIRT, is_expected=True)
    if dead is not None and refused[0].error is not None:
        without = f"; {guests} guests run without it" if guests else ""
        said = hears(refused[0], "libvirt", error=refused[0].error.message)
        headline = f"libvirt's daemon is {dead.words} on {host.name}{without}"
        yield problem(headline, *dead.evidence, said, UNIT=dead.unit)


@check(Severity.WARNING)
def network_agent_not_running(host: Host, cloud: Cloud) -> Problems:
    """An agent of neutron does not run on its host.

    Running guests keep their connections, as the agents only change the network. But without the
    agent that wires ports (Open vSwitch, Linux bridge, OVN), servers that start, move or get a port
    here have no network; without the DHCP agent they get no address; without the L3 and metadata
    agents new routers, floating IP addresses and metadata do not work. neutron reports an agent as
    alive until it has not reported for `agent_down_time` (75 s).

    Authority: The host.

    Traps: An agent that did not report for a day was removed, and its record was left behind. An
    agent that restarts: it is looked for twice, seconds apart. An agent on another host that has
    the same name in neutron.

    Next: Check the agent in neutron and on the host:

        openstack network agent list --host HOST --long
        ps -e -o pid,stat,lstart,args
        systemctl status UNIT

    Then start it; existing wiring stays as it is:

        systemctl start UNIT

    Not yet: Do not run `openstack server reboot --hard`, do not migrate to this host and do not
    attach ports while the agent that wires ports is missing. Do not delete the agent's record.

    Source: neutron db/agents_db.py `is_agent_down`; neutron admin guide, agents.
    """
    agents = host.ports.agents
    if agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    own = {
        agent.binary: agent
        for agent in agents.values()
        if agent.host == host.nova_name and agent.binary in AGENTS and _reported(agent)
    }
    units = {daemon_of_unit(name) for name in host.daemons.units}
    for name in AGENTS:
        if name not in own and name not in units:
            continue
        dead = _missing(host, name, is_expected=name in own)
        if dead is None:
            continue
        headline = f"{name} is {dead.words} on {host.name}"
        evidence = [*dead.evidence]
        if (agent := own.get(name)) is not None:
            state = "alive" if agent.alive else "dead"
            headline += f"; neutron reports it as {state}"
            evidence.append(says(agent, heartbeat=agent.heartbeat, alive=agent.alive))
        yield problem(headline, *evidence, UNIT=dead.unit)


@check(Severity.ERROR)
def open_vswitch_not_running(host: Host) -> Problems:
    """Open vSwitch's switch, ovs-vswitchd, does not run although its database does.

    The kernel forwards only the flows that it already knows, and forgets each of them after ten
    idle seconds: guests lose connections one after another. The database (ovsdb-server) still
    answers, with the last states that the switch wrote.

    Authority: The host.

    Traps: A host whose switch runs on a network card (DPU) has no database of Open vSwitch with
    taps. A switch that restarts: it is looked for twice, seconds apart. A collector that can't see
    the host's processes.

    Next: Check the process, its unit and its log:

        ps -o pid,stat,lstart,args -C ovs-vswitchd
        systemctl status UNIT
        tail -n 50 /var/log/openvswitch/ovs-vswitchd.log

    Then start it:

        systemctl start UNIT

    Not yet: Do not restart neutron-openvswitch-agent or ovn-controller before the switch works: the
    flows can't be written. Do not reboot guests.

    Source: Open vSwitch manual, ovs-vswitchd(8); Open vSwitch ofproto-dpif, `max-idle`.
    """
    switch, listing = host.network.switch, host.network.switch_listing
    expected = not isinstance(switch, UnheardError) and any(tap.startswith("tap") for tap in switch)
    dead = _missing(host, SWITCH, is_expected=expected)
    if dead is not None:
        evidence = [*dead.evidence]
        if expected and listing is not None and not isinstance(switch, UnheardError):
            evidence.append(hears(listing, "ovsdb-server", interfaces=len(switch)))
        headline = f"ovs-vswitchd is {dead.words} on {host.name}"
        yield problem(headline, *evidence, UNIT=dead.unit)


@check(Severity.WARNING)
def nova_compute_frozen(host: Host) -> Problems:
    """nova-compute runs, but does nothing: it was stopped, paused, or waits for a device.

    Its connections stay open, so nova and RabbitMQ notice nothing until the service has not
    reported for `service_down_time` (60 s). Commands for servers of this host wait, and are carried
    out all at once when it continues.

    Authority: The kernel, for the state of the process.

    Traps: A process waits for its disk for moments: it counts only if it did not run at all between
    two looks, seconds apart. A debugger stops a process as long as it is attached.

    Next: Check the process: state T was stopped by a signal or a debugger, D waits for a device,
    and WCHAN is the place in the kernel:

        ps -o pid,stat,lstart,wchan:24,args -p DAEMON
        grep -E 'State|TracerPid' /proc/DAEMON/status
        cat /proc/DAEMON/stack

    If it was stopped (T), let it continue:

        kill -CONT DAEMON

    If its container is paused, continue the container. If it waits for a device (D), mend the disk
    or the NFS server; it continues by itself, and can't be ended before.

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
    two looks, seconds apart. A debugger stops a process as long as it is attached.

    Next: Check the process: state T was stopped by a signal or a debugger, D waits for a device,
    and WCHAN is the place in the kernel:

        ps -o pid,stat,lstart,wchan:24,args -p DAEMON
        grep -E 'State|TracerPid' /proc/DAEMON/status
        cat /proc/DAEMON/stack

    If it was stopped (T), let it continue:

        kill -CONT DAEMON

    If its container is paused, continue the container. If it waits for a device (D), mend the disk
    or the NFS server; it continues by itself, and can't be ended before.

    Not yet: Do not restart the daemon before you know what it waits for. Do not restart the host.

    Source: Linux proc(5), state.
    """
    for name in sorted(host.daemons.by_name):
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

    Not yet: Do not restart the host, or other daemons, before you know why this one failed.

    Source: systemd manual, systemd.service(5) and systemctl(1).
    """
    for name in KNOWN:
        if name in JUDGED:
            continue
        dead = _missing(host, name, only_failed=True)
        if dead is not None:
            yield problem(f"{name} is {dead.words} on {host.name}", *dead.evidence, UNIT=dead.unit)


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
    yield problem(
        f"{name} on {host.name} (process {daemon.pid}) is {condition}",
        evidence.and_so(state=condition.value),
        severity=Severity.ERROR if name == SWITCH else None,
        DAEMON=daemon.pid,
    )


class _Missing(NamedTuple):
    """A daemon that does not run: words for the headline, evidence, and its unit."""

    words: str
    evidence: tuple[Evidence, ...]
    unit: str | None


def _missing(
    host: Host, *names: str, is_expected: bool = False, only_failed: bool = False
) -> _Missing | None:
    """Return what is known of a daemon that does not run; None if it runs or is not expected.

    A daemon is expected if nova or neutron has a record of it (`is_expected`), or if its unit
    failed or is enabled but inactive (`only_failed`: only if it failed). `names`: the daemon may
    have any of them. Raises `UnheardError` if it is unknown whether the daemon runs.
    """
    units = [unit for unit in _units(host, names) if unit.name.endswith(".service")]
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
        return _Missing(condition.value, (census,), None)
    said = hears(host.daemons.units_answer, "systemd", unit.name, unit=unit.name)
    states = {"state": unit.active, "result": unit.result, "exit_status": unit.exit_status}
    known = {key: value for key, value in states.items() if value is not None}
    evidence = (census, said.and_so(**known, restarts=unit.restarts or 0))
    return _Missing(condition.value + _ended(unit, host.bundle.ended), evidence, unit.name)


def _ended(unit: Unit, now: datetime) -> str:
    """Return since when, and how, a unit ended: ` since 09:02 (5 min), its unit failed (oom-kill)`."""
    when = f" {since(unit.since, now)}" if unit.since is not None else ""
    if not unit.has_failed:
        return f"{when}, its unit is {unit.active}"
    how = f" ({unit.result})" if unit.result not in (None, "success") else ""
    return f"{when}, its unit failed{how}"


def _units(host: Host, names: Iterable[str]) -> Iterator[Unit]:
    wanted = set(names)
    for unit in host.daemons.units.values():
        if daemon_of_unit(unit.name) in wanted:
            yield unit


def _services(host: Host) -> Iterable[Service]:
    """Return nova's records of the host's nova-compute; nothing if no database was collected.

    Without them the state of the unit still shows whether the daemon is expected.
    """
    try:
        return host.records.services_of(host.nova_name)
    except UnheardError:
        host.daemons.units  # noqa: B018 (raises if that was not collected either)
        if not host.daemons.units:
            raise
        return ()


def _has_compute(host: Host) -> bool:
    return bool([*_services(host)])


def _is_forced_down(service: Service) -> bool:
    return "forced_down" in service.raw and service.forced_down


def _reported(agent: Agent) -> bool:
    """True if neutron counts the agent as alive, or heard of it within a day."""
    if agent.alive:
        return True
    heartbeat, answer = moment(agent.heartbeat), agent.where("heartbeat")[0]
    if heartbeat is None or answer is None:
        return False
    return (answer.at - heartbeat).total_seconds() < RETIRED
