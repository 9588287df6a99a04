"""The servers on the page: verdict, boxes, pictures and the lines of the walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from hoodsnap.evidence import Severity
from hoodsnap.facts.api.port import PREFIX
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import caught
from hoodsnap.findings.advice import forbidden
from hoodsnap.findings.analysis import Report
from hoodsnap.printable import clean, cut
from hoodsnap.render.html import boxes, drawing
from hoodsnap.render.html.verbatim import Verbatim, keys_of
from hoodsnap.render.overview import OverviewRow, Standing, rows

LONGEST = 80
"""Characters of a name at most."""

NAMED = 40
"""Servers to name at most with a finding."""

MOST = 2_000
"""Servers on one page; those with findings first."""


WORDS: Mapping[Standing, str] = {
    Standing.ERROR: "error",
    Standing.WARNING: "warning",
    Standing.UNDECIDED: "undecided",
    Standing.NOTE: "note",
    Standing.EXPECTED: "expected",
    Standing.AGREES: "agrees",
}
"""Standing → its name in the page's data, style and filter."""


class ListedServers:
    """The servers of a report in the order of the overview, the worst first."""

    def __init__(self, report: Report, guests: Sequence[Guest]) -> None:
        self.report = report
        every = rows(report, guests)
        self.shown, self.left_out = every[:MOST], len(every[MOST:])
        self._numbers: dict[int, list[int]] = {}
        """Guest → the findings at the top of the report that concern it."""
        for number, finding in enumerate(report.about(guests)):
            concerned = {id(guest) for one in finding.everything() for guest in one.guests}
            for key in concerned:
                self._numbers.setdefault(key, []).append(number)

    def numbers(self, row: OverviewRow) -> list[int]:
        """Return the numbers of the findings that concern a server."""
        return self._numbers.get(id(row.guest), [])

    def concerned(self, number: int) -> list[tuple[int, str]]:
        """Return place and name of the servers that a finding of this number concerns, at most
        `NAMED`."""
        places = (at for at, row in enumerate(self.shown) if number in self.numbers(row))
        return [(at, _name(self.shown[at])) for at in islice(places, NAMED)]

    def _verdict(self, row: OverviewRow) -> str:
        """Return the result for a server in one sentence without a period."""
        if row.findings:
            more = f" (and {len(row.findings) - 1} more)" if len(row.findings) > 1 else ""
            return f"{clean(row.findings[0].title)}{more}"
        if row.verdict:
            return f"{row.verdict[0].upper()}{row.verdict[1:]}"
        layers = ", ".join(dict.fromkeys(one.layer.title for one in self.report.uncollected))
        return f"The collected layers agree{f'; {layers} did not answer' if layers else ''}"

    def _held(self, guest: Guest) -> list[str]:
        """Return the dangerous commands whose gating checks could not be decided."""
        return [
            f"{cut(clean(forbidden(item, guest)), 4 * LONGEST)} ({', '.join(item.undecided)})"
            for item in self.report.gates.of(guest)
            if not item.forbidden_by
        ]

    def entry(self, row: OverviewRow, verbatim: Verbatim) -> dict[str, object]:
        """Return what the page's script draws of a server."""
        cloud, guest = self.report.cloud, row.guest
        layers = boxes.boxes_of(cloud, guest)
        breaks = boxes.mark(layers, row.findings)
        chains = {"disks": drawing.disks_of(cloud, guest), "ports": drawing.ports_of(cloud, guest)}
        keys = _keys(guest)
        for drawn in chains.values():
            drawing.mark(drawn, row.findings)
        return {
            "name": _name(row),
            "uuid": cut(clean(guest.uuid), LONGEST),
            "host": cut(row.host, LONGEST),
            "state": _state(layers),
            "verdict": WORDS[row.standing],
            "text": cut(self._verdict(row), 4 * LONGEST),
            "hold": self._held(guest) if row.findings else [],
            "findings": self.numbers(row),
            "boxes": [_box(box, verbatim, keys) for box in layers],
            "breaks": [_break(one) for one in breaks],
            **{name: [list(map(_station, c)) for c in drawn] for name, drawn in chains.items()},
        }


def _name(row: OverviewRow) -> str:
    return cut(row.name, LONGEST)


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
        cut(station.whole, 12 * LONGEST) if station.whole != station.label else "",
        _word(station.severity),
    ]


def _word(severity: int) -> str:
    return Severity(severity).word if severity else ""
