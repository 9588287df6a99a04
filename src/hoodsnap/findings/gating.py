"""Dangerous commands that must not be typed yet, because a check that gates them did not pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hoodsnap.checks.dangers import DANGERS, Danger
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.finding import Finding, Skip

OF_NOVA = "openstack server "
"""The beginning of the commands that nova carries out, for a server that it has."""

_Subject = tuple[str, str]
"""Subject of a finding or skip: `("guest", uuid)`, `("host", name)` or `("cloud", "")`."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """A command whose gates did not all pass."""

    danger: Danger
    forbidden_by: tuple[str, ...]
    """Names of the gating checks that found something."""
    undecided: tuple[str, ...]
    """Names of the gating checks that could not be decided."""


class Gates:
    """The state of every gate, for each guest."""

    def __init__(self, findings: Iterable[Finding], skips: Iterable[Skip]) -> None:
        self._found: dict[_Subject, set[str]] = {}
        self._undecided: dict[_Subject, set[str]] = {}
        for root in findings:
            for finding in root.everything():
                # A shared finding counts for each of its guests, through the folded findings.
                if _counts(finding) and finding.shared is None:
                    subject = _subject(finding)
                    self._found.setdefault(subject, set()).add(finding.check.name)
        gates = {gate for danger in DANGERS for gate in danger.gates}
        for skip in skips:
            if skip.check.name in gates:
                subject = _subject(skip)
                self._undecided.setdefault(subject, set()).add(skip.check.name)

    def of(self, guest: Guest) -> tuple[NotYet, ...]:
        """Return the commands that must not be typed for a guest: a gating check found something
        about the guest, its host or the cloud, or could not be decided."""
        found, undecided = (self._of(guest, states) for states in (self._found, self._undecided))
        return tuple(
            item
            for item in _closed(found, undecided)
            if guest.is_novas or not item.danger.command.startswith(OF_NOVA)
        )

    def _of(self, guest: Guest, states: Mapping[_Subject, set[str]]) -> set[str]:
        # A command names a UUID and runs on the host where nova has the server, so a finding about
        # the same server on another host forbids it too.
        host = [("host", guest.host.name)] if guest.host else []
        subjects: list[_Subject] = [("guest", guest.uuid), *host, ("cloud", "")]
        return {name for subject in subjects for name in states.get(subject, ())}


def _subject(item: Finding | Skip) -> _Subject:
    if item.guest is not None:
        return "guest", item.guest.uuid
    return ("host", item.host) if item.host is not None else ("cloud", "")


def closed_by(findings: Iterable[Finding]) -> tuple[NotYet, ...]:
    """Return the commands that must not be typed because of these findings alone.

    nova's commands are left out for a guest that nova does not have.
    """
    counted = [finding for finding in findings if _counts(finding)]
    found = {finding.check.name for finding in counted}
    novas = {one.check.name for one in counted if one.guest is None or one.guest.is_novas}
    return tuple(
        item
        for item in _closed(found, ())
        if not item.danger.command.startswith(OF_NOVA) or novas.intersection(item.forbidden_by)
    )


def _counts(finding: Finding) -> bool:
    """True unless the finding is a note: with a note, nothing is wrong."""
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
