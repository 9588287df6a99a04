"""Output of every command: lines, streams and exit status.

Only this file prints. It escapes every character that a terminal would obey in text from a bundle,
a file name or an argument.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hoodsnap.exit_status import BLIND
from hoodsnap.output import STDIO, UnwritableError, write
from hoodsnap.printable import escaped

if TYPE_CHECKING:
    from hoodsnap.render.line import Line


PIPE_WIDTH = 80

WIDEST = 160
"""Columns of a terminal that a report uses at most: longer lines are hard to read."""


class Format(StrEnum):
    """Format of a report."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Format of the report.")]


def say(line: str) -> None:
    """Print a message for the operator to standard error, never into the result."""
    remark(f"hoodsnap: {line}")


def remark(line: str) -> None:
    """Print a line to standard error. If it is full, print nothing more: the exit status tells."""
    try:
        typer.echo(escaped(line, newlines=True), err=True)
    except OSError:
        # What is left in its buffer would change the exit status at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def put_document(text: str, output: Path = STDIO) -> None:
    """Print a whole document without adding a line end, or write it to a file."""
    if output != STDIO:
        write_document(text, output)
        return
    typer.echo(_encodable(escaped(text, newlines=True)), nl=False)


def write_document(text: str, output: Path) -> None:
    """Write a document to a file (`-`: standard output) in UTF-8; exit if that fails."""
    try:
        write(output, escaped(text, newlines=True).encode())
    except UnwritableError as reason:
        name = "standard output" if output == STDIO else output
        give_up(f"{name} can't be written: {reason}")
    if output != STDIO:
        say(f"wrote {output}")


def give_up(line: str, status: int = BLIND) -> NoReturn:
    """Print the reason and exit with this status."""
    say(line)
    raise typer.Exit(status)


def width_of_terminal() -> int | None:
    """Return the columns of the terminal; None if standard output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def put(
    lines: Callable[[int], Iterable[Line]], piped: int = PIPE_WIDTH, output: Path = STDIO
) -> None:
    """Print lines rendered for a width, in color on a terminal, or write them to a file.

    `piped`: the width of a pipe or file.
    """
    if output != STDIO:
        write_document("".join(f"{line.plain}\n" for line in lines(piped)), output)
        return
    if not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR")):
        # A pipe gets no color, so don't spend time on importing rich.
        for line in lines(piped):
            typer.echo(_encodable(escaped(line.plain)))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in lines(min(console.width, WIDEST)):
        parts = [(_encodable(escaped(text)), style) for text, style in line.parts]
        console.print(Text.assemble(*parts))


PLAIN_MARKS = {"✗": "x", "✓": "+", "·": "-", "–": "-", "…": "~", "→": ">"}
"""Our marks → what stands for them where the terminal's encoding has none."""


def _encodable(text: str) -> str:
    """Return the text with substitutes for the characters that standard output can't encode."""
    encoding = sys.stdout.encoding or "utf-8"
    if text.isascii() or encoding.lower().startswith("utf"):
        return text
    return "".join(char if _has(encoding, char) else PLAIN_MARKS.get(char, "?") for char in text)


def _has(encoding: str, char: str) -> bool:
    try:
        return bool(char.encode(encoding))
    except UnicodeEncodeError:
        return False
