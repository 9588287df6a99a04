"""One finding on the page: what is wrong, the evidence, what to do and what not to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from hoodsnap.evidence import Evidence
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import (
    PLACEHOLDERS,
    Instruction,
    forbidden,
    instructions,
    warnings,
)
from hoodsnap.findings.finding import Finding
from hoodsnap.findings.gating import closed_by
from hoodsnap.printable import clean, cut
from hoodsnap.render.finding import MARK, caution
from hoodsnap.render.html.boxes import words
from hoodsnap.render.html.verbatim import Verbatim, keys_of, title
from hoodsnap.render.line import shortened
from hoodsnap.render.overview import name_of

LONGEST = 600
"""Characters of a headline or of one value of evidence; the recorded answer has the whole."""

LONGEST_COMMAND = 4_000
"""Characters of a command at most."""

NAMED = 40
"""Servers that a shared finding names."""


def article(finding: Finding, verbatim: Verbatim, *, brief: bool) -> dict[str, object]:
    """Return what the page shows of a finding. `brief`: without advice that was given before."""
    about = finding.shared.guests[0] if finding.shared is not None else finding.guest
    why = finding.check.sections["why"].split("\n\n")
    closed = () if brief else closed_by(finding.everything())
    return {
        "severity": finding.severity.word,
        "mark": MARK[finding.severity],
        "check": finding.check.name,
        "headline": cut(clean(finding.title), LONGEST),
        "host": None if finding.guest is not None else cut(clean(finding.host or ""), 80),
        "shared": _shared(finding),
        "evidence": [_evidence(piece, about, verbatim) for piece in finding.evidence],
        "explains": _explains(finding),
        "why": [] if brief else [_parts(paragraph) for paragraph in why],
        "next": [_instruction(each) for each in instructions(finding)],
        "not_yet": [] if brief else [_parts(paragraph) for paragraph in warnings(finding)],
        "forbidden": [cut(clean(forbidden(item, finding.guest)), LONGEST) for item in closed],
    }


def _shared(finding: Finding) -> Mapping[str, object] | None:
    shared = finding.shared
    if shared is None:
        return None
    names = [cut(name_of(guest), 80) for guest in shared.guests[:NAMED]]
    return {
        "count": f"{len(shared.guests)} of {shared.among} servers",
        "names": names,
        "more": len(shared.guests) - len(names),
        "caution": caution(shared),
        "example": names[0],
    }


def _evidence(piece: Evidence, guest: Guest | None, verbatim: Verbatim) -> Mapping[str, object]:
    places: dict[int, list[str]] = {}
    answers = {id(where.answer): where.answer for where in piece.where}
    for where in piece.where:
        places.setdefault(id(where.answer), []).append(where.place)
    sources = []
    for key, answer in answers.items():
        known = keys_of([*places[key], guest.uuid if guest is not None else ""])
        sources.append(
            {
                "answer": verbatim.add(answer, known),
                "query": cut(clean(shortened(answer.query)), 160),
                "place": cut(clean(_together(places[key], guest)), 160),
            }
        )
    return {
        "layer": title(piece.layer),
        "noun": clean(piece.noun),
        "said": [cut(words(*part), LONGEST) for part in piece.said],
        "sources": sources,
    }


def _together(places: Iterable[str], guest: Guest | None) -> str:
    """Return places in one answer; what all of them begin with is written once."""
    found, before = [], None
    for place in filter(None, places):
        start, dot, name = place.rpartition(".")
        found.append(f"{dot}{name}" if dot and start == before else place)
        before = start
    text = ", ".join(found)
    return text if guest is None else text.replace(guest.uuid, "…")


def _explains(finding: Finding) -> list[str]:
    own = finding.shared is not None
    names = Counter(
        one.check.name
        for one in list(finding.everything())[1:]
        if one.shared is None and not (own and one.check is finding.check)
    )
    return [name if count == 1 else f"{name} ({count} times)" for name, count in names.items()]


def _instruction(instruction: Instruction) -> Mapping[str, object]:
    commands = [
        {
            "text": clean(command.text),
            "changes": command.changes,
            "left": [f"{name}: {PLACEHOLDERS[name]}" for name in command.left],
        }
        if len(command.text) <= LONGEST_COMMAND
        # The beginning of a command may do something else than the whole.
        else {"text": "", "changes": False, "left": ["A command that is too long is not shown"]}
        for command in instruction.commands
    ]
    return {"prose": _parts(instruction.prose), "commands": commands}


def _parts(prose: str) -> list[str]:
    """Split prose at its backquotes: every second part is code."""
    return [cut(clean(part), LONGEST_COMMAND) for part in prose.split("`")]
