"""What tells whether a bundle is still the one that was written: a hash over what it says.

It is made of the answers, not of the file: packing the bundle anew, or in another order, leaves it;
one changed, added or left out answer does not. It stands in the bundle as an answer of a layer of
its own, so it is no part of the format. Whoever changes answers can make a new fingerprint, too:
against that a bundle is signed (`signature.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hoodsnap.bundle import Answer, Bundle

LAYER = "hoodsnap"
"""The layer of what hoodsnap itself has to say of a bundle."""

QUERY = "hoodsnap fingerprint"
SIGNATURE = "hoodsnap signature"

ABOUT_ALL = frozenset([QUERY, SIGNATURE])
"""What is said of the other answers, and so can't be among what the fingerprint is made of."""

SCHEME = "sha256:"

QUESTION, WHOLE = 8, 12
"""Hexadecimal digits that are kept of the hash of each question, and of each whole answer. They
name what was changed; that something was is known from the whole hashes."""


@dataclass(frozen=True)
class Comparison:
    """What a bundle's fingerprint says of it."""

    fingerprint: str
    """Of the bundle as it is."""

    recorded: str | None
    """Of the bundle as it was written; None if it says none, or several."""

    count: int
    """Answers that the fingerprint is made of."""

    original: str | None = None
    """Of the bundle that this one was made from, as this one says; it is covered, too."""

    altered: tuple[str, ...] = ()
    """What is not as it was written, as far as it can be named: one sentence each."""

    @property
    def intact(self) -> bool:
        """Whether it is the bundle that was written."""
        return self.recorded == self.fingerprint and not self.altered


def fingerprint(bundle: Bundle) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    hashes = [_hash(answer) for answer in _covered(bundle)]
    return _combined(bundle, hashes, _recorded(bundle).get("original"))


def fingerprinted(bundle: Bundle, original: str | None = None) -> Bundle:
    """The bundle with its fingerprint, as its last answer.

    `original` is the fingerprint of the bundle that this one was made from, if it was.
    """
    # What is hashed is what a reader will read: of an object whose keys are no texts, as texts.
    hashes = [_digest(json.loads(json.dumps(answer.as_json()))) for answer in _covered(bundle)]
    value: dict[str, object] = {"fingerprint": _combined(bundle, hashes, original)}
    if original is not None:
        value["original"] = original
    value["answers"] = list(map(_mark, _covered(bundle), hashes))
    return bundle.with_answers([*_covered(bundle), _remark(bundle, QUERY, value)])


def signed(bundle: Bundle, signature: str) -> Bundle:
    """The bundle with a signature of its fingerprint, as its last answer."""
    return bundle.with_answers([*bundle.answers, _remark(bundle, SIGNATURE, signature)])


def recorded(bundle: Bundle, query: str) -> Answer | None:
    """What hoodsnap has to say of the bundle, under `query`; None if that is nothing, or more than
    one thing."""
    found = tuple(answer for answer in bundle.by_layer.get(LAYER, ()) if answer.query == query)
    return found[0] if len(found) == 1 else None


def verify(bundle: Bundle) -> Comparison:
    """Whether the bundle is still as it was written, and if not, what is not."""
    answers = tuple(_covered(bundle))
    hashes = [_hash(answer) for answer in answers]
    value = _recorded(bundle)
    now = _combined(bundle, hashes, value.get("original"))
    said, listed, original = (value.get(key) for key in ("fingerprint", "answers", "original"))
    if not isinstance(said, str):
        several = sum(answer.query == QUERY for answer in bundle.by_layer.get(LAYER, ()))
        patchwork = ("it has several fingerprints: it was put together from several",)
        return Comparison(now, None, len(answers), altered=patchwork if several > 1 else ())
    written = (
        [mark if isinstance(mark, str) else "" for mark in listed]
        if isinstance(listed, list)
        else []
    )
    altered = tuple(_altered(answers, list(map(_mark, answers, hashes)), written))
    if said == now and altered:
        altered = ("changed: not an answer, but the list of what each of them was",)
    if said != now and not altered:
        altered = ("changed: not an answer, but who wrote it, when or from what",)
    made_from = original if isinstance(original, str) else None
    return Comparison(now, said, len(answers), made_from, altered)


def _altered(answers: Sequence[Answer], marks: list[str], written: list[str]) -> Iterator[str]:
    """What was changed, added or left out. Of what is not there any more only its place is known,
    which is behind the answer that was written before it."""
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
            yield f"left out: one answer {before}"
        elif mark in by_mark:
            before = f"after {_named(by_mark[mark])}"


def _named(answer: Answer) -> str:
    return f"{answer.layer}: {answer.query}"


def _mark(answer: Answer, digest: str) -> str:
    question = {name: getattr(answer, name) for name in ("host", "layer", "query", "subject")}
    return _digest(question)[:QUESTION] + digest[:WHOLE]


def _recorded(bundle: Bundle) -> dict[str, object]:
    """What the bundle says of its own fingerprint; empty if that can't be read."""
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
