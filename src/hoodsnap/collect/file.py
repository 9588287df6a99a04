"""Files of the host that root may safely read: regular, of bounded size, not behind strange links.

All code in this package that reads the content of a file uses this module. A path is walked as
`hoodsnap.path` describes. Only regular files are opened. Their access time is left unchanged where
the kernel allows that. Reading stops when the question that it belongs to is abandoned.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import RefusedError
from hoodsnap.path import Walk, parent_of

LARGEST = 1 << 20
"""Bytes of a file, unless the caller sets another limit. Configurations have some thousands."""

MOST_NAMES = 100_000
"""Names in one folder."""

_CHUNK = 1 << 16

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}


def read(path: str | Path, limit: int = LARGEST, top: str | Path = "/") -> bytes:
    """Return the content of a file.

    `top`: the root of the path, `/proc/PID/root` for a file in a container. Raises `OSError`, and
    `RefusedError`: `denied` for a file that is not regular or that another account could have put
    there, `too-large` for more than `limit` bytes.
    """
    with opened(path, top) as handle:
        found = bytearray()
        # Nothing is read of a file that is too large. Files in /proc have a size of 0.
        too_large = os.fstat(handle).st_size > limit
        while not too_large and (piece := os.read(handle, _CHUNK)):
            must_go_on()
            found += piece
            too_large = len(found) > limit
    if too_large:
        raise RefusedError("too-large", f"{path} has more than {limit} bytes")
    return bytes(found)


def text(path: str | Path, limit: int = LARGEST, top: str | Path = "/") -> str:
    """Return the content of a file; bytes that are not UTF-8 become lone surrogates."""
    return os.fsdecode(read(path, limit, top))


def lines(path: str | Path, limit: int, longest: int = LARGEST) -> Iterator[str]:
    """Yield the lines of a file, with their line ends, without holding the whole file in memory.

    `limit`: bytes of the file, `longest`: bytes of one line. Raises the errors of `read`.
    """
    with opened(path) as handle:
        rest, size = b"", 0
        while piece := os.read(handle, _CHUNK):
            must_go_on()
            size += len(piece)
            *whole, rest = (rest + piece).split(b"\n")
            yield from (os.fsdecode(line + b"\n") for line in whole)
            if size > limit or len(rest) > longest:
                raise RefusedError("too-large", f"{path} has more than {limit} bytes")
        if rest:
            yield os.fsdecode(rest)


def tail(path: str | Path, size: int, top: str | Path = "/") -> str:
    """Return the last `size` bytes of a file as text, beginning with the first complete line."""
    with opened(path, top) as handle:
        start = max(0, os.fstat(handle).st_size - size)
        data = _piece(handle, start, size)
    found = data.decode("utf-8", "replace")
    return found.partition("\n")[2] if start else found


def head(path: str | Path, size: int) -> bytes:
    """Return the first bytes of a file. Raises the errors of `read`, except `too-large`."""
    with opened(path) as handle:
        return _piece(handle, 0, size)


def head_at(name: str, folder: int, size: int) -> bytes:
    """Return the first bytes of the file `name` in an open folder; none if it is not regular."""
    try:
        handle = _open(name, folder)
    except RefusedError:  # it was replaced after the caller's stat
        return b""
    try:
        return _piece(handle, 0, size)
    finally:
        os.close(handle)


def head_of_anyone(path: str | Path, size: int) -> bytes:
    """Return the first bytes of a regular file, even one that another account could have put there.

    For a caller that keeps only what a known format has. Raises `OSError` and `RefusedError`
    (`denied`) for a file that is not regular.
    """
    with parent_of(str(path)) as (walk, name):
        handle = _open(name, walk.folder, str(path))
    try:
        return _piece(handle, 0, size)
    finally:
        os.close(handle)


def status(path: str | Path, top: str | Path = "/") -> os.stat_result:
    """Return `stat` of a file, without following a link that other accounts could have made."""
    with parent_of(str(path), str(top)) as (walk, name):
        return os.stat(name, dir_fd=walk.folder, follow_symlinks=False)


def exists(path: str | Path, top: str | Path = "/") -> bool:
    """Return True if the file exists and its path may be followed."""
    try:
        status(path, top)
    except OSError:
        return False
    return True


def names(path: str | Path, most: int = MOST_NAMES, top: str | Path = "/") -> list[str]:
    """Return the sorted names in a folder. Raises `RefusedError` (`too-large`) and `OSError`."""
    with folder(path, top) as handle:
        return names_at(handle, str(path), most)


def names_at(handle: int, path: str, most: int = MOST_NAMES) -> list[str]:
    """Return the sorted names in an open folder. `path` is its name in messages."""
    found = []
    with os.scandir(handle) as entries:
        for entry in entries:
            must_go_on()
            found.append(entry.name)
            if len(found) > most:
                raise RefusedError("too-large", f"there are more than {most} entries in {path}")
    return sorted(found)


@contextmanager
def folder(path: str | Path, top: str | Path = "/") -> Iterator[int]:
    """Open a folder for `names_at` and the functions of `os` that take a `dir_fd`."""
    with parent_of(str(path), str(top)) as (walk, name):
        handle = folder_at(name, walk.folder)
    try:
        yield handle
    finally:
        os.close(handle)


def room(handle: int) -> dict[str, int]:
    """Return size and free space of the file system of an open folder: the fields of statvfs(3)."""
    numbers = os.fstatvfs(handle)
    names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "flag")
    return {name: getattr(numbers, f"f_{name}") for name in names}


def folder_at(name: str, folder: int) -> int:
    """Open a folder inside an open folder. Raises `OSError`, also if it is a link."""
    return _without_trace(name, _FLAGS | os.O_DIRECTORY, folder)


@contextmanager
def opened(path: str | Path, top: str | Path = "/") -> Iterator[int]:
    """Open a regular file for reading. Raises `OSError` and `RefusedError` (`denied`)."""
    with parent_of(str(path), str(top)) as (walk, name):
        handle = _open(name, walk.folder, str(path))
        try:
            _must_belong_here(walk, os.fstat(handle), path)
        except BaseException:
            os.close(handle)
            raise
    try:
        yield handle
    finally:
        os.close(handle)


def _open(name: str, folder: int, path: str | None = None) -> int:
    # Opening alone can rewind a tape, arm a watchdog, or wake a process that waits at a FIFO.
    _must_be_regular(os.stat(name, dir_fd=folder, follow_symlinks=False), path or name)
    handle = _without_trace(name, _FLAGS, folder)
    try:
        _must_be_regular(os.fstat(handle), path or name)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _without_trace(name: str, flags: int, folder: int) -> int:
    """Open a file or folder without changing its access time, where the kernel allows that."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=folder)
    except PermissionError:  # O_NOATIME is for root and the owner only
        return os.open(name, flags, dir_fd=folder)


def _must_be_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown type")
        raise RefusedError("denied", f"{path} is {kind}, not a regular file")


def _must_belong_here(walk: Walk, status: os.stat_result, path: str | Path) -> None:
    """Refuse a file that another account could have put into this folder from elsewhere.

    If fs.protected_hardlinks is 0, any account can give a second name to any file of the same file
    system, and the owner of a folder can rename files that other accounts have put into it.
    """
    if walk.is_ours:
        return
    if status.st_nlink > 1:
        raise RefusedError(
            "denied",
            f"{path} has {status.st_nlink} hard links, and other accounts could have made one",
        )
    readable_by_all = status.st_mode & stat.S_IROTH
    if status.st_uid != os.fstat(walk.folder).st_uid and not readable_by_all:
        raise RefusedError(
            "denied",
            f"{path} belongs to uid {status.st_uid}, not to its folder's owner, and is not public",
        )


def _piece(handle: int, start: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.pread(handle, min(size, _CHUNK), start)):
        must_go_on()
        pieces.append(piece)
        start += len(piece)
        size -= len(piece)
    return b"".join(pieces)
