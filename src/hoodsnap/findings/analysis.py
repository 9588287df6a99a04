"""Run every check on a bundle, and report what was found and what was skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from hoodsnap.bundle import Bundle
from hoodsnap.check import Check, Problem, Subject
from hoodsnap.checks import CATALOG
from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.cloud import Cloud, read
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.findings.finding import Finding, Skip
from hoodsnap.findings.folding import folded
from hoodsnap.findings.gating import Gates
from hoodsnap.findings.silence import UncollectedLayer, uncollected

APART = 600.0
"""Seconds between two answers beyond which a difference proves nothing. One visit is shorter, and
bundles that belong together are collected within this time."""

TOGETHER = 32
"""Number of guests that a check runs for before the next check does. So the code of a check and the
facts of these guests stay in the processor's caches, which saves a third of the time."""

HANDFUL = 5
"""Number of guests that may well have the same problem independently."""


@dataclass(frozen=True, eq=False)
class Report:
    """The findings and skips of everything that was captured."""

    cloud: Cloud
    findings: tuple[Finding, ...]
    """Worst first, then by guest; findings that another one explains are folded under it."""
    skips: tuple[Skip, ...]

    @property
    def worst(self) -> Severity | None:
        """Severity of the worst finding, including folded ones; None if there are no findings."""
        return max((finding.worst for finding in self.findings), default=None)

    def everything(self) -> Iterator[Finding]:
        """Yield every finding, each followed by the findings folded under it."""
        for finding in self.findings:
            yield from finding.everything()

    def about(self, guests: Iterable[Guest]) -> tuple[Finding, ...]:
        """Return the findings of these guests, and those of hosts and the cloud."""
        chosen = {id(guest) for guest in guests}
        return tuple(
            finding
            for finding in self.findings
            if not finding.guests or any(id(guest) in chosen for guest in finding.guests)
        )

    @cached_property
    def crowds(self) -> Mapping[str, int]:
        """Number of findings by check, for checks that found more than `HANDFUL`: so many at once
        more likely mean a bad capture or a bug than real faults."""
        counts = Counter(
            finding.check.name
            for finding in self.findings
            if finding.shared is None and finding.severity > Severity.NOTE
        )
        return {name: count for name, count in counts.items() if count > HANDFUL}

    @cached_property
    def uncollected(self) -> tuple[UncollectedLayer, ...]:
        """The layers that were asked and did not answer."""
        return uncollected(self.cloud)

    @cached_property
    def gates(self) -> Gates:
        """The dangerous commands that must not be typed yet."""
        return Gates(self.findings, self.skips)


def analyze(bundle: Bundle, catalog: tuple[Check, ...] = CATALOG) -> Report:
    """Read a bundle and run all checks on it. Merge several bundles first."""
    cloud = read(bundle)
    found = [*_judged(cloud, catalog)]
    findings = _folded([item for item in found if isinstance(item, Finding)], cloud)
    # The sort is stable: within a severity, the order of guests and of the catalog stays.
    findings.sort(key=lambda finding: -finding.worst)
    return Report(cloud, tuple(findings), tuple(item for item in found if isinstance(item, Skip)))


def _judged(cloud: Cloud, catalog: tuple[Check, ...]) -> Iterator[Finding | Skip]:
    scopes = {
        scope: [c for c in catalog if c.scope == scope] for scope in ("cloud", "host", "guest")
    }
    for check in scopes["cloud"]:
        yield from _netted(check, None, None, *check.run(Subject(cloud)))
    for host in cloud.hosts:
        for check in scopes["host"]:
            yield from _netted(check, host.name, None, *check.run(Subject(cloud, host)))
    for first in range(0, len(cloud.guests), TOGETHER):
        yield from _judged_together(cloud, cloud.guests[first : first + TOGETHER], scopes["guest"])


def _judged_together(
    cloud: Cloud, guests: Sequence[Guest], checks: Iterable[Check]
) -> Iterator[Finding | Skip]:
    """Run each check for all of these guests; yield what it found by guest, then by check."""
    subjects = [Subject(cloud, guest.host, guest) for guest in guests]
    found: list[list[Finding | Skip]] = [[] for _ in guests]
    for check in checks:
        for number, subject in enumerate(subjects):
            problems, unheard = check.run(subject)
            if problems or unheard:  # spares a million empty calls for ten thousand guests
                name = subject.host.name if subject.host else None
                found[number] += _netted(check, name, subject.guest, problems, unheard)
    return chain.from_iterable(found)


def _folded(findings: list[Finding], cloud: Cloud) -> list[Finding]:
    try:
        return folded(findings, cloud)
    except Exception as error:  # a net: leave the findings unfolded
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
        # Look for an excuse only where there is something to excuse.
        if guest.moving:
            reason = f"the guest changed during the capture ({guest.moving})"
            yield Skip(check, host, guest, reason)
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
            why = f"the differing values were collected {hours} apart and may have changed since"
            yield Skip(check, host, guest, why, differs=True)
            continue
        severity = check.severity if problem.severity is None else problem.severity
        yield Finding(
            check,
            severity,
            host,
            guest,
            problem.evidence,
            headline=problem.headline,
            names=problem.names,
        )
    if unheard:
        # Layers of a host have nothing to report about a server that nova has not put on a host.
        yield Skip(check, host, guest, unheard, legal=guest is not None and guest.is_nowhere)


def _seconds_apart(evidence: tuple[Evidence, ...]) -> float:
    asked = [where.answer.at for piece in evidence for where in piece.where]
    return (max(asked) - min(asked)).total_seconds() if asked else 0.0
