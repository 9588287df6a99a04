"""Limits of the host's kernel that stop the next start of a guest."""

from __future__ import annotations

import re

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import caught
from hoodsnap.facts.host.hypervisor import AIO_MOST, AIO_USED

LEAST, SINCE_7 = 128, 1024
"""Events that one QEMU reserves for its disks with io='native', and QEMU 7.0 and later; each of its
I/O threads with such disks reserves as many again."""

DEFAULT = 65536
"""The kernel's own limit."""

LISTED = 3
"""Number of guests whose definitions are shown as evidence."""

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
