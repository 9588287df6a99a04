"""The commands. The only file that prints or exits.

Standard output carries the result and nothing else; progress, warnings and the summary go to
standard error. Exit status: 0 the layers agree; 1 they disagree; 2 usage; 3 could not look;
130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

# Looking for plugins costs a program that has none a twentieth of its start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")

import typer

import hoodsnap
from hoodsnap.bundle import STDIO, Bundle, UnreadableBundleError, load, merge, save

if TYPE_CHECKING:
    from hoodsnap import trust
    from hoodsnap.analysis import Report
    from hoodsnap.baseline import Entry
    from hoodsnap.check import Check
    from hoodsnap.collect import Wishes
    from hoodsnap.facts.guest import Guest
    from hoodsnap.render.text import Line
    from hoodsnap.replay.recording import Recording
    from hoodsnap.verdict import Finding

LAYERS = frozenset(["nova", "nova-db", "libvirt", "kernel", "qemu", "images"])
"""A bundle without a word of any of them is worth nothing."""

GUESTS_LIVE_IN = frozenset(["libvirt", "kernel", "images"])
"""The layers of a host without which nearly nothing of its guests is judged."""

PIPE_WIDTH = 80

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


class Document(StrEnum):
    """How the whole report is written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class Listing(StrEnum):
    """How findings alone are written."""

    LINE = "line"
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
DocumentOption = Annotated[
    Document,
    typer.Option("--format", "-f", help="How to write the report; markdown is for bug trackers."),
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
    format: DocumentOption = Document.TEXT,
    verbose: VerboseOption = False,
    fail_on: FailOnOption = FailOn.WARNING,
) -> None:
    """Walk through the layers of each guest and say where they agree and where they don't."""
    bundle = _merged(bundles)
    if not _speaks(bundle):
        _give_up("no layer answered when this was collected")
    raise typer.Exit(_explain(bundle, server, format, verbose, fail_on))


ListingOption = Annotated[
    Listing,
    typer.Option("--format", "-f", help="One line for each finding, the whole finding, or JSON."),
]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select", help="Only these checks: names or topics, * and ? allowed. Repeatable."
    ),
]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", help="Not these checks. Repeatable.")
]
BaselineOption = Annotated[
    Path | None,
    typer.Option("--baseline", help="Findings that were accepted, each for a reason and a time."),
]
WriteBaselineOption = Annotated[
    Path | None,
    typer.Option(
        "--write-baseline", help="Write the findings there are as a baseline, to be filled in."
    ),
]


@app.command()
def check(
    bundles: Bundles,
    server: ServerOption = None,
    select: SelectOption = None,
    ignore: IgnoreOption = None,
    baseline: BaselineOption = None,
    write_baseline: WriteBaselineOption = None,
    format: ListingOption = Listing.LINE,
    verbose: VerboseOption = False,
    fail_on: FailOnOption = FailOn.WARNING,
) -> None:
    """Print the findings and nothing else: for cron and CI. Silent if there are none."""
    from hoodsnap.analysis import analyze

    catalogue = _selected(select, ignore)
    if write_baseline and write_baseline != baseline and write_baseline.exists():
        _give_up(f"{write_baseline} is there: with --baseline too its reasons are kept", USAGE)
    entries = _accepted(baseline)
    bundle = _merged(bundles)
    if not _speaks(bundle):
        _give_up("no layer answered when this was collected")
    report = analyze(bundle, catalogue)
    guests = _chosen(report, tuple(server or ()))
    _tell_what_is_unheard(report)
    parted = _parted(report, guests, entries, write_baseline, str(baseline))
    if write_baseline:
        raise typer.Exit
    report = replace(report, findings=parted)
    _list(report, guests, format, verbose)
    raise typer.Exit(_status(report, guests, fail_on))


@app.command()
def checks(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Checks or topics, * and ? allowed.", metavar="NAME..."),
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """List the checks; of one that is named, print its page."""
    from hoodsnap.render import catalogue

    wanted = _selected(names, None)
    if format is Format.JSON:
        typer.echo(catalogue.as_json(wanted), nl=False)
        return
    lines = catalogue.listing(wanted)
    if names and all(name in {check.name for check in wanted} for name in names):
        pages = ("\n".join(catalogue.page(check)) for check in wanted)
        lines = iter(["\n\n".join(pages)])
    for line in lines:
        typer.echo(line)


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
SignOption = Annotated[
    Path | None,
    typer.Option(
        "--sign",
        metavar="KEY",
        help="Sign the bundle with this OpenSSH key; a public one is looked for in the agent.",
    ),
]
ChallengeOption = Annotated[
    str | None,
    typer.Option("--challenge", help="A text that somebody chose, put into the bundle."),
]


@app.command()
def collect(
    output: OutputOption = None,
    all_hosts: AllHostsOption = False,
    os_cloud: CloudOption = None,
    db_url: DatabaseOption = None,
    libvirt_uri: LibvirtOption = None,
    qmp: QmpOption = False,
    days: DaysOption = 7,
    sign: SignOption = None,
    challenge: ChallengeOption = None,
) -> None:
    """Ask every layer of this host, changing nothing, and write the answers to one file."""
    from hoodsnap.collect import Wishes

    _check_key(sign)
    wishes = Wishes(all_hosts, os_cloud, db_url, libvirt_uri, qmp, days, challenge)
    bundle, interrupted = _collected(wishes)
    _must_have_no_secret(bundle)
    path = output or _default_name(bundle)
    if sign is not None:
        bundle = _signed(bundle, sign, path)
    _saved(bundle, path)
    if interrupted:
        _give_up("interrupted: the bundle has what was heard until then", INTERRUPTED)
    if not _speaks(bundle):
        _give_up("no layer answered")


RedactedOption = Annotated[
    Path,
    typer.Option("--output", "-o", help="Where to write (.gz and .zst compress; - for stdout)."),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="The key that the pseudonyms are made with: made if it is not there. Several bundles "
        "redacted with one key still belong together.",
        show_default="a new key, which nobody keeps",
    ),
]


@app.command()
def redact(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", metavar="BUNDLE")],
    output: RedactedOption,
    key_file: KeyFileOption = None,
) -> None:
    """Write a bundle with pseudonyms for names, ids and addresses; every relation stays.

    Whoever has the key can recompute which pseudonym belongs to which name: keep it to yourself.
    The signature goes, since it names somebody; the new fingerprint names the original's.
    """
    from hoodsnap import pseudonym, redact
    from hoodsnap.fingerprint import fingerprint, fingerprinted

    try:
        key = pseudonym.key(key_file)
    except (OSError, ValueError) as error:
        _give_up(f"{key_file} can't be used: {getattr(error, 'strerror', None) or error}", USAGE)
    original = _merged([bundle])
    redactor = redact.Redactor(pseudonym.Pseudonyms(key), [original])
    redacted = fingerprinted(redactor.bundle(original), fingerprint(original))
    for line in redactor.summary():
        _say(line)
    _saved(redacted, output)


AllowedSignersOption = Annotated[
    Path | None,
    typer.Option("--allowed-signers", help="Whose signatures count: ssh-keygen's file of signers."),
]
AnswersOption = Annotated[
    str | None,
    typer.Option("--challenge", help="The text that was given to whoever collected the bundle."),
]
WithinOption = Annotated[
    int | None,
    typer.Option("--within", metavar="MINUTES", min=0, help="How old the bundle may be."),
]

PlausibleOption = Annotated[
    bool,
    typer.Option("--plausible", help="Also compare what a forger forgets: clocks, numbers, files."),
]


@app.command()
def verify(
    bundles: Bundles,
    allowed_signers: AllowedSignersOption = None,
    challenge: AnswersOption = None,
    within: WithinOption = None,
    plausible: PlausibleOption = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Say whether bundles are still what was collected, by whom and for whom."""
    from hoodsnap import trust

    if within is not None and challenge is None:
        _give_up("--within needs --challenge: without it anybody can say any time", USAGE)
    if allowed_signers is not None and not allowed_signers.is_file():
        _give_up(f"{allowed_signers} can't be read: there is no such file", USAGE)
    wanted = trust.Wanted(allowed_signers, challenge, within, plausible)
    verdicts, status = _trusted(bundles, wanted)
    if format is Format.JSON:
        typer.echo(trust.as_json(verdicts), nl=False)
    else:
        for line in trust.lines(verdicts):
            typer.echo(line)
    raise typer.Exit(status)


HostOption = Annotated[
    str | None,
    typer.Option("--host", help="Which host of the bundle.", show_default="the only one"),
]
CoverageOption = Annotated[
    bool,
    typer.Option("--coverage", help="Say in the end what was asked for and not recorded."),
]


@app.command()
def shell(
    bundles: Bundles,
    host: HostOption = None,
    command: Annotated[
        str | None, typer.Option("--command", "-c", help="Run this line instead of typing.")
    ] = None,
    coverage: CoverageOption = False,
) -> None:
    """Open a shell in which the real virsh, mysql, openstack, ps … meet the recording.

    Nothing in it is live and nothing can be changed; it has no network. Whatever was not recorded
    is refused by name.
    """
    raise typer.Exit(_replayed(bundles, host, command, (), coverage))


@app.command()
def replay(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", metavar="BUNDLE")],
    command: Annotated[
        list[str], typer.Argument(help="A command and its arguments.", metavar="-- COMMAND...")
    ],
    host: HostOption = None,
    coverage: CoverageOption = False,
) -> None:
    """Run one command against the recording: `hoodsnap replay bundle.json -- virsh list`."""
    raise typer.Exit(_replayed([bundle], host, None, tuple(command), coverage))


@app.command()
def serve(
    bundles: Bundles,
    host: HostOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if a live libvirt or database listens here.")
    ] = False,
) -> None:
    """Let the stand-ins listen until interrupted, and print how clients are led to them.

    For those who can't have namespaces. A client may still go elsewhere, so this is refused where
    a live libvirt or database listens.
    """
    import tempfile
    import threading

    from hoodsnap.replay import serve as serving
    from hoodsnap.replay.recording import plain

    recording = _recording(bundles, host)
    live = serving.live_sockets()
    if live and not force:
        _give_up(
            f"a live server listens at {live[0]}, and a client that does not do as it is told would"
            " reach it: hoodsnap shell keeps them apart; --force serves all the same",
            USAGE,
        )
    with tempfile.TemporaryDirectory(prefix="hoodsnap-") as folder:
        for line in serving.start(recording, Path(folder), _say):
            typer.echo(line)
        sys.stdout.flush()
        _say(f"serving {plain(recording.host)} as it was; Ctrl-C ends it")
        threading.Event().wait()


class GradeFormat(StrEnum):
    """How grades are written."""

    TEXT = "text"
    GRADESCOPE = "gradescope"
    JUNIT = "junit"
    CSV = "csv"
    JSON = "json"


LabArgument = Annotated[
    str,
    typer.Argument(help="A lab that comes with hoodsnap, or a sheet's path.", metavar="LAB"),
]
GradeFormatOption = Annotated[
    GradeFormat, typer.Option("--format", "-f", help="How to write the grades.")
]
StudentsAnswersOption = Annotated[
    Path | None, typer.Option("--answers", help="The student's answers, as YAML.")
]
StudentsServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        help="The server that is graded: its UUID, its name or its domain's.",
        show_default="the sheet's, else the answers', else the only one",
    ),
]
HiddenOption = Annotated[
    bool, typer.Option("--hidden", help="Show hidden tasks too: for the teacher.")
]


@app.command()
def grade(
    lab: LabArgument,
    submissions: Annotated[
        list[Path],
        typer.Argument(
            help="One student's bundles, or zip; or a folder with a file, folder or zip of each.",
            metavar="BUNDLE...",
        ),
    ],
    answers: StudentsAnswersOption = None,
    server: StudentsServerOption = None,
    format: GradeFormatOption = GradeFormat.TEXT,
    hidden: HiddenOption = False,
) -> None:
    """Grade bundles, and answers to questions about them, by a lab sheet.

    Exit status: 0 everything is right; 1 something is not; 3 something can't be graded. Of a class:
    0 if every submission could be read, else 3.
    """
    from hoodsnap.grading import command

    try:
        done = command.grade(lab, submissions, answers, server, format.value, hidden)
    except command.UsageError as reason:
        _give_up(str(reason), USAGE)
    _put(lambda width: done.lines(width))
    raise typer.Exit(done.status)


labs = typer.Typer(
    help="Lab sheets: show, check, and what their expressions may name.", no_args_is_help=True
)
app.add_typer(labs, name="lab")


@labs.command("show")
def lab_show(
    lab: LabArgument,
    answers: Annotated[
        bool, typer.Option("--answers", help="An answers.yaml to fill in, and nothing else.")
    ] = False,
) -> None:
    """Print the tasks and questions of a lab."""
    from hoodsnap.grading import command

    try:
        done = command.show(lab, answers)
    except command.UsageError as reason:
        _give_up(str(reason), USAGE)
    _put(lambda width: done.lines(width))


@labs.command("check")
def lab_check(
    sheet: LabArgument,
    bundle: Annotated[
        list[Path] | None,
        typer.Option("--bundle", "-b", help="An example, by which everything is to be graded."),
    ] = None,
    server: StudentsServerOption = None,
) -> None:
    """Say what is wrong with a sheet, with its lines, and what of it an example can't decide."""
    from hoodsnap.grading import command

    try:
        done = command.check(sheet, bundle or (), server)
    except command.UsageError as reason:
        _give_up(str(reason), USAGE)
    _put(lambda width: done.lines(width))
    raise typer.Exit(done.status)


@labs.command("facts")
def lab_facts() -> None:
    """List every field that a sheet's expressions may name."""
    from hoodsnap.grading import command

    _put(lambda width: command.facts().lines(width))


@app.command()
def demo() -> None:
    """Collect this host if it has Nova or libvirt, else take the recorded cloud; explain it."""
    from hoodsnap.collect import Wishes, worth_asking

    if worth_asking():
        _say("this host has Nova or libvirt: collecting it")
        bundle, _ = _collected(Wishes())
        _must_have_no_secret(bundle)
        path = _default_name(bundle)
        _saved(bundle, path)
    else:
        path = Path(hoodsnap.__file__).parent / "recorded" / "healthy.json.zst"
        _say("this host has neither Nova nor libvirt: taking the recorded cloud")
        bundle = _merged([path])
    _explain(bundle, None, Document.TEXT, False, FailOn.NEVER)
    _say(f"the same again: hoodsnap explain {path}")
    _say(f"ask it yourself: hoodsnap shell {path} -c 'pgrep -a qemu'")


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


def _recording(paths: Sequence[Path], host: str | None) -> Recording:
    """The host of these bundles that is to be replayed."""
    from hoodsnap.replay.recording import Recording, hosts, plain

    bundle = _merged(paths)
    there = hosts(bundle)
    if host is None and len(there) == 1:
        (host,) = there
    if host not in there:
        names = plain(", ".join(there)) or "none"
        wanted = f"there is no host {host}" if host else "--host says which"
        _give_up(f"{wanted}; hosts of this bundle: {names}", USAGE)
    return Recording(bundle, host)


def _replayed(
    paths: Sequence[Path],
    host: str | None,
    line: str | None,
    arguments: tuple[str, ...],
    coverage: bool,
) -> int:
    from hoodsnap.replay import shell as replaying
    from hoodsnap.replay.namespaces import NoNamespaces

    recording = _recording(paths, host)
    try:
        return replaying.run(recording, line, _say, arguments=arguments, tell_missed=coverage)
    except NoNamespaces as reason:
        _give_up(str(reason))


def _check_key(key: Path | None) -> None:
    """Better before an hour's collecting than after."""
    if key is None:
        return
    from hoodsnap.signature import SshKeygenError, require_ssh_keygen

    if not key.is_file():
        _give_up(f"{key} can't be signed with: there is no such file", USAGE)
    try:
        require_ssh_keygen()
    except SshKeygenError as reason:
        _give_up(f"the bundle can't be signed: {reason}")


def _signed(bundle: Bundle, key: Path, path: Path) -> Bundle:
    """The bundle with a signature. If there can't be one, what was collected is not lost."""
    from hoodsnap.fingerprint import fingerprint, signed
    from hoodsnap.signature import SshKeygenError, sign

    try:
        return signed(bundle, sign(fingerprint(bundle), key))
    except SshKeygenError as reason:
        _saved(bundle, path)
        _give_up(f"the bundle is not signed: {reason}")


def _trusted(paths: Sequence[Path], wanted: trust.Wanted) -> tuple[list[trust.Trust], int]:
    """What is to be said of each bundle that can be read; the exit status of all."""
    from hoodsnap import trust
    from hoodsnap.signature import SshKeygenError

    verdicts, status = [], AGREE
    for path in paths:
        try:
            verdict = trust.examine(load(path), str(path), wanted, datetime.now(UTC))
        except UnreadableBundleError as reason:
            _say(f"{path} can't be read: {reason}")
            status = BLIND
            continue
        except SshKeygenError as reason:
            _give_up(f"signatures can't be checked: {reason}")
        verdicts.append(verdict)
        blind = verdict.verdict.recorded is None and not verdict.verdict.altered
        worst = BLIND if blind else DISAGREE if verdict.doubts else AGREE
        status = max(status, worst)
    return verdicts, status


def _explain(
    bundle: Bundle, servers: Iterable[str] | None, format: Document, verbose: bool, fail_on: FailOn
) -> int:
    """Print the report; the exit status."""
    from hoodsnap.analysis import analyze

    report = analyze(bundle)
    guests = _chosen(report, tuple(servers or ()))
    if format is Document.JSON:
        from hoodsnap.render import json

        typer.echo(json.render(report, guests), nl=False)
    elif format is Document.MARKDOWN:
        from hoodsnap.render import markdown

        typer.echo(markdown.render(report, guests, verbose=verbose), nl=False)
    else:
        _print(report, guests, verbose)
    return _status(report, guests, fail_on)


def _selected(select: list[str] | None, ignore: list[str] | None) -> tuple[Check, ...]:
    from fnmatch import fnmatchcase

    from hoodsnap.checks import CATALOGUE

    def matching(patterns: list[str] | None) -> set[str]:
        found: set[str] = set()
        for pattern in (part for given in patterns or () for part in given.split(",")):
            names = {
                check.name
                for check in CATALOGUE
                if fnmatchcase(check.name, pattern) or fnmatchcase(check.topic, pattern)
            }
            if not names:
                _give_up(f"no check and no topic is called {pattern} (see: hoodsnap checks)", USAGE)
            found |= names
        return found

    wanted, unwanted = matching(select), matching(ignore)
    return tuple(
        check
        for check in CATALOGUE
        if (check.name in wanted or not select) and check.name not in unwanted
    )


def _accepted(path: Path | None) -> tuple[Entry, ...]:
    from hoodsnap.baseline import UnreadableBaselineError, read

    try:
        return read(path) if path is not None else ()
    except UnreadableBaselineError as reason:
        _give_up(f"{path} can't be read: {reason}", USAGE)
    except OSError as error:
        _give_up(f"{path} can't be read: {error.strerror}", USAGE)


def _parted(
    report: Report,
    guests: tuple[Guest, ...],
    entries: tuple[Entry, ...],
    write: Path | None,
    source: str,
) -> tuple[Finding, ...]:
    """The findings that nobody accepted; what is wrong with the baseline is said."""
    from hoodsnap.baseline import part, written

    today = datetime.now(UTC).date()
    parted = part(report.about(guests), entries, today)
    for remark in parted.remarks:
        _say(f"{source}: {remark}")
    if write is not None:
        try:
            write.write_text(written(parted, today))
        except OSError as error:
            _give_up(f"{write} can't be written: {error.strerror}")
        count = len(parted.remaining)
        _say(f"wrote {write}: {count} new entries, each accepts nothing before it has a reason")
    return parted.remaining


def _list(report: Report, guests: tuple[Guest, ...], format: Listing, verbose: bool) -> None:
    from hoodsnap.render import text

    if format is Listing.JSON:
        from hoodsnap.render import json

        told = {id(guest) for one in report.everything() for guest in one.guests}
        typer.echo(json.render(report, [guest for guest in guests if id(guest) in told]), nl=False)
    elif format is Listing.LINE:
        _put(lambda width: map(text.row, report.findings))
    else:
        _put(lambda width: text.findings(report, guests, width=width, verbose=verbose))


def _tell_what_is_unheard(report: Report) -> None:
    """Silence must not look like health."""
    for host in report.cloud.hosts:
        for layer in sorted(GUESTS_LIVE_IN & host.unheard.keys()):
            _say(f"{host.name}: not judged: {host.unheard[layer]}")


def _speaks(bundle: Bundle) -> bool:
    """Whether a single layer that has guests said anything."""
    return any(answer.error is None for answer in bundle.answers if answer.layer in LAYERS)


def _print(report: Report, guests: tuple[Guest, ...], verbose: bool) -> None:
    from hoodsnap.render import text

    _put(lambda width: text.render(report, guests, width=width, verbose=verbose))


def _put(lines: Callable[[int], Iterable[Line]]) -> None:
    """Print lines made for a width, in colour where a person looks."""
    if not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR")):
        # A pipe gets no colour, so it need not wait for what would make it.
        for line in lines(PIPE_WIDTH):
            typer.echo(line.plain)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in lines(min(console.width, 100)):
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


def _merged(paths: Sequence[Path]) -> Bundle:
    """One bundle of all of these."""
    bundles = _loaded(paths)
    if len(bundles) > 1:
        from hoodsnap.facts.visits import newest

        bundles, remarks = newest(bundles)
        for remark in remarks:
            _say(remark)
    return merge(bundles)


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
    from hoodsnap.fingerprint import fingerprinted

    console = Console(stderr=True, highlight=False)
    interrupted = False
    with console.status("reading nova.conf …") as status:
        visit = Visit(wishes, lambda phase: status.update(f"{phase} …"))
        try:
            visit.run()
        except KeyboardInterrupt:
            interrupted = True
        bundle = fingerprinted(visit.bundle())
    for line in summary(bundle):
        console.print(line, markup=False, soft_wrap=True)
    return bundle, interrupted


def _must_have_no_secret(bundle: Bundle) -> None:
    from hoodsnap.collect.fence import leaks

    found = list(leaks(bundle))
    for leak in found[:10]:
        _say(str(leak))
    if found:
        _give_up(
            f"the bundle is not written: {len(found)} places in it look like secrets, "
            "which no collector may keep; please report the places"
        )


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
