"""Memory, vCPUs and disks of the guest: the flavor's, the recorded and the actual size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import building, migrating, resizing, task_in_flight
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, UnheardError, UnreadableError, integer, text
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process

F = TypeVar("F", bound=Fact)

KIB_PER_MIB = 1024
MIB, GIB = 1 << 20, 1 << 30


class _Word(NamedTuple):
    """One layer's number in a common unit."""

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
    """The guest's memory does not match its flavor.

    nova writes the flavor's MiB into the domain, libvirt passes them to QEMU as -m, and nothing
    checks them again. After a domain was edited by hand or a resize stopped half way, they differ:
    the guest uses more than placement has allocated, or less than its owner pays for.

    Authority: QEMU, for what the guest has; the stored flavor, for what it should have.

    Traps: A resize that waits for its confirmation. Memory plugged in later is not counted in any
    layer. A balloon takes memory from the guest without changing its size, which is only a note.

    Next: Find the layer that differs in the evidence, and check the flavor and the domain:

        openstack server show UUID -c flavor
        virsh dumpxml NAME | grep -i memory

    Then, if nova's value is right, stop and start the server at a time that suits its owner, which
    writes it again:

        openstack server stop UUID
        openstack server start UUID

    Not yet: Do not stop and start or hard-reboot the server, which writes nova's value, before its
    volumes and ports are confirmed to be right.

    Source: nova virt/libvirt/driver.py `_get_guest_config` (flavor.memory_mb * units.Ki); libvirt
    formatdomain, memory allocation.
    """
    words = [
        *_heard(server, lambda it: says(it, memory_mib=it.memory_mib), KIB_PER_MIB),
        *_heard(instance, lambda it: says(it, memory_mib=it.memory_mib), KIB_PER_MIB),
        *_heard(instance, lambda it: says(it, flavor_memory_mib=it.flavor_memory_mib), KIB_PER_MIB),
        *_heard(domain, lambda it: says(it, memory_kib=it.memory_kib)),
        *_heard(process, lambda it: says(it, memory_kib=it.memory_kib)),
        *_heard(monitor, lambda it: says(it, memory_kib=it.memory_kib)),
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
    except UnheardError:
        return  # a domain that is off has no balloon


@check(Severity.ERROR, traps=[task_in_flight, resizing, migrating])
def vcpu_chain_mismatch(
    guest: Guest,
    server: Server | None,
    instance: Instance | None,
    domain: Domain | None,
    process: Process | None,
    monitor: Monitor | None,
) -> Problems:
    """The guest's number of vCPUs does not match its flavor.

    nova writes the flavor's count into the domain, libvirt passes it to QEMU as -smp, and nothing
    checks it again. After a domain was edited by hand or a resize stopped half way, the counts
    differ.

    Authority: QEMU, for what the guest has; the stored flavor, for what it should have.

    Traps: A resize that waits for its confirmation. vCPUs switched off by `virsh setvcpus` still
    exist; only QEMU's monitor leaves them out.

    Next: Find the layer that differs in the evidence, and check the flavor and the domain:

        openstack server show UUID -c flavor
        virsh vcpucount NAME

    Then, if nova's value is right, stop and start the server at a time that suits its owner, which
    writes it again:

        openstack server stop UUID
        openstack server start UUID

    Not yet: Do not stop and start or hard-reboot the server, which writes nova's value, before its
    volumes and ports are confirmed to be right.

    Source: nova virt/libvirt/driver.py `_get_guest_config`, virt/hardware.py; QEMU manual, -smp.
    """
    words = [
        *_heard(server, lambda it: says(it, vcpus=it.vcpus)),
        *_heard(instance, lambda it: says(it, vcpus=it.vcpus)),
        *_heard(instance, lambda it: says(it, flavor_vcpus=it.flavor_vcpus)),
        *_heard(domain, lambda it: says(it, vcpus=it.vcpus)),
        *_heard(process, lambda it: says(it, max_vcpus=it.max_vcpus)),
    ]
    yield from _apart(guest, words, lambda count: count)
    if monitor is not None and domain is not None and monitor.vcpus != domain.current_vcpus:
        evidence = (
            says(domain, current_vcpus=domain.current_vcpus),
            says(monitor, vcpus=monitor.vcpus),
        )
        yield Problem(Severity.WARNING, evidence)


@check(Severity.ERROR, traps=[task_in_flight, resizing, migrating, building])
def disk_size_vs_flavor(guest: Guest, instance: Instance, images: tuple[Image, ...]) -> Problems:
    """The size of the guest's disk does not match its flavor.

    nova creates the root disk with the flavor's root_gb and never checks it again. A resize that
    failed half way leaves the disk smaller than the owner pays for; `qemu-img resize` by hand
    leaves it larger than placement has allocated.

    Authority: The disk images, for what the guest has; the stored flavor, for what it should have.

    Traps: A server that boots from a volume. With root_gb 0, the disk has the image's size. A
    resize that waits for its confirmation. Blank disks have the size that was requested at boot.

    Next: Compare the disk with the flavor, and check the server's history; FORMAT is the disk's
    format in `disk.info`, in the server's folder:

        qemu-img info -U -f FORMAT DISK
        openstack server show UUID -c flavor
        openstack server event list UUID

    Then, while the guest is off, grow a disk that is too small:

        qemu-img resize -f FORMAT DISK SIZE

    Not yet: Do not run `qemu-img resize` without `-f`, on a disk in use, or with `--shrink`. Do not
    run `openstack server resize` again.

    Source: nova virt/libvirt/imagebackend.py; nova bug 1558880; OSSA-2026-002.
    """
    folder = f"/{guest.uuid}/"
    own = [image for image in images if folder in image.path]
    for image in own:
        if image.path.endswith(f"{folder}disk") and not instance.boots_from_volume:
            sold = instance.flavor_root_gb
            if sold:
                flavor = says(instance, flavor_root_gb=sold)
                yield from _other_size(image, sold * GIB, flavor)
    for suffix, size in _blank_disks(instance):
        for image in own:
            if image.path.endswith(f"{folder}disk.{suffix}"):
                yield from _other_size(image, size, says(instance, devices=f"{suffix}: {size}"))


def _other_size(image: Image, size: int, sold: Evidence) -> Problems:
    if image.virtual_size != size:
        evidence = (sold, says(image, path=image.path, virtual_size=image.virtual_size))
        smaller = image.virtual_size < size
        yield Problem(Severity.ERROR if smaller else Severity.WARNING, evidence)


def _blank_disks(instance: Instance) -> Iterator[tuple[str, int]]:
    """Yield `swap` and `eph0` …, with the bytes that were requested for each."""
    if instance.devices is None:
        raise UnheardError("the instance's block devices were not collected")
    ephemerals = []
    for device in instance.devices:
        size = integer(device, "volume_size")
        words = (text(device, "source_type"), text(device, "destination_type"))
        if words != ("blank", "local") or not size:
            continue
        if text(device, "guest_format") == "swap":
            yield "swap", size * MIB
        else:
            ephemerals.append((text(device, "device_name") or "", size))
    # nova numbers them in the order of the devices: vdb is eph0, vdc is eph1.
    for number, (_, size) in enumerate(sorted(ephemerals)):
        yield f"eph{number}", size * GIB


def _heard(fact: F | None, word: Callable[[F], Evidence], scale: int = 1) -> Iterator[_Word]:
    """Yield the fact's number if it was collected.

    A number that was not collected does not stop the comparison of the others; a number that can't
    be read does.
    """
    try:
        evidence = word(fact) if fact is not None else None
    except UnreadableError:
        raise
    except UnheardError:
        return
    for _, number in evidence.said if evidence is not None else ():
        if evidence is not None and isinstance(number, int):
            yield _Word(number * scale, evidence)


def _apart(
    guest: Guest, words: list[_Word], comparable: Callable[[int], int]
) -> Iterator[tuple[Evidence, ...]]:
    if len({word.evidence.layer for word in words}) == 1:
        # One layer alone proves nothing. The check is skipped if another layer was not collected.
        for layer in ("nova-db", "libvirt", "kernel"):
            if layer in guest.unheard:
                raise UnheardError(guest.unheard[layer])
    elif len({comparable(word.number) for word in words}) > 1:
        yield tuple(word.evidence for word in words)
