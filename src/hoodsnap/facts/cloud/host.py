"""A captured host: its domains, processes, files and devices, with nova's records of it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from hoodsnap.facts.host.configuration_file import ConfigurationFiles
from hoodsnap.facts.host.container_paths import tops_of
from hoodsnap.facts.host.daemon import Daemons
from hoodsnap.facts.host.definition_file import DefinitionFiles
from hoodsnap.facts.host.device import Devices
from hoodsnap.facts.host.host_network import HostNetwork
from hoodsnap.facts.host.hypervisor import Hypervisor
from hoodsnap.facts.host.image_store import ImageStore
from hoodsnap.facts.host.locks import LOCKS, FileLock, read_locks
from hoodsnap.facts.host.log import Log, listing_of
from hoodsnap.facts.layer import (
    BLOCK,
    CGROUP,
    IMAGES,
    KERNEL,
    LIBVIRT,
    LOGS,
    NETWORK,
    OF_HOST,
    QEMU,
    Layer,
)
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process, root_device

NO_ANSWER = frozenset(["timeout", "unreachable"])
"""Kinds of failure that mean that nobody answered."""


def is_unasked(answer: Answer) -> bool:
    """True if the collector recorded why it did not ask this question."""
    return answer.error is not None and answer.error.message.startswith("not asked")


@dataclass(frozen=True, eq=False)
class Host:
    """One captured host."""

    name: str
    """Host name in its kernel."""
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
    """neutron's ports and agents, for all hosts."""
    unheard: Mapping[str, str]
    """Layer → reason why its objects on this host are unknown."""
    census: Mapping[str, Answer]
    """Layer → the answer that lists everything in the layer: the evidence of an absence."""
    instances: Instances
    """The nova databases' instances, of all hosts."""
    records: HostRecords
    """The nova databases' records of all hosts."""
    placement: Placement
    """placement's records, for all hosts."""

    @cached_property
    def _conf(self) -> Mapping[str, Mapping[str, object]] | UnheardError:
        answer = self.bundle.last("host", "/etc/nova/nova.conf", self.name)
        try:
            return value_of(answer, "nova.conf", dict[str, dict[str, object]])
        except UnheardError as reason:
            return reason

    def option(self, section: str, name: str, default: str = "") -> str:
        """Return an option of nova.conf; `default` if it is not set.

        Raises `UnheardError` if nova.conf was not collected or the value is not text.
        """
        if isinstance(self._conf, UnheardError):
            raise UnheardError(str(self._conf))
        value = self._conf.get(section, {}).get(name, default)
        if not isinstance(value, str):
            raise UnheardError(f"nova.conf: [{section}]{name} {NOT_READ}")
        return value

    @cached_property
    def configuration_files(self) -> ConfigurationFiles:
        """The files that nova-compute reads its options from."""
        return ConfigurationFiles(self.bundle, self.name)

    def file_of(self, section: str, option: str) -> str:
        """Return the path of the file that decides an option; nova.conf's if that is unknown."""
        return self.configuration_files.of(section, option) or "/etc/nova/nova.conf"

    def file_name_of(self, section: str, option: str) -> str:
        """Return the name of the file that decides an option: `nova-compute.conf`."""
        return self.file_of(section, option).rpartition("/")[2]

    @cached_property
    def definition_files(self) -> DefinitionFiles:
        """The files in which libvirt keeps the definitions of the host's domains."""
        return DefinitionFiles(self.bundle, self.name)

    @property
    def keeps_disks_elsewhere(self) -> bool:
        """True if its guests' disks are in rbd or LVM, not in files.

        Raises `UnheardError` if nova.conf was not collected.
        """
        # Before Icehouse the option had another name.
        old = self.option("DEFAULT", "libvirt_images_type", "default")
        return self.option("libvirt", "images_type", old) in ("rbd", "lvm")

    @cached_property
    def nova_name(self) -> str:
        """The host's name in nova: `[DEFAULT]host`, which defaults to the host name."""
        try:
            return self.option("DEFAULT", "host") or self.name
        except Exception as error:
            caught(error)
            return self.name

    @cached_property
    def _asked_of_libvirt(self) -> tuple[Answer, ...]:
        answers = self.bundle.by_layer.get(LIBVIRT.id, ())
        asked = (one for one in answers if one.host == self.name and not is_unasked(one))
        return tuple(sorted(asked, key=lambda answer: answer.at))

    def libvirt_went_on_after(self, answer: Answer) -> bool:
        """True if libvirt answered the next question about something else.

        If it did not, libvirt itself was silent, and the domain of `answer` can't be blamed.
        """
        asked = self._asked_of_libvirt
        start = bisect_right(asked, answer.at, key=lambda one: one.at)
        following = (one for one in asked[start:] if one.subject != answer.subject)
        found = next(following, None)
        return found is not None and (found.error is None or found.error.kind not in NO_ANSWER)

    @cached_property
    def hypervisor(self) -> Hypervisor:
        """The host itself, apart from its guests."""
        return Hypervisor(self.bundle, self.name)

    @cached_property
    def daemons(self) -> Daemons:
        """The daemons that run on the host, and their units."""
        return Daemons(self.bundle, self.name)

    @cached_property
    def offered_flavors(self) -> Mapping[str, OfferedFlavor]:
        """Name → flavor, for the flavors that the cloud offers now."""
        return read_flavors(self.bundle)

    @cached_property
    def service(self) -> Service | None:
        """Its compute service in nova's records; None if no such service exists.

        Raises `UnheardError`.
        """
        return next(iter(self.records.services_of(self.nova_name)), None)

    @cached_property
    def node(self) -> ComputeNode | None:
        """Its compute node in nova's records; None if no such node exists.

        Raises `UnheardError`.
        """
        return next(iter(self.records.nodes_of(self.nova_name)), None)

    @cached_property
    def provider(self) -> Provider | None:
        """The compute node's resource provider in placement; None if it does not exist or was not
        collected."""
        node = self.node
        return self.placement.providers.get(node.uuid or "") if node is not None else None

    @cached_property
    def compute_id(self) -> tuple[str, Answer] | None:
        """UUID of the compute node in the host's own file (2023.1 and later), and the answer.

        None if the file does not exist or is empty. Raises `UnheardError`.
        """
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
        """Release of its nova-compute: `host.release.since(Release.QUEENS)`."""
        try:
            services = self.records.services_of(self.nova_name)
        except Exception as error:
            caught(error)
            services = ()
        return release_of_host(self.bundle, self.name, services)

    @cached_property
    def access(self) -> Access:
        """File permissions of the user that libvirt runs QEMU as."""
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

    @cached_property
    def locks(self) -> Mapping[tuple[str, int], tuple[FileLock, ...]]:
        """Device and inode → locks that a program holds on the file. Raises `UnheardError`."""
        return read_locks(self.bundle.last("kernel", LOCKS, self.name))

    @property
    def listing(self) -> Answer:
        """Listing of its instances directory. Raises `UnheardError`."""
        if "images" not in self.census:
            reason = "the instances directory was not collected"
            raise UnheardError(self.unheard.get("images", reason))
        return self.census["images"]

    def in_container(self, process: Process) -> bool:
        """True if paths may lead to other files for the process than for the collector."""
        return process.root_device != self.root_device

    @cached_property
    def network_space(self) -> str | None:
        """Network namespace that the collector ran in; None if it was not collected."""
        answer = self.bundle.last("host", "readlink /proc/self/ns/*", self.name)
        try:
            return value_of(answer, "the collector's namespaces", dict[str, str]).get("net")
        except Exception as error:
            caught(error)
            return None

    @cached_property
    def root_device(self) -> str:
        """`major:minor` of the collector's root file system. Raises `UnheardError`."""
        own = self.bundle.last("kernel", "/proc/self/mountinfo", self.name)
        return root_device(value_of(own, "/proc/self/mountinfo", str))

    @cached_property
    def contains(self) -> bool:
        """True if a domain's QEMU process has another root file system than the collector."""
        for process in (
            one for uuid in self.domains for one in self.processes.by_uuid.get(uuid, ())
        ):
            try:
                if self.in_container(process):
                    return True
            except Exception as error:
                caught(error)
                continue  # another process may answer the question
        return False

    def recognizes(self, process: Process | None) -> bool:
        """True if a process's paths can be mapped to the listed instances directory.

        They can if the process, or another one in its container, has a file open there that the
        listing contains, by inode.

        For None (a guest that is off), true if that holds for every container with guests.
        """
        if process is not None:
            return process.root_device in self._recognized
        return all(root in self._recognized for root in self._roots)

    @cached_property
    def _roots(self) -> frozenset[str]:
        """Root file systems of its domains' QEMU processes."""
        own = (process for uuid in self.domains for process in self.processes.by_uuid.get(uuid, ()))
        return frozenset(root for process in own if (root := _root(process)) is not None)

    @cached_property
    def _recognized(self) -> frozenset[str | None]:
        """Root file systems of processes with an open file in the listing, in a directory whose
        path means the same directory for all processes."""
        known = self.images.container_paths
        return frozenset(
            _root(process)
            for process in self.processes.own.values()
            if any(known.get(name) == top for name, top in tops_of(self.images, process))
        )

    @cached_property
    def disk_owners(self) -> Mapping[str, frozenset[str]]:
        """File or device → UUIDs of running guests that use it as an unshared, writable disk."""
        found: dict[str, set[str]] = {}
        for uuid, domain in self.domains.items():
            try:
                disks = domain.disks if domain.id is not None else ()
            except Exception as error:
                caught(error)
                continue  # this domain's disks are unknown; the other domains still count
            for disk in disks:
                if disk.source is not None and not disk.shareable and not disk.read_only:
                    found.setdefault(disk.source, set()).add(uuid)
        return {source: frozenset(uuids) for source, uuids in found.items()}

    @cached_property
    def boot_ids(self) -> Mapping[str, Answer]:
        """Boot id → answer. Several boot ids mean a reboot between visits, or several hosts."""
        asked = self.bundle.asked("kernel", "/proc/sys/kernel/random/boot_id", self.name)
        return {str(answer.value).strip(): answer for answer in asked if answer.error is None}

    @cached_property
    def booted(self) -> tuple[datetime, Answer] | None:
        """Time at which the host booted, in UTC, and the answer that shows it; None if unknown.

        The uptime counts, because the boot time in /proc/stat moves when the clock is set.
        """
        answer = self.bundle.last("kernel", "/proc/uptime", self.name)
        if answer is not None and answer.error is None:
            found = re.match(r"(\d{1,10})(?:\.\d+)?\s", str(answer.value), re.ASCII)
            if found is not None:
                return answer.at - timedelta(seconds=int(found[1])), answer
        answer = self.bundle.last("kernel", "grep btime /proc/stat", self.name)
        if answer is not None and answer.error is None:
            found = re.match(r"btime (\d{1,10})\b", str(answer.value), re.ASCII)
            if found is not None:
                return datetime.fromtimestamp(int(found[1]), UTC), answer
        return None

    @cached_property
    def daemon(self) -> LibvirtDaemon:
        """The libvirt daemon that answered on this host."""
        return LibvirtDaemon.read(self.bundle, self.name, self.domains, self.processes.own)

    @cached_property
    def named(self) -> Mapping[str, Domain]:
        """Name → domain. libvirt allows a name once per host."""
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
    """Read one host, whose `domains` were read before. `known`: UUIDs in nova's records."""
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
    except Exception as error:  # a net: whether the right libvirt answered is then unknown
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
    """Return one layer's answers of one host, in their order."""
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
