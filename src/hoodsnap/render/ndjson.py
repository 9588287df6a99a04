"""Findings as JSON lines, for log shippers: an object for each finding, and one at the end.

The objects are those of the JSON report (render/json.py) with a `kind`, and the bundle's times.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.analysis import Report
from hoodsnap.render.json import FORMAT, finding_object


def render(report: Report, guests: Iterable[Guest]) -> Iterator[str]:
    """Yield the lines: `finding` objects, `not_collected` for each layer that was asked and did not
    answer, and a `summary`."""
    shown = tuple(guests)
    bundle = report.cloud.bundle
    common = {"format": FORMAT, "collected": bundle.ended.isoformat().replace("+00:00", "Z")}
    found = report.about(shown)
    for finding in found:
        yield _line({"kind": "finding", **common, **finding_object(finding)})
    for one in report.uncollected:
        silence = {"host": one.host, "layer": one.layer.id, "reason": one.reason}
        yield _line({"kind": "not_collected", **common, **silence})
    counts = Counter(finding.severity for finding in found)
    totals = {f"{severity.word}s": counts[severity] for severity in reversed(Severity)}
    yield _line({"kind": "summary", **common, "guests": len(shown), **totals})


def _line(document: object) -> str:
    # ASCII only, so that nothing in a stranger's bundle can control a terminal or break a line.
    return json.dumps(document, default=str) + "\n"
