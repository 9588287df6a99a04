"""Output of every command: its lines, where they go, and its exit status.

The one place that prints: whatever comes from a bundle, a file's name or an argument is shown here
without a character that a terminal obeys.
"""

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


def shown(text: str, *, newlines: bool = False) -> str:
    """Text with everything that is not to be seen as an escape: `\\u001b`. That covers controls,
    what turns the direction of writing, other line ends, and bytes that were not UTF-8.

    The escapes are JSON's, so that a JSON document stays one. `newlines`: line feeds stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (newlines and char == "\n") else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    number = ord(char)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def say(line: str) -> None:
    """Print a message for the operator on standard error, never into the result."""
    typer.echo(f"hoodsnap: {shown(line, newlines=True)}", err=True)


def put_document(text: str) -> None:
    """Print a whole document, with its own line end or none."""
    typer.echo(shown(text, newlines=True), nl=False)


def give_up(line: str, status: int = BLIND) -> NoReturn:
    """Print the reason, and end with this exit status."""
    say(line)
    raise typer.Exit(status)


def put(lines: Callable[[int], Iterable[Line]]) -> None:
    """Print lines made for a width, in colour where a person looks."""
    if not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR")):
        # A pipe gets no colour, so it need not wait for what would make it.
        for line in lines(PIPE_WIDTH):
            typer.echo(shown(line.plain))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in lines(min(console.width, 100)):
        parts = [(shown(text), style) for text, style in line.parts]
        console.print(Text.assemble(*parts))
