"""OpenFlow rules that carry a guest's packets through the integration bridge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    passed_through,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import is_true
from hoodsnap.facts.host.flow import CHECKED, TRANSIENT, PortFlows
from hoodsnap.facts.host.tap import Tap
from hoodsnap.phrase import several

INGRESS = frozenset([81, 82])
"""Tables in which neutron's Open vSwitch firewall lets packets through to a port."""

WIRED = 0
"""Table in which OVN receives a port's packets."""


class _Fault(NamedTuple):
    what: str
    """Predicate of a sentence about the tap."""
    answer: Answer
    rules: dict[str, object]


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def port_without_flows(
    guest: Guest, domain: Domain, taps: tuple[Tap, ...], ports: tuple[Port, ...]
) -> Problems:
    """The integration bridge has no rules for the guest's tap, or rules for other addresses.

    Open vSwitch drops what no rule matches. neutron reports the port as ACTIVE, because the agent
    wired it once, and the guest's packets still get nowhere. Causes: the rules were flushed or
    deleted by hand, the agent restarted and failed half way, or the switch was restarted without
    its agent.

    Authority: Open vSwitch, for what happens to packets; neutron, for what should.

    Traps: Ports that are down or were just changed. Which rules a port needs depends on the agent
    and its firewall: OVN needs one in table 0; the Open vSwitch firewall needs table 60 and, with
    port security, 71 and 81 or 82; other firewalls are judged only by ports that have no rule at
    all.

    Next: Check the tap's port number and its rules, and the log of the agent:

        ovs-vsctl get Interface TAP ofport
        ovs-ofctl dump-flows br-int in_port=OFPORT
        openstack port show PORT -c status -c security_group_ids -c port_security_enabled
        journalctl -u neutron-openvswitch-agent -n 50

    Make the agent wire the port again: disable the port for a moment and enable it, which
    interrupts the guest's network:

        openstack port set --disable PORT
        openstack port set --enable PORT

    It worked if the rules are there, and the port is ACTIVE:

        ovs-ofctl dump-flows br-int in_port=OFPORT
        openstack port show PORT -c status

    Not yet: Do not add rules by hand, because the agent deletes rules that are not its own. Do not
    run `openstack server reboot --hard`: it may bring the rules back with a new tap, but it ends
    the guest, which enabling the port again does not.

    Source: neutron agent/linux/openvswitch_firewall/firewall.py `prepare_port_filter`; OVN
    controller/physical.c (table 0); neutron bugs 1697243, 1934917.
    """
    host = guest.host
    if host is None or not guest.is_here or domain.state not in ON:
        return
    of_port = {port.id[:PREFIX]: port for port in ports}
    for tap in taps:
        port = of_port.get(tap.prefix)
        if port is None or not _should_pass(host, port, tap):
            continue
        flows = host.network.flows.get(tap.ofport or -1)
        # Guests with the same number may be on another bridge.
        if flows is None or flows.answer.subject not in (None, port.id):
            continue
        faults = [*_faults(host, port, flows)]
        if faults:
            yield problem(
                f"{guest.title}'s tap {tap.name} {faults[0].what}",
                says(port, id=port.id, status=port.status),
                says(tap, name=tap.name, ofport=tap.ofport),
                *(hears(one.answer, "flows", tap.name, **one.rules) for one in faults),
                TAP=tap.name,
                PORT=port.id,
                OFPORT=tap.ofport,
            )


def _should_pass(host: Host, port: Port, tap: Tap) -> bool:
    """True if neutron reports that the port's packets pass on this host."""
    if passed_through(port) or port.host != host.nova_name or port.status != "ACTIVE":
        return False
    if not port.admin_state_up or not is_true(lambda: tap.is_switched):
        return False
    return tap.bridge == "br-int" and port.vif_type == "ovs"


def _faults(host: Host, port: Port, flows: PortFlows) -> Iterator[_Fault]:
    if is_ovn(host, port):
        if WIRED not in flows.tables:
            yield _Fault("has no rule in table 0 of br-int", flows.answer, {"table_0": None})
        return
    if not any(TRANSIENT in one.tables for one in host.network.flows.values()):
        # Another firewall: it rejects false senders in other tables, if it does.
        if not flows.tables and port.is_filtered:
            yield _Fault("has no rules on br-int", flows.answer, {"rules": None})
        return
    if not flows.tables:
        yield _Fault("has no rules on br-int", flows.answer, {"rules": None})
        return
    needed = {TRANSIENT, CHECKED} if port.is_filtered else {TRANSIENT}
    if missing := sorted(needed - flows.tables):
        tables = several(str(table) for table in missing)
        yield _Fault(f"has no rule in table {tables} of br-int", flows.answer, {"rules": None})
        return
    if not port.is_filtered:
        return
    if flows.macs_to_port and port.mac in flows.macs and (wrong := flows.macs_to_port - flows.macs):
        others = ", ".join(sorted(wrong))
        answer = flows.said["reg5"]
        yield _Fault(f"has rules for {others}, not only for {port.mac}", answer, {"dl_src": others})
    if port.mac not in flows.macs:
        found = ", ".join(sorted(flows.macs)) or None
        yield _Fault(f"may send as {found}, not as {port.mac}", flows.answer, {"dl_src": found})
    wanted = {ip for ip in port.addresses if ":" not in ip}
    if lacking := sorted(wanted - flows.addresses):
        found = ", ".join(sorted(flows.addresses)) or None
        what = f"may send from {found or 'no address'}, not from {several(lacking)}"
        yield _Fault(what, flows.answer, {"nw_src": found})
    if flows.to_port is not None and not INGRESS & flows.to_port:
        answer = flows.said["reg5"]
        yield _Fault("has no rule that lets packets in", answer, {"table_82": None})


def is_ovn(host: Host, port: Port) -> bool:
    """True if OVN wires the port."""
    if is_true(lambda: "ovn" in port.drivers):
        return True
    here = [agent.kind for agent in host.ports.agents_on.get(host.nova_name, ())]
    return "OVN Controller agent" in here and "Open vSwitch agent" not in here
