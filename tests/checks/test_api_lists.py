"""Lists of nova's API, and the rows that they are made from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer


def _first(host: RecordedHost, path: str, name: str, **fields: object) -> dict[str, Any]:
    """Change the first item of a list in every answer; return it."""
    first: list[dict[str, Any]] = []

    def changed(answer: Answer) -> Answer:
        if answer.layer != "nova" or f"/{path}" not in answer.query or answer.error is not None:
            return answer
        value = json.loads(json.dumps(answer.value))
        value[name][0] |= fields
        first.append(value[name][0])
        return answer.model_copy(update={"value": value})

    host.bundle = host.bundle.with_answers(tuple(map(changed, host.bundle.answers)))
    return first[0]


def test_api_list_differs(host: RecordedHost) -> None:
    item = _first(host, "os-services", "services", status="disabled")

    assert host.headlines() == [
        f"Service {item['binary']} on vm has status disabled in nova's API, but status enabled in its"
        " database"
    ]


@pytest.mark.parametrize(
    ("path", "name", "fields", "part"),
    [
        ("os-hypervisors/detail", "hypervisors", {"host_ip": "192.0.2.9"},
         "has host_ip 192.0.2.9 in nova's API, but host_ip 127.0.0.1"),
        ("os-hypervisors/detail", "hypervisors", {"state": "down"},
         "is down in nova's list of hypervisors, but its service on vm is up"),
        ("flavors/detail", "flavors", {"rxtx_factor": 3.0}, "has rxtx_factor 3.0 in nova's API"),
    ],
)  # fmt: skip
def test_api_list_differs_in(
    host: RecordedHost, path: str, name: str, fields: dict[str, object], part: str
) -> None:
    _first(host, path, name, **fields)

    headlines = host.headlines()
    assert headlines
    assert all(part in headline for headline in headlines)


def test_numbers_that_move_are_compared_with_a_row_that_did_not(host: RecordedHost) -> None:
    _first(host, "os-hypervisors/detail", "hypervisors", vcpus_used=99)

    assert host.headlines() == [
        "Hypervisor vm has vcpus_used 99 in nova's API, but vcpus_used 16 in its database"
    ]


def test_numbers_in_use_are_not_compared_while_servers_change(host: RecordedHost) -> None:
    _first(host, "os-hypervisors/detail", "hypervisors", vcpus_used=99)
    asked = host.guest("vm-plain").instance
    assert asked is not None
    host.row(
        "instances",
        host.uuid("vm-plain"),
        updated_at=f"{asked.said['row'].at:%Y-%m-%d %H:%M:%S}",
    )

    assert [one for one in host.headlines() if "vcpus_used" in one] == []


def test_numbers_that_move_are_not_compared(host: RecordedHost) -> None:
    _first(host, "os-hypervisors/detail", "hypervisors", running_vms=99, vcpus_used=99)
    node = host.guest("vm-plain").host
    assert node is not None and node.node is not None
    host.row("compute_nodes", str(node.node.raw["uuid"]), updated_at="2026-11-25 18:36:34")

    assert host.findings() == []


def test_the_status_of_a_migration_is_not_compared(host: RecordedHost) -> None:
    moved = {"status": "error", "updated_at": "2026-11-25T18:36:40.000000"}
    _first(host, "os-migrations", "migrations", **moved)

    assert host.findings() == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "down"},
         "Service nova-scheduler on vm is down in nova's API, but its row in the database says that"
         " it reported 4 s before"),
        ({"zone": "nova"},
         "Service nova-scheduler on vm is in zone nova in nova's API, but nova-conductor on vm is in"
         " zone internal"),
    ],
)  # fmt: skip
def test_api_list_differs_about_a_controller(
    host: RecordedHost, fields: dict[str, object], words: str
) -> None:
    # Of two controllers that differ, the one listed first is the usual one.
    services = host.last("nova", "GET /v2.1/os-services [2.93]").value["services"]
    others = [item | {"id": f"{n}", "host": "vm2"} for n, item in enumerate(services[:2])]
    host.set("nova", "GET /v2.1/os-services [2.93]", {"services": [*services, *others]})
    _first(host, "os-services", "services", **fields)

    assert words in host.headlines()
