"""Safe paths: walked name by name, without following links that other accounts could have made.

The kernel follows every link on the way to a file with the caller's privileges. If root opens a
path through another account's folder, that account therefore decides which file is opened. `Walk`
opens each name relative to the folder before it, and follows a link only if no account but root or
the caller could have made it: root or the caller owns the link and every folder on the way, and no
other account can write to those folders. `hoodsnap.collect.trusted.ownership` has a stricter rule.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

MOST_LINKS = 40
"""Links that one path may lead through, the same number as in the kernel."""

_OF_PROCESS = re.compile(r"(/proc/(?:\d+|self)/root)(?:/|$)")

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class StrangeLinkError(PermissionError):
    """The path leads through a link that an account besides root and the caller could have made."""

    def __init__(self, path: str, link: str) -> None:
        through = "is" if path == link else f"leads through {link},"
        made = "a link that other accounts could have made"
        super().__init__(errno.EPERM, f"{path} {through} {made}")


class _Folder(Enum):
    """Accounts that can create entries in a folder."""

    OURS = 1
    """Only root or the caller."""
    STICKY = 2
    """All accounts, but no account can rename or remove another's entries, as in /tmp."""
    OTHERS = 3
    """Other accounts, without that protection."""


@dataclass(frozen=True)
class _Step:
    """One open folder of the walk."""

    handle: int
    name: str
    kind: _Folder


class Walk:
    """A walk from a top folder (`/`, or a container's root) to one file, without leaving the top.

    Use as a context manager; all descriptors are closed at the end. `..` at the top stays at the
    top, and an absolute link starts at the top again. Subclasses override `must_be_entered` and
    `must_be_followed` to apply rules of their own.
    """

    def __init__(self, top: str = "/", shown: str | None = None) -> None:
        """`shown`: the name of the top folder in messages; by default its path."""
        self._owners = trusted_owners()
        self._top = (top if shown is None else shown).rstrip("/")
        self._links = 0
        self._steps: list[_Step] = []
        # The caller vouches for the top: /proc/PID/root, for one, is a link that the kernel made.
        self._push(os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "", _Folder.OURS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        for step in self._steps:
            os.close(step.handle)

    @property
    def folder(self) -> int:
        """The descriptor (`O_PATH`) of the folder that was reached."""
        return self._steps[-1].handle

    @property
    def is_ours(self) -> bool:
        """True if only root or the caller can have created the entries of the folder."""
        return self._steps[-1].kind is _Folder.OURS

    def go(self, path: str) -> str:
        """Walk to the folder of a path; return the last name, which is not a link.

        The name may not exist; `.` stands for the folder itself. Raises `OSError`.
        """
        waiting = [name for name in path.split("/") if name not in ("", ".")][::-1]
        while waiting:
            name = waiting.pop()
            if name == "..":
                self._back()
                continue
            target = self._enter(name, path, last=not waiting)
            if target is None:
                if not waiting:
                    return name
                continue
            if target.startswith("/"):
                self._back(len(self._steps))
            waiting += [name for name in target.split("/") if name not in ("", ".")][::-1]
        return "."

    def _enter(self, name: str, path: str, *, last: bool) -> str | None:
        """Enter a folder, unless the name is the last; return the target if the name is a link."""
        folder = self.folder
        if not last:
            try:
                # O_DIRECTORY makes the kernel mount what an automounter manages at this name.
                handle = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=folder)
            except NotADirectoryError:
                pass
            else:
                self._push(handle, name, self._steps[-1].kind)
                return None
        status = _status(name, folder)
        if status is not None and stat.S_ISLNK(status.st_mode):
            return self._target(name, path)
        if not last:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.shown(name))
        return None

    def _target(self, name: str, path: str) -> str:
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        link = os.open(name, _LOOK, dir_fd=self.folder)
        try:
            self.must_be_followed(link, path, self.shown(name))
            return os.readlink("", dir_fd=link)
        finally:
            os.close(link)

    def must_be_entered(self, folder: int, shown: str) -> None:
        """Raise an error if this open folder must not be entered; `shown`: its path."""

    def must_be_followed(self, link: int, path: str, shown: str) -> None:
        """Raise an error if this open link, met on the way of `path`, must not be followed."""
        status, kind = os.fstat(link), self._steps[-1].kind
        made_by_us = status.st_uid in self._owners and (
            # Where symbolic links can be hard-linked, any account can give a link a second name.
            kind is _Folder.OURS or (kind is _Folder.STICKY and status.st_nlink == 1)
        )
        if not made_by_us:
            raise StrangeLinkError(path, shown)

    def shown(self, name: str = "") -> str:
        """Return the path, for messages, of a name in the folder that was reached."""
        return "/".join((self._top, *(step.name for step in self._steps[1:]), name))

    def _push(self, handle: int, name: str, above: _Folder) -> None:
        try:
            self.must_be_entered(handle, self.shown(name))
            self._steps.append(_Step(handle, name, self._kind(os.fstat(handle), above)))
        except BaseException:
            os.close(handle)
            raise

    def _back(self, steps: int = 1) -> None:
        for _ in range(min(steps, len(self._steps) - 1)):
            os.close(self._steps.pop().handle)

    def _kind(self, status: os.stat_result, above: _Folder) -> _Folder:
        if above is _Folder.OTHERS or status.st_uid not in self._owners:
            return _Folder.OTHERS
        if not is_writable_by_others(status):
            return _Folder.OURS
        return _Folder.STICKY if status.st_mode & stat.S_ISVTX else _Folder.OTHERS


@contextmanager
def parent_of(path: str, top: str = "/") -> Iterator[tuple[Walk, str]]:
    """Walk to the folder of a path; yield the walk and the name in that folder.

    A relative path starts in the current folder. A leading `/proc/PID/root` becomes the top of the
    walk: following that link by its target would end in this host's own root.
    """
    if top == "/":
        if inside := _OF_PROCESS.match(path):
            top, path = inside[1], path[inside.end() :]
        else:
            path = os.path.join(os.getcwd(), path)
    with Walk(top) as walk:
        yield walk, walk.go(path)


def trusted_owners() -> frozenset[int]:
    """Return the accounts that may decide which file this process opens: root, the process's own,
    and the owner of `/`, which is root under another number inside a user namespace."""
    return frozenset([0, os.geteuid(), os.stat("/").st_uid])


def is_writable_by_others(status: os.stat_result) -> bool:
    """True if accounts other than the owner and root's group can write to a folder or file.

    With an access control list, the mode's group bits are the list's mask, so they show this too.
    """
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
