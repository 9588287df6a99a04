"""Compute nodes that differ from the machine, from nova.conf and from placement."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.checks.test_host import (
    OTHER,
    _processes,
    captured,
    listed,
    named,
    node,
    only,
    option,
    placement,
    service,
    table,
)
from tests.conftest import RecordedHost, changes


def test_provider_vs_compute_node(host: RecordedHost) -> None:
    query = "GET /resource_providers [1.39]"
    value = json.loads(json.dumps(host.last("placement", query).value))
    value["resource_providers"][0]["name"] = "old-name"
    host.set("placement", query, value)

    own = [f for f in host.findings() if f.startswith("provider-vs-compute-node")]
    assert own == [
        f"provider-vs-compute-node: compute node reports uuid = {node(host)}, hypervisor_hostname = vm;"
        " provider reports name = old-name"
    ]
    assert (
        "The compute node of host vm is vm in nova, but old-name in placement"
    ) in host.headlines()
    assert changes(host.found("provider-vs-compute-node")) == [
        f"openstack resource provider set --name vm {node(host)}"
    ]


def test_provider_vs_compute_node_with_a_namesake(host: RecordedHost) -> None:
    old = node(host)
    host.row("compute_nodes", old, uuid=OTHER)

    own = [f for f in host.findings() if f.startswith("provider-vs-compute-node")]
    assert own == [
        f"provider-vs-compute-node: compute node reports uuid = {OTHER}, hypervisor_hostname = vm;"
        f" placement reports no provider; provider reports name = vm, uuid = {old}"
    ]
    assert changes(host.found("provider-vs-compute-node")) == [
        "systemctl stop nova-compute",
        f"UPDATE nova.compute_nodes SET uuid = '{old}' WHERE id = 1",
        "systemctl restart nova-compute",
    ]


def test_provider_vs_compute_node_with_another_uuid_on_the_host(host: RecordedHost) -> None:
    query = next(a.query for a in host.bundle.asked("host", "cat ") if "compute_id" in a.query)
    host.set("host", query, OTHER)

    assert host.findings() == [
        f"provider-vs-compute-node: compute_id reports uuid = {OTHER}; compute node reports uuid = {node(host)}"
    ]


def test_provider_vs_compute_node_twice(host: RecordedHost) -> None:
    only(host, "compute_nodes", {}, {"id": 2, "uuid": OTHER, "hypervisor_hostname": "vm.example"})

    assert host.findings() == [
        "provider-vs-compute-node: compute node reports hypervisor_hostname = vm;"
        " compute node reports hypervisor_hostname = vm.example"
    ]


@pytest.mark.parametrize("cells", [{"hypervisor_type": "ironic"}, {"deleted": 2}])
def test_ironic_and_deleted_nodes_may_be_several(
    host: RecordedHost, cells: dict[str, object]
) -> None:
    first = {} if "deleted" in cells else cells
    only(host, "compute_nodes", first, {"id": 2, "uuid": OTHER, **cells})

    assert "provider-vs-compute-node" not in named(host)


def test_provider_vs_compute_node_of_another_cell(host: RecordedHost) -> None:
    found = table(host, "host_mappings")
    only(host, "host_mappings", {"cell_id": 1})

    assert found.value["rows"][0][1] != 1
    assert host.findings() == [
        "provider-vs-compute-node: host mapping reports host = vm, cell_id = 1, cell = nova_cell0;"
        f" compute node reports uuid = {node(host)}"
    ]


def test_disabled_trait_left(host: RecordedHost) -> None:
    query, value = placement(host, "traits")
    value["traits"].append("COMPUTE_STATUS_DISABLED")
    host.set("placement", query, value)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("disabled-trait-left", "warning")
    host.row("services", service(host), disabled=1)
    listed(host, status="disabled")
    assert named(host) == {"service-state-skew"}


def test_a_provider_that_was_not_asked_for_is_not_missing(host: RecordedHost) -> None:
    host.silence("placement")

    assert host.findings() == []


def test_capacity_lie(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"]["total"] = 99999999
    host.set("placement", query, value)

    [finding] = host.findings()
    assert finding.startswith(
        "capacity-lie: provider reports inventories = 99999999 MEMORY_MB; kernel reports"
    )
    headline, _ = host.headlines()
    assert re.fullmatch(
        r"placement offers 99999999 MEMORY_MB of host vm, which has only \d+", headline
    )


@pytest.mark.parametrize(("name", "layer"), [("VCPU", "libvirt"), ("DISK_GB", "images")])
def test_capacity_lie_of_other_resources(host: RecordedHost, name: str, layer: str) -> None:
    query, value = placement(host, "inventories")
    value["inventories"][name]["total"] = 99999999
    host.set("placement", query, value)

    [finding] = host.findings()
    assert finding.startswith(
        f"capacity-lie: provider reports inventories = 99999999 {name}; {layer} reports"
    )


def test_capacity_lie_of_uncounted_guests(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"] |= {"total": 800, "reserved": 512, "allocation_ratio": 1.0}
    host.set("placement", query, value)

    [finding] = [f for f in host.report().findings if f.check.name == "capacity-lie"]
    assert (finding.check.name, finding.severity.word) == ("capacity-lie", "warning")
    [_, kernel] = finding.evidence
    said = dict(kernel.said)
    assert (said["processes"], said["swapped_mib"]) == (_processes(), 0)
    assert int(str(said["memory_mib"])) > 800 - 512


def test_capacity_lie_is_an_error_once_guests_are_swapped_out(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"] |= {"total": 800, "reserved": 512, "allocation_ratio": 1.0}
    host.set("placement", query, value)
    for name, swapped in (("vm-plain", "      64 kB"), ("vm-duo", "  307200 kB")):
        status = f"/proc/{host.pid(name)}/status"
        host.edit("kernel", status, "VmSwap:\t       0 kB", f"VmSwap:\t{swapped}")

    [finding] = [f for f in host.report().findings if f.check.name == "capacity-lie"]
    assert (finding.check.name, finding.severity.word) == ("capacity-lie", "error")
    assert dict(finding.evidence[1].said)["swapped_mib"] == 300


def test_guests_are_not_summed_up_without_a_process_list(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"].update(total=1024, reserved=1000)
    host.set("placement", query, value)
    host.drop(lambda answer: answer.query != "ls -l /proc/*/exe")

    assert "capacity-lie" not in named(host)


def test_capacity_lie_while_guests_are_swapped_out(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"] |= {"total": 800, "reserved": 512, "allocation_ratio": 1.0}
    host.set("placement", query, value)
    status = f"/proc/{host.pid('vm-plain')}/status"
    host.edit("kernel", status, "VmSwap:\t       0 kB", "VmSwap:\t 1000000 kB")

    [finding] = [f for f in host.report().findings if f.check.name == "capacity-lie"]
    assert finding.severity.word == "error"


def test_an_allocation_ratio_is_allowed_for(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"] |= {"total": 800, "reserved": 512, "allocation_ratio": 16.0}
    host.set("placement", query, value)

    assert "capacity-lie" not in named(host)


@pytest.mark.parametrize("storage", ["rbd", "lvm"])
def test_disks_in_other_storage_are_not_compared(host: RecordedHost, storage: str) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["DISK_GB"]["total"] = 99999999
    host.set("placement", query, value)
    option(host, "libvirt", images_type=storage)

    assert "capacity-lie" not in named(host)


def test_file_backed_memory_is_not_compared(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"]["total"] = 99999999
    host.set("placement", query, value)
    option(host, "libvirt", file_backed_memory="1048576")

    assert "capacity-lie" not in named(host)


def _compute_node(host: RecordedHost, **cells: object) -> None:
    host.row("compute_nodes", node(host), **cells)


def test_compute_node_outdated(host: RecordedHost) -> None:
    own = captured(host).node
    assert own is not None
    _compute_node(host, hypervisor_version=6002000)

    assert sorted(host.headlines()) == [
        "Compute node vm has hypervisor_version 6002000 in nova, but libvirt on host vm reports 7002022",
        "Hypervisor vm has hypervisor_version 7002022 in nova's API, but hypervisor_version 6002000 in"
        " its database",
    ]


@pytest.mark.parametrize(
    ("section", "options", "headline"),
    [
        ("DEFAULT", {"my_ip": "192.0.2.7"},
         "Compute node vm has address 127.0.0.1 in nova, but nova.conf of host vm has my_ip 192.0.2.7"),
        ("DEFAULT", {"cpu_allocation_ratio": "4.0"},
         "Placement has VCPU of compute node vm with ratio 16, but nova.conf of host vm has"
         " cpu_allocation_ratio 4"),
        ("DEFAULT", {"reserved_host_memory_mb": "4096"},
         "Placement has 512 MEMORY_MB of compute node vm reserved, but reserved_host_memory_mb of host"
         " vm is 4096"),
    ],
)  # fmt: skip
def test_compute_node_outdated_by_nova_conf(
    host: RecordedHost, section: str, options: dict[str, str], headline: str
) -> None:
    option(host, section, **options)
    if "my_ip" in options:
        give_address(host, options["my_ip"])

    assert host.headlines() == [headline]


def give_address(host: RecordedHost, ip: str) -> None:
    """Give the host one more address."""
    links = json.loads(json.dumps(host.last("network", "ip -j address").value))
    links[0]["addr_info"].append({"family": "inet", "local": ip, "prefixlen": 24})
    host.set("network", "ip -j address", links)


def test_an_address_that_the_host_does_not_have_is_wrong_in_nova_conf(host: RecordedHost) -> None:
    option(host, "DEFAULT", my_ip="192.0.2.7")

    assert host.headlines() == [
        "nova.conf of host vm has my_ip 192.0.2.7, which is no address of the host"
    ]


def test_compute_node_outdated_if_the_hosts_addresses_are_unknown(host: RecordedHost) -> None:
    option(host, "DEFAULT", my_ip="192.0.2.7")
    host.fail("network", "ip -j address", "unreachable", "no answer")

    assert host.headlines() == [
        "Compute node vm has address 127.0.0.1 in nova, but nova.conf of host vm has my_ip 192.0.2.7"
    ]


def test_compute_node_outdated_in_placement(host: RecordedHost) -> None:
    query, value = placement(host, "inventories")
    value["inventories"]["MEMORY_MB"]["total"] -= 100
    host.set("placement", query, value)

    [headline] = host.headlines()
    assert headline.startswith("Compute node vm has memory_mb ")
    assert " in nova, but placement has " in headline


@pytest.mark.parametrize(
    ("name", "key", "value", "all_of_it"),
    [("VCPU", "max_unit", 1, "vcpus"), ("MEMORY_MB", "step_size", 512, "memory_mb")],
)
def test_placement_allocates_other_amounts_than_nova_offers(
    host: RecordedHost, name: str, key: str, value: int, all_of_it: str
) -> None:
    query, said = placement(host, "inventories")
    said["inventories"][name][key] = value
    host.set("placement", query, said)
    node = captured(host).node

    assert node is not None
    assert host.headlines() == [
        f"Placement has {name} of compute node vm with {key} {value}, but nova offers from 1 to "
        f"all {node.raw[all_of_it]} to one server"
    ]


def test_placement_may_allow_more_than_the_host_has(host: RecordedHost) -> None:
    query, said = placement(host, "inventories")
    said["inventories"]["VCPU"]["max_unit"] = 2147483647
    host.set("placement", query, said)

    assert host.findings() == []


def test_a_compute_node_that_does_not_report_is_old_by_right(host: RecordedHost) -> None:
    host.row("services", service(host), forced_down=1)
    option(host, "DEFAULT", my_ip="192.0.2.7")
    give_address(host, "192.0.2.7")

    assert not any("my_ip" in headline for headline in host.headlines())


def test_memory_may_be_plugged_in(host: RecordedHost) -> None:
    value = dict(host.last("libvirt", "virsh nodeinfo").value)
    value["memory_mib"] += 1024
    host.set("libvirt", "virsh nodeinfo", value)

    assert host.findings() == []


def test_cpus_that_nova_conf_takes_away_are_not_compared(host: RecordedHost) -> None:
    option(host, "compute", cpu_shared_set="0")
    value = dict(host.last("libvirt", "virsh nodeinfo").value)
    value["cpus"] = 64
    host.set("libvirt", "virsh nodeinfo", value)

    assert host.findings() == []


def test_provider_vs_compute_node_below_another_provider(host: RecordedHost) -> None:
    query = "GET /resource_providers [1.39]"
    value = json.loads(json.dumps(host.last("placement", query).value))
    value["resource_providers"][0] |= {"parent_provider_uuid": OTHER, "root_provider_uuid": OTHER}
    host.set("placement", query, value)

    assert any(
        headline.startswith("The resource provider of host vm is a part of 88888888 in placement")
        for headline in host.headlines()
    )


def _ratio(host: RecordedHost, ratio: str) -> None:
    node = host.guest("vm-plain").host
    assert node is not None and node.node is not None
    host.row("compute_nodes", str(node.node.raw["uuid"]), cpu_allocation_ratio=ratio)


def test_a_ratio_that_only_placement_has_is_a_note(host: RecordedHost) -> None:
    _ratio(host, "4")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("compute-node-outdated", "note")
    assert finding.headline == (
        "Placement has VCPU of compute node vm with ratio 16, but servers with a NUMA topology are"
        " placed by cpu_allocation_ratio 4 of nova's record"
    )


def test_a_record_with_another_ratio_than_nova_conf_is_outdated(host: RecordedHost) -> None:
    host.conf("DEFAULT", cpu_allocation_ratio="16")
    _ratio(host, "4")

    assert host.headlines() == [
        "Compute node vm has cpu_allocation_ratio 4 in nova, but nova.conf of host vm has 16"
    ]


@pytest.mark.parametrize("ratio", ["0", None])
def test_a_record_from_before_stein_has_no_ratio(host: RecordedHost, ratio: Any) -> None:
    _ratio(host, ratio)

    assert host.findings() == []


def _aggregate(host: RecordedHost, listed: list[str]) -> None:
    """Put the host into an aggregate of nova, and its provider into these of placement."""
    rows = {
        "aggregates": (["id", "uuid", "name"], [[1, AGGREGATE, "agg-ssd"]]),
        "aggregate_hosts": (["id", "host", "aggregate_id"], [[1, "vm", 1]]),
    }
    for answer in host.bundle.answers:
        for name, (columns, cells) in rows.items():
            if answer.query.endswith(f" FROM nova_api.{name}") and answer.query.startswith(
                "SELECT"
            ):
                host.set("nova-db", answer.query, {"columns": columns, "rows": cells})
        if "/aggregates" in answer.query and answer.layer == "placement":
            host.set("placement", answer.query, {**answer.value, "aggregates": listed})


AGGREGATE = "5a5a5a5a-0000-4000-8000-5a5a5a5a5a5a"


def test_placement_aggregates_differ(host: RecordedHost) -> None:
    _aggregate(host, [])

    assert "Host vm is in aggregate agg-ssd in nova, but not in placement" in host.headlines()


def test_placement_has_aggregates_of_its_own(host: RecordedHost) -> None:
    _aggregate(host, [AGGREGATE, "6b6b6b6b-0000-4000-8000-6b6b6b6b6b6b"])

    assert not any("agg-ssd in" in line for line in host.headlines())
