"""Entries for running `ps` processes in the recorded /proc: procps looks itself up by its PID.

Each `ps` writes its PID into a pipe, waits for its entry, and executes the real program. The entry
links to the real /proc of the shell, which shows nothing of the host.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from hoodsnap.replay.seal import tree

PROGRAMS = ("ps",)

PIPE = "/run/hoodsnap/readers"

MOST = 256
"""Largest number of readers that run at once."""

_LONGEST = 4096


def wrapper(program: str) -> str:
    """Return the script that replaces a program in PATH."""
    return (
        f"echo $$ >{PIPE}\nleft=200\n"
        "while [ ! -d /proc/$$ ] && [ $left -gt 0 ]; do left=$((left - 1)); sleep 0.01; done\n"
        f'exec {program} "$@"'
    )


class Entries:
    """Entries of running `ps` processes, created by the shell's first process."""

    def __init__(self) -> None:
        """Open the pipe and the folder. To be called while the recorded /proc is still writable,
        and before there are threads."""
        os.makedirs(os.path.dirname(PIPE), exist_ok=True)
        os.mkfifo(PIPE, 0o600)
        # Use a descriptor, because the folder is mounted read-only for the shell.
        self._folder = os.open(f"{tree.RECORDED}/proc", os.O_PATH | os.O_DIRECTORY)
        # Open both ends, so that reading does not end when a writer closes the pipe.
        self._pipe = os.open(PIPE, os.O_RDWR)
        self._made: list[int] = []

    def keep(self) -> None:
        """Create and remove entries from now on, in a separate thread."""
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
            with suppress(OSError):  # a recorded process has this PID
                os.symlink(f"{tree.PROCESSES}/{pid}", str(pid), dir_fd=self._folder)
                self._made.append(pid)


def _is_running(pid: int) -> bool:
    return os.path.exists(f"{tree.PROCESSES}/{pid}/stat")
