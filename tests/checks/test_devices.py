"""The host's devices of cinder volumes. The lab has no iSCSI, so the answers of the host's tools
are written here as their documentation shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.checks.test_attachments import row_of
from tests.checks.test_volumes import disk, heard
from tests.conftest import RecordedHost

GONE = "dddddddd-0000-4000-8000-000000000000"
TARGET = f"iqn.2010-10.org.openstack:volume-{GONE}"

SESSION = """\
Target: {target} (non-flash)
\tCurrent Portal: 10.0.0.5:3260,1
\t\tHost Number: 2\tState: running
\t\tscsi2 Channel 00 Id 0 Lun: 1
\t\t\tAttached scsi disk sdb\t\tState: running
"""


def sees(host: RecordedHost, device: dict[str, Any], target: str = TARGET) -> None:
    """Give the host a disk of an iSCSI target."""
    host.set("block", "lsblk --json --bytes --output-all", {"blockdevices": [device]})
    host.drop(lambda answer: answer.query != "iscsiadm -m session -P 3")
    host.add(heard(host, "iscsiadm -m session -P 3", SESSION.format(target=target)))


def test_host_device_leftover(host: RecordedHost) -> None:
    sees(host, disk("sdb", "8:16", "0x1"))

    assert host.findings() == [
        f"host-device-leftover: iscsi reports target = {TARGET}, lun = 1;"
        " device reports name = sdb, number = 8:16"
    ]
    assert host.headlines() == [
        "Host vm still has device sdb of volume dddddddd, which no guest uses"
    ]


@pytest.mark.parametrize("own", [{"mountpoints": ["/srv"]}, {"type": "part"}])
def test_the_hosts_own_storage_is_not_a_leftover(host: RecordedHost, own: dict[str, Any]) -> None:
    child = disk("sdb1", "8:17", "0x1") | own
    sees(host, disk("sdb", "8:16", "0x1", child))

    assert host.findings() == []


def test_a_disk_that_is_not_novas_is_not_a_leftover(host: RecordedHost) -> None:
    sees(host, disk("sdb", "8:16", "0x1"), "iqn.2005-10.org.freenas:backup")

    assert host.findings() == []


def test_a_device_that_a_guest_has_open_is_in_use(host: RecordedHost) -> None:
    sees(host, disk("sdb", "8:16", "0x1"))
    query = f"ls -lL /proc/{host.pid('vm-data')}/fd"
    files = host.last("kernel", query).value
    opened = {"fd": 99, "path": "/dev/sdb", "dev": "0:5", "ino": 1, "rdev": "8:16", "size": 0}
    host.set("kernel", query, [*files, files[0] | opened])

    assert host.findings() == []


def test_a_volume_attached_in_nova_is_not_a_leftover(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    info = json.loads(row_of(host, volume)["connection_info"])
    info |= {"driver_volume_type": "iscsi", "data": {"target_iqn": TARGET, "target_lun": 1}}
    host.mapping(volume, connection_info=json.dumps(info))
    sees(host, disk("sdb", "8:16", "0x1"))

    assert not any(line.startswith("host-device-leftover") for line in host.findings())


@pytest.mark.parametrize("layer", ["nova-db", "kernel"])
def test_the_users_of_a_device_must_have_been_collected(host: RecordedHost, layer: str) -> None:
    sees(host, disk("sdb", "8:16", "0x1"))
    host.silence(layer)

    assert host.findings() == []
