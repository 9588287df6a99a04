"""Question that a thread is answering, and how it is abandoned when it takes too long.

A thread can't be ended from outside. So each loop that reads calls `must_go_on` between two pieces,
and child programs are registered here: both end when the question is abandoned.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class AbandonedError(Exception):
    """The question took too long and was abandoned. This error is not recorded."""


class PendingQuestion:
    """One question, shared by the thread that answers and the thread that waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._children: set[subprocess.Popen[bytes]] = set()

    @property
    def is_abandoned(self) -> bool:
        """True if the waiting thread has stopped waiting."""
        return self._is_abandoned

    def abandon(self) -> None:
        """Stop the reading and kill the child programs of this question."""
        with self._lock:
            self._is_abandoned = True
            for child in self._children:
                end_group(child)

    @contextmanager
    def answered_by(self, child: subprocess.Popen[bytes]) -> Iterator[None]:
        """Kill this program and its group as soon as the question is abandoned.

        The program leads a process group, and must not be reaped within this context. Raises
        `AbandonedError`.
        """
        with self._lock:
            if not self._is_abandoned:
                self._children.add(child)
        try:
            self.must_go_on()
            yield
        finally:
            with self._lock:
                self._children.discard(child)

    def must_go_on(self) -> None:
        """Raise `AbandonedError` if the question was abandoned."""
        if self._is_abandoned:
            raise AbandonedError


def end_group(leader: subprocess.Popen[bytes]) -> None:
    """Kill a child that leads a process group, and all processes in the group.

    Nothing is killed if the child was reaped already: its PID may belong to another process.
    """
    with suppress(ChildProcessError, ProcessLookupError, PermissionError):
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # is it still ours?
        os.killpg(leader.pid, signal.SIGKILL)


class _Current(threading.local):
    question: PendingQuestion | None = None


_current = _Current()


@contextmanager
def answering(question: PendingQuestion) -> Iterator[None]:
    """Make this the question that the current thread answers."""
    before, _current.question = _current.question, question
    try:
        yield
    finally:
        _current.question = before


def current() -> PendingQuestion:
    """Return this thread's question; outside a recorder, a question that is never abandoned."""
    return _current.question or PendingQuestion()


def must_go_on() -> None:
    """Raise `AbandonedError` if this thread's question was abandoned. Call it in every loop."""
    if _current.question is not None:
        _current.question.must_go_on()
