"""Loop devices over the files of guests' disks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

LIST = "losetup --json --list"


def _loop(host: RecordedHost, file: str, /, **fields: Any) -> None:
    """Add the loop device loop7 with this file."""
    loops = host.last("block", LIST).value["loopdevices"]
    added = loops[0] | {"name": "/dev/loop7", "back-file": file, "ro": False} | fields
    host.set("block", LIST, {"loopdevices": [*loops, added]})


def _mount(host: RecordedHost, *points: str) -> None:
    listed = host.last("block", "lsblk --json --bytes --output-all").value["blockdevices"]
    loop = {
        **next(one for one in listed if one["kname"] == "loop0"),
        "kname": "loop7",
        "name": "loop7",
        "maj:min": "7:7",
        "mountpoints": [None],
    }
    part = loop | {"kname": "loop7p1", "name": "loop7p1", "maj:min": "259:1"}
    loop["children"] = [part | {"mountpoints": [*points]}]
    host.set("block", "lsblk --json --bytes --output-all", {"blockdevices": [*listed, loop]})


def _volume(host: RecordedHost, name: str) -> str:
    files = host.last("kernel", f"ls -lL /proc/{host.pid(name)}/fd").value
    return next(str(file["path"]) for file in files if "/volume-" in file["path"])


def test_loop_device_on_disk(host: RecordedHost) -> None:
    _loop(host, _volume(host, "vm-bfv"))

    [headline] = host.headlines()
    assert headline.startswith("/dev/loop7 on vm can write to vm-bfv's volume …/")
    assert [one.severity.word for one in host.report().findings] == ["error"]
    assert changes(host.found("loop-device-on-disk")) == ["losetup -d /dev/loop7"]


def test_a_mounted_loop_device_is_unmounted_first(host: RecordedHost) -> None:
    _loop(host, _volume(host, "vm-bfv"))
    _mount(host, "/mnt")

    [headline] = host.headlines()
    assert headline.endswith(", mounted in /mnt")
    assert changes(host.found("loop-device-on-disk")) == ["umount /mnt", "losetup -d /dev/loop7"]


def test_the_share_in_another_folder_is_the_same_file(host: RecordedHost) -> None:
    name = _volume(host, "vm-bfv").rpartition("/")[2]
    _loop(host, f"/srv/hoodlab-nfs/{name}")

    assert len(host.headlines()) == 1


def test_a_guest_that_is_off_is_warned_of(host: RecordedHost) -> None:
    _loop(host, f"{host.folder('vm-stopped')}/disk")

    [headline] = host.headlines()
    assert headline.endswith("; vm-stopped is off")
    assert [one.severity.word for one in host.report().findings] == ["warning"]


def test_another_file_in_the_folder_of_a_guest(host: RecordedHost) -> None:
    _loop(host, f"{host.folder('vm-plain')}/disk.old")

    [headline] = host.headlines()
    assert "can write to vm-plain's file …/" in headline


@pytest.mark.parametrize("fields", [{"ro": True}, {"ro": "1"}])
def test_a_loop_device_that_only_reads(host: RecordedHost, fields: dict[str, Any]) -> None:
    _loop(host, _volume(host, "vm-bfv"), **fields)

    assert host.findings() == []


def test_a_copy_of_a_volume_may_be_looked_into(host: RecordedHost) -> None:
    _loop(host, f"/root/{_volume(host, 'vm-bfv').rpartition('/')[2]}")

    assert host.findings() == []


def test_a_loop_device_that_is_the_guests_own_disk(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        xml = host.last("libvirt", query).value
        disk = (
            "<disk type='block' device='disk'><source dev='/dev/loop7'/>"
            "<target dev='vdz' bus='virtio'/></disk></devices>"
        )
        host.set("libvirt", query, xml.replace("</devices>", disk))
    _loop(host, f"{host.folder('vm-plain')}/swap")

    assert not any("loop-device" in line for line in host.findings())
