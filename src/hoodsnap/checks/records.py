"""What nova's databases say of a server, and whether they agree with each other and the guest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from hoodsnap.check import Problem, Problems, check
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
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instance_mapping import InstanceMapping
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, UnheardError
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process

MINUTES = 600.0
"""Seconds that a deletion may take, with its volumes and ports."""

GIVES_UP = 5
"""How often nova-compute tries to remove the files of a deleted server
(`maximum_instance_delete_attempts`)."""

_FOLDER = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:_resize|_del)?/disk[^/]*$")

Word = tuple[str, Fact, str, str]
"""What one layer calls a guest, made comparable; the fact and its field, and what that says."""


@check(Severity.ERROR, traps=[migrating, task_in_flight])
def uuid_name_chain_broken(
    guest: Guest, domain: Domain, process: Process | None, monitor: Monitor | None
) -> Problems:
    """The layers don't agree on who this guest is: its UUID, its name or its disk is another's.

    nova, libvirt and QEMU find it by different ones of these, so that a command for one guest
    reaches another. It comes of definitions copied by hand, of restored backups, of rescue work.

    Authority: the UUID on QEMU's command line, and the files that it has open.

    Traps: the name is made of a template in nova.conf, which may have changed since; a serial
    number is the host's own up to Rocky, so only the UUID counts; a disk that is declared shareable
    is lent on purpose.

    Next: `virsh dumpxml UUID`, `cat /proc/PID/cmdline | tr '\\0' ' '`, `ls -l /proc/PID/fd`, and
    the begin of /var/log/libvirt/qemu/NAME.log: how it came about.

    Not yet: `virsh define` over it, any `virsh` command that names it by NAME.

    Source: nova virt/libvirt/guest.py, config.py, driver.py `_get_guest_config`; libvirt
    formatdomain, sysinfo.
    """
    if guest.record is None:
        return
    yield from _apart([*_uuids(domain, process, monitor)])
    yield from _apart([*_names(domain, process, monitor)])
    for disk in domain.current.disks:
        folder = _FOLDER.search(disk.source or "")
        if folder is not None and folder[1] != guest.uuid and not disk.shareable:
            yield (says(domain, uuid=domain.uuid, disks=f"{disk.target}: {disk.source}"),)


def _apart(words: list[Word]) -> Iterator[tuple[Evidence, ...]]:
    if len({word for word, *_ in words}) > 1:
        yield tuple(says(fact, **{field: said}) for _, fact, field, said in words)


def _uuids(domain: Domain, process: Process | None, monitor: Monitor | None) -> Iterator[Word]:
    yield domain.uuid, domain, "uuid", domain.uuid
    if inside := _told(lambda: domain.current.smbios.get("uuid")):
        yield inside.lower(), domain, "smbios", inside
    if process is not None and (told := _told(lambda: process.uuid)):
        yield told, process, "uuid", told
    if process is not None and (inside := _told(lambda: process.smbios.get("uuid"))):
        yield inside.lower(), process, "smbios", inside
    if monitor is not None and (told := _told(lambda: monitor.uuid)):
        yield told, monitor, "uuid", told


def _names(domain: Domain, process: Process | None, monitor: Monitor | None) -> Iterator[Word]:
    facts: tuple[Domain | Process | Monitor | None, ...] = (domain, process, monitor)
    for fact in facts:
        if fact is not None and (name := _told(partial(getattr, fact, "name"))):
            yield name, fact, "name", name


def _told(said: Callable[[], object]) -> str | None:
    """What a layer said, if it did. What one keeps to itself spoils no comparison of others."""
    try:
        word = said()
    except UnheardError:
        return None
    return word if isinstance(word, str) else None


@check(Severity.ERROR, heard=["libvirt"], traps=[migrating, task_in_flight])
def instance_name_collision(guest: Guest, host: Host, record: Server | Instance) -> Problems:
    """The domain that should have this server's name is another guest.

    The name is made of the row's number, and numbers come again: in another cell, after a
    database was restored, after MySQL (before 8.0) forgot its counter. libvirt allows a name once:
    this server can't be started, and whoever stops "it" by name stops the other.

    Authority: the UUID.

    Traps: servers of other cells have the same names rightly, as long as they share no host; a
    template with the UUID in it makes no two alike.

    Next: `virsh domuuid NAME`, `openstack server show` of both UUIDs. Then move one of the two to
    another host, cold, once its disk is known to be its own.

    Not yet: any `virsh` command that names a domain by NAME; `openstack server reboot --hard`,
    which would define this one over the other.

    Source: libvirt, the uniqueness of names; nova `instance_name_template`; MySQL,
    InnoDB AUTO_INCREMENT counter initialization.
    """
    if not guest.is_here or record.deleted or guest.domain is not None:
        return
    name = _name_of(guest, host)
    other = host.named.get(name)
    if other is not None and other.uuid != guest.uuid:
        yield (
            says(record, uuid=record.uuid, vm_state=record.vm_state).and_so(domain_name=name),
            says(other, name=name, uuid=other.uuid),
        )


def _name_of(guest: Guest, host: Host) -> str:
    """What nova calls its domain: the API tells it; else it follows from nova.conf."""
    server, instance = guest.server, guest.instance
    told = _told(lambda: server.instance_name if server is not None else None)
    if told:
        return told
    template = host.option("DEFAULT", "instance_name_template", "instance-%08x")
    if instance is None or instance.id is None or template != "instance-%08x":
        raise UnheardError("the name of its domain was not told")
    return template % instance.id


@check(Severity.ERROR, traps=[moving_to_another_cell, task_in_flight])
def instance_in_two_cells(guest: Guest, instance: Instance) -> Problems:
    """Two cells have a live record of one server.

    The API asks the cell that its mapping names, and lists both. What is done through one record
    (delete, evacuate, the clean-up at a start of nova-compute) hits what the other stands for.

    Authority: the cell whose host has the guest.

    Traps: a resize into another cell hides one of the two while it lasts; one that is in cell0 too
    was first given up by the scheduler: a warning, since nothing runs there.

    Next: `nova-manage cell_v2 verify_instance --uuid UUID`; compare host and updated_at of the
    records with where the guest runs.

    Not yet: `nova-manage cell_v2 map_instances`, `openstack server delete`: see first which record
    that would reach.

    Source: nova admin guide, cells and cross-cell resize; nova cmd/manage.py `verify_instance`.
    """
    live = [copy for copy in guest.copies if not copy.deleted]
    if len({copy.database for copy in live}) > 1:
        runs = [copy for copy in live if copy.host is not None]
        severity = Severity.ERROR if len(runs) > 1 else Severity.WARNING
        yield Problem(
            severity,
            tuple(
                says(copy, cell=copy.cell, vm_state=copy.vm_state, host=copy.host)
                for copy in sorted(live, key=lambda copy: copy.database)
            ),
        )


@check(Severity.ERROR, traps=[task_in_flight, building, just_ordered, softly_deleted])
def instance_mapping_skew(guest: Guest, instance: Instance, mapping: InstanceMapping) -> Problems:
    """The API database sends whoever asks for this server to the wrong place, or nowhere.

    Lists are made of the cells' own records, so the server is seen in them; but each command for
    it first looks up its cell, and answers 404 where that is missing. Its guest runs on all the
    while, and nobody can stop it through nova.

    Authority: the cell that has the server's record.

    Traps: a server that is being built has no cell yet; before Ocata there is no such table, and
    before Rocky no queued_for_delete, which stays empty in old rows; a soft deletion sets it.

    Next: `nova-manage cell_v2 verify_instance --uuid UUID`, and `openstack server show UUID`: is it
    404? Then `nova-manage cell_v2 map_instances` writes the mappings that are missing.

    Not yet: deleting the mapping, or the build request, of a server whose guest runs.

    Source: nova cmd/manage.py, compute/api.py `_get_instance` and `_update_queued_for_deletion`;
    sapcc/openstack-nannies; nova bugs 1773945, 1784074.
    """
    if instance.deleted:
        if mapping.there and mapping.queued_for_delete is False and not instance.archived:
            yield Problem(
                Severity.NOTE,
                (
                    says(instance, deleted_at=instance.deleted_at),
                    says(mapping, queued_for_delete=False),
                ),
            )
        return
    here = says(instance, cell=instance.cell, vm_state=instance.vm_state)
    if not mapping.there:
        if "queued_for_delete" in _columns(mapping):  # Rocky: every instance has one by now
            yield here, hears(mapping.said["row"], "mapping", guest.uuid, row=None)
        return
    if mapping.cell_id is None:
        yield here, says(mapping, cell_id=None, created_at=mapping.created_at)
        return
    if mapping.cell not in {copy.database for copy in guest.copies if not copy.deleted}:
        yield here, says(mapping, cell=mapping.cell)
    if mapping.queued_for_delete:
        # It matters while its cell is down, and for its owner's quota.
        yield Problem(Severity.WARNING, (here, says(mapping, queued_for_delete=True)))
    if mapping.build_requests:
        requests = says(mapping, cell=mapping.cell, build_requests=mapping.build_requests)
        yield Problem(Severity.WARNING, (here, requests))


def _columns(mapping: InstanceMapping) -> list[object]:
    value = mapping.said["row"].value
    columns = value.get("columns") if isinstance(value, dict) else None
    return columns if isinstance(columns, list) else []


@check(Severity.ERROR, traps=[migrating])
def partial_deletion(guest: Guest, instance: Instance) -> Problems:
    """A deletion of this server began, and did not end.

    It waits for a nova-compute that is down, or one step of it (a volume, a port, its files)
    failed. What is left goes on using its host, its volumes and addresses, though its owner
    believes that it is gone.

    Authority: nova's record for what is meant; the other layers for what is left.

    Traps: detaching volumes takes minutes; a soft deletion waits for its time; what was deleted
    while its host was down is removed when nova-compute is back, if the record is still there.

    Next: `openstack compute service list`, `openstack server event list UUID`, the lines about UUID
    in nova-compute.log. Then a restart of nova-compute goes on with the deletion, and `openstack
    server delete UUID` asks for it again; see afterwards what is left of its ports and volumes.

    Not yet: editing the record, `nova-manage db archive_deleted_rows`: without the record nobody
    removes the guest.

    Source: nova `_local_delete_cleanup`, `_run_pending_deletes`, `_complete_partial_deletion`; nova
    bug 1392527.
    """
    age = _age(instance)
    if not instance.deleted and instance.task_state == "deleting":
        if age > MINUTES:
            yield (says(instance, task_state="deleting", updated_at=instance.updated_at),)
    elif not instance.deleted and instance.vm_state == "deleted":
        if age > MINUTES and instance.task_state is None:
            half = says(instance, vm_state="deleted", updated_at=instance.updated_at)
            yield Problem(Severity.WARNING, (half.and_so(its_row="is not marked deleted"),))
    elif instance.deleted and not instance.archived and not instance.cleaned:
        attempts = instance.clean_attempts
        if attempts >= GIVES_UP:
            tried = says(instance, deleted_at=instance.deleted_at, clean_attempts=attempts)
            yield Problem(Severity.WARNING, (tried,))


def _age(instance: Instance) -> float:
    """Seconds since nova changed the record."""
    since: datetime | None = moment(instance.updated_at)
    if since is None:
        raise UnheardError("when its record was changed can't be read")
    return (instance.said["row"].at - since).total_seconds()


@check(Severity.ERROR, traps=[task_in_flight, building, migrating])
def active_without_host(guest: Guest, instance: Instance) -> Problems:
    """nova has the server on no host, or on one that does not exist: no command reaches it.

    The record lost its host (an edited database, an evacuation or an unshelving that broke off),
    or its host's service was deleted under it. Its guest may well run, and nobody looks after it.

    Authority: the hosts: where its guest is seen.

    Traps: building, shelved and moving servers, and those whose build failed, have none rightly, as
    long as nothing of them runs.

    Next: look for UUID in `virsh list --all --uuid` of every host; `openstack compute service
    list`, `openstack server event list UUID`.

    Not yet: `openstack server set --state error` and `rebuild` or `evacuate`, which make a second
    guest; deleting services or compute nodes.

    Source: nova compute/api.py `check_instance_host`; nova bugs 1763183, 1852610.
    """
    if instance.deleted or instance.vm_state not in STAYS | {"error"}:
        return
    if instance.vm_state == "error":
        # Whose build or unshelving failed has no host, and nothing that runs.
        if instance.host is None and guest.runs:
            yield says(instance, vm_state="error", host=None), *_seen(guest.domain)
    elif instance.host is None or instance.node is None:
        placed = says(instance, vm_state=instance.vm_state, host=instance.host, node=instance.node)
        yield placed, *_seen(guest.domain)
    elif not guest.records.services_of(instance.host):
        services = guest.records.read("services")
        yield (
            says(instance, vm_state=instance.vm_state, host=instance.host),
            hears(services, "services", f"host={instance.host}", nova_compute=None),
            *_seen(guest.domain),
        )


def _seen(domain: Domain | None) -> Iterator[Evidence]:
    """Where it is after all, if that was seen."""
    try:
        if domain is not None:
            yield says(domain, state=domain.state_words)
    except UnheardError:
        return
