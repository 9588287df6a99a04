"""Allocations in placement, and their consumers."""

from __future__ import annotations

import json

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer
from hoodsnap.findings.advice import instructions

NOBODY = "99999999-0000-4000-8000-000000000000"
OTHER = "88888888-0000-4000-8000-000000000000"


def node(host: RecordedHost) -> str:
    """The UUID of the only compute node."""
    [captured] = host.report().cloud.hosts
    assert captured.node is not None and captured.node.uuid is not None
    return captured.node.uuid


def list_of(host: RecordedHost, provider: str, part: str) -> str:
    query = f"GET /resource_providers/{provider}/{part} [1.39]"
    assert host.last("placement", query) is not None
    return query


def hold(host: RecordedHost, consumer: str, resources: dict[str, int] | None) -> None:
    """Set a consumer's allocation on the host; None removes it."""
    query = list_of(host, node(host), "allocations")
    value = json.loads(json.dumps(host.last("placement", query).value))
    if resources is None:
        del value["allocations"][consumer]
    else:
        value["allocations"][consumer] = {"resources": resources, "consumer_generation": 1}
    host.set("placement", query, value)
    own = f"GET /allocations/{consumer} "
    if any(host.bundle.asked("placement", own)):
        host.drop(lambda answer: not answer.query.startswith(own))


def second_host(host: RecordedHost, name: str, *consumers: str) -> None:
    """Add a provider on which each consumer has an allocation."""
    query = "GET /resource_providers [1.39]"
    value = json.loads(json.dumps(host.last("placement", query).value))
    value["resource_providers"].append(
        {"uuid": OTHER, "name": name, "generation": 1, "parent_provider_uuid": None}
        | {"root_provider_uuid": OTHER}
    )
    host.set("placement", query, value)
    amounts = {"resources": {"VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1}}
    first = host.last("placement", query)
    held = {"allocations": dict.fromkeys(consumers, amounts)}
    asked = f"GET /resource_providers/{OTHER}/allocations [1.39]"
    host.add(first.model_copy(update={"query": asked, "subject": OTHER, "value": held}))


def search(host: RecordedHost, consumer: str) -> None:
    """Ask every cell for a consumer, as the collector does."""
    first = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    for base, table in (("nova", "instances"), ("nova_cell0", "instances"), ("nova", "migrations")):
        query = f"SELECT id, uuid FROM {base}.{table} WHERE uuid IN ('{consumer}')"
        value = {"columns": ["id", "uuid"], "rows": []}
        host.add(first.model_copy(update={"query": query, "value": value}))


def forget(host: RecordedHost, table: str) -> None:
    host.drop(lambda answer: not (answer.layer == "nova-db" and f".{table}" in answer.query))


def reasons(host: RecordedHost, check: str) -> set[str]:
    return {skip.reason for skip in host.report().skips if skip.check.name == check}


def test_allocation_missing(host: RecordedHost) -> None:
    hold(host, host.uuid("vm-plain"), None)

    assert host.findings() == [
        "allocation-missing of vm-plain: instance reports host = vm, vm_state = active;"
        " placement reports no allocation"
    ]
    assert host.headlines() == [
        "vm-plain is active on host vm, but placement has no allocation for it",
    ]


@pytest.mark.parametrize(
    ("cells", "quiet"),
    [
        ({"vm_state": "building"}, True),
        ({"vm_state": "error", "launched_at": None}, True),
        ({"task_state": "deleting"}, True),
        ({"vm_state": "error"}, False),
        ({"vm_state": "resized"}, False),
    ],
)
def test_servers_that_may_have_no_allocation(
    host: RecordedHost, cells: dict[str, object], quiet: bool
) -> None:
    hold(host, host.uuid("vm-plain"), None)
    host.row("instances", host.uuid("vm-plain"), **cells)

    found = [f.check.name for f in host.report().findings]
    assert ("allocation-missing" in found) is not quiet


def test_an_offloaded_server_has_no_allocation(host: RecordedHost) -> None:
    shelved = host.guest("vm-shelved")

    assert shelved.allocation is None
    assert "placement" in shelved.census


def test_nothing_is_missing_if_not_every_provider_was_asked(host: RecordedHost) -> None:
    hold(host, host.uuid("vm-plain"), None)
    second_host(host, "other")
    host.drop(lambda answer: f"{OTHER}/allocations" not in answer.query)

    assert host.findings() == []
    assert reasons(host, "allocation-missing") == {
        "placement: the list of the provider's allocations was not collected"
    }


def test_allocation_wrong_provider(host: RecordedHost) -> None:
    hold(host, host.uuid("vm-plain"), None)
    second_host(host, "other", host.uuid("vm-plain"))

    assert host.findings() == [
        "allocation-wrong-provider of vm-plain: instance reports host = vm, node = vm;"
        " allocation reports resources = 1 VCPU, 64 MEMORY_MB, 1 DISK_GB of other"
    ]
    assert host.headlines() == [
        "vm-plain is on vm in nova, but placement has its allocation on other",
    ]


def test_allocation_wrong_provider_on_two_hosts(host: RecordedHost) -> None:
    second_host(host, "other", host.uuid("vm-plain"))

    [finding] = host.findings()
    assert finding.startswith("allocation-wrong-provider of vm-plain: ")
    assert "of vm; " in finding and finding.endswith("of other")
    [found] = host.report().findings
    assert found.headline == (
        "vm-plain is on vm in nova, but placement has its allocation on other and vm"
    )
    assert found.names == {"PROVIDER": OTHER}, "it runs where nova has it"


def test_shared_storage_is_a_provider_of_its_own(host: RecordedHost) -> None:
    hold(host, host.uuid("vm-plain"), {"VCPU": 1, "MEMORY_MB": 64})
    second_host(host, "storage", host.uuid("vm-plain"))
    query = f"GET /resource_providers/{OTHER}/allocations [1.39]"
    held = {"allocations": {host.uuid("vm-plain"): {"resources": {"DISK_GB": 1}}}}
    host.set("placement", query, held)

    assert host.findings() == []


def test_a_child_provider_belongs_to_the_host(host: RecordedHost) -> None:
    hold(host, host.uuid("vm-plain"), None)
    second_host(host, "vm_NUMA0", host.uuid("vm-plain"))
    query = "GET /resource_providers [1.39]"
    value = json.loads(json.dumps(host.last("placement", query).value))
    value["resource_providers"][-1] |= {"root_provider_uuid": node(host)}
    host.set("placement", query, value)

    assert host.findings() == []


EVACUATED = {
    "migration_type": "evacuation",
    "status": "done",
    "source_compute": "other",
    "source_node": "other",
}


def moved(host: RecordedHost, name: str, **cells: object) -> None:
    """Give a server a migration, copied from a server whose resize was confirmed long ago."""
    host.row("migrations", host.uuid("vm-resized"), instance_uuid=host.uuid(name), **cells)


def test_an_evacuated_server_holds_both_hosts(host: RecordedHost) -> None:
    second_host(host, "other", host.uuid("vm-plain"))
    moved(host, "vm-plain", **EVACUATED)

    found = [finding for finding in host.findings() if "vm-plain" in finding]
    assert found == []
    assert any("evacuated" in reason for reason in reasons(host, "allocation-wrong-provider"))


def test_an_evacuated_server_that_moved_again_still_holds_the_first_host(
    host: RecordedHost,
) -> None:
    """It was evacuated from `other` to `third` and moved from there to here. Only nova-compute on
    `other` removes the allocation there, when it starts."""
    second_host(host, "other", host.uuid("vm-plain"))
    moved(host, "vm-plain", **EVACUATED, dest_compute="third", dest_node="third")

    assert [finding for finding in host.findings() if "vm-plain" in finding] == []
    assert any("evacuated" in reason for reason in reasons(host, "allocation-wrong-provider"))


@pytest.mark.parametrize("cells", [{"source_node": "fourth"}, {"status": "completed"}])
def test_an_evacuation_only_explains_an_allocation_on_the_old_host(
    host: RecordedHost, cells: dict[str, str]
) -> None:
    second_host(host, "other", host.uuid("vm-plain"))
    moved(host, "vm-plain", **EVACUATED | cells)

    assert "allocation-wrong-provider of vm-plain" in "".join(host.findings())


@pytest.mark.parametrize(("version", "quiet"), [("16.1.8", True), ("17.0.1", False)])
def test_before_queens_a_resized_server_holds_both_hosts(
    host: RecordedHost, version: str, quiet: bool
) -> None:
    second_host(host, "other", host.uuid("vm-verify"))
    host.set("host", "nova-compute --version", version)
    service = next(
        s for s in host.report().cloud.instances.hosts.services if s.binary == "nova-compute"
    )
    host.row("services", service.uuid or "", version=22 if quiet else 30)

    found = [f.check.name for f in host.report().findings]
    assert ("allocation-wrong-provider" in found) is not quiet


def test_allocation_orphan(host: RecordedHost) -> None:
    hold(host, NOBODY, {"VCPU": 2, "MEMORY_MB": 512})
    search(host, NOBODY)

    assert host.findings() == [
        f"allocation-orphan: allocation reports resources = 2 VCPU, 512 MEMORY_MB of vm, consumer = {NOBODY};"
        " nova-db reports no instance"
    ]
    assert host.headlines() == [
        "Placement still has 2 VCPU, 512 MEMORY_MB of vm allocated to 1 consumer without a server or a move in progress: 99999999",
    ]


def test_allocation_orphan_of_a_deleted_server(host: RecordedHost) -> None:
    gone = "2026-11-23 01:00:00"
    host.row("instances", host.uuid("vm-shelved"), deleted=11, deleted_at=gone, vm_state="deleted")
    hold(host, host.uuid("vm-shelved"), {"VCPU": 1})

    assert (
        f"allocation-orphan: allocation reports resources = 1 VCPU of vm, consumer = {host.uuid('vm-shelved')};"
        f" instance reports deleted_at = {gone}"
    ) in host.findings()
    assert (
        "Placement still has 1 VCPU of vm allocated to 1 consumer without a server or a move in progress:"
        f" vm-shelved ({host.uuid('vm-shelved')[:8]})"
    ) in host.headlines()


def test_allocation_orphan_of_a_finished_move(host: RecordedHost) -> None:
    [resized] = (host.guest("vm-resized").instance or pytest.fail()).migrations or ()
    assert resized.status == "confirmed" and resized.uuid
    host.row("migrations", resized.uuid, updated_at="2026-11-23 01:00:00")
    [listed] = {
        answer.query
        for answer in host.bundle.by_layer["nova"]
        if "/os-migrations" in answer.query and answer.error is None
    }
    moves = host.last("nova", listed).value["migrations"]
    moved = {"updated_at": "2026-11-23T01:00:00.000000"}
    changed = [move | moved if move["uuid"] == resized.uuid else move for move in moves]
    host.set("nova", listed, {"migrations": changed})
    hold(host, resized.uuid, {"VCPU": 1})

    [finding] = host.findings()
    assert finding.startswith("allocation-orphan: allocation reports resources = 1 VCPU of vm")
    assert "migration reports status = confirmed" in finding
    [headline] = host.headlines()
    assert headline.endswith(f"in progress: the finished move of vm-resized ({resized.uuid[:8]})")
    [orphan] = host.report().findings
    looks = [command.text for step in instructions(orphan) for command in step.commands]
    assert f"openstack server migration list --server {host.uuid('vm-resized')}" in looks
    assert f"openstack server show {resized.uuid}" not in looks


def test_an_allocation_may_outlive_its_server_for_a_moment(host: RecordedHost) -> None:
    [resized] = (host.guest("vm-resized").instance or pytest.fail()).migrations or ()
    asked = host.last("placement", list_of(host, node(host), "allocations")).at
    host.row("migrations", resized.uuid or "", updated_at=f"{asked:%Y-%m-%d %H:%M:%S}")
    hold(host, resized.uuid or "", {"VCPU": 1})

    assert host.findings() == []


def test_an_unconfirmed_move_holds_its_source(host: RecordedHost) -> None:
    [moving] = (host.guest("vm-verify").instance or pytest.fail()).migrations or ()

    assert moving.status == "finished"
    assert host.report().cloud.placement.of(moving.uuid or "") is not None
    assert host.findings() == []


def test_an_unconfirmed_move_holds_its_source_whatever_its_record_says(host: RecordedHost) -> None:
    [moving] = (host.guest("vm-verify").instance or pytest.fail()).migrations or ()
    host.row("migrations", moving.uuid or "", status="error", updated_at="2026-11-23 01:00:00")

    found = [finding.check.name for finding in host.report().findings]
    assert "migration-record-stale" in found
    assert "allocation-orphan" not in found


def test_a_consumer_that_was_not_searched_for_is_no_orphan(host: RecordedHost) -> None:
    hold(host, NOBODY, {"VCPU": 2})

    assert host.findings() == []
    assert reasons(host, "allocation-orphan")


@pytest.mark.parametrize("table", ["migrations WHERE uuid", "instances WHERE uuid"])
def test_a_consumer_that_was_not_searched_for_in_every_cell_is_no_orphan(
    host: RecordedHost, table: str
) -> None:
    hold(host, NOBODY, {"VCPU": 2})
    search(host, NOBODY)
    host.drop(lambda answer: f"{table} IN ('{NOBODY}" not in answer.query)

    assert host.findings() == []
    assert reasons(host, "allocation-orphan")


def test_a_server_that_is_being_built_is_no_orphan(host: RecordedHost) -> None:
    hold(host, NOBODY, {"VCPU": 2})
    search(host, NOBODY)
    first = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    query = "SELECT id, instance_uuid FROM nova_api.build_requests"
    value = {"columns": ["id", "instance_uuid"], "rows": [[1, NOBODY]]}
    host.add(first.model_copy(update={"query": query, "value": value}))

    assert host.findings() == []


def test_a_guest_without_a_server_still_uses_its_allocation(host: RecordedHost) -> None:
    gone = "2026-11-23 01:00:00"
    host.row("instances", host.uuid("vm-plain"), deleted=1, deleted_at=gone, vm_state="deleted")

    found = {finding.check.name for finding in host.report().findings}
    assert "domain-of-deleted-server" in found
    assert "allocation-orphan" not in found


def test_an_allocation_of_another_service_is_no_orphan(host: RecordedHost) -> None:
    hold(host, NOBODY, {"VCPU": 2})
    search(host, NOBODY)
    held = {"allocations": {node(host): {"resources": {"VCPU": 2}}}, "consumer_type": "ZUN"}
    first = host.last("placement", list_of(host, node(host), "allocations"))
    query = f"GET /allocations/{NOBODY} [1.39]"
    host.add(first.model_copy(update={"query": query, "subject": NOBODY, "value": held}))

    assert host.findings() == []


def test_many_orphans_are_one_finding(host: RecordedHost) -> None:
    for number in range(15):
        consumer = f"{number:08}-0000-4000-8000-000000000000"
        hold(host, consumer, {"VCPU": 1})
        search(host, consumer)

    [finding] = host.report().findings
    assert len(finding.evidence) == 20
    assert dict(finding.evidence[0].said)["of_so_many"] == 15
    assert finding.headline == (
        "Placement still has resources of vm allocated to 15 consumers without a server or a move in progress:"
        " 00000000, 00000001, 00000002 and 12 more"
    )


def test_allocation_amount_wrong(host: RecordedHost) -> None:
    hold(host, host.uuid("vm-plain"), {"VCPU": 1, "MEMORY_MB": 4096, "DISK_GB": 1})

    assert host.findings() == [
        "allocation-amount-wrong of vm-plain: instance reports flavor = lab.tiny,"
        " needs = 1 VCPU, 64 MEMORY_MB, 1 DISK_GB;"
        " allocation reports resources = 1 VCPU, 4096 MEMORY_MB, 1 DISK_GB of vm"
    ]
    assert host.headlines() == [
        "vm-plain has 4096 MEMORY_MB allocated in placement, but its flavor lab.tiny needs 64 MEMORY_MB",
    ]


def flavor(host: RecordedHost, name: str, old: str, new: str) -> None:
    """Edit the flavor stored in a server's record."""
    uuid, edited = host.uuid(name), 0

    def change(answer: Answer) -> Answer:
        nonlocal edited
        if not answer.query.startswith("SELECT ") or ".instance_extra" not in answer.query:
            return answer
        columns = answer.value["columns"]
        rows = [[*row] for row in answer.value["rows"]]
        for row in rows:
            if row[columns.index("instance_uuid")] == uuid:
                at = columns.index("flavor")
                assert row[at].count(old) == 1
                row[at] = row[at].replace(old, new)
                edited += 1
        return answer.model_copy(update={"value": {"columns": columns, "rows": rows}})

    host.bundle = host.bundle.with_answers(map(change, host.bundle.answers))
    assert edited


@pytest.mark.parametrize(
    ("specs", "resources"),
    [
        ({"hw:cpu_policy": "dedicated"}, {"PCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1}),
        ({"hw:cpu_policy": "dedicated"}, {"VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1}),
        (
            {"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"},
            {"PCPU": 2, "MEMORY_MB": 64, "DISK_GB": 1},
        ),
        ({"resources:VCPU": "7"}, {"VCPU": 7, "MEMORY_MB": 64, "DISK_GB": 1}),
        ({"resources2:DISK_GB": "0"}, {"VCPU": 1, "MEMORY_MB": 64}),
        ({}, {"VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1, "VGPU": 1}),
    ],
)
def test_amounts_that_match_the_flavor(
    host: RecordedHost, specs: dict[str, str], resources: dict[str, int]
) -> None:
    flavor(host, "vm-plain", '"extra_specs": {}', f'"extra_specs": {json.dumps(specs)}')
    hold(host, host.uuid("vm-plain"), resources)

    assert host.findings() == []


@pytest.mark.parametrize("disk", [{}, {"DISK_GB": 1}])
def test_a_server_on_a_volume_needs_no_root_disk(host: RecordedHost, disk: dict[str, int]) -> None:
    flavor(host, "vm-bfv", '"root_gb": 0', '"root_gb": 1')
    hold(host, host.uuid("vm-bfv"), {"VCPU": 1, "MEMORY_MB": 64, **disk})

    assert [f for f in host.findings() if f.startswith("allocation")] == []


def test_an_allocation_on_shared_storage_may_not_be_collected(host: RecordedHost) -> None:
    query = list_of(host, node(host), "allocations")
    value = json.loads(json.dumps(host.last("placement", query).value))
    uuid = host.uuid("vm-plain")
    del value["allocations"][uuid]["resources"]["DISK_GB"]
    host.set("placement", query, value)
    host.drop(lambda answer: answer.query != "GET /resource_providers [1.39]")

    assert not [line for line in host.findings() if line.startswith("allocation-amount")]


def test_swap_is_counted_in_whole_gigabytes(host: RecordedHost) -> None:
    """vm-config has 1 GiB root, 1 GiB ephemeral and 64 MiB swap."""
    allocation = host.guest("vm-config").allocation

    assert allocation is not None
    assert allocation.resources["DISK_GB"] == 3


def test_a_resized_server_may_hold_another_flavors_amounts(host: RecordedHost) -> None:
    hold(host, host.uuid("vm-plain"), {"VCPU": 9, "MEMORY_MB": 64, "DISK_GB": 1})
    host.row("instances", host.uuid("vm-plain"), task_state="resize_prep")

    assert host.findings() == []


@pytest.mark.parametrize("value", [None, [], {}, {"allocations": []}, {"allocations": {"x": 1}}])
def test_an_unreadable_list_is_no_finding(host: RecordedHost, value: object) -> None:
    host.set("placement", list_of(host, node(host), "allocations"), value)

    found = {finding.check.name for finding in host.report().findings}
    assert found <= {"allocation-missing"}
    if value != {"allocations": {"x": 1}}:
        assert found == set()
