"""Addresses that neutron lost of a guest's port."""

from __future__ import annotations

from typing import Any

from tests.conftest import RecordedHost, changes


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _ip(port: dict[str, Any]) -> str:
    return str(port["fixed_ips"][0]["ip_address"])


def test_port_address_lost(host: RecordedHost) -> None:
    port = _port(host, "vm-snap")
    host.port(port["id"], fixed_ips=[])

    finding = host.found("port-address-lost")
    assert finding.headline == (
        f"neutron has lost {_ip(port)} of vm-snap's port {port['id'][:8]}, which nova's info cache,"
        " the DHCP server and the rules of its tap still have"
    )
    of_neutron, given = changes(finding)
    assert of_neutron.startswith("DELETE a FROM neutron.ipamallocations a ")
    assert of_neutron.endswith(
        f" WHERE s.network_id = '{port['network_id']}' AND a.ip_address = '{_ip(port)}'"
    )
    assert given == f"openstack port set --fixed-ip ip-address={_ip(port)} {port['id']}"
    assert {one.check.name for one in host.report().findings} == {"port-address-lost"}


def test_an_address_in_allowed_pairs_is_no_address_of_the_port(host: RecordedHost) -> None:
    port = _port(host, "vm-snap")
    pairs = [{"ip_address": _ip(port), "mac_address": port["mac_address"]}]
    host.port(port["id"], fixed_ips=[], allowed_address_pairs=pairs)

    assert "port-address-lost" not in {one.check.name for one in host.report().findings}


def test_an_address_that_was_replaced_is_not_lost(host: RecordedHost) -> None:
    port = _port(host, "vm-snap")
    host.port(port["id"], fixed_ips=[{**port["fixed_ips"][0], "ip_address": "10.20.0.99"}])

    names = {one.check.name for one in host.report().findings}
    assert "port-address-lost" not in names
    assert "info-cache-lost" in names
