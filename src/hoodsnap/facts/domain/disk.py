"""The disks of a domain, as its XML describes them."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element

from hoodsnap.facts.fact import DocumentedField


class DiskImage(NamedTuple):
    """One image of a disk: the disk's own, or one that it is backed by."""

    type: str
    """`file`, `block`, `network`, `dir`, `volume` …"""

    source: str | None
    """A path, `pool/image` or `pool/image@snapshot` of rbd, or another protocol's name of it; None:
    no medium."""

    format: str | None
    """`qcow2`, `raw` …; None if libvirt does not say."""


class Disk(NamedTuple):
    """One `<disk>`."""

    target: str | None
    """`vda`."""
    bus: str | None
    device: str
    """`disk`, `cdrom`, `floppy` or `lun`."""
    image: DiskImage
    protocol: str | None
    """Of a network disk: `rbd`, `iscsi` …"""
    serial: str | None
    """A volume's UUID."""
    read_only: bool
    shareable: bool
    transient: bool
    """Writes go to an overlay that is thrown away."""
    backing: tuple[DiskImage, ...] | None
    """What the image is backed by, nearest first; None if libvirt does not say."""
    keys: tuple[str, ...] = ()
    """The UUIDs of the secrets that it is decrypted with."""

    @property
    def source(self) -> str | None:
        """Where the image is; None: no medium."""
        return self.image.source

    @property
    def format(self) -> str | None:
        """How it is read: `qcow2`, `raw` …"""
        return self.image.format


DOCUMENTED_DISK = (
    DocumentedField("target", "`vda`."),
    DocumentedField("bus", "`virtio`."),
    DocumentedField("device", "`disk`, `cdrom`, `floppy` or `lun`."),
    DocumentedField("source", "The file or device; null if no medium is inserted."),
    DocumentedField(
        "format",
        "`qcow2`, `raw`; null if libvirt does not report it.",
        lambda disk: disk.image.format,
    ),
    DocumentedField("serial", "A volume's id."),
    DocumentedField("read_only", "True if the guest can't write to it."),
)
"""Fields of a disk that the expressions of a lab sheet can read."""


def read_disk(element: Element) -> Disk:
    """One `<disk>`."""
    target, driver = element.find("target"), element.find("driver")
    source, serial = element.find("source"), element.find("serial")
    form = None if driver is None else driver.get("type")
    return Disk(
        target=None if target is None else target.get("dev"),
        bus=None if target is None else target.get("bus"),
        device=element.get("device", "disk"),
        image=DiskImage(element.get("type", "file"), _source(source), form),
        protocol=None if source is None else source.get("protocol"),
        serial=None if serial is None else serial.text,
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        transient=element.find("transient") is not None,
        backing=_backing(element),
        keys=tuple(
            uuid.lower()
            for encryption in element.iter("encryption")
            for secret in encryption.iterfind("secret")
            if (uuid := secret.get("uuid"))
        ),
    )


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
        if source is None:  # <backingStore/> says that there is nothing below
            return tuple(chain)
        form_name = None if form is None else form.get("type")
        chain.append(DiskImage(store.get("type", "file"), _source(source), form_name))
        store = store.find("backingStore")
    return None
