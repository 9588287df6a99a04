"""The QEMU processes of one host: those that may be guests, and the files that they hold open."""

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
    """PID → process, if its account may run libvirt guests."""
    strangers: Mapping[int, Process]
    """PID → process of an ordinary account; its command line proves nothing about a guest."""
    accounts: Accounts
    listing: Answer | None
    """The answer that lists all QEMU processes; None if it was not collected."""

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
        """All QEMU processes, of any account."""
        return (*self.own.values(), *self.strangers.values())

    def find(self, pid: int) -> Process | None:
        """Return the QEMU process with a PID; None if no such process was collected."""
        return self.own.get(pid) or self.strangers.get(pid)

    @cached_property
    def contested(self) -> Mapping[tuple[str, int], tuple[tuple[Process, OpenFile], ...]]:
        """Open file (`held_by`) → its holders, for files that several QEMU processes hold open and
        at least one can write to. A process is listed once for each of its descriptors."""
        found: dict[tuple[str, int], list[tuple[Process, OpenFile]]] = {}
        for process in self.everyones:
            try:
                for file in process.files:
                    found.setdefault(held_by(file), []).append((process, file))
            except Exception as error:
                caught(error)
                continue  # reading the files of this process raises the reason
        return {
            key: tuple(holders)
            for key, holders in found.items()
            if any(file.writable for _, file in holders)
            and len({process.pid for process, _ in holders}) > 1
        }

    @cached_property
    def unseen_holder(self) -> str | None:
        """Reason why the open files of a process are unknown; None if all are known."""
        for process in self.everyones:
            answer = process.said.get("fd")
            if answer is None or (answer.error is not None and answer.error.kind == "absent"):
                continue  # its files were not requested, or it has ended
            try:
                process.files  # noqa: B018
                for lost in process.lost_files:
                    return f"pid {process.pid}: {lost.path}: {lost.error}"
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
                    raise UnheardError(f"process {pid} was not collected")
                process.argv  # noqa: B018 (raises if it was not collected)
        except UnheardError as reason:
            return str(reason)
        return None

    @cached_property
    def by_uuid(self) -> Mapping[str, tuple[Process, ...]]:
        """UUID on the command line → the QEMU processes that may be guests."""
        return _grouped(self.own.values(), lambda process: process.uuid)

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Process, ...]]:
        """Name on the command line → the QEMU processes that may be guests."""
        return _grouped(self.own.values(), lambda process: process.name)


def held_by(file: OpenFile) -> tuple[str, int]:
    """Return the identity of an open file: its device and inode; of a block device, its number."""
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
