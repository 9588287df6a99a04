"""Block devices of guests' volumes that are read-only on the host."""

from __future__ import annotations

import pytest
from tests.checks.test_volumes import MAP, disk, on_iscsi
from tests.conftest import RecordedHost

NAME = "volume-device-read-only"


def found(host: RecordedHost) -> list[str]:
    return [one.headline for one in host.report().findings if one.check.name == NAME]


@pytest.mark.parametrize("value", [True, "1"])
def test_volume_device_read_only(host: RecordedHost, value: object) -> None:
    on_iscsi(host, "/dev/sdb", [disk("sdb", "8:16", "0x1") | {"ro": value}])

    assert found(host) == ["vm-data's volume fd6aedb5, disk vdb, is read-only on vm: sdb"]
    assert host.found(NAME).severity.word == "error"


def test_a_path_below_the_map_is_read_only(host: RecordedHost) -> None:
    writable = disk("sdb", "8:16", "0x1", MAP | {"ro": False})
    on_iscsi(host, "/dev/mapper/mpatha", [writable | {"ro": True}])
    [finding] = [one for one in host.report().findings if one.check.name == NAME]

    assert finding.severity.word == "error"
    assert found(host) == ["vm-data's volume fd6aedb5, disk vdb, is read-only on vm: sdb"]


def test_one_of_two_paths_is_read_only(host: RecordedHost) -> None:
    paths = [disk("sdb", "8:16", "0x1", MAP), disk("sdc", "8:32", "0x1", MAP) | {"ro": True}]
    on_iscsi(host, "/dev/mapper/mpatha", paths)

    assert found(host) == [
        "vm-data's volume fd6aedb5, disk vdb, has a path that is read-only on vm: sdc"
    ]
    assert host.found(NAME).severity.word == "warning"


@pytest.mark.parametrize("value", [False, "0"])
def test_a_writable_device_is_no_finding(host: RecordedHost, value: object) -> None:
    on_iscsi(host, "/dev/sdb", [disk("sdb", "8:16", "0x1") | {"ro": value}])

    assert found(host) == []


def test_a_disk_that_the_guest_only_reads(host: RecordedHost) -> None:
    on_iscsi(host, "/dev/sdb", [disk("sdb", "8:16", "0x1") | {"ro": True}])
    live = f"virsh dumpxml {host.domain('vm-data')}"
    host.edit("libvirt", live, "<source dev='/dev/sdb'/>", "<source dev='/dev/sdb'/><readonly/>")

    assert found(host) == []
