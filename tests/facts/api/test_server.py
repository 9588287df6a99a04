"""Servers as the nova API returns them, and the lists that are complete."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.api.server import Server, Servers
from hoodsnap.facts.fact import UnheardError

UUID = "fa1ddbab-417f-4890-abc1-4cdf2bbfa787"
LIST = "GET /v2.1/servers/detail?all_tenants=True [2.93]"


def answer(query: str, value: object = None, error: Failure | None = None) -> Answer:
    told: dict[str, Any] = {"error": error} if error else {"value": value}
    at = datetime(2026, 11, 23, tzinfo=UTC)
    return Answer(layer="nova", host="vm", query=query, at=at, took=0.1, **told)


def one(**fields: object) -> Server:
    raw = {"id": UUID, "name": "test", **fields}
    return Servers([answer(LIST, {"servers": [raw]})]).by_uuid[UUID]


def test_a_recent_api_embeds_the_flavor() -> None:
    server = one(flavor={"original_name": "lab.tiny", "ram": 64, "vcpus": 1, "disk": 1})

    assert (server.flavor, server.memory_mib, server.vcpus) == ("lab.tiny", 64, 1)


def test_an_older_api_returns_only_the_flavors_id() -> None:
    server = one(flavor={"id": "42", "links": []})

    assert server.flavor == "42"
    with pytest.raises(UnheardError):
        _ = server.memory_mib


@pytest.mark.parametrize(("image", "read"), [("", None), (None, None), ({"id": "i"}, "i")])
def test_a_server_that_boots_from_a_volume_has_no_image(image: object, read: str | None) -> None:
    assert one(image=image).image == read


def test_a_field_that_a_tenant_does_not_see_is_unheard() -> None:
    with pytest.raises(UnheardError, match="OS-EXT-SRV-ATTR:host was not collected"):
        _ = one().host
    assert one(**{"OS-EXT-SRV-ATTR:host": None}).host is None


def test_evidence_names_the_server_in_the_list() -> None:
    found, place = one(**{"OS-EXT-STS:vm_state": "active"}).where("vm_state")

    assert found is not None
    assert (found.query, place) == (LIST, f"servers[{UUID}].OS-EXT-STS:vm_state")


def test_the_last_answer_counts() -> None:
    servers = Servers(
        [
            answer(LIST, {"servers": [{"id": UUID, "status": "BUILD"}]}),
            answer(
                f"GET /v2.1/servers/{UUID} [2.93]", {"server": {"id": UUID, "status": "ACTIVE"}}
            ),
        ]
    )

    assert servers.by_uuid[UUID].status == "ACTIVE"


def test_a_server_that_was_not_found_is_absent() -> None:
    gone = Failure(kind="absent", message="Instance could not be found.")
    servers = Servers([answer(f"GET /v2.1/servers/{UUID} [2.93]", error=gone)])

    assert UUID in servers.absent
    assert UUID not in servers.by_uuid


def test_a_list_of_one_host_proves_nothing_about_others() -> None:
    servers = Servers(
        [answer("GET /v2.1/servers/detail?all_tenants=True&host=vm [2.93]", {"servers": []})]
    )

    assert servers.everywhere is None
    assert set(servers.of_host) == {"vm"}


def test_a_tenants_list_proves_nothing_about_other_projects() -> None:
    servers = Servers([answer("GET /v2.1/servers/detail [2.93]", {"servers": []})])

    assert servers.everywhere is None
    assert servers.of_host == {}


def test_a_query_for_a_servers_actions_is_not_one_for_the_server() -> None:
    query = (
        f"GET /v2.1/servers/{UUID}/os-instance-actions?changes-since=2026-11-16T07:29:22Z [2.93]"
    )
    gone = Failure(kind="absent", message="gone")

    assert Servers([answer(query, error=gone)]).absent == {}


def test_servers_of_every_release_are_read(corpus: Path) -> None:
    read = 0
    for path in sorted((corpus / "api-json").rglob("*.json")):
        body = json.loads(path.read_text(errors="replace"))
        if not isinstance(body, dict) or not ({"servers", "server"} & body.keys()):
            continue
        if "servers" not in body:
            body = {"servers": [body["server"]]}
        for server in Servers([answer(LIST, body)]).by_uuid.values():
            read += 1
            for name in (
                "status",
                "vm_state",
                "task_state",
                "power_state",
                "host",
                "image",
                "flavor",
                "vcpus",
            ):
                try:
                    getattr(server, name)
                except UnheardError:
                    continue
    assert read > 100
