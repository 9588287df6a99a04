"""A recorded /proc."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import RecordedHost

from hoodsnap.replay import procfs
from hoodsnap.replay.recording import Recording, hosts


def test_every_process_is_there_as_it_was(host: RecordedHost, tmp_path: Path) -> None:
    (name,) = hosts(host.bundle)
    pid = host.pid("vm-plain")

    count = procfs.make(Recording(host.bundle, name), tmp_path)

    listed = host.last("kernel", "ls -l /proc/*/exe").value
    assert count == len(listed)
    for part in procfs.OF_A_PROCESS:
        said = host.last("kernel", f"/proc/{pid}/{part}").value
        assert (tmp_path / str(pid) / part).read_text() == said
    assert (tmp_path / "uptime").read_text() == host.last("kernel", "/proc/uptime").value


def test_nothing_else_becomes_a_file(host: RecordedHost, tmp_path: Path) -> None:
    (name,) = hosts(host.bundle)
    asked = host.last("kernel", "/proc/uptime")
    for query in ("/proc/../escaped", "/proc/1/../../x", "/proc/12345678/stat", "/proc/7/mem"):
        host.add(asked.model_copy(update={"query": query, "value": "hostile", "subject": "7"}))

    procfs.make(Recording(host.bundle, name), tmp_path / "proc")

    assert [found.name for found in tmp_path.iterdir()] == ["proc"]
    texts = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert "hostile" not in {path.read_text() for path in texts}
