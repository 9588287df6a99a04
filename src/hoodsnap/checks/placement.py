"""Placement: allocations compared with nova's records and with the guests on the hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
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
from hoodsnap.facts.fact import UnheardError, integer, known
from hoodsnap.phrase import brief, counted, several

SHOWN = 10
"""Number of allocations that one finding shows; the others are only counted."""

SETTLED = 600.0
"""Seconds after which nova has freed the resources of a deleted server or a finished move."""


@check(
    Severity.ERROR,
    heard=["placement"],
    traps=[task_in_flight, building, migrating, never_launched],
)
def allocation_missing(guest: Guest, instance: Instance) -> Problems:
    """The server uses resources of a host, but placement has no allocation for it.

    The scheduler treats these resources as free and offers them again. The host is overbooked until
    the kernel's OOM killer ends a guest. Causes: an operator deleted an allocation, a deletion or a
    move failed half way, or `placement audit --delete` ran while a cell did not answer.

    Authority: nova's record of the server's host; placement, for what is allocated.

    Traps: A server that is being built or moved. A server without a host (shelved, or its build
    failed) has no allocation.

    Next: Check what nova would write:

        nova-manage placement heal_allocations --instance UUID --dry-run --verbose

    Then write it, which creates only what is missing:

        nova-manage placement heal_allocations --instance UUID --verbose

    It worked if the server has an allocation on its host:

        openstack resource provider allocation show UUID

    Not yet: Do not add `--force`, which recalculates everything and loses what nova-manage does not
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
    yield problem(
        f"{guest.title} is {phrase.state(instance.vm_state)} on host {instance.host}, but "
        "placement has no allocation for it",
        says(instance, host=instance.host, vm_state=instance.vm_state),
        hears(answer, "placement", guest.uuid, allocation=None),
    )


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, migrating, evacuated_from_elsewhere, moved_before_queens],
)
def allocation_wrong_provider(guest: Guest, instance: Instance, allocation: Allocation) -> Problems:
    """Placement has the server's resources allocated on the wrong host, or on two hosts.

    The server's host looks emptier than it is, and the other host looks fuller. Causes: a move that
    failed half way, an evacuation, or (before 2018) any rebuild.

    Authority: The hypervisor, for where the guest runs; after it, nova's record. Placement only
    follows.

    Traps: A server that is being moved holds both hosts. An evacuated server also holds both,
    wherever it has gone since, until nova-compute on the host it left has started again. Shared
    storage is a provider of its own.

    Next: Check the allocation, and look for the guest on each host that it names:

        openstack resource provider allocation show UUID
        openstack resource provider list
        virsh list --all --uuid

    Then, when it is proven where the guest runs, remove the allocation on the other host, and
    create what is then missing on the host in nova's record:

        openstack resource provider allocation unset --provider PROVIDER UUID
        nova-manage placement heal_allocations --instance UUID --verbose

    It worked if the allocation is on the guest's host and no other:

        openstack resource provider allocation show UUID

    Not yet: Do not run `openstack resource provider allocation delete UUID`, which removes the
    whole allocation.

    Source: nova bugs 1712045, 1713786, 1715182, 1821594, 1825537; OSSA-2017-006.
    """
    if not guest.carries_record or instance.deleted or instance.node is None:
        return
    own, foreign = _roots(guest, instance, allocation)
    if not own and not allocation.whole:
        raise UnheardError("the allocation on the server's own host was not collected")
    if foreign:
        # Only if the guest is known to run where nova has it, the other host is the wrong one.
        sure = guest.runs and guest.is_here and len(foreign) == 1
        names = several(sorted(allocation.provider(root).name or root for root in allocation.hosts))
        yield problem(
            f"{guest.title} is on {instance.node} in nova, but placement has its allocation on "
            f"{names}",
            says(instance, host=instance.host, node=instance.node),
            says(allocation, resources=allocation.words),
            PROVIDER=next(iter(foreign)) if sure else None,
        )


def _roots(
    guest: Guest, instance: Instance, allocation: Allocation
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the hosts that the allocation is on: the server's own host, and others."""
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
    """An allocation belongs to neither an existing server nor a move in progress.

    The resources are lost: the scheduler treats the host as full although it is not. Since Pike
    nothing frees them automatically. Causes: deletions and moves that failed half way, and hosts
    that were down at the time.

    Authority: The nova databases, if all of them were searched; no other layer lists all servers.

    Traps: The server may be in a cell that was not read (nova's own audit gets this wrong). A
    server that is being built, or was deleted minutes ago. A guest that still exists although its
    server is gone uses its allocation. A resize that waits for its confirmation needs its
    allocation, whatever status its record has (`migration-record-stale`). Other services (Zun,
    Blazar, Cyborg) have allocations of their own.

    Next: List the orphans, and compare the list with the evidence:

        nova-manage placement audit --verbose --resource_provider PROVIDER
        openstack resource provider allocation show CONSUMER

    Look for the consumer once more, also among the domains of the host:

        openstack server show UNMOVED
        virsh list --all --uuid

    If the consumer is a move, check that the move has ended and that its server needs no revert:

        openstack server migration list --server MOVED
        openstack server show MOVED

    Then delete its allocation, one consumer at a time, which frees the resources:

        openstack resource provider allocation delete CONSUMER

    It worked if the consumer has no allocation:

        openstack resource provider allocation show CONSUMER

    Not yet: Do not run `nova-manage placement audit --delete`, which deletes everything that it
    calls an orphan.

    Source: nova cmd/manage.py `_check_orphaned_allocations_for_provider`; nova bugs 1793569,
    1829479, 1817833.
    """
    found: dict[str, list[tuple[Allocation, tuple[Evidence, ...]]]] = {}
    undecided: UnheardError | None = None
    for consumer in sorted(cloud.placement.consumers):
        allocation = cloud.placement.of(consumer)
        try:
            proof = _proof_of_orphan(cloud, allocation) if allocation is not None else ()
        except UnheardError as reason:
            undecided = undecided or reason
            continue
        if proof and allocation is not None:
            found.setdefault(", ".join(allocation.names), []).append((allocation, proof))
    for names, orphans in found.items():
        shown = [
            piece
            for allocation, proof in orphans[:SHOWN]
            for piece in (_orphan(allocation), *proof)
        ]
        if len(orphans) > SHOWN:
            shown[0] = shown[0].and_so(of_so_many=len(orphans))
        first = orphans[0][0]
        move = cloud.instances.moves.get(first.consumer)
        held = first.words if len(orphans) == 1 else f"resources of {names}"
        consumers = several(_who(cloud, allocation.consumer) for allocation, _ in orphans)
        yield problem(
            f"Placement still has {held} allocated to {counted(len(orphans), 'consumer')} without "
            f"a server or a move in progress: {consumers}",
            *shown,
            CONSUMER=first.consumer,
            UNMOVED="" if move is not None else first.consumer,
            MOVED=move.instance_uuid if move is not None else "",
            PROVIDER=next(iter(first.entries)),
        )
    if undecided is not None:
        raise undecided


def _orphan(allocation: Allocation) -> Evidence:
    return says(allocation, resources=allocation.words).and_so(consumer=allocation.consumer)


def _who(cloud: Cloud, consumer: str) -> str:
    """Return a consumer for a headline: a move, a deleted server, or the beginning of its UUID."""
    move = cloud.instances.moves.get(consumer)
    if move is not None:
        how = "failed" if move.status in ("error", "failed") else "finished"
        return f"the {how} move of {cloud.title_of(move.instance_uuid)} ({brief(consumer)})"
    instance = cloud.instances.by_uuid.get(consumer)
    name = known(lambda: instance.name) if instance is not None else None
    return f"{name} ({brief(consumer)})" if name else brief(consumer)


def _proof_of_orphan(cloud: Cloud, allocation: Allocation) -> tuple[Evidence, ...]:
    """Evidence that the consumer no longer exists; empty if it does."""
    consumer = allocation.consumer
    if allocation.consumer_type not in (None, "INSTANCE", "MIGRATION"):
        return ()
    if any(
        guest.domain is not None or guest.process is not None for guest in cloud.twins(consumer)
    ):
        return ()  # a guest without a record in nova still uses its allocation
    instance = cloud.instances.by_uuid.get(consumer)
    if instance is not None:
        old = instance.deleted and _settled(instance.deleted_at, allocation)
        return (says(instance, deleted_at=instance.deleted_at),) if old else ()
    if consumer in cloud.servers.by_uuid:
        return ()
    migration = cloud.instances.moves.get(consumer)
    if migration is not None:
        over = migration.status in OVER and _settled(migration.updated_at, allocation)
        return (_says_over(migration),) if over and not _is_awaited(cloud, migration) else ()
    return (hears(cloud.instances.without(consumer), "nova-db", consumer, instance=None),)


def _is_awaited(cloud: Cloud, migration: Migration) -> bool:
    """True if a server waits for the confirmation of this move: a revert needs the allocation."""
    moved = cloud.instances.by_uuid.get(migration.instance_uuid)
    if moved is None or moved.deleted or moved.vm_state != "resized":
        return False
    return all((other.id or 0) <= (migration.id or 0) for other in moved.migrations or ())


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
        raise UnheardError("the time of its end can't be read")
    return all((answer.at - since).total_seconds() > SETTLED for answer in allocation.said.values())


@check(Severity.WARNING, traps=[task_in_flight, building, migrating])
def allocation_amount_wrong(guest: Guest, instance: Instance, allocation: Allocation) -> Problems:
    """Placement has allocated more or less for the server than its flavor needs.

    The host looks emptier or fuller than it is. Causes: a resize that stopped half way, an
    allocation written by hand.

    Authority: The copy of the flavor in the server's record, not today's flavor.

    Traps: Until a resize is confirmed, the server holds the new flavor's resources and its
    migration the old flavor's. Pinned CPUs are counted as PCPU since Train and as VCPU before. A
    flavor's `resources:` properties set amounts of their own. A server that boots from a volume
    needs no root disk, but before Rocky one was counted.

    Next: Check the allocation, and what nova would write:

        openstack resource provider allocation show UUID
        nova-manage placement heal_allocations --instance UUID --force --dry-run --verbose

    Check that the flavor asks for no vGPUs, accelerators or PCI devices, and that no port has a
    minimum bandwidth: what nova-manage does not know of would be lost:

        openstack server show UUID -c flavor
        openstack port list --server UUID --long

    Then write it, which replaces the whole allocation of this server:

        nova-manage placement heal_allocations --instance UUID --force --verbose

    It worked if the allocation is what the flavor needs:

        openstack resource provider allocation show UUID

    Not yet: Do not delete the allocation. Do not resize the server before the allocation is right.

    Source: nova scheduler/utils.py `resources_from_flavor`; nova bug 1469179.
    """
    if not guest.carries_record or instance.deleted:
        return
    if instance.node is not None and _roots(guest, instance, allocation)[1]:
        return  # allocation-wrong-provider reports it; its amounts include the other host's
    wanted = _wanted(instance)
    held = dict(allocation.resources)
    held["CPU"] = held.pop("VCPU", 0) + held.pop("PCPU", 0)
    wrong = {name for name, legal in wanted.items() if held.get(name, 0) not in legal}
    if wrong and not allocation.whole:
        raise UnheardError("the rest of the allocation (on shared storage) was not collected")
    if wrong:
        flavor = instance.flavor
        needs = {_name(name): max(legal) for name, legal in wanted.items()}
        holds = {_name(name): held.get(name, 0) for name in wrong}
        yield problem(
            f"{guest.title} has {worded(holds)} allocated in placement, but its flavor "
            f"{flavor.name} needs {worded({name: needs[name] for name in holds})}",
            says(instance, flavor=flavor.name).and_so(needs=worded(needs)),
            says(allocation, resources=allocation.words),
        )


def _name(name: str) -> str:
    return "VCPU" if name == "CPU" else name


def _wanted(instance: Instance) -> Mapping[str, frozenset[int]]:
    """Return the flavor's amount per resource class; several where releases count differently."""
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
        raise UnheardError("the properties of the instance's stored flavor were not collected")
    cpus = {vcpus}
    if specs.get("hw:emulator_threads_policy") == "isolate":
        cpus.add(vcpus + 1)
    disks = {rest, root + rest} if instance.boots_from_volume else {root + rest}
    wanted = {"CPU": frozenset(cpus), "MEMORY_MB": frozenset({memory}), "DISK_GB": frozenset(disks)}
    for key in specs:
        if own := re.fullmatch(r"resources\w*:(\w+)", str(key)):
            wanted.pop("CPU" if own[1] in ("VCPU", "PCPU") else own[1], None)
    return wanted
