"""The verdict on a mutant: what noticed that a leaf has changed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from hoodsnap.bundle import Bundle
from hoodsnap.facts.cloud.cloud import read
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.finding import Finding
from hoodsnap.render import text
from hoodsnap.render import timeline as events
from hoodsnap.render.line import UNBOUNDED
from hoodsnap.timeline import timeline


class Word(IntEnum):
    """What noticed it; the least one is the best."""

    CRASH = 0
    """The analysis or the report ended with an exception."""
    JUDGED = 1
    """A finding or note appears or changes."""
    JOINED = 2
    """A guest or something of it is absent now, or a guest appears or vanishes."""
    SHOWN = 3
    """The text of `explain --verbose` or `timeline --verbose` changes."""
    SKIPPED = 4
    """A check can no longer be decided."""
    SILENT = 5
    """Nothing changes."""


class Verdict(NamedTuple):
    """What noticed a change, and its name."""

    word: Word
    by: str = ""
    """The checks that fired, the exception, or what shows the change."""


SILENT = Verdict(Word.SILENT)


class Judge:
    """Compares mutants with the recording that they were made from."""

    def __init__(self, bundle: Bundle) -> None:
        self.report = analyze(bundle)
        self._findings = _findings(self.report)
        self._skips = _skips(self.report)
        self._guests = _guests(self.report)

    def verdict(self, mutant: Bundle) -> Verdict:
        """Return what noticed the change; of the report, only what it finds is looked at."""
        try:
            report = analyze(mutant)
            findings = _findings(report)
        except Exception as error:
            return Verdict(Word.CRASH, repr(error)[:80])
        changed = findings ^ self._findings
        checks = {found[:2] for found in changed}
        names = ",".join(sorted(name for _, name in checks))
        if _guests(report) != self._guests:
            return Verdict(Word.JOINED, names or "guests")
        if checks:
            absence = all(topic == "identity" for topic, _ in checks)
            return Verdict(Word.JOINED if absence else Word.JUDGED, names)
        skips = _skips(report) ^ self._skips
        if skips:
            return Verdict(Word.SKIPPED, ",".join(sorted({name for name, *_ in skips})[:4]))
        return SILENT

    def news(self, mutant: Bundle) -> Mapping[str, frozenset[str]]:
        """Return the lines that the report and the timeline have only with the change, or only
        without it; by what has them, which is left out if it has none. The findings are not among
        them."""
        report = Report(read(mutant), (), ())
        changed = {
            "explain": _text(report) ^ self._text,
            "timeline": _timeline(report) ^ self._timeline,
        }
        return {name: lines for name, lines in changed.items() if lines}

    @cached_property
    def text(self) -> str:
        """The report and the timeline without any change."""
        return "\n".join((*self._text, *self._timeline))

    @cached_property
    def _text(self) -> frozenset[str]:
        return _text(Report(self.report.cloud, (), ()))

    @cached_property
    def _timeline(self) -> frozenset[str]:
        return _timeline(self.report)


def _findings(report: Report) -> frozenset[tuple[str, ...]]:
    return frozenset(_finding(found) for found in report.everything())


def _finding(found: Finding) -> tuple[str, ...]:
    guest = found.guest.uuid if found.guest else ""
    said = str([piece.said for piece in found.evidence])
    return found.check.topic, found.check.name, found.severity.word, str(found.host), guest, said


def _skips(report: Report) -> frozenset[tuple[str, ...]]:
    return frozenset(
        (skip.check.name, str(skip.host), skip.guest.uuid if skip.guest else "", skip.reason)
        for skip in report.skips
    )


def _guests(report: Report) -> frozenset[tuple[str, str]]:
    return frozenset(
        (guest.uuid, guest.host.name if guest.host else "") for guest in report.cloud.guests
    )


def _text(report: Report) -> frozenset[str]:
    lines = text.render(report, report.cloud.guests, width=UNBOUNDED, verbose=True, walk=True)
    return frozenset(line.plain for line in lines)


def _timeline(report: Report) -> frozenset[str]:
    lines = events.render(timeline.read(report.cloud), width=None, verbose=True)
    return frozenset(line.plain for line in lines)
