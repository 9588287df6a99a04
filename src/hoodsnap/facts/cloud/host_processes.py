"""The QEMU processes of one host: which may be guests, and which files they hold open."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, caught, is_true, read_each, value_of
from hoodsnap.facts.host.account import Accounts
from hoodsnap.facts.process.process import OpenFile, Process
from hoodsnap.facts.quantity import whole


@dataclass(frozen=True, eq=False)
class HostProcesses:
    """The QEMU processes of one host."""

    own: Mapping[int, Process]
    """By PID: those that may be guests of libvirt, by their accounts."""
    strangers: Mapping[int, Process]
    """By PID: those of ordinary accounts, whose command lines prove nothing about a guest."""
    accounts: Accounts
    listing: Answer | None
    """The answer that lists all of them; None if that was not asked."""

    @classmethod
    def read(
        cls, answers: Iterable[Answer], accounts: Accounts, listing: Answer | None
    ) -> HostProcesses:
        """Read the kernel's answers of one host."""
        everyones = read_each(Process.read_all, answers)
        strangers = {pid: one for pid, one in everyones.items() if _is_strange(one, accounts)}
        own = {pid: one for pid, one in everyones.items() if pid not in strangers}
        return cls(own, strangers, accounts, listing)

    @property
    def everyones(self) -> tuple[Process, ...]:
        """All QEMU processes, whoever runs them."""
        return (*self.own.values(), *self.strangers.values())

    def find(self, pid: int) -> Process | None:
        """Return the QEMU process with this PID; None if it is no QEMU process that was asked."""
        return self.own.get(pid) or self.strangers.get(pid)

    @cached_property
    def contested(self) -> Mapping[tuple[str, int], tuple[tuple[Process, OpenFile], ...]]:
        """The open files (`held_by`) that several QEMU processes hold and one at least may write:
        who holds each, as often as it does."""
        found: dict[tuple[str, int], list[tuple[Process, OpenFile]]] = {}
        for process in self.everyones:
            try:
                for file in process.files:
                    found.setdefault(held_by(file), []).append((process, file))
            except Exception as error:
                caught(error)
                continue  # who asks about this process' files hears why
        return {
            key: tuple(holders)
            for key, holders in found.items()
            if any(file.writable for _, file in holders)
            and len({process.pid for process, _ in holders}) > 1
        }

    @cached_property
    def unseen_holder(self) -> str | None:
        """Reason why a process may hold a file that it was not seen to hold; None if none may."""
        for process in self.everyones:
            answer = process.said.get("fd")
            if answer is None or (answer.error is not None and answer.error.kind == "absent"):
                continue  # it was not asked, or has ended
            try:
                process.files  # noqa: B018
            except Exception as error:
                return f"pid {process.pid}: {caught(error)}"
        return None

    @cached_property
    def nameless(self) -> str | None:
        """Reason why a QEMU process may belong to any guest; None if each one is identified."""
        try:
            rows = value_of(self.listing, "the list of QEMU processes", list[dict[str, object]])
            own = [row for row in rows if not _is_row_of_stranger(row, self.accounts)]
            pids = [whole(row.get("pid")) for row in own]
            if None in pids:
                raise UnheardError("the PID of a process can't be read")
            for pid in {*filter(None, pids)} - set(self.strangers) | set(self.own):
                process = self.own.get(pid)
                if process is None:
                    raise UnheardError(f"process {pid} was not asked")
                process.argv  # noqa: B018 (raises if it was not heard)
        except UnheardError as reason:
            return str(reason)
        return None

    @cached_property
    def by_uuid(self) -> Mapping[str, tuple[Process, ...]]:
        """The QEMU processes that may be guests, by the UUID on their command line."""
        return _grouped(self.own.values(), lambda process: process.uuid)

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Process, ...]]:
        """The QEMU processes that may be guests, by the name on their command line."""
        return _grouped(self.own.values(), lambda process: process.name)


def held_by(file: OpenFile) -> tuple[str, int]:
    """Return the identity of an open file: device and inode, or the device that a block file is."""
    return (f"block {file.rdev}", 0) if stat.S_ISBLK(file.mode) else (file.dev, file.ino)


def _is_strange(process: Process, accounts: Accounts) -> bool:
    return is_true(lambda: not accounts.has(process.uid))


def _is_row_of_stranger(row: Mapping[str, object], accounts: Accounts) -> bool:
    uid = whole(row.get("uid"))  # not in bundles of older releases
    return uid is not None and not accounts.has(uid)


def _grouped(
    processes: Iterable[Process], key: Callable[[Process], str | None]
) -> dict[str, tuple[Process, ...]]:
    found: dict[str, list[Process]] = {}
    for process in processes:
        try:
            named = key(process)
            if named and not process.is_probe:
                found.setdefault(named, []).append(process)
        except Exception as error:
            caught(error)
            continue  # a command line that can't be read claims nothing
    return {named: tuple(same) for named, same in found.items()}
