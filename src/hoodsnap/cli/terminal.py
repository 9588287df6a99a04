"""Output of every command: lines, streams and exit status.

Only this file prints. It escapes every character that a terminal would obey in text from a bundle,
a file name or an argument.
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
    """Format of a report."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Format of the report.")]


def shown(text: str, *, newlines: bool = False) -> str:
    """Return the text with every unprintable character escaped, as in `\\u001b`.

    That covers control characters, changes of writing direction, unusual line ends and bytes that
    are not UTF-8. The escapes are JSON's, so a JSON document stays valid. `newlines`: keep line
    feeds.
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
    """Print a message for the operator to standard error, never into the result."""
    typer.echo(f"hoodsnap: {shown(line, newlines=True)}", err=True)


def put_document(text: str) -> None:
    """Print a whole document without adding a line end."""
    typer.echo(shown(text, newlines=True), nl=False)


def give_up(line: str, status: int = BLIND) -> NoReturn:
    """Print the reason and exit with this status."""
    say(line)
    raise typer.Exit(status)


def put(lines: Callable[[int], Iterable[Line]]) -> None:
    """Print lines rendered for a width, in color on a terminal."""
    if not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR")):
        # A pipe gets no color, so don't spend time on importing rich.
        for line in lines(PIPE_WIDTH):
            typer.echo(shown(line.plain))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in lines(min(console.width, 100)):
        parts = [(shown(text), style) for text, style in line.parts]
        console.print(Text.assemble(*parts))
