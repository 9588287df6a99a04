"""Whether QEMU may open a file: by owner, group and mode of the file and of every folder above it.

Where something else decides too (access control lists, groups that were not told) it may.
"""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image_store import ImageStore
from hoodsnap.facts.host.instances_directory import FolderEntry
from hoodsnap.facts.quantity import LARGEST

READ, WRITE, PASS = 4, 2, 1

DEEPEST = 64
"""No file of a guest has so many folders above it."""


class User(NamedTuple):
    """Who opens it."""

    uid: int
    gid: int
    groups: frozenset[int] | None
    """None: there may be more than `gid`."""

    def may(self, entry: FolderEntry, wanted: int) -> bool:
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


class Access:
    """What one user may open on one host."""

    def __init__(self, images: ImageStore, user: User) -> None:
        self._images = images
        self._user = user
        self._closed: dict[str, FolderEntry | None] = {}
        """The folders that were looked at: many guests lie below the same ones."""

    def obstacle(self, path: str, wanted: int, *, owned: bool) -> FolderEntry | None:
        """What keeps the user from opening a file: a folder above it, or the file; None if nothing
        does.

        `owned`: whoever starts it makes this user the owner of the file (not of the folders) first.
        Raises `UnheardError` if nobody looked.
        """
        closed = self._folder(posixpath.dirname(path), DEEPEST)
        entry = closed or self._images.entry(path)
        if closed or entry is None:
            return closed  # that it is not there is not a question of who may open it
        if not owned:
            return None if self._user.may(entry, wanted) else entry
        if self._user.uid == 0 or (entry.dev or "0:").startswith("0:"):
            return None  # a file server may keep its own owner, and let it in all the same
        return None if _mode(entry) >> 6 & wanted == wanted else entry

    def _folder(self, folder: str, depth: int) -> FolderEntry | None:
        """The outermost folder, of this one and those above it, that lets nobody pass."""
        if folder in ("/", "") or not depth:
            return None
        if folder not in self._closed:
            closed = self._folder(posixpath.dirname(folder), depth - 1)
            entry = closed or self._images.entry(folder)
            shut = closed is None and entry is not None and not self._user.may(entry, PASS)
            self._closed[folder] = entry if shut else closed
        return self._closed[folder]


def _mode(entry: FolderEntry) -> int:
    try:
        mode = int(entry.mode or "", 8)
    except ValueError:
        mode = -1
    if not 0 <= mode < LARGEST:
        raise UnheardError(f"the mode of {entry.path} can't be read")
    return mode
