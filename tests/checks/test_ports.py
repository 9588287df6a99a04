"""neutron's ports of a guest, nova's info cache of them, and the guest's network cards."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer
from hoodsnap.checks import traps


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _noted(host: RecordedHost, name: str) -> list[dict[str, Any]]:
    """Return the network interfaces in a guest's info cache."""
    instance = host.guest(name).instance
    assert instance is not None
    assert instance.info_cache is not None
    found = json.loads(str(instance.info_cache["network_info"]))
    assert isinstance(found, list)
    return found


def _note(host: RecordedHost, name: str, vifs: object) -> None:
    host.row("instance_info_caches", host.uuid(name), network_info=json.dumps(vifs))


def _findings(host: RecordedHost) -> list[str]:
    """Return the findings without those of copies that were not edited."""
    copies = (
        "info-cache-outdated",
        "neutron-records-disagree",
        "dhcp-entry-missing",
        "port-without-flows",
    )
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


def test_port_bound_elsewhere(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    host.port(port, binding__host_id="compute-9")

    assert host.findings() == [
        f"port-bound-elsewhere of vm-plain: instance reports host = vm; port reports id = {port}, host = compute-9;"
        f" tap reports name = tap{port[:11]}"
    ]
    [address] = [ip["ip_address"] for ip in _port(host, "vm-plain")["fixed_ips"]]
    assert host.headlines() == [
        f"neutron has vm-plain's port {port[:8]} ({address}) bound to compute-9, but nova has vm-plain on vm"
    ]


def test_port_bound_elsewhere_by_the_case_of_a_letter(host: RecordedHost) -> None:
    port = _port(host, "vm-stopped")["id"]
    host.port(port, binding__host_id="VM")

    assert host.findings() == [
        f"port-bound-elsewhere of vm-stopped: instance reports host = vm; port reports id = {port}, host = VM"
    ]


@pytest.mark.parametrize("kind", ["baremetal", "remote-managed", "smart-nic"])
def test_some_ports_are_bound_to_a_card_or_a_node(host: RecordedHost, kind: str) -> None:
    # Ironic binds a port to its node's UUID, whatever host nova-compute runs on.
    port = _port(host, "vm-stopped")["id"]
    host.port(
        port, binding__host_id="7d2e3f00-0000-4000-8000-000000000001", binding__vnic_type=kind
    )

    assert _findings(host) == []


def test_port_binding_left(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    _leave(host, port)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("port-binding-left", "warning")
    assert host.findings() == [
        f"port-binding-left of vm-plain: instance reports host = vm; port reports id = {port},"
        " bindings = INACTIVE on compute-9"
    ]
    [deletion] = changes(finding)
    assert deletion.endswith(f"/v2.0/ports/{port}/bindings/compute-9")


def test_the_mark_of_a_migration_is_left_too(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    _leave(host, port)
    host.port(port, binding__profile={"migrating_to": "compute-9"})

    finding = host.found("port-binding-left")
    assert finding.headline.endswith("compute-9; its profile still names a migration to there")
    assert changes(finding)[1] == f"openstack port unset --binding-profile migrating_to {port}"


def test_a_migration_needs_both_bindings(host: RecordedHost) -> None:
    _leave(host, _port(host, "vm-verify")["id"])
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("migrations", host.uuid("vm-verify"), status="running", updated_at=now)

    assert not [it for it in host.findings() if it.startswith("port-binding-left")]


def _leave(host: RecordedHost, port: str) -> None:
    """Give a port a second, inactive binding."""
    query = f"GET /v2.0/ports/{port}/bindings"
    [bound] = host.last("neutron", query).value["bindings"]
    left = {**bound, "host": "compute-9", "status": "INACTIVE"}
    host.set("neutron", query, {"bindings": [bound, left]})


def test_a_shelved_servers_port_may_be_bound_to_any_host(host: RecordedHost) -> None:
    host.port(_port(host, "vm-shelved")["id"], binding__host_id="compute-9")

    assert host.findings() == []


def test_a_port_whose_host_is_hidden_from_a_tenant_is_not_judged(host: RecordedHost) -> None:
    hidden = ("binding:host_id", "binding:vif_type", "binding:vif_details", "binding:profile")

    def less(answer: Answer) -> Answer:
        if answer.layer != "neutron" or "/ports?" not in answer.query:
            return answer
        ports = [
            {name: value for name, value in port.items() if name not in hidden}
            for port in answer.value["ports"]
        ]
        return answer.model_copy(update={"value": {**answer.value, "ports": ports}})

    host.bundle = host.bundle.with_answers(tuple(map(less, host.bundle.answers)))
    _note(host, "vm-config", [])

    assert host.findings() == []
    assert all("neutron" in guest.unheard for guest in host.report().cloud.guests)


@pytest.mark.parametrize(
    ("trap", "row"),
    [
        (traps.task_in_flight, {"task_state": "migrating"}),
        (traps.building, {"vm_state": "building"}),
        (traps.never_launched, {"vm_state": "error", "launched_at": None}),
    ],
)
def test_a_port_may_be_bound_elsewhere_during_a_move(
    host: RecordedHost, trap: Any, row: dict[str, object]
) -> None:
    host.port(_port(host, "vm-plain")["id"], binding__host_id="compute-9")
    host.row("instances", host.uuid("vm-plain"), **row)

    assert _differs(host, "port-bound-elsewhere", "vm-plain") == [_reason(trap)]


def test_a_migration_binds_a_port_to_two_hosts(host: RecordedHost) -> None:
    port = _port(host, "vm-verify")["id"]
    host.port(port, binding__host_id="compute-9")
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("migrations", host.uuid("vm-verify"), status="running", updated_at=now)

    assert _differs(host, "port-bound-elsewhere", "vm-verify") == [_reason(traps.migrating)]


def test_a_card_that_switches_by_itself_may_be_bound_elsewhere(host: RecordedHost) -> None:
    port = _port(host, "vm-stopped")["id"]
    host.port(port, binding__host_id="dpu-1", binding__vnic_type="remote-managed")

    assert _findings(host) == []


def test_port_binding_bad(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    host.binding(port, vif_type="binding_failed")

    assert host.findings() == [
        f"port-binding-bad of vm-plain: port reports id = {port}, vif_type = binding_failed, host = vm"
    ]
    [address] = [ip["ip_address"] for ip in _port(host, "vm-plain")["fixed_ips"]]
    assert host.headlines() == [
        f"vm-plain's port {port[:8]} ({address}) is not bound: binding_failed on vm"
    ]


def test_a_failed_binding_in_the_info_cache_is_found_without_neutron(host: RecordedHost) -> None:
    [vif] = _noted(host, "vm-plain")
    _note(host, "vm-plain", [{**vif, "type": "binding_failed"}])
    host.silence("neutron")

    assert host.findings() == [
        f"port-binding-bad of vm-plain: instance reports network_info = {vif['id']}: binding_failed"
    ]


def test_a_port_of_a_running_guest_that_is_not_wired(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    host.port(port, status="DOWN")
    host.drop(lambda answer: not answer.query.startswith("ovs-ofctl"))

    assert host.findings() == [
        f"port-binding-bad of vm-plain: port reports id = {port}, status = DOWN, host = vm;"
        " domain reports state = running (unpaused)"
    ]
    finding = host.found("port-binding-bad")
    assert finding.severity.word == "error"
    assert (
        changes(finding)
        == [
            f"openstack server volume list {host.uuid('vm-plain')}",
            f"openstack port list --server {host.uuid('vm-plain')}",
            f"openstack server reboot --hard {host.uuid('vm-plain')}",
        ][2:]
    )


@pytest.mark.parametrize("status", ["DOWN", "BUILD"])
def test_a_wired_port_that_is_not_active_needs_no_reboot(host: RecordedHost, status: str) -> None:
    port = _port(host, "vm-plain")["id"]
    host.port(port, status=status)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("port-binding-bad", "warning")
    assert finding.headline.endswith(
        f" is {status} in neutron, but its tap tap{port[:11]} is wired"
    )
    assert changes(finding) == ["systemctl restart neutron-openvswitch-agent"]


def test_a_port_in_build_that_is_not_wired(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    host.port(port, status="BUILD")
    host.drop(lambda answer: not answer.query.startswith("ovs-ofctl"))

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert finding.headline.endswith(" is BUILD in neutron, but the guest runs")
    assert changes(finding) == ["systemctl restart neutron-openvswitch-agent"]


def test_a_disabled_port_is_a_warning(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    host.port(port, status="DOWN", admin_state_up=False)
    host.switch("Port", f"tap{port[:11]}", tag=4095)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        f"port-binding-bad of vm-plain: port reports id = {port}, admin_state_up = False;"
        " domain reports state = running (unpaused)"
    ]


@pytest.mark.parametrize("name", ["vm-stopped", "vm-suspended"])
def test_a_port_of_a_guest_that_is_off_may_be_down(host: RecordedHost, name: str) -> None:
    host.port(_port(host, name)["id"], status="DOWN")

    assert host.findings() == []


def test_a_port_is_not_judged_without_the_domains_state(host: RecordedHost) -> None:
    host.port(_port(host, "vm-plain")["id"], status="DOWN")
    host.silence("libvirt")

    assert host.findings() == []


def test_a_port_that_changed_a_moment_ago_is_being_wired(host: RecordedHost) -> None:
    host.port(
        _port(host, "vm-plain")["id"],
        status="DOWN",
        updated_at=f"{host.bundle.started:%Y-%m-%dT%H:%M:%SZ}",
    )

    assert host.findings() == []


def test_a_passed_through_card_follows_its_cable(host: RecordedHost) -> None:
    host.port(_port(host, "vm-plain")["id"], status="DOWN", binding__vnic_type="direct")

    assert _findings(host) == []


def test_info_cache_lost(host: RecordedHost) -> None:
    _note(host, "vm-config", [])

    uuid = host.uuid("vm-config")
    [one, other] = host.ports("vm-config")
    assert _findings(host) == [
        "info-cache-lost of vm-config: instance reports no cached_ports;"
        f" port reports id = {one['id']}, device_id = {uuid}; port reports id = {other['id']}, device_id = {uuid}"
    ]
    first, second = (
        f"{port['id'][:8]} ({port['fixed_ips'][0]['ip_address']})" for port in (one, other)
    )
    headline = f"nova's info cache of vm-config lacks 2 of 2 ports: {first} and {second}"
    assert headline in host.headlines()


def test_info_cache_lost_in_part(host: RecordedHost) -> None:
    [one, other] = _noted(host, "vm-config")
    _note(host, "vm-config", [one])

    assert host.findings() == [
        f"info-cache-lost of vm-config: instance reports cached_ports = {one['id']};"
        f" port reports id = {other['id']}, device_id = {host.uuid('vm-config')}"
    ]


def test_old_addresses_in_the_info_cache_are_a_warning(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")
    [fixed] = port["fixed_ips"]
    host.port(port["id"], fixed_ips=[{**fixed, "ip_address": "10.20.0.251"}])

    [finding] = [one for one in host.report().findings if one.check.name == "info-cache-lost"]
    assert finding.severity.word == "warning"
    assert _findings(host) == [
        f"info-cache-lost of vm-plain: instance reports network_info = {port['id']}: {fixed['ip_address']};"
        " port reports addresses = 10.20.0.251"
    ]


def test_an_info_cache_with_a_deleted_port_is_a_warning(host: RecordedHost) -> None:
    port = _port(host, "vm-stopped")["id"]
    host.unlist(port)
    # Its Open vSwitch port is then an orphan, which is another finding.
    assert [found for found in host.findings() if "tap-orphan" not in found] == [
        f"info-cache-lost of vm-stopped: instance reports cached_ports = {port}; neutron reports no port"
    ]


def test_a_port_that_was_just_attached_is_not_in_the_cache_yet(host: RecordedHost) -> None:
    _note(host, "vm-plain", [])
    host.port(_port(host, "vm-plain")["id"], updated_at=f"{host.bundle.started:%Y-%m-%dT%H:%M:%SZ}")

    assert host.findings() == []
    assert _differs(host, "info-cache-lost", "vm-plain") == [_reason(traps.port_just_changed)]


def test_a_truncated_list_of_ports_proves_nothing(host: RecordedHost) -> None:
    port = _port(host, "vm-stopped")["id"]
    host.unlist(port)
    query = "GET /v2.0/ports?limit=1000"
    more = {"rel": "next", "href": f"http://127.0.0.1:9696/v2.0/ports?limit=1000&marker={port}"}
    host.set("neutron", query, {**host.last("neutron", query).value, "ports_links": [more]})

    assert host.findings() == []


def test_port_guest_mismatch(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")
    host.unlist(port["id"])

    card = f"tap{port['id'][:11]} {port['mac_address']}"
    assert _findings(host) == [
        f"port-guest-mismatch of vm-plain: domain reports interfaces = {card}; neutron reports no port"
    ]
    headline = f"vm-plain runs with card tap{port['id'][:11]} ({port['mac_address']}), but neutron has no port for it"
    assert headline in host.headlines()


def test_a_card_that_was_added_by_hand_names_its_bridge(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    card = """<interface type='bridge'><mac address='52:54:00:1a:b0:01'/>
      <source bridge='brlab0'/><target dev='vnet1'/><model type='rtl8139'/></interface>"""
    host.edit("libvirt", f"virsh dumpxml {name}", "</devices>", f"{card}</devices>")

    finding = host.found("port-guest-mismatch")
    assert finding.headline == (
        "vm-plain runs with card vnet1 (52:54:00:1a:b0:01) on bridge brlab0, but neutron has no "
        "port for it"
    )
    assert changes(finding) == [
        f"virsh detach-interface {name} bridge --mac 52:54:00:1a:b0:01 --live"
    ]
    assert not {"card-model-mismatch", "live-vs-persistent-drift"} & {
        one.check.name for one in host.report().findings
    }
    # Without the database, the API has the addresses of nova's ports.
    host.silence("nova-db")
    assert changes(host.found("port-guest-mismatch")) == changes(finding)


def test_a_card_without_a_port_may_be_added_or_left_if_nova_s_ports_are_unknown(
    host: RecordedHost,
) -> None:
    name = host.domain("vm-plain")
    card = """<interface type='bridge'><mac address='52:54:00:1a:b0:01'/>
      <source bridge='brlab0'/><target dev='vnet1'/><model type='rtl8139'/></interface>"""
    host.edit("libvirt", f"virsh dumpxml {name}", "</devices>", f"{card}</devices>")
    host.silence("nova-db")
    host.server(host.uuid("vm-plain"), addresses={"net": [{"addr": "10.0.0.5"}]})

    assert changes(host.found("port-guest-mismatch")) == [
        f"openstack server remove port {host.uuid('vm-plain')} LOST_PORT",
        f"virsh detach-interface {name} bridge --mac 52:54:00:1a:b0:01 --live",
    ]


def test_a_card_whose_port_belongs_to_another_server_now(host: RecordedHost) -> None:
    port, other = _port(host, "vm-plain"), host.uuid("vm-stopped")
    host.port(port["id"], device_id=other)

    card = f"tap{port['id'][:11]} {port['mac_address']}"
    assert (
        f"port-guest-mismatch of vm-plain: domain reports interfaces = {card};"
        f" port reports id = {port['id']}, device_id = {other}"
    ) in host.findings()


@pytest.mark.parametrize("owner", ["", "compute", "network:dhcp"])
def test_port_owner_lost(host: RecordedHost, owner: str) -> None:
    port = _port(host, "vm-plain")
    host.port(port["id"], device_owner=owner)

    [found] = [one for one in host.report().findings if one.check.name == "port-owner-lost"]
    has = f"has device_owner {owner}" if owner else "has no owner"
    assert f"vm-plain's port {port['id'][:8]}" in found.headline
    assert found.headline.endswith(f"{has} in neutron: device_owner should be compute:nova")
    assert changes(found) == [f"openstack port set --device-owner compute:nova {port['id']}"]
    assert not [line for line in host.findings() if line.startswith("port-guest-mismatch")]
    assert not [line for line in host.headlines() if "in nova's info cache" in line and not owner]


def test_a_stopped_server_keeps_a_port_without_an_owner(host: RecordedHost) -> None:
    port = _port(host, "vm-stopped")["id"]
    host.port(port, device_owner="")

    assert host.findings() == [
        f"port-owner-lost of vm-stopped: port reports id = {port},"
        f" device_id = {host.uuid('vm-stopped')}, no device_owner;"
        f" instance reports cached_ports = {port}"
    ]


def test_a_port_whose_owner_was_just_changed(host: RecordedHost) -> None:
    now = f"{host.bundle.started:%Y-%m-%dT%H:%M:%SZ}"
    host.port(_port(host, "vm-plain")["id"], device_owner="", updated_at=now)

    assert "port-owner-lost" not in {one.check.name for one in host.report().findings}


def test_a_port_that_only_names_the_server_is_not_attached_yet(host: RecordedHost) -> None:
    port = _port(host, "vm-shelved")["id"]
    host.port(port, device_id=host.uuid("vm-plain"), device_owner="")

    assert "port-owner-lost" not in {one.check.name for one in host.report().findings}


def test_a_guest_without_any_card_for_its_port_is_cut_off(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    xml = host.last("libvirt", f"virsh dumpxml {name}").value
    [card] = re.findall(r"<interface.*?</interface>", xml, re.DOTALL)
    host.edit("libvirt", f"virsh dumpxml {name}", card, "")

    found = [one for one in host.report().findings if one.check.name == "port-guest-mismatch"]
    assert [one.severity.word for one in found] == ["error"]
    uuid = host.uuid("vm-plain")
    assert changes(found[0]) == [f"openstack server stop {uuid}", f"openstack server start {uuid}"]


def test_a_port_without_a_card_is_a_warning(host: RecordedHost) -> None:
    [_, other] = host.ports("vm-config")
    name = host.domain("vm-config")
    xml = host.last("libvirt", f"virsh dumpxml {name}").value
    start = xml.index("<interface", xml.index(host.ports("vm-config")[0]["mac_address"]))
    end = xml.index("</interface>", start) + len("</interface>")
    cut = xml[start:end]
    assert other["mac_address"] in cut
    host.edit("libvirt", f"virsh dumpxml {name}", cut, "")

    found = [one for one in host.report().findings if one.check.name == "port-guest-mismatch"]
    assert [one.severity.word for one in found] == ["warning"]
    mac = host.ports("vm-config")[0]["mac_address"]
    assert (
        f"port-guest-mismatch of vm-config: port reports id = {other['id']}, mac = {other['mac_address']};"
        f" domain reports macs = {mac}"
    ) in host.findings()


def test_a_trunks_subport_has_no_card(host: RecordedHost) -> None:
    port = _port(host, "vm-shelved")["id"]
    host.port(port, device_id=host.uuid("vm-plain"), device_owner="trunk:subport")
    _note(host, "vm-shelved", [])
    host.row("virtual_interfaces", port, deleted=1)

    assert _findings(host) == []


def test_a_passed_through_card_is_no_interface(host: RecordedHost) -> None:
    port = _port(host, "vm-shelved")["id"]
    [vif] = _noted(host, "vm-shelved")
    host.port(port, device_id=host.uuid("vm-plain"), binding__vnic_type="direct-physical")
    _note(host, "vm-shelved", [])
    _note(host, "vm-plain", [*_noted(host, "vm-plain"), vif])
    host.row("virtual_interfaces", port, instance_uuid=host.uuid("vm-plain"))

    assert _findings(host) == []
