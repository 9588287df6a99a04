"""Limits of the kernel that stop the next start of a guest, or the next file that is opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import starmap

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.facts.host.daemon import Daemon
from hoodsnap.facts.host.hypervisor import AIO_MOST, AIO_USED
from hoodsnap.facts.process.process import FileLimit, Process, read_file_limit

LEAST, SINCE_7 = 128, 1024
"""Events that one QEMU reserves for its disks with io='native', and QEMU 7.0 and later; each of its
I/O threads with such disks reserves as many again."""

DEFAULT = 65536
"""The kernel's own limit."""

LISTED = 3
"""Number of guests whose definitions are shown as evidence."""

FULL = 0.9
"""Part of the files that a process may have open from which on it has nearly all of them."""

ENOUGH_FILES = 65536

NAMED = 2
"""Number of guests that the headline names."""


@check(Severity.WARNING)
def asynchronous_io_used_up(host: Host, cloud: Cloud) -> Problems:
    """The host has too little asynchronous I/O left for the next guest with io='native' disks.

    The kernel lets all programs of a host reserve a limited number of events of asynchronous I/O
    (`fs.aio-max-nr`). Each QEMU with an io='native' disk reserves some when it opens the disk, and
    nova uses io='native' for block devices, preallocated files and volumes on NFS. If too few are
    left, such a guest does not start, and such a volume can't be attached: "Could not set up Linux
    AIO: Resource temporarily unavailable". Running guests keep what they have. A guest that stops
    gives it back, and another program may take it before the guest starts again.

    Authority: The kernel's counter and limit.

    Traps: The limit belongs to the whole host: a database, or another program outside of the
    guests, may have reserved the most. QEMU with `aio=io_uring` or threads reserves none. A host
    without io='native' disks does not need any.

    Next: Check the counter, the limit, where it is set, and which programs use asynchronous I/O:

        cat /proc/sys/fs/aio-nr /proc/sys/fs/aio-max-nr
        grep -r aio-max-nr /etc/sysctl.conf /etc/sysctl.d
        grep -lF '/[aio]' /proc/[0-9]*/maps

    Then raise the limit, which disturbs nothing and takes effect at once, and write the same line
    into a file in `/etc/sysctl.d`, so that it outlasts a reboot:

        sysctl -w fs.aio-max-nr=EVENTS

    It worked if the limit is well above the counter:

        cat /proc/sys/fs/aio-nr /proc/sys/fs/aio-max-nr

    Not yet: Do not stop, hard-reboot or migrate guests with io='native' disks to this host before
    the limit is raised.

    Source: Linux Documentation/admin-guide/sysctl/fs.rst, `aio-nr`; io_setup(2), `EAGAIN`; QEMU
    block/linux-aio.c `MAX_EVENTS`; nova virt/libvirt/volume/nfs.py, `driver_io`.
    """
    native = [found for guest in cloud.guests_of(host) if (found := _native(guest)) is not None]
    if not native:
        return
    used, most = host.hypervisor.aio_events
    counter, limit = (host.hypervisor.answer("kernel", path) for path in (AIO_USED, AIO_MOST))
    left, need = max(most - used, 0), _needed(host)
    if left >= need or counter is None or limit is None:
        return
    names = phrase.several([guest.title for guest, *_ in native], NAMED)
    yield problem(
        f"{host.name} has {left} of {most} events of asynchronous I/O left, and the next guest with"
        f" disks like those of {names} takes {need}",
        hears(counter, "kernel", AIO_USED, aio_nr=used),
        hears(limit, "kernel", AIO_MOST, aio_max_nr=most),
        *(
            says(domain, inactive_disks=f"{disk.target} {disk.source}").and_so(io=disk.io)
            for _, domain, disk in native[:LISTED]
        ),
        EVENTS=max(DEFAULT, 2 * most, 2 * used),
    )


def _native(guest: Guest) -> tuple[Guest, Domain, Disk] | None:
    """Return the guest's first disk with io='native'; None without one."""
    domain = guest.domain
    if domain is None:
        return None
    try:
        defined = domain.inactive_disks if domain.persistent else domain.disks
    except Exception as error:
        caught(error)
        return None  # the definition's own checks report why
    return next(((guest, domain, disk) for disk in defined if disk.io == "native"), None)


def _needed(host: Host) -> int:
    """Number of events that a start takes at least."""
    for answer in host.bundle.asked("host", "qemu-system-", host.name):
        found = re.search(r"version (\d{1,3})\.", str(answer.value), re.ASCII)
        if found is not None and int(found[1]) >= 7:
            return SINCE_7
    return LEAST


@check(Severity.WARNING)
def open_files_used_up(guest: Guest, process: Process) -> Problems:
    """QEMU has nearly as many files open as it may: soon it can open no further one.

    QEMU opens a descriptor for each disk, network queue, console and connection, and for each queue
    of a virtio device several more. At the limit, a disk or a network card can't be attached, a
    console or a migration can't connect, and QEMU may stop responding to libvirt: "Too many open
    files". libvirt sets the limit when it starts QEMU; many volumes, many queues and many network
    cards need more.

    Authority: The kernel.

    Traps: A guest below the limit notices nothing. Some descriptors are open only for a moment,
    during a migration or a snapshot.

    Next: Check the number, the limit, and what most of the descriptors are:

        ls /proc/PID/fd | wc -l
        grep "Max open files" /proc/PID/limits
        ls -l /proc/PID/fd
        grep -E "^ *max_files" /etc/libvirt/qemu.conf

    Then raise the limit of the running QEMU, which disturbs nothing and takes effect at once, and
    set `max_files` in `/etc/libvirt/qemu.conf` for later starts:

        prlimit --pid PID --nofile=FILES:FILES

    It worked if the limit is well above the number:

        grep "Max open files" /proc/PID/limits

    Not yet: Do not attach volumes or ports to the server before the limit is raised, and do not
    migrate it.

    Source: Linux getrlimit(2), `RLIMIT_NOFILE`; libvirt qemu.conf, `max_files`.
    """
    used, limit = process.open_files, process.file_limit
    if _is_nearly_used_up(used, limit):
        yield problem(
            f"{guest.title}'s QEMU (process {process.pid}) has {used} of {limit.soft} files open",
            says(process, pid=process.pid, open_files=used).and_so(most_open_files=limit.soft),
            FILES=_raised(limit),
        )


@check(Severity.WARNING)
def daemon_open_files_used_up(host: Host) -> Problems:
    """A daemon has nearly as many files open as it may: soon it accepts no connections.

    libvirtd has several descriptors open for each guest and for each client, ovs-vswitchd for each
    port, and nova's services for each connection. At the limit, they log "Too many open files":
    clients can't connect, guests can't start, and ports are not wired. Guests that run continue.

    Authority: The kernel.

    Traps: A daemon may need many descriptors for a moment; it counts only if it had them each time
    that the daemons were listed.

    Next: Check the number, the limit, and what most of the descriptors are:

        ls /proc/DAEMON/fd | wc -l
        grep "Max open files" /proc/DAEMON/limits
        ls -l /proc/DAEMON/fd

    Then raise the limit of the running daemon, which disturbs nothing and takes effect at once, and
    set `LimitNOFILE=` in its systemd unit (or the limit of its container) for later starts:

        prlimit --pid DAEMON --nofile=FILES:FILES

    If the number still grows, the daemon leaks descriptors: update it.

    It worked if the limit is well above the number:

        grep "Max open files" /proc/DAEMON/limits

    Not yet: Do not restart the daemon before you have seen which descriptors are open.

    Source: Linux getrlimit(2), `RLIMIT_NOFILE`; systemd.exec(5), `LimitNOFILE=`.
    """
    daemons = host.daemons
    counted = [one for same in daemons.by_name.values() for one in same if one.limit is not None]
    if daemons.by_name and not counted:
        raise UnheardError("the open files of the daemons were not counted")
    for name in dict.fromkeys(one.name for one in counted):
        for pid, looks in daemons.looks_at(name).items():
            counts = list(_open_files(looks))
            if len(counts) < len(looks) or not all(starmap(_is_nearly_used_up, counts)):
                continue
            used, limit = counts[-1]
            yield problem(
                f"{name} on {host.name} (process {pid}) has {used} of {limit.soft} files open",
                hears(daemons.census, "daemons", name, daemon=name, pid=pid).and_so(
                    open_files=used, most_open_files=limit.soft
                ),
                DAEMON=pid,
                FILES=_raised(limit),
            )


def _open_files(looks: Iterable[Daemon]) -> Iterator[tuple[int, FileLimit]]:
    """Yield the number of open files and the limit of a daemon, if both were collected."""
    for one in looks:
        if one.open_files is not None and one.limit is not None:
            yield one.open_files, read_file_limit(one.limit)


def _is_nearly_used_up(used: int, limit: FileLimit) -> bool:
    return limit.soft is not None and used >= FULL * limit.soft


def _raised(limit: FileLimit) -> int:
    """Return a limit to set: the hard one, or four times the soft one if that is more.

    Only a process with CAP_SYS_RESOURCE may raise the hard limit.
    """
    wanted = 4 * (limit.soft or 0)
    if limit.hard is not None and limit.hard >= wanted:
        return limit.hard
    return max(ENOUGH_FILES, wanted)
