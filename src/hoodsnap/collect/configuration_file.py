"""Configuration files of a service: their owners and modes, the options they set, and errors.

The service's log file is described with them, because a start also fails if it can't be written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hoodsnap.collect.log import NO_LOGS
from hoodsnap.collect.oslo_config import first_error, parse
from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.ownership import Owners, opened
from hoodsnap.collect.trusted.running_process import RunningProcess
from hoodsnap.collect.trusted.service import RunningService, account
from hoodsnap.keep.nova_conf import Configuration, is_kept


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
        row["folders"] = _above(self.path, owners, root)
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


def log_of(service: RunningService | None, options: Configuration, name: str) -> str | None:
    """Return the path of the file that a service logs to, inside its root.

    None if it logs to no file, or if that is unknown. `name`: the program's name. Options of the
    command line come before those of the files, as in oslo.log.
    """
    written = options.get("DEFAULT", {})
    told = {key: written.get(key) or written.get(key.replace("_", "")) for key in _OF_LOGS}
    words = iter(service.arguments if service is not None else ())
    for word in words:
        option, equals, value = word.partition("=")
        key = option.removeprefix("--").replace("-", "_")
        key = {"logfile": "log_file", "logdir": "log_dir"}.get(key, key)
        if option.startswith("--") and key in told:
            told[key] = value if equals else next(words, None)
    file, folder = told["log_file"], told["log_dir"]
    if not file and not folder:
        return None
    path = os.path.normpath(os.path.join("/", folder or "", file or f"{name}.log"))
    return None if "$" in path or path.startswith(NO_LOGS) else path


_OF_LOGS = ("log_file", "log_dir")


def described_log(path: str, owners: Owners, root: str) -> dict[str, Any]:
    """Return a log file as it is recorded, with the modes of the folders above it."""
    above = _above(path, owners, root)
    return {"path": path, **_status(path, owners, root), "folders": above}


def _above(path: str, owners: Owners, root: str) -> list[dict[str, Any]]:
    above = [str(one) for one in PurePosixPath(path).parents][::-1]
    return [{"path": one, **_status(one, owners, root)} for one in above]


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
        return {"absent": True} if refusal.kind == "absent" else {"refused": str(refusal)}
