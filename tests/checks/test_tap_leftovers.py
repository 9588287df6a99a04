"""Taps and ports of Open vSwitch that are left over from guests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


LINKS = "ip -d -j link"


def _tap(host: RecordedHost, name: str) -> str:
    return f"tap{_port(host, name)['id'][:11]}"


def _add_link(host: RecordedHost, like: str, **fields: object) -> None:
    rows = host.last("network", LINKS).value
    [row] = [row for row in rows if row["ifname"] == like]
    host.set("network", LINKS, [*rows, {**row, **fields}])


def test_tap_orphan(host: RecordedHost) -> None:
    _add_link(host, _tap(host, "vm-plain"), ifname="tap01234567-89")

    assert host.findings() == [
        "tap-orphan: tap reports name = tap01234567-89, up = True; neutron reports no port"
    ]
    assert host.headlines() == ["Host vm still has tap01234567-89, which neutron has no port for"]


def test_a_leftover_open_vswitch_port(host: RecordedHost) -> None:
    host.switch("Interface", _tap(host, "vm-stopped"), name="tap01234567-89", ofport=-1)

    assert host.findings() == [
        "tap-orphan: tap reports name = tap01234567-89, ofport = -1, no error; neutron reports no port"
    ]


def test_a_tap_whose_port_was_deleted_during_the_capture(host: RecordedHost) -> None:
    port = _port(host, "vm-shelved")["id"]
    _add_link(host, _tap(host, "vm-plain"), ifname=f"tap{port[:11]}")
    before = host.last("neutron", "GET /v2.0/ports?limit=1000")
    again = f"GET /v2.0/ports?device_id={host.uuid('vm-shelved')}&limit=1000"
    host.add(before.model_copy(update={"query": again, "value": {"ports": []}}))

    assert not [found for found in host.findings() if found.startswith("tap-orphan")]


def test_a_tap_whose_port_is_on_another_host(host: RecordedHost) -> None:
    port = _port(host, "vm-shelved")["id"]
    _add_link(host, _tap(host, "vm-plain"), ifname=f"tap{port[:11]}")
    assert host.findings() == []

    host.port(port, binding__host_id="compute-9")
    bound = {"bindings": [{"host": "compute-9", "status": "ACTIVE"}]}
    host.set("neutron", f"GET /v2.0/ports/{port}/bindings", bound)
    assert host.findings() == [
        f"tap-orphan: tap reports name = tap{port[:11]}, up = True; port reports id = {port}, host = compute-9"
    ]


def test_an_incoming_live_migration_has_its_tap_first(host: RecordedHost) -> None:
    port = _port(host, "vm-shelved")["id"]
    _add_link(host, _tap(host, "vm-plain"), ifname=f"tap{port[:11]}")
    host.port(port, binding__host_id="compute-9")
    two = [{"host": "compute-9", "status": "ACTIVE"}, {"host": "vm", "status": "INACTIVE"}]
    host.set("neutron", f"GET /v2.0/ports/{port}/bindings", {"bindings": two})

    assert not any("tap-orphan" in line for line in host.findings())


def test_neutrons_own_devices_are_no_orphans(host: RecordedHost) -> None:
    """DHCP uses veth pairs with `ovs_use_veth`. OVN's metadata device is named after ten characters
    of the network's id and a digit (neutron agent/ovn/metadata/agent.py)."""
    tap = _tap(host, "vm-plain")
    _add_link(host, tap, ifname="tap311f0106-50", linkinfo={"info_kind": "veth"})

    assert host.findings() == []


def test_a_tap_that_a_process_holds_is_no_orphan(host: RecordedHost) -> None:
    tap, pid = _tap(host, "vm-plain"), host.pid("vm-plain")
    _add_link(host, tap, ifname="tap01234567-89")
    query = f"ls -lL /proc/{pid}/fd"
    files = host.last("kernel", query).value
    [held] = [file for file in files if file.get("iff") == tap]
    host.set("kernel", query, [*files, {**held, "fd": 999, "iff": "tap01234567-89"}])

    assert not any("tap-orphan" in line for line in host.findings())


@pytest.mark.parametrize("layer", ["neutron", "libvirt", "kernel"])
def test_a_tap_is_no_orphan_if_a_layer_was_not_collected(host: RecordedHost, layer: str) -> None:
    _add_link(host, _tap(host, "vm-plain"), ifname="tap01234567-89")
    host.silence(layer)

    assert host.findings() == []
    assert [skip for skip in host.report().skips if skip.check.name == "tap-orphan"]


def _stale(host: RecordedHost, count: int, owner: str = "vm-uuid") -> list[str]:
    """Add rows of Open vSwitch whose devices do not exist."""
    [query] = [
        answer.query
        for answer in host.bundle.by_layer["network"]
        if answer.query.endswith(" list Interface")
    ]
    value = json.loads(json.dumps(host.last("network", query).value))
    names = []
    for number in range(count):
        port = f"{number:08x}-2222-4333-8444-555566667777"
        ids = [["iface-id", port], [owner, f"{number:08x}-3333-4333-8444-555566667777"]]
        cells = {"_uuid": ["uuid", port], "name": f"tap{port[:11]}", "ofport": -1}
        row = dict(zip(value["headings"], value["data"][0], strict=True))
        row |= {**cells, "external_ids": ["map", ids], "error": "could not open network device"}
        value["data"].append([row[heading] for heading in value["headings"]])
        names.append(f"tap{port[:11]}")
    host.set("network", query, value)
    return names


@pytest.mark.parametrize("owner", ["vm-uuid", "vm-id"])
def test_os_vif_and_libvirt_name_the_owner_differently(host: RecordedHost, owner: str) -> None:
    """libvirt writes `vm-id` (src/util/virnetdevopenvswitch.c), os-vif `vm-uuid`."""
    [name] = _stale(host, 1, owner)

    assert host.headlines() == [
        f"Open vSwitch on host vm still has {name} without a device, which neutron has no port for"
    ]


def test_many_stale_rows_of_open_vswitch_are_one_finding(host: RecordedHost) -> None:
    names = _stale(host, 30)

    assert host.headlines() == [
        "Open vSwitch on host vm has 30 ports without a device and neutron port: "
        f"{', '.join(names[:3])} and 27 more"
    ]
