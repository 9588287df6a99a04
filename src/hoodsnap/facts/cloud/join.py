"""The join: all guests, each with the facts of every layer about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.allocation import Allocation, Placement
from hoodsnap.facts.api.port import PREFIX, Port, Ports
from hoodsnap.facts.api.server import Servers
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import VolumeOwners
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instance_mapping import InstanceMapping
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.database.tables import Tables
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught, is_true, known
from hoodsnap.facts.host.device import Device, Devices
from hoodsnap.facts.host.host_network import HostNetwork
from hoodsnap.facts.host.tap import NAME, Tap
from hoodsnap.facts.layer import LAYERS, OF_HOST, WITHOUT_CENSUS
from hoodsnap.facts.process.process import Process


class Join:
    """Joins the facts of each guest."""

    def __init__(
        self,
        servers: Servers,
        instances: Instances,
        placement: Placement,
        storage: VolumeOwners,
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
            except Exception as error:  # a net: a guest whose host is unreadable affects no other
                host = None
                self.hidden[uuid] = f"nova's record of its host: {caught(error)}"
            self.believed[uuid] = host
            if host is not None:
                self.at_host.setdefault(host, set()).add(uuid)

    def _believed_host(self, uuid: str) -> str | None:
        instance, server = self.instances.by_uuid.get(uuid), self.servers.by_uuid.get(uuid)
        if instance is not None:
            return None if instance.deleted else instance.host
        return server.host if server is not None else None

    def guests_of(self, host: Host) -> list[Guest]:
        """Return the guests that a captured host has a trace of, or that nova has there."""
        here = (
            set(self.at_host.get(host.nova_name, ()))
            | set(host.domains)
            | set(host.processes.by_uuid)
        )
        # A folder alone makes a guest only if nova does not know that it belongs elsewhere.
        here |= {uuid for uuid in host.images.folders if self.believed.get(uuid) is None}
        # A port that is still bound here makes a guest if nova has no live record of the instance.
        here |= {uuid for uuid in self._bound_to(host) if self._is_gone(uuid)}
        return sorted((self._netted(uuid, host) for uuid in here), key=_order)

    def _bound_to(self, host: Host) -> Iterable[str]:
        for uuid, ports in self.ports.by_device.items():
            if any(_is_bound_to(port, host.nova_name) for port in ports):
                yield uuid

    def _is_gone(self, uuid: str) -> bool:
        """True if nova has no record of the UUID, or has it as deleted."""
        return uuid not in self.believed or _is_deleted(self.instances.by_uuid.get(uuid))

    def guests_elsewhere(self, seen: set[str]) -> list[Guest]:
        """Return the guests in nova's records, except deleted ones and those in `seen`."""
        found = []
        for uuid in self.believed.keys() - seen:
            if not _is_deleted(self.instances.by_uuid.get(uuid)):
                found.append(self._netted(uuid, None))
        return sorted(found, key=_order)

    def _netted(self, uuid: str, host: Host | None) -> Guest:
        """Return a guest. If its facts can't be joined, all its layers are unknown."""
        try:
            return self._guest(uuid, host)
        except Exception as error:
            reason = str(caught(error))
        return Guest(
            uuid=uuid,
            host=host,
            believed=self.believed.get(uuid),
            hidden=self.hidden.get(uuid),
            server=None,
            instance=None,
            allocation=None,
            domain=None,
            process=None,
            processes=(),
            cgroup=None,
            monitor=None,
            images=None,
            devices=None,
            volumes=None,
            storage=self.storage,
            log=None,
            mapping=InstanceMapping(uuid=uuid, raw=None, tables=Tables(())),
            copies=(),
            records=self.instances.hosts,
            ports=None,
            taps=None,
            unheard=dict.fromkeys(LAYERS, reason),
            census={},
            moving=self.movements.get(uuid),
        )

    def _guest(self, uuid: str, host: Host | None) -> Guest:
        instance, allocation = self.instances.by_uuid.get(uuid), self.placement.of(uuid)
        unheard: dict[str, str] = {}
        census: dict[str, Answer] = {}
        self._hear_nova(uuid, unheard, census)
        self._hear_cloud(uuid, allocation, unheard, census)
        if host is not None:
            _hear_host(host, uuid, unheard, census)
        else:
            unheard |= dict.fromkeys((layer.id for layer in OF_HOST), self._whereabouts(uuid))
        domain = host.domains.get(uuid) if host is not None else None
        processes = host.processes.by_uuid.get(uuid, ()) if host is not None else ()
        process = _own(processes, domain)
        groups = host.cgroups if host is not None and "cgroup" not in unheard else None
        ports = None if "neutron" in unheard else self.ports.of_server(uuid)
        images = host.images if host is not None and "images" not in unheard else None
        devices = host.devices if host is not None and "block" not in unheard else None
        network = host.network if host is not None and "network" not in unheard else None
        guest = Guest(
            uuid=uuid,
            host=host,
            believed=self.believed.get(uuid),
            hidden=self.hidden.get(uuid),
            server=self.servers.by_uuid.get(uuid),
            instance=instance,
            allocation=allocation,
            domain=domain,
            process=process,
            processes=processes,
            cgroup=groups.of(process.pid) if groups is not None and process is not None else None,
            monitor=host.monitors.get(uuid) if host is not None else None,
            images=images.of(uuid, _disks(domain)) if images is not None else None,
            devices=_devices(devices, domain) if devices is not None else None,
            volumes=self._volumes(uuid, instance, domain),
            storage=self.storage,
            log=host.logs.get(uuid) if host is not None else None,
            mapping=self.instances.mapping(uuid),
            copies=tuple(self.instances.copies.get(uuid, ())),
            records=self.instances.hosts,
            ports=ports,
            taps=_taps(network, uuid, domain, ports or ()) if network is not None else None,
            unheard=unheard,
            census=census,
            moving=self.movements.get(uuid),
        )
        for layer in WITHOUT_CENSUS if host is not None else ():
            if all(getattr(guest, noun) is None for noun in layer.nouns):
                unheard[layer.id] = layer.silence
        return guest

    def _volumes(
        self, uuid: str, instance: Instance | None, domain: Domain | None
    ) -> tuple[Volume, ...] | None:
        if not self.storage.volumes.heard:
            return None
        return self.storage.of(uuid, instance, domain)

    def _whereabouts(self, uuid: str) -> str:
        """Return the reason why no captured host can report anything about the server."""
        believed = self.believed.get(uuid)
        where = f"host {believed} is in no bundle" if believed else "the server is on no host"
        return self.hidden.get(uuid, where)

    def _hear_nova(self, uuid: str, unheard: dict[str, str], census: dict[str, Answer]) -> None:
        servers, instances = self.servers, self.instances
        # A list proves no absence: it leaves out deleted and soft-deleted servers.
        if uuid in servers.by_uuid:
            pass
        elif uuid in servers.absent and servers.sees_all:
            census["nova"] = servers.absent[uuid]
        elif uuid in servers.unreadable:
            unheard["nova"] = f"nova API: {servers.unreadable[uuid]}"
        elif uuid in servers.absent:
            unheard["nova"] = "nova API: this user sees only the servers of some projects"
        elif servers.heard:
            unheard["nova"] = "nova API: this server was not collected"
        else:
            unheard["nova"] = f"nova API: {servers.obstacle or 'the servers were not collected'}"
        if uuid in instances.by_uuid:
            pass
        elif reason := instances.searched(uuid):
            unheard["nova-db"] = f"nova database: {reason}"
        elif answer := instances.asked(uuid):
            census["nova-db"] = answer

    def _hear_cloud(
        self,
        uuid: str,
        allocation: Allocation | None,
        unheard: dict[str, str],
        census: dict[str, Answer],
    ) -> None:
        """Note the evidence or the reason for cinder, neutron and placement."""
        if not self.storage.volumes.heard:
            unheard["cinder"] = self.storage.volumes.silence
        answer = self.ports.of_device(uuid)
        if answer is not None:
            census["neutron"] = answer
        else:
            unheard["neutron"] = self.ports.silence
        if allocation is None:
            try:
                census["placement"] = self.placement.nothing(uuid)
            except UnheardError as reason:
                unheard["placement"] = str(reason)


def with_twins(guests: Sequence[Guest]) -> tuple[Guest, ...]:
    """Return the guests in their order, each with its twins on other hosts."""
    same: dict[str, list[Guest]] = {}
    for guest in guests:
        same.setdefault(guest.uuid, []).append(guest)
    return tuple(
        replace(guest, twins=tuple(twin for twin in same[guest.uuid] if twin is not guest))
        if len(same[guest.uuid]) > 1
        else guest
        for guest in guests
    )


def _hear_host(host: Host, uuid: str, unheard: dict[str, str], census: dict[str, Answer]) -> None:
    unheard |= host.unheard
    census |= host.census
    processes = host.processes.by_uuid.get(uuid, ())
    if host.processes.nameless and not processes:
        unheard.setdefault("kernel", host.processes.nameless)
    if _sees_another_network(host, processes):
        unheard["network"] = (
            "host network: the network namespace of the QEMU process was not collected"
        )


def _is_deleted(instance: Instance | None) -> bool:
    return instance is not None and is_true(lambda: instance.deleted)


def _is_bound_to(port: Port, host: str) -> bool:
    return is_true(lambda: port.host == host)


def _sees_another_network(host: Host, processes: Iterable[Process]) -> bool:
    """True if a process of the guest is in another network namespace than the collector was."""
    own = host.network_space
    try:
        theirs = {process.namespaces.get("net") for process in processes}
    except Exception as error:
        caught(error)
        return False
    return own is not None and bool(theirs - {own, None})


def _taps(
    network: HostNetwork, uuid: str, domain: Domain | None, ports: Iterable[Port]
) -> tuple[Tap, ...]:
    """Return a guest's taps: of its network cards, of its ports, and by UUID in Open vSwitch."""
    prefixes = dict.fromkeys(_prefixes(domain))
    prefixes |= dict.fromkeys(port.id[:PREFIX] for port in ports)
    prefixes |= dict.fromkeys(network.prefixes_of.get(uuid, ()))
    found = (network.taps.get(prefix) for prefix in prefixes)
    return tuple(tap for tap in found if tap is not None)


def _prefixes(domain: Domain | None) -> Iterable[str]:
    try:
        targets = domain.taps if domain is not None else ()
    except Exception as error:
        caught(error)
        return
    for target in targets:
        if found := NAME.fullmatch(target):
            yield found["prefix"]


def _disks(domain: Domain | None) -> Iterable[str]:
    try:
        return [disk.source for disk in domain.disks if disk.source] if domain else ()
    except Exception as error:
        caught(error)
        return ()


def _devices(devices: Devices, domain: Domain | None) -> tuple[Device, ...]:
    try:
        found = (devices.find(path) for path in _disks(domain))
        return tuple(device for device in found if device is not None)
    except Exception as error:
        caught(error)
        return ()


def _own(processes: tuple[Process, ...], domain: Domain | None) -> Process | None:
    """Return the guest's process.

    If several processes claim its UUID, return the one that holds libvirt's PID file open; the
    first process if none or more than one of them does. Without the domain, the file has the name
    on the process's own command line.
    """
    if len(processes) > 1:
        held = [process for process in processes if _holds_pid_file(process, domain)]
        if len(held) == 1:
            return held[0]
    return processes[0] if processes else None


def _holds_pid_file(process: Process, domain: Domain | None) -> bool:
    name = known(lambda: domain.name if domain is not None else None) or known(lambda: process.name)
    return is_true(lambda: any(file.path.endswith(f"/{name}.pid") for file in process.files))


def _order(guest: Guest) -> tuple[str, str]:
    return guest.name, guest.uuid
