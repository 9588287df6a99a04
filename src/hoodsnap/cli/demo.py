"""hoodsnap demo: collect, explain and replay in one go, with or without a cloud."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap import recorded
from hoodsnap.cli import completion
from hoodsnap.cli.bundles import merged
from hoodsnap.cli.collect import collected, default_name, without_leaks
from hoodsnap.cli.explain import FailOn, ReportFormat, tell
from hoodsnap.cli.interruption import Interruption
from hoodsnap.cli.terminal import give_up, put, say
from hoodsnap.exit_status import USAGE
from hoodsnap.suggestion import did_you_mean

if TYPE_CHECKING:
    from hoodsnap.bundle import Bundle
    from hoodsnap.render.line import Line

COMMANDS = (("virsh", "list", "--all"), ("pgrep", "-l", "qemu"))
"""Commands to run against the recording; the first one that is installed here is used."""


def demo(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Recorded fault to explain (see --list).",
            metavar="FAULT",
            show_default=False,
            autocompletion=completion.faults,
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the recorded faults and exit.")
    ] = False,
) -> None:
    """Collect this host if it has Nova or libvirt and explain it. If the host has no guests,
    explain a recorded cloud instead. With FAULT, explain a recorded cloud with this fault.

    Every command that reads bundles accepts recordings, too: @demo is a healthy cloud, and
    @demo/FAULT is a cloud with this fault.
    """
    if listing:
        put(_listed)
        return
    if name is not None:
        _explain(name)
        return
    bundle, path = _here()
    tell(bundle, None, ReportFormat.TEXT, False, [FailOn.NEVER])
    say(f"to print this report again: {_command('explain', path)}")
    _replay(bundle, path)
    say(f"to explore the recording: {_command('shell', path)}")
    say(f"to explain a recorded fault: {_command('demo', 'base-moved')}")


def _listed(width: int) -> Iterator[Line]:
    from hoodsnap.render.line import line

    faults = recorded.faults()
    first = max(map(len, faults)) + 2
    for name, what in faults.items():
        head, *rest = textwrap.wrap(what, max(width - first, 30), break_long_words=False)
        yield line((name.ljust(first), "bold"), head)
        yield from (line(" " * first + more) for more in rest)


def _explain(name: str) -> None:
    """Explain a recorded fault."""
    faults = recorded.faults()
    if name not in faults:
        meant = did_you_mean(name, faults) or f" (see: {_command('demo', '--list')})"
        give_up(f"no recorded fault is named {name}{meant}", USAGE)
    path = Path(recorded.name_of(name))
    say(f"{name}: {faults[name]}")
    tell(merged([path]), None, ReportFormat.TEXT, False, [FailOn.NEVER])
    sys.stdout.flush()
    say(f"to print this report again: {_command('explain', path)}")
    say(f"to explore the recording: {_command('shell', path)}")


def _here() -> tuple[Bundle, Path]:
    """Return the bundle of this host, or the recorded cloud if the host has no guests."""
    from hoodsnap.collect.visit import worth_asking

    if worth_asking():
        say("this host runs Nova or libvirt: collecting it")
        return _collect()
    say("this host runs neither Nova nor libvirt: using the recorded cloud")
    return _recorded()


def _recorded() -> tuple[Bundle, Path]:
    path = Path(recorded.DEMO)
    return merged([path]), path


def _command(name: str, *arguments: object) -> str:
    """Return a command to type. `make demo` installs hoodsnap where no shell looks for it."""
    program = Path(sys.argv[0])
    if program.name != "hoodsnap":
        words = [sys.executable, "-m", "hoodsnap"]
    elif shutil.which("hoodsnap") is None:
        words = [str(program)]
    else:
        words = ["hoodsnap"]
    return shlex.join([*words, name, *map(str, arguments)])


def _collect() -> tuple[Bundle, Path]:
    from hoodsnap.cli.rescue import must_be_free, rescued
    from hoodsnap.collect.visit import Wishes
    from hoodsnap.facts.cloud.cloud import read

    must_be_free(Path("hoodsnap-HOST-TIME.json.gz"))
    with Interruption() as interruption:
        bundle, _ = collected(Wishes(), interruption)
        bundle = without_leaks(bundle)
        path = default_name(bundle)
        rescued(bundle, path)
    if read(bundle).guests:
        return bundle, path
    say("this host has no guests: using the recorded cloud")
    return _recorded()


def _replay(bundle: Bundle, path: Path) -> None:
    """Run a client of this machine against the recording."""
    from hoodsnap.replay import shell
    from hoodsnap.replay.recording import Recording, hosts
    from hoodsnap.replay.seal.namespaces import NoNamespacesError

    for command in COMMANDS:
        if shutil.which(command[0]):
            break
    else:
        return
    say(f"the recording answers real clients: {_command('replay', path, '--', *command)}")
    sys.stdout.flush()  # or the forked child writes the buffered output a second time
    try:
        shell.run(Recording(bundle, min(hosts(bundle))), None, say, arguments=command)
    except NoNamespacesError as reason:
        say(str(reason))
