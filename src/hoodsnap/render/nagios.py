"""Findings as the output of a monitoring plugin: one line, performance data, and a status.

The status is that of the Monitoring Plugins guidelines: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. It
is not the exit status of the other formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum

from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding
from hoodsnap.phrase import several
from hoodsnap.printable import clean, cut


class NagiosStatus(IntEnum):
    """Status of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


LONGEST = 4000
"""Characters of the whole output: NRPE cuts a plugin's output after 4,096 bytes."""

LONGEST_NAME = 80
"""Characters of a name in the first line, so that counts and performance data are not cut off."""


def render(
    report: Report, guests: Iterable[Guest], least: Severity | None, silent: Sequence[str] = ()
) -> tuple[str, NagiosStatus]:
    """Return the output and the status.

    `least`: findings below it, or all findings if it is None, don't change the status. `silent`:
    layers that did not answer; without a finding they make the status UNKNOWN.
    """
    shown = tuple(guests)
    found = report.about(shown)
    status = _status(found, least, silent)
    counts = Counter(finding.severity for finding in found)
    words = [
        f"{counts[severity]} {severity.word}{'' if counts[severity] == 1 else 's'}"
        for severity in reversed(Severity)
        if counts[severity]
    ]
    said = ", ".join(words) or f"{len(shown)} servers: the collected layers agree"
    if found:
        said += f": {several(map(_brief, found), 5)}"
    if silent:
        said += f"; not collected: {several([cut(one, LONGEST_NAME) for one in silent], 5)}"
    data = " ".join(f"{severity.word}s={counts[severity]}" for severity in reversed(Severity))
    data += f" unheard={len(silent)} guests={len(shown)}"
    details = "".join(
        f"{_plain(finding.severity.word)}: {_plain(finding.title)} ({finding.check.name})\n"
        for finding in found
    )
    head = f"HOODSNAP {status.name} - {_plain(said)} | {data}\n"
    return head + _whole_lines(details, LONGEST - len(head.encode())), status


def _status(
    found: Sequence[Finding], least: Severity | None, silent: Sequence[str]
) -> NagiosStatus:
    worst = max((finding.worst for finding in found), default=Severity.NOTE)
    if least is not None and found and worst >= least:
        if worst is Severity.ERROR:
            return NagiosStatus.CRITICAL
        return NagiosStatus.WARNING
    return NagiosStatus.UNKNOWN if silent else NagiosStatus.OK


def _brief(finding: Finding) -> str:
    about = finding.guest.title if finding.guest is not None else finding.host
    return f"{cut(about, LONGEST_NAME)} {finding.check.name}" if about else finding.check.name


def _plain(text: str) -> str:
    """Return the text in one line, without the character that begins performance data."""
    return clean(text).replace("|", "¦")


def _whole_lines(text: str, most: int) -> str:
    """Return as many whole lines as fit into a number of bytes."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= most:
        return text
    kept = encoded[: max(most, 0)].rpartition(b"\n")
    return (kept[0] + kept[1]).decode(errors="replace")
