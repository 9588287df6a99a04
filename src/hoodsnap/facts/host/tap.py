"""Taps: a guest's network devices in the host's kernel and in Open vSwitch.

A tap is everything on the host that is named after one port: `tap3f6c1d2a-bb`, its row in Open
vSwitch, and, with a hybrid bridge per port, also `qbr…`, `qvb…` and `qvo…`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.port import PREFIX
from hoodsnap.facts.fact import Documented, Fact, UnheardError, integer, text
from hoodsnap.facts.layer import NETWORK, Layer

NAME = re.compile(
    rf"(?P<kind>tap|qbr|qvb|qvo|vhu)(?P<prefix>[0-9a-f]{{8}}-[0-9a-f]{{{PREFIX - 9}}})"
)
"""Names that nova, os-vif and neutron give to a port's devices."""

DEAD_VLAN = 4095
"""VLAN tag of a port that neutron's agent has disconnected from the network."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tap(Fact):
    """One port's devices on one host. A field whose answer was not collected raises
    `UnheardError`."""

    layer: ClassVar[Layer] = NETWORK
    noun: ClassVar[str] = "tap"
    prefix: str
    """First characters of the port's id."""
    links: Mapping[str, Mapping[str, object]]
    """Kind (`tap`, `qbr`, `qvb`, `qvo`) → the kernel's device, as reported by `ip link`."""
    rows: Mapping[str, OvsInterface] | UnheardError
    """Kind → interface of Open vSwitch; or the reason why the interfaces are unknown."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "name": ("links", "ifname"),
        "mac": ("links", "address"),
        "mtu": ("links", "mtu"),
        "up": ("links", "flags"),
        "has_carrier": ("links", "flags"),
        "switch_mtu": ("switch", "mtu"),
        "switch_up": ("switch", "admin_state"),
        "switch_carrier": ("switch", "link_state"),
        "master": ("links", "master"),
        "qdisc": ("links", "qdisc"),
        "attached_mac": ("switch", "external_ids:attached-mac"),
        "iface_id": ("switch", "external_ids:iface-id"),
        "vm_uuid": ("switch", "external_ids:vm-uuid"),
        "ofport": ("switch", "ofport"),
        "error": ("switch", "error"),
        "policing_rate": ("switch", "ingress_policing_rate"),
        "installed": ("switch", "external_ids:ovn-installed"),
        "port_name": ("ports", "name"),
        "row_name": ("switch", "name"),
        "network_id": ("ports", "other_config:net_uuid"),
        "segment": ("ports", "other_config:segmentation_id"),
        "bridge": ("ports", "Bridge.ports"),
        "tag": ("ports", "tag"),
    }

    documented: ClassVar[Documented] = (
        *("name", "mac", "mtu", "up", "is_there", "is_switched", "bridge", "tag", "ofport"),
        *("iface_id", "attached_mac", "vm_uuid"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it; the place starts with the device's name."""
        answer, place = super().where(name)
        return answer, f"{self.name}.{place}"

    @property
    def name(self) -> str:
        """Device name: `tap3f6c1d2a-bb`; without a tap, the name of another device of the port."""
        kinds = {**self.links, **({} if isinstance(self.rows, UnheardError) else self.rows)}
        kind = next((kind for kind in ("tap", "vhu", "qvo") if kind in kinds), next(iter(kinds)))
        return f"{kind}{self.prefix}"

    @property
    def mac(self) -> str:
        """MAC of the host-side device, lower case: the guest's with the first byte set to fe."""
        return (text(self._link, "address") or "").lower()

    @property
    def mtu(self) -> int | None:
        """MTU in bytes."""
        return integer(self._link, "mtu")

    @property
    def kind(self) -> str:
        """Device kind: `tun` for a tap, otherwise `veth`, `macvtap` …; "" if not reported."""
        info = self._link.get("linkinfo")
        kind = info.get("info_kind") if isinstance(info, dict) else None
        return kind if isinstance(kind, str) else ""

    @property
    def up(self) -> bool:
        """True if the device is administratively up (flag `UP`)."""
        flags = self._link.get("flags")
        if not isinstance(flags, list):
            raise UnheardError(f"ip link: the flags of tap{self.prefix} can't be read")
        return "UP" in flags

    @property
    def has_carrier(self) -> bool:
        """True if a process holds the tap open (flag `LOWER_UP`)."""
        flags = self._link.get("flags")
        if not isinstance(flags, list):
            raise UnheardError(f"ip link: the flags of tap{self.prefix} can't be read")
        return "LOWER_UP" in flags

    @property
    def switch_mtu(self) -> int | None:
        """MTU in bytes that Open vSwitch last read from the kernel; None without one."""
        row = self._own_row
        return _maybe(row.interface.get("mtu")) if row is not None else None

    @property
    def switch_up(self) -> bool | None:
        """True if the tap is administratively up in Open vSwitch; None if it does not report it."""
        return self._state("admin_state")

    @property
    def switch_carrier(self) -> bool | None:
        """True if a process holds the tap open in Open vSwitch; None if it does not report it."""
        return self._state("link_state")

    def _state(self, column: str) -> bool | None:
        row = self._own_row
        cell = row.interface.get(column) if row is not None else None
        return {"up": True, "down": False}.get(cell) if isinstance(cell, str) else None

    @property
    def _own_row(self) -> OvsInterface | None:
        """Row of the tap itself; None if another device of the port is in Open vSwitch."""
        if isinstance(self.rows, UnheardError):
            raise UnheardError(str(self.rows))
        return self.rows.get("tap")

    @property
    def master(self) -> str | None:
        """Bridge that it belongs to, `ovs-system` for Open vSwitch; None if it is in no bridge."""
        return text(self._link, "master") if "master" in self._link else None

    @property
    def qdisc(self) -> str | None:
        """Queueing discipline: `noqueue`, `fq_codel`, `tbf` …; None if it was not collected."""
        return text(self._link, "qdisc")

    @property
    def is_there(self) -> bool:
        """True if the tap itself exists in the kernel."""
        return "tap" in self.links

    @property
    def is_switched(self) -> bool:
        """True if Open vSwitch has an interface for it."""
        return self._row is not None

    @property
    def attached_mac(self) -> str | None:
        """The guest's MAC in Open vSwitch, lower case; None if it is not set."""
        mac = self._id("attached-mac")
        return mac.lower() if mac is not None else None

    @property
    def iface_id(self) -> str | None:
        """The port's id in Open vSwitch; None if it is not set."""
        return self._id("iface-id")

    @property
    def vm_uuid(self) -> str | None:
        """The server's UUID in Open vSwitch; None if it is not set.

        os-vif writes it as `vm-uuid`, libvirt, which plugged the ports of older releases, as
        `vm-id`.
        """
        return self._id("vm-uuid") or self._id("vm-id")

    @property
    def installed(self) -> bool:
        """True if ovn-controller has installed the port's flows (OVN 20.12 and later)."""
        return self._id("ovn-installed") == "true"

    @property
    def port_name(self) -> str | None:
        """Name of its port in Open vSwitch, by which neutron's agent finds it."""
        row = self._row
        return text(row.port, "name") if row is not None and row.port is not None else None

    @property
    def row_name(self) -> str | None:
        """Name of its interface in Open vSwitch: `tap3f6c1d2a-bb`, `qvo3f6c1d2a-bb`."""
        row = self._row
        return text(row.interface, "name") if row is not None else None

    @property
    def network_id(self) -> str | None:
        """Network that neutron's agent has wired it to; None without one, as with OVN."""
        return self._config("net_uuid")

    @property
    def segment(self) -> str | None:
        """VLAN or VNI of the network when the agent wired it; None for a flat network."""
        return self._config("segmentation_id")

    @property
    def ofport(self) -> int | None:
        """Port number on the bridge; -1 if attaching it failed; None while it is being attached."""
        return self._number("ofport")

    @property
    def policing_rate(self) -> int | None:
        """Rate in kbit/s above which Open vSwitch drops what the guest sends; 0 for no limit.

        None if it is not in Open vSwitch, or if the column was not collected.
        """
        return self._number("ingress_policing_rate")

    @property
    def error(self) -> str | None:
        """Open vSwitch's error on attaching it: `could not open network device … (No such
        device)`; None without an error."""
        row = self._row
        error = row.interface.get("error") if row else None
        return error if isinstance(error, str) else None

    @property
    def type(self) -> str:
        """Interface type in Open vSwitch: `internal` for its own devices (DHCP, for example); ""
        for a device of the kernel."""
        row = self._row
        return text(row.interface, "type") or "" if row else ""

    @property
    def bridge(self) -> str | None:
        """Bridge of Open vSwitch that it is attached to; None if it is not in Open vSwitch."""
        row = self._row
        if row is not None and row.bridge is None:
            raise UnheardError(f"Open vSwitch: the bridge of {self.name} was not collected")
        return row.bridge if row else None

    @property
    def tag(self) -> int | None:
        """The host's local VLAN for the port's network; None without one, as with OVN."""
        row = self._row
        if row is None:
            return None
        if row.port is None:
            raise UnheardError(f"Open vSwitch: the VLAN of {self.name} was not collected")
        return _maybe(row.port.get("tag"))

    @property
    def is_dead(self) -> bool:
        """True if neutron's agent has disconnected it from the network."""
        return self.tag == DEAD_VLAN

    @property
    def _link(self) -> Mapping[str, object]:
        if "tap" not in self.links:
            raise UnheardError(f"tap{self.prefix} does not exist on the host")
        return self.links["tap"]

    @cached_property
    def _row(self) -> OvsInterface | None:
        if isinstance(self.rows, UnheardError):
            raise UnheardError(str(self.rows))
        return next((self.rows[kind] for kind in ("tap", "qvo", "vhu") if kind in self.rows), None)

    def _id(self, key: str) -> str | None:
        row = self._row
        ids = row.interface.get("external_ids") if row else None
        value = ids.get(key) if isinstance(ids, dict) else None
        return value if isinstance(value, str) else None

    def _config(self, key: str) -> str | None:
        row = self._row
        config = row.port.get("other_config") if row is not None and row.port is not None else None
        value = config.get(key) if isinstance(config, dict) else None
        return value if isinstance(value, str) and value != "None" else None

    def _number(self, key: str) -> int | None:
        row = self._row
        return _maybe(row.interface.get(key)) if row else None


@dataclass(frozen=True, slots=True)
class OvsInterface:
    """An interface of Open vSwitch, with its port and bridge."""

    interface: Mapping[str, object]
    port: Mapping[str, object] | None
    """None if the Port table was not collected or has no port for it."""
    bridge: str | None


def _maybe(cell: object) -> int | None:
    """Return a number; None for the empty set, which stands for no value."""
    return cell if isinstance(cell, int) else None
