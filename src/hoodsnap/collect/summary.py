"""Which layers spoke: what the operator reads after collecting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.printable import cut
from hoodsnap.trust.fingerprint import LAYER

EXPECTED = frozenset(["absent"])
"""Failures that are answers: there is no such thing."""


def summary(bundle: Bundle) -> Iterator[str]:
    """One line per layer: how much it said, and why it did not say the rest."""
    outermost = ("host", "nova", "glance", "nova-db", "placement", "libvirt", "kernel", "qemu")
    order = {layer: number for number, layer in enumerate(outermost)}
    heard_of = (item for item in bundle.by_layer.items() if item[0] != LAYER)
    layers = sorted(heard_of, key=lambda item: (order.get(item[0], 9), item[0]))
    for layer, answers in layers:
        heard = [answer for answer in answers if _is_told(answer)]
        took = sum(answer.took for answer in answers)
        line = f"{layer:<8} {len(heard):5} answers in {took:5.1f} s"
        yield f"{'✓' if heard else '✗'} {line}" if len(heard) == len(answers) else f"! {line}"
        failures = sorted((answer for answer in answers if not _is_told(answer)), key=_reason)
        for (kind, message), same in groupby(failures, key=_reason):
            questions = [answer.query for answer in same]
            more = f" and {len(questions) - 1} more" if len(questions) > 1 else ""
            yield f"           {kind}: {message} ({cut(questions[0], 60)}{more})"


def _is_told(answer: Answer) -> bool:
    return answer.error is None or answer.error.kind in EXPECTED


def _reason(answer: Answer) -> tuple[str, str]:
    return (answer.error.kind, answer.error.message) if answer.error else ("", "")
