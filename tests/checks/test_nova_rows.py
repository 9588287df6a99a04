"""Rows of other tables that belong to a server."""

from __future__ import annotations

import json

from tests.checks.test_placement import search
from tests.checks.test_records import Row, _rows, _without_row
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer

NOBODY = "99999999-0000-4000-8000-000000000000"


def test_instance_extra_missing(host: RecordedHost) -> None:
    _without_row(host, "instance_extra", host.uuid("vm-duo"))

    [found] = host.report().findings
    assert found.check.name == "instance-extra-missing"
    assert found.headline == (
        "vm-duo has no row in instance_extra: nova can't load the server, and lists that contain it fail"
    )
    assert found.names["DATABASE"] == "nova"


def test_a_table_that_was_not_collected_is_not_missing(host: RecordedHost) -> None:
    host.drop(lambda answer: ".instance_extra WHERE" not in answer.query)

    assert host.findings() == []


def test_row_of_another_instance(host: RecordedHost) -> None:
    uuid, other = host.uuid("vm-duo"), host.uuid("vm-plain")
    requests = {"nova_object.data": {"instance_uuid": other, "requests": []}}
    host.row("instance_extra", uuid, pci_requests=json.dumps(requests))

    assert host.headlines() == [
        f"vm-duo's row in instance_extra holds the pci_requests of vm-plain ({other[:8]})"
    ]


def test_row_of_another_instance_in_a_request_spec(host: RecordedHost) -> None:
    duo, plain = host.uuid("vm-duo"), host.uuid("vm-plain")

    def swapped(answer: Answer, rows: list[Row]) -> list[Row]:
        specs = {row["instance_uuid"]: row["spec"] for row in rows}
        specs[duo], specs[plain] = specs.get(plain), specs.get(duo)
        return [row | {"spec": specs[row["instance_uuid"]]} for row in rows]

    _rows(host, "request_specs", swapped)

    assert {line for line in host.headlines() if "request spec is" in line} == {
        f"vm-duo's request spec is that of vm-plain ({plain[:8]})",
        f"vm-plain's request spec is that of vm-duo ({duo[:8]})",
    }


def test_row_of_another_instance_in_a_migration(host: RecordedHost) -> None:
    uuid = host.uuid("vm-verify")
    host.row("migrations", uuid, instance_uuid=host.uuid("vm-duo"))

    assert any(
        line.startswith("vm-verify's migration context names migration ")
        for line in host.headlines()
    )


def test_row_without_instance(host: RecordedHost) -> None:
    uuid = host.uuid("vm-duo")

    def renamed(answer: Answer, rows: list[Row]) -> list[Row]:
        return [row | {"uuid": NOBODY} if row.get("uuid") == uuid else row for row in rows]

    _rows(host, "instance_id_mappings", renamed)
    search(host, NOBODY)

    assert host.headlines() == [
        "No instance has the UUID 99999999, but nova.instance_id_mappings has a row of it"
    ]


def test_instance_hidden(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-duo"), hidden=1)

    assert host.headlines() == [
        "vm-duo is active on host vm, but its only record (cell nova) is hidden"
    ]


def test_image_properties_lost(host: RecordedHost) -> None:
    _without_row(host, "instance_system_metadata", host.uuid("vm-duo"))

    [found] = host.report().findings
    assert found.check.name == "image-properties-lost"
    assert {one.check.name for one in found.folded} == {"image-record-differs"}


def test_image_properties_lost_of_a_server_that_boots_from_a_volume(host: RecordedHost) -> None:
    _without_row(host, "instance_system_metadata", host.uuid("vm-bfv"))

    assert host.headlines() == [
        "vm-bfv boots from a volume, but nova has none of the image's properties"
    ]


def test_launch_host_unknown(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-duo"), launched_on="vm-old")

    assert host.headlines() == [
        "vm-duo is on host vm, but was last built on vm-old, and no migration leads from there"
    ]


def test_a_request_for_devices_of_another_server_is_found(host: RecordedHost) -> None:
    uuid, other = host.uuid("vm-duo"), host.uuid("vm-plain")
    instance = host.guest("vm-duo").instance
    assert instance is not None and instance.tables is not None
    [(_, row)] = instance.tables.each("request_specs", uuid)
    spec = json.loads(str(row.cells["spec"]))
    spec["nova_object.data"]["pci_requests"] = {
        "nova_object.name": "InstancePCIRequests",
        "nova_object.data": {"instance_uuid": other, "requests": []},
    }
    host.row("request_specs", uuid, spec=json.dumps(spec))

    [headline] = host.headlines()
    assert headline == f"vm-duo's request spec holds the pci_requests of vm-plain ({other[:8]})"


def test_a_card_of_another_server_is_found(host: RecordedHost) -> None:
    instance, other = host.guest("vm-duo").instance, host.guest("vm-plain").ports
    assert instance is not None and other
    host.row("virtual_interfaces", host.uuid("vm-duo"), uuid=other[0].id)

    assert any(
        line
        == f"vm-duo's row in virtual_interfaces has port {other[0].id[:8]}, which belongs to vm-plain"
        " in neutron"
        for line in host.headlines()
    )
