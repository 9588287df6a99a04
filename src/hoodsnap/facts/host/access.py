"""QEMU's permission to open a file, from owner, group and mode of the file and its parent folders.

If something else decides too (a POSIX ACL, groups that were not collected), access counts as
permitted.
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
"""Parent folders that are examined; no guest's file has more."""


class User(NamedTuple):
    """The user that opens a file."""

    uid: int
    gid: int
    groups: frozenset[int] | None
    """None if they were not collected; the user may then be in more groups than `gid`."""

    def may(self, entry: FolderEntry, wanted: int) -> bool:
        """True if owner, group and mode permit `wanted` (`READ`, `WRITE`, `PASS`, or a sum)."""
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
    """One user's permission to open files on one host."""

    def __init__(self, images: ImageStore, user: User) -> None:
        self._images = images
        self.user = user
        self._closed: dict[str, FolderEntry | None] = {}
        """Folder → the folder that blocks it. Kept, because many guests share parent folders."""

    def obstacle(self, path: str, wanted: int, *, owned: bool) -> FolderEntry | None:
        """Return what denies the user access to a file: a parent folder or the file itself.

        None if nothing does, or if the file does not exist.

        `owned`: libvirt first makes this user the owner of the file, but not of the folders.
        Raises `UnheardError` if the permissions were not collected.
        """
        closed = self._folder(posixpath.dirname(path), DEEPEST)
        entry = closed or self._images.entry(path)
        if closed or entry is None:
            return closed  # a file that does not exist has no permissions
        if not owned:
            return None if self.user.may(entry, wanted) else entry
        if self.user.uid == 0 or (entry.dev or "0:").startswith("0:"):
            return None  # a file server may keep the owner and permit access nevertheless
        return None if _mode(entry) >> 6 & wanted == wanted else entry

    def _folder(self, folder: str, depth: int) -> FolderEntry | None:
        """Return the outermost folder, up to this one, that the user can't traverse."""
        if folder in ("/", "") or not depth:
            return None
        if folder not in self._closed:
            closed = self._folder(posixpath.dirname(folder), depth - 1)
            entry = closed or self._images.entry(folder)
            shut = closed is None and entry is not None and not self.user.may(entry, PASS)
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
