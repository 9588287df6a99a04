"""Addresses that the DHCP server gives to guests."""

from __future__ import annotations

from typing import Any

from tests.conftest import RecordedHost, changes


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _file(host: RecordedHost, name: str) -> str:
    network = _port(host, name)["network_id"]
    return f"cat /var/lib/neutron/dhcp/{network}/host"


def _forget(host: RecordedHost, name: str) -> str:
    mac = _port(host, name)["mac_address"]
    lines = host.last("network", _file(host, name)).value.splitlines(keepends=True)
    host.set("network", _file(host, name), "".join(line for line in lines if mac not in line))
    return str(mac)


def test_dhcp_entry_missing(host: RecordedHost) -> None:
    mac, port = _forget(host, "vm-plain"), _port(host, "vm-plain")
    ip = port["fixed_ips"][0]["ip_address"]

    assert host.findings() == [
        f"dhcp-entry-missing of vm-plain: port reports id = {port['id']}, mac = {mac},"
        f" addresses = {ip}; DHCP server reports no {ip}"
    ]
    assert host.headlines() == [
        f"vm-plain's port {port['id'][:8]} has {ip} ({mac}) in neutron, but the DHCP server does not"
        " have it"
    ]


def test_the_address_belongs_to_another_card(host: RecordedHost) -> None:
    mac = _port(host, "vm-plain")["mac_address"]
    text = host.last("network", _file(host, "vm-plain")).value
    host.set("network", _file(host, "vm-plain"), text.replace(mac, "fa:16:3e:00:00:01"))

    [headline] = host.headlines()
    assert headline.endswith("the DHCP server gives it to fa:16:3e:00:00:01")


def _disable(host: RecordedHost, name: str) -> str:
    network = str(_port(host, name)["network_id"])
    disabled: dict[str, object] = {"admin_state_up": False}
    host._set_item("neutron", "/networks?", "networks", "id", network, disabled)
    return network


def test_the_network_is_disabled(host: RecordedHost) -> None:
    network = _disable(host, "vm-plain")

    finding, *others = host.report().findings
    assert (finding.check.name, others) == ("dhcp-entry-missing", [])
    assert finding.headline == (
        "12 of 14 guests on vm: for example, vm-bfv's network lab-net is disabled (admin_state_up = "
        "False), so no DHCP server gives the guest its address"
    )
    assert changes(finding) == [f"openstack network set --enable {network}"]


def test_a_disabled_network_that_no_agent_serves(host: RecordedHost) -> None:
    _disable(host, "vm-plain")
    subnet = _port(host, "vm-plain")["fixed_ips"][0]["subnet_id"]
    host._set_item("neutron", "/subnets?", "subnets", "id", subnet, {"enable_dhcp": False})

    assert host.findings() == []


def test_a_subnet_without_dhcp(host: RecordedHost) -> None:
    _forget(host, "vm-plain")
    subnet = _port(host, "vm-plain")["fixed_ips"][0]["subnet_id"]
    host._set_item("neutron", "/subnets?", "subnets", "id", subnet, {"enable_dhcp": False})

    assert host.findings() == []


def test_a_file_that_an_agent_left_behind(host: RecordedHost) -> None:
    """The network moved to another host's agent; the file of this host's stays."""
    _forget(host, "vm-plain")
    network = _port(host, "vm-plain")["network_id"]
    listed = host.last("neutron", "GET /v2.0/ports?limit=1000").value["ports"]
    for port in listed:
        if port["device_owner"] == "network:dhcp" and port["network_id"] == network:
            host.port(port["id"], binding__host_id="compute-9")

    assert host.findings() == []


def test_a_port_that_just_changed_is_not_in_the_file_yet(host: RecordedHost) -> None:
    _forget(host, "vm-plain")
    at = f"{host.bundle.started:%Y-%m-%dT%H:%M:%SZ}"
    host.port(_port(host, "vm-plain")["id"], updated_at=at)

    assert host.findings() == []


def test_a_file_that_could_not_be_read(host: RecordedHost) -> None:
    query = _file(host, "vm-plain")
    host.drop(lambda answer: answer.query != query)

    assert host.findings() == []
