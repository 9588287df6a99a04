"""Fingerprint: a hash over a bundle's answers, which shows whether the bundle was changed.

It is computed from the answers, not from the file: compressing the bundle again or reordering its
answers does not change the fingerprint; changing, adding or removing an answer does. It is stored
in the bundle as an answer of its own layer, so it is not part of the format. Anyone who changes
answers can also compute a new fingerprint; a signature protects against that (`signature.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hoodsnap.bundle import Answer, Bundle

LAYER = "hoodsnap"
"""Layer of hoodsnap's own statements about a bundle."""

QUERY = "hoodsnap fingerprint"
SIGNATURE = "hoodsnap signature"

ABOUT_ALL = frozenset([QUERY, SIGNATURE])
"""Queries of the answers about the other answers, which the fingerprint therefore can't cover."""

SCHEME = "sha256:"

QUESTION, WHOLE = 8, 12
"""Hexadecimal digits kept of the hash of each question, and of each whole answer. They only serve
to name the changed answers; the full hashes detect that there was a change."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of a bundle with the fingerprint that is recorded in it."""

    fingerprint: str
    """Fingerprint of the bundle as it is now."""

    recorded: str | None
    """Fingerprint recorded in the bundle; None if it holds no fingerprint, or several."""

    count: int
    """Number of answers that the fingerprint covers."""

    original: str | None = None
    """Fingerprint of the bundle that this one was made from, as recorded in this one; it is covered
    as well. None if this one is an original."""

    altered: tuple[str, ...] = ()
    """Changes since the bundle was written, as far as they can be named: one sentence each."""

    @property
    def intact(self) -> bool:
        """True if the bundle is as it was written."""
        return self.recorded == self.fingerprint and not self.altered


def fingerprint(bundle: Bundle) -> str:
    """Return the fingerprint of a bundle: `sha256:` and 64 hexadecimal digits."""
    hashes = [_hash(answer) for answer in _covered(bundle)]
    return _combined(bundle, hashes, _recorded(bundle).get("original"))


def fingerprinted(bundle: Bundle, original: str | None = None) -> Bundle:
    """Return the bundle with its fingerprint as the last answer.

    `original`: the fingerprint of the bundle that this one was made from, if any.
    """
    # Hash what a reader will see: JSON turns keys that are not strings into strings.
    hashes = [_digest(json.loads(json.dumps(answer.as_json()))) for answer in _covered(bundle)]
    value: dict[str, object] = {"fingerprint": _combined(bundle, hashes, original)}
    if original is not None:
        value["original"] = original
    value["answers"] = list(map(_mark, _covered(bundle), hashes))
    return bundle.with_answers([*_covered(bundle), _remark(bundle, QUERY, value)])


def signed(bundle: Bundle, signature: str) -> Bundle:
    """Return the bundle with a signature of its fingerprint as the last answer."""
    return bundle.with_answers([*bundle.answers, _remark(bundle, SIGNATURE, signature)])


def recorded(bundle: Bundle, query: str) -> Answer | None:
    """Return hoodsnap's own answer to `query`; None if the bundle holds none, or several."""
    found = tuple(answer for answer in bundle.by_layer.get(LAYER, ()) if answer.query == query)
    return found[0] if len(found) == 1 else None


def verify(bundle: Bundle) -> Comparison:
    """Compare the bundle with its recorded fingerprint, and name what was changed."""
    answers = tuple(_covered(bundle))
    hashes = [_hash(answer) for answer in answers]
    value = _recorded(bundle)
    now = _combined(bundle, hashes, value.get("original"))
    noted, listed, original = (value.get(key) for key in ("fingerprint", "answers", "original"))
    if not isinstance(noted, str):
        several = sum(answer.query == QUERY for answer in bundle.by_layer.get(LAYER, ()))
        patchwork = ("it has several fingerprints: it was merged from several bundles",)
        return Comparison(now, None, len(answers), altered=patchwork if several > 1 else ())
    written = (
        [mark if isinstance(mark, str) else "" for mark in listed]
        if isinstance(listed, list)
        else []
    )
    altered = tuple(_altered(answers, list(map(_mark, answers, hashes)), written))
    if noted == now and altered:
        altered = ("changed: the fingerprint's list of answers, not an answer itself",)
    if noted != now and not altered:
        altered = (
            "changed: the tool's version, the times of collection or the original's fingerprint",
        )
    made_from = original if isinstance(original, str) else None
    return Comparison(now, noted, len(answers), made_from, altered)


def _altered(answers: Sequence[Answer], marks: list[str], written: list[str]) -> Iterator[str]:
    """Yield which answers were changed, added or removed. Removed answers are reported by position:
    after the last answer that still exists."""
    new, gone = Counter(marks) - Counter(written), Counter(written) - Counter(marks)
    missed = Counter(mark[:QUESTION] for mark in gone.elements())
    for answer, mark in zip(answers, marks, strict=True):
        if new[mark] > 0:
            new[mark] -= 1
            known = missed[mark[:QUESTION]] > 0
            missed[mark[:QUESTION]] -= known
            yield f"{'changed' if known else 'added'}: {_named(answer)}"
    by_mark = dict(zip(marks, answers, strict=True))
    before = "at the beginning"
    for mark in written:
        if gone[mark] > 0 and missed[mark[:QUESTION]] > 0:
            gone[mark] -= 1
            missed[mark[:QUESTION]] -= 1
            yield f"removed: one answer {before}"
        elif mark in by_mark:
            before = f"after {_named(by_mark[mark])}"


def _named(answer: Answer) -> str:
    return f"{answer.layer}: {answer.query}"


def _mark(answer: Answer, digest: str) -> str:
    question = {name: getattr(answer, name) for name in ("host", "layer", "query", "subject")}
    return _digest(question)[:QUESTION] + digest[:WHOLE]


def _recorded(bundle: Bundle) -> dict[str, object]:
    """Return the recorded fingerprint with its details; empty if it is missing or malformed."""
    remark = recorded(bundle, QUERY)
    return remark.value if remark is not None and isinstance(remark.value, dict) else {}


def _covered(bundle: Bundle) -> Iterator[Answer]:
    return (
        answer
        for answer in bundle.answers
        if answer.layer != LAYER or answer.query not in ABOUT_ALL
    )


def _combined(bundle: Bundle, hashes: list[str], original: object) -> str:
    head: dict[str, object] = {
        "tool": bundle.tool,
        "started": bundle.started.timestamp(),
        "ended": bundle.ended.timestamp(),
    }
    if original is not None:
        head["original"] = original
    lines = [_digest(head), *sorted(hashes)]
    return SCHEME + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash(answer: Answer) -> str:
    return _digest(answer.as_json())


def _digest(raw: object) -> str:
    text = json.dumps(raw, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _remark(bundle: Bundle, query: str, value: object) -> Answer:
    host = bundle.answers[0].host if bundle.answers else ""
    return Answer(layer=LAYER, host=host, query=query, at=bundle.ended, took=0.0, value=value)
