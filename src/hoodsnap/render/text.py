"""The report as text: a walk per guest, the findings, and what the bundle cannot tell.

It fits 80 columns and reads the same in a pipe: color and marks only repeat what the words say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import NOT_READ, UnheardError, caught
from hoodsnap.facts.layer import LAYERS
from hoodsnap.facts.uuids import UUID
from hoodsnap.findings.analysis import APART, Report
from hoodsnap.findings.finding import Finding, Skip
from hoodsnap.findings.gating import closed_by
from hoodsnap.findings.silence import one_line
from hoodsnap.printable import clean
from hoodsnap.render.finding import STYLE, TOO_MANY, Teller
from hoodsnap.render.line import Line, line, wrapped
from hoodsnap.render.walk import Step, steps

WALK_ALL = 20
"""Guests up to which each one gets a walk. In a longer report a guest without findings gets one
line."""

MOST_REASONS = 10
"""Reasons to print at most for what the bundle cannot tell."""

LIST_ALL = 100
"""Guests up to which those without findings are listed. In a longer report they are counted."""


def render(
    report: Report, guests: Iterable[Guest], *, width: int = 80, verbose: bool = False
) -> Iterator[Line]:
    """Yield the lines of the report on these guests."""
    return _Page(report, tuple(guests), width, verbose).lines()


def findings(
    report: Report, guests: Iterable[Guest], *, width: int = 80, verbose: bool = False
) -> Iterator[Line]:
    """Yield only the findings of these guests; without findings, yield no line."""
    return _Page(report, tuple(guests), width, verbose).findings()


class _Page:
    def __init__(
        self, report: Report, guests: tuple[Guest, ...], width: int, verbose: bool
    ) -> None:
        self.report, self.guests = report, guests
        self.chosen = {id(guest) for guest in guests}
        self.width, self.verbose = max(width, 40), verbose
        self.close = False
        self.of_guest: dict[int, list[Finding]] = {}
        self.general: list[Finding] = []
        self.legal = {id(skip.guest): skip.reason for skip in report.skips if skip.differs}
        self.broken = {id(one.guest): one.reason for one in report.skips if NOT_READ in one.reason}
        """Guests with a value that a check could not read: they are not reported as agreeing."""
        self.elsewhere: dict[int, list[Finding]] = {}
        """Findings of a guest that are folded under a finding of another guest, a host or the
        cloud."""
        self.teller = Teller(self.width, verbose)
        self._wrapped = partial(wrapped, self.width)
        self.found = report.about(guests)
        for finding in self.found:
            if finding.guest is None:
                self.general.append(finding)
            else:
                self.of_guest.setdefault(id(finding.guest), []).append(finding)
            for folded in finding.everything():
                if folded.guest is not finding.guest and folded.guest is not None:
                    self.elsewhere.setdefault(id(folded.guest), []).append(folded)

    def lines(self) -> Iterator[Line]:
        yield from self._heading()
        for host in (*self.report.cloud.hosts, None):
            here = [guest for guest in self.guests if guest.host is host]
            if here or host is not None:
                yield from self._host(host, here)
        yield from self._general()
        yield from self._unknown()
        yield line()
        yield from self._verdict()

    def findings(self) -> Iterator[Line]:
        for guest in self.guests:
            if id(guest) in self.of_guest:
                host = guest.host.name if guest.host else guest.believed
                yield line((clean(guest.name) or "(no name)", "bold"), f"  {clean(guest.uuid)}")
                yield from self._wrapped(f"  on host {host}" if host else "  on no host", "dim", 4)
                yield from self._findings(guest)
                yield line()
        yield from self._general()

    def _general(self) -> Iterator[Line]:
        """Render the findings of hosts and of the cloud."""
        for finding in self.general:
            yield line()
            yield from self.teller.full(finding)
            yield from self.teller.not_yet(closed_by(finding.everything()), 2)
        yield from self._doubts()

    def _heading(self) -> Iterator[Line]:
        bundle = self.report.cloud.bundle
        took = (bundle.ended - bundle.started).total_seconds()
        when = f"{bundle.started:%Y-%m-%d %H:%M:%S}"
        # Merged bundles may have been collected hours apart; then the span is shown.
        how = (
            f"UTC in {took:.1f} s" if took <= APART else f"to {bundle.ended:%Y-%m-%d %H:%M:%S} UTC"
        )
        yield line((f"collected {when} {how}, {len(bundle.answers)} answers", "dim"))

    def _host(self, host: Host | None, guests: Sequence[Guest]) -> Iterator[Line]:
        quiet = [guest for guest in guests if id(guest) not in self.of_guest]
        loud = [guest for guest in guests if id(guest) in self.of_guest]
        counted = len(self.guests) > LIST_ALL and not self.verbose
        if loud or not counted or not self.close:
            yield line()  # no blank lines between many hosts without findings
        self.close = counted and not loud
        count = f"{len(guests)} guest{'' if len(guests) == 1 else 's'}"
        if host is None:
            yield line(("on no collected host", "bold"), f"  {count}")
        else:
            alias = "" if host.nova_name == host.name else f" (nova: {clean(host.nova_name)})"
            yield line((f"host {clean(host.name)}", "bold"), f"{alias}  {count}")
        if self.verbose or len(self.guests) <= WALK_ALL:
            for guest in guests:
                yield from self._netted(self._walk(guest))
            return
        for guest in loud:
            known = all(map(self.teller.is_known, self.of_guest[id(guest)]))
            yield from self._netted(self._brief(guest) if known else self._walk(guest))
        if quiet and (loud or not counted):
            yield line()
        if not counted:
            for guest in quiet:
                yield self._line(guest)
            return
        shared = sum(id(guest) in self.elsewhere for guest in quiet)
        if shared:
            yield line((f"  ✗ {shared} guests with findings reported below", "yellow"))
        if shared < len(quiet):
            agree = f"  ✓ {len(quiet) - shared} guests without findings"
            yield line((agree, "green"), (" (--verbose shows each)", "dim"))

    def _netted(self, told: Iterator[Line]) -> Iterator[Line]:
        """Yield the lines about one guest. If rendering fails, report that and go on."""
        try:
            yield from told
        except Exception as error:  # the net around each guest
            yield from self._wrapped(f"    ? the rest {caught(error)}", "yellow", 6)

    def _walk(self, guest: Guest) -> Iterator[Line]:
        yield line()
        yield line(("  " + (clean(guest.name) or "(no name)"), "bold"), f"  {clean(guest.uuid)}")
        walk = tuple(steps(self.report.cloud, guest))
        for step in walk:
            yield from self._step(step)
        yield from self._findings(guest)
        if guest.moving:
            yield from self._wrapped(
                f"    ~ it changed during collection: {guest.moving}", "yellow", 6
            )
        elif id(guest) not in self.of_guest and id(guest) not in self.elsewhere:
            yield from self._wrapped(*self._agreement(guest, walk), 6)

    def _findings(self, guest: Guest) -> Iterator[Line]:
        findings = self.of_guest.get(id(guest), [])
        for finding in findings:
            yield from self.teller.full(finding, "    ")
        yield from self._told_elsewhere(guest)
        if findings:
            everything = [one for finding in findings for one in finding.everything()]
            yield from self.teller.not_yet(closed_by(everything), 6)
            yield from self._not_known(guest)

    def _brief(self, guest: Guest) -> Iterator[Line]:
        """Render a guest whose findings all repeat checks already explained in full."""
        yield line((f"  {clean(guest.name) or '(no name)'}", "bold"), f"  {clean(guest.uuid)}")
        for finding in self.of_guest[id(guest)]:
            yield from self.teller.brief(finding)

    def _step(self, step: Step) -> Iterator[Line]:
        style = {"there": "", "absent": "yellow", "unheard": "dim"}[step.state]
        said = f"not collected: {step.text}" if step.state == "unheard" else step.text
        yield from self._wrapped(f"    {step.noun:<10} {said}", style, 15)

    def _agreement(self, guest: Guest, walk: Iterable[Step]) -> tuple[str, str]:
        """Return the closing line of a guest without findings, and its style."""
        heard = [step for step in walk if step.state != "unheard"]
        if len({step.layer for step in heard}) < 2:
            return "    · only one layer was collected", "dim"
        if guest.record is None and guest.domain is None:
            return "    · no server and no domain: not managed by nova, or a leftover", "dim"
        if id(guest) in self.broken:
            return f"    ? part of it {self.broken[id(guest)]}", "yellow"
        elsewhere = "" if guest.carries_record else guest.believed
        if elsewhere and guest.domain is not None and not _runs(guest):
            where = f"nova reports it on host {elsewhere}"
            return f"    · {where}; the domain left here is switched off", "cyan"
        if id(guest) in self.legal:
            return f"    · the layers differ, as expected: {self.legal[id(guest)]}", "cyan"
        if elsewhere:
            return f"    ! nova reports it on host {elsewhere}, not here", "yellow"
        return "    ✓ the collected layers agree", "green"

    def _line(self, guest: Guest) -> Line:
        unknown = "" if "libvirt" in guest.unheard else "no domain"
        parts = [guest.domain_name or unknown]
        try:
            if guest.record is not None:
                parts.insert(0, guest.record.vm_state)
        except UnheardError:
            pass  # not visible to a tenant
        if guest.process is not None:
            parts.append(f"pid {guest.process.pid}")
        mark = ("  ~ ", "yellow") if guest.moving else ("  ✓ ", "green")
        if id(guest) in self.elsewhere:
            mark = ("  ✗ ", "yellow")
            parts.append("findings below")
        name = clean(guest.name or guest.uuid)
        return line(
            mark, f"{name[:28]:<28} {clean(', '.join(filter(None, parts)))}"[: self.width - 4]
        )

    def _told_elsewhere(self, guest: Guest) -> Iterator[Line]:
        told = self.elsewhere.get(id(guest), ())
        if told:
            names = ", ".join(dict.fromkeys(finding.check.name for finding in told))
            where = "covered by a wider finding in this report"
            yield from self._wrapped(f"    ✗ {names}: {where}", "yellow", 6)

    def _not_known(self, guest: Guest) -> Iterator[Line]:
        """Render the commands whose gating checks could not be decided for this guest."""
        waiting = [item for item in self.report.gates.of(guest) if not item.forbidden_by]
        if not waiting:
            return
        if not self.verbose:
            which = "1 other dangerous command is on hold: a check that gates it"
            if len(waiting) > 1:
                count = f"{len(waiting)} other dangerous commands"
                which = f"{count} are on hold: checks that gate them"
            how = "could not be decided (--verbose lists them)"
            yield from self._wrapped(f"      {which} {how}", "dim", 15)
            return
        for item in waiting:
            names = f"{', '.join(item.undecided)} could not be decided"
            yield from self._wrapped(f"      on hold  {item.danger.command}: {names}", "dim", 15)

    def _doubts(self) -> Iterator[Line]:
        """Render the fix-limit rule: doubt a check that fires too often before acting on it."""
        crowds = self.report.crowds
        if crowds:
            yield line()
            yield line(("Doubtful findings", "bold"))
            counts = ", ".join(f"{name} ({count} times)" for name, count in crowds.items())
            yield from self._wrapped(f"  {counts}", "yellow", 4)
            yield from self._wrapped(f"  {TOO_MANY}", "", 2)

    def _unknown(self) -> Iterator[Line]:
        """Render what the bundle cannot tell: each reason once, with the number of guests. Reasons
        that differ only in numbers, UUIDs and paths are counted as one."""
        kinds: dict[str, list[tuple[str, Skip | None]]] = {}
        for skip in self.report.skips:
            known = not skip.legal or self.verbose
            if known and (skip.guest is None or id(skip.guest) in self.chosen):
                kinds.setdefault(_kind(skip.reason), []).append((skip.reason, skip))
        for guest in self.guests:
            for layer, reason in guest.unheard.items():
                if layer != "qemu" and guest.host is not None:
                    kinds.setdefault(_kind(reason), []).append((reason, None))
        unasked = bool(self.guests) and all(guest.monitor is None for guest in self.guests)
        if not kinds and not unasked:
            return
        yield line()
        yield line(("What this bundle cannot tell", "bold"))
        shown = list(kinds.values())
        for skips in shown if self.verbose else shown[:MOST_REASONS]:
            yield from self._reason(skips)
        if not self.verbose and len(shown) > MOST_REASONS:
            rest = len(shown) - MOST_REASONS
            more = f"{rest} other reason{'' if rest == 1 else 's'} (--verbose shows them)"
            yield line((f"  {more}", "dim"))
        if unasked:
            asked = "QEMU's monitors were not collected (use collect --qmp)"
            yield from self._wrapped(f"  {asked}: states and sizes come from libvirt", "", 4)

    def _reason(self, skips: Sequence[tuple[str, Skip | None]]) -> Iterator[Line]:
        said = list(dict.fromkeys(reason for reason, _ in skips))
        alike = f" (and {len(said) - 1} similar)" if len(said) > 1 else ""
        guests = {id(skip.guest) for _, skip in skips if skip and skip.guest}
        about = f" [{len(guests)} guest{'' if len(guests) == 1 else 's'}]" if guests else ""
        yield from self._wrapped(f"  {said[0]}{alike}{about}", "", 4)
        names = sorted({skip.check.name for _, skip in skips if skip})
        if names and self.verbose:
            for reason in said[1:]:
                yield from self._wrapped(f"  {reason}", "", 4)
            yield from self._wrapped(f"    not judged: {', '.join(names)}", "dim", 6)

    def _verdict(self) -> Iterator[Line]:
        told = Counter(finding.severity for finding in self.found)
        counts = {severity: told[severity] for severity in reversed(Severity)}
        folded = sum(len(list(finding.everything())) - 1 for finding in self.found)
        guests = f"{len(self.guests)} guest{'' if len(self.guests) == 1 else 's'}"
        heard = self._heard()
        found = ", ".join(
            f"{count} {severity.word}{'' if count == 1 else 's'}"
            for severity, count in counts.items()
            if count
        )
        if folded:
            found += f" ({folded} more folded under them)"
        worst = max((finding.worst for finding in self.found), default=None)
        agreement = "the collected layers agree" if self.guests else "there was nothing to compare"
        outcome, style = found or agreement, "green" if self.guests else "yellow"
        if found and worst:
            style = STYLE[worst]
        if broken := sum(id(guest) in self.broken for guest in self.guests):
            outcome += f"; {broken} could not be read completely"
            style = style if found else "yellow"
        silent = self.report.uncollected
        yield line((f"{guests}: {outcome}", "yellow" if silent and not found else style))
        if silent:
            yield from self._wrapped(f"not collected: {one_line(silent)}", "yellow", 2)
        yield from self._wrapped(f"layers collected: {', '.join(heard) or 'none'}", "dim", 2)

    def _heard(self) -> list[str]:
        by_layer = self.report.cloud.bundle.by_layer
        return [
            layer.title
            for layer in LAYERS.values()
            if any(answer.error is None for answer in by_layer.get(layer.id, ()))
        ]


def _runs(guest: Guest) -> bool:
    """True if the guest runs on its host, or may run there."""
    try:
        return guest.runs
    except UnheardError:
        return True


def _kind(reason: str) -> str:
    return re.sub(rf"{UUID.pattern}|/\S+|\d+", "…", reason)
