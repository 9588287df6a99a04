"""The examination of a bundle, as text for a person and as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from hoodsnap.printable import clean, cut
from hoodsnap.trust.examination import Trust

FORMAT = 1
"""Format number of the JSON."""

WIDTH = 200
"""Largest number of characters in a line; a query may name a thousand guests."""


def lines(found: Iterable[Trust]) -> Iterator[str]:
    """Yield text for a person: a line for each bundle, with the details indented below it."""
    for one in found:
        yield _line(f"{one.name}: {_headline(one)}")
        yield f"  {one.verdict.count} answers, {one.verdict.fingerprint}"
        for change in one.verdict.altered:
            yield _line(f"  {change}")
        if one.original is not None:
            yield _line(f"  made from {one.original}")
        if one.signer is not None:
            yield _line(f"  signed by {one.signer}")
        for doubt in one.doubts[not one.verdict.intact :]:
            yield _line(f"  {doubt}")
        for rule, host, reason in one.implausible:
            yield _line(f"    {rule} {host}: {reason}")


def as_json(found: Iterable[Trust]) -> str:
    """Return JSON for a program; docs/reference/bundle.md describes it."""
    bundles = [
        {
            "bundle": one.name,
            "intact": one.verdict.intact,
            "fingerprint": one.verdict.fingerprint,
            "recorded": one.verdict.recorded,
            "original": one.original,
            "answers": one.verdict.count,
            "altered": list(one.verdict.altered),
            "signer": one.signer,
            "doubts": list(one.doubts),
            "implausible": [doubt._asdict() for doubt in one.implausible],
        }
        for one in found
    ]
    return json.dumps({"format": FORMAT, "bundles": bundles}, indent=1) + "\n"


def _headline(one: Trust) -> str:
    if not one.verdict.intact:
        return one.doubts[0]
    return "intact" if not one.doubts else "intact, with doubts"


def _line(text: str) -> str:
    """Return the text as one line, cut where it is too long."""
    return cut(clean(text), WIDTH)
