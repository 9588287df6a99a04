"""The servers on the page: verdict, boxes, pictures and the lines of the walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from hoodsnap.evidence import Severity
from hoodsnap.facts.api.port import PREFIX
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import NOT_READ, caught
from hoodsnap.findings.advice import forbidden
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding
from hoodsnap.printable import clean, cut
from hoodsnap.render.html import boxes, drawing
from hoodsnap.render.html.article import name_of
from hoodsnap.render.html.verbatim import Verbatim, keys_of

NAMED = 40
"""Servers to name at most with a finding."""

MOST = 2_000
"""Servers on one page; those with findings first."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the report concludes about a server, in one word and one line."""

    word: str
    """`error`, `warning`, `note`, `agree` or `unknown`."""
    text: str


class ListedServers:
    """The servers of a report, those with findings first."""

    def __init__(self, report: Report, guests: Sequence[Guest]) -> None:
        self.report = report
        self.found: dict[int, list[Finding]] = {}
        self.numbers: dict[int, list[int]] = {}
        """Guest → the findings at the top of the report that concern it."""
        for number, finding in enumerate(report.about(guests)):
            self._count(number, finding)
        self.differing = {id(skip.guest): skip.reason for skip in report.skips if skip.differs}
        self.unread = {id(one.guest): one.reason for one in report.skips if NOT_READ in one.reason}
        order = sorted(guests, key=lambda guest: -self._severity(guest))
        self.shown, self.left_out = order[:MOST], len(order[MOST:])

    def _count(self, number: int, finding: Finding) -> None:
        guests: dict[int, None] = {}
        for one in finding.everything():
            for guest in one.guests if one.shared is None else ():
                guests[id(guest)] = None
                self.found.setdefault(id(guest), []).append(one)
        for guest in finding.guests:
            guests[id(guest)] = None
        for key in guests:
            self.numbers.setdefault(key, []).append(number)

    def concerned(self, number: int) -> list[tuple[int, str]]:
        """Return place and name of the servers that a finding of this number concerns, at most
        `NAMED`."""
        places = (at for at, one in enumerate(self.shown) if number in self._numbers(one))
        return [(at, name_of(self.shown[at])) for at in islice(places, NAMED)]

    def _numbers(self, guest: Guest) -> Sequence[int]:
        return self.numbers.get(id(guest), ())

    def _severity(self, guest: Guest) -> int:
        return max((one.severity for one in self.found.get(id(guest), ())), default=0)

    def verdict(self, guest: Guest, walk: Sequence[boxes.Box]) -> Verdict:
        """Return the verdict; without findings, why that does or does not mean agreement."""
        if found := self.found.get(id(guest)):
            worst = max(found, key=lambda finding: finding.severity)
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return Verdict(worst.severity.word, f"{clean(worst.title)}{more}")
        if guest.moving:
            return Verdict("unknown", f"It changed during collection: {clean(guest.moving)}")
        if len({box.layer for box in walk if box.state != "unheard"}) < 2:
            return Verdict("unknown", "Only one layer was collected")
        if guest.record is None and guest.domain is None:
            text = "No server and no domain: not managed by nova, or a leftover"
            return Verdict("unknown", text)
        if id(guest) in self.unread:
            return Verdict("unknown", f"A part of it {clean(self.unread[id(guest)])}")
        if id(guest) in self.differing:
            reason = clean(self.differing[id(guest)])
            return Verdict("agree", f"The layers differ, as expected: {reason}")
        elsewhere = "" if guest.carries_record else guest.believed
        if elsewhere:
            return Verdict("unknown", f"nova reports it on host {clean(elsewhere)}, not here")
        if guest.record is None and {"nova", "nova-db"} <= guest.unheard.keys():
            return Verdict("unknown", "The host's layers agree, but nova was not collected")
        but = ", ".join(dict.fromkeys(one.layer.title for one in self.report.uncollected))
        silent = f"; {but} did not answer" if but else ""
        return Verdict("agree", f"The collected layers agree{silent}")

    def _held(self, guest: Guest) -> list[str]:
        """Return the dangerous commands whose gating checks could not be decided."""
        return [
            f"{clean(forbidden(item, guest))} ({', '.join(item.undecided)})"
            for item in self.report.gates.of(guest)
            if not item.forbidden_by
        ]

    def entry(self, guest: Guest, verbatim: Verbatim) -> dict[str, object]:
        """Return what the page's script draws of a server."""
        cloud = self.report.cloud
        found = self.found.get(id(guest), ())
        row = boxes.boxes_of(cloud, guest)
        verdict = self.verdict(guest, row)
        breaks = boxes.mark(row, found)
        chains = {"disks": drawing.disks_of(cloud, guest), "ports": drawing.ports_of(cloud, guest)}
        keys = _keys(guest)
        for drawn in chains.values():
            drawing.mark(drawn, found)
        return {
            "name": name_of(guest),
            "uuid": clean(guest.uuid),
            "host": clean(guest.host.name if guest.host else guest.believed or ""),
            "state": _state(row),
            "verdict": verdict.word,
            "text": verdict.text,
            "hold": self._held(guest) if found else [],
            "findings": list(self._numbers(guest)),
            "boxes": [_box(box, verbatim, keys) for box in row],
            "breaks": [_break(one) for one in breaks],
            **{name: [list(map(_station, c)) for c in drawn] for name, drawn in chains.items()},
        }


def _state(row: Sequence[boxes.Box]) -> str:
    """Return the state of a server by the first layer that knows it."""
    nouns = ("server", "instance", "domain")
    return next((box.value for box in row if box.noun in nouns and box.state == "there"), "")


def _keys(guest: Guest) -> frozenset[str]:
    """Return the words by which long answers name a server and what belongs to it."""
    texts = [guest.uuid, guest.domain_name or ""]
    try:
        for port in guest.ports or ():
            texts += [port.id, f"tap{port.id[:PREFIX]}"]
        texts += guest.volume_ids or ()
        texts += [image.path for image in guest.images or ()]
    except Exception as error:  # a net: the rest is then not found in long answers
        caught(error)
    return keys_of(texts)


def _box(box: boxes.Box, verbatim: Verbatim, keys: frozenset[str]) -> dict[str, object]:
    return {
        "noun": box.noun,
        "layer": box.layer,
        "state": box.state,
        "value": box.value,
        "lines": [cut(line, 300) for line in box.lines],
        "answers": [verbatim.add(answer, keys) for answer in box.answers],
        "wrong": box.wrong[:4],
        "severity": _word(box.severity),
    }


def _break(broken: boxes.Break) -> dict[str, object]:
    return {
        "left": broken.left,
        "right": broken.right,
        "values": [broken.left_values[:3], broken.right_values[:3]],
        "severity": broken.finding.severity.word,
    }


def _station(station: drawing.Station) -> list[str]:
    return [
        station.kind,
        station.label,
        station.details,
        station.state,
        station.whole if station.whole != station.label else "",
        _word(station.severity),
    ]


def _word(severity: int) -> str:
    return Severity(severity).word if severity else ""
