"""hoodsnap grade grades students' work; hoodsnap lab shows and checks lab sheets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hoodsnap.cli import completion
from hoodsnap.cli.help import PlainCommand, PlainGroup
from hoodsnap.cli.terminal import give_up, put
from hoodsnap.exit_status import USAGE


class GradeFormat(StrEnum):
    """Format of the grades."""

    TEXT = "text"
    GRADESCOPE = "gradescope"
    JUNIT = "junit"
    CSV = "csv"
    JSON = "json"


LabArgument = Annotated[
    str,
    typer.Argument(
        help="A lab that ships with hoodsnap, or the path of a sheet.",
        metavar="LAB",
        autocompletion=completion.labs,
    ),
]


GradeFormatOption = Annotated[
    GradeFormat, typer.Option("--format", "-f", help="Format of the grades.")
]


StudentsAnswersOption = Annotated[
    Path | None, typer.Option("--answers", help="The student's answers, as YAML.", readable=False)
]


StudentsServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        help="The server to grade, given by UUID, name or domain name.",
        show_default="from the sheet, else from the answers, else the only server",
        autocompletion=completion.servers,
    ),
]


HiddenOption = Annotated[
    bool, typer.Option("--hidden", help="Show hidden tasks too (for the teacher).")
]


SignersOption = Annotated[
    Path | None,
    typer.Option(
        "--allowed-signers",
        help="The students' public keys, in ssh-keygen's allowed-signers format: flag submissions "
        "not signed by their student. Each signer is named like the student, or NAME@….",
    ),
]


def grade(
    lab: LabArgument,
    submissions: Annotated[
        list[Path],
        typer.Argument(
            help="One student's bundles or zip; or a folder with a file, folder or zip for each "
            "student.",
            metavar="BUNDLE",
            readable=False,
            autocompletion=completion.recordings,
        ),
    ],
    answers: StudentsAnswersOption = None,
    server: StudentsServerOption = None,
    format: GradeFormatOption = GradeFormat.TEXT,
    hidden: HiddenOption = False,
    allowed_signers: SignersOption = None,
) -> None:
    """Grade bundles, and answers to questions about them, with a lab sheet.

    Exit status: 0 everything is right; 1 something is wrong; 3 something can't be graded. For a
    class: 0 if every submission could be read, else 3.
    """
    from hoodsnap.grading import command

    try:
        done = command.grade(
            lab, submissions, answers, server, format.value, hidden, allowed_signers
        )
    except command.UsageError as reason:
        give_up(str(reason), USAGE)
    put(lambda width: done.lines(width))
    raise typer.Exit(done.status)


labs = typer.Typer(
    help="Show and check lab sheets, and list the fields their expressions may use.",
    no_args_is_help=True,
    cls=PlainGroup,
)


@labs.command("show", cls=PlainCommand)
def lab_show(
    lab: LabArgument,
    answers: Annotated[
        bool, typer.Option("--answers", help="Print only an answers.yaml to fill in.")
    ] = False,
) -> None:
    """Print the tasks and questions of a lab."""
    from hoodsnap.grading import command

    try:
        done = command.show(lab, answers)
    except command.UsageError as reason:
        give_up(str(reason), USAGE)
    put(lambda width: done.lines(width))


@labs.command("check", cls=PlainCommand)
def lab_check(
    sheet: LabArgument,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            "--bundle",
            "-b",
            help="An example bundle that should decide every task.",
            autocompletion=completion.recordings,
        ),
    ] = None,
    server: StudentsServerOption = None,
) -> None:
    """Report errors in a sheet by line, and tasks that an example bundle can't decide."""
    from hoodsnap.grading import command

    try:
        done = command.check(sheet, bundle or (), server)
    except command.UsageError as reason:
        give_up(str(reason), USAGE)
    put(lambda width: done.lines(width))
    raise typer.Exit(done.status)


@labs.command("facts", cls=PlainCommand)
def lab_facts() -> None:
    """List every field that a sheet's expressions may use."""
    from hoodsnap.grading import command

    put(lambda width: command.facts().lines(width))
