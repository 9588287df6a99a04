"""A host's block devices. The lab has no LVM, iSCSI or multipath, so the output of their tools is
copied from their documentation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.collect.test_device import SESSION

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.device import LIST, Devices, Map, Mount, Session

TARGET = "iqn.2010-10.org.openstack:volume-1"

MPATHA = {"name": "mpatha", "kname": "dm-3", "maj:min": "254:3", "type": "mpath", "size": 1 << 30}
DISKS = [
    {
        "name": name,
        "kname": name,
        "maj:min": number,
        "type": "disk",
        "size": 1 << 30,
        "wwn": "0x600140590c1",
        "mountpoints": [None],
        "children": [MPATHA],
    }
    for name, number in (("sdb", "8:16"), ("sdc", "8:32"))
]

MAPS = {
    "major_version": 0,
    "minor_version": 1,
    "maps": [
        {
            "name": "mpatha",
            "uuid": "3600140590c1",
            "sysfs": "dm-3",
            "paths": 1,
            "path_groups": [
                {"dm_st": "active", "paths": [{"dev": "sdb", "dm_st": "active"}]},
                {"dm_st": "enabled", "paths": [{"dev": "sdc", "dm_st": "failed"}]},
            ],
        }
    ],
}

TOPOLOGY = """\
mpatha (3600140590c1) dm-3 LIO-ORG,IBLOCK
size=1.0G features='0' hwhandler='1 alua' wp=rw
|-+- policy='service-time 0' prio=50 status=active
| `- 2:0:0:1 sdb 8:16 active ready running
`-+- policy='service-time 0' prio=0 status=enabled
  `- 3:0:0:1 sdc 8:32 failed faulty running
"""


def answer(query: str, value: Any) -> Answer:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    told = {"error": value} if isinstance(value, Failure) else {"value": value}
    return Answer(layer="block", host="vm", query=query, at=at, took=0.1, **told)


def devices(**more: Any) -> Devices:
    said = {LIST: {"blockdevices": DISKS}, **more}
    return Devices([answer(query, value) for query, value in said.items()], None)


def test_a_multipath_map_is_built_on_its_paths() -> None:
    found = devices()
    mapped = found.find("/dev/mapper/mpatha")

    assert mapped is not None
    assert mapped.number == "254:3"
    assert found.below(mapped) == {"sdb", "sdc"}
    assert [device.kname for device in found.above(found.by_name["sdb"])] == ["sdb", "dm-3"]


def test_a_link_leads_to_its_device() -> None:
    name = f"ip-10.0.0.5:3260-iscsi-{TARGET}-lun-1"
    found = devices(**{"ls -l /dev/disk/by-path": {name: "../../sdb"}})

    linked = found.find(f"/dev/disk/by-path/{name}")
    assert linked is not None
    assert linked.kname == "sdb"
    assert found.reached(TARGET, 1) == {"sdb"}
    assert found.reached(TARGET, 2) == frozenset()


def test_a_session_lists_its_disks() -> None:
    found = devices(**{"iscsiadm -m session -P 3": SESSION})

    assert found.sessions == (Session(TARGET, "10.0.0.5:3260", ((1, "sdb"),)),)


def test_multipathd_and_its_tool_report_the_same_maps() -> None:
    whole = Map("mpatha", "3600140590c1", "dm-3", (("sdb", True), ("sdc", False)))

    assert devices(**{"multipathd show maps json": MAPS}).maps == (whole,)
    assert devices(**{"multipath -ll": TOPOLOGY}).maps == (whole,)


def test_no_sessions_and_unknown_sessions_differ() -> None:
    none = Failure(kind="absent", message="iscsiadm: No active sessions.")
    denied = Failure(kind="failed", message="iscsiadm: can't connect to iscsid")

    assert devices(**{"iscsiadm -m session -P 3": none}).sessions == ()
    with pytest.raises(UnheardError):
        _ = devices(**{"iscsiadm -m session -P 3": denied}).sessions
    with pytest.raises(UnheardError):
        _ = devices().sessions


def test_a_logical_volume_is_found_by_its_path() -> None:
    lines = [{"lv_name": "volume-1", "vg_name": "cinder-volumes", "lv_size": "1073741824B"}]
    lines[0]["lv_path"] = "/dev/cinder-volumes/volume-1"
    volume = {"name": "cinder--volumes-volume--1", "kname": "dm-4", "maj:min": "254:4"}
    found = devices(
        **{
            LIST: {"blockdevices": [volume]},
            "lvs --reportformat json --units b": {"report": [{"lv": lines}]},
        }
    )

    device = found.find("/dev/cinder-volumes/volume-1")
    assert device is not None
    assert device.kname == "dm-4"
    assert found.logical_volumes[0].size == 1 << 30


def test_a_file_lies_on_the_innermost_mount() -> None:
    lines = (
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        "43 27 0:50 / /var/lib/nova/mnt/my\\040nfs rw - nfs4 10.0.0.5:/volumes rw,vers=4.2\n"
    )
    found = Devices([], answer("/proc/self/mountinfo", lines))

    inner = Mount("/var/lib/nova/mnt/my nfs", "0:50", "nfs4", "10.0.0.5:/volumes")
    assert found.mount_of("/var/lib/nova/mnt/my nfs/volume-1") == inner
    outer = found.mount_of("/var/lib/nova/mnt/other")
    assert outer is not None
    assert outer.folder == "/"
