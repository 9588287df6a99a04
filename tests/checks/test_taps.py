"""The path of a guest's packets through its host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer, Failure
from hoodsnap.checks import traps
from hoodsnap.findings.advice import instructions
from hoodsnap.findings.finding import Finding

LINKS = "ip -d -j link"


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _tap(host: RecordedHost, name: str) -> str:
    return f"tap{_port(host, name)['id'][:11]}"


def _mtu(host: RecordedHost, network: str, mtu: int) -> None:
    host._set_item("neutron", "/networks?", "networks", "name", network, {"mtu": mtu})


def _add_link(host: RecordedHost, like: str, **fields: object) -> None:
    rows = host.last("network", LINKS).value
    [row] = [row for row in rows if row["ifname"] == like]
    host.set("network", LINKS, [*rows, {**row, **fields}])


def _refuse(host: RecordedHost, part: str, kind: str) -> None:
    """Make the queries that contain this text fail."""

    def fail(answer: Answer) -> Answer:
        if answer.layer != "network" or part not in answer.query:
            return answer
        said = answer.model_dump(exclude={"value", "error"})
        return Answer(**said, error=Failure(kind=kind, message="ovs-vsctl is not installed"))

    host.bundle = host.bundle.with_answers(tuple(map(fail, host.bundle.answers)))


def _findings(host: RecordedHost) -> list[str]:
    """Return the findings without those of copies that were not edited."""
    copies = ("info-cache-outdated", "neutron-records-disagree", "dhcp-entry-missing")
    return [line for line in host.findings() if not line.startswith(copies)]


def _differs(host: RecordedHost, check: str, name: str) -> list[str]:
    """Return the reasons why the difference that the check found is legal."""
    return [
        skip.reason
        for skip in host.report().skips
        if skip.check.name == check and skip.guest and skip.guest.name == name and skip.differs
    ]


def _reason(trap: Any) -> str:
    return str(trap.__doc__).partition("\n")[0]


def _just_now(host: RecordedHost, name: str) -> None:
    at = f"{host.bundle.started:%Y-%m-%dT%H:%M:%SZ}"
    host.port(_port(host, name)["id"], updated_at=at)


def test_mac_chain_mismatch(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")
    mac, other = port["mac_address"], "fa:16:3e:00:00:01"
    host.port(port["id"], mac_address=other.upper())

    tap = _tap(host, "vm-plain")
    assert _findings(host) == [
        f"mac-chain-mismatch of vm-plain: port reports mac = {other}; instance reports network_info = {tap} {mac};"
        f" instance reports macs = {mac}; domain reports interfaces = {tap} {mac}; tap reports attached_mac = {mac}"
    ]
    headline = f"vm-plain's card {tap} has MAC {other} in the port, but {mac} in the other layers"
    assert headline in host.headlines()


def test_mac_chain_mismatch_after_the_domain_was_edited(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")
    mac, other, name = port["mac_address"], "fa:16:3e:00:00:01", host.domain("vm-plain")
    host.edit(
        "libvirt", f"virsh dumpxml {name}", f"<mac address='{mac}'/>", f"<mac address='{other}'/>"
    )
    host.silence("neutron")

    [found] = [line for line in host.findings() if "mac-chain-mismatch" in line]
    tap = _tap(host, "vm-plain")
    assert found == (
        f"mac-chain-mismatch of vm-plain: instance reports network_info = {tap} {mac};"
        f" instance reports macs = {mac}; domain reports interfaces = {tap} {other}; tap reports attached_mac = {mac}"
    )


def test_addresses_may_be_upper_case(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")
    host.port(port["id"], mac_address=port["mac_address"].upper())

    assert host.findings() == []


def test_a_guest_that_is_off_has_no_card(host: RecordedHost) -> None:
    host.port(_port(host, "vm-stopped")["id"], mac_address="fa:16:3e:00:00:01")

    assert _findings(host) == []


def test_a_port_whose_address_was_just_changed(host: RecordedHost) -> None:
    host.port(_port(host, "vm-plain")["id"], mac_address="fa:16:3e:00:00:01")
    _just_now(host, "vm-plain")

    assert host.findings() == []
    assert _differs(host, "mac-chain-mismatch", "vm-plain") == [_reason(traps.port_just_changed)]


def test_tap_missing_or_miswired(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    host.unlink(tap)

    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap}; network reports no {tap}"
    ]
    [finding] = host.report().findings
    assert finding.headline == f"vm-plain's tap {tap} does not exist on host vm"
    assert not any("was renamed" in step.prose for step in instructions(finding))
    assert _changes(finding) == [
        f"openstack server {do} {host.uuid('vm-plain')}" for do in ("stop", "start")
    ]


def test_a_port_that_nova_did_not_create_is_attached_again(host: RecordedHost) -> None:
    host.unlink(_tap(host, "vm-plain"))
    instance = host.guest("vm-plain").instance
    assert instance is not None and instance.info_cache is not None
    cached = json.loads(str(instance.info_cache["network_info"]))
    cached[0]["preserve_on_delete"] = True
    host.row("instance_info_caches", host.uuid("vm-plain"), network_info=json.dumps(cached))

    [finding] = host.report().findings
    words = f"{host.uuid('vm-plain')} {_port(host, 'vm-plain')['id']}"
    assert _changes(finding) == [f"openstack server {do} port {words}" for do in ("remove", "add")]


def _changes(finding: Finding) -> list[str]:
    """Return the commands of the advice that change something."""
    steps = instructions(finding)
    return [one.text for step in steps for one in step.commands if one.changes]


def test_a_renamed_tap_is_still_held(host: RecordedHost) -> None:
    tap, pid = _tap(host, "vm-plain"), host.pid("vm-plain")
    host.link(tap, ifname="lab0")
    host.edit("kernel", f"ls -lL /proc/{pid}/fd", f'"iff": "{tap}"', '"iff": "lab0"')

    address = f"fe{_port(host, 'vm-plain')['mac_address'][2:]}"
    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap}; network reports no {tap};"
        f" process reports pid = {pid}, taps = lab0; network reports link = lab0, address = {address}"
    ]
    assert host.headlines() == [f"vm-plain's tap {tap} was renamed to lab0"]
    [finding] = host.report().findings
    commands = [one.text for step in instructions(finding) for one in step.commands]
    assert f"ip link set lab0 name {tap}" in commands
    assert not any("remove port" in text for text in commands), "no port was lost"


def test_a_tap_in_place_of_another_is_not_a_renamed_one(host: RecordedHost) -> None:
    tap, pid, other = _tap(host, "vm-plain"), host.pid("vm-plain"), _tap(host, "vm-duo")
    host.unlink(tap)
    host.edit("kernel", f"ls -lL /proc/{pid}/fd", f'"iff": "{tap}"', f'"iff": "{other}"')

    assert host.headlines() == [f"vm-plain's tap {tap} does not exist on host vm"]


def test_a_tap_that_another_process_holds(host: RecordedHost) -> None:
    tap, pid = _tap(host, "vm-plain"), host.pid("vm-plain")
    host.edit("kernel", f"ls -lL /proc/{pid}/fd", f'"iff": "{tap}"', '"iff": "lab0"')

    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap};"
        f" process reports pid = {pid}, taps = lab0"
    ]


def test_a_tap_that_is_down(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    host.link(tap, flags=["BROADCAST", "MULTICAST"])
    host.switch("Interface", tap, admin_state="down", link_state="down")

    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap}; tap reports name = {tap}, up = False"
    ]


@pytest.mark.parametrize(
    ("table", "cells", "said"),
    [
        ("Interface", {"ofport": -1, "error": "could not open network device"}, None),
        ("Port", {"tag": 4095}, "tag = 4095"),
    ],
)
def test_what_open_vswitch_could_not_wire(
    host: RecordedHost, table: str, cells: dict[str, object], said: str | None
) -> None:
    tap = _tap(host, "vm-plain")
    host.switch(table, tap, **cells)

    wrong = said or f"error = could not open network device; tap reports name = {tap}, ofport = -1"
    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap}; tap reports name = {tap}, {wrong}"
    ]


def test_a_tap_without_a_vlan_is_folded_under_the_vlan_that_it_lacks(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    host.switch("Port", tap, tag=["set", []])

    [finding] = host.findings()
    assert finding.startswith(
        f"switch-vlan-differs: Open vSwitch reports name = {tap}, no tag; Open vSwitch reports net_uuid = "
    )
    assert host.folded() == [
        f"switch-vlan-differs ← tap-missing-or-miswired of vm-plain: domain reports taps = {tap};"
        f" tap reports name = {tap}, no tag"
    ]


def test_the_vlan_of_one_tap_explains_no_other_tap(host: RecordedHost) -> None:
    host.switch("Port", _tap(host, "vm-duo"), tag=["set", []])
    host.link(_tap(host, "vm-plain"), flags=["BROADCAST", "MULTICAST"])
    host.switch("Interface", _tap(host, "vm-plain"), admin_state="down", link_state="down")

    assert {line.partition(":")[0] for line in host.findings()} >= {
        "switch-vlan-differs",
        "tap-missing-or-miswired of vm-plain",
    }


def test_a_tap_with_the_ids_of_another_guest_or_port(host: RecordedHost) -> None:
    port, other = _port(host, "vm-plain"), _port(host, "vm-duo")
    ids = [["iface-id", other["id"]], ["vm-uuid", other["device_id"]]]
    ids = [*ids, ["attached-mac", port["mac_address"]]]
    host.switch("Interface", _tap(host, "vm-plain"), external_ids=["map", ids])

    tap = f"tap{port['id'][:11]}"
    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap};"
        f" tap reports name = {tap}, vm_uuid = {other['device_id']};"
        f" tap reports name = {tap}, iface_id = {other['id']}"
    ]


def test_a_tap_on_another_bridge_than_the_ports(host: RecordedHost) -> None:
    port, tap = _port(host, "vm-plain"), _tap(host, "vm-plain")
    details = {**port["binding:vif_details"], "bridge_name": "br-other"}
    host.port(port["id"], binding__vif_details=details)

    assert _findings(host) == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap}; tap reports name = {tap}, bridge = br-int;"
        f" port reports id = {port['id']}, bridge = br-other"
    ]


def test_a_tap_that_open_vswitch_does_not_have(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    host.switch("Interface", tap, name="tap-of-nobody")

    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap}; network reports no Interface"
    ]


def test_a_host_without_open_vswitch_is_no_finding(host: RecordedHost) -> None:
    _refuse(host, "ovs-", "missing")

    assert host.findings() == []


def _bridged(host: RecordedHost, name: str, bridge: str) -> None:
    """Plug a domain's card into a bridge of the kernel, in both definitions."""
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        xml = host.last("libvirt", query).value
        card = xml[xml.index("<interface") : xml.index("</interface>")]
        bridged = card.replace("type='ethernet'", "type='bridge'") + f"<source bridge='{bridge}'/>"
        host.edit("libvirt", query, card, bridged)


def test_a_tap_in_the_kernels_bridge(host: RecordedHost) -> None:
    """The linuxbridge agent and the hybrid plug (a bridge for iptables) wire taps this way. Fields
    are from libvirt's documentation of `<interface type='bridge'>` and `ip -d -j link`."""
    _refuse(host, "ovs-", "missing")
    tap, name = _tap(host, "vm-plain"), host.domain("vm-plain")
    _bridged(host, name, "brq311f0106-57")
    _add_link(host, tap, ifname="brq311f0106-57", linkinfo={"info_kind": "bridge"})
    host.link(tap, master="brq311f0106-57")
    assert host.findings() == []

    host.link(tap, master="virbr0")
    assert host.findings() == [
        f"tap-missing-or-miswired of vm-plain: domain reports taps = {tap};"
        f" tap reports name = {tap}, master = virbr0, expected = brq311f0106-57"
    ]


def test_a_hybrid_plug_ends_on_open_vswitch(host: RecordedHost) -> None:
    """Hybrid plugging (os-vif): the tap is in qbr, and qvo on br-int."""
    tap, name = _tap(host, "vm-plain"), host.domain("vm-plain")
    prefix = tap.removeprefix("tap")
    _bridged(host, name, f"qbr{prefix}")
    for kind, info in (("qbr", "bridge"), ("qvb", "veth"), ("qvo", "veth")):
        _add_link(host, tap, ifname=f"{kind}{prefix}", linkinfo={"info_kind": info})
    host.link(tap, master=f"qbr{prefix}")
    host.switch("Interface", tap, name=f"qvo{prefix}")
    host.switch("Port", tap, name=f"qvo{prefix}")

    assert host.findings() == []


def test_the_agent_may_still_have_to_set_the_vlan(host: RecordedHost) -> None:
    host.port(_port(host, "vm-plain")["id"], status="DOWN")
    host.switch("Port", _tap(host, "vm-plain"), tag=["set", []])

    assert not any("tap-missing" in line for line in host.findings())


def test_a_disabled_port_is_in_the_dead_vlan(host: RecordedHost) -> None:
    host.port(_port(host, "vm-plain")["id"], admin_state_up=False, status="DOWN")
    host.switch("Port", _tap(host, "vm-plain"), tag=4095)

    assert not any("tap-missing" in line for line in host.findings())


def test_a_vhost_user_card_has_no_tap(host: RecordedHost) -> None:
    tap, name = _tap(host, "vm-plain"), host.domain("vm-plain")
    host.unlink(tap)
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        host.edit("libvirt", query, "<interface type='ethernet'>", "<interface type='vhostuser'>")

    assert host.findings() == []


def test_a_guest_in_another_network_namespace_is_not_judged(host: RecordedHost) -> None:
    host.unlink(_tap(host, "vm-plain"))
    query = f"readlink /proc/{host.pid('vm-plain')}/ns/*"
    host.set("kernel", query, {**host.last("kernel", query).value, "net": "net:[1]"})

    assert host.findings() == []
    [plain] = [guest for guest in host.report().cloud.guests if guest.name == "vm-plain"]
    reason = "host network: the network namespace of the QEMU process was not collected"
    assert plain.unheard["network"] == reason


@pytest.mark.parametrize("trap", [traps.task_in_flight, traps.port_just_changed])
def test_a_tap_may_be_missing_during_a_change(host: RecordedHost, trap: Any) -> None:
    host.unlink(_tap(host, "vm-plain"))
    if trap is traps.task_in_flight:
        host.row("instances", host.uuid("vm-plain"), task_state="rebooting")
    else:
        _just_now(host, "vm-plain")

    assert _differs(host, "tap-missing-or-miswired", "vm-plain") == [_reason(trap)]


def test_duplicate_mac_or_port(host: RecordedHost) -> None:
    plain, duo = _port(host, "vm-plain"), _port(host, "vm-duo")
    name = host.domain("vm-duo")
    old = f"<mac address='{duo['mac_address']}'/>"
    host.edit("libvirt", f"virsh dumpxml {name}", old, f"<mac address='{plain['mac_address']}'/>")

    [found] = [line for line in host.findings() if line.startswith("duplicate")]
    mac = plain["mac_address"]
    cards = [
        f"domain reports name = {host.domain(guest)}, interfaces = {_tap(host, guest)} {mac}"
        for guest in ("vm-duo", "vm-plain")
    ]
    assert found == f"duplicate-mac-or-port: {'; '.join(cards)}"
    assert f"vm-duo and vm-plain have the same MAC address {mac} in one network" in host.headlines()


def test_one_port_in_two_domains(host: RecordedHost) -> None:
    plain, duo = _tap(host, "vm-plain"), _tap(host, "vm-duo")
    host.edit("libvirt", f"virsh dumpxml {host.domain('vm-duo')}", f"dev='{duo}'", f"dev='{plain}'")
    host.silence("neutron")

    assert [line for line in host.findings() if line.startswith("duplicate")]


def test_the_same_address_in_two_networks_is_harmless(host: RecordedHost) -> None:
    [_, second] = host.ports("vm-config")
    plain = _port(host, "vm-plain")
    mac = second["mac_address"]
    host.edit(
        "libvirt",
        f"virsh dumpxml {host.domain('vm-plain')}",
        f"<mac address='{plain['mac_address']}'/>",
        f"<mac address='{mac}'/>",
    )
    assert second["network_id"] != plain["network_id"]

    assert not any(line.startswith("duplicate") for line in host.findings())


def test_an_address_in_an_unknown_network_proves_nothing(host: RecordedHost) -> None:
    plain, duo = _port(host, "vm-plain"), _port(host, "vm-duo")
    name = host.domain("vm-duo")
    old = f"<mac address='{duo['mac_address']}'/>"
    host.edit("libvirt", f"virsh dumpxml {name}", old, f"<mac address='{plain['mac_address']}'/>")
    host.silence("neutron")

    assert not any(line.startswith("duplicate") for line in host.findings())


def test_one_guest_on_two_hosts_is_no_duplicate(host: RecordedHost) -> None:
    other = [
        answer.model_copy(update={"host": "vm2"})
        for answer in host.bundle.answers
        if answer.layer in ("libvirt", "kernel", "host", "images", "network")
    ]
    host.bundle = host.bundle.with_answers([*host.bundle.answers, *other])

    assert not any(line.startswith("duplicate") for line in host.findings())


def test_mtu_mismatch(host: RecordedHost) -> None:
    _mtu(host, "lab-net2", 1400)

    [_, second] = host.ports("vm-config")
    tap = f"tap{second['id'][:11]}"
    of_the_card = [line for line in host.findings() if "router-device-mtu-differs" not in line]
    assert of_the_card == [
        "mtu-mismatch of vm-config: network reports name = lab-net2, mtu = 1400;"
        f" instance reports network_info = {tap} mtu 1450; domain reports interfaces = {tap} mtu 1450"
    ]
    [change] = changes(host.found("mtu-mismatch"))
    assert change.startswith("openstack server add network ")
    assert [line for line in host.headlines() if not line.startswith("qdhcp")] == [
        f"vm-config's card {tap} has MTU 1400 in the network, but 1450 in the instance and the domain"
    ]


def test_a_tap_with_a_smaller_mtu_than_its_network(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    host.link(tap, mtu=1300)
    host.switch("Interface", tap, mtu=1300)

    [found] = host.findings()
    assert found == (
        "mtu-mismatch of vm-plain: network reports name = lab-net, mtu = 1450;"
        f" instance reports network_info = {tap} mtu 1450; domain reports interfaces = {tap} mtu 1450; tap reports mtu = 1300"
    )
    assert changes(host.found("mtu-mismatch")) == [f"ip link set {tap} mtu 1450"]


def test_a_tap_may_have_a_larger_mtu_than_its_network(host: RecordedHost) -> None:
    host.link(_tap(host, "vm-plain"), mtu=9000)
    host.switch("Interface", _tap(host, "vm-plain"), mtu=9000)

    assert host.findings() == []


def test_a_release_that_records_no_mtu(host: RecordedHost) -> None:
    """Before Newton the cache and the domain have no MTU (nova network/model.py)."""
    instance = host.guest("vm-plain").instance
    assert instance is not None
    assert instance.info_cache is not None
    [vif] = json.loads(str(instance.info_cache["network_info"]))
    del vif["network"]["meta"]["mtu"]
    host.row("instance_info_caches", host.uuid("vm-plain"), network_info=json.dumps([vif]))
    name = host.domain("vm-plain")
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        host.edit("libvirt", query, "<mtu size='1450'/>", "")

    assert host.findings() == []


def test_a_tap_with_the_address_of_another_ports_tap_is_found(host: RecordedHost) -> None:
    own, other = (host.guest(name).ports for name in ("vm-plain", "vm-duo"))
    assert own and other
    address = f"fe{own[0].mac[2:]}"
    host.edit("network", "ip -d -j link", f'"{address}"', f'"fe{other[0].mac[2:]}"')

    assert host.headlines() == [
        f"vm-plain's tap {own[0].tap} has the address of port {other[0].id[:8]}'s tap,"
        f" fe{other[0].mac[2:]}"
    ]


def test_a_tap_that_nova_made_itself_has_any_address(host: RecordedHost) -> None:
    [own] = host.guest("vm-plain").ports or ()
    host.edit("network", "ip -d -j link", f'"fe{own.mac[2:]}"', '"0a:12:34:56:78:9a"')

    assert host.headlines() == []
