"""hoodsnap check prints findings that no baseline accepts; hoodsnap checks lists the checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hoodsnap.cli import completion
from hoodsnap.cli.bundles import Bundles, merged, must_be_writable, speaks
from hoodsnap.cli.explain import (
    FailOn,
    FailOnOption,
    ServerOption,
    VerboseOption,
    chosen,
    least,
    status,
)
from hoodsnap.cli.terminal import (
    Format,
    FormatOption,
    give_up,
    put,
    put_document,
    say,
)
from hoodsnap.exit_status import USAGE
from hoodsnap.output import STDIO
from hoodsnap.printable import clean
from hoodsnap.suggestion import did_you_mean

if TYPE_CHECKING:
    from hoodsnap.bundle import Bundle
    from hoodsnap.check import Check
    from hoodsnap.facts.cloud.guest import Guest
    from hoodsnap.findings.analysis import Report
    from hoodsnap.findings.baseline import BaselineEntry, Parted
    from hoodsnap.render.line import Line


MOST_BROKEN = 10
"""Checks to name at most, of those that met an unreadable value."""


class Listing(StrEnum):
    """Format of a list of findings: for people (line, text), or for a program."""

    LINE = "line"
    TEXT = "text"
    JSON = "json"
    NDJSON = "ndjson"
    SARIF = "sarif"
    JUNIT = "junit"
    PROMETHEUS = "prometheus"
    NAGIOS = "nagios"


ListingOption = Annotated[
    Listing,
    typer.Option(
        "--format", "-f", help="One line per finding, full findings, or a format for programs."
    ),
]


SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        help="Run only these checks: names or topics, * and ? allowed. Repeatable.",
        autocompletion=completion.checks,
    ),
]


IgnoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", help="Skip these checks. Repeatable.", autocompletion=completion.checks
    ),
]


OutputOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Write the findings to this file, which appears whole or not at all."
    ),
]


BaselineOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        help="File of accepted findings, each with a reason and an end date.",
        readable=False,
    ),
]


WriteBaselineOption = Annotated[
    Path | None,
    typer.Option(
        "--write-baseline",
        help="Write the current findings to this baseline file; fill in a reason for each.",
    ),
]


PruneOption = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Remove the entries that match no finding from the --baseline file, and name them. "
        "Entries of checks that could not be decided stay.",
    ),
]


def check(
    bundles: Bundles,
    server: ServerOption = None,
    select: SelectOption = None,
    ignore: IgnoreOption = None,
    baseline: BaselineOption = None,
    write_baseline: WriteBaselineOption = None,
    prune: PruneOption = False,
    format: ListingOption = Listing.LINE,
    output: OutputOption = STDIO,
    verbose: VerboseOption = False,
    fail_on: FailOnOption = None,
) -> None:
    """Print findings only, for cron and CI. Without findings, print nothing."""
    from hoodsnap.findings.analysis import analyze

    catalog = _selected(select, ignore)
    if write_baseline and write_baseline != baseline and write_baseline.exists():
        give_up(
            f"{write_baseline} already exists; pass --baseline {write_baseline} as well"
            " to keep its reasons",
            USAGE,
        )
    if prune and (baseline is None or server or select or ignore or write_baseline):
        give_up(
            "--prune needs --baseline and all findings: use it without --server, --select,"
            " --ignore and --write-baseline",
            USAGE,
        )
    for path in (write_baseline, baseline if prune else None, output):
        if path and path != STDIO:
            must_be_writable(path, bundles)
    entries = _accepted(baseline)
    report = analyze(_readable(bundles, format), catalog)
    guests = chosen(report, tuple(server or ()))
    _tell_what_is_unheard(report)
    parted = _parted(report, guests, entries, str(baseline))
    if write_baseline:
        _write_baseline(write_baseline, parted)
        raise typer.Exit
    if prune and baseline:
        _prune(baseline, entries, parted, report)
    report = replace(report, findings=parted.remaining)
    made = _document(report, guests, format, catalog, bundles, fail_on)
    if output == STDIO and made is not None:
        put_document(made.text)
    elif output == STDIO:
        _list(report, guests, format, verbose)
    else:
        _write(output, made.text if made is not None else _plain(report, guests, format, verbose))
    raise typer.Exit(status(report, guests, fail_on) if made is None else made.status)


def _readable(bundles: list[Path], format: Listing) -> Bundle:
    """Return the bundle; without one, print a line for a monitor, which reads no errors."""
    try:
        bundle = merged(bundles)
        if not speaks(bundle):
            give_up("no layer answered when this bundle was collected")
    except typer.Exit:
        if format is Listing.NAGIOS:
            put_document("HOODSNAP UNKNOWN - no bundle can be read (see standard error)\n")
        raise
    return bundle


def checks(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of checks or topics, * and ? allowed.",
            metavar="NAME",
            autocompletion=completion.checks,
        ),
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """List the checks, or print the manual page of each one named."""
    from hoodsnap.render import catalog

    wanted = _selected(names, None)
    if format is Format.JSON:
        put_document(catalog.as_json(wanted))
        return
    lines = catalog.listing(wanted)
    if names and all(name in {check.name for check in wanted} for name in names):
        pages = ("\n".join(catalog.page(check)) for check in wanted)
        lines = iter(["\n\n".join(pages)])
    for line in lines:
        put_document(f"{line}\n")


def _selected(select: list[str] | None, ignore: list[str] | None) -> tuple[Check, ...]:
    from fnmatch import fnmatchcase

    from hoodsnap.checks import CATALOG

    def matching(patterns: list[str] | None) -> set[str]:
        found: set[str] = set()
        for pattern in (part for given in patterns or () for part in given.split(",")):
            names = {
                check.name
                for check in CATALOG
                if fnmatchcase(check.name, pattern) or fnmatchcase(check.topic, pattern)
            }
            if not names:
                known = (name for check in CATALOG for name in (check.topic, check.name))
                meant = did_you_mean(pattern, known) or " (see: hoodsnap checks)"
                give_up(f"no check or topic matches {pattern}{meant}", USAGE)
            found |= names
        return found

    wanted, unwanted = matching(select), matching(ignore)
    return tuple(
        check
        for check in CATALOG
        if (check.name in wanted or not select) and check.name not in unwanted
    )


def _accepted(path: Path | None) -> tuple[BaselineEntry, ...]:
    from hoodsnap.findings.baseline import UnreadableBaselineError, read

    try:
        return read(path) if path is not None else ()
    except UnreadableBaselineError as reason:
        give_up(f"{path} can't be read: {reason}", USAGE)
    except OSError as error:
        give_up(f"{path} can't be read: {error.strerror}", USAGE)


def _parted(
    report: Report, guests: tuple[Guest, ...], entries: tuple[BaselineEntry, ...], source: str
) -> Parted:
    """Divide the findings by the baseline; print what is wrong with it."""
    from hoodsnap.findings.baseline import part

    parted = part(report.about(guests), entries, datetime.now(UTC).date())
    for remark in parted.remarks:
        say(f"{source}: {remark}")
    return parted


def _write_baseline(path: Path, parted: Parted) -> None:
    from hoodsnap.findings.baseline import written

    _write(path, written(parted, datetime.now(UTC).date()))
    count = len(parted.remaining)
    say(f"wrote {path}: {count} new entries; an entry takes effect once it has a reason")


def _prune(path: Path, entries: tuple[BaselineEntry, ...], parted: Parted, report: Report) -> None:
    """Remove the entries that match nothing from the file, unless their checks are undecided."""
    from hoodsnap.findings.baseline import listed

    undecided = {skip.check.name for skip in report.skips if not skip.legal}
    gone = [entry for entry in parted.unused if entry.check not in undecided]
    if gone:
        left = {id(entry) for entry in entries} - {id(entry) for entry in gone}
        _write(path, listed(entry for entry in entries if id(entry) in left))
    for entry in gone:
        say(f"{path}: removed {entry}, which matches no finding ({clean(entry.reason)})")


class _Document(NamedTuple):
    """The findings in a format for programs, and the exit status."""

    text: str
    status: int


def _document(
    report: Report,
    guests: tuple[Guest, ...],
    format: Listing,
    catalog: tuple[Check, ...],
    bundles: list[Path],
    fail_on: list[FailOn] | None,
) -> _Document | None:
    """Return the findings in a format for programs; None for a format for people."""
    ends = status(report, guests, fail_on)
    silent = [one.title for one in report.uncollected]
    if format is Listing.JSON:
        from hoodsnap.render import json

        told = {id(guest) for one in report.everything() for guest in one.guests}
        return _Document(json.render(report, [one for one in guests if id(one) in told]), ends)
    if format is Listing.NDJSON:
        from hoodsnap.render import ndjson

        return _Document("".join(ndjson.render(report, guests)), ends)
    if format is Listing.SARIF:
        from hoodsnap.render import sarif

        names = [str(path) for path in bundles if path != STDIO]
        return _Document(sarif.render(report, guests, catalog, names, silent), ends)
    if format is Listing.NAGIOS:
        from hoodsnap.render import nagios

        return _Document(*nagios.render(report, guests, least(fail_on), silent))
    if format is Listing.JUNIT:
        from hoodsnap.render import junit

        return _Document(junit.render(report, guests, least(fail_on)), ends)
    if format is Listing.PROMETHEUS:
        from hoodsnap.render import prometheus

        return _Document(prometheus.render(report, guests), ends)
    return None


def _list(report: Report, guests: tuple[Guest, ...], format: Listing, verbose: bool) -> None:
    from hoodsnap.render.line import UNBOUNDED

    put(lambda width: _lines(report, guests, format, verbose, width), piped=UNBOUNDED)


def _plain(report: Report, guests: tuple[Guest, ...], format: Listing, verbose: bool) -> str:
    from hoodsnap.render.line import UNBOUNDED

    lines = _lines(report, guests, format, verbose, UNBOUNDED)
    return "".join(f"{line.plain}\n" for line in lines)


def _lines(
    report: Report, guests: tuple[Guest, ...], format: Listing, verbose: bool, width: int
) -> Iterable[Line]:
    """Return the findings for people: many of one check are one, unless verbose."""
    from hoodsnap.findings.grouping import alone, grouped
    from hoodsnap.render import finding, text

    if format is Listing.LINE:
        return map(finding.row, (alone if verbose else grouped)(report.findings))
    return text.findings(report, guests, width=width, verbose=verbose)


def _write(path: Path, text: str) -> None:
    from hoodsnap import output

    try:
        output.write(path, text.encode(errors="replace"), output.PUBLIC)
    except output.UnwritableError as reason:
        give_up(f"{path} can't be written: {reason}")


def _tell_what_is_unheard(report: Report) -> None:
    """Print which layers and checks were not judged: silence must not look like health."""
    from hoodsnap.facts.fact import NOT_READ
    from hoodsnap.findings.silence import one_line

    if report.uncollected:
        say(f"not collected: {one_line(report.uncollected)}")
    broken = Counter((one.check.name, one.reason) for one in report.skips if NOT_READ in one.reason)
    for (name, reason), count in broken.most_common(MOST_BROKEN):
        say(f"not judged: {name}{f' ({count} times)' if count > 1 else ''}: {reason}")
    if len(broken) > MOST_BROKEN:
        say(f"not judged: {len(broken) - MOST_BROKEN} more checks, for similar reasons")
