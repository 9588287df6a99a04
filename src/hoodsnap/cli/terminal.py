"""What every command says, how it ends, and where its lines go."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from hoodsnap.render.line import Line


PIPE_WIDTH = 80


AGREE, DISAGREE, USAGE, BLIND, INTERRUPTED = 0, 1, 2, 3, 130


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to write the report.")]


def say(line: str) -> None:
    """To whoever started us, never into the result."""
    typer.echo(f"hoodsnap: {line}", err=True)


def give_up(line: str, status: int = BLIND) -> NoReturn:
    """Say why, and end with this exit status."""
    say(line)
    raise typer.Exit(status)


def put(lines: Callable[[int], Iterable[Line]]) -> None:
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
