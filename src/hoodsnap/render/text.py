"""The report as text: the overview, the findings, and what the bundle cannot tell.

The last line names the servers with findings and the layers that did not answer. Color and marks
only repeat what the words say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import OF_ALL_HOSTS, caught
from hoodsnap.facts.layer import LAYERS
from hoodsnap.facts.uuids import UUID
from hoodsnap.findings.analysis import APART, Report
from hoodsnap.findings.finding import Finding, Skip
from hoodsnap.findings.gating import closed_by
from hoodsnap.findings.grouping import Group, grouped
from hoodsnap.findings.silence import one_line
from hoodsnap.phrase import several
from hoodsnap.printable import clean, cut
from hoodsnap.render.finding import MARK, STYLE, Teller
from hoodsnap.render.guest_table import STYLES, table
from hoodsnap.render.host import daemons_line, troubled_daemons
from hoodsnap.render.line import Line, line, wrapped
from hoodsnap.render.overview import OverviewRow, Standing, rows
from hoodsnap.render.walk import Step, steps

LIST_ALL = 20
"""Guests up to which each gets a row in the overview if no check found anything."""

NAME_ALL = 8
"""Servers or hosts to name at most in the first and the last line."""


def render(
    report: Report,
    guests: Iterable[Guest],
    *,
    width: int = 80,
    verbose: bool = False,
    walk: bool = False,
) -> Iterator[Line]:
    """Yield the lines of the report on these guests. `walk`: with the walk of each guest."""
    return _Page(report, tuple(guests), width, verbose, walk).lines()


def findings(
    report: Report, guests: Iterable[Guest], *, width: int = 80, verbose: bool = False
) -> Iterator[Line]:
    """Yield only the findings of these guests; without findings, yield no line."""
    return _Page(report, tuple(guests), width, verbose, False).findings()


def overview(report: Report, guests: Iterable[Guest], *, width: int = 80) -> Iterator[Line]:
    """Yield the report without its findings: the overview, what the bundle cannot tell, and the
    last line."""
    page = _Page(report, tuple(guests), width, False, False)
    yield from page.overview()
    yield from page.unknown()
    yield line()
    yield from page.verdict()


def walks(report: Report, guests: Iterable[Guest], *, width: int = 80) -> Iterator[Line]:
    """Yield the walk of each of these guests through its layers."""
    return _Page(report, tuple(guests), width, False, True).walks()


class _Page:
    def __init__(
        self, report: Report, guests: tuple[Guest, ...], width: int, verbose: bool, walk: bool
    ) -> None:
        self.report, self.guests = report, guests
        self.width, self.verbose, self.walk = max(width, 40), verbose, walk or verbose
        self.rows = rows(report, guests)
        self.found = report.about(guests)
        self._wrapped = partial(wrapped, self.width)

    def overview(self) -> Iterator[Line]:
        yield from self._heading()
        if self.rows:
            yield line()
            calm = not self.found and len(self.rows) <= LIST_ALL
            yield from table(self.rows, self.width, everyone=self.walk or calm)
        yield from self._hosts()

    def _hosts(self) -> Iterator[Line]:
        """Yield a line for the hosts with the same findings of their own, below the guests."""
        found: dict[str, list[Finding]] = {}
        for finding in self.found:
            if not finding.guests and finding.host:
                found.setdefault(clean(finding.host), []).append(finding)
        alike: dict[tuple[str, ...], list[str]] = {}
        for host, theirs in found.items():
            checks = tuple(dict.fromkeys(finding.check.name for finding in theirs))
            alike.setdefault(checks, []).append(host)
        for checks, hosts in alike.items():
            worst = max(finding.severity for host in hosts for finding in found[host])
            which = f"host{'s' if len(hosts) > 1 else ''} {several(hosts, NAME_ALL)}"
            said = f"{MARK[worst]} {which}: {several(checks, NAME_ALL)}"
            yield line((cut(said, self.width), STYLE[worst]))

    def lines(self) -> Iterator[Line]:
        yield from self.overview()
        if self.walk:
            yield from self.walks()
        for told in self._findings():
            yield line()
            yield from told
        yield from self.unknown()
        yield line()
        yield from self.verdict()

    def walks(self) -> Iterator[Line]:
        row_of = {id(row.guest): row for row in self.rows}
        for row in (row_of[id(guest)] for guest in self.guests):
            yield from self._netted(self._walk(row))

    def findings(self) -> Iterator[Line]:
        for number, told in enumerate(self._findings()):
            if number:
                yield line()
            yield from told

    def _heading(self) -> Iterator[Line]:
        bundle = self.report.cloud.bundle
        took = (bundle.ended - bundle.started).total_seconds()
        when = f"{bundle.started:%Y-%m-%d %H:%M:%S}"
        # Merged bundles may have been collected hours apart; then the span is shown.
        how = (
            f"UTC in {took:.1f} s" if took <= APART else f"to {bundle.ended:%Y-%m-%d %H:%M:%S} UTC"
        )
        hosts = [
            clean(host.name)
            + ("" if host.nova_name == host.name else f" (nova: {clean(host.nova_name)})")
            for host in self.report.cloud.hosts
        ]
        where = f"host{'s' if len(hosts) > 1 else ''} {several(hosts, NAME_ALL)}, " if hosts else ""
        said = f"{where}collected {when} {how}, {len(bundle.answers)} answers"
        yield from self._wrapped(said, "dim", 2)
        yield from self._daemons()

    def _daemons(self) -> Iterator[Line]:
        """Yield the daemons that do not work; verbose, those that run too."""
        hosts = self.report.cloud.hosts
        for host in hosts:
            head = f"daemons of {clean(host.name)}" if len(hosts) > 1 else "daemons"
            if (troubled := troubled_daemons(self.report, host)) is not None:
                yield from self._wrapped(f"{head}: {troubled}", "yellow", 2)
            if self.verbose and (running := daemons_line(host)) is not None:
                yield from self._wrapped(f"{head}: {running}", "dim", 2)

    def _netted(self, told: Iterator[Line]) -> Iterator[Line]:
        """Yield the lines about one guest. If rendering fails, report that and go on."""
        try:
            yield from told
        except Exception as error:  # the net around each guest
            yield from self._wrapped(f"  ? the rest {caught(error)}", "yellow", 4)

    def _walk(self, row: OverviewRow) -> Iterator[Line]:
        guest = row.guest
        yield line()
        host = f"  on {row.host}" if len(self.report.cloud.hosts) > 1 and row.host else ""
        yield line((clean(guest.name) or "(no name)", "bold"), f"  {clean(guest.uuid)}{host}")
        for step in steps(self.report.cloud, guest):
            yield from self._step(step)
        mark, style = row.standing.mark, STYLES[row.standing]
        said = row.verdict or "the collected layers agree"
        if row.standing is Standing.EXPECTED:
            said = f"the layers differ, as expected: {said}"
        elif row.findings:
            said = f"see {', '.join(dict.fromkeys(one.check.name for one in row.findings))}"
        yield from self._wrapped(f"  {mark} {said}", style, 4)

    def _step(self, step: Step) -> Iterator[Line]:
        style = {"there": "", "absent": "", "unheard": "dim"}[step.state]
        said = f"not collected: {step.text}" if step.state == "unheard" else step.text
        yield from self._wrapped(f"  {step.noun:<10} {said}", style, 13)

    def _findings(self) -> Iterator[Iterator[Line]]:
        """Yield each finding or group of findings once, those of one guest after each other, with
        what must not be done yet after the guest's last one."""
        teller = Teller(self.width, self.verbose)
        subjects: dict[object, list[Group]] = {}
        for group in grouped(self.found):
            alone = not group.is_many and group.first.guest is not None
            subjects.setdefault(group.first.guest if alone else group, []).append(group)
        for same in subjects.values():
            for group in same:
                last = group is same[-1]
                yield self._netted(self._told(teller, group, same if last else ()))

    def _told(self, teller: Teller, group: Group, subject: Sequence[Group]) -> Iterator[Line]:
        yield from teller.full(group)
        tops = [finding for one in subject for finding in one.findings]
        if tops:
            closed = closed_by(one for top in tops for one in top.everything())
            guest = tops[0].guest if len(subject) == 1 or tops[0].guest else None
            waiting = self.report.gates.of(guest) if guest is not None else ()
            undecided = [item for item in waiting if not item.forbidden_by]
            yield from teller.not_yet(tops, closed, len(undecided))
            for item in undecided if self.verbose else ():
                names = f"{', '.join(item.undecided)} could not be decided"
                yield from self._wrapped(f"    on hold  {item.danger.command}: {names}", "dim", 13)

    def unknown(self) -> Iterator[Line]:
        """Render what the bundle cannot tell: each reason once, with the number of guests. Reasons
        that differ only in numbers, UUIDs and paths are counted as one."""
        kinds = self._reasons()
        if not kinds:
            return
        yield line()
        if not self.verbose:
            first, *rest = kinds
            more = f" and {len(rest)} more reasons (-v lists them)" if rest else ""
            more = " and 1 more reason (-v lists it)" if len(rest) == 1 else more
            head = "cannot tell: "
            room = self.width - len(head) - len(more)
            yield line((f"{head}{cut(_reason(first), room)}{more}", "dim"))
            return
        yield line(("What this bundle cannot tell", "bold"))
        for skips in kinds:
            yield from self._wrapped(f"  {_reason(skips)}", "", 4)
            for reason in list(dict.fromkeys(reason for reason, _ in skips))[1:]:
                yield from self._wrapped(f"  {reason}", "", 4)
            if names := sorted({skip.check.name for _, skip in skips if skip}):
                yield from self._wrapped(f"    not judged: {', '.join(names)}", "dim", 6)

    def _reasons(self) -> list[list[tuple[str, Skip | None]]]:
        """Return the reasons of all skips and of all uncollected layers, those of a kind
        together."""
        chosen = {id(guest) for guest in self.guests}
        kinds: dict[str, list[tuple[str, Skip | None]]] = {}
        for skip in self.report.skips:
            expected = skip.legal or skip.reason.endswith(OF_ALL_HOSTS)
            if (self.verbose or not expected) and (skip.guest is None or id(skip.guest) in chosen):
                kinds.setdefault(_kind(skip.reason), []).append((skip.reason, skip))
        for guest in self.guests:
            for layer, reason in guest.unheard.items():
                if layer != "qemu" and guest.host is not None:
                    kinds.setdefault(_kind(reason), []).append((reason, None))
        if self.guests and all(guest.monitor is None for guest in self.guests):
            asked = "QEMU's monitors were not collected (use collect --qmp)"
            kinds["qemu"] = [(f"{asked}: states and sizes come from libvirt", None)]
        return list(kinds.values())

    def verdict(self) -> Iterator[Line]:
        """Render the last line: what was found, in which servers, and what was not collected."""
        said, style = self._outcome()
        silent = self.report.uncollected
        if silent:
            missing = f"not collected: {one_line(silent)}"
            whole = f"{said} · {missing}"
            if len(whole) <= self.width:
                yield line((said, style), " · ", (missing, "yellow"))
            else:
                yield from self._wrapped(said, style, 2)
                yield from self._wrapped(missing, "yellow", 2)
        else:
            yield from self._wrapped(said, style, 2)
        if self.verbose:
            heard = ", ".join(self._heard()) or "none"
            yield from self._wrapped(f"layers collected: {heard}", "dim", 2)

    def _outcome(self) -> tuple[str, str]:
        servers = len({guest.uuid for guest in self.guests})
        count = f"{servers} server{'' if servers == 1 else 's'}"
        undecided = [row for row in self.rows if row.standing is Standing.UNDECIDED]
        open_ = f"not decided: {_names(undecided)}" if undecided else ""
        if not self.found:
            said = "the collected layers agree"
            if len(undecided) == len(self.rows):
                said, open_ = "not decided" if self.rows else "there was nothing to compare", ""
            calm = not undecided and not self.report.uncollected and self.guests
            said = " · ".join(filter(None, [f"{count}: {said}", open_]))
            return said, "green" if calm else "yellow"
        parts = [_counted(self.found)]
        if affected := [row for row in self.rows if row.findings]:
            among = len({row.guest.uuid for row in affected})
            parts.append(f"in {among} of {count}: {_names(affected)}")
        if hosts := dict.fromkeys(one.host for one in self.found if not one.guests and one.host):
            where = f"host {several(map(clean, hosts), NAME_ALL)}"
            parts.append(f"and on {where}" if affected else f"on {where}")
        style = STYLE[max(finding.worst for finding in self.found)]
        return " · ".join(filter(None, [" ".join(parts), open_])), style

    def _heard(self) -> list[str]:
        by_layer = self.report.cloud.bundle.by_layer
        return [
            layer.title
            for layer in LAYERS.values()
            if any(answer.error is None for answer in by_layer.get(layer.id, ()))
        ]


def _names(rows: Iterable[OverviewRow]) -> str:
    return several({row.guest.uuid: row.name for row in rows}.values(), NAME_ALL)


def _counted(findings: Iterable[Finding]) -> str:
    """Return the numbers of findings: `2 errors, 1 warning (3 more folded)`."""
    top = tuple(findings)
    told = Counter(finding.severity for finding in top)
    found = ", ".join(
        f"{told[severity]} {severity.word}{'' if told[severity] == 1 else 's'}"
        for severity in reversed(Severity)
        if told[severity]
    )
    folded = sum(len(list(finding.everything())) - 1 for finding in top)
    return found + (f" ({folded} more folded)" if folded else "")


def _reason(skips: Sequence[tuple[str, Skip | None]]) -> str:
    said = list(dict.fromkeys(reason for reason, _ in skips))
    alike = f" (and {len(said) - 1} similar)" if len(said) > 1 else ""
    guests = {id(skip.guest) for _, skip in skips if skip and skip.guest}
    about = f" [{len(guests)} guest{'' if len(guests) == 1 else 's'}]" if guests else ""
    return clean(f"{said[0]}{alike}{about}")


def _kind(reason: str) -> str:
    return re.sub(rf"{UUID.pattern}|/\S+|\d+", "…", reason)
