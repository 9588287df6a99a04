"""The /proc of a recorded host, for the real ps, pgrep and top.

Only what they read, of the processes that were recorded, and of the host as a whole.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from hoodsnap.replay.recording import UNREADABLE, Recording

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
)
MOST_PROCESSES = 100_000


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
