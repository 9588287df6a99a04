"""The /proc of a recorded host, for the real ps, pgrep and top, and for our own collector.

Only what they read, of the processes that were recorded, and of the host as a whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from hoodsnap.replay.recording import UNREADABLE, NotRecorded, Recording

OF_A_PROCESS = ("stat", "statm", "status", "cmdline", "comm", "cgroup")
OF_THE_HOST = (
    "uptime",
    "stat",
    "meminfo",
    "loadavg",
    "version",
    "cpuinfo",
    "sys/kernel/pid_max",
    "sys/kernel/osrelease",
    "sys/kernel/random/boot_id",
    "locks",
)
MOST_PROCESSES = 100_000
MOST_FILES = 10_000
"""Threads, or open files, of one process."""


def make(recording: Recording, root: Path) -> int:
    """Write the files below a folder; the number of processes.

    Highest process first: a tmpfs lists its newest file first, and the kernel the lowest number.
    """
    for name in OF_THE_HOST:
        for answer in recording.asked("kernel", f"/proc/{name}"):
            if answer.query == f"/proc/{name}" and isinstance(answer.value, str):
                _write(root / name, answer.value)
    found: dict[int, dict[str, str]] = {}
    for answer in recording.asked("kernel", "/proc/"):
        named = re.fullmatch(r"/proc/([0-9]{1,7})/([a-z]+)", answer.query)
        if named and named[2] in OF_A_PROCESS and isinstance(answer.value, str):
            found.setdefault(int(named[1]), {})[named[2]] = answer.value
    for pid in sorted(found, reverse=True)[:MOST_PROCESSES]:
        for name, text in found[pid].items():
            _write(root / str(pid) / name, text)
        _write(root / str(pid) / "environ", "")
        (root / str(pid) / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
    _stand_in_for_the_reader(root)
    return len(found)


def complete(recording: Recording, root: Path) -> None:
    """Add what only our own collector reads, of each process that `make` has written."""
    pids = {int(path.name) for path in root.iterdir() if path.name.isdigit()}
    for answer in recording.asked("kernel", "awk "):
        named = re.fullmatch(r"awk .* /proc/([0-9]{1,7})/mountinfo", answer.query)
        if named and int(named[1]) in pids and isinstance(answer.value, str):
            _write(root / named[1] / "mountinfo", answer.value)
    for pid in pids:
        _complete(recording, root / str(pid), pid)


def _complete(recording: Recording, folder: Path, pid: int) -> None:
    """A process' program, root, namespaces, threads and open files. Its links are there to be read:
    what they lead to is this machine's, or an image that was put back."""
    for name in ("exe", "root"):
        for target in _said(recording, f"readlink /proc/{pid}/{name}"):
            _link(folder / name, target)
    for found in _said(recording, f"readlink /proc/{pid}/ns/*"):
        for name, target in _items(found):
            if re.fullmatch("[a-z_]+", name):
                _link(folder / "ns" / name, target)
    threads = f"grep -E '^(Name|Cpus_allowed_list):' /proc/{pid}/task/*/status"
    for found in _said(recording, threads):
        for tid, thread in _items(found):
            if re.fullmatch("[0-9]{1,7}", tid) and isinstance(thread, dict):
                text = f"Name:\t{thread.get('comm')}\nCpus_allowed_list:\t{thread.get('cpus')}\n"
                _write(folder / "task" / tid / "status", text)
    for found in _said(recording, f"ls -lL /proc/{pid}/fd"):
        for file in found[:MOST_FILES] if isinstance(found, list) else ():
            if isinstance(file, dict) and isinstance(number := file.get("fd"), int):
                _link(folder / "fd" / str(number), file.get("path"))
                names = [name for name in ("flags", "iff") if name in file]
                lines = (f"{name}:\t{file[name]}\n" for name in names)
                _write(folder / "fdinfo" / str(number), "".join(lines))


def _said(recording: Recording, query: str) -> Iterator[object]:
    """What was answered to a question about a process: nothing, if it was not asked."""
    with suppress(NotRecorded):
        yield recording.value("kernel", query)


def _items(found: object) -> Iterable[tuple[str, object]]:
    return [*found.items()][:MOST_FILES] if isinstance(found, dict) else ()


def _link(path: Path, target: object) -> None:
    # A stranger's may be there twice, or lead to what is longer than any path.
    with suppress(OSError, *UNREADABLE):
        if isinstance(target, str) and target:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(os.fsencode(target), path)


def _stand_in_for_the_reader(root: Path) -> None:
    """Who reads /proc looks for itself first. In a PID namespace of its own it is the first."""
    own = root / "1"
    for name in ("stat", "status", "statm", "cmdline", "comm"):
        text = Path(f"/proc/self/{name}").read_text(errors="surrogateescape")
        _write(own / name, re.sub(r"\A\d+ ", "1 ", text) if name == "stat" else text)
    _write(own / "environ", "")
    (own / "task" / "1").mkdir(parents=True, exist_ok=True)
    (root / "self").symlink_to("1")


def _write(path: Path, text: str) -> None:
    with suppress(*UNREADABLE):
        data = os.fsencode(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
