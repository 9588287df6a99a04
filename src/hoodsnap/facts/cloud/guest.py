"""One UUID, and what each layer says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from hoodsnap.facts.fact import Fact, UnheardError, caught, facts_in, may_be_none
from hoodsnap.facts.host.cgroup import Cgroup
from hoodsnap.facts.host.device import Device
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.host.tap import Tap
from hoodsnap.facts.layer import LAYER_OF, Layer
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process


@dataclass(frozen=True, eq=False)
class Guest:
    """One VM on one host, as every layer tells it.

    An attribute that is None means "there is none" if its layer is heard, "cannot say" otherwise.
    """

    uuid: str
    host: Host | None
    """The captured host it is on; None if it is on none, or on one that is in no bundle."""
    believed: str | None
    """The nova-compute host it is on by nova's word; None if on none. See `host_name`."""
    server: Server | None
    instance: Instance | None
    allocation: Allocation | None
    """What placement has reserved for it."""
    domain: Domain | None
    process: Process | None
    """The QEMU process with its UUID; of several the first (`processes` has all)."""
    processes: tuple[Process, ...]
    cgroup: Cgroup | None
    """The control groups that its process is in."""
    monitor: Monitor | None
    images: tuple[Image, ...] | None
    """Its disks as qemu-img sees them."""
    devices: tuple[Device, ...] | None
    """The host's block devices that its disks are."""
    volumes: tuple[Volume, ...] | None
    """The volumes that it has by anybody's word, as cinder shows them."""
    storage: VolumeOwners
    """What all layers say of all volumes, whosever they are."""
    log: Log | None
    """What the logs' ends say of it."""
    mapping: InstanceMapping
    """What nova's API database has of it; unheard where it was not asked."""
    copies: tuple[Instance, ...]
    """Its rows in every cell, the deleted and archived ones too."""
    records: HostRecords
    """What the nova databases say of all hosts."""
    ports: tuple[Port, ...] | None
    """Its ports by neutron, wherever they are bound."""
    taps: tuple[Tap, ...] | None
    """What of its network this host has."""
    unheard: Mapping[str, str]
    """For each layer that can't say whether it has this VM: why."""
    census: Mapping[str, Answer]
    """For each layer the answer that lists everything it has: the evidence of an absence."""
    hidden: str | None = None
    """Why nova's word on its host was not heard (a tenant does not see it); None if it was."""
    moving: str | None = None
    """What changed while it was captured; None if nothing did."""
    twins: tuple[Guest, ...] = ()
    """The same UUID on other captured hosts: what their layers have of it. A twin has no twins."""

    @property
    def record(self) -> Server | Instance | None:
        """What nova believes: the database row where there is one, else what the API shows."""
        return self.instance or self.server

    @property
    def name(self) -> str:
        """What to call it: nova's name, else the domain's, else the process'."""
        for fact in (self.instance, self.server, self.domain, self.process):
            try:
                if fact is not None and fact.name:
                    return fact.name
            except Exception as error:
                caught(error)
                continue
        return ""

    @property
    def carries_record(self) -> bool:
        """Of a UUID that several hosts have a trace of: the one by which nova's records of it are
        judged, once. It is that of the host where nova has it."""
        return self.host is None or self.hidden is not None or self.is_here

    @property
    def runs(self) -> bool:
        """It runs on this host: libvirt or the kernel has seen it, paused or not."""
        if self.process is not None:
            return True
        return self.domain is not None and self.domain.state in ON

    @property
    def domain_name(self) -> str | None:
        """What libvirt calls it; None if it has no domain, or that was not heard."""
        try:
            return self.domain.name if self.domain is not None else None
        except Exception as error:
            caught(error)
            return None

    @property
    def host_name(self) -> str | None:
        """The nova-compute host it is on by nova's word, captured or not; None if on none."""
        if self.hidden is not None:
            raise UnheardError(self.hidden)
        return self.believed

    @property
    def volume_ids(self) -> frozenset[str] | None:
        """The volumes that are attached to it by nova's word; None if that was not heard."""
        instance = self.instance
        if instance is None or instance.devices is None or instance.deleted:
            return None
        volumes = (device.get("volume_id") for device in instance.devices)
        return frozenset(volume for volume in volumes if isinstance(volume, str))

    @property
    def is_here(self) -> bool:
        """nova believes that it is on this captured host."""
        return self.host is not None and self.host_name == self.host.nova_name

    @property
    def is_nowhere(self) -> bool:
        """nova believes that it is on no host at all, and no captured host has a trace of it."""
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
