"""The entry of a running `ps` in the recorded /proc: procps looks for itself there by its number.

Each `ps` writes its PID into a pipe, waits for the entry, and becomes the real program. The entry
leads to the real /proc of the shell, in which there is nothing of the host.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from hoodsnap.replay import tree

PROGRAMS = ("ps",)

PIPE = "/run/hoodsnap/readers"

MOST = 256
"""Readers that may run at once."""

_LONGEST = 4096


def wrapper(program: str) -> str:
    """The script that stands before a program in PATH."""
    return (
        f"echo $$ >{PIPE}\nleft=200\n"
        "while [ ! -d /proc/$$ ] && [ $left -gt 0 ]; do left=$((left - 1)); sleep 0.01; done\n"
        f'exec {program} "$@"'
    )


class Entries:
    """Makes the entries. Of the shell's first process."""

    def __init__(self) -> None:
        """While the recorded /proc can still be written, and before there are threads."""
        os.makedirs(os.path.dirname(PIPE), exist_ok=True)
        os.mkfifo(PIPE, 0o600)
        # By a descriptor: where the folder is mounted for the shell it is read-only.
        self._folder = os.open(f"{tree.RECORDED}/proc", os.O_PATH | os.O_DIRECTORY)
        # For both: it has no end, though readers come and go.
        self._pipe = os.open(PIPE, os.O_RDWR)
        self._made: list[int] = []

    def keep(self) -> None:
        """Make and remove entries from now on, in a thread of its own."""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            for word in os.read(self._pipe, _LONGEST).split():
                if word.isdigit() and len(word) < 8:
                    self._enter(int(word))

    def _enter(self, pid: int) -> None:
        for gone in [each for each in self._made if not _is_running(each)]:
            self._made.remove(gone)
            with suppress(OSError):
                os.unlink(str(gone), dir_fd=self._folder)
        if pid > 1 and _is_running(pid) and len(self._made) < MOST and pid not in self._made:
            with suppress(OSError):  # a recorded process has this number
                os.symlink(f"{tree.PROCESSES}/{pid}", str(pid), dir_fd=self._folder)
                self._made.append(pid)


def _is_running(pid: int) -> bool:
    return os.path.exists(f"{tree.PROCESSES}/{pid}/stat")
