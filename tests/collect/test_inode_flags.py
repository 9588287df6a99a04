"""Flags that forbid changes to a file."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hoodsnap.collect import inode_flags
from hoodsnap.collect.folder import list_folder
from hoodsnap.collect.inode_flags import UNKNOWN, Flags, flags_of


@contextmanager
def flagged(path: Path, letter: str) -> Iterator[None]:
    """Set a flag, which only root may do, and only on a file system that has flags."""
    if (
        os.geteuid()
        or subprocess.run(["chattr", f"+{letter}", path], capture_output=True).returncode
    ):
        pytest.skip("flags can't be set here")
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{letter}", path], check=True)


def flags(path: Path) -> Flags:
    folder = os.open(path.parent, os.O_PATH)
    try:
        return flags_of(path.name, folder)
    finally:
        os.close(folder)


@pytest.mark.parametrize(
    ("letter", "expected"), [("i", Flags(True, False)), ("a", Flags(False, True))]
)
def test_a_flag_is_seen(tmp_path: Path, letter: str, expected: Flags) -> None:
    file = tmp_path / "disk"
    file.touch()
    before = flags(file)

    with flagged(file, letter):
        assert flags(file) == expected
        [_, line] = list_folder(str(tmp_path), lambda path, head: None)
    assert (line["immutable"], line["append_only"]) == expected
    assert before == flags(file) == Flags(False, False)


def test_the_flags_of_a_folder(tmp_path: Path) -> None:
    with flagged(tmp_path, "i"):
        [line] = list_folder(str(tmp_path), lambda path, head: None)

    assert (line["immutable"], line["append_only"]) == (True, False)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "link").symlink_to(target)

    with flagged(target, "i"):
        assert flags(tmp_path / "link").immutable is not True


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert flags(tmp_path / "pipe") in (Flags(False, False), UNKNOWN)


def test_a_file_that_does_not_exist_has_unknown_flags(tmp_path: Path) -> None:
    assert flags(tmp_path / "gone") == UNKNOWN


def test_a_file_system_without_flags() -> None:
    """/proc reports neither flag, whatever the kernel."""
    assert flags(Path("/proc/version")) == UNKNOWN


def test_an_old_c_library_has_no_statx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **options: SimpleNamespace())
    inode_flags._statx.cache_clear()
    try:
        assert flags(tmp_path) == UNKNOWN
    finally:
        monkeypatch.undo()
        inode_flags._statx.cache_clear()
