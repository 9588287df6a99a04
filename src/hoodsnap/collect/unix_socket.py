"""Unix sockets at which daemons listen, and whose files are gone: nobody can connect to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from hoodsnap.collect.trusted.running_process import RunningProcess
from hoodsnap.path import Walk

LISTENS = 0x10000
"""Flag of a socket that accepts connections, in /proc/net/unix (`__SO_ACCEPTCON` of Linux)."""

MOST = 16
"""Paths that are kept of one process."""


class LostSockets:
    """Finder of sockets without a file. It reads the list of each network namespace once."""

    def __init__(self) -> None:
        self._listening: dict[str, Mapping[str, str]] = {}

    def of(self, process: RunningProcess) -> list[str] | None:
        """Return the paths at which a process listens and that do not exist in its file system.

        Sorted; None if only root may know. Raises `OSError` once it has ended.
        """
        try:
            own = process.sockets
            listening = self._at(process)
        except PermissionError:
            return None
        paths = sorted({listening[inode] for inode in own if inode in listening})
        return [path for path in paths if _is_absent(process, path)][:MOST]

    def _at(self, process: RunningProcess) -> Mapping[str, str]:
        space = process.network_namespace
        if space not in self._listening:
            self._listening[space] = listening(process.unix_sockets)
        return self._listening[space]


def listening(table: str) -> dict[str, str]:
    """Return inode → path of the listening sockets in /proc/net/unix that have a path."""
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7].startswith("/"):  # abstract names begin with @
            with suppress(ValueError):
                if int(fields[3], 16) & LISTENS:
                    found[fields[6]] = fields[7]
    return found


def _is_absent(process: RunningProcess, path: str) -> bool:
    root = process.open_root()
    try:
        with Walk(f"/proc/self/fd/{root}", shown="/") as walk:
            name = walk.go(path)
            os.stat(name, dir_fd=walk.folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # a link that root does not follow: unknown
        return False
    finally:
        os.close(root)
    return False
