"""What a host's kernel and its Open vSwitch say of a guest's network: taps.

A tap is everything on the host that is named after one port: `tap3f6c1d2a-bb`, with a bridge of
its own also `qbr…`, `qvb…` and `qvo…`, and its row in Open vSwitch.
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
"""How nova, os-vif and neutron name what belongs to a port."""

TABLE = re.compile(r"ovs-vsctl .*--format=json .*list (\w+)")

DEAD_VLAN = 4095
"""The tag of a port that neutron's agent has taken off the network."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tap(Fact):
    """One port's devices on one host. Whatever needs an answer that was not heard raises
    `UnheardError`."""

    layer: ClassVar[Layer] = NETWORK
    noun: ClassVar[str] = "tap"
    prefix: str
    """The first characters of the port's id."""
    links: Mapping[str, Mapping[str, object]]
    """The kernel's devices by kind (`tap`, `qbr`, `qvb`, `qvo`), as `ip link` shows them."""
    rows: Mapping[str, OvsInterface] | UnheardError
    """Likewise the interfaces of Open vSwitch; why they are not known."""

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
        """As of any fact; the place starts with the device's name."""
        answer, place = super().where(name)
        return answer, f"{self.name}.{place}"

    @property
    def name(self) -> str:
        """`tap3f6c1d2a-bb`; of one that has none, what it does have."""
        kinds = {**self.links, **({} if isinstance(self.rows, UnheardError) else self.rows)}
        kind = next((kind for kind in ("tap", "vhu", "qvo") if kind in kinds), next(iter(kinds)))
        return f"{kind}{self.prefix}"

    @property
    def mac(self) -> str:
        """MAC of the host-side device, lower case; libvirt takes the guest's, first byte fe."""
        return (text(self._link, "address") or "").lower()

    @property
    def mtu(self) -> int | None:
        """Bytes."""
        return integer(self._link, "mtu")

    @property
    def kind(self) -> str:
        """`tun` of a tap; else `veth`, `macvtap` …; "" if the kernel does not say."""
        info = self._link.get("linkinfo")
        kind = info.get("info_kind") if isinstance(info, dict) else None
        return kind if isinstance(kind, str) else ""

    @property
    def up(self) -> bool:
        """It is switched on."""
        flags = self._link.get("flags")
        if not isinstance(flags, list):
            raise UnheardError("the device's flags can't be read")
        return "UP" in flags

    @property
    def master(self) -> str | None:
        """The kernel's bridge that it is in, `ovs-system` if that is Open vSwitch's; None: none."""
        return text(self._link, "master") if "master" in self._link else None

    @property
    def is_there(self) -> bool:
        """The kernel has the tap itself."""
        return "tap" in self.links

    @property
    def is_switched(self) -> bool:
        """Open vSwitch has it."""
        return self._row is not None

    @property
    def attached_mac(self) -> str | None:
        """The guest's address, by Open vSwitch; lower case."""
        mac = self._id("attached-mac")
        return mac.lower() if mac is not None else None

    @property
    def iface_id(self) -> str | None:
        """The port's id, by Open vSwitch."""
        return self._id("iface-id")

    @property
    def vm_uuid(self) -> str | None:
        """The server's UUID, by Open vSwitch."""
        return self._id("vm-uuid")

    @property
    def ofport(self) -> int | None:
        """Its number on the bridge; -1 if it could not be plugged in; None if that goes on."""
        return self._number("ofport")

    @property
    def error(self) -> str | None:
        """Why Open vSwitch could not plug it in: `could not open network device … (No such
        device)`."""
        row = self._row
        error = row.interface.get("error") if row else None
        return error if isinstance(error, str) else None

    @property
    def type(self) -> str:
        """Of Open vSwitch: `internal` is its own device, as for DHCP; "" the kernel's."""
        row = self._row
        return text(row.interface, "type") or "" if row else ""

    @property
    def bridge(self) -> str | None:
        """The bridge of Open vSwitch that it is on; None if it is on none."""
        row = self._row
        if row is not None and row.bridge is None:
            raise UnheardError("its bridge was not told")
        return row.bridge if row else None

    @property
    def tag(self) -> int | None:
        """The host's own VLAN of its network; None if there is none, as with OVN."""
        row = self._row
        if row is None:
            return None
        if row.port is None:
            raise UnheardError("its VLAN was not told")
        return _maybe(row.port.get("tag"))

    @property
    def is_dead(self) -> bool:
        """neutron's agent has taken it off the network."""
        return self.tag == DEAD_VLAN

    @property
    def _link(self) -> Mapping[str, object]:
        if "tap" not in self.links:
            raise UnheardError(f"the host has no tap{self.prefix}")
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
    """An interface of Open vSwitch, and what it hangs on."""

    interface: Mapping[str, object]
    port: Mapping[str, object] | None
    """None if that table was not heard."""
    bridge: str | None


@dataclass(frozen=True, eq=False)
class HostNetwork:
    """All that one host said of its network."""

    links: Mapping[str, Mapping[str, object]]
    """The devices of the kernel, by name."""
    listing: Answer | None
    """The answer that lists them; None if they were not heard."""
    switch: Mapping[str, OvsInterface] | UnheardError
    """The interfaces of Open vSwitch by name; why they are not known, as where there is none."""
    switch_listing: Answer | None
    said: Mapping[str, Answer]
    """The newest answer to each question."""

    @classmethod
    def read(cls, answers: Iterable[Answer]) -> HostNetwork:
        """Read one host's answers; of several to one question the last counts."""
        said = {answer.query: answer for answer in answers}
        links, listing = _read_links(said.get(LINKS))
        switch, switch_listing = _read_switch(said)
        return cls(links, listing, switch, switch_listing, said)

    @cached_property
    def taps(self) -> Mapping[str, Tap]:
        """Everything that is named after a port, by the beginning of the port's id."""
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
        """For each server the taps that are its by Open vSwitch."""
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
        """The answers that all taps are read from."""
        said = {"links": self.listing, "switch": self.switch_listing}
        for query, answer in self.said.items():
            if query.endswith(" list Port") and answer.error is None:
                said["ports"] = answer
        return {part: answer for part, answer in said.items() if answer is not None}

    @cached_property
    def namespaces(self) -> Mapping[str, tuple[str, ...]]:
        """The namespaces that were looked into, and the addresses in each: `10.20.0.1/24`."""
        found: dict[str, tuple[str, ...]] = {}
        for query, answer in self.said.items():
            words = query.split(" ")
            if words[:3] == ["ip", "-j", "-n"] and words[4:] == ["address"]:
                found[words[3]] = tuple(_addresses(answer.value))
        return found

    @cached_property
    def translated(self) -> Mapping[str, str]:
        """The addresses that a router lets in from outside, and where it leads them: floating IP →
        fixed IP."""
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
    """Return the kernel's devices by name, and the answer that lists them; None if that can't be
    read."""
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
        # A second, narrower question is the answer of an older Open vSwitch.
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
    """A table as `ovs-vsctl --format=json list` prints it: every map and set as Python's own."""
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
    """A set with one member is printed as that member."""
    return [str(item) for item in cell] if isinstance(cell, list) else [str(cell)]


def _maybe(cell: object) -> int | None:
    """A number; the empty set, which stands for none, is None."""
    return cell if isinstance(cell, int) else None
