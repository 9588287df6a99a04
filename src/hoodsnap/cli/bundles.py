"""Bundles that a command reads, and the bundle that it writes."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from hoodsnap import memory
from hoodsnap.bundle import Bundle, UnreadableBundleError, load, merge, save
from hoodsnap.cli import completion
from hoodsnap.cli.terminal import give_up, say
from hoodsnap.exit_status import BLIND, USAGE
from hoodsnap.output import STDIO, OverwritesInputError, UnwritableError, require_writable

Bundles = Annotated[
    list[Path],
    typer.Argument(
        help="Bundles to read (.json, .json.gz, .json.zst; - for standard input; @demo for a "
        "recording, see hoodsnap demo).",
        metavar="BUNDLE",
        readable=False,  # a file that can't be read gets our own message, and status 3
        autocompletion=completion.recordings,
    ),
]


def merged(paths: Sequence[Path]) -> Bundle:
    """Load these bundles and merge them into one."""
    bundles = _loaded(paths)
    if len(bundles) > 1:
        from hoodsnap.facts.cloud.newest_visit import newest

        bundles, remarks = newest(bundles)
        for remark in remarks:
            say(remark)
    return merge(bundles)


def _loaded(paths: Iterable[Path]) -> list[Bundle]:
    bundles = []
    for path in paths:
        try:
            bundles.append(load(path, memory.allow))
        except UnreadableBundleError as reason:
            give_up(f"{name_of(path)} can't be read: {reason}")
    return bundles


def name_of(path: Path) -> str:
    """Return the name of an input for people; `-` is standard input."""
    return "standard input" if path == STDIO else str(path)


def speaks(bundle: Bundle) -> bool:
    """True if at least one layer that knows guests answered."""
    from hoodsnap.facts.layer import OF_GUESTS

    return any(answer.error is None for answer in bundle.answers if answer.layer in OF_GUESTS)


def must_be_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Exit before the work starts if the result can't be written or would overwrite an input."""
    try:
        require_writable(path, inputs)
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


def rescued(bundle: Bundle, path: Path, *, quiet: bool = False) -> None:
    """Write a bundle that was just collected and print its path, unless `quiet`.

    The path was writable before collecting started. If it no longer is, write to the same folder
    under another name, to the home folder or to the temporary folder, and exit with status 3.
    """
    try:
        save(bundle, path)
    except UnwritableError as reason:
        say(f"{path} can't be written: {reason}")
        if path != STDIO and (place := _elsewhere(bundle, path)) is not None:
            give_up(f"wrote {place} instead ({len(bundle.answers)} answers)")
        give_up("the bundle was not written")
    if path != STDIO and not quiet:
        say(f"wrote {path} ({len(bundle.answers)} answers)")


def _elsewhere(bundle: Bundle, path: Path) -> Path | None:
    """Write under an unpredictable name and return the path; None if that fails too."""
    name = f"hoodsnap-{secrets.token_hex(6)}.json.gz"
    home = os.path.expanduser("~")
    for folder in (path.parent, Path(home), Path(tempfile.gettempdir())):
        with suppress(UnwritableError):
            save(bundle, folder / name)
            return folder / name
    return None
