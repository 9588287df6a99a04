"""Disks that QEMU reaches over the network by itself (rbd), and the guests that use each of them.

The kernel has no file of such a disk. Its identity is its protocol and its name; the servers tell
apart two clusters that use the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from hoodsnap.facts.cloud.guest import Guest
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
    """A running guest that uses a network disk."""

    guest: Guest
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
        host = self.guest.host.name if self.guest.host is not None else ""
        return host, self.process.pid if self.process is not None else 0

    def may_share(self, other: NetworkUser) -> bool:
        """True if both use one disk without harm, or if their disks may be different ones."""
        if (self.shareable and other.shareable) or not (self.writable or other.writable):
            return True
        apart = not {*self.servers} & {*other.servers}
        known = bool(self.servers and other.servers)
        # Only Ceph's names contain a UUID of their own; another export may have the same name.
        return apart and (known or self.name[0] != "rbd")


class NetworkDisks:
    """The network disks that all guests of a cloud use now."""

    def __init__(self, guests: Iterable[Guest]) -> None:
        self._guests = tuple(guests)

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
        return found


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
            guest,
            guest.process,
            domain,
            name,
            disk.image.servers,
            not disk.read_only,
            disk.shareable,
        )
    for process in guest.processes:
        for drive in process.disks:
            if drive.protocol in LOCAL or drive.source is None:
                continue
            name = drive.protocol, drive.source
            controlled = process is guest.process and domain is not None and domain.id is not None
            # A volume may have been detached since; nova never detaches its own disks.
            if controlled and (name in live or volume_in(drive.source) is not None):
                continue
            yield NetworkUser(
                guest, process, None, name, drive.servers, not drive.read_only, shareable=False
            )


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
