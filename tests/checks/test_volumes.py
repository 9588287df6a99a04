"""Volumes and their owners.

The lab's guests have no block devices, so the answers of the host's tools for iSCSI and multipath
are written here as in the tools' documentation.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.checks.test_attachments import (
    NOBODY,
    busy,
    connection,
    moving,
    named,
    row_of,
    volume_says,
)
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer
from hoodsnap.findings.advice import instructions

TARGET = "iqn.2010-10.org.openstack:volume-x"


def second_attachment(host: RecordedHost, volume: str, server: str) -> None:
    more = {"id": NOBODY, "status": "attached", "instance": server, "volume_id": volume}
    listed = "GET /v3/attachments/detail?all_tenants=True [3.70]"
    shown = host.last("cinder", listed).value["attachments"]
    host.set("cinder", listed, {"attachments": [*shown, more]})


def test_volume_attached_twice(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    second_attachment(host, volume, host.uuid("vm-plain"))

    assert named(host) == [
        "cinder-attachment-without-bdm of vm-plain",
        "volume-attached-twice of vm-data",
        "volume-attached-twice of vm-plain",
    ]
    one, *_ = host.report().findings
    steps = [command.text for step in instructions(one) for command in step.commands]
    assert f"cinder --os-volume-api-version 3.27 attachment-delete {NOBODY}" in steps
    assert not any("remove volume" in step for step in steps)
    assert host.headlines()[:2] == [
        "Volume data-vol is attached to vm-data and vm-plain, but is not multiattach; only vm-data uses it",
        "Volume data-vol is attached to vm-plain and vm-data, but is not multiattach; only vm-data uses it",
    ]


def test_volume_attached_twice_by_two_rows(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    other = {"id": 999, "instance_uuid": host.uuid("vm-plain")}
    host.mappings(lambda row: [row, row | other] if row["volume_id"] == volume else [row])

    assert "volume-attached-twice of vm-data" in named(host)
    assert "volume-attached-twice of vm-plain" in named(host)


@pytest.mark.parametrize("name", ["instance", "volume_id", "status", "id"])
def test_an_unreadable_attachment_may_belong_to_any_server(host: RecordedHost, name: str) -> None:
    volume, _ = host.volume("vm-data")
    second_attachment(host, volume, host.uuid("vm-plain"))
    listed = "GET /v3/attachments/detail?all_tenants=True [3.70]"
    *others, second = host.last("cinder", listed).value["attachments"]
    host.set("cinder", listed, {"attachments": [*others, second | {name: {}}]})

    undecided = {skip.check.name for skip in host.report().skips if not skip.legal}
    assert {
        "volume-attached-twice",
        "cinder-attachment-without-bdm",
        "attachment-host-mismatch",
    } <= undecided


def test_an_unreadable_volume_may_be_attached_twice(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    at = host.last("cinder", "GET /v3/attachments/detail?all_tenants=True [3.70]")
    host.add(at.model_copy(update={"query": f"GET /v3/volumes/{volume}", "value": {"volume": []}}))

    undecided = {skip.check.name for skip in host.report().skips if not skip.legal}
    assert "volume-attached-twice" in undecided


def test_a_multiattach_volume_may_have_many_servers(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    second_attachment(host, volume, host.uuid("vm-plain"))
    volume_says(host, volume, multiattach=True)
    shareable(host, volume)

    assert named(host) == ["cinder-attachment-without-bdm of vm-plain"]


def test_two_attachments_of_one_server_are_one_owner(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    second_attachment(host, volume, host.uuid("vm-data"))

    assert named(host) == ["cinder-attachment-without-bdm of vm-data"]


def test_a_volume_that_cinder_moves_may_have_two_servers(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    second_attachment(host, volume, host.uuid("vm-plain"))
    moving(host, volume, "retyping")

    assert named(host) == []


def test_volume_free_in_cinder_but_open(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status="available")

    [finding] = host.findings()
    assert finding.startswith(
        "volume-free-in-cinder-but-open of vm-data: domain reports disks = vdb /"
    )
    assert finding.endswith(f"volume = {volume}; volume reports id = {volume}, status = available")
    assert host.headlines() == [
        "vm-data runs with volume data-vol as vdb, but cinder lists it as available"
    ]
    [found] = host.report().findings
    assert changes(found) == [f"openstack volume set --state in-use {volume}"]


def test_a_free_volume_without_an_attachment_needs_a_new_one(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status="available")
    host.cinder(lambda what, body: body | {"attachments": []} if what == "volume" else None)

    [found] = [one for one in host.report().findings if "free-in" in one.check.name]
    assert not [line for line in changes(found) if "--state in-use" in line]
    assert any("volume_attachment refresh" in line for line in changes(found))


@pytest.mark.parametrize(("attached", "severity"), [(True, "warning"), (False, "error")])
def test_a_volume_in_error_may_still_be_attached(
    host: RecordedHost, attached: bool, severity: str
) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status="error")
    if not attached:
        host.cinder(lambda what, body: body | {"attachments": []} if what == "volume" else None)

    found = {it.severity.word for it in host.report().everything() if "free-in" in it.check.name}
    assert found == {severity}


def test_a_volume_that_is_being_detached_may_be_free_already(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status="available")
    busy(host)

    assert host.findings() == []


def test_a_guest_that_is_off_has_nothing_open(host: RecordedHost) -> None:
    live, stored = (
        f"virsh dumpxml{option} {host.domain(guest)}"
        for option, guest in (("", "vm-data"), (" --inactive", "vm-stopped"))
    )
    volume, _ = host.volume("vm-data")
    xml = host.last("libvirt", live).value
    end = xml.index("</disk>", xml.index(volume)) + len("</disk>")
    disk = xml[xml.rindex("<disk ", 0, xml.index(f"<serial>{volume}")) : end]
    host.edit("libvirt", stored, "</devices>", f"{disk}</devices>")
    volume_says(host, volume, status="available")

    assert "volume-free-in-cinder-but-open of vm-stopped" not in named(host)


def test_a_serial_number_set_by_hand_is_no_volume(host: RecordedHost) -> None:
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    disk = (
        "<disk type='file' device='disk'><source file='/tmp/x'/><target dev='vdz'/>"
        f"<serial>{NOBODY}</serial></disk>"
    )
    host.edit("libvirt", live, "</devices>", f"{disk}</devices>")
    host.no_such("volumes", NOBODY)

    assert "volume-free-in-cinder-but-open of vm-plain" not in named(host)


def test_volume_device_wrong_lun_for_a_file(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    live = f"virsh dumpxml {host.domain('vm-data')}"
    xml = host.last("libvirt", live).value
    host.set("libvirt", live, xml.replace(f"volume-{volume}'", f"volume-{NOBODY}'"))

    assert "volume-device-wrong-lun of vm-data" in named(host)


def test_a_volume_that_cinder_moved_has_another_name(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    live = f"virsh dumpxml {host.domain('vm-data')}"
    xml = host.last("libvirt", live).value
    host.set("libvirt", live, xml.replace(f"volume-{volume}'", f"volume-{NOBODY}'"))
    volume_says(host, volume, **{"os-vol-mig-status-attr:name_id": NOBODY})

    assert "volume-device-wrong-lun of vm-data" not in named(host)


def disk(kname: str, number: str, wwn: str, *children: dict[str, Any]) -> dict[str, Any]:
    made = {"children": list(children)} if children else {}
    size = 1 << 30
    named = {"name": kname, "kname": kname, "maj:min": number, "wwn": wwn, "type": "disk"}
    return named | {"size": size, "mountpoints": [None]} | made


MAP = disk("dm-3", "254:3", "") | {"name": "mpatha", "type": "mpath", "wwn": None}


def on_iscsi(host: RecordedHost, source: str, devices: list[dict[str, Any]]) -> str:
    """Attach vm-data's volume over iSCSI, and give the host these devices."""
    volume, _ = host.volume("vm-data")
    info = json.loads(row_of(host, volume)["connection_info"])
    info |= {"driver_volume_type": "iscsi", "data": {"target_iqn": TARGET, "target_lun": 1}}
    host.mapping(volume, connection_info=json.dumps(info))
    live = f"virsh dumpxml {host.domain('vm-data')}"
    xml = host.last("libvirt", live).value
    end = xml.index(f"<serial>{volume}")
    start = xml.rindex("<disk ", 0, end)
    place = f"<source dev='{source}'/>"
    block = xml[start:end].replace("type='file'", "type='block'")
    before, _, rest = block.partition("<source ")
    block = before + place + rest.partition("/>")[2]
    host.set("libvirt", live, xml[:start] + block + xml[end:])
    host.set("block", "lsblk --json --bytes --output-all", {"blockdevices": devices})
    links = {f"ip-10.0.0.5:3260-iscsi-{TARGET}-lun-1": "../../sdb"}
    host.drop(lambda answer: answer.query != "ls -l /dev/disk/by-path")
    host.add(heard(host, "ls -l /dev/disk/by-path", links))
    host.drop(lambda answer: answer.layer != "cinder")
    return volume


def heard(host: RecordedHost, query: str, value: Any) -> Answer:
    raw = host.last("block", "lsblk --json --bytes --output-all").model_dump(
        exclude={"value", "error"}
    )
    return Answer(**(raw | {"query": query, "value": value}))


def wrong(host: RecordedHost) -> list[str]:
    return [line for line in host.findings() if line.startswith("volume-device-wrong-lun")]


def test_volume_device_wrong_lun(host: RecordedHost) -> None:
    devices = [disk("sdb", "8:16", "0x1"), disk("sdc", "8:32", "0x2")]
    volume = on_iscsi(host, "/dev/sdc", devices)

    assert wrong(host) == [
        f"volume-device-wrong-lun of vm-data: domain reports disks = vdb /dev/sdc, volume = {volume};"
        f" bdm reports volume_id = {volume}, connection_info = {TARGET} LUN 1, is_here = sdb;"
        " device reports name = sdc, number = 8:32, made_of = sdc"
    ]
    assert ("vm-data's disk vdb is device sdc, but nova's mapping leads to sdb") in host.headlines()


def test_the_lun_that_nova_connected_is_right(host: RecordedHost) -> None:
    on_iscsi(host, "/dev/sdb", [disk("sdb", "8:16", "0x1"), disk("sdc", "8:32", "0x2")])

    assert wrong(host) == []


def test_volume_device_wrong_lun_in_a_map_of_two_luns(host: RecordedHost) -> None:
    devices = [disk("sdb", "8:16", "0x1", MAP), disk("sdc", "8:32", "0x2", MAP)]
    on_iscsi(host, "/dev/mapper/mpatha", devices)

    [finding] = wrong(host)
    assert finding.endswith(
        "device reports kname = sdb, wwn = 0x1; device reports kname = sdc, wwn = 0x2"
    )


def test_two_paths_to_one_lun_are_one_volume(host: RecordedHost) -> None:
    devices = [disk("sdb", "8:16", "0x1", MAP), disk("sdc", "8:32", "0x1", MAP)]
    on_iscsi(host, "/dev/mapper/mpatha", devices)

    assert wrong(host) == []


def test_a_device_that_was_not_listed_is_not_judged(host: RecordedHost) -> None:
    on_iscsi(host, "/dev/sdz", [disk("sdb", "8:16", "0x1")])

    assert wrong(host) == []


def test_volume_size_mismatch(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, size=2)

    [finding] = host.findings()
    assert finding.startswith(
        f"volume-size-mismatch of vm-data: volume reports id = {volume}, size_gib = 2, size = 2147483648; image reports path"
    )
    assert finding.endswith("virtual_size = 1073741824")
    assert host.headlines() == [
        "vm-data's volume data-vol has 1 GiB on its host, but 2 GiB in cinder"
    ]
    assert changes(host.found("volume-size-mismatch")) == [
        f"openstack --os-volume-api-version 3.42 volume set --size 3 {volume}"
    ]


def test_volume_size_mismatch_is_a_note_if_larger(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-bfv")
    volume_says(host, volume, size=1)

    assert named(host) == ["volume-size-mismatch of vm-bfv"]
    [found] = host.report().findings
    assert found.severity.word == "note"
    assert changes(found) == [f"openstack volume set --size 2 {volume}"]


def test_volume_size_mismatch_if_nova_did_not_carry_out_an_extension(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, size=5)
    [path] = {image.path for image in host.guest("vm-data").images or () if volume in image.path}
    host.image(path, lambda layers: layers[0].update({"virtual-size": 5 << 30}))

    found = host.found("volume-size-mismatch")
    assert found.severity.word == "note"
    assert found.headline == (
        "vm-data's volume data-vol has 1 GiB in nova's record, but 5 GiB in cinder and on its host"
    )
    event, resize = changes(found)
    assert resize == f"virsh blockresize {host.domain('vm-data')} vdb {5 << 30}B"
    assert event.startswith('curl -H "X-Auth-Token: $token"')
    uuid = host.uuid("vm-data")
    assert f'"name": "volume-extended", "server_uuid": "{uuid}", "tag": "{volume}"' in event


def sized(host: RecordedHost, size: int) -> None:
    """Make vm-data's volume a device of this many bytes, known to cinder."""
    cinder = [answer for answer in host.bundle.answers if answer.layer == "cinder"]
    on_iscsi(host, "/dev/sdb", [disk("sdb", "8:16", "0x1") | {"size": size}])
    for answer in cinder:
        host.add(answer)


def measured(host: RecordedHost) -> list[str]:
    return [line for line in host.findings() if line.startswith("volume-size-mismatch")]


def test_volume_size_mismatch_if_the_device_is_too_small(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    sized(host, (1 << 30) - 512)

    assert measured(host) == [
        f"volume-size-mismatch of vm-data: volume reports id = {volume}, size_gib = 1, size = 1073741824;"
        " device reports name = sdb, size = 1073741312"
    ]


def test_block_storage_may_round_up(host: RecordedHost) -> None:
    sized(host, 8 << 30)

    assert measured(host) == []


def test_a_volume_that_is_being_extended_is_not_measured(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, size=2)
    moving(host, volume, "extending")

    assert host.findings() == []


def test_an_encrypted_volume_has_a_header(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    encrypt(host)
    host.set("libvirt", "virsh secret-list", [{"uuid": NOBODY, "usage_type": 1}])
    for answer in host.bundle.by_layer["images"]:
        if answer.query.startswith("qemu-img info") and volume in answer.query:
            text = json.dumps(answer.value).replace("1073741824", str((1 << 30) - (16 << 20)))
            host.set("images", answer.query, json.loads(text))

    assert host.findings() == []


def test_encryption_secret_missing(host: RecordedHost) -> None:
    encrypt(host)

    [finding] = host.findings()
    assert finding.startswith("encryption-secret-missing of vm-data: domain reports disks = vdb /")
    assert finding.endswith(f"key = {NOBODY}; libvirt reports no secret")
    assert host.headlines() == ["libvirt has no secret 00000000 for vm-data's disk vdb"]


def shareable(host: RecordedHost, volume: str) -> None:
    """Let the disk of the volume be shareable, as nova defines it for a multiattach volume."""
    serial = f"<serial>{volume}</serial>"
    for query in ("virsh dumpxml", "virsh dumpxml --inactive"):
        domain = f"{query} {host.domain('vm-data')}"
        host.edit("libvirt", domain, serial, f"{serial}<shareable/>")


def encrypted(host: RecordedHost, volume: str) -> None:
    """Let all records have the volume as encrypted."""
    row = json.loads(row_of(host, volume)["connection_info"])
    row["data"] |= {"encrypted": True}
    host.mapping(volume, connection_info=json.dumps(row))

    def change(what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "volume":
            return body | {"encrypted": True} if body["id"] == volume else body
        if body["volume_id"] != volume:
            return body
        return body | {"connection_info": body["connection_info"] | {"encrypted": True}}

    host.cinder(change)


def encrypt(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    encrypted(host, volume)
    live = f"virsh dumpxml {host.domain('vm-data')}"
    key = f"<encryption format='luks'><secret type='passphrase' uuid='{NOBODY}'/></encryption>"
    host.edit("libvirt", live, f"<serial>{volume}</serial>", f"<serial>{volume}</serial>{key}")


def test_a_key_that_libvirt_has_is_not_missing(host: RecordedHost) -> None:
    encrypt(host)
    host.set("libvirt", "virsh secret-list", [{"uuid": NOBODY.upper(), "usage_type": 1}])

    assert host.findings() == []


@pytest.mark.parametrize("query", ["virsh secret-list"])
def test_keys_that_were_not_listed_are_not_missing(host: RecordedHost, query: str) -> None:
    encrypt(host)
    host.drop(lambda answer: answer.query != query)

    assert host.findings() == []


def test_no_volume_is_judged_while_cinder_does_not_answer(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    host.mapping(volume, connection_info=connection(host, volume, serial=NOBODY))
    host.silence("cinder")

    assert host.findings() == []
