"""hoodsnap help and version; how help and errors of usage are worded.

The library shows a type behind each option, even `<bool>` behind a flag, and passes on messages of
its own libraries. Both say nothing to an operator.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import hoodsnap
from hoodsnap.cli import completion


class PlainCommand(TyperCommand):
    """Command whose help shows types only where a reader needs them."""

    def get_params(self, ctx: Any) -> Any:
        """Return the options and arguments, `--help` included."""
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """Group of commands whose help shows types only where a reader needs them."""

    def get_params(self, ctx: Any) -> Any:
        """Return the options and arguments, `--help` included."""
        return _plain(super().get_params(ctx))


def _plain(params: Any) -> Any:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif hasattr(param, "display_type_rich"):  # since typer 0.26
            param.display_type_rich = partial(_type_of, type(param), param)
    return params


def _type_of(kind: Any, param: Any, ctx: Any) -> str | None:
    """Return what stands behind a parameter's name in help; nothing behind an argument's."""
    if param.param_type_name == "argument":
        return None
    shown = kind.display_type_rich(param, ctx=ctx) or ""
    plain = shown.replace(" range", "")
    if plain.startswith("<list["):
        plain = f"<{plain.removeprefix('<list[').removesuffix(']>')}>"
    return {"<str>": "<text>", "<int>": "<number>", "<Path>": "<path>"}.get(plain, plain)


def help(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="Command to describe.",
            metavar="[COMMAND]...",
            show_default=False,
            autocompletion=completion.commands,
        ),
    ] = None,
) -> None:
    """Print the help of the program or of one command, like --help."""
    from hoodsnap.cli import program

    program()(args=[*(command or ()), "--help"], prog_name="hoodsnap", standalone_mode=False)


def version() -> None:
    """Print the version."""
    typer.echo(f"hoodsnap {hoodsnap.__version__}")


_INVALID = re.compile(
    r"Invalid value for '(?P<names>.+?)': (?:Value error, )?(?P<why>.*)", re.DOTALL
)
_NOT_ONE_OF = re.compile(r"(?P<given>'.*'|\".*\") is not one of (?P<known>.*?)\.?", re.DOTALL)
_NOT_A_NUMBER = re.compile(
    r"Input should be a valid (?:integer|number)|.* is not a valid (?:int|float)"
)
_TOO_SMALL = re.compile(r"Input should be greater than or equal to (?P<least>\S+)")


def sentence(message: str) -> str:
    """Return an error of usage in plain words: what was given, and what is possible."""
    invalid = _INVALID.fullmatch(message)
    if invalid is None:
        return message
    name = invalid["names"].partition("'")[0]
    if choice := _NOT_ONE_OF.fullmatch(invalid["why"]):
        known = ", ".join(re.findall(r"'([^']*)'", choice["known"]))
        return f"{name} can't be {choice['given'][1:-1]}; it can be: {known}"
    if _NOT_A_NUMBER.match(invalid["why"]):
        return f"{name} must be a number"
    if small := _TOO_SMALL.match(invalid["why"]):
        return f"{name} must be at least {small['least']}"
    return f"{name} can't be used: {invalid['why']}"
