"""Recorded images as files."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RecordedHost

from hoodsnap.collect.file import head as first_bytes
from hoodsnap.collect.image_header import HEAD_SIZE, read_header
from hoodsnap.keep.save_header import SIZE, save_header
from hoodsnap.replay.images import Images
from hoodsnap.replay.recording import Recording, hosts

INSTANCES = "/var/lib/nova/instances"
LIST = f"find {INSTANCES} -ls"


def made(host: RecordedHost, root: Path) -> Images:
    (name,) = hosts(host.bundle)
    images = Images(Recording(host.bundle, name), root)
    images.make()
    return images


def _entries(host: RecordedHost) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.last("images", LIST).value
    return found


def test_every_file_has_its_name_and_size(host: RecordedHost, tmp_path: Path) -> None:
    images = made(host, tmp_path)

    files = [entry for entry in _entries(host) if entry["type"] == "f"]
    assert len(files) > 30
    for entry in files:
        status = (tmp_path / entry["path"].lstrip("/")).stat()
        assert status.st_size == entry["size"]
        assert stat.S_IMODE(status.st_mode) == int(entry["mode"], 8) & 0o1777
    assert images.unlike == {}


def test_an_overlay_names_its_base(host: RecordedHost, tmp_path: Path) -> None:
    made(host, tmp_path)
    disk = f"{INSTANCES}/{host.uuid('vm-plain')}/disk"
    (answer,) = {
        json.dumps(answer.value)
        for answer in host.bundle.answers
        if answer.query.startswith("qemu-img info -U --backing-chain --output=json")
        and answer.query.endswith(f" {disk}")
    }
    info = json.loads(answer)[0]

    header = read_header(first_bytes(tmp_path / disk.lstrip("/"), HEAD_SIZE))

    assert (header.format, header.backing) == ("qcow2", info["backing-filename"])
    assert header.backing_format == "raw"


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_img_shows_the_recorded_info(host: RecordedHost, tmp_path: Path) -> None:
    made(host, tmp_path)
    compared = 0
    for answer in host.bundle.answers:
        if not answer.query.startswith("qemu-img info -U --backing-chain --output=json -f qcow2"):
            continue
        wanted = answer.value[0]
        path = tmp_path / wanted["filename"].lstrip("/")
        shown = json.loads(
            subprocess.run(
                ["qemu-img", "info", "-U", "--output=json", "-f", "qcow2", path],
                check=True, capture_output=True, text=True,
            ).stdout
        )  # fmt: skip
        for gone in ("filename", "children", "actual-size"):
            shown.pop(gone, None)
        assert shown == {key: wanted[key] for key in shown}
        assert {*shown, "filename", "actual-size"} >= wanted.keys() - {"children"}
        compared += 1

    assert compared > 10


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/var/lib/../../etc/passwd",
        "/root/.ssh/authorized_keys",
        "relative/disk",
        "/var/lib/nova/instances/../../../../tmp/escaped",
        "/var/lib",
        "/proc/self/mem",
        "/var/lib/nova/\n/disk",
        "/var/lib/" + "x" * 5000,
    ],
)
def test_no_path_leads_out(host: RecordedHost, tmp_path: Path, path: str) -> None:
    entry = {**_entries(host)[-1], "path": path, "type": "f", "mode": "104777"}
    host.set("images", LIST, [entry])

    made(host, tmp_path / "root")

    outside = [found for found in tmp_path.rglob("*") if "root" not in found.parts]
    assert outside == []
    for found in (tmp_path / "root").rglob("*"):
        assert found.relative_to(tmp_path / "root").parts[0] in ("var", "opt", "srv")
        assert not found.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)


def test_a_link_is_not_followed(host: RecordedHost, tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.write_text("untouched")
    folder = f"{INSTANCES}/x"
    link = {**_entries(host)[-1], "path": folder, "type": "l", "target": str(tmp_path)}
    below = {**_entries(host)[-1], "path": f"{folder}/victim", "type": "f"}
    host.set("images", LIST, [link, below])

    made(host, tmp_path / "root")

    assert target.read_text() == "untouched"


def test_an_absurd_size_takes_no_space(host: RecordedHost, tmp_path: Path) -> None:
    path = f"{INSTANCES}/huge"
    entry = {**_entries(host)[-1], "path": path, "type": "f", "size": 1 << 50, "blocks": 1 << 41}
    host.set("images", LIST, [entry])

    images = made(host, tmp_path)

    assert images.unlike[path]
    assert (tmp_path / path.lstrip("/")).stat().st_blocks < 1 << 10


@pytest.mark.parametrize(
    "recorded",
    [
        {"magic": "LibvirtQemudSave", "data_len": 70_928, "was_running": 1, "compressed": 0},
        {"magic": "LibvirtQemudPart", "data_len": 0, "was_running": 0, "compressed": 3},
        {"magic": None},
        None,  # an older collector did not ask for it
    ],
)
def test_saved_memory_begins_with_the_recorded_header(
    host: RecordedHost, tmp_path: Path, recorded: dict[str, object] | None
) -> None:
    path = f"/var/lib/libvirt/qemu/save/{host.domain('vm-suspended')}.save"
    look = host.last("images", f"stat -L {path}")
    query = f"head -c {SIZE} {path}"
    kept = [answer for answer in host.bundle.answers if answer.query != query]
    host.bundle = host.bundle.with_answers(tuple(kept))
    if recorded is not None:
        host.add(look.model_copy(update={"query": query, "value": {"read": SIZE, **recorded}}))

    images = made(host, tmp_path)

    file = tmp_path / path.lstrip("/")
    shown = save_header(first_bytes(file, SIZE))
    expected = {"magic": "LibvirtQemudSave"} if recorded is None else recorded
    assert {name: shown.get(name) for name in expected} == expected
    assert file.stat().st_size == look.value["size"]
    assert path not in images.unlike


def test_saved_memory_that_was_cut_is_as_short(host: RecordedHost, tmp_path: Path) -> None:
    path = f"/var/lib/libvirt/qemu/save/{host.domain('vm-suspended')}.save"
    look = host.last("images", f"stat -L {path}")
    host.set("images", look.query, look.value | {"size": 40})

    made(host, tmp_path)

    assert (tmp_path / path.lstrip("/")).stat().st_size == 40
