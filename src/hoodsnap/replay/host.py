"""What libvirt knew of one recorded host: its domains and networks, as virsh was told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from hoodsnap.facts.quantity import whole
from hoodsnap.replay import xdr
from hoodsnap.replay.recording import NotRecordedError, Recording
from hoodsnap.replay.virterror import FROM_NETWORK, NO_DOMAIN, NO_NETWORK, LibvirtError

INACTIVE = 2
"""The flag of a definition that would be started next (VIR_DOMAIN_XML_INACTIVE)."""


@dataclass(frozen=True, slots=True)
class ReplayedDomain:
    """One of the recorded list."""

    name: str
    uuid: str
    id: int | None
    """None while it is off."""

    @property
    def encoded(self) -> bytes:
        """struct remote_nonnull_domain."""
        number = -1 if self.id is None else self.id
        return xdr.string(self.name) + UUID(self.uuid).bytes + xdr.int_(number)


class ReplayedHost:
    """Everything here raises `NotRecordedError` where the recording has no answer."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def said(self, query: str) -> Any:
        """The answer to a question about the host."""
        return self.recording.value("libvirt", query)

    @cached_property
    def domains(self) -> tuple[ReplayedDomain, ...]:
        """All, in libvirt's order."""
        listed = self.said("virsh list --all")
        if not isinstance(listed, list):
            raise NotRecordedError("what was recorded as the list of domains is none")
        return tuple(_domain(row) for row in listed)

    @cached_property
    def by_uuid(self) -> Mapping[str, ReplayedDomain]:
        """The domains."""
        return {domain.uuid: domain for domain in self.domains}

    @cached_property
    def by_name(self) -> Mapping[str, ReplayedDomain]:
        """The domains."""
        return {domain.name: domain for domain in self.domains}

    @cached_property
    def networks(self) -> Mapping[str, Mapping[str, Any]]:
        """The rows of the list of networks, by name."""
        listed = self.said("virsh net-list --all")
        if not isinstance(listed, list):
            raise NotRecordedError("what was recorded as the list of networks is none")
        return {str(row["name"]): row for row in listed}

    def domain(self, arguments: xdr.Reader) -> ReplayedDomain:
        """The domain that a call names. Raises `LibvirtError`."""
        name, uuid, _ = arguments.string(), arguments.uuid(), arguments.int()
        return must_be_there(self.by_uuid.get(uuid), f"matching uuid '{uuid}' ({name})")

    def network(self, arguments: xdr.Reader) -> Mapping[str, Any]:
        """The network that a call names. Raises `LibvirtError`."""
        name, _ = arguments.string(), arguments.uuid()
        return self.network_called(name)

    def network_called(self, name: str) -> Mapping[str, Any]:
        """The network of a name. Raises `LibvirtError`."""
        if name not in self.networks:
            text = f"Network not found: no network with matching name '{name}'"
            raise LibvirtError(NO_NETWORK, text, FROM_NETWORK)
        return self.networks[name]

    def of(self, domain: ReplayedDomain, command: str, rest: str = "") -> Any:
        """The answer to `virsh COMMAND DOMAIN REST`."""
        query = f"virsh {command} {domain.name}{rest}"
        return self.recording.value("libvirt", query, domain.uuid)

    def info(self, domain: ReplayedDomain, field: str) -> Any:
        """One field of `virsh dominfo`."""
        info = self.of(domain, "dominfo")
        if field not in info:
            raise NotRecordedError(f"{field} of {domain.name} was not recorded")
        return info[field]

    def state(self, domain: ReplayedDomain) -> tuple[int, int]:
        """State and reason, by libvirt's numbers."""
        said = self.of(domain, "domstate --reason")
        return said["state"], said["reason"]

    def xml(self, domain: ReplayedDomain, flags: int = 0) -> str:
        """The document, as it is or (`INACTIVE`) as it would be started next."""
        # What is off has one definition only, and libvirt shows it whatever is asked for.
        stored = flags & INACTIVE or domain.id is None
        return str(self.of(domain, "dumpxml --inactive" if stored else "dumpxml"))


def must_be_there(domain: ReplayedDomain | None, what: str) -> ReplayedDomain:
    """The domain that was looked for by `what`. Raises `LibvirtError` if there is none."""
    if domain is None:
        raise LibvirtError(NO_DOMAIN, f"Domain not found: no domain with {what}")
    return domain


def _domain(row: Mapping[str, Any]) -> ReplayedDomain:
    number = row["id"]
    if number is not None and whole(number) is None:
        raise ValueError("the number of a domain is none")
    return ReplayedDomain(str(row["name"]), str(UUID(row["uuid"])), whole(number))
