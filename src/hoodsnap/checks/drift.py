"""Definitions of one guest that have drifted apart: what was sold, stored, started, noted down."""

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
"""The columns of `instances` that repeat the flavor."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, resizing])
def flavor_three_way_drift(guest: Guest, host: Host, instance: Instance) -> Problems:
    """The flavor is written down in several places, and they disagree.

    An instance keeps a copy of its flavor, and some of its numbers once more in columns of their
    own, which quotas and lists are made of. A resize that broke off, or somebody's UPDATE, leaves
    them apart; what a resize keeps of the old and the new flavor should be gone when it is over.

    Authority: the stored copy: the guest is built from it.

    Traps: a resize that waits for its confirmation; flavors that were made anew under the same name
    (a note): a guest keeps what it was sold.

    Next: `openstack server show UUID`, `openstack flavor show NAME`, `openstack server migration
    list --server UUID`. Then a resize writes all of them.

    Not yet: an UPDATE of one of them.

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
    yield from _sold_anew(host, instance, current)


def _sold_anew(host: Host, instance: Instance, current: Mapping[str, object]) -> Iterator[Problem]:
    name = text(current, "name") or ""
    offer = host.offers.get(name)
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
    """None also where that release has no such field: then there is nothing to compare."""
    return integer(raw, key) if key in raw else None


def _apart(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def machine_or_cpu_drift(
    guest: Guest, host: Host, domain: Domain, process: Process | None, instance: Instance | None
) -> Problems:
    """The guest is another machine than was written down, or one that QEMU no longer can be.

    A machine type fixes what hardware a guest sees. With another one at the next start Windows
    wants to be activated, network cards change their names, a suspended guest does not resume. QEMU
    drops old types after some years: then the guest does not start at all.

    Authority: QEMU for what runs; libvirt's capabilities for what can be started.

    Traps: `pc` and `q35` stand for the newest of their kind and are resolved at each definition; a
    guest that runs keeps an older one by design; a type that was changed with nova-manage while the
    guest was off holds from its next start.

    Next: `nova-manage libvirt get_machine_type UUID`, `virsh dumpxml [--inactive] NAME | grep
    machine=`, `virsh capabilities | grep '<machine'`. Then, with the guest off, `nova-manage
    libvirt update_machine_type`.

    Not yet: from pc-i440fx to q35 on a guest that is installed; a reboot before you know which type
    it will have.

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
    """What the domain's emulator can be; None if it is another than libvirt was asked about."""
    types = host.hypervisor.machine_types.get(xml.architecture or "")
    emulator = xml.emulator
    is_known = types is not None and (emulator is None or emulator in types.emulators)
    return types if is_known else None


def _processors(domain: Domain) -> Iterator[tuple[Evidence, ...]]:
    live, stored = domain.xml.processor, domain.inactive.processor
    # Only a model that is named has to be kept; the others are what the host has.
    if live is None or stored is None or stored.mode != "custom" or not stored.model:
        return
    if live.model and live.model != stored.model:
        yield says(domain, xml=f"CPU {live.model}"), says(domain, inactive=f"CPU {stored.model}")


@check(Severity.NOTE, traps=[building, task_in_flight, migrating])
def live_vs_persistent_drift(guest: Guest, domain: Domain) -> Problems:
    """The guest would be another one if libvirt started it again.

    libvirt keeps what runs and what is to be started next apart; `virsh edit`, `--config` without
    `--live` (or the other way round) and a change that failed half way leave them apart. A stop and
    start through nova writes the definition anew; one through libvirt (`virsh start`, autostart)
    uses what is stored.

    Authority: the live definition for what is; the nova database for what should be.

    Traps: what libvirt adds while a guest runs (addresses, ports, ptys, labels, chains) is no
    drift; memory and vCPUs that were plugged in are counted on no side; disks and machine types
    are other checks' business.

    Next: compare `virsh dumpxml NAME` with `virsh dumpxml --inactive NAME`. Then, if nova's is the
    right one, stop and start it through nova when it suits its owner.

    Not yet: `virsh destroy` and `virsh start`, `virsh define`.

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
    "memory_mib": lambda xml: -(-xml.memory_kib // 1024),  # libvirt rounds up when it starts one
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
"""What else a start would change."""


def _names_its_owner(package: str | None) -> bool:
    """Whether the nova that wrote the note was Pike or newer: before, it noted whoever did the last
    thing that wrote it, an administrator's hard reboot too. Before Liberty versions were years."""
    major = whole((package or "").partition(".")[0])
    return major is not None and PIKE <= major < YEARS


PIKE, YEARS = 16, 1000
"""The number of nova's Pike, and what is none."""


@check(Severity.NOTE, traps=[building, task_in_flight, migrating])
def xml_metadata_stale(guest: Guest, domain: Domain, instance: Instance) -> Problems:
    """nova's note in the domain is older than what nova knows of the server.

    The note is for people, and is written when the definition is: a rename, and a flavor that was
    set by hand, are not in it. Only a wrong project is odd: whoever bills or looks for the owner by
    it is misled.

    Authority: the nova database.

    Traps: a rename does not touch it; up to Ocata the owner is whoever caused the definition; it
    names no image for a server that boots from a volume; its time is that of the definition.

    Next: `virsh dumpxml NAME | grep -A25 nova:instance`, `openstack server show UUID`. Nothing has
    to be done; the next stop and start through nova writes it anew.

    Not yet: `virsh metadata` by hand.

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
