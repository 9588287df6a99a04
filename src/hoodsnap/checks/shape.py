"""Memory, vCPUs and disks of the guest: the flavor's, the recorded and the actual size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, resizing, task_in_flight
from hoodsnap.evidence import Evidence, Severity, derives, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.network_disks import network_name
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, UnheardError, UnreadableError, integer, known, text
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import counted, several, sizes

F = TypeVar("F", bound=Fact)

KIB = 1024
KIB_PER_MIB = 1024
MIB, GIB = 1 << 20, 1 << 30


class _Word(NamedTuple):
    """One layer's number in a common unit."""

    number: int
    place: str
    """Source of the number, in a headline's words: `libvirt`."""
    evidence: Evidence


API, ROW, FLAVOR = "the nova API", "its database row", "its stored flavor"
LIBVIRT, QEMU, MONITOR = "libvirt", "QEMU", "QEMU's monitor"


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

    Next: Check the flavor, the domain and the server's history:

        openstack server show UUID -c flavor
        virsh dominfo NAME
        openstack server event list UUID

    If only the database row differs, the guest is right, and `flavor-three-way-drift` shows what to
    do. If the guest differs, a stop and start defines its domain again from all of nova's records.
    Check first that the server's volumes and ports are right:

        openstack server volume list UUID
        openstack port list --server UUID

    Then stop and start the server, which ends the guest and boots it again:

        openstack server stop GUEST
        openstack server start GUEST

    It worked if the domain has the flavor's memory:

        virsh dominfo NAME

    Not yet: Do not change the memory with `virsh setmem` or `virsh edit`: nova and placement do not
    notice.

    Source: nova virt/libvirt/driver.py `_get_guest_config` (flavor.memory_mb * units.Ki); libvirt
    formatdomain, memory allocation.
    """
    words = [
        *_heard(server, API, lambda it: says(it, memory_mib=it.memory_mib), KIB_PER_MIB),
        *_heard(instance, ROW, lambda it: says(it, memory_mib=it.memory_mib), KIB_PER_MIB),
        *_heard(
            instance,
            FLAVOR,
            lambda it: says(it, flavor_memory_mib=it.flavor_memory_mib),
            KIB_PER_MIB,
        ),
        *_heard(domain, LIBVIRT, lambda it: says(it, memory_kib=it.memory_kib)),
        *_heard(process, QEMU, lambda it: says(it, memory_kib=it.memory_kib)),
        *_heard(monitor, MONITOR, lambda it: says(it, memory_kib=it.memory_kib)),
    ]
    yield from _ballooned(guest, domain)
    # libvirt rounds up to whole MiB, and so does QEMU's -m.
    if _differ(guest, words, lambda kib: -(-kib // KIB_PER_MIB)):
        shown = sizes(*(word.number * KIB for word in words))
        had = dict(zip((word.number for word in words), shown, strict=True))
        headline = f"{guest.title} has {_odd_first(words, had, ' of memory')}"
        yield problem(headline, *(_in_mib(word) for word in words), **_repair(guest, words))


def _repair(guest: Guest, words: list[_Word]) -> dict[str, Any]:
    """Return the placeholders for what to repair: the guest, or its database row.

    If only the row differs, the guest is right, and flavor-three-way-drift explains the finding.
    """
    is_right = len({word.number for word in words if word.place != ROW}) == 1
    return {"GUEST": "" if is_right else guest.uuid, "EDITED": guest.uuid if is_right else ""}


def _in_mib(word: _Word) -> Evidence:
    """Return the evidence, with MiB beside a number in KiB."""
    if word.evidence.said[0][0] != "memory_kib":
        return word.evidence
    whole, rest = divmod(word.number, KIB_PER_MIB)
    return word.evidence.and_so(memory_mib=whole if not rest else word.number / KIB_PER_MIB)


def _ballooned(guest: Guest, domain: Domain | None) -> Iterator[Problem]:
    try:
        left = domain.current_memory_kib if domain is not None else 0
        if domain is not None and left < domain.memory_kib:
            kept, whole = sizes(left * KIB, domain.memory_kib * KIB)
            yield problem(
                f"{guest.title} has {kept} of its {whole} of memory: a balloon took the rest",
                says(domain, memory_kib=domain.memory_kib, current_memory_kib=left),
                severity=Severity.NOTE,
            )
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

    Next: Check the flavor, the domain and the server's history:

        openstack server show UUID -c flavor
        virsh vcpucount NAME
        openstack server event list UUID

    If only the database row differs, the guest is right, and `flavor-three-way-drift` shows what to
    do. If the guest differs, a stop and start defines its domain again from all of nova's records.
    Check first that the server's volumes and ports are right:

        openstack server volume list UUID
        openstack port list --server UUID

    Then stop and start the server, which ends the guest and boots it again:

        openstack server stop GUEST
        openstack server start GUEST

    It worked if the domain has the flavor's vCPUs:

        virsh vcpucount NAME

    Not yet: Do not change the vCPUs with `virsh setvcpus` or `virsh edit`: nova and placement do
    not notice.

    Source: nova virt/libvirt/driver.py `_get_guest_config`, virt/hardware.py; QEMU manual, -smp.
    """
    words = [
        *_heard(server, API, lambda it: says(it, vcpus=it.vcpus)),
        *_heard(instance, ROW, lambda it: says(it, vcpus=it.vcpus)),
        *_heard(instance, FLAVOR, lambda it: says(it, flavor_vcpus=it.flavor_vcpus)),
        *_heard(domain, LIBVIRT, lambda it: says(it, vcpus=it.vcpus)),
        *_heard(process, QEMU, lambda it: says(it, max_vcpus=it.max_vcpus)),
    ]
    if _differ(guest, words, lambda count: count):
        had = {word.number: counted(word.number, "vCPU") for word in words}
        headline = f"{guest.title} has {_odd_first(words, had)}"
        yield problem(headline, *(word.evidence for word in words), **_repair(guest, words))
    if monitor is not None and domain is not None and monitor.vcpus != domain.current_vcpus:
        yield problem(
            f"{guest.title} has {counted(domain.current_vcpus, 'vCPU')} plugged in in libvirt, but "
            f"{monitor.vcpus} in QEMU's monitor",
            says(domain, current_vcpus=domain.current_vcpus),
            says(monitor, vcpus=monitor.vcpus),
            severity=Severity.WARNING,
        )


@check(Severity.ERROR, traps=[task_in_flight, resizing, migrating, building])
def disk_size_vs_flavor(
    guest: Guest,
    instance: Instance,
    domain: Domain | None,
    images: tuple[Image, ...],
    monitor: Monitor | None,
) -> Problems:
    """The size of the guest's disk does not match its flavor.

    nova creates the root disk with the flavor's root_gb and never checks it again. A resize that
    failed half way leaves the disk smaller than the owner pays for; `qemu-img resize` by hand
    leaves it larger than placement has allocated.

    Authority: The disk images, for what the guest has; the stored flavor, for what it should have.

    Traps: A server that boots from a volume. With root_gb 0, the disk has the image's size. A
    resize that waits for its confirmation. Blank disks have the size that was requested at boot.
    The size of an rbd image is known only from QEMU's monitor.

    Next: Compare the disk with the flavor, and check the server's history:

        qemu-img info -U -f FORMAT DISK
        openstack server show UUID -c flavor
        openstack server event list UUID

    If the disk is larger than the flavor, the guest may use all of it: leave the disk as it is, and
    give the server a flavor of its size at a time that suits its owner.

    Then, if the disk is smaller than the flavor, and while the guest is off, grow the disk, which
    keeps its contents:

        qemu-img resize -f FORMAT DISK SIZE

    It worked if the disk's virtual size is the flavor's:

        qemu-img info -U -f FORMAT DISK

    Not yet: Do not resize a disk that is in use, or with `--shrink`. Do not run `openstack server
    resize` while the disk is smaller than the flavor.

    Source: nova virt/libvirt/imagebackend.py; nova bug 1558880; OSSA-2026-002.
    """
    folder = f"/{guest.uuid}/"
    own = [image for image in images if folder in image.path]
    for image in own:
        if image.path.endswith(f"{folder}disk") and not instance.boots_from_volume:
            sold = instance.flavor_root_gb
            if sold:
                flavor = says(instance, flavor_root_gb=sold)
                named = f"{guest.title}'s root disk"
                yield from _other_size(image, sold * GIB, flavor, named, "its flavor has")
    for suffix, size in _blank_disks(instance):
        for image in own:
            if image.path.endswith(f"{folder}disk.{suffix}"):
                named = f"{guest.title}'s disk.{suffix}"
                blank = derives(instance, "devices", **{f"{suffix}_size": size})
                yield from _other_size(image, size, blank, named, "its owner requested")
    if domain is not None and not instance.boots_from_volume:
        yield from _network_root(guest, instance, domain, monitor)


def _network_root(
    guest: Guest, instance: Instance, domain: Domain, monitor: Monitor | None
) -> Problems:
    """Compare a root disk in rbd. Raise `UnheardError` if nothing tells its size."""
    root = f"{guest.uuid}_disk"
    for disk in domain.current.disks:
        name = network_name(disk)
        if name is None or name[1].rpartition("/")[2] != root:
            continue
        sold = instance.flavor_root_gb
        nodes = [device.node for device in monitor.disks if device.node] if monitor else []
        for node in nodes:
            size = node.virtual_size
            if monitor is None or size is None or root not in re.split(r'[":/,]', node.file or ""):
                continue
            if sold and size != sold * GIB:
                has, should = sizes(size, sold * GIB)
                yield problem(
                    f"{guest.title}'s root disk has {has}, but its flavor has {should}",
                    says(instance, flavor_root_gb=sold).and_so(size=should),
                    says(monitor, disks=node.file).and_so(size=has),
                    severity=Severity.ERROR if size < sold * GIB else Severity.WARNING,
                    DISK="",
                    SIZE="",
                )
            return
        storage = "Ceph" if name[0] == "rbd" else "its storage"
        raise UnheardError(
            f"{storage} was not asked about {name[0]} image {name[1]}: its size, parent and locks"
            " are unknown"
        )


def _other_size(image: Image, wanted: int, sold: Evidence, named: str, asked: str) -> Problems:
    found = image.virtual_size
    if found != wanted:
        has, should = sizes(found, wanted)
        yield problem(
            f"{named} has {has}, but {asked} {should}",
            sold.and_so(size=should),
            says(image, path=image.path, virtual_size=found).and_so(size=has),
            severity=Severity.ERROR if found < wanted else Severity.WARNING,
            DISK=image.path,
            FORMAT=known(lambda: image.declared),
            SIZE=wanted if found < wanted else "",
        )


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


def _heard(
    fact: F | None, place: str, word: Callable[[F], Evidence], scale: int = 1
) -> Iterator[_Word]:
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
            yield _Word(number * scale, place, evidence)


def _differ(guest: Guest, words: list[_Word], comparable: Callable[[int], int]) -> bool:
    if len({word.evidence.layer for word in words}) == 1:
        # One layer alone proves nothing. The check is skipped if another layer was not collected.
        for layer in ("nova-db", "libvirt", "kernel"):
            if layer in guest.unheard:
                raise UnheardError(guest.unheard[layer])
        return False
    return len({comparable(word.number) for word in words}) > 1


def _odd_first(words: list[_Word], shown: Mapping[int, str], what: str = "") -> str:
    """Return who has which number: `4 vCPUs in its database row, but 1 vCPU in libvirt and QEMU`.

    The number that fewest have comes first; of equally rare ones the guest's, which is last.
    """
    places: dict[str, list[str]] = {}
    for word in reversed(words):
        places.setdefault(shown[word.number], []).insert(0, word.place)
    rare, *others = sorted(places, key=lambda number: len(places[number]))
    ours = {word.place for word in words} & {API, ROW, FLAVOR}
    for number, named in places.items():
        if ours and ours <= {*named}:
            places[number] = ["nova", *(place for place in named if place not in ours)]
    apart = [f"{number} in {several(places[number], len(words))}" for number in others]
    return f"{rare}{what} in {several(places[rare], len(words))}, but {several(apart)}"
