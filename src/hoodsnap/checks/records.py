"""nova's database records: do they agree with each other and with the guest?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.legal_states import STAYS
from hoodsnap.checks.traps import (
    building,
    just_ordered,
    migrating,
    moving_to_another_cell,
    softly_deleted,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment, since_written
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instance_mapping import InstanceMapping
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, UnheardError, known
from hoodsnap.facts.host.instances_directory import disk_owner
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import brief, counted, place, several
from hoodsnap.printable import cut

MINUTES = 600.0
"""Seconds that a deletion may take, including its volumes and ports."""

BEFORE = timedelta(minutes=1)
"""Time before the record's last change in which a fault may have caused it."""

LONGEST = 60
"""Longest text of a fault in a headline, in characters."""

GIVES_UP = 5
"""Attempts of nova-compute to remove the files of a deleted server
(`maximum_instance_delete_attempts`)."""

Word = tuple[str, str, Fact, str, str]
"""A guest's identity in one layer, normalized; the layer in a headline's words; and the fact, the
field and its value, of which evidence is made."""


@check(Severity.ERROR, traps=[migrating, task_in_flight])
def uuid_name_chain_broken(
    guest: Guest, cloud: Cloud, domain: Domain, process: Process | None, monitor: Monitor | None
) -> Problems:
    """The layers disagree on the guest's identity: UUID, name or disk belongs to another guest.

    nova, libvirt and QEMU find a guest by different identifiers, so a command for one guest reaches
    another. Causes: definitions copied by hand, restored backups, repairs by hand.

    Authority: The UUID on QEMU's command line, and the files that QEMU has open.

    Traps: The name comes from a template in nova.conf, which may have changed since. Up to Rocky,
    the serial number is the host's own, so only the UUID counts. A disk that is declared shareable
    is shared on purpose.

    Next: Compare the identities, and read the beginning of the QEMU log to find out how it
    happened:

        virsh dumpxml UUID
        ps -ww -ef | grep UUID
        ls -l /proc/[0-9]*/fd | grep UUID
        head /var/log/libvirt/qemu/NAME.log

    Not yet: Do not run `virsh define` over the domain. Do not change anything with a virsh
    command that identifies the domain by its name.

    Source: nova virt/libvirt/guest.py, config.py, driver.py `_get_guest_config`; libvirt
    formatdomain, sysinfo.
    """
    yield from _apart(guest, "UUID", [*_uuids(domain, process, monitor)])
    yield from _apart(guest, "domain name", [*_names(domain, process, monitor)])
    seen: dict[str | None, None] = {}
    for disk in domain.current.disks:
        seen[disk.source] = None
        owner = disk_owner(disk.source or "")
        if owner not in (None, guest.uuid) and not disk.shareable:
            yield problem(
                _of_another(guest, cloud, f"disk {disk.target}", disk.source or ""),
                says(domain, uuid=domain.uuid, disks=f"{disk.target}: {disk.source}"),
                OTHER=owner,
                DISK=disk.source,
            )
    for drive in (known(lambda: process.disks) or ()) if process is not None else ():
        owner = disk_owner(drive.source or "")
        if process is not None and owner not in (None, guest.uuid) and drive.source not in seen:
            yield problem(
                f"{_of_another(guest, cloud, 'QEMU', drive.source or '')} is on its command line,"
                " but not in libvirt",
                says(process, pid=process.pid, disks=drive.source),
                says(domain, uuid=domain.uuid, disks=", ".join(filter(None, seen))),
                OTHER=owner,
                DISK=drive.source,
            )


def _of_another(guest: Guest, cloud: Cloud, what: str, source: str) -> str:
    owner = cloud.title_of(disk_owner(source) or "")
    if not source.startswith("/"):
        return f"{guest.title}'s {what} uses a disk of {owner}: {brief(source)}"
    return f"{guest.title}'s {what} is in the folder of {owner}: {place(source)}"


def _apart(guest: Guest, what: str, words: list[Word]) -> Iterator[Problem]:
    places: dict[str, list[str]] = {}
    for word, layer, *_ in words:
        places.setdefault(word, []).append(layer)
    if len(places) > 1:
        named = [f"{brief(word)} in {several(layers, 5)}" for word, layers in places.items()]
        yield problem(
            f"{guest.title} has more than one {what}: {several(named)}",
            *(says(fact, **{field: value}) for _, _, fact, field, value in words),
        )


def _uuids(domain: Domain, process: Process | None, monitor: Monitor | None) -> Iterator[Word]:
    yield domain.uuid, "libvirt", domain, "uuid", domain.uuid
    if inside := _told(lambda: domain.current.smbios.get("uuid")):
        yield inside.lower(), "libvirt's SMBIOS", domain, "smbios", inside
    if process is not None and (told := _told(lambda: process.uuid)):
        yield told, "QEMU", process, "uuid", told
    if process is not None and (inside := _told(lambda: process.smbios.get("uuid"))):
        yield inside.lower(), "QEMU's SMBIOS", process, "smbios", inside
    if monitor is not None and (told := _told(lambda: monitor.uuid)):
        yield told, "QEMU's monitor", monitor, "uuid", told


def _names(domain: Domain, process: Process | None, monitor: Monitor | None) -> Iterator[Word]:
    if name := _told(lambda: domain.name):
        yield name, "libvirt", domain, "name", name
    if process is not None and (name := _told(lambda: process.name)):
        yield name, "QEMU", process, "name", name
    if monitor is not None and (name := _told(lambda: monitor.name)):
        yield name, "QEMU's monitor", monitor, "name", name


def _told(said: Callable[[], object]) -> str | None:
    """Return the layer's value; None if it was not collected, so others can be compared."""
    try:
        word = said()
    except UnheardError:
        return None
    return word if isinstance(word, str) else None


@check(Severity.ERROR, heard=["libvirt"], traps=[migrating, task_in_flight])
def instance_name_collision(
    guest: Guest, host: Host, cloud: Cloud, record: Server | Instance
) -> Problems:
    """The domain with this server's domain name belongs to another guest.

    The name is built from the number of the database row, and numbers can repeat: in another cell,
    after a database was restored, after MySQL (before 8.0) lost its counter. libvirt allows a name
    only once. This server cannot be started, and stopping it by name stops the other guest.

    Authority: The UUID.

    Traps: Servers in different cells may have the same name as long as they share no host. If the
    template contains the UUID, names are unique.

    Next: Check which guest has the name, and look up both servers:

        virsh domuuid NAME
        openstack server show OTHER
        openstack server show UUID

    Check that the disk of this server is its own, and look for a host where no domain has the name:

        ls -l INSTANCES_PATH/UUID
        virsh list --all --name

    Then, while this server is off, move it to that host, which copies its disk:

        openstack server migrate --wait UUID
        openstack server resize confirm UUID

    It worked if nova has the server on the other host:

        openstack server show UUID -c OS-EXT-SRV-ATTR:host

    Not yet: Do not change anything with a virsh command that identifies the domain by its name:
    it reaches the other guest. Do not run `openstack server reboot --hard`, which would define this
    domain over the other.

    Source: libvirt, the uniqueness of names; nova `instance_name_template`; MySQL, InnoDB
    AUTO_INCREMENT counter initialization.
    """
    if not guest.is_here or record.deleted or guest.domain is not None:
        return
    name = _name_of(guest, host)
    other = host.named.get(name)
    if other is not None and other.uuid != guest.uuid:
        yield problem(
            f"{guest.title}'s domain name {name} belongs to {cloud.title_of(other.uuid)} "
            f"({brief(other.uuid)}) on host {host.name}",
            says(record, uuid=record.uuid, vm_state=record.vm_state).and_so(domain_name=name),
            says(other, name=name, uuid=other.uuid),
            OTHER=other.uuid,
            NAME=name,
        )


def _name_of(guest: Guest, host: Host) -> str:
    """Return nova's name for the domain: from the API, else from nova.conf's default template."""
    server, instance = guest.server, guest.instance
    told = _told(lambda: server.instance_name if server is not None else None)
    if told:
        return told
    template = host.option("DEFAULT", "instance_name_template", "instance-%08x")
    if instance is None or instance.id is None or template != "instance-%08x":
        raise UnheardError("the name of its domain was not collected")
    return template % instance.id


@check(Severity.ERROR, traps=[moving_to_another_cell, task_in_flight])
def instance_in_two_cells(guest: Guest, instance: Instance) -> Problems:
    """Two cells have a live record of the same server.

    The API sends commands to the cell in the server's mapping and lists both records. An action on
    one record (delete, evacuate, the cleanup when nova-compute starts) affects the guest of the
    other.

    Authority: The cell of the host that has the guest.

    Traps: During a resize into another cell, one of the two records is hidden. A second record in
    cell0 means that the scheduler first gave up: a warning, because nothing runs there.

    Next: Check the mapping, and on which host the guest runs:

        nova-manage cell_v2 verify_instance --uuid UUID
        virsh domstate --reason UUID

    In the database of each cell, compare the record with where the guest runs:

        SELECT host, vm_state, updated_at FROM instances WHERE uuid = 'UUID' AND deleted = 0

    Then keep the record whose host has the guest, and hide the other record, in the database of its
    cell (Train and later). nova-api then ignores it; `hidden = 0` undoes that:

        UPDATE DATABASE.instances SET hidden = 1 WHERE uuid = 'UUID' AND deleted = 0

    It worked if the record of only one cell is not hidden:

        SELECT hidden, host, vm_state FROM DATABASE.instances WHERE uuid = 'UUID' AND deleted = 0

    Not yet: Do not run `nova-manage cell_v2 map_instances` or `openstack server delete`: either may
    affect the record that has the guest.

    Source: nova admin guide, cells and cross-cell resize; nova cmd/manage.py `verify_instance`.
    """
    live = [copy for copy in guest.copies if not copy.deleted]
    if len({copy.database for copy in live}) > 1:
        runs = [copy for copy in live if copy.host is not None]
        severity = Severity.ERROR if len(runs) > 1 else Severity.WARNING
        live.sort(key=lambda copy: copy.database)
        named = [
            f"cell {copy.cell} ({copy.vm_state} on {'host ' if copy.host else 'no '}"
            f"{copy.host or 'host'})"
            for copy in live
        ]
        yield problem(
            f"{guest.title} has live records in {several(named)}",
            *(says(copy, cell=copy.cell, vm_state=copy.vm_state, host=copy.host) for copy in live),
            severity=severity,
            DATABASE=_other_cell(guest, live),
        )


def _other_cell(guest: Guest, live: list[Instance]) -> str | None:
    """Return the cell whose record the mapping does not lead to; None if it is not certain."""
    mapped = known(lambda: guest.mapping.cell)
    others = [copy for copy in live if copy.database != mapped]
    only = mapped is not None and len(others) == 1 and len(live) == 2
    return plain_name(others[0].database) if only else None


@check(Severity.ERROR, traps=[task_in_flight, building, just_ordered, softly_deleted])
def instance_mapping_skew(guest: Guest, instance: Instance, mapping: InstanceMapping) -> Problems:
    """The API database maps the server to a wrong cell, or to none.

    Lists come from the cells' own records, so the server still appears in them. But each command
    first looks up the server's cell and returns 404 if the mapping is missing. The guest keeps
    running and cannot be stopped through nova.

    Authority: The cell that has the server's record.

    Traps: A server that is being built has no cell yet. Before Ocata this table does not exist.
    Before Rocky queued_for_delete does not exist, and it stays empty in old rows. A soft deletion
    sets it.

    Next: Check the mapping, whether the API returns 404, and the id of the cell that has the
    server:

        nova-manage cell_v2 verify_instance --uuid UUID
        openstack server show UUID
        nova-manage cell_v2 list_cells

    Then, if the mapping is missing, create it; mappings that exist stay as they are:

        nova-manage cell_v2 map_instances --cell_uuid CELL --reset

    If the mapping exists but is wrong, back up nova's API database and change this one row in it;
    no other command does it:

        UPDATE instance_mappings SET COLUMN = VALUE WHERE instance_uuid = 'UUID'

    It worked if the server's mapping names the cell that has its record:

        nova-manage cell_v2 verify_instance --uuid UUID
        SELECT cell_id, queued_for_delete FROM instance_mappings WHERE instance_uuid = 'UUID'

    If a build request of the server is left, nova-api shows the server as building. Delete it in
    nova's API database, once the mapping names the cell:

        DELETE FROM build_requests WHERE instance_uuid = 'BUILT'

    It worked if nova-api shows the server with its host:

        openstack server show UUID -c status -c OS-EXT-SRV-ATTR:host

    Not yet: Do not delete the mapping. Do not delete the build request before the mapping names the
    cell: nova would forget the server.

    Source: nova cmd/manage.py, compute/api.py `_get_instance` and `_update_queued_for_deletion`;
    sapcc/openstack-nannies; nova bugs 1773945, 1784074.
    """
    asked, cell = instance.said["row"].at, known(lambda: _cell_of(mapping, instance)) or {}
    if instance.deleted:
        if mapping.there and mapping.queued_for_delete is False and not instance.archived:
            yield problem(
                f"{guest.title} has been deleted{since_written(instance.deleted_at, asked)}, but "
                "its mapping is not marked for deletion",
                says(instance, deleted_at=instance.deleted_at),
                says(mapping, queued_for_delete=False),
                severity=Severity.NOTE,
                BUILT="",
                **_settings("queued_for_delete", 1),
            )
        return
    here = says(instance, cell=instance.cell, vm_state=instance.vm_state)
    if not mapping.there:
        if "queued_for_delete" in _columns(mapping):  # Rocky or later: every instance has a mapping
            yield problem(
                f"{guest.title} is {instance.vm_state} in cell {instance.cell}, but nova's API "
                "database has no mapping for it",
                here,
                hears(mapping.said["row"], "mapping", guest.uuid, row=None),
                CELL=cell.get("uuid"),
                COLUMN="",
                BUILT="",
            )
        return
    if mapping.cell_id is None:
        since = since_written(mapping.created_at, asked)
        has = "has had" if since else "has"
        yield problem(
            f"{guest.title} is {instance.vm_state} in cell {instance.cell}, but its mapping {has} "
            f"no cell{since}",
            here,
            says(mapping, cell_id=None, created_at=mapping.created_at),
            *_left_requests(mapping),
            BUILT=guest.uuid if known(lambda: mapping.build_requests) else "",
            **_settings("cell_id", cell.get("id")),
        )
        return
    if mapping.cell not in {copy.database for copy in guest.copies if not copy.deleted}:
        yield problem(
            f"{guest.title}'s record is in cell {instance.cell}, but its mapping leads to cell "
            f"{mapping.cell}",
            here,
            says(mapping, cell=mapping.cell),
            BUILT="",
            **_settings("cell_id", cell.get("id")),
        )
    if mapping.queued_for_delete:
        # It only matters while the cell is down, and for the owner's quota.
        yield problem(
            f"{guest.title} is {instance.vm_state}, but its mapping is marked for deletion",
            here,
            says(mapping, queued_for_delete=True),
            severity=Severity.WARNING,
            BUILT="",
            **_settings("queued_for_delete", 0),
        )
    if mapping.build_requests:
        yield problem(
            f"{guest.title} is {instance.vm_state}, but nova still has "
            f"{counted(mapping.build_requests, 'build request')} for it",
            here,
            says(mapping, cell=mapping.cell, build_requests=mapping.build_requests),
            severity=Severity.WARNING,
            CELL="",
            COLUMN="",
            BUILT=guest.uuid,
        )


def _left_requests(mapping: InstanceMapping) -> Iterator[Evidence]:
    """Evidence of build requests that are left, if they were collected."""
    if left := known(lambda: mapping.build_requests):
        yield says(mapping, build_requests=left)


def _cell_of(mapping: InstanceMapping, instance: Instance) -> Mapping[str, object] | None:
    """Return the row in cell_mappings of the cell that has the instance's record."""
    for row in mapping.tables.of("cell_mappings"):
        if mapping.tables.database_of(row.cells) == instance.database:
            return row.cells
    return None


def _settings(column: str, value: object) -> dict[str, Any]:
    """Return the placeholders of the change of a mapping that exists: it need not be created."""
    return {"CELL": "", "COLUMN": column, "VALUE": value}


def _columns(mapping: InstanceMapping) -> list[object]:
    value = mapping.said["row"].value
    columns = value.get("columns") if isinstance(value, dict) else None
    return columns if isinstance(columns, list) else []


@check(Severity.ERROR, traps=[migrating])
def partial_deletion(guest: Guest, instance: Instance) -> Problems:
    """The deletion of this server was started but never finished.

    The deletion waits for a nova-compute that is down, or one step of it failed (a volume, a port,
    its files). The remains still use the host, volumes and addresses, although the owner considers
    the server deleted.

    Authority: nova's record, for what should be; the other layers, for what is left.

    Traps: Detaching volumes takes minutes. A soft deletion waits for its time. A server that was
    deleted while its host was down is removed when nova-compute is back, if the record still
    exists.

    Next: Check the services, the server's history, and its lines in nova-compute.log:

        openstack compute service list
        openstack server event list UUID
        grep UUID /var/log/nova/nova-compute.log

    Check what is left of the server, and that its owner wants none of it:

        openstack server volume list UUID
        openstack port list --server UUID

    If its task is still deleting, nova ignores a new request: a restart of nova-compute continues
    the deletion, and also ends every other task of its host.

    Then request the deletion again, which removes the guest, its disks and its ports:

        openstack server delete UUID

    It worked if neither the server nor a port of it exists:

        openstack server show UUID
        openstack port list --device-id UUID

    Not yet: Do not edit the record. Do not run `nova-manage db archive_deleted_rows`: without the
    record, nothing removes the guest.

    Source: nova `_local_delete_cleanup`, `_run_pending_deletes`, `_complete_partial_deletion`; nova
    bug 1392527.
    """
    age = _age(instance)
    if not instance.deleted and instance.task_state == "deleting":
        if age > MINUTES:
            since = since_written(instance.updated_at, instance.said["row"].at)
            yield problem(
                f"{guest.title} has been stuck in deleting{since}{_failed(instance)}",
                says(instance, task_state="deleting", updated_at=instance.updated_at),
                *_causes(guest, instance),
            )
    elif not instance.deleted and instance.vm_state == "deleted":
        if age > MINUTES and instance.task_state is None:
            half = says(instance, vm_state="deleted", updated_at=instance.updated_at)
            since = since_written(instance.updated_at, instance.said["row"].at)
            has = "has had" if since else "has"
            yield problem(
                f"{guest.title} {has} vm_state deleted{since}, but its row is not marked deleted",
                half.and_so(its_row="is not marked deleted"),
                *_causes(guest, instance),
                severity=Severity.WARNING,
            )
    elif instance.deleted and not instance.archived and not instance.cleaned:
        attempts = instance.clean_attempts
        if attempts >= GIVES_UP:
            gone = since_written(instance.deleted_at, instance.said["row"].at)
            yield problem(
                f"{guest.title} has been deleted{gone}, but nova-compute gave up on its files "
                f"after {counted(attempts, 'attempt')}",
                says(instance, deleted_at=instance.deleted_at, clean_attempts=attempts),
                *_causes(guest, instance),
                severity=Severity.WARNING,
            )


def _failed(instance: Instance) -> str:
    """Return the fault that ended the last action, for a headline; "" without one."""
    fault = known(lambda: instance.fault_message) if _is_recent(instance) else None
    return f" after a fault ({cut(fault.strip(), LONGEST)})" if fault else ""


def _causes(guest: Guest, instance: Instance) -> Iterator[Evidence]:
    """Evidence of why the deletion did not end: its request, nova's last fault and error line."""
    if known(lambda: instance.action) == "delete":
        yield says(
            instance,
            action=instance.action,
            action_at=instance.action_at,
            action_by=instance.action_by,
            request=instance.request,
        )
    if _is_recent(instance):
        yield says(instance, fault_message=instance.fault_message, fault_at=instance.fault_at)
    log = guest.log
    if log is not None and known(lambda: log.trouble) is not None:
        yield says(log, trouble=log.trouble)


def _is_recent(instance: Instance) -> bool:
    """True if nova's last fault is not older than the record's last change."""
    fault, changed = known(lambda: moment(instance.fault_at)), moment(instance.updated_at)
    return fault is not None and changed is not None and fault > changed - BEFORE


def _age(instance: Instance) -> float:
    """Return the seconds since nova last changed the record."""
    since: datetime | None = moment(instance.updated_at)
    if since is None:
        raise UnheardError("the time of its record's last change can't be read")
    return (instance.said["row"].at - since).total_seconds()


@check(Severity.ERROR, traps=[task_in_flight, building, migrating])
def active_without_host(guest: Guest, instance: Instance) -> Problems:
    """nova has no host or node for the server, or one that does not exist.

    Without a host, or with one whose service was deleted, no command reaches the server; if only
    the node is wrong, commands reach it, but nova-compute does not count its resources and refuses
    to resize or migrate it. The record lost its host by an edited database, or by an evacuation or
    an unshelving that stopped half way; the node is wrong if the record was edited or the
    hypervisor's host name changed. The guest may still be running without anything managing it.

    Authority: The hosts, for where the guest runs.

    Traps: Building, shelved and moving servers, and servers with a failed build, correctly have no
    host as long as no guest of them runs.

    Next: Look for the server on each host, and check the services and the server's history:

        virsh list --all --uuid
        openstack compute service list
        openstack server event list UUID

    Then, with nova-compute stopped on the host that has the guest or its disks, correct host and
    node (since 2023.2 also compute_id) in the server's record, together; no command does it.

    Not yet: Do not run `openstack server set --state error` and `rebuild` or `evacuate`, which
    create a second guest. Do not delete services or compute nodes.

    Source: nova compute/api.py `check_instance_host`; nova bugs 1763183, 1852610.
    """
    if instance.deleted or instance.vm_state not in STAYS | {"error"}:
        return
    if instance.vm_state == "error":
        # After a failed build or unshelving, the server has no host and no guest runs.
        if instance.host is None and guest.runs:
            yield problem(
                f"{guest.title} is in error and on no host in nova{_where(guest)}",
                says(instance, vm_state="error", host=None),
                *_seen(guest.domain),
            )
    elif instance.host is None or instance.node is None:
        lacks = "host" if instance.host is None else "node"
        yield problem(
            f"{guest.title} is {instance.vm_state} in nova, but its record has no {lacks}"
            f"{_where(guest)}",
            says(instance, vm_state=instance.vm_state, host=instance.host, node=instance.node),
            *_seen(guest.domain),
        )
    elif not guest.records.services_of(instance.host):
        services = guest.records.read("services")
        yield problem(
            f"{guest.title} is {instance.vm_state} on host {instance.host} in nova, but no "
            f"nova-compute has that name{_where(guest)}",
            says(instance, vm_state=instance.vm_state, host=instance.host),
            hears(services, "services", f"host={instance.host}", nova_compute=None),
            *_seen(guest.domain),
        )
    else:
        yield from _without_node(guest, instance)


def _without_node(guest: Guest, instance: Instance) -> Iterator[Problem]:
    """Yield a problem if the host has compute nodes, and none of the name in the record."""
    nodes = guest.records.nodes_of(instance.host or "")
    names = {node.hypervisor_hostname for node in nodes}
    if not names or instance.node in names or None in names:
        return
    own = several(sorted(map(str, names)))
    yield problem(
        f"{guest.title} is {instance.vm_state} on node {instance.node} in nova, but host "
        f"{instance.host} has no such compute node (it has {own})"
        f"{_where(guest)}",
        says(instance, vm_state=instance.vm_state, host=instance.host, node=instance.node),
        *(says(node, hypervisor_hostname=node.hypervisor_hostname) for node in nodes[:1]),
        *_seen(guest.domain),
    )


def _where(guest: Guest) -> str:
    """Return the state of the guest on the host that has it: `; on host vm it is running`."""
    host, domain = guest.host, guest.domain
    state = known(lambda: domain.state_words) if domain is not None else None
    return f"; on host {host.name} it is {state}" if host is not None and state else ""


def _seen(domain: Domain | None) -> Iterator[Evidence]:
    """Evidence of the guest on this host, if libvirt reported it."""
    try:
        if domain is not None:
            yield says(domain, state=domain.state_words)
    except UnheardError:
        return
