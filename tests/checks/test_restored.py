"""Records that a restore of a database brought back."""

from __future__ import annotations

import pytest
from tests.checks.test_identity import _undefine
from tests.checks.test_placement import hold
from tests.checks.test_records import _old
from tests.conftest import RecordedHost

BACK = "deleted-server-is-back"


def _deleted(host: RecordedHost, *left: str) -> str:
    """Delete vm-stopped everywhere but in its cell's database; keep what `left` names."""
    uuid = _old(host, "vm-stopped")
    [port] = host.ports("vm-stopped")
    if "folder" not in left:
        host.remove(host.folder("vm-stopped"))
    if "allocation" not in left:
        hold(host, uuid, None)
    if "port" not in left:
        host.unlist(port["id"])
    if "mark" not in left:
        host.row("instance_mappings", uuid, queued_for_delete=1)
    if "domain" not in left:
        _undefine(host, "vm-stopped")
    return uuid


def test_deleted_server_is_back(host: RecordedHost) -> None:
    uuid = _deleted(host)

    found = host.found(BACK)
    assert found.headline == (
        "vm-stopped was deleted, but its record is back as stopped: it has no domain, folder,"
        " allocation or port"
    )
    folded = {one.check.name for one in found.folded}
    assert {
        "server-without-domain",
        "server-without-disk",
        "instance-mapping-skew",
        "info-cache-lost",
        "allocation-missing",
    } <= folded
    others = {one.check.name for one in host.report().findings if one.guest is not None}
    assert others == {BACK}, f"nothing else is advised for {uuid}"


@pytest.mark.parametrize("left", ["domain", "folder", "allocation", "port", "mark"])
def test_a_server_that_has_something_left_was_not_deleted(host: RecordedHost, left: str) -> None:
    _deleted(host, left)

    assert BACK not in {one.check.name for one in host.report().findings}


@pytest.mark.parametrize("layer", ["images", "placement", "neutron"])
def test_a_layer_that_was_not_collected_proves_no_deletion(host: RecordedHost, layer: str) -> None:
    uuid = _deleted(host)
    host.silence(layer)

    report = host.report()
    assert BACK not in {one.check.name for one in report.findings}
    skipped = [skip.guest.uuid for skip in report.skips if skip.check.name == BACK and skip.guest]
    assert uuid in skipped


def test_a_server_in_error_may_be_back_too(host: RecordedHost) -> None:
    host.row("instances", _deleted(host), vm_state="error")

    assert "server-in-error" in {one.check.name for one in host.found(BACK).folded}


@pytest.mark.parametrize("state", ["soft-delete", "deleted"])
def test_a_deletion_that_goes_on_has_its_record(host: RecordedHost, state: str) -> None:
    host.row("instances", _deleted(host), vm_state=state)

    assert BACK not in {one.check.name for one in host.report().findings}
