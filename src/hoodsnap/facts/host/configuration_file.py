"""Configuration files of nova-compute: who may read them, which options they set, and errors.

Its log file is described in the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.fact import UnheardError, text, value_of
from hoodsnap.facts.quantity import whole

QUERY = "stat -L "
"""Begin of the question; the paths of the files follow."""

READ, WRITE, ENTER = 4, 2, 1
"""Permissions that are needed: to read a file, to write to it, and to go through a folder."""


class Barrier(NamedTuple):
    """A file or folder that keeps an account out."""

    path: str
    uid: int
    gid: int
    mode: str
    """Permissions, octal: `640`."""


class ConfigurationFile(NamedTuple):
    """One file that nova-compute reads."""

    path: str
    sets: frozenset[str]
    """Options that it sets, of those that are collected: `libvirt.virt_type`."""
    error: tuple[int, str] | None
    """Number of the first line that oslo.config refuses, and the reason; None without one."""
    is_absent: bool
    """True if nova-compute must read it, and it does not exist."""
    barrier: Barrier | None
    """What keeps nova-compute's account from reading it; None if it can, or if that is unknown."""


class LogFile(NamedTuple):
    """The file that nova-compute logs to."""

    path: str
    is_absent: bool
    """True if it does not exist: nova-compute makes it."""
    barrier: Barrier | None
    """What keeps nova-compute's account from writing it; None if it can, or if that is unknown."""


@dataclass(frozen=True, eq=False)
class ConfigurationFiles:
    """The configuration files of one host's nova-compute."""

    bundle: Bundle
    host: str

    @cached_property
    def answer(self) -> Answer | None:
        """The answer about them; None if they were not asked about."""
        return next(iter([*self.bundle.asked("host", QUERY, self.host)][-1:]), None)

    @cached_property
    def listed(self) -> Sequence[ConfigurationFile]:
        """The files in the order in which they are read. Raises `UnheardError`."""
        if self.answer is None:
            raise UnheardError("the configuration files of nova-compute were not examined")
        value = value_of(self.answer, "nova's configuration files", dict[str, Any])
        rows, reader = value.get("files"), value.get("reader")
        if not isinstance(rows, list) or not isinstance(reader, dict):
            raise UnheardError("the list of nova's configuration files can't be read")
        return tuple(_read(row, reader) for row in rows if isinstance(row, dict))

    @cached_property
    def log(self) -> LogFile | None:
        """nova-compute's log file; None if it has none. Raises `UnheardError`."""
        if self.answer is None:
            raise UnheardError("the configuration files of nova-compute were not examined")
        value = value_of(self.answer, "nova's configuration files", dict[str, Any])
        reader = value.get("reader")
        if "log" not in value or not isinstance(reader, dict):  # older collectors did not ask
            raise UnheardError("the log file of nova-compute was not examined")
        row = value["log"]
        if not isinstance(row, dict):
            return None
        is_absent = row.get("absent") is True
        return LogFile(
            text(row, "path") or "",
            is_absent,
            next(_barriers_of_log(row, reader, is_absent=is_absent), None),
        )

    def of(self, section: str, option: str) -> str | None:
        """Return the path of the file that decides an option; None if that is unknown."""
        try:
            files = self.listed
        except UnheardError:
            return None
        setting = [file.path for file in files if f"{section}.{option}" in file.sets]
        return setting[-1] if setting else None


def _read(row: Mapping[str, Any], reader: Mapping[str, Any]) -> ConfigurationFile:
    error = row.get("error")
    line, reason = None, ""
    if isinstance(error, dict):
        line, reason = whole(error.get("line")), str(error.get("message"))
    return ConfigurationFile(
        path=text(row, "path") or "",
        sets=frozenset(str(one) for one in row.get("sets") or ()),
        error=(line, reason) if line is not None else None,
        is_absent=row.get("absent") is True,
        barrier=next(_barriers(row, reader), None),
    )


_Step = tuple[Mapping[str, Any], int]
"""A file or folder, and the permissions that are needed for it."""


def _folders(row: Mapping[str, Any]) -> list[_Step]:
    return [(one, ENTER) for one in row.get("folders") or () if isinstance(one, dict)]


def _barriers(row: Mapping[str, Any], reader: Mapping[str, Any]) -> Iterator[Barrier]:
    return _closed([*_folders(row), (row, READ)], reader)


def _barriers_of_log(
    row: Mapping[str, Any], reader: Mapping[str, Any], *, is_absent: bool
) -> Iterator[Barrier]:
    folders = _folders(row)
    if not is_absent:
        return _closed([*folders, (row, WRITE)], reader)
    # A file that does not exist yet is made in its folder.
    last = [(folders[-1][0], WRITE | ENTER)] if folders else []
    return _closed([*folders[:-1], *last], reader)


def _closed(steps: Sequence[_Step], reader: Mapping[str, Any]) -> Iterator[Barrier]:
    """Yield what keeps the account out. Access control lists may allow more than the mode shows."""
    account, groups = whole(reader.get("uid")), reader.get("gids")
    if not account or not isinstance(groups, list):
        return  # unknown, or root, whom nothing keeps out
    for step, needed in steps:
        uid, gid, mode = whole(step.get("uid")), whole(step.get("gid")), step.get("mode")
        if uid is None or gid is None or step.get("acl") is True:
            continue
        if not isinstance(mode, str) or not re.fullmatch("[0-7]{1,4}", mode):
            continue
        shift = 6 if uid == account else 3 if gid in groups else 0
        if int(mode, 8) >> shift & needed != needed:
            yield Barrier(text(step, "path") or "", uid, gid, mode)
