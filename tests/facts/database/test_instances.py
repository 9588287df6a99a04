"""What the nova databases say together."""

from __future__ import annotations

import pytest
from tests.facts.database.test_instance import NOON, UUID, rows

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.database.instances import Instances


def failed(query: str, kind: str = "unreachable") -> Answer:
    error = Failure(kind=kind, message="it went away")
    return Answer(layer="nova-db", host="vm", query=query, at=NOON, took=0.1, error=error)


def test_of_a_deleted_and_a_live_row_the_live_one_speaks() -> None:
    columns = ["id", "uuid", "deleted", "vm_state"]
    cells = [
        rows(
            "SELECT id FROM nova_cell0.instances WHERE host = 'vm'", columns, [9, UUID, 9, "error"]
        ),
        rows("SELECT id FROM nova.instances WHERE host = 'vm'", columns, [1, UUID, 0, "active"]),
    ]

    for order in (cells, cells[::-1]):
        assert Instances(order).by_uuid[UUID].vm_state == "active"


def test_a_second_look_brings_the_row_up_to_date() -> None:
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


def test_a_uuid_is_absent_if_every_cell_was_asked_for_it() -> None:
    assert Instances([CELLS, *NOBODY]).searched(UUID) is None


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "it was not asked"),
        ([failed("SELECT VERSION()", "denied")], "it went away"),
        ([CELLS, NOBODY[0]], "the cell nova_cell0 was not read"),
        (
            [CELLS, *NOBODY[:1], failed("SELECT id FROM nova_cell0.instances WHERE host = 'vm'")],
            "it went away",
        ),
        (
            [rows("SELECT id FROM nova.instances WHERE host = 'vm'", ["id", "uuid"])],
            "nova.instances was not asked for this UUID",
        ),
    ],
)
def test_else_it_can_not_be_said(answers: list[Answer], reason: str) -> None:
    assert Instances(answers).searched(UUID) == reason


def test_a_table_that_a_release_does_not_have_is_no_failure() -> None:
    absent = failed("SELECT id FROM nova.share_mapping WHERE instance_uuid IN ('x')", "absent")

    assert Instances([absent]).tables.failures == []


@pytest.mark.parametrize(
    ("query", "heard"),
    [
        ("SELECT id FROM cell1.migrations WHERE deleted = 0 AND (status NOT IN ('error'))", True),
        (f"SELECT id FROM cell1.migrations WHERE instance_uuid IN ('{UUID}')", True),
        ("SELECT id FROM cell1.migrations WHERE instance_uuid IN ('another')", False),
        # By their own UUIDs: of the consumers of placement, servers among them.
        (f"SELECT id FROM cell1.migrations WHERE uuid IN ('{UUID}')", False),
        ("SELECT id FROM cell2.migrations WHERE deleted = 0 AND (status NOT IN ('error'))", False),
    ],
)
def test_only_its_own_cell_tells_whether_it_is_moved(query: str, heard: bool) -> None:
    own = rows("SELECT id, uuid FROM cell1.instances", ["id", "uuid"], [1, UUID])
    moves = rows(query, ["id", "uuid", "instance_uuid", "status"])

    instance = Instances([own, moves]).by_uuid[UUID]
    assert instance.migrations == (() if heard else None)
