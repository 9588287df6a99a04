"""Objects seen on a host so far: what a collector needs to know from the others' answers."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hoodsnap.bundle import Bundle
from hoodsnap.collect.recorder import Recorder
from hoodsnap.facts.uuids import UUID

if TYPE_CHECKING:
    from hoodsnap.collect.domain import SeenDomain
    from hoodsnap.collect.port import SeenNetworks
    from hoodsnap.collect.recorder import RefusedError
    from hoodsnap.facts.host.account import Accounts
    from hoodsnap.facts.process.command_line import CommandLine


class Sightings:
    """Guests of one host and their domains, processes, folders and networks, as seen so far."""

    def __init__(self, recorder: Recorder, bundle: Callable[[], Bundle]) -> None:
        """Start with nothing seen. `bundle` returns a bundle of the answers so far."""
        self._recorder, self._bundle = recorder, bundle
        self.known: set[str] = set()
        """UUIDs of the servers that the nova API returned."""
        self.domains: dict[str, SeenDomain] = {}
        """Domains by UUID, in lower case."""
        self.processes: dict[int, CommandLine] = {}
        """QEMU processes of accounts that libvirt runs guests as: PID → command line."""
        self.strangers: set[int] = set()
        """PIDs of the QEMU processes of other accounts, whose command lines prove nothing."""
        self.folders: tuple[Path, ...] = ()
        """Instances directories."""
        self.networks: SeenNetworks | None = None
        """Networks and routers of the guests' ports; None if neutron's ports were not collected."""

    def named(
        self, shown: Iterable[str], uuids: Collection[str] | None = None
    ) -> tuple[set[str], set[str]]:
        """Return the ids of the volumes and attachments of these instances (None: of all).

        They come from nova's tables, the domains and `shown`, the volumes of the servers.
        """
        from hoodsnap.facts.database.tables import Tables

        rows = Tables(answer for answer in self._recorder.answers if answer.layer == "nova-db")
        volumes = set(shown)
        attachments: set[str] = set()
        for row in rows.of("block_device_mapping"):
            if uuids is None or row.cells.get("instance_uuid") in uuids:
                volumes.add(str(row.cells.get("volume_id")))
                if not row.cells.get("deleted"):
                    attachments.add(str(row.cells.get("attachment_id")))
        for uuid, domain in self.domains.items():
            if uuids is None or uuid in uuids:
                volumes |= domain.volumes
        return volumes, attachments

    def see(self, domains: Iterable[SeenDomain]) -> None:
        """Add these domains."""
        self.domains |= {domain.uuid.lower(): domain for domain in domains}

    def run(self, processes: Mapping[int, Sequence[str]]) -> None:
        """Add these processes (PID → arguments) as guests or strangers, by their accounts."""
        from hoodsnap.facts.process.command_line import read_command_line

        accounts = self._accounts()
        for pid, argv in processes.items():
            if (uid := _uid_of(pid)) is not None and accounts.has(uid):
                self.processes[pid] = read_command_line(argv)
            else:
                self.strangers.add(pid)

    def _accounts(self) -> Accounts:
        """Return the accounts that libvirt runs guests as, according to its answers so far."""
        from hoodsnap.facts.domain.domain import Domain
        from hoodsnap.facts.host.account import Accounts
        from hoodsnap.facts.host.hypervisor import Hypervisor

        answers = [answer for answer in self._recorder.answers if answer.layer == "libvirt"]
        hypervisor = Hypervisor(self._bundle(), self._recorder.host)
        return Accounts(hypervisor, Domain.read_all(answers).values())

    @property
    def may_be_guest(self) -> Callable[[int | None], bool]:
        """Function that returns True if the QEMU of an account (uid) may be a guest, according to
        libvirt's answers so far."""
        accounts = self._accounts()
        return lambda uid: uid is not None and accounts.has(uid)

    @property
    def running(self) -> set[str]:
        """UUIDs on the command lines of the guests' QEMU processes."""
        return {argv.uuid for argv in self.processes.values() if argv.uuid}

    @property
    def names(self) -> dict[str, str]:
        """Domain names by UUID; for a guest without a domain, the name on QEMU's command line."""
        lost = {argv.uuid: argv.name for argv in self.processes.values() if argv.uuid and argv.name}
        return lost | {uuid: domain.name for uuid, domain in self.domains.items()}

    def disks(self, uuids: Collection[str] | None = None) -> dict[str, str | None]:
        """Return the disks of the domains with these UUIDs (None: of all): path → format."""
        wanted = self.domains.values() if uuids is None else map(self.domains.get, uuids)
        found: dict[str, str | None] = {}
        for domain in wanted:
            found |= domain.images if domain is not None else {}
        return found

    @property
    def foldered(self) -> set[str]:
        """UUIDs that have their own folder, according to the collected lists."""
        lists = (answer.value for answer in self._recorder.answers if answer.query in self._lists)
        names = (posixpath.basename(entry["path"]) for found in lists for entry in found or ())
        return {name for name in names if UUID.fullmatch(name)}

    @property
    def _lists(self) -> set[str]:
        return {f"find {folder} -ls" for folder in self.folders}

    def obstacle(self, uuid: str) -> RefusedError | None:
        """Return why this guest must not be asked about its disks; None if it may."""
        from hoodsnap.collect.storage import obstacle

        uuid = uuid.lower()
        processes = [(pid, argv) for pid, argv in self.processes.items() if argv.uuid == uuid]
        return obstacle(self.domains.get(uuid), processes, self._wait)

    def _wait(self, how: Callable[[], object], patience: float) -> object:
        return self._recorder.wait("images", how, patience, source="disks")

    @property
    def here(self) -> set[str]:
        """UUIDs that have a domain, a process or a folder on this host."""
        return {*self.domains, *self.running, *self.foldered}

    def free_sockets(self, uuids: Iterable[str]) -> dict[str, str]:
        """Return the monitors of these guests that have no other client: UUID → socket path."""
        libvirts = {uuid for uuid, domain in self.domains.items() if domain.id is not None}
        wanted = set(uuids) - libvirts
        return {
            argv.uuid: path
            for argv in self.processes.values()
            if argv.uuid in wanted and (path := _free_socket(argv)) is not None
        }


def _uid_of(pid: int) -> int | None:
    """Return the account of a process; None if it has several accounts or has ended."""
    from hoodsnap.collect.trusted.running_process import RunningProcess

    try:
        with RunningProcess(pid) as process:
            return process.uid
    except OSError:
        return None


def _free_socket(argv: CommandLine) -> str | None:
    """Return the socket of a monitor that is safe to connect to; None if there is none.

    Monitors with `wait=on` are left out: connecting to them would start the guest.
    """
    for path in argv.monitors:
        words = [word for word in argv.words if path in word]
        if any("nowait" in word or "wait=off" in word for word in words):
            return path
    return None
