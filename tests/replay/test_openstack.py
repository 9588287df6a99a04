"""The APIs of a recorded cloud."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import RecordedHost

from hoodsnap.replay.apis.http_server import server
from hoodsnap.replay.apis.openstack import ApiError, OpenStack
from hoodsnap.replay.recording import Recording, hosts

PLAIN: dict[str, str] = {}
NEWEST = {"OpenStack-API-Version": "compute latest"}


def replayed(host: RecordedHost) -> OpenStack:
    (name,) = hosts(host.bundle)
    return OpenStack(Recording(host.bundle, name), "http://127.0.0.1:5000")


@pytest.fixture
def cloud(host: RecordedHost) -> OpenStack:
    return replayed(host)


def get(cloud: OpenStack, target: str, headers: dict[str, str] = PLAIN) -> Any:
    status, body, _ = cloud.answer("GET", target, headers)
    assert status == 200
    return body


def test_the_same_request_gets_the_recorded_answer(cloud: OpenStack, host: RecordedHost) -> None:
    query = next(
        answer.query
        for answer in host.bundle.answers
        if answer.query.startswith("GET /v2.1/servers/detail") and answer.query.endswith("]")
    )
    path, _, version = query.removeprefix("GET ").partition(" ")

    status, body, said = cloud.answer(
        "GET", f"/compute{path}", {"OpenStack-API-Version": f"compute {version.strip('[]')}"}
    )

    assert (status, said) == (200, version.strip("[]"))
    assert body == host.last("nova", query).value


def test_a_list_without_all_tenants_is_of_one_project(cloud: OpenStack, host: RecordedHost) -> None:
    everybody = get(cloud, "/compute/v2.1/servers/detail?all_tenants=1")["servers"]

    ours = get(cloud, "/compute/v2.1/servers/detail")["servers"]

    names = {server["name"] for server in everybody} - {server["name"] for server in ours}
    assert names == {"vm-tenant"}


def test_one_of_a_list_by_its_id(cloud: OpenStack, host: RecordedHost) -> None:
    uuid = host.uuid("vm-duo")

    found = get(cloud, f"/compute/v2.1/servers/{uuid}")["server"]

    assert (found["id"], found["name"]) == (uuid, "vm-duo")


GROUPS = "GET /v2.1/os-server-groups?all_projects=True [2.93]"


def test_the_groups_of_a_server_follow_from_the_list_of_groups(host: RecordedHost) -> None:
    uuid = host.uuid("vm-duo")
    group = {"id": "9a4fbbd4", "name": "apart", "policy": "anti-affinity", "members": [uuid]}
    host.set("nova", GROUPS, {"server_groups": [group]})
    cloud = replayed(host)

    servers = [
        get(cloud, f"/compute/v2.1/servers/{one}", NEWEST)["server"]
        for one in (uuid, host.uuid("vm-plain"))
    ]

    assert [server["server_groups"] for server in servers] == [["9a4fbbd4"], []]
    assert "server_groups" not in get(cloud, f"/compute/v2.1/servers/{uuid}")["server"]


def test_an_incomplete_list_of_groups_is_not_used(host: RecordedHost) -> None:
    host.drop(lambda answer: answer.query != GROUPS)

    server = get(replayed(host), f"/compute/v2.1/servers/{host.uuid('vm-duo')}", NEWEST)["server"]

    assert "server_groups" not in server


def test_a_filter_by_name_works_as_in_nova(cloud: OpenStack) -> None:
    found = get(cloud, "/compute/v2.1/servers?name=vm-s")["servers"]

    assert {server["name"] for server in found} == {
        "vm-stopped", "vm-suspended", "vm-shelved", "vm-snap",
    }  # fmt: skip
    assert all(set(server) == {"id", "name", "links"} for server in found)


def test_pages(cloud: OpenStack) -> None:
    whole = get(cloud, "/compute/v2.1/servers/detail")["servers"]

    first = get(cloud, "/compute/v2.1/servers/detail?limit=2")["servers"]
    second = get(cloud, f"/compute/v2.1/servers/detail?limit=2&marker={first[-1]['id']}")["servers"]

    assert first + second == whole[:4]


def test_an_item_missing_from_a_whole_list_does_not_exist(cloud: OpenStack) -> None:
    with pytest.raises(ApiError) as refusal:
        get(cloud, "/compute/v2.1/servers/no-such-name")

    assert refusal.value.status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/compute/v2.1/os-keypairs",
        "/compute/v2.1/servers/detail?shade_of_blue=7",
        "/image/v2/tasks",
        "/network/v2.0/trunks",
        "/v3/users",
    ],
)
def test_a_request_that_was_not_recorded_is_refused_and_named(
    cloud: OpenStack, target: str
) -> None:
    with pytest.raises(ApiError, match="was not recorded") as refusal:
        get(cloud, target)

    assert refusal.value.status == 501


def test_another_microversion_is_not_invented(cloud: OpenStack) -> None:
    with pytest.raises(ApiError, match="was not recorded"):
        get(cloud, "/compute/v2.1/servers/detail", {"OpenStack-API-Version": "compute 2.26"})


def test_a_microversion_that_changed_nothing_is_the_same(cloud: OpenStack) -> None:
    headers = {"OpenStack-API-Version": "compute 2.90"}

    assert get(cloud, "/compute/v2.1/servers/detail", headers)["servers"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(cloud: OpenStack, host: RecordedHost, method: str) -> None:
    with pytest.raises(ApiError, match="can't change a recording") as refusal:
        cloud.answer(method, f"/compute/v2.1/servers/{host.uuid('vm-plain')}", PLAIN)

    assert refusal.value.status == 403


def test_a_server_that_nova_hid_is_not_reported_absent(host: RecordedHost) -> None:
    host.drop(lambda answer: "/servers/detail" not in answer.query)

    with pytest.raises(ApiError) as refusal:
        get(replayed(host), f"/compute/v2.1/servers/{host.uuid('vm-plain')}")

    assert refusal.value.status == 501


@pytest.fixture
def port(host: RecordedHost) -> Iterator[int]:
    (name,) = hosts(host.bundle)
    listening = server(Recording(host.bundle, name), socket.create_server(("127.0.0.1", 0)))
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield listening.server_port
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.mark.filterwarnings("ignore:.*(service_type|_compute_attributes)")  # its own calls
def test_openstacksdk_is_a_client(port: int, host: RecordedHost) -> None:
    openstack: Any = pytest.importorskip("openstack")

    with openstack.connect(
        auth_url=f"http://127.0.0.1:{port}/v3",
        username="recorded",
        password="recorded",  # noqa: S106 (the stand-in lets everybody in)
        project_name="recorded",
        user_domain_id="default",
        project_domain_id="default",
    ) as connection:
        names = {found.name for found in connection.compute.servers(all_projects=True)}

    assert names >= {"vm-plain", "vm-tenant", "vm-error"}
