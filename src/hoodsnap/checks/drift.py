"""Definitions of one guest that have drifted apart: flavor, machine type, stored XML, metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import building, migrating, resizing, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML
from hoodsnap.facts.domain.hardware import MachineTypes
from hoodsnap.facts.fact import integer, text
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.quantity import whole

SOLD = ("memory_mb", "vcpus", "root_gb", "ephemeral_gb")
"""The columns of `instances` that repeat values of the flavor."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, resizing])
def flavor_three_way_drift(guest: Guest, host: Host, instance: Instance) -> Problems:
    """The copies of the server's flavor disagree.

    An instance keeps a copy of its flavor, and repeats some of its numbers in columns of their own,
    from which quotas and lists are made. A resize that broke off, or a manual UPDATE, leaves the
    two different. The old and new flavor that a resize stores should be gone when the resize is
    over.

    Authority: The stored copy: nova builds the guest from it.

    Traps: A resize that waits for its confirmation. A flavor that was created again under the same
    name (a note): a guest keeps the flavor that it was created with.

    Next: Compare the server, its flavor and its migrations:

        openstack server show UUID
        openstack flavor show FLAVOR
        openstack server migration list --server UUID

    Then a resize to another flavor (and back) writes all copies again.

    Not yet: Do not UPDATE one of the copies.

    Source: nova objects/instance.py (`flavor`, `old_flavor`, `new_flavor`), compute/api.py resize.
    """
    if instance.deleted:
        return
    current = instance.stored_flavor("cur")
    if current is None:
        return
    columns = {name: (_number(instance.raw, name), _number(current, name)) for name in SOLD}
    apart = {name: pair for name, pair in columns.items() if _apart(*pair)}
    if apart:
        stored = {f"flavor_{name}": kept for name, (_, kept) in apart.items()}
        row = says(instance, **{name: column for name, (column, _) in apart.items()})
        yield row, says(instance, flavor=text(current, "name")).and_so(**stored)
    kept = {which: instance.stored_flavor(which) for which in ("old", "new")}
    left = {f"{which}_flavor": text(its, "name") for which, its in kept.items() if its is not None}
    if left:
        yield (says(instance, vm_state=instance.vm_state, flavor=text(current, "name"), **left),)
    yield from _changed_since(host, instance, current)


def _changed_since(
    host: Host, instance: Instance, current: Mapping[str, object]
) -> Iterator[Problem]:
    name = text(current, "name") or ""
    offer = host.offered_flavors.get(name)
    if offer is None:
        return
    pairs = {key: (_number(current, key), now) for key, now in offer.sizes.items()}
    apart = {key: pair for key, pair in pairs.items() if _apart(*pair)}
    if apart:
        sold = {f"flavor_{key}": then for key, (then, _) in apart.items()}
        offered = {key: now for key, (_, now) in apart.items()}
        evidence = (
            says(instance, flavor=name).and_so(**sold),
            hears(offer.answer, "flavor", f"flavors[name={name}]", **offered),
        )
        yield Problem(Severity.NOTE, evidence)


def _number(raw: Mapping[str, object], key: str) -> int | None:
    """Return an integer field; None also if that release has no such field: nothing to compare."""
    return integer(raw, key) if key in raw else None


def _apart(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def machine_or_cpu_drift(
    guest: Guest, host: Host, domain: Domain, process: Process | None, instance: Instance | None
) -> Problems:
    """The guest's machine type or CPU model differs from a record, or QEMU no longer supports it.

    A machine type fixes the hardware that a guest sees. If it changes at the next start, Windows
    has to be activated again, network cards change their names, and a suspended guest does not
    resume. QEMU drops old machine types after some years; a guest with such a type does not start
    at all.

    Authority: QEMU, for what runs; libvirt's capabilities, for what can be started.

    Traps: `pc` and `q35` are aliases for the newest type of their kind, and libvirt resolves them
    whenever a domain is defined. A running guest keeps an older type by design. A type that was
    changed with nova-manage while the guest was off takes effect at its next start.

    Next: Compare nova's record, the domain's definitions and the types that QEMU supports:

        nova-manage libvirt get_machine_type UUID
        virsh dumpxml NAME | grep machine=
        virsh dumpxml --inactive NAME | grep machine=
        virsh capabilities | grep '<machine'

    Then, with the guest off, correct nova's record; TYPE is a machine type such as pc-i440fx-7.2:

        nova-manage libvirt update_machine_type UUID TYPE

    Not yet: Do not change an installed guest from pc-i440fx to q35. Do not reboot the guest before
    you know which machine type it will have.

    Source: nova admin guide, hw-machine-type; QEMU's list of removed features.
    """
    types = _types(host, domain.definition)
    known = types or MachineTypes(frozenset(), frozenset(), {})
    machine = domain.definition.machine
    if types is not None and machine is not None and machine not in types.names:
        answer = host.hypervisor.answer("libvirt", "virsh capabilities")
        if answer is not None:
            written = says(domain, definition=machine)
            none = hears(answer, "libvirt", "/capabilities/guest/arch/machine", that_machine=None)
            yield Problem(Severity.ERROR, (written, none))
    if domain.id is None or domain.machine is None:
        return
    if domain.persistent:
        stored = domain.next_machine
        if stored is not None and not known.same(domain.machine, stored):
            yield says(domain, machine=domain.machine), says(domain, next_machine=stored)
        yield from _processors(domain)
    if process is not None and not known.same(domain.machine, process.machine):
        yield says(domain, machine=domain.machine), says(process, machine=process.machine)
    if instance is not None:
        for row in instance.rows("instance_system_metadata"):
            wanted = text(row.cells, "value") if row.cells.get("key") == MACHINE_TYPE else None
            if wanted and types is not None and not types.fits(wanted, domain.machine):
                noted = hears(row.answer, "instance", MACHINE_TYPE, **{MACHINE_TYPE: wanted})
                yield noted, says(domain, machine=domain.machine)


MACHINE_TYPE = "image_hw_machine_type"


def _types(host: Host, xml: DomainXML) -> MachineTypes | None:
    """Return the machine types of the domain's emulator; None if libvirt was asked about another
    one."""
    types = host.hypervisor.machine_types.get(xml.architecture or "")
    emulator = xml.emulator
    is_known = types is not None and (emulator is None or emulator in types.emulators)
    return types if is_known else None


def _processors(domain: Domain) -> Iterator[tuple[Evidence, ...]]:
    live, stored = domain.xml.processor, domain.inactive.processor
    # Only a named model has to stay the same; the other modes follow the host's CPU.
    if live is None or stored is None or stored.mode != "custom" or not stored.model:
        return
    if live.model and live.model != stored.model:
        yield says(domain, xml=f"CPU {live.model}"), says(domain, inactive=f"CPU {stored.model}")


@check(Severity.NOTE, traps=[building, task_in_flight, migrating])
def live_vs_persistent_drift(guest: Guest, domain: Domain) -> Problems:
    """libvirt's persistent definition differs from the running guest.

    libvirt keeps the running definition and the one for the next start apart. `virsh edit`,
    `--config` without `--live` (or the reverse), or a change that failed half way makes them
    differ. A stop and start through nova defines the domain again; a start through libvirt (`virsh
    start`, autostart) uses the persistent definition.

    Authority: The live definition, for what runs; the nova database, for what should run.

    Traps: What libvirt adds while a guest runs (addresses, ports, ptys, labels, chains) is not a
    difference. Hot-plugged memory and vCPUs are not counted on either side. Other checks compare
    disks and machine types.

    Next: Compare the two definitions:

        virsh dumpxml NAME
        virsh dumpxml --inactive NAME

    Then, if nova's records are right, stop and start the server through nova at a time that suits
    its owner.

    Not yet: Do not run `virsh destroy` and `virsh start`, or `virsh define`.

    Source: libvirt formatdomain; OSSA-2020-006.
    """
    if domain.id is None or not domain.persistent:
        return
    live, stored = domain.xml, domain.inactive
    for name, read in SIZES.items():
        size, other = read(live), read(stored)
        if size != other:
            now = says(domain, xml=f"{name} {size}")
            then = says(domain, inactive=f"{name} {other}")
            yield Problem(Severity.WARNING, (now, then))
    for part, has in PARTS.items():
        one, two = {*has(live)} - NOTHING, {*has(stored)} - NOTHING
        if one != two:
            now = says(domain, xml=f"{part} {_listed(one)}")
            yield now, says(domain, inactive=f"{part} {_listed(two)}")


SIZES: Mapping[str, Callable[[DomainXML], int]] = {
    "memory_mib": lambda xml: -(-xml.memory_kib // 1024),  # libvirt rounds up at a start
    "vcpus": lambda xml: xml.vcpus,
}


def _listed(things: Iterable[str | None]) -> str:
    return ", ".join(sorted({thing for thing in things if thing})) or "none"


NOTHING = frozenset([None, ""])

PARTS: Mapping[str, Callable[[DomainXML], Iterable[str | None]]] = {
    "firmware": lambda xml: xml.firmware,
    "network cards": lambda xml: [card.mac for card in xml.interfaces],
    "host devices": lambda xml: [device.address for device in xml.host_devices],
    "console logs": lambda xml: xml.logs,
    "consoles at": lambda xml: [at for it in xml.graphics for at in it.listens],
}
"""Parts of the definition, besides its sizes, that a start would change."""


def _names_its_owner(package: str | None) -> bool:
    """True if the nova that wrote the note was Pike or newer.

    Older releases noted the user of the last request that wrote it, even of an administrator's hard
    reboot. Before Liberty versions were years.
    """
    major = whole((package or "").partition(".")[0])
    return major is not None and PIKE <= major < YEARS


PIKE, YEARS = 16, 1000
"""Pike's major version, and the lower limit of versions that are years."""


@check(Severity.NOTE, traps=[building, task_in_flight, migrating])
def xml_metadata_stale(guest: Guest, domain: Domain, instance: Instance) -> Problems:
    """nova's metadata in the domain XML is older than nova's records.

    The metadata is for people, and nova writes it when it defines the domain: it misses a later
    rename, or a flavor that was set by hand. Only a wrong project does harm: it misleads anyone who
    uses the metadata to bill a server or to find its owner.

    Authority: The nova database.

    Traps: A rename does not update the metadata. Up to Ocata, the owner in it is the user whose
    request defined the domain. It names no image for a server that boots from a volume. Its time is
    the time of the definition.

    Next: Compare the metadata with the server:

        virsh dumpxml NAME | grep -A25 nova:instance
        openstack server show UUID

    Nothing has to be done: the next stop and start through nova writes the metadata again.

    Not yet: Do not run `virsh metadata` by hand.

    Source: nova virt/libvirt/driver.py `_get_guest_config_meta`.
    """
    note = domain.nova_note
    if note is None or instance.deleted:
        return
    flavor = instance.flavor
    pairs = {
        "name": (note.name, instance.name),
        "image": (note.root_image, instance.image),
        "flavor": (note.flavor, flavor.name),
        "memory_mib": (note.memory_mib, flavor.memory_mib),
        "vcpus": (note.vcpus, flavor.vcpus),
        "ephemeral_gb": (note.ephemeral_gb, flavor.ephemeral_gb),
        "swap_mib": (note.swap_mib, flavor.swap_mib),
    }
    old = {name: pair for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]}
    if old:
        then = {name: pair[0] for name, pair in old.items()}
        now = {name: pair[1] for name, pair in old.items()}
        yield says(domain, nova_note=note.created).and_so(**then), says(instance, **now)
    project = text(instance.raw, "project_id")
    if note.project and project and note.project != project and _names_its_owner(note.package):
        owners = (
            says(domain, nova_note=f"project {note.project}"),
            says(instance, project_id=project),
        )
        yield Problem(Severity.WARNING, owners)
