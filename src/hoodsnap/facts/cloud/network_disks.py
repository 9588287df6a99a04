"""Disks that QEMU reaches over the network by itself (rbd), and the guests that use each of them.

The kernel has no file of such a disk. Its identity is its protocol and its name; the servers tell
apart two clusters that use the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_in
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.facts.process.process import Process

LOCAL = frozenset(["file", "host_device", "host_cdrom", "json"])
"""Protocols of a command line's disks that the kernel of the host opens."""

Name = tuple[str, str]
"""Protocol and name: `("rbd", "vms/UUID_disk")`."""


class NetworkUser(NamedTuple):
    """A running guest, or a QEMU that is no guest, that uses a network disk."""

    title: str
    """The guest's name for people; "" if the QEMU is no guest."""
    host: str
    """Name of its host; "" if it is unknown."""
    process: Process | None
    """The QEMU process; None if it was not collected."""
    domain: Domain | None
    """The domain whose live definition names the disk; None if only the command line does."""
    name: Name
    servers: tuple[str, ...]
    writable: bool
    shareable: bool

    @property
    def place(self) -> tuple[str, int]:
        """Host and PID: what makes two users different ones."""
        return self.host, self.process.pid if self.process is not None else 0

    def may_share(self, other: NetworkUser) -> bool:
        """True if both use one disk without harm, or if their disks may be different ones."""
        if (self.shareable and other.shareable) or not (self.writable or other.writable):
            return True
        apart = not {*self.servers} & {*other.servers}
        known = bool(self.servers and other.servers)
        # Only Ceph's names contain a UUID of their own; another export may have the same name.
        return apart and (known or self.name[0] != "rbd")


class NetworkDisks:
    """The network disks that all guests of a cloud use now, and all other QEMUs on its hosts."""

    def __init__(self, guests: Iterable[Guest], hosts: Iterable[Host]) -> None:
        self._guests = tuple(guests)
        self._hosts = tuple(hosts)

    def of(self, guest: Guest) -> tuple[NetworkUser, ...]:
        """Return a guest's uses. Raises `UnheardError` if a source of them can't be read."""
        return tuple(_uses(guest))

    def others(self, user: NetworkUser) -> tuple[NetworkUser, ...]:
        """Return the other processes that use the same disk so that one of them does harm."""
        return tuple(
            other
            for other in self._users.get(user.name, ())
            if other.place != user.place and not user.may_share(other)
        )

    @cached_property
    def _users(self) -> Mapping[Name, list[NetworkUser]]:
        found: dict[Name, list[NetworkUser]] = {}
        for guest in self._guests:
            try:
                for user in _uses(guest):
                    found.setdefault(user.name, []).append(user)
            except Exception as error:
                caught(error)
                continue  # the guest's own check raises the reason
        for user in self._of_no_guest():
            found.setdefault(user.name, []).append(user)
        return found

    def _of_no_guest(self) -> Iterator[NetworkUser]:
        guests = {(_host_of(guest), own.pid) for guest in self._guests for own in guest.processes}
        for host in self._hosts:
            # The command line of an ordinary account's process proves nothing.
            for process in host.processes.own.values():
                if (host.name, process.pid) in guests:
                    continue
                try:
                    yield from _started_with(process, "", host.name)
                except Exception as error:
                    caught(error)
                    continue  # a command line that can't be read claims nothing


def network_name(disk: Disk) -> Name | None:
    """Return protocol and name of a network disk; None for other disks, or without a medium."""
    if disk.image.type != "network" or disk.source is None:
        return None
    return disk.protocol or "network", disk.source


def _uses(guest: Guest) -> Iterator[NetworkUser]:
    domain = guest.domain
    live = {name: disk for disk in _live(guest) if (name := network_name(disk)) is not None}
    for name, disk in live.items():
        yield NetworkUser(
            guest.title,
            _host_of(guest),
            guest.process,
            domain,
            name,
            disk.image.servers,
            not disk.read_only,
            disk.shareable,
        )
    for process in guest.processes:
        controlled = process is guest.process and domain is not None and domain.id is not None
        for user in _started_with(process, guest.title, _host_of(guest)):
            # A volume may have been detached since; nova never detaches its own disks.
            if not controlled or (user.name not in live and volume_in(user.name[1]) is None):
                yield user


def _started_with(process: Process, title: str, host: str) -> Iterator[NetworkUser]:
    """Yield the network disks on a QEMU's command line."""
    for drive in process.disks:
        if drive.protocol in LOCAL or drive.source is None:
            continue
        yield NetworkUser(
            title,
            host,
            process,
            None,
            (drive.protocol, drive.source),
            drive.servers,
            not drive.read_only,
            shareable=False,
        )


def _host_of(guest: Guest) -> str:
    return guest.host.name if guest.host is not None else ""


def _live(guest: Guest) -> tuple[Disk, ...]:
    """Return the disks of a running guest's definition; empty if it does not run."""
    domain = guest.domain
    if domain is None or domain.id is None:
        return ()
    try:
        return domain.disks
    except UnheardError:
        if guest.process is None:
            raise
        return ()  # the command line names the disks that it was started with
