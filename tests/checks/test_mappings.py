"""nova's block device mappings: each is complete, and one of them is the boot disk."""

from __future__ import annotations

from typing import Any

from tests.checks.test_attachments import NOBODY, connection, row_of, volume_says
from tests.conftest import RecordedHost, changes


def test_bdm_record_bad(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    number = row_of(host, volume)["id"]
    host.mappings(lambda row: [row, row | {"id": 999}] if row["volume_id"] == volume else [row])

    assert host.findings() == [
        f"bdm-record-bad of vm-data: bdm reports id = {number}, volume_id = {volume};"
        f" bdm reports id = 999, volume_id = {volume}"
    ]
    assert host.headlines() == [
        f"nova has 2 mappings of volume data-vol for vm-data: rows {number} and 999"
    ]
    assert changes(host.found("bdm-record-bad")) == [
        "UPDATE nova.block_device_mapping SET deleted = id, deleted_at = NOW() WHERE id = 999"
    ]


def test_the_row_without_an_attachment_in_cinder_is_the_surplus_one(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    number = row_of(host, volume)["id"]

    def doubled(row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["volume_id"] != volume:
            return [row]
        return [row | {"attachment_id": None, "device_name": "/dev/vdc"}, row | {"id": 999}]

    host.mappings(doubled)

    finding = host.found("bdm-record-bad")
    assert [line.rpartition(" ")[2] for line in changes(finding)] == [str(number)]
    assert {it.check.name for it in finding.folded} == {"volume-disk-differs"}


def test_a_surplus_row_is_no_lost_attachment(host: RecordedHost) -> None:
    """A new attachment would replace the one that the other row has."""
    volume, _ = host.volume("vm-data")
    number = row_of(host, volume)["id"]
    gone = {"id": 999, "attachment_id": NOBODY, "connection_info": None}
    host.mappings(lambda row: [row, row | gone] if row["volume_id"] == volume else [row])

    assert host.headlines() == [
        f"nova has 2 mappings of volume data-vol for vm-data: rows {number} and 999"
    ]
    assert changes(host.found("bdm-record-bad")) == [
        "UPDATE nova.block_device_mapping SET deleted = id, deleted_at = NOW() WHERE id = 999"
    ]


def test_bdm_record_bad_without_a_connection(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, connection_info=None)

    assert host.findings() == [
        "bdm-record-bad of vm-data: instance reports vm_state = active;"
        f" bdm reports volume_id = {volume}, no connection_info"
    ]


def test_bdm_record_bad_with_invalid_json(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, connection_info="[withheld]")

    assert host.findings() == [
        f"bdm-record-bad of vm-data: bdm reports volume_id = {volume}, connection_info = not valid JSON"
    ]


def test_bdm_record_bad_with_another_volumes_serial(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, connection_info=connection(host, volume, serial=NOBODY))

    assert host.findings() == [
        f"bdm-record-bad of vm-data: bdm reports volume_id = {volume},"
        f" connection_info = serial {NOBODY}"
    ]


def test_a_volume_migrated_by_cinder_keeps_its_old_serial(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, connection_info=connection(host, volume, serial=NOBODY))
    volume_says(host, volume, **{"os-vol-mig-status-attr:name_id": NOBODY})

    assert host.findings() == []


def test_bdm_record_bad_with_another_connection_than_cinders(host: RecordedHost) -> None:
    volume, attachment = host.volume("vm-data")
    host.mapping(volume, connection_info=connection(host, volume, driver_volume_type="rbd"))

    assert host.findings() == [
        f"bdm-record-bad of vm-data: bdm reports volume_id = {volume},"
        f" connection_info = driver_volume_type rbd; attachment reports id = {attachment},"
        " connection_info = driver_volume_type nfs"
    ]


def test_root_bdm_broken(host: RecordedHost) -> None:
    uuid = host.uuid("vm-bfv")
    host.mappings(lambda row: [row | _index(row, 3)] if row["instance_uuid"] == uuid else [row])

    assert [line.partition("; bdm")[0] for line in host.findings()] == [
        "root-bdm-broken of vm-bfv: instance reports no image"
    ]
    assert host.headlines() == ["nova has no boot disk of vm-bfv: 0 of 1 rows have boot_index 0"]


def _index(row: dict[str, Any], index: int) -> dict[str, Any]:
    return {"boot_index": index} if "boot_index" in row else {}


def test_root_bdm_broken_with_two_roots(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, boot_index=0)

    [finding] = [line for line in host.findings() if line.startswith("root-bdm-broken")]
    assert finding.count("boot_index = 0") == 2


def test_root_bdm_broken_with_a_volume_that_is_not_bootable(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-bfv")
    volume_says(host, volume, bootable="false")

    assert host.findings() == [
        f"root-bdm-broken of vm-bfv: bdm reports boot_index = 0, volume_id = {volume};"
        f" volume reports id = {volume}, bootable = False"
    ]


def test_root_bdm_broken_without_any_row(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.mappings(lambda row: [] if row["instance_uuid"] == uuid else [row])

    assert host.headlines() == ["nova has no disk of vm-plain, not even its boot disk"]
    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("root-bdm-broken", "warning")
    assert changes(finding) == []


def test_root_bdm_broken_if_the_row_is_marked_as_deleted(host: RecordedHost) -> None:
    uuid = host.uuid("vm-bfv")

    def deleted(row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["instance_uuid"] != uuid:
            return [row]
        return [row | {"deleted": row["id"]}] if "source_type" in row else []

    host.mappings(deleted)

    finding = host.found("root-bdm-broken")
    assert "is marked as deleted" in str(finding.headline)
    assert finding.severity.word == "error"
    [command] = changes(finding)
    assert command.startswith("UPDATE nova.block_device_mapping SET deleted = 0")


def test_a_server_without_any_row_predates_block_device_mappings(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.mappings(lambda row: [] if row["instance_uuid"] == uuid else [row])
    host.row("instances", uuid, created_at="2012-11-05 10:00:00")

    assert "root-bdm-broken" not in "".join(host.findings())
