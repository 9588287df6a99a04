"""Services, compute nodes and cells of hosts in the nova database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.database.service import HostRecords
from hoodsnap.facts.fact import UnheardError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def rows(table: str, *found: dict[str, object], database: str = "nova") -> Answer:
    columns = [*found[0]] if found else ["id", "host"]
    value = {"columns": columns, "rows": [[*row.values()] for row in found]}
    query = f"SELECT {', '.join(columns)} FROM {database}.{table}"
    return Answer(layer="nova-db", host="vm", query=query, at=NOON, took=0.1, value=value)


def service(**cells: object) -> dict[str, object]:
    return {"id": 1, "host": "vm", "binary": "nova-compute", "deleted": 0, **cells}


def records(*answers: Answer) -> HostRecords:
    return Instances(answers).hosts


def test_evidence_names_the_row_of_a_service() -> None:
    [found] = records(rows("services", service(id=5, forced_down=1))).services_of("vm")

    assert found.forced_down
    assert found.where("forced_down")[1] == "nova.services[id=5].forced_down"


def test_services_of_a_host_are_its_live_nova_compute_rows() -> None:
    said = rows(
        "services",
        service(id=1, binary="nova-conductor"),
        service(id=2, deleted=2),
        service(id=3, host="other"),
        service(id=4),
    )

    assert [found.id for found in records(said).services_of("vm")] == [4]
    assert records(said).services_of("nobody") == ()


def test_a_table_that_was_not_collected_proves_nothing() -> None:
    with pytest.raises(UnheardError, match="the services table was not collected"):
        records().services_of("vm")


def test_a_table_that_was_denied_proves_nothing() -> None:
    error = Failure(kind="denied", message="SELECT command denied")
    query = "SELECT id, host FROM nova.services"
    said = Answer(layer="nova-db", host="vm", query=query, at=NOON, took=0.1, error=error)

    with pytest.raises(UnheardError, match="SELECT command denied"):
        records(said).services_of("vm")


def test_a_cell_that_was_not_collected_may_have_the_host() -> None:
    cells = [
        {"id": 1, "uuid": "00000000-0000-0000-0000-000000000000", "database_name": "nova_cell0"},
        {"id": 2, "uuid": "f6897c24-9cbd-419f-b921-883cf03984b4", "database_name": "nova"},
        {"id": 3, "uuid": "0c16b4d3-1c1b-4c55-9b4c-9e2a47f4f3ab", "database_name": "nova_two"},
    ]
    said = [rows("cell_mappings", *cells, database="nova_api"), rows("services", service())]

    assert len(records(*said).services_of("vm")) == 1
    with pytest.raises(UnheardError, match="cell nova_two was not collected"):
        records(*said).services_of("other")


def test_a_compute_node_before_kilo_has_no_host() -> None:
    said = records(rows("compute_nodes", {"id": 1, "hypervisor_hostname": "vm", "deleted": 0}))

    assert [node.hypervisor_hostname for node in said.nodes] == ["vm"]
    with pytest.raises(UnheardError, match="host was not collected"):
        said.nodes_of("vm")


def test_the_recorded_host_is_known_to_nova(host: RecordedHost) -> None:
    [captured] = host.report().cloud.hosts

    assert captured.service is not None
    assert captured.service.host == captured.nova_name
    assert captured.node is not None
    assert captured.node.uuid is not None


def test_one_uuid_on_two_hosts_has_a_twin(host: RecordedHost) -> None:
    """Two bundles are joined: the second host has the same domain."""
    uuid, name = host.uuid("vm-plain"), host.domain("vm-plain")
    there = [
        answer.model_copy(update={"host": "other"})
        for answer in host.bundle.by_layer["libvirt"]
        if answer.subject == uuid or answer.query.endswith(name)
    ]
    for answer in there:
        host.add(answer)

    cloud = host.report().cloud

    here, other = cloud.twins(uuid)
    assert here.host is not None and other.host is not None
    assert {here.host.name, other.host.name} == {
        host.last("libvirt", "virsh list --all").host,
        "other",
    }
    assert [[twin.host for twin in guest.twins] for guest in (here, other)] == [
        [other.host],
        [here.host],
    ]
    assert all(not guest.twins for guest in cloud.guests if guest.uuid != uuid)
