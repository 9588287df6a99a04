"""Network namespaces of routers, DHCP and metadata."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.findings.advice import instructions
from hoodsnap.phrase import brief


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


NAMES = "ip -j netns"


def _names(host: RecordedHost, kind: str) -> list[str]:
    return [
        row["name"] for row in host.last("network", NAMES).value if row["name"].startswith(kind)
    ]


def _remove(host: RecordedHost, name: str) -> None:
    rows = host.last("network", NAMES).value
    host.set("network", NAMES, [row for row in rows if row["name"] != name])
    host.drop(lambda answer: answer.layer != "network" or name not in answer.query)


def _own(host: RecordedHost, name: str, query: str) -> str:
    return f"ip -j -n {name} {query}"


def test_network_namespace_wrong(host: RecordedHost) -> None:
    [name] = _names(host, "qrouter-")
    _remove(host, name)

    assert sorted(host.headlines()) == [
        f"Host vm has no namespace {brief(name)}, which serves network lab-ext",
        f"Host vm has no namespace {brief(name)}, which serves network lab-net",
    ]


def test_the_namespace_of_a_dhcp_server_is_missing(host: RecordedHost) -> None:
    name = f"qdhcp-{_port(host, 'vm-plain')['network_id']}"
    _remove(host, name)

    assert host.headlines() == [
        f"Host vm has no namespace {brief(name)}, which serves network lab-net"
    ]


def test_a_router_lost_the_gateway_address_of_its_guests(host: RecordedHost) -> None:
    [name] = _names(host, "qrouter-")
    query = _own(host, name, "address")
    links = json.loads(json.dumps(host.last("network", query).value))
    for link in links:
        link["addr_info"] = [ip for ip in link["addr_info"] if ip["local"] != "10.20.0.1"]
    host.set("network", query, links)

    assert host.headlines() == [f"{brief(name)} of network lab-net lacks 10.20.0.1"]


def test_a_routers_device_is_down(host: RecordedHost) -> None:
    [name] = _names(host, "qrouter-")
    query = _own(host, name, "address")
    links = json.loads(json.dumps(host.last("network", query).value))
    [link] = [link for link in links if link["ifname"].startswith("qr-")]
    link["flags"].remove("UP")
    host.set("network", query, links)

    assert host.headlines() == [
        f"{brief(name)}'s device {link['ifname']} of network lab-net is down"
    ]


@pytest.mark.parametrize(
    ("way", "words"),
    [(None, "is missing"), ("172.24.4.9", "leads to 172.24.4.9")],
)
def test_a_default_route_leads_elsewhere(host: RecordedHost, way: str | None, words: str) -> None:
    [name] = _names(host, "qrouter-")
    query = _own(host, name, "route")
    routes = [row for row in host.last("network", query).value if row["dst"] != "default"]
    routes += [{"dst": "default", "gateway": way, "dev": "qg-e2704c3e-e4"}] if way else []
    host.set("network", query, routes)

    assert host.headlines() == [f"{brief(name)}'s default route {words}; neutron has 172.24.4.1"]


def test_a_subnet_whose_gateway_changed(host: RecordedHost) -> None:
    subnet = _port(host, "vm-plain")["fixed_ips"][0]["subnet_id"]
    host._set_item("neutron", "/subnets?", "subnets", "id", subnet, {"gateway_ip": "10.20.0.254"})

    name = f"qdhcp-{_port(host, 'vm-plain')['network_id']}"
    headline = f"{brief(name)}'s default route leads to 10.20.0.1; neutron has 10.20.0.254"
    assert headline in host.headlines()


@pytest.mark.parametrize("kind", ["distributed", "ha"])
def test_other_routers_have_their_addresses_elsewhere(host: RecordedHost, kind: str) -> None:
    [name] = _names(host, "qrouter-")
    router = name.removeprefix("qrouter-")
    host._set_item("neutron", "/routers?", "routers", "id", router, {kind: True})
    _remove(host, name)

    assert host.findings() == []


def test_namespaces_may_be_in_a_container(host: RecordedHost) -> None:
    host.set("network", NAMES, [])
    host.drop(lambda answer: "ip -j -n " not in answer.query and " netns exec " not in answer.query)
    devices = ("qr-", "qg-", "tapef48e389-b3", "tapcf03b9ba-1a")
    for table in ("Interface", "Port"):
        for name in _switched(host, table):
            if name.startswith(devices):
                host.switch(table, name, name=f"x{name}"[:12])

    assert [line for line in host.findings() if "namespace" in line] == []
    assert [one for one in host.report().skips if one.check.name == "network-namespace-wrong"]


def _switched(host: RecordedHost, table: str) -> list[str]:
    [value] = [
        answer.value
        for answer in host.bundle.by_layer["network"]
        if answer.query.endswith(f" list {table}")
    ]
    return [row[value["headings"].index("name")] for row in value["data"]]


def test_ovns_metadata_namespace_is_missing(host: RecordedHost) -> None:
    """Names as on a lab with OVN 23.03: `ovnmeta-` and the network's id."""
    agents = json.loads(json.dumps(host.last("neutron", "GET /v2.0/agents").value))
    own = {"agent_type": "OVN Metadata agent", "binary": "neutron-ovn-metadata-agent"}
    agents["agents"].append({**agents["agents"][0], "id": "7d0f", "alive": True, **own})
    host.set("neutron", "GET /v2.0/agents", agents)
    assert host.findings() == []

    network = _port(host, "vm-plain")["network_id"]
    rows = host.last("network", NAMES).value
    other = next(
        port["network_id"] for port in host.ports("vm-config") if port["network_id"] != network
    )
    host.set("network", NAMES, [*rows, {"name": f"ovnmeta-{other}"}])
    [headline] = host.headlines()
    assert headline.startswith(f"Host vm has no namespace ovnmeta-{network[:8]}: no metadata for ")

    host.set(
        "network", NAMES, [*rows, {"name": f"ovnmeta-{other}"}, {"name": f"ovnmeta-{network}"}]
    )
    assert host.findings() == []


def test_namespace_route_wrong_without_the_external_subnet(host: RecordedHost) -> None:
    """One host's recording has the guests' subnets only: the route is missing all the same."""
    [name] = _names(host, "qrouter-")
    query = _own(host, name, "route")
    host.set(
        "network",
        query,
        [row for row in host.last("network", query).value if row["dst"] != "default"],
    )
    external = {
        port.network_id
        for port in host.report().cloud.ports.by_id.values()
        if port.device_owner == "network:router_gateway"
    }
    for answer in host.bundle.answers:
        if answer.layer == "neutron" and "/subnets" in answer.query and answer.error is None:
            kept = [row for row in answer.value["subnets"] if row["network_id"] not in external]
            host.set("neutron", answer.query, {**answer.value, "subnets": kept})

    [line] = host.headlines()
    assert line.startswith(f"{brief(name)} on vm has no default route, but router ")


def test_a_routers_device_has_another_mac_address(host: RecordedHost) -> None:
    [name] = _names(host, "qrouter-")
    query = _own(host, name, "address")
    links = json.loads(json.dumps(host.last("network", query).value))
    [link] = [link for link in links if link["ifname"].startswith("qg-")]
    wanted, link["address"] = link["address"], "fa:16:3e:00:00:09"
    host.set("network", query, links)

    assert host.headlines() == [
        f"{brief(name)}'s device {link['ifname']} of network lab-ext has MAC address "
        f"fa:16:3e:00:00:09, but its port in neutron has {wanted}"
    ]
    [finding] = host.report().findings
    assert changes(finding)[0] == (f"ip -n {name} link set {link['ifname']} address {wanted}")


def test_open_vswitch_may_lower_the_mtu_of_a_routers_device(host: RecordedHost) -> None:
    [name] = _names(host, "qrouter-")
    query = _own(host, name, "address")
    links = json.loads(json.dumps(host.last("network", query).value))
    [link] = [link for link in links if link["ifname"].startswith("qg-")]
    link["mtu"] = 1450  # no less than the guests behind the router have
    host.set("network", query, links)

    assert host.findings() == []


def _rules(host: RecordedHost, old: str, new: str) -> None:
    """Edit the rules by which the router translates packets."""
    [name] = _names(host, "qrouter-")
    query = f"ip netns exec {name} iptables-save -t nat"
    rules = host.last("network", query).value
    assert re.search(old, rules)
    host.set("network", query, re.sub(old, new, rules))


def _gateway(host: RecordedHost, **fields: object) -> str:
    """Edit the router's external gateway. Return its address."""
    [name] = _names(host, "qrouter-")
    [router] = [
        router
        for answer in host.bundle.asked("neutron", "GET /v2.0/routers")
        for router in answer.value["routers"]
        if router["id"] in name
    ]
    gateway = {**router["external_gateway_info"], **fields}
    changed: dict[str, object] = {"external_gateway_info": gateway}
    host._set_item("neutron", "/routers?", "routers", "id", router["id"], changed)
    return str(gateway["external_fixed_ips"][0]["ip_address"])


SNAT = r"-A neutron-l3-agent-snat -o \S+ -j SNAT --to-source [\d.]+"


def test_a_router_translates_to_another_address(host: RecordedHost) -> None:
    _rules(host, SNAT, "-A neutron-l3-agent-snat -o qg-1 -j SNAT --to-source 10.9.9.9")

    [name] = _names(host, "qrouter-")
    assert host.headlines() == [
        f"{brief(name)} translates the packets of its guests to 10.9.9.9; neutron has "
        f"{_gateway(host)}"
    ]


def test_a_router_translates_although_that_was_switched_off(host: RecordedHost) -> None:
    _gateway(host, enable_snat=False)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert finding.headline.endswith("; SNAT is off in neutron")


def test_a_router_without_translation_has_no_rule(host: RecordedHost) -> None:
    _gateway(host, enable_snat=False)
    _rules(host, rf"{SNAT}.*\n", "")

    assert host.findings() == []


def test_namespace_route_wrong(host: RecordedHost) -> None:
    name = f"qdhcp-{_port(host, 'vm-plain')['network_id']}"
    query = _own(host, name, "route")
    host.set(
        "network",
        query,
        [row for row in host.last("network", query).value if row["dst"] != "default"],
    )

    assert host.headlines() == [f"{brief(name)}'s default route is missing; neutron has 10.20.0.1"]


def _give(host: RecordedHost, query: str, device: str, ip: str) -> None:
    links = json.loads(json.dumps(host.last("network", query).value))
    [link] = [link for link in links if link["ifname"].startswith(device)]
    link["addr_info"].append({"family": "inet", "local": ip, "prefixlen": 24, "scope": "global"})
    host.set("network", query, links)


def test_address_used_twice(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")
    ip, name = port["fixed_ips"][0]["ip_address"], f"qdhcp-{port['network_id']}"
    _give(host, _own(host, name, "address"), "tap", ip)

    [line] = host.headlines()
    assert line.startswith(f"vm-plain's address {ip} is also on {brief(name)}'s device tap")
    steps = [
        command.text
        for step in instructions(host.report().findings[0])
        for command in step.commands
    ]
    assert any(step.startswith(f"ip -n {name} address del {ip}/24 dev tap") for step in steps)


def test_a_floating_ip_of_a_guest_is_on_the_host(host: RecordedHost) -> None:
    listed = json.loads(json.dumps(host.last("neutron", "GET /v2.0/floatingips?limit=1000").value))
    ip = next(one for one in listed["floatingips"] if one["port_id"])["floating_ip_address"]
    _give(host, "ip -j address", "br-ex", ip)

    [line] = host.headlines()
    assert line.endswith(f"'s floating IP {ip} is also on host vm's device br-ex")


def test_another_network_may_have_the_same_address(host: RecordedHost) -> None:
    ip = _port(host, "vm-plain")["fixed_ips"][0]["ip_address"]
    [other] = [
        name for name in _names(host, "qdhcp-") if _port(host, "vm-plain")["network_id"] not in name
    ]
    _give(host, _own(host, other, "address"), "tap", ip)
    _give(host, "ip -j address", "lo", ip)

    assert host.findings() == []
