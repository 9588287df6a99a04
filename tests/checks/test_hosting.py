"""Routers that no host runs, and DHCP servers that do not answer."""

from __future__ import annotations

import pytest
from tests.conftest import FAULTS, RecordedHost, changes

from hoodsnap.bundle import load
from hoodsnap.findings.analysis import analyze

WITHOUT_DHCP = "network-without-dhcp-server"

HEADING = "   sl  local_address rem_address   st\n"
ANSWERS = "13169: 00000000:0043 00000000:0000 07 00000000:00000000\n"


def _router(host: RecordedHost) -> str:
    [router] = host.report().cloud.ports.routers_by_id.values()
    return router.id


def _ports(host: RecordedHost, **fields: object) -> None:
    ports = host.report().cloud.ports.by_id.values()
    router = _router(host)
    for port in [port for port in ports if port.device_id == router]:
        host.port(port.id, **fields)


def _no_namespace(host: RecordedHost) -> None:
    router = _router(host)
    names = host.last("network", "ip -j netns").value
    kept = [row for row in names if row["name"] != f"qrouter-{router}"]
    host.set("network", "ip -j netns", kept)
    host.drop(lambda answer: router not in answer.query or answer.layer != "network")


def test_router_not_hosted(host: RecordedHost) -> None:
    _ports(host, status="DOWN")
    _no_namespace(host)

    finding = host.found("router-not-hosted")
    assert finding.headline.startswith("Router lab-router runs on no host: vm-bfv, ")
    [add, restart] = changes(finding)
    assert add.startswith("openstack network agent add router --l3 ")
    assert add.endswith(f" {_router(host)}")
    assert restart == "systemctl restart neutron-l3-agent"


def test_a_router_with_a_namespace_is_on_a_host(host: RecordedHost) -> None:
    _ports(host, status="DOWN")

    assert "router-not-hosted" not in {one.check.name for one in host.report().findings}


def test_a_disabled_router_is_on_no_host(host: RecordedHost) -> None:
    _ports(host, status="DOWN")
    _no_namespace(host)
    router = _router(host)
    host._set_item("neutron", "/routers", "routers", "id", router, {"admin_state_up": False})

    assert "router-not-hosted" not in {one.check.name for one in host.report().findings}


def _sockets(host: RecordedHost, text: str) -> None:
    [asked, *_] = host.bundle.by_layer["network"]
    names = host.report().cloud.hosts[0].network.namespaces
    for name in names:
        if name.startswith("qdhcp-"):
            query = f"ip netns exec {name} cat /proc/net/udp"
            host.add(asked.model_copy(update={"query": query, "value": text}))


def test_dhcp_server_silent(host: RecordedHost) -> None:
    _sockets(host, HEADING)

    findings = host.report().findings
    assert {one.check.name for one in findings} == {"dhcp-server-silent"}
    assert findings[0].headline.startswith("No DHCP server runs on vm for network lab-")
    assert changes(findings[0]) == ["systemctl restart neutron-dhcp-agent"]


@pytest.mark.parametrize("text", [HEADING + ANSWERS, None])
def test_a_server_that_answers_or_was_not_looked_for_is_not_reported(
    host: RecordedHost, text: str | None
) -> None:
    if text is not None:
        _sockets(host, text)

    assert host.findings() == []


def _dhcp_ports(host: RecordedHost) -> dict[str, str]:
    """Return the id of each DHCP port → its network's id."""
    ports = host.report().cloud.ports.by_id.values()
    return {port.id: port.network_id or "" for port in ports if port.device_owner == "network:dhcp"}


def test_network_without_dhcp_server(host: RecordedHost) -> None:
    reserved = _dhcp_ports(host)
    for uuid in reserved:
        host.port(uuid, device_id="reserved_dhcp_port")

    found = [one for one in host.report().findings if one.check.name == WITHOUT_DHCP]
    networks = sorted(finding.names["NETWORK"] for finding in found)
    assert networks == sorted({*reserved.values()})
    assert found[0].headline.startswith("No DHCP agent serves network lab-")
    [add] = changes(found[0])
    assert add.startswith("openstack network agent add network --dhcp ")


def test_a_network_whose_dhcp_port_is_gone_has_no_server(host: RecordedHost) -> None:
    for uuid in _dhcp_ports(host):
        host.unlist(uuid)

    assert WITHOUT_DHCP in {one.check.name for one in host.report().findings}


def test_a_subnet_without_dhcp_needs_no_server(host: RecordedHost) -> None:
    for uuid in _dhcp_ports(host):
        host.port(uuid, device_id="reserved_dhcp_port")
    for subnet in host.report().cloud.ports.subnets:
        host._set_item("neutron", "/subnets", "subnets", "id", subnet, {"enable_dhcp": False})

    assert WITHOUT_DHCP not in {one.check.name for one in host.report().findings}


def test_a_cloud_without_dhcp_agents_has_another_server(host: RecordedHost) -> None:
    for uuid in _dhcp_ports(host):
        host.port(uuid, device_id="reserved_dhcp_port")
    [agents] = [one for one in host.bundle.answers if one.query == "GET /v2.0/agents"]
    kept = [one for one in agents.value["agents"] if one["agent_type"] != "DHCP agent"]
    host.set("neutron", agents.query, {"agents": kept})

    assert WITHOUT_DHCP not in {one.check.name for one in host.report().findings}


def test_the_dhcp_ports_of_other_hosts_are_unknown_in_a_collection_of_one_host() -> None:
    report = analyze(load(FAULTS / "card-by-hand.json.zst"))

    assert WITHOUT_DHCP not in {one.check.name for one in report.findings}
    [skip] = [skip for skip in report.skips if skip.check.name == WITHOUT_DHCP]
    assert skip.reason.endswith("(use collect --all-hosts)")
