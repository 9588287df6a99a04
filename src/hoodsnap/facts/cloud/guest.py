"""A guest: one UUID with the facts of every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, get_args, get_origin, get_type_hints

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.allocation import Allocation
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import VolumeOwners
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instance_mapping import InstanceMapping
from hoodsnap.facts.database.service import HostRecords
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import Fact, UnheardError, caught, facts_in, may_be_none, unlocked
from hoodsnap.facts.host.cgroup import Cgroup
from hoodsnap.facts.host.device import Device
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.host.tap import Tap
from hoodsnap.facts.layer import LAYER_OF, Layer
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process

NOVAS = ("nova-db", "nova")
"""The layers that have nova's record of a guest."""


@unlocked
@dataclass(frozen=True, eq=False)
class Guest:
    """One VM on one host, as every layer reports it.

    An attribute that is None means that the object does not exist if its layer was collected, and
    that it is unknown otherwise (`unheard`).
    """

    uuid: str
    host: Host | None
    """Captured host that it is on; None if it is on no host or on one that was not collected."""
    believed: str | None
    """nova-compute host in nova's records; None if it is on no host. See `host_name`."""
    server: Server | None
    instance: Instance | None
    allocation: Allocation | None
    """Resources that placement has reserved for it."""
    domain: Domain | None
    process: Process | None
    """QEMU process with its UUID. If there are several, the one that holds libvirt's PID file open,
    else the first."""
    processes: tuple[Process, ...]
    """All QEMU processes with its UUID."""
    cgroup: Cgroup | None
    """Control groups that its process is in."""
    monitor: Monitor | None
    images: tuple[Image, ...] | None
    """Its disk images, as reported by qemu-img."""
    devices: tuple[Device, ...] | None
    """Block devices of the host that serve as its disks."""
    volumes: tuple[Volume, ...] | None
    """Volumes that any layer assigns to it, as reported by cinder."""
    storage: VolumeOwners
    """All layers' records of all volumes, not only of this guest's."""
    log: Log | None
    """Log lines about it."""
    mapping: InstanceMapping
    """Its records in nova's API database; reading them raises `UnheardError` if they were not
    collected."""
    copies: tuple[Instance, ...]
    """Its rows in every cell, including deleted and archived ones."""
    records: HostRecords
    """The nova databases' records of all hosts."""
    ports: tuple[Port, ...] | None
    """Its ports in neutron, on any host."""
    taps: tuple[Tap, ...] | None
    """Its network devices on this host."""
    unheard: Mapping[str, str]
    """Layer → reason why it is unknown whether the layer has this VM."""
    census: Mapping[str, Answer]
    """Layer → the answer that lists everything in the layer: the evidence of an absence."""
    hidden: str | None = None
    """Reason why nova's record of its host is unknown (tenants don't see it); None if known."""
    moving: str | None = None
    """Change while it was captured: `task_state nothing → spawning`; None if nothing changed."""
    twins: tuple[Guest, ...] = ()
    """Guests with the same UUID on other captured hosts. The twins themselves have no twins."""

    @cached_property
    def record(self) -> Server | Instance | None:
        """nova's record: the database row; without one, the server in the API."""
        return self.instance or self.server

    @cached_property
    def name(self) -> str:
        """Display name: nova's name, else the domain's, else the process's; "" if unknown."""
        for fact in (self.instance, self.server, self.domain, self.process):
            try:
                if fact is not None and fact.name:
                    return fact.name
            except Exception as error:
                caught(error)
                continue
        return ""

    @property
    def title(self) -> str:
        """Display name in headlines: its name, or its UUID if no layer gives it a name."""
        return self.name or self.uuid

    @property
    def carries_record(self) -> bool:
        """True if checks judge nova's records of this UUID by this guest.

        If several hosts have a trace of the UUID, its records are judged once: by the guest on the
        host where nova has it.
        """
        if self.host is None or self.hidden is not None:
            return True
        return self.record is not None and self._is_on(self.host)

    @property
    def runs(self) -> bool:
        """True if it runs on this host, paused or not: it has a process or an active domain."""
        if self.process is not None:
            return True
        return self.domain is not None and self.domain.state in ON

    @property
    def is_served(self) -> bool:
        """True if it has a process here, and nova or the host's libvirt knows it.

        Another cloud's QEMU on the same host has neither.
        """
        known = self.record is not None or self.domain is not None
        return self.process is not None and known

    @property
    def domain_name(self) -> str | None:
        """Domain name; None if it has no domain or the name is unknown."""
        try:
            return self.domain.name if self.domain is not None else None
        except Exception as error:
            caught(error)
            return None

    @property
    def host_name(self) -> str | None:
        """nova-compute host in nova's records, captured or not; None if it is on no host."""
        if self.hidden is not None:
            raise UnheardError(self.hidden)
        return self.believed

    @property
    def volume_ids(self) -> frozenset[str] | None:
        """Volumes in nova's block device mappings; None if they were not collected."""
        instance = self.instance
        if instance is None or instance.devices is None or instance.deleted:
            return None
        volumes = (device.get("volume_id") for device in instance.devices)
        return frozenset(volume for volume in volumes if isinstance(volume, str))

    @cached_property
    def is_here(self) -> bool:
        """True if nova's records have it on this captured host.

        Raises `UnheardError` if nova was not collected: a record that nobody asked for may exist.
        """
        return not self.lacks_record and self.host is not None and self._is_on(self.host)

    def _is_on(self, host: Host) -> bool:
        return self.host_name == host.nova_name

    @property
    def lacks_record(self) -> bool:
        """True if nova has no record of it. Raises `UnheardError` if nova was not collected."""
        if self.record is not None:
            return False
        reasons = [self.unheard[layer] for layer in NOVAS if layer in self.unheard]
        if len(reasons) == len(NOVAS):
            raise UnheardError(reasons[0])
        return True

    @property
    def is_novas(self) -> bool:
        """True if nova's commands reach the server: nova has it, or it is unknown whether it has.

        nova has no server for a domain that was defined by hand, and none any more for a deleted
        one.
        """
        try:
            return not self.lacks_record and not (self.record is not None and self.record.deleted)
        except Exception as error:  # not collected, or unreadable
            caught(error)
            return True

    @property
    def is_nowhere(self) -> bool:
        """True if nova's records have it on no host, and no captured host has a trace of it."""
        return self.host is None and self.hidden is None and self.believed is None


class Noun(NamedTuple):
    """An attribute of a guest that one layer provides."""

    fact: type[Fact]
    many: bool
    """True if the attribute is a tuple of facts."""

    @property
    def layer(self) -> Layer:
        """The layer that provides the attribute."""
        return self.fact.layer


def nouns_of(guest: type, layer_of: Mapping[str, Layer] = LAYER_OF) -> Mapping[str, Noun]:
    """Return the attributes of a guest that one layer provides, and that may be None.

    Raises `TypeError` for an attribute that is not a noun of its fact's layer, and for a noun that
    is not an attribute.
    """
    found: dict[str, Noun] = {}
    for name, hint in get_type_hints(guest, localns={"Host": object, "Guest": guest}).items():
        kinds = facts_in(hint) if may_be_none(hint) else ()
        if not kinds:
            continue
        many = any(get_origin(part) is tuple for part in get_args(hint))
        noun = Noun(kinds[0], many)
        if layer_of.get(name) is not noun.layer:
            raise TypeError(
                f"guest.{name} is not among the nouns of {noun.layer.title} in facts/layer.py"
            )
        found[name] = noun
    for name in layer_of:
        if name not in found:
            raise TypeError(f"a guest has no {name}, which is a noun in facts/layer.py")
    return found


NOUNS = nouns_of(Guest)
"""The nouns of a guest, in the order of its attributes."""
