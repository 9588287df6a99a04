"""Summary of the layers' answers, which the operator reads after collecting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from hoodsnap import extras
from hoodsnap.bundle import Answer, Bundle
from hoodsnap.printable import cut
from hoodsnap.trust.fingerprint import LAYER

EXPECTED = frozenset(["absent"])
"""Kinds of failure that count as answers: the object does not exist."""

MOST_REASONS = 4
"""Reasons of failures in a summary. With the other lines, it has six lines at most."""


_PACKAGE = re.compile(r"the Python package (\S+) is not installed")
"""The recorder's message about a module that can't be imported."""


class _Reason(NamedTuple):
    """One reason why questions were not answered, in one or several layers."""

    kind: str
    message: str
    layers: dict[str, list[Answer]]
    """The questions by layer."""


def summary(bundle: Bundle) -> Iterator[str]:
    """Yield a line about the layers that answered, and one for each of the gravest reasons.

    A reason that silenced whole layers is graver than one that left answers out.
    """
    layers = _by_layer(bundle)
    answered = [name for name, answers in layers.items() if any(map(_is_answered, answers))]
    count = sum(_is_answered(answer) for answers in layers.values() for answer in answers)
    took = (bundle.ended - bundle.started).total_seconds()
    if answered:
        yield f"✓ {count} answers in {took:.1f} s from {', '.join(answered)}"
    reasons = _reasons(layers)
    reasons.sort(key=lambda one: (set(one.layers) <= set(answered), -_questions(one)))
    for reason in reasons[:MOST_REASONS]:
        yield _line(reason, layers, answered)
    more = len(reasons) - MOST_REASONS
    if more > 0:
        yield f"  {more} more reason{'s' * (more > 1)}: --verbose lists them"


def _line(reason: _Reason, layers: dict[str, tuple[Answer, ...]], answered: list[str]) -> str:
    silent = [name for name in reason.layers if name not in answered]
    if silent:
        start = f"✗ not collected: {', '.join(silent)}: "
    else:
        total = sum(len(layers[name]) for name in reason.layers)
        start = f"! {', '.join(reason.layers)}: {_questions(reason)} of {total} not answered: "
    if (package := _PACKAGE.fullmatch(reason.message)) and (how := extras.advice(package[1])):
        return f"{start}{reason.message}; {how}"
    first = next(iter(reason.layers.values()))[0]
    how = "; collect as root" if reason.message == "Permission denied" else ""
    return f"{start}{reason.kind}: {reason.message} ({cut(first.query, 60)}){how}"


def _questions(reason: _Reason) -> int:
    return sum(map(len, reason.layers.values()))


def _reasons(layers: dict[str, tuple[Answer, ...]]) -> list[_Reason]:
    found: dict[tuple[str, str], _Reason] = {}
    for name, answers in layers.items():
        for answer in answers:
            if not _is_answered(answer):
                kind, message = _reason(answer)
                reason = found.setdefault((kind, message), _Reason(kind, message, {}))
                reason.layers.setdefault(name, []).append(answer)
    return list(found.values())


def details(bundle: Bundle) -> Iterator[str]:
    """Yield a line per layer with its number of answers, and a line per reason of its failures."""
    for layer, answers in _by_layer(bundle).items():
        answered = [answer for answer in answers if _is_answered(answer)]
        took = sum(answer.took for answer in answers)
        noun = "answer " if len(answered) == 1 else "answers"
        line = f"{layer:<9} {len(answered):4} {noun} in {took:5.1f} s"
        yield f"{'✓' if answered else '✗'} {line}" if len(answered) == len(answers) else f"! {line}"
        failures = sorted((answer for answer in answers if not _is_answered(answer)), key=_reason)
        for (kind, message), same in groupby(failures, key=_reason):
            questions = [answer.query for answer in same]
            more = f" and {len(questions) - 1} more" if len(questions) > 1 else ""
            yield f"           {kind}: {message} ({cut(questions[0], 60)}{more})"


def _by_layer(bundle: Bundle) -> dict[str, tuple[Answer, ...]]:
    """Return the answers by layer, from the outermost layer to the innermost."""
    outermost = ("host", "nova", "glance", "nova-db", "placement", "libvirt", "kernel", "qemu")
    order = {layer: number for number, layer in enumerate(outermost)}
    asked = (item for item in bundle.by_layer.items() if item[0] != LAYER)
    return dict(sorted(asked, key=lambda item: (order.get(item[0], 9), item[0])))


def _is_answered(answer: Answer) -> bool:
    return answer.error is None or answer.error.kind in EXPECTED


def _reason(answer: Answer) -> tuple[str, str]:
    if answer.error is None:
        return "", ""
    return answer.error.kind, answer.error.message
