"""OpenFlow rules that neither neutron's agent nor OVN added, and that cut guests off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.network_agents import OVN
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, is_true, known, text
from hoodsnap.facts.host.flow import DROP, FirstTable, Rule
from hoodsnap.phrase import brief

FROM = ("in_port", "dl_src", "nw_src", "arp_spa", "ipv6_src", "arp_sha")
"""Parts of a match that name the sender."""

TO = ("dl_dst", "nw_dst", "arp_tpa", "ipv6_dst")
"""Parts of a match that name the receiver."""

NEEDED = {"ip": "IPv4", "arp": "ARP"}
"""Protocols without which a guest reaches nothing, as ovs-ofctl and people call them."""

_ELSEWHERE = re.compile(
    r"(?:output:)?(?:\d{1,5}|\"[^\"]{1,64}\"|LOCAL|IN_PORT|CONTROLLER(?::\d+)?)"
)
"""Actions that send packets to one port, and nowhere else."""


SERVICE = "neutron-openvswitch-agent"


class _Names(NamedTuple):
    """Whose packets the rules of a bridge may name."""

    numbers: Mapping[str, str]
    """Number of a port on the bridge → its owner: `vm-a`, `the router 5f38a793`."""
    patches: Mapping[str, str]
    """Number of a patch port, through which the packets of many guests pass → its name."""
    addresses: Mapping[str, str]
    """MAC or IP address → its owner."""


class _Foreign(NamedTuple):
    """A rule that is not neutron's, and whom it cuts off."""

    rule: Rule
    bridge: str
    answer: Answer
    what: str
    """The packets that it takes: `what vm-a sends`, `all packets`, `all IPv4 packets`."""


@check(Severity.ERROR)
def foreign_rule_drops_packets(host: Host, cloud: Cloud) -> Problems:
    """Open vSwitch drops or diverts packets of guests by a rule that is not neutron's.

    The rules of neutron's agent have the agent's own number (cookie), and OVN's rules have the
    number of the record that they were made from. A rule with another number, and with a higher
    priority, was added by hand, by a script or by another controller. neutron does not see it: its
    ports stay ACTIVE, and the guest's own rules are complete.

    Authority: Open vSwitch, for what happens to packets; neutron, for what should.

    Traps: The agent takes a new number at each restart, and then deletes the rules with its old
    one: a rule with a number that is older than the agent's start is not reported. Other programs
    add rules that pass packets on, or that concern none of neutron's ports; these are not reported.
    Neither is a rule whose priority is not above the agent's own rule of the same port. A rule that
    drops only some packets (those of one TCP port, for example), or that sends them to one other
    port, may be intended, and is a warning.

    Next: Check the rule and its counter (n_packets), and whether a controller other than the agent
    (`tcp:127.0.0.1:6633`) is connected to the bridge:

        ovs-ofctl dump-flows BRIDGE table=TABLE_NUMBER
        ovs-vsctl show

    Find out who added the rule, and write it down. If nobody needs it, remove this rule only, which
    works at once:

        ovs-ofctl --strict del-flows BRIDGE RULE

    If it has replaced the agent's own rule for all other packets, restart the agent, which deletes
    rules that are not its own and adds its rules again. Guests keep their connections meanwhile:

        systemctl restart SERVICE

    It worked if the rule is not in the list a minute later:

        ovs-ofctl dump-flows BRIDGE table=TABLE_NUMBER

    If the rule comes back, a program adds it again: find and stop that program first.

    Not yet: Do not run `ovs-ofctl del-flows` without the whole rule, because it deletes neutron's
    rules, too. Do not remove the rule before you know who added it: a guest may be isolated on
    purpose. Do not reboot guests or bind ports again, because the rule stays.

    Source: neutron agent/common/ovs_lib.py `OVSBridge` (`default_cookie`),
    ovs_neutron_agent.py `cleanup_stale_flows`; ovs-ofctl(8), `--strict`; OVN controller/physical.c.
    """
    if isinstance(host.network.switch, UnheardError):
        raise UnheardError(str(host.network.switch))
    own = numbers_of_agent(host)
    for bridge, table in sorted(host.network.first_tables.items()):
        names = _names(host, cloud, bridge)
        if names.patches or names.numbers:  # else neutron does not use the bridge
            yield from map(_report, _in_first(host, table, names, own))
    names = _names(host, cloud, "br-int")
    yield from map(_report, _in_others(host, names, own))
    if not host.network.first_tables:
        raise UnheardError("Open vSwitch: the first tables of its bridges were not collected")


def numbers_of_agent(host: Host) -> frozenset[int]:
    """Return the cookies of the rules of the guests' ports beyond the first table."""
    rules = (rule for flows in host.network.flows.values() for rule in flows.rules)
    return frozenset(rule.cookie for rule in rules if rule.table and rule.cookie)


def _names(host: Host, cloud: Cloud, bridge: str) -> _Names:
    """Return whose packets the rules of a bridge may name: neutron's ports on this host."""
    titles = {port.id: guest.title for guest in cloud.guests_of(host) for port in guest.ports or ()}
    addresses: dict[str, str] = {}
    for port in host.ports.by_id.values():
        title = titles.get(port.id) or _title(port)
        if title is None or known(lambda: port.host) != host.nova_name:  # noqa: B023
            continue
        for address in (port.mac, *(known(lambda: port.addresses) or ())):  # noqa: B023
            addresses[address] = title
        for leads in host.ports.floating.get(port.id, ()):
            addresses[leads.address] = title
    numbers: dict[str, str] = {}
    patches: dict[str, str] = {}
    rows = host.network.switch
    for name, row in rows.items() if not isinstance(rows, UnheardError) else ():
        number, ids = row.interface.get("ofport"), row.interface.get("external_ids")
        if row.bridge != bridge or not isinstance(number, int) or number < 1:
            continue
        uuid = str(ids.get("iface-id")).lower() if isinstance(ids, dict) else ""
        owner = host.ports.by_id.get(uuid)
        whose = titles.get(uuid) or (_title(owner) if owner is not None else None)
        if whose is not None:
            numbers[str(number)] = whose
        elif text(row.interface, "type") == "patch":
            patches[str(number)] = name
    return _Names(numbers, patches, addresses)


def _title(port: Port) -> str | None:
    """Return what a port of neutron's own belongs to; None if it is of another kind."""
    if port.device_owner == "network:dhcp":
        return f"the DHCP server of network {brief(port.network_id or '')}"
    if port.device_owner.startswith("network:router"):
        return f"router {brief(port.device_id)}"
    return None


def _in_first(
    host: Host, table: FirstTable, names: _Names, own: frozenset[int]
) -> Iterator[_Foreign]:
    """Yield the foreign rules of a bridge's first table that cut somebody off."""
    defaults = [*_defaults(table.rules)]
    ours = own | {rule.cookie for rule in defaults}
    started = min((rule.age for rule in defaults), default=None)
    agents = host.ports.agents_on.get(host.nova_name, ())
    by_ovn = any(is_true(lambda: agent.kind == OVN) for agent in agents)  # noqa: B023
    floors = _floors(rule for rule in table.rules if rule.cookie in ours)
    for rule in table.rules:
        # OVN's rules have many numbers. Before Liberty, the agent's rules had none.
        is_foreign = rule.cookie == 0 if by_ovn else rule.cookie not in ours
        if not is_foreign or not (ours or by_ovn) or not _takes(rule):
            continue
        if rule.cookie and started is not None and rule.age > started:
            continue  # the agent starts, and has not deleted its old rules yet
        # OVN drops what no rule matches by a rule without a number.
        replaced = not by_ovn and bool(own) and table.bridge == "br-int"
        if not rule.match.keys() - NEEDED.keys():
            if rule.priority > 0 or (replaced and not rule.match):
                kind = "".join(f"{NEEDED[name]} " for name in rule.match)
                yield _Foreign(rule, table.bridge, table.answer, f"all {kind}packets")
        elif what := _concerns(rule, names, floors):
            yield _Foreign(rule, table.bridge, table.answer, what)


def _defaults(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Yield the rule for packets that no other rule matches; the agent adds it when it starts."""
    for rule in rules:
        if rule.cookie and not rule.priority and not rule.match:
            yield rule


def _floors(rules: Iterable[Rule]) -> Mapping[str, int]:
    """Return number of a port → the highest priority of the agent's rules for all its packets."""
    found: dict[str, int] = {}
    for rule in rules:
        if rule.match.keys() == {"in_port"}:
            number = rule.match["in_port"]
            found[number] = max(rule.priority, found.get(number, 0))
    return found


def _takes(rule: Rule) -> bool:
    """True if a rule drops packets, or sends them to one other port. A rule with a number that
    sends to one port is the work of a service that chains ports."""
    if rule.actions == DROP:
        return True
    return not rule.cookie and _ELSEWHERE.fullmatch(rule.actions) is not None


def _concerns(rule: Rule, names: _Names, floors: Mapping[str, int]) -> str | None:
    """Return which packets a rule takes: `what vm-a sends`; None if nobody's."""
    number = rule.match.get("in_port")
    if number is not None:
        is_above = rule.priority > floors.get(number, 0)
        if number in names.numbers:
            return f"what {names.numbers[number]} sends" if is_above else None
        if number in names.patches and rule.match.keys() == {"in_port"}:
            return f"all packets from {names.patches[number]}" if is_above else None
    if rule.priority <= max((floors.get(own, 0) for own in names.numbers), default=0):
        return None
    # A guest's own address that comes from another port is a loop or false: it may be dropped.
    for field in (*FROM, *TO) if number is None else TO:
        whose = names.addresses.get(rule.match.get(field, ""))
        if whose is not None:
            return f"what {whose} sends" if field in FROM else f"what is sent to {whose}"
    return None


def _in_others(host: Host, names: _Names, own: frozenset[int]) -> Iterator[_Foreign]:
    """Yield the rules without a number in other tables that drop what a guest's port sends."""
    for number, flows in sorted(host.network.flows.items()):
        whose = names.numbers.get(str(number))
        lowest: dict[int, int] = {}
        for rule in flows.rules:
            if rule.cookie in own:
                lowest[rule.table] = min(rule.priority, lowest.get(rule.table, rule.priority))
        for rule in flows.rules if own and whose is not None else ():
            if not rule.table or rule.cookie or rule.actions != DROP:
                continue
            if rule.table in lowest and rule.priority > lowest[rule.table]:
                yield _Foreign(rule, "br-int", flows.answer, f"what {whose} sends")


def _report(found: _Foreign) -> Problem:
    rule = found.rule
    does = "drops" if rule.actions == DROP else f"diverts to {rule.actions}"
    is_default = not rule.match and not rule.priority
    exact = f"cookie={rule.cookie:#x}/-1,table={rule.table},{rule.words}"
    named = [name for name in rule.match if name in (*FROM, *TO)]
    some = rule.match.keys() - {*FROM, *TO} - NEEDED.keys()
    partly = len(named) > 1 or some or rule.actions != DROP
    return problem(
        f"{found.bridge} {does} {found.what}, by a rule that is not neutron's: {rule.words}",
        hears(
            found.answer,
            "Open vSwitch",
            rule.words,
            cookie=f"{rule.cookie:#x}",
            table=rule.table,
            rule=rule.words,
            actions=rule.actions,
            packets=rule.packets,
        ),
        severity=Severity.WARNING if partly else None,
        BRIDGE=found.bridge,
        TABLE_NUMBER=rule.table,
        RULE="" if is_default else exact,
        SERVICE=SERVICE if is_default else "",
    )
