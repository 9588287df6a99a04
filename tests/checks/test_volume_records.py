"""Records of a volume: cinder's, nova's, and the definition of the guest's disk."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.checks.test_attachments import NOBODY, named, row_of, volume_says
from tests.checks.test_volumes import disk as block_device
from tests.checks.test_volumes import encrypt, encrypted, on_iscsi, shareable
from tests.conftest import RecordedHost, changes

from hoodsnap.checks.volume_records import volume_disk_differs, volume_record_differs


def connected(host: RecordedHost, volume: str, data: dict[str, Any], **fields: Any) -> None:
    """Change nova's connection_info of a volume."""
    info = json.loads(row_of(host, volume)["connection_info"])
    info["data"] |= data
    host.mapping(volume, connection_info=json.dumps(info | fields))


def attached(host: RecordedHost, volume: str, **fields: Any) -> None:
    """Change the volume's own list of attachments."""

    def change(what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what != "volume" or body["id"] != volume:
            return body
        return body | {"attachments": [one | fields for one in body["attachments"]]}

    host.cinder(change)


def of(host: RecordedHost, name: str) -> list[str]:
    return [one.headline for one in host.report().findings if one.check.name == name]


def test_volume_record_differs(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    connected(host, volume, {"access_mode": "ro"})

    assert of(host, volume_record_differs.name) == [
        "vm-data's volume data-vol's access mode is rw in cinder's attachment, but ro in nova's"
        " connection_info"
    ]


@pytest.mark.parametrize(
    "fields", [{"device": "/dev/vdq"}, {"server_id": NOBODY}, {"id": NOBODY}, {"volume_id": NOBODY}]
)
def test_the_volumes_own_list_is_compared(host: RecordedHost, fields: dict[str, Any]) -> None:
    volume, _ = host.volume("vm-data")
    attached(host, volume, **fields)

    assert "volume-record-differs of vm-data" in named(host)


@pytest.mark.parametrize("device", ["na", "", None])
def test_cinder_need_not_know_the_device(host: RecordedHost, device: str | None) -> None:
    volume, _ = host.volume("vm-data")
    attached(host, volume, device=device)

    assert host.findings() == []


@pytest.mark.parametrize("fields", [{"volume_id": NOBODY}, {"instance": NOBODY}])
def test_the_connection_is_of_this_volume_and_server(
    host: RecordedHost, fields: dict[str, Any]
) -> None:
    volume, _ = host.volume("vm-data")
    connected(host, volume, {}, **fields)

    assert named(host) == ["volume-record-differs of vm-data"]


def test_a_volume_that_was_moved_has_another_id_and_name(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, **{"os-vol-mig-status-attr:name_id": NOBODY})
    connected(host, volume, {"name": f"volume-{NOBODY}"}, volume_id=NOBODY)

    assert "volume-record-differs of vm-data" not in named(host)


def test_a_volume_of_another_project_is_a_note(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, **{"os-vol-tenant-attr:tenant_id": "0" * 32})

    assert [found.severity.word for found in host.report().findings] == ["note"]
    assert host.headlines()[0].startswith("vm-data's volume data-vol's project is ")


def test_the_api_lists_the_volumes_of_the_database(host: RecordedHost) -> None:
    host.server(host.uuid("vm-data"), volumes_attached=[{"id": NOBODY}])

    assert named(host) == ["volume-record-differs of vm-data"]


def test_a_tenants_view_has_no_connection(host: RecordedHost) -> None:
    def change(what: str, body: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in body.items() if key != "connection_info"}

    host.cinder(change)

    assert host.findings() == []


def test_volume_disk_differs(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    live = f"virsh dumpxml {host.domain('vm-data')}"
    serial = f"<serial>{volume}</serial>"
    host.edit("libvirt", live, serial, f"{serial}<readonly/>")

    assert of(host, volume_disk_differs.name) == [
        "vm-data's volume data-vol, disk vdb, can't be written, but its access mode is rw"
    ]


def test_a_guest_that_writes_to_a_read_only_volume_is_an_error(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    connected(host, volume, {"access_mode": "ro"})

    [found] = [one for one in host.report().everything() if one.check is volume_disk_differs]
    assert found.severity.word == "error"


def test_a_multiattach_volume_is_shareable(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, multiattach=True)

    assert host.headlines() == [
        "vm-data's volume data-vol, disk vdb, is not shareable, but the volume is multiattach"
    ]
    shareable(host, volume)
    assert host.findings() == []


def test_a_volume_that_is_encrypted_only_in_cinder(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    encrypted(host, volume)

    assert host.headlines() == [
        "vm-data's volume data-vol, disk vdb, is written in plain text, but cinder has the volume"
        " as encrypted"
    ]


def test_an_encrypted_volume_whose_key_libvirt_has(host: RecordedHost) -> None:
    encrypt(host)
    host.set("libvirt", "virsh secret-list", [{"uuid": NOBODY, "usage_type": 1}])

    assert host.findings() == []


def test_a_path_in_another_folder(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    connected(host, volume, {"device_path": f"/mnt/volume-{volume}"})

    [headline] = of(host, volume_disk_differs.name)
    assert headline.endswith(f"but nova's connection_info has it as /mnt/volume-{volume}")


def test_a_file_of_a_volumes_snapshot_is_beside_the_volume(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    live = f"virsh dumpxml {host.domain('vm-data')}"
    host.edit("libvirt", live, f"/volume-{volume}'", f"/volume-{volume}.{NOBODY}'")

    assert "volume-disk-differs of vm-data" not in named(host)


def test_another_device_in_the_guest_is_a_note(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, device_name="/dev/vdq")
    attached(host, volume, device="/dev/vdq")

    assert [found.severity.word for found in host.report().findings] == ["note"]
    assert host.headlines() == ["vm-data's volume data-vol, disk vdb, is /dev/vdq in nova"]
    [command] = changes(host.found("volume-disk-differs"))
    assert command.startswith(
        "UPDATE nova.block_device_mapping SET device_name = '/dev/vdb' WHERE id = "
    )


def test_a_refresh_does_not_change_the_device_name(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, device_name="/dev/vdq")

    [command] = changes(host.found("volume-record-differs"))
    assert command.startswith("UPDATE nova.block_device_mapping SET device_name = '/dev/vdb'")


def cache(host: RecordedHost, mode: str) -> None:
    """Give vm-plain's disk a cache mode, with which its QEMU was started."""
    for query in ("virsh dumpxml", "virsh dumpxml --inactive"):
        domain = f"{query} {host.domain('vm-plain')}"
        xml = str(host.last("libvirt", domain).value)
        host.set("libvirt", domain, re.sub(" cache='[a-z]*'", f" cache='{mode}'", xml, count=1))
    started = f"/proc/{host.pid('vm-plain')}/cmdline"
    ignored = "true" if mode == "unsafe" else "false"
    argv = str(host.last("kernel", started).value)
    argv = re.sub('"direct":[a-z]*,"no-flush":[a-z]*', f'"direct":false,"no-flush":{ignored}', argv)
    host.set("kernel", started, argv)


def test_disk_cache_mode_differs(host: RecordedHost) -> None:
    host.conf("libvirt", disk_cachemodes="file=writethrough,network=writeback")

    found = host.report().findings
    assert {one.check.name for one in found} == {"disk-cache-mode-differs"}
    assert {one.severity.word for one in found} == {"note"}


def test_a_disk_that_ignores_flushes_is_a_warning(host: RecordedHost) -> None:
    cache(host, "unsafe")

    assert host.headlines() == [
        "vm-plain's disk vda has cache mode unsafe, but nova.conf sets none"
    ]
    assert [one.severity.word for one in host.report().findings] == ["warning"]


def test_novas_own_choice_of_a_cache_mode_is_no_finding(host: RecordedHost) -> None:
    cache(host, "writeback")

    assert host.findings() == []


CRYPT = block_device("dm-7", "254:7", "") | {"name": "crypt-sdb", "type": "crypt", "wwn": None}


@pytest.mark.parametrize(
    ("source", "opened", "is_plain"),
    [
        ("/dev/mapper/crypt-sdb", "254:7", False),
        ("/dev/sdb", "254:7", False),  # udev made the link to the device below again
        ("/dev/sdb", "8:16", True),
    ],
)
def test_a_volume_that_the_host_encrypts(
    host: RecordedHost, source: str, opened: str, is_plain: bool
) -> None:
    volume, _ = host.volume("vm-data")
    encrypted(host, volume)
    cinders = host.bundle.by_layer["cinder"]
    on_iscsi(host, source, [block_device("sdb", "8:16", "0x1", CRYPT)])
    for answer in cinders:
        host.add(answer)
    block = {"path": source, "rdev": opened, "mode": "60660"}
    host.hold("vm-data", lambda file: file | block if volume in file["path"] else file)

    said = [line for line in host.headlines() if "plain text" in line]
    assert len(said) == is_plain


@pytest.mark.parametrize("both", [True, False])
def test_a_snapshot_of_a_volume_in_a_file_changes_its_name(host: RecordedHost, both: bool) -> None:
    """nova stores the new file's name, and cinder's attachment may keep the old one."""
    volume, _ = host.volume("vm-data")
    file = f"volume-{volume}.{NOBODY}"
    connected(host, volume, {"name": file, "format": "qcow2"})
    if both:
        host.cinder(
            lambda what, body: (
                body
                | {"connection_info": body["connection_info"] | {"name": file, "format": "qcow2"}}
                if what == "attachment" and body["volume_id"] == volume
                else body
            )
        )
    live = f"virsh dumpxml {host.domain('vm-data')}"
    host.edit("libvirt", live, f"/volume-{volume}'", f"/{file}'")

    assert not {volume_record_differs, volume_disk_differs} & {
        found.check for found in host.report().everything()
    }


def test_a_file_of_another_volume_is_not_a_snapshots(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    connected(host, volume, {"name": f"volume-{NOBODY}"})

    assert of(host, volume_record_differs.name) != []


def test_the_api_shows_what_happens_to_a_volume_at_the_end(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    attached = [{"id": volume, "delete_on_termination": True}]
    host.server(host.uuid("vm-data"), volumes_attached=attached)

    assert host.headlines() == [
        "vm-data's list of volumes that are deleted with it is empty in nova's database, but "
        f"{volume[:8]} in nova's API"
    ]


def test_before_2_3_the_api_does_not_tell_what_happens_to_a_volume(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, delete_on_termination=1)
    host.server(host.uuid("vm-data"), volumes_attached=[{"id": volume}])

    assert host.findings() == []
