"""Routers and DHCP servers of guests' networks that no host runs any more."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.dhcp import serves
from hoodsnap.checks.traps import just_changed
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.subnet import Router
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, is_true, known
from hoodsnap.facts.host.namespace import Namespace
from hoodsnap.phrase import brief, several

L3 = "L3 agent"


@check(Severity.ERROR)
def router_not_hosted(cloud: Cloud) -> Problems:
    """No L3 agent runs the router of the guests' network.

    neutron schedules each router to an agent, which makes the router's namespace. Without one, the
    guests reach no other network and no floating IP works, while neutron lists the router as
    ACTIVE: only its ports are DOWN. Causes: the router was removed from its agent to move it and
    was added to no other, or the agent's record was deleted.

    Authority: The hosts, for who has the router's namespace; neutron, for the status of its ports.

    Traps: Routers that are distributed, highly available or disabled. A router that just changed.
    A router that is bound to a host which was not collected. An agent that is down keeps its
    routers, and `serving-agent-dead` reports it. OVN needs no agent for routers.

    Next: Check which agent has the router, and which agents are alive:

        openstack network agent list --router ROUTER
        openstack network agent list --agent-type l3
        openstack port list --router ROUTER --long

    If no agent has it, add it to one that is alive, on a host that is connected to the external
    network. The router comes back within a minute, and interrupts nothing:

        openstack network agent add router --l3 AGENT ROUTER

    If the list has an agent that is alive, restart the agent on its host instead, which makes the
    routers that it lacks:

        systemctl restart neutron-l3-agent

    It worked if the router's ports are ACTIVE:

        openstack port list --router ROUTER --long

    Not yet: Do not delete the router or its ports, because floating IPs and routes would be lost.
    Do not reboot guests.

    Source: neutron db/l3_agentschedulers_db.py `remove_router_from_l3_agent`;
    scheduler/l3_agent_scheduler.py; agent/l3/agent.py `_router_removed`.
    """
    reason: UnheardError | None = None
    for router in cloud.ports.routers_by_id.values():
        try:
            yield from _unhosted(cloud, router)
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason


def _unhosted(cloud: Cloud, router: Router) -> Iterator[Problem]:
    ports = [
        port
        for port in cloud.ports.by_id.values()
        if port.device_id == router.id and port.device_owner.startswith("network:router_interface")
    ]
    if not ports or any(port.status != "DOWN" or just_changed(port) for port in ports):
        return
    if router.enabled is not True or not router.is_plain:
        return
    bound = {port.host for port in ports if port.host}
    hosts = [host for host in cloud.hosts if host.nova_name in bound] if bound else [*cloud.hosts]
    if len(bound - {host.nova_name for host in hosts}) > 0:
        return  # it may be on a host that was not collected
    agents = [
        agent
        for host in hosts
        for agent in cloud.ports.agents_on.get(host.nova_name, ())
        if agent.kind == L3 and is_true(lambda: agent.alive)  # noqa: B023
    ]
    if not agents:
        return  # another agent's network, or serving-agent-dead reports it
    listings = [host.network.namespace_listing for host in hosts]
    if None in listings:
        raise UnheardError("the host's network namespaces were not collected")
    name = f"qrouter-{router.id}"
    if any(name in names for names, _ in filter(None, listings)):
        return
    networks = {port.network_id for port in ports}
    guests = [
        guest.title
        for guest in cloud.guests
        if guest.runs and any(port.network_id in networks for port in guest.ports or ())
    ]
    if not guests:
        return
    title = router.name or brief(router.id)
    yield problem(
        f"Router {title} runs on no host: {several(guests)} reach only their own networks",
        *(says(port, id=port.id, status=port.status, host=port.host) for port in ports[:3]),
        *(hears(answer, "namespace", name, **{name: None}) for _, answer in filter(None, listings)),
        ROUTER=router.id,
        AGENT=agents[0].raw.get("id") if len(agents) == 1 else None,
    )


@check(Severity.ERROR)
def dhcp_server_silent(host: Host, cloud: Cloud) -> Problems:
    """No program answers DHCP in the namespace of the guests' network.

    The namespace, its device and its address exist, and neutron lists the DHCP port as ACTIVE, but
    dnsmasq has ended. Guests keep their addresses until their leases end, or until they boot. The
    agent starts a missing dnsmasq again within a minute, unless `check_child_processes_interval`
    is 0, the agent hangs, or dnsmasq fails at each start.

    Authority: The kernel, for the sockets in the namespace; neutron, for who should serve.

    Traps: Subnets without IPv4 or without DHCP. A port that just changed. A namespace that a
    network left behind when it moved. OVN answers DHCP by rules and has no such namespace. Another
    DHCP server of the network may be alive: then it is a warning.

    Next: Check the sockets (0043 is the port of DHCP) and the processes, and look again after a
    minute:

        ip netns exec NAMESPACE cat /proc/net/udp
        ps -e -o pid,user,lstart,args
        journalctl -u SERVICE -n 50

    If it is still missing, restart the agent, which starts a dnsmasq for each of its networks that
    has none; the others go on:

        systemctl restart SERVICE

    It worked if there is a socket of port 0043 a minute later:

        ip netns exec NAMESPACE cat /proc/net/udp

    Not yet: Do not reboot guests: they would lose the address that they still have. Do not start
    dnsmasq by hand: the agent does not know of it, and two would answer.

    Source: neutron agent/linux/dhcp.py `Dnsmasq.spawn_process`; agent/linux/external_process.py
    `ProcessMonitor`; dnsmasq(8).
    """
    reason: UnheardError | None = None
    for name, space in sorted(host.network.namespaces.items()):
        if not name.startswith("qdhcp-"):
            continue
        try:
            yield from _silent(host, cloud, name, space)
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason


def _silent(host: Host, cloud: Cloud, name: str, space: Namespace) -> Iterator[Problem]:
    network = name.removeprefix("qdhcp-")
    if not serves(host.ports, network, host.nova_name):
        return
    subnets = host.ports.subnets_of.get(network, ())
    if not any(known(lambda: one.serves_dhcp and one.is_ipv4) for one in subnets):  # noqa: B023
        return
    servers = [
        port
        for port in host.ports.by_network.get(network, ())
        if port.device_owner == "network:dhcp"
    ]
    own = [port for port in servers if port.host == host.nova_name]
    if space.answers_dhcp or not own or any(map(_is_unready, own)):
        return
    guests = [
        guest.title
        for guest in cloud.guests
        if guest.runs and any(port.network_id == network for port in guest.ports or ())
    ]
    if not guests:
        return
    others = any(port.status == "ACTIVE" and port.host != host.nova_name for port in servers)
    known_network = host.ports.networks.get(network)
    title = known_network.name if known_network is not None else brief(network)
    yield problem(
        f"No DHCP server runs on {host.name} for network {title}: {several(guests)} get no address "
        "at their next renewal",
        says(own[0], id=own[0].id, status=own[0].status, host=own[0].host),
        hears(space.said["udp"], "namespace", name, dhcp=None),
        severity=Severity.WARNING if others else None,
        NAMESPACE=name,
        SERVICE="neutron-dhcp-agent",
    )


def _is_unready(port: Port) -> bool:
    return port.status != "ACTIVE" or just_changed(port) or not port.admin_state_up
