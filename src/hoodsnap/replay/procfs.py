"""The /proc of a recorded host, for the real ps, pgrep and top, and for hoodsnap's own collector.

It has only the files that these programs read, for the recorded processes and the host as a whole.
`/proc/self` is never the recorded one: it leads to the real /proc of the shell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording

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
    "sys/fs/aio-nr",
    "sys/fs/aio-max-nr",
    "locks",
)
MOST_ENTRIES = 100_000
"""Largest number of files and folders. A guest's process has about two hundred."""

MOST_FILES = 10_000
"""Largest number of threads, and of open files, of one process."""

_OWN = ("self", "thread-self")
_OF_SELF = ("mounts", "net")

_A_PROCESS = re.compile(r"/proc/([1-9][0-9]{0,6})/([a-z]+)")


def pids(recording: Recording) -> frozenset[int]:
    """Return the recorded PIDs."""
    return frozenset(_recorded(recording))


def _recorded(recording: Recording) -> dict[int, dict[str, str]]:
    """Return the recorded files of each process, by PID; without PID 1, which the shell has."""
    found: dict[int, dict[str, str]] = {}
    for answer in recording.asked("kernel", "/proc/"):
        named = _A_PROCESS.fullmatch(answer.query)
        if (
            named
            and named[2] in OF_A_PROCESS
            and isinstance(answer.value, str)
            and (pid := int(named[1])) != 1
        ):
            found.setdefault(pid, {})[named[2]] = answer.value
    return found


def make(recording: Recording, root: str | os.PathLike[str], own: str | None = None) -> int:
    """Write the files below a folder; return the number of processes written.

    `own`: the real /proc, for links such as `self`. The highest PID is written first, because a
    tmpfs lists its newest file first, while the kernel lists the lowest PID first.
    """
    root = os.fspath(root)
    os.makedirs(root, exist_ok=True)
    maker = _Maker(recording, root)
    maker.make_host()
    if own is not None:
        for name in _OWN:
            os.symlink(f"{own}/{name}", f"{root}/{name}")
        for name in _OF_SELF:
            os.symlink(f"self/{name}", f"{root}/{name}")
    return maker.make_processes()


class _Maker:
    """Writer of the files and links of a recorded /proc, up to the limit."""

    def __init__(self, recording: Recording, root: str) -> None:
        self._recording = recording
        self._root = root
        self._left = MOST_ENTRIES
        self._folders: set[str] = {root}

    def make_host(self) -> None:
        """Write the files about the host."""
        for name in OF_THE_HOST:
            for answer in self._recording.asked("kernel", f"/proc/{name}"):
                if answer.query == f"/proc/{name}" and isinstance(answer.value, str):
                    self._write(f"{self._root}/{name}", answer.value)

    def make_processes(self) -> int:
        """Write the folders of the processes; return their number.

        The files that `ps` reads come first, for all processes, because the limit may be reached.
        """
        found = _recorded(self._recording)
        made = []
        for pid in sorted(found, reverse=True):
            if self._left < len(found[pid]) + 5:
                break
            made.append(pid)
            folder = f"{self._root}/{pid}"
            for name, text in found[pid].items():
                self._write(f"{folder}/{name}", text)
            self._write(f"{folder}/environ", "")
            self._make_folder(f"{folder}/task/{pid}")
        known = set(made)
        for answer in self._recording.asked("kernel", "awk "):
            named = re.fullmatch(r"awk .* /proc/([0-9]{1,7})/mountinfo", answer.query)
            if named and int(named[1]) in known and isinstance(answer.value, str):
                self._write(f"{self._root}/{named[1]}/mountinfo", answer.value)
        for pid in made:
            self._complete(f"{self._root}/{pid}", pid)
        return len(made)

    def _complete(self, folder: str, pid: int) -> None:
        """Write a process's program, root, namespaces, threads and open files, for the collector.

        The links are only meant to be read; following them leads to files of the shell.
        """
        for name in ("exe", "root"):
            for target in self._answers(f"readlink /proc/{pid}/{name}"):
                self._link(f"{folder}/{name}", target)
        for found in self._answers(f"readlink /proc/{pid}/ns/*"):
            for name, target in _items(found):
                if re.fullmatch("[a-z_]+", name):
                    self._link(f"{folder}/ns/{name}", target)
        threads = f"grep -E '^(Name|Cpus_allowed_list):' /proc/{pid}/task/*/status"
        for found in self._answers(threads):
            for tid, thread in _items(found):
                if re.fullmatch("[0-9]{1,7}", tid) and isinstance(thread, dict):
                    cpus = thread.get("cpus")
                    text = f"Name:\t{thread.get('comm')}\nCpus_allowed_list:\t{cpus}\n"
                    self._write(f"{folder}/task/{tid}/status", text)
        for found in self._answers(f"ls -lL /proc/{pid}/fd"):
            for file in found[:MOST_FILES] if isinstance(found, list) else ():
                if isinstance(file, dict) and isinstance(number := file.get("fd"), int):
                    self._link(f"{folder}/fd/{number}", file.get("path"))
                    names = [name for name in ("flags", "iff") if name in file]
                    lines = (f"{name}:\t{file[name]}\n" for name in names)
                    self._write(f"{folder}/fdinfo/{number}", "".join(lines))

    def _answers(self, query: str) -> Iterator[object]:
        """Yield the answer to a query about a process; nothing if it was not recorded."""
        with suppress(NotRecordedError):
            yield self._recording.value("kernel", query)

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            self._make_folder(folder.rpartition("/")[0])
            self._left -= 1
            with suppress(FileExistsError):
                os.mkdir(folder)
            self._folders.add(folder)

    def _link(self, path: str, target: object) -> None:
        # A stranger's recording may list a link twice, or with a target longer than any path.
        with suppress(OSError, *UNREADABLE):
            if self._left > 0 and isinstance(target, str) and target:
                self._make_folder(path.rpartition("/")[0])
                self._left -= 1
                os.symlink(os.fsencode(target), path)

    def _write(self, path: str, text: str) -> None:
        with suppress(OSError, *UNREADABLE):
            data = os.fsencode(text)
            if self._left <= 0:
                return
            self._make_folder(path.rpartition("/")[0])
            self._left -= 1
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            handle = os.open(path, flags, 0o444)
            try:
                os.write(handle, data)
            finally:
                os.close(handle)


def _items(found: object) -> Iterable[tuple[str, object]]:
    return [*found.items()][:MOST_FILES] if isinstance(found, dict) else ()
