"""Bridges of Open vSwitch that carry guests: fail modes, controllers, and mirrors of packets."""

from __future__ import annotations

from collections.abc import Mapping

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.api.agent import WIRING, Agent
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, is_true, known
from hoodsnap.facts.host.bridge import SECURE, Bridge, Mirror
from hoodsnap.phrase import counted, several

AGENT = "Open vSwitch agent"

OVN = "OVN Controller agent"

INTEGRATION = "br-int"
"""Name of the integration bridge if the agent does not report another one."""

TUNNELS = "patch-int"
"""Name of the port that leads from the bridge of the tunnels to the integration bridge."""


@check(Severity.WARNING)
def bridge_not_secure(host: Host) -> Problems:
    """A bridge of Open vSwitch switches by itself while its controller is away.

    neutron's agent and OVN set the fail mode `secure`: a bridge without rules drops everything.
    With `standalone`, or without a fail mode, ovs-vswitchd acts as a simple switch if no controller
    answers, as after its restart while the agent is down. Packets then pass between all ports, past
    security groups and the protection against false addresses, and loops between bridges are
    possible. Nothing is wrong until then. Causes: a bridge was made anew by hand or by a script, or
    somebody debugged the network.

    Authority: neutron's agent, which sets the mode when it starts.

    Traps: With OVN only the integration bridge has to be secure. Bridges that the agent does not
    use. Agents before Liberty did not set the mode of the bridges to physical networks.

    Next: Check the mode, and whether the agent runs:

        ovs-vsctl --columns=name,fail_mode,controller list Bridge
        openstack network agent list --host HOST

    Set the mode, which changes no rule and interrupts nothing:

        ovs-vsctl set-fail-mode BRIDGE secure

    It worked if the bridge is secure:

        ovs-vsctl get Bridge BRIDGE fail_mode

    Not yet: Do not restart Open vSwitch or stop the agent before the mode is set.

    Source: neutron agent/common/ovs_lib.py `set_secure_mode`, ovs_neutron_agent.py
    `setup_integration_br`, `setup_physical_bridges`; ovs-vswitchd.conf.db(5), Bridge `fail_mode`.
    """
    for bridge in _used(host).values():
        if bridge.fail_mode != SECURE:
            mode = bridge.fail_mode
            yield problem(
                f"{bridge.name} on {host.name} has "
                f"{f'fail mode {mode}' if mode else 'no fail mode'}: without its controller it "
                "switches past neutron's rules",
                hears(
                    bridge.answer, "Open vSwitch", bridge.name, bridge=bridge.name, fail_mode=mode
                ),
                BRIDGE=bridge.name,
            )


@check(Severity.ERROR)
def bridge_without_controller(host: Host, cloud: Cloud) -> Problems:
    """neutron's agent cannot write the rules of a bridge, of which it is not the controller.

    The agent writes all rules of its bridges as their OpenFlow controller. When the last controller
    of a bridge is removed, Open vSwitch deletes all of the bridge's rules at once, so a secure
    bridge drops everything: all guests of the host are cut off. The agent only finds that its
    switch does not answer, and keeps reporting itself as alive. A controller that is set but not
    connected leaves the rules as they are, and no change reaches them (a warning).

    Authority: Open vSwitch.

    Traps: OVN writes its rules by another way. Agents before Newton, and those with `of_interface =
    ovs-ofctl`, need no controller: a bridge without one is wrong only if it has no rules, or if
    another bridge of the agent has one. An agent that is down or starts is not connected.

    Next: Check the controllers, the rules of the bridge, and the log of the agent:

        ovs-vsctl --columns=target,is_connected list Controller
        ovs-vsctl --columns=name,fail_mode,controller list Bridge
        ovs-ofctl dump-flows BRIDGE table=0
        journalctl -u SERVICE -n 50

    Find out who removed the controller. Restart the agent, which sets the controller of its bridges
    and writes all rules again; rules that exist stay meanwhile:

        systemctl restart SERVICE

    It worked if the bridge has a controller that is connected, and rules, a minute later:

        ovs-vsctl --columns=target,is_connected list Controller
        ovs-ofctl dump-flows BRIDGE table=0

    Not yet: Do not reboot guests or bind ports again, because nothing can be wired. Do not set the
    fail mode to standalone, which connects the guests past their security groups.

    Source: Open vSwitch ofproto/ofproto.c `ofproto_set_controllers` (flushes the rules); neutron
    openflow/native/ovs_bridge.py `setup_controllers`, ovs_neutron_agent.py `check_ovs_status`.
    """
    agent = _agent(host)
    if agent is None or agent.kind != AGENT or not is_true(lambda: agent.alive):
        return
    used = _used(host)
    has = {name: bridge.controllers for name, bridge in used.items()}
    if not any(has.values()) and not any(_is_empty(host, name) for name in used):
        return  # the agent writes rules by another way
    for name, bridge in used.items():
        if any(one.connected for one in has[name]):
            continue
        targets = several(one.target for one in has[name])
        lost = _is_empty(host, name)
        running = [guest.title for guest in cloud.guests_of(host) if guest.runs]
        what = "its controller is not connected" if targets else "it has no controller"
        cut = f", and no rules: it drops the packets of {counted(len(running), 'guest')}"
        yield problem(
            f"neutron's agent cannot change the rules of {name} on {host.name}: {what}"
            f"{cut if lost else ''}",
            hears(bridge.answer, "Open vSwitch", name, bridge=name, controller=targets or None),
            *(
                [hears(host.network.first_tables[name].answer, "Open vSwitch", name, rules=None)]
                if lost
                else []
            ),
            severity=Severity.WARNING if targets and not lost else None,
            BRIDGE=name,
            SERVICE="neutron-openvswitch-agent",
        )


@check(Severity.WARNING)
def packets_mirrored(host: Host, cloud: Cloud) -> Problems:
    """Open vSwitch copies the packets of guests to another port.

    A mirror was set up by hand, as for tcpdump or a network analyzer, and nobody removed it.
    A program that reads its output sees what the guests send and receive, and the copies cost
    processor time and bandwidth. neutron's agent makes no mirrors, and does not see them.

    Authority: Open vSwitch.

    Traps: OVN makes mirrors of its own, which its northbound database lists. A mirror that copies
    no packets of a guest, a router or a DHCP server. A mirror without an output.

    Next: Check the mirror, and which port its copies go to:

        ovs-vsctl --columns=name,select_all,select_src_port,select_dst_port,output_port list Mirror
        ovs-vsctl --columns=name,type,options,external_ids list Interface

    Find out who set it up: it may be an investigation or a service that the guests' owner ordered.
    If nobody needs it, remove the mirror, which changes nothing for the guests:

        ovs-vsctl -- --id=@m get Mirror MIRROR -- remove Bridge BRIDGE mirrors @m

    It worked if the mirror is not in the list:

        ovs-vsctl --columns=name,output_port list Mirror

    Not yet: Do not remove the mirror before you know who reads its output. Do not delete its output
    port first: a mirror without an output drops nothing, but hides who read it.

    Source: ovs-vswitchd.conf.db(5), Mirror; ovs-vsctl(8); OVN controller/mirror.c.
    """
    agent = _agent(host)
    if agent is not None and agent.kind == OVN:
        return
    for name, bridge in host.network.switch_bridges.items():
        for mirror in bridge.mirrors:
            whose = _whose(host, cloud, name, mirror)
            if whose is None:
                continue
            to = mirror.output or f"VLAN {mirror.vlan}"
            yield problem(
                f"Mirror {mirror.name or '(without a name)'} of {name} on {host.name} copies the "
                f"packets of {whose} to {to}",
                hears(
                    bridge.tables["Mirror"][1],
                    "Open vSwitch",
                    mirror.name,
                    mirror=mirror.name,
                    ports="all" if mirror.whole else ", ".join(mirror.ports),
                    output=to,
                ),
                hears(bridge.answer, "Open vSwitch", name, bridge=name),
                BRIDGE=name,
                MIRROR=mirror.name or None,
            )


def _agent(host: Host) -> Agent | None:
    """Return the agent that wires this host's guests. Raises `UnheardError` if it is not known."""
    if host.ports.agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    own = [agent for agent in host.ports.agents_on.get(host.nova_name, ()) if agent.kind in WIRING]
    alive = [agent for agent in own if is_true(lambda: agent.alive)]  # noqa: B023
    return next(iter([*alive, *own]), None)


def _used(host: Host) -> Mapping[str, Bridge]:
    """Return the bridges that the host's agent manages, by name."""
    agent, bridges = _agent(host), host.network.switch_bridges
    if agent is None or agent.kind not in (AGENT, OVN):
        return {}
    names = {known(lambda: agent.integration_bridge) or INTEGRATION}
    if agent.kind == AGENT:
        names |= {*(known(lambda: agent.bridge_mappings) or {}).values()}
        rows = host.network.switch
        tunnels = rows.get(TUNNELS) if not isinstance(rows, UnheardError) else None
        names |= {tunnels.bridge} if tunnels is not None and tunnels.bridge is not None else set()
    return {name: bridge for name, bridge in sorted(bridges.items()) if name in names}


def _is_empty(host: Host, bridge: str) -> bool:
    """True if the bridge's first table was collected and has no rules."""
    table = host.network.first_tables.get(bridge)
    return table is not None and not table.rules


def _whose(host: Host, cloud: Cloud, bridge: str, mirror: Mirror) -> str | None:
    """Return whose packets a mirror copies; None if it copies none of neutron's ports."""
    rows = host.network.switch
    if isinstance(rows, UnheardError):
        return None
    titles = {port.id: guest.title for guest in cloud.guests_of(host) for port in guest.ports or ()}
    found: dict[str, None] = {}
    for name, row in rows.items():
        port_name = row.port.get("name") if row.port is not None else name
        ids = row.interface.get("external_ids")
        uuid = str(ids.get("iface-id")).lower() if isinstance(ids, dict) else ""
        if row.bridge != bridge or not (mirror.whole or {name, port_name} & {*mirror.ports}):
            continue
        port = host.ports.by_id.get(uuid)
        if uuid in titles:
            found[titles[uuid]] = None
        elif port is not None:
            found[f"{port.device_owner or 'port'} {port.id[:8]}"] = None
        elif row.interface.get("type") == "patch":
            found[f"all guests that pass {name}"] = None
    if mirror.whole and found:
        return "all its ports"
    return several(found) or None
