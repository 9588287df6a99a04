"""Taps: a guest's network devices in the host's kernel and in Open vSwitch.

A tap is everything on the host that is named after one port: `tap3f6c1d2a-bb`, its row in Open
vSwitch, and, with a hybrid bridge per port, also `qbr…`, `qvb…` and `qvo…`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.port import PREFIX
from hoodsnap.facts.fact import Documented, Fact, UnheardError, caught, integer, text, value_of
from hoodsnap.facts.layer import NETWORK, Layer

LINKS = NETWORK.census_query

NAME = re.compile(
    rf"(?P<kind>tap|qbr|qvb|qvo|vhu)(?P<prefix>[0-9a-f]{{8}}-[0-9a-f]{{{PREFIX - 9}}})"
)
"""Names that nova, os-vif and neutron give to a port's devices."""

TABLE = re.compile(r"ovs-vsctl .*--format=json .*list (\w+)")

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
        "master": ("links", "master"),
        "attached_mac": ("switch", "external_ids:attached-mac"),
        "iface_id": ("switch", "external_ids:iface-id"),
        "vm_uuid": ("switch", "external_ids:vm-uuid"),
        "ofport": ("switch", "ofport"),
        "error": ("switch", "error"),
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
    def master(self) -> str | None:
        """Bridge that it belongs to, `ovs-system` for Open vSwitch; None if it is in no bridge."""
        return text(self._link, "master") if "master" in self._link else None

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
        """The server's UUID in Open vSwitch; None if it is not set."""
        return self._id("vm-uuid")

    @property
    def ofport(self) -> int | None:
        """Port number on the bridge; -1 if attaching it failed; None while it is being attached."""
        return self._number("ofport")

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

    @property
    def _row(self) -> OvsInterface | None:
        if isinstance(self.rows, UnheardError):
            raise UnheardError(str(self.rows))
        return next((self.rows[kind] for kind in ("tap", "qvo", "vhu") if kind in self.rows), None)

    def _id(self, key: str) -> str | None:
        row = self._row
        ids = row.interface.get("external_ids") if row else None
        value = ids.get(key) if isinstance(ids, dict) else None
        return value if isinstance(value, str) else None

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


@dataclass(frozen=True, eq=False)
class HostNetwork:
    """Everything that one host reported about its network."""

    links: Mapping[str, Mapping[str, object]]
    """Name → device of the kernel."""
    listing: Answer | None
    """The answer that lists the devices; None if it was not collected."""
    switch: Mapping[str, OvsInterface] | UnheardError
    """Name → interface of Open vSwitch; or the reason why the interfaces are unknown, as on a host
    without Open vSwitch."""
    switch_listing: Answer | None
    """The answer that lists the interfaces of Open vSwitch; None if it was not collected."""
    said: Mapping[str, Answer]
    """Query → its newest answer."""

    @classmethod
    def read(cls, answers: Iterable[Answer]) -> HostNetwork:
        """Read one host's answers; the last answer to each query counts."""
        said = {answer.query: answer for answer in answers}
        links, listing = _read_links(said.get(LINKS))
        switch, switch_listing = _read_switch(said)
        return cls(links, listing, switch, switch_listing, said)

    @cached_property
    def taps(self) -> Mapping[str, Tap]:
        """First characters of a port's id → everything that is named after the port."""
        links: dict[str, dict[str, Mapping[str, object]]] = {}
        for name, link in self.links.items():
            if found := NAME.fullmatch(name):
                links.setdefault(found["prefix"], {})[found["kind"]] = link
        rows: dict[str, dict[str, OvsInterface]] = {}
        if not isinstance(self.switch, UnheardError):
            for name, row in self.switch.items():
                if found := NAME.fullmatch(name):
                    rows.setdefault(found["prefix"], {})[found["kind"]] = row
        return {
            prefix: self._tap(prefix, links.get(prefix, {}), rows.get(prefix, {}))
            for prefix in sorted(links.keys() | rows.keys())
        }

    @cached_property
    def prefixes_of(self) -> Mapping[str, tuple[str, ...]]:
        """Server UUID → the prefixes of its taps, according to Open vSwitch."""
        found: dict[str, list[str]] = {}
        for prefix, tap in self.taps.items():
            uuid = tap.vm_uuid if not isinstance(self.switch, UnheardError) else None
            if uuid is not None:
                found.setdefault(uuid, []).append(prefix)
        return {uuid: tuple(prefixes) for uuid, prefixes in found.items()}

    def _tap(
        self,
        prefix: str,
        links: Mapping[str, Mapping[str, object]],
        rows: Mapping[str, OvsInterface],
    ) -> Tap:
        return Tap(
            prefix=prefix,
            links=links,
            rows=self.switch if isinstance(self.switch, UnheardError) else rows,
            said=self._lists,
        )

    @cached_property
    def _lists(self) -> Mapping[str, Answer]:
        """The answers that all taps are read from, by part."""
        said = {"links": self.listing, "switch": self.switch_listing}
        for query, answer in self.said.items():
            if query.endswith(" list Port") and answer.error is None:
                said["ports"] = answer
        return {part: answer for part, answer in said.items() if answer is not None}

    @cached_property
    def namespaces(self) -> Mapping[str, tuple[str, ...]]:
        """Network namespace that was collected → its addresses: `10.20.0.1/24`."""
        found: dict[str, tuple[str, ...]] = {}
        for query, answer in self.said.items():
            words = query.split(" ")
            if words[:3] == ["ip", "-j", "-n"] and words[4:] == ["address"]:
                found[words[3]] = tuple(_addresses(answer.value))
        return found

    @cached_property
    def translated(self) -> Mapping[str, str]:
        """Floating IP → the fixed IP to which a router on this host translates it."""
        found: dict[str, str] = {}
        for query, answer in self.said.items():
            if query.startswith("ip netns exec ") and isinstance(answer.value, str):
                rules = re.findall(
                    r"PREROUTING -d ([\d.]+)/32 -j DNAT --to-destination ([\d.]+)", answer.value
                )
                found |= dict(rules)
        return found


def _read_links(
    answer: Answer | None,
) -> tuple[Mapping[str, Mapping[str, object]], Answer | None]:
    """Return the kernel's devices by name, and the answer that lists them; no devices and None if
    that answer can't be read."""
    try:
        rows = value_of(answer, LINKS, list[dict[str, Any]])
        return {text(row, "ifname") or "": row for row in rows}, answer
    except Exception as error:
        caught(error)
        return {}, None


def _read_switch(
    said: Mapping[str, Answer],
) -> tuple[Mapping[str, OvsInterface] | UnheardError, Answer | None]:
    """Return the interfaces of Open vSwitch by name, and the answer that lists them."""
    tables = {}
    for query, answer in said.items():
        # An older Open vSwitch rejects the first query and answers a second, narrower one.
        if (found := TABLE.fullmatch(query)) and (found[1] not in tables or answer.error is None):
            tables[found[1]] = answer
    try:
        interfaces = _rows(tables.get("Interface"), "Open vSwitch")
    except UnheardError as reason:
        return reason, None
    ports = _heard(tables.get("Port"))
    bridges = _heard(tables.get("Bridge"))
    port_of = {uuid: port for port in ports for uuid in _uuids(port.get("interfaces"))}
    bridge_of = {uuid: row for row in bridges for uuid in _uuids(row.get("ports"))}
    found_rows = {}
    for row in interfaces:
        port = port_of.get(_uuid(row))
        bridge = bridge_of.get(_uuid(port)) if port is not None else None
        name = row.get("name")
        if isinstance(name, str):
            of = bridge.get("name") if bridge is not None else None
            found_rows[name] = OvsInterface(row, port, of if isinstance(of, str) else None)
    return found_rows, tables["Interface"]


def _addresses(value: object) -> Iterable[str]:
    for link in value if isinstance(value, list) else ():
        listed = link.get("addr_info") if isinstance(link, dict) else None
        for address in listed if isinstance(listed, list) else ():
            if isinstance(address, dict) and address.get("scope") == "global":
                yield f"{address.get('local')}/{address.get('prefixlen')}"


def _heard(answer: Answer | None) -> list[dict[str, object]]:
    try:
        return _rows(answer, "Open vSwitch")
    except Exception as error:
        caught(error)
        return []


def _rows(answer: Answer | None, what: str) -> list[dict[str, object]]:
    """Read a table as `ovs-vsctl --format=json list` prints it; maps become dicts, sets lists."""
    table = value_of(answer, what, dict[str, Any])
    headings, data = table.get("headings"), table.get("data")
    if not isinstance(headings, list) or not isinstance(data, list):
        raise UnheardError(f"{what}: the answer can't be read")
    if not all(isinstance(row, list) and len(row) == len(headings) for row in data):
        raise UnheardError(f"{what}: the answer can't be read")
    names = [str(name) for name in headings]
    return [{name: _cell(cell) for name, cell in zip(names, row, strict=True)} for row in data]


def _cell(cell: object) -> object:
    if not isinstance(cell, list) or len(cell) != 2:
        return cell
    kind, content = cell
    if kind == "set" and isinstance(content, list):
        return [_cell(item) for item in content]
    if kind == "map" and isinstance(content, list):
        pairs = [pair for pair in content if isinstance(pair, list) and len(pair) == 2]
        return {str(_cell(key)): _cell(value) for key, value in pairs}
    return content if kind == "uuid" else cell


def _uuid(row: Mapping[str, object]) -> str:
    return str(row.get("_uuid"))


def _uuids(cell: object) -> list[str]:
    """Return the UUIDs in a cell; ovs-vsctl prints a set with one member as that member."""
    return [str(item) for item in cell] if isinstance(cell, list) else [str(cell)]


def _maybe(cell: object) -> int | None:
    """Return a number; None for the empty set, which stands for no value."""
    return cell if isinstance(cell, int) else None
