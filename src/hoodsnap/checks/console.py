"""Guest consoles: log files, and screens that are exposed or lead to another guest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from posixpath import dirname

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, disks_out_of_sight, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.hardware import Graphics
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, integer, known, text
from hoodsnap.facts.host.hypervisor import LISTENERS, FreeSpace, Listener
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.quantity import is_address
from hoodsnap.phrase import place, several

HUGE = 100 << 20
"""Bytes on disk. virtlogd starts a new file every 2 MiB; nova shows the last 100 KiB."""

EVERYWHERE = frozenset(["", "*", "0.0.0.0", "::"])  # noqa: S104 (it is compared)

CONSOLES = {"novnc": "vnc", "xvpvnc": "vnc", "spice-html5": "spice", "spice-direct": "spice"}
"""QEMU's name for each of nova's console types."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, disks_out_of_sight])
def console_log_problem(guest: Guest, host: Host, domain: Domain) -> Problems:
    """A guest's console log is huge, or was removed while the guest runs.

    virtlogd (nova's way since Ocata) starts a new file every 2 MiB. For a guest that was started
    before that, or with another setup, QEMU writes into one file forever, and anyone who can print
    on the guest's console can fill the host's disk. A removed file keeps growing without a name,
    and `openstack console log show` stays empty until the guest is switched off and on. The guest
    itself is not affected.

    Authority: The file.

    Traps: Only the space on disk counts: a log that was truncated while it was being written has a
    hole and only looks large. In a container the same path leads to another file.

    Next: Check the log's size, the free space, and how the console is written:

        ls -ls LOG
        df -h FOLDER
        virsh dumpxml NAME | grep -A3 '<serial'

    If the log is huge, empty it, which loses the console's earlier output. The file stays open:

        truncate -s 0 PATH

    If the log was removed, only console output is lost, and nothing else of the guest depends on
    the file. Wait for the next time that its owner stops and starts the server; that brings the log
    back:

        openstack server stop GUEST
        openstack server start GUEST

    It worked if the file exists and is small:

        ls -ls LOG

    Not yet: Do not stop a server only to get its log back. Do not run `rm` on the log: its space
    stays in use, and the log is still written. Do not restart virtlogd: every guest loses its log
    (`systemctl reload` keeps the logs).

    Source: nova bugs 832507, 1597644; libvirt virtlogd.conf `max_size`.
    """
    runs = domain.state in ON
    for path in domain.logs if runs else domain.inactive.logs:
        entry = host.images.entry(path)
        if entry is None:
            if runs:
                missing = hears(host.listing, "images", path, console_log="missing")
                yield problem(
                    f"{guest.title}'s console log was removed, but the guest runs: {place(path)}",
                    says(domain, state=domain.state_words, logs=path),
                    missing,
                    LOG=path,
                    FOLDER=dirname(path),
                    PATH="",
                    GUEST=guest.uuid,
                )
        elif entry.blocks is not None and entry.blocks * 512 > HUGE:
            taken = entry.blocks * 512
            used = hears(host.listing, "images", path, path=path, mib=taken >> 20)
            headline = f"{guest.title}'s console log takes {taken >> 20} MiB"
            folder = dirname(path)
            room = _room(host, path)
            if room is None:
                yield problem(headline, used, LOG=path, FOLDER=folder, PATH=path, GUEST="")
                continue
            free = hears(room.answer, "images", "bavail", free_mib=room.free >> 20)
            headline = f"{headline} of {host.name}'s disk, where {room.free >> 20} MiB are free"
            severity = Severity.ERROR if room.free < taken else Severity.WARNING
            yield problem(
                headline,
                used,
                free,
                severity=severity,
                LOG=path,
                FOLDER=folder,
                PATH=path,
                GUEST="",
            )


def _room(host: Host, path: str) -> FreeSpace | None:
    try:
        return host.hypervisor.room(path)
    except UnheardError:
        return None


_Claimed = Mapping[int, tuple[Guest, ...]]
"""TCP port → the running guests whose console libvirt has there."""

FEW = 3
"""Number of other guests on the same port that a finding names."""


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def vnc_port_conflict_or_exposed(
    guest: Guest,
    host: Host,
    cloud: Cloud,
    domain: Domain,
    process: Process,
    instance: Instance | None,
) -> Problems:
    """A guest's console is open to everyone, or leads to another guest.

    A console that listens on every address of the host without authentication gives anyone who can
    reach the host the guest's keyboard and screen. Two consoles on one port, or a console token
    that names an old port, let an owner see another owner's screen.

    Authority: The kernel, for which process listens where.

    Traps: The persistent definition has no port: every start and every migration chooses a new one.
    nova up to Queens keeps its tokens elsewhere. A console that requires a certificate or a
    password may be open to all.

    Next: Check where the guest's console listens, and where nova lets consoles listen:

        virsh domdisplay --all NAME
        ss -ltnp | grep PID
        grep ^server_listen /etc/nova/nova*.conf

    Then bind the console to an internal address or enable TLS for it. A running guest keeps the
    settings that it was started with.

    Not yet: Do not hand out the old console URL. To get a new one, run `openstack console url show
    UUID`.

    Source: OSSA-2013-006 (the console of another VM); nova admin guide, remote-console-access.
    """
    if domain.id is None:
        return
    claimed = cloud.exclusive(host).ports
    for display in process.graphics:
        if display.address in EVERYWHERE and not display.guarded:
            address = f"{display.address or '*'}:{display.port}"
            shown = says(process, pid=process.pid, graphics=f"{display.type} at {address}")
            kind = display.type.upper()
            headline = f"{guest.title}'s {kind} console is open to everyone at {address}"
            yield problem(headline, shown)
    for console in domain.graphics:
        if console.port is not None:
            yield from _conflicts(guest, claimed, domain, process, console)
            yield from _taken(guest, cloud, host, domain, process, console)
    if instance is not None:
        yield from _stale_tokens(claimed, guest, domain, instance)


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def port_opened_in_qemu(
    guest: Guest, host: Host, cloud: Cloud, domain: Domain, process: Process
) -> Problems:
    """The guest's QEMU listens on a TCP port that its definition does not have.

    Somebody made the running QEMU listen: a backup program that reads a disk through QEMU's NBD
    server (`virsh backup-begin` in pull mode), a debugger, a second monitor. A program that reaches
    the port can read or change the guest's disk or memory, mostly without a password (an error if
    the port is open beyond the host). A forgotten backup also keeps a file that grows with each
    write of the guest.

    Authority: The kernel, for which process listens where.

    Traps: A live migration uses ports of its own. Consoles and serial lines are in the definition.

    Next: Check who is connected, and whether libvirt runs a backup:

        ss -tnp | grep PID
        virsh domjobinfo NAME
        virsh backup-dumpxml NAME

    Ask who runs the backup. If nobody does, end it, which closes the port and removes the file that
    grew; the guest keeps running:

        virsh domjobabort NAME

    If libvirt runs none, somebody gave the command to QEMU's monitor behind libvirt's back, or on
    QEMU's command line (`<qemu:commandline>`). Find out who, and keep others from the port
    meanwhile.

    It worked if QEMU does not listen there any more:

        ss -Hltnp "sport = :OPENED"

    Not yet: Do not reboot the guest: it ends a backup that somebody may need. Do not remove the
    file that the backup writes while QEMU has it open.

    Source: libvirt, "Efficient live full disk backup"; QEMU docs, "nbd-server-start", "gdbserver".
    """
    if domain.id is None:
        return
    answer = host.hypervisor.answer("kernel", LISTENERS)
    claimed = cloud.exclusive(host).ports
    if any(not _listens(host, process, it.port) for it in domain.graphics if it.port is not None):
        return  # the console is not where libvirt has it: the port may be the console's
    known_ports = {it.port for it in domain.graphics} | {it.port for it in process.graphics}
    for port, listeners in sorted(host.hypervisor.listeners.items()):
        own = [one for one in listeners if one.pid == process.pid]
        if not own or answer is None or port in known_ports or port in domain.xml.ports:
            continue
        if port in claimed:
            continue  # vnc-port-conflict-or-exposed reports it
        at = several(sorted({one.address for one in own}))
        inside = all(one.address.startswith("127.") or one.address == "::1" for one in own)
        yield problem(
            f"{guest.title}'s QEMU (PID {process.pid}) listens on port {port} at {at}, which its "
            "definition does not have",
            hears(answer, "kernel", str(port), listening_pid=process.pid, listening_at=at),
            says(domain, name=domain.name, graphics=_ports(domain)),
            severity=Severity.WARNING if inside else Severity.ERROR,
            OPENED=port,
        )


def _listens(host: Host, process: Process, port: int) -> bool:
    return any(one.pid == process.pid for one in host.hypervisor.listeners.get(port, ()))


def _ports(domain: Domain) -> str:
    return several(f"port {console.port}" for console in domain.graphics) or "none"


def _conflicts(
    guest: Guest, claimed: _Claimed, domain: Domain, process: Process, console: Graphics
) -> Iterator[Problem]:
    claimants = claimed.get(console.port or 0, ())
    # Stop early: if a definition was copied many times, all copies have the same port.
    others = [*islice(_others(guest, claimants, console), FEW + 1)] if len(claimants) > 1 else []
    its = f"{guest.title}'s {console.type.upper()} console is at port {console.port}"
    started = [it.port for it in process.graphics if it.type == console.type]
    if not others and (not started or console.port in started):
        return
    here = says(domain, name=domain.name, graphics=f"{console.type} at port {console.port}")
    if others:
        theirs = [
            says(domain, name=domain.name, graphics=f"port {console.port}")
            for _, domain in others[:FEW]
        ]
        if len(others) > FEW:
            theirs[-1] = theirs[-1].and_so(others="more, not shown")
        names = several(other.title for other, _ in others)
        yield problem(f"{its}, as is that of {names}", here, *theirs, severity=Severity.ERROR)
    if started and console.port not in started:
        told = ", ".join(f"port {port}" for port in started)
        listens = says(process, pid=process.pid, graphics=told)
        headline = f"{its} in libvirt, but at {told} in QEMU"
        yield problem(headline, here, listens, severity=Severity.ERROR)


def _others(
    guest: Guest, claimants: Iterable[Guest], console: Graphics
) -> Iterator[tuple[Guest, Domain]]:
    """Yield other guests whose console is at the same port and address, with their domains."""
    for other in claimants:
        if other is not guest and other.domain is not None:
            theirs = [it for it in other.domain.graphics if it.port == console.port]
            if any(_overlap(console, it) for it in theirs):
                yield other, other.domain


def _taken(
    guest: Guest, cloud: Cloud, host: Host, domain: Domain, process: Process, console: Graphics
) -> Iterator[Problem]:
    """Yield another process that listens where this guest's console should be."""
    listeners = host.hypervisor.listeners.get(console.port or 0, ())
    yield from _elsewhere(guest, host, domain, process, console, listeners)
    shared = len(cloud.exclusive(host).ports.get(console.port or 0, ())) > 1
    if shared or any(listener.pid == process.pid for listener in listeners):
        return
    for listener in listeners:
        other = host.processes.find(listener.pid)
        if other is not None and other.namespaces.get("net") == process.namespaces.get("net"):
            answer = host.hypervisor.answer("kernel", LISTENERS)
            if answer is not None:
                here = says(domain, name=domain.name, graphics=f"port {console.port}")
                there = hears(answer, "kernel", str(console.port), listening_pid=listener.pid)
                uuid = known(lambda: other.uuid)  # noqa: B023 (it is called at once)
                whose = f" of {cloud.title_of(uuid)}" if uuid else ""
                yield problem(
                    f"{guest.title}'s console should be at port {console.port}, where process "
                    f"{listener.pid}{whose} listens",
                    here,
                    there,
                    severity=Severity.ERROR,
                )


def _elsewhere(
    guest: Guest,
    host: Host,
    domain: Domain,
    process: Process,
    console: Graphics,
    listeners: Sequence[Listener],
) -> Iterator[Problem]:
    """Yield a console whose QEMU listens on another address than libvirt's."""
    own = {listener.address for listener in listeners if listener.pid == process.pid}
    answer = host.hypervisor.answer("kernel", LISTENERS)
    if not own or not console.listens or answer is None or own & set(console.listens):
        return
    numbers = all(map(is_address, console.listens))
    if numbers and not EVERYWHERE & {*own, *console.listens}:
        yield problem(
            f"{guest.title}'s {console.type.upper()} console is at {console.listens[0]} in libvirt,"
            f" but its QEMU listens at {several(sorted(own))}",
            says(domain, name=domain.name, graphics=f"{console.listens[0]}:{console.port}"),
            hears(answer, "kernel", str(console.port), listening_at=several(sorted(own))),
        )


def _overlap(one: Graphics, other: Graphics) -> bool:
    ours, theirs = set(one.listens), set(other.listens)
    return bool(ours & theirs or (ours | theirs) & EVERYWHERE)


def _stale_tokens(
    claimed: _Claimed, guest: Guest, domain: Domain, instance: Instance
) -> Iterator[Problem]:
    ports = {(console.type, console.port) for console in domain.graphics}
    for row in instance.rows("console_auth_tokens"):
        kind = CONSOLES.get(text(row.cells, "console_type") or "")
        port, expires = integer(row.cells, "port"), integer(row.cells, "expires")
        if kind is None or port is None or expires is None or (kind, port) in ports:
            continue
        if expires > row.answer.at.timestamp() and kind in {its for its, _ in ports}:
            others = [it for it in claimed.get(port, ()) if it is not guest]
            place = f"{instance.database}.console_auth_tokens[id={row.cells.get('id')}].port"
            token = hears(row.answer, "instance", place, console_token_port=port)
            open_at = ", ".join(str(its) for _, its in sorted(ports, key=str))
            evidence: list[Evidence] = [token, says(domain, graphics=f"port {open_at}")]
            for other in others:
                if other.domain is not None:
                    evidence.append(says(other.domain, name=other.domain.name))
            leads = f"now that of {several(it.title for it in others)}" if others else "now unused"
            yield problem(
                f"A valid token for {guest.title}'s console leads to port {port}, {leads}",
                *evidence,
                severity=Severity.WARNING if others else Severity.NOTE,
            )
