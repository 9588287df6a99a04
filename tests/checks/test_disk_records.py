"""nova's block device mappings, and the disks that the guests have."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost

OTHER = "f3e17f37-380d-4dd6-beb2-82a6d786c064"


def _root(host: RecordedHost, name: str, **cells: object) -> None:
    uuid = host.uuid(name)

    def change(row: dict[str, Any]) -> list[dict[str, Any]]:
        is_root = row["instance_uuid"] == uuid and row.get("boot_index") == 0
        return [row | cells] if is_root else [row]

    host.mappings(change)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"device_type": "cdrom"}, "disk vda has device type disk, but cdrom in nova's"),
        ({"encrypted": 1}, "disk vda has encryption none, but a secret in nova's"),
    ],
)
def test_disk_record_differs(host: RecordedHost, cells: dict[str, object], words: str) -> None:
    _root(host, "vm-plain", **cells)

    assert host.headlines() == [f"vm-plain's {words} block device mapping"]


def test_the_bus_of_a_volume_is_compared(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, disk_bus="scsi")

    assert host.headlines() == [
        "vm-data's disk vdb has bus virtio, but scsi in nova's block device mapping"
    ]


@pytest.mark.parametrize("cells", [{"device_type": None}, {"encrypted": None}, {"disk_bus": None}])
def test_what_a_mapping_leaves_open_is_not_compared(
    host: RecordedHost, cells: dict[str, object]
) -> None:
    _root(host, "vm-plain", **cells)

    assert host.findings() == []


def test_a_mapping_with_another_image_is_a_note(host: RecordedHost) -> None:
    _root(host, "vm-plain", image_id=OTHER)

    [finding] = [f for f in host.report().findings if f.check.name == "disk-record-differs"]
    assert finding.severity.word == "note"
    assert finding.headline.endswith(f"its block device mapping has image {OTHER[:8]}")


def test_a_rebuild_leaves_the_image_of_the_mapping(host: RecordedHost) -> None:
    _root(host, "vm-stopped", image_id=OTHER)
    host.row("instance_actions", host.uuid("vm-stopped"), action="rebuild")

    assert not any("disk-record-differs" in line for line in host.findings())
