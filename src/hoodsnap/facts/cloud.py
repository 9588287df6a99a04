"""The join: every host of a bundle, its guests, and what nova says of all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.allocation import Placement
from hoodsnap.facts.daemon import doubts
from hoodsnap.facts.database import Instances
from hoodsnap.facts.device import LIST, Device, Devices
from hoodsnap.facts.domain import Domain
from hoodsnap.facts.fact import Unheard, is_true, value_of
from hoodsnap.facts.guest import LAYERS, Guest, Host
from hoodsnap.facts.image import ImageStore, base_of
from hoodsnap.facts.instance import Instance
from hoodsnap.facts.log import Log, listing_of
from hoodsnap.facts.look import moved
from hoodsnap.facts.monitor import Monitor
from hoodsnap.facts.port import PREFIX, Port, Ports
from hoodsnap.facts.process import Process
from hoodsnap.facts.release import Span, release_of_cloud
from hoodsnap.facts.server import Server, Servers
from hoodsnap.facts.storage import Storage
from hoodsnap.facts.tap import LINKS, NAME, HostNetwork, Tap
from hoodsnap.facts.volume import Volume, Volumes


@dataclass(frozen=True, eq=False)
class Cloud:
    """Every host of every bundle given, and what nova says of all of them."""

    bundle: Bundle
    servers: Servers
    instances: Instances
    placement: Placement
    storage: Storage
    ports: Ports
    hosts: tuple[Host, ...]
    guests: tuple[Guest, ...]
    """By host and name; those on no captured host last."""

    @cached_property
    def now(self) -> datetime:
        """When it was captured, by the collector's clock."""
        return self.bundle.ended

    def twins(self, uuid: str) -> tuple[Guest, ...]:
        """What each captured host has of one UUID; of most there is one."""
        return self._by_uuid.get(uuid, ())

    @cached_property
    def _by_uuid(self) -> Mapping[str, tuple[Guest, ...]]:
        found: dict[str, list[Guest]] = {}
        for guest in self.guests:
            found.setdefault(guest.uuid, []).append(guest)
        return {uuid: tuple(same) for uuid, same in found.items()}

    @cached_property
    def release(self) -> Span:
        """Of nova's databases and API: `cloud.release.since(Release.TRAIN)`."""
        return release_of_cloud(self.bundle)

    @cached_property
    def image_names(self) -> Mapping[str, str]:
        """The names of the glance images that were asked, by id."""
        found = {}
        for answer in self.bundle.asked("glance", "GET /v2/images/"):
            if isinstance(answer.value, dict) and isinstance(answer.value.get("name"), str):
                found[answer.query.rpartition("/")[2]] = answer.value["name"]
        return found

    @cached_property
    def image_of_base(self) -> Mapping[str, str]:
        """The image id behind each name in `_base`, which is the sha1 of it."""
        known = set(self.image_names)
        records: tuple[Server | Instance, ...]
        records = (*self.servers.by_uuid.values(), *self.instances.by_uuid.values())
        for fact in records:
            try:
                if fact.image:
                    known.add(fact.image)
            except Unheard:
                continue
        return {base_of(image): image for image in known}


def read(bundle: Bundle) -> Cloud:
    """Everything that a bundle (or several, merged) says, joined."""
    servers = Servers(bundle.by_layer.get("nova", ()))
    instances = Instances(bundle.by_layer.get("nova-db", ()))
    placement = Placement(bundle.by_layer.get("placement", ()))
    ports = Ports(bundle.by_layer.get("neutron", ()))
    movements = moved(bundle.answers)
    known = servers.by_uuid.keys() | instances.by_uuid.keys()
    hosts = tuple(
        _read_host(bundle, name, known, instances, placement, ports) for name in _host_names(bundle)
    )
    instances.doubted = _another_database(hosts, servers, instances)
    volumes = Volumes(bundle.by_layer.get("cinder", ()))
    storage = Storage(volumes, instances, (host.domains for host in hosts))
    join = _Join(servers, instances, placement, storage, ports, movements)
    guests = [guest for host in hosts for guest in join.guests_of(host)]
    guests += join.guests_elsewhere({guest.uuid for guest in guests})
    cloud = Cloud(bundle, servers, instances, placement, storage, ports, hosts, tuple(guests))
    for guest in guests:
        guest.twins.extend(twin for twin in cloud.twins(guest.uuid) if twin is not guest)
    return cloud


def _host_names(bundle: Bundle) -> list[str]:
    answers = (bundle.by_layer.get(layer, ()) for layer in ("libvirt", "kernel", "images"))
    return sorted({answer.host for group in answers for answer in group})


def _read_host(
    bundle: Bundle,
    name: str,
    known: Collection[str],
    instances: Instances,
    placement: Placement,
    ports: Ports,
) -> Host:
    """One of the hosts. `known` are the UUIDs that nova spoke of."""

    def of(layer: str) -> list[Answer]:
        return [answer for answer in bundle.by_layer.get(layer, ()) if answer.host == name]

    domains, processes = Domain.read_all(of("libvirt")), Process.read_all(of("kernel"))
    images = ImageStore.read(of("images"))
    unheard, census = _heard_of(bundle, name, images)
    for layer, why in doubts(bundle, name, domains, processes, known).items():
        unheard.setdefault(layer, why)
    return Host(
        name=name,
        bundle=bundle,
        domains=domains,
        processes=processes,
        monitors=Monitor.read_all(of("qemu")),
        images=images,
        devices=Devices(of("block"), bundle.last("kernel", "/proc/self/mountinfo", name)),
        logs=Log.read_all(of("logs")),
        network=HostNetwork.read(of("network")),
        ports=ports,
        unheard=unheard,
        census=census,
        instances=instances,
        records=instances.hosts,
        placement=placement,
    )


def _heard_of(
    bundle: Bundle, name: str, images: ImageStore
) -> tuple[dict[str, str], dict[str, Answer]]:
    unheard: dict[str, str] = {}
    census: dict[str, Answer] = {}
    lists: tuple[tuple[str, str, type[object]], ...] = (
        ("libvirt", "virsh list --all", list[dict[str, object]]),
        ("kernel", "ls -l /proc/*/exe", list[dict[str, object]]),
        ("block", LIST, dict[str, list[dict[str, object]]]),
        ("network", LINKS, list[dict[str, object]]),
    )
    for layer, query, shape in lists:
        answer = bundle.last(layer, query, name)
        try:
            value_of(answer, "lsblk" if layer == "block" else LAYERS[layer], shape)
        except Unheard as reason:
            unheard[layer] = _first_failure(bundle, layer, name) or str(reason)
        else:
            assert answer is not None  # noqa: S101 (value_of raised otherwise)
            census[layer] = answer
    if images.listing is None:
        unheard["images"] = _first_failure(bundle, "images", name) or "disk images were not asked"
    else:
        census["images"] = images.listing
    if logs := listing_of(bundle.by_layer.get("logs", ()), name):
        census["logs"] = logs
    else:
        unheard["logs"] = _first_failure(bundle, "logs", name) or "the logs were not asked"
    return unheard, census


def _first_failure(bundle: Bundle, layer: str, host: str) -> str | None:
    for answer in bundle.by_layer.get(layer, ()):
        if answer.host == host and answer.error is not None:
            return f"{LAYERS[layer]}: {answer.error.message}"
    return None


def _another_database(hosts: Iterable[Host], servers: Servers, instances: Instances) -> str | None:
    """Why the databases that were read can't be those of these hosts; None if they may be."""
    running = {
        uuid
        for host in hosts
        for uuid, domain in host.domains.items()
        if _is_active(domain) and _is_novas(domain)
    }
    if len(running) < 2 or running & instances.by_uuid.keys() or not instances.cells:
        return None
    if not running & servers.by_uuid.keys():
        return None  # two who both don't know them are right
    return (
        f"libvirt runs {len(running)} guests of nova's, its API knows them, and no database does: "
        "was another cloud's asked?"
    )


def _is_novas(domain: Domain) -> bool:
    return is_true(lambda: domain.is_nova)


def _is_active(domain: Domain) -> bool:
    return is_true(lambda: domain.id is not None)


def _is_deleted(instance: Instance | None) -> bool:
    return instance is not None and is_true(lambda: instance.deleted)


class _Join:
    """Puts one VM's facts together."""

    def __init__(
        self,
        servers: Servers,
        instances: Instances,
        placement: Placement,
        storage: Storage,
        ports: Ports,
        movements: Mapping[str, str],
    ) -> None:
        self.servers = servers
        self.instances = instances
        self.storage = storage
        self.placement = placement
        self.ports = ports
        self.movements = movements
        self.at_host: dict[str, set[str]] = {}
        self.believed: dict[str, str | None] = {}
        self.hidden: dict[str, str] = {}
        for uuid in self.servers.by_uuid.keys() | self.instances.by_uuid.keys():
            try:
                host = self._believed_host(uuid)
            except Unheard as reason:
                host = None
                self.hidden[uuid] = f"its host: {reason}"
            self.believed[uuid] = host
            if host is not None:
                self.at_host.setdefault(host, set()).add(uuid)

    def _believed_host(self, uuid: str) -> str | None:
        instance, server = self.instances.by_uuid.get(uuid), self.servers.by_uuid.get(uuid)
        if instance is not None:
            return None if instance.deleted else instance.host
        return server.host if server is not None else None

    def guests_of(self, host: Host) -> list[Guest]:
        here = set(self.at_host.get(host.nova_name, ())) | set(host.domains) | set(host.by_uuid)
        # A folder alone makes a guest only if nova does not know that it belongs elsewhere.
        here |= {uuid for uuid in host.images.folders if self.believed.get(uuid) is None}
        # So does a port that was left bound here.
        here |= {uuid for uuid in self._bound_to(host) if self._is_gone(uuid)}
        found = [self._guest(uuid, host) for uuid in here]
        host.guests.extend(sorted(found, key=_order))
        return host.guests

    def _bound_to(self, host: Host) -> Iterable[str]:
        for uuid, ports in self.ports.by_device.items():
            if any(_is_bound_to(port, host.nova_name) for port in ports):
                yield uuid

    def _is_gone(self, uuid: str) -> bool:
        """nova knows it as deleted, or not at all."""
        return uuid not in self.believed or _is_deleted(self.instances.by_uuid.get(uuid))

    def guests_elsewhere(self, seen: set[str]) -> list[Guest]:
        found = []
        for uuid in self.believed.keys() - seen:
            if not _is_deleted(self.instances.by_uuid.get(uuid)):
                found.append(self._guest(uuid, None))
        return sorted(found, key=_order)

    def _guest(self, uuid: str, host: Host | None) -> Guest:
        server, instance = self.servers.by_uuid.get(uuid), self.instances.by_uuid.get(uuid)
        unheard: dict[str, str] = {}
        census: dict[str, Answer] = {}
        self._hear_nova(uuid, server, unheard, census)
        self._hear_database(uuid, instance, unheard, census)
        if not self.storage.volumes.heard:
            unheard["cinder"] = self.storage.volumes.silence
        self._hear_neutron(uuid, unheard, census)
        ports = None if "neutron" in unheard else self.ports.by_device.get(uuid, ())
        allocation = self.placement.of(uuid)
        if allocation is None:
            self._hear_placement(uuid, unheard, census)
        believed = self.believed.get(uuid)
        if host is None:
            where = f"host {believed} is in no bundle" if believed else "it is on no host"
            where = self.hidden.get(uuid, where)
            layers = ("libvirt", "kernel", "qemu", "images", "block", "logs", "network")
            unheard |= dict.fromkeys(layers, where)
            return Guest(
                uuid=uuid,
                host=None,
                believed=believed,
                server=server,
                instance=instance,
                allocation=allocation,
                domain=None,
                process=None,
                processes=(),
                monitor=None,
                images=None,
                devices=None,
                volumes=self._volumes(uuid, instance, None),
                storage=self.storage,
                log=None,
                mapping=self.instances.mapping(uuid),
                copies=tuple(self.instances.copies.get(uuid, ())),
                records=self.instances.hosts,
                ports=ports,
                taps=None,
                unheard=unheard,
                census=census,
                hidden=self.hidden.get(uuid),
                moving=self.movements.get(uuid),
            )
        unheard |= host.unheard
        census |= host.census
        if host.nameless and uuid not in host.by_uuid:
            unheard.setdefault("kernel", host.nameless)
        monitor = host.monitors.get(uuid)
        if monitor is None:
            unheard["qemu"] = "QEMU was not asked (collect --qmp asks it)"
        domain, processes = host.domains.get(uuid), host.by_uuid.get(uuid, ())
        if _sees_another_network(host, processes):
            unheard["network"] = "its network namespace is another one than was looked at"
        return Guest(
            uuid=uuid,
            host=host,
            believed=believed,
            hidden=self.hidden.get(uuid),
            server=server,
            instance=instance,
            allocation=allocation,
            domain=domain,
            process=_own(processes, domain),
            processes=processes,
            monitor=monitor,
            images=None if "images" in unheard else host.images.of(uuid, _disks(domain)),
            devices=None if "block" in unheard else _devices(host, domain),
            volumes=self._volumes(uuid, instance, domain),
            storage=self.storage,
            log=host.logs.get(uuid),
            mapping=self.instances.mapping(uuid),
            copies=tuple(self.instances.copies.get(uuid, ())),
            records=self.instances.hosts,
            ports=ports,
            taps=None if "network" in unheard else _taps(host, uuid, domain, ports or ()),
            unheard=unheard,
            census=census,
            moving=self.movements.get(uuid),
        )

    def _volumes(
        self, uuid: str, instance: Instance | None, domain: Domain | None
    ) -> tuple[Volume, ...] | None:
        if not self.storage.volumes.heard:
            return None
        return self.storage.of(uuid, instance, domain)

    def _hear_nova(
        self,
        uuid: str,
        server: Server | None,
        unheard: dict[str, str],
        census: dict[str, Answer],
    ) -> None:
        if server is not None:
            return
        # A list proves no absence: it leaves out those that are (softly) deleted.
        if uuid in self.servers.absent and self.servers.sees_all:
            census["nova"] = self.servers.absent[uuid]
        elif uuid in self.servers.unreadable:
            unheard["nova"] = f"nova API: {self.servers.unreadable[uuid]}"
        elif uuid in self.servers.absent:
            unheard["nova"] = "the nova API shows this user only the servers of some projects"
        elif self.servers.heard:
            unheard["nova"] = "the nova API was not asked for this UUID"
        else:
            unheard["nova"] = f"nova API: {self.servers.obstacle or 'it was not asked'}"

    def _hear_database(
        self,
        uuid: str,
        instance: Instance | None,
        unheard: dict[str, str],
        census: dict[str, Answer],
    ) -> None:
        if instance is not None:
            return
        if reason := self.instances.searched(uuid):
            unheard["nova-db"] = f"nova database: {reason}"
        elif answer := self.instances.asked(uuid):
            census["nova-db"] = answer

    def _hear_neutron(self, uuid: str, unheard: dict[str, str], census: dict[str, Answer]) -> None:
        answer = self.ports.of_device(uuid)
        if answer is not None:
            census["neutron"] = answer
        else:
            unheard["neutron"] = self.ports.obstacle_of(uuid)

    def _hear_placement(
        self, uuid: str, unheard: dict[str, str], census: dict[str, Answer]
    ) -> None:
        try:
            census["placement"] = self.placement.nothing(uuid)
        except Unheard as reason:
            unheard["placement"] = str(reason)


def _is_bound_to(port: Port, host: str) -> bool:
    return is_true(lambda: port.host == host)


def _sees_another_network(host: Host, processes: Iterable[Process]) -> bool:
    """The collector looked at the devices of another namespace than the guest's process has."""
    answer = host.bundle.last("host", "readlink /proc/self/ns/*", host.name)
    try:
        own = value_of(answer, "its namespaces", dict[str, str]).get("net")
        theirs = {process.namespaces.get("net") for process in processes}
    except Unheard:
        return False
    return own is not None and bool(theirs - {own, None})


def _taps(host: Host, uuid: str, domain: Domain | None, ports: Iterable[Port]) -> tuple[Tap, ...]:
    """Those of its network cards, then those of its ports, then what Open vSwitch says is its."""
    prefixes = dict.fromkeys(_prefixes(domain))
    prefixes |= dict.fromkeys(port.id[:PREFIX] for port in ports)
    prefixes |= dict.fromkeys(host.network.prefixes_of.get(uuid, ()))
    found = (host.network.taps.get(prefix) for prefix in prefixes)
    return tuple(tap for tap in found if tap is not None)


def _prefixes(domain: Domain | None) -> Iterable[str]:
    try:
        targets = domain.taps if domain is not None else ()
    except Unheard:
        return
    for target in targets:
        if found := NAME.fullmatch(target):
            yield found["prefix"]


def _disks(domain: Domain | None) -> Iterable[str]:
    try:
        return [disk.source for disk in domain.disks if disk.source] if domain else ()
    except Unheard:
        return ()


def _devices(host: Host, domain: Domain | None) -> tuple[Device, ...]:
    try:
        found = (host.devices.find(path) for path in _disks(domain))
        return tuple(device for device in found if device is not None)
    except Unheard:
        return ()


def _own(processes: tuple[Process, ...], domain: Domain | None) -> Process | None:
    """Of several that claim to be this guest the one that libvirt means: it writes each QEMU's PID
    into a file, which that QEMU holds open."""
    if len(processes) > 1 and domain is not None:
        held = [process for process in processes if _holds_pid_file(process, domain)]
        if len(held) == 1:
            return held[0]
    return processes[0] if processes else None


def _holds_pid_file(process: Process, domain: Domain) -> bool:
    return is_true(lambda: any(file.path.endswith(f"/{domain.name}.pid") for file in process.files))


def _order(guest: Guest) -> tuple[str, str]:
    return guest.name, guest.uuid
