"""Devices of a running domain, by the aliases that libvirt shares with QEMU."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element


class GuestDevice(NamedTuple):
    """One device of the guest."""

    kind: str
    """Element in the domain's XML: `disk`, `interface`, `video` …"""
    model: str
    """What it is for the guest: the bus of a disk, the model of another device; "" if libvirt does
    not report it."""
    mac: str | None = None
    """MAC address of a network card, lower case."""
    boot_order: str | None = None
    """Place among the devices that the guest boots from, from 1; None without one of its own."""
    cache: str | None = None
    """Cache mode of a disk; None if QEMU decides."""
    target: str | None = None
    """Device name of a disk in the guest, or of a network card on the host."""
    device: str = ""
    """`disk`, `cdrom`, `floppy` or `lun`; "" for other devices."""
    address: tuple[int, int, int] | None = None
    """Bus, slot and function of a PCI device in the guest; None for another one."""


def read_guest_device(element: Element) -> GuestDevice:
    """Read one child of `<devices>`."""
    kind = element.tag
    mac = _attribute(element, "mac", "address")
    return GuestDevice(
        kind,
        _model(element, kind),
        None if mac is None else mac.lower(),
        _attribute(element, "boot", "order"),
        _attribute(element, "driver", "cache") if kind == "disk" else None,
        _attribute(element, "target", "dev"),
        element.get("device", "disk") if kind == "disk" else "",
        _address(element),
    )


def _address(element: Element) -> tuple[int, int, int] | None:
    found = element.find("address")
    if found is None or found.get("type") != "pci" or found.get("multifunction") == "on":
        return None
    try:
        bus, slot, function = (int(found.get(part, ""), 16) for part in ("bus", "slot", "function"))
    except ValueError:
        return None
    return bus, slot, function


def _model(element: Element, kind: str) -> str:
    if kind == "disk":
        return _attribute(element, "target", "bus") or ""
    if kind in ("interface", "video"):
        return _attribute(element, "model", "type") or ""
    if kind == "input":
        return f"{element.get('bus')} {element.get('type')}"
    if kind == "controller":
        return f"{element.get('type')} {element.get('model') or ''}".strip()
    if kind in ("serial", "console"):
        return _attribute(element, "target/model", "name") or ""
    return element.get("model") or ""


def _attribute(element: Element, path: str, name: str) -> str | None:
    found = element.find(path)
    return None if found is None else found.get(name)
