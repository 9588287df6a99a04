"""The pictures of one server: each disk down to its base image, each port out to its router."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught, known
from hoodsnap.facts.host.image import Image, ImageInfo
from hoodsnap.facts.host.tap import Tap
from hoodsnap.findings.finding import Finding
from hoodsnap.printable import clean, cut
from hoodsnap.render.walk import size, translation

LONGEST = 60
"""Characters of a label; the whole text is shown on demand."""

MOST = 12
"""Stations of one chain, and chains of one picture. A bundle may invent thousands."""


@dataclass(slots=True)
class Station:
    """One thing on the way: a file, a device, a bridge."""

    kind: str
    label: str
    details: str = ""
    state: str = "there"
    """`there`, `absent` or `unheard`."""
    whole: str = ""
    """The path or name in full, by which findings name it."""
    severity: int = 0
    """The worst severity of the findings that name it; 0 without one."""


Chain = list[Station]


def disks_of(cloud: Cloud, guest: Guest) -> list[Chain]:
    """Return a chain for each disk of the domain, and for each image that it does not use."""
    return _netted(_disks(cloud, guest))


def ports_of(cloud: Cloud, guest: Guest) -> list[Chain]:
    """Return a chain for each port, and for each tap that belongs to none."""
    return _netted(_ports(cloud, guest))


def mark(chains: Iterable[Chain], findings: Iterable[Finding]) -> None:
    """Mark the stations that findings name."""
    for finding in findings:
        named: set[str] = set()
        for piece in finding.evidence:
            for _, value in piece.said:
                named.update(clean(str(value)).replace(",", " ").split(" "))
        for chain in chains:
            for station in chain:
                if station.whole and station.whole in named:
                    station.severity = max(station.severity, finding.severity)


def _netted(chains: Iterator[Chain]) -> list[Chain]:
    found: list[Chain] = []
    try:
        for chain in chains:
            if len(found) == MOST:
                break
            if chain:
                found.append(chain[:MOST])
    except Exception as error:  # a net around each picture
        reason = clean(str(caught(error)))
        found.append([Station("", "not collected", cut(reason, LONGEST), "unheard", reason)])
    return found


def _disks(cloud: Cloud, guest: Guest) -> Iterator[Chain]:
    images = {image.path: image for image in guest.images or ()}
    for disk in _disks_of(guest.domain) if guest.domain is not None else ():
        image = images.pop(disk.source or "", None)
        yield [*_head(disk), *_below(cloud, guest, disk, image)]
    for image in images.values():
        yield list(_chain(cloud, image))


def _disks_of(domain: Domain) -> Sequence[Disk]:
    try:
        return domain.disks
    except UnheardError:  # a domain that is off has only its stored definition
        return domain.inactive_disks


def _head(disk: Disk) -> Iterator[Station]:
    target = clean(disk.target or "?")
    bus = f"{disk.bus or ''} {disk.device}".strip()
    yield Station("in the guest", cut(target, LONGEST), cut(clean(bus), LONGEST), whole=target)


def _below(cloud: Cloud, guest: Guest, disk: Disk, image: Image | None) -> Iterator[Station]:
    volume = volume_of(disk)
    if disk.source is None:
        yield Station("medium", "no medium")
    elif image is not None:
        yield from _chain(cloud, image)
    elif disk.image.type == "network":
        yield _station(f"{disk.protocol or 'network'} image", disk.source)
    else:
        yield _station("block device" if disk.image.type == "block" else "file", disk.source)
    yield from _behind(guest, disk)
    if volume is not None:
        yield _volume(guest, volume)


def _behind(guest: Guest, disk: Disk) -> Iterator[Station]:
    """Yield the device or mount through which a disk reaches the host."""
    if guest.host is None or disk.source is None or volume_of(disk) is None:
        return
    devices = guest.host.devices
    try:
        device = devices.find(disk.source) if disk.image.type == "block" else None
        if device is not None:
            yield _station(device.type, device.name, size(device.size))
            for kname in sorted(devices.below(device) - {device.kname})[:MOST]:
                yield _station("path", kname)
        elif disk.image.type == "file" and (mount := devices.mount_of(disk.source)) is not None:
            yield _station(f"{mount.type} mount", mount.source, mount.folder)
    except UnheardError as reason:
        yield Station("block device", "not collected", clean(str(reason)), "unheard")


def _volume(guest: Guest, volume: str) -> Station:
    try:
        found = guest.storage.volumes.volume(volume)
        if found is None:
            return Station("cinder volume", _ends(volume), "does not exist", "absent", volume)
        known = (lambda: f"{found.size_gib} GiB", lambda: found.status)
        return Station(
            "cinder volume",
            _cut(_said(lambda: found.name) or _ends(volume)),
            _all(known),
            whole=volume,
        )
    except UnheardError as reason:
        return Station("cinder volume", _ends(volume), clean(str(reason)), "unheard", volume)


def _chain(cloud: Cloud, image: Image) -> Iterator[Station]:
    missing = False
    try:
        missing = image.backing_missing is not None
        files = (image.top,) if missing else image.chain
    except UnheardError as reason:
        yield Station("image", _name(image.path), clean(str(reason)), "unheard", clean(image.path))
        return
    for info in files:
        base = _glance(cloud, info.path)
        yield _file(info, "base image" if base else f"{info.format} image")
    if missing:
        path = image.backing_path or image.backing_filename or ""
        yield Station("base image", _name(path), "is missing", "absent", clean(path))
    last = (image.backing_path or "") if missing else files[-1].path
    if (glance := _glance(cloud, last)) is not None:
        name = cloud.image_names.get(glance)
        yield Station("glance image", _cut(name or _ends(glance)), _ends(glance), whole=glance)


def _file(info: ImageInfo, kind: str) -> Station:
    used = "" if info.actual_size is None else f", {size(info.actual_size)} used"
    details = f"{info.format}, {size(info.virtual_size)}{used}"
    marks = [word for word, on in (("CORRUPT", info.corrupt), ("dirty", info.dirty)) if on]
    return Station(
        clean(kind), _name(info.path), clean(", ".join([details, *marks])), whole=clean(info.path)
    )


def _glance(cloud: Cloud, path: str) -> str | None:
    return cloud.image_of_base.get(posixpath.basename(path).partition("_")[0])


def _ports(cloud: Cloud, guest: Guest) -> Iterator[Chain]:
    taps = {tap.prefix: tap for tap in guest.taps or ()}
    for port in guest.ports or ():
        tap = taps.pop(port.id[:PREFIX], None)
        yield [*_nic(guest, port), *_switched(guest, port, tap), *_outwards(cloud, guest, port)]
    for tap in taps.values():
        yield list(_switched(guest, None, tap))


def _nic(guest: Guest, port: Port) -> Iterator[Station]:
    mac = _said(lambda: port.mac)
    plugged = guest.domain is not None and mac in (_macs(guest) or (mac,))
    state = "there" if plugged else "absent"
    details = "" if plugged else "not in the domain"
    yield Station("in the guest", mac or "?", details, state, mac)
    address = (lambda: " ".join(port.addresses), lambda: port.status)
    off = _said(lambda: "" if port.admin_state_up else "admin down")
    details = ", ".join(filter(None, [_all(address), off]))
    yield Station(
        "neutron port", f"{clean(port.id[:PREFIX])}…", _cut(details), whole=clean(port.id)
    )


def _macs(guest: Guest) -> tuple[str, ...]:
    try:
        return guest.domain.macs if guest.domain is not None else ()
    except UnheardError:
        return ()


def _switched(guest: Guest, port: Port | None, tap: Tap | None) -> Iterator[Station]:
    if tap is None:
        if port is not None and "network" in guest.unheard:
            yield Station("tap", clean(port.tap), "not collected", "unheard", clean(port.tap))
        elif port is not None:
            yield Station("tap", clean(port.tap), "does not exist", "absent", clean(port.tap))
        return
    there = tap.is_there
    details = _all((lambda: f"MTU {tap.mtu}", lambda: "up" if tap.up else "down"))
    state, details = ("there", details) if there else ("absent", "does not exist")
    yield Station("tap", _cut(tap.name), details, state, clean(tap.name))
    try:
        bridge, tag = tap.bridge, tap.tag
        vlan = "" if tag is None else f"VLAN tag {tag}{' (dead)' if tap.is_dead else ''}"
        bridge = bridge or (tap.master if there else None)
        if bridge:
            yield _station("bridge", bridge, vlan)
    except UnheardError as reason:
        yield Station("bridge", "not collected", clean(str(reason)), "unheard")


def _outwards(cloud: Cloud, guest: Guest, port: Port) -> Iterator[Station]:
    network = port.network
    if network is not None:
        yield _station("network", _said(lambda: network.name) or (port.network_id or "?"))
    if guest.host is None:
        return
    try:
        routers = cloud.ports.routers.get(port.network_id or "", frozenset())
    except UnheardError:
        return
    for router in sorted(routers):
        if f"qrouter-{router}" in guest.host.network.namespaces:
            yield Station("router", f"qrouter-{clean(router)[:8]}…", whole=f"qrouter-{router}")
    for leads in cloud.ports.floating.get(port.id, ()):
        if (fate := known(partial(translation, cloud, leads))) is not None:
            yield _station("floating IP", leads.address, fate.strip(" ()"))


def _station(kind: str, name: str, details: str = "") -> Station:
    return Station(clean(kind), _name(name), _cut(details), whole=clean(name))


def _name(path: str) -> str:
    """Return the end of a path: its last folder and name, or less of them."""
    folder, name = posixpath.split(clean(path))
    last = posixpath.basename(folder)
    return cut(f"…/{last}/{name}" if last == "_base" else name or path, LONGEST)


def _ends(uuid: str) -> str:
    return f"{clean(uuid)[:8]}…"


def _cut(text: str) -> str:
    return cut(clean(text), LONGEST)


def _said(read: Callable[[], str]) -> str:
    """Return a value, or nothing if it was not collected."""
    try:
        return clean(read() or "")
    except UnheardError:
        return ""


def _all(reads: Iterable[Callable[[], str]]) -> str:
    return ", ".join(filter(None, map(_said, reads)))
