"""Services of this host, told apart from processes that merely carry their name.

Any account can start a program under any name with any arguments, and the collector, who is root,
takes files and addresses from the arguments of a service. So a process counts as a service by what
only root can give to it:

* its account: root's, the service's own (`nova`), or the one that a system unit of the service's
  name runs it as (DevStack's `stack`); an ordinary account's process never counts;
* its executable, the file that runs: a Python (or the daemon's own program) that belongs to root
  and that nobody else can write to;
* where it runs: not in a login session or user manager, not in another user namespace
  (rootless containers are), and in a container only with the host's network and CAP_SYS_ADMIN,
  which nova-compute and libvirt need and which no ordinary container has.

A process is read through one descriptor of its /proc folder: another process that gets its number
meanwhile is not mistaken for it.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hoodsnap.collect.ownership import Owners, read_owned
from hoodsnap.collect.recorder import Recorder, RefusedError, patiently

COMPUTE = "nova-compute"

LAYER = "host"

MOST_DOUBTS = 10
"""Processes that are refused one by one; the others are counted."""

LONGEST = 64 << 10
"""Bytes of a command line that are read."""

PATIENCE, MOST_LOST = 0.2, 1.0
"""Seconds for the command line of a process that can't be a service, and for all of them."""

KOLLA_UIDS = {"nova": 42436}
"""The accounts of Kolla's, TripleO's and EDPM's images, which hosts have no names for."""

CAP_SYS_ADMIN = 21

_PYTHON = re.compile(r"(platform-)?python(\d(\.\d+)?)?")

_LOGIN = re.compile(r"user\.slice|user-\d+\.slice|user@\d+\.service|session-[^/]*\.scope")
"""Names of the cgroups of systemd in which accounts run programs of their own."""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A running service that is believed."""

    pid: int

    root: Path
    """Path of its `/` from here: another than `/` if it runs in a container."""

    program: Path
    """Path of its program, in that root."""

    arguments: tuple[str, ...]

    uid: int = 0
    """The account that it runs as."""

    gid: int = 0

    @property
    def owners(self) -> Owners:
        """The accounts that may have written its files: root's and its own."""
        return Owners(frozenset({self.uid}), frozenset({self.gid}))


@dataclass(frozen=True, slots=True)
class UntrustedProcess:
    """A process that carries the service's name and is not followed."""

    pid: int
    why: str
    """One clause: `it runs as uid 4242, …`."""


@dataclass(frozen=True, slots=True)
class Found:
    """All processes that carry one service's name."""

    name: str
    believed: tuple[RunningService, ...]
    """Order of the candidates: first one that sees the collector's files, with the lowest
    PID."""
    doubts: tuple[UntrustedProcess, ...]

    @property
    def service(self) -> RunningService | None:
        """The service to follow; None if no process is believed."""
        return self.believed[0] if self.believed else None

    def say(self, recorder: Recorder) -> None:
        """Record which processes of this name are not followed, and why."""
        doubts = [*self.doubts]
        for other in self.believed[1:]:
            why = f"process {self.believed[0].pid} is followed instead"
            doubts.append(UntrustedProcess(other.pid, why))
        for doubt in doubts[:MOST_DOUBTS]:
            message = f"process {doubt.pid} is called {self.name} and is not followed: {doubt.why}"
            _refuse(recorder, f"ps -fp {doubt.pid}", message)
        more = len(doubts) - MOST_DOUBTS
        if more > 0:
            message = f"{more} more processes are called {self.name} and are not followed"
            _refuse(recorder, f"pgrep -af {self.name}", message)


def service(program: str = COMPUTE) -> RunningService | None:
    """Return the running service of this name that is believed; None if no process is."""
    return find(program).service


def find(program: str = COMPUTE) -> Found:
    """Look through all processes for those that carry a service's name.

    `program`: a service of nova's, `libvirtd` or `virtqemud`.
    """
    believed: list[tuple[bool, RunningService]] = []
    doubts: list[UntrustedProcess] = []
    lost = 0.0
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            with RunningProcess(pid) as process:
                if not _may_be(process, program):
                    start = time.monotonic()
                    if lost < MOST_LOST and _claims(_words_of_stranger(pid), program):
                        doubts.append(UntrustedProcess(pid, _why_not(process, program)))
                    lost += time.monotonic() - start
                elif _claims(process.words, program):
                    believed.append((process.is_elsewhere, _believed(process, program)))
        except RefusedError as refusal:
            doubts.append(UntrustedProcess(pid, str(refusal)))
        except PermissionError:
            doubts.append(UntrustedProcess(pid, "only root can see which executable it runs"))
        except OSError:  # it has ended
            continue
    believed.sort(key=lambda item: (item[0], item[1].pid))
    return Found(program, tuple(one for _, one in believed), tuple(doubts))


def _may_be(process: RunningProcess, program: str) -> bool:
    """Could a process be believed, by what the kernel reports at once?"""
    try:
        uid = process.uid
        if uid is not None:
            _require_account(process, uid, program, own_unit=_is_in_own_unit(process, program))
    except (RefusedError, PermissionError):
        return False
    return uid is not None


def _why_not(process: RunningProcess, program: str) -> str:
    try:
        _believed(process, program)
    except RefusedError as refusal:
        return str(refusal)
    except PermissionError:
        return "only root can see which executable it runs"
    return "its account changed while it was looked at"


def _words_of_stranger(pid: int) -> list[str]:
    """The command line of a process that is not believed in any case. Its account can keep a reader
    waiting for ever: the kernel asks the process's memory, which can lie in a file of its own."""

    def read() -> bytes:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(LONGEST)

    data = patiently(read, PATIENCE)
    return _split(data) if isinstance(data, bytes) else []


def _split(data: bytes) -> list[str]:
    return [] if len(data) == LONGEST else os.fsdecode(data).rstrip("\0").split("\0")


class RunningProcess:
    """One process, read through a descriptor of its /proc folder. Raises `OSError` once it has
    ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> RunningProcess:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    @property
    def words(self) -> list[str]:
        """Its command line, which is its own word and no more; empty if it is longer than any
        service's."""
        return _split(self._read("cmdline", LONGEST))

    @cached_property
    def status(self) -> dict[str, list[str]]:
        """/proc/PID/status: name → words."""
        lines = os.fsdecode(self._read("status", LONGEST)).splitlines()
        # Its own name comes first, with newlines escaped.
        return {name: words.split() for name, _, words in (line.partition(":") for line in lines)}

    @property
    def uid(self) -> int | None:
        """Its account; None if its real, effective, saved and file system ones are not all the
        same, as in a setuid program that another account started."""
        numbers = set(self.status.get("Uid", ()))
        return int(numbers.pop()) if len(numbers) == 1 else None

    @property
    def gid(self) -> int:
        """Its effective group."""
        return int(self.status["Gid"][1])

    @cached_property
    def exe(self) -> tuple[str, os.stat_result]:
        """The file that it runs: its path, and what it is. `PermissionError` if only root may know.

        The status is that of the file itself, even if it was deleted or lies in a container.
        """
        return self.exe_path, os.stat("exe", dir_fd=self._folder)

    @property
    def exe_path(self) -> str:
        """The path of the file that it runs; ` (deleted)` behind it if that has gone."""
        return os.readlink("exe", dir_fd=self._folder)

    @property
    def is_recorded(self) -> bool:
        """It is one of a recording that is shown as /proc: the kernel's own link has no size."""
        return os.lstat("exe", dir_fd=self._folder).st_size > 0

    @cached_property
    def root(self) -> os.stat_result:
        """The folder that is `/` for it."""
        return os.stat("root", dir_fd=self._folder)

    def shares(self, space: str) -> bool:
        """Return whether its namespace of this kind (`net`) is the collector's or the host's."""
        own = os.readlink(f"ns/{space}", dir_fd=self._folder)
        return any(own == _link(f"/proc/{who}/ns/{space}") for who in ("self", "1"))

    @cached_property
    def is_rooted_elsewhere(self) -> bool:
        """Its `/` is another folder than the collector's."""
        here = os.stat("/")
        return (self.root.st_dev, self.root.st_ino) != (here.st_dev, here.st_ino)

    @cached_property
    def is_elsewhere(self) -> bool:
        """It may see other files than the collector; no, where only root may know."""
        try:
            own = os.readlink("ns/mnt", dir_fd=self._folder)
            return self.is_rooted_elsewhere or own != _link("/proc/self/ns/mnt")
        except PermissionError:
            return False

    @cached_property
    def cgroups(self) -> tuple[str, ...]:
        """The paths of its cgroups in version 2 and in systemd's own hierarchy, or in all others
        where neither is there."""
        lines = os.fsdecode(self._read("cgroup", LONGEST)).splitlines()
        parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
        own = [path for _, names, path in parts if names in ("", "name=systemd")]
        return tuple(own or (path for _, _, path in parts))

    @property
    def is_of_login(self) -> bool:
        """It runs in a login session or in a user's service manager."""
        return any(_LOGIN.fullmatch(part) for path in self.cgroups for part in path.split("/"))

    @property
    def unit(self) -> str | None:
        """The system unit that it runs in, as root's systemd put it there; None if in none."""
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
        """Root in its container may do what root may: CAP_SYS_ADMIN is in its bounding set."""
        return bool(int(self.status.get("CapBnd", ["0"])[0], 16) >> CAP_SYS_ADMIN & 1)

    def account_inside(self, name: str) -> bool:
        """Return whether its container calls its account so."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        root = os.open("root", flags, dir_fd=self._folder)
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
    """Return whether an executable is a regular file that belongs to root (or one of `uids`) and
    that nobody else can write to."""
    closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(status.st_mode) and closed and status.st_uid in uids | {0}


def account(name: str) -> pwd.struct_passwd | None:
    """Return the host's account of this name; None if it does not exist."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _believed(process: RunningProcess, program: str) -> RunningService:
    """The service that a process is. Raises `RefusedError` with the reason why it is none."""
    uid = process.uid
    if uid is None:
        raise RefusedError(
            "denied", "it has the rights of more than one account, like a setuid program"
        )
    own_unit = _is_in_own_unit(process, program)
    _require_account(process, uid, program, own_unit=own_unit)
    words = process.words
    _require_executable(process, uid, program, own_unit=own_unit)
    _require_place(process)
    if process.words != words:
        raise RefusedError("denied", "its command line changed while it was looked at")
    place = _place(words, program)
    if place is None:
        raise RefusedError("denied", f"its command line does not start {program}")
    path = Path(words[place])
    if not path.is_absolute():
        path = Path("/usr/bin") / path.name
    root = _root_of(Path(f"/proc/{process.pid}/root"))
    return RunningService(process.pid, root, path, tuple(words[place + 1 :]), uid, process.gid)


def _is_in_own_unit(process: RunningProcess, program: str) -> bool:
    unit = process.unit
    return unit is not None and _unit_of(program).fullmatch(unit) is not None


def _require_account(process: RunningProcess, uid: int, program: str, *, own_unit: bool) -> None:
    if not process.shares("user"):
        raise RefusedError(
            "denied", "it runs in a user namespace of its own, as rootless containers do"
        )
    if uid == os.geteuid():
        return
    if process.is_of_login:
        raise RefusedError("denied", f"it runs as uid {uid} in a login session, not as a service")
    name = _name_of(uid)
    own = _own_account(program)
    if uid == 0 or own_unit or (own is not None and name == own):
        return
    if own is None:
        raise RefusedError("denied", f"it runs as uid {uid}, which is not root's account")
    in_image = name is None and process.is_elsewhere
    if in_image and (uid == KOLLA_UIDS.get(own) or process.account_inside(own)):
        return
    raise RefusedError(
        "denied", f"it runs as uid {uid}, which is neither root's nor {own}'s account"
    )


def _require_executable(process: RunningProcess, uid: int, program: str, *, own_unit: bool) -> None:
    path, status = process.exe
    name = os.path.basename(path.removesuffix(" (deleted)"))
    if not (_PYTHON.fullmatch(name) if _is_python(program) else name == program):
        raise RefusedError("denied", f"its executable is {name}")
    # The operator may run a nova-compute from a virtual environment of their own.
    owners = frozenset({uid}) if own_unit or uid == os.geteuid() else frozenset[int]()
    if not is_trusted_program(status, owners):
        raise RefusedError("denied", f"others than root can write to its executable {path}")


def _require_place(process: RunningProcess) -> None:
    if process.is_elsewhere and not process.shares("net"):
        raise RefusedError("denied", "it runs in a container with a network of its own")
    if process.is_rooted_elsewhere and not process.may_administer:
        raise RefusedError("denied", "it runs in a container without the rights of the host's root")


def _is_python(program: str) -> bool:
    return program not in ("libvirtd", "virtqemud")


def _own_account(program: str) -> str | None:
    """The account that a service has for itself; None if it is root's."""
    return "nova" if program.startswith("nova") else None


def _unit_of(program: str) -> re.Pattern[str]:
    """The names of a service's unit: of packages, DevStack, TripleO, EDPM and snaps."""
    names = {re.escape(program), re.escape(program.replace("-", "_"))}
    if program == COMPUTE:
        names.add("n-cpu")
    some = "|".join(sorted(names))
    return re.compile(rf"(openstack-|devstack@|tripleo_|edpm_|snap\.[\w-]+\.)?({some})\.service")


def _claims(words: list[str], program: str) -> bool:
    """Does a command line have the service's name, as its program or as Python's?"""
    names = [os.path.basename(word) for word in words[:4]] or [""]
    return names[0] == program or (names[0].startswith("python") and program in names)


def _place(words: list[str], program: str) -> int | None:
    """Return the place of the service's program in a command line; None if it runs another one."""
    if os.path.basename(words[0]) == program:
        return 0
    for place, word in enumerate(words[1:], 1):
        if word in ("-c", "-m"):
            return None
        if not word.startswith("-"):
            return place if os.path.basename(word) == program else None
    return None


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _root_of(link: Path) -> Path:
    try:
        next(link.iterdir(), None)
    except OSError:  # only root may look through it
        return Path("/")
    return link


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _refuse(recorder: Recorder, query: str, message: str) -> None:
    def how() -> object:
        raise RefusedError("denied", message)

    recorder.ask(LAYER, query, how)
