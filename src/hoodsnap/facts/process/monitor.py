"""QEMU's own view of a VM, through its monitor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeGuard

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact, UnheardError, unheard, value_of
from hoodsnap.facts.layer import QEMU, Layer
from hoodsnap.facts.quantity import whole

LIMITS = {
    "bps": "total_bytes_sec",
    "bps_rd": "read_bytes_sec",
    "bps_wr": "write_bytes_sec",
    "iops": "total_iops_sec",
    "iops_rd": "read_iops_sec",
    "iops_wr": "write_iops_sec",
}
"""QEMU's name of a disk's limit → libvirt's."""

COMMAND = re.compile(r'"execute":\s*"([a-z-]+)"')


class BlockNode(NamedTuple):
    """One image that QEMU has open."""

    name: str | None
    """`libvirt-1-format`; None if QEMU generated it (`#block123`) or is too old for node names."""
    file: str | None
    """A path, a URL, or `json:{…}`."""
    format: str | None
    """`qcow2`, `raw`; for a protocol node `file`, `host_device`, `rbd` …"""
    read_only: bool
    backing: tuple[str, ...]
    """Images below it that QEMU has open now, nearest first."""
    corrupt: bool = False
    """True if QEMU found it damaged; QEMU then refuses all writes to it."""
    virtual_size: int | None = None
    """Size in bytes that the guest sees; None before QEMU 1.3."""
    named_backing: str | None = None
    """Backing file that the image's header names; None without one."""
    direct: bool | None = None
    """True if reads and writes bypass the host's page cache; None if QEMU does not report it."""
    ignores_flushes: bool | None = None
    """True if flushes of the guest are ignored; None if QEMU does not report it."""
    detect_zeroes: str | None = None
    """`off`, `on`, `unmap`: whether written zeros are recognized."""


class Console(NamedTuple):
    """The VNC server of the guest's screen."""

    address: str
    port: int


class BlockDevice(NamedTuple):
    """One disk of the guest."""

    device: str | None
    """Id of the `-drive` (`drive-virtio-disk0`); None with `-blockdev`."""
    qdev: str | None
    """Guest device: `/machine/peripheral/virtio-disk0/virtio-backend`."""
    io_status: str | None
    """`ok`, `failed` or `nospace`; None if QEMU does not track it."""
    node: BlockNode | None
    """The image in it; None without a medium."""
    limits: Mapping[str, int] = MappingProxyType({})
    """libvirt's element in `<iotune>` → the limit in force, 0 for none; empty without a medium and
    before QEMU 1.1."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Monitor(Fact):
    """One QEMU's monitor. A field whose answer was not collected raises `UnheardError`."""

    layer: ClassVar[Layer] = QEMU
    noun: ClassVar[str] = "monitor"

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "status": ("query-status", "status"),
        "running": ("query-status", "running"),
        "uuid": ("query-uuid", "UUID"),
        "name": ("query-name", "name"),
        "vcpus": ("query-cpus-fast", ""),
        "memory_kib": ("query-memory-size-summary", "base-memory"),
        "disks": ("query-block", ""),
        "nodes": ("query-named-block-nodes", ""),
        "io_errors": ("query-block", "io-status"),
        "version": ("query-version", "qemu"),
        "console": ("query-vnc", "service"),
        "balloon_kib": ("query-balloon", "actual"),
        "vcpu_threads": ("query-cpus-fast", "thread-id"),
    }

    @classmethod
    def read_all(cls, answers: Iterable[Answer]) -> dict[str, Monitor]:
        """Return domain UUID → monitor, from one host's QEMU answers."""
        said: dict[str, dict[str, Answer]] = {}
        for answer in answers:
            command = COMMAND.search(answer.query)
            if command is not None and answer.subject is not None:
                said.setdefault(answer.subject.lower(), {})[command[1]] = answer
        return {uuid: cls(said=parts) for uuid, parts in said.items()}

    @property
    def status(self) -> str:
        """Run state: `running`, `paused`, `io-error`, `inmigrate` …"""
        return _text(self._object("query-status"), "status")

    @property
    def running(self) -> bool:
        """True if the vCPUs are running."""
        running = self._object("query-status").get("running")
        return (
            running if isinstance(running, bool) else unheard("query-status: running can't be read")
        )

    @property
    def uuid(self) -> str:
        """UUID of the VM, lower case."""
        return _text(self._object("query-uuid"), "UUID").lower()

    @property
    def name(self) -> str | None:
        """Name of the VM; None if QEMU was started without one."""
        return _maybe(self._object("query-name"), "name")

    @property
    def vcpus(self) -> int:
        """Number of vCPUs that are plugged in."""
        part = "query-cpus-fast"
        old = self.said.get("query-cpus")  # the only query before QEMU 2.12
        if old is not None and old.error is None:
            part = "query-cpus"
        return len(self._list(part))

    @property
    def memory_kib(self) -> int:
        """KiB at boot."""
        part = "query-memory-size-summary"
        size = whole(self._object(part).get("base-memory"))
        return size // 1024 if size is not None else unheard(f"{part}: base-memory can't be read")

    @cached_property
    def disks(self) -> tuple[BlockDevice, ...]:
        """The guest's disks."""
        return tuple(_device(raw) for raw in self._list("query-block"))

    @cached_property
    def nodes(self) -> tuple[BlockNode, ...]:
        """Every image that QEMU has open: the guest's disks and the images below them."""
        return tuple(_node(raw) for raw in self._list("query-named-block-nodes"))

    @property
    def version(self) -> str:
        """Version of the QEMU that runs: `7.2.22`."""
        raw = self._object("query-version").get("qemu")
        parts = [whole(raw.get(key)) for key in ("major", "minor", "micro")] if _is(raw) else [None]
        if None in parts:
            raise UnheardError("query-version: qemu can't be read")
        return ".".join(map(str, parts))

    @property
    def console(self) -> Console | None:
        """Where the VNC server listens; None without one, or if it listens on no TCP port."""
        raw = self._object("query-vnc")
        port = whole(raw.get("service")) if raw.get("enabled") is True else None
        return None if port is None else Console(_text(raw, "host"), port)

    @property
    def balloon_kib(self) -> int:
        """KiB that the balloon leaves to the guest."""
        size = whole(self._object("query-balloon").get("actual"))
        return size // 1024 if size is not None else unheard("query-balloon: actual can't be read")

    @property
    def vcpu_threads(self) -> Mapping[int, int]:
        """vCPU → number of its thread, in QEMU's own PID namespace. QEMU 2.12 and later."""
        found = {}
        for raw in self._list("query-cpus-fast"):
            vcpu, thread = whole(raw.get("cpu-index")), whole(raw.get("thread-id"))
            if vcpu is None or thread is None:
                raise UnheardError("query-cpus-fast: a vCPU can't be read")
            found[vcpu] = thread
        return found

    @property
    def io_errors(self) -> Mapping[str, str]:
        """Disks with I/O errors → `failed` or `nospace`."""
        broken = [disk for disk in self.disks if disk.io_status not in (None, "ok")]
        return {disk.device or disk.qdev or "": disk.io_status or "" for disk in broken}

    def _object(self, part: str) -> Mapping[str, object]:
        return value_of(self.said.get(part), part, dict[str, Any])

    def _list(self, part: str) -> list[dict[str, Any]]:
        return value_of(self.said.get(part), part, list[dict[str, Any]])


def _device(raw: Mapping[str, object]) -> BlockDevice:
    medium = raw.get("inserted")
    return BlockDevice(
        device=_maybe(raw, "device") or None,
        qdev=_maybe(raw, "qdev"),
        io_status=_maybe(raw, "io-status"),
        node=_node(medium) if isinstance(medium, dict) else None,
        limits=_limits(medium) if isinstance(medium, dict) else {},
    )


def _limits(medium: Mapping[str, object]) -> Mapping[str, int]:
    read = {name: whole(medium.get(key)) for key, name in LIMITS.items()}
    return {name: limit for name, limit in read.items() if limit is not None}


def _node(raw: Mapping[str, object]) -> BlockNode:
    return BlockNode(
        name=_maybe(raw, "node-name"),
        file=_maybe(raw, "file"),
        format=_maybe(raw, "drv"),
        read_only=raw.get("ro") is True,
        backing=_backing(raw),
        corrupt=_is_corrupt(raw.get("image")),
        virtual_size=_size(raw.get("image")),
        named_backing=_maybe(raw, "backing_file"),
        direct=_flag(raw.get("cache"), "direct"),
        ignores_flushes=_flag(raw.get("cache"), "no-flush"),
        detect_zeroes=_maybe(raw, "detect_zeroes"),
    )


def _is(raw: object) -> TypeGuard[dict[str, object]]:
    return isinstance(raw, dict)


def _flag(raw: object, key: str) -> bool | None:
    value = raw.get(key) if _is(raw) else None
    return value if isinstance(value, bool) else None


def _backing(raw: Mapping[str, object]) -> tuple[str, ...]:
    image = raw.get("image")
    if not isinstance(image, dict):  # before QEMU 1.3 only the next image was named
        below = _maybe(raw, "backing_file")
        return (below,) if below else ()
    chain: list[str] = []
    while isinstance(image := image.get("backing-image"), dict):
        chain.append(_text(image, "filename"))
    return tuple(chain)


def _is_corrupt(image: object) -> bool:
    for key in ("format-specific", "data"):
        image = image.get(key) if isinstance(image, dict) else None
    return isinstance(image, dict) and image.get("corrupt") is True


def _size(image: object) -> int | None:
    return whole(image.get("virtual-size")) if isinstance(image, dict) else None


def _text(raw: Mapping[str, object], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise UnheardError(f"QEMU monitor: {key} can't be read")
    return value


def _maybe(raw: Mapping[str, object], key: str) -> str | None:
    return None if raw.get(key) is None else _text(raw, key)
