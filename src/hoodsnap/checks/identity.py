"""The same VMs exist in every layer. Only this topic reports absence."""

from __future__ import annotations

from typing import NamedTuple

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.legal_states import RESTS, RUNS
from hoodsnap.checks.state import ending
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
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import PRODUCTS, Domain
from hoodsnap.facts.domain.state import ON, DomainState
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.process.process import Process


@check(Severity.ERROR, heard=["libvirt"], traps=[migrating, task_in_flight, of_another_libvirt])
def qemu_without_domain(guest: Guest, process: Process) -> Problems:
    """The guest's QEMU process runs, but libvirt does not know it.

    nova can neither see nor stop the process, and would start a second one on the same disk.
    libvirt loses a process when its state under /run is lost: a container was recreated, a folder
    was cleaned, or the daemon crashed at the wrong moment.

    Authority: The kernel. The process exists.

    Traps: libvirt was not reached. A second libvirt (of a session, or in a container) runs the
    process, as the place of QEMU's files and the processes around it show. QEMU was not started for
    nova.

    Next: Check the process, its open files, and libvirt's pid file:

        tr '\\0' ' ' < /proc/PID/cmdline
        ls -l /proc/PID/fd
        cat /run/libvirt/qemu/NAME.pid

    Then, if no other process runs this guest, and none of its files is deleted, log in to the guest
    and shut it down. Once the process has ended and nova reports the server as SHUTOFF, start it,
    which boots the guest:

        openstack server start UUID

    It worked if libvirt reports the domain as running:

        virsh domstate --reason NAME

    Not yet: Do not run `virsh start`, `virsh define` or `openstack server reboot --hard`. Do not
    restart nova-compute. Do not run `kill -9`.

    Source: libvirt qemu driver, `qemuProcessReconnect`; nova bug 1414065; containers/podman issue
    12717.
    """
    if guest.domain is None:
        if _is_novas(guest, process):
            yield problem(
                f"{guest.title}'s QEMU runs (PID {process.pid}), but libvirt has no domain for it",
                says(process, pid=process.pid, uuid=process.uuid),
                _lacks(guest, "libvirt", "domain"),
                NAME=known(lambda: process.name),
            )
    elif guest.domain.state == DomainState.SHUTOFF:
        yield problem(
            f"{guest.title}'s QEMU runs (PID {process.pid}), but its domain is"
            f" {guest.domain.state_words} in libvirt",
            says(process, pid=process.pid, uuid=process.uuid),
            says(guest.domain, state=guest.domain.state_words),
        )


def _is_novas(guest: Guest, process: Process) -> bool:
    return guest.record is not None or process.smbios.get("product") in PRODUCTS


@check(Severity.ERROR, heard=["kernel"], traps=[migrating, task_in_flight])
def domain_without_qemu(guest: Guest, domain: Domain) -> Problems:
    """libvirt reports that the guest runs, but no QEMU process exists.

    The guest is off, and nothing has noticed: libvirt lost track of the process, and nova relies on
    libvirt.

    Authority: The kernel. No such process exists.

    Traps: Processes that were listed in another PID namespace. A process in state D still exists.

    Next: Check the domain's state, and read the end of the QEMU log:

        virsh domstate --reason NAME
        tail /var/log/libvirt/qemu/NAME.log

    Check that no process has the domain's name, also not in a container:

        grep -l NAME /proc/[0-9]*/cmdline

    Then end the domain in libvirt. The guest has ended already, and its disks stay as they are:

        virsh destroy NAME

    It worked if libvirt reports the domain as shut off:

        virsh domstate --reason NAME

    Not yet: Do not run `openstack server start` before the disks are checked. Find out first why
    the process died.

    Source: libvirt qemu_process.c; nova `_sync_power_states`.
    """
    if domain.state in ON and guest.process is None:
        host = guest.host.name if guest.host is not None else "the host"
        yield problem(
            f"{guest.title} is {domain.state_words} in libvirt, but {host} runs no QEMU of it",
            says(domain, id=domain.id, state=domain.state_words),
            _lacks(guest, "kernel", "process"),
            *ending(guest.log),
        )


@check(Severity.ERROR, traps=[task_in_flight])
def domain_of_deleted_server(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """The server was deleted, but its guest is still on this host.

    nova frees the ports, volumes and addresses of a deleted server. Another server may own them by
    now while this guest still uses them. nova-compute looks for such guests every half hour and
    removes them, but only until the database row is archived; after that nothing removes them.

    Authority: The nova database, for what should exist; libvirt, for what does.

    Traps: A deletion in flight. `running_deleted_instance_action` may be set to `log` or `noop`.

    Next: Check that nova does not know the server any more, and whether another server has its
    volumes and addresses:

        openstack server show UUID
        virsh domblklist --details NAME
        virsh domiflist NAME
        openstack volume list --all-projects --long
        openstack port list --mac-address MAC --long

    Then, if no other server uses them, shut the guest down. If its row still exists, nova-compute
    removes the domain and its disks at its next pass:

        virsh shutdown NAME

    It worked if the domain is shut off, or no longer listed:

        virsh list --all

    Not yet: Do not run `virsh undefine --remove-all-storage`. Do not run `virsh destroy` before you
    know what shares the guest's disks.

    Source: nova `_cleanup_running_deleted_instances`; `nova-manage db archive_deleted_rows`.
    """
    if not instance.deleted:
        return
    deleted = says(instance, deleted_at=instance.deleted_at, vm_state=instance.vm_state)
    if instance.archived:
        deleted = deleted.and_so(archived="nova-compute will never remove its guest")
    gone, asked = moment(instance.deleted_at), instance.said.get("row")
    since = f" {phrase.since(gone, asked.at)}" if gone is not None and asked is not None else ""
    was = "has been" if since else "is"
    yield problem(
        f"{guest.title} {was} deleted in nova{since}, but its domain is {domain.state_words}",
        deleted,
        says(domain, state=domain.state_words),
        severity=Severity.ERROR if domain.state in ON else Severity.WARNING,
        MAC=known(lambda: domain.macs[0]),
    )


@check(Severity.ERROR)
def domain_without_server(guest: Guest, domain: Domain) -> Problems:
    """libvirt has a domain that nova created, but nova has no record of it.

    The domain uses memory and disk that placement offers to other servers, it keeps a MAC address
    that neutron may give to another port, and it has no owner.

    Authority: The nova databases, if all of them were searched, including deleted and archived
    rows. The API alone cannot tell a deleted server from one that never existed (a warning).

    Traps: A cell that was not read. A guest of a cloud that this host once belonged to. A database
    restored from an older backup, which leaves many such domains.

    Next: Find the owner's project under nova:owner:

        virsh dumpxml NAME

    Search for the server in the database of every cell, there also in `shadow_instances`:

        SELECT uuid, host, deleted_at FROM instances WHERE uuid = 'UUID'

    Then, when its owner agrees or no longer exists, shut the guest down, which keeps its definition
    and its disks:

        virsh shutdown NAME

    It worked if the domain is shut off:

        virsh domstate --reason NAME

    Not yet: Do not run `virsh destroy` or `virsh undefine`, and do not remove its disks; they may
    be the only copy.

    Source: nova (the tracker's "running orphan instance" was removed in Wallaby); openstack/osops
    nova-libvirt-compare.
    """
    if guest.record is not None or not domain.is_nova:
        return
    searched = [layer for layer in ("nova-db", "nova") if layer not in guest.unheard]
    if not searched:
        raise UnheardError(guest.unheard["nova-db"])
    absent = [_lacks(guest, layer, "record") for layer in searched]
    # The API alone can't tell a deleted server from one that never existed.
    sure = "nova-db" in searched and domain.state in ON
    where = f" on {guest.host.name}" if guest.host is not None else ""
    once = known(lambda: domain.current.nova)
    called = f" ({once.name} in its metadata)" if once is not None and once.name else ""
    yield problem(
        f"{guest.title}{called} is {domain.state_words} in libvirt{where}, but nova has no record"
        " of it",
        says(domain, name=domain.name, state=domain.state_words),
        *absent,
        severity=Severity.ERROR if sure else Severity.WARNING,
    )


@check(
    Severity.ERROR,
    heard=["libvirt"],
    traps=[task_in_flight, building, never_launched, migrating, of_another_libvirt],
)
def server_without_domain(guest: Guest, record: Server | Instance) -> Problems:
    """nova has the server on this host, but libvirt has no domain for it.

    If the server should be running, it is down. If it is stopped, it can be repaired: nova defines
    the domain again at the next start, as long as the disks exist.

    Authority: libvirt, for what is on this host; nova, for what should be.

    Traps: Building, moving and shelved servers. Another libvirt daemon than the one that was asked.

    Next: Check that the disks exist in the server's folder, and that the guest runs on no other
    host; run the second command on each host:

        ls -l INSTANCES_PATH/UUID
        virsh list --all --uuid

    Then stop the server in nova, if it is not stopped already, and start it, which defines the
    domain again and boots the guest:

        openstack server stop UUID
        openstack server start UUID

    It worked if libvirt reports the domain as running:

        virsh domstate --reason UUID

    Not yet: Do not run `openstack server reboot --hard` if the guest may run elsewhere. Do not run
    `openstack server rebuild`.

    Source: nova `_hard_reboot`, `power_on`; `_sync_instance_power_state` ("unexpectedly not
    found").
    """
    if guest.domain is not None or not guest.is_here or record.deleted:
        return
    if record.vm_state in RUNS | RESTS | {"resized"}:
        yield problem(
            f"{guest.title} is {phrase.state(record.vm_state)} on {record.host} in nova, but "
            "libvirt has no domain for it",
            says(record, vm_state=record.vm_state, host=record.host),
            _lacks(guest, "libvirt", "domain"),
            severity=Severity.NOTE if record.vm_state in RESTS else Severity.ERROR,
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
    """nova has the server on this host, but its disk file is missing or empty.

    If the guest still runs, its process holds the only copy. If it is off, it cannot start.

    Authority: The disk images.

    Traps: Servers that boot from a volume and disks in rbd or LVM have no such file. The files of a
    server that is being moved are in `UUID_resize`. If the instances directory is not mounted, all
    files are missing. If QEMU runs in a container, its directory is another one.

    Next: Look for `UUID_resize` and `UUID_del` beside the server's folder. Check the mount, and
    whether a process still has one of the server's files open:

        openstack server migration list --server UUID
        ls -ld INSTANCES_PATH/UUID*
        findmnt -T INSTANCES_PATH
        ls -l /proc/[0-9]*/fd | grep UUID

    Then, if a process still has the disk open, copy it out as `hoodsnap checks
    disk-deleted-but-open` describes.

    Or, if the disk is in `UUID_resize`, and the guest does not run on the other host of the move,
    give the folder its name back, which copies nothing:

        mv -T RESIZE_FOLDER FOLDER

    It worked if the server's folder has the disk:

        ls -ld INSTANCES_PATH/UUID*

    Not yet: Do not run `openstack server reboot --hard` or `rebuild`; both create a new, empty
    disk.

    Source: nova imagebackend, `_get_instance_disk_info_from_config`; nova bug 1666831.
    """
    if not guest.is_here or record.deleted or record.vm_state not in RUNS | RESTS | {"resized"}:
        return
    listing = guest.census["images"]
    for name in expected_files(guest, record):
        size = host.images.size_of(guest.uuid, name)
        if not size:
            found = "missing" if size is None else "empty"
            kept = set_aside(host, guest.uuid, name)
            where = f"{found}{_folder_of(guest, host)}" if kept is None else f"in {kept.words}"
            yield problem(
                f"{guest.title} is {phrase.state(record.vm_state)} in nova, but its {name} is "
                f"{where}",
                says(record, vm_state=record.vm_state, host=record.host),
                hears(listing, "images", f"{guest.uuid}/{name}", **{name: found}),
                *([hears(listing, "images", kept.path, **{name: kept.size})] if kept else []),
                FOLDER=kept.path.removesuffix("_resize") if kept is not None else None,
                RESIZE_FOLDER=kept.path if kept is not None and guest.process is None else "",
            )


class SetAside(NamedTuple):
    """The folder in which nova keeps a server's old disk until its resize is confirmed."""

    path: str
    size: int
    """Bytes of the disk in it."""

    @property
    def words(self) -> str:
        """The folder and how the disk came there: `…/instances/3970aa18_resize, where …`."""
        return f"{phrase.place(self.path)}, where an unfinished resize left it"


def set_aside(host: Host, uuid: str, name: str) -> SetAside | None:
    """Return the `UUID_resize` that holds the disk; None if none does."""
    size = host.images.size_of(f"{uuid}_resize", name)
    folders = [folder.path for folder in host.images.folders.get(uuid, ())]
    path = next((path for path in folders if path.endswith(f"{uuid}_resize")), None)
    return SetAside(path, size) if size and path is not None else None


def _folder_of(guest: Guest, host: Host) -> str:
    """Return ` in …/instances/3970aa18`, or that this folder does not exist, and if QEMU runs."""
    folders = [folder.path for folder in host.images.folders.get(guest.uuid, ())]
    own = [path for path in folders if path.endswith(guest.uuid)]
    top = host.images.tops[0] if host.images.tops else "the instances directory"
    where = f" in {phrase.place(own[0])}" if own else f": {top} has no folder of it"
    runs = f"; its QEMU still runs (PID {guest.process.pid})" if guest.process is not None else ""
    return f"{where}{runs}"


def expected_files(guest: Guest, record: Server | Instance) -> list[str]:
    """Return the names of the files that a server's folder must have: `disk`, `disk.config` …"""
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
    """Return source and format of each device that nova keeps in files."""
    devices = guest.instance.devices if guest.instance is not None else ()
    return [
        (device.get("source_type"), device.get("guest_format"))
        for device in devices or ()
        if device.get("destination_type") == "local"
    ]


def _has_another_root(guest: Guest) -> bool:
    """True if the domain has disks, and none of them is `disk` in the server's folder.

    Its root disk is in other storage, or in a folder of the domain's name (made before Grizzly).
    """
    try:
        disks = guest.domain.current.disks if guest.domain is not None else ()
    except UnheardError:
        return False
    return bool(disks) and not any(_is_in_its_folder(guest, disk) for disk in disks)


def _is_in_its_folder(guest: Guest, disk: Disk) -> bool:
    return (disk.source or "").endswith(f"/{guest.uuid}/disk")


def _lacks(guest: Guest, layer: str, noun: str) -> Evidence:
    """Evidence that a layer listed everything it has and lacks this object."""
    answer = guest.census.get(layer)
    if answer is None:
        raise UnheardError(f"{layer}: a full list was not collected")
    return hears(answer, layer, guest.uuid, **{noun: None})
