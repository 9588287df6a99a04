"""The timeline as text, a line an event, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta

from hoodsnap.printable import clean, cut
from hoodsnap.render.line import LONGEST_WRAPPED, Line, line, shortened, wrapped
from hoodsnap.timeline.event import Event
from hoodsnap.timeline.timeline import Timeline, folded

FORMAT = 1
"""Number of the JSON format; it changes when a field is removed or changes its meaning."""

_NAME = 14
"""Columns of a server's name at most."""

_NAMED = 3
"""Names to print at most of the servers that share an event."""


def render(timeline: Timeline, *, width: int | None = 80, verbose: bool = False) -> Iterator[Line]:
    """Yield the lines of a timeline; `width`: None for lines of any length."""
    return _Page(timeline, width, verbose).lines()


class _Page:
    def __init__(self, timeline: Timeline, width: int | None, verbose: bool) -> None:
        self.timeline, self.verbose = timeline, verbose
        self.names = _names(timeline)
        shown = [event for event in timeline.events if verbose or not event.is_detail]
        self.hidden = len(timeline.events) - len(shown)
        self.events = folded(shown)
        self.undated = folded(timeline.undated)
        everything = (*self.events, *self.undated)
        self.layer = max((len(event.layer) for event in everything), default=0)
        self.name = max((len(self._name(event)) for event in everything), default=0)
        self.left = 8 + 1 + 7 + 1 + self.layer + 1 + self.name + 1
        self.width = None if width is None else max(width - self.left, 20)

    def lines(self) -> Iterator[Line]:
        day: date | None = None
        before: datetime | None = None
        for event in self.events:
            assert event.at is not None  # noqa: S101 (`undated` has the others)
            if event.at.date() != day:
                day = event.at.date()
                yield line((f"{day:%Y-%m-%d}, {day:%A} (UTC)", "bold"))
            gap = _gap(event.at - before) if before is not None else ""
            yield from self._event(event, f"{event.at:%H:%M:%S}", gap)
            before = event.at
        if self.undated:
            yield line(("the zone of these times is unknown", "bold"))
            for event in self.undated:
                yield from self._event(event, event.written[11:19], event.written[5:10])
        yield from self._notes()

    def _event(self, event: Event, time: str, gap: str) -> Iterator[Line]:
        style = "red" if event.is_failure else ""
        head = f"{clean(time):8} {clean(gap):>7} {clean(event.layer):{self.layer}} "
        head += f"{self._name(event):{self.name}} "
        what = self._what(event)
        parts = (
            [what]
            if self.width is None
            else textwrap.wrap(cut(what, LONGEST_WRAPPED), self.width, break_on_hyphens=False)
            or [""]
        )
        yield line((head, "dim" if event.is_detail else ""), (parts[0], style))
        for part in parts[1:]:
            yield line(" " * self.left, (part, style))
        if self.verbose:
            source = f"{event.source.host}: {shortened(event.source.query)}"
            yield line((" " * self.left + clean(source), "dim"))

    def _what(self, event: Event) -> str:
        what = ("✗ " if event.is_failure else "") + clean(event.what)
        if not event.repeats:
            return what
        began, ended = (f"{at:%H:%M:%S}" if at is not None else "" for at in (event.at, event.last))
        last = f" until {ended}" if ended != began else ""
        others = dict.fromkeys(self._name(one) for one in event.repeats)
        others.pop(self._name(event), None)
        named = [name for name in others if name]
        if not named:
            return f"{what} (×{len(event.repeats) + 1}{last})"
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return f"{what} (also {', '.join(named[:_NAMED])}{more}{last})"

    def _name(self, event: Event) -> str:
        if event.server is None:
            several = len(self.timeline.cloud.hosts) > 1
            return cut(clean(event.host or ""), _NAME) if several else ""
        return cut(clean(self.names.get(event.server) or event.server), _NAME)

    def _notes(self) -> Iterator[Line]:
        for remark in self.timeline.remarks:
            yield from self._note(f"note: {remark}", "yellow")
        if self.hidden:
            left_out = f"{self.hidden} events of records and files left out (-v shows them)"
            yield from self._note(left_out, "dim")

    def _note(self, words: str, style: str) -> Iterator[Line]:
        if self.width is None:
            yield line((clean(words), style))
        else:
            yield from wrapped(self.left + self.width, words, style, 2)


def _gap(passed: timedelta) -> str:
    """Return the time since the event before: `+12s`, `+5min`, `+2h14m`, `+3d4h`; "" below 1 s."""
    seconds = round(passed.total_seconds())
    if seconds < 1:
        return ""
    if seconds < 120:
        return f"+{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 120:
        return f"+{minutes}min"
    return f"+{hours}h{minutes % 60}m" if hours < 48 else f"+{days}d{hours % 24}h"


def _names(timeline: Timeline) -> Mapping[str, str]:
    return {guest.uuid: guest.name for guest in timeline.cloud.guests}


def as_json(timeline: Timeline) -> str:
    """Return every event, unfolded, as one JSON document."""
    names = _names(timeline)
    document = {
        "format": FORMAT,
        "events": _entries(timeline.events, names),
        "undated": _entries(timeline.undated, names),
        "remarks": list(timeline.remarks),
    }
    return json.dumps(document, indent=1) + "\n"


def _entries(events: Sequence[Event], names: Mapping[str, str]) -> list[Mapping[str, object]]:
    return [
        {
            "at": _written(event.at) if event.at is not None else None,
            "written": event.written or None,
            "layer": event.layer,
            "host": event.host,
            "server": event.server,
            "name": names.get(event.server or ""),
            "what": event.what,
            "failure": event.is_failure,
            "detail": event.is_detail,
            "source": {
                "host": event.source.host,
                "query": event.source.query,
                "at": _written(event.source.at),
            },
        }
        for event in events
    ]


def _written(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
