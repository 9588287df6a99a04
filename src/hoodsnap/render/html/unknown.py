"""Reasons why the bundle leaves things open: each once, with the number of servers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.uuids import UUID
from hoodsnap.findings.analysis import Report
from hoodsnap.printable import clean, cut

MOST = 30
"""Reasons to show."""


def unknown(report: Report, guests: Sequence[Guest]) -> list[Mapping[str, object]]:
    """Return the reasons why checks were not decided. Reasons that differ only in numbers, UUIDs
    and paths are one."""
    chosen = {id(guest) for guest in guests}
    kinds: dict[str, tuple[str, set[int], set[str]]] = {}
    for skip in report.skips:
        if skip.legal or (skip.guest is not None and id(skip.guest) not in chosen):
            continue
        kind = re.sub(rf"{UUID.pattern}|/\S+|\d+", "…", skip.reason)
        _, servers, checks = kinds.setdefault(kind, (skip.reason, set(), set()))
        checks.add(skip.check.name)
        if skip.guest is not None:
            servers.add(id(skip.guest))
    return [
        {
            "reason": cut(clean(reason), 300),
            "servers": len(servers),
            "checks": sorted(checks),
        }
        for reason, servers, checks in list(kinds.values())[:MOST]
    ]
