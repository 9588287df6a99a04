"""Manual pages, made from the commands themselves: docs/man/*.1.

A wheel installs them into share/man/man1, where `man hoodsnap-explain` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

import hoodsnap
from hoodsnap.cli import program

FILES = (
    ("hoodsnap-HOST-TIME.json.gz", "The bundle that hoodsnap collect writes by default."),
    ("clouds.yaml, nova.conf", "Where hoodsnap collect finds the cloud and nova's databases."),
)


def pages(status: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield the name of each page's file, and its text.

    `status`: the meanings of each exit status.
    """
    root: Any = typer.main.get_command(program())
    commands = list(_commands(root, ("hoodsnap",)))
    for words, command in commands:
        name = "-".join(words)
        others = ["-".join(one) for one, _ in commands if one != words]
        yield f"{name}.1", "\n".join(_page(words, command, status, others)) + "\n"


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*words, name))


def _page(
    words: tuple[str, ...],
    command: Any,
    status: Mapping[str, Sequence[str]],
    others: Sequence[str],
) -> Iterator[str]:
    name = "-".join(words)
    context = typer.Context(command, info_name=" ".join(words), help_option_names=["-h", "--help"])
    params = command.get_params(context)
    first, *more = (command.help or "").split("\n\n")
    summary = _sentence(first)
    yield f'.TH "{_text(name.upper())}" 1 "" "hoodsnap {hoodsnap.__version__}" "hoodsnap"'
    yield from (".SH NAME", f"{_text(name)} \\- {_text(summary.removesuffix('.'))}")
    yield from (".SH SYNOPSIS", ".B " + _text(" ".join(words)))
    yield _text(" ".join(command.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    for paragraph in (first, *more):
        yield from (".PP", _text(paragraph))
    for title, kind in (("ARGUMENTS", "argument"), ("OPTIONS", "option")):
        listed = [param for param in params if param.param_type_name == kind]
        if listed:
            yield f".SH {title}"
            for param in listed:
                yield from _parameter(param, context)
    yield from _listed("COMMANDS", _named(command))
    yield from _listed("EXIT STATUS", _of(words, status))
    if len(words) == 1:
        yield from _listed("FILES", FILES)
    yield ".SH SEE ALSO"
    yield ",\n".join(f".BR {_text(other)} (1)" for other in others).replace(",\n", " ,\n")


def _of(words: tuple[str, ...], status: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield the exit statuses that this command may have; the program's page has all of them."""
    for code, meanings in status.items():
        own = [one for one in meanings if len(words) == 1 or _concerns(words[1], one)]
        if own:
            yield code, "; ".join(own)


def _concerns(name: str, meaning: str) -> bool:
    listed = re.findall(r"`(\w+)`", meaning.rpartition("(")[2]) if meaning.endswith(")") else []
    return not listed or name in listed


def _named(command: Any) -> Iterator[tuple[str, str]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield name, _sentence((inner.help or "").partition("\n\n")[0])


def _sentence(text: str) -> str:
    """Return the first sentence of a paragraph."""
    return text if ". " not in text else text.partition(". ")[0] + "."


def _listed(title: str, rows: Any) -> Iterator[str]:
    rows = list(rows)
    if rows:
        yield f".SH {title}"
    for name, text in rows:
        yield from (".TP", f".B {_text(name)}", _text(text).replace("`", ""))


def _parameter(param: Any, context: typer.Context) -> Iterator[str]:
    if param.param_type_name == "argument":
        head = f".I {_text(param.metavar or param.name)}"
    else:
        kind = param.display_type_rich(ctx=context) if not param.is_flag else ""
        names = ", ".join(sorted(param.opts, key=len))
        head = f".BI {_quoted(names)} {_quoted(f' {kind}')}" if kind else f".B {_text(names)}"
    yield from (".TP", head, _text((param.help or "").replace("`", "")))
    if isinstance(param.show_default, str):
        yield f"Default: {_text(param.show_default)}."
    elif param.show_default and isinstance(param.default, str | int) and param.default is not False:
        yield f"Default: {_text(str(param.default))}."


def _quoted(text: str) -> str:
    return f'"{_text(text)}"'


def _text(text: str) -> str:
    """Return a text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    escaped = escaped.replace("…", "...").replace("\n", " ")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
