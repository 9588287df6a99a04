"""Flags of a file that forbid changes to everyone, root included: `chattr +i` and `chattr +a`.

They are read by statx(2), which opens nothing: a file system that does not report them leaves them
out of the mask of what it knows. `os` has no statx before Python 3.15.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from typing import Any, NamedTuple

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_STATX_DONT_SYNC = 0x4000
"""Do not ask a file server: the caller's stat has just done that."""

_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
"""STATX_ATTR_IMMUTABLE and STATX_ATTR_APPEND."""

_SIZE = 256
"""Bytes of struct statx, in every release of Linux."""

_FIELDS = struct.Struct("=8xQ40xQ")
"""stx_attributes, and stx_attributes_mask: the attributes that the file system reports."""


class Flags(NamedTuple):
    """Flags of one file; None if its file system does not report them."""

    immutable: bool | None
    append_only: bool | None


UNKNOWN = Flags(None, None)


def flags_of(name: str, folder: int) -> Flags:
    """Return the flags of the file `name` in an open folder, without following a link."""
    statx = _statx()
    if statx is None:
        return UNKNOWN
    found = ctypes.create_string_buffer(_SIZE)
    how = _AT_SYMLINK_NOFOLLOW | _AT_STATX_DONT_SYNC
    try:
        if statx(folder, os.fsencode(name), how, 0, found) != 0:
            return UNKNOWN  # it was removed meanwhile, or a sandbox forbids the call
    except ctypes.ArgumentError:
        return UNKNOWN
    attributes, known = _FIELDS.unpack_from(found)
    return Flags(
        bool(attributes & _IMMUTABLE) if known & _IMMUTABLE else None,
        bool(attributes & _APPEND_ONLY) if known & _APPEND_ONLY else None,
    )


@cache
def _statx() -> Any:
    """Return the C library's statx; None before glibc 2.28 and musl 1.2.5."""
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (OSError, AttributeError):
        return None
    number, text = ctypes.c_int, ctypes.c_char_p
    statx.argtypes = [number, text, number, ctypes.c_uint, ctypes.c_void_p]
    statx.restype = number
    return statx
