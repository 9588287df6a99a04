"""Every layer knows the same VMs. The only topic that speaks of absence."""

from __future__ import annotations

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.legal_states import RESTS, RUNS
from hoodsnap.checks.traps import (
    boots_from_volume,
    building,
    disks_are_not_files,
    disks_out_of_sight,
    migrating,
    never_launched,
    of_another_libvirt,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import OFF, ON, PRODUCTS, Disk, Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.process.process import Process


@check(Severity.ERROR, heard=["libvirt"], traps=[migrating, task_in_flight, of_another_libvirt])
def qemu_without_domain(guest: Guest, process: Process) -> Problems:
    """A guest's QEMU process runs, and libvirt does not know it.

    nova can neither see nor stop it, and would start a second one on the same disk. libvirt
    forgets a process when its state under /run is lost: a container recreated, a folder cleaned, a
    daemon that crashed at the wrong moment.

    Authority: the kernel. The process is there.

    Traps: libvirt that was not reached; a second libvirt (a session's, in a container) that has
    it, by where QEMU's files are and the processes it lives among; QEMU that nobody started for
    nova.

    Next: `cat /proc/PID/cmdline | tr '\\0' ' '`, `ls -l /proc/PID/fd` and `cat
    /run/libvirt/qemu/NAME.pid`. If it is the only copy, let the guest shut down from inside, then
    `openstack server start`.

    Not yet: `virsh start` or `define`, `openstack server reboot --hard`, restarting nova-compute,
    `kill -9`.

    Source: libvirt qemu driver, `qemuProcessReconnect`; nova bug 1414065; containers/podman issue
    12717.
    """
    if guest.domain is None:
        if _is_novas(guest, process):
            yield (
                says(process, pid=process.pid, uuid=process.uuid),
                _lacks(guest, "libvirt", "domain"),
            )
    elif guest.domain.state == OFF:
        yield (
            says(process, pid=process.pid, uuid=process.uuid),
            says(guest.domain, state=guest.domain.state_words),
        )


def _is_novas(guest: Guest, process: Process) -> bool:
    return guest.record is not None or process.smbios.get("product") in PRODUCTS


@check(Severity.ERROR, heard=["kernel"], traps=[migrating, task_in_flight])
def domain_without_qemu(guest: Guest, domain: Domain) -> Problems:
    """libvirt says that the guest runs, and there is no QEMU process.

    The guest is off, and nobody has noticed: libvirt lost sight of the process, and nova believes
    libvirt.

    Authority: the kernel. There is no such process.

    Traps: processes listed in another PID namespace; a process in state D is still there.

    Next: `virsh domstate --reason NAME`, and the end of /var/log/libvirt/qemu/NAME.log. A restart
    of libvirtd makes it look again.

    Not yet: `openstack server start` before checks of the disks: see why it died first.

    Source: libvirt qemu_process.c; nova `_sync_power_states`.
    """
    if domain.state in ON and guest.process is None:
        yield (
            says(domain, id=domain.id, state=domain.state_words),
            _lacks(guest, "kernel", "process"),
        )


@check(Severity.ERROR, traps=[task_in_flight])
def domain_of_deleted_server(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """The server is deleted, and its guest is still here.

    nova frees the ports, volumes and addresses of a deleted server, so that another one may own
    them by now, while this guest goes on using them. nova-compute looks for such guests every half
    hour and removes them, as long as the row has not been archived; after that nobody does.

    Authority: the nova database for what should be; libvirt for what is.

    Traps: a deletion in flight; `running_deleted_instance_action` may be set to `log` or `noop`.

    Next: `openstack server show UUID`, then see whether another server has its volumes and
    addresses (`openstack volume list`, `openstack port list --device-owner compute:nova`).

    Not yet: `virsh undefine --remove-all-storage`, `virsh destroy` before you know what shares its
    disks.

    Source: nova `_cleanup_running_deleted_instances`; `nova-manage db archive_deleted_rows`.
    """
    if not instance.deleted:
        return
    deleted = says(instance, deleted_at=instance.deleted_at, vm_state=instance.vm_state)
    if instance.archived:
        deleted = deleted.and_so(archived="nova-compute will never remove its guest")
    evidence = (deleted, says(domain, state=domain.state_words))
    yield Problem(Severity.ERROR if domain.state in ON else Severity.WARNING, evidence)


@check(Severity.ERROR)
def domain_without_server(guest: Guest, domain: Domain) -> Problems:
    """libvirt has a domain that nova made, and nova has no record of it.

    It uses memory and disk that placement sells again, keeps a MAC address that neutron may give
    to another, and nobody owns it.

    Authority: the nova databases, if all of them were searched, deleted and archived rows too. The
    API alone (a warning) does not tell a deleted server from one that never was.

    Traps: a cell that was not read; a guest of a cloud that this host once belonged to; a database
    restored from an older backup (then there are many).

    Next: search every cell's `instances` and `shadow_instances` for the UUID; the owner's project
    is in `virsh dumpxml NAME` under nova:owner.

    Not yet: `virsh destroy` or `undefine`, removing its disks: nobody else may have a copy.

    Source: nova (the tracker's "running orphan instance" was removed in Wallaby); openstack/osops
    nova-libvirt-compare.
    """
    if guest.record is not None or not domain.is_nova:
        return
    heard = [layer for layer in ("nova-db", "nova") if layer not in guest.unheard]
    if not heard:
        raise UnheardError(guest.unheard["nova-db"])
    absent = [_lacks(guest, layer, "record") for layer in heard]
    # The API alone can't tell a deleted server from one that never was.
    sure = "nova-db" in heard and domain.state in ON
    severity = Severity.ERROR if sure else Severity.WARNING
    yield Problem(severity, (says(domain, name=domain.name, state=domain.state_words), *absent))


@check(
    Severity.ERROR,
    heard=["libvirt"],
    traps=[task_in_flight, building, never_launched, migrating, of_another_libvirt],
)
def server_without_domain(guest: Guest, record: Server | Instance) -> Problems:
    """nova has the server on this host, and libvirt has no domain for it.

    For a running server that is an outage. For a stopped one it is repairable: nova writes the
    domain anew when it is started, as long as its disks are there.

    Authority: libvirt for what is here; nova for what should be.

    Traps: building, moving and shelved servers; another libvirt daemon than the one that was
    asked.

    Next: see that the disks are there (`ls -l` of its folder) and that it does not run on another
    host. Then `openstack server start` (after `stop`) defines it again.

    Not yet: `openstack server reboot --hard` if it may run elsewhere, `rebuild`.

    Source: nova `_hard_reboot`, `power_on`; `_sync_instance_power_state` ("unexpectedly not
    found").
    """
    if guest.domain is not None or not guest.is_here or record.deleted:
        return
    if record.vm_state in RUNS | RESTS | {"resized"}:
        severity = Severity.NOTE if record.vm_state in RESTS else Severity.ERROR
        yield Problem(
            severity,
            (
                says(record, vm_state=record.vm_state, host=record.host),
                _lacks(guest, "libvirt", "domain"),
            ),
        )


@check(
    Severity.ERROR,
    heard=["images"],
    traps=[
        *(task_in_flight, building, never_launched, migrating),
        *(disks_are_not_files, disks_out_of_sight),
    ],
)
def server_without_disk(guest: Guest, host: Host, record: Server | Instance) -> Problems:
    """nova has the server on this host, and its disk file is not there.

    If it still runs, its process holds the only copy; if it is off, it can't start.

    Authority: the disk images.

    Traps: servers that boot from a volume, and disks in rbd or LVM, have no such file; a moved
    server's files are in `UUID_resize`; an instances directory that is not mounted misses all of
    them; where QEMU runs in a container, the directory is another one.

    Next: look for `UUID_resize` and `UUID_del` beside it, at `findmnt -T` of the instances
    directory, and at `ls -l /proc/PID/fd` of a process that still runs.

    Not yet: `openstack server reboot --hard` or `rebuild`, which make a new, empty disk.

    Source: nova imagebackend, `_get_instance_disk_info_from_config`; nova bug 1666831.
    """
    if not guest.is_here or record.deleted or record.vm_state not in RUNS | RESTS | {"resized"}:
        return
    listing = guest.census["images"]
    for name in _expected_files(guest, record):
        size = host.images.size_of(guest.uuid, name)
        if not size:
            found = "missing" if size is None else "empty"
            yield (
                says(record, vm_state=record.vm_state, host=record.host),
                hears(listing, "images", f"{guest.uuid}/{name}", **{name: found}),
            )


def _expected_files(guest: Guest, record: Server | Instance) -> list[str]:
    if boots_from_volume(guest) or _has_another_root(guest):
        expected = []
    else:
        expected = ["disk"]
        blanks = [device for device in _local_devices(guest) if device == ("blank", None)]
        expected += [f"disk.eph{number}" for number in range(len(blanks))]
        expected += ["disk.swap"] * (("blank", "swap") in _local_devices(guest))
    if record.config_drive:
        expected.append("disk.config")
    return expected


def _local_devices(guest: Guest) -> list[tuple[object, object]]:
    """Of each device that nova keeps in files, whence it comes and what is on it."""
    devices = guest.instance.devices if guest.instance is not None else ()
    return [
        (device.get("source_type"), device.get("guest_format"))
        for device in devices or ()
        if device.get("destination_type") == "local"
    ]


def _has_another_root(guest: Guest) -> bool:
    """Its domain has disks, and none of them is its folder's `disk`: it lies in other storage, or,
    since before Grizzly, in a folder of the domain's name."""
    try:
        disks = guest.domain.current.disks if guest.domain is not None else ()
    except UnheardError:
        return False
    return bool(disks) and not any(_is_in_its_folder(guest, disk) for disk in disks)


def _is_in_its_folder(guest: Guest, disk: Disk) -> bool:
    return (disk.source or "").endswith(f"/{guest.uuid}/disk")


def _lacks(guest: Guest, layer: str, noun: str) -> Evidence:
    """That a layer, heard, has no such thing."""
    answer = guest.census.get(layer)
    if answer is None:
        raise UnheardError(f"{layer} was not asked for everything it has")
    return hears(answer, layer, guest.uuid, **{noun: None})
