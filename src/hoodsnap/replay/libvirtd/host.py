"""One recorded host as libvirt presents it: its domains and networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from hoodsnap.facts.quantity import whole
from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.virterror import FROM_NETWORK, NO_DOMAIN, NO_NETWORK, LibvirtError
from hoodsnap.replay.recording import NotRecordedError, Recording

INACTIVE = 2
"""The flag for the definition of the next start (VIR_DOMAIN_XML_INACTIVE)."""


@dataclass(frozen=True, slots=True)
class ReplayedDomain:
    """One domain of the recorded list."""

    name: str
    uuid: str
    id: int | None
    """The domain's id; None if it is shut off."""

    @property
    def encoded(self) -> bytes:
        """The domain as struct remote_nonnull_domain."""
        number = -1 if self.id is None else self.id
        return xdr.string(self.name) + UUID(self.uuid).bytes + xdr.int_(number)


class ReplayedHost:
    """A recorded host. All methods raise `NotRecordedError` if the recording has no answer."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def value(self, query: str) -> Any:
        """Return the answer to a query about the host."""
        return self.recording.value("libvirt", query)

    @cached_property
    def domains(self) -> tuple[ReplayedDomain, ...]:
        """All domains, in libvirt's order."""
        listed = self.value("virsh list --all")
        if not isinstance(listed, list):
            raise NotRecordedError("the recorded list of domains can't be read")
        return tuple(_domain(row) for row in listed)

    @cached_property
    def by_uuid(self) -> Mapping[str, ReplayedDomain]:
        """The domains, by UUID."""
        return {domain.uuid: domain for domain in self.domains}

    @cached_property
    def by_name(self) -> Mapping[str, ReplayedDomain]:
        """The domains, by name."""
        return {domain.name: domain for domain in self.domains}

    @cached_property
    def networks(self) -> Mapping[str, Mapping[str, Any]]:
        """The rows of the list of networks, by name."""
        listed = self.value("virsh net-list --all")
        if not isinstance(listed, list):
            raise NotRecordedError("the recorded list of networks can't be read")
        return {str(row["name"]): row for row in listed}

    def domain(self, arguments: xdr.Reader) -> ReplayedDomain:
        """Return the domain that a call names. Raises `LibvirtError`."""
        name, uuid, _ = arguments.string(), arguments.uuid(), arguments.int()
        return must_be_there(self.by_uuid.get(uuid), f"matching uuid '{uuid}' ({name})")

    def network(self, arguments: xdr.Reader) -> Mapping[str, Any]:
        """Return the network that a call names. Raises `LibvirtError`."""
        name, _ = arguments.string(), arguments.uuid()
        return self.network_called(name)

    def network_called(self, name: str) -> Mapping[str, Any]:
        """Return the network with a name. Raises `LibvirtError`."""
        if name not in self.networks:
            text = f"Network not found: no network with matching name '{name}'"
            raise LibvirtError(NO_NETWORK, text, FROM_NETWORK)
        return self.networks[name]

    def of(self, domain: ReplayedDomain, command: str, rest: str = "") -> Any:
        """Return the answer to `virsh COMMAND DOMAIN REST`."""
        query = f"virsh {command} {domain.name}{rest}"
        return self.recording.value("libvirt", query, domain.uuid)

    def info(self, domain: ReplayedDomain, field: str) -> Any:
        """Return one field of `virsh dominfo`."""
        info = self.of(domain, "dominfo")
        if field not in info:
            raise NotRecordedError(f"{field} of {domain.name} was not recorded")
        return info[field]

    def state(self, domain: ReplayedDomain) -> tuple[int, int]:
        """Return the state and its reason, as libvirt's numbers."""
        found = self.of(domain, "domstate --reason")
        return found["state"], found["reason"]

    def xml(self, domain: ReplayedDomain, flags: int = 0) -> str:
        """Return the live XML document or, with the flag `INACTIVE`, the one for the next start."""
        # A domain that is shut off has a single definition, which libvirt shows in both cases.
        stored = flags & INACTIVE or domain.id is None
        return str(self.of(domain, "dumpxml --inactive" if stored else "dumpxml"))


def must_be_there(domain: ReplayedDomain | None, what: str) -> ReplayedDomain:
    """Return the domain; raise `LibvirtError` if it is None. `what`: how it was looked up."""
    if domain is None:
        raise LibvirtError(NO_DOMAIN, f"Domain not found: no domain with {what}")
    return domain


def _domain(row: Mapping[str, Any]) -> ReplayedDomain:
    number = row["id"]
    if number is not None and whole(number) is None:
        raise ValueError("the id of a domain is not a number")
    return ReplayedDomain(str(row["name"]), str(UUID(row["uuid"])), whole(number))
