"""The only way from a host into a bundle.

Every question goes through `Recorder.ask`: it measures the time, limits the wait, records every
failure as a `Failure`, and withholds what looks like a secret. Failed questions are recorded here
and nowhere else. Inside a question, things that disappear while they are read (a process that
ended, a file that was removed) are skipped, with a comment on the line that skips them.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple

from hoodsnap.bundle import LARGEST_STRING, Answer, Failure
from hoodsnap.collect.patience import SILENCE, Patience
from hoodsnap.collect.question import PendingQuestion, answering
from hoodsnap.keep.secret import TooLargeError, searched, without_secrets

PATIENCE = 10.0
"""Seconds for one question, unless the caller names another limit."""

LONGEST_QUERY, LONGEST_SUBJECT = 1 << 20, 16 << 10
"""Characters kept of a query and of a subject. A query of ten thousand servers has 400,000."""

ROOM = 224 << 20
"""Characters of all answers of one host together. No answer may take more than half of what is
left. A hundred guests need eight million; the list of a folder shared by ten thousand guests needs
seventy million."""

TIME = 300.0
"""Seconds after which no more questions are asked. A host with a hundred guests takes twenty."""

_LAST = 0.5
"""Seconds for a question that is asked when the time has almost run out."""


class RefusedError(Exception):
    """A layer refused to answer, or answered that the object does not exist.

    Collectors raise it inside a question, to choose the kind of the recorded `Failure`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class AskedQuestion(NamedTuple):
    """A question without an answer so far."""

    layer: str
    query: str
    since: float
    """Time at which it was asked, by `time.monotonic`."""


class Recorder:
    """Recorder of the answers of one host. May be used from several threads at once."""

    def __init__(
        self,
        host: str,
        *,
        room: int = ROOM,
        time_left: float = TIME,
        patience: Patience | None = None,
    ) -> None:
        """Prepare to ask; nothing is asked yet.

        `room`: characters of all answers together.
        `time_left`: seconds after which no more questions are asked.
        `patience`: the time that may be lost waiting for layers that do not answer.
        """
        self.host = host
        self._patience = patience or Patience()
        self._last = time.monotonic()
        self._room = self._left = room
        self._time = time_left
        self._end = time.monotonic() + time_left
        self._lock = threading.Lock()
        self._asked: dict[int, AskedQuestion] = {}
        self.answers: list[Answer] = []

    def ask(
        self,
        layer: str,
        query: str,
        how: Callable[[], object],
        *,
        subject: str | None = None,
        patience: float = PATIENCE,
        host: str | None = None,
        source: str = "",
    ) -> Answer:
        """Ask one question and record the answer.

        `how` returns data that JSON can hold (texts, numbers, lists, dicts) or raises any error.
        After `patience` seconds it is abandoned in its thread: a call into a frozen QEMU or a dead
        NFS server can't be ended. Then `error.kind` is `timeout`, and whatever `how` uses (such as
        a connection) must not be used again.

        `source`: the part of the layer that answers, such as a file system. A part that does not
        answer gets less and less time, and the other parts keep theirs.
        """
        at = datetime.now(UTC)
        start = time.monotonic()
        # Layers that always answer just within their patience could take hours altogether.
        left = self._end - start
        patience = min(patience, max(left, _LAST))
        allowed = self._patience.allowed(layer, source, patience)
        # The search for secrets is part of the question: an answer that can't be searched in time
        # is recorded as a failure, so no answer is recorded without the search.
        with self._awaiting(AskedQuestion(layer, query, start)):
            if left <= 0:
                result: object = self._late()
            elif allowed <= 0:
                result = _silent(source)
            else:
                result = patiently(lambda: self._searched(how()), allowed)
        self._last = time.monotonic()
        answer = self._record(layer, query, subject, host, at, self._last - start, result, allowed)
        if allowed > 0 and left > 0:
            self._note(layer, source, start, answer)
        return answer

    def _record(
        self,
        layer: str,
        query: str,
        subject: str | None,
        host: str | None,
        at: datetime,
        took: float,
        result: object,
        patience: float,
    ) -> Answer:
        """Add an answer: a value that was searched for secrets, or an exception."""
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
        return answer

    def wait(
        self, layer: str, how: Callable[[], object], patience: float, *, source: str = ""
    ) -> object:
        """Return the result of `how` or the exception it raised, without recording an answer.

        For what only decides which questions to ask. It has the same limits as `ask`.
        """
        start = time.monotonic()
        allowed = self._patience.allowed(layer, source, patience)
        if allowed <= 0 or start >= self._end:
            return TimeoutError()
        with self._awaiting(AskedQuestion(layer, "…", start)):
            result = patiently(how, allowed)
        self._last = time.monotonic()
        if isinstance(result, TimeoutError):
            self._patience.lost(layer, source, start, self._last)
        else:
            self._patience.heard(layer, source)
        return result

    def _note(self, layer: str, source: str, start: float, answer: Answer) -> None:
        """Tell the patience if the question was answered. A refusal is an answer, too."""
        if answer.error is None or answer.error.kind not in _NO_ANSWER:
            self._patience.heard(layer, source)
        elif answer.took >= SILENCE:
            self._patience.lost(layer, source, start, start + answer.took)

    def idle(self) -> float:
        """Return the seconds since the last question ended; 0 while a question waits."""
        return 0.0 if self._asked else time.monotonic() - self._last

    def stop(self) -> None:
        """Ask no more questions."""
        self._end = 0.0

    @contextmanager
    def _awaiting(self, question: AskedQuestion) -> Iterator[None]:
        self._asked[id(question)] = question
        try:
            yield
        finally:
            del self._asked[id(question)]

    def awaited(self) -> AskedQuestion | None:
        """Return the question that has waited longest for its answer; None if no question waits."""
        with suppress(RuntimeError):  # another thread asked or got its answer in between
            return min(self._asked.values(), key=lambda one: one.since, default=None)
        return None

    def refuse(
        self,
        layer: str,
        query: str,
        why: BaseException,
        *,
        subject: str | None = None,
        host: str | None = None,
    ) -> Answer:
        """Record a failure for a question without asking it."""
        self._last = time.monotonic()
        return self._record(layer, query, subject, host, datetime.now(UTC), 0.0, why, 0.0)

    def _searched(self, value: object) -> object:
        """Return the value without secrets. Raises `TooLargeError`."""
        if isinstance(value, str) and len(value) > LARGEST_STRING:
            raise TooLargeError(f"the answer has {len(value)} characters, more than a bundle keeps")
        kept, size = searched(value)
        with self._lock:
            if size > self._left // 2:
                raise TooLargeError(
                    f"the answer has {size >> 20} MiB, and the bundle already has"
                    f" {(self._room - self._left) >> 20} of {self._room >> 20} MiB"
                )
            self._left -= size
        return kept

    def _late(self) -> RefusedError:
        return RefusedError("timeout", f"not asked: earlier questions took {self._time:g} s")


_NO_ANSWER = frozenset(["timeout", "unreachable"])
"""Kinds of failure that mean that nobody answered, if they took their time."""


def _silent(source: str) -> RefusedError:
    where = f" of {source}" if source else ""
    return RefusedError("timeout", f"not asked: earlier questions{where} got no answer in time")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}[withheld: more characters]"


def _plain(text: str) -> str:
    r"""Return the text with bytes that are not UTF-8 escaped as `\udcff`, or no model takes it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class _Worker(threading.Thread):
    """Thread that answers one question after another, until a question takes too long."""

    def __init__(self) -> None:
        super().__init__(daemon=True)  # a question that never ends must not keep hoodsnap running
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
            except BaseException as error:  # `Recorder.ask` records every error
                result = _bare(error)
            if question.is_abandoned:
                return  # this thread gets no more questions
            self.results.put(result)
            del how, result  # free the memory: the next question may come much later


def _bare(error: BaseException) -> BaseException:
    """Return an error without the frames that raised it.

    They hold connections, and closing one may take forever: the thread that drops the last
    reference waits for a frozen daemon. No other thread than the question's own may do that.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


_idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()


def patiently(how: Callable[[], object], patience: float) -> object:
    """Return the result of `how` or the exception it raised; `TimeoutError` if it took too long.

    On a timeout its loops and child programs are ended: see `hoodsnap.collect.question`.
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
    except BaseException:  # Ctrl-C, which does not reach programs in their own sessions
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
"""Characters of an error message that are searched for secrets. A program may print any number."""


def _failure(error: BaseException, patience: float) -> Failure:
    if isinstance(error, RefusedError):
        kind, message = error.kind, str(error)
    elif isinstance(error, TimeoutError):
        kind, message = "timeout", f"no answer within {patience:.3g} s"
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
