"""Services of this host, distinguished from processes that only have their names.

Any account can start a program under any name with any arguments, and the collector, which is root,
takes files and addresses from the arguments of a service. So a process is trusted as a service only
by properties that only root can give it:

* its account: root, the service's own account (`nova`), or the account that a system unit of the
  service's name runs it as (DevStack's `stack`); a process of an ordinary account never counts;
* its executable: a Python (or the daemon's own program) that belongs to root and that no other
  account can write to;
* its place: not in a login session or user manager, not in another user namespace (as rootless
  containers are), and in a container only with the host's network and CAP_SYS_ADMIN, which
  nova-compute and libvirt need and no ordinary container has.
"""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hoodsnap.collect.recorder import Recorder, RefusedError, patiently
from hoodsnap.collect.trusted.ownership import Owners
from hoodsnap.collect.trusted.running_process import (
    LONGEST,
    RunningProcess,
    is_trusted_program,
    split_words,
)

COMPUTE = "nova-compute"

LAYER = "host"

MOST_DOUBTS = 10
"""Untrusted processes that are reported one by one; the others are counted."""

PATIENCE, MOST_LOST = 0.2, 1.0
"""Seconds for the command line of one process that can't be a service, and of all of them."""

KOLLA_UIDS = {"nova": 42436, "neutron": 42435, "cinder": 42407, "openvswitch": 42424}
"""Accounts in the images of Kolla, TripleO and EDPM, for which hosts have no names."""

_PYTHON = re.compile(r"(platform-)?python(\d(\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class RunningService:
    """Running service that is trusted."""

    pid: int

    root: Path
    """Path of its `/` as the collector sees it: not `/` if it runs in a container."""

    program: Path
    """Path of its program inside that root."""

    arguments: tuple[str, ...]

    uid: int = 0
    """Account that it runs as."""

    gid: int = 0

    @property
    def owners(self) -> Owners:
        """Accounts that may have written its files: root and its own account."""
        return Owners(frozenset({self.uid}), frozenset({self.gid}))


@dataclass(frozen=True, slots=True)
class UntrustedProcess:
    """Process that has the service's name but is not trusted."""

    pid: int
    why: str
    """Reason, as one clause: `it runs as uid 4242, …`."""


@dataclass(frozen=True, slots=True)
class Found:
    """All processes that have one service's name."""

    name: str
    trusted: tuple[RunningService, ...]
    """Trusted services; those that see the collector's files come first, then by PID."""
    doubts: tuple[UntrustedProcess, ...]

    @property
    def service(self) -> RunningService | None:
        """Service to follow; None if no process is trusted."""
        return self.trusted[0] if self.trusted else None

    def say(self, recorder: Recorder) -> None:
        """Record the processes of this name that are not followed, with the reasons."""
        doubts = [*self.doubts]
        for other in self.trusted[1:]:
            why = f"process {self.trusted[0].pid} is used instead"
            doubts.append(UntrustedProcess(other.pid, why))
        for doubt in doubts[:MOST_DOUBTS]:
            message = f"process {doubt.pid} is called {self.name}, but is ignored: {doubt.why}"
            recorder.refuse(LAYER, f"ps -fp {doubt.pid}", RefusedError("denied", message))
        more = len(doubts) - MOST_DOUBTS
        if more > 0:
            message = f"{more} more processes called {self.name} are ignored"
            recorder.refuse(LAYER, f"pgrep -af {self.name}", RefusedError("denied", message))


def service(program: str = COMPUTE) -> RunningService | None:
    """Return the running service of this name that is trusted; None if no process is."""
    return find(program).service


def find(program: str = COMPUTE) -> Found:
    """Find all processes that have a service's name.

    `program`: a nova service, `libvirtd` or `virtqemud`.
    """
    trusted: list[tuple[bool, RunningService]] = []
    doubts: list[UntrustedProcess] = []
    lost = 0.0
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            with RunningProcess(pid) as process:
                if not _may_be(process, program):
                    start = time.monotonic()
                    if lost < MOST_LOST and _claims(words_of_stranger(pid), program):
                        doubts.append(UntrustedProcess(pid, _why_not(process, program)))
                    lost += time.monotonic() - start
                elif _claims(process.words, program):
                    trusted.append((process.is_elsewhere, _trusted(process, program)))
        except RefusedError as refusal:
            doubts.append(UntrustedProcess(pid, str(refusal)))
        except PermissionError:
            doubts.append(UntrustedProcess(pid, "only root can see which executable it runs"))
        except OSError:  # it has ended
            continue
    trusted.sort(key=lambda item: (item[0], item[1].pid))
    return Found(program, tuple(one for _, one in trusted), tuple(doubts))


def _may_be(process: RunningProcess, program: str) -> bool:
    """Return True if a process may be trusted, by what the kernel reports without waiting."""
    try:
        uid = process.uid
        if uid is not None:
            own_unit = _is_in_own_unit(process, program)
            require_account(process, uid, _own_accounts(program), own_unit=own_unit)
    except (RefusedError, PermissionError):
        return False
    return uid is not None


def _why_not(process: RunningProcess, program: str) -> str:
    try:
        _trusted(process, program)
    except RefusedError as refusal:
        return str(refusal)
    except PermissionError:
        return "only root can see which executable it runs"
    return "its account changed while it was read"


def words_of_stranger(pid: int) -> list[str]:
    """Return the command line of a process that can't be trusted; empty if that takes too long.

    Its account can make a reader wait forever: the kernel reads the process's memory, which may be
    mapped from a file system of that account.
    """

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


def _trusted(process: RunningProcess, program: str) -> RunningService:
    """Return the service that a process runs. Raises `RefusedError` if it can't be trusted."""
    uid = process.uid
    if uid is None:
        raise RefusedError(
            "denied", "it has the rights of more than one account, like a setuid program"
        )
    own_unit = _is_in_own_unit(process, program)
    require_account(process, uid, _own_accounts(program), own_unit=own_unit)
    words = process.words
    script = None if _is_python(program) else program
    require_executable(process, uid, script, own_unit=own_unit)
    _require_place(process)
    if process.words != words:
        raise RefusedError("denied", "its command line changed while it was read")
    place = _place(words, program)
    if place is None:
        raise RefusedError("denied", f"its command line does not run {program}")
    path = Path(words[place])
    if not path.is_absolute():
        path = Path("/usr/bin") / path.name
    root = _root_of(Path(f"/proc/{process.pid}/root"))
    return RunningService(process.pid, root, path, tuple(words[place + 1 :]), uid, process.gid)


def _is_in_own_unit(process: RunningProcess, program: str) -> bool:
    unit = process.unit
    return unit is not None and _unit_of(program).fullmatch(unit) is not None


def require_account(
    process: RunningProcess, uid: int, accounts: Sequence[str], *, own_unit: bool
) -> None:
    """Raise `RefusedError` if a process of this uid can't be a service.

    `accounts`: the service's own accounts, besides root. `own_unit`: it runs in the system unit of
    its name, which decides the account.
    """
    if not process.shares("user"):
        raise RefusedError("denied", "it runs in its own user namespace, as rootless containers do")
    if uid == os.geteuid():
        return
    if process.is_of_login:
        raise RefusedError("denied", f"it runs as uid {uid} in a login session, not as a service")
    name = _name_of(uid)
    if uid == 0 or own_unit or (name is not None and name in accounts):
        return
    in_image = name is None and process.is_elsewhere
    if in_image and any(
        uid == KOLLA_UIDS.get(own) or process.account_inside(own) for own in accounts
    ):
        return
    if not accounts:
        raise RefusedError("denied", f"it runs as uid {uid}, which is not root")
    others = " nor ".join(accounts)
    raise RefusedError("denied", f"it runs as uid {uid}, which is neither root nor {others}")


def require_executable(
    process: RunningProcess, uid: int, program: str | None, *, own_unit: bool
) -> None:
    """Raise `RefusedError` if a process runs another program, or one that others can write to.

    `program`: name of the executable; None for Python.
    """
    path, status = process.exe
    name = os.path.basename(path.removesuffix(" (deleted)"))
    if not (name == program if program is not None else is_python(name)):
        raise RefusedError("denied", f"its executable is {name}")
    # The service's own account may own its Python, in a virtual environment, if a unit starts it.
    owners = frozenset({uid}) if own_unit or uid == os.geteuid() else frozenset[int]()
    if not is_trusted_program(status, owners):
        raise RefusedError("denied", f"accounts other than root can write to its executable {path}")


def _require_place(process: RunningProcess) -> None:
    if process.is_elsewhere and not process.shares("net"):
        raise RefusedError("denied", "it runs in a container with its own network")
    if process.is_rooted_elsewhere and not process.may_administer:
        raise RefusedError("denied", "it runs in a container without the privileges of host root")


def is_python(name: str) -> bool:
    """Return True if an executable of this name is a Python."""
    return _PYTHON.fullmatch(name) is not None


def _is_python(program: str) -> bool:
    return program not in ("libvirtd", "virtqemud")


def _own_accounts(program: str) -> tuple[str, ...]:
    """Return the service's own account; nothing if the service runs as root."""
    return ("nova",) if program.startswith("nova") else ()


def _unit_of(program: str) -> re.Pattern[str]:
    """Return a pattern for a service's unit names: packages, DevStack, TripleO, EDPM, snaps."""
    names = {re.escape(program), re.escape(program.replace("-", "_"))}
    if program == COMPUTE:
        names.add("n-cpu")
    some = "|".join(sorted(names))
    return re.compile(rf"(openstack-|devstack@|tripleo_|edpm_|snap\.[\w-]+\.)?({some})\.service")


def _claims(words: list[str], program: str) -> bool:
    """Return True if a command line runs this service: as its program, or as Python's script."""
    names = [os.path.basename(word) for word in words[:4]] or [""]
    return names[0] == program or (names[0].startswith("python") and program in names)


def _place(words: list[str], program: str) -> int | None:
    """Return the position of the service's program in a command line; None if it runs another."""
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
    except OSError:  # only root may read it
        return Path("/")
    return link
