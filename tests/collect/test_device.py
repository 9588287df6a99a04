"""Block devices of the host.

The output of LVM, iSCSI and multipath is copied from their documentation.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hoodsnap.collect import device
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.keep import block_device
from hoodsnap.keep.secret import WITHHELD

SECRET = "sesame42"  # noqa: S105 (it is planted, to be looked for)

SESSION = f"""\
iSCSI Transport Class version 2.0-870
version 2.1.8
Target: iqn.2010-10.org.openstack:volume-1 (non-flash)
\tCurrent Portal: 10.0.0.5:3260,1
\t\t*****
\t\tCHAP:
\t\t*****
\t\tusername: {SECRET}
\t\tpassword: {SECRET}
\t\tusername_in: <empty>
\t\tpassword_in: {SECRET}
\t\t************************
\t\tAttached SCSI devices:
\t\t************************
\t\tHost Number: 2\tState: running
\t\tscsi2 Channel 00 Id 0 Lun: 1
\t\t\tAttached scsi disk sdb\t\tState: running
"""

TGT = f"""\
Target 1: iqn.2010-10.org.openstack:volume-1
    System information:
        Driver: iscsi
        State: ready
    LUN information:
        LUN: 1
            Type: disk
            Backing store path: /dev/cinder-volumes/volume-1
    Account information:
        {SECRET}
        other-{SECRET} (outgoing)
    ACL information:
        ALL
"""


def test_sessions_are_kept_without_chap() -> None:
    kept = block_device.without_chap(SESSION)

    assert SECRET not in kept
    assert kept.count(WITHHELD) == 4
    assert "Attached scsi disk sdb" in kept


def test_targets_are_kept_without_accounts() -> None:
    kept = block_device.without_accounts(TGT)

    assert SECRET not in kept
    assert "Backing store path: /dev/cinder-volumes/volume-1" in kept
    assert "    ACL information:\n        ALL" in kept


def test_kernel_targets_are_read_without_authentication(tmp_path: Path) -> None:
    store = tmp_path / "core/iblock_0/iqn.2010-10.org.openstack:volume-1"
    store.mkdir(parents=True)
    (store / "udev_path").write_text("/dev/cinder-volumes/volume-1\n")
    group = tmp_path / "iscsi/iqn.2010-10.org.openstack:volume-1/tpgt_1"
    (group / "lun/lun_0").mkdir(parents=True)
    (group / "lun/lun_0/1234abcd").symlink_to(store)
    acl = group / "acls/iqn.1993-08.org.debian:01:host"
    (acl / "auth").mkdir(parents=True)
    (acl / "auth/password").write_text(SECRET)
    (tmp_path / "iscsi/discovery_auth").mkdir()

    assert device.targets(tmp_path / "iscsi") == [
        {
            "target": "iqn.2010-10.org.openstack:volume-1",
            "tpgt": "tpgt_1",
            "luns": [
                {
                    "lun": "0",
                    "backstore": "iblock_0/iqn.2010-10.org.openstack:volume-1",
                    "udev_path": "/dev/cinder-volumes/volume-1",
                }
            ],
            "initiators": ["iqn.1993-08.org.debian:01:host"],
        }
    ]


def test_devices_of_this_host_are_listed_without_labels() -> None:
    recorder = Recorder("vm")
    device.ask_devices(recorder)

    listed = next(answer for answer in recorder.answers if answer.query.startswith("lsblk"))
    if listed.error is not None:
        pytest.skip("this host has no lsblk")
    devices = listed.value["blockdevices"]
    assert all({"kname", "maj:min", "size"} <= line.keys() for line in devices)
    assert not any("label" in line for line in devices)
    assert len({answer.query for answer in recorder.answers}) == len(recorder.answers)


def test_a_missing_tool_is_recorded_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(command: list[str]) -> str:
        raise RefusedError("missing", f"{command[0]} is not installed")

    monkeypatch.setattr(device, "run", missing)
    recorder = Recorder("vm")
    device.ask_devices(recorder)

    programs = [answer for answer in recorder.answers if answer.query.startswith("multipath")]
    assert [answer.error and answer.error.kind for answer in programs] == ["absent", "absent"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("lvs"), reason="needs root and LVM")
def test_lvm_is_asked_without_locking() -> None:
    """hoodsnap neither takes a lock that would stop cinder, nor waits for one that cinder holds."""
    locks = Path("/run/lock/lvm")
    locks.mkdir(exist_ok=True, parents=True)
    recorder = Recorder("vm")
    with (locks / "P_global").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = subprocess.Popen(["lvs"], stdout=subprocess.DEVNULL, close_fds=True)
        try:
            device.ask_devices(recorder)
            assert waiting.poll() is None  # a program that wants the lock still waits for it
        finally:
            waiting.kill()
            waiting.wait()

    asked = {answer.query[:4]: answer for answer in recorder.answers}
    assert [asked[tool].error for tool in ("pvs ", "vgs ", "lvs ")] == [None] * 3


def test_an_old_lvm_is_asked_with_locking(monkeypatch: pytest.MonkeyPatch) -> None:
    def old(command: list[str]) -> str:
        if "--nolocking" in command:
            raise RefusedError("failed", f"{command[0]}: unrecognized option '--nolocking'")
        return '{"report": []}'

    monkeypatch.setattr(device, "run", old)
    recorder = Recorder("vm")
    device.ask_devices(recorder)

    [lvs] = [answer for answer in recorder.answers if answer.query.startswith("lvs ")]
    assert lvs.value == {"report": []}


def test_multipath_is_run_only_if_the_daemon_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "run", lambda command: '{"maps": []}')
    recorder = Recorder("vm")
    device.ask_devices(recorder)

    asked = {answer.query for answer in recorder.answers}
    assert "multipathd show maps json" in asked
    assert "multipath -ll" not in asked


def test_a_host_without_iscsi_sessions_is_recorded_as_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(command: list[str]) -> str:
        raise RefusedError("failed", "iscsiadm: No active sessions.")

    monkeypatch.setattr(device, "run", refuse)
    recorder = Recorder("vm")
    device.ask_devices(recorder)

    kinds = {answer.query: answer.error.kind for answer in recorder.answers if answer.error}
    assert kinds["iscsiadm -m session -P 3"] == "absent"
    assert kinds["multipath -ll"] == "failed"
