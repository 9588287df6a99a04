"""The surroundings of a QEMU process: its namespaces and mounts, and the host that started it."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, in_a_container, migrating, same_host, task_in_flight
from hoodsnap.evidence import Severity, derives, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import known, value_of
from hoodsnap.facts.host.device import Mount, mount_of, read_mounts
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import place, several

SHARED = ("cgroup", "ipc", "pid", "time", "user", "uts")
"""Namespaces that QEMU shares with libvirt's daemon. libvirt gives it a mount namespace of its own,
and a guest's taps may be in another network namespace by design."""


@check(Severity.NOTE, traps=[in_a_container])
def qemu_in_another_namespace(
    guest: Guest, host: Host, domain: Domain, process: Process
) -> Problems:
    """A guest's QEMU is in another namespace than the host.

    libvirt starts QEMU in the host's namespaces, except for one of its own for mounts. In another
    PID or user namespace the numbers of the process and of its user mean something else on the
    host. Something else than the host's libvirt started such a process.

    Authority: The kernel.

    Traps: In a container all of this is normal, and nothing is compared. Network namespaces are not
    compared: a QEMU may have one by design. A collector that runs in a
    namespace of its own sees every guest in another one.

    Next: Compare the namespaces, and find out what started the process:

        ls -l /proc/PID/ns
        ls -l /proc/1/ns
        ps -ww -o ppid,user,lstart,args -p PID
        cat /proc/PID/cgroup

    If it is a guest of the host's libvirt, a stop and start at a time that suits the server's owner
    starts it in the host's namespaces. Check before that its volumes and ports are right:

        openstack server volume list UUID
        openstack port list --server UUID
        openstack server stop UUID
        openstack server start UUID

    It worked if the new process is in the host's namespaces:

        ls -l /proc/$(cat /run/libvirt/qemu/NAME.pid)/ns

    Not yet: Do not kill the process: it runs the guest. Do not restart libvirtd before it is clear
    which libvirt the guest belongs to.

    Source: libvirt qemu.conf, `namespaces`; Linux, namespaces(7).
    """
    if domain.id is None:
        return
    answer = host.bundle.last("host", "readlink /proc/self/ns/*", host.name)
    own = value_of(answer, "the collector's namespaces", dict[str, str])
    its = process.namespaces
    apart = [kind for kind in SHARED if kind in own and kind in its and own[kind] != its[kind]]
    if apart and answer is not None:
        yield problem(
            f"{guest.title}'s QEMU (PID {process.pid}) is in another {several(apart)} namespace "
            f"than host {host.name}",
            says(process, pid=process.pid, namespaces=", ".join(its[kind] for kind in apart)),
            hears(
                answer, "host", ".".join(apart[:1]), namespaces=", ".join(own[it] for it in apart)
            ),
        )


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, in_a_container])
def mount_differs_in_qemu(guest: Guest, host: Host, domain: Domain, process: Process) -> Problems:
    """QEMU has another file system mounted at the place of a guest's disk than the host.

    libvirt gives each QEMU mounts of its own, copied when the guest starts. If a share is mounted
    again on the host, or another one is mounted in its place, a running guest keeps the mount that
    it had. The guest's disk and the file that the host shows at the same path are then two files.
    Backups, snapshots and the next start use the host's.

    Authority: The kernel. The guest's data are where QEMU writes.

    Traps: In a container the same paths lead to other file systems. Mounts that don't contain a
    disk of the guest are not compared.

    Next: Compare the two mounts, and the files:

        grep FOLDER /proc/PID/mountinfo
        grep FOLDER /proc/self/mountinfo
        stat -L /proc/PID/root/PATH PATH

    If the two files differ, copy the guest's data out of the one that it uses while it runs:

        virsh blockcopy NAME TARGET --dest NEW --format FORMAT --transient-job --wait --finish

    It worked if the new file has the disk's size:

        qemu-img info -U -f FORMAT NEW

    Not yet: Do not unmount anything, and do not stop, hard-reboot or migrate the server before its
    newest data are safe.

    Source: libvirt qemu.conf, `namespaces`; Linux, mount_namespaces(7).
    """
    if domain.id is None:
        return
    query = f"/proc/{process.pid}/mountinfo"
    seen_by_qemu = process.said.get("mountinfo")
    theirs = read_mounts(value_of(seen_by_qemu, query, str))
    listing = host.bundle.last("kernel", "/proc/self/mountinfo", host.name)
    ours = host.devices.mounts
    seen: set[str] = set()
    for disk in domain.disks:
        path = disk.source or ""
        if disk.image.type != "file" or not path.startswith("/"):
            continue
        here, there = mount_of(path, ours), mount_of(path, theirs)
        if here is None or there is None or here.number == there.number or there.number in seen:
            continue
        # Only mounts along some folders are collected, which the question names.
        asked = seen_by_qemu is not None and f'"{here.folder}/"' in seen_by_qemu.query
        if there.folder != here.folder and not asked:
            continue
        seen.add(there.number)
        assert listing is not None  # noqa: S101 (it was read)
        yield problem(
            f"{guest.title}'s QEMU has {_words(there)} at {place(path)}, but host {host.name} has "
            f"{_words(here)} there",
            derives(process, "root_device", folder=there.folder, device=there.number),
            hears(listing, "kernel", here.folder, folder=here.folder, device=here.number),
            FOLDER=here.folder,
            PATH=path,
            TARGET=disk.target,
            FORMAT=disk.format,
        )


def _words(mount: Mount) -> str:
    return f"{mount.source} ({mount.number})"


@check(Severity.NOTE, traps=[building, task_in_flight, migrating, in_a_container])
def started_on_another_host(
    guest: Guest, host: Host, domain: Domain, log: Log, monitor: Monitor | None
) -> Problems:
    """The log of a running guest names another host, kernel or QEMU than there is now.

    libvirt notes the host name, the kernel and the version of QEMU in the guest's log when it
    starts QEMU. None of them can change under a running guest, except for the host's name: a host
    that was renamed under its guests loses them in nova. If the kernel or QEMU differs, the log is
    that of another host, and what it says about the guest is worth nothing.

    Authority: The kernel and QEMU.

    Traps: A short host name and a fully qualified one are the same host. A log without the start,
    or of a guest that has ended, is not compared.

    Next: Compare the log with the host:

        grep 'starting up' /var/log/libvirt/qemu/NAME.log
        hostname
        cat /proc/sys/kernel/osrelease
        virsh version

    If the host was renamed, give it its former name back while nova-compute is stopped, before the
    services on it are restarted.

    Not yet: Do not restart nova-compute while the host has another name than in nova. Do not remove
    the log.

    Source: libvirt src/qemu/qemu_domain.c `qemuDomainLogContextNew`; nova compute/manager.py
    `_check_for_host_rename`.
    """
    if domain.id is None or log.ended is not None:
        return
    for name, value, layer, query in (
        *_names(host, log),
        *_kernels(host, log),
    ):
        answer = host.bundle.last(layer, query, host.name)
        if answer is not None:
            now = str(answer.value).strip()
            yield problem(
                f"{guest.title} was started on {name} {value}, but host {host.name} has {name} "
                f"{now}",
                derives(log, "start", **{name.replace(" ", "_"): value}),
                hears(answer, "host", **{name.replace(" ", "_"): now}),
            )
    version = known(lambda: monitor.version) if monitor is not None else None
    noted = log.start.get("qemu version", "")
    if monitor is not None and version and noted and not noted.startswith(version):
        yield problem(
            f"{guest.title} was started with QEMU {noted}, but its monitor is that of {version}",
            derives(log, "start", qemu_version=noted),
            says(monitor, version=version),
        )


_Noted = tuple[str, str, str, str]
"""What libvirt noted, its value, and the layer and the query of the host's own."""


def _names(host: Host, log: Log) -> Iterator[_Noted]:
    noted = log.start.get("hostname")
    if noted is None:
        return
    for layer, query in (
        ("host", "hostname"),
        ("host", "hostname -f"),
        ("libvirt", "virsh hostname"),
    ):
        answer = host.bundle.last(layer, query, host.name)
        name = known(_word, answer, query)
        if name and not same_host(name, noted) and not same_host(noted, name):
            yield "host name", noted, layer, query
            return


def _word(answer: Answer | None, query: str) -> str:
    return value_of(answer, query, str).strip()


def _kernels(host: Host, log: Log) -> Iterator[_Noted]:
    noted, query = log.start.get("kernel"), "/proc/sys/kernel/osrelease"
    answer = host.bundle.last("kernel", query, host.name)
    release = known(_word, answer, query)
    if noted and release and noted != release:
        yield "kernel", noted, "kernel", query
