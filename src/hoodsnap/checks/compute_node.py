"""The compute node: nova's and placement's records of the hypervisor, compared with the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.capacity import RATIOS, over_capacity
from hoodsnap.checks.configuration import is_foreign
from hoodsnap.checks.host import DOWN_TIME, LATE, seconds_silent
from hoodsnap.evidence import Evidence, Severity, derives, hears, says
from hoodsnap.facts.api.allocation import Inventory, worded
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.release import Release
from hoodsnap.facts.database.service import ComputeNode
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.fact import UnheardError, integer, known, text, value_of
from hoodsnap.facts.quantity import number, whole
from hoodsnap.phrase import brief, counted, several

SHOWN = 10
"""Number of guests that one finding shows; the others are only counted."""

ROOMIER = 1.1
"""An inventory larger than the host by this factor is wrong, not just rounded."""

PLUGGED = 1.25
"""Memory that differs by less than this factor may have been plugged in since the last update."""

SWAPPED_KIB = 256 << 10
"""KiB of guest memory in swap above which the host is short of memory."""


@check(Severity.ERROR)
def provider_vs_compute_node(host: Host, cloud: Cloud) -> Problems:
    """The records of this host's compute node do not match each other.

    A hypervisor has a row in nova's database, a resource provider of the same UUID and name in
    placement, a file with that UUID (from 2023.1 on), and a mapping to a cell. If one of them
    belongs to another node, nova-compute can't report its resources, servers are scheduled by
    outdated numbers, or nova-compute refuses to start.

    Authority: The UUID of the provider that the servers' allocations are held against.

    Traps: Ironic has many nodes on one host. Rows may be marked as deleted. The parts of a host
    (NUMA cells, PCI devices) are providers with other names. An old placement has no traits.

    Next: Compare the records of nova, placement and the host:

        SELECT id, uuid, host, hypervisor_hostname, deleted FROM DATABASE.compute_nodes WHERE host = 'HOST'
        openstack resource provider list --name HYPERVISOR
        openstack resource provider show --allocations NAMESAKE
        openstack resource provider show --allocations RENAMED
        cat /var/lib/nova/compute_id

    If placement has the node's UUID under another name, give the provider the node's name:

        openstack resource provider set --name HYPERVISOR RENAMED

    If placement has the node's name under another UUID, the servers' allocations are held against
    that UUID. Give it back to the node, after a backup of the cell's database. Guests keep running:

        systemctl stop nova-compute
        UPDATE DATABASE.compute_nodes SET uuid = 'NAMESAKE' WHERE id = NODE

    If the host's file has another UUID than the node, write the node's UUID into it:

        printf %s IDENTITY > /var/lib/nova/compute_id

    Then restart nova-compute, which reads these records only when it starts, and makes a provider
    that is missing:

        systemctl restart nova-compute
        openstack compute service list --host REPORTING --service nova-compute

    If the host is mapped to another cell than its compute node's, correct the mapping in nova's API
    database, after a backup of it:

        UPDATE host_mappings SET cell_id = CELL_ID WHERE host = 'MISMAPPED'

    If nova has more than one node of the host, nova-compute deletes the record of a node that its
    libvirt does not have. It does so within a minute, unless the node's provider has allocations.

    It worked if placement has the node's UUID under the node's name:

        openstack --os-compute-api-version 2.53 hypervisor list
        openstack resource provider list --name HYPERVISOR

    Not yet: Do not run `openstack compute service delete` while there are servers on the host. Do
    not delete `compute_id`. Do not run `openstack resource provider delete`.

    Source: nova bugs 1763183, 1852610, 1817833; nova admin guide, compute node identification.
    """  # noqa: E501 (an SQL statement is one line)
    node = host.node
    if node is None or node.hypervisor_type == "ironic":
        return
    nodes = host.records.nodes_of(host.nova_name)
    if len(nodes) > 1:
        names = several(one.hypervisor_hostname for one in nodes)
        yield problem(
            f"nova has {len(nodes)} compute nodes of host {host.nova_name}: {names}",
            *(says(one, hypervisor_hostname=one.hypervisor_hostname) for one in nodes),
            **_advised(host, REPORTING=host.nova_name),
        )
    servers = partial(_servers_of_another_node, cloud.guests_of(host))
    parts = (_mapped_elsewhere, servers, _provider, _tree, _other_identity)
    undecided: UnheardError | None = None
    for part in parts:  # a layer that was not collected must not prevent the other comparisons
        try:
            yield from part(host)
        except UnheardError as reason:
            undecided = undecided or reason
    if undecided is not None:
        raise undecided


def _mapped_elsewhere(host: Host) -> Iterator[Problem]:
    node = host.node
    if node is None:
        return
    for mapping in host.records.mappings:
        cell = host.records.cells.get(mapping.cell_id)
        if mapping.host == host.nova_name and cell not in (node.database, None):
            yield problem(
                f"Host {host.nova_name} is mapped to cell {cell}, but its compute node is in "
                f"{node.database}",
                says(mapping, host=mapping.host, cell_id=mapping.cell_id).and_so(cell=cell),
                says(node, uuid=node.uuid),
                **_advised(host, MISMAPPED=host.nova_name, CELL_ID=_cell_of(host)),
            )


def _cell_of(host: Host) -> object:
    """Return the id of the cell that the compute node's row is in; None if it is not mapped."""
    cells = host.records.cells.items()
    return next(
        (number for number, base in cells if host.node is not None and base == host.node.database),
        None,
    )


def _advised(host: Host, **names: object) -> dict[str, Any]:
    """Return the placeholders of a finding's advice: those of other findings do not apply."""
    node = host.node
    own = {
        "HYPERVISOR": known(lambda: node.hypervisor_hostname) if node is not None else None,
        "DATABASE": plain_name(node.database) if node is not None else None,
        "NODE": node.id if node is not None else None,
    }
    others = ("RENAMED", "NAMESAKE", "IDENTITY", "REPORTING", "MISMAPPED")
    return {**dict.fromkeys(others, ""), **own, **names}


def _other_identity(host: Host) -> Iterator[Problem]:
    node, kept = host.node, host.compute_id
    if node is not None and kept is not None and node.uuid not in (None, kept[0]):
        yield problem(
            f"compute_id of host {host.nova_name} is {brief(kept[0])}, but its compute node in "
            f"nova is {brief(node.uuid or '')}",
            hears(kept[1], "compute_id", uuid=kept[0]),
            says(node, uuid=node.uuid),
            **_advised(host, IDENTITY=node.uuid, REPORTING=host.nova_name),
        )


def _servers_of_another_node(guests: Iterable[Guest], host: Host) -> Iterator[Problem]:
    node = host.node
    found = []
    for guest in guests:
        instance = guest.instance
        if instance is None or node is None or not guest.is_here or guest.moving:
            continue
        its = instance.raw.get("compute_id")  # 2023.2 and later; null until the row was migrated
        if isinstance(its, int) and its != node.id and not instance.deleted:
            found.append(says(instance, compute_id=its, host=instance.host))
    if found and node is not None:
        own = says(node, id=node.id).and_so(servers_of_another=len(found))
        yield problem(
            f"{counted(len(found), 'server')} on {host.nova_name} have another compute_id than "
            f"its compute node ({node.id})",
            own,
            *found[:SHOWN],
            **_advised(host),
        )


def _provider(host: Host) -> Iterator[Problem]:
    node, provider = host.node, host.provider
    if node is None or node.uuid is None:
        raise UnheardError("the compute node's UUID was not collected")
    if provider is None:
        absent = host.placement.without(node.uuid)
        namesakes = [
            other
            for other in host.placement.providers.values()
            if other.name == node.hypervisor_hostname
        ]
        has_file = known(lambda: host.compute_id) is not None
        has = "has no resource provider in placement"
        if namesakes:
            has = f"is {brief(namesakes[0].uuid)} in placement"
        yield problem(
            f"Compute node {brief(node.uuid)} of host {host.nova_name} {has}",
            says(node, uuid=node.uuid, hypervisor_hostname=node.hypervisor_hostname),
            hears(absent, "placement", node.uuid, provider=None),
            *(says(other, name=other.name).and_so(uuid=other.uuid) for other in namesakes),
            **_advised(
                host,
                NAMESAKE=namesakes[0].uuid if namesakes else "",
                IDENTITY=namesakes[0].uuid if namesakes and has_file else "",
                REPORTING=host.nova_name,
            ),
        )
        return
    if provider.name != node.hypervisor_hostname:
        yield problem(
            f"The compute node of host {host.nova_name} is {node.hypervisor_hostname} in nova, but "
            f"{provider.name} in placement",
            says(node, uuid=node.uuid, hypervisor_hostname=node.hypervisor_hostname),
            says(provider, name=provider.name),
            **_advised(host, RENAMED=provider.uuid),
        )


@check(Severity.WARNING)
def disabled_trait_left(host: Host) -> Problems:
    """The host is enabled in nova, but placement has it as disabled, so it gets no servers.

    nova-compute marks the resource provider of a disabled host with the trait
    COMPUTE_STATUS_DISABLED, and the scheduler asks placement only for hosts without it. A trait
    that was left, or set by hand, makes every request end in "No valid host" without a reason.

    Authority: nova's service, for whether an operator disabled the host.

    Traps: A host that was enabled a moment ago. Releases before Train have no such trait.

    Next: Compare the service with the traits:

        openstack compute service list --host HOST --service nova-compute
        openstack resource provider trait list PROVIDER

    nova-compute removes the trait itself once it reads the provider again: it keeps a copy of the
    traits for five minutes (`resource_provider_association_refresh`). To disable the service and
    enable it again does not help, because that uses the copy. If the trait is still there after
    six minutes, restart nova-compute once no server of the host has a task; guests keep running:

        systemctl restart nova-compute

    It worked if the trait is gone a minute later:

        openstack resource provider trait list PROVIDER

    Not yet: Do not delete the resource provider. Do not set the provider's traits by hand: the
    command replaces all of them.

    Source: nova compute/resource_tracker.py `_sync_compute_service_disabled_trait`; nova
    scheduler/request_filter.py `compute_status_filter`; nova conf/compute.py
    `resource_provider_association_refresh`.
    """
    service, provider = host.service, host.provider
    if service is None or provider is None or not host.release.since(Release.TRAIN):
        return
    if not service.disabled and "COMPUTE_STATUS_DISABLED" in provider.traits:
        yield problem(
            f"Host {host.nova_name} is enabled in nova, but has COMPUTE_STATUS_DISABLED in "
            "placement: it gets no new servers",
            says(service, disabled=service.disabled),
            says(provider, traits="COMPUTE_STATUS_DISABLED"),
            HOST=host.nova_name,
            PROVIDER=provider.uuid,
        )


def _tree(host: Host) -> Iterator[Problem]:
    """Yield a problem if the compute node's provider is a part of another provider."""
    provider, node = host.provider, host.node
    if provider is None or node is None:
        return
    parent = provider.raw.get("parent_provider_uuid")
    over = parent if isinstance(parent, str) else provider.root
    if over != provider.uuid:
        other = host.placement.providers.get(over)
        name = known(lambda: other.name) if other is not None else None
        yield problem(
            f"The resource provider of host {host.nova_name} is a part of {name or brief(over)} in "
            "placement; a compute node is the root of its tree",
            derives(
                provider, "root", root_provider_uuid=provider.root, parent_provider_uuid=parent
            ),
            says(node, uuid=node.uuid),
            **_advised(host),
        )


@check(Severity.WARNING)
def placement_aggregates_differ(host: Host) -> Problems:
    """Placement and nova have the host in different aggregates.

    nova copies the membership of a host aggregate to placement when a host is added or removed.
    With `limit_tenants_to_placement_aggregate`, availability zones in placement or isolated
    aggregates, the scheduler reads placement's copy: if the host is missing in it, nothing is
    placed on the host for that aggregate ("No valid host"). Causes: placement did not answer when
    the host was added, or its provider was made again.

    Authority: nova's aggregates.

    Traps: Placement also has aggregates of its own, which share storage: only those that nova has
    are compared. nova before Rocky does not copy them.

    Next: Compare both sides:

        openstack aggregate list --long
        openstack --os-placement-api-version 1.19 resource provider aggregate list PROVIDER

    If nova's aggregates are right, copy them to placement, for all hosts. It adds what is missing,
    and guests are not affected:

        nova-manage placement sync_aggregates --verbose

    If placement has the host in an aggregate that the host has left, remove it there: set the
    aggregates that remain.

    It worked if placement lists the UUIDs of the host's aggregates:

        openstack --os-placement-api-version 1.19 resource provider aggregate list PROVIDER

    Not yet: Do not delete the resource provider. Do not remove the host from its aggregate while it
    has servers of that zone.

    Source: nova compute/api.py `AggregateAPI.add_host_to_aggregate`; nova cmd/manage.py
    `sync_aggregates`; nova scheduler/request_filter.py.
    """
    provider = host.provider
    if provider is None or not host.release.since(Release.ROCKY):
        return
    for uuid, (name, hosts, listing) in host.records.aggregates.items():
        inside, copied = host.nova_name in hosts, uuid in provider.aggregates
        if inside == copied:
            continue
        has = "but not in placement" if inside else "in placement, but not in nova"
        where = "in nova, " if inside else ""
        yield problem(
            f"Host {host.nova_name} is in aggregate {name} {where}{has}",
            hears(
                listing,
                "aggregate",
                f"aggregate_hosts[host={host.nova_name}]",
                name=name,
                host=host.nova_name if inside else None,
            ),
            says(provider, aggregates=uuid if copied else None),
            PROVIDER=provider.uuid,
        )


@check(Severity.WARNING)
def capacity_lie(host: Host) -> Problems:
    """The scheduler overestimates the free resources of this host.

    Either an inventory is larger than the machine, or guests run that nova does not count (nova
    counts rows in its database, not what runs). The next server is then placed where there is no
    room, and guests are swapped out or ended by the kernel.

    Authority: The hypervisor and the kernel.

    Traps: An allocation ratio overcommits on purpose, and is allowed for. QEMU needs some memory on
    top of the guest's, which is not counted. Memory may be backed by files. Part of the CPUs may be
    reserved for the host.

    Next: First look for guests that nova does not know:

        virsh list --all
        openstack server list --all-projects --host HOST

    Compare the memory, the free space and the inventory:

        free -m
        df -h INSTANCES_PATH
        openstack resource provider inventory list PROVIDER

    Not yet: Do not change ratios or reserved amounts before you know what runs on the host.

    Source: nova compute/resource_tracker.py `_update_usage_from_instances`; virt/libvirt/driver.py
    `update_provider_tree`.
    """
    provider = host.provider
    if provider is None:
        return
    yield from _more_than_there_is(host)
    running = [p for p in host.processes.own.values() if p.is_emulator and not p.is_probe]
    promised = sum(-(-process.memory_kib // 1024) for process in running)
    memory = provider.inventories.get("MEMORY_MB")
    if memory is None or promised <= memory.capacity:
        return
    if "kernel" not in host.census:
        raise UnheardError(host.unheard.get("kernel", "the processes were not listed"))
    swapped = sum(process.swap_kib for process in running)
    severity = Severity.ERROR if swapped > SWAPPED_KIB else Severity.WARNING
    yield problem(
        f"{counted(len(running), 'guest')} on {host.nova_name} have {promised} MiB of memory, but "
        f"placement may only allocate {memory.capacity:.0f} MiB",
        says(provider, inventories=worded({"MEMORY_MB": memory.total})).and_so(
            reserved=memory.reserved, allocation_ratio=memory.ratio
        ),
        hears(host.census["kernel"], "kernel", processes=len(running), memory_mib=promised).and_so(
            swapped_mib=swapped // 1024
        ),
        severity=severity,
        PROVIDER=provider.uuid,
    )


def _more_than_there_is(host: Host) -> Iterator[Problem]:
    provider = host.provider
    if provider is None:
        return
    inventories = provider.inventories
    for name, (amount, evidence) in _there(host).items():
        names = ("VCPU", "PCPU") if name == "VCPU" else (name,)
        total = sum(inventories[its].total for its in names if its in inventories)
        if total > amount * ROOMIER + 1:
            yield problem(
                f"placement offers {total} {name} of host {host.nova_name}, which has only "
                f"{round(amount, 1):g}",
                says(provider, inventories=worded({name: total})),
                evidence,
                PROVIDER=provider.uuid,
                INSTANCES_PATH=next(iter(host.images.tops), None),
            )


def _there(host: Host) -> Mapping[str, tuple[float, Evidence]]:
    """Return what the machine has by resource class, with the evidence for it."""
    found: dict[str, tuple[float, Evidence]] = {}
    node = host.bundle.last("libvirt", "virsh nodeinfo", host.name)
    said = value_of(node, "virsh nodeinfo", dict[str, object])
    cpus, memory = integer(said, "cpus"), integer(said, "memory_mib")
    if node is not None and cpus:
        found["VCPU"] = (cpus, hears(node, "libvirt", "cpus", cpus=cpus))
    kernel = host.bundle.last("kernel", "/proc/meminfo", host.name)
    total = re.match(r"MemTotal:\s+(\d{1,12}) kB", value_of(kernel, "/proc/meminfo", str), re.ASCII)
    if kernel is not None and memory and total and not host.option("libvirt", "file_backed_memory"):
        most = max(memory, int(total[1]) // 1024)  # memory may have been hot-plugged
        found["MEMORY_MB"] = (most, hears(kernel, "kernel", "MemTotal", memory_mib=most))
    rooms = host.hypervisor.rooms.values()
    if rooms and not host.keeps_disks_elsewhere:
        room = max(rooms, key=lambda one: one.total)
        gib = room.total / (1 << 30)
        found["DISK_GB"] = (gib, hears(room.answer, "images", "blocks", size_gib=round(gib, 1)))
    return found


CPU_OPTIONS = (
    ("DEFAULT", "vcpu_pin_set"),
    ("compute", "cpu_dedicated_set"),
    ("compute", "cpu_shared_set"),
)
"""Options of nova.conf that give guests a part of the host's CPUs."""


RESERVED = {
    "MEMORY_MB": ("reserved_host_memory_mb", 512),
    "VCPU": ("reserved_host_cpus", 0),
    "DISK_GB": ("reserved_host_disk_mb", 0),
}
"""Resource class → option of nova.conf with the reserved amount, and its default."""


@check(Severity.WARNING)
def compute_node_outdated(host: Host) -> Problems:
    """nova's record of the compute node differs from the machine, its nova.conf or placement.

    nova-compute writes what libvirt and nova.conf tell it into the compute node's row every minute,
    and from there into placement. A difference that stays means that nova-compute does not update
    the row (it fails at every attempt, or runs with an older nova.conf than the one on disk), or
    that a row or an inventory was changed by hand. The scheduler then places servers by wrong
    numbers, live migrations go to a wrong address, or are refused because of a wrong version.

    Authority: libvirt, for the hardware; nova.conf, for addresses, ratios and reserved amounts.

    Traps: Some options reserve CPUs or take memory from files; the numbers are then not compared.
    The size of a shared storage moves, so disk sizes are compared only roughly. A ratio that an
    operator set in placement stays if nova.conf sets none; that nova's record has another one is a
    note; if more is allocated than the ratio allows, `provider-over-capacity` reports it. Memory
    that was plugged in a moment ago is not in the record yet. While nova-compute does
    not report, its record is old by right, and another finding says so.

    Next: Compare the record with libvirt and the inventories:

        openstack hypervisor show HYPERVISOR
        virsh nodeinfo
        virsh version
        openstack resource provider inventory list PROVIDER
        grep -E '^(my_ip|.*_allocation_ratio|reserved_host)' /etc/nova/nova*.conf

    Check that nova-compute updates the record, and that no error stops it:

        openstack compute service list --host HOST --service nova-compute
        grep -i 'Error updating resources' /var/log/nova/nova-compute.log

    If nova.conf was changed after nova-compute started, restart nova-compute, once no server of the
    host has a task; guests keep running:

        systemctl restart nova-compute

    It worked if the record has the host's numbers a minute later:

        openstack hypervisor show HYPERVISOR

    Not yet: Do not correct the row or the inventory by hand: nova-compute writes them again, except
    a ratio in placement that nova.conf does not set. Do not migrate servers to or from the host
    before its address and version are right.

    Source: nova compute/resource_tracker.py `_update`, virt/libvirt/driver.py
    `get_available_resource` and `update_provider_tree`.
    """
    node = host.node
    if node is None or node.hypervisor_type == "ironic" or _is_silent(host):
        return
    names: dict[str, Any] = {
        "HYPERVISOR": known(lambda: node.hypervisor_hostname),
        "PROVIDER": known(lambda: node.uuid),
        "HOST": host.nova_name,
    }
    undecided: UnheardError | None = None
    for part in (_hardware, _address, _inventory, _units, _ratios, _reserved):
        try:
            for headline, *evidence in part(host, node):
                yield problem(headline, *evidence, **names)
        except UnheardError as reason:
            undecided = undecided or reason
    try:
        for headline, *evidence in _record_ratios(host, node):
            yield problem(headline, *evidence, severity=Severity.NOTE, **names)
    except UnheardError as reason:
        undecided = undecided or reason
    if undecided is not None:
        raise undecided


def _is_silent(host: Host) -> bool:
    """True if nova-compute does not report, so its record is old by right."""
    service = host.service
    if service is None or ("forced_down" in service.raw and service.forced_down):
        return True
    return (known(lambda: seconds_silent(host, service)) or 0) > DOWN_TIME + LATE


Difference = tuple[str, Evidence, Evidence]
"""A headline, and the evidence of both sides."""


def _hardware(host: Host, node: ComputeNode) -> Iterator[Difference]:
    """Compare the row with libvirt's word about the machine."""
    info = host.hypervisor.answer("libvirt", "virsh nodeinfo")
    version = host.hypervisor.answer("libvirt", "virsh version")
    pairs: list[tuple[str, Answer, str]] = []
    if info is not None and info.error is None:
        if not host.option("libvirt", "file_backed_memory"):
            pairs.append(("memory_mb", info, "memory_mib"))
        if not _shares_cpus(host):
            pairs.append(("vcpus", info, "cpus"))
    if version is not None and version.error is None:
        pairs += [
            ("hypervisor_version", version, "hypervisor"),
            ("hypervisor_type", version, "type"),
        ]
    for column, answer, key in pairs:
        own = node.raw.get(column)
        its = value_of(answer, answer.query, dict[str, object]).get(key)
        if own is None or its is None or own == its or _is_close(column, own, its):
            continue
        # Up to Mitaka the type of a host with KVM is libvirt's, in another case.
        if isinstance(own, str) and isinstance(its, str) and own.lower() == its.lower():
            continue
        yield (
            f"Compute node {_node_name(node)} has {column} {own} in nova, but libvirt on host "
            f"{host.name} reports {its}",
            derives(node, column, **{column: own}),
            hears(answer, "libvirt", key, **{key: its}),
        )
    yield from _named_by_libvirt(host, node)


def _is_close(column: str, own: object, its: object) -> bool:
    """True for amounts of memory that hot-plugged memory explains, until the next update."""
    if column != "memory_mb" or not isinstance(own, int) or not isinstance(its, int):
        return False
    return min(own, its) * PLUGGED >= max(own, its)


def _named_by_libvirt(host: Host, node: ComputeNode) -> Iterator[Difference]:
    answer = host.hypervisor.answer("libvirt", "virsh hostname")
    if answer is None or answer.error is not None:
        return
    name, own = value_of(answer, answer.query, str), node.hypervisor_hostname
    if own and name and own != name and host.records.services_of(host.nova_name):
        yield (
            f"Compute node {own} of host {host.nova_name} is {name} in libvirt",
            derives(node, "hypervisor_hostname", hypervisor_hostname=own),
            hears(answer, "libvirt", hostname=name),
        )


def _node_name(node: ComputeNode) -> str:
    return known(lambda: node.hypervisor_hostname) or str(node.raw.get("id"))


def _shares_cpus(host: Host) -> bool:
    return any(host.option(section, name) for section, name in CPU_OPTIONS)


def _address(host: Host, node: ComputeNode) -> Iterator[Difference]:
    """Compare the row's address with nova.conf. Without my_ip, nova-compute finds one itself."""
    own, its = text(node.raw, "host_ip"), host.option("DEFAULT", "my_ip")
    if is_foreign(host, its):
        return  # nova-compute must not be restarted with it; nova-conf-wrong reports it
    if own and re.fullmatch(r"[0-9a-fA-F.:]+", its) and not _is_same_address(own, its):
        yield (
            f"Compute node {_node_name(node)} has address {own} in nova, but "
            f"{host.file_name_of('DEFAULT', 'my_ip')} of host {host.name} has my_ip {its}",
            derives(node, "host_ip", host_ip=own),
            _conf(host, "DEFAULT.my_ip", my_ip=its),
        )


def _is_same_address(one: str, other: str) -> bool:
    """True if two texts are one address: IPv6 addresses may be written in several ways."""
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return one == other


def _conf(host: Host, place: str, **values: object) -> Evidence:
    answer = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    if answer is None:
        raise UnheardError("nova.conf was not collected")
    return hears(answer, host.file_name_of(*place.split(".", 1)), place, **values)


def _inventory(host: Host, node: ComputeNode) -> Iterator[Difference]:
    """Compare the row's totals with placement's."""
    provider = host.provider
    if provider is None:
        return
    machine = known(partial(_machine, host)) or {}
    totals = {name: one.total for name, one in provider.inventories.items()}
    if "PCPU" in totals:
        totals["VCPU"] = totals.get("VCPU", 0) + totals["PCPU"]
    for name, column in COLUMNS.items():
        own = integer(node.raw, column) if column in node.raw else None
        # Disk may be offered by a provider of shared storage, and CPUs by NUMA cells.
        if own is None or name not in totals or own == totals[name]:
            continue
        if name == "VCPU" and _shares_cpus(host):
            continue
        # The machine has changed since nova-compute wrote the row, and nova-compute may have
        # written both before placement was asked. Another part compares the row and the machine.
        if machine.get(column, own) != own and _is_close(column, own, totals[name]):
            continue
        # The size of a Ceph cluster or of a pool moves, and each is asked at its own time.
        if name == "DISK_GB" and max(own, totals[name]) <= min(own, totals[name]) * ROOMIER:
            continue
        yield (
            f"Compute node {_node_name(node)} has {column} {own} in nova, but placement has "
            f"{totals[name]} {name} of it",
            derives(node, column, **{column: own}),
            says(provider, inventories=worded({name: totals[name]})),
        )


COLUMNS = {"VCPU": "vcpus", "MEMORY_MB": "memory_mb", "DISK_GB": "local_gb"}
"""Resource class → column of the compute node's row with the total."""


def _units(host: Host, node: ComputeNode) -> Iterator[Difference]:
    """Compare the amounts that one server may have with what nova-compute offers: 1 to all."""
    provider = host.provider
    if provider is None:
        return
    for name, column in COLUMNS.items():
        inventory, own = provider.inventories.get(name), node.raw.get(column)
        if inventory is None or inventory.total != own:
            continue  # another part reports the total
        told = {
            key: getattr(inventory, key)
            for key, is_wrong in (
                ("min_unit", (inventory.min_unit or 1) > 1),
                ("max_unit", inventory.max_unit is not None and inventory.max_unit < own),
                ("step_size", (inventory.step_size or 1) > 1),
            )
            if is_wrong
        }
        for key, value in told.items():
            yield (
                f"Placement has {name} of compute node {_node_name(node)} with {key} {value}, but "
                f"nova offers from 1 to all {own} to one server",
                says(provider, inventories=worded({name: inventory.total})).and_so(**{key: value}),
                derives(node, column, **{column: own}),
            )


def _record_ratios(host: Host, node: ComputeNode) -> Iterator[Difference]:
    """Compare the row's ratios with placement's, if nova.conf sets none.

    An operator may set one in placement. NUMATopologyFilter goes by the row all the same.
    """
    provider = host.provider
    if provider is None:
        return
    over = {one.name for one in known(lambda: over_capacity(provider)) or ()}
    for name, option in RATIOS.items():
        inventory, written = provider.inventories.get(name), node.raw.get(option)
        own = number(written)
        if inventory is None or not written or own == 0 or host.option("DEFAULT", option):
            continue  # before Stein an empty column stands for the default
        if name in over:
            continue
        if own is None or abs(own - inventory.ratio) > 0.001:
            yield (
                f"Placement has {name} of compute node {_node_name(node)} with ratio "
                f"{inventory.ratio:g}, but servers with a NUMA topology are placed by "
                f"{option} {written} of nova's record",
                _offered(host, name, inventory),
                derives(node, option, **{option: written}),
            )


def _machine(host: Host) -> Mapping[str, object]:
    """Return column of the row → libvirt's word about the machine."""
    info = host.hypervisor.answer("libvirt", "virsh nodeinfo")
    said = value_of(info, "virsh nodeinfo", dict[str, object])
    return {"memory_mb": said.get("memory_mib"), "vcpus": said.get("cpus")}


def _ratios(host: Host, node: ComputeNode) -> Iterator[Difference]:
    """Compare placement's and the row's allocation ratios with nova.conf, if it sets them."""
    provider = host.provider
    if provider is None:
        return
    for name, option in RATIOS.items():
        inventory = provider.inventories.get(name)
        if inventory is None:
            continue
        wanted, own = number(host.option("DEFAULT", option)), number(node.raw.get(option))
        file = host.file_name_of("DEFAULT", option)
        if wanted and abs(wanted - inventory.ratio) > 0.001:
            yield (
                f"Placement has {name} of compute node {_node_name(node)} with ratio "
                f"{inventory.ratio:g}, but {file} of host {host.name} has {option} {wanted:g}",
                _offered(host, name, inventory),
                _conf(host, f"DEFAULT.{option}", **{option: wanted}),
            )
        elif wanted and own and abs(wanted - own) > 0.001:
            yield (
                f"Compute node {_node_name(node)} has {option} {own:g} in nova, but {file} of "
                f"host {host.name} has {wanted:g}",
                derives(node, option, **{option: own}),
                _conf(host, f"DEFAULT.{option}", **{option: wanted}),
            )


def _offered(host: Host, name: str, inventory: Inventory) -> Evidence:
    provider = host.provider
    if provider is None:
        raise UnheardError("the host's resource provider was not collected")
    amount = says(provider, inventories=worded({name: inventory.total}))
    return amount.and_so(reserved=inventory.reserved, allocation_ratio=inventory.ratio)


def _reserved(host: Host, node: ComputeNode) -> Iterator[Difference]:
    """Compare placement's reserved amounts with nova.conf, or with the defaults."""
    provider = host.provider
    if provider is None:
        return
    special = (
        ("DEFAULT", "reserved_huge_pages"),
        ("workarounds", "reserve_disk_resource_for_image_cache"),
        ("workarounds", "report_ivshmem_memory_as_reserved"),
        *CPU_OPTIONS,
    )
    if any(host.option(section, name) for section, name in special):
        return  # they add to what is reserved
    for name, (option, default) in RESERVED.items():
        inventory, written = provider.inventories.get(name), host.option("DEFAULT", option)
        wanted = whole(written) if written else default
        if name == "DISK_GB" and wanted is not None:
            wanted = -(-wanted // 1024)
        if inventory is None or wanted is None or inventory.reserved == wanted:
            continue
        yield (
            f"Placement has {inventory.reserved} {name} of compute node {_node_name(node)} "
            f"reserved, but {option} of host {host.name} is {written or f'{default} by default'}",
            _offered(host, name, inventory),
            _conf(host, f"DEFAULT.{option}", **{option: written or default}),
        )
