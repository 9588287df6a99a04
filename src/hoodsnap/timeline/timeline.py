"""The timeline: all events of a bundle in order, with repeated ones folded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import caught
from hoodsnap.facts.layer import IMAGES
from hoodsnap.timeline import bodies, host, logs, rows
from hoodsnap.timeline.event import Event

SOURCES: tuple[Callable[[Cloud], Iterator[Event]], ...] = (
    *(rows.events, bodies.events, logs.events, host.events),
)


@dataclass(frozen=True, eq=False)
class Timeline:
    """The events of a bundle."""

    cloud: Cloud
    events: tuple[Event, ...]
    """Events in order of time."""
    undated: tuple[Event, ...]
    """Events whose time has an unknown zone, in order of the written time."""
    remarks: tuple[str, ...]
    """Limits of the order: clocks that differ, sources that could not be read."""


def read(cloud: Cloud) -> Timeline:
    """Return every event of a cloud."""
    found: list[Event] = []
    remarks = [*host.clock_remarks(cloud)]
    for source in SOURCES:
        try:
            found.extend(source(cloud))
        except Exception as error:  # a net: an unreadable source costs its own events
            name = source.__module__.rpartition(".")[2]
            remarks.append(f"the {name} {caught(error)}")
    dated = [event for event in found if event.at is not None]
    undated = [event for event in found if event.at is None and event.written]
    dated.sort(key=lambda event: (event.at, event.layer, event.server or "", event.what))
    undated.sort(key=lambda event: event.written)
    return Timeline(cloud, tuple(dated), tuple(undated), tuple(remarks))


def about(timeline: Timeline, guests: Collection[Guest]) -> Timeline:
    """Return the events of these guests, and those of their hosts and services.

    Files that belong to no guest are left out.
    """
    uuids = {guest.uuid for guest in guests}
    names = {guest.host.name for guest in guests if guest.host is not None}
    names |= {guest.host.nova_name for guest in guests if guest.host is not None}

    def concerns(event: Event) -> bool:
        if event.server is not None:
            return event.server in uuids
        return event.layer != IMAGES.id and event.host in names

    return _only(timeline, concerns)


def between(timeline: Timeline, since: datetime | None, until: datetime | None) -> Timeline:
    """Return the events from `since` to `until`, and those whose time is unknown."""

    def fits(event: Event) -> bool:
        if event.at is None:
            return True
        return (since is None or event.at >= since) and (until is None or event.at <= until)

    return _only(timeline, fits)


def _only(timeline: Timeline, wanted: Callable[[Event], bool]) -> Timeline:
    return replace(
        timeline,
        events=tuple(filter(wanted, timeline.events)),
        undated=tuple(filter(wanted, timeline.undated)),
    )


def folded(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events with repeats folded into the first one.

    An event repeats another of the same kind if it follows at once, as when many guests start
    together, or if no other event of its own server or host lies between them.
    """
    shown: list[list[Event]] = []
    latest: dict[tuple[str | None, str | None], list[Event]] = {}
    for event in events:
        subject = (event.host, event.server)
        for run in (shown[-1] if shown else [], latest.get(subject, [])):
            if run and _is_alike(run[0], event):
                run.append(event)
                latest[subject] = run
                break
        else:
            latest[subject] = [event]
            shown.append(latest[subject])
    return tuple(replace(run[0], repeats=tuple(run[1:])) if run[1:] else run[0] for run in shown)


def _is_alike(first: Event, event: Event) -> bool:
    return bool(event.kind) and (first.layer, first.host, first.kind) == (
        event.layer,
        event.host,
        event.kind,
    )
