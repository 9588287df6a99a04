"""Answers that name what they are about: is it what was asked about?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.phrase import brief, counted, place

SHOWN = 5
"""Number of answers that the finding shows; the others are only counted."""


class _Echo(NamedTuple):
    layer: str
    question: re.Pattern[str]
    """Group 1 is what is asked about."""
    read: Callable[[Any], object]
    """Object that the answer names; None if it names none."""
    at: str
    """Place in the answer."""


def _image(value: Any) -> object:
    return value[0]["filename"]


def _line(value: Any) -> object:
    found = re.match(r"image: (.+)", value)
    return found[1] if found else None


def _pid(value: Any) -> object:
    found = re.search(r"^Pid:\s*(\d+)$", value, re.MULTILINE)
    return found[1] if found else None


_UUID = "([0-9a-f-]{36})"
_INFO = r"qemu-img info(?: -[-\w]+)*"
"""`qemu-img info` with options that have no value, which `--output=json` is not."""
_FILE = r"-f \w+ (/.*)"

ECHOES = (
    _Echo("images", re.compile(r"stat -L (/.*)", re.DOTALL), lambda value: value["path"], "path"),
    _Echo("images", re.compile(rf"{_INFO} --output=json {_FILE}", re.DOTALL), _image, "filename"),
    _Echo("images", re.compile(rf"{_INFO} {_FILE}", re.DOTALL), _line, "image"),
    _Echo(
        "kernel", re.compile(r"/proc/(\d+)/stat"), lambda value: value.split(" ", 1)[0], "field 1"
    ),
    _Echo("kernel", re.compile(r"/proc/(\d+)/status"), _pid, "Pid"),
    _Echo(
        "nova",
        re.compile(rf"GET /v2\.1/servers/{_UUID} .*"),
        lambda it: it["server"]["id"],
        "server.id",
    ),
    _Echo(
        "glance", re.compile(rf"GET /v2/images/{_UUID}(?: .*)?"), lambda value: value["id"], "id"
    ),
    _Echo(
        "cinder",
        re.compile(rf"GET /v3/volumes/{_UUID} .*"),
        lambda it: it["volume"]["id"],
        "volume.id",
    ),
)
"""Questions whose answers repeat what they are about."""


@check(Severity.ERROR)
def answer_about_another_object(cloud: Cloud) -> Problems:
    """An answer in the bundle is about another object than the one that was asked about.

    Programs repeat the path, the number or the id of their question in their answer. hoodsnap finds
    an answer by its question, so such an answer gives one object the values of another, and
    everything that is concluded from them is wrong. Either the bundle was edited or put together
    from several, or something between the collector and the program returns stale answers: a
    caching proxy before an API, a wrapper around `qemu-img`.

    Authority: Neither; the capture has to be repeated.

    Traps: In another PID namespace the kernel shows a process with the number that it has there, so
    only answers that came from /proc of the collector's own namespace are compared.

    Next: Check whether the programs that the collector calls are wrapped:

        ls -l /usr/bin/qemu-img /usr/bin/stat

    Then collect again, on the host itself and without a proxy before the APIs, and discard this
    bundle.

    Not yet: Do not act on anything that was found in this bundle.

    Source: proc(5); stat(2); qemu-img(1); nova and glance API references.
    """
    for layer in ("images", "kernel", "nova", "glance", "cinder"):
        echoes = [echo for echo in ECHOES if echo.layer == layer]
        answers = cloud.bundle.by_layer.get(layer, ())
        wrong = [found for answer in answers for found in _wrong(answer, echoes)]
        if not wrong:
            continue
        asked, told, answer, _ = wrong[0]
        more = f" (and {counted(len(wrong) - 1, 'more answer')})" if len(wrong) > 1 else ""
        yield problem(
            f"On {answer.host}, the answer to a question about {_short(asked)} is about"
            f" {_short(told)}{more}",
            *(
                hears(one, "answer", at, asked_about=name, answered_about=about)
                for name, about, one, at in wrong[:SHOWN]
            ),
        )


def _short(name: str) -> str:
    return place(name) if name.startswith("/") else brief(name)


def _wrong(answer: Answer, echoes: Iterable[_Echo]) -> Iterator[tuple[str, str, Answer, str]]:
    if answer.error is not None or answer.value is None:
        return
    for echo in echoes:
        asked = echo.question.fullmatch(answer.query)
        if asked is None:
            continue
        told = _read(echo, answer)
        if told is not None and told != asked[1]:
            yield asked[1], told, answer, echo.at


def _read(echo: _Echo, answer: Answer) -> str | None:
    try:
        told = echo.read(answer.value)
    except (KeyError, IndexError, TypeError, AttributeError):
        return None  # other checks report what can't be read
    return told if isinstance(told, str) else None
