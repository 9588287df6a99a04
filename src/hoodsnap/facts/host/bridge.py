"""Bridges of Open vSwitch: their fail modes, controllers and mirrors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, text

Row = Mapping[str, object]

SECURE = "secure"
"""Fail mode of a bridge that forwards nothing without rules. Without it, or with `standalone`, the
bridge switches like a simple one, to all ports and through all VLANs, until a controller comes."""


class Controller(NamedTuple):
    """An OpenFlow controller of a bridge: the program that writes the bridge's rules."""

    target: str
    """`tcp:127.0.0.1:6633`"""
    connected: bool


class Mirror(NamedTuple):
    """A mirror of a bridge: copies of packets, as for a network analyzer."""

    name: str
    whole: bool
    """True if it copies the packets of all ports."""
    ports: tuple[str, ...]
    """Names of the ports whose packets it copies, if not all."""
    output: str | None
    """Name of the port that the copies are sent to; None if they are sent into a VLAN."""
    vlan: int | None
    """VLAN that the copies are sent into; None without one."""


class Bridge(NamedTuple):
    """One bridge of Open vSwitch. What was not collected raises `UnheardError`."""

    name: str
    row: Row
    answer: Answer
    """The answer that lists the bridges."""
    tables: Mapping[str, tuple[Sequence[Row], Answer]]
    """Rows of the tables `Port`, `Controller` and `Mirror` that were collected."""

    @property
    def fail_mode(self) -> str | None:
        """`secure` or `standalone`; None if it is not set, which means `standalone`."""
        if "fail_mode" not in self.row:
            raise UnheardError("Open vSwitch: the fail modes of its bridges were not collected")
        return text(self.row, "fail_mode") if isinstance(self.row["fail_mode"], str) else None

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Its controllers, in the order of their targets."""
        rows = self._of("controller", "Controller", "controllers")
        found = (
            Controller(text(row, "target") or "", row.get("is_connected") is True) for row in rows
        )
        return tuple(sorted(found))

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """Its mirrors, in the order of their names. Those that copy nothing are left out."""
        rows = self._of("mirrors", "Mirror", "mirrors")
        found = [mirror for row in rows if (mirror := self._mirror(row)) is not None]
        return tuple(sorted(found, key=lambda mirror: mirror.name))

    def _mirror(self, row: Row) -> Mirror | None:
        ports = self.tables["Port"][0] if "Port" in self.tables else ()
        names = {str(port.get("_uuid")): str(port.get("name")) for port in ports}
        chosen = {*uuids(row.get("select_src_port")), *uuids(row.get("select_dst_port"))}
        output = next(iter(uuids(row.get("output_port"))), None)
        vlan = row.get("output_vlan")
        whole = row.get("select_all") is True
        sends = output is not None or isinstance(vlan, int)
        if not sends or not (whole or chosen):
            return None
        return Mirror(
            text(row, "name") or "",
            whole,
            () if whole else tuple(sorted(names.get(uuid, uuid) for uuid in chosen)),
            names.get(output, output) if output is not None else None,
            vlan if isinstance(vlan, int) else None,
        )

    def _of(self, column: str, table: str, what: str) -> tuple[Row, ...]:
        if column not in self.row or table not in self.tables:
            raise UnheardError(f"Open vSwitch: the {what} of its bridges were not collected")
        wanted = {*uuids(self.row[column])}
        found = tuple(row for row in self.tables[table][0] if str(row.get("_uuid")) in wanted)
        if len(found) < len(wanted):  # it changed between the two questions
            raise UnheardError(f"Open vSwitch: the {what} of its bridges were not collected")
        return found


def uuids(cell: object) -> list[str]:
    """Return the UUIDs in a cell; ovs-vsctl prints a set with one member as that member."""
    if isinstance(cell, list):
        return [str(item) for item in cell]
    return [cell] if isinstance(cell, str) else []
