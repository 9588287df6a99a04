"""The leaves of a text: attributes of XML, options of a command line, lines of anything else.

A place is a span of the text, and the wider span that is removed if the leaf is to be gone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """A piece of a text."""

    start: int
    end: int
    """The value itself."""
    first: int
    last: int
    """The value with what names it: `mode='rw'`, `file=/a,`."""


def leaves(text: str, kind: str) -> Iterator[tuple[Span, str]]:
    """Yield the span and the general path of each leaf of a text that answered a kind of question."""
    if text.lstrip().startswith("<"):
        return _xml(text)
    if kind.endswith("cmdline"):
        return _command_line(text)
    return _lines(text)


_TAG = re.compile(r"<(/?)([\w:]+)((?:\s+[\w:]+=(?:'[^']*'|\"[^\"]*\"))*)\s*(/?)>")
_ATTRIBUTE = re.compile(r"\s+([\w:]+)=('[^']*'|\"[^\"]*\")")


def _xml(text: str) -> Iterator[tuple[Span, str]]:
    stack: list[str] = []
    last = 0
    for tag in _TAG.finditer(text):
        if stack and tag[1] and text[last : tag.start()].strip():
            yield Span(last, tag.start(), last, tag.start()), "/".join(stack)
        last = tag.end()
        if tag[1]:
            if stack:
                stack.pop()
            continue
        stack.append(tag[2])
        for one in _ATTRIBUTE.finditer(tag[3]):
            at = tag.start(3)
            span = Span(
                at + one.start(2) + 1, at + one.end(2) - 1, at + one.start(), at + one.end()
            )
            yield span, "/".join(stack) + "@" + one[1]
        if tag[4]:
            stack.pop()


def members(text: str, kind: str) -> Iterator[tuple[Span, str]]:
    """Yield the span and the path of each whole element or option; a line is a leaf already."""
    if text.lstrip().startswith("<"):
        yield from _elements(text)
    elif kind.endswith("cmdline"):
        yield from _options(text)


def _elements(text: str) -> Iterator[tuple[Span, str]]:
    stack: list[tuple[str, int]] = []
    for tag in _TAG.finditer(text):
        if not tag[1]:
            stack.append((tag[2], tag.start()))
        if (tag[1] or tag[4]) and stack:
            path = "/".join(name for name, _ in stack)
            _, start = stack.pop()
            if stack:
                yield Span(start, tag.end(), start, tag.end()), path


_IN_JSON = re.compile(r'"([\w.-]+)":("(?:[^"\\]|\\.)*"|\d+|true|false),?')
_OF_JSON = re.compile(r'"(?:qom-type|driver)":"([\w-]+)"')
_PAIR = re.compile(r"(?:(?<=,)|^)(?:([\w.-]+)=)?([^,]+),?")


def words(text: str) -> list[tuple[int, int, str]]:
    """Return the words of a command line, separated by NUL as in /proc, or else by spaces."""
    found = [(m.start(), m.end(), m[0]) for m in re.finditer(r"[^\0]+", text)]
    if len(found) < 3:
        found = [(m.start(), m.end(), m[0]) for m in re.finditer(r"\S+", text)]
    return found


def _command_line(text: str) -> Iterator[tuple[Span, str]]:
    option = "argv0"
    for start, _, word in words(text):
        if word.startswith("-") and len(word) > 1 and not word[1].isdigit():
            option = word
        elif word.startswith("{"):
            kind = _OF_JSON.search(word)
            for one in _IN_JSON.finditer(word):
                first, last = one.span(2)
                if word[first] == '"':
                    first, last = first + 1, last - 1
                span = Span(start + first, start + last, start + one.start(), start + one.end())
                yield span, f"{option} {kind[1] if kind else ''}.{one[1]}"
        else:
            for one in _PAIR.finditer(word):
                span = Span(*(start + at for at in (*one.span(2), *one.span())))
                yield span, f"{option} {one[1] or ''}"


def _options(text: str) -> Iterator[tuple[Span, str]]:
    found = words(text)
    for (start, end, word), (_, end_of_next, following) in itertools.pairwise(found):
        if word.startswith("-"):
            last = end if following.startswith("-") else end_of_next
            yield Span(start, last, start, last + 1), word


_FORMS = (
    (re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"), "MAC"),
    (re.compile(r"[0-9a-f-]{8,}"), "X"),
    (re.compile(r"\d+"), "N"),
    (re.compile(r"N \(qemu-system-xN\).*"), "N (qemu) …"),  # one per state of a process
)


def _lines(text: str) -> Iterator[tuple[Span, str]]:
    """Yield the first line of each form."""
    seen: set[str] = set()
    for one in re.finditer(r"[^\n]+", text):
        form = one[0]
        for pattern, general in _FORMS:
            form = pattern.sub(general, form)
        form = form[:60].replace("\t", " ")
        if form not in seen:
            seen.add(form)
            yield Span(one.start(), one.end(), one.start(), one.end() + 1), f"line {form}"
