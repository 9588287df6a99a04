"""Neutron API, against a small cloud of the tests' own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.collect.small_cloud import SmallCloud

from hoodsnap.collect.port import PortApi
from hoodsnap.collect.recorder import Recorder
from hoodsnap.keep.neutron_api import network_body
from hoodsnap.keep.secret import WITHHELD

pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")

SECRET = "sesame42"  # noqa: S105 (planted, and searched for)

SERVER = "10000000-0000-4000-8000-000000000000"
PORT = "156bdde9-1b1f-4aaf-9bc8-8b9bdf6ba730"
OTHER = "2e0a54f0-5663-432e-a231-f23308c196d1"
NETWORK = "311f0106-57a0-4949-8a46-737f380685d6"
ROUTER = "5f38a793-3c44-40a7-9f2c-9df7b9b7d14c"


def port(uuid: str, owner: str, device: str, **more: object) -> dict[str, Any]:
    return {
        "id": uuid,
        "device_owner": owner,
        "device_id": device,
        "network_id": NETWORK,
        "binding:host_id": "vm",
        "security_groups": ["g"],
        **more,
    }


@pytest.fixture
def small(small: SmallCloud) -> SmallCloud:
    small.endpoints["network"] = f"{small.url}/network/"
    small.reply("/network/v2.0/extensions", {"extensions": [{"alias": "binding-extended"}]})
    return small


@pytest.fixture
def recorder() -> Recorder:
    return Recorder("vm")


def requests(small: SmallCloud) -> list[str]:
    return [path.removeprefix("/network/v2.0") for path, _ in small.heard]


def test_a_hosts_ports_and_their_networks_are_collected(
    small: SmallCloud, recorder: Recorder
) -> None:
    mine = port(PORT, "compute:nova", SERVER)
    dhcp = port(OTHER, "network:dhcp", "dhcp-1")
    small.reply("/network/v2.0/ports?binding:host_id=vm&limit=1000", {"ports": [mine, dhcp]})
    small.reply(f"/network/v2.0/ports?device_id={SERVER}&limit=1000", {"ports": [mine]})
    owners = (
        "network:router_interface",
        "network:router_interface_distributed",
        "network:ha_router_replicated_interface",
    )
    owned = "".join(f"&device_owner={owner}" for owner in owners)
    interface = {**port("9f7c278f", owners[0], ROUTER)}
    small.reply(
        f"/network/v2.0/ports?network_id={NETWORK}{owned}&limit=1000", {"ports": [interface]}
    )
    api = PortApi(recorder)

    assert api.connect()
    seen = api.ask("vm", [SERVER])
    api.close()

    assert seen.networks == {NETWORK}
    assert seen.routers == {ROUTER}
    assert seen.devices == {SERVER}
    assert seen.ports == (PORT,)
    asked = requests(small)
    assert asked[0] == "/extensions"
    assert set(asked[4:]) == {
        f"/networks?id={NETWORK}&limit=1000",
        f"/subnets?network_id={NETWORK}&limit=1000",
        f"/routers?id={ROUTER}&limit=1000",
        f"/floatingips?port_id={PORT}&limit=1000",
        "/security-groups?id=g&limit=1000",
        "/agents?host=vm",
        f"/ports/{PORT}/bindings",
    }
    [answer] = [
        one
        for one in recorder.answers
        if one.query == "GET /v2.0/ports?binding:host_id=vm&limit=1000"
    ]
    assert answer.value == {"ports": [mine, dhcp]}


def test_changed_servers_are_asked_about_again(small: SmallCloud, recorder: Recorder) -> None:
    mine = {"ports": [port(PORT, "compute:nova", SERVER)]}
    small.reply(f"/network/v2.0/ports?device_id={SERVER}&limit=1000", mine)
    api = PortApi(recorder)

    api.ask_again([SERVER])
    assert recorder.answers == []  # it is not connected yet
    assert api.connect()
    api.ask_again([SERVER])
    api.close()

    assert recorder.answers[-1].value == mine


def test_a_paged_list_is_read_to_its_end(small: SmallCloud, recorder: Recorder) -> None:
    link = f"{small.url}/network/v2.0/ports?limit=1000&marker={PORT}"
    first = {"ports": [port(PORT, "compute:nova", SERVER)]}
    small.reply(
        "/network/v2.0/ports?limit=1000", {**first, "ports_links": [{"rel": "next", "href": link}]}
    )
    more = {"ports": [port(OTHER, "compute:nova", SERVER)], "ports_links": [{"rel": "previous"}]}
    small.reply(f"/network/v2.0/ports?limit=1000&marker={PORT}", more)
    api = PortApi(recorder)

    assert api.connect()
    seen = api.ask(None, [])

    assert seen.ports == (PORT, OTHER)
    assert requests(small)[1:3] == ["/ports?limit=1000", f"/ports?limit=1000&marker={PORT}"]


def test_neutron_before_pike_is_not_asked_for_bindings(
    small: SmallCloud, recorder: Recorder
) -> None:
    small.reply("/network/v2.0/extensions", {"extensions": [{"alias": "binding"}]})
    small.reply("/network/v2.0/ports?limit=1000", {"ports": [port(PORT, "compute:nova", SERVER)]})
    api = PortApi(recorder)

    assert api.connect()
    api.ask(None, [])

    assert not any("bindings" in path for path in requests(small))


def test_a_cloud_without_neutron_is_recorded_as_such(small: SmallCloud, recorder: Recorder) -> None:
    del small.endpoints["network"]

    assert not PortApi(recorder).connect()
    [answer] = recorder.answers
    assert answer.query == "GET /v2.0/extensions"
    assert answer.error is not None
    assert answer.error.kind == "absent"


def test_unknown_values_are_withheld() -> None:
    body: dict[str, Any] = {
        "ports": [
            {
                "id": PORT,
                "extra_dhcp_opts": [{"opt_name": "tftp", "opt_value": SECRET}],
                "binding:profile": {"pci_slot": "0000:03:10.1", "token": SECRET},
                "binding:vif_details": {"ovs_hybrid_plug": False, "key": [SECRET]},
                "somebodys": {"id": SECRET},
                "nothing": None,
            }
        ],
        "ports_links": [{"rel": "next", "href": "http://neutron"}],
    }

    kept = network_body(body)

    assert SECRET not in json.dumps(kept)
    assert kept["ports"][0].keys() == body["ports"][0].keys()
    assert kept["ports"][0]["binding:profile"] == {"pci_slot": "0000:03:10.1", "token": WITHHELD}
    assert kept["ports"][0]["nothing"] is None
    assert kept["ports_links"] == body["ports_links"]
