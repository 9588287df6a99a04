"""OpenFlow rules of a guest's port on the integration bridge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from hoodsnap.bundle import Answer

_DUMP = re.compile(r"ovs-ofctl .*dump-flows br-int (in_port|reg5)=(\d+)")

# Each pattern starts with plain text, which `re` finds much faster than a word's boundary.
_TABLE = re.compile(r"table=(?<!\wtable=)(\d+),")

_SOURCE = re.compile(r"dl_src=(?<!\wdl_src=)([0-9a-f:]+)")

_ADDRESSES = (
    re.compile(r"nw_src=(?<!\wnw_src=)([\d.]+)"),
    re.compile(r"arp_spa=(?<!\warp_spa=)([\d.]+)"),
)

TRANSIENT = 60
"""Table in which neutron's Open vSwitch firewall marks a port's packets."""

CHECKED = 71
"""Table in which neutron's Open vSwitch firewall checks the sender's addresses."""


class PortFlows:
    """The rules that match one port number."""

    def __init__(self, said: Mapping[str, Answer]) -> None:
        self.said = said
        """The answers, by what the rules match: `in_port` and `reg5`."""

    @property
    def answer(self) -> Answer:
        """The answer with the rules of packets that arrive from the port."""
        return self.said["in_port"]

    @cached_property
    def tables(self) -> frozenset[int]:
        """Tables that have a rule for packets which arrive from the port."""
        return frozenset(int(table) for table in _TABLE.findall(self._text("in_port")))

    @cached_property
    def to_port(self) -> frozenset[int] | None:
        """Tables that have a rule for the port by number in register 5; None if not collected."""
        if "reg5" not in self.said:
            return None
        return frozenset(int(table) for table in _TABLE.findall(self._text("reg5")))

    @cached_property
    def macs(self) -> frozenset[str]:
        """MAC addresses from which the rules let the port send."""
        return frozenset(_SOURCE.findall(self._text("in_port")))

    @cached_property
    def macs_to_port(self) -> frozenset[str]:
        """MAC addresses from which the rules of the port by number in register 5 let it send; empty
        if they were not collected."""
        return (
            frozenset(_SOURCE.findall(self._text("reg5"))) if "reg5" in self.said else frozenset()
        )

    @cached_property
    def addresses(self) -> frozenset[str]:
        """IPv4 addresses from which the rules let the port send."""
        text = self._text("in_port")
        found = {address for pattern in _ADDRESSES for address in pattern.findall(text)}
        return frozenset(found) - {"0.0.0.0"}  # noqa: S104

    def _text(self, part: str) -> str:
        return str(self.said[part].value)


def read_flows(said: Mapping[str, Answer]) -> Mapping[int, PortFlows]:
    """Return port number → its rules, from a host's answers by query. Ports whose rules could not
    be read are left out."""
    found: dict[int, dict[str, Answer]] = {}
    for query, answer in said.items():
        match = _DUMP.fullmatch(query)
        if match is not None and answer.error is None and isinstance(answer.value, str):
            found.setdefault(int(match[2]), {})[match[1]] = answer
    return {number: PortFlows(parts) for number, parts in found.items() if "in_port" in parts}
