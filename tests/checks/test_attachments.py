"""Volume attachments: nova's block device mappings, cinder's attachments, the guest's disks."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.findings.advice import instructions

NOBODY = "00000000-0000-4000-8000-000000000000"


def named(host: RecordedHost) -> list[str]:
    """Return `check of guest` for each finding, including folded ones."""
    found = [*host.findings(), *(line.partition("← ")[2] for line in host.folded())]
    return sorted({line.partition(":")[0] for line in found})


def row_of(host: RecordedHost, volume: str) -> dict[str, Any]:
    """Return the volume's row from the first recorded answer that holds it."""
    for answer in host.bundle.by_layer["nova-db"]:
        if ".block_device_mapping WHERE instance_uuid" in answer.query and answer.value:
            columns = answer.value["columns"]
            for row in answer.value["rows"]:
                cells = dict(zip(columns, row, strict=True))
                if cells.get("volume_id") == volume and "connection_info" in cells:
                    return cells
    raise AssertionError("the recording has no row of that volume")


def connection(host: RecordedHost, volume: str, **changed: Any) -> str:
    return json.dumps(json.loads(row_of(host, volume)["connection_info"]) | changed)


def busy(host: RecordedHost, guest: str = "vm-data") -> None:
    """Set a task state, as while nova works on the guest."""
    uuid = host.uuid(guest)
    host.row("instances", uuid, task_state="rebuilding")


def moving(host: RecordedHost, volume: str, status: str = "detaching") -> None:
    """Let cinder have started an operation on the volume just now."""
    asked = host.last("cinder", "GET /v3/volumes/detail?all_tenants=True [3.70]").at

    def change(what: str, body: dict[str, Any]) -> dict[str, Any]:
        mine = what == "volume" and body["id"] == volume
        now = f"{asked:%Y-%m-%dT%H:%M:%S}"
        return body | {"status": status, "updated_at": now} if mine else body

    host.cinder(change)


def volume_says(host: RecordedHost, volume: str, **fields: Any) -> None:
    def change(what: str, body: dict[str, Any]) -> dict[str, Any]:
        return body | fields if what == "volume" and body["id"] == volume else body

    host.cinder(change)


def unplug(host: RecordedHost, guest: str, volume: str) -> None:
    """Remove the volume's disk from the running domain's XML."""
    live = f"virsh dumpxml {host.domain(guest)}"
    xml = host.last("libvirt", live).value
    start = xml.rindex("<disk ", 0, xml.index(f"<serial>{volume}"))
    end = xml.index("</disk>", start) + len("</disk>")
    host.set("libvirt", live, xml[:start] + xml[end:])


def test_bdm_attachment_or_volume_missing(host: RecordedHost) -> None:
    volume, attachment = host.volume("vm-data")
    host.no_longer("attachments", attachment)

    assert host.findings() == [
        f"bdm-attachment-or-volume-missing of vm-data: bdm reports volume_id = {volume},"
        f" attachment_id = {attachment}; cinder reports no attachment"
    ]
    assert host.headlines() == [
        f"vm-data has volume data-vol in nova, but cinder has no attachment {attachment[:8]}"
    ]


def test_bdm_attachment_or_volume_missing_of_a_volume(host: RecordedHost) -> None:
    volume, attachment = host.volume("vm-data")
    host.no_longer("volumes", volume)
    host.cinder(lambda what, body: None if body["id"] == attachment else body)

    assert named(host) == [
        "bdm-attachment-or-volume-missing of vm-data",
        "volume-free-in-cinder-but-open of vm-data",
    ]


def test_an_attachment_of_another_server_does_not_count(host: RecordedHost) -> None:
    _, attachment = host.volume("vm-data")
    other = host.uuid("vm-plain")
    host.cinder(
        lambda what, body: (
            body | {"instance": other}
            if what == "attachment" and body["id"] == attachment
            else body
        )
    )

    assert "bdm-attachment-or-volume-missing of vm-data" in named(host)


def test_a_tenants_404_does_not_prove_that_a_volume_is_missing(host: RecordedHost) -> None:
    _, attachment = host.volume("vm-data")
    host.no_longer("attachments", attachment)
    host.drop(lambda answer: answer.query != "GET /v3/os-services [3.70]")

    assert host.findings() == []


def test_a_mapping_from_before_queens_has_no_attachment(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, attachment_id=None)

    assert host.findings() == []


def test_a_server_with_a_task_in_flight_may_have_half_an_attachment(host: RecordedHost) -> None:
    _, attachment = host.volume("vm-data")
    host.no_longer("attachments", attachment)
    busy(host)

    assert host.findings() == []


@pytest.mark.parametrize("vm_state", ["building", "error"])
def test_a_server_that_never_ran_may_have_half_an_attachment(
    host: RecordedHost, vm_state: str
) -> None:
    _, attachment = host.volume("vm-data")
    host.no_longer("attachments", attachment)
    host.row("instances", host.uuid("vm-data"), vm_state=vm_state)
    host.row("instances", host.uuid("vm-data"), launched_at=None)

    assert "bdm-attachment-or-volume-missing of vm-data" not in named(host)


def test_cinder_attachment_without_bdm(host: RecordedHost) -> None:
    volume, attachment = host.volume("vm-data")
    uuid, other = host.uuid("vm-data"), host.uuid("vm-plain")
    more = {"id": NOBODY, "status": "attached", "instance": other, "volume_id": NOBODY}
    listed = "GET /v3/attachments/detail?all_tenants=True [3.70]"
    shown = host.last("cinder", listed).value["attachments"]
    host.set("cinder", listed, {"attachments": [*shown, more]})

    assert host.findings() == [
        f"cinder-attachment-without-bdm of vm-plain: attachment reports id = {NOBODY},"
        f" status = attached, instance = {other}, volume_id = {NOBODY};"
        " nova-db reports no block_device_mapping"
    ]
    assert uuid != other and attachment and volume
    assert host.headlines() == [
        "cinder has volume 00000000 attached to vm-plain, but nova has no block device mapping for it"
    ]


def test_cinder_attachment_without_bdm_next_to_the_right_one(host: RecordedHost) -> None:
    volume, attachment = host.volume("vm-data")
    more = {"id": NOBODY, "status": "attached", "instance": host.uuid("vm-data")}
    listed = "GET /v3/attachments/detail?all_tenants=True [3.70]"
    shown = host.last("cinder", listed).value["attachments"]
    host.set("cinder", listed, {"attachments": [*shown, more | {"volume_id": volume}]})

    [finding] = host.findings()
    assert finding.startswith(
        f"cinder-attachment-without-bdm of vm-data: attachment reports id = {NOBODY}"
    )
    assert finding.endswith(f"bdm reports volume_id = {volume}, attachment_id = {attachment}")


@pytest.mark.parametrize(("status", "is_second"), [("reserved", True), ("attached", False)])
def test_a_reserved_attachment_next_to_the_right_one_carries_nothing(
    host: RecordedHost, status: str, is_second: bool
) -> None:
    """The guest has the volume by the other one, so the advice must not wait until it has not."""
    volume, _ = host.volume("vm-data")
    more = {"id": NOBODY, "status": status, "instance": host.uuid("vm-data"), "volume_id": volume}
    listed = "GET /v3/attachments/detail?all_tenants=True [3.70]"
    shown = host.last("cinder", listed).value["attachments"]
    host.set("cinder", listed, {"attachments": [*shown, more]})

    found = host.found("cinder-attachment-without-bdm")
    delete = f"cinder --os-volume-api-version 3.27 attachment-delete {NOBODY}"
    assert changes(found) == [delete]
    told = " ".join(step.prose for step in instructions(found) if step.prose)
    assert ("delete only this other one" in told) is is_second
    assert ("neither the guest nor a process" in told) is not is_second


def test_a_volume_being_detached_may_lack_its_mapping(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mappings(lambda row: [] if row["volume_id"] == volume else [row])
    moving(host, volume)

    assert host.findings() == []


def test_a_volume_attached_during_the_capture_may_be_missing_in_libvirt(
    host: RecordedHost,
) -> None:
    volume, _ = host.volume("vm-data")
    unplug(host, "vm-data", volume)
    asked = host.last("cinder", "GET /v3/volumes/detail?all_tenants=True [3.70]").at
    new = {"created_at": f"{asked:%Y-%m-%d %H:%M:%S}"}
    host.mappings(lambda row: [row | new] if row["volume_id"] == volume else [row])

    assert named(host) == ["chain-live-vs-persistent of vm-data"]


def test_a_volume_stuck_in_detaching_is_reported(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mappings(lambda row: [] if row["volume_id"] == volume else [row])
    moving(host, volume)
    volume_says(host, volume, updated_at="2001-01-01T00:00:00.000000")

    assert named(host) == [
        "cinder-attachment-without-bdm of vm-data",
        "guest-volume-not-in-bdm of vm-data",
        "volume-record-differs of vm-data",
        "volume-stuck of vm-data",
    ]


def test_bdm_not_in_guest(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    unplug(host, "vm-data", volume)

    assert (
        f"bdm-not-in-guest of vm-data: bdm reports volume_id = {volume}, device_name = /dev/vdb;"
        " domain reports disks = vda"
    ) in host.findings()
    assert (
        "nova has volume data-vol attached to vm-data as /dev/vdb, but the guest has only vda"
    ) in host.headlines()


def test_an_ejected_medium_still_belongs_to_the_server(host: RecordedHost) -> None:
    """The server boots from a CD image; the empty drive keeps the volume's serial number."""
    volume, _ = host.volume("vm-data")
    for query in ("virsh dumpxml", "virsh dumpxml --inactive"):
        name = f"{query} {host.domain('vm-data')}"
        xml = host.last("libvirt", name).value
        disk = next(one for one in re.findall(r"<disk .*?</disk>", xml, re.S) if volume in one)
        ejected = re.sub(r"<source [^>]*/>|<source .*?</source>", "", disk, flags=re.S)
        ejected = ejected.replace("device='disk'", "device='cdrom'")
        host.set("libvirt", name, xml.replace(disk, ejected))

    assert "bdm-not-in-guest of vm-data" not in named(host)


def test_a_rescued_server_runs_without_its_volumes(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    unplug(host, "vm-data", volume)
    host.row("instances", host.uuid("vm-data"), vm_state="rescued")

    assert "bdm-not-in-guest of vm-data" not in named(host)


def test_a_disk_without_serial_is_recognized_by_its_source(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    live = f"virsh dumpxml {host.domain('vm-data')}"
    host.edit("libvirt", live, f"<serial>{volume}</serial>", "")

    assert "bdm-not-in-guest of vm-data" not in named(host)


def test_guest_volume_not_in_bdm(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mappings(lambda row: [] if row["volume_id"] == volume else [row])

    [plugged] = host.findings()
    attached, listed = host.folded()
    assert listed.startswith("guest-volume-not-in-bdm ← volume-record-differs of vm-data: ")
    assert attached.startswith(
        "guest-volume-not-in-bdm ← cinder-attachment-without-bdm of vm-data: "
    )
    assert plugged.startswith(
        "guest-volume-not-in-bdm of vm-data: domain reports disks = vdb /var/lib"
    )
    assert plugged.endswith(f"volume = {volume}; nova-db reports no block_device_mapping")
    assert host.headlines()[0] == (
        "vm-data runs with volume data-vol as vdb, but nova has no block device mapping for it"
    )


def test_guest_volume_not_in_bdm_for_a_disk_that_is_not_a_volume(host: RecordedHost) -> None:
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    disk = "<disk type='file' device='disk'><source file='/tmp/x'/><target dev='vdz'/></disk>"
    host.edit("libvirt", live, "</devices>", f"{disk}</devices>")

    found = [line for line in host.findings() if line.startswith("guest-volume-not-in-bdm")]
    assert found == [
        "guest-volume-not-in-bdm of vm-plain: domain reports disks = vdz /tmp/x, no volume;"
        " nova-db reports no block_device_mapping"
    ]


def test_a_cdrom_is_not_a_volume(host: RecordedHost) -> None:
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    disk = "<disk type='file' device='cdrom'><source file='/tmp/x'/><target dev='sda'/></disk>"
    host.edit("libvirt", live, "</devices>", f"{disk}</devices>")

    assert "guest-volume-not-in-bdm of vm-plain" not in named(host)


def deleted(host: RecordedHost, at: str = "2001-01-01 00:00:00") -> str:
    """Set when vm-deleted was deleted, leave it a volume, and return its UUID."""
    [uuid] = [
        row[0]
        for answer in host.bundle.by_layer["nova-db"]
        if " FROM nova.instances " in answer.query and "display_name" in answer.query
        for row in [
            [dict(zip(answer.value["columns"], row, strict=True))["uuid"]]
            for row in answer.value["rows"]
            if "vm-deleted" in row
        ]
    ]
    host.row("instances", str(uuid), deleted_at=at)
    volume, _ = host.volume("vm-data")
    left = row_of(host, volume) | {"id": 999, "instance_uuid": uuid, "volume_id": NOBODY}
    host.mappings(
        lambda row: (
            [row, {name: left.get(name) for name in row}] if row["volume_id"] == volume else [row]
        )
    )
    return str(uuid)


def test_bdm_alive_for_deleted_instance(host: RecordedHost) -> None:
    uuid = deleted(host)

    assert host.findings() == [
        f"bdm-alive-for-deleted-instance: instance reports uuid = {uuid},"
        f" deleted_at = 2001-01-01 00:00:00; bdm reports volume_id = {NOBODY},"
        " device_name = /dev/vdb"
    ]
    assert host.headlines() == [
        "Volume 00000000 is still attached to the deleted server vm-deleted in nova"
        " (deleted at 2001-01-01 00:00)"
    ]


def test_a_server_deleted_just_now_may_still_have_its_volume(host: RecordedHost) -> None:
    deleted(host, f"{host.bundle.started:%Y-%m-%d %H:%M:%S}")

    assert host.findings() == []


def test_attachment_host_mismatch(host: RecordedHost) -> None:
    volume, attachment = host.volume("vm-data")
    on_host(host, volume, "elsewhere")

    here = host.guest("vm-data").believed
    [finding] = host.findings()
    assert finding == (
        f"attachment-host-mismatch of vm-data: instance reports host = {here};"
        f" attachment reports id = {attachment}, volume_id = {volume}, host = elsewhere"
    )
    assert (
        host.report().findings[0].severity.word == "warning"
    )  # NFS: every host can reach the volume
    assert host.headlines() == [
        "cinder has vm-data's volume data-vol attached to host elsewhere, but nova has vm-data on vm"
    ]


def on_host(host: RecordedHost, volume: str, name: str) -> None:
    def change(what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what != "volume" or body["id"] != volume:
            return body
        return body | {"attachments": [one | {"host_name": name} for one in body["attachments"]]}

    host.cinder(change)


def test_a_fully_qualified_name_is_the_same_host(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    on_host(host, volume, f"{host.guest('vm-data').believed}.example.org".upper())

    assert host.findings() == []


@pytest.mark.parametrize(("hypervisor", "found"), [("QEMU", 1), ("ironic", 0), ("VMware", 0)])
def test_other_hypervisors_use_other_names_in_attachments(
    host: RecordedHost, hypervisor: str, found: int
) -> None:
    # The server is on a host that no bundle covers.
    volume, _ = host.volume("vm-data")
    here = host.guest("vm-data").host
    assert here is not None and here.node is not None
    on_host(host, volume, "elsewhere")
    host.drop(lambda answer: answer.layer not in ("libvirt", "kernel", "images", "network"))
    host.row("compute_nodes", str(here.node.uuid), hypervisor_type=hypervisor)

    lines = [line for line in host.findings() if line.startswith("attachment-host-mismatch")]
    assert len(lines) == found


def test_an_unconfirmed_resize_may_have_two_hosts(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    on_host(host, volume, "elsewhere")
    host.row("instances", host.uuid("vm-data"), vm_state="resized")

    assert "attachment-host-mismatch of vm-data" not in named(host)
