"""The commands, one file each. Only this package prints or exits.

Standard output carries only the result; progress, warnings and the summary go to standard error.
Exit status: 0 the layers agree; 1 they disagree; 2 wrong usage; 3 could not look; 4 a layer did not
answer `collect`; 5 its bundle was written elsewhere; 130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

# hoodsnap has no pydantic plugins, and searching for them takes a twentieth of the start-up time.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")

import typer

import hoodsnap
from hoodsnap import extras, memory
from hoodsnap.cli import (
    check,
    collect,
    completion,
    demo,
    diff,
    explain,
    grade,
    help,
    redact,
    replay,
    tables,
    timeline,
    verify,
)
from hoodsnap.cli.terminal import remark, say
from hoodsnap.exit_status import AGREE, BLIND, INTERRUPTED

COMMANDS: dict[str, Callable[..., None]] = {
    "explain": explain.explain,
    "check": check.check,
    "checks": check.checks,
    "timeline": timeline.timeline,
    "diff": diff.diff,
    "list": tables.list_,
    "query": tables.query,
    "collect": collect.collect,
    "redact": redact.redact,
    "verify": verify.verify,
    "shell": replay.shell,
    "replay": replay.replay,
    "serve": replay.serve,
    "grade": grade.grade,
    "demo": demo.demo,
    "completion": completion.completion,
    "help": help.help,
    "version": help.version,
}


def program(wanted: str | None = None) -> typer.Typer:
    """Return the program with all its commands, or with only the wanted one.

    Building every command takes a twentieth of the start-up time.
    """
    made = typer.Typer(
        help=hoodsnap.__doc__,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        cls=help.PlainGroup,
    )
    made.callback(invoke_without_command=True)(hood)
    for name, command in COMMANDS.items():
        if wanted not in COMMANDS or wanted == name:
            text = _paragraphs(command.__doc__ or "")
            made.command(name, help=text, cls=help.PlainCommand)(command)
    if wanted not in COMMANDS:
        made.add_typer(grade.labs, name="lab")
    return made


def _paragraphs(doc: str) -> str:
    """Join the lines of each paragraph: typer would keep the source's line breaks."""
    return "\n\n".join(" ".join(part.split()) for part in doc.split("\n\n"))


def hood(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Ask every layer under a Nova instance the same question and explain where they differ."""
    if version:
        help.version()
        raise typer.Exit


def start() -> NoReturn:
    """Run the program and end its process: the entry point of the console script."""
    if sys.argv[1:2] == ["collect"]:
        from hoodsnap.cli.supervisor import supervised

        supervised(main)
    main()


def main() -> NoReturn:
    """Run the program and raise `SystemExit`."""
    _complete_streams()
    # Everything that is read stays alive until the end, so collecting garbage only costs time.
    gc.disable()
    try:
        if completion.VARIABLE in os.environ:
            completion.begin()
        command = program(sys.argv[1] if len(sys.argv) > 1 else None)
        # In standalone mode the library prints arguments raw, with their escape sequences.
        sys.exit(command(prog_name="hoodsnap", standalone_mode=False) or AGREE)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The program that reads our output (`head`, `less`) has exited.
        _leave_output()
        sys.exit(AGREE)
    except MemoryError:
        reason = memory.sentence()
        memory.lift()
        say(reason)
        sys.exit(BLIND)
    except Exception as error:
        if completion.VARIABLE in os.environ:
            sys.exit(BLIND)  # a key that completes nothing; a message would disturb the line
        if _is_about_usage(error):
            sys.exit(_refused(error))
        if isinstance(error, ModuleNotFoundError) and (advice := extras.advice(error.name)):
            say(f"the Python package {error.name} is not installed; {advice}")
            sys.exit(BLIND)
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
    """Redirect standard output to /dev/null, or Python reports a failed flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complete_streams() -> None:
    """Open closed standard streams on /dev/null, or another file would get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _is_about_usage(error: Exception) -> bool:
    # Older releases of typer use click's exception classes; newer ones define their own.
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _refused(error: Any) -> int:
    """Print what is wrong with the arguments and return the exit status."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # prints the help, which quotes no argument
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    if context is not None:
        remark(context.get_usage())
    say(help.sentence(error.format_message()))
    return int(error.exit_code)


def _report(error: Exception) -> None:
    """Write a report of a defect and print its path."""
    from hoodsnap.cli import crash

    kind = type(error).__name__
    try:
        path = crash.write(error, sys.argv[1:], COMMANDS)
    except OSError as reason:
        say(f"a defect in hoodsnap: {kind}; its report can't be written: {reason.strerror}")
        return
    say(
        f"a defect in hoodsnap: {kind}; please report it and attach {path}, "
        "which contains no data from the bundle"
    )
