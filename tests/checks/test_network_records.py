"""Records about a network that are copies of each other."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


OTHER = "f3e17f37-380d-4dd6-beb2-82a6d786c064"


def _set(host: RecordedHost, kind: str, key: str, item: str, **fields: object) -> None:
    host._set_item("neutron", f"/{kind}?", kind, key, item, dict(fields))


def test_neutron_records_disagree(host: RecordedHost) -> None:
    port = _port(host, "vm-linux")
    _set(host, "floatingips", "port_id", port["id"], fixed_ip_address="10.20.0.253")

    [headline] = [line for line in host.headlines() if line.startswith("neutron's floating IP")]
    ip = port["fixed_ips"][0]["ip_address"]
    assert headline.endswith(
        f" leads to 10.20.0.253, which its port {port['id'][:8]} ({ip}) does not have"
    )


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("router_id", OTHER, "router f3e17f37, which does not exist"),
        ("port_id", OTHER, "leads to port f3e17f37, which does not exist"),
        ("floating_ip_address", "203.0.113.9", "is in no subnet of its external network"),
        ("floating_network_id", "3bf89f52-1460-4ec8-aed8-df40a4585d02", "its router leads to"),
    ],
)
def test_a_floating_ip_contradicts_others(
    host: RecordedHost, field: str, value: str, words: str
) -> None:
    _set(host, "floatingips", "port_id", _port(host, "vm-linux")["id"], **{field: value})

    assert any(words in line for line in host.headlines())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("network_id", "f3561ad5-e152-49d3-8c5f-5c87efb56812", "its subnet in f3561ad5"),
        ("cidr", "10.21.0.0/24", "which is not in its subnet 10.21.0.0/24"),
        ("allocation_pools", [{"start": "10.9.0.2", "end": "10.9.0.9"}], "which are not in it"),
        ("gateway_ip", "10.20.0.2", "which is the address of its DHCP server"),
    ],
)
def test_a_subnet_contradicts_others(
    host: RecordedHost, field: str, value: object, words: str
) -> None:
    subnet = _port(host, "vm-plain")["fixed_ips"][0]["subnet_id"]
    _set(host, "subnets", "id", subnet, **{field: value})

    assert any(words in line for line in host.headlines())


def test_a_port_in_a_network_that_does_not_exist(host: RecordedHost) -> None:
    host.port(_port(host, "vm-stopped")["id"], network_id="deadbeef-0000-4000-8000-000000000000")

    assert any("is in network deadbeef, which does not exist" in line for line in host.headlines())


def test_networks_of_one_host_do_not_prove_that_another_is_missing(host: RecordedHost) -> None:
    """Without --all-hosts only the networks of the host's ports are asked for."""
    whole = host.last("neutron", "GET /v2.0/networks?limit=1000")
    host.drop(lambda answer: answer.query != whole.query)
    part = "GET /v2.0/networks?id=3bf89f52-1460-4ec8-aed8-df40a4585d02&limit=1000"
    listed = [one for one in whole.value["networks"] if one["name"] == "lab-net"]
    host.add(whole.model_copy(update={"query": part, "value": {"networks": listed}}))

    assert host.findings() == []


@pytest.mark.parametrize(
    ("gateway", "words"),
    [
        ({"external_fixed_ips": [{"ip_address": "172.24.4.9"}]}, "has 172.24.4.9 outside"),
        ({"network_id": "deadbeef-0000-4000-8000-000000000000"}, "leads to network deadbeef"),
    ],
)
def test_a_router_contradicts_its_gateway_port(
    host: RecordedHost, gateway: dict[str, Any], words: str
) -> None:
    [router] = host.last("neutron", "GET /v2.0/routers?limit=1000").value["routers"]
    known = {**router["external_gateway_info"], **gateway}
    _set(host, "routers", "id", router["id"], external_gateway_info=known)

    assert any(words in line for line in host.headlines())


@pytest.mark.parametrize("kind", ["networks", "subnets", "ports", "routers", "floatingips"])
def test_an_object_belongs_to_one_project(host: RecordedHost, kind: str) -> None:
    answer = next(it for it in host.bundle.by_layer["neutron"] if f"/{kind}?" in it.query)
    item = answer.value[kind][0]
    _set(host, kind, "id", item["id"], tenant_id="other")

    assert any(
        f" belongs to project {item['project_id'][:8]}, and to other by" in line
        or f" belongs to project {item['project_id']}, and to other by" in line
        for line in host.headlines()
    )


@pytest.mark.parametrize("key", ["mac_address", "network_id", "device_id"])
def test_a_floating_ip_repeats_its_port(host: RecordedHost, key: str) -> None:
    port = _port(host, "vm-linux")["id"]
    answer = next(it for it in host.bundle.by_layer["neutron"] if "/floatingips?" in it.query)
    [details] = [
        item["port_details"] for item in answer.value["floatingips"] if item["port_id"] == port
    ]
    _set(host, "floatingips", "port_id", port, port_details=details | {key: "other"})

    assert any(f" has {key} other of its port " in line for line in host.headlines())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vif_type": "bridge"}, "has vif_type ovs, its active binding for vm bridge"),
        ({"vnic_type": "direct"}, "has vnic_type normal, its active binding for vm direct"),
        ({"vif_details": {"port_filter": False}}, 'has vif_details {"port_filter": true}'),
        ({"vif_details": {"of_a_later_release": False}}, ""),
        ({"host": "vm9"}, "bound to vm, but its active binding is for vm9"),
        ({"host": "vm9", "status": "INACTIVE"}, "still has a binding"),
    ],
)
def test_a_port_repeats_its_active_binding(
    host: RecordedHost, fields: dict[str, object], words: str
) -> None:
    query = f"GET /v2.0/ports/{_port(host, 'vm-plain')['id']}/bindings"
    [bound] = host.last("neutron", query).value["bindings"]
    host.set("neutron", query, {"bindings": [bound | fields]})

    found = [line for line in host.headlines() if "bind" in line]
    assert len(found) == bool(words)
    assert all(words in line for line in found)
