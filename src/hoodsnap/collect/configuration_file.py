"""Configuration files of a service: their owners and modes, the options they set, and errors."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hoodsnap.collect.oslo_config import first_error, parse
from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.ownership import Owners, opened
from hoodsnap.collect.trusted.running_process import RunningProcess
from hoodsnap.collect.trusted.service import RunningService, account
from hoodsnap.keep.nova_conf import is_kept


@dataclass(frozen=True, slots=True)
class DescribedFile:
    """One file that a service reads, apart from its values."""

    path: str
    sets: tuple[str, ...] = ()
    """Options that it sets and that may be kept: `libvirt.virt_type`."""
    error: tuple[int, str] | None = None
    """The first line that oslo.config refuses, and the reason; None if it accepts all."""
    is_absent: bool = False
    """True if the service must read it, and it does not exist."""

    @classmethod
    def of(cls, path: str, lines: Iterable[str]) -> DescribedFile:
        """Describe a file with these lines."""
        lines = list(lines)
        found = parse(lines)
        names = [
            (section, option) for section in sorted(found) for option in sorted(found[section])
        ]
        kept = tuple(".".join(name) for name in names if is_kept(*name))
        return cls(path, kept, first_error(lines))

    def described(self, owners: Owners, root: str) -> dict[str, Any]:
        """Return the file as it is recorded, with the modes of the folders above it."""
        if self.is_absent:
            return {"path": self.path, "absent": True}
        row: dict[str, Any] = {"path": self.path, **_status(self.path, owners, root)}
        above = [str(one) for one in PurePosixPath(self.path).parents][::-1]
        row["folders"] = [{"path": one, **_status(one, owners, root)} for one in above]
        row["sets"] = [*self.sets]
        if self.error is not None:
            row["error"] = {"line": self.error[0], "message": self.error[1]}
        return row


def reader_of(service: RunningService | None, name: str = "nova") -> dict[str, Any]:
    """Return the account that reads the files: `{"uid", "gids"}`; empty if it is unknown.

    `name`: account that a service has if it does not run.
    """
    if service is not None:
        with suppress(OSError), RunningProcess(service.pid) as process:
            groups = {int(one) for one in process.status.get("Groups", ())}
            return {"uid": service.uid, "gids": sorted(groups | {service.gid})}
        return {}
    known = account(name)
    if known is None:
        return {}
    return {"uid": known.pw_uid, "gids": sorted(os.getgrouplist(name, known.pw_gid))}


def _status(path: str, owners: Owners, root: str) -> dict[str, Any]:
    try:
        with opened(path, owners, root=root) as handle:
            status = os.fstat(handle)
            found: dict[str, Any] = {
                "uid": status.st_uid,
                "gid": status.st_gid,
                "mode": f"{stat.S_IMODE(status.st_mode):o}",
            }
            with suppress(OSError):  # a file system without extended attributes has no ACLs
                if "system.posix_acl_access" in os.listxattr(f"/proc/self/fd/{handle}"):
                    found["acl"] = True
            return found
    except RefusedError as refusal:
        return {"refused": str(refusal)}
