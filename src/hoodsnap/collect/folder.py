"""A folder of files, as `find DIR -ls` shows it: names, owners, sizes, inodes; no content.

It follows no link and opens nothing but regular files, of which it reads the first bytes.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from grp import getgrgid
from typing import Any

from hoodsnap.collect.header import MAGIC_SIZE, read_head
from hoodsnap.collect.recorder import Refusal

DEEPEST = 3
"""Levels below the folder: `snapshots/tmpa1b2c3/delta` is the deepest that nova makes."""

MOST = 200_000
"""Entries that are listed. Ten thousand guests have a third of that."""

_TYPES = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFBLK: "b",
    stat.S_IFCHR: "c",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}

_LABEL, _ACL = "security.selinux", "system.posix_acl_access"

Seen = Callable[[str, bytes], None]
"""Is told each regular file's path and first bytes."""


def list_folder(top: str, seen: Seen) -> list[dict[str, Any]]:
    """Every entry below a folder, by path, the folder first.

    A folder that is not gone into says why under `error`: what is in there is unknown, not absent.
    """
    root = os.stat(top)
    entries = [entry(top, root)]
    for found in _walk(top, root.st_dev, 1, seen, entries[0]):
        entries.append(found)
        if len(entries) > MOST:
            raise Refusal("too-large", f"there are more than {MOST} files in {top}")
    entries[1:] = sorted(entries[1:], key=lambda found: str(found["path"]))
    return entries


def look_at(path: str, seen: Seen) -> dict[str, Any]:
    """One file, with links followed."""
    real = os.path.realpath(path, strict=True)
    status = os.stat(real)
    return entry(path, status, magic=_magic(path, real, status, seen))


def entry(path: str, status: os.stat_result, *, magic: str | None = None) -> dict[str, Any]:
    """One line of `find -ls`, as a dict."""
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
    return {
        "path": path,
        "type": _TYPES.get(stat.S_IFMT(status.st_mode), "?"),
        "mode": f"{status.st_mode:o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "user": _user(status.st_uid),
        "group": _group(status.st_gid),
        "nlink": status.st_nlink,
        "size": status.st_size,
        "blocks": status.st_blocks,
        "dev": f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}",
        "ino": status.st_ino,
        "rdev": f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}",
        "mtime": _moment(status.st_mtime_ns),
        "ctime": _moment(status.st_ctime_ns),
        "btime": None,  # Python's stat can't ask Linux for it
        "target": target,
        "magic": magic,
        **_attributes(path),
    }


def _walk(
    folder: str, device: int, depth: int, seen: Seen, line: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        line["error"] = error.strerror
        return
    for name in names:
        path = f"{folder.rstrip('/')}/{name}"
        try:
            status = os.lstat(path)
            found = entry(path, status, magic=_magic(path, path, status, seen))
        except FileNotFoundError:  # removed while we looked
            continue
        except OSError as error:  # a folder whose names may be read, but nothing else of them
            line["error"] = error.strerror
            continue
        yield found
        if not stat.S_ISDIR(status.st_mode):
            continue
        if status.st_dev != device:
            found["error"] = "not listed: another file system"
        elif depth == DEEPEST:
            found["error"] = "not listed: too deep"
        else:
            yield from _walk(path, device, depth + 1, seen, found)


def _magic(path: str, real: str, status: os.stat_result, seen: Seen) -> str | None:
    # What a guest printed on its console is content, even sixteen bytes of it.
    if not stat.S_ISREG(status.st_mode) or os.path.basename(path).startswith("console.log"):
        return None
    try:
        head = read_head(real)
    except OSError:  # the rest of the line is known all the same
        return None
    seen(path, head)
    return head[:MAGIC_SIZE].hex()


def _attributes(path: str) -> dict[str, Any]:
    """What decides besides owner and mode who may open it: SELinux' label, and whether there is an
    access control list."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        label = os.getxattr(path, _LABEL, follow_symlinks=False) if _LABEL in names else b""
    except OSError:  # it has ended, or its file system knows of no such thing
        return {"acl": None, "selinux": None}
    return {"acl": _ACL in names, "selinux": os.fsdecode(label).removesuffix("\0") or None}


@cache
def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


@cache
def _group(gid: int) -> str | None:
    try:
        return getgrgid(gid).gr_name
    except KeyError:
        return None


def _moment(nanoseconds: int) -> str | None:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:  # a damaged inode claims a year that Python does not know
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
