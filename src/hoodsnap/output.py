"""Files that hoodsnap writes: found unwritable before the work, and never through a strange link.

A file appears whole or not at all. What already is at its path decides: a regular file is replaced,
a FIFO or a character device of root or of the caller is written to, anything else is refused.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hoodsnap.path import parent_of, trusted_owners

if TYPE_CHECKING:
    from collections.abc import Iterable

STDIO = Path("-")

PRIVATE, PUBLIC = 0o600, 0o666
"""Modes of a new file: for its owner alone; as the umask has it."""

_ROOM = 1 << 20
"""Bytes that must be free before the work begins; a compressed bundle has a tenth to ten times
that."""

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/(\d+))|/proc/self/fd/(\d+)")

_FLAGS = os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


class UnwritableError(Exception):
    """The reason, in words, why a file can't be written."""


class OverwritesInputError(UnwritableError):
    """The file is one that the command reads."""


def require_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Check, by making and removing a file beside it, that a file can be written.

    `inputs`: the files that the command reads, none of which may be overwritten. Raises
    `UnwritableError`.
    """
    for given in inputs:
        if is_same_file(given, path):
            raise OverwritesInputError(f"{given} is read by this command and would be overwritten")
    if path == STDIO or _descriptor(path) is not None:
        return
    try:
        with parent_of(str(path)) as (walk, name):
            if _must_be_replaceable(walk.folder, name):
                _try(walk.folder, name)
    except OSError as error:
        raise UnwritableError(_reason(error)) from None


def write(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write a file, whole or not at all (`-`: standard output). Raises `UnwritableError`."""
    try:
        if path == STDIO:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif (number := _descriptor(path)) is not None:
            with os.fdopen(os.dup(number), "wb") as file:
                file.write(data)
        else:
            with parent_of(str(path)) as (walk, name):
                if _must_be_replaceable(walk.folder, name):
                    _replace(walk.folder, name, data, mode)
                else:
                    _write_into(walk.folder, name, data)
    except OSError as error:
        raise UnwritableError(_reason(error)) from None


def is_same_file(given: Path, path: Path) -> bool:
    """Are these two names of one regular file, through links, hard links or another spelling?

    `given` may be `-`, which is whatever file is standard input.
    """
    if path == STDIO:
        return False
    try:
        status = os.fstat(0) if given == STDIO else os.stat(given)
        return stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.stat(path))
    except OSError:  # one of them does not exist
        return False


def _must_be_replaceable(folder: int, name: str) -> bool:
    """True for a new or regular file, False for what is written into. Raises `UnwritableError`."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(status.st_mode):
        raise UnwritableError("it is a directory")
    if stat.S_ISREG(status.st_mode):
        _must_be_removable(os.fstat(folder), status)
        return True
    _must_be_ours(status)
    return False


def _must_be_removable(folder: os.stat_result, status: os.stat_result) -> None:
    """Refuse to replace another account's file in a folder like /tmp, unless root asks."""
    if not folder.st_mode & stat.S_ISVTX or os.geteuid() in (0, status.st_uid, folder.st_uid):
        return
    raise UnwritableError("it belongs to another account")


def _must_be_ours(status: os.stat_result) -> None:
    for is_kind, kind in ((stat.S_ISFIFO, "FIFO"), (stat.S_ISCHR, "device")):
        if is_kind(status.st_mode):
            if status.st_uid in trusted_owners():
                return
            raise UnwritableError(f"it is a {kind} of another account")
    raise UnwritableError("it is neither a regular file nor a FIFO nor a character device")


def _try(folder: int, name: str) -> None:
    """Make a file, ask for some room in it, and remove it."""
    temporary, handle = _temporary(folder, name, PRIVATE)
    try:
        os.posix_fallocate(handle, 0, _ROOM)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
            raise
    finally:
        os.close(handle)
        os.unlink(temporary, dir_fd=folder)


def _replace(folder: int, name: str, data: bytes, mode: int) -> None:
    temporary, handle = _temporary(folder, name, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _temporary(folder: int, name: str, mode: int) -> tuple[str, int]:
    temporary = f".{name[:200]}.{secrets.token_hex(6)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
    return temporary, os.open(temporary, flags, mode, dir_fd=folder)


def _write_into(folder: int, name: str, data: bytes) -> None:
    handle = os.open(name, os.O_WRONLY | _FLAGS, dir_fd=folder)
    with os.fdopen(handle, "wb") as file:
        _must_be_ours(os.fstat(handle))  # it may have been swapped since
        file.write(data)


def _descriptor(path: Path) -> int | None:
    """Return the open descriptor that a path names: it is ours already."""
    found = _DESCRIPTOR.fullmatch(str(path))
    if found is None:
        return None
    number = found[2] or found[3]
    return int(number) if number else {"stdin": 0, "stdout": 1, "stderr": 2}[found[1]]


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
