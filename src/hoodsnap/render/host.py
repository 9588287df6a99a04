"""The daemons of a host: those that run, and those that do not work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import caught
from hoodsnap.facts.host.daemon import Condition
from hoodsnap.facts.layer import DAEMONS
from hoodsnap.findings.analysis import Report
from hoodsnap.printable import clean


def daemons_line(host: Host) -> str | None:
    """Return the daemons that run on a host; None if they were not collected.

    `cinder-volume (2), libvirtd, nova-compute run`
    """
    try:
        conditions = host.daemons.conditions
        counts = {name: len(same) for name, same in host.daemons.by_name.items()}
    except Exception as error:  # a net: the line is left out
        caught(error)
        return None
    running = [name for name, condition in conditions.items() if condition is Condition.RUNNING]
    if not running:
        return "no known daemon runs"
    return f"{', '.join(_counted(running, counts))} run{'s' if len(running) == 1 else ''}"


def troubled_daemons(report: Report, host: Host) -> str | None:
    """Return the daemons of a host that are stopped, paused or stuck, and those that a finding
    reports as missing; None if there are none.

    `nova-compute is not running; libvirtd is stopped by a signal (state T)`
    """
    found = dict(_missing(report, host))
    try:
        found |= {
            name: str(condition)
            for name, condition in host.daemons.conditions.items()
            if condition is not Condition.RUNNING
        }
    except Exception as error:  # a net: only the findings are left
        caught(error)
    return "; ".join(f"{clean(name)} is {state}" for name, state in found.items()) or None


def _missing(report: Report, host: Host) -> Iterator[tuple[str, str]]:
    """Yield the daemons that are missing: only checks know which daemons a host needs."""
    for finding in report.everything():
        if finding.host != host.name:
            continue
        for piece in finding.evidence:
            said = dict(piece.said)
            if piece.layer == DAEMONS.id and said.get("state") == Condition.MISSING.value:
                yield str(said.get("daemon")), Condition.MISSING.value


def _counted(names: list[str], counts: Mapping[str, int]) -> Iterator[str]:
    for name in names:
        yield clean(name) + (f" ({counts[name]})" if counts.get(name, 1) > 1 else "")
