"""nova's reservations of a host's PCI devices, against the servers that they name."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

NOBODY = "0d6c1f2a-1111-4222-8333-444455556666"


def _reserve(host: RecordedHost, owner: str, **fields: Any) -> None:
    """Reserve a PCI device of the host for a server, in the database's answer."""
    [answer] = [it for it in host.bundle.by_layer["nova-db"] if ".pci_devices" in it.query
                and it.query.startswith("SELECT")]  # fmt: skip
    columns = answer.value["columns"]
    row = {"id": 7, "compute_node_id": 1, "address": "0000:3b:00.1", "status": "allocated",
           "instance_uuid": owner, "deleted": 0} | fields  # fmt: skip
    rows = [[row.get(name) for name in columns]]
    host.set("nova-db", answer.query, {"columns": columns, "rows": rows})


def _deleted(host: RecordedHost) -> str:
    """Return the UUID of a server of this host whose row is marked as deleted."""
    rows = host.report().cloud.instances.by_uuid.values()
    return next(row.uuid for row in rows if row.deleted)


def test_pci_device_of_deleted_server(host: RecordedHost) -> None:
    gone = _deleted(host)
    _reserve(host, gone)
    host.row("instances", gone, deleted_at="2026-11-01 10:00:00")

    [finding] = host.report().findings
    assert finding.check.name == "pci-device-of-deleted-server"
    assert finding.headline is not None
    assert finding.headline.startswith(
        f"nova reserves the PCI device 0000:3b:00.1 of vm for {gone[:8]}, deleted since "
    )
    assert changes(finding) == ["systemctl restart nova-compute"]


def test_a_server_that_was_not_searched_is_not_judged(host: RecordedHost) -> None:
    _reserve(host, NOBODY)

    assert host.findings() == []
    assert any(it.check.name == "pci-device-of-deleted-server" for it in host.report().skips)


@pytest.mark.parametrize("fields", [{"status": "available"}, {"deleted": 7}])
def test_only_a_reserved_device_is_judged(host: RecordedHost, fields: dict[str, Any]) -> None:
    _reserve(host, _deleted(host), **fields)

    assert host.findings() == []
