"""Everything that one host reports about its network: devices, Open vSwitch, namespaces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, caught, is_true, text, value_of
from hoodsnap.facts.host.bridge import Bridge, uuids
from hoodsnap.facts.host.dhcp import DhcpHosts, read_dhcp_hosts
from hoodsnap.facts.host.flow import FirstTable, PortFlows, read_first_tables, read_flows
from hoodsnap.facts.host.namespace import (
    NAMESPACES,
    Namespace,
    addresses_of,
    devices_of,
    read_namespaces,
)
from hoodsnap.facts.host.tap import NAME, OvsInterface, Tap
from hoodsnap.facts.layer import NETWORK

LINKS = NETWORK.census_query

TABLE = re.compile(r"ovs-vsctl .*--format=json .*list (\w+)")


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
    def has_installed(self) -> bool:
        """True if OVN's controller marked a tap as installed."""
        return any(is_true(lambda: tap.installed) for tap in self.taps.values())  # noqa: B023

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
    def namespaces(self) -> Mapping[str, Namespace]:
        """Name → network namespace of a router or of a network's DHCP that was looked into."""
        return read_namespaces(self.said)

    @cached_property
    def namespace_listing(self) -> tuple[frozenset[str], Answer] | None:
        """Names of all network namespaces, and the answer that lists them; None if they were not
        collected."""
        answer = self.said.get(NAMESPACES)
        try:
            rows = value_of(answer, NAMESPACES, list[dict[str, Any]])
        except Exception as error:
            caught(error)
            return None
        return (frozenset(str(row.get("name")) for row in rows), answer) if answer else None

    @cached_property
    def flows(self) -> Mapping[int, PortFlows]:
        """Port number on the integration bridge → its rules."""
        return read_flows(self.said)

    @cached_property
    def first_tables(self) -> Mapping[str, FirstTable]:
        """Bridge of Open vSwitch → its rules in table 0."""
        return read_first_tables(self.said)

    @cached_property
    def bridges(self) -> frozenset[str] | None:
        """Names of Open vSwitch's bridges; None if they were not collected."""
        for query, answer in self.said.items():
            if query.endswith(" list Bridge") and answer.error is None:
                return frozenset(str(row.get("name")) for row in _heard(answer))
        return None

    @cached_property
    def switch_bridges(self) -> Mapping[str, Bridge]:
        """Name → bridge of Open vSwitch. Raises `UnheardError` if they were not collected."""
        if isinstance(self.switch, UnheardError):
            raise UnheardError(str(self.switch))
        tables = {}
        for table, answer in _tables(self.said).items():
            try:
                tables[table] = (_rows(answer, "Open vSwitch"), answer)
            except Exception as error:
                caught(error)
        if "Bridge" not in tables:
            raise UnheardError("Open vSwitch: its bridges were not collected")
        rows, listing = tables["Bridge"]
        names = ((text(row, "name") or "", row) for row in rows)
        return {name: Bridge(name, row, listing, tables) for name, row in names}

    @cached_property
    def dhcp(self) -> Mapping[str, DhcpHosts]:
        """Network id → the addresses that the DHCP server on this host gives out."""
        return read_dhcp_hosts(self.said)

    @cached_property
    def devices(self) -> tuple[Mapping[str, tuple[str, ...]], Answer] | None:
        """The host's own addresses by device, and the answer that lists them; None if not
        collected."""
        answer = self.said.get("ip -j address")
        if answer is None or answer.error is not None:
            return None
        return devices_of(answer.value), answer

    @cached_property
    def addresses(self) -> tuple[frozenset[str], Answer] | None:
        """The host's own addresses, and the answer that lists them; None if not collected."""
        answer = self.said.get("ip -j address")
        if answer is None or answer.error is not None:
            return None
        return frozenset(ip.partition("/")[0] for ip in addresses_of(answer.value)), answer


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
    tables = _tables(said)
    try:
        interfaces = _rows(tables.get("Interface"), "Open vSwitch")
    except UnheardError as reason:
        return reason, None
    ports = _heard(tables.get("Port"))
    bridges = _heard(tables.get("Bridge"))
    port_of = {uuid: port for port in ports for uuid in uuids(port.get("interfaces"))}
    bridge_of = {uuid: row for row in bridges for uuid in uuids(row.get("ports"))}
    found_rows = {}
    for row in interfaces:
        port = port_of.get(_uuid(row))
        bridge = bridge_of.get(_uuid(port)) if port is not None else None
        name = row.get("name")
        if isinstance(name, str):
            of = bridge.get("name") if bridge is not None else None
            found_rows[name] = OvsInterface(row, port, of if isinstance(of, str) else None)
    return found_rows, tables["Interface"]


def _tables(said: Mapping[str, Answer]) -> dict[str, Answer]:
    """Return table of Open vSwitch → the answer with its rows."""
    tables: dict[str, Answer] = {}
    for query, answer in said.items():
        # An older Open vSwitch rejects the first query and answers a second, narrower one.
        if (found := TABLE.fullmatch(query)) and (found[1] not in tables or answer.error is None):
            tables[found[1]] = answer
    return tables


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
