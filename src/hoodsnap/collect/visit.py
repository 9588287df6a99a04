"""Order in which the layers of a host are asked.

First nova (the API and the database in parallel), then libvirt, the kernel, the control groups,
QEMU, the disk images and the block devices, then neutron and the host's network, then cinder about
all volumes that were named, and last the states in nova and libvirt once more. Objects that changed
in between are asked again, a few times; the answers show which objects still change after that.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import hoodsnap
from hoodsnap.bundle import Bundle
from hoodsnap.collect.crew import together
from hoodsnap.collect.patience import Patience
from hoodsnap.collect.program import end_programs
from hoodsnap.collect.recorder import Recorder, RefusedError, patiently
from hoodsnap.collect.sightings import Sightings
from hoodsnap.facts.cloud.movement import moved

LOOKS = 3
"""Maximum number of times that changed objects are asked again."""

STUCK = 15.0
"""Seconds without a question after which a phase is left. Every question has a limit of its own, so
whatever takes so long between two questions will never end."""

CLOSING = 2.0
"""Seconds for closing one connection, which a frozen server does not answer."""


@dataclass(frozen=True)
class Wishes:
    """Options of the operator: what to ask, and where."""

    all_hosts: bool = False
    os_cloud: str | None = None
    db_url: str | None = None
    libvirt_uri: str | None = None
    qmp: bool = False
    days: int = 7
    """Days of instance actions to ask for."""
    challenge: str | None = None
    """Text chosen by the person who requested the bundle: proof that it was collected for them."""


def worth_asking() -> bool:
    """Return True if this host has nova or libvirt."""
    # Keep in step with the Makefile, which tests the same paths.
    traces = ("/etc/nova", "/etc/kolla", "/run/libvirt")
    return any(os.path.exists(path) for path in traces)


class Visit:
    """Visit to one host: the collectors, and what each has to know of the others' answers."""

    def __init__(self, wishes: Wishes, phase: Callable[[str], None] = lambda name: None) -> None:
        """Read nova.conf; ask nothing else yet. `phase` is called with the name of each phase."""
        from hoodsnap.collect.allocation import AllocationApi
        from hoodsnap.collect.cells import Cells
        from hoodsnap.collect.configuration import NovaConf, read_nova_conf
        from hoodsnap.collect.domain import Domains
        from hoodsnap.collect.host import nova_host_name
        from hoodsnap.collect.instance import InstanceDatabase
        from hoodsnap.collect.port import PortApi
        from hoodsnap.collect.server import ServerApi
        from hoodsnap.collect.volume import VolumeApi

        self.started = datetime.now(UTC)
        self.wishes, self.phase = wishes, phase
        name = socket.gethostname()
        if wishes.all_hosts:  # a whole cloud needs more time and memory
            self.recorder = Recorder(
                name, room=4 << 30, time_left=4 * 3600.0, patience=Patience(600.0)
            )
        else:
            self.recorder = Recorder(name)
        recorder = self.recorder
        # This searches the processes for nova-compute, and reading a process may hang.
        found = patiently(read_nova_conf, 5.0)
        self.nova = found if isinstance(found, NovaConf) else NovaConf.nothing(found)
        self.conf = self.nova.options
        self.nova_host = None if wishes.all_hosts else nova_host_name(self.conf)
        self.api = ServerApi(recorder, wishes.os_cloud)
        self.volumes = VolumeApi(recorder, wishes.os_cloud)
        self.network = PortApi(recorder, wishes.os_cloud)
        self.placement = AllocationApi(recorder, wishes.os_cloud)
        cells = Cells(recorder, self.conf, wishes.db_url, self.nova.owners)
        self.database = InstanceDatabase(cells)
        self.libvirt_uri = wishes.libvirt_uri or self._configured_uri()
        self.domains = Domains(recorder, self.libvirt_uri)
        self.has_database = False
        self.seen = Sightings(recorder, self.bundle)

    def _configured_uri(self) -> str | None:
        """Return the URI of the libvirt that nova-compute uses, which runs the guests.

        None if nova.conf has no URI that may be followed: then this host's own libvirt is asked.
        """
        from hoodsnap.collect.trusted.uri import configured_uri

        uri = self.conf.get("libvirt", {}).get("connection_uri")
        answer = patiently(lambda: configured_uri(uri) if uri else None, 5.0)
        if isinstance(answer, BaseException):
            query = "grep ^connection_uri /etc/nova/nova.conf"
            self.recorder.refuse("host", query, answer)
            return None
        return str(answer) if answer else None

    def bundle(self) -> Bundle:
        """Return the answers so far, in the order of the questions; also after an interruption."""
        answers = sorted(self.recorder.answers, key=lambda answer: answer.at)
        return Bundle(
            tool=f"hoodsnap {hoodsnap.__version__}",
            started=self.started,
            ended=datetime.now(UTC),
            answers=tuple(answers),
        )

    def run(self) -> None:
        """Ask everything. The recorder abandons questions that hang, so all threads end."""
        try:
            if self.wishes.challenge is not None:
                from hoodsnap.collect.host import answer_challenge

                answer_challenge(self.recorder, self.wishes.challenge)
            self.phase("nova API and database")
            self._together(self._ask_servers, self._ask_instances, self._ask_host)
            self.phase("libvirt, kernel and disk images")
            self._together(
                self._ask_guests,
                self.database.ask_rest,
                self._ask_surroundings,
                lambda: self.api.ask_for_clients(self.nova_host),
                self._ask_cinder,
            )
            self.phase("neutron and the host's network")
            self._together(self._ask_networks)
            self.phase("objects found on the way")
            self._ask_late()
            self.phase("second look")
            self._look()
            self._ask_consumers()
            self._ask_what_moved()
        except BaseException:
            self.recorder.stop()
            end_programs()
            raise
        finally:
            self._close()

    def _close(self) -> None:
        """Close the connections. Each is closed in a thread of its own, with a time limit: the
        server may be frozen, and closing a connection to libvirt waits for its answer."""
        parts = (self.domains, self.database, self.api, self.volumes, self.network, self.placement)
        together((partial(patiently, part.close, CLOSING) for part in parts), len(parts))

    def _ask_servers(self) -> None:
        if self.api.connect():
            self.seen.known |= self.api.ask_servers(self.nova_host)

    def _ask_instances(self) -> None:
        self.has_database = self.database.connect()
        if self.has_database:
            self.database.ask_instances(self.nova_host)

    def _ask_surroundings(self) -> None:
        # The database returns the events of all actions at once, the API one action at a time.
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
        self.recorder.wait("host", lambda: say_files(self.recorder), 5.0)
        self._alone(self._ask_daemons)

    def _ask_guests(self) -> None:
        """Ask libvirt and the layers below it. A failure in one layer does not stop the next."""
        self._alone(self._ask_domains)
        if self.domains.host is not None:
            return  # libvirt runs on another host, which has other processes and files
        self._alone(self._ask_processes)
        self._alone(self._ask_cgroups)
        if self.wishes.qmp:
            self._alone(lambda: self._ask_monitors({*self.seen.domains, *self.seen.running}))
        self._alone(self._ask_images)
        self._alone(self._ask_devices)
        self._alone(self._ask_logs)

    def _ask_domains(self) -> None:
        self.domains.ask_host()
        self.seen.see(self.domains.ask_about(self.domains.look() or ()))

    def _ask_processes(self) -> None:
        from hoodsnap.collect.image import find_instances_dirs
        from hoodsnap.collect.process import ask_processes

        owners = self.nova.owners if self.nova.knows_account else None
        self.seen.folders = find_instances_dirs(self.recorder, self.conf, self.seen.disks(), owners)
        self.seen.run(ask_processes(self.recorder, self.seen.folders, self.seen.may_be_guest))

    def _ask_cgroups(self) -> None:
        from hoodsnap.collect.cgroup import ask_cgroups

        ask_cgroups(self.recorder, self.seen.processes)

    def _ask_images(self) -> None:
        from hoodsnap.collect.image import ask_images, cache_name

        domains = self.seen.domains.values()
        firmware = [path for domain in domains for path in domain.firmware]
        saves = [path for domain in domains for path in domain.saves]
        cache = cache_name(self.conf)
        ask_images(self.recorder, self.seen.folders, self.seen.disks(), firmware, cache, saves)

    def _ask_devices(self) -> None:
        from hoodsnap.collect.device import ask_devices

        ask_devices(self.recorder)

    def _ask_logs(self) -> None:
        from hoodsnap.collect.log import ask_logs

        ask_logs(self.recorder, self.conf, self.seen.names)

    def _ask_monitors(self, uuids: Iterable[str]) -> None:
        """Ask monitors through libvirt, or directly through a free socket if there is no domain."""
        from hoodsnap.collect.monitor import ask_monitors, ask_sockets

        seen, wanted = self.seen, set(uuids)
        domains = [domain for uuid, domain in seen.domains.items() if uuid in wanted]
        ask_monitors(self.recorder, domains, self.libvirt_uri, seen.obstacle)
        ask_sockets(self.recorder, seen.free_sockets(wanted), seen.obstacle)

    def _ask_networks(self) -> None:
        self._alone(self._ask_ports)
        if self.domains.host is None:
            self._alone(self._ask_taps)

    def _ask_daemons(self) -> None:
        from hoodsnap.collect.daemon import ask_daemons

        ask_daemons(self.recorder)

    def _ask_ports(self) -> None:
        if self.network.connect():
            self.seen.networks = self.network.ask(self.nova_host, self.seen.known | self.seen.here)

    def _ask_taps(self) -> None:
        from hoodsnap.collect.tap import ask_taps

        ask_taps(self.recorder, self.seen.networks)

    def _ask_late(self) -> None:
        """Ask nova about UUIDs that were found on the host but are not in nova's lists."""
        here = self.seen.here
        if self.seen.networks is not None:
            here |= self.seen.networks.devices
        unknown = sorted(here - self.seen.known)
        self._together(
            lambda: self.database.ask_rest(here),
            partial(self._ask_allocations, here),
            *(partial(self.api.ask_server, uuid) for uuid in unknown),
        )
        self._together(lambda: self._ask_volumes(here | self.seen.known))

    def _ask_allocations(self, here: Collection[str]) -> None:
        """Ask placement for the host's inventory, and for the allocations of each server, guest and
        migration."""
        from hoodsnap.collect.allocation import names_of
        from hoodsnap.collect.host import nova_host_name

        if not self.placement.connect():
            return
        own = nova_host_name(self.conf)
        everything = self.wishes.all_hosts
        self.placement.ask_providers(None if everything else names_of(self.recorder.answers, own))
        asked = {*here, *self.seen.known, *self.database.known}
        # If all providers are collected, their lists contain all allocations. If only one host's
        # are, its servers may have allocations elsewhere, so each server is asked about.
        self.placement.ask_consumers(asked - self.placement.consumers if everything else asked)

    def _ask_consumers(self) -> None:
        """Ask nova about consumers of placement's resources that are not in nova's lists."""
        unknown = sorted(self.placement.consumers - self.seen.known - self.database.known)
        self._together(
            partial(self.database.ask_consumers, unknown),
            partial(self.placement.ask_consumers, unknown),
            *(partial(self.api.ask_server, uuid) for uuid in unknown),
        )

    def _ask_volumes(self, servers: Iterable[str]) -> None:
        """Ask cinder about every volume that was named, and the database for its other users."""
        volumes, attachments = self.seen.named(self.api.volumes)
        self.database.ask_volumes(volumes)
        self.volumes.ask_about(servers, volumes, attachments)

    def _look(self) -> None:
        from hoodsnap.collect.daemon import look
        from hoodsnap.collect.host import look_at_definitions

        self._together(
            lambda: look(self.recorder),
            lambda: look_at_definitions(self.recorder),
            self.database.look,
            self.domains.look,
            lambda: self.api.ask_servers(self.nova_host),
        )

    def _ask_what_moved(self) -> None:
        for _ in range(LOOKS):
            moving = moved(self.recorder.answers).keys()
            if not moving:
                break
            objects = "object" if len(moving) == 1 else "objects"
            self.phase(f"asking again about {len(moving)} {objects} that changed")
            self._together(partial(self._ask_again, moving))
            self._look()

    def _ask_again(self, uuids: Collection[str]) -> None:
        from hoodsnap.collect import cgroup, image, log, process

        self.seen.see(self.domains.ask_about(uuids))
        self.database.ask_again(uuids)
        self.volumes.ask_again(uuids, self.seen.named((), uuids)[0])
        self.network.ask_again(uuids)
        if self.domains.host is not None:
            return
        pids = [pid for pid, argv in self.seen.processes.items() if argv.uuid in uuids]
        known = {*self.seen.processes, *self.seen.strangers}
        again = process.ask_again(
            self.recorder, pids, known, self.seen.folders, self.seen.may_be_guest
        )
        self.seen.run(again)
        cgroup.ask_processes(self.recorder, again.keys() & self.seen.processes.keys())
        if self.wishes.qmp:
            self._ask_monitors(uuids)
        disks = self.seen.disks(uuids)
        for folder in self.seen.folders:  # instances without a domain, too
            disks |= {f"{folder}/{uuid}/disk": None for uuid in uuids}
        image.ask_again(self.recorder, self.seen.folders, disks, image.cache_name(self.conf))
        names = self.seen.names
        log.ask_again(self.recorder, {uuid: names[uuid] for uuid in uuids if uuid in names})

    def _together(self, *tasks: Callable[[], object]) -> None:
        """Run tasks in parallel, and return when all have ended.

        A task that hangs between two questions, which no limit covers, is left behind.
        """
        alone = [partial(self._alone, task) for task in tasks]
        longest = STUCK * (20 if self.wishes.all_hosts else 1)
        if not together(alone, is_stuck=lambda: self.recorder.idle() > longest):
            left = RefusedError("timeout", f"nothing was asked for {longest:g} s, so it was left")
            self.recorder.refuse("host", "hoodsnap collect", left)

    def _alone(self, task: Callable[[], object]) -> None:
        """Run a task. An exception is a bug in hoodsnap; it is recorded, and other tasks go on."""
        try:
            task()
        except Exception as defect:
            self.recorder.refuse("host", "hoodsnap collect", defect)
