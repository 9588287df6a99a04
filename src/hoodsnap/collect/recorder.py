"""The one door between a host and a bundle.

Whatever is asked goes through `Recorder.ask`: it takes the time, stops waiting in time, turns every
way of not answering into a recorded `Failure`, and blanks out what looks like a secret. A question
that fails is recorded here and nowhere else. Inside a question, what vanished while it was looked
at (a process that ended, a file that was removed) is skipped, and the line that skips it says so.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from hoodsnap.bundle import LARGEST_STRING, Answer, Failure
from hoodsnap.collect.question import PendingQuestion, answering
from hoodsnap.keep.secret import TooLargeError, searched, without_secrets

PATIENCE = 10.0
"""Seconds for one question, where the caller names no other limit."""

LONGEST_QUERY, LONGEST_SUBJECT = 1 << 20, 16 << 10
"""Characters that are kept of a question. One that names ten thousand servers has 400,000."""

ROOM = 224 << 20
"""Characters of all answers of one host together, and no answer takes more than half of what is
left. A hundred guests have eight million; the list of a shared folder of ten thousand has seventy.
"""

TIME = 300.0
"""Seconds after which nothing more is asked. A host with a hundred guests takes twenty."""

_LAST = 0.5
"""Seconds for a question that is asked when the time has nearly run out."""


class RefusedError(Exception):
    """The layer answered that it will not, or that there is no such thing.

    Collectors raise it from inside a question, to say which kind of `Failure` this is.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Recorder:
    """Asks one host and keeps the answers. May be used from several threads at once."""

    def __init__(
        self,
        host: str,
        heard: Callable[[Answer], None] = lambda answer: None,
        *,
        room: int = ROOM,
        time_left: float = TIME,
    ) -> None:
        """`room`: characters of all answers, `time_left`: seconds until the last question."""
        self.host = host
        self._room = self._left = room
        self._time = time_left
        self._end = time.monotonic() + time_left
        self._lock = threading.Lock()
        self.answers: list[Answer] = []
        self._heard = heard

    def ask(
        self,
        layer: str,
        query: str,
        how: Callable[[], object],
        *,
        subject: str | None = None,
        patience: float = PATIENCE,
        host: str | None = None,
    ) -> Answer:
        """Ask once and keep what comes back.

        `how` returns JSON-able data (text, numbers, lists, dicts) or raises whatever it likes.
        After `patience` seconds it is left behind in its thread: a call into a frozen QEMU or a
        dead NFS server can't be ended, only abandoned. Whatever `how` uses (a connection) must
        then not be used again; the answer says so by `error.kind == "timeout"`.
        """
        at = datetime.now(UTC)
        start = time.monotonic()
        # Each layer that answers slowly, and every time in time, could take hours altogether.
        left = self._end - start
        patience = min(patience, max(left, _LAST))
        # The search for secrets is part of the question: an answer that can't be searched in time
        # is a failure, and never an answer that was not searched.
        result = patiently(lambda: self._searched(how()), patience) if left > 0 else self._late()
        took = time.monotonic() - start
        asked = {
            "layer": layer,
            "host": _plain(host or self.host),
            "query": _short(_plain(without_secrets(query[: 2 * LONGEST_QUERY])), LONGEST_QUERY),
            "subject": None if subject is None else _short(_plain(subject), LONGEST_SUBJECT),
            "at": at,
            "took": round(took, 6),
        }
        if isinstance(result, BaseException):
            answer = Answer(**asked, error=_failure(result, patience))
        else:
            answer = Answer(**asked, value=result)
        self.answers.append(answer)
        self._heard(answer)
        return answer

    def refuse(
        self,
        layer: str,
        query: str,
        why: BaseException,
        *,
        subject: str | None = None,
        host: str | None = None,
    ) -> Answer:
        """Record that a question has no answer, and why, without asking anybody."""

        def how() -> object:
            raise why

        return self.ask(layer, query, how, subject=subject, host=host)

    def _searched(self, value: object) -> object:
        """The value as it may be recorded. Raises `TooLargeError`."""
        if isinstance(value, str) and len(value) > LARGEST_STRING:
            raise TooLargeError(f"the answer has {len(value)} characters, more than a bundle keeps")
        kept, size = searched(value)
        with self._lock:
            if size > self._left // 2:
                raise TooLargeError(
                    f"it has {size >> 20} MiB, and the answers before it have filled"
                    f" {(self._room - self._left) >> 20} of {self._room >> 20}"
                )
            self._left -= size
        return kept

    def _late(self) -> RefusedError:
        return RefusedError("timeout", f"not asked: the questions before took {self._time:g} s")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}[withheld: more characters]"


def _plain(text: str) -> str:
    r"""The text with a byte that is not UTF-8 written as `\udcff`: no model takes it otherwise."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class _Worker(threading.Thread):
    """A thread that answers one question after another, until one takes too long."""

    def __init__(self) -> None:
        super().__init__(daemon=True)  # a question that never ends must not keep the program
        self.questions: queue.SimpleQueue[tuple[PendingQuestion, Callable[[], object]]] = (
            queue.SimpleQueue()
        )
        self.results: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            question, how = self.questions.get()
            try:
                with answering(question):
                    result: object = how()
            except BaseException as error:  # whatever it was, the door outside records it
                result = error
            if question.is_abandoned:
                return  # nobody will ask this thread again
            self.results.put(result)
            del how, result  # the next question may come much later


_idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()


def patiently(how: Callable[[], object], patience: float) -> object:
    """Return the result of `how`, or the exception it raised; `TimeoutError` if it takes too long.

    After that its reading and its child programs end: see `hoodsnap.collect.question`.
    """
    question = PendingQuestion()
    try:
        worker = _idle.get_nowait()
    except queue.Empty:
        worker = _Worker()
    worker.questions.put((question, how))
    try:
        result = worker.results.get(timeout=patience)
    except queue.Empty:
        question.abandon()
        return TimeoutError()
    except BaseException:  # Ctrl-C, which the programs in sessions of their own don't hear
        question.abandon()
        raise
    _idle.put(worker)
    return result


_KINDS = {
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ENOENT: "absent",
    errno.ESRCH: "absent",
    errno.ECONNREFUSED: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
}


_SEARCHED = 16 << 10
"""Characters of an error message that are looked at. A program may print any number of them."""


def _failure(error: BaseException, patience: float) -> Failure:
    if isinstance(error, RefusedError):
        kind, message = error.kind, str(error)
    elif isinstance(error, TimeoutError):
        kind, message = "timeout", f"no answer within {patience:g} s"
    elif isinstance(error, OSError):
        kind, message = _KINDS.get(error.errno or 0, "failed"), error.strerror or str(error)
    elif isinstance(error, ModuleNotFoundError):
        kind, message = "missing", f"the Python package {error.name} is not installed"
    elif isinstance(error, TooLargeError):
        kind, message = "too-large", str(error)
    elif isinstance(error, MemoryError):
        kind, message = "too-large", "the answer does not fit into memory"
    elif isinstance(error, RecursionError):
        kind, message = "too-large", "the answer is nested too deeply"
    else:
        kind, message = "failed", f"{type(error).__name__}: {error}"
    message = _plain(" ".join(without_secrets(message[:_SEARCHED]).split())[:500])
    return Failure(kind=kind, message=message or type(error).__name__)
