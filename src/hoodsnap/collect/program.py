"""A program of the host that is asked, such as `ip` or `qemu-img`.

It gets a session of its own, so that whatever it starts can be ended with it, and none of it has a
terminal to ask for a password on. Its two streams are read at the same time: a program that
complains at length would otherwise wait for a reader.
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
"""Folders in which programs are looked for, whatever the collector's own environment is."""

LARGEST_OUTPUT = 8 << 20
"""Bytes that are read of one program's output: a hundred times what a host with many guests has.

Ten answers of that size may be in memory at once, each as bytes, as text and as JSON."""

_TALKATIVE = {"journalctl": 24 << 20, "iptables-save": 24 << 20}
"""Bytes that are read of programs of whose output a few lines are kept: twenty thousand lines of
nova-compute with debug = True, two hundred thousand rules."""

_COMPLAINT = 64 << 10
"""Bytes that are kept of what a program writes on stderr. The rest is read, and forgotten."""

_LIMITS = {
    resource.RLIMIT_AS: 4 << 30,
    resource.RLIMIT_CPU: 60,
    resource.RLIMIT_CORE: 0,
}
"""Limits of each program that is asked. None of them needs a tenth."""

_running: set[subprocess.Popen[bytes]] = set()
"""The programs that are asked at this moment, none of which was reaped."""

_running_lock = threading.Lock()

_GLANCE = 0.1
"""Seconds after which it is looked whether a silent program has ended: something that it left
behind may hold its output open."""


def run(command: Sequence[str], *, patience: float = PATIENCE) -> str:
    """Return a program's output. Raises `RefusedError` if it fails, is missing, too slow or too
    long.

    For use inside `Recorder.ask`: the program is ended with its question. What it started and left
    behind is ended with the program, unless that has a session of its own, as a daemon has.
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
                    raise RefusedError("timeout", f"{command[0]} was ended after {patience:g} s")
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
        said = " ".join(os.fsdecode(bytes(streams.complaint)).split()) or f"exit status {status}"
        raise RefusedError(_kind_of(said), said)
    return os.fsdecode(bytes(streams.output))


def end_programs() -> None:
    """End all programs that are asked: Ctrl-C reaches none of them, in sessions of their own."""
    with _running_lock:
        for process in _running:
            end_group(process)


class _Streams:
    """The output of a running program and its complaints, as far as they were read."""

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
        """Read what comes within this time. False: nothing came, or both streams have ended."""
        if not self._selector.get_map():
            # It closed both, and is about to end.
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
    """Has it ended? It is not reaped: until then its number can be no other's."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # who started us lets the kernel reap all children
        return True


def _limit(pid: int) -> None:
    for which, most in _LIMITS.items():
        with contextlib.suppress(OSError, ValueError):  # it has ended, or has a lower limit already
            resource.prlimit(pid, which, (most, most))


def _kind_of(complaint: str) -> str:
    """The kind of failure that a program's message on stderr means."""
    if "Permission denied" in complaint or "Operation not permitted" in complaint:
        return "denied"
    if "No such file or directory" in complaint:
        return "absent"
    return "failed"
