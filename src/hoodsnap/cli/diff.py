"""hoodsnap diff: what changed between two bundles of one cloud."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.cli.bundles import merged, name_of, speaks
from hoodsnap.cli.explain import ServerOption, chosen
from hoodsnap.cli.terminal import Format, FormatOption, give_up, put, put_document
from hoodsnap.cli.timeline import width_of
from hoodsnap.exit_status import AGREE, DISAGREE

if TYPE_CHECKING:
    from hoodsnap.findings.analysis import Report

Before = Annotated[
    Path, typer.Argument(help="The earlier bundle.", metavar="BEFORE", readable=False)
]
After = Annotated[Path, typer.Argument(help="The later bundle.", metavar="AFTER", readable=False)]


def diff(
    before: Before,
    after: After,
    server: ServerOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Print what changed between two bundles: servers, hosts and findings.

    Ids, counters and times that always differ are left out. A layer that only one bundle has is
    not compared. Exit 1 if anything changed.
    """
    from hoodsnap.diff.difference import NothingInCommonError, difference
    from hoodsnap.render import diff as page

    old, new = _report(before), _report(after)
    only = _chosen(old, new, tuple(server or ()))
    try:
        found = difference(old, new, only)
    except NothingInCommonError:
        give_up(
            f"{name_of(before)} and {name_of(after)} are of two clouds: they have no service,"
            " cell, host or server in common"
        )
    if format is Format.JSON:
        put_document(page.as_json(found))
    else:
        put(lambda width: page.render(found, width=width_of(width)))
    raise typer.Exit(DISAGREE if found.counts else AGREE)


def _report(path: Path) -> Report:
    from hoodsnap.findings.analysis import analyze

    bundle = merged([path])
    if not speaks(bundle):
        give_up(f"{name_of(path)}: no layer answered when this bundle was collected")
    return analyze(bundle)


def _chosen(before: Report, after: Report, servers: tuple[str, ...]) -> frozenset[str]:
    """Return the UUIDs of these servers, each of which may be in one of the bundles only."""
    found: set[str] = set()
    for name in servers:
        known = [guest for guest in before.cloud.guests if name in (guest.name, guest.uuid)]
        guests = known or chosen(after, (name,))
        found |= {guest.uuid for guest in guests}
    return frozenset(found)
