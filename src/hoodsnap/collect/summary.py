"""Summary of the layers' answers, which the operator reads after collecting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.printable import cut
from hoodsnap.trust.fingerprint import LAYER

EXPECTED = frozenset(["absent"])
"""Kinds of failure that count as answers: the object does not exist."""


def summary(bundle: Bundle) -> Iterator[str]:
    """Yield a line per layer with its number of answers, and a line per reason of its failures."""
    outermost = ("host", "nova", "glance", "nova-db", "placement", "libvirt", "kernel", "qemu")
    order = {layer: number for number, layer in enumerate(outermost)}
    asked = (item for item in bundle.by_layer.items() if item[0] != LAYER)
    layers = sorted(asked, key=lambda item: (order.get(item[0], 9), item[0]))
    for layer, answers in layers:
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


def _is_answered(answer: Answer) -> bool:
    return answer.error is None or answer.error.kind in EXPECTED


def _reason(answer: Answer) -> tuple[str, str]:
    return (answer.error.kind, answer.error.message) if answer.error else ("", "")
