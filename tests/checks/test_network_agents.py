"""neutron's agents that wire guests, and their bridges."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes


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


def _silent(host: RecordedHost, kind: str, minutes: int = 10) -> None:
    """Make one agent dead in neutron, which last reported some minutes before the end."""
    [query] = {
        answer.query
        for answer in host.bundle.by_layer["neutron"]
        if answer.query.startswith(AGENTS)
    }
    body = json.loads(json.dumps(host.last("neutron", query).value))
    at = host.report().cloud.now - timedelta(minutes=minutes)
    [agent] = [one for one in body["agents"] if one["agent_type"] == kind]
    agent |= {"alive": False, "heartbeat_timestamp": f"{at:%Y-%m-%d %H:%M:%S}"}
    host.set("neutron", query, body)


@pytest.mark.parametrize(
    ("kind", "service"),
    [
        ("L3 agent", "neutron-l3-agent"),
        ("DHCP agent", "neutron-dhcp-agent"),
        ("Metadata agent", "neutron-metadata-agent"),
    ],
)
def test_serving_agent_dead(host: RecordedHost, kind: str, service: str) -> None:
    _silent(host, kind)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("serving-agent-dead", "warning")
    assert finding.headline.startswith(f"{kind} of vm has not reported since ")
    assert finding.headline.endswith("; it serves 12 guests")
    assert changes(finding) == [f"systemctl restart {service}"]


def test_an_agent_that_missed_a_report_is_busy(host: RecordedHost) -> None:
    _silent(host, "DHCP agent", minutes=2)

    assert host.findings() == []


def test_an_agent_that_serves_no_network_of_a_guest(host: RecordedHost) -> None:
    _silent(host, "L3 agent")
    for port in host.report().cloud.ports.by_id.values():
        if "router" in port.device_owner:
            host.port(port.id, binding__host_id="compute-9")

    assert not any("serving-agent-dead" in line for line in host.findings())


def test_an_agent_that_another_one_has_replaced(host: RecordedHost) -> None:
    body = json.loads(json.dumps(host.last("neutron", AGENTS).value))
    [agent] = [one for one in body["agents"] if one["agent_type"] == "L3 agent"]
    _silent(host, "L3 agent")
    dead = host.last("neutron", AGENTS).value["agents"]
    host.set("neutron", AGENTS, {"agents": [*dead, {**agent, "id": "7d0f", "alive": True}]})

    assert host.findings() == []


def test_a_dead_agent_that_does_not_run_is_folded(served: RecordedHost) -> None:
    _silent(served, "L3 agent")
    for answer in served.bundle.by_layer["daemons"]:
        if answer.query.startswith("ps "):
            kept = [row for row in answer.value if row["name"] != "neutron-l3-agent"]
            served.set("daemons", answer.query, kept)

    [finding] = served.report().findings
    assert finding.check.name == "network-agent-not-running"
    assert [one.check.name for one in finding.folded] == ["serving-agent-dead"]
