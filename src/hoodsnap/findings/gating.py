"""Which dangerous commands must not be typed yet: those of which a gate is not green."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hoodsnap.checks.dangers import DANGERS, Danger
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.finding import Finding, Skip


@dataclass(frozen=True, slots=True)
class NotYet:
    """A command that has a gate which is not green."""

    danger: Danger
    forbidden_by: tuple[str, ...]
    """The gates whose checks found something."""
    undecided: tuple[str, ...]
    """The gates whose checks could not be decided."""


class Gates:
    """The state of every gate, for each guest."""

    def __init__(self, findings: Iterable[Finding], skips: Iterable[Skip]) -> None:
        self._found: dict[object, set[str]] = {}
        self._undecided: dict[object, set[str]] = {}
        for root in findings:
            for finding in root.everything():
                # What guests share is said of each of them.
                if _counts(finding) and finding.shared is None:
                    subject = finding.guest or finding.host
                    self._found.setdefault(subject, set()).add(finding.check.name)
        gates = {gate for danger in DANGERS for gate in danger.gates}
        for skip in skips:
            if skip.check.name in gates:
                subject = skip.guest or skip.host
                self._undecided.setdefault(subject, set()).add(skip.check.name)

    def of(self, guest: Guest) -> tuple[NotYet, ...]:
        """Everything that must not be typed for a guest: because of what was found of it, its host
        or the cloud, or because nobody knows."""
        return _closed(*(self._of(guest, states) for states in (self._found, self._undecided)))

    def _of(self, guest: Guest, states: Mapping[object, set[str]]) -> set[str]:
        host = guest.host.name if guest.host else None
        # A command names a UUID, and is carried out where nova has it: what another host has of the
        # same server forbids it too.
        subjects = {guest, *guest.twins, host, None}
        return {name for subject in subjects for name in states.get(subject, ())}


def closed_by(findings: Iterable[Finding]) -> tuple[NotYet, ...]:
    """What must not be typed because of just these findings."""
    return _closed({finding.check.name for finding in findings if _counts(finding)}, ())


def _counts(finding: Finding) -> bool:
    """A note says that nothing is wrong."""
    return finding.severity > Severity.NOTE


def _closed(found: Collection[str], undecided: Collection[str]) -> tuple[NotYet, ...]:
    closed = (
        NotYet(
            danger,
            tuple(gate for gate in danger.gates if gate in found),
            tuple(gate for gate in danger.gates if gate in undecided and gate not in found),
        )
        for danger in DANGERS
    )
    return tuple(item for item in closed if item.forbidden_by or item.undecided)
