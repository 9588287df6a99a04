"""Disks of a domain, as its XML describes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hoodsnap.facts.fact import DocumentedField
from hoodsnap.facts.quantity import whole


class DiskImage(NamedTuple):
    """One image of a disk: its top image, or a backing file."""

    type: str
    """`file`, `block`, `network`, `dir`, `volume` …"""

    source: str | None
    """A path; `pool/image` or `pool/image@snapshot` for rbd; another protocol's name; None without
    a medium."""

    format: str | None
    """`qcow2`, `raw` …; None if libvirt does not report it."""

    servers: tuple[str, ...] = ()
    """Servers of a network disk (Ceph's monitors), as `HOST:PORT`."""


class Secret(NamedTuple):
    """The secret by which QEMU authenticates to a disk's storage."""

    type: str
    """`ceph`, `iscsi`."""
    uuid: str | None
    """UUID in libvirt, lower case; None if the definition names the secret by its usage."""
    usage: str | None


class Disk(NamedTuple):
    """One `<disk>`."""

    target: str | None
    """Device name in the guest: `vda`."""
    bus: str | None
    device: str
    """`disk`, `cdrom`, `floppy` or `lun`."""
    image: DiskImage
    protocol: str | None
    """Protocol of a network disk: `rbd`, `iscsi` …; None for other disks."""
    serial: str | None
    """Serial number in the guest; for a volume its UUID."""
    read_only: bool
    shareable: bool
    transient: bool
    """True if writes go to an overlay that is discarded."""
    backing: tuple[DiskImage, ...] | None
    """Backing files, nearest first; None if libvirt does not report them."""
    keys: tuple[str, ...] = ()
    """UUIDs of the secrets that decrypt the disk."""
    cache: str | None = None
    """Cache mode that libvirt was given: `none`, `writeback` …; None if QEMU decides."""
    login: Secret | None = None
    """Secret for the disk's storage; None if the storage asks for none."""
    io: str | None = None
    """How QEMU waits for the disk: `native`, `threads` or `io_uring`; None if QEMU decides."""
    copied_to: str | None = None
    """Place of the file or device to which a running job copies the disk; None without a copy."""
    names_backing: bool = False
    """True if the definition has a `<backingStore>`, which is empty for a disk without any."""

    tray_open: bool = False
    """True if the drive's tray is open, so that the guest does not see its medium."""

    @property
    def source(self) -> str | None:
        """Place of the top image; None without a medium."""
        return self.image.source

    @property
    def format(self) -> str | None:
        """Format of the top image: `qcow2`, `raw` …; None if libvirt does not report it."""
        return self.image.format


DOCUMENTED_DISK = (
    DocumentedField("target", "Device name in the guest: `vda`."),
    DocumentedField("bus", "Bus of the disk: `virtio`."),
    DocumentedField("device", "`disk`, `cdrom`, `floppy` or `lun`."),
    DocumentedField("source", "Path of the file or device; null without a medium."),
    DocumentedField(
        "format",
        "`qcow2`, `raw`; null if libvirt does not report it.",
        lambda disk: disk.image.format,
    ),
    DocumentedField("serial", "Serial number in the guest; for a volume its UUID."),
    DocumentedField("read_only", "True if the guest can't write to the disk."),
)
"""Fields of a disk that the expressions of a lab sheet can read."""


class OpenedImage(NamedTuple):
    """One image of a running domain, by the number in the names of QEMU's nodes for it."""

    number: int
    """1 for the nodes `libvirt-1-storage` and `libvirt-1-format`."""
    image: DiskImage
    disk: Disk
    """The disk that it belongs to."""
    is_top: bool
    """False for a backing file."""


def read_opened(disk: Disk, element: Element) -> Iterator[OpenedImage]:
    """Yield the images of one `<disk>` that have a number; before libvirt 5.8 none has."""
    number, store = _number(element), element.find("backingStore")
    if number is not None:
        yield OpenedImage(number, disk.image, disk, True)
    for image in disk.backing or ():
        number = _number(store) if store is not None else None
        if number is not None:
            yield OpenedImage(number, image, disk, False)
        store = store.find("backingStore") if store is not None else None


def _number(image: Element) -> int | None:
    """Return the number of an image, which is in its source; in a backing file's own element."""
    source = image.find("source")
    for place in (image, source):
        if place is not None and place.get("index") is not None:
            return whole(place.get("index"))
    return None


def read_disk(element: Element) -> Disk:
    """Read one `<disk>`."""
    target, driver = element.find("target"), element.find("driver")
    source, serial = element.find("source"), element.find("serial")
    form = None if driver is None else driver.get("type")
    return Disk(
        target=None if target is None else target.get("dev"),
        bus=None if target is None else target.get("bus"),
        device=element.get("device", "disk"),
        image=DiskImage(element.get("type", "file"), _source(source), form, _servers(source)),
        protocol=None if source is None else source.get("protocol"),
        serial=None if serial is None else serial.text,
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        transient=element.find("transient") is not None,
        backing=_backing(element),
        names_backing=element.find("backingStore") is not None,
        keys=tuple(
            uuid.lower()
            for encryption in element.iter("encryption")
            for secret in encryption.iterfind("secret")
            if (uuid := secret.get("uuid"))
        ),
        cache=None if driver is None else driver.get("cache"),
        login=_login(element),
        io=None if driver is None else driver.get("io"),
        copied_to=_copied_to(element.find("mirror")),
        tray_open=target is not None and target.get("tray") == "open",
    )


def _copied_to(mirror: Element | None) -> str | None:
    if mirror is None:
        return None
    return _source(mirror.find("source")) or mirror.get("file")  # `file` before libvirt 1.2.6


def _servers(source: Element | None) -> tuple[str, ...]:
    hosts = source.iterfind("host") if source is not None else ()
    return tuple(sorted(f"{host.get('name')}:{host.get('port') or ''}" for host in hosts))


def _login(disk: Element) -> Secret | None:
    # Since libvirt 3.9 it may be inside of <source>; <auth> in a backing file is another image's.
    for path in ("auth/secret", "source/auth/secret"):
        secret = disk.find(path)
        if secret is not None:
            uuid = secret.get("uuid")
            return Secret(secret.get("type") or "", uuid and uuid.lower(), secret.get("usage"))
    return None


def _source(source: Element | None) -> str | None:
    if source is None:
        return None
    if source.get("volume"):
        return f"{source.get('pool')}/{source.get('volume')}"
    places = (source.get(key) for key in ("file", "dev", "dir", "name", "path"))
    place = next((place for place in places if place), None)
    snapshot = source.find("snapshot")
    return place if snapshot is None else f"{place}@{snapshot.get('name')}"


def _backing(disk: Element) -> tuple[DiskImage, ...] | None:
    chain: list[DiskImage] = []
    store = disk.find("backingStore")
    while store is not None:
        source, form = store.find("source"), store.find("format")
        if source is None:  # an empty <backingStore/> ends the chain
            return tuple(chain)
        form_name = None if form is None else form.get("type")
        chain.append(DiskImage(store.get("type", "file"), _source(source), form_name))
        store = store.find("backingStore")
    return None
