"""Ports as neutron returns them, and the lists that prove that a port does not exist."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.conftest import RecordedHost, healthy_report

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.api.port import Ports
from hoodsnap.facts.database.network_info import read_network_info
from hoodsnap.facts.fact import UnheardError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SERVER = "10000000-0000-4000-8000-000000000000"
PORT = "156BDDE9-1b1f-4aaf-9bc8-8b9bdf6ba730"


def answer(query: str, value: object = None, error: Failure | None = None) -> Answer:
    said = {"layer": "neutron", "host": "vm", "query": query, "at": NOON, "took": 0.1}
    return Answer(**said, error=error) if error else Answer(**said, value=value)


def port(**fields: object) -> dict[str, Any]:
    return {"id": PORT, "device_id": SERVER, "device_owner": "compute:nova", **fields}


def bound(**fields: object) -> dict[str, Any]:
    return port(**{"binding:host_id": "vm"}, **fields)


def listed(query: str, *ports: dict[str, Any], marker: str | None = None) -> Answer:
    links = [{"rel": "next", "href": f"http://n/v2.0/ports?marker={marker}"}] if marker else []
    return answer(f"GET /v2.0/ports?{query}", {"ports": [*ports], "ports_links": links})


def test_evidence_names_the_port_in_the_list() -> None:
    ports = Ports([listed("limit=1000", bound(mac_address="FA:16:3e:f8:83:f5"))])

    [found] = ports.by_device[SERVER]
    assert found.id == PORT.lower()
    assert found.tap == "tap156bdde9-1b"
    assert found.mac == "fa:16:3e:f8:83:f5"
    assert found.where("mac")[1] == f"ports[id={PORT.lower()}].mac_address"


def test_a_full_list_shows_the_ports_of_every_server_and_host() -> None:
    ports = Ports([listed("limit=1000", bound())])

    assert ports.of_device(SERVER) is not None
    assert ports.of_device("another") is not None
    assert ports.of_host("vm2") is not None


def test_a_servers_newer_list_replaces_its_older_ports() -> None:
    before = listed("limit=1000", bound(), bound(id="c3a1", device_id="other"), bound(id="9e0f"))
    again = listed(f"device_id={SERVER}&limit=1000", bound(mac_address="fa:16:3e:00:00:01"))

    ports = Ports([before, again])

    assert [one.id for one in ports.by_device[SERVER]] == [PORT.lower()]
    assert [one.id for one in ports.by_device["other"]] == ["c3a1"]
    assert ports.of_device(SERVER) is again
    assert ports.of_device("other") is before


def test_another_clouds_empty_list_removes_no_ports() -> None:
    before = listed("limit=1000", bound())
    again = listed(f"device_id={SERVER}&limit=1000").model_copy(update={"host": "vm2"})

    assert [one.id for one in Ports([before, again]).by_device[SERVER]] == [PORT.lower()]


def test_a_hosts_list_does_not_show_a_servers_ports_elsewhere() -> None:
    ports = Ports([listed("binding:host_id=vm&limit=1000", bound())])

    assert ports.of_device(SERVER) is None
    assert ports.of_host("vm") is not None
    assert ports.of_host("vm2") is None


def test_a_list_for_two_servers_is_complete_for_these_two() -> None:
    ports = Ports([listed(f"device_id={SERVER}&device_id=b&limit=1000", bound())])

    assert ports.of_device(SERVER) is not None
    assert ports.of_device("b") is not None
    assert ports.of_device("c") is None


def test_a_list_in_pages_is_complete_only_with_its_last_page() -> None:
    first = listed("limit=1", bound(), marker="m")
    last = listed("limit=1&marker=m", bound(id="b"))

    assert Ports([first]).of_device(SERVER) is None
    assert Ports([last]).of_device(SERVER) is None
    assert Ports([first, last]).of_device(SERVER) == first


def test_a_page_with_an_unreadable_port_is_not_complete() -> None:
    assert Ports([listed("limit=1000", bound(), {"id": 7})]).of_device(SERVER) is None


def test_a_tenant_does_not_see_all() -> None:
    ports = Ports([listed("limit=1000", port())])

    assert ports.of_device(SERVER) is None
    assert ports.silence.endswith("only the ports of some projects")
    with pytest.raises(UnheardError, match="binding:host_id was not collected"):
        _ = ports.by_device[SERVER][0].host


def test_the_reason_why_ports_are_not_known() -> None:
    refused = answer("GET /v2.0/extensions", error=Failure(kind="denied", message="no password"))

    assert Ports([refused]).silence == "neutron API: no password"
    assert Ports([]).silence == "neutron API: the ports of this UUID were not collected"


def test_routers_are_found_by_their_interfaces() -> None:
    owners = ("network:router_interface", "network:ha_router_replicated_interface", "network:dhcp")
    interfaces = [
        bound(id=owner, device_owner=owner, device_id=owner[-9:], network_id="n")
        for owner in owners
    ]

    routers = Ports([listed("network_id=n", *interfaces)]).routers
    assert routers == {"n": frozenset(["interface"])}


def test_the_recorded_guests_ports_are_bound_where_nova_has_them() -> None:
    guests = [guest for guest in healthy_report().cloud.guests if guest.is_here]

    assert len(guests) > 10
    for guest in guests:
        assert guest.ports, guest.name
        for found in guest.ports:
            assert found.host == guest.host_name
            assert [bind.status for bind in found.bindings] == ["ACTIVE"]
            assert found.network is not None
            assert found.network.mtu
            assert len(found.addresses) == 1


def test_nova_has_cached_every_port() -> None:
    for guest in healthy_report().cloud.guests:
        if guest.instance is not None and guest.is_here:
            known = {found.id: found for found in guest.ports or ()}
            assert set(guest.instance.cached_ports) == set(known)
            # nova keeps the row of a port that was deleted while attached.
            assert guest.instance.macs.items() >= {(uuid, one.mac) for uuid, one in known.items()}
            for vif in guest.instance.network_info:
                assert (vif.mac, vif.device) == (known[vif.id].mac, known[vif.id].tap)
                assert vif.addresses == known[vif.id].addresses


def test_a_floating_ip_is_in_the_info_cache() -> None:
    [plain] = [guest for guest in healthy_report().cloud.guests if guest.name == "vm-plain"]
    assert plain.instance is not None
    [vif] = plain.instance.network_info

    floating = healthy_report().cloud.ports.floating[vif.id]
    assert vif.floating == tuple(leads.address for leads in floating)


def test_an_info_cache_that_was_not_collected_is_not_empty(host: RecordedHost) -> None:
    host.drop(lambda answer: "instance_info_caches" not in answer.query)
    [plain] = [guest for guest in host.report().cloud.guests if guest.name == "vm-plain"]
    assert plain.instance is not None

    with pytest.raises(UnheardError, match="the instance's info cache was not collected"):
        _ = plain.instance.network_info


@pytest.mark.parametrize("text", ["{", "{}", "[7]", '[{"id": 7}]', "[" * 100_000])
def test_an_unreadable_info_cache_is_unheard(text: str) -> None:
    with pytest.raises(UnheardError):
        read_network_info(text)


@pytest.mark.parametrize("text", [None, "", "[]"])
def test_an_empty_info_cache_has_no_ports(text: str | None) -> None:
    assert read_network_info(text) == ()


def test_an_older_releases_info_cache_is_read() -> None:
    """Havana records no mtu and no vnic_type (nova network/model.py at 2013.2)."""
    [vif] = read_network_info(
        '[{"id": "A", "address": "FA:16", "network": {"meta": {}, "subnets": []}}]'
    )

    assert (vif.id, vif.mac, vif.mtu, vif.addresses, vif.type) == ("a", "fa:16", None, (), None)
