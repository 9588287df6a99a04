"""Definitions of one guest that have drifted apart: flavor, machine type, stored XML, metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, resizing, task_in_flight
from hoodsnap.evidence import Severity, derives, hears, says
from hoodsnap.facts.api.port import PREFIX
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.stored_object import fields_if_wrapped, read_object
from hoodsnap.facts.database.tables import Row
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML
from hoodsnap.facts.domain.hardware import MachineTypes
from hoodsnap.facts.domain.nova_metadata import NovaMetadata
from hoodsnap.facts.fact import integer, known, text
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.quantity import whole
from hoodsnap.phrase import brief, counted, several

SOLD = ("memory_mb", "vcpus", "root_gb", "ephemeral_gb")
"""The columns of `instances` that repeat values of the flavor."""

THINGS = {
    "memory_mb": "MiB of memory",
    "memory_mib": "MiB of memory",
    "root_gb": "GiB of root disk",
    "ephemeral_gb": "GiB of ephemeral disk",
    "swap": "MiB of swap",
}
"""Field of a flavor → what its number counts."""


def amounts(numbers: Mapping[str, int | None]) -> str:
    """Return fields of a flavor in words: `64 MiB of memory and 2 vCPUs`."""
    return several(
        (
            counted(number or 0, "vCPU") if name == "vcpus" else _amount(number, THINGS[name])
            for name, number in numbers.items()
        ),
        len(THINGS),
    )


def _amount(number: int | None, what: str) -> str:
    return f"{number} {what}" if number else f"no {what}"


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

    If only today's flavor differs, nothing has to be done: the guest keeps what it was sold. For
    the other differences, check the server's volumes and ports, because a resize defines the guest
    again:

        openstack server volume list UUID
        openstack port list --server UUID

    Then resize the server to another flavor, which restarts the guest, may move it to another host,
    and writes all copies again. A second resize brings the old flavor back:

        openstack server resize --wait --flavor OTHER_FLAVOR UUID
        openstack server resize confirm UUID

    It worked if the server has the new flavor's numbers, also in the cell's database:

        openstack server show UUID -c flavor
        SELECT memory_mb, vcpus, root_gb, ephemeral_gb FROM instances WHERE uuid = 'UUID'

    Not yet: Do not change one of the copies with an SQL statement.

    Source: nova objects/instance.py (`flavor`, `old_flavor`, `new_flavor`), compute/api.py resize.
    """
    if instance.deleted:
        return
    current = instance.stored_flavor("cur")
    if current is None:
        return
    name = text(current, "name")
    pairs = {key: (_number(instance.raw, key), _number(current, key)) for key in SOLD}
    apart = {key: pair for key, pair in pairs.items() if _apart(*pair)}
    if apart:
        stored = {f"flavor_{key}": its for key, (_, its) in apart.items()}
        columns = {key: column for key, (column, _) in apart.items()}
        yield problem(
            f"{guest.title}'s database row has {amounts(columns)}, but its stored flavor "
            f"{name} has {amounts({key: its for key, (_, its) in apart.items()})}",
            says(instance, **columns),
            says(instance, flavor=name).and_so(**stored),
            FLAVOR=name,
            EDITED=guest.uuid,
        )
    kept = {which: instance.stored_flavor(which) for which in ("old", "new")}
    left = {f"{which}_flavor": text(its, "name") for which, its in kept.items() if its is not None}
    if left:
        names = (f"{key.replace('_', ' ')} {its}" for key, its in left.items())
        yield problem(
            f"{guest.title} still stores the {several(names)} of a resize that is over",
            says(instance, vm_state=instance.vm_state, flavor=name, **left),
            FLAVOR=name,
        )
    yield from _changed_since(guest, host, instance, current)


def _changed_since(
    guest: Guest, host: Host, instance: Instance, current: Mapping[str, object]
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
        then = amounts({key: was for key, (was, _) in apart.items()})
        yield problem(
            f"{guest.title} was sold flavor {name} with {then}; today {name} has "
            f"{amounts(offered)}",
            says(instance, flavor=name).and_so(**sold),
            hears(offer.answer, "flavor", f"flavors[name={name}]", **offered),
            severity=Severity.NOTE,
            FLAVOR=name,
            OTHER_FLAVOR="",
        )


def _number(raw: Mapping[str, object], key: str) -> int | None:
    """Return an integer field; None also if that release has no such field: nothing to compare."""
    return integer(raw, key) if key in raw else None


def _apart(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def machine_or_cpu_drift(
    guest: Guest, host: Host, domain: Domain, process: Process | None, instance: Instance | None
) -> Problems:
    """The guest's machine type or CPU differs from a record, or QEMU no longer supports it.

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

    Check also that the server's volumes and ports are right, because a stop and start defines the
    guest again from all of nova's records:

        openstack server volume list UUID
        openstack port list --server UUID

    Then stop the server, which ends the guest:

        openstack server stop UUID

    If nova's record differs from what the guest ran with, or QEMU does not support its type,
    correct the record, which decides the type at the next start. nova refuses an older version, and
    another kind, without --force:

        nova-manage libvirt update_machine_type --force UUID TYPE

    Start the server, which defines the domain again:

        openstack server start UUID

    It worked if both definitions have the type that the guest had before:

        virsh dumpxml NAME | grep machine=
        virsh dumpxml --inactive NAME | grep machine=

    Not yet: Do not change an installed guest from pc-i440fx to q35. Do not start the guest with
    `virsh start`, which uses the persistent definition.

    Source: nova admin guide, hw-machine-type; QEMU's list of removed features.
    """
    types = _types(host, domain.definition)
    names = types or MachineTypes(frozenset(), frozenset(), {})
    if types is not None:
        yield from _unsupported(guest, host, domain, instance, types)
    if domain.id is None or domain.machine is None:
        return
    if domain.persistent:
        stored = domain.next_machine
        if stored is not None and not names.same(domain.machine, stored):
            yield problem(
                f"{guest.title} runs with machine type {domain.machine}, but libvirt would start it"
                f" with {stored}",
                says(domain, machine=domain.machine),
                says(domain, next_machine=stored),
                TYPE=_to_record(instance, domain.machine),
            )
        yield from _processors(guest, domain, instance)
    if instance is not None:
        yield from _topology(guest, domain, instance)
    if process is not None and not names.same(domain.machine, process.machine):
        yield problem(
            f"{guest.title} has machine type {domain.machine} in libvirt, but its QEMU runs with "
            f"{process.machine}",
            says(domain, machine=domain.machine),
            says(process, machine=process.machine),
            TYPE=_to_record(instance, process.machine),
        )
    if instance is not None and types is not None:
        for wanted, row in _recorded(instance):
            if wanted in types.names and not types.fits(wanted, domain.machine):
                yield problem(
                    f"{guest.title} runs with machine type {domain.machine}, but nova's record has "
                    f"{wanted}",
                    hears(row.answer, "instance", MACHINE_TYPE, **{MACHINE_TYPE: wanted}),
                    says(domain, machine=domain.machine),
                    TYPE=domain.machine,
                )


MACHINE_TYPE = "image_hw_machine_type"


def _recorded(instance: Instance) -> Iterator[tuple[str, Row]]:
    """Yield the machine type in nova's record, and its row (Wallaby and later).

    Raises `UnheardError` if the rows were not collected.
    """
    for row in instance.rows("instance_system_metadata"):
        wanted = text(row.cells, "value") if row.cells.get("key") == MACHINE_TYPE else None
        if wanted:
            yield wanted, row


def _unsupported(
    guest: Guest, host: Host, domain: Domain, instance: Instance | None, types: MachineTypes
) -> Iterator[Problem]:
    """Report a machine type that the host's QEMU lacks: in nova's record, which decides at the next
    start through nova, or in the definition, by which libvirt would start the guest.
    """
    answer = host.hypervisor.answer("libvirt", "virsh capabilities")
    if answer is None:
        return
    lacks = hears(answer, "libvirt", "/capabilities/guest/arch/machine", that_machine=None)
    rows = (known(lambda: [*_recorded(instance)]) or []) if instance is not None else []
    defined, qemu = domain.definition.machine, f"the QEMU on host {host.name} does not support"
    has = derives(domain, "definition", machine=defined)
    for wanted, row in rows[:1]:
        if wanted not in types.names:
            own = defined if defined in types.names else types.newest_like(defined or wanted)
            yield problem(
                f"{guest.title} has machine type {wanted} in nova's record, which {qemu}: its next "
                "start fails",
                hears(row.answer, "instance", MACHINE_TYPE, **{MACHINE_TYPE: wanted}),
                has,
                lacks,
                severity=Severity.ERROR,
                TYPE=own,
            )
            return
    if defined is None or defined in types.names:
        return
    # A start through nova defines the domain with the type in nova's record.
    then = f": nova would start it with {rows[0][0]}" if rows else ": libvirt can't start it"
    yield problem(
        f"{guest.title} has machine type {defined}, which {qemu}{then}",
        has,
        lacks,
        severity=Severity.ERROR,
        TYPE="" if rows else types.newest_like(defined),
    )


def _types(host: Host, xml: DomainXML) -> MachineTypes | None:
    """Return the machine types of the domain's emulator; None if libvirt was asked about another
    one."""
    types = host.hypervisor.machine_types.get(xml.architecture or "")
    emulator = xml.emulator
    is_known = types is not None and (emulator is None or emulator in types.emulators)
    return types if is_known else None


def _to_record(instance: Instance | None, machine: str) -> str:
    """Return the type for nova's record; empty if the record was compared and does not differ."""
    return machine if instance is None else ""


def _processors(guest: Guest, domain: Domain, instance: Instance | None) -> Iterator[Problem]:
    live, stored = domain.xml.processor, domain.inactive.processor
    # Only a named model has to stay the same; the other modes follow the host's CPU.
    if live is None or stored is None or stored.mode != "custom" or not stored.model:
        return
    if live.model and live.model != stored.model:
        yield problem(
            f"{guest.title} runs with CPU model {live.model}, but libvirt would start it with "
            f"{stored.model}",
            derives(domain, "xml", cpu_model=live.model),
            derives(domain, "inactive", next_cpu_model=stored.model),
            TYPE=_to_record(instance, domain.machine or ""),
        )


def _topology(guest: Guest, domain: Domain, instance: Instance) -> Iterator[Problem]:
    """Compare the topology with the one that nova recorded when it last built the domain."""
    written = text(instance.instance_extra or {}, "vcpu_model")
    live = domain.xml.processor
    if not written or live is None or known(lambda: instance.vcpus) not in (None, domain.vcpus):
        return  # vcpu-chain-mismatch, if the numbers differ
    model = fields_if_wrapped(read_object(written, "the recorded CPU model"))
    stored = model.get("topology")
    recorded = fields_if_wrapped(stored) if isinstance(stored, dict) else {}
    apart = [
        name
        for name in ("sockets", "cores", "threads")
        if isinstance(recorded.get(name), int)
        and live.topology.get(name, 0) not in (0, recorded[name])
    ]
    if apart:
        has = several(counted(live.topology[name], name.removesuffix("s")) for name in apart)
        had = several(
            counted(integer(recorded, name) or 0, name.removesuffix("s")) for name in apart
        )
        yield problem(
            f"{guest.title} runs with {has}, but nova's record of its CPU has {had}",
            derives(domain, "xml", cpu_topology=has),
            derives(instance, "instance_extra", vcpu_model_topology=had),
            TYPE=_to_record(instance, domain.machine or ""),
        )


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
        "root_gb": (note.root_gb, flavor.root_gb),
    }
    old = {name: pair for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]}
    if old:
        then = {name: pair[0] for name, pair in old.items()}
        now = {name: pair[1] for name, pair in old.items()}
        was, new = (
            ", ".join(f"{key} {brief(str(it))}" for key, it in of.items()) for of in (then, now)
        )
        yield problem(
            f"{guest.title}'s metadata in libvirt has {was}, but nova has {new}",
            derives(domain, "nova_note", metadata_written=note.created, **then),
            says(instance, **now),
        )
    if domain.id is not None:
        yield from _ports(guest, domain, note)
    yield from _owners(guest, domain, instance)


def _owners(guest: Guest, domain: Domain, instance: Instance) -> Iterator[Problem]:
    """Yield a note in either definition that names another project or user."""
    stored = known(lambda: domain.inactive.nova if domain.persistent else None)
    seen: set[str] = set()
    for field, note in (("nova_note", domain.nova_note), ("inactive", stored)):
        if note is None or not _names_its_owner(note.package):
            continue
        for name, noted in (("project", note.project), ("user", note.user)):
            owner = text(instance.raw, f"{name}_id")
            if noted and owner and noted != owner and name not in seen:
                seen.add(name)
                yield problem(
                    f"{guest.title}'s metadata in libvirt has {name} {noted[:8]}, but nova has "
                    f"{name} {owner[:8]}",
                    derives(domain, field, **{name: noted}),
                    says(instance, **{f"{name}_id": owner}),
                    severity=Severity.WARNING if name == "project" else Severity.NOTE,
                )


def _ports(guest: Guest, domain: Domain, note: NovaMetadata) -> Iterator[Problem]:
    """Yield ports and addresses in the note of a running guest that it does not have."""
    ports = guest.ports
    if ports is None or not note.ports:
        return
    own = {port.id for port in ports}
    cards = {tap[-PREFIX:] for tap in domain.taps}
    foreign = [port for port in note.ports if port not in own and port[:PREFIX] not in cards]
    if foreign:
        yield problem(
            f"{guest.title}'s metadata in libvirt has port "
            f"{several(brief(port) for port in foreign)}, which neither libvirt nor neutron has "
            "for this server",
            derives(domain, "nova_note", ports=", ".join(note.ports)),
        )
    elif {*note.ports} == own:
        fixed = {address for port in ports for address in port.addresses}
        old = [address for address in note.addresses if address not in fixed]
        if old:
            yield problem(
                f"{guest.title}'s metadata in libvirt has address {several(old)}, which no port of "
                "the server has in neutron",
                derives(domain, "nova_note", addresses=", ".join(note.addresses)),
            )
