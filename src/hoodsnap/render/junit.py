"""Findings as JUnit XML: a test suite for each host, and a test case for each guest.

A guest with findings failed; one of which a layer was not collected is skipped, never passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import instructions
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding
from hoodsnap.phrase import several
from hoodsnap.printable import clean, cut

if TYPE_CHECKING:
    from junitparser import TestCase

LONGEST = 20_000
"""Characters of one text: the servers that read JUnit XML hold it whole in memory."""

CLOUD = "cloud"
"""Name of the suite for what is on no collected host."""


def render(report: Report, guests: Iterable[Guest], least: Severity | None) -> str:
    """Return the document. Findings below `least` (all, if it is None) don't fail a test case."""
    from junitparser import JUnitXml, TestSuite

    shown = tuple(guests)
    by_guest: dict[str, list[Finding]] = {}
    general: dict[str, list[Finding]] = {}
    for finding in report.about(shown):
        for guest in finding.guests:
            by_guest.setdefault(guest.uuid, []).append(finding)
        if finding.guest is None and finding.shared is None:
            general.setdefault(finding.host or CLOUD, []).append(finding)
    document = JUnitXml("hoodsnap")
    for name in (*(host.name for host in report.cloud.hosts), CLOUD):
        silent = [one.title for one in report.uncollected if one.host in (None, name)]
        suite = TestSuite(_legal(name))
        suite.timestamp = f"{report.cloud.bundle.started:%Y-%m-%dT%H:%M:%S}"
        itself = "the cloud itself" if name == CLOUD else "the host itself"
        suite.add_testcase(_case(name, itself, general.get(name, ()), least, silent))
        for guest in shown:
            if (guest.host.name if guest.host else CLOUD) == name:
                found = by_guest.get(guest.uuid, ())
                suite.add_testcase(_case(name, guest.title, found, least, silent))
        document.add_testsuite(suite)
    text: str = document.tostring().decode()  # type: ignore[no-untyped-call]
    return f"{text}\n"


def _case(
    host: str,
    name: str,
    found: Sequence[Finding],
    least: Severity | None,
    silent: Sequence[str],
) -> TestCase:
    from junitparser import Failure, Skipped, TestCase

    case = TestCase(_legal(name), classname=_legal(host))
    failed = [one for one in found if least is not None and one.worst >= least]
    for finding in failed:
        failure = Failure(_legal(finding.title), finding.check.name)
        failure.text = _legal("\n".join(_details(finding)))
        case.result += [failure]
    if not failed and silent:
        case.result = [Skipped(_legal(f"not collected: {several(silent, len(silent))}"))]
    others = [one for one in found if one not in failed]
    if others:
        lines = (f"{one.severity.word} {one.check.name}: {one.title}" for one in others)
        case.system_out = _legal("\n".join(lines))
    return case


def _details(finding: Finding) -> Iterator[str]:
    yield from map(str, finding.evidence)
    for instruction in instructions(finding):
        yield instruction.prose
        yield from (f"    {command.text}" for command in instruction.commands)


def _legal(text: str) -> str:
    """Return the text without characters that XML 1.0 can't represent or that reverse a line."""
    text = cut(text, LONGEST)
    return "".join(char if char in "\n\t" else clean(char) for char in text)
