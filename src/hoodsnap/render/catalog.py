"""The list of checks and the page of each, for people and for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from hoodsnap.check import COMMANDS, Check
from hoodsnap.checks import CATALOG, TOPICS
from hoodsnap.checks.dangers import DANGERS
from hoodsnap.checks.root_causes import CROWDS, ROOTS
from hoodsnap.facts.layer import LAYERS
from hoodsnap.recorded import tried

SECTIONS = ("Authority", "Traps", "Next", "Not yet", "Source")
"""Sections of a check's docstring, in order of output."""


WHOLE = {"guest": "the whole guest", "host": "the whole host", "cloud": "the whole cloud"}
"""Subject of a check that names no layer, by the check's scope."""


def compared(check: Check) -> list[str]:
    """Return the ids of the layers that a check compares."""
    told = {layer.id for layers in check.compared.values() for layer in layers}
    needed = told | set(check.heard)
    return [layer for layer in LAYERS if layer in needed]


def layers(check: Check) -> str:
    """Return the layers that a check compares, for people: `libvirt × kernel`."""
    return " × ".join(LAYERS[layer].title for layer in compared(check)) or WHOLE[check.scope]


def reasons(check: Check) -> list[str]:
    """Return the situations in which a difference found by this check is expected."""
    return [(trap.__doc__ or "").partition("\n")[0] for trap in check.traps]


def explains(check: Check) -> list[str]:
    """Return the checks whose findings are folded under a finding of this check."""
    names = [*ROOTS.get(check.name, ()), *CROWDS.get(check.name, ("", ()))[1]]
    return list(dict.fromkeys(names))


def explained_by(check: Check) -> list[str]:
    """Return the checks under whose findings this check's findings are folded."""
    roots = [root for root, names in ROOTS.items() if check.name in names]
    crowds = [root for root, (_, names) in CROWDS.items() if check.name in names]
    return list(dict.fromkeys([*roots, *crowds]))


def forbids(check: Check) -> list[str]:
    """Return the commands that must not be run while this check has a finding."""
    return [danger.command for danger in DANGERS if check.name in danger.gates]


def listing(checks: Iterable[Check] = CATALOG, width: int = 80) -> Iterator[str]:
    """List the checks by topic, each with severity, name, layers and message."""
    wanted = set(checks)
    for topic in TOPICS:
        name = topic.__name__.rpartition(".")[2]
        there = [check for check in CATALOG if check.topic == name and check in wanted]
        if there:
            yield f"{name}: {(topic.__doc__ or '').partition(chr(10))[0]}"
        for check in there:
            yield f"  {check.severity.word:<8} {check.name}  ({layers(check)})"
            yield from _wrapped(check.message, width, " " * 11)


def page(check: Check, width: int = 80) -> Iterator[str]:
    """Yield the lines of a check's manual page."""
    yield f"{check.name}  {check.severity.word} · {layers(check)} · {check.topic}"
    yield ""
    yield from _wrapped(check.message, width, "")
    yield ""
    yield from _wrapped(check.sections["why"], width, "")
    for title, told in _parts(check):
        yield ""
        yield title
        for paragraph in told:
            if paragraph.startswith(COMMANDS):
                for command in paragraph.splitlines():
                    yield from _wrapped(command.removeprefix(COMMANDS), width, "      ")
            else:
                yield from _wrapped(paragraph, width, "  ")


def _parts(check: Check) -> Iterator[tuple[str, list[str]]]:
    for title in SECTIONS:
        yield title, check.sections[title.lower()].split("\n\n")
    lists = (
        ("Tried", tried(check.name)),
        ("Not judged when", reasons(check)),
        ("Explains", explains(check)),
        ("Explained by", explained_by(check)),
        ("Forbids", forbids(check)),
    )
    for title, items in lists:
        if items:
            yield title, [f"- {item}" for item in items]


def _wrapped(paragraph: str, width: int, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        paragraph,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if paragraph.startswith("- ") else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def as_json(checks: Iterable[Check]) -> str:
    """Return the checks as a JSON document."""
    return json.dumps([_entry(check) for check in checks], indent=1) + "\n"


def _entry(check: Check) -> Mapping[str, object]:
    sections = check.sections
    return {
        "name": check.name,
        "topic": check.topic,
        "severity": check.severity.word,
        "scope": check.scope,
        "layers": compared(check),
        "message": check.message,
        "why": sections["why"],
        **{title.lower().replace(" ", "_"): sections[title.lower()] for title in SECTIONS},
        "tried": tried(check.name),
        "not_judged_when": reasons(check),
        "explains": explains(check),
        "explained_by": explained_by(check),
        "forbids": forbids(check),
    }


def markdown(check: Check) -> str:
    """Return a check's page in docs/reference/checks."""
    known = {each.name for each in CATALOG}
    lines = [f"# {check.name}", ""]
    lines += [f"**{check.severity.word}** · {layers(check)} · {check.topic}", ""]
    lines += [check.message, "", check.sections["why"], ""]
    for title, told in _parts(check):
        lines += [f"## {title}", ""]
        if title in ("Explains", "Explained by"):
            names = [item.removeprefix("- ") for item in told]
            told = [f"- [{name}]({name}.md)" if name in known else f"- {name}" for name in names]
        elif title == "Forbids":
            told = [f"- `{item.removeprefix('- ')}`" for item in told]
        lines += [*("\n\n".join(told).split("\n") if title in SECTIONS else told), ""]
    return "\n".join(lines).rstrip() + "\n"
