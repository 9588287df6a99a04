"""Examination of a bundle: is it unchanged, who signed it, and does it answer the challenge?"""

from __future__ import annotations

from collections.abc import Iterator
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


def _about_fingerprint(verdict: Comparison) -> Iterator[str]:
    if verdict.intact:
        return
    if verdict.recorded is None and not verdict.altered:
        yield "can't be verified: it has no fingerprint"
    else:
        yield "changed since it was written"
