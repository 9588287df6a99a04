"""hoodsnap grade and hoodsnap lab: what a student has done, and sheets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hoodsnap.cli.terminal import USAGE, give_up, put


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


SignersOption = Annotated[
    Path | None,
    typer.Option(
        "--allowed-signers",
        help="The students' keys: remark what its student did not sign. ssh-keygen's file, in "
        "which a signer is called like the student, or NAME@….",
    ),
]


def grade(
    lab: LabArgument,
    submissions: Annotated[
        list[Path],
        typer.Argument(
            help="One student's bundles, or zip; or a folder with a file, folder or zip of each.",
            metavar="BUNDLE",
        ),
    ],
    answers: StudentsAnswersOption = None,
    server: StudentsServerOption = None,
    format: GradeFormatOption = GradeFormat.TEXT,
    hidden: HiddenOption = False,
    allowed_signers: SignersOption = None,
) -> None:
    """Grade bundles, and answers to questions about them, by a lab sheet.

    Exit status: 0 everything is right; 1 something is not; 3 something can't be graded. Of a class:
    0 if every submission could be read, else 3.
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
    help="Lab sheets: show, check, and what their expressions may name.", no_args_is_help=True
)


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
        give_up(str(reason), USAGE)
    put(lambda width: done.lines(width))


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
        give_up(str(reason), USAGE)
    put(lambda width: done.lines(width))
    raise typer.Exit(done.status)


@labs.command("facts")
def lab_facts() -> None:
    """List every field that a sheet's expressions may name."""
    from hoodsnap.grading import command

    put(lambda width: command.facts().lines(width))
