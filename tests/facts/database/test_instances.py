"""Instances of all nova databases together, and when one does not exist."""

from __future__ import annotations

import pytest
from tests.facts.database.test_instance import NOON, UUID, rows

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.database.instances import Instances


def failed(query: str, kind: str = "unreachable") -> Answer:
    error = Failure(kind=kind, message="it went away")
    return Answer(layer="nova-db", host="vm", query=query, at=NOON, took=0.1, error=error)


def test_a_live_row_counts_before_a_deleted_one() -> None:
    columns = ["id", "uuid", "deleted", "vm_state"]
    cells = [
        rows(
            "SELECT id FROM nova_cell0.instances WHERE host = 'vm'", columns, [9, UUID, 9, "error"]
        ),
        rows("SELECT id FROM nova.instances WHERE host = 'vm'", columns, [1, UUID, 0, "active"]),
    ]

    for order in (cells, cells[::-1]):
        assert Instances(order).by_uuid[UUID].vm_state == "active"


def test_a_second_look_updates_the_row() -> None:
    full = rows(
        "SELECT id FROM nova.instances", ["id", "uuid", "vm_state", "vcpus"], [1, UUID, "active", 2]
    )
    marker = rows(
        "SELECT uuid, vm_state FROM nova.instances", ["uuid", "vm_state"], [UUID, "stopped"]
    )

    instance = Instances([full, marker]).by_uuid[UUID]

    assert (instance.vm_state, instance.vcpus) == ("stopped", 2)


CELLS = rows(
    "SELECT id, uuid, name, disabled, database_connection FROM nova_api.cell_mappings",
    ["id", "uuid", "name", "disabled", "database_host", "database_name"],
    [1, "0", "cell0", 0, "", "nova_cell0"],
    [2, "1", "cell1", 0, "", "nova"],
)
NOBODY = [
    rows(f"SELECT id FROM {cell}.instances WHERE uuid IN ('{UUID}')", ["id", "uuid"])
    for cell in ("nova", "nova_cell0")
]


def test_a_uuid_does_not_exist_if_every_cell_was_searched() -> None:
    assert Instances([CELLS, *NOBODY]).searched(UUID) is None


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "the instances table was not collected"),
        ([failed("SELECT VERSION()", "denied")], "it went away"),
        ([CELLS, NOBODY[0]], "cell nova_cell0 was not collected"),
        (
            [CELLS, *NOBODY[:1], failed("SELECT id FROM nova_cell0.instances WHERE host = 'vm'")],
            "it went away",
        ),
        (
            [rows("SELECT id FROM nova.instances WHERE host = 'vm'", ["id", "uuid"])],
            "nova.instances was not searched for this UUID",
        ),
    ],
)
def test_a_uuid_may_exist_otherwise(answers: list[Answer], reason: str) -> None:
    assert Instances(answers).searched(UUID) == reason


def test_a_table_that_a_release_lacks_is_not_a_failure() -> None:
    absent = failed("SELECT id FROM nova.share_mapping WHERE instance_uuid IN ('x')", "absent")

    assert Instances([absent]).tables.failures == []


@pytest.mark.parametrize(
    ("query", "heard"),
    [
        ("SELECT id FROM cell1.migrations WHERE deleted = 0 AND (status NOT IN ('error'))", True),
        (f"SELECT id FROM cell1.migrations WHERE instance_uuid IN ('{UUID}')", True),
        ("SELECT id FROM cell1.migrations WHERE instance_uuid IN ('another')", False),
        # This selects migrations by their own UUID, for the consumers in placement.
        (f"SELECT id FROM cell1.migrations WHERE uuid IN ('{UUID}')", False),
        ("SELECT id FROM cell2.migrations WHERE deleted = 0 AND (status NOT IN ('error'))", False),
    ],
)
def test_migrations_count_only_from_the_instances_own_cell(query: str, heard: bool) -> None:
    own = rows("SELECT id, uuid FROM cell1.instances", ["id", "uuid"], [1, UUID])
    moves = rows(query, ["id", "uuid", "instance_uuid", "status"])

    instance = Instances([own, moves]).by_uuid[UUID]
    assert instance.migrations == (() if heard else None)
