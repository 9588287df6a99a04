"""Runs every check on everything that was captured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hoodsnap.bundle import Bundle
from hoodsnap.check import Check, Problem
from hoodsnap.checks import CATALOGUE
from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.cloud import Cloud, read
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.findings.finding import Finding, Skip
from hoodsnap.findings.folding import folded
from hoodsnap.findings.gating import Gates

APART = 600.0
"""Seconds. One visit is shorter; bundles of one moment were not taken further apart."""

HANDFUL = 5
"""So many guests may well have the same trouble at once, each for itself."""


@dataclass(frozen=True, eq=False)
class Report:
    """All that can be said about what was captured."""

    cloud: Cloud
    findings: tuple[Finding, ...]
    """Worst first, then by guest; what a finding explains is folded under it."""
    skips: tuple[Skip, ...]

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding, folded ones too."""
        return max((finding.worst for finding in self.findings), default=None)

    def everything(self) -> Iterator[Finding]:
        """Every finding, each followed by those that are folded under it."""
        for finding in self.findings:
            yield from finding.everything()

    def about(self, guests: Iterable[Guest]) -> tuple[Finding, ...]:
        """The findings of these guests, and those of hosts and the cloud, which concern all."""
        chosen = {id(guest) for guest in guests}
        return tuple(
            finding
            for finding in self.findings
            if not finding.guests or any(id(guest) in chosen for guest in finding.guests)
        )

    @cached_property
    def crowds(self) -> Mapping[str, int]:
        """The checks that fire for more than a handful at once, each with how often: before so many
        are believed, the tool and the capture are to be doubted."""
        counts = Counter(
            finding.check.name
            for finding in self.findings
            if finding.shared is None and finding.severity > Severity.NOTE
        )
        return {name: count for name, count in counts.items() if count > HANDFUL}

    @cached_property
    def gates(self) -> Gates:
        """Which dangerous commands must not be typed yet."""
        return Gates(self.findings, self.skips)


def analyze(bundle: Bundle, catalogue: tuple[Check, ...] = CATALOGUE) -> Report:
    """Read a bundle (several: merge them first) and check all of it."""
    cloud = read(bundle)
    found = [*_judged(cloud, catalogue)]
    findings = _folded([item for item in found if isinstance(item, Finding)], cloud)
    # A stable sort: within a severity the order of the guests, and of the catalogue, stays.
    findings.sort(key=lambda finding: -finding.worst)
    return Report(cloud, tuple(findings), tuple(item for item in found if isinstance(item, Skip)))


def _judged(cloud: Cloud, catalogue: tuple[Check, ...]) -> Iterator[Finding | Skip]:
    scopes = {
        scope: [c for c in catalogue if c.scope == scope] for scope in ("cloud", "host", "guest")
    }
    for check in scopes["cloud"]:
        yield from _netted(check, None, None, *check.run(cloud))
    for host in cloud.hosts:
        for check in scopes["host"]:
            yield from _netted(check, host.name, None, *check.run(host))
    for guest in cloud.guests:
        name = guest.host.name if guest.host else None
        for check in scopes["guest"]:
            problems, unheard = check.run(guest)
            if problems or unheard:  # once in a million times for ten thousand guests
                yield from _netted(check, name, guest, problems, unheard)


def _folded(findings: list[Finding], cloud: Cloud) -> list[Finding]:
    try:
        return folded(findings, cloud)
    except Exception as error:  # a net: then each finding stands for itself
        caught(error)
        return findings


def _netted(
    check: Check,
    host: str | None,
    guest: Guest | None,
    problems: Sequence[Problem],
    unheard: str | None,
) -> Iterator[Finding | Skip]:
    try:
        yield from _weighed(check, host, guest, problems, unheard)
    except Exception as error:  # a net: traps and evidence read facts too
        yield Skip(check, host, guest, str(caught(error)))


def _weighed(
    check: Check,
    host: str | None,
    guest: Guest | None,
    problems: Sequence[Problem],
    unheard: str | None,
) -> Iterator[Finding | Skip]:
    if guest is not None:
        # Only what would be a finding needs an excuse.
        if guest.moving:
            yield Skip(check, host, guest, f"it changed while it was captured ({guest.moving})")
            return
        try:
            legal = check.trapped(guest)
        except UnheardError as reason:
            yield Skip(check, host, guest, str(reason))
            return
        if legal:
            yield Skip(check, host, guest, legal, legal=True, differs=bool(problems))
            return
    for problem in problems:
        apart = _seconds_apart(problem.evidence)
        if apart > APART and check.topic != "capture":
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
