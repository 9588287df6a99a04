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
"""

from __future__ import annotations

import os
import pwd
import re
import time
from dataclasses import dataclass
from pathlib import Path

from hoodsnap.collect.ownership import Owners
from hoodsnap.collect.recorder import Recorder, RefusedError, patiently
from hoodsnap.collect.running_process import (
    LONGEST,
    RunningProcess,
    is_trusted_program,
    split_words,
)

COMPUTE = "nova-compute"

LAYER = "host"

MOST_DOUBTS = 10
"""Processes that are refused one by one; the others are counted."""

PATIENCE, MOST_LOST = 0.2, 1.0
"""Seconds for the command line of a process that can't be a service, and for all of them."""

KOLLA_UIDS = {"nova": 42436}
"""The accounts of Kolla's, TripleO's and EDPM's images, which hosts have no names for."""

_PYTHON = re.compile(r"(platform-)?python(\d(\.\d+)?)?")


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
            recorder.refuse(LAYER, f"ps -fp {doubt.pid}", RefusedError("denied", message))
        more = len(doubts) - MOST_DOUBTS
        if more > 0:
            message = f"{more} more processes are called {self.name} and are not followed"
            recorder.refuse(LAYER, f"pgrep -af {self.name}", RefusedError("denied", message))


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
    return split_words(data) if isinstance(data, bytes) else []


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
