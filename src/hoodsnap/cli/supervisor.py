"""Run a command in a child process, and end when it says that it is done.

A thread that waits for a FUSE file system whose server was stopped can't be killed, and a process
is not gone before all of its threads are. So the process that a shell or cron started has no such
threads: it waits until its child says that it is done, and not for the child's end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from hoodsnap.cli.interruption import SIGNALS
from hoodsnap.exit_status import BLIND, INTERRUPTED

_FAREWELL = 0.5
"""Seconds that a child has to end after it has said that it is done."""


def supervised(run: Callable[[], NoReturn]) -> NoReturn:
    """Call `run`, which raises `SystemExit`, in a child, and exit with its status.

    To be called before there are threads.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        inherited = _open_files() - {writing}
        status = _status_of(run)
        # A thread that can't end keeps them open. Who reads our output waits for its end, and a
        # lock (`flock`) lasts as long as its file is open.
        _leave_streams()
        os.write(writing, bytes([status]))
        for handle in inherited:
            with suppress(OSError):
                os.close(handle)
        os._exit(status)
    os.close(writing)
    _pass_signals_to(child)
    said = os.read(reading, 1)
    os._exit(_wait(child, _FAREWELL, said[0]) if said else _wait(child, None, BLIND))


def _status_of(run: Callable[[], NoReturn]) -> int:
    try:
        run()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else BLIND
    except KeyboardInterrupt:
        status = INTERRUPTED  # the second one, while the first was handled
    except BaseException:
        import traceback

        traceback.print_exc()
        status = BLIND
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return status


def _open_files() -> set[int]:
    """Return the descriptors besides the standard streams."""
    try:
        return {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2}
    except OSError:
        return set()


def _leave_streams() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nowhere, handle)


def _pass_signals_to(child: int) -> None:
    """Let the child decide what a signal means. Ctrl-C reaches both; the second one is ignored."""

    def passed(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, passed)


def _wait(child: int, patience: float | None, status: int) -> int:
    """Wait for the child, and return the status; that of a signal if one has killed the child."""
    end = time.monotonic() + (patience or 0.0)
    while True:
        ended, how = os.waitpid(child, 0 if patience is None else os.WNOHANG)
        if ended:
            return 128 + os.WTERMSIG(how) if os.WIFSIGNALED(how) else status
        if time.monotonic() > end:
            return status
        time.sleep(0.01)
