"""Run a program of the host, such as `ip` or `qemu-img`.

The program gets its own session, so that everything it starts can be killed with it, and nothing it
starts has a terminal to ask for a password on. Its two streams are read at the same time: a program
that writes much to stderr would otherwise block.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Self

from hoodsnap.bundle import LARGEST_STRING
from hoodsnap.collect.question import current, end_group
from hoodsnap.collect.recorder import PATIENCE, RefusedError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Folders that are searched for programs, regardless of the collector's own PATH."""

LARGEST_OUTPUT = 8 << 20
"""Bytes read of a program's output: a hundred times as many as a host with many guests needs.

Ten answers of this size may be in memory at once, each as bytes, as text and as JSON."""

_TALKATIVE = {"journalctl": 24 << 20, "iptables-save": 24 << 20}
"""Bytes read of programs whose output is mostly dropped: twenty thousand lines of nova-compute with
debug = True, two hundred thousand rules."""

_COMPLAINT = 64 << 10
"""Bytes kept of a program's stderr. The rest is read and dropped."""

_LIMITS = {
    resource.RLIMIT_AS: 4 << 30,
    resource.RLIMIT_CPU: 60,
    resource.RLIMIT_CORE: 0,
}
"""Resource limits of each program. None of the programs needs a tenth of them."""

# After vfork the whole interpreter waits until the program was loaded, and that takes forever if
# one of the folders in `PATH` is on a dead NFS server. This is the documented switch.
setattr(subprocess, "_USE_VFORK", False)  # noqa: B010 (mypy takes it for a constant)

_running: set[subprocess.Popen[bytes]] = set()
"""Programs that are running now. None of them has been reaped."""

_running_lock = threading.Lock()

_GLANCE = 0.1
"""Seconds between checks if a silent program has ended. Its streams can't tell: a process that it
left behind may hold them open."""


def run(command: Sequence[str], *, patience: float = PATIENCE) -> str:
    """Return a program's output.

    Raises `RefusedError` if the program fails, is not installed, takes too long or prints too much.
    For use inside `Recorder.ask`: the program is killed when its question is abandoned. Processes
    that the program left behind are killed too, unless they have their own session, as daemons do.
    """
    end = time.monotonic() + patience
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    except FileNotFoundError:
        raise RefusedError("missing", f"{command[0]} is not installed") from None
    with _running_lock:
        _running.add(process)
    try:
        with _Streams(process) as streams, current().answered_by(process):
            _limit(process.pid)
            while not _has_ended(process):
                current().must_go_on()
                if (left := end - time.monotonic()) <= 0:
                    raise RefusedError("timeout", f"{command[0]} was killed after {patience:g} s")
                streams.read(min(left, _GLANCE))
                _must_fit(streams.output, command[0])
            end_group(process)
            while streams.read(0):
                _must_fit(streams.output, command[0])
    finally:
        with _running_lock:
            _running.discard(process)
        end_group(process)
        status = process.wait()
    if status != 0:
        complaint = " ".join(os.fsdecode(bytes(streams.complaint)).split())
        complaint = complaint or f"exit status {status}"
        raise RefusedError(_kind_of(complaint), complaint)
    return os.fsdecode(bytes(streams.output))


def end_programs() -> None:
    """Kill all running programs. Ctrl-C does not reach them, since each has its own session."""
    with _running_lock:
        for process in _running:
            end_group(process)


class _Streams:
    """Output and stderr of a running program, as far as they have been read."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.output, self.complaint = bytearray(), bytearray()
        self._selector = selectors.DefaultSelector()
        self._pause = 0.001
        self._open = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        for stream in self._open:
            self._selector.register(stream, selectors.EVENT_READ, stream is process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for stream in self._open:
            stream.close()

    def read(self, patience: float) -> bool:
        """Read what arrives within this time. False if nothing arrived or both streams ended."""
        if not self._selector.get_map():
            # The program closed both streams and is about to end.
            time.sleep(min(patience, self._pause))
            self._pause = min(2 * self._pause, _GLANCE)
            return False
        ready = self._selector.select(patience)
        for key, _ in ready:
            piece = os.read(key.fd, 1 << 16)
            if not piece:
                self._selector.unregister(key.fileobj)
            elif not key.data:
                self.output += piece
            else:
                self.complaint += piece[: _COMPLAINT - len(self.complaint)]
        return bool(ready)


def _must_fit(output: bytearray, name: str) -> None:
    if len(output) > min(LARGEST_STRING, _TALKATIVE.get(name, LARGEST_OUTPUT)):
        raise RefusedError("too-large", f"{name} printed more than a bundle keeps")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return True if the program has ended. Don't reap it, so that its PID can't be reused."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # our parent made us ignore SIGCHLD: the kernel reaps children
        return True


def _limit(pid: int) -> None:
    for which, most in _LIMITS.items():
        with contextlib.suppress(OSError, ValueError):  # it has ended, or has a lower hard limit
            resource.prlimit(pid, which, (most, most))


def _kind_of(complaint: str) -> str:
    """Return the kind of failure that a program's message on stderr describes."""
    if "Permission denied" in complaint or "Operation not permitted" in complaint:
        return "denied"
    if "No such file or directory" in complaint:
        return "absent"
    return "failed"
