"""Rows of `instances`, and the rows of other tables that belong to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.fact import UnheardError

UUID = "fa1ddbab-417f-4890-abc1-4cdf2bbfa787"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def rows(query: str, columns: list[str], *found: list[object]) -> Answer:
    value = {"columns": columns, "rows": list(found)}
    return Answer(layer="nova-db", host="vm", query=query, at=NOON, took=0.1, value=value)


def one(**cells: object) -> Instance:
    named = {"id": 1, "uuid": UUID, "deleted": 0, **cells}
    answer = rows(
        "SELECT id, uuid FROM nova.instances WHERE host = 'vm'", [*named], [*named.values()]
    )
    return Instances([answer]).by_uuid[UUID]


def test_a_row_is_read() -> None:
    instance = one(
        vm_state="active", task_state=None, memory_mb=64, vcpus=1, host="vm", image_ref=""
    )

    assert (instance.vm_state, instance.task_state, instance.host) == ("active", None, "vm")
    assert (instance.memory_mib, instance.vcpus, instance.image) == (64, 1, None)
    assert not instance.deleted


def test_a_column_that_a_release_does_not_have_is_unheard() -> None:
    with pytest.raises(UnheardError, match="task_state was not collected"):
        _ = one().task_state


@pytest.mark.parametrize(("deleted", "is_deleted"), [(0, False), (1, True), (749387, True)])
def test_a_deleted_row_holds_its_own_id(deleted: int, is_deleted: bool) -> None:
    assert one(deleted=deleted).deleted is is_deleted


def test_an_archived_row_is_deleted() -> None:
    columns = ["id", "uuid", "vm_state"]
    query = f"SELECT id, uuid, vm_state FROM nova.shadow_instances WHERE uuid IN ('{UUID}')"

    instance = Instances([rows(query, columns, [1, UUID, "deleted"])]).by_uuid[UUID]

    assert instance.archived
    assert instance.deleted


def test_the_stored_flavor_is_read_from_its_json() -> None:
    flavor = {
        "cur": {
            "nova_object.data": {
                "name": "m1",
                "memory_mb": 512,
                "vcpus": 1,
                "root_gb": 5,
                "ephemeral_gb": 0,
                "swap": 0,
            }
        },
        "old": None,
        "new": None,
    }
    extra = rows(
        "SELECT instance_uuid, flavor FROM nova.instance_extra WHERE instance_uuid IN ('x')",
        ["instance_uuid", "flavor"],
        [UUID, json.dumps(flavor)],
    )
    row = rows("SELECT id FROM nova.instances", ["id", "uuid"], [1, UUID])

    instance = Instances([row, extra]).by_uuid[UUID]

    assert instance.flavor.name == "m1"
    assert (instance.flavor_memory_mib, instance.flavor_vcpus) == (512, 1)
    assert instance.flavor_root_gb == 5
    assert instance.where("flavor_memory_mib") == (
        extra,
        f"nova.instance_extra[uuid={UUID}].flavor.cur.memory_mb",
    )


@pytest.mark.parametrize("flavor", [None, "", "{}", "[]", "[" * 5000, '{"cur": null}', 7])
def test_an_unreadable_stored_flavor_is_unheard(flavor: object) -> None:
    extra = rows(
        "SELECT flavor FROM nova.instance_extra", ["instance_uuid", "flavor"], [UUID, flavor]
    )
    row = rows("SELECT id FROM nova.instances", ["id", "uuid"], [1, UUID])

    with pytest.raises(UnheardError):
        _ = Instances([row, extra]).by_uuid[UUID].flavor


@pytest.mark.parametrize(
    ("devices", "from_volume"),
    [
        ([["image", "local", 0, 0]], False),
        ([["volume", "volume", 0, 0]], True),
        ([["volume", "volume", None, 0], ["image", "local", 0, 0]], False),
        ([["image", "local", 0, 5], ["volume", "volume", 0, 0]], True),
    ],
)
def test_the_block_device_mappings_show_the_boot_disk(
    devices: list[list[Any]], from_volume: bool
) -> None:
    columns = ["id", "instance_uuid", "source_type", "destination_type", "boot_index", "deleted"]
    found = [[number, UUID, *device] for number, device in enumerate(devices)]
    bdm = rows(
        "SELECT id FROM nova.block_device_mapping WHERE instance_uuid IN ('x')", columns, *found
    )
    row = rows("SELECT id FROM nova.instances", ["id", "uuid", "image_ref"], [1, UUID, "i"])

    assert Instances([row, bdm]).by_uuid[UUID].boots_from_volume is from_volume


def test_the_boot_disk_is_unheard_without_block_device_mappings() -> None:
    with pytest.raises(UnheardError):
        _ = one(image_ref="").boots_from_volume


def test_the_last_action_names_the_request_and_its_user() -> None:
    named = {"id": 1, "uuid": UUID, "deleted": 0}
    instances = rows(
        "SELECT id, uuid FROM nova.instances WHERE host = 'vm'", [*named], [*named.values()]
    )
    columns = ["id", "action", "instance_uuid", "request_id", "user_id", "start_time", "message"]
    actions = rows(
        f"SELECT id FROM nova.instance_actions WHERE instance_uuid IN ('{UUID}')",
        columns,
        [9, "stop", UUID, "req-9", "u1", "2026-11-23 11:00:00", "Error"],
        [8, "create", UUID, "req-8", "u2", "2026-11-23 10:00:00", None],
    )

    instance = Instances([instances, actions]).by_uuid[UUID]

    assert (instance.action, instance.action_at) == ("stop", "2026-11-23 11:00:00")
    assert (instance.request, instance.action_by) == ("req-9", "u1")
    assert instance.action_failed
    assert instance.where("request")[0] is actions
    with pytest.raises(UnheardError, match="instance_actions were not collected"):
        _ = Instances([instances]).by_uuid[UUID].action
