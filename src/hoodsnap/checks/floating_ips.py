"""Floating IPs of a guest: what neutron promises, and what the router translates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, never_launched, port_just_changed
from hoodsnap.evidence import Evidence, Severity, hears
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.subnet import FloatingIp, Router
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.namespace import Namespace
from hoodsnap.phrase import brief, several

NEW = timedelta(minutes=2)
"""Time for the router's agent to set up a floating IP."""


@check(Severity.ERROR, traps=[building, never_launched, migrating, port_just_changed])
def floating_ip_not_translated(guest: Guest, cloud: Cloud, ports: tuple[Port, ...]) -> Problems:
    """The router does not translate a floating IP of the guest, so it does not lead there.

    neutron lists the floating IP as the guest's, but its router lacks the rule for arriving packets
    (DNAT), the rule for leaving packets (SNAT) or the address itself. Without DNAT or the address
    nobody reaches the guest by the floating IP; without SNAT, the guest's own connections come from
    the router's address. Causes: the rules were flushed by hand or by a firewall service, the L3
    agent failed half way, or the router is disabled (`admin_state_up`), so that no agent routes for
    it and its guests reach their own networks only.

    Authority: neutron, for the floating IP; the router's network namespace, for what happens.

    Traps: The L3 agent sets a new floating IP up within seconds. Distributed and highly available
    routers keep parts of the rules on other hosts, so only their translations that exist are
    compared. OVN translates without a namespace, and is not judged here.

    Next: Compare the floating IP with the router's rules and addresses:

        openstack floating ip show FLOATING_IP
        ip netns exec qrouter-ROUTER iptables-save -t nat
        ip -n qrouter-ROUTER address
        openstack network agent list --router ROUTER

    If the router is disabled and nobody did that on purpose, enable it, which makes its agent set
    it up again:

        openstack router set --enable DISABLED_ROUTER

    If the L3 agent is alive, disconnect the floating IP and connect it again, which makes the agent
    write the address and the rules:

        openstack floating ip unset --port FLOATING_IP
        openstack floating ip set --port PORT FLOATING_IP

    If other rules of the router are missing, too, or its agent is not alive, restart the agent
    instead, which writes all of them again; connections through the router go on:

        systemctl restart UNIT

    It worked if the router has both rules and the address:

        ip netns exec qrouter-ROUTER iptables-save -t nat

    Not yet: Do not delete the floating IP: the next one has another address. Do not add rules by
    hand: the agent has them in other places of its chains.

    Source: neutron agent/l3/router_info.py `process_floating_ip_nat_rules`,
    `floating_forward_rules`; neutron bugs 1700369, 1549311.
    """
    if guest.host is not None and not guest.is_here:
        return
    for port in ports:
        for leads in cloud.ports.floating.get(port.id, ()):
            space = _space(cloud, leads)
            router = cloud.ports.routers_by_id.get(leads.router_id or "")
            if router is not None and router.enabled is False:
                yield _disabled(guest, leads, router)
                continue
            if space is None or is_new(leads):
                continue
            if leads.fixed not in port.addresses and space.inwards.get(leads.address) in (
                port.addresses
            ):
                continue  # neutron-records-disagree reports the record; the rules are right
            plain = router is not None and router.is_plain
            missing, evidence = _faults(leads, space, plain=plain)
            if missing:
                yield problem(
                    f"{guest.title} is not reachable by its floating IP {leads.address}: "
                    f"{brief(space.name)} {several(missing)}",
                    promised(leads, fixed_ip_address=leads.fixed, status=leads.status),
                    *evidence,
                    FLOATING_IP=leads.address,
                    ROUTER=leads.router_id,
                    PORT=port.id,
                    DISABLED_ROUTER="",
                    FLUSHED=leads.router_id,
                    UNIT="neutron-l3-agent",
                )


@check(Severity.ERROR, traps=[building, never_launched, migrating, port_just_changed])
def floating_ip_not_served(guest: Guest, cloud: Cloud, ports: tuple[Port, ...]) -> Problems:
    """No router serves the guest's floating IP: it has none, or the router's agent failed.

    neutron gives a floating IP the router that connects the guest's subnet to the external network.
    Without a router no agent learns of the floating IP, and nobody reaches the guest by it. The
    status ERROR means that the router's agent could not set it up; DOWN, that the agent has not
    reported it since (a warning). Causes: a record that was changed or restored by hand, a router
    that was deleted by force, an agent that failed half way.

    Authority: neutron.

    Traps: A floating IP without a port is DOWN. A new one is set up within seconds. Distributed and
    highly available routers, disabled routers, guests that are off, and routers whose agent is down
    have floating IPs that are DOWN. OVN sets the status by other rules.

    Next: Compare the floating IP with the routers of the guest's network:

        openstack floating ip show FLOATING_IP
        openstack port list --network NETWORK --long
        openstack router list --long

    If a router connects the guest's subnet to the external network, disconnect the floating IP and
    connect it again: neutron chooses the router anew, and its agent sets the floating IP up.
    Connections through it end:

        openstack floating ip unset --port FLOATING_IP
        openstack floating ip set --port PORT FLOATING_IP

    If no router connects them, the second command fails (`External network … is not reachable`):
    connect the subnet to a router of that external network first.

    It worked if the floating IP has a router and is ACTIVE:

        openstack floating ip show FLOATING_IP

    Not yet: Do not delete the floating IP: the next one has another address. Do not restart the L3
    agent for a floating IP without a router: the agent does not know of it.

    Source: neutron db/l3_db.py `_get_router_for_floatingip`, agent/l3/router_info.py
    `process_floating_ip_addresses`, `put_fips_in_error_state`.
    """
    if guest.host is not None and not guest.is_here:
        return
    for port in ports:
        for leads in cloud.ports.floating.get(port.id, ()):
            if is_new(leads) or "router_id" not in leads.raw:
                continue
            title = f"{guest.title}'s floating IP {leads.address}"
            words: dict[str, Any] = {
                "FLOATING_IP": leads.address,
                "PORT": port.id,
                "NETWORK": port.network_id,
            }
            if leads.router_id is None:
                yield problem(
                    f"{title} has no router, so nothing translates it",
                    promised(leads, router_id=None, fixed_ip_address=leads.fixed),
                    **words,
                )
            elif leads.status == "ERROR":
                yield problem(
                    f"{title} is in status ERROR: the router's agent could not set it up",
                    promised(leads, status="ERROR", router_id=leads.router_id),
                    **words,
                )
            elif leads.status == "DOWN" and guest.runs and _must_be_up(cloud, leads, port):
                yield problem(
                    f"{title} is in status DOWN: the router's agent has not set it up",
                    promised(leads, status="DOWN", router_id=leads.router_id),
                    severity=Severity.WARNING,
                    **words,
                )


def _must_be_up(cloud: Cloud, leads: FloatingIp, port: Port) -> bool:
    """True if a router's live agent serves the floating IP of a port that is in use."""
    router = cloud.ports.routers_by_id.get(leads.router_id or "")
    if router is None or port.status != "ACTIVE" or router.raw.get("admin_state_up") is not True:
        return False
    gateway = _host_of_router(cloud, leads)
    agents = cloud.ports.agents_on.get(gateway or "", ())
    return any(agent.kind == "L3 agent" and agent.alive for agent in agents)


def _disabled(guest: Guest, leads: FloatingIp, router: Router) -> Problem:
    return problem(
        f"{guest.title} is not reachable by its floating IP {leads.address}: router {router.name} "
        "is disabled (admin_state_up = False)",
        promised(leads, fixed_ip_address=leads.fixed, status=leads.status),
        hears(
            router.answer, "router", f"routers[id={router.id}].admin_state_up", admin_state_up=False
        ),
        FLOATING_IP=leads.address,
        ROUTER=router.id,
        PORT="",
        DISABLED_ROUTER=router.id,
        UNIT="",
    )


def promised(leads: FloatingIp, **values: object) -> Evidence:
    """Return evidence of fields of a floating IP."""
    field = next(iter(values))
    place = f"floatingips[id={leads.id}].{field}"
    return hears(leads.answer, "floating IP", place, address=leads.address, **values)


def _space(cloud: Cloud, leads: FloatingIp) -> Namespace | None:
    """Return the namespace of the floating IP's router, if a captured host has it.

    A router that was moved to another host may have left its namespace behind.
    """
    name = f"qrouter-{leads.router_id}"
    gateway = known(partial(_host_of_router, cloud, leads))
    for host in cloud.hosts:
        if gateway not in (None, host.nova_name):
            continue
        if (space := host.network.namespaces.get(name)) is not None:
            return space
    return None


def _host_of_router(cloud: Cloud, leads: FloatingIp) -> str | None:
    """Return the host on which a router that is neither distributed nor highly available is."""
    router = cloud.ports.routers_by_id.get(leads.router_id or "")
    if router is None or not router.is_plain:
        return None
    for port in cloud.ports.by_network.get(leads.outside or "", ()):
        if port.device_owner == "network:router_gateway" and port.device_id == leads.router_id:
            return port.host
    return None


def is_new(leads: FloatingIp) -> bool:
    """True if neutron changed the floating IP moments ago."""
    at = moment(known(lambda: leads.updated_at))
    return at is not None and leads.answer.at - at < NEW


def _faults(
    leads: FloatingIp, space: Namespace, *, plain: bool
) -> tuple[list[str], list[Evidence]]:
    """Return what is wrong with a translation, as predicates of the namespace, with evidence."""
    inwards, outwards = space.inwards, space.outwards
    missing, evidence = [], []
    rules = space.said["nat"]
    to = inwards.get(leads.address)
    if to != leads.fixed and (plain or to is not None):
        missing.append(_rule("translates it to", "does not translate it", to))
        evidence.append(_rules(rules, leads.address, dnat=to))
    source = outwards.get(leads.fixed or "")
    if source != leads.address and (plain or source is not None):
        words = f"does not translate {leads.fixed} to it"
        missing.append(_rule(f"translates {leads.fixed} to", words, source))
        evidence.append(_rules(rules, leads.fixed or "", snat=source))
    missing += _without_address(leads, space, evidence) if plain else ()
    return missing, evidence


def _without_address(
    leads: FloatingIp, space: Namespace, evidence: list[Evidence]
) -> Iterator[str]:
    try:
        has = leads.address in space.addresses
    except UnheardError:
        return
    if not has:
        answer = space.said["address"]
        evidence.append(hears(answer, "namespace", space.name, **{leads.address: None}))
        yield "does not have the address"


def _rule(wrong: str, none: str, value: str | None) -> str:
    return none if value is None else f"{wrong} {value}"


def _rules(answer: Answer, address: str, **rule: object) -> Evidence:
    return hears(answer, "namespace", address, **rule)
