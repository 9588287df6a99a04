"""Volumes and attachments as cinder returns them, and their rows in nova's database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.api.volume import Volumes
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.fact import UnheardError

SERVER = "10000000-0000-4000-8000-000000000000"
VOLUME = "aaaaaaaa-0000-4000-8000-000000000000"
ATTACHMENT = "cccccccc-0000-4000-8000-000000000000"

GONE = Failure(kind="absent", message="HTTP 404")
ADMIN: tuple[str, Any] = ("os-services", {"services": []})


def volumes(*told: tuple[str, Any]) -> Volumes:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    answers = []
    for path, value in told:
        said = {"error": value} if isinstance(value, Failure) else {"value": value}
        query = f"GET /v3/{path} [3.70]"
        answers.append(Answer(layer="cinder", host="vm", query=query, at=at, took=0.1, **said))
    return Volumes(answers)


def entry(host: str | None = "vm") -> dict[str, Any]:
    shown = {"attachment_id": ATTACHMENT, "server_id": SERVER, "volume_id": VOLUME}
    return shown | {"host_name": host}


def volume(**more: Any) -> dict[str, Any]:
    return {"id": VOLUME, "status": "in-use", "attachments": [entry()], **more}


def attachment(**more: Any) -> dict[str, Any]:
    return {
        "id": ATTACHMENT,
        "status": "attached",
        "instance": SERVER,
        "volume_id": VOLUME,
        **more,
    }


def test_an_attachment_combines_its_own_answer_and_its_volumes() -> None:
    found = volumes(
        ("volumes/detail?all_tenants=True", {"volumes": [volume()]}),
        ("attachments/detail?all_tenants=True", {"attachments": [attachment()]}),
    )

    [one] = found.by_server[SERVER]
    assert (one.id, one.status, one.host, one.volume_id) == (ATTACHMENT, "attached", "vm", VOLUME)
    assert found.by_volume[VOLUME] == (one,)


def test_an_attachment_is_read_from_its_volume_alone() -> None:
    [one] = volumes((f"volumes/{VOLUME}", {"volume": volume()})).by_server[SERVER]

    assert (one.status, one.host) == ("attached", "vm")


def test_a_404_proves_absence_only_for_users_who_see_all_projects() -> None:
    path = f"volumes/{VOLUME}"

    assert volumes((path, GONE), ADMIN).volume(VOLUME) is None
    with pytest.raises(UnheardError, match="some projects"):
        volumes((path, GONE)).volume(VOLUME)
    with pytest.raises(UnheardError, match="this volume was not collected"):
        volumes(("volumes/detail", {"volumes": []}), ADMIN).volume(VOLUME)
    with pytest.raises(UnheardError, match="cinder: HTTP 503"):
        volumes((path, Failure(kind="unreachable", message="HTTP 503"))).volume(VOLUME)


def test_a_later_answer_replaces_an_earlier_one() -> None:
    listed = ("volumes/detail?all_tenants=True", {"volumes": [volume()]})
    of_server = f"attachments/detail?all_tenants=True&instance_id={SERVER}"

    assert volumes(listed, (f"volumes/{VOLUME}", GONE), ADMIN).volume(VOLUME) is None
    again = volumes((of_server, {"attachments": [attachment()]}), (of_server, {"attachments": []}))
    assert again.by_server == {}


@pytest.mark.parametrize("body", [None, [], {"volumes": 1}, {"volumes": [1]}, {"volumes": [{}]}])
def test_an_unreadable_list_of_volumes_is_unheard(body: Any) -> None:
    found = volumes(("volumes/detail?all_tenants=True", body))

    assert found.by_id == {}
    assert found.obstacle is not None


def row(**cells: Any) -> BlockDeviceMapping:
    return BlockDeviceMapping(raw={"id": 1, "volume_id": VOLUME.upper(), **cells}, database="nova")


def test_a_row_contains_the_connection_of_its_volume() -> None:
    data = {"target_iqns": ["iqn.A", "iqn.b"], "target_luns": [1, 2], "target_iqn": "iqn.A"}
    info = {"driver_volume_type": "iscsi", "serial": VOLUME, "data": data}
    connection = row(connection_info=json.dumps(info)).connection

    assert connection is not None
    assert (connection.kind, connection.serial) == ("iscsi", VOLUME)
    assert connection.targets == {("iqn.a", 1), ("iqn.b", 2)}


def test_a_row_may_have_no_connection_or_an_unreadable_one() -> None:
    assert row(connection_info=None).connection is None
    assert row(connection_info="null").connection is None
    for text in ("[withheld]", "[1]", "[" * 100_000):
        with pytest.raises(UnheardError):
            _ = row(connection_info=text).connection


def test_a_column_that_a_release_does_not_have_is_unheard() -> None:
    with pytest.raises(UnheardError):
        _ = row().attachment_id
    assert row(attachment_id=None).attachment_id is None
    assert row().volume_id == VOLUME
