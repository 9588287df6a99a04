"""The report as JSON: a published contract, written out field by field.

The format has its own number, which changes when a field is removed or changes its meaning. New
fields don't change the number. docs/reference/report.md describes the format, and
report.schema.json beside this file is its JSON Schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from hoodsnap.evidence import Evidence, Where
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import (
    PLACEHOLDERS,
    Instruction,
    forbidden,
    instructions,
    warnings,
)
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.baseline import fingerprint
from hoodsnap.findings.finding import Finding, Shared, Skip
from hoodsnap.findings.gating import NotYet, closed_by
from hoodsnap.findings.silence import UncollectedLayer
from hoodsnap.render.walk import steps

FORMAT = 3


def render(report: Report, guests: Iterable[Guest]) -> str:
    """Return the report on these guests, their hosts and the cloud as one JSON document."""
    shown = tuple(guests)
    wanted = {id(guest) for guest in shown}
    found = {id(finding.guest) for finding in report.everything()}
    document = {
        "format": FORMAT,
        "findings": [finding_object(finding) for finding in report.about(shown)],
        "doubts": [{"check": name, "count": count} for name, count in report.crowds.items()],
        "skips": [
            _skip(skip) for skip in report.skips if skip.guest is None or id(skip.guest) in wanted
        ],
        "not_collected": [_uncollected(layer) for layer in report.uncollected],
        "guests": [_guest(report, guest, id(guest) in found) for guest in shown],
        "hosts": [
            {"name": host.name, "nova_name": host.nova_name, "unheard": dict(host.unheard)}
            for host in report.cloud.hosts
        ],
    }
    # ASCII only, so that nothing in a stranger's bundle can control a terminal.
    return json.dumps(document, indent=1, default=str) + "\n"


def finding_object(finding: Finding) -> dict[str, object]:
    """Return one finding as an object of the report, with the findings that it explains."""
    return {
        "check": finding.check.name,
        "severity": finding.severity.word,
        "host": finding.host,
        "guest": finding.guest.uuid if finding.guest else None,
        "server": finding.guest.name or None if finding.guest else None,
        "message": finding.check.message,
        "headline": finding.title,
        "evidence": [_evidence(evidence) for evidence in finding.evidence],
        "location": _location(finding),
        "fingerprint": fingerprint(finding),
        "why": finding.check.sections["why"],
        "next": [_instruction(instruction) for instruction in instructions(finding)],
        "not_yet": list(warnings(finding)),
        "forbids": [forbidden(item, finding.guest) for item in closed_by([finding])],
        "worst": finding.worst.word,
        "shared": _shared(finding.shared),
        "folded": [finding_object(explained) for explained in finding.folded],
    }


def _instruction(instruction: Instruction) -> Mapping[str, object]:
    commands = [
        {
            "command": command.text,
            "changes": command.changes,
            "placeholders": {name: PLACEHOLDERS[name] for name in command.left},
        }
        for command in instruction.commands
    ]
    return {"text": instruction.prose, "commands": commands}


def _location(finding: Finding) -> Mapping[str, object] | None:
    """Return the first place in the evidence; None if no evidence has a place."""
    for evidence in finding.evidence:
        for where in evidence.where:
            return {"layer": evidence.layer, **_where(where)}
    return None


def _shared(shared: Shared | None) -> Mapping[str, object] | None:
    if shared is None:
        return None
    guests = [guest.uuid for guest in shared.guests]
    return {"guests": guests, "among": shared.among, "cause": shared.cause}


def _evidence(evidence: Evidence) -> Mapping[str, object]:
    return {
        "layer": evidence.layer,
        "said": dict(evidence.said),
        "where": [_where(where) for where in evidence.where],
    }


def _where(where: Where) -> Mapping[str, object]:
    answer = where.answer
    return {
        "host": answer.host,
        "query": answer.query,
        "at": answer.at.isoformat().replace("+00:00", "Z"),
        "place": where.place,
    }


def _skip(skip: Skip) -> Mapping[str, object]:
    return {
        "check": skip.check.name,
        "host": skip.host,
        "guest": skip.guest.uuid if skip.guest else None,
        "reason": skip.reason,
        "legal": skip.legal,
    }


def _uncollected(one: UncollectedLayer) -> Mapping[str, object]:
    return {
        "layer": one.layer.id,
        "host": one.host,
        "kind": one.kind,
        "reason": one.reason,
        "part": one.part or None,
    }


def _guest(report: Report, guest: Guest, has_findings: bool) -> Mapping[str, object]:
    return {
        "uuid": guest.uuid,
        "name": guest.name,
        "host": guest.host.name if guest.host else guest.believed,
        "layers": [
            {"layer": step.layer, "noun": step.noun, "state": step.state, "text": step.text}
            for step in steps(report.cloud, guest)
        ],
        "moving": guest.moving,
        "not_yet": [_not_yet(item, guest) for item in report.gates.of(guest)]
        if has_findings
        else [],
    }


def _not_yet(item: NotYet, guest: Guest) -> Mapping[str, object]:
    return {
        "command": forbidden(item, guest),
        "why": item.danger.why,
        "only_if": item.danger.only,
        "forbidden_by": list(item.forbidden_by),
        "undecided": list(item.undecided),
    }
