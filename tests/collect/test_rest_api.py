"""No answer of an API stops later questions: bodies of every wrong type."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.collect.small_cloud import SmallCloud
from tests.conftest import sample

from hoodsnap.bundle import Answer
from hoodsnap.collect.allocation import AllocationApi, names_of
from hoodsnap.collect.clients import ask_for_clients
from hoodsnap.collect.cloud_client import CloudClient
from hoodsnap.collect.port import PortApi
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.rest_api import next_marker, objects, pages, unversioned
from hoodsnap.collect.server import ServerApi
from hoodsnap.collect.volume import VolumeApi

pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")

UUID = "10000000-0000-4000-8000-000000000000"

LISTS = (
    *("servers", "flavors", "migrations", "hypervisors", "services", "server_groups"),
    *("aggregates", "instanceActions", "images", "ports", "networks", "subnets", "routers"),
    *("floatingips", "security_groups", "agents", "extensions", "bindings", "volumes"),
    *("snapshots", "attachments", "resource_providers", "traits", "versions"),
)
"""Names of all lists that are asked for; a body may have any of them."""

LINKS: tuple[Any, ...] = (
    None,
    7,
    "next",
    {"rel": "next", "href": "http://x/?marker=1"},
    [None, 1, "x", [], {"rel": "next"}, {"rel": "next", "href": 5}, {"rel": ["next"], "href": {}}],
    [{"rel": "next", "href": "http://[::1"}],
    [{"rel": "next", "href": "http://x/?marker=%ED%A0%80&marker="}],
    [{"rel": "next", "href": "\ud800?marker=\ud800"}],
)

THINGS: tuple[Any, ...] = (
    [None, 1, "x", [], [[]], {}, {"id": None}, {"id": 5}, {"id": {}}, {"uuid": [UUID]}],
    [{"id": UUID, "image": [], "flavor": 1, "os-extended-volumes:volumes_attached": {"id": 1}}],
    [{"id": "\ud800", "uuid": "\ud800", "alias": "\ud800", "device_id": "\ud800", "updated": 9}],
    [
        {
            "id": UUID,
            "uuid": UUID,
            "request_id": "req-\ud800",
            "alias": "binding-extended",
            "image": {"id": "\ud800"},
            "updated": "2099",
            "start_time": {},
            "device_owner": "compute:nova",
            "device_id": UUID,
            "network_id": "\udfff",
            "security_groups": [None, 5, "g"],
            "binding:host_id": "vm",
            "service": "vm",
            "volume_id": [],
        }
    ],
    {"id": UUID},
    UUID,
    None,
)


def whole(things: Any, links: Any) -> dict[str, Any]:
    body = dict.fromkeys(LISTS, things)
    body |= {f"{name}_links": links for name in LISTS}
    return body | {"server": things, "volume": things, "allocations": things, "next": links}


BODIES: tuple[Any, ...] = (
    *([], [1], [None], [{"id": UUID}], None, 1, "text", {}),
    *(whole(things, None) for things in THINGS),
    *(whole(THINGS[3], links) for links in LINKS),
    {"allocations": {UUID: None, "\ud800": []}, "resource_providers": [{"uuid": UUID}]},
)

ODD_VERSIONS: tuple[Any, ...] = ([], [1], None, {}, whole(THINGS[0], None), whole(THINGS[2], None))
"""Bodies that are also returned for the versions of an API."""


@pytest.fixture
def cloud(small: SmallCloud) -> SmallCloud:
    for service in ("network", "block-storage", "placement"):
        small.endpoints[service] = f"{small.url}/{service}"
    return small


def answer_all_with(cloud: SmallCloud, body: Any, *, versions: bool) -> None:
    known = {
        "/compute/v2.1/": {"version": {"id": "v2.1", "version": "2.96"}},
        "/block-storage/v3/": {"versions": [{"id": "v3.0", "version": "3.70"}]},
        "/placement/": {"versions": [{"id": "v1.0", "max_version": "1.39"}]},
        "/network/v2.0/extensions": {"extensions": [{"alias": "binding-extended"}]},
    }
    before = type(cloud).answer

    def answer(path: str, sent: dict[str, Any]) -> tuple[int, Any]:
        if path.startswith("/identity"):
            return before(cloud, path, sent)
        return 200, known[path] if versions and path in known else body

    setattr(cloud, "answer", answer)  # noqa: B010 (mypy lets nobody assign a method)


def _nova(recorder: Recorder) -> None:
    api = ServerApi(recorder)
    api.connect()
    api.ask_servers("vm")
    api.ask_server(UUID)
    api.ask_surroundings(None)
    api.ask_for_clients("vm")
    assert all(isinstance(volume, str) for volume in api.volumes)
    api.close()


def _neutron(recorder: Recorder) -> None:
    api = PortApi(recorder)
    api.connect()
    for host in ("vm", None):
        api.ask(host, [UUID])
    api.ask_again([UUID])
    api.close()


def _cinder(recorder: Recorder) -> None:
    api = VolumeApi(recorder)
    api.connect()
    api.ask_everything()
    api.ask_about([UUID], [UUID], [UUID])
    api.ask_again([UUID], [UUID])
    api.close()


def _placement(recorder: Recorder) -> None:
    api = AllocationApi(recorder)
    api.connect()
    for names in (["vm", UUID], None):
        api.ask_providers(names)
    api.ask_consumers([UUID])
    assert all(isinstance(consumer, str) for consumer in api.consumers)
    api.close()


def _clients(recorder: Recorder) -> None:
    cloud = CloudClient()
    ask_for_clients(recorder, cloud, cloud.endpoint("compute"), "vm")
    cloud.close()


SERVICES: dict[str, Callable[[Recorder], None]] = {
    "nova": _nova,
    "neutron": _neutron,
    "cinder": _cinder,
    "placement": _placement,
    "clients": _clients,
}


@pytest.mark.parametrize("service", SERVICES)
def test_a_body_of_any_type_stops_no_later_question(service: str, cloud: SmallCloud) -> None:
    asked = 0
    cases = [(body, True) for body in BODIES] + [(body, False) for body in ODD_VERSIONS]
    for body, versions in sample(cases, 10):
        recorder = Recorder("vm")
        answer_all_with(cloud, body, versions=versions)

        SERVICES[service](recorder)

        names_of(recorder.answers, "vm")
        asked += len(recorder.answers)
        # The bundle can be written, and no failure is a bug of hoodsnap.
        json.dumps([answer.as_json() for answer in recorder.answers]).encode()
        failed = [answer.error.message for answer in recorder.answers if answer.error]
        assert [message for message in failed if "Error: " in message] == []
    assert asked >= 10


@pytest.mark.parametrize("service", SERVICES)
def test_a_list_in_place_of_an_object_is_a_failure(service: str, cloud: SmallCloud) -> None:
    recorder = Recorder("vm")
    answer_all_with(cloud, [{"id": UUID}], versions=True)

    SERVICES[service](recorder)

    failed = {answer.error.message for answer in recorder.answers if answer.error is not None}
    expected = "the answer is not a JSON object, so it is not from "
    assert failed
    assert all(message.startswith(expected) for message in failed)


def test_glances_next_link_to_another_server_is_dropped(cloud: SmallCloud) -> None:
    recorder = Recorder("vm")
    for elsewhere in ("@127.0.0.1:1/v2/images?", ".x/v2/images?", 5, ["/v2/images?"]):
        cloud.reply("/image/v2/images?limit=1000", {"images": [], "next": elsewhere})
        _clients(recorder)

        images = [answer for answer in recorder.answers if answer.layer == "glance"]
        assert [answer.value for answer in images] == [{"images": [], "next": None}]
        recorder.answers.clear()


def page(value: Any) -> Answer:
    return Recorder("vm").ask("nova", "GET /", lambda: value)


def test_the_next_page_is_after_the_marker() -> None:
    links = [{"rel": "self", "href": "x"}, {"rel": "next", "href": "http://x/?limit=1&marker=b"}]

    assert next_marker(page({"a": [{"id": "b"}], "a_links": links}), "a") == "b"
    assert next_marker(page({"a": [], "a_links": links}), "a") is None


def test_a_circular_list_ends_with_a_failure() -> None:
    refused: list[tuple[str, str]] = []
    links = [{"rel": "next", "href": "http://x/?marker=b"}]

    found = pages(
        lambda query: page({"a": [{"id": "b"}], "a_links": links}),
        lambda query, why: refused.append((query, why)),
        "all=1",
        "a",
    )

    assert len(found) == 2
    assert refused == [
        ("all=1&marker=b", "not asked: the API returned the list's pages without end")
    ]


@pytest.mark.parametrize(
    ("endpoint", "root", "project"),
    [
        ("http://x:8774/v2.1/", "http://x:8774", ""),
        ("http://x/volume/v3/5f00", "http://x/volume", "/5f00"),
        ("http://x:9696/", "http://x:9696", ""),
        ("http://x/v2.0", "http://x", ""),
        ("http://x/placement", "http://x/placement", ""),
    ],
)
def test_an_endpoint_is_split_from_its_version_and_project(
    endpoint: str, root: str, project: str
) -> None:
    assert unversioned(endpoint) == (root, project)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "rel", "href", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_only_objects_with_the_key_are_returned(value: Any) -> None:
    assert all(isinstance(item["id"], str) for item in objects(value))
