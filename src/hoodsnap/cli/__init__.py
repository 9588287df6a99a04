"""The commands, a file each. Only this folder prints or exits.

Standard output carries the result and nothing else; progress, warnings and the summary go to
standard error. Exit status: 0 the layers agree; 1 they disagree; 2 usage; 3 could not look;
130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

# Looking for plugins costs a program that has none a twentieth of its start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")

import typer

import hoodsnap
from hoodsnap import memory
from hoodsnap.cli import check, collect, demo, explain, grade, redact, replay, verify
from hoodsnap.cli.terminal import AGREE, BLIND, INTERRUPTED, say

COMMANDS: dict[str, Callable[..., None]] = {
    "explain": explain.explain,
    "check": check.check,
    "checks": check.checks,
    "collect": collect.collect,
    "redact": redact.redact,
    "verify": verify.verify,
    "shell": replay.shell,
    "replay": replay.replay,
    "serve": replay.serve,
    "grade": grade.grade,
    "demo": demo.demo,
}


def program(wanted: str | None = None) -> typer.Typer:
    """The program with all its commands; or with one that is wanted alone, since a person waits
    for it and building them all takes a twentieth of the start."""
    made = typer.Typer(
        help=hoodsnap.__doc__,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback(invoke_without_command=True)(hood)
    for name, command in COMMANDS.items():
        if wanted not in COMMANDS or wanted == name:
            made.command(name)(command)
    if wanted not in COMMANDS:
        made.add_typer(grade.labs, name="lab")
    return made


def hood(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Look under the hood of Nova instances."""
    if version:
        typer.echo(f"hoodsnap {hoodsnap.__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point of the console script."""
    _complete_streams()
    # What is read stays until the end, so looking for garbage in it only takes time.
    gc.disable()
    try:
        command = program(sys.argv[1] if len(sys.argv) > 1 else None)
        # Not standalone: the library would print an argument as it is, escapes and all.
        sys.exit(command(prog_name="hoodsnap", standalone_mode=False) or AGREE)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (`head`, `less`) closed it.
        _leave_output()
        sys.exit(AGREE)
    except MemoryError:
        reason = memory.sentence()
        memory.lift()
        say(reason)
        sys.exit(BLIND)
    except Exception as error:
        if _is_about_usage(error):
            sys.exit(_refused(error))
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            say(f"standard output can't be written: {error.strerror}")
            _leave_output()
            sys.exit(BLIND)
        if os.environ.get("HOODSNAP_DEBUG"):
            raise
        memory.lift()
        _report(error)
        sys.exit(BLIND)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _leave_output() -> None:
    """Send what is still to be written nowhere: Python would complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complete_streams() -> None:
    """Let a standard stream that was closed lead nowhere, before another file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _is_about_usage(error: Exception) -> bool:
    # Older releases of typer take the class from click, newer ones have their own.
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _refused(error: Any) -> int:
    """Say what is wrong with the arguments; the exit status."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # the help, which quotes no argument
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    if context is not None:
        typer.echo(context.get_usage(), err=True)
    say(error.format_message())
    return int(error.exit_code)


def _report(error: Exception) -> None:
    """Write a report of a defect, and print where it is."""
    from hoodsnap.cli import crash

    kind = type(error).__name__
    try:
        path = crash.write(error, sys.argv[1:], COMMANDS)
    except OSError as reason:
        say(f"a defect of hoodsnap: {kind}; no report of it can be written: {reason.strerror}")
        return
    say(
        f"a defect of hoodsnap: {kind}; please report it, with {path}, "
        "which holds nothing of the bundle"
    )
