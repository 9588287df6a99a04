"""Bundles that a command reads, and the bundle that it writes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from glob import glob
from pathlib import Path
from typing import Annotated

import typer

from hoodsnap import memory, recorded
from hoodsnap.bundle import Bundle, UnreadableBundleError, load, merge, packed, save
from hoodsnap.cli import completion
from hoodsnap.cli.terminal import give_up, say
from hoodsnap.exit_status import BLIND, ELSEWHERE, USAGE
from hoodsnap.output import (
    STDIO,
    NoRoomError,
    OverwritesInputError,
    UnwritableError,
    is_regular,
    require_writable,
    write,
)
from hoodsnap.printable import clean

Bundles = Annotated[
    list[Path],
    typer.Argument(
        help="Bundles to read (.json, .json.gz, .json.zst; - for standard input; @demo for a "
        "recording, see hoodsnap demo), or folders that hold bundles.",
        metavar="BUNDLE",
        readable=False,  # a file that can't be read gets our own message, and status 3
        autocompletion=completion.recordings,
    ),
]


def merged(paths: Sequence[Path]) -> Bundle:
    """Load these bundles and merge them into one."""
    files, bundles = _loaded(paths)
    if len(bundles) > 1:
        from hoodsnap.facts.cloud.newest_visit import TwoCloudsError, newest

        try:
            bundles, remarks = newest(bundles)
        except TwoCloudsError as reason:
            names = f"{name_of(files[reason.first])} and {name_of(files[reason.second])}"
            give_up(f"{names} can't be read together: {reason}; read each cloud's bundles alone")
        for remark in remarks:
            say(remark)
    return merge(bundles)


def _loaded(paths: Iterable[Path]) -> tuple[list[Path], list[Bundle]]:
    """Return the files and their bundles. Other files in a folder of bundles are reported only."""
    files: list[Path] = []
    bundles: list[Bundle] = []
    for given in paths:
        inside = in_folder(given)
        before = len(bundles)
        for path in [given] if inside is None else inside:
            try:
                bundles.append(load(path, memory.allow))
                files.append(path)
            except UnreadableBundleError as reason:
                if inside is None:
                    give_up(f"{name_of(path)} can't be read: {reason}")
                say(f"{clean(str(path))} is left out: {reason}")
        if len(bundles) == before:
            give_up(f"{given} holds no bundle that can be read")
    return files, bundles


SUFFIXES = (".json", ".json.gz", ".json.zst")
"""Ends of the names of bundles, for those in folders."""

MOST_FILES = 10_000
"""Bundles in a folder."""


def in_folder(path: Path) -> list[Path] | None:
    """Return the bundles in a folder, or those that a pattern matches, sorted by name.

    None if the path is neither. Subfolders are searched, too; hidden files are not.
    """
    if path == STDIO or recorded.is_named(path) or path.is_file():
        return None
    try:
        if path.is_dir():
            found = (one for suffix in SUFFIXES for one in path.rglob(f"*{suffix}"))
        elif not path.exists() and set(str(path)) & set("*?["):
            # A shell passes a pattern on if it is quoted, or if the list of files is too long.
            found = (Path(one) for one in glob(str(path)))
        else:
            return None
        files = {one for one in found if one.is_file() and not _is_hidden(one, path)}
    except (OSError, ValueError):
        return None
    if len(files) > MOST_FILES:
        give_up(f"{path} holds more than {MOST_FILES} files")
    return sorted(files)


def _is_hidden(file: Path, folder: Path) -> bool:
    inside = file.relative_to(folder).parts if file.is_relative_to(folder) else (file.name,)
    return any(part.startswith(".") for part in inside)


def name_of(path: Path) -> str:
    """Return the name of an input for people; `-` is standard input."""
    return "standard input" if path == STDIO else str(path)


def speaks(bundle: Bundle) -> bool:
    """True if at least one layer that knows guests answered."""
    from hoodsnap.facts.layer import OF_GUESTS

    return any(answer.error is None for answer in bundle.answers if answer.layer in OF_GUESTS)


def must_be_writable(path: Path, inputs: Iterable[Path] = (), *, or_rescued: bool = False) -> None:
    """Exit before the work starts if the result can't be written or would overwrite an input.

    `or_rescued`: go on if only the room is missing, because `rescued` will find some elsewhere.
    """
    files = [file for given in inputs for file in in_folder(given) or [given]]
    try:
        _in_time(partial(require_writable, path, files))
    except UnwritableError as reason:
        if or_rescued and isinstance(reason, NoRoomError):
            return
        status = USAGE if isinstance(reason, OverwritesInputError) else BLIND
        give_up(f"{path} can't be written: {reason}", status)


def saved(bundle: Bundle, path: Path) -> None:
    """Write the bundle and print its path; exit if it can't be written."""
    try:
        save(bundle, path)
    except UnwritableError as reason:
        name = "standard output" if path == STDIO else path
        give_up(f"{name} can't be written: {reason}")
    if path != STDIO:
        say(f"wrote {path} ({len(bundle.answers)} answers)")


WRITING = 10.0
"""Seconds for writing a bundle. A disk that takes longer is on a server that does not answer."""


def rescued(bundle: Bundle, path: Path, *, quiet: bool = False) -> None:
    """Write a bundle that was just collected and print its path, unless `quiet`.

    The path was writable before collecting started. If it no longer is, write the bundle under an
    unpredictable name to the first of some other folders that has room, and exit with status 5; if
    none has, with status 3.
    """
    try:
        _write(bundle, path)
    except UnwritableError as reason:
        say(f"{path} can't be written: {reason}")
        folder = None if isinstance(reason, _SilentError) else path.parent
        if path != STDIO and (place := _elsewhere(bundle, folder)) is not None:
            give_up(f"wrote {place} instead ({len(bundle.answers)} answers)", ELSEWHERE)
        give_up("the bundle was not written")
    if path != STDIO and not quiet:
        say(f"wrote {path} ({len(bundle.answers)} answers)")


def _write(bundle: Bundle, path: Path) -> None:
    data = packed(bundle, path)
    # A pipe has a reader, who may take any time.
    if path == STDIO or not _in_time(partial(is_regular, path)):
        write(path, data)
    else:
        _in_time(partial(write, path, data))


def _in_time(how: Callable[[], object]) -> object:
    """Return the result of `how`. Raises `UnwritableError` if it takes too long."""
    from hoodsnap.collect.recorder import patiently

    result = patiently(how, WRITING)
    if isinstance(result, TimeoutError):
        raise _SilentError(f"its file system did not answer within {WRITING:g} s")
    if isinstance(result, BaseException):
        raise result
    return result


class _SilentError(UnwritableError):
    """The file system of the output file does not answer."""


def _elsewhere(bundle: Bundle, first: Path | None) -> Path | None:
    """Write under an unpredictable name and return the path; None if that fails too.

    `first`: the folder to try before all others.

    A reboot empties /tmp, so it is the last resort.
    """
    name = f"hoodsnap-{secrets.token_hex(6)}.json.gz"
    named = [first, os.environ.get("TMPDIR"), "/var/tmp", os.path.expanduser("~"), "/tmp"]  # noqa: S108
    for folder in dict.fromkeys(Path(one) for one in named if one):
        with suppress(UnwritableError):
            _write(bundle, folder / name)
            return folder / name
    return None
