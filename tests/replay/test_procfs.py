"""A recorded /proc."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import RecordedHost

from hoodsnap.replay import procfs
from hoodsnap.replay.recording import Recording, hosts


def test_every_process_is_restored(host: RecordedHost, tmp_path: Path) -> None:
    (name,) = hosts(host.bundle)
    pid = host.pid("vm-plain")

    count = procfs.make(Recording(host.bundle, name), tmp_path)

    listed = host.last("kernel", "ls -l /proc/*/exe").value
    assert count == len(listed)
    for part in procfs.OF_A_PROCESS:
        recorded = host.last("kernel", f"/proc/{pid}/{part}").value
        assert (tmp_path / str(pid) / part).read_text() == recorded
    assert (tmp_path / "uptime").read_text() == host.last("kernel", "/proc/uptime").value


def test_files_for_our_own_collector_are_restored(host: RecordedHost, tmp_path: Path) -> None:
    (name,) = hosts(host.bundle)
    pid = host.pid("vm-plain")
    folder = tmp_path / str(pid)
    recording = Recording(host.bundle, name)

    procfs.make(recording, tmp_path)

    assert os.readlink(folder / "exe") == host.last("kernel", f"readlink /proc/{pid}/exe").value
    spaces = host.last("kernel", f"readlink /proc/{pid}/ns/*").value
    assert {link.name: os.readlink(link) for link in (folder / "ns").iterdir()} == spaces
    files = host.last("kernel", f"ls -lL /proc/{pid}/fd").value
    assert {link.name: os.readlink(link) for link in (folder / "fd").iterdir()} == {
        str(file["fd"]): file["path"] for file in files
    }


def test_nothing_else_becomes_a_file(host: RecordedHost, tmp_path: Path) -> None:
    (name,) = hosts(host.bundle)
    pid = host.pid("vm-plain")
    asked = host.last("kernel", "/proc/uptime")
    for query in ("/proc/../escaped", "/proc/1/../../x", "/proc/12345678/stat", "/proc/7/mem"):
        host.add(asked.model_copy(update={"query": query, "value": "hostile", "subject": "7"}))

    for query, value in (
        ("readlink /proc/12345678/exe", "/bin/sh"),
        ("readlink /proc/7/exe", "/bin/sh"),  # of no process that was recorded
        (f"readlink /proc/{pid}/ns/*", {"../../../evil": "/bin/sh"}),
        (
            f"ls -lL /proc/{pid}/fd",
            [
                {"fd": "../../evil", "path": "/bin/sh"},
                {"fd": 1, "path": 1},
                {"fd": 2, "path": "/a" * 5000},
                {"fd": 3, "path": "/once"},
                {"fd": 3, "path": "/twice"},
            ],
        ),
        (f"grep -E '^(Name|Cpus_allowed_list):' /proc/{pid}/task/*/status", {"../../../evil": {}}),
    ):
        host.add(asked.model_copy(update={"query": query, "value": value, "subject": str(pid)}))

    recording = Recording(host.bundle, name)
    procfs.make(recording, tmp_path / "proc")

    assert [found.name for found in tmp_path.iterdir()] == ["proc"]
    assert not (tmp_path / "proc/7").exists()
    assert not list(tmp_path.rglob("*evil*"))
    texts = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert "hostile" not in {path.read_text() for path in texts}
