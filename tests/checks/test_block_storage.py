"""The storage behind volumes. The lab has no multipath, so its answers are written here as the
tools' documentation shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.checks.test_attachments import named, row_of, volume_says
from tests.checks.test_volumes import MAP, disk, heard, on_iscsi
from tests.conftest import RecordedHost, changes

SERVICES = "GET /v3/os-services [3.70]"

PATHS = """\
mpatha (0x1) dm-0 NETAPP,LUN C-Mode
size=1.0G features='3 queue_if_no_path pg_init_retries 50' hwhandler='1 alua' wp=rw
|-+- policy='service-time 0' prio=50 status=active
| `- 2:0:0:1 sdb 8:16 {one}
`-+- policy='service-time 0' prio=10 status=enabled
  `- 3:0:0:1 sdc 8:32 {other}
"""

WORKS, LOST = "active ready running", "failed faulty running"


def service(host: RecordedHost, of: str = "cinder-volume", /, **fields: Any) -> None:
    listed = host.last("cinder", SERVICES).value["services"]
    changed = [one | fields if one["binary"] == of else one for one in listed]
    assert changed != listed
    host.set("cinder", SERVICES, {"services": changed})


def test_volume_backend_down(host: RecordedHost) -> None:
    service(host, state="down", updated_at="2026-11-25T12:00:00.000000")

    assert host.headlines() == [
        "cinder-volume on vm@nfs has been down for 6 h 36 min: 2 volumes of vm-bfv and vm-data"
        " can't be attached, detached or deleted"
    ]
    assert [found.severity.word for found in host.report().findings] == ["warning"]


def test_storage_that_is_down_is_an_error(host: RecordedHost) -> None:
    service(host, backend_state="down")

    assert [found.severity.word for found in host.report().findings] == ["error"]
    assert host.headlines()[0].startswith(
        "cinder-volume on vm@nfs reports that its storage is down"
    )


def test_a_scheduler_that_is_down(host: RecordedHost) -> None:
    service(host, "cinder-scheduler", state="down")

    [headline] = host.headlines()
    assert headline.endswith(": new volumes are not scheduled")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": "disabled", "disabled_reason": "new disks"}, "is disabled (new disks): no new"),
        ({"frozen": True}, "is frozen: no volume of it can be made, changed or deleted"),
    ],
)
def test_an_administrators_decision_is_a_note(
    host: RecordedHost, fields: dict[str, Any], words: str
) -> None:
    service(host, **fields)

    assert [found.severity.word for found in host.report().findings] == ["note"]
    assert words in host.headlines()[0]


def test_a_backend_without_a_service(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, **{"os-vol-host-attr:host": "vm@old#old"})

    assert host.headlines() == [
        "No service of cinder serves backend vm@old: 1 volume of vm-data can't be attached,"
        " detached or deleted"
    ]


def test_a_renamed_host_of_a_backend_is_named(host: RecordedHost) -> None:
    [scheduler, service] = host.last("cinder", SERVICES).value["services"]
    up = service | {"host": "new@nfs"}
    host.set("cinder", SERVICES, {"services": [scheduler, up]})

    finding = host.found("volume-backend-down")
    assert changes(finding) == [
        "cinder-manage volume update_host --currenthost 'vm@nfs#nfs' --newhost 'new@nfs#nfs'"
    ]


def test_another_service_of_the_cluster_is_enough(host: RecordedHost) -> None:
    [scheduler, volume] = host.last("cinder", SERVICES).value["services"]
    down = volume | {"cluster": "ceph@nfs", "state": "down"}
    up = volume | {"cluster": "ceph@nfs", "host": "other@nfs"}
    host.set("cinder", SERVICES, {"services": [scheduler, down, up]})

    assert host.findings() == []


def test_a_service_that_was_removed_serves_no_volume(host: RecordedHost) -> None:
    [scheduler, volume] = host.last("cinder", SERVICES).value["services"]
    gone = volume | {"host": "gone@nfs", "state": "down", "updated_at": "2024-01-01T00:00:00"}
    host.set("cinder", SERVICES, {"services": [scheduler, volume, gone]})

    assert host.findings() == []


def paths(host: RecordedHost, one: str, other: str) -> list[str]:
    """Let vm-data's volume be a multipath map with two paths."""
    devices = [disk("sdb", "8:16", "0x1", MAP), disk("sdc", "8:32", "0x1", MAP)]
    on_iscsi(host, "/dev/mapper/mpatha", devices)
    host.drop(lambda answer: answer.query not in ("multipath -ll", "multipathd show maps json"))
    host.add(heard(host, "multipath -ll", PATHS.format(one=one, other=other)))
    return [
        f"{found.severity.word}: {found.headline}"
        for found in host.report().findings
        if found.check.name == "volume-paths-lost"
    ]


def test_volume_paths_lost(host: RecordedHost) -> None:
    assert paths(host, LOST, LOST) == [
        "error: vm-data's volume fd6aedb5, disk vdb, has lost all 2 paths: sdb (failed) and"
        " sdc (failed)"
    ]


def test_one_path_that_is_left_is_a_warning(host: RecordedHost) -> None:
    assert paths(host, WORKS, "active faulty running") == [
        "warning: vm-data's volume fd6aedb5, disk vdb, has 1 of 2 paths left: sdc (failed)"
    ]


def test_paths_that_work_are_no_finding(host: RecordedHost) -> None:
    assert paths(host, WORKS, WORKS) == []


SESSION = """\
Target: iqn.x:one (non-flash)
\tCurrent Portal: 10.0.0.5:3260,1
\t\tiSCSI Connection State: TRANSPORT WAIT
\t\tiSCSI Session State: FREE
\t\tscsi2 Channel 00 Id 0 Lun: 1
\t\t\tAttached scsi disk sdb\t\tState: transport-offline
"""


def test_an_iscsi_session_without_a_connection_is_a_lost_path(host: RecordedHost) -> None:
    on_iscsi(host, "/dev/sdb", [disk("sdb", "8:16", "0x1")])
    host.drop(lambda answer: answer.query != "iscsiadm -m session -P 3")
    host.add(heard(host, "iscsiadm -m session -P 3", SESSION))

    found = [one for one in host.report().findings if one.check.name == "volume-paths-lost"]
    assert [one.headline for one in found] == [
        "vm-data's volume fd6aedb5, disk vdb, has lost its only path: sdb (iSCSI session FREE)"
    ]


def test_a_scsi_disk_that_is_offline_is_a_lost_path(host: RecordedHost) -> None:
    on_iscsi(host, "/dev/sdb", [disk("sdb", "8:16", "0x1") | {"state": "offline"}])

    found = [one for one in host.report().findings if one.check.name == "volume-paths-lost"]
    assert [one.severity.word for one in found] == ["error"]


def mounts(host: RecordedHost, change: Any) -> None:
    text = host.last("kernel", "/proc/self/mountinfo").value
    lines = [change(line) for line in text.splitlines()]
    host.set("kernel", "/proc/self/mountinfo", "".join(f"{line}\n" for line in lines if line))


def test_volume_share_differs(host: RecordedHost) -> None:
    mounts(host, lambda line: None if "/var/lib/nova/mnt/1" in line else line)

    found = [one for one in host.report().findings if one.check.name == "volume-share-differs"]
    assert [one.headline for one in found] == [
        "vm-bfv's volume 0ab94923 is on share 127.0.0.1:/srv/hoodlab-nfs, which is not mounted",
        "vm-data's volume data-vol is on share 127.0.0.1:/srv/hoodlab-nfs, which is not mounted",
    ]


@pytest.mark.parametrize(
    ("source", "count"), [("10.0.0.9:/other", 2), ("127.0.0.1:/srv/hoodlab-nfs/", 0)]
)
def test_another_share_that_is_mounted_there(host: RecordedHost, source: str, count: int) -> None:
    def mounted(line: str) -> str:
        if "/var/lib/nova/mnt/1" not in line:
            return line
        return f"{line.partition(' - ')[0]} - nfs4 {source} rw"

    mounts(host, mounted)

    assert len([line for line in host.findings() if line.startswith("volume-share")]) == count


def test_a_file_system_that_covers_the_share(host: RecordedHost) -> None:
    text = host.last("kernel", "/proc/self/mountinfo").value
    share = next(line for line in text.splitlines() if "/var/lib/nova/mnt/1" in line)
    folder = share.split(" ")[4]
    cover = f"999 1 0:53 / {folder} rw,relatime - tmpfs cover rw,size=1024k"
    host.set("kernel", "/proc/self/mountinfo", f"{text.rstrip()}\n{cover}\n")

    assert [line for line in host.headlines() if "covers" in line] == [
        f"{title} is on share 127.0.0.1:/srv/hoodlab-nfs, which cover (tmpfs) covers"
        for title in ("vm-bfv's volume 0ab94923", "vm-data's volume data-vol")
    ]


def test_a_path_in_the_folder_of_another_share(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    info = json.loads(row_of(host, volume)["connection_info"])
    info["data"]["device_path"] = f"/var/lib/nova/mnt/{'0' * 32}/volume-{volume}"
    host.mapping(volume, connection_info=json.dumps(info))

    assert "volume-share-differs of vm-data" in named(host)


def test_an_export_that_is_wrong_in_nova_and_cinder(host: RecordedHost) -> None:
    """The share in use is mounted, so the advice must not wait for the recorded one."""
    volume, attachment = host.volume("vm-data")
    info = json.loads(row_of(host, volume)["connection_info"])
    info["data"]["export"] = "192.0.2.10:/vol/cinder"
    host.mapping(volume, connection_info=json.dumps(info))

    def moved(name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name != "attachment" or body["id"] != attachment:
            return body
        return body | {
            "connection_info": body["connection_info"] | {"export": info["data"]["export"]}
        }

    host.cinder(moved)
    found = host.found("volume-share-differs")

    assert found.headline == (
        "vm-data's volume data-vol is on 192.0.2.10:/vol/cinder in nova's record, but its"
        " device_path is in the folder of 127.0.0.1:/srv/hoodlab-nfs, which is mounted"
    )
    assert [line for line in changes(found) if line.startswith("nova-manage")] == [
        "nova-manage volume_attachment get_connector --json > connector.json",
        f"nova-manage volume_attachment refresh {host.uuid('vm-data')} {volume} connector.json",
    ]
    assert not [line for line in changes(found) if "mount " in line]


def test_an_export_that_is_wrong_in_nova_only_is_a_bad_record(host: RecordedHost) -> None:
    """The volume is where cinder has it, so no share has to be mounted first."""
    volume, _ = host.volume("vm-data")
    info = json.loads(row_of(host, volume)["connection_info"])
    info["data"]["export"] = "10.9.0.5:/cinder-old"
    host.mapping(volume, connection_info=json.dumps(info))

    assert named(host) == ["bdm-record-bad of vm-data"]


def test_loop_file_deleted(host: RecordedHost) -> None:
    query = "losetup --json --list"
    [loop] = host.last("block", query).value["loopdevices"]
    gone = loop | {"back-file": f"{loop['back-file']} (deleted)"}
    host.set("block", query, {"loopdevices": [gone]})

    [headline] = host.headlines()
    assert headline.startswith("The file of host vm's loop device loop0, …/hoodlab/nfs.img, was")


def test_a_loop_device_with_nothing_on_it_may_have_lost_its_file(host: RecordedHost) -> None:
    query = "losetup --json --list"
    [loop] = host.last("block", query).value["loopdevices"]
    gone = loop | {"name": "/dev/loop7", "back-file": "/tmp/x (deleted)"}
    host.set("block", query, {"loopdevices": [loop, gone]})

    assert host.findings() == []


def test_a_cloud_without_a_scheduler(host: RecordedHost) -> None:
    service(host, "cinder-scheduler", binary="cinder-backup")

    [headline] = host.headlines()
    assert headline.startswith("cinder lists 2 services, but no cinder-scheduler")
