"""Security groups of a guest's ports against the rules of neutron's Open vSwitch firewall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.flows import is_ovn
from hoodsnap.checks.traps import (
    MOMENT,
    building,
    migrating,
    never_launched,
    passed_through,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.api.subnet import SecurityGroup
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.flow import TRANSIENT, PortFlows, rules_in
from hoodsnap.facts.host.tap import Tap
from hoodsnap.phrase import several

TABLES = {72: "egress", 82: "ingress"}
"""Tables in which neutron's Open vSwitch firewall has the rules of security groups → direction."""

NEW = "+new-est"
"""State of a connection in the firewall's rules that let its first packet pass."""

PROTOCOLS = {
    None: "ip",
    "any": "ip",
    "0": "ip",
    "tcp": "tcp",
    "6": "tcp",
    "udp": "udp",
    "17": "udp",
    "icmp": "icmp",
    "1": "icmp",
}
"""Protocol in neutron → its name in rules of Open vSwitch. Others are not compared."""


class _Pass(NamedTuple):
    """Traffic that a rule lets through. Port numbers and senders are not compared."""

    direction: str
    """`ingress` or `egress`"""
    protocol: str
    """`ip`, `tcp`, `udp` or `icmp`"""

    def __str__(self) -> str:
        what = "all protocols" if self.protocol == "ip" else self.protocol
        return f"{self.direction} of {what}"


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def security_group_not_enforced(
    guest: Guest, cloud: Cloud, domain: Domain, taps: tuple[Tap, ...], ports: tuple[Port, ...]
) -> Problems:
    """The firewall of the guest's tap lets other packets pass than its security groups allow.

    neutron's agent writes the rules of a port's security groups into the integration bridge, and
    changes them when a group changes. If it missed the change, a service that was opened is not
    reachable, or one that was closed still is. neutron shows the groups as they should be.

    Authority: neutron, for what is allowed; Open vSwitch, for what passes.

    Traps: Groups and ports that were just changed. Only IPv4 and whole protocols (TCP, UDP, ICMP,
    all) are compared, not port numbers; a rule with a remote group is a conjunction of several, and
    is not compared. Ports without port security. Other firewalls, OVN, and groups without state
    have other rules.

    Next: Compare the groups with the rules (table 82 for what arrives, 72 for what leaves):

        openstack port show PORT -c security_group_ids -c port_security_enabled
        openstack security group rule list GROUP_OF_PORT
        ovs-ofctl dump-flows br-int reg5=OFPORT
        journalctl -u SERVICE -n 50

    Restart the agent, which writes the rules of all ports again and deletes its old ones; guests
    keep their connections meanwhile:

        systemctl restart SERVICE

    It worked if the rules are those of the groups a minute later:

        ovs-ofctl dump-flows br-int reg5=OFPORT

    Not yet: Do not add or delete rules of the switch by hand: the agent does not know of them. Do
    not remove the port's groups, or switch port security off, to make a service reachable.

    Source: neutron agent/linux/openvswitch_firewall/firewall.py `add_flows_from_rules`, rules.py
    `create_flows_from_rule_and_port`; agent/securitygroups_rpc.py.
    """
    host = guest.host
    if host is None or not guest.is_here or domain.state not in ON:
        return
    if not any(TRANSIENT in one.tables for one in host.network.flows.values()):
        return  # another firewall
    of_port = {port.id[:PREFIX]: port for port in ports}
    for tap in taps:
        port = of_port.get(tap.prefix)
        if port is None or passed_through(port) or is_ovn(host, port) or not port.is_filtered:
            continue
        flows = host.network.flows.get(tap.ofport or -1)
        if flows is None or "reg5" not in flows.said or port.status != "ACTIVE":
            continue
        if flows.answer.subject not in (None, port.id) or TRANSIENT not in flows.tables:
            continue  # port-without-flows reports it
        groups = _groups(cloud, port)
        answer = flows.said["reg5"]
        if not all(group.has_state for group in groups) or any(
            _is_new(it, answer) for it in groups
        ):
            continue
        wanted = {one for group in groups for one in _allowed(group)}
        found = {*_found(flows)}
        lacking, spare = sorted(wanted - found), sorted(found - wanted)
        if lacking or spare:
            what = f"has no rule for {several(map(str, lacking))}" if lacking else ""
            more = f"lets {several(map(str, spare))} pass" if spare else ""
            than = ", as its security groups do" if not spare else ", unlike its security groups"
            yield problem(
                f"The firewall of {guest.title}'s tap {tap.name} "
                f"{' and '.join(part for part in (what, more) if part)}{than}",
                says(port, id=port.id),
                *(
                    hears(group.answer, "security group", group.id, allows=_words(group))
                    for group in groups
                ),
                hears(answer, "flows", tap.name, **{"lets pass": several(map(str, sorted(found)))}),
                PORT=port.id,
                OFPORT=tap.ofport,
                GROUP_OF_PORT=groups[0].id if len(groups) == 1 else None,
                SERVICE="neutron-openvswitch-agent",
            )


def _groups(cloud: Cloud, port: Port) -> tuple[SecurityGroup, ...]:
    """Return the security groups of a port. Raises `UnheardError` if one was not collected."""
    named = port.raw.get("security_groups")
    if not isinstance(named, list):
        raise UnheardError("neutron API: the port's security groups were not collected")
    found = [cloud.ports.security_groups.get(str(uuid).lower()) for uuid in named]
    if None in found:
        raise UnheardError("neutron API: a security group of the port was not collected")
    return tuple(group for group in found if group is not None)


def _is_new(group: SecurityGroup, flows: Answer) -> bool:
    """True if the group or one of its rules was changed less than a minute before."""
    times = [group.raw.get("updated_at"), *(rule.get("updated_at") for rule in group.rules)]
    changed = [moment(time) for time in times if isinstance(time, str)]
    return any(at is not None and abs(flows.at - at) < MOMENT for at in changed)


def _allowed(group: SecurityGroup) -> Iterator[_Pass]:
    """Yield what a group lets pass."""
    for rule in group.rules:
        remote = rule.get("remote_group_id") or rule.get("remote_address_group_id")
        protocol = rule.get("protocol")
        named = PROTOCOLS.get(protocol.lower() if isinstance(protocol, str) else None)
        if rule.get("ethertype") == "IPv4" and not remote and named is not None:
            yield _Pass(str(rule.get("direction")), named)


def _words(group: SecurityGroup) -> str | None:
    return several(map(str, sorted({*_allowed(group)}))) or None


def _found(flows: PortFlows) -> Iterator[_Pass]:
    """Yield what the port's rules let pass, other than for remote groups."""
    for rule in rules_in(str(flows.said["reg5"].value)):
        match: Mapping[str, str] = rule.match
        is_remote = "conj_id" in match or "conjunction" in rule.actions
        if rule.table not in TABLES or match.get("ct_state") != NEW or is_remote:
            continue
        for name in ("tcp", "udp", "icmp", "ip"):
            if name in match and "nw_proto" not in match:
                yield _Pass(TABLES[rule.table], name)
