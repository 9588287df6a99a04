"""Daemons of this host: which of them run, and the states of their units in systemd.

The processes are asked about twice, seconds apart: a daemon that restarts is missing for a moment,
and one that waits for a disk shows the same state for a moment as one that waits forever.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any

from hoodsnap.collect import file
from hoodsnap.collect.program import run
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.daemon import DaemonFinder, SeenDaemon
from hoodsnap.collect.trusted.running_process import RunningProcess
from hoodsnap.collect.unix_socket import LostSockets
from hoodsnap.facts.host.daemon import CENSUS, PROPERTIES, UNIT_FILES, UNITS
from hoodsnap.facts.layer import DAEMONS
from hoodsnap.keep import daemon as keep
from hoodsnap.keep.process import most_open_files

LAYER = DAEMONS.id

MOST = 4096
"""Processes of daemons on one host. Each guest may have a swtpm and a virtiofsd."""

MOST_UNITS = 200
"""Units whose properties are asked for."""

TOP = "/sys/fs/cgroup"

_GROUP = re.compile(r"/[^\0\n]{1,1000}")

_UNIT_NAME = re.compile(r"[\w@.:\\-]{1,255}")


def ask_daemons(recorder: Recorder) -> None:
    """Ask for the daemons that run, and for their units."""
    look(recorder)
    if not os.path.isdir("/run/systemd/system"):
        return  # a container, or another init
    listed = recorder.ask(LAYER, UNITS, lambda: keep.units(_systemctl(UNITS), 3))
    recorder.ask(LAYER, UNIT_FILES, lambda: keep.units(_systemctl(UNIT_FILES), 1))
    if listed.error is not None:
        return
    names = [line.split()[0] for line in listed.value.splitlines()]
    names = [name for name in names if _UNIT_NAME.fullmatch(name)][:MOST_UNITS]
    if names:
        recorder.ask(LAYER, PROPERTIES, lambda: _properties(names))


def look(recorder: Recorder) -> None:
    """Ask for the daemons that run."""
    recorder.ask(LAYER, CENSUS, _daemons)


def _systemctl(query: str) -> str:
    return run([*query.split(), *keep.PATTERNS])


def _properties(names: list[str]) -> list[dict[str, str]]:
    wanted = f"--property={','.join(keep.PROPERTIES)}"
    return keep.properties(run(["systemctl", "show", wanted, *names]))


def _daemons() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    finder, sockets = DaemonFinder(), LostSockets()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        must_go_on()
        try:
            with RunningProcess(pid) as process:
                daemon = finder.examine(process)
                if daemon is not None:
                    found.append(_row(process, daemon, sockets))
        except OSError:  # it has ended
            continue
        if len(found) > MOST:
            raise RefusedError("too-large", f"there are more than {MOST} processes of daemons")
    return found


def _row(process: RunningProcess, daemon: SeenDaemon, sockets: LostSockets) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": daemon.name,
        "pid": process.pid,
        "state": process.state,
        "switches": process.switches,
        "started": process.started,
    }
    if daemon.doubt is not None:
        return row | {"doubt": daemon.doubt}
    row["unit"] = process.unit
    if umask := process.status.get("Umask"):  # Linux before 4.7 does not show it
        row["umask"] = umask[0]
    row |= _tracer(process)
    with suppress(OSError, RefusedError):  # only root may count another account's open files
        row["open_files"] = process.open_files
        row["limit"] = most_open_files(process.limits).rstrip()
    if daemon.name not in keep.HELPERS and (lost := sockets.of(process)) is not None:
        row["lost_sockets"] = lost
    return row | ({"frozen": True} if _is_frozen(process) else {})


def _tracer(process: RunningProcess) -> dict[str, Any]:
    """Return the program that traces a daemon (gdb, strace); empty if none does."""
    pid = process.tracer
    if pid is None:
        return {}
    try:
        with RunningProcess(pid) as tracer:
            return {"tracer": pid, "tracer_name": tracer.name}
    except OSError:  # it has just ended
        return {"tracer": pid}


def _is_frozen(process: RunningProcess) -> bool:
    """Return True if its control group is frozen (`docker pause`, `systemctl freeze`).

    Its state does not show that in version 2 of control groups.
    """
    path = process.group
    if path is None or not _GROUP.fullmatch(path) or "/.." in path:
        return False
    try:
        return "frozen 1" in file.text(f"{TOP}{path}/cgroup.events", 4096).splitlines()
    except (OSError, RefusedError):  # it has just moved, or version 2 is mounted elsewhere
        return False
