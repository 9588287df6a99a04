"""hoodsnap explain: each guest's walk, and what is found."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.bundle import Bundle
from hoodsnap.cli.bundles import Bundles, merged, speaks
from hoodsnap.cli.terminal import AGREE, DISAGREE, USAGE, give_up, put, put_document

if TYPE_CHECKING:
    from hoodsnap.facts.cloud.guest import Guest
    from hoodsnap.findings.analysis import Report


class ReportFormat(StrEnum):
    """How the whole report is written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class FailOn(StrEnum):
    """From which severity on the exit status is 1."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEVER = "never"


ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--server", "-s", help="Only this server: its UUID, its name or its domain's. Repeatable."
    ),
]


DocumentOption = Annotated[
    ReportFormat,
    typer.Option("--format", "-f", help="How to write the report; markdown is for bug trackers."),
]


VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Every guest's walk, every reason, whole queries.")
]


FailOnOption = Annotated[
    FailOn, typer.Option("--fail-on", help="The severity from which on the exit status is 1.")
]


def explain(
    bundles: Bundles,
    server: ServerOption = None,
    format: DocumentOption = ReportFormat.TEXT,
    verbose: VerboseOption = False,
    fail_on: FailOnOption = FailOn.WARNING,
) -> None:
    """Walk through the layers of each guest and say where they agree and where they don't."""
    bundle = merged(bundles)
    if not speaks(bundle):
        give_up("no layer answered when this was collected")
    raise typer.Exit(tell(bundle, server, format, verbose, fail_on))


def tell(
    bundle: Bundle,
    servers: Iterable[str] | None,
    format: ReportFormat,
    verbose: bool,
    fail_on: FailOn,
) -> int:
    """Print the report; the exit status."""
    from hoodsnap.findings.analysis import analyze

    report = analyze(bundle)
    guests = chosen(report, tuple(servers or ()))
    if format is ReportFormat.JSON:
        from hoodsnap.render import json

        put_document(json.render(report, guests))
    elif format is ReportFormat.MARKDOWN:
        from hoodsnap.render import markdown

        put_document(markdown.render(report, guests, verbose=verbose))
    else:
        _print(report, guests, verbose)
    return status(report, guests, fail_on)


def _print(report: Report, guests: tuple[Guest, ...], verbose: bool) -> None:
    from hoodsnap.render import text

    put(lambda width: text.render(report, guests, width=width, verbose=verbose))


def chosen(report: Report, servers: tuple[str, ...]) -> tuple[Guest, ...]:
    """The guests that were asked for: all, if none was named."""
    if not servers:
        return report.cloud.guests
    found = []
    for wanted in servers:
        matching = [guest for guest in report.cloud.guests if _is_called(guest, wanted)]
        if not matching:
            give_up(f"no server called {wanted} in this bundle", USAGE)
        found += matching
    return tuple(dict.fromkeys(found))


def _is_called(guest: Guest, wanted: str) -> bool:
    return wanted in (guest.name, guest.domain_name) or wanted.lower() == guest.uuid


def status(report: Report, guests: tuple[Guest, ...], fail_on: FailOn) -> int:
    """The exit status: 1 if something of these guests or their host is at least that severe."""
    from hoodsnap.evidence import Severity

    if fail_on is FailOn.NEVER:
        return AGREE
    limit = Severity[fail_on.name]
    worst = max((finding.worst for finding in report.about(guests)), default=0)
    return DISAGREE if worst >= limit else AGREE
