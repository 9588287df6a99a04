"""Findings that are new in the second bundle, and those that are gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding

Key = tuple[str, str, str]
"""Check, kind of subject (`server`, `host`, `cloud`), and its UUID or name."""


class FindingChange(NamedTuple):
    """A finding that only one of the two bundles has."""

    check: str
    severity: str
    title: str
    """The defect in one sentence, with names and values."""
    server: str | None
    host: str | None
    is_new: bool
    undecided: str | None
    """Reason why the check was not decided in the other bundle; None if it was decided: only then
    the finding is really new, or gone."""


class FindingsDifference(NamedTuple):
    """The findings of two bundles, compared."""

    changes: tuple[FindingChange, ...]
    same: int
    """Number of findings that both bundles have."""


def compare(before: Report, after: Report) -> FindingsDifference:
    """Return the findings that only one report has, by check and subject."""
    old, new = dict(_keyed(before)), dict(_keyed(after))
    found = [
        *_only(new, old, before, is_new=True),
        *_only(old, new, after, is_new=False),
    ]
    return FindingsDifference(tuple(found), len(old.keys() & new.keys()))


def _keyed(report: Report) -> Iterator[tuple[Key, Finding]]:
    for finding in report.everything():
        name = finding.check.name
        for guest in finding.guests:
            yield (name, "server", guest.uuid), finding
        if not finding.guests:
            kind = "host" if finding.host else "cloud"
            yield (name, kind, finding.host or ""), finding


def _only(
    these: Mapping[Key, Finding], those: Mapping[Key, Finding], other: Report, *, is_new: bool
) -> Iterator[FindingChange]:
    undecided = {
        (skip.check.name, skip.guest.uuid if skip.guest else skip.host or ""): skip.reason
        for skip in other.skips
        if not skip.legal
    }
    hosts = {host.name for host in other.cloud.hosts}
    for key, finding in these.items():
        if key in those:
            continue
        name, kind, subject = key
        why = undecided.get((name, subject))
        if why is None and kind == "host" and subject not in hosts:
            why = f"{subject} was not collected"
        yield FindingChange(
            name,
            finding.severity.word,
            finding.title,
            subject if kind == "server" else None,
            finding.host,
            is_new,
            why,
        )
