"""The file of a bundle that was just collected: it is written, if not where it should be.

Collecting takes a minute and can't be repeated: the fault may be gone the next time. So a full
disk, or one that does not answer, costs no answers.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from hoodsnap.bundle import Bundle, packed
from hoodsnap.cli.terminal import give_up, say
from hoodsnap.collect.recorder import patiently
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

WRITING = 10.0
"""Seconds for writing a bundle. A disk that takes longer is on a server that does not answer."""


def must_be_free(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Exit before the work starts if the bundle can't be written or would overwrite an input.

    If only the room is missing, go on: `rescued` will find some elsewhere.
    """
    try:
        _in_time(partial(require_writable, path, inputs))
    except NoRoomError:
        return
    except UnwritableError as reason:
        status = USAGE if isinstance(reason, OverwritesInputError) else BLIND
        give_up(f"{path} can't be written: {reason}", status)


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
