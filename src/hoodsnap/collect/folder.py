"""Listing of a folder, as `find DIR -ls` shows it: names, owners, sizes and inodes, not content.

It follows no links. It opens only regular files and reads only their first bytes.
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

from hoodsnap.collect import file
from hoodsnap.collect.image_header import HEAD_SIZE
from hoodsnap.collect.inode_flags import flags_of
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import RefusedError
from hoodsnap.keep.file_head import is_content, magic
from hoodsnap.path import is_writable_by_others, parent_of, trusted_owners

DEEPEST = 3
"""Levels below the folder. The deepest that nova creates is `snapshots/tmpa1b2c3/delta`."""

MOST = 75_000
"""Entries in one listing; each takes a kilobyte of memory. Ten thousand guests have 66,000."""

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
"""Callback that receives the path and first bytes of each regular file."""


def list_folder(top: str, seen: Seen) -> list[dict[str, Any]]:
    """Return every entry below a folder, sorted by path, with the folder itself first.

    The entry of a folder that was not listed has the reason under `error`. Its content is unknown,
    not absent.
    """
    with file.folder(top) as handle:
        root = os.fstat(handle)
        entries = [_entry(top, root, ".", handle)]
        for found in _walk(handle, top, root.st_dev, 1, seen, entries[0]):
            must_go_on()
            entries.append(found)
            if len(entries) > MOST:
                raise RefusedError("too-large", f"{top} has more than {MOST} entries")
    entries[1:] = sorted(entries[1:], key=lambda found: str(found["path"]))
    return entries


def look_at(path: str, seen: Seen) -> dict[str, Any]:
    """Return the entry of one file.

    Raises `OSError`. A link that another account could have made is not followed: it raises
    `StrangeLinkError`.
    """
    with parent_of(path) as (walk, name):
        status = os.stat(name, dir_fd=walk.folder, follow_symlinks=False)
        found = _magic(path, name, walk.folder, status, seen)
        return _entry(path, status, name, walk.folder, magic=found)


def entry(path: str) -> dict[str, Any]:
    """Return one line of `find -ls` as a dict, like `look_at` but without the first bytes."""
    with parent_of(path) as (walk, name):
        status = os.stat(name, dir_fd=walk.folder, follow_symlinks=False)
        return _entry(path, status, name, walk.folder)


def _entry(
    path: str, status: os.stat_result, name: str, folder: int, *, magic: str | None = None
) -> dict[str, Any]:
    """Return an entry. `name` is the file's name in the open `folder`."""
    target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else None
    flags = flags_of(name, folder)
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
        "immutable": flags.immutable,
        "append_only": flags.append_only,
        **_attributes(path, name, folder),
    }


def _walk(
    handle: int, folder: str, device: int, depth: int, seen: Seen, line: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the entries below an open folder.

    Each name is looked up in the open folder, so a folder that is replaced by a link meanwhile
    leads nowhere else.
    """
    try:
        names = file.names_at(handle, folder, MOST)
    except OSError as error:
        line["error"] = error.strerror
        return
    for name in names:
        path = f"{folder.rstrip('/')}/{name}"
        try:
            status = os.stat(name, dir_fd=handle, follow_symlinks=False)
            first = _magic(path, name, handle, status, seen)
            found = _entry(path, status, name, handle, magic=first)
        except FileNotFoundError:  # it was removed meanwhile
            continue
        except OSError as error:  # the names in the folder may be read, but not their attributes
            line["error"] = error.strerror
            continue
        yield found
        if not stat.S_ISDIR(status.st_mode):
            continue
        if status.st_dev != device:
            found["error"] = "not listed: it is on another file system"
        elif depth == DEEPEST:
            found["error"] = f"not listed: its content is more than {DEEPEST} levels deep"
        else:
            yield from _walk_into(name, handle, path, device, depth + 1, seen, found)


def _walk_into(
    name: str,
    above: int,
    folder: str,
    device: int,
    depth: int,
    seen: Seen,
    line: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    try:
        handle = file.folder_at(name, above)
    except OSError as error:
        line["error"] = error.strerror
        return
    try:
        yield from _walk(handle, folder, device, depth, seen, line)
    finally:
        os.close(handle)


def _magic(path: str, name: str, folder: int, status: os.stat_result, seen: Seen) -> str | None:
    if not stat.S_ISREG(status.st_mode) or is_content(path):
        return None
    try:
        head = file.head_at(name, folder, HEAD_SIZE)
    except OSError:  # the other attributes are known anyway
        return None
    seen(path, head)
    # With fs.protected_hardlinks=0, a file with several names could be another account's.
    return None if status.st_nlink > 1 and not _is_private(folder) else magic(head)


def _is_private(folder: int) -> bool:
    status = os.fstat(folder)
    return status.st_uid in trusted_owners() and not is_writable_by_others(status)


def _attributes(path: str, name: str, folder: int) -> dict[str, Any]:
    """Return the attributes besides owner and mode that decide who may open a file: its SELinux
    label, and whether it has an access control list."""
    for reached in (f"/proc/self/fd/{folder}/{name}", path):  # a recorded /proc lacks its links
        try:
            names = os.listxattr(reached, follow_symlinks=False)
            label = os.getxattr(reached, _LABEL, follow_symlinks=False) if _LABEL in names else b""
        except FileNotFoundError:
            continue
        except OSError:  # its file system has no extended attributes, or they can't be read
            break
        return {"acl": _ACL in names, "selinux": os.fsdecode(label).removesuffix("\0") or None}
    return {"acl": None, "selinux": None}


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
    except OverflowError:  # a damaged inode holds a year that Python does not support
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
