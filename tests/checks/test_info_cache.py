"""nova's info cache of the guests' ports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _vifs(host: RecordedHost, name: str) -> list[dict[str, Any]]:
    instance = host.guest(name).instance
    assert instance is not None
    assert instance.info_cache is not None
    found = json.loads(str(instance.info_cache["network_info"]))
    assert isinstance(found, list)
    return found


def _note(host: RecordedHost, name: str, vifs: object) -> None:
    host.row("instance_info_caches", host.uuid(name), network_info=json.dumps(vifs))


OTHER = "f3e17f37-380d-4dd6-beb2-82a6d786c064"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["devname"], "tap00000000-00", "device tap00000000-00"),
        (["ovs_interfaceid"], OTHER, f"Open vSwitch id {OTHER[:8]}"),
        (["type"], "bridge", "type bridge"),
        (["vnic_type"], "direct", "VNIC type direct"),
        (["network", "id"], OTHER, f"network {OTHER[:8]}"),
        (["network", "bridge"], "br-other", "bridge br-other"),
        (["network", "subnets", 0, "cidr"], "10.9.0.0/24", "subnet 10.9.0.0/24"),
        (["network", "subnets", 0, "gateway", "address"], "10.20.0.9", "gateway 10.20.0.9"),
        (["details", "bridge_name"], "br-other", "bridge br-other"),
        (["details", "ovs_hybrid_plug"], True, "ovs_hybrid_plug true"),
        (["details", "bound_drivers"], {"0": "ovn"}, 'bound_drivers {"0": "ovn"}'),
        (["network", "meta", "tenant_id"], "other", "network's project other"),
        (["network", "meta", "tunneled"], False, "network type not tunneled"),
        (["network", "subnets", 0, "dns"], [], "name server none"),
        (["network", "subnets", 0, "meta", "dhcp_server"], "10.20.0.9", "DHCP server 10.20.0.9"),
    ],
)
def test_info_cache_outdated(
    host: RecordedHost, path: list[str | int], value: object, words: str
) -> None:
    vifs = _vifs(host, "vm-plain")
    inside: Any = vifs[0]
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    _note(host, "vm-plain", vifs)

    [headline] = [line for line in host.headlines() if "info cache" in line]
    port = _port(host, "vm-plain")["id"][:8]
    assert headline.startswith(f"vm-plain's port {port} has {words} in nova's info cache, but ")


def test_a_floating_ip_is_missing_in_the_cache(host: RecordedHost) -> None:
    vifs = _vifs(host, "vm-plain")
    [ip] = vifs[0]["network"]["subnets"][0]["ips"]
    [floating] = [one["address"] for one in ip["floating_ips"]]
    ip["floating_ips"] = []
    _note(host, "vm-plain", vifs)

    first, _ = host.headlines()
    port = _port(host, "vm-plain")["id"][:8]
    assert first == (
        f"vm-plain's port {port} has floating IP none in nova's info cache, but {floating} in"
        " neutron"
    )


def test_a_renamed_network_is_a_note(host: RecordedHost) -> None:
    network = _port(host, "vm-plain")["network_id"]
    host._set_item("neutron", "/networks?", "networks", "id", network, {"name": "renamed"})

    found = {one.severity.word for one in host.report().everything()}
    assert found == {"note"}


def test_the_api_lists_other_addresses_than_its_cache(host: RecordedHost) -> None:
    server = host.guest("vm-stopped").server
    assert server is not None
    addresses: Any = json.loads(json.dumps(server.raw["addresses"]))
    [listed] = addresses.values()
    was, listed[0]["addr"] = listed[0]["addr"], "10.20.0.9"
    host.server(host.uuid("vm-stopped"), addresses=addresses)

    assert host.headlines() == [
        f"nova's API lists 10.20.0.9 for vm-stopped, but its cache has {was}"
    ]


def test_without_the_database_the_api_is_compared_with_neutron(host: RecordedHost) -> None:
    host.drop(lambda answer: answer.layer != "nova-db")
    assert not any("info-cache-outdated" in line for line in host.findings())

    [fixed] = _port(host, "vm-stopped")["fixed_ips"]
    port = _port(host, "vm-stopped")["id"]
    host.port(port, fixed_ips=[{**fixed, "ip_address": "10.20.0.251"}])
    assert any("info-cache-outdated of vm-stopped" in line for line in host.findings())


def test_details_that_only_one_side_has_are_not_compared(host: RecordedHost) -> None:
    vifs = _vifs(host, "vm-plain")
    del vifs[0]["details"]["connectivity"]
    vifs[0]["details"]["of_an_older_release"] = True
    del vifs[0]["network"]["meta"]["tunneled"]
    _note(host, "vm-plain", vifs)

    assert host.findings() == []
