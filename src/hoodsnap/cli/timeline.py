"""hoodsnap timeline: everything with a time in a bundle, in one order."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from hoodsnap.cli.bundles import Bundles, merged, speaks
from hoodsnap.cli.explain import ServerOption, chosen
from hoodsnap.cli.terminal import Format, FormatOption, give_up, put, put_document, say
from hoodsnap.exit_status import USAGE

_AGO = re.compile(r"(\d{1,6})(s|min|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Begin at this time: `2026-11-25 18:30` (UTC), or `2h` before the bundle's end.",
    ),
]

UntilOption = Annotated[
    str | None,
    typer.Option("--until", help="End at this time, written as for --since."),
]

SourcesOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show all records and files, and each event's source."),
]


def timeline(
    bundles: Bundles,
    server: ServerOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    format: FormatOption = Format.TEXT,
    verbose: SourcesOption = False,
) -> None:
    """Print everything with a time in the bundle, in one order.

    Boots, starts and ends of QEMU, actions and who requested them, migrations, faults, log lines,
    records, files, and the collection itself. Repeated events are folded with a count.
    """
    from hoodsnap.facts.cloud import cloud as clouds
    from hoodsnap.findings.analysis import Report
    from hoodsnap.render import timeline as page
    from hoodsnap.timeline import timeline as events

    bundle = merged(bundles)
    if not speaks(bundle):
        give_up("no layer answered when this bundle was collected")
    first, last = (_moment(given, bundle.ended) for given in (since, until))
    cloud = clouds.read(bundle)
    found = events.read(cloud)
    if server:
        found = events.about(found, chosen(Report(cloud, (), ()), tuple(server)))
    found = events.between(found, first, last)
    if format is Format.JSON:
        put_document(page.as_json(found))
        return
    if not found.events and not found.undated:
        say("no event of this time was recorded")
    put(lambda width: page.render(found, width=width_of(width), verbose=verbose))


def _moment(given: str | None, ended: datetime) -> datetime | None:
    """Return a time that the operator wrote; exit if it is none."""
    from hoodsnap.facts.clock import moment

    if given is None:
        return None
    ago = _AGO.fullmatch(given.strip())
    if ago is not None:
        try:
            return ended - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        except OverflowError:  # before the year 1: everything in the bundle is later
            return datetime.min.replace(tzinfo=UTC)
    found = moment(given.strip())
    if found is None:
        give_up(
            f"{given} is not a time: write 2026-11-25, 2026-11-25 18:30 (UTC), or 90min before"
            " the bundle's end",
            USAGE,
        )
    return found


def width_of(width: int) -> int | None:
    """Return the width of a terminal; None in a pipe, whose reader searches whole lines."""
    return width if sys.stdout.isatty() or os.environ.get("FORCE_COLOR") else None
