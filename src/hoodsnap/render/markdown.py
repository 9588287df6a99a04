"""The report for a bug tracker: versions, the overview, and each finding with evidence to unfold.

Text from a bundle is inside code: in fenced blocks, or in spans, where nothing is markup, a mention
or a link. Only our own sentences are outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import hoodsnap
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import PLACEHOLDERS, forbidden, instructions, warnings
from hoodsnap.findings.analysis import HANDFUL, Report
from hoodsnap.findings.event import common_event
from hoodsnap.findings.finding import Finding
from hoodsnap.findings.gating import closed_by
from hoodsnap.findings.grouping import Group, grouped
from hoodsnap.printable import clean, cut
from hoodsnap.render import text
from hoodsnap.render.finding import MARK, TOO_MANY, Teller, subject_of
from hoodsnap.render.host import daemons_line
from hoodsnap.trust.fingerprint import verify

LIMIT = 65_536
"""Characters that GitHub accepts; Launchpad and Storyboard accept at least as many."""

WIDTH = 100

LONGEST = 400
"""Characters of a span of code at most."""

NAME_ALL = 10
"""Headlines or names of a group at most, unless verbose."""

_VERSIONS = re.compile(r"(nova-compute|libvirtd|qemu-\S+|ovs-vsctl) --version")
_NAME = re.compile(r'PRETTY_NAME="?([^"\n]*)')


_SPECIAL = re.compile(r"([\\*_<>\[\]#@|~`])")


def render(
    report: Report, guests: Iterable[Guest], *, verbose: bool = False, walk: bool = False
) -> str:
    """Return the report as a document of at most `LIMIT` characters.

    If it would be longer, the last findings lose their evidence, and then are left out. `walk`:
    with the walk of each guest, if there is room.
    """
    shown = tuple(guests)
    summary = [line.plain for line in text.overview(report, shown, width=WIDTH)]
    head = (
        f"### hoodsnap {hoodsnap.__version__}\n\n{_fenced(_captured(report))}\n"
        f"### Servers\n\n{_fenced(_within(summary, LIMIT // 4))}"
    )
    room = LIMIT - len(head) - 200  # for the last sentence
    parts = [head]
    groups = grouped(report.about(shown))
    left = 0
    for group in groups:
        section = _Section(group, verbose)
        part = next((one for one in (section.whole, section.brief) if len(one) <= room), None)
        if part is None:
            left += 1
            continue
        parts.append(part)
        room -= len(part) + 1
    if walk or verbose:
        walks = _fenced(line.plain for line in text.walks(report, shown, width=WIDTH))
        part = f"<details><summary>The layers of each guest</summary>\n\n{walks}\n</details>\n"
        parts += [part] if len(part) <= room else []
    if left:
        count = f"{left} finding{'' if left == 1 else 's'}"
        parts.append(
            f"{count} left out: too long for a bug tracker (--server shortens the report)\n"
        )
    return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class _Section:
    """The section of one finding, or of many of one check."""

    group: Group
    verbose: bool

    @property
    def whole(self) -> str:
        return "\n".join([*self._head(), *self._evidence(), *self._advice()])

    @property
    def brief(self) -> str:
        return "\n".join(self._head())

    def _head(self) -> Iterator[str]:
        group, check = self.group, self.group.check
        subject, tail = subject_of(group)
        about = f": {_code(subject + tail)}" if subject else ""
        yield f"### {MARK[group.severity]} {group.severity.word.upper()} {check.name}{about}\n"
        titles = list(dict.fromkeys(finding.title for finding in group.findings))
        most = len(titles) if self.verbose else NAME_ALL
        if group.is_many:
            yield from (f"- {_code(title)}" for title in titles[:most])
            if len(titles) > most:
                yield f"- and {len(titles) - most} more"
            names = [guest.title for guest in group.guests]
            if names and not all(finding.headline for finding in group.findings):
                more = f" and {len(names) - most} more" if len(names) > most else ""
                yield f"- {', '.join(map(_code, names[:most]))}{more}"
            yield ""
        else:
            # A line that began with the backticks of code could be read as a fence.
            yield f"**{_code(titles[0])}**\n"
        if (event := common_event(group.guests)) is not None:
            yield f"**{_code(event)}**\n"
        if group.first.shared is not None or len(group.findings) > HANDFUL:
            yield f"**Caution:** {TOO_MANY}\n"
        explained = _explained(group)
        if explained:
            yield f"It explains {', '.join(explained)}.\n"

    def _evidence(self) -> Iterator[str]:
        teller = Teller(WIDTH, verbose=True)
        shown = self.group.findings if self.verbose else (self.group.first,)
        lines: list[str] = []
        for finding in shown:
            guest = finding.guests[0] if finding.guests else None
            lines += [line.plain[4:] for line in teller.proof(finding.evidence, guest)]
        yield f"<details><summary>Evidence</summary>\n\n{_fenced(lines)}\n</details>\n"

    def _advice(self) -> Iterator[str]:
        finding = self.group.first
        sections = finding.check.sections
        yield f"**Why:** {_prose(sections['why'].partition(chr(10) * 2)[0])}\n"
        for instruction in instructions(finding):
            commands = [command.text for command in instruction.commands]
            changes = any(command.changes for command in instruction.commands)
            word = "Do" if changes else "Look" if commands else "Next"
            yield f"**{word}:** {_prose(instruction.prose)}\n"
            if commands:
                yield _fenced(commands, "sh")
            left = {name for command in instruction.commands for name in command.left}
            yield from (f"{name}: {_prose(PLACEHOLDERS[name])}.\n" for name in sorted(left))
        for number, warning in enumerate(warnings(finding)):
            yield f"{'' if number else '**Not yet:** '}{_prose(warning)}\n"
        yield from self._forbidden(finding)
        yield f"More: `hoodsnap checks {finding.check.name}`\n"

    def _forbidden(self, finding: Finding) -> Iterator[str]:
        guest = finding.guest if len(self.group.guests) == 1 else None
        closed = closed_by(one for each in self.group.findings for one in each.everything())
        commands = [forbidden(item, guest) for item in closed if item.forbidden_by]
        if commands:
            yield f"Do not run while this is unresolved:\n\n{_fenced(commands)}"


def _explained(group: Group) -> list[str]:
    names = (one.check.name for each in group.findings for one in each.everything())
    return [name for name in dict.fromkeys(names) if name != group.check.name]


def _captured(report: Report) -> Iterator[str]:
    bundle = report.cloud.bundle
    yield f"collected by {clean(bundle.tool)[:100]}, {bundle.started:%Y-%m-%d %H:%M:%S} UTC"
    seal = verify(bundle)
    state = "unchanged" if seal.intact else "changed since collection, or never sealed"
    yield f"bundle {seal.fingerprint} ({state})"
    said: dict[str, None] = {}
    for answer in bundle.by_layer.get("host", ()):
        if not isinstance(answer.value, str):
            continue
        if asked := _VERSIONS.fullmatch(answer.query):
            first = answer.value.partition("\n")[0]
            said[clean(f"{asked[1]}: {first}")[:200]] = None
        elif answer.query == "cat /etc/os-release" and (name := _NAME.search(answer.value)):
            said[clean(f"system: {name[1]}")[:200]] = None
    for host in report.cloud.hosts:
        if (running := daemons_line(host)) is not None:
            said[cut(f"daemons of {clean(host.name)}: {running}", LONGEST)] = None
    yield from list(said)[:40]


def _within(lines: Sequence[str], most: int) -> Iterator[str]:
    """Yield lines of at most so many characters together; the last line always."""
    for number, line in enumerate(lines[:-1]):
        most -= len(line) + 1
        if most < 0:
            yield f"… {len(lines) - 1 - number} lines left out"
            break
        yield line
    yield cut(lines[-1], LONGEST * 10)


def _code(said: str) -> str:
    """Put a text into a span of code that it can't close."""
    body = re.sub("`{8,}", "`…`", cut(clean(said).strip(), LONGEST)) or " "
    fence = "`" * (max(map(len, re.findall("`+", body)), default=0) + 1)
    space = " " if body.startswith("`") or body.endswith("`") else ""
    return f"{fence}{space}{body}{space}{fence}"


def _prose(said: str) -> str:
    """Escape what Markdown would obey in our sentences, outside the commands in backticks."""
    parts = re.split(r"(`[^`]*`)", " ".join(clean(said, mark=" ").split()))
    return "".join(
        part if part.startswith("`") and len(part) > 1 else _SPECIAL.sub(r"\\\1", part)
        for part in parts
    )


def _fenced(lines: Iterable[str], language: str = "text") -> str:
    """Put lines into a fenced block that none of them can close."""
    body = re.sub("`{8,}", "`…`", "\n".join(map(clean, lines)))
    longest = max(map(len, re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}\n"
