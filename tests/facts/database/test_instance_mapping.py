"""Rows of `instance_mappings`, and the databases of their cells."""

from __future__ import annotations

from typing import Any

import pytest
from tests.facts.database.test_instance import UUID, rows

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.fact import UnheardError

OTHER = "0a9d8b7c-1111-4222-8333-444455556666"
ELSEWHERE = " /* at 10.0.0.5:3306 */"


def cells(*found: list[Any]) -> Answer:
    columns = ["id", "uuid", "name", "disabled", "database_host", "database_name"]
    query = "SELECT id, uuid, name, disabled, database_connection FROM nova_api.cell_mappings"
    return rows(query, columns, *found)


def mappings(*found: list[Any], about: str = UUID) -> Answer:
    columns = ["id", "instance_uuid", "cell_id", "queued_for_delete", "created_at"]
    query = f"SELECT {', '.join(columns)} FROM nova_api.instance_mappings"
    return rows(f"{query} WHERE instance_uuid IN ('{about}')", columns, *found)


def instances(database: str, *found: list[Any], note: str = "") -> Answer:
    columns = ["id", "uuid", "host", "deleted"]
    query = f"SELECT {', '.join(columns)} FROM {database}.instances"
    return rows(query + note, columns, *found)


ONE = [1, "c1", "cell1", 0, "10.0.0.4:3306", "nova"]
TWO = [2, "c2", "cell2", 0, "10.0.0.5:3306", "nova"]


def test_a_mapping_leads_to_the_database_of_a_cell() -> None:
    found = Instances(
        [cells(ONE), instances("nova"), mappings([7, UUID, 1, 0, "2026-11-25 01:02:03"])]
    ).mapping(UUID)

    assert (found.there, found.cell_id, found.cell) == (True, 1, "nova")
    assert (found.queued_for_delete, found.created_at) == (False, "2026-11-25 01:02:03")


def test_a_mapping_that_was_queried_and_not_found_does_not_exist() -> None:
    assert not Instances([mappings()]).mapping(UUID).there


@pytest.mark.parametrize("field", ["there", "cell_id", "cell", "build_requests"])
def test_a_mapping_that_was_not_queried_is_unheard(field: str) -> None:
    with pytest.raises(UnheardError):
        getattr(Instances([cells(ONE), mappings(about=OTHER)]).mapping(UUID), field)


def test_a_cell_that_was_not_collected_is_unheard() -> None:
    found = Instances([cells(ONE), mappings([7, UUID, 1, 0, None])]).mapping(UUID)

    with pytest.raises(UnheardError, match="cell1 was not collected"):
        found.cell  # noqa: B018


def test_cells_with_databases_of_the_same_name_are_kept_apart() -> None:
    heard = Instances(
        [
            cells(ONE, TWO),
            instances("nova", [1, UUID, "one", 0]),
            instances("nova", [5, UUID, "two", 0], [6, OTHER, "two", 0], note=ELSEWHERE),
            mappings([7, UUID, 2, 0, None]),
        ]
    )

    assert {(copy.cell, copy.host) for copy in heard.copies[UUID]} == {
        ("nova", "one"),
        ("nova at 10.0.0.5:3306", "two"),
    }
    assert heard.mapping(UUID).cell == "nova at 10.0.0.5:3306"
    assert heard.searched(OTHER) is None


def test_a_missing_cell_is_noticed_despite_the_same_name() -> None:
    heard = Instances([cells(ONE, TWO), instances("nova", [1, UUID, "one", 0])])

    assert heard.searched(OTHER) == "cell nova was not collected"


def test_a_row_with_a_host_counts_before_one_without() -> None:
    found = [instances("nova", [1, UUID, "one", 0]), instances("nova_cell0", [5, UUID, None, 0])]

    for answers in (found, found[::-1]):
        assert Instances(answers).by_uuid[UUID].host == "one"
