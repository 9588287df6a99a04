"""Findings as text: in full, or in one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import PLACEHOLDERS, forbidden, instructions, warnings
from hoodsnap.findings.analysis import HANDFUL
from hoodsnap.findings.event import common_event
from hoodsnap.findings.finding import Finding, Shared
from hoodsnap.findings.gating import NotYet
from hoodsnap.findings.grouping import Group
from hoodsnap.phrase import several
from hoodsnap.printable import clean, cut
from hoodsnap.render.line import UNBOUNDED, Line, line, shortened, wrapped
from hoodsnap.render.overview import name_of

NAME_ALL = 5
"""Guests or headlines to name at most when they share a finding."""

MOST_EVIDENCE = 3
"""Pieces of evidence to render if there are many, unless verbose."""

LEAST_SOURCE = 22
"""Columns that must be left on a line for the source of its evidence."""

LONG = 240
"""Characters of evidence to render at most on a terminal, and of a reason, unless verbose."""

PROSE = 100
"""Columns that prose uses at most: longer lines are hard to read."""

MOST_FORBIDDEN = 5
"""Forbidden commands to list at most, unless verbose."""

TOO_MANY = (
    "So many findings at once are rarely so many faults. First suspect the collection and this "
    "tool (was a layer queried in the wrong place?), then look for the one thing they have in "
    "common. Do not repair any of them individually."
)
"""Warning for a check that fires for more guests than can plausibly fail at once."""

ONE_PLACE = (
    "They have one cause. Check that the collection saw that place as the guests do, repair it "
    "there, and do not repair any of them individually."
)
"""Warning in place of it if all findings name one file or folder, which is then their cause."""

STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
LABELS = {"do": "bold yellow", "not yet": "bold red", "caution": "bold yellow"}
MARK = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}


def row(group: Group) -> Line:
    """Return a finding, or many of one check, in one line: severity, check, host, server, headline
    and evidence."""
    finding = group.first
    severity = (group.severity.word, STYLE[group.severity])
    host, uuid, name, about = clean(finding.host or "-"), "-", "", ""
    if group.is_many:
        host = clean(group.hosts[0]) if len(group.hosts) == 1 else "-"
        about = f" ({counted(group)})"
    elif finding.shared is not None:
        about = f" ({_sharers(finding.shared)})"
    elif finding.guest is not None:
        uuid, name = clean(finding.guest.uuid), f" {clean(finding.guest.name) or '-'}"
    said = clean("; ".join(map(str, finding.evidence)))
    checks = (one for each in group.findings for one in each.everything())
    folded = sum(1 for one in checks if one.check is not finding.check)
    more = f" (explains {folded} more)" if folded else ""
    title = clean(finding.title)
    return line(
        severity, f" {finding.check.name} {host} {uuid}{name}: {title}{about} [{said}]{more}"
    )


def counted(group: Group) -> str:
    """Return the size of a group and the names in it: `12 findings in 9 servers: vm-a, vm-b …`."""
    count = f"{len(group.findings)} findings"
    names = [name_of(guest) for guest in group.guests]
    if names:
        return f"{count} in {len(names)} servers: {several(names, NAME_ALL)}"
    if len(group.hosts) > 1:
        return f"{count} on {len(group.hosts)} hosts: {several(map(clean, group.hosts), NAME_ALL)}"
    return count


def caution(shared: Shared) -> str:
    """Return the warning for a finding that nearly all guests of a host share."""
    cause = f" If the findings are real, {shared.cause}." if shared.cause else ""
    return f"{TOO_MANY if shared.path is None else ONE_PLACE}{cause}"


class Teller:
    """Renders the findings of one report; advice that was given before is referred to."""

    def __init__(self, width: int, verbose: bool) -> None:
        self.width, self.verbose = width, verbose
        self._wrapped = partial(wrapped, width)
        self._told: dict[str, tuple[str, list[str]]] = {}
        """Name of a check → the subject of its first finding, and the advice to it."""
        self._listed: set[str] = set()
        """Commands, names of checks, and warnings that were rendered."""
        self._prose = ""
        """All warnings that were rendered, which need no command below them."""

    def full(self, group: Group) -> Iterator[Line]:
        """Render a finding, or many of one check, with evidence and advice."""
        finding = group.first
        subject, tail = subject_of(group)
        title = f"{MARK[group.severity]} {group.severity.word.upper()} {group.check.name}"
        yield line((title, STYLE[group.severity]), (subject, "bold"), (tail, "dim"))
        about = finding.guests[0] if finding.guests else None
        if group.is_many:
            yield from self._many(group)
            if len(group.findings) > HANDFUL and group.severity > Severity.NOTE:
                yield from self._labeled("caution", TOO_MANY)
        else:
            yield from self._wrapped(f"  {clean(finding.title)}", "bold", 2)
        if (event := common_event(group.guests)) is not None:
            yield from self._wrapped(f"  {event}", "bold", 4)
        if finding.shared is not None:
            yield from self._sharing(finding)
        yield from self.proof(finding.evidence, about)
        yield from self._folded(group.findings)
        # A check's advice depends on what it found: a tap that is down, or one that was renamed.
        advice = [instruction.prose for instruction in instructions(finding)]
        told = (subject.strip(), advice)
        before, same = self._told.setdefault(group.check.name, told)
        if before != subject.strip() and same == advice and not self.verbose:
            where = f"as for {before}" if before else "as above"
            yield from self._wrapped(f"  {'next':<8} {where} (-s or -v fills it in)", "", 11)
            return
        yield from self._why(finding)
        yield from self._next(finding)

    def _many(self, group: Group) -> Iterator[Line]:
        """List the headlines of a group, or the names if the check gives no headlines."""
        most = None if self.verbose else NAME_ALL
        if all(finding.headline for finding in group.findings):
            told = list(dict.fromkeys(clean(finding.title) for finding in group.findings))
            for title in told[:most]:
                yield from self._wrapped(f"  {title}", "bold", 4)
            left = len(told) - NAME_ALL
            if left > 0 and most is not None:
                yield line((f"  and {left} more (-v lists them)", "dim"))
            return
        yield from self._wrapped(f"  {clean(group.first.title)}", "bold", 2)
        names = [name_of(guest) for guest in group.guests] or [*map(clean, group.hosts)]
        yield from self._wrapped(f"  {several(names, most or len(names))}", "", 4)

    def _sharing(self, finding: Finding) -> Iterator[Line]:
        """Render a finding shared by nearly all guests, with a warning to doubt the tool first."""
        shared = finding.shared
        assert shared is not None  # noqa: S101 (called for shared findings only)
        names = [name_of(guest) for guest in shared.guests]
        most = len(names) if self.verbose else NAME_ALL
        yield from self._wrapped(f"  {several(names, most)}", "", 4)
        if shared.path is not None:
            said = f"  All {len(names)} findings name {clean(shared.path)}: look there first."
            yield from self._wrapped(said, "bold", 4)
        yield from self._labeled("caution", caution(shared))
        yield line(f"  For example, {names[0]}:")

    def proof(self, pieces: Sequence[Evidence], guest: Guest | None) -> Iterator[Line]:
        """Render evidence, each piece with the query that returned it."""
        shown = pieces
        if not self.verbose and len(pieces) > MOST_EVIDENCE + 1:
            shown = pieces[:MOST_EVIDENCE]
        for evidence in shown:
            yield from self._evidence(evidence, 4, guest)
        if len(pieces) > len(shown):
            yield line((f"    and {len(pieces) - len(shown)} more (-v lists them)", "dim"))

    def _evidence(self, evidence: Evidence, indent: int, guest: Guest | None) -> Iterator[Line]:
        said = clean(str(evidence))
        sources = [*_sources(evidence, guest, brief=not self.verbose)]
        if self.verbose:
            yield from self._wrapped(" " * indent + said, "", indent + 2)
            for source in sources:
                yield from self._wrapped(" " * (indent + 2) + source, "dim", indent + 4)
            return
        if self.width < UNBOUNDED:
            said = cut(said, LONG)
        *lines, last = self._wrapped(" " * indent + said, "", indent + 2)
        yield from lines
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        room = self.width - len(last.plain) - 2 - len(more)
        if sources and room >= LEAST_SOURCE:
            yield line(*last.parts, "  ", (f"{cut(sources[0], room)}{more}", "dim"))
            return
        yield last
        if sources:
            room = self.width - indent - 2 - len(more)
            yield line(" " * (indent + 2), (f"{cut(sources[0], room)}{more}", "dim"))

    def _folded(self, findings: Sequence[Finding]) -> Iterator[Line]:
        """Count the findings folded under these, by check; list them all if verbose."""
        explained = [
            one
            for finding in findings
            for one in list(finding.everything())[1:]
            if one.shared is None and not (finding.shared and one.check is finding.check)
        ]
        counts = Counter(one.check.name for one in explained)
        worst = dict.fromkeys(counts, Severity.NOTE)
        for one in explained:
            worst[one.check.name] = max(worst[one.check.name], one.severity)
        names = [
            f"{name} ({worst[name].word}{f', {count} times' if count > 1 else ''})"
            for name, count in counts.items()
        ]
        if names:
            yield from self._wrapped(f"  {'explains':<8} {', '.join(names)}", "bold", 11)
        if self.verbose:
            for one in findings if len(findings) > 1 else ():
                yield from self._below(one)
            for finding in findings:
                for one in list(finding.everything())[1:]:
                    yield from self._below(one)

    def _below(self, finding: Finding) -> Iterator[Line]:
        name = f" of {name_of(finding.guest)}" if finding.guest is not None else ""
        title = f"    {MARK[finding.severity]} {finding.check.name}{name}"
        yield line((title, STYLE[finding.severity]))
        for evidence in finding.evidence:
            yield from self._evidence(evidence, 6, finding.guest)

    def _why(self, finding: Finding) -> Iterator[Line]:
        """Render the reason; unless verbose, its first sentences, for the first finding only."""
        paragraphs = finding.check.sections["why"].split("\n\n")
        if self.verbose:
            yield from self._advice("why", paragraphs)
        elif len(self._told) == 1:
            yield from self._advice("why", [_beginning(paragraphs[0])])

    def _next(self, finding: Finding) -> Iterator[Line]:
        known: set[str] = set()
        for instruction in instructions(finding):
            changes = any(command.changes for command in instruction.commands)
            word = "do" if changes else "look" if instruction.commands else "next"
            if instruction.prose:
                yield from self._labeled(word, instruction.prose.replace("`", ""))
            for command in instruction.commands:
                style = "bold yellow" if command.changes else "bold"
                yield line(f"{'':<13}", (clean(command.text), style))
            for name in (name for one in instruction.commands for name in one.left):
                if name not in known:
                    known.add(name)
                    yield from self._wrapped(f"{'':<13}{name}: {PLACEHOLDERS[name]}", "dim", 15)

    def not_yet(
        self, findings: Sequence[Finding], closed: Iterable[NotYet], undecided: int = 0
    ) -> Iterator[Line]:
        """List what must not be done while these findings, all of one subject, are unresolved:
        each check's own warnings, and the commands that it forbids.

        `undecided`: number of other commands whose checks could not be decided.
        """
        guests = {id(guest): guest for one in findings for guest in one.guests}
        guest = next(iter(guests.values())) if len(guests) == 1 else None
        said = [
            text
            for one in {one.check.name: one for one in findings}.values()
            if self._is_news(one.check.name)
            for text in warnings(one)
            if self._is_news(text)
        ]
        yield from self._advice("not yet", said)
        self._prose += " ".join(said)
        closed = [item for item in closed if item.forbidden_by]
        listed = [item for item in closed if self.verbose or not _covers(self._prose, item)]
        new = [item for item in listed if self._is_news(item.danger.command)]
        if new:
            names = dict.fromkeys(name for item in new for name in item.forbidden_by)
            verb = "is" if len(names) == 1 else "are"
            head = f"While {several(names)} {verb} unresolved, do not run:"
            yield from self._labeled("" if said else "not yet", head)
            most = len(new) if self.verbose else MOST_FORBIDDEN
            yield from self._packed([forbidden(item, guest) for item in new[:most]], 13)
            undecided += max(len(new) - most, 0)
        if again := len(listed) - len(new):
            which = f"{again} command{'' if again == 1 else 's'} listed above"
            yield from self._labeled("" if said or new else "not yet", f"Nor the {which}.")
        if undecided:
            hint = f"and {undecided} more dangerous command{'' if undecided == 1 else 's'}"
            yield line((f"{'':<11}{hint} (-v lists {'it' if undecided == 1 else 'them'})", "dim"))

    def _is_news(self, text: str) -> bool:
        """True the first time that it is asked about a text, and always if verbose."""
        news = self.verbose or text not in self._listed
        self._listed.add(text)
        return news

    def _packed(self, items: Sequence[str], indent: int) -> Iterator[Line]:
        """Put as many items on a line as fit; never break an item."""
        row = ""
        for item in dict.fromkeys(map(clean, items)):
            longer = f"{row} · {item}" if row else item
            if row and indent + len(longer) > self.width:
                yield line(" " * indent + row)
                longer = item
            row = longer
        yield line(" " * indent + row)

    def _advice(self, word: str, paragraphs: Iterable[str]) -> Iterator[Line]:
        for paragraph in paragraphs:
            if said := paragraph.replace("`", ""):
                yield from self._labeled(word, said)
                word = ""

    def _labeled(self, word: str, said: str) -> Iterator[Line]:
        width = self.width if self.width >= UNBOUNDED else min(self.width, PROSE)
        first, *rest = wrapped(width, f"  {word:<8} {said}", "", 11)
        label, text = first.plain[:11], first.plain[11:]
        yield line((label, LABELS.get(word, "cyan")), text)
        yield from rest


def subject_of(group: Group) -> tuple[str, str]:
    """Return the subject of a finding for its title, and a tail that is less important."""
    first = group.first
    if group.is_many:
        count = len(group.guests)
        servers = f" in {count} server{'' if count == 1 else 's'}" if count else ""
        hosts = f" on {len(group.hosts)} hosts" if len(group.hosts) > 1 else ""
        hosts = f" on host {clean(group.hosts[0])}" if len(group.hosts) == 1 else hosts
        return f"  {len(group.findings)} findings{servers}", hosts
    if first.guest is not None:
        name = name_of(first.guest)
        uuid = "" if name == first.guest.uuid else f"  {clean(first.guest.uuid)}"
        return f"  {name}", uuid
    return (f"  host {clean(first.host)}", "") if first.host else ("", "")


def _sources(evidence: Evidence, guest: Guest | None, *, brief: bool) -> Iterator[str]:
    """Yield the queries that returned the evidence, with the places in their answers.

    `brief`: shorten the queries, and leave out the guest's UUID.
    """
    places: dict[int, list[str]] = {}
    answers = {id(where.answer): where.answer for where in evidence.where}
    for where in evidence.where:
        places.setdefault(id(where.answer), []).append(where.place)
    for key, answer in answers.items():
        query, place = answer.query, ", ".join(filter(None, places[key]))
        if brief:
            query = shortened(query)
            place = place.replace(guest.uuid, "…") if guest is not None else place
        yield clean(f"{query}  ({place})" if place else query)


def _beginning(text: str) -> str:
    """Return the first sentences of a text: `LONG` characters, but at least one sentence."""
    ends = [found.end() for found in re.finditer(r"\.(?=\s|$)", text)]
    return text[: max((end for end in ends if end <= LONG), default=min(ends, default=len(text)))]


def _covers(prose: str, item: NotYet) -> bool:
    """True if a warning in prose already forbids the command."""
    stem = re.split(r" (?=[A-Z…])|,", item.danger.command)[0]
    return " " in stem and stem in prose


def _sharers(shared: Shared) -> str:
    """Return the guests that share a finding, among those that the check applies to: `12 of 14
    guests: vm-a, vm-b and 10 more`."""
    names = [name_of(guest) for guest in shared.guests]
    return f"{len(names)} of {shared.among} guests: {several(names, NAME_ALL)}"
