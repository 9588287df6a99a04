"""The placement API of a small cloud served over HTTP, and that of the lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.collect.small_cloud import SmallCloud

from hoodsnap.bundle import Answer
from hoodsnap.collect import allocation as allocation_module
from hoodsnap.collect.allocation import AllocationApi, names_of
from hoodsnap.collect.recorder import Recorder

pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")

NODE = "ac663621-398b-4fa3-94b4-eec5656dc199"
CHILD = "bd663621-398b-4fa3-94b4-eec5656dc199"
OTHER = "cc663621-398b-4fa3-94b4-eec5656dc199"
SERVER = "59bedb74-03f2-47bf-b547-e1cb56b4c802"
MOVE = "6b3ca46a-d195-4eed-9af3-4017e4030bfb"
VCPU = {"resources": {"VCPU": 1}}


def provider(uuid: str, name: str, root: str = "") -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "generation": 1,
        "parent_provider_uuid": root or None,
        "root_provider_uuid": root or uuid,
        "links": [{"rel": "self", "href": f"/resource_providers/{uuid}"}],
    }


@pytest.fixture
def recorder() -> Recorder:
    return Recorder("vm")


@pytest.fixture
def api(recorder: Recorder, small: SmallCloud) -> Iterator[AllocationApi]:
    small.endpoints["placement"] = f"{small.url}/placement"
    small.reply("/placement/", {"versions": [{"id": "v1.0", "max_version": "1.45"}]})
    node, child = provider(NODE, "vm"), provider(CHILD, "vm_pci", NODE)
    small.reply("/placement/resource_providers", {"resource_providers": [node, child]})
    small.reply("/placement/resource_providers?name=vm", {"resource_providers": [node]})
    tree = {"resource_providers": [node, child]}
    small.reply(f"/placement/resource_providers?in_tree={NODE}", tree)
    held = {"allocations": {SERVER: VCPU, MOVE: VCPU}}
    small.reply(f"/placement/resource_providers/{NODE}/allocations", held)
    small.reply(f"/placement/resource_providers/{CHILD}/allocations", {"allocations": {}})
    found = AllocationApi(recorder)
    yield found
    found.close()


def queries(recorder: Recorder) -> set[str]:
    return {answer.query.removesuffix(" [1.39]") for answer in recorder.answers}


PARTS = ("allocations", "inventories", "usages", "aggregates", "traits")


def test_one_host_is_asked_for_its_provider_tree(api: AllocationApi, recorder: Recorder) -> None:
    assert api.connect()
    api.ask_providers({"vm"})

    assert queries(recorder) == {
        "GET /",
        "GET /resource_providers?name=vm",
        f"GET /resource_providers?in_tree={NODE}",
        *(f"GET /resource_providers/{uuid}/{part}" for uuid in (NODE, CHILD) for part in PARTS),
    }
    assert api.consumers == {SERVER, MOVE}


def test_all_providers_are_asked_for_all_hosts(api: AllocationApi, recorder: Recorder) -> None:
    assert api.connect()
    api.ask_providers(None)

    assert "GET /resource_providers" in queries(recorder)
    assert f"GET /resource_providers/{CHILD}/traits" in queries(recorder)


def test_queries_name_the_microversion(api: AllocationApi, recorder: Recorder) -> None:
    assert api.connect()
    api.ask_providers({"vm"})

    assert recorder.answers[1].query == "GET /resource_providers?name=vm [1.39]"


def test_an_old_placement_has_neither_trees_nor_traits(
    api: AllocationApi, recorder: Recorder, small: SmallCloud
) -> None:
    small.reply("/placement/", {"versions": [{"id": "v1.0", "max_version": "1.4"}]})
    listed = {"resource_providers": [provider(NODE, "vm")]}
    small.reply(f"/placement/resource_providers?uuid={NODE}", listed)

    assert api.connect()
    api.ask_providers({"vm"})

    asked = {answer.query for answer in recorder.answers}
    assert f"GET /resource_providers?uuid={NODE} [1.4]" in asked
    assert not any("traits" in query or "in_tree" in query for query in asked)


def test_providers_of_other_hosts_are_asked_for_their_name(
    api: AllocationApi, recorder: Recorder, small: SmallCloud
) -> None:
    small.reply(f"/placement/allocations/{SERVER}", {"allocations": {NODE: VCPU, OTHER: VCPU}})
    small.reply(f"/placement/resource_providers/{OTHER}", provider(OTHER, "other"))
    assert api.connect()
    api.ask_providers({"vm"})
    before = len(recorder.answers)

    api.ask_consumers([SERVER])
    api.ask_consumers([SERVER])

    later = [answer.query for answer in recorder.answers[before:]]
    assert later == [
        f"GET /allocations/{SERVER} [1.39]",
        f"GET /resource_providers/{OTHER} [1.39]",
    ]


def test_links_are_not_kept(api: AllocationApi, recorder: Recorder) -> None:
    assert api.connect()
    api.ask_providers({"vm"})

    assert "links" not in json.dumps([answer.as_json() for answer in recorder.answers])


def test_a_cloud_without_placement_is_recorded(small: SmallCloud, recorder: Recorder) -> None:
    api = AllocationApi(recorder)

    assert not api.connect()
    api.ask_providers(None)
    api.ask_consumers([SERVER])

    [answer] = recorder.answers
    assert answer.error is not None
    assert answer.error.kind == "absent"


def test_error_messages_of_placement_are_kept(
    api: AllocationApi, recorder: Recorder, small: SmallCloud
) -> None:
    complaint = {"status": 403, "title": "Forbidden", "detail": "Access was denied."}
    small.reply("/placement/resource_providers", {"errors": [complaint]}, status=403)

    assert api.connect()
    api.ask_providers(None)

    error = recorder.answers[-1].error
    assert error is not None
    assert (error.kind, error.message) == ("denied", "HTTP 403: Access was denied.")


@pytest.mark.parametrize("body", [None, [], {"versions": []}, {"versions": [{}]}, {"a": 1}])
def test_an_endpoint_that_is_not_placement_is_not_asked(
    api: AllocationApi, recorder: Recorder, small: SmallCloud, body: object
) -> None:
    small.reply("/placement/", body)

    assert not api.connect()


@pytest.mark.parametrize("held", [None, [], "x", {"allocations": []}, {"allocations": None}])
def test_malformed_answers_lead_to_no_further_requests(
    api: AllocationApi, recorder: Recorder, small: SmallCloud, held: object
) -> None:
    small.reply(f"/placement/resource_providers/{NODE}/allocations", held)
    small.reply("/placement/resource_providers", {"resource_providers": [None, {"uuid": 1}]})

    assert api.connect()
    api.ask_providers({"vm"})
    api.ask_providers(None)
    api.ask_consumers([SERVER])

    assert api.consumers == set()


def test_requests_after_the_time_limit_are_refused(
    api: AllocationApi, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocation_module, "ALLOCATIONS_TIME", 0.0)

    assert api.connect()
    api.ask_consumers([SERVER])

    error = recorder.answers[-1].error
    assert error is not None
    assert error.message == "not asked: placement's answers took more than 0 s in total"


def answered(layer: str, query: str, value: object) -> Answer:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    return Answer(layer=layer, host="vm", query=query, at=at, took=0.1, value=value)


def test_a_provider_has_the_names_of_its_hypervisor() -> None:
    columns = ["uuid", "host", "hypervisor_hostname"]
    nodes = [[NODE, "vm", "vm.example.org"], [OTHER, "other", "other.example.org"]]
    node = {"id": NODE, "hypervisor_hostname": "vm", "service": {"host": "vm"}}
    other = {"id": OTHER, "hypervisor_hostname": "other", "service": {"host": "other"}}
    answers = [
        answered("libvirt", "virsh hostname", "vm.local"),
        answered(
            "nova-db",
            "SELECT uuid, host FROM nova.compute_nodes",
            {"columns": columns, "rows": nodes},
        ),
        answered(
            "nova",
            "GET /v2.1/os-hypervisors/detail [2.87]",
            {"hypervisors": [node, other, {"id": 7, "service": None}]},
        ),
    ]

    assert names_of(answers, "vm") == {"vm", "vm.local", "vm.example.org", NODE}


@pytest.mark.lab
def test_the_lab_is_asked(cloud: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud / "clouds.yaml"))
    api = AllocationApi(recorder, "hoodlab")

    assert api.connect()
    api.ask_providers(None)

    assert all(answer.error is None for answer in recorder.answers)
    assert api.consumers
    api.close()
