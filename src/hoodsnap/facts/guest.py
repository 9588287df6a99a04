"""The join: one UUID, and what each layer says of it; one host and its guests; all of them."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.domain import Domain
from hoodsnap.facts.fact import Unheard, value_of
from hoodsnap.facts.image import Image, ImageStore, base_of
from hoodsnap.facts.instance import Instance, Instances
from hoodsnap.facts.look import moved
from hoodsnap.facts.monitor import Monitor
from hoodsnap.facts.process import OpenFile, Process
from hoodsnap.facts.server import Server, Servers

LAYERS = {
    "nova": "nova API",
    "nova-db": "nova database",
    "libvirt": "libvirt",
    "kernel": "kernel",
    "qemu": "QEMU",
    "images": "disk images",
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
    domain: Domain | None
    process: Process | None
    """The QEMU process with its UUID; of several the first (`processes` has all)."""
    processes: tuple[Process, ...]
    monitor: Monitor | None
    images: tuple[Image, ...] | None
    """Its disks as qemu-img sees them."""
    unheard: Mapping[str, str]
    """For each layer that can't say whether it has this VM: why."""
    census: Mapping[str, Answer]
    """For each layer the answer that lists everything it has: the evidence of an absence."""
    hidden: str | None = None
    """Why nova's word on its host was not heard (a tenant does not see it); None if it was."""
    moving: str | None = None
    """What changed while it was captured; None if nothing did."""

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
    unheard: Mapping[str, str]
    census: Mapping[str, Answer]
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
    def by_uuid(self) -> Mapping[str, tuple[Process, ...]]:
        """Its QEMU processes by the UUID on their command line."""
        return _grouped(self.processes.values(), lambda process: process.uuid)

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Process, ...]]:
        """Its QEMU processes by the name on their command line."""
        return _grouped(self.processes.values(), lambda process: process.name)


@dataclass(frozen=True, eq=False)
class Cloud:
    """Every host of every bundle given, and what nova says of all of them."""

    bundle: Bundle
    servers: Servers
    instances: Instances
    hosts: tuple[Host, ...]
    guests: tuple[Guest, ...]
    """By host and name; those on no captured host last."""

    @cached_property
    def now(self) -> datetime:
        """When it was captured, by the collector's clock."""
        return self.bundle.ended

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
    movements = moved(bundle.answers)
    hosts = tuple(_read_host(bundle, name) for name in _host_names(bundle))
    join = _Join(servers, instances, movements)
    guests = [guest for host in hosts for guest in join.guests_of(host)]
    guests += join.guests_elsewhere({(guest.uuid) for guest in guests})
    return Cloud(bundle, servers, instances, hosts, tuple(guests))


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


def _host_names(bundle: Bundle) -> list[str]:
    answers = (bundle.by_layer.get(layer, ()) for layer in ("libvirt", "kernel", "images"))
    return sorted({answer.host for group in answers for answer in group})


def _read_host(bundle: Bundle, name: str) -> Host:
    def of(layer: str) -> list[Answer]:
        return [answer for answer in bundle.by_layer.get(layer, ()) if answer.host == name]

    domains, processes = Domain.read_all(of("libvirt")), Process.read_all(of("kernel"))
    images = ImageStore.read(of("images"))
    unheard, census = _heard_of(bundle, name, images)
    _doubt(domains, processes, unheard)
    return Host(
        name=name,
        bundle=bundle,
        domains=domains,
        processes=processes,
        monitors=Monitor.read_all(of("qemu")),
        images=images,
        unheard=unheard,
        census=census,
    )


def _heard_of(
    bundle: Bundle, name: str, images: ImageStore
) -> tuple[dict[str, str], dict[str, Answer]]:
    unheard: dict[str, str] = {}
    census: dict[str, Answer] = {}
    lists: tuple[tuple[str, str, type[object]], ...] = (
        ("libvirt", "virsh list --all", list[dict[str, object]]),
        ("kernel", "ls -l /proc/*/exe", list[dict[str, object]]),
    )
    for layer, query, shape in lists:
        answer = bundle.last(layer, query, name)
        try:
            value_of(answer, LAYERS[layer], shape)
        except Unheard as reason:
            unheard[layer] = _first_failure(bundle, layer, name) or str(reason)
        else:
            assert answer is not None  # noqa: S101 (value_of raised otherwise)
            census[layer] = answer
    if images.listing is None:
        unheard["images"] = _first_failure(bundle, "images", name) or "disk images were not asked"
    else:
        census["images"] = images.listing
    return unheard, census


def _first_failure(bundle: Bundle, layer: str, host: str) -> str | None:
    for answer in bundle.by_layer.get(layer, ()):
        if answer.host == host and answer.error is not None:
            return f"{LAYERS[layer]}: {answer.error.message}"
    return None


def _doubt(
    domains: Mapping[str, Domain], processes: Mapping[int, Process], unheard: dict[str, str]
) -> None:
    """A list that is empty while its neighbour's is full was asked in the wrong place."""
    running = {uuid for uuid, domain in domains.items() if _is_active(domain)}
    guests = {process.uuid for process in processes.values() if _is_guest(process)}
    if running & guests:
        return
    # One alone may be the odd one; several that all miss their other half are not.
    if len(running) > 1 and "kernel" not in unheard:
        unheard["kernel"] = (
            f"libvirt has {len(running)} running, and the QEMU process of none is to be seen: "
            "was this asked in another PID namespace?"
        )
    if len(guests) > 1 and not guests & domains.keys() and "libvirt" not in unheard:
        unheard["libvirt"] = (
            f"{len(guests)} QEMU processes run, and libvirt has the domain of none: "
            "was another libvirt asked?"
        )


def _is_active(domain: Domain) -> bool:
    return _is_true(lambda: domain.id is not None)


def _is_deleted(instance: Instance | None) -> bool:
    return instance is not None and _is_true(lambda: instance.deleted)


def _is_guest(process: Process) -> bool:
    return _is_true(lambda: bool(process.uuid) and not process.is_probe)


def _is_true(said: Callable[[], bool]) -> bool:
    """Whether a layer said so; False if it did not, whatever the reason."""
    try:
        return said()
    except Unheard:
        return False


class _Join:
    """Puts one VM's facts together."""

    def __init__(
        self, servers: Servers, instances: Instances, movements: Mapping[str, str]
    ) -> None:
        self.servers = servers
        self.instances = instances
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
        found = [self._guest(uuid, host) for uuid in here]
        host.guests.extend(sorted(found, key=_order))
        return host.guests

    def guests_elsewhere(self, seen: set[str]) -> list[Guest]:
        found = []
        for uuid in self.believed.keys() - seen:
            if not _is_deleted(self.instances.by_uuid.get(uuid)):
                found.append(self._guest(uuid, None))
        return sorted(found, key=_order)

    def _guest(self, uuid: str, host: Host | None) -> Guest:
        server, instance = self.servers.by_uuid.get(uuid), self.instances.by_uuid.get(uuid)
        nova_name = host.nova_name if host else None
        unheard: dict[str, str] = {}
        census: dict[str, Answer] = {}
        self._hear_nova(uuid, nova_name, server, unheard, census)
        self._hear_database(uuid, nova_name, instance, unheard, census)
        believed = self.believed.get(uuid)
        if host is None:
            where = f"host {believed} is in no bundle" if believed else "it is on no host"
            where = self.hidden.get(uuid, where)
            unheard |= dict.fromkeys(("libvirt", "kernel", "qemu", "images"), where)
            return Guest(
                uuid=uuid,
                host=None,
                believed=believed,
                server=server,
                instance=instance,
                domain=None,
                process=None,
                processes=(),
                monitor=None,
                images=None,
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
        return Guest(
            uuid=uuid,
            host=host,
            believed=believed,
            hidden=self.hidden.get(uuid),
            server=server,
            instance=instance,
            domain=domain,
            process=_own(processes),
            processes=processes,
            monitor=monitor,
            images=None if "images" in unheard else host.images.of(uuid, _disks(domain)),
            unheard=unheard,
            census=census,
            moving=self.movements.get(uuid),
        )

    def _hear_nova(
        self,
        uuid: str,
        host: str | None,
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
        host: str | None,
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


def _disks(domain: Domain | None) -> Iterable[str]:
    try:
        return [disk.source for disk in domain.disks if disk.source] if domain else ()
    except Unheard:
        return ()


def _own(processes: tuple[Process, ...]) -> Process | None:
    return processes[0] if processes else None


def _order(guest: Guest) -> tuple[str, str]:
    return guest.name, guest.uuid
