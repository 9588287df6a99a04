"""What an evacuated server still holds on the host that it left."""

from __future__ import annotations

from tests.checks.test_moves import move
from tests.checks.test_placement import second_host
from tests.conftest import RecordedHost


def test_evacuated_allocation_left(host: RecordedHost) -> None:
    second_host(host, "other", host.uuid("vm-plain"))
    move(
        host,
        "vm-plain",
        migration_type="evacuation",
        status="done",
        source_compute="other",
        source_node="other",
        dest_compute="vm",
    )

    assert [one for one in host.headlines() if "evacuated" in one] == [
        "vm-plain was evacuated from other to vm, but still holds resources of other since"
        " 2026-11-23 01:00 (2 d 17 h)"
    ]


def test_an_evacuation_of_this_minute_needs_no_note(host: RecordedHost) -> None:
    second_host(host, "other", host.uuid("vm-plain"))
    move(
        host,
        "vm-plain",
        migration_type="evacuation",
        status="done",
        source_compute="other",
        source_node="other",
        dest_compute="vm",
        updated_at=f"{host.bundle.started:%Y-%m-%d %H:%M:%S}",
    )

    assert "evacuated-allocation-left" not in "".join(host.findings())
