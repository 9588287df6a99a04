"""Groups: many findings of one check are one thing to read, with a count and a few names.

Grouping is for people. Baselines and formats for machines keep every finding apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from hoodsnap.check import Check
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.finding import Finding

MOST_ALONE = 3
"""Findings of one check up to which each one is reported alone."""


@dataclass(frozen=True, eq=False)
class Group:
    """The findings of one check that are reported together: one, or more than `MOST_ALONE`."""

    findings: tuple[Finding, ...]
    """Worst first, otherwise in the given order."""

    @property
    def first(self) -> Finding:
        """The finding whose evidence and advice stand for all."""
        return self.findings[0]

    @property
    def check(self) -> Check:
        """The check that found them."""
        return self.first.check

    @property
    def severity(self) -> Severity:
        """The highest severity among them, without what is folded under them."""
        return self.first.severity

    @property
    def is_many(self) -> bool:
        """True if it holds several findings."""
        return len(self.findings) > 1

    @cached_property
    def guests(self) -> tuple[Guest, ...]:
        """The guests they concern, each once; empty if they concern hosts or the cloud."""
        found = {id(guest): guest for one in self.findings for guest in one.guests}
        return tuple(found.values())

    @cached_property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts they concern, each once."""
        return tuple(dict.fromkeys(one.host for one in self.findings if one.host is not None))


def grouped(findings: Iterable[Finding]) -> tuple[Group, ...]:
    """Return the findings in groups, each at the position of its first finding."""
    listed = tuple(findings)
    counts = Counter(finding.check.name for finding in listed)
    together: dict[object, list[Finding]] = {}
    for finding in listed:
        name = finding.check.name
        together.setdefault(name if counts[name] > MOST_ALONE else finding, []).append(finding)
    return tuple(
        Group(tuple(sorted(same, key=lambda finding: -finding.severity)))
        for same in together.values()
    )


def alone(findings: Iterable[Finding]) -> tuple[Group, ...]:
    """Return a group for each finding."""
    return tuple(Group((finding,)) for finding in findings)
