"""QEMU as it was started: its command line, its user and its confinement against libvirt's."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Severity, derives, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML
from hoodsnap.facts.fact import known, text
from hoodsnap.facts.process.command_line import CommandLine
from hoodsnap.facts.process.process import GONE, Process
from hoodsnap.phrase import brief

ACCELERATORS = {"kvm": "kvm", "qemu": "tcg", "hvf": "hvf"}
"""libvirt's type of a domain → QEMU's name of what runs its vCPUs."""

MODELS = frozenset(["i686", "x86_64"])
"""Architectures whose CPU models have the same names in libvirt and in QEMU."""

CLOCKS = frozenset(["utc", "localtime"])

TOPOLOGY = ("sockets", "dies", "cores", "threads")


class Passed(NamedTuple):
    """A setting that libvirt passes to QEMU when it starts it, and that can't change later."""

    name: str
    live: Callable[[DomainXML], object]
    """Value in the live definition; None if there is nothing to compare."""
    started: Callable[[CommandLine], object]
    """Value on QEMU's command line; None if there is nothing to compare."""


def _topology(name: str) -> Passed:
    return Passed(
        f"number of {name}",
        lambda xml: xml.settings.get(f"cpu/topology/@{name}"),
        lambda argv: str(argv.topology[name]) if name in argv.topology else None,
    )


def _smbios(name: str) -> Passed:
    return Passed(
        f"SMBIOS {name}",
        lambda xml: xml.smbios.get(name),
        lambda argv: argv.smbios.get(name),
    )


def _model(xml: DomainXML) -> str | None:
    cpu = xml.processor
    if cpu is None or xml.architecture not in MODELS:
        return None
    # libvirt replaces `host-model` by the model that it derived, except in its first releases.
    return {"custom": cpu.model, "host-passthrough": "host", "maximum": "max"}.get(cpu.mode)


def _os(name: str) -> Callable[[DomainXML], object]:
    return lambda xml: xml.settings.get(f"os/{name}")


def _sources(paths: Iterable[str]) -> str | None:
    return ", ".join(sorted(paths)) or None


SEPARATORS = (".", "-", "_")
"""Characters between the parts of a program's name."""

SYNONYMS = frozenset(["kvm", "kvm-spice", "qemu-kvm", "qemu"])
"""Names that a distribution links to a program of another name, or gives to a script that starts
it."""


def _emulator(xml: DomainXML) -> str | None:
    """Return the emulator, unless it may be a script that starts another program."""
    path = xml.emulator
    return path if path is not None and _base(path) not in SYNONYMS else None


def _program_of(argv: CommandLine) -> str | None:
    """Return the program, unless its path or its own name is unknown."""
    path = argv.binary
    return path if path.startswith("/") and _base(path) not in SYNONYMS else None


PASSED = (
    Passed("accelerator", lambda xml: ACCELERATORS.get(xml.type or ""), lambda it: it.accelerator),
    Passed("emulator", _emulator, _program_of),
    Passed("CPU model", _model, lambda argv: argv.processor),
    *map(_topology, TOPOLOGY),
    *map(_smbios, ("manufacturer", "product", "version", "serial", "family")),
    Passed("kernel", _os("kernel"), lambda argv: argv.last("kernel")),
    Passed("initrd", _os("initrd"), lambda argv: argv.last("initrd")),
    Passed(
        "clock",
        lambda xml: offset if (offset := xml.settings.get("clock/@offset")) in CLOCKS else None,
        lambda argv: argv.clock,
    ),
    Passed(
        "source of random numbers",
        lambda xml: _sources(
            value
            for key, value in xml.settings.items()
            if key.startswith("rng") and key.endswith("/backend") and value.startswith("/")
        ),
        lambda argv: _sources(argv.random_sources),
    ),
)
"""The guest's identity has a check of its own; so have its memory, vCPUs, machine type, consoles,
disks and network cards, which may be plugged in later."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def qemu_started_differently(
    guest: Guest, domain: Domain, process: Process, instance: Instance | None
) -> Problems:
    """QEMU was started with other settings than libvirt's definition of the running guest has.

    libvirt makes QEMU's command line from the definition and keeps it while the guest runs. They
    differ if the process was started by something else, if libvirt's file of the running domain
    was restored from another time, or if the definition was changed by hand in it. Commands that
    libvirt sends are then about another machine than the one that runs.

    Authority: QEMU, for the machine that the guest has.

    Traps: What can be plugged in later (memory, vCPUs) has other checks. Volumes and network cards
    are compared only if nova never plugged one in or out. A CPU model is compared only where
    libvirt and QEMU use the same names for it.

    Next: Compare the definition with the process, and read how libvirt started it:

        virsh dumpxml NAME
        ps -ww -o lstart,args -p PID
        tail -n 80 /var/log/libvirt/qemu/NAME.log

    Check that the server's volumes and ports are right, because a stop and start defines the guest
    again from all of nova's records:

        openstack server volume list UUID
        openstack port list --server UUID

    Then stop and start the server at a time that suits its owner, which ends the guest and boots
    it again:

        openstack server stop UUID
        openstack server start UUID

    It worked if the process is a new one with the definition's settings:

        ps -ww -o lstart,args -p $(cat /run/libvirt/qemu/NAME.pid)

    Not yet: Do not migrate the server: libvirt starts it on the other host from the definition, and
    the guest's memory does not fit to it. Do not save it or suspend it.

    Source: libvirt src/qemu/qemu_command.c; libvirt formatdomain.
    """
    if domain.id is None:
        return
    xml, argv = domain.xml, process.argv
    apart = {}
    for copy in PASSED:
        live = known(copy.live, xml)
        started = known(copy.started, argv) if live is not None else None
        if started is not None and live != started:
            apart[copy.name] = (live, started)
    apart |= _features(xml, argv)
    if apart:
        (name, (live, started)), *others = apart.items()
        more = f" (and {len(others)} more)" if others else ""
        yield problem(
            f"{guest.title}'s {name} is {live} in libvirt, but its QEMU was started with "
            f"{started}{more}",
            derives(domain, "xml", **{name: one for name, (one, _) in apart.items()}),
            derives(process, "argv", **{name: two for name, (_, two) in apart.items()}),
        )
    yield from _memory(guest, process, argv)
    yield from _mtus(guest, domain, process, argv)
    yield from _program(guest, process, argv)
    yield from _plugged(guest, domain, process, instance)


def _features(xml: DomainXML, argv: CommandLine) -> dict[str, tuple[object, object]]:
    """Return the CPU features that the guest has, although QEMU was started without them.

    What QEMU could not give, libvirt switches off in the live definition.
    """
    if xml.architecture not in MODELS or _model(xml) is None:
        return {}
    live, started = xml.cpu_features, argv.cpu_features
    return {
        f"CPU feature {name}": (_switch(live[name]), _switch(started[name]))
        for name in sorted(live.keys() & started.keys())
        if live[name] and not started[name]
    }


def _switch(value: bool) -> str:
    return "on" if value else "off"


PLUGGING = {
    "network card": frozenset(["attach_interface", "detach_interface"]),
    "volume": frozenset(["attach_volume", "detach_volume", "swap_volume"]),
}
"""nova's actions that plug something into a running guest, or out of it."""


def _plugged(
    guest: Guest, domain: Domain, process: Process, instance: Instance | None
) -> Iterator[Problem]:
    """Yield network cards or volumes that QEMU was started with in place of libvirt's."""
    for what, field, live, started in (
        (
            "network card",
            "interfaces",
            {card.mac for card in domain.interfaces if card.mac and card.type != "hostdev"},
            set(process.macs),
        ),
        (
            "volume",
            "disks",
            {disk.serial.lower() for disk in domain.disks if disk.serial},
            {drive.serial.lower() for drive in process.disks if drive.serial},
        ),
    ):
        ours, theirs = sorted(live - started), sorted(started - live)
        # Without a counterpart it was plugged in or out; nova has no action of each.
        if not ours or not theirs or instance is None or not _never_plugged(instance, what):
            continue
        yield problem(
            f"{guest.title} has {what} {brief(ours[0])} in libvirt, but its QEMU was started with"
            f" {brief(theirs[0])}",
            derives(domain, field, **{field: ", ".join(ours)}),
            derives(process, "argv", **{field: ", ".join(theirs)}),
        )


def _never_plugged(instance: Instance, what: str) -> bool:
    """True if nova's actions reach back to the server's creation, and none plugged such a thing."""
    actions = {text(row.cells, "action") for row in instance.rows("instance_actions")}
    return "create" in actions and not actions & PLUGGING[what]


def _memory(guest: Guest, process: Process, argv: CommandLine) -> Iterator[Problem]:
    """Yield a machine whose memory is not as large as QEMU's `-m`."""
    backing, memory = argv.backing_kib, argv.memory_kib
    if backing is not None and memory is not None and backing != memory:
        yield problem(
            f"{guest.title}'s QEMU was started with {memory} KiB of memory, but the object that "
            f"holds it has {backing} KiB",
            says(process, memory_kib=memory),
            derives(process, "argv", backing_kib=backing),
        )


def _mtus(guest: Guest, domain: Domain, process: Process, argv: CommandLine) -> Iterator[Problem]:
    for card in domain.interfaces:
        started = argv.mtus.get(card.mac or "")
        if started is not None and card.mtu is not None and started != card.mtu:
            yield problem(
                f"{guest.title}'s network card {card.mac} has MTU {card.mtu} in libvirt, but its "
                f"QEMU was started with {started}",
                derives(domain, "interfaces", mac=card.mac, mtu=card.mtu),
                derives(process, "argv", mac=card.mac, mtu=started),
            )


def _program(guest: Guest, process: Process, argv: CommandLine) -> Iterator[Problem]:
    """Yield a process that is another program than the one on its command line."""
    exe = known(lambda: process.exe)
    named, runs = (_base(path) for path in (argv.binary, exe or ""))
    if not exe or {named, runs} & SYNONYMS or named.strip(".") == runs.strip("."):
        return
    # A wrapper and a variant have names of their own: .qemu-system-x86_64-wrapped
    short, long = sorted((named.strip("."), runs.strip(".")), key=len)
    before, found, after = long.partition(short)
    if not found or before[-1:] not in ("", *SEPARATORS) or after[:1] not in ("", *SEPARATORS):
        yield problem(
            f"{guest.title}'s process {process.pid} is {exe}, but it was started as {argv.binary}",
            says(process, exe=exe),
            derives(process, "argv", program=argv.binary),
        )


def _base(path: str) -> str:
    return posixpath.basename(path.removesuffix(GONE))


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def qemu_runs_as_another_user(
    guest: Guest, host: Host, domain: Domain, process: Process
) -> Problems:
    """QEMU runs as another user than libvirt gave it, or than it would get at its next start.

    libvirt starts QEMU as the user in qemu.conf, notes that in the domain's label and gives the
    disks to that user. If qemu.conf was changed since, the guest's next start gives its disks to
    another user, and a guest that is moved here or plugged in later may find files that it can't
    open. A QEMU that runs as root has the whole host if the guest breaks out of it.

    Authority: The kernel, for the user of a process.

    Traps: A label with names instead of numbers is not compared. In a user namespace numbers have
    another meaning. A QEMU that kept another user's ids beside its own can become that user again.

    Next: Compare the process, the label of the domain, and the user that libvirt uses now:

        ps -o pid,user,group,lstart,args -p PID
        virsh dumpxml NAME | grep -A3 "model='dac'"
        virsh capabilities | grep -A6 '<model>dac'
        grep -E '^(user|group)' /etc/libvirt/qemu.conf

    Find out who changed qemu.conf, and which user is the right one. If it is the one that the
    process has, put it back into qemu.conf (`user`, `group`) before a server is started, and run
    `systemctl restart libvirtd` (virtqemud on a host with modular daemons). Guests keep running.

    If libvirt's present user is the right one, nothing more has to be changed: a stop and start at
    a time that suits the server's owner starts QEMU as that user. Check before that the server's
    volumes and ports are right:

        openstack server volume list UUID
        openstack port list --server UUID
        openstack server stop UUID
        openstack server start UUID

    It worked if the process has that user:

        ps -o user,group -p $(cat /run/libvirt/qemu/NAME.pid)

    Not yet: Do not run `chown` on the disks: libvirt changes their owner at the next start. Do not
    live-migrate the server before both hosts use the same user.

    Source: libvirt qemu.conf, `user`, `group`, `dynamic_ownership`; libvirt formatdomain,
    `<seclabel>`.
    """
    if domain.id is None or _is_apart(host, process):
        return
    runs = (process.uid, process.gid)
    labels = [label.process for label in domain.labels if label.model == "dac"]
    label = next((label for label in labels if label and label.startswith("+")), None)
    if label is not None and (given := label.replace("+", "")) != _pair(runs):
        yield problem(
            f"{guest.title}'s QEMU (PID {process.pid}) runs as {_pair(runs)}, but libvirt started "
            f"it as {given}",
            says(process, pid=process.pid, uid=runs[0], gid=runs[1]),
            derives(domain, "labels", dac_label=given),
            severity=Severity.ERROR,
        )
        return
    others = sorted(process.owners - {runs})
    if others:
        yield problem(
            f"{guest.title}'s QEMU (PID {process.pid}) runs as {_pair(runs)}, but has kept the ids "
            f"of {_pair(others[0])}",
            says(process, pid=process.pid, uid=runs[0], gid=runs[1]),
            derives(process, "owners", real_saved_or_file_system=_pair(others[0])),
        )
        return
    later = known(lambda: host.hypervisor.owner)
    answer = host.hypervisor.answer("libvirt", "virsh capabilities")
    kept = any(label.model == "dac" and not label.relabel for label in domain.labels)
    if later is not None and later != runs and answer is not None and not kept:
        place = "/capabilities/host/secmodel[model='dac']/baselabel"
        yield problem(
            f"{guest.title}'s QEMU (PID {process.pid}) runs as {_pair(runs)}, but libvirt would "
            f"start it as {_pair(later)}",
            says(process, pid=process.pid, uid=runs[0], gid=runs[1]),
            hears(answer, "libvirt", place, qemu_runs_as=_pair(later)),
        )


def _pair(user: tuple[int, int]) -> str:
    return f"{user[0]}:{user[1]}"


def _is_apart(host: Host, process: Process) -> bool:
    """True if the process has another user namespace than the collector, or if that is unknown."""
    own = known(lambda: host.hypervisor.namespaces.get("user"))
    theirs = known(lambda: process.namespaces.get("user"))
    return own is None or theirs is None or own != theirs


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def qemu_not_confined(guest: Guest, process: Process, domain: Domain) -> Problems:
    """QEMU lacks a confinement that libvirt started it with.

    libvirt lets QEMU filter its own system calls (`-sandbox`), and takes all capabilities from it
    unless it runs as root. A guest that breaks out of a QEMU without them reaches much more of the
    host.

    Authority: The kernel.

    Traps: Where qemu.conf switches the filter off, it is not on the command line, and nothing is
    reported. A QEMU that runs as root keeps capabilities.

    Next: Check the process, and the setting:

        grep -E '^(CapEff|NoNewPrivs|Seccomp)' /proc/PID/status
        grep -E '^(seccomp_sandbox|clear_emulator_capabilities)' /etc/libvirt/qemu.conf

    Find out what started the process, and whether its QEMU was built with seccomp:

        ps -ww -o ppid,user,lstart,args -p PID

    Then stop and start the server at a time that suits its owner, which starts a new process. Check
    before that its volumes and ports are right:

        openstack server volume list UUID
        openstack port list --server UUID
        openstack server stop UUID
        openstack server start UUID

    It worked if the new process has the filter (2) and no capabilities:

        grep -E '^(CapEff|Seccomp)' /proc/$(cat /run/libvirt/qemu/NAME.pid)/status

    Not yet: Do not attach a debugger to the process, and do not kill it: the guest runs.

    Source: QEMU manual, `-sandbox`; libvirt qemu.conf, `seccomp_sandbox`; Linux, proc(5).
    """
    if domain.id is None:
        return
    who = f"{guest.title}'s QEMU (PID {process.pid})"
    if process.argv.sandbox and not process.seccomp:
        yield problem(
            f"{who} does not filter its system calls, although it was started with -sandbox on",
            says(process, pid=process.pid, seccomp=False),
            derives(process, "argv", sandbox="on"),
        )
    if process.uid != 0 and process.capabilities.strip("0"):
        yield problem(
            f"{who} has capabilities (CapEff {process.capabilities}), although it runs as user "
            f"{process.uid}",
            says(process, pid=process.pid, uid=process.uid, capabilities=process.capabilities),
        )
