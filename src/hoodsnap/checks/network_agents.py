"""neutron's agents that wire guests: whether they are alive, and whether their bridges exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.agent import WIRING, Agent
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, is_true, known
from hoodsnap.phrase import counted, several, since

SERVICES = {
    "Open vSwitch agent": "neutron-openvswitch-agent",
    "Linux bridge agent": "neutron-linuxbridge-agent",
    "OVN Controller agent": "ovn-controller",
}
"""Kind of agent → its systemd service."""


@check(Severity.WARNING)
def network_agent_dead(host: Host, cloud: Cloud) -> Problems:
    """neutron reports the agent that wires this host's guests as down.

    Running guests keep their connections because Open vSwitch keeps its flows. But neutron binds no
    port to this host any more (`binding_failed`): whatever is started, moved or attached here fails
    or has no network, and changes to security groups and addresses do not arrive.

    Authority: The host, for whether the agent runs; neutron, for what is bound.

    Traps: neutron uses the clock of its own server. Agents of DHCP and routers wire no guests. An
    agent of another kind or installation may have replaced this one and left its record behind: one
    live agent is enough.

    Next: Check the agent in neutron and on the host, and look in its log whether it reaches the
    message queue:

        openstack network agent list --host HOST --long
        systemctl status SERVICE
        journalctl -u SERVICE -n 50

    If it does not run, start the agent, which leaves existing wiring as it is:

        systemctl start SERVICE

    It worked if neutron lists the agent as alive a minute later:

        openstack network agent list --host HOST --long

    Not yet: Do not run `openstack server reboot --hard`. Do not migrate to this host or attach
    ports. Each needs a new binding.

    Source: neutron db/agents_db.py `is_agent_down`; neutron ml2 mech_agent.py `bind_port`.
    """
    if host.ports.agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    wiring = [
        agent
        for agent in host.ports.agents.values()
        if agent.kind in WIRING and agent.host == host.nova_name
    ]
    if any(agent.alive for agent in wiring):
        return
    guests = sum(guest.process is not None for guest in cloud.guests_of(host) if guest.is_here)
    for agent in wiring:
        said = says(agent, kind=agent.kind, alive=False, heartbeat=agent.heartbeat)
        last = moment(agent.heartbeat)
        when = f" {since(last, cloud.now)}" if last is not None else ""
        count = counted(guests, "guest")
        yield problem(
            f"{agent.kind} of {agent.host} has not reported{when}; it wires {count}",
            said.and_so(host=agent.host, running_guests=guests),
            SERVICE=SERVICES.get(agent.kind),
        )


SERVING = {
    "DHCP agent": "neutron-dhcp-agent",
    "L3 agent": "neutron-l3-agent",
    "Metadata agent": "neutron-metadata-agent",
}
"""Kind of agent that serves networks → its systemd service."""

SILENT = timedelta(minutes=3)
"""Age of the last report of an agent that is not only busy; agents report twice a minute."""


@check(Severity.WARNING)
def serving_agent_dead(host: Host, cloud: Cloud) -> Problems:
    """neutron reports the DHCP, L3 or metadata agent that serves guests' networks as down.

    Nothing breaks at once: routers go on routing, and DHCP servers go on answering. But changes are
    not carried out: floating IPs, routers and rules stay as they are, and a new port is missing in
    the DHCP server's file, so its guest gets no address. Metadata needs its agent for each answer.
    The agent's process may run and have lost the message queue or its configuration.

    Authority: neutron, for the heartbeat; the host, for the process.

    Traps: neutron uses the clock of its own server. An agent that is busy misses a report: it
    counts only after three minutes. An agent that serves no network of a guest is not reported, nor
    is the record of an agent that another one on the host has replaced. If the process does not
    run, `network-agent-not-running` reports it.

    Next: Check the agent in neutron and on the host, and look in its log whether it reaches the
    message queue:

        openstack network agent list --host HOST --long
        systemctl status SERVICE
        journalctl -u SERVICE -n 50

    Once the reason is mended, restart the agent; routers, DHCP servers and connections go on
    meanwhile:

        systemctl restart SERVICE

    It worked if neutron lists the agent as alive two minutes later, when a single report at the
    start does not count any more:

        openstack network agent list --host HOST --long

    Not yet: Do not change routers, floating IPs or subnets of these networks: nothing carries it
    out, and neutron shows the new state. Do not delete the agent's record, which moves its routers
    and networks.

    Source: neutron db/agents_db.py `is_agent_down`; db/l3_agentschedulers_db.py,
    db/agentschedulers_db.py; agent/metadata/agent.py.
    """
    if host.ports.agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    served = _served(host)
    for kind, service in SERVING.items():
        agents = [one for one in host.ports.agents_on.get(host.nova_name, ()) if one.kind == kind]
        networks = served["L3 agent"] | served["DHCP agent"] if kind not in served else served[kind]
        if not networks or any(agent.alive for agent in agents):
            continue
        guests = [
            guest.title
            for guest in cloud.guests
            if guest.runs and any(port.network_id in networks for port in guest.ports or ())
        ]
        for agent in agents if guests else ():
            last = moment(agent.heartbeat)
            if last is None or cloud.now - last < SILENT:
                continue
            said = says(agent, kind=kind, alive=False, heartbeat=agent.heartbeat)
            yield problem(
                f"{kind} of {agent.host} has not reported {since(last, cloud.now)}; it serves "
                f"{counted(len(guests), 'guest')}",
                said.and_so(host=agent.host, running_guests=len(guests)),
                SERVICE=service,
            )


def _served(host: Host) -> Mapping[str, frozenset[str]]:
    """Return kind of agent → the networks that it serves on the host."""
    routers, networks = set(), set()
    for port in host.ports.by_id.values():
        owner = port.device_owner
        if owner.startswith("network:") and port.host == host.nova_name:
            if owner == "network:dhcp":
                networks.add(port.network_id or "")
            elif "router" in owner:
                routers.add(port.device_id)
    routed = (net for net, theirs in host.ports.routers.items() if routers & {*theirs})
    return {"DHCP agent": frozenset(networks), "L3 agent": frozenset(routed)}


OVN = "OVN Controller agent"

LONGEST_NAME = 15
"""Bytes of a device's name; neutron shortens longer names of patch ports by a hash."""


@check(Severity.ERROR)
def agent_bridge_missing(host: Host, cloud: Cloud) -> Problems:
    """A bridge, patch port or tunnel address that the host's network agent uses does not exist.

    The agent reported its integration bridge, the bridge of each physical network and the address
    of its tunnels when it started. Guests reach a physical network only through the pair of patch
    ports between both bridges, and guests on other hosts only from the tunnel address. Causes: a
    bridge or patch port was deleted by hand, the host's network was configured anew.

    Authority: Open vSwitch and the kernel, for what exists; the agent's configuration in neutron,
    for what it uses.

    Traps: An agent that is down may have another configuration now. OVN makes patch ports only
    for physical networks that a guest or a router on the host uses, so the whole pair is required
    only if a running guest's port is in the physical network.

    Next: Compare the agent's configuration with the bridges, their ports and the host's addresses:

        openstack network agent show AGENT -c configuration
        ovs-vsctl show
        ip -brief address

    If the bridge or the patch port was deleted, restart the agent, which makes its patch ports
    again, and keeps the guests' rules:

        systemctl restart SERVICE

    It worked if both bridges have their patch port:

        ovs-vsctl show

    If the address was removed, the host's network configuration must be repaired.

    Not yet: Do not run `ovs-vsctl del-br`. Do not migrate guests to this host.

    Source: neutron ovs_neutron_agent.py `setup_physical_bridges`, `_check_bridge_datapath_id`; OVN
    controller/patch.c; ovn-controller(8), `ovn-bridge-mappings`.
    """
    if host.ports.agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    bridges, switch = host.network.bridges, host.network.switch
    if bridges is None or isinstance(switch, UnheardError):
        raise UnheardError("Open vSwitch: its bridges were not collected")
    listing = host.network.switch_listing
    assert listing is not None  # noqa: S101 (the interfaces were collected)
    for agent in host.ports.agents.values():
        if agent.kind not in WIRING or agent.host != host.nova_name:
            continue
        if agent.kind == "Linux bridge agent" or not is_true(lambda: agent.alive):  # noqa: B023
            continue
        service = SERVICES.get(agent.kind)
        words: dict[str, Any] = {"AGENT": agent.raw.get("id"), "SERVICE": service}
        used = _bridges_of(agent)
        for what, bridge in used.items():
            if bridge not in bridges:
                yield problem(
                    f"Host {host.name} has no bridge {bridge}, its {agent.kind}'s {what}",
                    says(agent, kind=agent.kind, host=agent.host).and_so(bridge=bridge),
                    hears(_table(host, "Bridge") or listing, "Open vSwitch", bridge, Bridge=None),
                    **words,
                )
        for name, of in _missing_patches(host, cloud, agent, [*switch]):
            yield problem(
                f"Host {host.name} has no patch port {name}: {of}",
                says(agent, kind=agent.kind, host=agent.host),
                hears(listing, "Open vSwitch", name, **{name: None}),
                **words,
            )
        yield from _without_tunnel(host, agent, words)


def _bridges_of(agent: Agent) -> dict[str, str]:
    integration = known(lambda: agent.integration_bridge)
    mapped = known(lambda: agent.bridge_mappings) or {}
    found = {f"bridge of {network}": bridge for network, bridge in mapped.items()}
    return found | ({"integration bridge": integration} if integration else {})


def _table(host: Host, name: str) -> Answer | None:
    for query, answer in host.network.said.items():
        if query.endswith(f" list {name}") and answer.error is None:
            return answer
    return None


def _missing_patches(
    host: Host, cloud: Cloud, agent: Agent, names: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield each patch port that is missing, and what follows."""
    mapped = known(lambda: agent.bridge_mappings) or {}
    if agent.kind != OVN:
        for network, bridge in mapped.items():
            for name in (f"int-{bridge}", f"phy-{bridge}"):
                if len(name) <= LONGEST_NAME and name not in names:
                    yield name, f"no guest on it reaches {network}"
        return
    pairs = {name: other for name in names if (other := _other_end(name)) is not None}
    for name, other in pairs.items():
        if other not in pairs:
            yield other, f"{name} leads nowhere"
    for network in mapped if not pairs else ():
        guests = [*_guests_in(host, cloud, network)]
        if guests:
            titles = several(guest.title for guest in guests)
            yield "patch-br-int-to-provnet", f"{titles} cannot reach {network}"


def _other_end(name: str) -> str | None:
    """Return the other end of OVN's patch port: `patch-A-to-B` and `patch-B-to-A`."""
    if not name.startswith("patch-") or "-to-" not in name:
        return None
    one, _, other = name.removeprefix("patch-").partition("-to-")
    return f"patch-{other}-to-{one}"


def _guests_in(host: Host, cloud: Cloud, physical: str) -> Iterator[Guest]:
    for guest in cloud.guests_of(host):
        for port in (guest.ports or ()) if guest.runs else ():
            network = port.network
            if network is not None and known(lambda: network.physical) == physical:  # noqa: B023
                yield guest
                break


def _without_tunnel(host: Host, agent: Agent, words: Mapping[str, Any]) -> Problems:
    wanted, found = known(lambda: agent.tunneling_ip), host.network.addresses
    # A collector in another network namespace sees other addresses.
    seen = any(tap.is_there for tap in host.network.taps.values())
    if wanted is None or found is None or not seen or wanted in found[0]:
        return
    yield problem(
        f"Host {host.name} does not have {wanted}, from which its {agent.kind} tunnels",
        says(agent, kind=agent.kind, tunneling_ip=wanted),
        hears(found[1], "host", wanted, **{wanted: None}),
        **words,
    )
