"""The disks of a QEMU command line: `-drive`, `-blockdev` and the devices that use them.

`-drive` describes one disk per option; QEMU finds the backing files in the image's header.
`-blockdev` describes one node for the location of the bytes and one for the format, and names the
nodes below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

Properties = Mapping[str, object]

FILTERS = frozenset(
    ["throttle", "copy-on-read", "preallocate", "compress", "blkdebug", "blklogwrites"]
)
"""Drivers that pass on the bytes of the node below; they are not image formats."""

PASSED_THROUGH = frozenset(["scsi-generic"])
"""Devices that pass a host device through to the guest."""

DRIVE_KEYS = frozenset(["drive", "driveA", "driveB"])
"""Properties in which a device names its disk; a floppy controller has two."""

DEEPEST = 200
"""Longest image chain that libvirt follows."""


class Node(NamedTuple):
    """One image as QEMU opened it: the location of its bytes, and their format."""

    name: str
    """`drive-virtio-disk0`, `libvirt-1-format`; for `-hda FILE`, the option's name."""

    source: str | None
    """A path; `pool/image` or `pool/image@snapshot` for rbd; otherwise a URL or whatever QEMU
    accepts in place of one. None without a medium."""

    protocol: str
    """`file`, `host_device`, `rbd`, `nbd` … With `-drive`, a device's path is `file` too."""

    format: str | None
    """`qcow2`, `raw` …; None if QEMU probes it."""

    read_only: bool

    servers: tuple[str, ...] = ()
    """Servers of a network disk (Ceph's monitors), as `HOST:PORT`; empty if QEMU reads them from a
    file."""

    has_key: bool = False
    """True if QEMU got a key for the storage: a secret of libvirt's, or one in the file name."""


class Drive(NamedTuple):
    """One disk on a QEMU command line."""

    name: str
    source: str | None
    protocol: str
    format: str | None
    read_only: bool
    serial: str | None

    device: str | None
    """Id of the guest device, or (`-drive` with `if=`) the bus of the machine's built-in device;
    None if the guest does not see the disk."""

    backing: tuple[Node, ...] | None
    """Images below, nearest first; None if QEMU reads them from the image's header."""

    servers: tuple[str, ...] = ()
    """Servers of a network disk, as of a `Node`."""

    has_key: bool = False
    """True if QEMU got a key for the storage, as of a `Node`."""


def read_drives(
    drives: Iterable[Properties],
    nodes: Sequence[Properties],
    devices: Iterable[Properties],
    flash: frozenset[str],
    plain: Iterable[tuple[str, str]],
) -> tuple[Drive, ...]:
    """Return every disk: from `plain` options (`hda`, FILE), from `-drive`, and from `-blockdev`.

    `nodes` are nested already (`nested`); `flash` names those that hold the firmware.
    """
    users: dict[str, Properties] = {}
    for device in devices:
        for key, node in device.items():
            if key in DRIVE_KEYS and isinstance(node, str):
                users.setdefault(node, device)
    return (
        *(_plain(option, image) for option, image in plain),
        *_of_drives(drives, users, flash),
        *_of_nodes(nodes, users, flash),
    )


def _plain(option: str, image: str) -> Drive:
    protocol, source = _place(image)
    return Drive(option, source, protocol, None, option == "cdrom", None, option, None)


def _of_drives(
    drives: Iterable[Properties], users: Mapping[str, Properties], flash: frozenset[str]
) -> Iterator[Drive]:
    for number, raw in enumerate(drives):
        drive = nested(raw)
        bus = _text(drive, "if")
        name = _text(drive, "id") or f"drive{number}"
        user = users.get(name, {})
        if bus == "pflash" or name in flash or _is_passed_through(user):
            continue
        protocol, source = _opened(drive.get("file"))
        yield Drive(
            name,
            source,
            protocol,
            _text(drive, "format") or _text(drive, "driver"),
            _is_on(drive.get("readonly", drive.get("read-only"))),
            _text(user, "serial") or _text(drive, "serial"),
            # Without `if=none` the device is built into the machine.
            _device(user) if user else (None if bus == "none" else bus or "default"),
            None,
            _servers(drive.get("file")),
            _has_key(drive.get("file")),
        )


def _of_nodes(
    raw: Sequence[Properties], users: Mapping[str, Properties], flash: frozenset[str]
) -> Iterator[Drive]:
    nodes = {name: node for node in raw if (name := _text(node, "node-name")) is not None}
    below = {value for node in nodes.values() for value in _named(node)}
    tops = [name for name in users if name in nodes]
    tops += [name for name in nodes if name not in users and name not in below]
    for name in tops:
        user = users.get(name, {})
        if name in flash or _is_passed_through(user):
            continue
        top, backing = _chain(name, nodes)
        device = _device(user) if user else None
        serial = _text(user, "serial")
        yield Drive(
            name=top.name,
            source=top.source,
            protocol=top.protocol,
            format=top.format,
            read_only=top.read_only,
            serial=serial,
            device=device,
            backing=backing,
            servers=top.servers,
            has_key=top.has_key,
        )


def _named(node: Properties) -> Iterator[str]:
    """Yield every text in a node, including the names of the nodes below (`file`, `backing` …)."""
    waiting: list[object] = [value for key, value in node.items() if key != "node-name"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _chain(name: str, nodes: Mapping[str, Properties]) -> tuple[Node, tuple[Node, ...] | None]:
    """Return the top image and those below it; None for those that only the header names."""
    layers: list[Node] = []
    below: object = name
    seen: set[int] = set()
    while below is not None and len(layers) <= DEEPEST:
        layer, below = _layer(below, nodes, seen)
        if layer is None:
            break
        layers.append(layer)
    top = layers[0] if layers else Node(name, None, "file", None, False)
    return top, tuple(layers[1:]) if below is None else None


def _layer(
    reference: object, nodes: Mapping[str, Properties], seen: set[int]
) -> tuple[Node | None, object]:
    """Follow a reference through filters; return its image and the reference to the image below.

    The second is None if nothing lies below, `...` if the node does not specify it.
    """
    name = reference if isinstance(reference, str) else ""
    node = nodes.get(name) if name else reference
    read_only: bool | None = None
    form: str | None = None
    below: object = ...
    # A forged argv may contain a node that refers to itself.
    while isinstance(node, Mapping) and id(node) not in seen:
        seen.add(id(node))
        if read_only is None and "read-only" in node:
            read_only = _is_on(node["read-only"])
        if below is ...:
            below = node.get("backing", ...)
        child = node.get("file")
        driver = _text(node, "driver")
        if child is not None and driver not in FILTERS:
            form = form or driver
        if child is None or (isinstance(child, str) and child not in nodes):
            protocol, source = _place_of_node(node) if child is None else _opened(child)
            form = form or "raw"
            if form == "raw" and below is ...:
                below = None  # a raw image has no backing file
            named = name or _text(node, "node-name") or ""
            opened = node if child is None else child
            servers, has_key = _servers(opened), _has_key(opened)
            return Node(named, source, protocol, form, read_only or False, servers, has_key), below
        node = nodes[child] if isinstance(child, str) else child
    return None, ...


def _opened(file: object) -> tuple[str, str | None]:
    """Return protocol and source for the `file` of a -drive."""
    if isinstance(file, Mapping):
        return _place_of_node(file)
    return _place(file) if isinstance(file, str) else ("file", None)


_PROTOCOL = re.compile(r"([^:/+]+)(?:\+[^:/]+)?:")
"""Protocol of a file name: the text before the first colon, unless a slash comes first."""

_RBD_OPTIONS = re.compile(r"(?<!\\):.*", re.DOTALL)


_MONITORS = re.compile(r"(?<!\\):mon_host=((?:\\.|[^:\\]){1,4096})", re.DOTALL)


def _servers(file: object) -> tuple[str, ...]:
    """Return the servers in the `file` of a -drive or in a protocol node, as `HOST:PORT`."""
    if isinstance(file, str):
        found = _MONITORS.search(file) if file.startswith("rbd:") else None
        return tuple(sorted(re.split("[;,]", found[1].replace("\\", "")))) if found else ()
    if not isinstance(file, Mapping):
        return ()
    if _text(file, "driver") is None:
        return _servers(file.get("filename"))
    listed = file.get("server")
    servers = listed if isinstance(listed, list) else [listed]
    return tuple(
        sorted(
            f"{_text(server, 'host')}:{_text(server, 'port') or ''}"
            for server in servers
            if isinstance(server, Mapping) and "host" in server
        )
    )


def _has_key(file: object) -> bool:
    if isinstance(file, Mapping):
        named = any(key in file for key in ("key-secret", "password-secret"))
        return named or _has_key(file.get("filename"))
    return isinstance(file, str) and file.startswith("rbd:") and ":key=" in file


def _place(name: str) -> tuple[str, str | None]:
    """Return protocol and source for a file name, read as QEMU reads it."""
    if name.startswith("json:"):
        return _place_of_json(name)
    if name.startswith("rbd:"):
        return "rbd", _RBD_OPTIONS.sub("", name[4:]).replace("\\:", ":")
    protocol = _PROTOCOL.match(name)
    if protocol is None:
        return "file", name or None
    if protocol[1] in ("file", "host_device", "host_cdrom"):
        return protocol[1], name[protocol.end() :]
    return protocol[1], name


def _place_of_json(name: str) -> tuple[str, str | None]:
    try:
        node = json.loads(name[len("json:") :])
    except (ValueError, RecursionError):
        return "json", name
    while isinstance(node, dict) and isinstance(node.get("file"), dict):
        node = node["file"]
    return _place_of_node(node) if isinstance(node, dict) else ("json", name)


def _place_of_node(node: Properties) -> tuple[str, str | None]:
    """Return protocol and source for a protocol node."""
    driver = _text(node, "driver")
    name = _text(node, "filename")
    if driver is None:  # `file=rbd:…,file.password-secret=x`: the name contains the protocol
        return _place(name) if name else ("file", None)
    if driver == "rbd":
        image = "/".join(_texts(node, "pool", "namespace", "image"))
        return driver, "@".join([image, *_texts(node, "snapshot")]) or None
    for name in _texts(node, "filename", "url", "dir"):
        return driver, name
    server = node.get("server")
    if isinstance(server, list):  # gluster has several; the first identifies it well enough
        server = server[0] if server else None
    if not isinstance(server, Mapping):
        server = {}
    host = _text(server, "host")
    if host is not None and ":" in host:
        host = f"[{host}]"
    authority = ":".join(part for part in (host, *_texts(server, "port")) if part)
    authority = authority or "".join(_texts(node, "portal", "device"))
    socket = _text(server, "path")
    path = "/".join(_texts(node, *PATHS))
    if socket is not None:
        return driver, f"{driver}+unix:///{path}?socket={socket}"
    if authority:
        return driver, f"{driver}://{authority}/{path.lstrip('/')}"
    return driver, path or None


PATHS = ("volume", "export", "path", "target", "lun", "namespace", "vdi", "vdisk-id")
"""Properties in which drivers of network protocols name the image, part by part."""


def _texts(raw: Properties, *keys: str) -> list[str]:
    return [value for key in keys if (value := _text(raw, key)) is not None]


def _is_passed_through(user: Properties) -> bool:
    return _text(user, "driver") in PASSED_THROUGH


def _device(user: Properties) -> str | None:
    return _text(user, "id") or _text(user, "driver")


def _is_on(value: object) -> bool:
    return value is True or value in ("on", "true", "yes")


def _text(raw: Properties, key: str) -> str | None:
    value = raw.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)  # JSON may write a port as a number
    return value if isinstance(value, str) else None


def nested(flat: Properties) -> Properties:
    """Convert `file.driver=rbd,file.pool=p` to `{"file": {"driver": "rbd", "pool": "p"}}`."""
    if not any("." in key for key in flat):
        return flat
    tree: dict[str, object] = {}
    for key, value in flat.items():
        *path, leaf = key.split(".")
        at = tree
        for part in path[:DEEPEST]:
            inner = at.get(part)
            if not isinstance(inner, dict):
                # `file=/x,file.locking=off`: first the name, then options for opening it.
                inner = {} if inner is None else {"filename": inner}
                at[part] = inner
            at = inner
        at[leaf] = value
    return tree
