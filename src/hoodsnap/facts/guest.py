"""One UUID, and what each layer says of it; one host, and what only it as a whole can tell."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.access import Access, User
from hoodsnap.facts.allocation import Allocation, Placement, Provider
from hoodsnap.facts.cache import ImageCache
from hoodsnap.facts.claims import Claims
from hoodsnap.facts.daemon import Daemon
from hoodsnap.facts.database import Instances
from hoodsnap.facts.device import Device, Devices
from hoodsnap.facts.domain import ON, Domain
from hoodsnap.facts.fact import Unheard, value_of
from hoodsnap.facts.hypervisor import Hypervisor
from hoodsnap.facts.image import Image, ImageStore
from hoodsnap.facts.instance import Instance
from hoodsnap.facts.log import Log
from hoodsnap.facts.mapping import InstanceMapping
from hoodsnap.facts.monitor import Monitor
from hoodsnap.facts.offer import Offer, read_offers
from hoodsnap.facts.port import Port, Ports
from hoodsnap.facts.process import OpenFile, Process, root_device
from hoodsnap.facts.release import Span, release_of_host
from hoodsnap.facts.server import Server
from hoodsnap.facts.service import ComputeNode, HostRecords, Service
from hoodsnap.facts.storage import Storage
from hoodsnap.facts.tap import HostNetwork, Tap
from hoodsnap.facts.volume import Volume

LAYERS = {
    "nova": "nova API",
    "nova-db": "nova database",
    "placement": "placement",
    "libvirt": "libvirt",
    "kernel": "kernel",
    "qemu": "QEMU",
    "images": "disk images",
    "block": "block devices",
    "cinder": "cinder",
    "neutron": "neutron API",
    "network": "host network",
    "logs": "logs",
}
"""The layers that a guest is joined from, outermost first, and their names for people."""


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
    monitor: Monitor | None
    images: tuple[Image, ...] | None
    """Its disks as qemu-img sees them."""
    devices: tuple[Device, ...] | None
    """The host's block devices that its disks are."""
    volumes: tuple[Volume, ...] | None
    """The volumes that it has by anybody's word, as cinder shows them."""
    storage: Storage
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
    twins: list[Guest] = field(default_factory=list)
    """The same UUID on other captured hosts: what is there of it, by their layers."""

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
            except Unheard:
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
        except Unheard:
            return None

    @property
    def host_name(self) -> str | None:
        """The nova-compute host it is on by nova's word, captured or not; None if on none."""
        if self.hidden is not None:
            raise Unheard(self.hidden)
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


@dataclass(frozen=True, eq=False)
class Host:
    """One hypervisor, and what only the host as a whole can tell."""

    name: str
    """Its kernel's host name."""
    bundle: Bundle
    domains: Mapping[str, Domain]
    processes: Mapping[int, Process]
    monitors: Mapping[str, Monitor]
    images: ImageStore
    devices: Devices
    logs: Mapping[str, Log]
    network: HostNetwork
    ports: Ports
    """What neutron says of all hosts."""
    unheard: Mapping[str, str]
    census: Mapping[str, Answer]
    instances: Instances
    """What the nova databases say, of this host and of others."""
    records: HostRecords
    """What the nova databases say of all hosts."""
    placement: Placement
    """What placement says of all hosts."""
    guests: list[Guest] = field(default_factory=list)

    @cached_property
    def _conf(self) -> Mapping[str, Mapping[str, object]] | Unheard:
        answer = self.bundle.last("host", "/etc/nova/nova.conf", self.name)
        try:
            return value_of(answer, "nova.conf", dict[str, dict[str, object]])
        except Unheard as reason:
            return reason

    def option(self, section: str, name: str, default: str = "") -> str:
        """One option of nova.conf, or what it is if it is not set. `Unheard` if the file was."""
        if isinstance(self._conf, Unheard):
            raise Unheard(str(self._conf))
        return str(self._conf.get(section, {}).get(name, default))

    @cached_property
    def nova_name(self) -> str:
        """What nova calls it: its `[DEFAULT]host`, which is the host name unless set."""
        try:
            return self.option("DEFAULT", "host") or self.name
        except Unheard:
            return self.name

    @cached_property
    def hypervisor(self) -> Hypervisor:
        """What it says of itself, beside its guests."""
        return Hypervisor(self.bundle, self.name)

    @cached_property
    def offers(self) -> Mapping[str, Offer]:
        """The flavors that its cloud offers now, by name."""
        return read_offers(self.bundle)

    @cached_property
    def claims(self) -> Claims:
        """What of it only one guest may have."""
        return Claims(self.guests)

    @cached_property
    def service(self) -> Service | None:
        """Its nova-compute by nova's records; None if nova has none of that name. Raises
        `Unheard`."""
        return next(iter(self.records.services_of(self.nova_name)), None)

    @cached_property
    def node(self) -> ComputeNode | None:
        """Its compute node by nova's records; None if nova has none. Raises `Unheard`."""
        return next(iter(self.records.nodes_of(self.nova_name)), None)

    @cached_property
    def provider(self) -> Provider | None:
        """What its compute node is in placement; None if there is no such provider, or that was
        not heard."""
        node = self.node
        return self.placement.providers.get(node.uuid or "") if node is not None else None

    @cached_property
    def compute_id(self) -> tuple[str, Answer] | None:
        """The UUID of its compute node as the host keeps it (2023.1 and later), and who said so;
        None if it keeps none. Raises `Unheard`."""
        found = None
        for answer in self.bundle.asked("host", "cat ", self.name):
            if answer.query.endswith("/compute_id"):
                found = answer
        if found is not None and found.error is not None and found.error.kind == "absent":
            return None
        kept = value_of(found, "the file compute_id", str).strip().lower()
        return (kept, found) if kept and found is not None else None

    @cached_property
    def release(self) -> Span:
        """Of its nova-compute: `host.release.since(Release.QUEENS)`."""
        try:
            services = self.records.services_of(self.nova_name)
        except Unheard:
            services = ()
        return release_of_host(self.bundle, self.name, services)

    @cached_property
    def cache(self) -> ImageCache:
        """Its base images, and which of them nova would remove."""
        return ImageCache(self)

    @cached_property
    def access(self) -> Access:
        """What the user may open that libvirt runs QEMU as."""
        uid, gid = self.hypervisor.owner
        return Access(self.images, User(uid, gid, self._groups(uid)))

    def _groups(self, uid: int) -> frozenset[int] | None:
        for process in self.processes.values():
            try:
                if process.uid == uid:
                    return process.groups
            except Unheard:
                continue
        return None

    @property
    def listing(self) -> Answer:
        """The list of everything in its instances directory."""
        if "images" not in self.census:
            raise Unheard(self.unheard.get("images", "no instances directory was listed"))
        return self.census["images"]

    def in_container(self, process: Process) -> bool:
        """Whether a process sees other files under the same paths than the collector did."""
        own = self.bundle.last("kernel", "/proc/self/mountinfo", self.name)
        return process.root_device != root_device(value_of(own, "/proc/self/mountinfo", str))

    @cached_property
    def contains(self) -> bool:
        """Whether one of its domains' QEMU processes sees other files than the collector did."""
        for process in (one for uuid in self.domains for one in self.by_uuid.get(uuid, ())):
            try:
                if self.in_container(process):
                    return True
            except Unheard:
                continue  # the others tell
        return False

    @cached_property
    def disk_owners(self) -> Mapping[str, frozenset[str]]:
        """File or device → the UUIDs of the guests that run with it as a disk of their own."""
        found: dict[str, set[str]] = {}
        for uuid, domain in self.domains.items():
            try:
                disks = domain.disks if domain.id is not None else ()
            except Unheard:
                continue  # what it runs with is not known, and is nobody else's fault
            for disk in disks:
                if disk.source is not None and not disk.shareable and not disk.read_only:
                    found.setdefault(disk.source, set()).add(uuid)
        return {source: frozenset(uuids) for source, uuids in found.items()}

    @cached_property
    def volume_owners(self) -> Mapping[str, frozenset[str]]:
        """Volume → the UUIDs of the guests here that it is attached to by nova's word."""
        found: dict[str, set[str]] = {}
        for guest in self.guests:
            for volume in guest.volume_ids or ():
                found.setdefault(volume, set()).add(guest.uuid)
        return {volume: frozenset(uuids) for volume, uuids in found.items()}

    @cached_property
    def boot_ids(self) -> Mapping[str, Answer]:
        """Every boot that its answers are of; more than one is more than one visit, or host."""
        asked = self.bundle.asked("kernel", "/proc/sys/kernel/random/boot_id", self.name)
        return {str(answer.value).strip(): answer for answer in asked if answer.error is None}

    @cached_property
    def contested(self) -> Mapping[tuple[str, int], tuple[tuple[Process, OpenFile], ...]]:
        """The open files (`held_by`) that several QEMU processes hold and one at least may write:
        who holds each, as often as it does."""
        found: dict[tuple[str, int], list[tuple[Process, OpenFile]]] = {}
        for process in self.processes.values():
            try:
                for file in process.files:
                    found.setdefault(held_by(file), []).append((process, file))
            except Unheard:
                continue  # who asks about this process' files hears why
        return {
            key: tuple(holders)
            for key, holders in found.items()
            if any(file.writable for _, file in holders)
            and len({process.pid for process, _ in holders}) > 1
        }

    @cached_property
    def nameless(self) -> str | None:
        """Why it can't be said of every QEMU process whose it is; None if it can."""
        listed = self.bundle.last("kernel", "ls -l /proc/*/exe", self.name)
        try:
            rows = value_of(listed, "the list of QEMU processes", list[dict[str, object]])
            pids = {row.get("pid") for row in rows} | set(self.processes)
            for pid in pids:
                process = self.processes.get(pid) if isinstance(pid, int) else None
                if process is None:
                    raise Unheard(f"process {pid} was not asked")
                process.argv  # noqa: B018 (raises if it was not heard)
        except Unheard as reason:
            return str(reason)
        return None

    @cached_property
    def daemon(self) -> Daemon:
        """The libvirt that was asked there."""
        return Daemon.read(self.bundle, self.name, self.domains, self.processes)

    @cached_property
    def named(self) -> Mapping[str, Domain]:
        """Its domains by their names, each of which is there once."""
        found = {}
        for domain in self.domains.values():
            try:
                found[domain.name] = domain
            except Unheard:
                continue
        return found

    @cached_property
    def by_uuid(self) -> Mapping[str, tuple[Process, ...]]:
        """Its QEMU processes by the UUID on their command line."""
        return _grouped(self.processes.values(), lambda process: process.uuid)

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Process, ...]]:
        """Its QEMU processes by the name on their command line."""
        return _grouped(self.processes.values(), lambda process: process.name)


def held_by(file: OpenFile) -> tuple[str, int]:
    """What makes two open files the same: device and inode; of a block device, the device it is."""
    return (f"block {file.rdev}", 0) if stat.S_ISBLK(file.mode) else (file.dev, file.ino)


def _grouped(
    processes: Iterable[Process], key: Callable[[Process], str | None]
) -> dict[str, tuple[Process, ...]]:
    found: dict[str, list[Process]] = {}
    for process in processes:
        try:
            named = key(process)
            if named and not process.is_probe:
                found.setdefault(named, []).append(process)
        except Unheard:
            continue  # a command line that can't be read claims nothing
    return {named: tuple(same) for named, same in found.items()}
