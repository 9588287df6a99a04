"""Files that instruct the collector: could only root or the service have written them?

A configuration file decides which database is asked and which folders are listed, and the collector
is root. So a file is followed only if nobody but root and the service's own account could have put
it there: neither the file nor any folder above it belongs to another account or is writable by one,
and every link on the way belongs to root. A sticky folder (`/tmp`) counts as writable: any account
may have created the name in it. `hoodsnap.path` walks the path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hoodsnap.collect.recorder import RefusedError
from hoodsnap.path import Walk

LARGEST = 4 << 20
"""Bytes of a configuration file. nova's sample, with all its comments, has half a million bytes."""


@dataclass(frozen=True, slots=True)
class Owners:
    """Accounts that may have written a file, by number. Root is always one of them."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    """Groups whose members may write. Root's group is always one of them."""

    def refusal(
        self, path: str, status: os.stat_result, *, acl: bool = False
    ) -> RefusedError | None:
        """Return why a file or folder with this status is not trusted; None if it is.

        `acl`: the file has a POSIX ACL, and the mode does not show its entries.
        """
        uid = status.st_uid
        if stat.S_ISLNK(status.st_mode):  # the mode of a link means nothing
            # A service's link could lead root to files that the service itself may not read.
            mine = uid in _roots() | {os.geteuid()}
            return (
                None
                if mine
                else RefusedError("denied", f"not followed: {path} is a link owned by uid {uid}")
            )
        if uid not in self.uids | _roots():
            return RefusedError("denied", f"not followed: {path} belongs to uid {uid}")
        if status.st_mode & stat.S_IWOTH:
            return RefusedError("denied", f"not followed: every account can write to {path}")
        if status.st_mode & stat.S_IWGRP and (acl or status.st_gid not in self.gids | {0}):
            return RefusedError(
                "denied", f"not followed: group {status.st_gid} can write to {path}"
            )
        return None


@cache
def _roots() -> frozenset[int]:
    """Return the uids that root's files may show.

    In a user namespace that does not map root (such as the one in which a recording is replayed),
    they show the kernel's overflow uid.
    """
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return frozenset({0, OVERFLOW})
    ranges = [[int(number) for number in line.split()] for line in lines]
    mapped = any(first <= OVERFLOW < first + count for first, _, count in ranges)
    return frozenset({0} if mapped else {0, OVERFLOW})


OVERFLOW = 65534
"""The account that the kernel shows for those without a number in a user namespace."""


def operators() -> Owners:
    """Return the account that runs the collector, and the one that became it with sudo."""
    uids, gids = {os.geteuid()}, {os.getegid()}
    for found, name in ((uids, "SUDO_UID"), (gids, "SUDO_GID")):
        number = os.environ.get(name, "")
        if number.isdecimal() and len(number) < 11:
            found.add(int(number))
    return Owners(frozenset(uids), frozenset(gids))


def read_owned(path: str, owners: Owners, *, root: str = "/") -> str:
    """Return the text of a regular file that only its `owners` can have written.

    `path` is resolved inside `root`, links included. Raises `RefusedError` (`denied`, `absent` or
    `too-large`).
    """
    with opened(path, owners, root=root) as descriptor:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError("denied", f"not followed: {path} is not a regular file")
        # Open the same file again: an O_PATH descriptor can't be read from.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            again = os.open(f"/proc/self/fd/{descriptor}", flags)
        except OSError as error:
            raise _refused(error, path) from None
    with open(again, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise RefusedError("too-large", f"not followed: {path} has more than {LARGEST >> 20} MiB")
    return data.decode("utf-8", "surrogateescape")


def names_in(path: str, owners: Owners, *, root: str = "/") -> list[str]:
    """Return the sorted names in a folder that only its `owners` can have filled."""
    with opened(path, owners, root=root) as descriptor:
        try:
            return sorted(os.listdir(f"/proc/self/fd/{descriptor}"))
        except OSError as error:
            raise _refused(error, path) from None


SYSTEM = ("boot", "dev", "etc", "home", "proc", "root", "run", "sys", "usr")
"""Folders of `/` that never hold guests' files, but may hold secrets."""


def folder_refusal(path: str, owners: Owners | None) -> RefusedError | None:
    """Return why a folder that a service names must not be listed; None if it may be.

    The service could name any folder, and the collector can read folders that the service can't.
    So the folder must belong to the service, or belong to root and be readable by the service.
    `owners`: None if the service's account is not known; then the folder must belong to root.
    Raises `OSError`.
    """
    real = os.path.realpath(path)
    status = os.stat(real)
    uids = owners.uids if owners else frozenset[int]()
    mine = _roots() | {os.geteuid()}
    if not stat.S_ISDIR(status.st_mode):
        return RefusedError("denied", f"not listed: {path} is not a folder")
    if status.st_uid in uids - mine:
        return None
    if status.st_uid not in mine:
        return RefusedError("denied", f"not listed: {path} belongs to uid {status.st_uid}")
    if real.strip("/").split("/")[0] in ("", *SYSTEM):
        return RefusedError("denied", f"not listed: {path} is a folder of the system")
    needed = stat.S_IRWXO & ~stat.S_IWOTH
    bits = status.st_mode | (status.st_mode >> 3 if owners and status.st_gid in owners.gids else 0)
    if uids - mine and bits & needed != needed:
        return RefusedError("denied", f"not listed: the service's own account can't read {path}")
    return None


@contextmanager
def opened(path: str, owners: Owners, *, root: str = "/") -> Iterator[int]:
    """Open a path (O_PATH) of which only its `owners` can have made each step.

    Raises `RefusedError` if another account could have made a step, or if the path does not exist.
    """
    try:
        with _OwnedWalk(root, owners) as walk:
            name = walk.go(path)
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=walk.folder)
            shown = walk.shown(name)
    except RefusedError:
        raise
    except OSError as error:
        raise _refused(error, path) from None
    try:
        _check(handle, shown, owners)
        yield handle
    finally:
        os.close(handle)


class _OwnedWalk(Walk):
    """Walk through folders and links that only their owners can have made."""

    def __init__(self, root: str, owners: Owners) -> None:
        self._accounts = owners
        super().__init__(root, shown="/")

    def must_be_entered(self, folder: int, shown: str) -> None:
        _check(folder, shown, self._accounts)

    def must_be_followed(self, link: int, path: str, shown: str) -> None:
        _check(link, shown, self._accounts)


def _check(descriptor: int, name: str, owners: Owners) -> os.stat_result:
    status = os.fstat(descriptor)
    acl = False
    if status.st_mode & stat.S_IWGRP and not stat.S_ISLNK(status.st_mode):
        try:
            names = os.listxattr(f"/proc/self/fd/{descriptor}")
            acl = "system.posix_acl_access" in names
        except OSError:  # a file system without extended attributes has no ACLs
            acl = False
    if refusal := owners.refusal(name, status, acl=acl):
        raise refusal
    return status


def _refused(error: OSError, path: str) -> RefusedError:
    absent = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)
    return RefusedError("absent" if absent else "denied", f"{path}: {error.strerror}")
