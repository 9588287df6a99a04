"""Legal situations of real clouds: the smallest edit of a recording that makes each, and no finding."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.checks.test_cards import _model
from tests.checks.test_compute_node import give_address
from tests.checks.test_glance_images import image, shelved
from tests.checks.test_host import node, option, placement
from tests.checks.test_moves import state as set_state
from tests.conftest import RecordedHost, sample

VALUES = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d+\b")
"""UUIDs and numbers in a query."""

NOBODY = "5a5a5a5a-0000-4000-8000-5a5a5a5a5a5a"


def test_a_server_in_rescue_has_the_cards_of_the_rescue_image(host: RecordedHost) -> None:
    _model(host, "vm-rescued", "e1000")

    assert host.findings() == []


def test_two_ports_of_a_server_have_one_mac_address(host: RecordedHost) -> None:
    """neutron allows it in two networks."""
    one, other = host.ports("vm-config")
    name = host.domain("vm-config")
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        host.edit("libvirt", query, other["mac_address"], one["mac_address"])
    host.port(other["id"], mac_address=one["mac_address"])

    assert not any("card-names-another-port" in line for line in host.findings())


@pytest.mark.parametrize("owner", ["project", "[withheld]"])
def test_an_administrator_shelved_a_server(host: RecordedHost, owner: str) -> None:
    """nova shares the image with the server's project (`_initialize_instance_snapshot_metadata`)."""
    uuid = shelved(host)
    record = host.guest("vm-shelved").instance
    assert record is not None
    if owner == "project":
        owner = str(record.raw["project_id"])
    image(host, uuid, owner=NOBODY, visibility="shared", instance_owner=owner)

    assert host.findings() == []


def test_an_ipv6_address_is_written_in_another_way(host: RecordedHost) -> None:
    host.row("compute_nodes", node(host), host_ip="fd00::7")
    for answer in host.bundle.by_layer["nova"]:
        if "os-hypervisors/detail" in answer.query and answer.error is None:
            value = json.loads(json.dumps(answer.value))
            value["hypervisors"][0]["host_ip"] = "fd00::7"
            host.set("nova", answer.query, value)
    option(host, "DEFAULT", my_ip="FD00:0::7")
    give_address(host, "fd00::7")

    assert not any("fd00::7" in line or "FD00:0::7" in line for line in host.headlines())


def test_the_size_of_a_shared_storage_moves(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["DISK_GB"]["total"] -= 3
    host.set("placement", query, value)
    for answer in host.bundle.by_layer["nova"]:
        if "os-hypervisors/detail" in answer.query and answer.error is None:
            value = json.loads(json.dumps(answer.value))
            if "local_gb" in value["hypervisors"][0]:
                value["hypervisors"][0]["local_gb"] += 3
                host.row("compute_nodes", node(host), local_gb=value["hypervisors"][0]["local_gb"])
            host.set("nova", answer.query, value)

    assert host.findings() == []


def test_a_move_in_another_cell_has_the_same_number(host: RecordedHost) -> None:
    [answer] = [
        answer
        for answer in host.bundle.asked("nova-db", "SELECT")
        if answer.query.endswith(" FROM nova_api.cell_mappings")
    ]
    query, value = answer.query, answer.value
    [own] = [row for row in value["rows"] if "cell1" in row]
    other = ["cell2" if cell == "cell1" else cell for cell in own]
    other[value["columns"].index("id")] = 3
    other[value["columns"].index("uuid")] = NOBODY
    other[value["columns"].index("database_name")] = "nova_cell2"
    host.set("nova-db", query, {**value, "rows": [*value["rows"], other]})
    for answer in host.bundle.by_layer["nova"]:
        if "os-migrations" in answer.query and answer.error is None:
            moves = json.loads(json.dumps(answer.value))
            there = {"uuid": NOBODY, "instance_uuid": NOBODY, "user_id": "somebody"}
            moves["migrations"].append(moves["migrations"][0] | there)
            host.set("nova", answer.query, moves)

    assert not any("api-list-differs" in line for line in host.findings())


def test_a_router_that_moved_left_its_namespace_behind(host: RecordedHost) -> None:
    [name] = [
        row["name"]
        for row in host.last("network", "ip -j netns").value
        if row["name"].startswith("qrouter-")
    ]
    host.set("network", f"ip netns exec {name} iptables-save -t nat", "*nat\nCOMMIT\n")
    for uuid, port in _ports(host).items():
        if port["device_id"] == name.removeprefix("qrouter-"):
            host.port(uuid, binding__host_id="network2")

    assert host.findings() == []


def _ports(host: RecordedHost) -> dict[str, dict[str, Any]]:
    return {
        port["id"]: port
        for answer in host.bundle.by_layer["neutron"]
        if "/ports?" in answer.query and answer.error is None
        for port in answer.value["ports"]
    }


def test_a_router_has_two_gateways(host: RecordedHost) -> None:
    """2024.1 and later: external-gateway-multihoming."""
    query = "GET /v2.0/ports?limit=1000"
    value = host.last("neutron", query).value
    [gateway] = [it for it in value["ports"] if it["device_owner"] == "network:router_gateway"]
    [fixed] = gateway["fixed_ips"]
    ip = str(fixed["ip_address"]).rpartition(".")[0] + ".199"
    more = {"id": NOBODY, "fixed_ips": [fixed | {"ip_address": ip}]}
    host.set("neutron", query, value | {"ports": [*value["ports"], gateway | more]})

    assert not any("neutron-records-disagree" in line for line in host.findings())


def test_a_passed_through_card_gets_metadata_from_another_host(host: RecordedHost) -> None:
    agents = json.loads(json.dumps(host.last("neutron", "GET /v2.0/agents").value))
    own = {"agent_type": "OVN Metadata agent", "binary": "neutron-ovn-metadata-agent"}
    agents["agents"].append({**agents["agents"][0], "id": "7d0f", "alive": True, **own})
    host.set("neutron", "GET /v2.0/agents", agents)
    network = host.ports("vm-plain")[0]["network_id"]
    names = host.last("network", "ip -j netns").value
    host.set("network", "ip -j netns", [*names, {"name": f"ovnmeta-{NOBODY}"}])
    for uuid, port in _ports(host).items():
        if port["network_id"] == network and port["device_owner"].startswith("compute:"):
            host.port(uuid, binding__vnic_type="direct", binding__vif_type="hw_veb")

    assert not any(f"ovnmeta-{network[:8]}" in line for line in host.headlines())


@pytest.mark.parametrize("emulator", ["/usr/bin/kvm", "/usr/bin/kvm-spice"])
def test_a_script_starts_the_emulator(host: RecordedHost, emulator: str) -> None:
    """Debian's and Ubuntu's /usr/bin/kvm is a script that starts qemu-system-x86_64."""
    name = host.domain("vm-plain")
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        host.edit(
            "libvirt", query, "<emulator>/usr/bin/qemu-system-x86_64<", f"<emulator>{emulator}<"
        )

    assert not any("qemu-started-differently" in line for line in host.findings())


def test_a_variant_of_the_emulator_has_a_longer_name(host: RecordedHost) -> None:
    """Ubuntu links qemu-system-x86_64 to qemu-system-x86_64-spice."""
    query = f"readlink /proc/{host.pid('vm-plain')}/exe"
    host.set("kernel", query, "/usr/bin/qemu-system-x86_64-spice")

    assert host.findings() == []


def test_a_guest_that_ends_writes_its_last_data(host: RecordedHost) -> None:
    set_state(host, "vm-plain", 4, 0)
    host.edit("kernel", f"/proc/{host.pid('vm-plain')}/stat", ") S ", ") D ")
    [log] = [
        answer
        for answer in host.bundle.asked("logs", "tail -c")
        if answer.query.endswith(f"/{host.domain('vm-plain')}.log")
    ]
    at = f"{log.at:%Y-%m-%dT%H:%M:%S}.506854Z"
    told = f"\n{at} qemu-system-x86_64: terminating on signal 15 from pid 9741 (libvirtd)"
    host.set("logs", log.query, log.value + told)

    assert not any("qemu-does-not-end" in line for line in host.findings())


def test_a_user_does_not_see_the_ports_of_an_administrator(host: RecordedHost) -> None:
    host.drop(lambda answer: answer.layer != "nova-db")
    [port] = host.ports("vm-stopped")
    [fixed] = port["fixed_ips"]
    host.port(port["id"], fixed_ips=[{**fixed, "ip_address": "10.20.0.251"}])
    for answer in host.bundle.by_layer["neutron"]:
        if "/ports?" in answer.query and answer.error is None:
            ports = [
                {key: value for key, value in one.items() if not key.startswith("binding:")}
                for one in answer.value["ports"]
            ]
            host.set("neutron", answer.query, answer.value | {"ports": ports})
    assert not any("info-cache-outdated of vm-stopped" in line for line in host.findings())


def test_the_files_of_libvirt_have_private_data(host: RecordedHost) -> None:
    """As in /run/libvirt/qemu/NAME.xml, from which a sosreport is taken in."""
    query = f"virsh dumpxml {host.domain('vm-plain')}"
    text = host.last("libvirt", query).value
    private = "<privateData><qom name='/machine/peripheral/virtio-disk0'/></privateData></disk>"
    host.set("libvirt", query, text.replace("</disk>", private, 1))

    assert host.findings() == []


def test_an_old_row_names_its_root_device_without_a_folder(host: RecordedHost) -> None:
    host.mappings(
        lambda row: (
            [row | {"device_name": row["device_name"].removeprefix("/dev/")}]
            if row.get("boot_index") == 0 and row.get("device_name") and not row.get("volume_id")
            else [row]
        )
    )

    assert not any("server-copies-differ" in line for line in host.findings())


def test_a_question_that_was_not_asked_is_no_finding(host: RecordedHost) -> None:
    """The healthy recording without one answer of each of 20 kinds."""
    answers = host.bundle.answers
    kinds = {(one.layer, VALUES.sub("*", one.query)): one for one in answers}
    for left_out in sample(list(kinds.values()), 20):
        host.bundle = host.bundle.with_answers(one for one in answers if one is not left_out)
        assert host.findings() == [], left_out.query
