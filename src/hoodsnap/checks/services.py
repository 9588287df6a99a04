"""Services of the host: the daemons that nova, neutron and the guests need, and that do not run.

nova and neutron notice a daemon that ended only after a minute without a report; libvirt and Open
vSwitch report nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.daemons import AGENTS, CONTROLLERS, LIBVIRT, SWITCH, missing, units_of
from hoodsnap.checks.host import DOWN_TIME, seconds_silent
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.agent import Agent
from hoodsnap.facts.api.service import ListedService, read_services
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.service import Service
from hoodsnap.facts.fact import UnheardError, text
from hoodsnap.facts.host.daemon import Condition
from hoodsnap.facts.quantity import whole
from hoodsnap.keep.daemon import daemon_of_unit
from hoodsnap.phrase import lasting

RETIRED = 86_400
"""Seconds without a report after which a service or an agent without a process was removed."""


NO_CONNECTION = "accepted no connection"
"""Part of the message of a connection to libvirt that was not made in time."""


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

    It worked if the process runs, and nova lists a report (Updated At) that is later than its
    start; the state is up for a minute after the last report:

        ps -o pid,stat,lstart,args -C nova-compute
        openstack compute service list --host HOST --service nova-compute

    Not yet: Do not start it while a server has stuck-task-state or partial-deletion: nova-compute
    may end the task at its start, for example by powering the guest off. Do not evacuate the host:
    its guests run. Do not run `openstack compute service delete`. Do not send commands for its
    servers again: each is carried out once nova-compute runs.

    Source: nova servicegroup/drivers/db.py `is_up`; nova compute/manager.py `_init_instance`; nova
    admin guide, compute service.
    """
    service = next(iter(_registered(host, "nova-compute", host.nova_name)), None)
    if service is not None and service.is_forced_down:
        return
    dead = missing(host, "nova-compute", is_expected=service is not None, only_failed=True)
    if dead is None:
        return
    headline = f"nova-compute {dead.words}"
    evidence, severity = [*dead.evidence], None
    if service is not None:
        headline += f"; nova reports it as {service.words}"
        guests = sum(guest.is_served for guest in cloud.guests_of(host))
        evidence.append(service.evidence.and_so(running_guests=guests))
        if service.is_disabled:
            headline += " and disabled"
            severity = Severity.NOTE
    yield problem(headline, *evidence, severity=severity, UNIT=dead.unit)


@check(Severity.WARNING)
def nova_controller_not_running(host: Host) -> Problems:
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

    It worked if the process runs, and nova lists a report (Updated At) that is later than its
    start:

        ps -o pid,stat,lstart,args -C nova-conductor,nova-scheduler
        openstack compute service list --host HOST

    Not yet: Do not reset the state of servers (`openstack server set --state`) whose task waits for
    the conductor. Do not restart nova-compute: it waits for a conductor when it starts.

    Source: nova conductor/api.py `wait_until_ready`; nova reference, conductor.
    """
    for name in CONTROLLERS:
        own = [
            one
            for one in _registered(host, name, host.nova_name, host.name)
            if not one.is_disabled and one.silent < RETIRED
        ]
        dead = missing(host, name, is_expected=bool(own), only_failed=True)
        if dead is None:
            continue
        headline = f"{name} {dead.words}"
        if own:
            headline += f"; nova reports it as {own[0].words}"
        evidence = [*dead.evidence, *(one.evidence for one in own[:1])]
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

    It worked if libvirt lists the guests:

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
    if not guests and not _registered(host, "nova-compute", host.nova_name):
        return
    sockets = [unit for unit in units_of(host, LIBVIRT) if unit.name.endswith(".socket")]
    if any(unit.active == "active" for unit in sockets):
        return
    dead = missing(host, *LIBVIRT, is_expected=True)
    if dead is not None and refused[0].error is not None:
        without = f"; {guests} guests run without it" if guests else ""
        said = hears(refused[0], "libvirt", error=refused[0].error.message)
        headline = f"libvirt's daemon {dead.words}{without}"
        yield problem(headline, *dead.evidence, said, UNIT=dead.unit)


@check(Severity.WARNING)
def libvirt_accepts_no_connection(host: Host, cloud: Cloud) -> Problems:
    """libvirt's daemon runs, but accepts no new connection.

    It has as many clients as it may have (`max_clients`), often because a monitoring agent leaks
    connections, or it hangs. Guests keep running, and nova-compute keeps the connection that it
    has, so nothing else shows it. But virsh, migrations to this host and a restarted nova-compute
    wait for a connection for ever.

    Authority: The host.

    Traps: A daemon that was stopped or waits for a device is daemon-frozen's. A daemon that
    answered any question is only slow. Refused connections are libvirt-not-running's.

    Next: Compare the number of clients with the limit, and find the client that has the most
    connections:

        virt-admin -c LIBVIRT:///system srv-clients-info LIBVIRT
        virt-admin -c LIBVIRT:///system srv-clients-list LIBVIRT
        grep max_ /etc/libvirt/LIBVIRT.conf
        journalctl -u LIBVIRT -n 50

    If all connections are taken, end or mend the client that leaks them. If the daemon hangs, or
    nothing else helps, restart it: guests keep running, and nova-compute connects again:

        systemctl restart LIBVIRT

    It worked if libvirt lists the guests:

        virsh list --all

    Not yet: Do not restart nova-compute, or the host: nova-compute gives its connection up, and
    gets no other. Do not end the guests' processes. Do not evacuate the host.

    Source: libvirt manual, virt-admin; libvirtd.conf, `max_clients`.
    """
    asked = [one for one in cloud.bundle.by_layer.get("libvirt", ()) if one.host == host.name]
    if not asked:
        raise UnheardError("libvirt was not collected")
    silent = [one for one in asked if one.error and NO_CONNECTION in one.error.message]
    if not silent or any(answer.error is None for answer in asked):
        return
    condition, process = host.daemons.condition(*LIBVIRT)
    if condition is not Condition.RUNNING or process is None or silent[0].error is None:
        return
    yield problem(
        f"{process.name} (PID {process.pid}) runs on {host.name}, but accepts no connection",
        hears(host.daemons.census, "daemon", process.name, pid=process.pid, state=process.state),
        hears(silent[0], "libvirt", error=silent[0].error.message),
        LIBVIRT=process.name,
    )


@check(Severity.WARNING)
def network_agent_not_running(host: Host) -> Problems:
    """An agent of neutron does not run on its host, or it is disabled in neutron.

    Running guests keep their connections, as the agents only change the network. But without the
    agent that wires ports (Open vSwitch, Linux bridge, OVN), servers that start, move or get a port
    here have no network; without the DHCP agent they get no address; without the L3 and metadata
    agents new routers, floating IP addresses and metadata do not work. neutron reports an agent as
    alive until it has not reported for `agent_down_time` (75 s).

    A disabled agent (a note) runs and counts as alive. neutron gives it no new networks or routers,
    and takes away those that it has (`enable_services_on_agents_with_admin_state_down` = False).
    An agent that wires ports still gets its ports: neutron's ml2 ignores that it is disabled.

    Authority: The host, for whether the agent runs; neutron, for whether it is disabled.

    Traps: An agent that did not report for a day was removed, and its record was left behind. An
    agent that restarts: it is looked for twice, seconds apart. An agent on another host that has
    the same name in neutron. An operator disables an agent on purpose, for maintenance.

    Next: Check the agent in neutron and on the host:

        openstack network agent list --host HOST --long
        ps -e -o pid,stat,lstart,args
        systemctl status UNIT

    Then start it; existing wiring stays as it is:

        systemctl start UNIT

    If it runs but is disabled, and nobody keeps it so on purpose, enable it:

        openstack network agent set --enable DISABLED_AGENT

    It worked if neutron has it enabled (admin_state_up) and a heartbeat (last_heartbeat_at) that is
    later than the start; the agent counts as alive for 75 s after the last one:

        openstack network agent show AGENT

    Not yet: Do not run `openstack server reboot --hard`, do not migrate to this host and do not
    attach ports while the agent that wires ports is missing. Do not delete the agent's record.

    Source: neutron db/agents_db.py `is_agent_down`, db/agentschedulers_db.py `services_available`,
    ml2 mech_agent.py `bind_port`; neutron admin guide, agents.
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
        dead = missing(host, name, is_expected=name in own, only_failed=True)
        if dead is None:
            if (agent := own.get(name)) is not None and agent.enabled is False:
                yield problem(
                    f"{name} runs, but it is disabled in neutron",
                    says(agent, enabled=False, alive=agent.alive, heartbeat=agent.heartbeat),
                    severity=Severity.NOTE,
                    UNIT="",
                    AGENT=text(agent.raw, "id"),
                    DISABLED_AGENT=text(agent.raw, "id"),
                )
            continue
        headline = f"{name} {dead.words}"
        evidence = [*dead.evidence]
        if (agent := own.get(name)) is not None:
            state = "alive" if agent.alive else "dead"
            headline += f"; neutron reports it as {state}"
            evidence.append(says(agent, heartbeat=agent.heartbeat, alive=agent.alive))
        record = text(agent.raw, "id") if agent is not None else None
        yield problem(headline, *evidence, UNIT=dead.unit, AGENT=record, DISABLED_AGENT="")


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

    It worked if the process runs, and the log has no new error:

        ps -o pid,stat,lstart,args -C ovs-vswitchd
        tail -n 50 /var/log/openvswitch/ovs-vswitchd.log

    Not yet: Do not restart neutron-openvswitch-agent or ovn-controller before the switch works: the
    flows can't be written. Do not reboot guests.

    Source: Open vSwitch manual, ovs-vswitchd(8); Open vSwitch ofproto-dpif, `max-idle`.
    """
    switch, listing = host.network.switch, host.network.switch_listing
    expected = not isinstance(switch, UnheardError) and any(tap.startswith("tap") for tap in switch)
    dead = missing(host, SWITCH, is_expected=expected, only_failed=True)
    if dead is not None:
        evidence = [*dead.evidence]
        if expected and listing is not None and not isinstance(switch, UnheardError):
            evidence.append(hears(listing, "ovsdb-server", interfaces=len(switch)))
        headline = f"ovs-vswitchd {dead.words}"
        yield problem(headline, *evidence, UNIT=dead.unit)


class _Registration(NamedTuple):
    """nova's record of a service."""

    evidence: Evidence
    silent: float
    """Seconds without a report."""
    is_down: bool
    is_disabled: bool
    """True if an operator disabled it; False also if nova-compute disabled itself."""
    is_forced_down: bool

    @property
    def words(self) -> str:
        """Its state in nova: `up, 17 s after its last report`."""
        return f"{'down' if self.is_down else 'up'}, {lasting(self.silent)} after its last report"


def _registered(host: Host, binary: str, *names: str) -> Sequence[_Registration]:
    """Return nova's records of a service on the host, from its API or else from its database.

    `names`: the names that the host may have in nova. Raises `UnheardError` if neither was
    collected.
    """
    try:
        listed = read_services(host.bundle)
    except UnheardError:
        host.records.services_of(names[0])  # raises if a cell was not collected
        rows = [row for row in host.records.services if row.binary == binary and not row.deleted]
        return [_of_row(host, row) for row in rows if row.host in names]
    return [_of_api(one) for one in listed if one.binary == binary and one.host in names]


def _of_api(service: ListedService) -> _Registration:
    reason = service.disabled_reason or ""
    disabled = service.status == "disabled"
    evidence = says(service, state=service.state, updated_at=f"{service.updated_at:%H:%M:%S}")
    if disabled:
        evidence = says(service, state=service.state, disabled_reason=service.disabled_reason)
    return _Registration(
        evidence,
        service.seconds_silent,
        is_down=service.state != "up",
        is_disabled=disabled and not reason.startswith("AUTO:"),
        is_forced_down=service.forced_down,
    )


def _of_row(host: Host, service: Service) -> _Registration:
    age, reason = seconds_silent(host, service), service.disabled_reason or ""
    allowed = whole(host.option("DEFAULT", "service_down_time")) or DOWN_TIME
    evidence = says(service, last_seen_up=service.last_seen_up)
    if service.disabled:
        evidence = says(service, disabled=True, disabled_reason=service.disabled_reason)
    return _Registration(
        evidence,
        age,
        is_down=age > allowed,
        is_disabled=service.disabled and not reason.startswith("AUTO:"),
        is_forced_down="forced_down" in service.raw and service.forced_down,
    )


def _reported(agent: Agent) -> bool:
    """True if neutron counts the agent as alive, or heard of it within a day."""
    if agent.alive:
        return True
    heartbeat, answer = moment(agent.heartbeat), agent.where("heartbeat")[0]
    if heartbeat is None or answer is None:
        return False
    return (answer.at - heartbeat).total_seconds() < RETIRED
