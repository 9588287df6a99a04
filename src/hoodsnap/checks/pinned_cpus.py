"""Pinned CPUs: nova's count of them on the host, against the servers that they are reserved for."""

from __future__ import annotations

from collections.abc import Iterable

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, derives
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.stored_flavor import read_pinned_cpus
from hoodsnap.facts.fact import UnheardError, text
from hoodsnap.phrase import several

MORE_THAN_ITS_PINS = ("hw:cpu_thread_policy", "hw:emulator_threads_policy")
"""Extra specs by which nova also reserves CPUs that no vCPU of the server is pinned to."""


@check(Severity.WARNING)
def pinned_cpus_differ(host: Host, cloud: Cloud) -> Problems:
    """nova's record of the host has other CPUs as pinned than the host's servers.

    The scheduler reads from the record which CPUs are left for servers with pinned CPUs. If the
    record has too many, servers get "No valid host" although CPUs are free. If it lacks some,
    servers are sent to a host that has no room for them, and their builds fail.

    Authority: nova's records of the servers, which say which host CPUs are reserved for each.

    Traps: A server that is being built, moved or resized is counted on two hosts, or on none yet. A
    server that isolates its threads, or QEMU's own threads, reserves more CPUs than it is pinned
    to. The host's record is written once a minute.

    Next: Check which CPUs each record has, in the cell's database:

        SELECT updated_at, numa_topology FROM DATABASE.compute_nodes WHERE id = NODE
        SELECT instance_uuid, numa_topology FROM DATABASE.instance_extra WHERE numa_topology IS NOT NULL AND deleted = 0

    Check that the guests run on the CPUs that nova reserved for them:

        virsh list --all --uuid
        grep Cpus_allowed_list /proc/*/task/*/status

    Then restart nova-compute, which counts the CPUs again from its servers. Guests keep running:

        systemctl restart nova-compute

    It worked if the record has the servers' CPUs a minute later:

        SELECT updated_at, numa_topology FROM DATABASE.compute_nodes WHERE id = NODE

    Not yet: Do not build, resize or migrate servers with pinned CPUs to this host.

    Source: nova compute/resource_tracker.py `_update_usage`, virt/hardware.py
    `numa_usage_from_instance_numa`.
    """  # noqa: E501 (an SQL statement is one line)
    node = host.node
    if node is None:
        return
    written = text(node.raw, "numa_topology")
    if not written:
        return
    has, wanted = read_pinned_cpus(written), set[int]()
    guests = [guest for guest in cloud.guests_of(host) if guest.is_here]
    for guest in guests:
        instance = _settled(guest)
        if instance is not None:
            wanted |= set(instance.pins.values())
    missing, surplus = wanted - has, has - wanted
    if surplus and any(_reserves_more(guest.instance) for guest in guests):
        surplus = frozenset()
    if not missing and not surplus:
        return
    if missing and surplus:
        words = f"{_shown(has)}, but its servers have {_shown(wanted)}"
    elif missing:
        words = f"{_shown(has)}, but its servers also have {_shown(missing)}"
    else:
        words = f"{_shown(has)}, but no server on it has {_shown(surplus)}"
    pinned = [it.instance for it in guests if it.instance is not None and it.instance.pins]
    yield problem(
        f"nova's record of host {host.nova_name} has as pinned: {words}",
        derives(node, "raw", numa_topology=f"pinned {_shown(has)}"),
        *(
            derives(instance, "pins", pinned=_shown(instance.pins.values()))
            for instance in pinned[:3]
        ),
        NODE=node.id,
        DATABASE=node.database,
    )


def _settled(guest: Guest) -> Instance | None:
    """Return a guest's instance if it counts; None if it is deleted.

    Raises `UnheardError` if it is unknown which CPUs it has on this host, or if that changes.
    """
    if guest.instance is None:
        raise UnheardError(guest.unheard.get("nova-db", "a server's row was not collected"))
    if guest.instance.deleted:
        return None
    record = guest.instance
    moves = record.vm_state in ("resized", "building") or guest.moving or record.task_state
    if moves and record.pins:
        raise UnheardError(f"{guest.title}, which has pinned CPUs, is being built or moved")
    return record


def _reserves_more(instance: Instance | None) -> bool:
    if instance is None or not instance.pins:
        return False
    flavor = instance.stored_flavor("cur") or {}
    specs = flavor.get("extra_specs")
    # A flavor whose extra specs are unknown may isolate its threads, too.
    return not isinstance(specs, dict) or any(
        str(specs.get(name)) == "isolate" for name in MORE_THAN_ITS_PINS
    )


def _shown(cpus: Iterable[int]) -> str:
    listed = sorted(set(cpus))
    return f"CPU {several(listed, 8)}" if listed else "no CPU"
