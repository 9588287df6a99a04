"""hoodsnap explain: the walk of each guest through its layers, and the findings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.bundle import Bundle
from hoodsnap.cli import completion
from hoodsnap.cli.bundles import Bundles, merged, must_be_writable, speaks
from hoodsnap.cli.terminal import give_up, put, put_document, write_document
from hoodsnap.exit_status import AGREE, BLIND, DISAGREE, USAGE
from hoodsnap.output import STDIO
from hoodsnap.suggestion import did_you_mean

if TYPE_CHECKING:
    from hoodsnap.evidence import Severity
    from hoodsnap.facts.cloud.guest import Guest
    from hoodsnap.findings.analysis import Report


class ReportFormat(StrEnum):
    """Format of the whole report."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


class FailOn(StrEnum):
    """Causes of an exit status other than 0: a finding of at least this severity (1), or a layer
    that was asked and did not answer (3)."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEVER = "never"
    UNHEARD = "unheard"


ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        "-s",
        help="Report only this server, given by UUID, name or domain name. Repeatable.",
        autocompletion=completion.servers,
    ),
]


DocumentOption = Annotated[
    ReportFormat,
    typer.Option(
        "--format",
        "-f",
        help="Format of the report; markdown is for bug trackers, html is one page for a browser.",
    ),
]


OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="File to write the report to.", show_default=False)
]


VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show every guest's walk, every reason and complete queries."
    ),
]


WalkOption = Annotated[
    bool,
    typer.Option("--walk", "-w", help="Show each guest's walk through its layers, as with -s."),
]


FailOnOption = Annotated[
    list[FailOn] | None,
    typer.Option(
        "--fail-on",
        help="Exit 1 if a finding has at least this severity (default: warning); with unheard, exit"
        " 3 if a layer was asked and did not answer. Repeatable.",
    ),
]


def explain(
    bundles: Bundles,
    server: ServerOption = None,
    format: DocumentOption = ReportFormat.TEXT,
    verbose: VerboseOption = False,
    walk: WalkOption = False,
    fail_on: FailOnOption = None,
    output: OutputOption = STDIO,
) -> None:
    """Explain where the layers of each guest agree and where they don't, the findings first."""
    if output != STDIO:
        must_be_writable(output, bundles)
    elif format is ReportFormat.HTML and sys.stdout.isatty():
        give_up("--format html writes a page for a browser: name a file with --output", USAGE)
    bundle = merged(bundles)
    if not speaks(bundle):
        give_up("no layer answered when this bundle was collected")
    raise typer.Exit(tell(bundle, server, format, verbose, fail_on, walk=walk, output=output))


def tell(
    bundle: Bundle,
    servers: Iterable[str] | None,
    format: ReportFormat,
    verbose: bool,
    fail_on: Sequence[FailOn] | None,
    *,
    walk: bool = False,
    output: Path = STDIO,
) -> int:
    """Print the report, or write it to a file, and return the exit status."""
    from hoodsnap.findings.analysis import analyze

    report = analyze(bundle)
    guests = chosen(report, tuple(servers or ()))
    walk = walk or bool(servers)
    if format is ReportFormat.JSON:
        from hoodsnap.render import json

        put_document(json.render(report, guests), output)
    elif format is ReportFormat.MARKDOWN:
        from hoodsnap.render import markdown

        put_document(markdown.render(report, guests, verbose=verbose, walk=walk), output)
    elif format is ReportFormat.HTML:
        from hoodsnap.render.html import page

        write_document(page.render(report, guests), output)
    else:
        _print(report, guests, verbose, walk, output)
    return status(report, guests, fail_on)


def _print(
    report: Report, guests: tuple[Guest, ...], verbose: bool, walk: bool, output: Path
) -> None:
    from hoodsnap.render import text
    from hoodsnap.render.line import UNBOUNDED

    put(
        lambda width: text.render(report, guests, width=width, verbose=verbose, walk=walk),
        piped=UNBOUNDED,
        output=output,
    )


def chosen(report: Report, servers: tuple[str, ...]) -> tuple[Guest, ...]:
    """Return the guests with these names, or every guest if no name is given."""
    if not servers:
        return report.cloud.guests
    found = []
    for wanted in servers:
        matching = [guest for guest in report.cloud.guests if _is_called(guest, wanted)]
        if not matching:
            names = (name for guest in report.cloud.guests for name in _names(guest))
            meant = did_you_mean(wanted, names)
            give_up(f"no server in this bundle is named {wanted}{meant}", USAGE)
        found += matching
    return tuple(dict.fromkeys(found))


def _is_called(guest: Guest, wanted: str) -> bool:
    return wanted in (guest.name, guest.domain_name) or wanted.lower() == guest.uuid


def _names(guest: Guest) -> Iterator[str]:
    yield from (name for name in (guest.name, guest.domain_name, guest.uuid) if name)


def status(report: Report, guests: tuple[Guest, ...], fail_on: Sequence[FailOn] | None) -> int:
    """Return the exit status of a report on these guests, their hosts and the cloud.

    It is 1 if a finding is severe enough, and 3 if `fail_on` contains `unheard` and a layer was
    asked and did not answer, even if there are findings.
    """
    if FailOn.UNHEARD in (fail_on or ()) and report.uncollected:
        return BLIND
    limit = least(fail_on)
    if limit is None:
        return AGREE
    worst = max((finding.worst for finding in report.about(guests)), default=0)
    return DISAGREE if worst >= limit else AGREE


def least(fail_on: Sequence[FailOn] | None) -> Severity | None:
    """Return the lowest severity that changes the exit status; None if no severity does."""
    from hoodsnap.evidence import Severity

    severities = frozenset(fail_on or ()) - {FailOn.UNHEARD} or {FailOn.WARNING}
    return min((Severity[one.name] for one in severities - {FailOn.NEVER}), default=None)
