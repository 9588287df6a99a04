"""Sockets at which a process listens, and whose files are gone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.collect.trusted.running_process import RunningProcess
from hoodsnap.collect.unix_socket import LostSockets, listening

HEAD = "Num       RefCount Protocol Flags    Type St Inode Path\n"


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(sockets: ExitStack, path: Path | str) -> None:
    one = sockets.enter_context(socket.socket(socket.AF_UNIX))
    one.bind(str(path))
    one.listen()


def lost(folder: Path) -> list[str]:
    """Return the lost sockets in a folder; the process has those of other tests, too."""
    with RunningProcess(os.getpid()) as process:
        return [path for path in LostSockets().of(process) or () if path.startswith(f"{folder}/")]


def test_a_deleted_a_moved_and_a_covered_socket(sockets: ExitStack, tmp_path: Path) -> None:
    for name in ("deleted", "moved", "kept"):
        listen(sockets, tmp_path / name)
    (tmp_path / "folder").mkdir()
    listen(sockets, tmp_path / "folder/inside")
    assert lost(tmp_path) == []

    (tmp_path / "deleted").unlink()
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    (tmp_path / "folder").rename(tmp_path / "renamed")
    (tmp_path / "folder").touch()
    assert lost(tmp_path) == [
        str(tmp_path / name) for name in ("deleted", "folder/inside", "moved")
    ]


def test_sockets_that_need_no_file(sockets: ExitStack, tmp_path: Path) -> None:
    listen(sockets, f"\0hoodsnap-{os.getpid()}")
    client = sockets.enter_context(socket.socket(socket.AF_UNIX))
    client.bind(str(tmp_path / "client"))  # it does not listen
    (tmp_path / "client").unlink()

    assert lost(tmp_path) == []


def test_a_long_list_of_lost_sockets_is_cut(sockets: ExitStack, tmp_path: Path) -> None:
    for number in range(20):
        listen(sockets, tmp_path / f"{number:02}")
        (tmp_path / f"{number:02}").unlink()

    assert lost(tmp_path) == [str(tmp_path / f"{number:02}") for number in range(16)]


def test_a_path_with_spaces() -> None:
    line = "0000000000000000: 00000002 00000000 00010000 0001 01 30214 /run/a b/c\n"
    assert listening(HEAD + line) == {"30214": "/run/a b/c"}


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    listening(HEAD + text)
