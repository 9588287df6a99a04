"""Open vSwitch: ports of one id, VLANs of one network, interfaces with an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost

from hoodsnap.findings.advice import instructions

PATCH = "int-br-ex"


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _tap(host: RecordedHost, name: str) -> str:
    return f"tap{_port(host, name)['id'][:11]}"


def _query(host: RecordedHost, table: str) -> str:
    [query] = {
        answer.query
        for answer in host.bundle.answers
        if answer.layer == "network" and answer.query.endswith(f" list {table}")
    }
    return query


def _copy(host: RecordedHost, name: str, new: str, bridge: str = "br-int") -> None:
    """Plug in a second interface with the ids of another one."""
    uuids = {
        "Interface": "5a5a5a5a-0000-4000-8000-000000000001",
        "Port": "5a5a5a5a-0000-4000-8000-000000000002",
    }
    for table, uuid in uuids.items():
        value = json.loads(json.dumps(host.last("network", _query(host, table)).value))
        at = {heading: number for number, heading in enumerate(value["headings"])}
        [row] = [row for row in value["data"] if row[at["name"]] == name]
        added = list(row)
        added[at["_uuid"]], added[at["name"]] = ["uuid", uuid], new
        if table == "Port":
            added[at["interfaces"]] = ["uuid", uuids["Interface"]]
        value["data"].append(added)
        host.set("network", _query(host, table), value)
    value = json.loads(json.dumps(host.last("network", _query(host, "Bridge")).value))
    at = {heading: number for number, heading in enumerate(value["headings"])}
    [row] = [row for row in value["data"] if row[at["name"]] == bridge]
    row[at["ports"]][1].append(["uuid", uuids["Port"]])
    host.set("network", _query(host, "Bridge"), value)


def test_switch_port_twice(host: RecordedHost) -> None:
    port, tap = _port(host, "vm-plain"), _tap(host, "vm-plain")
    _copy(host, tap, "tapdup0")

    [line] = host.headlines()
    assert line.startswith(
        f"{tap} and tapdup0 on br-int both have the id of vm-plain's port {port['id'][:8]}"
    )
    steps = [
        command.text
        for step in instructions(host.report().findings[0])
        for command in step.commands
    ]
    assert "ovs-vsctl --if-exists del-port tapdup0" in steps
    assert f"openstack server reboot --hard {host.uuid('vm-plain')}" in steps
    assert not any("UUID" in step or "DUPLICATE" in step for step in steps)


def test_a_trunks_parent_has_an_interface_on_two_bridges(host: RecordedHost) -> None:
    _copy(host, _tap(host, "vm-plain"), "tpi-5a5a5a5a-00", bridge="br-ex")

    assert host.findings() == []


def _tagged(host: RecordedHost, name: str, tag: object) -> None:
    host.switch("Port", name, tag=tag)


def _dhcp(host: RecordedHost) -> str:
    network = _port(host, "vm-plain")["network_id"]
    ports = host.report().cloud.ports.by_id.values()
    [port] = [it for it in ports if it.device_owner == "network:dhcp" and it.network_id == network]
    return port.tap


def test_switch_vlan_differs(host: RecordedHost) -> None:
    tap = _dhcp(host)
    _tagged(host, tap, 7)

    [line] = host.headlines()
    assert line.startswith(
        f"The DHCP server's interface {tap} is in VLAN 7 of br-int; its network lab-net has VLAN "
    )
    steps = [
        command.text
        for step in instructions(host.report().findings[0])
        for command in step.commands
    ]
    assert f"ovs-vsctl set Port {tap} tag={line.rpartition(' ')[2]}" in steps
    assert not any("systemctl" in step for step in steps)


def test_a_guests_tap_is_in_another_vlan(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    _tagged(host, tap, ["set", []])

    [finding] = host.report().findings
    assert finding.headline.startswith(
        f"vm-plain's tap {tap} is in no VLAN of br-int; its network lab-net has VLAN "
    )
    assert [one.headline for one in finding.folded] == [
        f"vm-plain's tap {tap} has no VLAN in Open vSwitch, unlike the other taps"
    ]


def test_a_network_has_two_vlans(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    value = host.last("network", _query(host, "Port")).value
    at = {heading: number for number, heading in enumerate(value["headings"])}
    [row] = [row for row in value["data"] if row[at["name"]] == tap]
    config = dict(row[at["other_config"]][1])
    host.switch(
        "Port",
        tap,
        tag=9,
        other_config=["map", [[key, "9" if key == "tag" else it] for key, it in config.items()]],
    )

    [line] = host.headlines()
    assert line.startswith("br-int has network lab-net in 2 VLANs: ")
    assert line.endswith(f"; {tap} in 9")


def test_a_port_that_is_not_active_may_have_an_earlier_vlan(host: RecordedHost) -> None:
    host.port(_port(host, "vm-stopped")["id"], status="DOWN")
    _tagged(host, _tap(host, "vm-stopped"), 7)

    assert host.findings() == []


def test_switch_interface_faulty(host: RecordedHost) -> None:
    for name, peer in ((PATCH, "phy-br-old"), ("phy-br-ex", PATCH)):
        host.switch(
            "Interface", name, error=f"No usable peer '{peer}' exists in 'netdev' datapath."
        )

    assert host.headlines() == [
        f"Patch port {PATCH} of br-int has phy-br-old as its peer instead of phy-br-ex; no guest on vm reaches physical"
        " network physnet1"
    ]
    steps = [
        command.text
        for step in instructions(host.report().findings[0])
        for command in step.commands
    ]
    assert f"ovs-vsctl set Interface {PATCH} options:peer=phy-br-ex" in steps


def test_an_interface_of_the_switch_could_not_be_opened(host: RecordedHost) -> None:
    host.switch(
        "Interface",
        "br-tun",
        error="could not add network device br-tun to ofproto (No such device)",
    )

    assert host.headlines() == [
        "Interface br-tun of br-tun has an error: could not add network device br-tun to ofproto (No such device)"
    ]


@pytest.mark.parametrize("bound", ["", "elsewhere"])
def test_rows_of_a_dhcp_server_that_moved_are_leftovers(host: RecordedHost, bound: str) -> None:
    tap = _dhcp(host)
    uuid = next(uuid for uuid, port in host.report().cloud.ports.by_id.items() if port.tap == tap)
    host.port(uuid, **{"binding:host_id": bound})
    host.switch("Interface", tap, error="could not open network device (No such device)")

    assert not any("has an error" in line for line in host.headlines())


def test_switch_port_twice_by_a_tap_whose_own_port_is_unknown(host: RecordedHost) -> None:
    """Nothing else reports a tap with another port's id if neutron did not answer."""
    other, tap = _port(host, "vm-duo"), _tap(host, "vm-plain")
    ids = [["iface-id", other["id"]], ["attached-mac", other["mac_address"]]]
    host.switch("Interface", tap, external_ids=["map", ids])
    host.silence("neutron")

    [line] = [it for it in host.findings() if it.startswith("switch-port-twice")]
    assert tap in line
    assert other["id"] in line
