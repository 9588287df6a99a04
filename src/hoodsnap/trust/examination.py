"""Examination of a bundle: is it unchanged, who signed it, and does it answer the challenge?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hoodsnap.bundle import Bundle
from hoodsnap.trust import challenge
from hoodsnap.trust.fingerprint import LAYER, SIGNATURE, Comparison, recorded, verify
from hoodsnap.trust.signature import NotTrustedError, signer

if TYPE_CHECKING:
    from hoodsnap.trust.plausible import Contradiction

FORMAT = 1
"""Format number of the JSON."""

WIDTH = 200
"""Largest number of characters in a line; a query may name a thousand guests."""


@dataclass(frozen=True)
class ExpectedProof:
    """Proof that is required of a bundle, besides being intact."""

    allowed_signers: Path | None = None
    challenge: str | None = None
    within: int | None = None
    """Largest age in minutes; None for any age."""
    plausible: bool = False
    """True to look for contradictions as well."""


@dataclass(frozen=True)
class Trust:
    """Result of the examination of one bundle."""

    name: str
    verdict: Comparison
    signer: str | None
    """The allowed signer who signed it; None if no allowed signer did, or that was not checked."""
    original: str | None
    """Fingerprint of the bundle that this one was made from; None if it is an original."""
    doubts: tuple[str, ...]
    """Reasons why the bundle lacks the required proof, one sentence each."""
    implausible: tuple[Contradiction, ...] = ()


def examine(bundle: Bundle, name: str, wanted: ExpectedProof, now: datetime) -> Trust:
    """Examine one bundle. Raises `SshKeygenError` if ssh-keygen can't check a signature."""
    verdict = verify(bundle)
    who, doubts = None, [*_about_fingerprint(verdict)]
    if wanted.allowed_signers is not None:
        try:
            who = signed_by(bundle, verdict.fingerprint, wanted.allowed_signers)
        except NotTrustedError as reason:
            doubts.append(str(reason))
    if wanted.challenge is not None:
        within = timedelta(minutes=wanted.within) if wanted.within is not None else None
        doubts += challenge.doubts(bundle, wanted.challenge, within, now)
    found: tuple[Contradiction, ...] = ()
    if wanted.plausible:
        from hoodsnap.trust import plausible

        found = tuple(plausible.doubts(bundle))
        if found:
            doubts.append(f"not plausible: {len(found)} contradiction{'s' * (len(found) != 1)}")
    return Trust(name, verdict, who, verdict.original, tuple(doubts), found)


def signed_by(bundle: Bundle, fingerprint: str, allowed: Path) -> str:
    """Return the allowed signer whose signature covers this fingerprint.

    Raises `NotTrustedError` if no allowed signer signed it, and `SshKeygenError` if ssh-keygen
    can't check the signature.
    """
    answer = recorded(bundle, SIGNATURE)
    if answer is None:
        several = any(one.query == SIGNATURE for one in bundle.by_layer.get(LAYER, ()))
        raise NotTrustedError("it has several signatures" if several else "it is not signed")
    return signer(fingerprint, answer.value, allowed)


def lines(found: Iterable[Trust]) -> Iterator[str]:
    """Yield text for a person: a line for each bundle, with the details indented below it."""
    for one in found:
        yield _plain(f"{one.name}: {_headline(one)}")
        yield f"  {one.verdict.count} answers, {one.verdict.fingerprint}"
        for change in one.verdict.altered:
            yield _plain(f"  {change}")
        if one.original is not None:
            yield _plain(f"  made from {one.original}")
        if one.signer is not None:
            yield _plain(f"  signed by {one.signer}")
        for doubt in one.doubts[not one.verdict.intact :]:
            yield _plain(f"  {doubt}")
        for rule, host, reason in one.implausible:
            yield _plain(f"    {rule} {host}: {reason}")


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


def _about_fingerprint(verdict: Comparison) -> Iterator[str]:
    if verdict.intact:
        return
    if verdict.recorded is None and not verdict.altered:
        yield "can't be verified: it has no fingerprint"
    else:
        yield "changed since it was written"


def _plain(line: str) -> str:
    """Return the line shortened, with unprintable characters replaced to protect the terminal."""
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
