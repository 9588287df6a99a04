"""Devices of a running guest: libvirt's definition against the command line that QEMU has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Severity, derives
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.guest_device import GuestDevice
from hoodsnap.facts.fact import known, text
from hoodsnap.facts.process.command_line import CommandLine, Properties, read_properties
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import brief

DRIVERS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("disk", "virtio"): (
        "virtio-blk",
        "vhost-user-blk",
    ),
    ("disk", "scsi"): (
        "scsi-hd",
        "scsi-cd",
        "scsi-block",
        "scsi-generic",
        "scsi-disk",
    ),
    ("disk", "ide"): (
        "ide-hd",
        "ide-cd",
        "ide-drive",
    ),
    ("disk", "sata"): (
        "ide-hd",
        "ide-cd",
        "ide-drive",
    ),
    ("disk", "usb"): (
        "usb-storage",
        "usb-bot",
        "usb-uas",
    ),
    ("interface", "virtio"): ("virtio-net",),
    ("interface", "e1000"): ("e1000",),
    ("interface", "e1000e"): ("e1000e",),
    ("interface", "rtl8139"): ("rtl8139",),
    ("interface", "vmxnet3"): ("vmxnet3",),
    ("video", "virtio"): (
        "virtio-vga",
        "virtio-gpu",
    ),
    ("video", "qxl"): ("qxl",),
    ("video", "vga"): (
        "VGA",
        "secondary-vga",
    ),
    ("video", "cirrus"): ("cirrus-vga",),
    ("video", "bochs"): ("bochs-display",),
    ("input", "usb tablet"): ("usb-tablet",),
    ("input", "usb mouse"): ("usb-mouse",),
    ("input", "usb keyboard"): ("usb-kbd",),
    ("input", "virtio tablet"): ("virtio-tablet",),
    ("input", "virtio mouse"): ("virtio-mouse",),
    ("input", "virtio keyboard"): ("virtio-keyboard",),
    ("serial", "isa-serial"): ("isa-serial",),
    ("serial", "pci-serial"): ("pci-serial",),
    ("memballoon", "virtio"): ("virtio-balloon",),
    ("rng", "virtio"): ("virtio-rng",),
    ("controller", "usb piix3-uhci"): ("piix3-usb-uhci",),
    ("controller", "usb qemu-xhci"): ("qemu-xhci",),
    ("controller", "scsi virtio-scsi"): ("virtio-scsi",),
    ("controller", "virtio-serial"): ("virtio-serial",),
}
"""libvirt's kind and model of a device → QEMU's drivers, without the bus (`-pci`) behind them."""

WRITE_CACHE = {
    "none": "on",
    "writeback": "on",
    "unsafe": "on",
    "writethrough": "off",
    "directsync": "off",
}
"""libvirt's cache mode → whether the guest's disk has a write cache that it must flush."""

BOOTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "hd": (("disk", "disk"), ("disk", "lun")),
    "cdrom": (("disk", "cdrom"),),
    "network": (("interface", ""),),
}
"""Where a guest boots from → kinds of devices, with the kind of a disk."""

UNPLUGGED = ("hostdev", "dimm", "nvdimm", "virtiomem", "vsock", "redir", "fs", "ua-")
"""Beginnings of the aliases of devices that come and go without an action of nova, or that their
owner named."""

PLUGGED = {
    "attach_interface": "interface",
    "detach_interface": "interface",
    "attach_volume": "disk",
    "detach_volume": "disk",
    "swap_volume": "disk",
}
"""nova's action → the kind of device that it plugs into a running guest, or out of it."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def guest_device_differs(
    guest: Guest, domain: Domain, process: Process, instance: Instance | None
) -> Problems:
    """A device of the running guest is another one in QEMU than in libvirt's definition.

    libvirt gives each device an alias and passes it to QEMU as the device's id. Every command about
    a device (an attach, a detach, a change of a medium or of a link) names it by the alias. If QEMU
    was started with another device of that id, or without it, a command of nova changes the wrong
    device of the guest, or fails. The same goes for what a guest boots from.

    Authority: QEMU, for the devices that the guest has.

    Traps: A device that was plugged in is not on the command line, and one that was plugged out is
    not in the definition: kinds that nova ever plugged are not compared, nor are cards and disks
    whose tap or file QEMU no longer has open. libvirt names some devices
    that QEMU builds in. Drivers of other machines have other names, and only known ones are
    compared.

    Next: Compare the definition with the command line:

        virsh dumpxml NAME
        tr '\\0' '\\n' < /proc/PID/cmdline | grep -A1 '^-device'

    Check whether an emulator in between changes the arguments, and what libvirt passed:

        virsh dumpxml NAME | grep '<emulator>'
        tail -n 80 /var/log/libvirt/qemu/NAME.log

    Check that the server's volumes and ports are right. Then stop and start the server at a time
    that suits its owner, which starts QEMU from libvirt's definition:

        openstack server volume list UUID
        openstack port list --server UUID
        openstack server stop UUID
        openstack server start UUID

    It worked if the new process has the definition's devices:

        tr '\\0' '\\n' < /proc/$(cat /run/libvirt/qemu/NAME.pid)/cmdline | grep -A1 '^-device'

    Not yet: Do not attach or detach anything. Do not migrate the server: libvirt starts it on the
    other host from the definition, and the guest's state does not fit to it.

    Source: libvirt src/qemu/qemu_alias.c, src/qemu/qemu_command.c.
    """
    if domain.id is None:
        return
    defined, argv = domain.xml.devices, process.argv
    if not defined or argv.truncated:
        return
    apart = [*_settings(defined, argv.devices), *_boot(domain.xml.boot, defined, argv)]
    apart += _drives(domain, argv)
    apart += (
        (name, "driver", "none", str(argv.devices[name].get("driver")))
        for name, kind in _absent(defined, argv, instance)
        if _is_plugged_in(name, kind, domain, process)
    )
    if apart:
        name, what, ours, theirs = apart[0]
        more = f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
        yield problem(
            f"{guest.title}'s device {brief(name)} has {what} {ours} in libvirt, but its QEMU was "
            f"started with {theirs}{more}",
            derives(domain, "xml", device=name, **{what: ours}),
            derives(process, "argv", device=name, **{what: theirs}),
        )


_Apart = tuple[str, str, str, str]
"""Name of a device, a setting, libvirt's value, and that of the command line."""


def _settings(
    defined: Mapping[str, GuestDevice], started: Mapping[str, Properties]
) -> Iterator[_Apart]:
    """Yield what differs of the devices that both have."""
    for alias, device in defined.items():
        given = started.get(alias)
        if given is None:
            continue
        driver = str(given.get("driver"))
        if driver.startswith("vfio"):
            continue  # the host's device is the guest's
        allowed = DRIVERS.get((device.kind, device.model))
        if allowed is not None and not any(_is_of(driver, one) for one in allowed):
            yield alias, "model", device.model, driver
        mac = given.get("mac")
        if device.mac is not None and isinstance(mac, str) and mac.lower() != device.mac:
            yield alias, "MAC address", device.mac, mac.lower()
        address = device.address
        place = _place(given) if address is not None else None
        if address is not None and place is not None and address != place:
            yield alias, "PCI address", _pci(address), _pci(place)
        order = given.get("bootindex")
        if device.boot_order is not None and str(order) != device.boot_order:
            yield alias, "boot order", device.boot_order, str(order or "none")
        cache = given.get("write-cache")
        wanted = WRITE_CACHE.get(device.cache or "")
        if cache is not None and wanted is not None and cache != wanted:
            yield alias, "write cache", wanted, str(cache)


def _is_of(driver: str, name: str) -> bool:
    """True if a driver is that of a name, on whatever bus: `virtio-net-pci` is of `virtio-net`."""
    return driver == name or driver.startswith(f"{name}-")


_BUS = re.compile(r"pcie?\.(\d{1,3})", re.ASCII)
_SLOT = re.compile(r"0x([\da-f]{1,2})(?:\.0x([0-7]))?", re.ASCII)


def _place(given: Properties) -> tuple[int, int, int] | None:
    """Return bus, slot and function of a device on a bus that libvirt numbered."""
    bus, slot = _BUS.fullmatch(str(given.get("bus"))), _SLOT.fullmatch(str(given.get("addr")))
    return (int(bus[1]), int(slot[1], 16), int(slot[2] or "0")) if bus and slot else None


def _pci(address: tuple[int, int, int]) -> str:
    bus, slot, function = address
    return f"{bus:02x}:{slot:02x}.{function}"


def _boot(
    order: tuple[str, ...], defined: Mapping[str, GuestDevice], argv: CommandLine
) -> Iterator[_Apart]:
    """Yield a guest that boots from another device than the first one that libvirt names."""
    if not order or any(device.boot_order is not None for device in defined.values()):
        return
    given = read_properties(argv.last("boot") or "", "order")
    if "kernel" in argv.options or "order" in given:
        return  # it boots from none, or in the order of the first releases
    wanted = BOOTS.get(order[0], ())
    fitting = [
        alias
        for alias, it in defined.items()
        if (it.kind, it.device) in wanted and alias in argv.devices
    ]
    numbered = {
        name: str(device["bootindex"])
        for name, device in argv.devices.items()
        if "bootindex" in device
    }
    if fitting and fitting[0] not in numbered:
        others = ", ".join(sorted(numbered)) or "no device"
        yield fitting[0], "boot order", "1", f"boot from {others}"
    elif fitting and any(number.isdecimal() for number in numbered.values()):
        first = min(
            numbered, key=lambda name: int(numbered[name]) if numbered[name].isdecimal() else 0
        )
        if first not in fitting:
            yield fitting[0], "boot order", "1", f"boot from {first} first"


def _drives(domain: Domain, argv: CommandLine) -> Iterator[_Apart]:
    """Yield disks whose image is in another device; numbers of images are never used twice."""
    names = {
        device.target: alias
        for alias, device in domain.xml.devices.items()
        if device.kind == "disk" and device.target is not None
    }
    for one in domain.xml.opened:
        alias = names.get(one.disk.target or "") if one.is_top else None
        nodes = {f"libvirt-{one.number}-{part}" for part in ("format", "storage")}
        for name, given in argv.devices.items():
            if alias is not None and given.get("drive") in nodes and name != alias:
                yield alias, "image", f"libvirt-{one.number}", f"that image in {name}"


def _absent(
    defined: Mapping[str, GuestDevice], argv: CommandLine, instance: Instance | None
) -> Iterator[tuple[str, str]]:
    """Yield name and kind of devices that QEMU alone was started with, of kinds that nova never
    plugged out.

    One that only the definition has was plugged in, if not by nova then by hand.
    """
    plugged = _plugged(instance)
    if plugged is None:
        return
    parts = tuple(f"{alias}{mark}" for alias in defined for mark in "-.")
    for name, given in argv.devices.items():
        # A codec of a sound card and a disk of a floppy controller have the id of what is above.
        if name in defined or name.startswith(parts):
            continue
        kind = "disk" if "drive" in given else "interface" if "mac" in given else ""
        if kind not in plugged and not name.startswith(UNPLUGGED):
            yield name, kind


def _is_plugged_in(name: str, kind: str, domain: Domain, process: Process) -> bool:
    """True if QEMU still has what a card or disk of its command line is connected to.

    The command line keeps a device that was plugged out, by whomever. Other devices are taken to be
    there.
    """
    given = process.argv.devices[name]
    if kind == "interface":
        cards = domain.xml.interfaces
        if str(given.get("mac")).lower() in [card.mac for card in cards]:
            return True  # under another alias
        taps = known(lambda: process.taps)
        return taps is not None and len(taps) > len(cards)
    if kind == "disk":
        files = known(lambda: process.files) or ()
        drives = known(lambda: process.disks) or ()
        sources = [drive.source for drive in drives if drive.name == given.get("drive")]
        return any(file.path in sources for file in files)
    return True


def _plugged(instance: Instance | None) -> frozenset[str] | None:
    """Return the kinds of devices that nova plugged in or out; None if its history has a gap."""
    if instance is None:
        return None
    actions = {text(row.cells, "action") for row in instance.rows("instance_actions")}
    if "create" not in actions:
        return None
    return frozenset(kind for action, kind in PLUGGED.items() if action in actions)
