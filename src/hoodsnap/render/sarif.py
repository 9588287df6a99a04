"""Findings as SARIF 2.1.0, for code scanning services and viewers.

A check is a rule, a finding is a result. A result's artifact is the bundle, and its logical
location the host and the server. The limits are those that GitHub publishes for uploads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from hoodsnap import __version__
from hoodsnap.check import Check
from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import instructions, warnings
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.baseline import fingerprint
from hoodsnap.findings.finding import Finding
from hoodsnap.printable import clean, cut
from hoodsnap.render import catalog

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

MOST_RESULTS, MOST_RELATED, LONGEST = 25_000, 20, 4000
"""Results in a run; places of evidence of one result; characters of one text."""

LEVEL = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
KIND = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "recommendation"}
"""GitHub's severity of a rule that is not about security."""

BUNDLE = "bundle.json"
"""Name of the artifact if the bundle came from standard input."""


def render(
    report: Report,
    guests: Iterable[Guest],
    checks: Sequence[Check],
    names: Sequence[str] = (),
    silent: Sequence[str] = (),
) -> str:
    """Return the log. `names`: file names of the bundles; `silent`: layers that did not answer."""
    found = report.about(tuple(guests))
    number = {check.name: index for index, check in enumerate(checks)}
    artifact = _relative(names[0]) if names else BUNDLE
    results = [
        _result(finding, number[finding.check.name], artifact) for finding in found[:MOST_RESULTS]
    ]
    bundle = report.cloud.bundle
    run = {
        "tool": {
            "driver": {
                "name": "hoodsnap",
                "semanticVersion": __version__,
                "rules": [_rule(check) for check in checks],
            }
        },
        "invocations": [
            {
                "executionSuccessful": True,
                "startTimeUtc": f"{bundle.started:%Y-%m-%dT%H:%M:%S}Z",
                "endTimeUtc": f"{bundle.ended:%Y-%m-%dT%H:%M:%S}Z",
                "toolExecutionNotifications": list(_notifications(len(found), silent)),
            }
        ],
        "artifacts": [{"location": {"uri": _relative(name)}} for name in names or (BUNDLE,)],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=1, default=str) + "\n"


def _notifications(count: int, silent: Sequence[str]) -> Iterator[Mapping[str, object]]:
    for layer in silent:
        yield {"level": "warning", "message": {"text": f"Not collected: {clean(layer)}."}}
    if count > MOST_RESULTS:
        text = f"{count - MOST_RESULTS} results were left out; the worst come first."
        yield {"level": "warning", "message": {"text": text}}


@cache
def _rule(check: Check) -> Mapping[str, object]:
    page = catalog.markdown(check)
    return {
        "id": check.name,
        "name": "".join(word.title() for word in check.name.split("-")),
        "shortDescription": {"text": check.message},
        "fullDescription": {"text": cut(check.sections["why"], LONGEST)},
        "help": {"text": "\n".join(catalog.page(check)), "markdown": page},
        "defaultConfiguration": {"level": LEVEL[check.severity]},
        "properties": {
            "tags": [*dict.fromkeys((check.topic, *catalog.compared(check)))][:20],
            "problem.severity": KIND[check.severity],
        },
    }


def _result(finding: Finding, rule: int, artifact: str) -> Mapping[str, object]:
    places = [(evidence, where) for evidence in finding.evidence for where in evidence.where][
        :MOST_RELATED
    ]
    related = [
        {
            "id": index,
            "message": {"text": _text(f"{evidence}; {where.answer.query} ({where.place})")},
            "logicalLocations": [{"fullyQualifiedName": _text(_place(evidence))}],
        }
        for index, (evidence, where) in enumerate(places)
    ]
    physical = {"artifactLocation": {"uri": artifact, "index": 0}, "region": {"startLine": 1}}
    found: dict[str, object] = {
        "ruleId": finding.check.name,
        "ruleIndex": rule,
        "level": LEVEL[finding.severity],
        "message": {"text": _text(f"{finding.title}."), "markdown": _markdown(finding)},
        "locations": [
            {
                "physicalLocation": physical,
                "logicalLocations": [
                    {"name": _text(name), "fullyQualifiedName": _text(full), "kind": kind}
                    for name, full, kind in _subject(finding)
                ],
            }
        ],
        "relatedLocations": related,
        "partialFingerprints": {"evidence/v1": f"{_about(finding)}:{fingerprint(finding)}"},
    }
    explained = sorted({one.check.name for one in finding.everything()} - {finding.check.name})
    if explained:
        found["properties"] = {"explains": explained}
    return found


def _subject(finding: Finding) -> Iterator[tuple[str, str, str]]:
    """Yield name, full name and kind of the servers of a finding, or of its host, or the cloud."""
    host = finding.host or "cloud"
    if not finding.guests:
        yield host, host, "module"
    for guest in finding.guests[:MOST_RELATED]:
        yield guest.title, f"{host}/{guest.uuid}", "resource"


def _about(finding: Finding) -> str:
    guest = finding.guest.uuid if finding.guest is not None else ""
    return _text(f"{finding.host or ''}/{guest}")


def _place(evidence: Evidence) -> str:
    return f"{evidence.layer}/{evidence.noun}"


def _markdown(finding: Finding) -> str:
    """Return the message with evidence and commands; a stranger's text stands only in code."""
    lines = [_code(f"{finding.title}."), ""]
    lines += [f"- {_code(str(evidence))}" for evidence in finding.evidence]
    for instruction in instructions(finding):
        lines += ["", instruction.prose]
        lines += ["", *(f"    {_text(one.text)}" for one in instruction.commands)]
    lines += [text for warning in warnings(finding) for text in ("", f"**Not yet.** {warning}")]
    return cut("\n".join(lines), LONGEST)


def _code(text: str) -> str:
    inside = _text(text).replace("`", "'")
    return f"`{inside}`"


def _text(text: str) -> str:
    return cut(clean(text), LONGEST)


def _relative(name: str) -> str:
    """Return a file name as a relative URI: a service looks for it below the checkout's top."""
    from urllib.parse import quote

    return quote(clean(name).lstrip("/"), safe="/") or BUNDLE
