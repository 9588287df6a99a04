"""How large the guest is: what was sold, what was written down, what really runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import migrating, resizing, task_in_flight
from hoodsnap.facts.domain import Domain
from hoodsnap.facts.fact import Fact, Unheard
from hoodsnap.facts.guest import Guest
from hoodsnap.facts.instance import Instance
from hoodsnap.facts.monitor import Monitor
from hoodsnap.facts.process import Process
from hoodsnap.facts.server import Server
from hoodsnap.finding import Evidence, Severity, says

KIB_PER_MIB = 1024


class _Word(NamedTuple):
    """One layer's number, made comparable."""

    number: int
    evidence: Evidence


@check(Severity.ERROR, traps=[task_in_flight, resizing, migrating])
def memory_chain_mismatch(
    guest: Guest,
    server: Server | None,
    instance: Instance | None,
    domain: Domain | None,
    process: Process | None,
    monitor: Monitor | None,
) -> Problems:
    """The guest does not have the memory that its flavor sold.

    nova writes the flavor's MiB into the domain, libvirt hands them to QEMU as -m, and after that
    nobody looks again. A hand-edited domain or a resize that broke off half way leaves them apart:
    the guest uses more than placement has reserved, or less than its owner pays for.

    Authority: QEMU for what the guest has; the stored flavor for what it should have.

    Traps: a resize that waits for its confirmation; memory plugged in later is not counted, on no
    side; a balloon takes memory from the guest without changing its size, which is only a note.

    Next: `openstack server show UUID` (flavor), `virsh dumpxml NAME | grep -i memory`; the
    evidence shows the odd one out.

    Not yet: `openstack server reboot --hard`, which would write nova's value, before its volumes
    and ports are known to be right.

    Source: nova virt/libvirt/driver.py `_get_guest_config` (flavor.memory_mb * units.Ki); libvirt
    formatdomain, memory allocation.
    """
    words = [
        *_heard(server, "memory_mib", scale=KIB_PER_MIB),
        *_heard(instance, "memory_mib", scale=KIB_PER_MIB),
        *_heard(instance, "flavor_memory_mib", scale=KIB_PER_MIB),
        *_heard(domain, "memory_kib"),
        *_heard(process, "memory_kib"),
        *_heard(monitor, "memory_kib"),
    ]
    # libvirt rounds up to whole MiB, and so does QEMU's -m.
    yield from _ballooned(domain)
    yield from _apart(guest, words, lambda kib: -(-kib // KIB_PER_MIB))


def _ballooned(domain: Domain | None) -> Iterator[Problem]:
    try:
        left = domain.current_memory_kib if domain is not None else 0
        if domain is not None and left < domain.memory_kib:
            sizes = says(domain, memory_kib=domain.memory_kib, current_memory_kib=left)
            yield Problem(Severity.NOTE, (sizes,))
    except Unheard:
        return  # of one that is off there is nothing to tell


@check(Severity.ERROR, traps=[task_in_flight, resizing, migrating])
def vcpu_chain_mismatch(
    guest: Guest,
    server: Server | None,
    instance: Instance | None,
    domain: Domain | None,
    process: Process | None,
    monitor: Monitor | None,
) -> Problems:
    """The guest does not have the vCPUs that its flavor sold.

    nova writes the flavor's count into the domain, libvirt hands it to QEMU as -smp, and after
    that nobody looks again. A hand-edited domain or a resize that broke off half way leaves them
    apart.

    Authority: QEMU for what the guest has; the stored flavor for what it should have.

    Traps: a resize that waits for its confirmation; vCPUs switched off by `virsh setvcpus` are
    still there, and only QEMU's monitor counts them less.

    Next: `openstack server show UUID` (flavor), `virsh vcpucount NAME`; the evidence shows
    the odd one out.

    Not yet: `openstack server reboot --hard`, which would write nova's value, before its volumes
    and ports are known to be right.

    Source: nova virt/libvirt/driver.py `_get_guest_config`, virt/hardware.py; QEMU manual, -smp.
    """
    words = [
        *_heard(server, "vcpus"),
        *_heard(instance, "vcpus"),
        *_heard(instance, "flavor_vcpus"),
        *_heard(domain, "vcpus"),
        *_heard(process, "max_vcpus"),
    ]
    yield from _apart(guest, words, lambda count: count)
    if monitor is not None and domain is not None and monitor.vcpus != domain.current_vcpus:
        evidence = (
            says(domain, current_vcpus=domain.current_vcpus),
            says(monitor, vcpus=monitor.vcpus),
        )
        yield Problem(Severity.WARNING, evidence)


def _heard(fact: Fact | None, field: str, scale: int = 1) -> Iterator[_Word]:
    """The fact's number if it told one. What one layer keeps to itself spoils no comparison of
    others."""
    try:
        number = getattr(fact, field) if fact is not None else None
    except Unheard:
        return
    if number is not None and fact is not None:
        yield _Word(number * scale, says(fact, **{field: number}))


def _apart(
    guest: Guest, words: list[_Word], comparable: Callable[[int], int]
) -> Iterator[tuple[Evidence, ...]]:
    if len({word.evidence.layer for word in words}) == 1:
        # Alone it proves nothing; whether others would have had a word depends on who was heard.
        for layer in ("nova-db", "libvirt", "kernel"):
            if layer in guest.unheard:
                raise Unheard(guest.unheard[layer])
    elif len({comparable(word.number) for word in words}) > 1:
        yield tuple(word.evidence for word in words)
