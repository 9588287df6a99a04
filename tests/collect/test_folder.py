import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoodsnap.collect import folder
from hoodsnap.collect.folder import list_folder, look_at
from hoodsnap.collect.recorder import Recorder


def listed(top: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a folder by relative path."""
    entries = list_folder(str(top), lambda path, head: None)
    return {os.path.relpath(entry["path"], top): entry for entry in entries}


def test_entries_match_stat(tmp_path: Path) -> None:
    disk = tmp_path / "uuid/disk"
    disk.parent.mkdir()
    disk.write_bytes(b"QFI\xfb" + b"\0" * 100)
    os.truncate(disk, 1 << 20)
    disk.chmod(0o640)
    os.utime(disk, (1, 1700000000.25))

    entry = listed(tmp_path)["uuid/disk"]

    status = disk.stat()
    assert entry["path"] == str(disk)
    assert (entry["type"], entry["mode"]) == ("f", "100640")
    assert (entry["size"], entry["blocks"]) == (1 << 20, status.st_blocks)
    assert (entry["ino"], entry["nlink"]) == (status.st_ino, 1)
    assert entry["dev"] == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    assert entry["mtime"] == "2023-11-14T22:13:20.250000Z"
    assert entry["magic"] == "514649fb" + "00" * 12


def test_access_control_lists_are_reported(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "shared").touch()
    # As `setfacl -m u:64055:r shared` writes it: version 2, then each rule's tag, permissions, id.
    rules = [(1, 6, -1), (2, 4, 64055), (4, 4, -1), (16, 4, -1), (32, 4, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *rule) for rule in rules)
    try:
        os.setxattr(tmp_path / "shared", "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("this file system has no access control lists")

    entries = listed(tmp_path)

    assert (entries["plain"]["acl"], entries["shared"]["acl"]) == (False, True)


def test_links_and_pipes_are_listed_but_not_opened(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/inside").write_text("not through the link")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")  # opening it for reading would wait for a writer

    entries = listed(tmp_path)

    assert entries["link"]["type"] == "l"
    assert entries["link"]["target"] == "target"
    assert "link/inside" not in entries
    assert (entries["pipe"]["type"], entries["pipe"]["magic"]) == ("p", None)
    assert list(entries) == [".", "link", "pipe", "target", "target/inside"]


def test_console_logs_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text("password: sesame")
    (tmp_path / "console.log.0").write_text("password: sesame")

    assert {entry["magic"] for entry in listed(tmp_path).values()} == {None}


def test_listing_does_not_change_access_times(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 100)
    os.utime(disk, (1000, 2000))  # so old that reading would update it, even with relatime

    listed(tmp_path)
    look_at(str(disk), lambda path, head: None)

    assert disk.stat().st_atime == 1000


def test_the_entry_of_a_folder_that_is_too_deep_has_an_error(tmp_path: Path) -> None:
    (tmp_path / "snapshots/tmp1/a/b").mkdir(parents=True)

    entries = listed(tmp_path)

    error = entries["snapshots/tmp1/a"]["error"]
    assert error == "not listed: its content is more than 3 levels deep"
    assert "snapshots/tmp1/a/b" not in entries
    assert "error" not in entries["snapshots/tmp1"]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that all accounts may enter. Only their owner may enter those of pytest."""
    with tempfile.TemporaryDirectory(prefix="hoodsnap-") as top:
        Path(top).chmod(0o755)
        yield Path(top)


def test_an_unreadable_folder_has_an_error_and_the_rest_is_listed(open_to_all: Path) -> None:
    for name, mode in (("closed", 0), ("names only", 0o444), ("open", 0o755)):
        (open_to_all / name).mkdir()
        (open_to_all / name / "disk").write_text("five\n")
        (open_to_all / name).chmod(mode)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        entries = listed(open_to_all)
    finally:
        if root:
            os.seteuid(0)
        for name in ("closed", "names only"):
            (open_to_all / name).chmod(0o755)

    assert entries["closed"]["error"] == "Permission denied"
    assert entries["names only"]["error"] == "Permission denied"
    assert "names only/disk" not in entries
    assert entries["open/disk"]["size"] == 5


def test_a_listing_with_too_many_entries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MOST", 5)
    for number in range(6):
        (tmp_path / str(number)).touch()

    answer = Recorder("host").ask("images", "find DIR -ls", lambda: listed(tmp_path))

    assert answer.error is not None
    assert answer.error.kind == "too-large"


def test_a_single_file_is_reached_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"QFI\xfb")
    (tmp_path / "link").symlink_to("real")
    heads: dict[str, bytes] = {}

    entry = look_at(str(tmp_path / "link"), heads.__setitem__)

    assert (entry["path"], entry["type"]) == (str(tmp_path / "link"), "f")
    assert entry["ino"] == (tmp_path / "real").stat().st_ino
    assert heads == {str(tmp_path / "link"): b"QFI\xfb"}


def test_a_time_out_of_range_is_left_out() -> None:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("only tmpfs accepts any time")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        disk = Path(top) / "disk"
        disk.touch()
        os.utime(disk, (0, 10**12))

        entry = listed(Path(top))["disk"]

    assert entry["mtime"] is None
    assert entry["ctime"] is not None
