"""Answers that make a bundle unreadable are left out before the bundle is written.

The reader refuses a file with more lists, values or elements than a recording of its size has
(`hoodsnap.bounds`), and counts them in texts, too. Any account of the host can put a million
brackets into a command line. So the answers with the most of them are left out, one by one, until
the rest can be read.
"""

from __future__ import annotations

import json

from hoodsnap import bounds
from hoodsnap.bundle import Answer, Bundle, Failure

_FREE = 0.8
"""Share of the free room of a file that answers may take: some marks are added later."""


def readable(bundle: Bundle) -> Bundle:
    """Return the bundle without the answers for which a reader would refuse it."""
    answers = list(bundle.answers)
    weights = [_excess(answer) for answer in answers]
    left_out = False
    for number, share in enumerate(bounds.SHARES):
        total = sum(weight[number] for weight in weights)
        for place in sorted(range(len(answers)), key=lambda at: -weights[at][number]):
            if total <= _FREE * share.free:
                break
            why = f"not kept: it holds more {share.what} than a bundle may have"
            answers[place] = _without_value(answers[place], why)
            total -= weights[place][number]
            weights[place] = _excess(answers[place])
            total += weights[place][number]
            left_out = True
    return bundle.with_answers(answers) if left_out else bundle


def _excess(answer: Answer) -> list[float]:
    """Return by how many each share of an answer exceeds what a bundle may have for its length."""
    data = json.dumps(answer.as_json(), separators=(",", ":")).encode()
    return [
        sum(map(data.count, share.marks)) - share.per_byte * len(data) for share in bounds.SHARES
    ]


def _without_value(answer: Answer, why: str) -> Answer:
    kept = {name: getattr(answer, name) for name in ("layer", "host", "at", "took")}
    shown = {"query": answer.query[:_SHOWN], "subject": (answer.subject or "")[:_SHOWN] or None}
    return Answer(**kept, **shown, error=Failure(kind="too-large", message=why))


_SHOWN = 1000
"""Characters that are kept of the question of an answer that is left out."""
