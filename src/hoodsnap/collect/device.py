"""Block devices of the host, and how volumes reach it: LVM, iSCSI, multipath, loop devices.

Each tool is only asked to list. `hoodsnap.keep.block_device` removes what would open a volume.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hoodsnap.bundle import Answer
from hoodsnap.collect import file
from hoodsnap.collect.program import run
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.keep.block_device import block_device, initiator, without_accounts, without_chap

LAYER = "block"

_SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PV = "pv_name,vg_name,pv_uuid,pv_attr,pv_size,pv_free,dev_size,pv_missing"
_VG = "vg_name,vg_uuid,vg_attr,vg_size,vg_free,pv_count,lv_count,snap_count"
_LV = (
    "lv_name,vg_name,lv_uuid,lv_path,lv_dm_path,lv_attr,lv_size,lv_kernel_major,lv_kernel_minor"
    ",pool_lv,origin,data_percent,metadata_percent"
)

TARGETS = Path("/sys/kernel/config/target/iscsi")


def ask_devices(recorder: Recorder) -> None:
    """Ask everything about the host's block devices."""
    survey = _Survey(recorder)
    survey.ask_program(("lsblk", "--json", "--bytes", "--output-all"), _block_devices)
    survey.ask_program(("losetup", "--json", "--list"), _json_or_nothing)
    for folder in ("/dev/disk/by-path", "/dev/disk/by-id"):
        recorder.ask(LAYER, f"ls -l {folder}", _links_in(folder))
    for tool, columns in (("pvs", _PV), ("vgs", _VG), ("lvs", _LV)):
        options = ("--reportformat", "json", "--units", "b", "--options", columns)
        survey.ask_program((tool, *options, "--nolocking"), json.loads)
    survey.ask_mapper()
    maps = survey.ask_program(("multipathd", "show", "maps", "json"), json.loads)
    if maps.error is not None:  # only then, because `multipath -ll` sends a command to each path
        survey.ask_program(("multipath", "-ll"), str)
    name = Path("/etc/iscsi/initiatorname.iscsi")
    recorder.ask(LAYER, f"cat {name}", lambda: initiator(file.text(name)))
    survey.ask_program(("iscsiadm", "-m", "session", "-P", "3"), without_chap, _no_session)
    recorder.ask(LAYER, f"ls -R {TARGETS}", lambda: targets(TARGETS))
    survey.ask_program(
        ("tgtadm", "--lld", "iscsi", "--mode", "target", "--op", "show"), without_accounts
    )


class _Survey:
    """One survey of a host's block devices."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def ask_program(
        self,
        command: Sequence[str],
        read: Callable[[str], object],
        refused: Callable[[RefusedError], RefusedError] = lambda refusal: refusal,
    ) -> Answer:
        """Run a program and keep the result of `read` for its output.

        `refused` may replace the refusal if the program fails.
        """

        def how() -> object:
            try:
                return read(_run(command))
            except RefusedError as refusal:
                # A host without multipath, or without exports, is normal: record it as absent.
                if refusal.kind == "missing":
                    raise RefusedError("absent", str(refusal)) from None
                raise refused(refusal) from None

        return self._recorder.ask(LAYER, " ".join(command), how)

    def ask_mapper(self) -> None:
        """Ask the device mapper for its devices, but not for their tables, which contain keys."""
        columns = "name,uuid,major,minor,open,segments,attr"
        options = ("--columns", "--noheadings", "--separator", "|", "--options", columns)
        command = ("dmsetup", "info", *options)

        def how() -> object:
            if shutil.which("dmsetup", path=_SEARCHED) and not _has_mapper():
                raise RefusedError("absent", "the kernel has no device mapper")
            return run(command)

        self._recorder.ask(LAYER, " ".join(command), how)


def _run(command: Sequence[str]) -> str:
    # LVM's tools lock the volume groups while they read the labels of all devices. One dead device
    # makes that take long, and cinder can't create volumes meanwhile.
    try:
        return run(command)
    except RefusedError as refusal:
        if "--nolocking" in command and "nolocking" in str(refusal):  # before LVM 2.03
            return run([word for word in command if word != "--nolocking"])
        raise


def targets(folder: Path) -> list[dict[str, object]]:
    """Return the iSCSI targets that the kernel exports, with their LUNs and initiators.

    Nothing about authentication is read.
    """
    found: list[dict[str, object]] = []
    for target in sorted(folder.iterdir()):
        if not target.is_dir() or target.name == "discovery_auth":
            continue
        for group in sorted(target.glob("tpgt_*")):
            found.append(
                {
                    "target": target.name,
                    "tpgt": group.name,
                    "luns": [_lun(lun) for lun in sorted(group.glob("lun/lun_*"))],
                    "initiators": sorted(acl.name for acl in group.glob("acls/*")),
                }
            )
    return found


def _lun(lun: Path) -> dict[str, object]:
    # Besides its attributes a LUN has one link, to the backstore that it exports.
    for link in sorted(lun.iterdir()):
        if link.is_symlink():
            store = link.resolve()
            device = store / "udev_path"
            path = file.text(device).strip() if device.exists() else None
            return {
                "lun": lun.name.removeprefix("lun_"),
                "backstore": f"{store.parent.name}/{store.name}",
                "udev_path": path,
            }
    return {"lun": lun.name.removeprefix("lun_"), "backstore": None, "udev_path": None}


def _block_devices(text: str) -> object:
    printed = json.loads(text)
    devices = printed.get("blockdevices") if isinstance(printed, Mapping) else None
    if not isinstance(devices, list):
        raise RefusedError("failed", "lsblk printed no list of block devices")
    return {"blockdevices": [block_device(device) for device in devices]}


def _json_or_nothing(text: str) -> object:
    # losetup prints nothing at all if there are no loop devices.
    return json.loads(text) if text.strip() else {"loopdevices": []}


def _links_in(folder: str) -> Callable[[], object]:
    def links() -> dict[str, str]:
        found = {}
        with file.folder(folder) as handle:
            for name in file.names_at(handle, folder):
                if stat.S_ISLNK(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                    found[name] = os.readlink(name, dir_fd=handle)
        return found

    return links


def _has_mapper() -> bool:
    return " device-mapper\n" in file.text("/proc/misc")


def _no_session(refusal: RefusedError) -> RefusedError:
    """Return `absent` if there are no sessions, for which iscsiadm ends with status 21."""
    if "No active sessions" in str(refusal):
        return RefusedError("absent", str(refusal))
    return refusal
