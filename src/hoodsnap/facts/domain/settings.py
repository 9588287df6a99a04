"""Settings of a domain: the leaves of its definition that a start does not change.

libvirt keeps two definitions of a running domain. What it adds to the live one (aliases, addresses,
ptys, ports, labels, chains) is left out here, and so is what other fields of a definition read:
sizes, firmware, machine type, sources of disks, host devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from sys import intern
from xml.etree.ElementTree import Element

LIMITS = ("cputune/", "blkiotune/", "memtune/")
"""Beginnings of settings that limit what the guest may use of the host."""

DEEPEST = 16
"""Limit of nested elements; libvirt nests half as many."""

LIMITED = ("/iotune/", "/bandwidth/")
"""Parts of settings that limit a disk or a network card."""


def is_limit(setting: str) -> bool:
    """True if a setting limits the guest's CPU time, memory, disk or network traffic."""
    return setting.startswith(LIMITS) or any(part in setting for part in LIMITED)


def read_settings(domain: Element) -> Mapping[str, str]:
    """Return setting → value: `clock/@offset` → `utc`, `disk[vda]/driver/@cache` → `none`.

    An element without a value (`<acpi/>`) has the value `yes`.
    """
    found: dict[str, str] = {}
    for part in domain:
        name = part.tag
        if name == "devices":
            _add_devices(part, found)
        elif name == "cpu":
            for topology in part.iterfind("topology"):
                _add(topology, "cpu/topology", "cpu/topology", found)
        elif name not in _ELSEWHERE:
            _add(part, name, name, found)
    return found


def _add_devices(devices: Element, found: dict[str, str]) -> None:
    counts: dict[str, int] = {}
    for device in devices:
        kind = device.tag
        if kind in _OTHER_DEVICES:
            continue
        counts[kind] = number = counts.get(kind, 0) + 1
        key = next(_keys(device), None) or (number if number > 1 else None)
        _add(device, kind if key is None else f"{kind}[{key}]", kind, found)


def _keys(device: Element) -> Iterator[str | None]:
    """Yield what identifies a device among those of its kind."""
    if device.tag == "disk":
        yield from (target.get("dev") for target in device.iterfind("target"))
    elif device.tag == "interface":
        yield from ((mac.get("address") or "").lower() for mac in device.iterfind("mac"))
    elif device.tag == "controller":
        yield f"{device.get('type')} {device.get('index')}"


def _add(element: Element, path: str, kind: str, found: dict[str, str], depth: int = 1) -> None:
    """Add an element's leaves. `kind` is the path without the identity of its device."""
    left_out = _LEFT_OUT.get(kind)
    attributes, has_children = element.attrib, len(element) > 0
    for name, value in attributes.items():
        if left_out is None or f"@{name}" not in left_out:
            found.setdefault(intern(f"{path}/@{name}"), value)
    text = element.text
    if text is not None and not text.isspace():
        found.setdefault(intern(path), text.strip())
    elif not has_children and not attributes:
        found.setdefault(intern(path), "yes")
    if not has_children:
        return
    left_out = left_out or _NOTHING
    seen: dict[str, int] = {}
    for child in element if depth < DEEPEST else ():
        name = child.tag
        if name in _OF_THE_HOST or name in left_out:
            continue
        seen[name] = number = seen.get(name, 0) + 1
        key = child.get("name") if name == "entry" else number if number > 1 else None
        below = f"{path}/{name}" if key is None else f"{path}/{name}[{key}]"
        _add(child, below, f"{kind}/{name}", found, depth + 1)


_ELSEWHERE = frozenset(
    [
        *("name", "uuid", "genid", "metadata", "title", "description"),
        *("memory", "currentMemory", "maxMemory", "vcpu", "vcpus", "numatune"),
        *("resource", "seclabel", "launchSecurity"),
    ]
)
"""Parts of a domain that have fields of their own, are read by nobody, or are resolved at a
start."""

_OTHER_DEVICES = frozenset(["hostdev", "memory", "emulator", "channel", "tpm"])
"""Devices that have fields of their own, or come and go while the guest runs."""

_OF_THE_HOST = frozenset(
    ["alias", "address", "backingStore", "mirror", "seclabel", "actual", "privateData"]
)
"""Elements that libvirt adds to a running domain, or chooses anew. Only its own files, such as
/run/libvirt/qemu/NAME.xml, have `privateData`."""

_NOTHING = frozenset[str]()

_LEFT_OUT: Mapping[str, frozenset[str]] = {
    "os": frozenset(["loader", "nvram", "firmware", "@firmware"]),
    "os/type": frozenset(["@machine"]),
    "cputune": frozenset(["vcpupin", "emulatorpin", "iothreadpin", "vcpusched", "iothreadsched"]),
    "disk": frozenset(["source", "serial", "encryption", "transient", "@type", "@snapshot"]),
    "disk/driver": frozenset(["@type"]),
    "disk/target": frozenset(["@dev", "@tray"]),
    "interface": frozenset(["mac", "hostdev", "link"]),
    "interface/source": frozenset(["@portid", "@portgroup"]),
    "serial": frozenset(["source", "log"]),
    "console": frozenset(["source", "log", "@tty"]),
    "parallel": frozenset(["source", "log"]),
    "graphics": frozenset(
        [
            *("listen", "@listen", "@port", "@autoport", "@tlsPort", "@websocket", "@socket"),
            *("@passwd", "@passwdValidTo", "@connected"),
        ]
    ),
}
"""Setting without the identity of its device → parts that change or have fields of their own."""
