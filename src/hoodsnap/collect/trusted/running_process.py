"""Running process of this host, as the kernel shows it.

A process is read through one descriptor of its /proc folder, so a new process with the same PID is
not mistaken for it. `service.py` and `emulator.py` decide which processes are trusted.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from functools import cached_property

from hoodsnap.collect.file import names_at
from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.ownership import Owners, read_owned

LONGEST = 64 << 10
"""Bytes read of a command line and of a file in /proc/PID."""

MOST_SOCKETS = 8 << 20
"""Bytes read of the list of unix sockets: a hundred thousand sockets."""

CAP_SYS_ADMIN = 21

_LOGIN = re.compile(r"user\.slice|user-\d+\.slice|user@\d+\.service|session-[^/]*\.scope")
"""Names of systemd's cgroups in which accounts run their own programs."""


def split_words(data: bytes) -> list[str]:
    """Return the words of a command line; an empty list if it is longer than any service's."""
    return [] if len(data) == LONGEST else os.fsdecode(data).rstrip("\0").split("\0")


class RunningProcess:
    """Process that is read through a descriptor of its /proc folder.

    Raises `OSError` once the process has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> RunningProcess:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    @property
    def words(self) -> list[str]:
        """Command line, which proves nothing: the process chooses it.

        Empty if it is longer than any service's.
        """
        return split_words(self._read("cmdline", LONGEST))

    @cached_property
    def status(self) -> dict[str, list[str]]:
        """Fields of /proc/PID/status: name → words."""
        lines = os.fsdecode(self._read("status", LONGEST)).splitlines()
        # The process's name comes first, with newlines escaped: it can't forge a field.
        return {name: words.split() for name, _, words in (line.partition(":") for line in lines)}

    @property
    def state(self) -> str:
        """State of its first thread, a letter: `S`, `T` (stopped), `D` (waits for a device) …"""
        return self.status["State"][0]

    @property
    def name(self) -> str:
        """Name of its program, as the kernel cuts it: 15 characters."""
        return os.fsdecode(self._read("comm", LONGEST)).removesuffix("\n")

    @property
    def tracer(self) -> int | None:
        """PID of the program that traces its first thread; None if none does."""
        return int(self.status.get("TracerPid", ["0"])[0]) or None

    @property
    def switches(self) -> int:
        """Number of times that its first thread stopped running; it grows whenever it works."""
        names = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
        return sum(int(self.status[name][0]) for name in names)

    @property
    def started(self) -> int:
        """Time of its start, in ticks (1/100 s) after the boot of the host."""
        # The name in the second field may hold spaces and parentheses.
        return int(os.fsdecode(self._read("stat", LONGEST)).rpartition(")")[2].split()[19])

    @property
    def open_files(self) -> int:
        """Number of files that it has open. Raises `PermissionError` if only root may know."""
        folder = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            return len(names_at(folder, "fd"))
        finally:
            os.close(folder)

    @property
    def sockets(self) -> frozenset[str]:
        """Inode numbers of its sockets. Raises `PermissionError` if only root may know."""
        folder = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        found = set()
        try:
            for name in names_at(folder, "fd"):
                with suppress(FileNotFoundError):  # it was just closed
                    target = os.readlink(name, dir_fd=folder)
                    if target.startswith("socket:["):
                        found.add(target[8:-1])
        finally:
            os.close(folder)
        return frozenset(found)

    @property
    def unix_sockets(self) -> str:
        """The unix sockets of its network namespace, as the kernel lists them."""
        return os.fsdecode(self._read("net/unix", MOST_SOCKETS))

    @property
    def network_namespace(self) -> str:
        """Name of its network namespace: `net:[4026531840]`."""
        return os.readlink("ns/net", dir_fd=self._folder)

    def open_root(self) -> int:
        """Return a descriptor (O_PATH) of the folder that is `/` for the process."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open("root", flags, dir_fd=self._folder)

    @property
    def limits(self) -> str:
        """Its limits, as proc(5) describes them."""
        return os.fsdecode(self._read("limits", LONGEST))

    @property
    def uid(self) -> int | None:
        """Account of the process.

        None if its real, effective, saved and file system uids differ, as in a setuid program that
        another account started.
        """
        numbers = set(self.status.get("Uid", ()))
        return int(numbers.pop()) if len(numbers) == 1 else None

    @property
    def gid(self) -> int:
        """Effective group of the process."""
        return int(self.status["Gid"][1])

    @cached_property
    def exe(self) -> tuple[str, os.stat_result]:
        """Executable: its path and status. Raises `PermissionError` if only root may read it.

        The status is that of the running file, even if it was deleted or lies in a container.
        """
        return self.exe_path, os.stat("exe", dir_fd=self._folder)

    @property
    def exe_path(self) -> str:
        """Path of the executable; ends with ` (deleted)` if the file was deleted."""
        return os.readlink("exe", dir_fd=self._folder)

    @property
    def is_recorded(self) -> bool:
        """True if this is a replayed recording instead of the kernel's /proc.

        The kernel's own `exe` link has size 0.
        """
        return os.lstat("exe", dir_fd=self._folder).st_size > 0

    @cached_property
    def root(self) -> os.stat_result:
        """Status of the folder that is `/` for the process."""
        return os.stat("root", dir_fd=self._folder)

    def shares(self, space: str) -> bool:
        """Return True if its namespace of this kind (`net`) is the collector's or PID 1's."""
        own = os.readlink(f"ns/{space}", dir_fd=self._folder)
        return any(own == _link(f"/proc/{who}/ns/{space}") for who in ("self", "1"))

    @cached_property
    def is_rooted_elsewhere(self) -> bool:
        """True if its `/` is a different folder from the collector's."""
        here = os.stat("/")
        return (self.root.st_dev, self.root.st_ino) != (here.st_dev, here.st_ino)

    @cached_property
    def is_elsewhere(self) -> bool:
        """True if it may see different files from the collector; False if only root could tell."""
        try:
            own = os.readlink("ns/mnt", dir_fd=self._folder)
            return self.is_rooted_elsewhere or own != _link("/proc/self/ns/mnt")
        except PermissionError:
            return False

    @cached_property
    def cgroups(self) -> tuple[str, ...]:
        """Paths of its cgroups in version 2 and in systemd's hierarchy; in all others if it is in
        neither."""
        lines = os.fsdecode(self._read("cgroup", LONGEST)).splitlines()
        parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
        own = [path for _, names, path in parts if names in ("", "name=systemd")]
        return tuple(own or (path for _, _, path in parts))

    @property
    def group(self) -> str | None:
        """Path of its control group of version 2; None without version 2."""
        lines = os.fsdecode(self._read("cgroup", LONGEST)).splitlines()
        return next((line[3:] for line in lines if line.startswith("0::/")), None)

    @property
    def is_of_login(self) -> bool:
        """True if it runs in a login session or in a user's service manager."""
        return any(_LOGIN.fullmatch(part) for path in self.cgroups for part in path.split("/"))

    @property
    def unit(self) -> str | None:
        """System unit in which root's systemd started it; None if it is in no system unit."""
        for path in self.cgroups:
            parts = [part for part in path.split("/") if part not in ("", "..")]
            while parts and parts[0].endswith(".slice"):
                if _LOGIN.fullmatch(parts.pop(0)):
                    break
                if parts and parts[0].endswith(".service"):
                    return parts[0]
        return None

    @property
    def may_administer(self) -> bool:
        """True if root in its container has CAP_SYS_ADMIN (it is in the bounding set)."""
        return bool(int(self.status.get("CapBnd", ["0"])[0], 16) >> CAP_SYS_ADMIN & 1)

    def account_inside(self, name: str) -> bool:
        """Return True if its account has this name in its container's /etc/passwd."""
        root = self.open_root()
        try:
            text = read_owned("/etc/passwd", Owners(), root=f"/proc/self/fd/{root}")
        except RefusedError:
            return False
        finally:
            os.close(root)
        return any(line.split(":")[:3:2] == [name, str(self.uid)] for line in text.splitlines())

    def _read(self, name: str, size: int) -> bytes:
        with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder), "rb") as file:
            return file.read(size)


def is_trusted_program(status: os.stat_result, uids: frozenset[int] = frozenset()) -> bool:
    """Return True if an executable is a regular file that belongs to root (or to one of `uids`) and
    that no other account can write to."""
    closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(status.st_mode) and closed and status.st_uid in uids | {0}


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
