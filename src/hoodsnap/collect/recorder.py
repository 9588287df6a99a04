"""The one door between a host and a bundle.

Whatever is asked goes through `Recorder.ask`: it takes the time, stops waiting in time, turns every
way of not answering into a recorded `Failure`, and blanks out what looks like a secret. Nothing
else in this package catches errors in order to go on.
"""

from __future__ import annotations

import errno
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from hoodsnap.bundle import LARGEST_STRING, Answer, Failure

PATIENCE = 10.0
"""Seconds for one question, where the caller names no other limit."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, whatever the collector's own environment says."""

WITHHELD = "[withheld]"
"""What stands in a bundle where a secret stood."""


class Refusal(Exception):
    """The layer answered that it will not, or that there is no such thing.

    Collectors raise it from inside a question, to say which kind of `Failure` this is.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Recorder:
    """Asks one host and keeps the answers. May be used from several threads at once."""

    def __init__(self, host: str, heard: Callable[[Answer], None] = lambda answer: None) -> None:
        self.host = host
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
        result = patiently(how, patience)
        took = time.monotonic() - start
        asked = {
            "layer": layer,
            "host": host or self.host,
            "query": without_secrets(query),
            "subject": subject,
            "at": at,
            "took": round(took, 6),
        }
        if isinstance(result, BaseException):
            answer = Answer(**asked, error=_failure(result, patience))
        elif isinstance(result, str) and len(result) > LARGEST_STRING:
            message = f"the answer has {len(result)} characters, more than a bundle keeps"
            answer = Answer(**asked, error=Failure(kind="too-large", message=message))
        else:
            answer = Answer(**asked, value=without_secrets(result))
        self.answers.append(answer)
        self._heard(answer)
        return answer


def run(command: Sequence[str], *, patience: float = PATIENCE) -> str:
    """What a program prints. Raises `Refusal` if it fails, is missing, too slow or too talkative.

    For use inside `Recorder.ask`; output beyond the limit is not read into memory.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            errors="surrogateescape",
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise Refusal("missing", f"{command[0]} is not installed") from None
    # A second thread ends the program when time is up, so that reading its output ends too.
    timer = threading.Timer(patience, process.kill)
    timer.start()
    complaint: list[str] = []
    assert process.stdout is not None and process.stderr is not None  # noqa: S101 (both are PIPE)
    stderr = process.stderr
    listener = threading.Thread(target=lambda: complaint.append(stderr.read(1 << 16)), daemon=True)
    listener.start()
    try:
        output = process.stdout.read(LARGEST_STRING + 1)
        if len(output) > LARGEST_STRING:
            process.kill()
            raise Refusal("too-large", f"{command[0]} printed more than a bundle keeps")
        status = process.wait()
        if not timer.is_alive() and status == -9:
            raise Refusal("timeout", f"{command[0]} was ended after {patience:g} s")
        listener.join(timeout=1)
        if status != 0:
            said = " ".join("".join(complaint).split()) or f"exit status {status}"
            raise Refusal(_kind_of(said), said)
        return output
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        listener.join(timeout=1)
        process.stdout.close()
        process.stderr.close()


_WORD = r"pass(?:w(?:or)?d|phrase)"

# A text in JSON, and in JSON that is itself a text in JSON, where the quotes have backslashes.
_JSON_KEY = r"((\\*\")(?:{})\2\s*:\s*\2)"
_JSON_TEXT = r"(?!\2)(?:(?!(?<!\\)\2)[^\0])+"

_SECRETS = (
    # QEMU's rbd driver up to 2.x took the cephx key on its command line, and showed it in JSON.
    re.compile(r"(:key=)[^:,\s\0'\"]+"),
    re.compile(r"(keyvalue-pairs[^\]]*?\"key\\*\",\s*\\*\")[^\"\\]+"),
    re.compile(r"((?<![A-Za-z0-9+/]))AQ[A-Za-z0-9+/]{36}=="),
    # In ps the words are separated by blanks, in /proc/PID/cmdline by NULs. A comma is doubled.
    re.compile(r"((?:-object[ \0]|\bsecret,)[^ \0]*?\bdata=)(?:[^,\s\0]|,,)+"),
    # virsh never shows the first on a read-only connection; a hand-written file may.
    re.compile(rf"({_WORD}=(['\"]))(?:(?!\2).)+", re.IGNORECASE),
    re.compile(rf"({_WORD}=)(?!on\b|off\b|['\"])(?:[^,\s\0]|,,)+", re.IGNORECASE),
    # Who puts a password into a URL does not always spell its `@` and `/` as it should.
    re.compile(r"(://[^/:@\s\0'\"<>]*:)(?!\d+(?:[/,;?#)'\"\s\0]|$))[^\s\0'\"<>]+(?=@)"),
    re.compile(r"((?:iscsi|iser)://[^/%@\s\0]*%)[^\s\0'\"<>]+(?=@)"),
    re.compile(r"((\\*\")qom-type\2\s*:\s*\2secret\2[^{}]*?\2data\2\s*:\s*\2)" + _JSON_TEXT),
    re.compile(
        _JSON_KEY.format("data") + _JSON_TEXT + r"(?=\2[^{}]*?\2qom-type\2\s*:\s*\2secret\2)"
    ),
    re.compile(
        _JSON_KEY.format(rf"[\w.-]*{_WORD}|admin_?pass|secret|cookie|keyring") + _JSON_TEXT,
        re.IGNORECASE,
    ),
)


_MARKS = re.compile(r"key[=vr]|data|pass|secret|cookie|://|==", re.IGNORECASE)
"""What a text must have in it to hold one of `_SECRETS`; most have none, and are many."""


def without_secrets(value: Any) -> Any:
    """The value with each secret in its texts replaced by `WITHHELD`.

    The second fence. The first are the collectors' allow-lists of columns, keys and files.
    """
    if isinstance(value, str):
        for secret in _SECRETS if _MARKS.search(value) else ():
            value = secret.sub(rf"\g<1>{WITHHELD}", value)
        return value
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


class _Worker(threading.Thread):
    """A thread that answers one question after another, until one takes too long."""

    def __init__(self) -> None:
        super().__init__(daemon=True)  # a question that never ends must not keep the program
        self.questions: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            how = self.questions.get()
            try:
                self.results.put(how())
            except BaseException as error:  # whatever it was, the door outside records it
                self.results.put(error)


_idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()


def patiently(how: Callable[[], object], patience: float) -> object:
    """What `how` returns, or the exception it raised; `TimeoutError` if it takes too long."""
    try:
        worker = _idle.get_nowait()
    except queue.Empty:
        worker = _Worker()
    worker.questions.put(how)
    try:
        result = worker.results.get(timeout=patience)
    except queue.Empty:
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


def _failure(error: BaseException, patience: float) -> Failure:
    if isinstance(error, Refusal):
        kind, message = error.kind, str(error)
    elif isinstance(error, TimeoutError):
        kind, message = "timeout", f"no answer within {patience:g} s"
    elif isinstance(error, OSError):
        kind, message = _KINDS.get(error.errno or 0, "failed"), error.strerror or str(error)
    elif isinstance(error, ModuleNotFoundError):
        kind, message = "missing", f"the Python package {error.name} is not installed"
    elif isinstance(error, MemoryError):
        kind, message = "too-large", "the answer does not fit into memory"
    else:
        kind, message = "failed", f"{type(error).__name__}: {error}"
    message = " ".join(without_secrets(message).split())[:500]
    return Failure(kind=kind, message=message or type(error).__name__)


def _kind_of(complaint: str) -> str:
    """The kind of failure that a program's message on stderr means."""
    if "Permission denied" in complaint or "Operation not permitted" in complaint:
        return "denied"
    if "No such file or directory" in complaint:
        return "absent"
    return "failed"
