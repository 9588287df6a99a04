"""The difference of two bundles: servers, hosts, services and findings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from hoodsnap.diff import daemons, guests, hosts
from hoodsnap.diff.change import Change, Gap
from hoodsnap.diff.findings import FindingChange, compare
from hoodsnap.diff.guests import Pair
from hoodsnap.diff.identity import are_two_clouds
from hoodsnap.diff.side import Side
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import is_true
from hoodsnap.findings.analysis import Report


class NothingInCommonError(Exception):
    """The two bundles have no service, cell, host or server in common."""


@dataclass(frozen=True, eq=False)
class ServerDifference:
    """A server that changed, appeared or went."""

    pair: Pair
    changes: tuple[Change, ...]
    findings: tuple[FindingChange, ...]

    @property
    def uuid(self) -> str:
        """UUID of the server."""
        return self.pair.guest.uuid

    @property
    def name(self) -> str:
        """Name of the server in nova, the newest one; without one, the name of its domain."""
        sides = [guest for guest in (self.pair.after, self.pair.before) if guest is not None]
        named = [guest for guest in sides if guest.record is not None]
        return (named or sides)[0].name

    @property
    def fate(self) -> str:
        """`appeared`, `went` or `changed`."""
        if self.pair.before is None:
            return "appeared"
        return "went" if self.pair.after is None else "changed"

    @property
    def counts(self) -> bool:
        """True if something changed; a finding that was not decided before is no change."""
        decided = any(finding.undecided is None for finding in self.findings)
        return bool(self.changes) or decided or self.fate != "changed"


@dataclass(frozen=True, eq=False)
class HostDifference:
    """A host, or the control plane, that changed."""

    name: str | None
    """Name of the host; None for the control plane."""
    changes: tuple[Change, ...]
    findings: tuple[FindingChange, ...]


@dataclass(frozen=True, eq=False)
class Difference:
    """The changes between two bundles."""

    before: Report
    after: Report
    servers: tuple[ServerDifference, ...]
    """Servers with a change or a finding that only one side has, in the order of the bundles."""
    hosts: tuple[HostDifference, ...]
    same: int
    """Number of servers that are as before."""
    same_findings: int
    gaps: tuple[Gap, ...]
    """Layers that only one of the two bundles has."""

    @cached_property
    def findings(self) -> tuple[FindingChange, ...]:
        """All findings that only one side has."""
        of_servers = (one for server in self.servers for one in server.findings)
        return (*of_servers, *(one for host in self.hosts for one in host.findings))

    @property
    def counts(self) -> bool:
        """True if anything changed. What could not be compared is no change."""
        hosts = any(
            host.changes or any(finding.undecided is None for finding in host.findings)
            for host in self.hosts
        )
        return hosts or any(server.counts for server in self.servers)


def difference(before: Report, after: Report, only: Collection[str] = ()) -> Difference:
    """Compare two reports; `only`: UUIDs of the servers to compare, empty for everything.

    Raises `NothingInCommonError`.
    """
    if are_two_clouds(before.cloud, after.cloud):
        raise NothingInCommonError
    found = compare(before, after)
    servers: list[ServerDifference] = []
    gaps: dict[Gap, None] = {}
    same = 0
    for pair in _pairs(Side(before), Side(after)):
        if only and pair.guest.uuid not in only:
            continue
        own = tuple(one for one in found.changes if one.server == pair.guest.uuid)
        changes = guests.changes_of(pair)
        gaps.update(dict.fromkeys(guests.gaps_of(pair)))
        if changes or own or pair.before is None or pair.after is None:
            servers.append(ServerDifference(pair, changes, own))
        else:
            same += 1
    around = () if only else (*_hosts(before.cloud, after.cloud, found.changes),)
    if not only:
        gaps.update(dict.fromkeys(_gaps(before.cloud, after.cloud)))
    return Difference(before, after, tuple(servers), around, same, found.same, tuple(gaps))


def _pairs(before: Side, after: Side) -> Iterator[Pair]:
    """Match the guests: by UUID on the same host, or wherever the other bundle has the UUID."""
    sides = before, after
    clouds = before.report.cloud, after.report.cloud
    old, new = (_by_uuid(cloud.guests) for cloud in clouds)
    for uuid in dict.fromkeys((*old, *new)):
        left, right = old.get(uuid, {}), new.get(uuid, {})
        both = [name for name in left if name in right]
        for name in both:
            yield Pair(left[name], right[name], sides)
        rest = [guest for name, guest in left.items() if name not in both]
        others = [guest for name, guest in right.items() if name not in both]
        if both:
            continue  # traces on other hosts are the findings' part
        if rest and others:
            yield Pair(_main(rest), _main(others), sides)
        elif rest and _could_know(clouds[1], rest[0]):
            yield Pair(_main(rest), None, sides)
        elif others and _could_know(clouds[0], others[0]):
            yield Pair(None, _main(others), sides)


def _by_uuid(found: Iterable[Guest]) -> Mapping[str, dict[str, Guest]]:
    by_uuid: dict[str, dict[str, Guest]] = {}
    for guest in found:
        by_uuid.setdefault(guest.uuid, {})[guest.host.name if guest.host else ""] = guest
    return by_uuid


def _main(found: Collection[Guest]) -> Guest:
    """Return the guest on the host where it runs; else the one that nova's records are about."""

    def order(guest: Guest) -> tuple[bool, bool]:
        return is_true(lambda: guest.runs), guest.host is not None

    return max(found, key=order)


def _could_know(cloud: Cloud, guest: Guest) -> bool:
    """True if a bundle would have this server: it searched nova's database for it, or lists the
    domains and processes of its host."""
    if cloud.instances.searched(guest.uuid) is None:
        return True
    if cloud.servers.everywhere is not None:
        return True
    return any(
        host.name == (guest.host.name if guest.host else None) and "libvirt" not in host.unheard
        for host in cloud.hosts
    )


def _gaps(before: Cloud, after: Cloud) -> Iterator[Gap]:
    """Yield what can't be compared of the hosts that both bundles have."""
    new = {host.name: host for host in after.hosts}
    for host in before.hosts:
        if host.name in new:
            yield from daemons.gaps_of(host, new[host.name])


def _hosts(
    before: Cloud, after: Cloud, findings: tuple[FindingChange, ...]
) -> Iterator[HostDifference]:
    own = [one for one in findings if one.server is None]
    old, new = ({host.name: host for host in cloud.hosts} for cloud in (before, after))
    for name in dict.fromkeys((*old, *new)):
        here = tuple(one for one in own if one.host == name)
        changes = hosts.changes_of(old[name], new[name]) if name in old and name in new else ()
        if changes or here:
            yield HostDifference(name, changes, here)
    known = {*old, *new}
    general = tuple(one for one in own if one.host not in known)
    changes = hosts.services(before, after)
    if changes or general:
        yield HostDifference(None, changes, general)
