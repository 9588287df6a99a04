"""Disk images: formats and headers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from tests.conftest import RecordedHost


def _name_base(below: str, layers: list[dict[str, Any]]) -> None:
    layers[0]["backing-filename"] = below


def _disk(host: RecordedHost, name: str) -> str:
    return f"{host.folder(name)}/disk"


def _open_as(host: RecordedHost, pid: int, driver: str) -> None:
    """Make QEMU's command line open its first disk in another format than qcow2."""
    file = '"file":"libvirt-1-storage"'
    told = f'"driver":"{driver}",{file}'
    host.edit("kernel", f"/proc/{pid}/cmdline", f'"driver":"qcow2",{file}', told)


def test_disk_format_mismatch(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    host.edit("images", f"cat {path}.info", '"qcow2"', '"raw"')

    assert host.findings() == [
        f"disk-format-mismatch of vm-stopped: domain reports disks = {path} is qcow2;"
        " image reports declared = raw"
    ]
    assert host.headlines() == [
        f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk is read as qcow2, but nova recorded raw",
    ]


def test_disk_format_mismatch_in_the_first_bytes(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    host.file(path, magic="eb6390" + "00" * 13)

    assert host.findings() == [
        f"disk-format-mismatch of vm-stopped: domain reports disks = {path} is qcow2;"
        f" images reports first_bytes = eb6390{'00' * 13}"
    ]
    assert host.headlines() == [
        f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk is read as qcow2, but it starts with eb639000, not 514649fb",
    ]


def test_disk_format_mismatch_on_the_command_line(host: RecordedHost) -> None:
    path, pid = _disk(host, "vm-plain"), host.pid("vm-plain")
    _open_as(host, pid, "raw")

    assert host.findings() == [
        f"disk-format-mismatch of vm-plain: domain reports disks = {path} is qcow2;"
        f" process reports pid = {pid}, disks = {path} is raw"
    ]
    assert host.headlines() == [
        f"vm-plain's disk …/{host.uuid('vm-plain')[:8]}/disk is read as qcow2, but QEMU was started with raw",
        "vm-plain's block node libvirt-1-format has driver qcow2 in libvirt, but raw on its QEMU's command line",
    ]
    assert host.folded() == [
        "disk-format-mismatch ← block-node-differs of vm-plain: domain reports"
        " node = libvirt-1-format, driver = qcow2; process reports node = libvirt-1-format, driver = raw"
    ]


def test_disk_format_mismatch_explains_no_other_setting_of_a_node(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    _open_as(host, pid, "raw")
    cached = '"node-name":"libvirt-1-format","read-only":false,"cache":{"direct":'
    host.edit("kernel", f"/proc/{pid}/cmdline", f"{cached}true", f"{cached}false")

    found = {finding.partition(" ")[0] for finding in host.findings()}
    assert {"disk-format-mismatch", "block-node-differs"} <= found


def test_an_encrypted_disk_is_raw_to_libvirt_and_luks_to_qemu(host: RecordedHost) -> None:
    path, pid = _disk(host, "vm-plain"), host.pid("vm-plain")
    _open_as(host, pid, "luks")
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    xml = host.last("libvirt", live).value
    [disk] = [part for part in xml.split("<disk ") if f"'{path}'" in part]
    host.edit("libvirt", live, disk, disk.replace("type='qcow2'", "type='raw'", 1))

    found = [line for line in host.findings() if line.startswith("disk-format-mismatch")]
    assert not [line for line in found if "process reports" in line]


def test_a_guest_may_write_any_header_onto_its_raw_disk(host: RecordedHost) -> None:
    # vm-config's disk.config is raw, and disk.info has no entry for it.
    host.file(f"{host.folder('vm-config')}/disk.config", magic="514649fb" + "00" * 12)

    assert host.findings() == []


def test_a_disk_without_a_recorded_format_may_have_any(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    host.set("images", f"cat {path}.info", "{}")

    assert host.findings() == []


def test_image_unsafe_reference(host: RecordedHost) -> None:
    path, secret = _disk(host, "vm-stopped"), "/etc/shadow"
    host.image(
        path,
        lambda layers: layers[0].update(
            {"backing-filename": secret, "full-backing-filename": secret}
        ),
    )

    assert [line for line in host.findings() if line.startswith("image-unsafe")] == [
        f"image-unsafe-reference of vm-stopped: image reports path = {path}, layer = {path},"
        f" backing_filename = {secret}"
    ]
    assert host.headlines() == [
        f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk is based on /etc/shadow, which is no base image of nova",
    ]


def test_image_unsafe_reference_to_a_data_file(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    host.image(
        path, lambda layers: layers[0]["format-specific"]["data"].update({"data-file": "/dev/sda"})
    )

    assert host.findings() == [
        f"image-unsafe-reference of vm-stopped: image reports path = {path}, data_file = /dev/sda"
    ]
    assert host.headlines() == [
        f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk keeps its data in another file, /dev/sda",
    ]


def test_image_unsafe_reference_to_the_network_or_another_guest(host: RecordedHost) -> None:
    neighbor = _disk(host, "vm-plain")
    for below in ("nbd:evil:10809", "json:{}", neighbor, "../../../etc/shadow"):
        fresh = RecordedHost(host.bundle)
        fresh.image(
            _disk(host, "vm-stopped"),
            partial(_name_base, below),
        )

        assert any(
            line.startswith("image-unsafe-reference of vm-stopped") for line in fresh.findings()
        )
        named = below.replace(host.uuid("vm-plain"), host.uuid("vm-plain")[:8])
        assert (
            f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk is based on {named}, which is no base image of nova"
            in fresh.headlines()
        )


def test_image_unsafe_reference_of_a_base(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    host.image(path, lambda layers: layers[1].update({"backing-filename": "/etc/shadow"}))

    found = [line for line in host.findings() if line.startswith("image-unsafe")]
    assert len(found) == 1
    assert found[0].endswith("backing_filename = /etc/shadow")
    assert host.headlines() == [
        "vm-stopped's base image …/_base/2f8e0c22 is based on /etc/shadow, which is no base image of nova",
    ]


def test_the_image_cache_may_have_another_name(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    base = f"{host.top}/_base/"
    host.image(
        path,
        lambda layers: layers[0].update(
            {
                name: layers[0][name].replace(base, f"{host.top}/base_192.0.2.7/")
                for name in ("backing-filename", "full-backing-filename")
            }
        ),
    )

    assert not [line for line in host.findings() if line.startswith("image-unsafe")]


def test_a_snapshot_is_based_on_the_disk_beside_it(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    for below in (f"{path}.snap", "disk.snap"):
        fresh = RecordedHost(host.bundle)
        fresh.image(path, partial(_name_base, below))

        assert not [line for line in fresh.findings() if line.startswith("image-unsafe")]


def test_disk_empty(host: RecordedHost) -> None:
    path = f"{host.folder('vm-stopped')}/disk"

    def empty(layers: list[dict[str, object]]) -> None:
        del layers[1:]
        for key in ("backing-filename", "full-backing-filename", "backing-filename-format"):
            del layers[0][key]
        layers[0]["actual-size"] = 200704

    host.image(path, empty)

    assert [line.partition(":")[0] for line in host.findings()] == ["disk-empty of vm-stopped"]
    assert host.headlines() == [
        f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk is empty: it has no backing file and takes 196 KiB of 1 GiB"
    ]


def test_a_disk_with_data_needs_no_backing_file(host: RecordedHost) -> None:
    def flat(layers: list[dict[str, object]]) -> None:
        del layers[1:]
        for key in ("backing-filename", "full-backing-filename", "backing-filename-format"):
            del layers[0][key]
        layers[0]["actual-size"] = 50 << 20

    host.image(f"{host.folder('vm-stopped')}/disk", flat)

    assert host.findings() == []


def test_disk_format_mismatch_with_the_format_that_qemu_img_reports(host: RecordedHost) -> None:
    host.image(f"{host.folder('vm-stopped')}/disk", lambda layers: layers[0].update(format="raw"))

    assert "disk-format-mismatch of vm-stopped" in {
        line.partition(":")[0] for line in host.findings()
    }


def test_disk_format_mismatch_of_a_disk_info_that_is_another_servers(host: RecordedHost) -> None:
    query = f"cat {host.folder('vm-stopped')}/disk.info"
    text = host.last("images", query).value
    host.set("images", query, text.replace(host.uuid("vm-stopped"), host.uuid("vm-plain")))

    assert host.headlines() == [
        f"vm-stopped's …/{host.uuid('vm-stopped')[:8]}/disk.info names disks of another server: {host.uuid('vm-plain')[:8]}"
    ]


def test_disk_format_mismatch_of_a_base_in_another_format_than_the_header_says(
    host: RecordedHost,
) -> None:
    path = f"{host.folder('vm-stopped')}/disk"
    key = "backing-filename-format"
    host.image(path, lambda layers: layers[0].update({key: "qcow2"}))

    assert host.headlines() == [
        f"vm-stopped's …/{host.uuid('vm-stopped')[:8]}/disk is on a base in format qcow2, but qemu-img reads it as raw"
    ]


def test_a_base_is_read_in_one_format(host: RecordedHost) -> None:
    query = f"virsh dumpxml {host.domain('vm-plain')}"
    text = host.last("libvirt", query).value
    above, _, below = text.partition("<backingStore type='file' index=")
    assert below
    changed = below.replace("<format type='raw'/>", "<format type='qcow2'/>", 1)
    host.set("libvirt", query, f"{above}<backingStore type='file' index={changed}")

    found = [line for line in host.headlines() if "below its disk" in line]
    assert len(found) == 1
    assert found[0].endswith(" is read as qcow2 below its disk, but qemu-img reads it as raw")


def _without_format(layers: list[dict[str, Any]], *, middle: str | None = None) -> None:
    """Remove the format of the backing file, and put a file between disk and base if one is named."""
    del layers[0]["backing-filename-format"]
    if middle is not None:
        below = layers[0] | {"filename": middle, "backing-filename-format": "raw"}
        layers.insert(1, below)
        layers[0]["backing-filename"] = layers[0]["full-backing-filename"] = middle


@pytest.mark.parametrize(
    ("name", "words"), [("vm-stopped", "can't start"), ("vm-plain", "runs, but can't start again")]
)
def test_backing_format_missing(host: RecordedHost, name: str, words: str) -> None:
    path = _disk(host, name)
    host.image(path, partial(_without_format, middle=f"{path}.snapshot"))

    [found] = [one for one in host.report().findings if one.check.name == "backing-format-missing"]
    short = f"…/{host.uuid(name)[:8]}/disk"
    assert found.title == (
        f"{name} {words}: its disk {short} does not name the format of its backing file"
        f" {short}.snapshot"
    )
    assert (found.names["FORMAT"], found.names["LAYER"]) == ("qcow2", path)


def test_a_base_without_a_backing_file_may_be_probed(host: RecordedHost) -> None:
    """libvirt 9.0 starts such a guest; nova wrote no format before Train."""
    host.image(_disk(host, "vm-stopped"), _without_format)

    assert host.findings() == []


@pytest.mark.parametrize("store", ["<backingStore/>", "<backingStore type='file'>"])
def test_the_definition_may_name_the_backing_file_itself(host: RecordedHost, store: str) -> None:
    path, query = _disk(host, "vm-stopped"), f"virsh dumpxml --inactive {host.domain('vm-stopped')}"
    host.image(path, partial(_without_format, middle=f"{path}.snapshot"))
    if not store.endswith("/>"):
        store += f"<format type='qcow2'/><source file='{path}.snapshot'/></backingStore>"
    host.edit("libvirt", query, f"<source file='{path}'/>", f"<source file='{path}'/>{store}")

    assert not [line for line in host.findings() if line.startswith("backing-format")]


def test_an_old_libvirt_follows_a_chain_without_formats(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    host.image(path, partial(_without_format, middle=f"{path}.snapshot"))
    host.set(
        "libvirt",
        "virsh version",
        host.last("libvirt", "virsh version").value | {"daemon": 5_010_000},
    )

    assert not [line for line in host.findings() if line.startswith("backing-format")]
