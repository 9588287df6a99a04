"""Bundles that a command reads, and the bundle that it writes."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path
from typing import Annotated

import typer

from hoodsnap import memory, recorded
from hoodsnap.bundle import Bundle, UnreadableBundleError, load, merge, save
from hoodsnap.cli import completion
from hoodsnap.cli.terminal import give_up, say
from hoodsnap.exit_status import BLIND, USAGE
from hoodsnap.output import STDIO, OverwritesInputError, UnwritableError, require_writable
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
            if _is_fifo(path):
                say(f"reading {clean(str(path))}, a FIFO: another program has to write the bundle")
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


def _is_fifo(path: Path) -> bool:
    """True for a FIFO in a folder, whose opening waits for a writer; False for `<(…)` of a shell,
    which is a link to a pipe that has one."""
    try:
        return stat.S_ISFIFO(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


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


def must_be_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Exit before the work starts if the result can't be written or would overwrite an input."""
    files = [file for given in inputs for file in in_folder(given) or [given]]
    try:
        require_writable(path, files)
    except UnwritableError as reason:
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
