"""The commands. The only file that prints or exits.

Standard output carries the result and nothing else; progress, warnings and the summary go to
standard error. Exit status: 0 the layers agree; 1 they disagree; 2 usage; 3 could not look;
130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

# Looking for plugins costs a program that has none a twentieth of its start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")

import typer

import hoodsnap
from hoodsnap.bundle import STDIO, Bundle, UnreadableBundleError, load, merge, save

if TYPE_CHECKING:
    from hoodsnap.analysis import Report
    from hoodsnap.collect import Wishes
    from hoodsnap.facts.guest import Guest

LAYERS = frozenset(["nova", "nova-db", "libvirt", "kernel", "qemu", "images"])
"""A bundle without a word of any of them is worth nothing."""

AGREE, DISAGREE, USAGE, BLIND, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    help=hoodsnap.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSON = "json"


class FailOn(StrEnum):
    """From which severity on the exit status is 1."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEVER = "never"


Bundles = Annotated[
    list[Path],
    typer.Argument(
        help="Bundles (.json, .json.gz, .json.zst; - for standard input).", metavar="BUNDLE..."
    ),
]
ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--server", "-s", help="Only this server: its UUID, its name or its domain's. Repeatable."
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to write the report.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Every guest's walk, every reason, whole queries.")
]
FailOnOption = Annotated[
    FailOn, typer.Option("--fail-on", help="The severity from which on the exit status is 1.")
]


@app.callback(invoke_without_command=True)
def hood(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Look under the hood of Nova instances."""
    if version:
        typer.echo(f"hoodsnap {hoodsnap.__version__}")
        raise typer.Exit


@app.command()
def explain(
    bundles: Bundles,
    server: ServerOption = None,
    format: FormatOption = Format.TEXT,
    verbose: VerboseOption = False,
    fail_on: FailOnOption = FailOn.WARNING,
) -> None:
    """Walk through the layers of each guest and say where they agree and where they don't."""
    bundle = merge(_loaded(bundles))
    if not _speaks(bundle):
        _give_up("no layer answered when this was collected")
    raise typer.Exit(_explain(bundle, server, format, verbose, fail_on))


OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Where to write (.gz and .zst compress; - for standard output).",
        show_default="hoodsnap-HOST-TIME.json.gz",
    ),
]
AllHostsOption = Annotated[
    bool, typer.Option("--all-hosts", help="nova's records of every host, not only of this one.")
]
CloudOption = Annotated[
    str | None,
    typer.Option("--os-cloud", help="An entry of clouds.yaml.", show_default="OS_CLOUD, else OS_*"),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db-url",
        help="nova's database, as nova.conf would name it.",
        show_default="nova.conf's, else the local socket as root",
    ),
]
LibvirtOption = Annotated[
    str | None,
    typer.Option("--libvirt-uri", help="Which libvirt to ask.", show_default="qemu:///system"),
]
QmpOption = Annotated[
    bool,
    typer.Option(
        "--qmp",
        help="Ask QEMU's monitors too (query-* only). Off by default, because libvirt marks every "
        "domain that is asked as tainted (custom-monitor) in its log and in `virsh dominfo` "
        "until its next start.",
    ),
]
DaysOption = Annotated[int, typer.Option("--days", min=0, help="How far back actions are read.")]


@app.command()
def collect(
    output: OutputOption = None,
    all_hosts: AllHostsOption = False,
    os_cloud: CloudOption = None,
    db_url: DatabaseOption = None,
    libvirt_uri: LibvirtOption = None,
    qmp: QmpOption = False,
    days: DaysOption = 7,
) -> None:
    """Ask every layer of this host, changing nothing, and write the answers to one file."""
    from hoodsnap.collect import Wishes

    wishes = Wishes(all_hosts, os_cloud, db_url, libvirt_uri, qmp, days)
    bundle, interrupted = _collected(wishes)
    _saved(bundle, output or _default_name(bundle))
    if interrupted:
        _give_up("interrupted: the bundle has what was heard until then", INTERRUPTED)
    if not _speaks(bundle):
        _give_up("no layer answered")


@app.command()
def demo() -> None:
    """Collect this host if it has Nova or libvirt, else take the recorded cloud; explain it."""
    from hoodsnap.collect import Wishes, worth_asking

    if worth_asking():
        _say("this host has Nova or libvirt: collecting it")
        bundle, _ = _collected(Wishes())
        path = _default_name(bundle)
        _saved(bundle, path)
    else:
        path = Path(hoodsnap.__file__).parent / "recorded" / "healthy.json.zst"
        _say("this host has neither Nova nor libvirt: taking the recorded cloud")
        bundle = merge(_loaded([path]))
    _explain(bundle, None, Format.TEXT, False, FailOn.NEVER)
    _say(f"the same again: hoodsnap explain {path}")


def main() -> None:
    """The entry point of the console script."""
    # What is read stays until the end, so looking for garbage in it only takes time.
    gc.disable()
    try:
        app(prog_name="hoodsnap")
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(AGREE)
    except Exception as error:
        if os.environ.get("HOODSNAP_DEBUG"):
            raise
        defect = " ".join(f"{type(error).__name__}: {error}".split())
        _say(f"a defect of hoodsnap: {defect} (HOODSNAP_DEBUG=1 shows where)")
        sys.exit(BLIND)


def _explain(
    bundle: Bundle, servers: Iterable[str] | None, format: Format, verbose: bool, fail_on: FailOn
) -> int:
    """Print the report; the exit status."""
    from hoodsnap.analysis import analyze

    report = analyze(bundle)
    guests = _chosen(report, tuple(servers or ()))
    if format is Format.JSON:
        from hoodsnap.render import json

        typer.echo(json.render(report, guests), nl=False)
    else:
        _print(report, guests, verbose)
    return _status(report, guests, fail_on)


def _speaks(bundle: Bundle) -> bool:
    """Whether a single layer that has guests said anything."""
    return any(answer.error is None for answer in bundle.answers if answer.layer in LAYERS)


def _print(report: Report, guests: tuple[Guest, ...], verbose: bool) -> None:
    from hoodsnap.render import text

    if not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR")):
        # A pipe gets no colour, so it need not wait for what would make it.
        for line in text.render(report, guests, verbose=verbose):
            typer.echo(line.plain)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in text.render(report, guests, width=min(console.width, 100), verbose=verbose):
        console.print(Text.assemble(*line.parts))


def _chosen(report: Report, servers: tuple[str, ...]) -> tuple[Guest, ...]:
    if not servers:
        return report.cloud.guests
    found = []
    for wanted in servers:
        matching = [guest for guest in report.cloud.guests if _is_called(guest, wanted)]
        if not matching:
            _give_up(f"no server called {wanted} in this bundle", USAGE)
        found += matching
    return tuple(dict.fromkeys(found))


def _is_called(guest: Guest, wanted: str) -> bool:
    return wanted in (guest.name, guest.domain_name) or wanted.lower() == guest.uuid


def _status(report: Report, guests: tuple[Guest, ...], fail_on: FailOn) -> int:
    from hoodsnap.finding import Severity

    if fail_on is FailOn.NEVER:
        return AGREE
    limit = Severity[fail_on.name]
    worst = max((finding.worst for finding in report.about(guests)), default=0)
    return DISAGREE if worst >= limit else AGREE


def _loaded(paths: Iterable[Path]) -> list[Bundle]:
    bundles = []
    for path in paths:
        try:
            bundles.append(load(path))
        except UnreadableBundleError as reason:
            _give_up(f"{path} can't be read: {reason}")
    return bundles


def _collected(wishes: Wishes) -> tuple[Bundle, bool]:
    """A bundle of this host, and whether it was cut short."""
    from rich.console import Console

    from hoodsnap.collect import Visit
    from hoodsnap.collect.summary import summary

    console = Console(stderr=True, highlight=False)
    interrupted = False
    with console.status("reading nova.conf …") as status:
        visit = Visit(wishes, lambda phase: status.update(f"{phase} …"))
        try:
            visit.run()
        except KeyboardInterrupt:
            interrupted = True
        bundle = visit.bundle()
    for line in summary(bundle):
        console.print(line, markup=False, soft_wrap=True)
    return bundle, interrupted


def _saved(bundle: Bundle, path: Path) -> None:
    try:
        save(bundle, path)
    except OSError as error:
        _give_up(f"{path} can't be written: {error.strerror}")
    if path != STDIO:
        _say(f"wrote {path} ({len(bundle.answers)} answers)")


def _default_name(bundle: Bundle) -> Path:
    host = bundle.answers[0].host if bundle.answers else "host"
    safe = "".join(char if char.isalnum() or char in "-." else "_" for char in host)
    return Path(f"hoodsnap-{safe}-{bundle.started:%Y%m%dT%H%M%SZ}.json.gz")


def _say(line: str) -> None:
    typer.echo(f"hoodsnap: {line}", err=True)


def _give_up(line: str, status: int = BLIND) -> NoReturn:
    _say(line)
    raise typer.Exit(status)
