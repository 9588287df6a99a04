"""Leave out answers that would make a bundle unreadable, before the bundle is written.

The reader refuses a file with more lists, values or elements than a real recording of its size has
(`hoodsnap.bounds`), and also counts them inside texts. Any account on the host can put a million
brackets into a command line. So the answers with the most excess are left out, one by one, until
the bundle can be read.
"""

from __future__ import annotations

import json

from hoodsnap import bounds
from hoodsnap.bundle import Answer, Bundle, Failure

_FREE = 0.8
"""Share of a file's free allowance that answers may use: more marks are added later."""


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
            why = f"not kept: the answer has more {share.what} than a bundle may have"
            answers[place] = _without_value(answers[place], why)
            total -= weights[place][number]
            weights[place] = _excess(answers[place])
            total += weights[place][number]
            left_out = True
    return bundle.with_answers(answers) if left_out else bundle


def _excess(answer: Answer) -> list[float]:
    """Return by how much an answer exceeds each share that a bundle of its length may have."""
    data = json.dumps(answer.as_json(), separators=(",", ":")).encode()
    return [
        sum(map(data.count, share.marks)) - share.per_byte * len(data) for share in bounds.SHARES
    ]


def _without_value(answer: Answer, why: str) -> Answer:
    kept = {name: getattr(answer, name) for name in ("layer", "host", "at", "took")}
    shown = {"query": answer.query[:_SHOWN], "subject": (answer.subject or "")[:_SHOWN] or None}
    return Answer(**kept, **shown, error=Failure(kind="too-large", message=why))


_SHOWN = 1000
"""Characters kept of the query and the subject of an answer that is left out."""
