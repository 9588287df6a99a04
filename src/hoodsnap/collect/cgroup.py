"""Control groups of the guests: the groups of each QEMU process, their limits and their use.

Only files below /proc and /sys/fs/cgroup are read, through `file.py`. Version 1 has a hierarchy for
each controller, version 2 has one for all; hybrid hosts have both.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import partial

from hoodsnap.collect import file
from hoodsnap.collect.budget import TextBudget
from hoodsnap.collect.program import run
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.facts.host.cgroup import CENSUS, MACHINE, UNITS
from hoodsnap.facts.layer import CGROUP
from hoodsnap.keep.cgroup import FILES

LAYER = CGROUP.id

TOP = "/sys/fs/cgroup"

PARENTS = ("machine", "machine.slice")
"""Parents of the guests' groups, without and with systemd."""

CONTROLLERS = frozenset(["", "blkio", "cpu", "cpuset", "freezer", "memory"])
"""Controllers whose hierarchies are read; the hierarchy of version 2 has no name."""

LARGEST = 64 << 10
"""Largest file that is read, in bytes. Only lists of processes have more than a few hundred."""

MOST_GROUPS, MOST_MACHINES = 1024, 4096
"""Limits: subgroups of one guest (one for each vCPU), and guests' groups of a host in total."""

ALL = 8 << 20
"""Characters kept of all guests together. A guest with 16 vCPUs has five thousand."""

PATIENCE = 3.0
"""Seconds for one question. The files are in memory, so they are read in microseconds."""

_PATH = re.compile(r"/(?:[^/\0\n]+(?:/[^/\0\n]+)*)?")

_SUBGROUP = re.compile(r"emulator|vcpu\d{1,6}|libvirt")

_UNIT = re.compile(r"(machine-\S+\.scope) +(\S+) +(\S+) +(\S+)(?: .*)?")


def ask_cgroups(recorder: Recorder, pids: Iterable[int]) -> None:
    """Ask for the list of all guests' groups, and for the groups of these QEMU processes."""
    recorder.ask(LAYER, CENSUS, _machines)
    if os.path.isdir("/run/systemd/system"):
        recorder.ask(LAYER, UNITS, _units)
    ask_processes(recorder, pids)


def ask_processes(recorder: Recorder, pids: Iterable[int]) -> None:
    """Ask for the groups of these processes, and for the limits and use of each group."""
    room = TextBudget(ALL)
    for pid in sorted(pids):
        who, path = str(pid), f"/proc/{pid}/cgroup"
        ask = partial(recorder.ask, LAYER, subject=who, patience=PATIENCE, source=f"process {who}")
        answer = ask(path, partial(file.text, path, LARGEST))
        if answer.error is not None:
            continue
        for folder in dict.fromkeys(_folders(answer.value)):
            query = f"grep -r . {shlex.quote(folder)}"
            ask(query, partial(_settings, folder, room))


def _folders(text: str) -> Iterator[str]:
    """Yield the folders of the guest's own group, given the text of /proc/PID/cgroup."""
    for line in text.splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        names_kept = CONTROLLERS & set(names.split(","))
        if not names_kept or not _PATH.fullmatch(path) or "/.." in path:
            continue
        parts = path.split("/")
        own = [number for number, part in enumerate(parts) if MACHINE.fullmatch(part)]
        if own:  # any other group is shared with other processes
            yield _root(names) + "/".join(parts[: own[0] + 1])


def _root(controllers: str) -> str:
    if controllers:
        return f"{TOP}/{controllers}"
    return f"{TOP}/unified" if file.exists(f"{TOP}/unified") else TOP


def _settings(folder: str, room: TextBudget) -> dict[str, str]:
    """Return the kept files of a guest's group and its subgroups: relative path → content."""
    found: dict[str, str] = {}
    waiting = [""]
    for number in range(MOST_GROUPS):
        if not waiting:
            return room.kept(found)
        must_go_on()
        inner = waiting.pop(0)
        try:
            names = file.names(f"{folder}/{inner}")
        except (FileNotFoundError, NotADirectoryError):
            if number == 0:
                raise  # the guest has ended
            continue
        for name in names:
            if name in FILES:
                found[f"{inner}{name}"] = file.text(f"{folder}/{inner}{name}", LARGEST)
            elif _SUBGROUP.fullmatch(name):
                waiting.append(f"{inner}{name}/")
    raise RefusedError("too-large", f"{folder} has more than {MOST_GROUPS} groups")


def _machines() -> list[dict[str, object]]:
    """Return the guests' groups of all hierarchies, with the processes in each."""
    found: list[dict[str, object]] = []
    for root in _roots():
        for parent in PARENTS:
            try:
                names = file.names(f"{root}/{parent}")
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in filter(MACHINE.fullmatch, names):
                must_go_on()
                path = f"{root}/{parent}/{name}"
                found.append({"path": path, "pids": sorted(_processes(path))})
                if len(found) > MOST_MACHINES:
                    raise RefusedError("too-large", f"there are more than {MOST_MACHINES} groups")
    return found


def _roots() -> list[str]:
    """Return the roots of the hierarchies, without links (cpu → cpu,cpuacct)."""
    names = file.names(TOP)
    if "cgroup.controllers" in names:
        return [TOP]
    return [f"{TOP}/{name}" for name in names if not os.path.islink(f"{TOP}/{name}")]


def _processes(path: str) -> set[int]:
    found: set[int] = set()
    waiting = [path]
    for _ in range(MOST_GROUPS):
        if not waiting or found:  # in version 2 the first group lists all processes
            break
        folder = waiting.pop(0)
        try:
            found |= {int(pid) for pid in file.text(f"{folder}/cgroup.procs", LARGEST).split()}
            names = file.names(folder)
        except FileNotFoundError:  # it was removed while we looked
            continue
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a threaded group has no list of processes
                raise
            continue
        waiting += [f"{folder}/{name}" for name in names if _SUBGROUP.fullmatch(name)]
    return found


def _units() -> str:
    """Return names and states of the machines' scopes in systemd, without their descriptions."""
    rows = [_UNIT.fullmatch(line) for line in run(UNITS.replace("'", "").split()).splitlines()]
    return "".join(f"{' '.join(row.groups())}\n" for row in rows if row is not None)
