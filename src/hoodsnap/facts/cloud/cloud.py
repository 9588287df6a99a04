"""The cloud: every host of a bundle, their guests, and nova's records of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from hoodsnap.bundle import Bundle
from hoodsnap.facts.api.allocation import Placement
from hoodsnap.facts.api.glance_image import GlanceImages
from hoodsnap.facts.api.port import Ports
from hoodsnap.facts.api.server import Server, Servers
from hoodsnap.facts.api.volume import Volumes
from hoodsnap.facts.api.volume_service import VolumeService, read_volume_services
from hoodsnap.facts.cloud.exclusive_resources import ExclusiveResources
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host, answers_of, read_host
from hoodsnap.facts.cloud.image_cache import ImageCache
from hoodsnap.facts.cloud.join import Join, with_twins
from hoodsnap.facts.cloud.movement import gone, moved
from hoodsnap.facts.cloud.network_disks import NetworkDisks
from hoodsnap.facts.cloud.release import ReleaseRange, release_of_cloud
from hoodsnap.facts.cloud.volume_owners import VolumeOwners
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import caught, is_true, known, read_each
from hoodsnap.facts.host.instances_directory import base_of
from hoodsnap.facts.layer import GUESTS_LIVE_IN, LIBVIRT
from hoodsnap.phrase import brief, several

SHOWN = 3
"""Number of servers that a headline names; the others are only counted."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """Every host of all given bundles, their guests, and nova's records of all of them."""

    bundle: Bundle
    servers: Servers
    instances: Instances
    placement: Placement
    storage: VolumeOwners
    ports: Ports
    hosts: tuple[Host, ...]
    guests: tuple[Guest, ...]
    """In order of host and name; guests on no captured host come last."""

    @cached_property
    def now(self) -> datetime:
        """Time of the capture, by the collector's clock."""
        return self.bundle.ended

    def guests_of(self, host: Host) -> tuple[Guest, ...]:
        """Return the guests that this host has a trace of or that nova has there, by name."""
        return self._by_host.get(host.name, ())

    @cached_property
    def _by_host(self) -> Mapping[str, tuple[Guest, ...]]:
        found: dict[str, list[Guest]] = {}
        for guest in self.guests:
            if guest.host is not None:
                found.setdefault(guest.host.name, []).append(guest)
        return {name: tuple(guests) for name, guests in found.items()}

    def exclusive(self, host: Host) -> ExclusiveResources:
        """Return the host's resources that one guest may own exclusively, with their claimants."""
        return self._exclusive[host.name]

    @cached_property
    def _exclusive(self) -> Mapping[str, ExclusiveResources]:
        return {host.name: ExclusiveResources(self.guests_of(host)) for host in self.hosts}

    @cached_property
    def network_disks(self) -> NetworkDisks:
        """The disks that QEMUs on any captured host reach over the network by themselves."""
        return NetworkDisks(self.guests, self.hosts)

    def image_cache(self, host: Host) -> ImageCache:
        """Return the host's image cache: its base images, and those that nova would remove."""
        return self._image_caches[host.name]

    @cached_property
    def _image_caches(self) -> Mapping[str, ImageCache]:
        return {host.name: ImageCache(host, self.guests_of(host)) for host in self.hosts}

    def twins(self, uuid: str) -> tuple[Guest, ...]:
        """Return the guests with a UUID: one for each captured host that has it, usually one."""
        return self._by_uuid.get(uuid, ())

    def title_of(self, uuid: str) -> str:
        """Return a server's display name; the beginning of its UUID if no layer gives it a name."""
        for guest in self.twins(uuid):
            if guest.name:
                return guest.name
        instance, server = self.instances.by_uuid.get(uuid), self.servers.by_uuid.get(uuid)
        name = known(lambda: instance.name) if instance is not None else None
        name = name or (known(lambda: server.name) if server is not None else None)
        return name or brief(uuid)

    def titles_of(self, uuids: Iterable[str]) -> str:
        """Return the display names of servers for a headline: `vm-a, vm-b, vm-c and 4 more`."""
        listed = [*uuids]
        # Only the first ones are looked up: a thousand servers may claim one disk.
        return several([*map(self.title_of, listed[:SHOWN]), *listed[SHOWN:]], SHOWN)

    @cached_property
    def _by_uuid(self) -> Mapping[str, tuple[Guest, ...]]:
        found: dict[str, list[Guest]] = {}
        for guest in self.guests:
            found.setdefault(guest.uuid, []).append(guest)
        return {uuid: tuple(same) for uuid, same in found.items()}

    @cached_property
    def release(self) -> ReleaseRange:
        """Release of nova's databases and API: `cloud.release.since(Release.TRAIN)`."""
        return release_of_cloud(self.bundle)

    @cached_property
    def glance(self) -> GlanceImages:
        """The images in glance."""
        return read_each(GlanceImages, self.bundle.by_layer.get("glance", ()))

    @cached_property
    def volume_services(self) -> tuple[VolumeService, ...]:
        """cinder's services, on all hosts. Raises `UnheardError`."""
        return read_volume_services(self.bundle)

    @cached_property
    def image_names(self) -> Mapping[str, str]:
        """Id → name, for the glance images that were collected."""
        found = {}
        for answer in self.bundle.asked("glance", "GET /v2/images/"):
            if isinstance(answer.value, dict) and isinstance(answer.value.get("name"), str):
                found[answer.query.rpartition("/")[2]] = answer.value["name"]
        return found

    @cached_property
    def image_of_base(self) -> Mapping[str, str]:
        """Name of a base image in `_base` → image id. The name is the SHA-1 of the id."""
        known = set(self.image_names)
        records: tuple[Server | Instance, ...]
        records = (*self.servers.by_uuid.values(), *self.instances.by_uuid.values())
        for fact in records:
            try:
                if fact.image:
                    known.add(fact.image)
            except Exception as error:
                caught(error)
                continue
        return {base_of(image): image for image in known}


def read(bundle: Bundle) -> Cloud:
    """Read a bundle (or several, merged) and join everything in it."""
    servers = read_each(Servers, bundle.by_layer.get("nova", ()))
    instances = read_each(Instances, bundle.by_layer.get("nova-db", ()))
    placement = read_each(Placement, bundle.by_layer.get("placement", ()))
    ports = read_each(Ports, bundle.by_layer.get("neutron", ()))
    movements = read_each(gone, bundle.answers) | read_each(moved, bundle.answers)
    known = servers.by_uuid.keys() | instances.by_uuid.keys()
    domains = {
        name: read_each(Domain.read_all, answers_of(bundle, LIBVIRT, name))
        for name in _host_names(bundle)
    }
    instances = _doubted(domains.values(), servers, instances)
    hosts = tuple(
        read_host(bundle, name, own, known, instances, placement, ports)
        for name, own in domains.items()
    )
    volumes = read_each(Volumes, bundle.by_layer.get("cinder", ()))
    storage = VolumeOwners(volumes, instances, domains.values())
    join = Join(servers, instances, placement, storage, ports, movements)
    guests = [guest for host in hosts for guest in join.guests_of(host)]
    guests += join.guests_elsewhere({guest.uuid for guest in guests})
    together = with_twins(guests)
    return Cloud(bundle, servers, instances, placement, storage, ports, hosts, together)


def _doubted(
    domains: Iterable[Mapping[str, Domain]], servers: Servers, instances: Instances
) -> Instances:
    """Return the instances, in doubt with a reason if their databases can't belong to these
    hosts."""
    try:
        reason = _another_database(domains, servers, instances)
    except Exception as error:  # a net: whether the databases belong here is then unknown
        reason = str(caught(error))
    return instances if reason is None else instances.in_doubt(reason)


def _host_names(bundle: Bundle) -> list[str]:
    answers = (bundle.by_layer.get(layer, ()) for layer in GUESTS_LIVE_IN)
    return sorted({answer.host for group in answers for answer in group})


def _another_database(
    domains: Iterable[Mapping[str, Domain]], servers: Servers, instances: Instances
) -> str | None:
    """Return the reason why these databases can't belong to these hosts; None if they may."""
    running = {
        uuid
        for own in domains
        for uuid, domain in own.items()
        if _is_active(domain) and _is_novas(domain)
    }
    if len(running) < 2 or running & instances.by_uuid.keys() or not instances.cells:
        return None
    if not running & servers.by_uuid.keys():
        return None  # API and database agree that nova does not have these guests
    return (
        f"libvirt runs {len(running)} of nova's guests and the nova API lists them, but no nova "
        "database does: possibly the database of another cloud was collected"
    )


def _is_novas(domain: Domain) -> bool:
    return is_true(lambda: domain.is_nova)


def _is_active(domain: Domain) -> bool:
    return is_true(lambda: domain.id is not None)
