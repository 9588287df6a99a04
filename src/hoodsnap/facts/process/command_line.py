"""A QEMU command line, read the way QEMU reads it.

It understands what libvirt has written since 2012: `-drive` and `-blockdev`, `-M` and `-machine`,
`key=value,…` with doubled commas and JSON. Nothing in here raises: a value that is missing or can't
be read is None. A command line shows how a process was started, not what was plugged in later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from hoodsnap.facts.fact import unlocked
from hoodsnap.facts.process.drive import Drive, nested, read_drives
from hoodsnap.facts.quantity import LARGEST, size, whole

FLAGS = frozenset(
    """
    ? h help version S s snapshot daemonize preconfig only-migratable async-teardown
    nodefaults no-user-config nodefconfig nographic curses sdl
    no-acpi no-hpet no-reboot no-shutdown no-fd-bootchk no-kvm no-kvm-irqchip no-kvm-pit
    no-kvm-pit-reinjection no-kqemu kernel-kqemu enable-kqemu enable-kvm disable-kvm enable-nesting
    enable-fips enable-sync-profile mem-prealloc singlestep one-insn-per-tick semihosting old-param
    usb full-screen no-frame no-quit alt-grab ctrl-grab show-cursor portrait std-vga
    win2k-hack rtc-td-hack localtime tdf igd-passthru
    xen-create xen-attach xen-domid-restrict
    """.split()  # noqa: SIM905 (as a list it takes sixty lines)
)
"""Options that take no value."""

FREE = frozenset(["append", "name", "kernel", "initrd", "smbios", "fw_cfg"])
"""Options whose value is free text, which may start with a hyphen."""

NAME_OPTIONS = re.compile(r",(?:process|debug-threads)=(?:[^,]|,,)*")

OF_A_DOMAIN = re.compile(r"domain-.+")
"""Name of the folder that libvirt (1.3.3 and later) makes for each domain."""

Properties = Mapping[str, object]
"""One option's `key=value,…` or JSON object. All values of `key=value` are text."""


class Display(NamedTuple):
    """A console that is reachable over the network."""

    type: str
    """`vnc` or `spice`."""
    address: str
    """Address on which it listens; empty for all addresses."""
    port: int
    guarded: bool
    """True if it requires a password or a certificate, or uses TLS."""


_VNC_GUARDS = ("password", "password-secret", "tls", "tls-creds", "x509", "x509verify", "sasl")


@unlocked
@dataclass(frozen=True)
class CommandLine:
    """The command line that one QEMU was started with."""

    words: tuple[str, ...]
    truncated: bool = False
    """True if the end is missing: an option's absence then proves nothing."""

    @property
    def binary(self) -> str:
        """The program as it was invoked: a path or a bare name."""
        return self.words[0] if self.words else ""

    @cached_property
    def options(self) -> Mapping[str, Sequence[str]]:
        """Option (without hyphens) → all its values, in order; "" for an option without a value.

        An image without an option is listed as `hda`, as in QEMU.
        """
        found: dict[str, list[str]] = {}
        words = self.words
        at, end = 1, len(words)
        while at < end:
            word = words[at]
            at += 1
            if word[:1] != "-" or word == "-":
                found.setdefault("hda", []).append(word)
                continue
            option = word[2:] if word[1] == "-" else word[1:]
            value = ""
            if option not in FLAGS and at < end:
                following = words[at]
                # An option that is newer than FLAGS may be a flag.
                if following[:1] != "-" or following == "-" or option in FREE:
                    value = following
                    at += 1
            found.setdefault(option, []).append(value)
        return found

    def last(self, option: str) -> str | None:
        """Return an option's last value, which is the one that counts; None without the option."""
        values = self.options.get(option)
        return values[-1] if values else None

    @cached_property
    def name(self) -> str | None:
        """Guest name from `-name X`, `-name guest=X,…` or `-name X,process=…`."""
        value = self.last("name")
        if not value:
            return None
        guest = read_properties(value, "guest").get("guest")
        if isinstance(guest, str):
            return guest
        # With libvirt 1.2 the whole value is the name, even with an equals sign in it.
        return NAME_OPTIONS.sub("", value).replace(",,", ",")

    @property
    def uuid(self) -> str | None:
        """UUID from `-uuid`, lower case."""
        value = self.last("uuid")
        return value.lower() if value else None

    @cached_property
    def memory_kib(self) -> int | None:
        """KiB at boot, from `-m` (MiB unless it names a unit); memory modules are not counted."""
        value = self.last("m")
        if value is None:
            return None
        said = read_properties(value, "size").get("size")
        amount = size(said, unit="M") if isinstance(said, str) else None
        return None if amount is None else amount // 1024

    @cached_property
    def topology(self) -> Mapping[str, int]:
        """Counts in `-smp` by their names: `cpus` (at boot), `maxcpus`, `sockets`, `cores` …"""
        raw = read_properties(self.last("smp") or "", "cpus")
        counts = ((key, whole(value)) for key, value in raw.items())
        return {key: count for key, count in counts if count is not None}

    @property
    def vcpus(self) -> int | None:
        """vCPUs at boot, from `-smp`."""
        return self.topology.get("cpus") or self.max_vcpus

    @property
    def max_vcpus(self) -> int | None:
        """Maximum number of vCPUs, from `-smp`."""
        said = self.topology
        if "maxcpus" in said or "cpus" in said:
            return said.get("maxcpus") or said.get("cpus")
        product = 1
        for count in said.values():
            product *= count
        return product if said and product < LARGEST else None

    @cached_property
    def _machine(self) -> Properties:
        machine: dict[str, object] = {}
        for option in ("M", "machine"):
            for value in self.options.get(option, ()):
                machine.update(read_properties(value, "type"))
        return machine

    @property
    def machine(self) -> str | None:
        """Machine type: `pc-1.0`, `pc-i440fx-7.2`; None if only other properties are set."""
        value = self._machine.get("type")
        return value if isinstance(value, str) else None

    @property
    def accelerator(self) -> str | None:
        """How the vCPUs run: `kvm`, `tcg`; None if the command line does not say."""
        said = read_properties(self.last("accel") or "", "accel").get("accel")
        said = said or self._machine.get("accel")
        if isinstance(said, str):  # QEMU tries several in their order
            return said.partition(":")[0]
        return "kvm" if "enable-kvm" in self.options else None

    @property
    def processor(self) -> str | None:
        """CPU model: `EPYC`, `host`; None without one."""
        said = self._processor.get("model")
        return said if isinstance(said, str) else None

    @cached_property
    def cpu_features(self) -> Mapping[str, bool]:
        """Feature that was added to the CPU model → True, or taken from it → False."""
        switches = {"on": True, "off": False}
        return {
            name.replace("_", "-"): switches[value]
            for name, value in self._processor.items()
            if isinstance(value, str) and value in switches
        }

    @cached_property
    def _processor(self) -> Properties:
        return read_properties(self.last("cpu") or "", "model")

    @property
    def clock(self) -> str | None:
        """Base of the guest's clock: `utc`, `localtime` or a time; None without one."""
        said = read_properties(self.last("rtc") or "", "base").get("base")
        return said if isinstance(said, str) else None

    @property
    def sandbox(self) -> bool | None:
        """True if QEMU filters its system calls; None if the command line does not say."""
        said = self.last("sandbox")
        return None if said is None else read_properties(said, "enable").get("enable") == "on"

    @cached_property
    def _listed_objects(self) -> Sequence[Properties]:
        return [read_properties(value, "qom-type") for value in self.options.get("object", ())]

    @cached_property
    def _objects(self) -> Mapping[str, Properties]:
        return {str(thing.get("id")): thing for thing in self._listed_objects}

    @property
    def backing_kib(self) -> int | None:
        """KiB of the object that holds the machine's memory; None without one, as with NUMA."""
        backend = self._objects.get(str(self._machine.get("memory-backend")))
        said = None if backend is None else backend.get("size")
        amount = size(said, unit="B") if isinstance(said, str) else said
        return amount // 1024 if isinstance(amount, int) and not isinstance(amount, bool) else None

    @property
    def random_sources(self) -> tuple[str, ...]:
        """Files of the host that feed the guest's random number generators, in their order."""
        found = (thing.get("filename") for thing in self._objects.values())
        return tuple(path for path in found if isinstance(path, str))

    @property
    def heads(self) -> tuple[int, ...]:
        """Screens of each video card that says how many it has."""
        counts = (whole(device.get("max_outputs")) for device in self._devices)
        return tuple(count for count in counts if count is not None)

    @cached_property
    def mtus(self) -> Mapping[str, int]:
        """MAC → MTU of each network card that is given one."""
        found = {}
        for device in self._devices:
            mac, mtu = device.get("mac"), whole(device.get("host_mtu"))
            if isinstance(mac, str) and mtu is not None:
                found[mac.lower()] = mtu
        return found

    @cached_property
    def _devices(self) -> Sequence[Properties]:
        return [read_properties(value, "driver") for value in self.options.get("device", ())]

    @cached_property
    def devices(self) -> Mapping[str, Properties]:
        """Id → properties of each guest device; libvirt's ids are the aliases in its live XML."""
        named = ((device.get("id"), device) for device in self._devices)
        return {name: device for name, device in named if isinstance(name, str)}

    @cached_property
    def nodes(self) -> Mapping[str, Properties]:
        """Name → properties of each block node, with nested objects: `{"cache": {"direct": …}}`."""
        named = ((node.get("node-name"), node) for node in self._nodes)
        return {name: node for name, node in named if isinstance(name, str)}

    @cached_property
    def _nodes(self) -> Sequence[Properties]:
        return [
            nested(read_properties(value, "driver")) for value in self.options.get("blockdev", ())
        ]

    @cached_property
    def macs(self) -> tuple[str, ...]:
        """MAC addresses of the network cards, lower case, in command-line order.

        Cards passed through from the host are not listed: their addresses are set on the host.
        """
        cards = [device.get("mac") for device in self._devices]
        for value in self.options.get("net", ()):
            card = read_properties(value, "type")
            cards.append(card.get("macaddr") if card.get("type") == "nic" else None)
        cards += [
            read_properties(value, "type").get("mac") for value in self.options.get("nic", ())
        ]
        return tuple(mac.lower() for mac in cards if isinstance(mac, str))

    @cached_property
    def disks(self) -> tuple[Drive, ...]:
        """The guest's disks, without firmware flash and passed-through SCSI devices."""
        machine = self._machine.items()
        flash = [
            node for key, node in machine if key.startswith("pflash") and isinstance(node, str)
        ]
        return read_drives(
            drives=[read_properties(value, "file") for value in self.options.get("drive", ())],
            nodes=self._nodes,
            devices=[*self._devices, *self._floppies()],
            flash=frozenset(flash),
            plain=self._plain(),
        )

    def _floppies(self) -> Iterable[Properties]:
        # Until 2019 libvirt attached a floppy to its controller through -global.
        for value in self.options.get("global", ()):
            owner, _, node = value.partition("=")
            if owner.startswith("isa-fdc.drive"):
                yield {"driver": "isa-fdc", "drive": node, "id": owner}

    def _plain(self) -> Iterable[tuple[str, str]]:
        for option in ("hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "sd", "mtdblock"):
            for value in self.options.get(option, ()):
                yield option, value
        for value in self.options.get("usbdevice", ()):
            kind, _, image = value.partition(":")
            if kind == "disk":
                yield "usbdevice", image

    @cached_property
    def smbios(self) -> Mapping[str, str]:
        """System information (`-smbios type=1`): manufacturer, product, serial, uuid …"""
        found: dict[str, str] = {}
        for value in self.options.get("smbios", ()):
            table = read_properties(value)
            if table.get("type") == "1":
                found.update((key, text) for key, text in table.items() if isinstance(text, str))
        found.pop("type", None)
        return found

    @property
    def incoming(self) -> str | None:
        """Address, or `defer`, for an incoming migration; it stays set after the migration."""
        return self.last("incoming") or None

    @cached_property
    def graphics(self) -> tuple[Display, ...]:
        """Consoles that listen on a TCP port."""
        found = []
        for value in self.options.get("vnc", ()):
            said = read_properties(value, "vnc")
            # libvirt writes `vnc=…` if the display's name could be mistaken for an option.
            address, _, number = str(said.get("vnc", "")).rpartition(":")
            display = whole(number)
            if display is not None and not address.startswith("unix"):
                guarded = any(said.get(name, "off") not in ("off", "") for name in _VNC_GUARDS)
                found.append(Display("vnc", address.strip("[]"), 5900 + display, guarded))
        for value in self.options.get("spice", ()):
            said = read_properties(value)
            port = whole(said.get("port"))
            if port:
                guarded = said.get("disable-ticketing", "off") == "off" or "sasl" in said
                found.append(Display("spice", str(said.get("addr", "")), port, guarded))
        return tuple(found)

    @cached_property
    def monitors(self) -> tuple[str, ...]:
        """Paths of the monitor sockets; newer libvirt passes a file descriptor instead."""
        paths: dict[str, object] = {}
        for value in self.options.get("chardev", ()):
            device = read_properties(value, "backend")
            paths[str(device.get("id"))] = device.get("path")
        monitors = [read_properties(value, "chardev") for value in self.options.get("mon", ())]
        found = [paths.get(str(monitor.get("chardev"))) for monitor in monitors]
        for option in ("qmp", "qmp-pretty", "monitor"):
            for value in self.options.get(option, ()):
                kind, _, rest = value.partition(":")
                found.append(rest.partition(",")[0] if kind == "unix" else None)
        return tuple(path for path in found if isinstance(path, str))

    @cached_property
    def folder(self) -> str | None:
        """Name of the folder that libvirt made for this start: `domain-6-instance-00000003`.

        None if the command line names no such folder, as before libvirt 1.3.3.
        """
        for path in self._paths_of_libvirt:
            name = path.rpartition("/")[0].rpartition("/")[2]
            if OF_A_DOMAIN.fullmatch(name):
                return name
        return None

    @cached_property
    def _paths_of_libvirt(self) -> Sequence[str]:
        objects = self._listed_objects
        keys = [thing.get("file") for thing in objects if thing.get("id") == "masterKey0"]
        return [path for path in (*keys, *self.monitors) if isinstance(path, str)]

    @cached_property
    def home(self) -> str | None:
        """Folder of the libvirt that started the process (`/var/lib/libvirt/qemu`).

        It is found from the secrets' key or the monitor socket below it; None if the command line
        names neither.
        """
        for path in self._paths_of_libvirt:
            folder = path.rpartition("/")[0]
            if OF_A_DOMAIN.fullmatch(folder.rpartition("/")[2]):
                folder = folder.rpartition("/")[0]
            if folder:
                return folder
        return None

    @property
    def is_probe(self) -> bool:
        """True if it runs no guest: libvirt, as a rule, only queries this QEMU's capabilities."""
        if self.uuid is not None:
            return False
        asks = ("?", "h", "help", "version")
        return self.machine in ("none", "?", "help") or any(
            option in self.options for option in asks
        )


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Read the arguments of a QEMU, starting with the program's name."""
    return CommandLine(tuple(argv))


_JSON = json.JSONDecoder()
"""A reader that costs less than `json.loads`, for the twenty options of each guest."""


def read_properties(text: str, implied: str = "") -> dict[str, object]:
    """Read the properties of one option: `key=value,…`, where `,,` is a literal comma, or JSON.

    A first word without `=` is the value of `implied`; any other such word is a switch with the
    value `on`.
    """
    if text.startswith("{"):
        try:
            found, end = _JSON.raw_decode(text)
        except (ValueError, RecursionError):  # truncated, or not JSON
            return {}
        if text[end:].strip(" \t\n\r"):
            return {}
        return found if isinstance(found, dict) else {}
    properties: dict[str, object] = {}
    # No argument can contain NUL, so NUL can stand in for a literal comma.
    for word in text.replace(",,", "\0").split(","):
        key, equals, value = word.replace("\0", ",").partition("=")
        if equals:
            properties[key] = value
        elif key and implied and not properties:
            properties[implied] = key
        elif key:
            properties[key] = "on"
    return properties
