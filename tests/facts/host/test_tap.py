"""A host's network: taps in the kernel and in Open vSwitch, and namespaces."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from tests.conftest import RecordedHost, healthy_report

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.host_network import HostNetwork

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PREFIX = "156bdde9-1b"


def answer(query: str, value: object = None, error: Failure | None = None) -> Answer:
    said = {"layer": "network", "host": "vm", "query": query, "at": NOON, "took": 0.1}
    return Answer(**said, error=error) if error else Answer(**said, value=value)


def table(name: str, /, **columns: object) -> Answer:
    value = {"headings": ["_uuid", *columns], "data": [[["uuid", name], *columns.values()]]}
    query = f"ovs-vsctl --timeout=5 --format=json --columns={','.join(columns)} list {name}"
    return answer(query, json.loads(json.dumps(value)))


LINK = answer("ip -d -j link", [{"ifname": f"tap{PREFIX}", "flags": ["UP"], "mtu": 1450}])


def test_the_json_of_open_vswitch_is_read() -> None:
    """`ovs-vsctl --format=json` prints the notation of RFC 7047, section 5.1."""
    ids = ["map", [["iface-id", "i"], ["attached-mac", "FA:16"]]]
    network = HostNetwork.read(
        [
            LINK,
            table("Interface", name=f"tap{PREFIX}", ofport=5, external_ids=ids, error=["set", []]),
            table("Port", name=f"tap{PREFIX}", tag=1, interfaces=["uuid", "Interface"]),
            table("Bridge", name="br-int", ports=["set", [["uuid", "Port"], ["uuid", "other"]]]),
        ]
    )

    tap = network.taps[PREFIX]
    assert (tap.bridge, tap.tag, tap.ofport, tap.error) == ("br-int", 1, 5, None)
    assert (tap.iface_id, tap.attached_mac, tap.vm_uuid) == ("i", "fa:16", None)
    assert tap.up
    assert tap.where("tag")[1] == f"tap{PREFIX}.tag"
    for field in ("ofport", "error", "iface_id", "attached_mac", "vm_uuid"):
        shown, _ = tap.where(field)
        assert shown is not None
        assert shown.query.endswith(" list Interface")


def test_interfaces_are_unheard_on_a_host_without_open_vswitch() -> None:
    none = answer(
        "ovs-vsctl --format=json list Interface",
        error=Failure(kind="missing", message="ovs-vsctl is not installed"),
    )
    tap = HostNetwork.read([LINK, none]).taps[PREFIX]

    assert tap.is_there
    with pytest.raises(UnheardError, match="ovs-vsctl is not installed"):
        _ = tap.ofport


def test_fields_of_a_table_that_was_not_collected_are_unheard() -> None:
    tap = HostNetwork.read([LINK, table("Interface", name=f"tap{PREFIX}", ofport=5)]).taps[PREFIX]

    assert tap.ofport == 5
    for field in ("tag", "bridge"):
        with pytest.raises(UnheardError, match="was not collected"):
            getattr(tap, field)


def test_the_far_end_of_a_hybrid_bridge_is_in_open_vswitch() -> None:
    names = [f"{kind}{PREFIX}" for kind in ("tap", "qbr", "qvb", "qvo")]
    links = answer("ip -d -j link", [{"ifname": name} for name in [*names, "eth0", "br-int"]])
    row = table("Interface", name=f"qvo{PREFIX}", ofport=9)

    taps = HostNetwork.read([links, row]).taps
    assert [*taps] == [PREFIX]
    assert (taps[PREFIX].name, taps[PREFIX].ofport) == (f"tap{PREFIX}", 9)


@pytest.mark.parametrize("value", [None, 7, "x", {}, {"headings": ["name"], "data": [[1, 2]]}])
def test_unreadable_tables_are_unheard(value: object) -> None:
    network = HostNetwork.read([LINK, answer("ovs-vsctl --format=json list Interface", value)])

    assert isinstance(network.switch, UnheardError)
    assert network.switch_listing is None


def test_every_recorded_running_guest_has_its_taps() -> None:
    running = [guest for guest in healthy_report().cloud.guests if guest.process is not None]

    assert len(running) > 9
    for guest in running:
        assert guest.process is not None
        assert guest.domain is not None
        assert (
            guest.process.taps == set(guest.domain.taps) == {tap.name for tap in guest.taps or ()}
        )
        for tap in guest.taps or ():
            assert tap.up
            assert tap.vm_uuid == guest.uuid
            assert tap.bridge == "br-int"
            assert tap.mac[2:] == (tap.attached_mac or "")[2:]


def test_the_floating_ip_leads_to_its_guest() -> None:
    [plain] = [guest for guest in healthy_report().cloud.guests if guest.name == "vm-plain"]
    assert plain.host is not None
    [port] = plain.ports or ()

    [floating] = healthy_report().cloud.ports.floating[port.id]
    [router] = healthy_report().cloud.ports.routers[port.network_id or ""]
    space = plain.host.network.namespaces[f"qrouter-{router}"]
    assert space.inwards[floating.address] == floating.fixed == port.addresses[0]
    assert space.outwards[port.addresses[0]] == floating.address
    assert floating.address in space.addresses


def test_a_process_has_unknown_taps_if_the_kernel_does_not_name_them(host: RecordedHost) -> None:
    """Before Linux 3.14 fdinfo has no `iff` (drivers/net/tun.c)."""
    query = f"ls -lL /proc/{host.pid('vm-plain')}/fd"
    files = host.last("kernel", query).value
    host.set("kernel", query, [{k: v for k, v in file.items() if k != "iff"} for file in files])
    [plain] = [guest for guest in host.report().cloud.guests if guest.name == "vm-plain"]
    assert plain.process is not None

    with pytest.raises(UnheardError, match="did not report the names of the taps"):
        _ = plain.process.taps
    assert host.findings() == []
