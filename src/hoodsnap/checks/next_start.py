"""The guest's next start through libvirt: the stored definition against the running one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.drift import amounts
from hoodsnap.checks.hand_edits import is_unsold
from hoodsnap.checks.ports import fits
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Severity, derives
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML
from hoodsnap.facts.domain.hardware import Processor
from hoodsnap.facts.domain.settings import is_limit
from hoodsnap.facts.host.tap import NAME
from hoodsnap.phrase import several, sizes

MOST = 3
"""Number of settings that a headline names, if they fit."""

WIDTH = 140
"""Number of characters that a headline has at most."""


@check(Severity.NOTE, traps=[building, task_in_flight, migrating])
def live_vs_persistent_drift(guest: Guest, domain: Domain) -> Problems:
    """libvirt's persistent definition differs from the running guest.

    libvirt keeps the running definition and the one for the next start apart. `virsh edit`,
    `--config` without `--live` (or the reverse), or a change that failed half way makes them
    differ. A stop and start through nova defines the domain again; a start through libvirt (`virsh
    start`, autostart) uses the persistent definition.

    Authority: The live definition, for what runs; the nova database, for what should run.

    Traps: What libvirt adds while a guest runs (addresses, ports, ptys, labels, chains) is not a
    difference. A CPU model that libvirt derives from the host's CPU at each start is none, either.
    Hot-plugged memory and vCPUs are not counted on either side. Other checks compare disks, limits
    and machine types, and report a running guest's cards without a port.

    Next: Compare the two definitions:

        virsh dumpxml NAME
        virsh dumpxml --inactive NAME

    Check that nova's records are right: a stop and start defines the domain again from them:

        openstack server show UUID
        openstack server volume list UUID
        openstack port list --server UUID

    Then stop and start the server, which ends the guest and boots it again:

        openstack server stop UUID
        openstack server start UUID

    It worked if the definition for the next start is the running one:

        virsh dumpxml --inactive NAME

    Not yet: Do not run `virsh destroy` and `virsh start`, or `virsh define`.

    Source: libvirt formatdomain; OSSA-2020-006.
    """
    if domain.id is None or not domain.persistent:
        return
    live, stored = domain.xml, domain.inactive
    for name, read in SIZES.items():
        size, other = read(live), read(stored)
        if size != other:
            yield problem(
                f"{guest.title} runs with {amounts({name: size})}, but libvirt would start it with "
                f"{amounts({name: other})}",
                derives(domain, "xml", **{name: size}),
                derives(domain, "inactive", **{f"next_{name}": other}),
                severity=Severity.WARNING,
            )
    yield from _ballooned(guest, domain, stored)
    for part, has in PARTS.items():
        one, two = {*has(live)} - NOTHING, {*has(stored)} - NOTHING
        if part == CARDS:
            one -= {mac for mac in one - two if _is_without_port(guest, live, mac)}
        if one != two:
            name = part.replace(" ", "_")
            yield problem(
                f"{guest.title} has other {part} at its next start through libvirt: "
                f"{_listed(one)} now, {_listed(two)} then",
                derives(domain, "xml", **{name: _listed(one)}),
                derives(domain, "inactive", **{f"next_{name}": _listed(two)}),
            )
    yield from _settings(guest, domain, live, stored)


SIZES: Mapping[str, Callable[[DomainXML], int]] = {
    "memory_mib": lambda xml: -(-xml.memory_kib // 1024),  # libvirt rounds up at a start
    "vcpus": lambda xml: xml.vcpus,
}


def _is_without_port(guest: Guest, live: DomainXML, mac: str | None) -> bool:
    """True for a card that neutron has no port for: `port-guest-mismatch` says how it is removed
    from the running guest, whose next start then needs no change."""
    cards = [card for card in live.interfaces if card.mac == mac]
    ports = guest.ports
    return ports is not None and not any(fits(card, port) for card in cards for port in ports)


def _ballooned(guest: Guest, domain: Domain, stored: DomainXML) -> Iterator[Problem]:
    """Yield a stored balloon: nova gives a guest all of its memory."""
    left, whole = stored.current_memory_kib, stored.total_memory_kib
    if left != whole:
        some, all_of_it = sizes(left << 10, whole << 10)
        yield problem(
            f"{guest.title} would start through libvirt with {some} of its {all_of_it} of memory",
            derives(domain, "inactive", next_current_memory_kib=left, next_memory_kib=whole),
            severity=Severity.WARNING,
        )


def _settings(
    guest: Guest, domain: Domain, live: DomainXML, stored: DomainXML
) -> Iterator[Problem]:
    now, then = live.settings, stored.settings
    if now == then:
        return
    cards, disks = _devices(now) & _devices(then), "disk["
    apart = {}
    for name in sorted(now.keys() | then.keys()):
        one, two = now.get(name), then.get(name)
        if one == two or is_limit(name):
            continue  # another check reports limits
        if one is not None and is_unsold(name, one):
            continue  # definition-not-novas reports what runs
        if name.startswith("cpu/topology") and live.vcpus != stored.vcpus:
            continue  # it follows the number of vCPUs
        device = name.partition("]")[0]
        if device.startswith(("interface[", disks)) and device not in cards:
            continue  # a device that only one definition has
        if name.endswith("/link/@state") and two != "down":
            continue  # up is the default; another check reports a card that is unplugged now
        if name.endswith("/@interfaceid"):
            continue  # another check compares both with the port
        if name.endswith("/target/@dev") and (one is None or two is None or _are_taps(one, two)):
            continue  # libvirt names taps that nova leaves unnamed; another check reads the names
        apart[name] = (one, two)
    if apart:
        changed = [
            f"{name} {one or 'none'} now, {two or 'none'} then"
            for name, (one, two) in apart.items()
        ]
        start = f"{guest.title} has other settings at its next start through libvirt: "
        fit = (most for most in range(MOST, 1, -1) if len(start + several(changed, most)) <= WIDTH)
        yield problem(
            f"{start}{several(changed, next(fit, 1))}",
            derives(domain, "xml", **{name: one for name, (one, _) in apart.items()}),
            derives(
                domain, "inactive", **{f"next {name}": two for name, (_, two) in apart.items()}
            ),
        )


def _are_taps(one: str, two: str) -> bool:
    """True if both names contain the id of a port, with which another check compares them."""
    return bool(NAME.fullmatch(one) and NAME.fullmatch(two))


def _devices(settings: Mapping[str, str]) -> set[str]:
    return {name.partition("]")[0] for name in settings if "]" in name}


def _listed(things: Iterable[str | None]) -> str:
    return ", ".join(sorted({thing for thing in things if thing})) or "none"


NOTHING = frozenset([None, ""])


def _processor(xml: DomainXML) -> Iterator[str | None]:
    """Yield the CPU mode, if a start does not replace it by another one."""
    cpu: Processor | None = xml.processor
    if cpu is not None and cpu.mode not in ("custom", "host-model"):
        yield cpu.mode


REWRITTEN = frozenset(["created", "package", "name", "ports", "addresses", "project", "user"])
"""Parts of nova's note that may differ, because attaching a port writes only the live note again,
or that another check compares with nova."""


def _note(xml: DomainXML) -> Iterator[str | None]:
    """Yield nova's note in the definition, apart from what `REWRITTEN` names."""
    note = xml.nova
    if note is not None:
        for name, value in zip(note._fields, note, strict=True):
            if name not in REWRITTEN and value is not None:
                yield f"{name} {value}"


CARDS = "network cards"

PARTS: Mapping[str, Callable[[DomainXML], Iterable[str | None]]] = {
    "virtualization": lambda xml: [xml.type],
    "emulators": lambda xml: [xml.emulator],
    "CPU modes": _processor,
    "firmware": lambda xml: xml.firmware,
    CARDS: lambda xml: [card.mac for card in xml.interfaces],
    "host devices": lambda xml: [device.address for device in xml.host_devices],
    "console logs": lambda xml: xml.logs,
    "console addresses": lambda xml: [at for it in xml.graphics for at in it.listens],
    "nova metadata": _note,
}
"""Parts of the definition, besides its sizes, that a start would change."""
