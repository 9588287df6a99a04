"""Output files: checked before the work begins, and never written through an untrusted link.

A file appears whole or not at all. A regular file that already exists at the path is replaced, a
FIFO or character device owned by root or the caller is written to, and anything else is refused.
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
"""Modes of a new file: readable by its owner only; limited only by the umask."""

_ROOM = 1 << 20
"""Bytes that must be free before the work begins. A compressed bundle takes between a tenth of
that and ten times that."""

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/(\d+))|/proc/self/fd/(\d+)")

_FLAGS = os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


class UnwritableError(Exception):
    """A file can't be written. The text is the reason."""


class NoRoomError(UnwritableError):
    """The file system of the output file is full."""


class OverwritesInputError(UnwritableError):
    """The output file is also an input of the command."""


def require_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Check that a file can be written, by creating and removing a file beside it.

    `inputs`: the files that the command reads, which must not be overwritten. Raises
    `UnwritableError`.
    """
    for given in inputs:
        if is_same_file(given, path):
            name = "standard input" if given == STDIO else given
            raise OverwritesInputError(f"it would overwrite {name}, which this command reads")
    if path == STDIO or _descriptor(path) is not None:
        return
    try:
        with parent_of(str(path)) as (walk, name):
            if _must_be_replaceable(walk.folder, name):
                _try(walk.folder, name)
    except OSError as error:
        kind = NoRoomError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UnwritableError
        raise kind(_reason(error)) from None


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


def is_regular(path: Path) -> bool:
    """True if the path names a regular file, or none yet; False for a FIFO, a device, a stream."""
    if path == STDIO or _descriptor(path) is not None:
        return False
    try:
        return stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode)
    except OSError:
        return True


def is_same_file(given: Path, path: Path) -> bool:
    """True if both paths name the same regular file, through links, hard links or other spellings.

    `given` may be `-`: the file on standard input.
    """
    if path == STDIO:
        return False
    try:
        status = os.fstat(0) if given == STDIO else os.stat(given)
        return stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.stat(path))
    except OSError:  # one of them does not exist
        return False


def _must_be_replaceable(folder: int, name: str) -> bool:
    """True for a new or regular file; False for a FIFO or device, which is written into.

    Raises `UnwritableError` for anything else.
    """
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
    """Refuse to replace another account's file in a sticky folder such as /tmp, except for root."""
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
    """Create a file, allocate some space in it, and remove it."""
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
        _must_be_ours(os.fstat(handle))  # it may have been replaced since it was checked
        file.write(data)


def _descriptor(path: Path) -> int | None:
    """Return the open descriptor that a path such as /dev/stdout names; None for other paths."""
    found = _DESCRIPTOR.fullmatch(str(path))
    if found is None:
        return None
    number = found[2] or found[3]
    return int(number) if number else {"stdin": 0, "stdout": 1, "stderr": 2}[found[1]]


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
