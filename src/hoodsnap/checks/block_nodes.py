"""Block nodes: the images that QEMU has open, as libvirt, the command line and QEMU report them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, disk_is_copied, migrating, task_in_flight
from hoodsnap.evidence import Severity, derives
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import OpenedImage
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, known
from hoodsnap.facts.process.command_line import CommandLine
from hoodsnap.facts.process.monitor import BlockDevice, BlockNode, Monitor
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import place, sizes

FILES = frozenset(["file", "host_device"])
"""Drivers of nodes whose name is a path."""

PROTOCOLS = {"file": "file", "block": "host_device"}
"""libvirt's type of an image → QEMU's driver for the place of its bytes."""

FLAGS: Mapping[str, Mapping[str, bool]] = {
    "none": {"direct": True, "ignores_flushes": False},
    "directsync": {"direct": True, "ignores_flushes": False},
    "writeback": {"direct": False, "ignores_flushes": False},
    "writethrough": {"direct": False, "ignores_flushes": False},
    "unsafe": {"direct": False, "ignores_flushes": True},
}
"""libvirt's cache mode → what QEMU makes of it: bypasses the page cache, ignores flushes."""

SETTINGS = {
    "direct": "O_DIRECT",
    "ignores_flushes": "ignored flushes",
    "read_only": "read-only",
    "detect_zeroes": "detection of zeros",
}
"""Name of a setting in evidence → its name in a headline."""

FORMATS = frozenset(["qcow2", "raw"])

SECTOR = 512
"""Bytes to which QEMU rounds the size of a raw image up."""

Setting = Mapping[str, object]
"""Name of a setting of a node → its value; a setting that is not reported is left out."""


class _Source(NamedTuple):
    """What one layer reports of the nodes."""

    words: str
    fact: Fact
    field: str
    """The fact's field that was read."""
    nodes: Mapping[str, Setting]


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, disk_is_copied])
def block_node_differs(
    guest: Guest, domain: Domain, process: Process, monitor: Monitor | None
) -> Problems:
    """An image of a running guest is open in QEMU in another way than libvirt has it.

    libvirt numbers the images of a running guest, and names QEMU's block nodes after the numbers.
    Every command about a disk (a snapshot, a resize, an attach, a commit) names such a node. If the
    same name stands for another file, format or cache mode in QEMU, a command works on the wrong
    image, or a guest whose disk was sold as safe loses its last writes when the host crashes.

    Authority: QEMU, for the image that the guest uses.

    Traps: A command line shows the start; nodes that were added later are compared only between
    libvirt and QEMU's monitor. A node without a number is not compared, nor is the format of an
    encrypted disk. A block job adds nodes and takes others away.

    Next: Compare libvirt's disks with the nodes that QEMU was started with, and its open files:

        virsh dumpxml NAME
        virsh domblklist --details NAME
        tr '\\0' '\\n' < /proc/PID/cmdline | grep node-name
        ls -l /proc/PID/fd

    If the file differs, keep both files: the one that QEMU has open has the guest's newest data.

    If only the cache mode differs, a stop and start at a time that suits the server's owner starts
    QEMU with libvirt's. Check before that the server's volumes and ports are right:

        openstack server volume list UUID
        openstack port list --server UUID
        openstack server stop UUID
        openstack server start UUID

    It worked if the new process has libvirt's nodes:

        tr '\\0' '\\n' < /proc/$(cat /run/libvirt/qemu/NAME.pid)/cmdline | grep node-name

    Not yet: Do not attach, detach, resize or snapshot a disk of the guest before it is clear which
    image the name stands for.

    Source: libvirt src/qemu/qemu_block.c, qemu_domain.c `qemuDomainDiskCachemodeFlags`; QEMU's QMP
    reference, query-named-block-nodes.
    """
    if domain.id is None:
        return
    nodes = known(lambda: monitor.nodes) if monitor is not None else None
    apart = list(_apart(_sources(domain, process, monitor if nodes else None)))
    if apart:
        name, setting, words = apart[0]
        (first, one), (second, two) = words
        called = SETTINGS.get(setting, setting)
        more = f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
        yield problem(
            f"{guest.title}'s block node {name} has {called} {_shown(one)} {first.words}, but "
            f"{_shown(two)} {second.words}{more}",
            *(
                derives(source.fact, source.field, node=name, **{setting: value})
                for source, value in words
            ),
            DISK=_of_one_format(domain, {(node, setting) for node, setting, _ in apart}),
        )
    if monitor is not None and nodes:
        yield from _devices(guest, domain, monitor, nodes)


def _sources(domain: Domain, process: Process, monitor: Monitor | None) -> Iterator[_Source]:
    opened, argv = domain.xml.opened, process.argv
    yield _Source("in libvirt", domain, "disks", _defined(opened))
    yield _Source("on its QEMU's command line", process, "argv", _started(argv, opened))
    if monitor is None:
        return
    named = {node.name: _open(node) for node in monitor.nodes if node.name}
    yield _Source("in QEMU", monitor, "nodes", named)
    tops = [device.node for device in monitor.disks if device.node is not None]
    named = {node.name: _open(node) for node in tops if node.name}
    yield _Source("in QEMU's list of disks", monitor, "disks", named)


_Told = tuple[_Source, object]


def _apart(sources: Iterable[_Source]) -> Iterator[tuple[str, str, tuple[_Told, _Told]]]:
    """Yield each setting of a node that two sources report differently."""
    firsts: dict[tuple[str, str], _Told] = {}
    others: dict[tuple[str, str], _Told] = {}
    for source in sources:
        for name, settings in source.nodes.items():
            for setting, value in settings.items():
                first = firsts.setdefault((name, setting), (source, value))
                if first[1] != value:
                    others.setdefault((name, setting), (source, value))
    if others:
        for (name, setting), first in firsts.items():
            if (name, setting) in others:
                yield name, setting, (first, others[name, setting])


def _of_one_format(domain: Domain, apart: set[tuple[str, str]]) -> str:
    """Return the path of the disk whose format is all that differs; "" if anything else does."""
    for one in domain.xml.opened:
        if one.is_top and apart == {(f"libvirt-{one.number}-format", "driver")}:
            return one.image.source or ""
    return ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return place(str(value))


def _defined(opened: tuple[OpenedImage, ...]) -> dict[str, Setting]:
    """Return what libvirt has of each node, by the names that it gives to QEMU."""
    found: dict[str, Setting] = {}
    for one in opened:
        if one.disk.transient:
            continue  # an overlay takes its place in QEMU
        storage, form = f"libvirt-{one.number}-storage", f"libvirt-{one.number}-format"
        flags = FLAGS.get(one.disk.cache or "", {})
        is_path = one.image.type in ("file", "block") and (one.image.source or "").startswith("/")
        path = {"file": one.image.source} if is_path else {}
        found[storage], found[form] = {**path, **flags}, {**path, **flags}
        if one.image.type in PROTOCOLS and one.disk.device == "disk":
            found[storage] = {**found[storage], "driver": PROTOCOLS[one.image.type]}
        if one.image.format in FORMATS and not one.disk.keys:
            found[form] = {**found[form], "driver": one.image.format}
        found[form] = {**found[form], "read_only": one.disk.read_only or not one.is_top}
    return found


def _started(argv: CommandLine, opened: tuple[OpenedImage, ...]) -> dict[str, Setting]:
    tops = {device.get("drive") for device in argv.devices.values()}
    # A commit makes a backing file the top, which then is writable.
    named: dict[str, bool] = {}
    for one in opened:
        name = f"libvirt-{one.number}-format"
        named[name] = named.get(name, False) or one.is_top
    kept = {name for name, is_top in named.items() if is_top == (name in tops)}
    found: dict[str, Setting] = {}
    for name, node in argv.nodes.items():
        cache = node.get("cache")
        flags = cache if isinstance(cache, dict) else {}
        read: dict[str, object] = {
            "driver": node.get("driver"),
            "file": node.get("filename") if node.get("driver") in FILES else None,
            "read_only": _flag(node.get("read-only")) if name in kept else None,
            "direct": _flag(flags.get("direct")),
            "ignores_flushes": _flag(flags.get("no-flush")),
            "detect_zeroes": node.get("detect-zeroes", "off"),
        }
        found[name] = {key: value for key, value in read.items() if value is not None}
    return found


def _flag(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"on": True, "off": False}.get(str(value))


def _open(node: BlockNode) -> Setting:
    read: dict[str, object] = {
        "driver": node.format,
        # QEMU has JSON for what a path does not describe.
        "file": node.file if (node.file or "").startswith("/") else None,
        # A node below the top has what its parent lets it have.
        "read_only": None if node.corrupt or node.format in FILES else node.read_only,
        "direct": node.direct,
        "ignores_flushes": node.ignores_flushes,
        "detect_zeroes": node.detect_zeroes,
    }
    return {key: value for key, value in read.items() if value is not None}


def _devices(
    guest: Guest, domain: Domain, monitor: Monitor, nodes: tuple[BlockNode, ...]
) -> Iterator[Problem]:
    """Yield disks whose node or guest device in QEMU is another one than libvirt's."""
    there = {node.name for node in nodes if node.name}
    by_file = {device.node.file: device for device in monitor.disks if device.node is not None}
    for one in domain.xml.opened:
        names = {f"libvirt-{one.number}-{part}" for part in ("storage", "format")}
        if not names & there and any(name.startswith("libvirt-") for name in there):
            yield problem(
                f"{guest.title} has no block node libvirt-{one.number}-format in QEMU, which "
                f"libvirt names for {place(one.image.source or '')}",
                derives(domain, "disks", number=one.number, source=one.image.source),
                derives(monitor, "nodes", nodes=", ".join(sorted(there))),
            )
        device = by_file.get(one.image.source) if one.is_top else None
        if device is not None and device.node is not None:
            yield from _device(guest, domain, monitor, one, names & there, device)


def _device(
    guest: Guest,
    domain: Domain,
    monitor: Monitor,
    one: OpenedImage,
    names: set[str],
    device: BlockDevice,
) -> Iterator[Problem]:
    title = f"{guest.title}'s {one.disk.target}"
    node = device.node.name if device.node is not None else None
    # A filter on top of the image has a name of another form.
    is_plain = node is not None and node.endswith(("-format", "-storage"))
    if is_plain and node not in names:
        yield problem(
            f"{title} is libvirt's image {one.number}, but its block node in QEMU is {node}, and "
            f"QEMU has {', '.join(sorted(names)) or 'none'} of that number",
            derives(domain, "disks", number=one.number, source=one.image.source),
            derives(monitor, "disks", node=node, source=one.image.source),
        )
    aliases = [alias for alias, its in domain.xml.devices.items() if its.target == one.disk.target]
    path = (device.qdev or "").split("/")
    if len(aliases) == 1 and device.qdev and aliases[0] not in path:
        yield problem(
            f"{title} is libvirt's device {aliases[0]}, but QEMU has its image in {device.qdev}",
            derives(domain, "disks", alias=aliases[0], source=one.image.source),
            derives(monitor, "disks", device=device.qdev, source=one.image.source),
        )


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, disk_is_copied])
def disk_resized_behind_qemu(
    guest: Guest, host: Host, domain: Domain, monitor: Monitor | None
) -> Problems:
    """A running guest's disk has another size in QEMU than in its image.

    QEMU reads the size of an image when it opens it, and learns of a change only through libvirt.
    An image that `qemu-img resize` or a restored header changed under a running guest has one size
    now and another one after the next start. If it became smaller, the guest's writes behind the
    new end are lost then. `qemu-img` may also have damaged the image.

    Authority: QEMU, for the size that the guest sees; the image, for its next start.

    Traps: QEMU rounds the size of a raw image up to a sector. An image that can't be reached under
    libvirt's path is not compared.

    Next: Compare the two sizes, and check the image for errors without changing it:

        virsh domblkinfo NAME TARGET
        qemu-img info -U -f FORMAT DISK

    Then, if the image is larger than QEMU's disk on purpose, tell QEMU, which gives the guest the
    new size at once:

        virsh blockresize NAME TARGET SIZE

    It worked if both sizes are the same:

        virsh domblkinfo NAME TARGET

    Not yet: If the image is smaller than QEMU's disk, do not stop, reboot or migrate the server:
    first copy what the guest has out of it. Do not run `qemu-img resize` or `qemu-img check -r` on
    the image while the guest runs.

    Source: QEMU docs/tools/qemu-img.rst, which warns of changing an image in use; QEMU's QMP
    reference, block_resize.
    """
    if monitor is None or domain.id is None:
        return
    targets = {disk.source: disk for disk in domain.disks if disk.source is not None}
    for device in monitor.disks:
        node = device.node
        disk = targets.get(node.file or "") if node is not None else None
        if node is None or disk is None or node.virtual_size is None or node.format not in FORMATS:
            continue
        image = host.images.image(disk.source or "")
        if image is None or image.format != node.format:
            continue
        size = -(-image.virtual_size // SECTOR) * SECTOR
        if size != node.virtual_size:
            has, reads = sizes(node.virtual_size, size)
            yield problem(
                f"{guest.title}'s {disk.target} has {has} in QEMU, but {reads} in its image "
                f"{place(disk.source or '')}",
                derives(monitor, "disks", file=node.file, virtual_size=node.virtual_size),
                derives(image, "virtual_size", path=image.path, virtual_size=image.virtual_size),
                severity=Severity.ERROR if size < node.virtual_size else None,
                TARGET=disk.target,
                DISK=image.path,
                FORMAT=image.format,
                SIZE=f"{size}B" if size > node.virtual_size else "",
            )
