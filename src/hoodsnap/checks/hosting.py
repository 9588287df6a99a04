"""Routers and DHCP servers of guests' networks that no host runs any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.dhcp import serves
from hoodsnap.checks.traps import just_changed
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.port import RESERVED, Port, Ports
from hoodsnap.facts.api.subnet import Router
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import OF_ALL_HOSTS, UnheardError, is_true, known
from hoodsnap.facts.host.namespace import Namespace
from hoodsnap.phrase import brief, several

L3, DHCP = "L3 agent", "DHCP agent"


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
def network_without_dhcp_server(cloud: Cloud) -> Problems:
    """No DHCP agent serves the guests' network, although its subnet has DHCP.

    neutron schedules each network to an agent, which makes a port for its server. Without one, the
    guests keep their addresses until their leases end or until they boot, and new guests get none.
    Nothing else in neutron shows it: network, subnet and ports are ACTIVE. Causes: the network was
    removed from its agent to move it and was added to no other, or the agent's record was deleted.

    Authority: neutron, for the network's DHCP ports and the agents.

    Traps: Subnets without IPv4 or without DHCP, and disabled networks. Guests whose ports just
    changed: the first port schedules the network. Clouds without a living DHCP agent: OVN needs
    none, and `serving-agent-dead` reports one that is down. Networks that another DHCP server than
    neutron's serves on purpose. Without `--all-hosts`, DHCP ports on other hosts are not collected.

    Next: Check which agent has the network, and which agents are alive:

        openstack network agent list --network NETWORK --agent-type dhcp
        openstack network agent list --agent-type dhcp
        openstack port list --network NETWORK --device-owner network:dhcp --long

    If no agent has it, and nobody wants it so, add it to an agent that is alive. It starts a server
    with the address that was reserved, and interrupts nothing:

        openstack network agent add network --dhcp AGENT NETWORK

    It worked if the list has a port that is ACTIVE a minute later:

        openstack port list --network NETWORK --device-owner network:dhcp --long

    Not yet: Do not reboot guests: they would lose the address that they still have. Do not delete
    the reserved DHCP port: guests may have its address as their name server.

    Source: neutron db/agentschedulers_db.py `remove_network_from_dhcp_agent`;
    scheduler/dhcp_agent_scheduler.py; agent/linux/dhcp.py `DeviceManager.setup_dhcp_port`.
    """
    ports = cloud.ports
    used: dict[str, list[Guest]] = {}
    for guest in cloud.guests:
        for port in (guest.ports or ()) if guest.runs else ():
            if port.network_id and _is_served(ports, port):
                used.setdefault(port.network_id, []).append(guest)
    reason: UnheardError | None = None
    for network, guests in used.items():
        try:
            yield from _unserved(ports, network, guests)
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason
    if cloud.guests and all(guest.ports is None for guest in cloud.guests):
        raise UnheardError(ports.silence)


def _is_served(ports: Ports, port: Port) -> bool:
    """True if neutron's DHCP servers should give the port its address, for some time now."""
    if just_changed(port) or (port.network is not None and port.network.enabled is False):
        return False
    subnets = [ports.subnets.get(uuid) for uuid in port.subnet_ids]
    return any(it is not None and it.serves_dhcp and it.is_ipv4 for it in subnets)


def _unserved(ports: Ports, network: str, guests: Sequence[Guest]) -> Iterator[Problem]:
    if ports.agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    listed = ports.of_network(network)
    if listed is None:
        raise UnheardError(
            f"neutron API: DHCP ports of other hosts were not collected {OF_ALL_HOSTS}"
        )
    agents = [it for it in ports.agents.values() if it.kind == DHCP and it.alive]
    servers = [
        port
        for port in ports.by_network.get(network, ())
        if port.device_owner in ("network:dhcp", "network:distributed")
    ]
    if not agents or any(map(just_changed, servers)):
        return
    if any(port.device_id != RESERVED for port in servers):
        return
    named = ports.networks.get(network)
    title = named.name if named is not None else brief(network)
    who = several(dict.fromkeys(guest.title for guest in guests))
    yield problem(
        f"No DHCP agent serves network {title}: {who} get no address at their next renewal",
        *(says(port, id=port.id, device_id=port.device_id) for port in servers[:3]),
        hears(listed, "neutron", network, dhcp_port="reserved" if servers else None),
        says(agents[0], kind=DHCP, alive=True),
        NETWORK=network,
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
