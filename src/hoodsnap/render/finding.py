"""Findings as text: in full, shortened, or in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import instructions, warnings
from hoodsnap.findings.analysis import HANDFUL
from hoodsnap.findings.finding import Finding, Shared
from hoodsnap.findings.gating import NotYet
from hoodsnap.printable import clean
from hoodsnap.render.line import Line, line, shortened, wrapped

NAME_ALL = 5
"""Guests to name at most when they share a finding."""

TOO_MANY = (
    "So many findings at once are rarely so many faults. First suspect the collection and this "
    "tool (was a layer queried in the wrong place?), then look for the one thing they have in "
    "common. Do not repair any of them individually."
)
"""Warning for a check that fires for more guests than can plausibly fail at once."""

STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
MARK = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}


def row(finding: Finding) -> Line:
    """Return a finding in one line: severity, check, host, server, message and evidence."""
    severity = (finding.severity.word, STYLE[finding.severity])
    uuid = clean(finding.guest.uuid) if finding.guest is not None else "-"
    place = f" {finding.check.name} {clean(finding.host or '-')} {uuid}"
    name = f" {clean(finding.guest.name)}" if finding.guest is not None else ""
    about = f" ({_sharers(finding.shared)})" if finding.shared is not None else ""
    said = clean("; ".join(map(str, finding.evidence)))
    folded = sum(1 for one in finding.everything() if one.check is not finding.check)
    more = f" (explains {folded} more)" if folded else ""
    return line(severity, f"{place}{name}: {finding.title}{about} [{said}]{more}")


class Teller:
    """Renders the findings of one report, the first finding of each check in full."""

    def __init__(self, width: int, verbose: bool) -> None:
        self.width, self.verbose = width, verbose
        self._wrapped = partial(wrapped, width)
        self._told: Counter[str] = Counter()
        """Findings rendered so far, by check."""
        self._forbidden: set[tuple[str, ...]] = set()
        """Groups of checks whose forbidden commands were already listed."""

    def full(self, finding: Finding, indent: str = "") -> Iterator[Line]:
        """Render a finding with evidence and advice; shorten advice that was given before."""
        style, mark = STYLE[finding.severity], MARK[finding.severity]
        where = "" if finding.guest or not finding.host else f" on host {clean(finding.host)}"
        title = f"{indent}{mark} {finding.severity.word.upper()} {finding.check.name}{where}"
        yield line((title, style))
        inner = len(indent) + 2
        yield from self._wrapped(f"{' ' * inner}{finding.title}.", "", inner)
        about = finding.guest
        if finding.shared is not None:
            about = finding.shared.guests[0]
            yield from self._sharing(finding, inner)
        for evidence in finding.evidence:
            yield from self._evidence(evidence, inner + 2, about)
        yield from self._folded(finding, inner)
        sections = finding.check.sections
        again = self._told[finding.check.name] > 0 and not self.verbose
        self._told[finding.check.name] += 1
        if not again:
            yield from self._advice("why", sections["why"].split("\n\n"), inner)
        yield from self._next(finding, inner)
        if not again:
            yield from self._advice("not yet", warnings(finding), inner)

    def is_known(self, finding: Finding) -> bool:
        """True if enough findings of this check were rendered in full."""
        return self._told[finding.check.name] >= HANDFUL

    def brief(self, finding: Finding) -> Iterator[Line]:
        """Render a finding in one line, below its guest."""
        said = "; ".join(map(str, finding.evidence))
        mark, style = MARK[finding.severity], STYLE[finding.severity]
        yield from self._wrapped(f"    {mark} {finding.check.name}: {said}", style, 6)

    def _sharing(self, finding: Finding, indent: int) -> Iterator[Line]:
        """Render a finding shared by nearly all guests, with a warning to doubt the tool first."""
        shared = finding.shared
        assert shared is not None  # noqa: S101 (called for shared findings only)
        count = _sharers(shared, None if self.verbose else NAME_ALL)
        yield from self._wrapped(" " * indent + count, "bold", indent + 2)
        cause = f" If the findings are real, {shared.cause}." if shared.cause else ""
        caution = f"{TOO_MANY}{cause}"
        yield from self._wrapped(f"{' ' * indent}{'caution':<8} {caution}", "", indent + 9)
        first = shared.guests[0]
        yield line(f"{' ' * indent}For example, {clean(first.name or first.uuid)}:")

    def _folded(self, finding: Finding, indent: int) -> Iterator[Line]:
        """Count the findings folded under this one, by check; list them all if verbose."""
        own = finding.shared is not None
        explained = [
            one
            for one in list(finding.everything())[1:]
            if one.shared is None and not (own and one.check is finding.check)
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
            words = f"{'explains':<8} {', '.join(names)}"
            yield from self._wrapped(" " * indent + words, "bold", indent + 9)
        if self.verbose:
            for one in finding.folded:
                name = f" of {clean(one.guest.name or one.guest.uuid)}" if one.guest else ""
                title = f"{' ' * (indent + 2)}{MARK[one.severity]} {one.check.name}{name}"
                yield line((title, STYLE[one.severity]))
                for evidence in one.evidence:
                    yield from self._evidence(evidence, indent + 4, one.guest)
                yield from self._folded(one, indent + 2)

    def not_yet(self, closed: Iterable[NotYet], indent: int) -> Iterator[Line]:
        """List the commands not to run yet, grouped by the checks that forbid them."""
        together: dict[tuple[str, ...], list[str]] = {}
        for item in closed:
            if item.forbidden_by:
                together.setdefault(item.forbidden_by, []).append(item.danger.command)
        for names, commands in together.items():
            verb = "is" if len(names) == 1 else "are"
            again = names in self._forbidden and not self.verbose
            self._forbidden.add(names)
            count = f"{len(commands)} command{'' if len(commands) == 1 else 's'}"
            head = f"{'not yet':<8} while {', '.join(names)} {verb} unresolved"
            head += f": the same {count} as above" if again else ""
            yield from self._wrapped(" " * indent + head, "", indent + 9)
            if not again:
                yield from self._packed(commands, indent + 11)

    def _packed(self, items: Sequence[str], indent: int) -> Iterator[Line]:
        """Put as many items on a line as fit; break only an item longer than a line."""
        row = ""
        for item in items:
            longer = f"{row} · {item}" if row else item
            if row and indent + len(longer) > self.width:
                yield from self._wrapped(" " * indent + row, "", indent + 2)
                longer = item
            row = longer
        yield from self._wrapped(" " * indent + row, "", indent + 2)

    def _evidence(self, evidence: Evidence, indent: int, guest: Guest | None) -> Iterator[Line]:
        yield from self._wrapped(" " * indent + str(evidence), "", indent + 2)
        places: dict[int, list[str]] = {}
        answers = {id(where.answer): where.answer for where in evidence.where}
        for where in evidence.where:
            places.setdefault(id(where.answer), []).append(where.place)
        for key, answer in answers.items():
            query, place = answer.query, ", ".join(filter(None, places[key]))
            if not self.verbose:
                query = shortened(query)
                place = place.replace(guest.uuid, "…") if guest is not None else place
            source = f"{query}  ({place})" if place else query
            yield from self._wrapped(" " * (indent + 2) + source, "dim", indent + 4)

    def _next(self, finding: Finding, indent: int) -> Iterator[Line]:
        word = "next"
        for instruction in instructions(finding):
            prose = instruction.prose.replace("`", "")
            yield from self._wrapped(f"{' ' * indent}{word:<8} {prose}", "", indent + 9)
            word = ""
            for command in instruction.commands:
                yield line(" " * (indent + 11) + clean(command.text))

    def _advice(self, word: str, paragraphs: Iterable[str], indent: int) -> Iterator[Line]:
        for paragraph in paragraphs:
            said = paragraph.replace("`", "")
            yield from self._wrapped(f"{' ' * indent}{word:<8} {said}", "", indent + 9)
            word = ""


def _sharers(shared: Shared, most: int | None = NAME_ALL) -> str:
    """Return the guests that share a finding: `12 of 14 guests: vm-a, vm-b and 10 more`."""
    named = [clean(guest.name or guest.uuid) for guest in shared.guests[:most]]
    more = len(shared.guests) - len(named)
    names = ", ".join(named) + (f" and {more} more" if more else "")
    return f"{len(shared.guests)} of {shared.among} guests: {names}"
