"""The only package that touches a host. It reads, and changes nothing.

Here is the order in which the layers are asked: nova first (the API and the database at once), then
libvirt, the kernel, QEMU, the disk images and the block devices, then cinder about the volumes that
those named, neutron and the host's network, and in the end what moves once more. What moved in
between is asked again, a few times; what still moves can be seen from the answers.
"""

from __future__ import annotations

import os
import posixpath
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hoodsnap
from hoodsnap.bundle import Bundle
from hoodsnap.collect.recorder import Recorder, patiently
from hoodsnap.facts.cloud.movement import moved
from hoodsnap.facts.uuids import UUID

if TYPE_CHECKING:
    from hoodsnap.collect.domain import SeenDomain
    from hoodsnap.collect.recorder import RefusedError
    from hoodsnap.facts.host.account import Accounts
    from hoodsnap.facts.process.command_line import CommandLine

LOOKS = 3
"""How often what moved is asked again."""


@dataclass(frozen=True)
class Wishes:
    """What the operator wants asked, and where."""

    all_hosts: bool = False
    os_cloud: str | None = None
    db_url: str | None = None
    libvirt_uri: str | None = None
    qmp: bool = False
    days: int = 7
    """How far back instance actions go."""
    challenge: str | None = None
    """A text that somebody chose who wants to know that it was collected for him."""


def worth_asking() -> bool:
    """Whether this host has Nova or libvirt."""
    # The Makefile looks for the same.
    traces = ("/etc/nova", "/etc/kolla", "/run/libvirt")
    return any(os.path.exists(path) for path in traces)


class Visit:
    """One visit to one host: the collectors, and what each has to know of the others."""

    def __init__(self, wishes: Wishes, phase: Callable[[str], None] = lambda name: None) -> None:
        """Reads nova.conf and asks nothing yet. `phase` is told what is being asked."""
        from hoodsnap.collect.allocation import AllocationApi
        from hoodsnap.collect.configuration import NovaConf, read_nova_conf
        from hoodsnap.collect.domain import Domains
        from hoodsnap.collect.host import nova_host_name
        from hoodsnap.collect.instance import InstanceDatabase
        from hoodsnap.collect.port import PortApi, SeenNetworks
        from hoodsnap.collect.server import ServerApi
        from hoodsnap.collect.volume import VolumeApi

        self.started = datetime.now(UTC)
        self.wishes, self.phase = wishes, phase
        self.recorder = recorder = Recorder(socket.gethostname())
        if wishes.all_hosts:  # a whole cloud takes the time and the memory that it takes
            self.recorder = recorder = Recorder(
                socket.gethostname(), room=4 << 30, time_left=4 * 3600.0
            )
        # It looks for nova-compute among the processes, and one of them may not let itself be read.
        found = patiently(read_nova_conf, 5.0)
        self.nova = found if isinstance(found, NovaConf) else NovaConf.nothing(found)
        self.conf = self.nova.options
        self.nova_host = None if wishes.all_hosts else nova_host_name(self.conf)
        self.api = ServerApi(recorder, wishes.os_cloud)
        self.volumes = VolumeApi(recorder, wishes.os_cloud)
        self.network = PortApi(recorder, wishes.os_cloud)
        self.placement = AllocationApi(recorder, wishes.os_cloud)
        self.database = InstanceDatabase(recorder, self.conf, wishes.db_url, self.nova.owners)
        self.libvirt_uri = wishes.libvirt_uri or self._configured_uri()
        self.domains = Domains(recorder, self.libvirt_uri)
        self.has_database = False
        self.known: set[str] = set()
        """The UUIDs that the API showed."""
        self.seen: dict[str, SeenDomain] = {}
        self.processes: dict[int, CommandLine] = {}
        """Each QEMU process of an account that libvirt runs guests as, and how it was started."""
        self.strangers: set[int] = set()
        """The QEMU processes of other accounts, whose command lines are their own word."""
        self.folders: tuple[Path, ...] = ()
        self.networks: SeenNetworks | None = None
        """What the guests' ports hang on; None if neutron did not say."""

    def _configured_uri(self) -> str | None:
        """The libvirt that nova-compute itself uses, which is the one that has the guests; None
        if nova.conf names none that may be followed: then it is this host's own."""
        from hoodsnap.collect.uri import configured_uri

        uri = self.conf.get("libvirt", {}).get("connection_uri")
        answer = patiently(lambda: configured_uri(uri) if uri else None, 5.0)
        if isinstance(answer, BaseException):
            query = "grep ^connection_uri /etc/nova/nova.conf"
            self.recorder.ask("host", query, partial(_raise, answer))
            return None
        return str(answer) if answer else None

    def bundle(self) -> Bundle:
        """What was heard so far, in the order in which it was asked; also after an interruption."""
        answers = sorted(self.recorder.answers, key=lambda answer: answer.at)
        return Bundle(
            tool=f"hoodsnap {hoodsnap.__version__}",
            started=self.started,
            ended=datetime.now(UTC),
            answers=tuple(answers),
        )

    def run(self) -> None:
        """Ask everything. A question that hangs is left behind by the recorder: the threads end."""
        pool = ThreadPoolExecutor(max_workers=4)
        try:
            if self.wishes.challenge is not None:
                from hoodsnap.collect.host import answer_challenge

                answer_challenge(self.recorder, self.wishes.challenge)
            self.phase("nova API and database")
            self._together(pool, self._ask_servers, self._ask_instances, self._ask_host)
            self.phase("libvirt, kernel and disk images")
            self._together(
                pool,
                self._ask_guests,
                self.database.ask_rest,
                self._ask_surroundings,
                lambda: self.api.ask_for_clients(self.nova_host),
                self._ask_cinder,
            )
            self.phase("neutron and the host's network")
            self._ask_networks()
            self.phase("objects found on the way")
            self._ask_late(pool)
            self.phase("second look")
            self._look(pool)
            self._ask_consumers(pool)
            for _ in range(LOOKS):
                moving = moved(self.recorder.answers).keys()
                if not moving:
                    break
                self.phase(f"asking again about {len(moving)} objects that changed")
                self._ask_again(moving)
                self._look(pool)
        finally:
            # An interruption does not wait for what has not begun.
            pool.shutdown(wait=False, cancel_futures=True)
        self.database.close()
        self.api.close()
        self.volumes.close()
        self.network.close()
        self.placement.close()

    def _ask_servers(self) -> None:
        if self.api.connect():
            self.known |= self.api.ask_servers(self.nova_host)

    def _ask_instances(self) -> None:
        self.has_database = self.database.connect()
        if self.has_database:
            self.database.ask_instances(self.nova_host)

    def _ask_surroundings(self) -> None:
        # The database has the steps of every action in one answer, the API in one answer each.
        events = not self.has_database
        self.api.ask_surroundings(self.nova_host, days=self.wishes.days, events=events)

    def _ask_cinder(self) -> None:
        if self.volumes.connect():
            if self.nova_host is None:
                self.volumes.ask_everything()
            else:
                self.volumes.ask_services()

    def _ask_host(self) -> None:
        from hoodsnap.collect.cloud_client import say_files
        from hoodsnap.collect.host import ask_host

        ask_host(self.recorder, self.nova)
        say_files(self.recorder)

    def _ask_guests(self) -> None:
        """Downwards from libvirt. What one layer's questions come to does not stop the next."""
        self._alone(self._ask_domains)
        if self.domains.host is not None:
            return  # another host's libvirt: this one's processes and files are not its
        self._alone(self._ask_processes)
        self._alone(self._ask_cgroups)
        if self.wishes.qmp:
            self._alone(lambda: self._ask_monitors({*self.seen, *self._running()}))
        self._alone(self._ask_images)
        self._alone(self._ask_devices)
        self._alone(self._ask_logs)

    def _ask_domains(self) -> None:
        self.domains.ask_host()
        self._see(self.domains.ask_about(self.domains.look() or ()))

    def _ask_processes(self) -> None:
        from hoodsnap.collect.image import find_instances_dirs
        from hoodsnap.collect.process import ask_processes

        owners = self.nova.owners if self.nova.knows_account else None
        self.folders = find_instances_dirs(self.recorder, self.conf, self._disks(), owners)
        self._run(ask_processes(self.recorder, self.folders, self._may_be_guest))

    def _ask_cgroups(self) -> None:
        from hoodsnap.collect.cgroup import ask_cgroups

        ask_cgroups(self.recorder, self.processes)

    def _ask_images(self) -> None:
        from hoodsnap.collect.image import ask_images, cache_name

        domains = self.seen.values()
        files = [path for domain in domains for path in (*domain.firmware, *domain.saves)]
        cache = cache_name(self.conf)
        ask_images(self.recorder, self.folders, self._disks(), files, cache)

    def _ask_devices(self) -> None:
        from hoodsnap.collect.device import ask_devices

        ask_devices(self.recorder)

    def _ask_logs(self) -> None:
        from hoodsnap.collect.log import ask_logs

        ask_logs(self.recorder, self.conf, self._names())

    def _ask_monitors(self, uuids: Iterable[str]) -> None:
        """Through libvirt where it has the monitor; directly where a process has a free socket."""
        from hoodsnap.collect.monitor import ask_monitors, ask_sockets

        wanted = set(uuids)
        domains = [domain for uuid, domain in self.seen.items() if uuid in wanted]
        ask_monitors(self.recorder, domains, self.libvirt_uri, self._obstacle)
        libvirts = {uuid for uuid, domain in self.seen.items() if domain.id is not None}
        ask_sockets(
            self.recorder,
            {
                argv.uuid: path
                for argv in self.processes.values()
                if argv.uuid in wanted - libvirts and (path := _free_socket(argv)) is not None
            },
            self._obstacle,
        )

    def _obstacle(self, uuid: str) -> RefusedError | None:
        from hoodsnap.collect.storage import obstacle

        uuid = uuid.lower()
        processes = [(pid, argv) for pid, argv in self.processes.items() if argv.uuid == uuid]
        return obstacle(self.seen.get(uuid), processes)

    def _ask_networks(self) -> None:
        self._alone(self._ask_ports)
        if self.domains.host is None:
            self._alone(self._ask_taps)

    def _ask_ports(self) -> None:
        if self.network.connect():
            self.networks = self.network.ask(self.nova_host, self.known | self._here())

    def _ask_taps(self) -> None:
        from hoodsnap.collect.tap import ask_taps

        ask_taps(self.recorder, self.networks)

    def _here(self) -> set[str]:
        """The UUIDs that have a trace on this host."""
        return {*self.seen, *self._running(), *self._foldered()}

    def _ask_late(self, pool: ThreadPoolExecutor) -> None:
        """Ask nova about the UUIDs that were seen on the host, and that it did not speak of."""
        here = self._here()
        if self.networks is not None:
            here |= self.networks.devices
        unknown = sorted(here - self.known)
        self._together(
            pool,
            lambda: self.database.ask_rest(here),
            partial(self._ask_allocations, here),
            *(partial(self.api.ask_server, uuid) for uuid in unknown),
        )
        self._alone(lambda: self._ask_volumes(here | self.known))

    def _ask_allocations(self, here: Collection[str]) -> None:
        """Ask what the host has to give, and what each server, guest and migration holds."""
        from hoodsnap.collect.allocation import names_of
        from hoodsnap.collect.host import nova_host_name

        if not self.placement.connect():
            return
        own = nova_host_name(self.conf)
        everything = self.wishes.all_hosts
        self.placement.ask_providers(None if everything else names_of(self.recorder.answers, own))
        asked = {*here, *self.known, *self.database.known}
        # Of all providers the lists say who holds what; what else one host's servers hold has to be
        # asked of each.
        self.placement.ask_consumers(asked - self.placement.consumers if everything else asked)

    def _ask_consumers(self, pool: ThreadPoolExecutor) -> None:
        """Ask nova about those who hold resources, and whom it did not speak of."""
        unknown = sorted(self.placement.consumers - self.known - self.database.known)
        self._together(
            pool,
            partial(self.database.ask_consumers, unknown),
            partial(self.placement.ask_consumers, unknown),
            *(partial(self.api.ask_server, uuid) for uuid in unknown),
        )

    def _ask_volumes(self, servers: Iterable[str]) -> None:
        """Ask cinder about every volume that was named, and nova's database who else has it."""
        volumes, attachments = self._named()
        self.database.ask_volumes(volumes)
        self.volumes.ask_about(servers, volumes, attachments)

    def _named(self, uuids: Collection[str] | None = None) -> tuple[set[str], set[str]]:
        """The volumes and attachments that the rows, servers and domains name (of these UUIDs)."""
        from hoodsnap.facts.database.tables import Tables

        rows = Tables(answer for answer in self.recorder.answers if answer.layer == "nova-db")
        volumes = set(self.api.volumes) if uuids is None else set()
        attachments: set[str] = set()
        for row in rows.of("block_device_mapping"):
            if uuids is None or row.cells.get("instance_uuid") in uuids:
                volumes.add(str(row.cells.get("volume_id")))
                if not row.cells.get("deleted"):
                    attachments.add(str(row.cells.get("attachment_id")))
        for uuid, domain in self.seen.items():
            if uuids is None or uuid in uuids:
                volumes |= domain.volumes
        return volumes, attachments

    def _look(self, pool: ThreadPoolExecutor) -> None:
        self._together(
            pool,
            self.database.look,
            self.domains.look,
            lambda: self.api.ask_servers(self.nova_host),
        )

    def _ask_again(self, uuids: Collection[str]) -> None:
        from hoodsnap.collect import cgroup, image, log, process

        self._see(self.domains.ask_about(uuids))
        self.database.ask_again(uuids)
        self.volumes.ask_again(uuids, self._named(uuids)[0])
        self.network.ask_again(uuids)
        if self.domains.host is not None:
            return
        pids = [pid for pid, argv in self.processes.items() if argv.uuid in uuids]
        known = {*self.processes, *self.strangers}
        again = process.ask_again(self.recorder, pids, known, self.folders, self._may_be_guest)
        self._run(again)
        cgroup.ask_processes(self.recorder, again.keys() & self.processes.keys())
        if self.wishes.qmp:
            self._ask_monitors(uuids)
        disks = self._disks(uuids)
        for folder in self.folders:  # of one that has no domain, too
            disks |= {f"{folder}/{uuid}/disk": None for uuid in uuids}
        image.ask_again(self.recorder, self.folders, disks, image.cache_name(self.conf))
        names = self._names()
        log.ask_again(self.recorder, {uuid: names[uuid] for uuid in uuids if uuid in names})

    def _see(self, domains: Iterable[SeenDomain]) -> None:
        self.seen |= {domain.uuid.lower(): domain for domain in domains}

    def _run(self, processes: Mapping[int, Sequence[str]]) -> None:
        from hoodsnap.facts.process.command_line import read_command_line

        accounts = self._accounts()
        for pid, argv in processes.items():
            if (uid := _uid_of(pid)) is not None and accounts.has(uid):
                self.processes[pid] = read_command_line(argv)
            else:
                self.strangers.add(pid)

    def _accounts(self) -> Accounts:
        """Accounts that libvirt runs guests as, by its answers so far."""
        from hoodsnap.facts.domain.domain import Domain
        from hoodsnap.facts.host.account import Accounts
        from hoodsnap.facts.host.hypervisor import Hypervisor

        answers = [answer for answer in self.recorder.answers if answer.layer == "libvirt"]
        hypervisor = Hypervisor(self.bundle(), self.recorder.host)
        return Accounts(hypervisor, Domain.read_all(answers).values())

    @property
    def _may_be_guest(self) -> Callable[[int | None], bool]:
        accounts = self._accounts()
        return lambda uid: uid is not None and accounts.has(uid)

    def _running(self) -> set[str]:
        """The UUIDs on the command lines of QEMU processes."""
        return {argv.uuid for argv in self.processes.values() if argv.uuid}

    def _names(self) -> dict[str, str]:
        """What libvirt calls each guest that was seen; of one that it lost, what its QEMU says."""
        lost = {argv.uuid: argv.name for argv in self.processes.values() if argv.uuid and argv.name}
        return lost | {uuid: domain.name for uuid, domain in self.seen.items()}

    def _disks(self, uuids: Collection[str] | None = None) -> dict[str, str | None]:
        wanted = self.seen.values() if uuids is None else map(self.seen.get, uuids)
        found: dict[str, str | None] = {}
        for domain in wanted:
            found |= domain.images if domain is not None else {}
        return found

    def _foldered(self) -> set[str]:
        """The UUIDs that have a folder of their own, by the lists that were told."""
        lists = (answer.value for answer in self.recorder.answers if answer.query in self._lists)
        names = (posixpath.basename(entry["path"]) for found in lists for entry in found or ())
        return {name for name in names if UUID.fullmatch(name)}

    @property
    def _lists(self) -> set[str]:
        return {f"find {folder} -ls" for folder in self.folders}

    def _together(self, pool: ThreadPoolExecutor, *tasks: Callable[[], object]) -> None:
        """Run several tasks at once, and end when the last one has."""
        for future in [pool.submit(self._alone, task) for task in tasks]:
            future.result()

    def _alone(self, task: Callable[[], object]) -> None:
        """Run a task. If it fails, that is a defect of hoodsnap: recorded, and the others go on."""
        try:
            task()
        except Exception as defect:
            self.recorder.ask("host", "hoodsnap collect", partial(_raise, defect))


def _raise(error: BaseException) -> None:
    raise error


def _uid_of(pid: int) -> int | None:
    """The account of a process; None if it has several, or has ended."""
    from hoodsnap.collect.service import RunningProcess

    try:
        with RunningProcess(pid) as process:
            return process.uid
    except OSError:
        return None


def _free_socket(argv: CommandLine) -> str | None:
    """The socket of a monitor that nobody else holds, if there is one.

    Only of those that did not wait for somebody to connect: whoever does so starts the guest.
    """
    for path in argv.monitors:
        words = [word for word in argv.words if path in word]
        if any("nowait" in word or "wait=off" in word for word in words):
            return path
    return None
