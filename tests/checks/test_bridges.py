"""Bridges of Open vSwitch: fail modes, controllers, mirrors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

COLUMNS = "ovs-vsctl --timeout=5 --format=json --columns="
CONTROLLERS = {"br-int": "c0", "br-tun": "c1", "br-ex": "c2"}
FIRST = "ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-int table=0"


def _table(host: RecordedHost, table: str, headings: list[str], rows: list[list[Any]]) -> None:
    """Add a table that the recording is older than."""
    [asked, *_] = host.bundle.by_layer["network"]
    value = {"headings": headings, "data": rows}
    query = f"{COLUMNS}{','.join(headings)} list {table}"
    host.add(asked.model_copy(update={"query": query, "value": value, "error": None}))


def _controllers(host: RecordedHost, connected: Mapping[str, bool]) -> None:
    """Give each of these bridges a controller, and the others none."""
    rows = [
        [["uuid", CONTROLLERS[name]], "tcp:127.0.0.1:6633", on] for name, on in connected.items()
    ]
    _table(host, "Controller", ["_uuid", "target", "is_connected"], rows)
    for name in CONTROLLERS:
        cell = ["uuid", CONTROLLERS[name]] if name in connected else ["set", []]
        host.switch("Bridge", name, controller=cell)


def _mirror(host: RecordedHost, *, of: str | None = None, output: str | None = "int-br-ex") -> None:
    """Make a mirror of br-int: of one port, or of all ports."""
    uuid = {name: _uuid_of(host, name) for name in (of, output) if name is not None}
    none: list[Any] = ["set", []]
    row = [
        *(["uuid", "m0"], "span", of is None, none),
        ["uuid", uuid[of]] if of is not None else none,
        ["uuid", uuid[output]] if output is not None else none,
        none,
    ]
    names = [
        "_uuid",
        "name",
        "select_all",
        "select_src_port",
        "select_dst_port",
        "output_port",
        "output_vlan",
    ]
    _table(host, "Mirror", names, [row])
    host.switch("Bridge", "br-int", mirrors=["uuid", "m0"])


def _uuid_of(host: RecordedHost, name: str) -> str:
    [answer] = [one for one in host.bundle.by_layer["network"] if one.query.endswith(" list Port")]
    at = answer.value["headings"].index("name")
    [row] = [row for row in answer.value["data"] if row[at] == name]
    return str(row[answer.value["headings"].index("_uuid")][1])


def _tap(host: RecordedHost, name: str) -> str:
    [port] = host.ports(name)
    return f"tap{port['id'][:11]}"


@pytest.mark.parametrize(
    ("mode", "words"), [("standalone", "fail mode standalone"), (["set", []], "no fail mode")]
)
def test_bridge_not_secure(host: RecordedHost, mode: object, words: str) -> None:
    host.switch("Bridge", "br-int", fail_mode=mode)

    [finding] = host.report().findings
    assert finding.check.name == "bridge-not-secure"
    assert finding.headline == (
        f"br-int on vm has {words}: without its controller it switches past neutron's rules"
    )
    assert changes(finding) == ["ovs-vsctl set-fail-mode br-int secure"]


def test_a_bridge_that_no_agent_uses_may_have_any_mode(host: RecordedHost) -> None:
    host.switch("Bridge", "br-ex", fail_mode="standalone")
    agents = json.loads(json.dumps(host.last("neutron", "GET /v2.0/agents").value))
    for agent in agents["agents"]:
        if agent["agent_type"] == "Open vSwitch agent":
            agent["configurations"]["bridge_mappings"] = {}
    host.set("neutron", "GET /v2.0/agents", agents)

    assert not any(line.startswith("bridge-not-secure") for line in host.findings())


def test_bridge_without_controller(host: RecordedHost) -> None:
    _controllers(host, {"br-tun": True, "br-ex": True})

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("bridge-without-controller", "error")
    assert finding.headline == (
        "neutron's agent cannot change the rules of br-int on vm: it has no controller"
    )
    assert changes(finding) == ["systemctl restart neutron-openvswitch-agent"]


def test_a_bridge_without_controller_and_rules_cuts_its_guests_off(host: RecordedHost) -> None:
    _controllers(host, {"br-tun": True, "br-ex": True})
    [asked, *_] = host.bundle.by_layer["network"]
    host.add(asked.model_copy(update={"query": FIRST, "value": "OFPST_FLOW reply:\n"}))

    [headline] = host.headlines()
    assert headline.endswith(
        ": it has no controller, and no rules: it drops the packets of 12 guests"
    )


def test_a_controller_that_is_not_connected_is_a_warning(host: RecordedHost) -> None:
    _controllers(host, {"br-int": False, "br-tun": True, "br-ex": True})

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert finding.headline.endswith(" of br-int on vm: its controller is not connected")


def test_an_agent_that_writes_rules_by_another_way_has_no_controllers(host: RecordedHost) -> None:
    _controllers(host, {})

    assert host.findings() == []


def test_controllers_that_were_not_collected_are_a_skip(host: RecordedHost) -> None:
    host.switch("Bridge", "br-int", controller=["set", []])

    assert host.findings() == []
    reasons = {
        skip.reason
        for skip in host.report().skips
        if skip.check.name == "bridge-without-controller"
    }
    assert reasons == {"Open vSwitch: the controllers of its bridges were not collected"}


def test_packets_mirrored(host: RecordedHost) -> None:
    _mirror(host)

    [finding] = host.report().findings
    assert finding.check.name == "packets-mirrored"
    assert finding.headline == (
        "Mirror span of br-int on vm copies the packets of all its ports to int-br-ex"
    )
    assert changes(finding) == [
        "ovs-vsctl -- --id=@m get Mirror span -- remove Bridge br-int mirrors @m"
    ]


def test_a_mirror_of_one_port_names_its_guest(host: RecordedHost) -> None:
    _mirror(host, of=_tap(host, "vm-plain"))

    assert host.headlines() == [
        "Mirror span of br-int on vm copies the packets of vm-plain to int-br-ex"
    ]


def test_a_mirror_without_an_output_copies_nothing(host: RecordedHost) -> None:
    _mirror(host, output=None)

    assert host.findings() == []
