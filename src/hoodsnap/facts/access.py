"""Whether QEMU may open a file: by owner, group and mode of the file and of every folder above it.

Where something else decides too (access control lists, groups that were not told) it may.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from hoodsnap.facts.fact import Unheard
from hoodsnap.facts.image import Entry, ImageStore
from hoodsnap.facts.quantity import LARGEST

READ, WRITE, PASS = 4, 2, 1


class User(NamedTuple):
    """Who opens it."""

    uid: int
    gid: int
    groups: frozenset[int] | None
    """None: there may be more than `gid`."""

    def may(self, entry: Entry, wanted: int) -> bool:
        """Whether owner, group and mode let this user (`READ`, `WRITE`, `PASS`, or a sum)."""
        if self.uid == 0 or entry.acl is not False:
            return True
        mode = _mode(entry)
        if entry.uid == self.uid:
            return mode >> 6 & wanted == wanted
        if entry.gid == self.gid or entry.gid in (self.groups or ()):
            return mode >> 3 & wanted == wanted
        if self.groups is None and mode >> 3 & wanted == wanted:
            return True
        return mode & wanted == wanted


def obstacle(
    images: ImageStore, path: str, user: User, wanted: int, *, owned: bool
) -> Entry | None:
    """What keeps a user from opening a file: a folder above it, or the file; None if nothing does.

    `owned`: whoever starts it makes this user the owner of the file (not of the folders) first.
    Raises `Unheard` if nobody looked.
    """
    for folder in _above(path):
        entry = images.entry(folder)
        if entry is not None and not user.may(entry, PASS):
            return entry
    entry = images.entry(path)
    if entry is None:
        return None  # that it is not there is not a question of who may open it
    if not owned:
        return None if user.may(entry, wanted) else entry
    if user.uid == 0 or (entry.dev or "0:").startswith("0:"):
        return None  # a file server may keep its own owner, and let it in all the same
    return None if _mode(entry) >> 6 & wanted == wanted else entry


def _above(path: str) -> Iterator[str]:
    folders: list[str] = []
    folder = posixpath.dirname(path)
    while folder not in ("/", "") and len(folders) < 64:
        folders.append(folder)
        folder = posixpath.dirname(folder)
    yield from reversed(folders)


def _mode(entry: Entry) -> int:
    try:
        mode = int(entry.mode or "", 8)
    except ValueError:
        mode = -1
    if not 0 <= mode < LARGEST:
        raise Unheard(f"the mode of {entry.path} can't be read")
    return mode
