"""Completion: the words that a shell offers when Tab is pressed, and how a shell is set up for it.

A name from a bundle is offered only if no shell gives any of its characters a meaning: a shell
inserts it as it is, and a stranger may have chosen it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hoodsnap import recorded
from hoodsnap.cli.terminal import give_up, put_document, say
from hoodsnap.exit_status import USAGE


class Shell(StrEnum):
    """Shell that can complete hoodsnap's words."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS = {
    # COMP_WORDS is of no use: bash splits @demo and --server=NAME there.
    Shell.BASH: r"""_hoodsnap_completion() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}"
    COMPREPLY=( $(_HOODSNAP_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS="$line" "$1" 2>/dev/null) )
    COMPREPLY=( "${COMPREPLY[@]%%$'\t'*}" )
}
complete -o default -o bashdefault -F _hoodsnap_completion hoodsnap
""",
    Shell.ZSH: r"""#compdef hoodsnap
_hoodsnap_completion() {
  local -a words_offered
  words_offered=(${(f)"$(_HOODSNAP_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
    _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" "$words[1]" 2>/dev/null)"})
  words_offered=(${words_offered%%$'\t'*})
  compset -P '--*='
  if (( $#words_offered )); then compadd -- $words_offered; else _files; fi
}
if [[ $funcstack[1] == _hoodsnap ]]; then
  _hoodsnap_completion "$@"
else
  compdef _hoodsnap_completion hoodsnap
fi
""",
    Shell.FISH: r"""function __hoodsnap_completion
    _HOODSNAP_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS=(commandline -cp | string collect) hoodsnap 2>/dev/null
end
complete --command hoodsnap --arguments '(__hoodsnap_completion)'
""",
}
"""Script for each shell. hoodsnap prints a word a line, with its help after a tab."""

VARIABLE = "_HOODSNAP_COMPLETE"
"""Environment variable by which a script asks for words instead of running a command."""

LINE = "_TYPER_COMPLETE_ARGS"
"""Environment variable with the line, up to the cursor."""

LARGEST_FILE = 4 << 20
"""Bytes of a bundle's file that is read for its servers' names."""

LARGEST_BUNDLE = 32 << 20
"""Bytes of the same bundle as JSON. 500 guests have that much, and it takes a second."""

_HARMLESS = re.compile(r"[A-Za-z0-9_.,+/-]{1,255}")


def begin() -> None:
    """Let the library answer a script instead of running a command."""
    from typer.completion import completion_init  # type: ignore[attr-defined] # in all releases

    completion_init()


def recordings(incomplete: str) -> Iterator[str]:
    """Yield the names of recordings that begin like this; none leaves files to the shell."""
    if incomplete.startswith("@"):
        names = (recorded.DEMO, *map(recorded.name_of, recorded.faults()))
        yield from (name for name in names if name.startswith(incomplete))


def faults(incomplete: str) -> Iterator[str]:
    """Yield the names of recorded faults."""
    yield from (name for name in recorded.faults() if name.startswith(incomplete))


def checks(incomplete: str) -> Iterator[str]:
    """Yield the names of checks and topics; after a comma, those of the next one."""
    from hoodsnap.checks import CATALOG

    done, comma, last = incomplete.rpartition(",")
    names = sorted({name for check in CATALOG for name in (check.topic, check.name)})
    yield from (f"{done}{comma}{name}" for name in names if name.startswith(last))


def labs(incomplete: str) -> Iterator[str]:
    """Yield the names of the sheets that ship with hoodsnap."""
    sheets = Path(__file__).parent.parent / "sheets"
    yield from (path.stem for path in sorted(sheets.glob(f"{_plain(incomplete)}*.yaml")))


def commands(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the names of the commands."""
    root = ctx.find_root().command
    yield from (name for name in getattr(root, "commands", {}) if name.startswith(incomplete))


def servers(incomplete: str) -> Iterator[str]:
    """Yield the names of the servers in the bundles on the command line, or else their UUIDs."""
    found: dict[str, None] = {}
    for path in _bundles():
        found |= dict.fromkeys(_servers(path))
    yield from (name for name in found if name.startswith(incomplete))


def _bundles() -> Iterator[Path]:
    """Yield the recordings and files that the line names, if a file is not too large to be read.

    The library does not parse the rest of a line that ends with an option without its value.
    """
    words = re.findall(r"""(?:[^\s"'\\]|\\.)+|"[^"]*"|'[^']*'""", os.environ.get(LINE, ""))
    for path in (Path(re.sub(r"\\(.)", r"\1", word.strip("\"'"))) for word in words[1:]):
        if recorded.is_named(path):
            yield path
            continue
        with suppress(OSError, ValueError):
            status = path.expanduser().stat()
            if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_FILE:
                yield path.expanduser()


def _servers(path: Path) -> Iterator[str]:
    """Yield a name that is safe to insert for each server of a bundle."""
    from hoodsnap.bundle import UnreadableBundleError, load
    from hoodsnap.facts.cloud.cloud import read

    with suppress(UnreadableBundleError):
        for guest in read(load(path, _must_be_small)).guests:
            names = (guest.name, guest.domain_name, guest.uuid)
            yield from (name for name in names[:1] if name and _HARMLESS.fullmatch(name))
            if not (guest.name and _HARMLESS.fullmatch(guest.name)):
                yield guest.uuid


def _must_be_small(size: int) -> None:
    from hoodsnap.bundle import UnreadableBundleError

    if size > LARGEST_BUNDLE:
        raise UnreadableBundleError("it is too large to be read at every key")


def _plain(text: str) -> str:
    return text if _HARMLESS.fullmatch(text) else ""


def completion(
    shell: Annotated[
        Shell | None,
        typer.Argument(help="Shell to complete for.", metavar="SHELL", show_default="from $SHELL"),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Write the script to where the shell looks for it.")
    ] = False,
) -> None:
    """Print the script that lets a shell complete commands, options, servers, checks and labs.

    With --install, write it for this account; it takes effect in new shells.
    """
    shell = shell or _own_shell()
    if not install:
        put_document(SCRIPTS[shell])
        return
    from hoodsnap import output

    path = _place(shell)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        output.write(path, SCRIPTS[shell].encode(), output.PUBLIC)
    except output.UnwritableError as reason:
        give_up(f"{path} can't be written: {reason}")
    except OSError as error:
        give_up(f"{path.parent} can't be made: {error.strerror}")
    say(f"wrote {path}; it takes effect in new shells")
    for line in _requirements(shell, path):
        say(line)


def _own_shell() -> Shell:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in list(Shell):
        give_up(f"name a shell: {', '.join(Shell)}", USAGE)
    return Shell(name)


def _place(shell: Shell) -> Path:
    """Return the file from which a shell loads the script of this account."""
    home = Path(os.path.expanduser("~"))
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return {
        Shell.BASH: data / "bash-completion/completions/hoodsnap",
        Shell.ZSH: home / ".zfunc/_hoodsnap",
        Shell.FISH: config / "fish/completions/hoodsnap.fish",
    }[shell]


def _requirements(shell: Shell, path: Path) -> Iterator[str]:
    """Yield what else the shell needs, if it can't be seen that it has it."""
    if shell is Shell.BASH and not Path("/usr/share/bash-completion/bash_completion").exists():
        yield f"bash-completion is not installed: install it, or add to ~/.bashrc: . {path}"
    elif shell is Shell.ZSH:
        yield "~/.zshrc must contain: fpath+=(~/.zfunc); autoload -Uz compinit; compinit"
