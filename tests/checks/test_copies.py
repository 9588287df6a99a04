"""Copies of a server's record in nova's API, its databases and placement."""

from __future__ import annotations

import json

import pytest
from tests.checks.test_placement import node
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer

STRANGER = "00000000000000000000000000000bad"


@pytest.mark.parametrize(
    ("column", "value", "headline"),
    [
        ("hostname", "vm-other",
         "vm-duo's host name is vm-other in its database row, but vm-duo in nova's API"),
        ("reservation_id", "r-other",
         "vm-duo's reservation is r-other in its database row, but r-"),
        ("key_name", "mine", "vm-duo's key pair is mine in its database row, but none in nova's API"),
        ("launched_at", "2026-01-01 00:00:00",
         "vm-duo's launch is 2026-01-01 00:00:00+00:00 in its database row, but 2026-11-25"),
        ("root_device_name", "/dev/sda",
         "vm-duo's root device is /dev/sda in its database row, but /dev/vda in nova's API, but /dev/vda"
         " in its block device mapping"),
    ],
)  # fmt: skip
def test_server_copies_differ(host: RecordedHost, column: str, value: str, headline: str) -> None:
    host.row("instances", host.uuid("vm-duo"), **{column: value})

    [found] = host.report().findings
    assert found.check.name == "server-copies-differ"
    assert found.headline.startswith(headline)


def test_server_copies_differ_by_the_flavor(host: RecordedHost) -> None:
    flavor = host.guest("vm-duo").server
    assert flavor is not None
    changed = dict(flavor.raw["flavor"]) | {"original_name": "lab.other"}  # type: ignore[call-overload]
    host.server(host.uuid("vm-duo"), flavor=changed)

    assert [line for line in host.headlines() if "flavor" in line] == [
        "vm-duo's flavor is lab.duo in its stored flavor, but lab.other in nova's API"
    ]


def test_a_server_that_changed_meanwhile_is_not_compared(host: RecordedHost) -> None:
    host.server(host.uuid("vm-duo"), name="vm-new", updated="2026-11-25T18:36:40Z")

    assert host.findings() == []


def test_null_is_a_value_and_a_missing_field_is_none(host: RecordedHost) -> None:
    uuid = host.uuid("vm-duo")
    host.server(uuid, reservation_id=None)
    assert len(host.findings()) == 1

    def older(answer: Answer) -> Answer:
        if "/servers/detail" not in answer.query or answer.error is not None:
            return answer
        servers = [
            {key: value for key, value in server.items() if not key.endswith("reservation_id")}
            for server in answer.value["servers"]
        ]
        return answer.model_copy(update={"value": {"servers": servers}})

    host.bundle = host.bundle.with_answers(tuple(map(older, host.bundle.answers)))
    assert host.findings() == []


@pytest.mark.parametrize("column", ["project_id", "user_id"])
def test_owner_copies_differ(host: RecordedHost, column: str) -> None:
    host.row("instance_mappings", host.uuid("vm-duo"), **{column: STRANGER})

    [found] = host.report().findings
    assert found.check.name == "owner-copies-differ"
    what = column.removesuffix("_id")
    assert found.headline.startswith(f"vm-duo's {what} is ")
    assert found.headline.endswith(f"but {STRANGER} in its instance mapping")
    assert found.names["COLUMN"] == column
    assert found.names["CONSUMER"] == ""


def test_owner_copies_differ_in_placement(host: RecordedHost) -> None:
    uuid, first = host.uuid("vm-duo"), host.last("placement", "GET /resource_providers [1.39]")
    held = {node(host): {"resources": {"VCPU": 2, "MEMORY_MB": 128, "DISK_GB": 1}, "generation": 1}}
    value = {"allocations": held, "project_id": STRANGER, "user_id": "u", "consumer_generation": 1}
    query = f"GET /allocations/{uuid} [1.39]"
    host.add(first.model_copy(update={"query": query, "subject": uuid, "value": value}))

    found = [f for f in host.report().findings if f.check.name == "owner-copies-differ"]
    assert found[0].headline.endswith(f"but {STRANGER} in placement")
    assert found[1].headline.endswith("but u in placement")
    assert found[0].names["CONSUMER"] == uuid


def test_owner_copies_differ_in_the_request_spec(host: RecordedHost) -> None:
    uuid = host.uuid("vm-duo")
    instance = host.guest("vm-duo").instance
    assert instance is not None and instance.tables is not None
    [(_, row)] = instance.tables.each("request_specs", uuid)
    spec = json.loads(str(row.cells["spec"]))
    spec["nova_object.data"]["project_id"] = STRANGER
    host.row("request_specs", uuid, spec=json.dumps(spec))

    [headline] = host.headlines()
    assert headline.endswith(f"but {STRANGER} in its request spec")


@pytest.mark.parametrize("user", [None, ""])
def test_an_old_mapping_has_no_user(host: RecordedHost, user: str | None) -> None:
    host.row("instance_mappings", host.uuid("vm-duo"), user_id=user)

    assert host.findings() == []


def _aggregate(host: RecordedHost, zone: str) -> None:
    for table, columns, row in (
        ("aggregate_hosts", ["id", "host", "aggregate_id"], [1, "vm", 7]),
        (
            "aggregate_metadata",
            ["id", "aggregate_id", "key", "value"],
            [1, 7, "availability_zone", zone],
        ),
    ):
        [query] = {
            answer.query
            for answer in host.bundle.by_layer["nova-db"]
            if f" FROM nova_api.{table}" in answer.query and answer.query.startswith("SELECT")
        }
        host.set("nova-db", query, {"columns": columns, "rows": [row]})


def test_availability_zone_differs(host: RecordedHost) -> None:
    _aggregate(host, "rack-2")

    assert (
        "vm-duo is in availability zone nova in nova's database, but its host vm is in zone rack-2"
        in (host.headlines())
    )


def test_availability_zone_of_no_aggregate(host: RecordedHost) -> None:
    for where in ("vm-plain", "vm-shelved"):
        host.row("instances", host.uuid(where), availability_zone="rack-9")

    found = [line for line in host.headlines() if "availability zone" in line]
    assert found == [
        "vm-plain is in availability zone rack-9 in nova's database, but its host vm is in zone nova"
    ]


def test_the_default_zone_may_have_been_renamed(host: RecordedHost) -> None:
    for answer in host.bundle.asked("nova", "GET "):
        if "/os-services" in answer.query and answer.error is None:
            services = [item | {"zone": "rack-9"} for item in answer.value["services"]]
            host.set("nova", answer.query, {**answer.value, "services": services})

    assert host.findings() == []


def test_a_server_in_the_zone_of_its_host_is_quiet(host: RecordedHost) -> None:
    _aggregate(host, "nova")

    assert host.findings() == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("vm_state", "error", "vm_state is active in its database row, but error"),
        ("power_state", 4, "power_state is 1 in its database row, but 4"),
        ("SRV-ATTR__host", "vm9", "host is vm in its database row, but vm9"),
        ("hypervisor_hostname", "vm9", "node is vm in its database row, but vm9"),
        ("locked", True, "lock is False in its database row, but True"),
        ("config_drive", "True", "config drive is none in its database row, but True"),
        ("diskConfig", "AUTO", "disk configuration is MANUAL in its database row, but AUTO"),
        ("launch_index", 3, "launch index is 0 in its database row, but 3"),
    ],
)
def test_server_copies_differ_in_its_state(
    host: RecordedHost, field: str, value: object, words: str
) -> None:
    host.server(host.uuid("vm-duo"), **{field: value})

    assert any(line.startswith(f"vm-duo's {words}") for line in host.headlines())


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("disk", "root disk in GiB is 1 in its stored flavor, but 9 in nova's API"),
        ("ephemeral", "ephemeral disk in GiB is 0 in its stored flavor, but 9 in nova's API"),
        ("swap", "swap in MiB is 0 in its stored flavor, but 9 in nova's API"),
    ],
)
def test_server_copies_differ_in_the_sizes_of_disks(
    host: RecordedHost, key: str, words: str
) -> None:
    server = host.guest("vm-duo").server
    assert server is not None
    changed = dict(server.raw["flavor"]) | {key: 9}  # type: ignore[call-overload]
    host.server(host.uuid("vm-duo"), flavor=changed)

    assert host.headlines() == [f"vm-duo's {words}"]


def test_the_api_shows_an_unknown_power_state_as_0(host: RecordedHost) -> None:
    host.cells("instances", host.uuid("vm-shelved"), power_state=None)
    host.server(host.uuid("vm-shelved"), power_state=0)

    assert not any("server-copies-differ" in line for line in host.findings())


def test_the_row_of_a_server_in_cell0_is_compared(host: RecordedHost) -> None:
    host.cells("instances", host.uuid("vm-error"), root_gb=11)

    assert host.headlines() == [
        "vm-error's root disk in GiB is 10 in its stored flavor, but 11 in its database row"
    ]


def test_a_server_that_changed_long_before_both_questions_is_compared(host: RecordedHost) -> None:
    host.server(host.uuid("vm-duo"), vm_state="error", updated="2026-11-25T18:30:00Z")

    assert host.headlines() == [
        "vm-duo's vm_state is active in its database row, but error in nova's API"
    ]
