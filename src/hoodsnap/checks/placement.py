"""What placement has reserved, what nova believes, and what there really is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hoodsnap.check import Problems, check
from hoodsnap.checks.traps import (
    building,
    evacuated_from_elsewhere,
    migrating,
    moved_before_queens,
    never_launched,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.allocation import Allocation, worded
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import OVER, Migration
from hoodsnap.facts.fact import UnheardError, integer

SHOWN = 10
"""Allocations that one finding shows; the others are counted."""

SETTLED = 600.0
"""Seconds after which nova has freed what a deleted server or a finished move held."""

ROOMIER = 1.1
"""How much larger than the host an inventory must be to be a lie and no rounding."""

SWAPPED_KIB = 256 << 10
"""KiB of guests in swap beyond which the host is short of memory, and not just tidy."""


@check(
    Severity.ERROR,
    heard=["placement"],
    traps=[task_in_flight, building, migrating, never_launched],
)
def allocation_missing(guest: Guest, instance: Instance) -> Problems:
    """A server uses a host, and placement has nothing reserved for it.

    The scheduler believes that what it uses is free and gives it away again: the host is
    overbooked, until the kernel's OOM killer ends a guest. It happens when an operator deletes an
    allocation, when a deletion or a move fails half way, or by `placement audit --delete` while a
    cell did not answer.

    Authority: nova's record of where the server is; placement for what is reserved.

    Traps: a server that is being built or moved; one that is on no host (shelved, or its build
    failed) holds nothing.

    Next: `nova-manage placement heal_allocations --instance UUID --dry-run --verbose` shows what
    would be written; without `--dry-run` it writes it. By default it only creates what is missing.

    Not yet: `heal_allocations --force`, which counts everything anew and loses what it does not
    know (vGPUs, accelerators, bandwidth).

    Source: nova cmd/manage.py `heal_allocations`; nova bugs 1859496, 1798688.
    """
    if guest.allocation is not None or not guest.carries_record or instance.deleted:
        return
    if instance.host is None or instance.vm_state in ("building", "shelved_offloaded", "deleted"):
        return
    if guest.hidden is not None:
        raise UnheardError(guest.hidden)
    answer = guest.census["placement"]
    yield (
        says(instance, host=instance.host, vm_state=instance.vm_state),
        hears(answer, "placement", guest.uuid, allocation=None),
    )


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, migrating, evacuated_from_elsewhere, moved_before_queens],
)
def allocation_wrong_provider(guest: Guest, instance: Instance, allocation: Allocation) -> Problems:
    """Placement has reserved a server's resources on another host than it is on, or on two.

    The host that it is on looks emptier than it is, the other one fuller. It is what a move leaves
    that failed half way, an evacuation, or (before 2018) every rebuild.

    Authority: the hypervisor for where the guest runs; then nova's record; placement only follows.

    Traps: a server that is being moved holds both hosts; so does an evacuated one, wherever it
    went since, until nova-compute of the host it left has started again; shared storage is a
    provider of its own.

    Next: `openstack resource provider allocation show UUID`. When it is proven where the guest
    runs: `openstack resource provider allocation unset --provider WRONG UUID`.

    Not yet: `openstack resource provider allocation delete UUID`, which removes all of it.

    Source: nova bugs 1712045, 1713786, 1715182, 1821594, 1825537; OSSA-2017-006.
    """
    if not guest.carries_record or instance.deleted or instance.node is None:
        return
    own, foreign = _roots(guest, instance, allocation)
    if not own and not allocation.whole:
        raise UnheardError("whether it holds something of its own host was not asked")
    if foreign:
        yield (
            says(instance, host=instance.host, node=instance.node),
            says(allocation, words=allocation.words),
        )


def _roots(
    guest: Guest, instance: Instance, allocation: Allocation
) -> tuple[frozenset[str], frozenset[str]]:
    """The hosts that it holds something of: its own, and others."""
    roots = allocation.hosts
    own = frozenset(root for root in roots if _is_its_node(guest, instance, allocation, root))
    return own, roots - own


def _is_its_node(guest: Guest, instance: Instance, allocation: Allocation, root: str) -> bool:
    if guest.host is not None and guest.is_here:
        node = guest.host.node
        if node is not None and node.uuid == root:
            return True
    return allocation.provider(root).name == instance.node


@check(Severity.WARNING)
def allocation_orphan(cloud: Cloud) -> Problems:
    """Somebody holds resources who is neither a server nor a move that goes on.

    They are lost to everybody: the scheduler calls the host full although it is not. Since Pike
    nobody frees them. They are left by deletions and moves that fail half way, and by hosts that
    were down meanwhile.

    Authority: the nova databases, if all of them were searched; nobody else knows who is a server.

    Traps: a cell that was not read may have the server (nova's own audit gets this wrong); a server
    that is just being built, or was deleted minutes ago; a guest that is still there although its
    server is gone uses what it holds; what other services (Zun, Blazar, Cyborg) reserve.

    Next: `nova-manage placement audit --verbose --resource_provider PROVIDER` only reads. Compare
    by eye, then `openstack resource provider allocation delete CONSUMER`, one at a time.

    Not yet: `nova-manage placement audit --delete`, which deletes whatever it calls an orphan.

    Source: nova cmd/manage.py `_check_orphaned_allocations_for_provider`; nova bugs 1793569,
    1829479, 1817833.
    """
    found: dict[str, list[tuple[Evidence, ...]]] = {}
    undecided: UnheardError | None = None
    for consumer in sorted(cloud.placement.consumers):
        allocation = cloud.placement.of(consumer)
        try:
            proof = _nobody(cloud, allocation) if allocation is not None else ()
        except UnheardError as reason:
            undecided = undecided or reason
            continue
        if proof and allocation is not None:
            evidence = says(allocation, words=allocation.words).and_so(consumer=consumer)
            found.setdefault(", ".join(allocation.names), []).append((evidence, *proof))
    for orphans in found.values():
        shown = [piece for orphan in orphans[:SHOWN] for piece in orphan]
        if len(orphans) > SHOWN:
            shown[0] = shown[0].and_so(of_so_many=len(orphans))
        yield tuple(shown)
    if undecided is not None:
        raise undecided


def _nobody(cloud: Cloud, allocation: Allocation) -> tuple[Evidence, ...]:
    """What shows that a consumer is nobody any more; empty if it is somebody."""
    consumer = allocation.consumer
    if allocation.consumer_type not in (None, "INSTANCE", "MIGRATION"):
        return ()
    if any(
        guest.domain is not None or guest.process is not None for guest in cloud.twins(consumer)
    ):
        return ()  # a guest that nova has no record of uses what is reserved
    instance = cloud.instances.by_uuid.get(consumer)
    if instance is not None:
        old = instance.deleted and _settled(instance.deleted_at, allocation)
        return (says(instance, deleted_at=instance.deleted_at),) if old else ()
    if consumer in cloud.servers.by_uuid:
        return ()
    migration = cloud.instances.moves.get(consumer)
    if migration is not None:
        over = migration.status in OVER and _settled(migration.updated_at, allocation)
        return (_says_over(migration),) if over else ()
    return (hears(cloud.instances.without(consumer), "nova-db", consumer, instance=None),)


def _says_over(migration: Migration) -> Evidence:
    return says(
        migration,
        status=migration.status,
        instance_uuid=migration.instance_uuid,
        updated_at=migration.updated_at,
    )


def _settled(written: str | None, allocation: Allocation) -> bool:
    since = moment(written)
    if since is None:
        raise UnheardError("when it ended can't be read")
    return all((answer.at - since).total_seconds() > SETTLED for answer in allocation.said.values())


@check(Severity.WARNING, traps=[task_in_flight, building, migrating])
def allocation_amount_wrong(guest: Guest, instance: Instance, allocation: Allocation) -> Problems:
    """Placement has reserved more or less for a server than its flavor says.

    The host looks emptier or fuller than it is. It is what a resize leaves that broke off half
    way, or a hand-written allocation.

    Authority: the flavor that the server keeps a copy of, not the flavor of today.

    Traps: while a resize is not confirmed the server holds the new flavor's, its migration the old
    one's; pinned CPUs are counted as PCPU from Train on, as VCPU before; a flavor's `resources:`
    properties set amounts of their own; a server that boots from a volume needs no root disk, but
    before Rocky one was counted.

    Next: `openstack resource provider allocation show UUID`, `nova-manage placement
    heal_allocations --instance UUID --force --dry-run`, which shows what nova would write.

    Not yet: `heal_allocations --force` for a server that has vGPUs, accelerators, PCI devices or
    ports with bandwidth.

    Source: nova scheduler/utils.py `resources_from_flavor`; nova bug 1469179.
    """
    if not guest.carries_record or instance.deleted:
        return
    if instance.node is not None and _roots(guest, instance, allocation)[1]:
        return  # what it holds of another host is counted, too: that is told by itself
    wanted = _wanted(instance)
    held = dict(allocation.resources)
    held["CPU"] = held.pop("VCPU", 0) + held.pop("PCPU", 0)
    wrong = {name for name, legal in wanted.items() if held.get(name, 0) not in legal}
    if wrong and not allocation.whole:
        raise UnheardError("what else it holds (of shared storage) was not asked")
    if wrong:
        flavor = instance.flavor
        yield (
            says(instance, flavor=flavor.name).and_so(
                needs=worded({_name(name): max(legal) for name, legal in wanted.items()})
            ),
            says(allocation, words=allocation.words),
        )


def _name(name: str) -> str:
    return "VCPU" if name == "CPU" else name


def _wanted(instance: Instance) -> Mapping[str, frozenset[int]]:
    """For each class what a flavor comes to; several where releases count differently."""
    data = instance.stored_flavor("cur")
    if data is None:
        raise UnheardError("the instance's stored flavor can't be read")
    vcpus, memory = integer(data, "vcpus"), integer(data, "memory_mb")
    root, swap = integer(data, "root_gb") or 0, integer(data, "swap") or 0
    rest = (integer(data, "ephemeral_gb") or 0) + -(-swap // 1024)
    if vcpus is None or memory is None:
        raise UnheardError("the instance's stored flavor can't be read")
    specs = data.get("extra_specs")
    if not isinstance(specs, dict):
        raise UnheardError("the properties of the instance's stored flavor were not read")
    cpus = {vcpus}
    if specs.get("hw:emulator_threads_policy") == "isolate":
        cpus.add(vcpus + 1)
    disks = {rest, root + rest} if instance.boots_from_volume else {root + rest}
    wanted = {"CPU": frozenset(cpus), "MEMORY_MB": frozenset({memory}), "DISK_GB": frozenset(disks)}
    for key in specs:
        if own := re.fullmatch(r"resources\w*:(\w+)", str(key)):
            wanted.pop("CPU" if own[1] in ("VCPU", "PCPU") else own[1], None)
    return wanted
