"""Daemons of this host, distinguished from processes that only have their names.

As in `service.py`, the account and the executable decide, which only root can give a process. But
nothing is read from a daemon's files or sent to it, so that it may also run in a container without
privileges.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.running_process import RunningProcess
from hoodsnap.collect.trusted.service import (
    KOLLA_UIDS,
    MOST_LOST,
    account,
    is_python,
    require_account,
    require_executable,
    words_of_stranger,
)
from hoodsnap.keep.daemon import KNOWN, daemon_of_unit


class SeenDaemon(NamedTuple):
    """A process that has a daemon's name."""

    name: str
    doubt: str | None
    """Reason why it may be another program; None if it is the daemon."""


class DaemonFinder:
    """Finder of daemons among the host's processes."""

    def __init__(self) -> None:
        """Begin with all patience for the command lines of strangers."""
        self._lost = 0.0
        names = {name for daemon in KNOWN.values() for name in daemon.accounts}
        known = [found.pw_uid for name in names if (found := account(name)) is not None]
        self._system = frozenset({0, os.geteuid(), *known, *KOLLA_UIDS.values()})

    def examine(self, process: RunningProcess) -> SeenDaemon | None:
        """Return the daemon that a process runs; None if it runs none that is known.

        Raises `OSError` if it has ended.
        """
        try:
            path = process.exe_path
        except FileNotFoundError:  # a kernel thread or a zombie
            return None
        except PermissionError:
            name = self._named(self._words(process))
            return SeenDaemon(name, "only root can see which executable it runs") if name else None
        program = os.path.basename(path.removesuffix(" (deleted)"))
        if program in KNOWN and not KNOWN[program].is_script:
            return SeenDaemon(program, _doubt(process, program))
        name = self._named(self._words(process)) if is_python(program) else None
        if name is None or not KNOWN[name].is_script:
            return None
        return SeenDaemon(name, _doubt(process, name))

    def _words(self, process: RunningProcess) -> list[str]:
        """Return a command line, as far as it can be read without waiting for a stranger."""
        try:
            if self._may_wait_for(process):
                return process.words
        except PermissionError:
            return []
        start = time.monotonic()
        words = words_of_stranger(process.pid) if self._lost < MOST_LOST else []
        self._lost += time.monotonic() - start
        return words

    def _may_wait_for(self, process: RunningProcess) -> bool:
        """Return True if no ordinary account decides how long reading the command line takes."""
        return process.uid in self._system or daemon_of_unit(process.unit or "") is not None

    @staticmethod
    def _named(words: list[str]) -> str | None:
        """Return the daemon that a command line names: as program, as script, or as title.

        neutron replaces its command line by a title in one word: `neutron-server: api worker`,
        `neutron-l3-agent (/usr/bin/python3 …)`.
        """
        title = words[0].split()[:3] if words else []
        names = [os.path.basename(word.rstrip(":")) for word in (*title, *words[1:4])]
        return next((name for name in names if name in KNOWN), None)


def _doubt(process: RunningProcess, name: str) -> str | None:
    """Return why a process may not be the daemon that it is called; None if it is."""
    daemon = KNOWN[name]
    try:
        uid = process.uid
        if uid is None:
            return "it has the rights of more than one account, like a setuid program"
        own_unit = daemon_of_unit(process.unit or "") is not None  # only root writes system units
        require_account(process, uid, daemon.accounts, own_unit=own_unit)
        program = None if daemon.is_script else name
        require_executable(process, uid, program, own_unit=own_unit)
    except RefusedError as refusal:
        return str(refusal)
    except PermissionError:
        return "only root can see which executable it runs"
    return None
