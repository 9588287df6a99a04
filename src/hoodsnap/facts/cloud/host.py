"""One hypervisor, and what only it as a whole can tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.api.allocation import Placement, Provider
from hoodsnap.facts.api.flavor import OfferedFlavor, read_flavors
from hoodsnap.facts.api.port import Ports
from hoodsnap.facts.cloud.host_processes import HostProcesses
from hoodsnap.facts.cloud.libvirt_daemon import LibvirtDaemon, doubts
from hoodsnap.facts.cloud.release import ReleaseRange, release_of_host
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.database.service import ComputeNode, HostRecords, Service
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import NOT_READ, UnheardError, caught, read_each, value_of
from hoodsnap.facts.host.access import Access, User
from hoodsnap.facts.host.account import Accounts
from hoodsnap.facts.host.cgroup import ControlGroups
from hoodsnap.facts.host.container_paths import tops_of
from hoodsnap.facts.host.device import Devices
from hoodsnap.facts.host.hypervisor import Hypervisor
from hoodsnap.facts.host.image_store import ImageStore
from hoodsnap.facts.host.log import Log, listing_of
from hoodsnap.facts.host.tap import HostNetwork
from hoodsnap.facts.layer import BLOCK, CGROUP, IMAGES, KERNEL, LOGS, NETWORK, OF_HOST, QEMU, Layer
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process, root_device


@dataclass(frozen=True, eq=False)
class Host:
    """One captured host."""

    name: str
    """Its kernel's host name."""
    bundle: Bundle
    domains: Mapping[str, Domain]
    processes: HostProcesses
    cgroups: ControlGroups
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

    @cached_property
    def _conf(self) -> Mapping[str, Mapping[str, object]] | UnheardError:
        answer = self.bundle.last("host", "/etc/nova/nova.conf", self.name)
        try:
            return value_of(answer, "nova.conf", dict[str, dict[str, object]])
        except UnheardError as reason:
            return reason

    def option(self, section: str, name: str, default: str = "") -> str:
        """One option of nova.conf, or what it is if it is not set. `UnheardError` if the file was,
        or if its value is no text."""
        if isinstance(self._conf, UnheardError):
            raise UnheardError(str(self._conf))
        value = self._conf.get(section, {}).get(name, default)
        if not isinstance(value, str):
            raise UnheardError(f"nova.conf: [{section}]{name} {NOT_READ}")
        return value

    @property
    def keeps_disks_elsewhere(self) -> bool:
        """Its guests' disks are in rbd or LVM, not in files. `UnheardError` if nova.conf was."""
        # Before Icehouse the option had another name.
        old = self.option("DEFAULT", "libvirt_images_type", "default")
        return self.option("libvirt", "images_type", old) in ("rbd", "lvm")

    @cached_property
    def nova_name(self) -> str:
        """The name that nova uses: `[DEFAULT]host`, which is the host name unless set."""
        try:
            return self.option("DEFAULT", "host") or self.name
        except Exception as error:
            caught(error)
            return self.name

    @cached_property
    def hypervisor(self) -> Hypervisor:
        """What it says of itself, beside its guests."""
        return Hypervisor(self.bundle, self.name)

    @cached_property
    def offered_flavors(self) -> Mapping[str, OfferedFlavor]:
        """The flavors that its cloud offers now, by name."""
        return read_flavors(self.bundle)

    @cached_property
    def service(self) -> Service | None:
        """Its nova-compute by nova's records; None if nova has none of that name. Raises
        `UnheardError`."""
        return next(iter(self.records.services_of(self.nova_name)), None)

    @cached_property
    def node(self) -> ComputeNode | None:
        """Its compute node by nova's records; None if nova has none. Raises `UnheardError`."""
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
        None if it keeps none. Raises `UnheardError`."""
        found = None
        for answer in self.bundle.asked("host", "cat ", self.name):
            if answer.query.endswith("/compute_id"):
                found = answer
        if found is not None and found.error is not None and found.error.kind == "absent":
            return None
        kept = value_of(found, "the file compute_id", str).strip().lower()
        return (kept, found) if kept and found is not None else None

    @cached_property
    def release(self) -> ReleaseRange:
        """Of its nova-compute: `host.release.since(Release.QUEENS)`."""
        try:
            services = self.records.services_of(self.nova_name)
        except Exception as error:
            caught(error)
            services = ()
        return release_of_host(self.bundle, self.name, services)

    @cached_property
    def access(self) -> Access:
        """What the user may open that libvirt runs QEMU as."""
        uid, gid = self.hypervisor.owner
        return Access(self.images, User(uid, gid, self._groups(uid)))

    def _groups(self, uid: int) -> frozenset[int] | None:
        for process in self.processes.own.values():
            try:
                if process.uid == uid:
                    return process.groups
            except Exception as error:
                caught(error)
                continue
        return None

    @property
    def listing(self) -> Answer:
        """The list of everything in its instances directory."""
        if "images" not in self.census:
            raise UnheardError(self.unheard.get("images", "no instances directory was listed"))
        return self.census["images"]

    def in_container(self, process: Process) -> bool:
        """True if a process sees other files under the same paths than the collector did."""
        return process.root_device != self.root_device

    @cached_property
    def network_space(self) -> str | None:
        """The network namespace that the collector looked at; None if that was not told."""
        answer = self.bundle.last("host", "readlink /proc/self/ns/*", self.name)
        try:
            return value_of(answer, "its namespaces", dict[str, str]).get("net")
        except Exception as error:
            caught(error)
            return None

    @cached_property
    def root_device(self) -> str:
        """`major:minor` of the file system that is `/` for the collector. Raises `UnheardError`."""
        own = self.bundle.last("kernel", "/proc/self/mountinfo", self.name)
        return root_device(value_of(own, "/proc/self/mountinfo", str))

    @cached_property
    def contains(self) -> bool:
        """True if a QEMU process of a domain here sees other files than the collector did."""
        for process in (
            one for uuid in self.domains for one in self.processes.by_uuid.get(uuid, ())
        ):
            try:
                if self.in_container(process):
                    return True
            except Exception as error:
                caught(error)
                continue  # the others tell
        return False

    def recognizes(self, process: Process | None) -> bool:
        """True if a process's paths can be mapped to the listed instances directory.

        They can if a file that it, or another process in its container, has open there was found in
        the list by inode.

        For None, a guest that is off, true if that holds for all containers of guests.
        """
        if process is not None:
            return process.root_device in self._recognised
        return all(root in self._recognised for root in self._roots)

    @cached_property
    def _roots(self) -> frozenset[str]:
        """The root file systems of its domains' QEMU processes."""
        own = (process for uuid in self.domains for process in self.processes.by_uuid.get(uuid, ()))
        return frozenset(root for process in own if (root := _root(process)) is not None)

    @cached_property
    def _recognised(self) -> frozenset[str | None]:
        """Those of processes of which an open file was found in the list, in a directory whose
        name is no other process' for another one."""
        known = self.images.container_paths
        return frozenset(
            _root(process)
            for process in self.processes.own.values()
            if any(known.get(name) == top for name, top in tops_of(self.images, process))
        )

    @cached_property
    def disk_owners(self) -> Mapping[str, frozenset[str]]:
        """File or device → the UUIDs of the guests that run with it as a disk of their own."""
        found: dict[str, set[str]] = {}
        for uuid, domain in self.domains.items():
            try:
                disks = domain.disks if domain.id is not None else ()
            except Exception as error:
                caught(error)
                continue  # what it runs with is not known, and is nobody else's fault
            for disk in disks:
                if disk.source is not None and not disk.shareable and not disk.read_only:
                    found.setdefault(disk.source, set()).add(uuid)
        return {source: frozenset(uuids) for source, uuids in found.items()}

    @cached_property
    def boot_ids(self) -> Mapping[str, Answer]:
        """Every boot that its answers are of; more than one is more than one visit, or host."""
        asked = self.bundle.asked("kernel", "/proc/sys/kernel/random/boot_id", self.name)
        return {str(answer.value).strip(): answer for answer in asked if answer.error is None}

    @cached_property
    def daemon(self) -> LibvirtDaemon:
        """The libvirt that was asked there."""
        return LibvirtDaemon.read(self.bundle, self.name, self.domains, self.processes.own)

    @cached_property
    def named(self) -> Mapping[str, Domain]:
        """Its domains by their names, each of which is there once."""
        found = {}
        for domain in self.domains.values():
            try:
                found[domain.name] = domain
            except Exception as error:
                caught(error)
                continue
        return found


def read_host(
    bundle: Bundle,
    name: str,
    domains: Mapping[str, Domain],
    known: Collection[str],
    instances: Instances,
    placement: Placement,
    ports: Ports,
) -> Host:
    """Read one of the hosts, whose `domains` were read before. `known` are the UUIDs that nova
    has."""
    accounts = Accounts(Hypervisor(bundle, name), domains.values())
    listing = bundle.last(KERNEL.id, KERNEL.census_query, name)
    processes = HostProcesses.read(answers_of(bundle, KERNEL, name), accounts, listing)
    images = read_each(
        lambda answers: ImageStore.read(answers, processes.own.values()),
        answers_of(bundle, IMAGES, name),
    )
    listings = {IMAGES: images.listing, LOGS: listing_of(answers_of(bundle, LOGS, name))}
    unheard, census = _heard_of(bundle, name, listings)
    try:
        doubted = doubts(bundle, name, domains, processes.own, known)
    except Exception as error:  # a net: then it is unknown whether the right ones were asked
        doubted = dict.fromkeys(("libvirt", "kernel"), str(caught(error)))
    for layer, why in doubted.items():
        unheard.setdefault(layer, why)
    return Host(
        name=name,
        bundle=bundle,
        domains=domains,
        processes=processes,
        cgroups=read_each(ControlGroups.read, answers_of(bundle, CGROUP, name)),
        monitors=read_each(Monitor.read_all, answers_of(bundle, QEMU, name)),
        images=images,
        devices=Devices(
            answers_of(bundle, BLOCK, name), bundle.last("kernel", "/proc/self/mountinfo", name)
        ),
        logs=read_each(Log.read_all, answers_of(bundle, LOGS, name)),
        network=read_each(HostNetwork.read, answers_of(bundle, NETWORK, name)),
        ports=ports,
        unheard=unheard,
        census=census,
        instances=instances,
        records=instances.hosts,
        placement=placement,
    )


def answers_of(bundle: Bundle, layer: Layer, host: str) -> list[Answer]:
    """Return the answers of one layer of one host, in their order."""
    return [answer for answer in bundle.by_layer.get(layer.id, ()) if answer.host == host]


def _heard_of(
    bundle: Bundle, name: str, listings: Mapping[Layer, Answer | None]
) -> tuple[dict[str, str], dict[str, Answer]]:
    """Return the host's layers without a list of everything, with the reason, and the other lists.

    `listings` has the lists that the layers' readers picked.
    """
    unheard: dict[str, str] = {}
    census: dict[str, Answer] = {}
    for layer in OF_HOST:
        if layer.census is None:
            continue
        reason = layer.silence
        if layer.census.shape is None:
            answer = listings[layer]
        else:
            answer = bundle.last(layer.id, layer.census.query, name)
            try:
                value_of(answer, layer.census.name or layer.title, layer.census.shape)
            except UnheardError as why:
                reason = layer.silence if answer is None else str(why)
                answer = None
        if answer is not None:
            census[layer.id] = answer
        else:
            unheard[layer.id] = _first_failure(bundle, layer, name) or reason
    return unheard, census


def _first_failure(bundle: Bundle, layer: Layer, host: str) -> str | None:
    for answer in bundle.by_layer.get(layer.id, ()):
        if answer.host == host and answer.error is not None:
            return f"{layer.title}: {answer.error.message}"
    return None


def _root(process: Process) -> str | None:
    try:
        return process.root_device
    except Exception as error:
        caught(error)
        return None
