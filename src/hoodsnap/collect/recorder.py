"""The one door between a host and a bundle.

Whatever is asked goes through `Recorder.ask`: it takes the time, stops waiting in time, turns every
way of not answering into a recorded `Failure`, and blanks out what looks like a secret. Nothing
else in this package catches errors in order to go on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from hoodsnap.bundle import LARGEST_STRING, Answer, Failure
from hoodsnap.collect.question import PendingQuestion, answering, current
from hoodsnap.keep.secret import WITHHELD, TooLargeError, searched, without_secrets

__all__ = [
    "PATIENCE",
    "WITHHELD",
    "Recorder",
    "RefusedError",
    "patiently",
    "run",
    "without_secrets",
]

PATIENCE = 10.0
"""Seconds for one question, where the caller names no other limit."""

LARGEST_OUTPUT = 8 << 20
"""Bytes that are read of one program's output: a hundred times what a host with many guests has.

Ten answers of that size may be in memory at once, each as bytes, as text and as JSON."""

LONGEST_QUERY, LONGEST_SUBJECT = 1 << 20, 16 << 10
"""Characters that are kept of a question. One that names ten thousand servers has 400,000."""

_TALKATIVE = {"journalctl": 24 << 20, "iptables-save": 24 << 20}
"""Bytes that are read of programs of whose output a few lines are kept: twenty thousand lines of
nova-compute with debug = True, two hundred thousand rules."""

_LIMITS = {
    resource.RLIMIT_AS: 4 << 30,
    resource.RLIMIT_CPU: 60,
    resource.RLIMIT_CORE: 0,
}
"""Limits of each program that is asked. None of them needs a tenth."""

ROOM = 224 << 20
"""Characters of all answers of one host together, and no answer takes more than half of what is
left. A hundred guests have eight million; the list of a shared folder of ten thousand has seventy.
"""

TIME = 300.0
"""Seconds after which nothing more is asked. A host with a hundred guests takes twenty."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Folders in which programs are looked for, whatever the collector's own environment is."""


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


def run(command: Sequence[str], *, patience: float = PATIENCE) -> str:
    """Return a program's output. Raises `RefusedError` if it fails, is missing, too slow or too
    long.

    For use inside `Recorder.ask`: the program is killed when its question is abandoned. Output
    beyond `LARGEST_OUTPUT` is not read into memory.
    """
    largest = min(LARGEST_STRING, _TALKATIVE.get(command[0], LARGEST_OUTPUT))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise RefusedError("missing", f"{command[0]} is not installed") from None
    # A second thread ends the program when time is up, so that reading its output ends too.
    timer = threading.Timer(patience, process.kill)
    timer.daemon = True
    timer.start()
    complaint: list[bytes] = []
    assert process.stdout is not None and process.stderr is not None  # noqa: S101 (both are PIPE)
    stderr = process.stderr
    listener = threading.Thread(target=lambda: complaint.append(stderr.read(1 << 16)), daemon=True)
    listener.start()
    try:
        with current().answered_by(process):
            _limit(process.pid)
            output = process.stdout.read(largest + 1)
            if len(output) > largest:
                process.kill()
                raise RefusedError("too-large", f"{command[0]} printed more than a bundle keeps")
            status = process.wait()
        if not timer.is_alive() and status == -9:
            raise RefusedError("timeout", f"{command[0]} was ended after {patience:g} s")
        listener.join(timeout=1)
        if status != 0:
            words = os.fsdecode(b"".join(complaint)).split()
            said = " ".join(words) or f"exit status {status}"
            raise RefusedError(_kind_of(said), said)
        return os.fsdecode(output)
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        listener.join(timeout=1)
        process.stdout.close()
        process.stderr.close()


def _limit(pid: int) -> None:
    for which, most in _LIMITS.items():
        with contextlib.suppress(OSError, ValueError):  # it has ended, or has a lower limit already
            resource.prlimit(pid, which, (most, most))


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


def _kind_of(complaint: str) -> str:
    """The kind of failure that a program's message on stderr means."""
    if "Permission denied" in complaint or "Operation not permitted" in complaint:
        return "denied"
    if "No such file or directory" in complaint:
        return "absent"
    return "failed"
