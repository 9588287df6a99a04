"""neutron's agents that wire guests, and their bridges."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _dead(host: RecordedHost, *more: dict[str, Any]) -> None:
    """Make the Open vSwitch agent dead in neutron, and add further agents."""
    agents = host.last("neutron", AGENTS).value["agents"]
    told = [
        {**agent, "alive": agent["alive"] and agent["agent_type"] != "Open vSwitch agent"}
        for agent in agents
    ]
    host.set("neutron", AGENTS, {"agents": [*told, *more]})


AGENTS = "GET /v2.0/agents"


def test_network_agent_dead(host: RecordedHost) -> None:
    [agent] = [
        agent
        for agent in host.last("neutron", AGENTS).value["agents"]
        if agent["agent_type"] == "Open vSwitch agent"
    ]
    _dead(host)

    assert host.findings() == [
        "network-agent-dead: agent reports kind = Open vSwitch agent, alive = False,"
        f" heartbeat = {agent['heartbeat_timestamp']}, host = vm, running_guests = 12"
    ]
    clock = agent["heartbeat_timestamp"][11:16]
    [headline] = host.headlines()
    assert headline.startswith(f"Open vSwitch agent of vm has not reported since {clock} (")
    assert headline.endswith("; it wires 12 guests")


def test_a_replaced_agent_may_be_dead(host: RecordedHost) -> None:
    other = {"id": "7d0f", "agent_type": "OVN Controller agent", "host": "vm", "alive": True}
    _dead(host, {**other, "heartbeat_timestamp": None})

    assert host.findings() == []


def test_another_hosts_dead_agent_is_ignored(host: RecordedHost) -> None:
    agents = host.last("neutron", AGENTS).value["agents"]
    other = {**agents[0], "id": "7d0f", "host": "compute-9", "alive": False}
    host.set("neutron", AGENTS, {"agents": [*agents, other]})

    assert host.findings() == []


def test_a_failed_binding_is_folded_under_the_dead_agent(host: RecordedHost) -> None:
    host.binding(_port(host, "vm-plain")["id"], vif_type="binding_failed")
    _dead(host)

    [finding] = host.report().findings
    assert finding.check.name == "network-agent-dead"
    assert [one.check.name for one in finding.folded] == ["port-binding-bad"]


def _configure(host: RecordedHost, **fields: object) -> None:
    body = json.loads(json.dumps(host.last("neutron", AGENTS).value))
    for agent in body["agents"]:
        if agent["agent_type"] == "Open vSwitch agent":
            agent["configurations"] |= fields
    host.set("neutron", AGENTS, body)


def _rename(host: RecordedHost, table: str, name: str, new: str) -> None:
    host.switch(table, name, name=new)


def test_agent_bridge_missing(host: RecordedHost) -> None:
    _configure(host, bridge_mappings={"physnet1": "br-provider"})

    assert host.headlines()[0] == (
        "Host vm has no bridge br-provider, its Open vSwitch agent's bridge of physnet1"
    )


@pytest.mark.parametrize("name", ["int-br-ex", "phy-br-ex"])
def test_a_patch_port_of_a_physical_network_is_missing(host: RecordedHost, name: str) -> None:
    _rename(host, "Interface", name, "other")

    assert host.findings() == [
        "agent-bridge-missing: agent reports kind = Open vSwitch agent, host = vm;"
        f" Open vSwitch reports no {name}"
    ]
    assert host.headlines() == [
        f"Host vm has no patch port {name}: no guest on it reaches physnet1"
    ]


def test_the_integration_bridge_is_missing(host: RecordedHost) -> None:
    _configure(host, integration_bridge="br-inte")

    assert host.headlines() == [
        "Host vm has no bridge br-inte, its Open vSwitch agent's integration bridge"
    ]


def test_the_address_of_the_tunnels_is_missing(host: RecordedHost) -> None:
    _configure(host, tunneling_ip="192.0.2.99")

    assert host.headlines() == [
        "Host vm does not have 192.0.2.99, from which its Open vSwitch agent tunnels"
    ]


def test_a_dead_agent_may_be_configured_otherwise_now(host: RecordedHost) -> None:
    _configure(host, bridge_mappings={"physnet1": "br-provider"})
    _dead(host)

    assert not any("agent-bridge-missing" in line for line in host.findings())


def test_a_long_bridge_name_is_shortened_in_its_patch_ports(host: RecordedHost) -> None:
    """neutron shortens names of more than 15 bytes by a hash (neutron_lib plugins/utils.py)."""
    _configure(host, bridge_mappings={"physnet1": "br-ex"}, integration_bridge="br-int")
    assert host.findings() == []


def _ovn(host: RecordedHost, **config: object) -> None:
    """Wire the host by OVN instead."""
    body = json.loads(json.dumps(host.last("neutron", AGENTS).value))
    for agent in body["agents"]:
        if agent["agent_type"] == "Open vSwitch agent":
            agent |= {"agent_type": "OVN Controller agent", "binary": "ovn-controller"}
            agent["configurations"] = {"chassis_name": "vm", **config}
    host.set("neutron", AGENTS, body)
    host.drop(lambda answer: not answer.query.startswith("ovs-ofctl"))


def test_ovn_makes_patch_ports_where_guests_need_them(host: RecordedHost) -> None:
    _ovn(host, **{"bridge-mappings": "physnet1:br-ex"})
    assert host.findings() == []

    network = _port(host, "vm-plain")["network_id"]
    fields: dict[str, object] = {"provider:physical_network": "physnet1"}
    host._set_item("neutron", "/networks?", "networks", "id", network, fields)
    found = [line for line in host.headlines() if "patch port" in line]
    assert len(found) == 1
    assert found[0].startswith("Host vm has no patch port patch-br-int-to-provnet: ")


def test_one_end_of_ovns_patch_ports_is_missing(host: RecordedHost) -> None:
    _ovn(host, **{"bridge-mappings": "physnet1:br-ex"})
    _rename(host, "Interface", "int-br-ex", "patch-br-int-to-provnet-6fed8b8d")
    _rename(host, "Interface", "phy-br-ex", "patch-provnet-6fed8b8d-to-br-int")
    assert host.findings() == []

    _rename(host, "Interface", "patch-provnet-6fed8b8d-to-br-int", "other")
    assert host.headlines() == [
        "Host vm has no patch port patch-provnet-6fed8b8d-to-br-int:"
        " patch-br-int-to-provnet-6fed8b8d leads nowhere"
    ]
