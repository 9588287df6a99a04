"""Instances and domains that changed while they were captured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.cloud.movement import gone, moved

UUID = "fa1ddbab-417f-4890-abc1-4cdf2bbfa787"
MARKERS = ["uuid", "host", "node", "vm_state", "task_state", "power_state", "updated_at", "deleted"]
ROWS = f"SELECT {', '.join(MARKERS)} FROM nova.instances WHERE host = 'vm'"
MOVES = "SELECT uuid, status, updated_at, id, instance_uuid FROM nova.migrations WHERE deleted = 0"


def answer(layer: str, query: str, value: Any, subject: str | None = None) -> Answer:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    told = {"error": value} if isinstance(value, Failure) else {"value": value}
    return Answer(layer=layer, host="vm", query=query, subject=subject, at=at, took=0.1, **told)


def row(vm_state: str, *more: list[object]) -> Answer:
    rows = [[UUID, "vm", "vm", vm_state, None, 1, "2026-11-23 00:00:00", 0], *more]
    return answer("nova-db", ROWS, {"columns": MARKERS, "rows": rows})


def state(number: int) -> Answer:
    query = "virsh domstate --reason instance-00000001"
    return answer("libvirt", query, {"state": number, "reason": 1}, UUID)


def server(status: str) -> Answer:
    value = {"servers": [{"id": UUID, "status": status, "updated": "2026-11-23T00:00:00Z"}]}
    return answer("nova", "GET /v2.1/servers/detail?all_tenants=True [2.93]", value)


def test_equal_snapshots_show_no_movement() -> None:
    assert (
        moved(
            [row("active"), state(1), server("ACTIVE"), row("active"), state(1), server("ACTIVE")]
        )
        == {}
    )


def test_a_single_snapshot_shows_no_movement() -> None:
    assert moved([row("active"), state(1), server("ACTIVE")]) == {}


def test_a_changed_row_has_moved() -> None:
    assert moved([row("active"), row("stopped")]) == {UUID: "vm_state active → stopped"}


def test_a_domain_in_another_state_has_moved() -> None:
    assert list(moved([state(1), state(5)])) == [UUID]


def test_a_changed_server_has_moved() -> None:
    assert moved([server("ACTIVE"), server("SHUTOFF")]) == {UUID: "status ACTIVE → SHUTOFF"}


def test_only_the_last_two_snapshots_are_compared() -> None:
    assert moved([row("active"), row("stopped"), row("stopped")]) == {}


def test_a_server_that_appeared_or_went_away_has_moved() -> None:
    other = "00000000-417f-4890-abc1-4cdf2bbfa787"
    new = [other, "vm", "vm", "building", "spawning", 0, "2026-11-23 00:00:00", 0]

    assert moved([row("active"), row("active", new)]) == {other: "it appeared"}
    assert moved([row("active", new), row("active")]) == {other: "it disappeared"}


def test_a_domain_that_was_undefined_went_away() -> None:
    gone = answer(
        "libvirt",
        "virsh domstate --reason instance-00000001",
        Failure(kind="absent", message="no domain"),
        UUID,
    )

    assert moved([state(1), gone]) == {UUID: "it disappeared"}


def test_a_failed_snapshot_is_ignored() -> None:
    dead = answer(
        "libvirt",
        "virsh domstate --reason instance-00000001",
        Failure(kind="timeout", message="no answer"),
        UUID,
    )

    assert moved([state(1), dead]) == {}


@pytest.mark.parametrize("damaged", [{}, "", 7, [{}], [{"uuid": {}, "id": 1}]])
def test_an_unreadable_snapshot_is_ignored(damaged: object) -> None:
    listed = [{"uuid": UUID, "name": "instance-00000001", "id": 1}]
    domains = [answer("libvirt", "virsh list --all", value) for value in (listed, damaged)]
    servers = [server("ACTIVE"), server("ACTIVE").model_copy(update={"value": damaged})]
    rows = [row("active"), row("active").model_copy(update={"value": damaged})]
    lists = {"columns": ["uuid", "host"], "rows": [damaged]}
    halves = [row("active"), row("active").model_copy(update={"value": lists})]

    for looks in (domains, servers, rows, halves):
        assert moved(looks) == {}
        assert gone(looks) == {}


def test_a_restarted_domain_has_moved() -> None:
    def listed(number: int | None) -> Answer:
        return answer(
            "libvirt",
            "virsh list --all",
            [{"uuid": UUID, "name": "instance-00000001", "id": number}],
        )

    assert moved([listed(1), listed(2)]) == {UUID: "id 1 → 2"}


def test_a_migration_that_continues_moves_its_server() -> None:
    def moves(status: str) -> Answer:
        rows = [["m", "done", "x", 1, UUID], ["n", status, "x", 2, UUID]]
        columns = ["uuid", "status", "updated_at", "id", "instance_uuid"]
        return answer("nova-db", MOVES, {"columns": columns, "rows": rows})

    assert moved([moves("running"), moves("running")]) == {}
    assert moved([moves("running"), moves("completed")]) == {
        UUID: "migration 2 status running → completed"
    }


def plugged(*rows: list[object]) -> Answer:
    columns = ["updated_at", "id", "instance_uuid", "volume_id", "attachment_id", "deleted"]
    query = f"SELECT {', '.join(columns)} FROM nova.block_device_mapping WHERE deleted = 0"
    return answer("nova-db", query, {"columns": columns, "rows": list(rows)})


def test_an_attached_or_detached_volume_moves_its_server() -> None:
    disk: list[object] = ["2026-11-23 00:00:00", 1, UUID, None, None, 0]
    volume: list[object] = ["2026-11-23 00:00:00", 2, UUID, "v", "a", 0]

    assert moved([plugged(disk, volume), plugged(disk, volume)]) == {}
    assert moved([plugged(disk, volume), plugged(disk)]) == {UUID: "block devices 1 2 → 1"}
    assert moved([plugged(disk), plugged(disk, volume)]) == {UUID: "block devices 1 → 1 2"}


def nobody(layer: str) -> Answer:
    if layer == "nova-db":
        return answer("nova-db", ROWS, {"columns": MARKERS, "rows": []})
    return answer("nova", "GET /v2.1/servers/detail?all_tenants=True [2.93]", {"servers": []})


def test_a_server_with_a_purged_row_is_gone_even_if_the_last_snapshots_are_equal() -> None:
    looks = [row("active"), nobody("nova-db"), nobody("nova-db")]

    assert moved(looks) == {}
    assert gone(looks) == {UUID: "it disappeared"}


def test_a_server_that_moved_to_another_host_is_not_gone() -> None:
    by_id = ROWS.replace("host = 'vm'", f"uuid IN ('{UUID}')")
    there = [UUID, "compute-9", "compute-9", "active", None, 1, "2026-11-23 00:00:01", 0]
    again = answer("nova-db", by_id, {"columns": MARKERS, "rows": [there]})

    assert gone([row("active"), nobody("nova-db"), again, nobody("nova-db")]) == {}


def test_a_server_that_the_api_no_longer_lists_is_gone_unless_its_row_exists() -> None:
    lists = [server("ACTIVE"), nobody("nova"), nobody("nova")]

    assert gone(lists) == {UUID: "it disappeared"}
    assert gone([row("deleted"), *lists, row("deleted")]) == {}


def test_a_server_that_stayed_or_appeared_is_not_gone() -> None:
    assert gone([row("active"), server("ACTIVE"), row("stopped"), server("SHUTOFF")]) == {}
    assert gone([nobody("nova"), nobody("nova-db"), server("ACTIVE"), row("active")]) == {}
