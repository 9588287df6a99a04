"""Runs every check on everything that was captured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hoodsnap.bundle import Bundle
from hoodsnap.check import Check
from hoodsnap.checks import CATALOGUE
from hoodsnap.facts.cloud import Cloud, read
from hoodsnap.facts.fact import Unheard
from hoodsnap.facts.guest import Guest, Host
from hoodsnap.finding import Evidence, Severity

APART = 600.0
"""Seconds. One visit is shorter; bundles of one moment were not taken further apart."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A check, what it is about, and the evidence."""

    check: Check
    severity: Severity
    host: str | None
    guest: Guest | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, eq=False)
class Skip:
    """A check that could not be decided: neither passed nor failed."""

    check: Check
    host: str | None
    guest: Guest | None
    reason: str
    legal: bool = False
    """Nothing was unheard; a difference, if there is one, would be legal."""
    differs: bool = False
    """There is a difference, which is not called a finding for this reason."""


@dataclass(frozen=True, eq=False)
class Report:
    """All that can be said about what was captured."""

    cloud: Cloud
    findings: tuple[Finding, ...]
    """Worst first, then by guest."""
    skips: tuple[Skip, ...]

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding."""
        return max((finding.severity for finding in self.findings), default=None)


def analyze(bundle: Bundle, catalogue: tuple[Check, ...] = CATALOGUE) -> Report:
    """Read a bundle (several: merge them first) and check all of it."""
    cloud = read(bundle)
    found = [*_judged(cloud, catalogue)]
    findings = [item for item in found if isinstance(item, Finding)]
    # A stable sort: within a severity the order of the guests, and of the catalogue, stays.
    findings.sort(key=lambda finding: -finding.severity)
    return Report(cloud, tuple(findings), tuple(item for item in found if isinstance(item, Skip)))


def _judged(cloud: Cloud, catalogue: tuple[Check, ...]) -> Iterator[Finding | Skip]:
    scopes = {
        scope: [c for c in catalogue if c.scope == scope] for scope in ("cloud", "host", "guest")
    }
    for check in scopes["cloud"]:
        yield from _one(check, cloud, None, None)
    for host in cloud.hosts:
        for check in scopes["host"]:
            yield from _one(check, host, host.name, None)
    for guest in cloud.guests:
        for check in scopes["guest"]:
            yield from _one(check, guest, guest.host.name if guest.host else None, guest)


def _one(
    check: Check, subject: Guest | Host | Cloud, host: str | None, guest: Guest | None
) -> Iterator[Finding | Skip]:
    problems = []
    unheard = None
    try:
        for problem in check.run(subject):
            problems.append(problem)
    except Unheard as reason:
        unheard = str(reason)
    if guest is not None and (problems or unheard):
        # Only what would be a finding needs an excuse.
        if guest.moving:
            yield Skip(check, host, guest, f"it changed while it was captured ({guest.moving})")
            return
        try:
            legal = check.trapped(guest)
        except Unheard as reason:
            yield Skip(check, host, guest, str(reason))
            return
        if legal:
            yield Skip(check, host, guest, legal, legal=True, differs=bool(problems))
            return
    for problem in problems:
        apart = _seconds_apart(problem.evidence)
        if apart > APART and check.scope == "guest":
            hours = f"{apart / 3600:.1f} hours"
            why = f"what differs was asked {hours} apart: it may have changed in between"
            yield Skip(check, host, guest, why, differs=True)
            continue
        yield Finding(check, problem.severity, host, guest, problem.evidence)
    if unheard:
        # Of a server that nova has on no host, no host has anything to tell.
        yield Skip(check, host, guest, unheard, legal=guest is not None and guest.is_nowhere)


def _seconds_apart(evidence: tuple[Evidence, ...]) -> float:
    asked = [where.answer.at for piece in evidence for where in piece.where]
    return (max(asked) - min(asked)).total_seconds() if asked else 0.0
