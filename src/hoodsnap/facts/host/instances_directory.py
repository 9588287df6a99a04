"""nova's instances directory: a folder for each guest, and the image cache."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hoodsnap.facts.uuids import UUID

_Count = Annotated[int, Field(ge=0, lt=1 << 64)]

FOLDER = re.compile(rf"(?P<uuid>{UUID.pattern})(?P<suffix>(?:_\w+)?)")
"""Name of a guest's folder, including leftovers of a resize or a deletion."""

BASE = "_base"
"""Default name of the image cache's folder."""

OF_AN_IMAGE = re.compile(r"([0-9a-f]{40})(_.+)?")
"""Name of a base image: the SHA-1 of the image id, before Folsom followed by a size."""


def base_of(image: str) -> str:
    """Return the name of a glance image's file in `_base`: the SHA-1 of its id."""
    return hashlib.sha1(image.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def is_base(path: str) -> bool:
    """True if a file lies in an image cache, under any folder name."""
    folder, _, name = path.rpartition("/")
    return folder.endswith(f"/{BASE}") or OF_AN_IMAGE.fullmatch(name) is not None


def owner_of(path: str) -> str | None:
    """Return the UUID of the guest whose folder contains a file; None if no guest's folder does."""
    folder = FOLDER.fullmatch(path.rpartition("/")[0].rpartition("/")[2])
    return folder["uuid"] if folder is not None else None


_DISK = re.compile(rf"(?:.*[-/])?({UUID.pattern})_disk(?:\.\w+)?", re.DOTALL)


def disk_owner(source: str) -> str | None:
    """Return the UUID of the guest that nova made a disk for; None if its name contains none.

    A file is in the guest's folder; an rbd image or LV is called `UUID_disk`, `UUID_disk.config` …
    """
    # The device mapper doubles hyphens.
    named = _DISK.fullmatch(source.partition("@")[0].replace("--", "-").lower())
    return named[1] if named is not None else owner_of(source)


class FolderEntry(BaseModel):
    """One line of `find DIR -ls`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    path: str
    type: str
    """`f` (file), `d` (folder), `l` (link), `b` and `c` (devices), `p` (pipe), `s` (socket)."""

    size: _Count
    """Bytes."""

    blocks: _Count | None = None
    """Allocated blocks of 512 bytes."""

    mode: str | None = None
    """Octal, including the file type: `100644`."""

    uid: int | None = None
    gid: int | None = None
    user: str | None = None
    group: str | None = None
    dev: str | None = None
    """`major:minor` of the file system."""

    ino: int | None = None
    rdev: str | None = None
    mtime: str | None = None
    btime: str | None = None
    acl: bool | None = None
    """True if the file has a POSIX ACL; None if that was not collected."""

    selinux: str | None = None
    """SELinux label; None without SELinux."""

    immutable: bool | None = None
    """True after `chattr +i`: not even root can change, rename or remove it. None if it was not
    collected, or if the file system does not report it."""

    append_only: bool | None = None
    """True after `chattr +a`: a file can be opened for appending only, a folder's files can't be
    renamed or removed. None as above."""

    target: str | None = None
    magic: str | None = None
    """The first 16 bytes in hexadecimal; None if they were not read."""

    error: str | None = None
    """Reason why this folder's contents are unknown or incomplete; None if they are complete."""


@dataclass(frozen=True)
class Folder:
    """A guest's folder in an instances directory."""

    path: str
    uuid: str
    suffix: str
    """Empty, `_resize` (the copy for reverting a resize) or `_del` (being deleted)."""
