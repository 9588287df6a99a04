"""OpenFlow rules of a guest's port on the integration bridge, and of each bridge's first table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.quantity import whole

_DUMP = re.compile(r"ovs-ofctl .*dump-flows br-int (in_port|reg5)=(\d+)")

_FIRST = re.compile(r"ovs-ofctl .*dump-flows (\S+) table=0")

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

DEFAULT_PRIORITY = 32768
"""Priority of a rule that was added without one. ovs-ofctl does not print it."""

_AGE = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)s")

DROP = "drop"
"""Actions of a rule that drops packets."""


class Rule(NamedTuple):
    """One OpenFlow rule."""

    table: int
    cookie: int
    """Number that the program which added the rule gave it; 0 if it gave none."""
    priority: int
    match: Mapping[str, str]
    """What packets the rule is for: `in_port` → `7`, `arp` → ``. Empty for all packets."""
    actions: str
    packets: int
    """Number of packets that the rule has matched."""
    age: float
    """Seconds since it was added."""

    @property
    def words(self) -> str:
        """Priority and match as ovs-ofctl takes them: `priority=100,in_port=7`."""
        parts = (f"{name}={value}" if value else name for name, value in self.match.items())
        return ",".join((f"priority={self.priority}", *parts))


class FirstTable(NamedTuple):
    """The first table of a bridge, which each packet meets first."""

    bridge: str
    answer: Answer
    rules: tuple[Rule, ...]


def rules_in(text: str) -> Iterator[Rule]:
    """Yield the rules in the output of `ovs-ofctl dump-flows`; lines of another form are left
    out."""
    for line in text.splitlines():
        head, found, actions = line.partition(" actions=")
        words = head.split()
        if not found or not words:
            continue
        # Counters end with a comma and a space, the parts of the match with a comma only.
        matched = words.pop() if not words[-1].endswith(",") else ""
        told = dict(_pair(word.rstrip(",")) for word in words)
        match = dict(_pair(part) for part in matched.split(",") if part)
        priority = whole(match.pop("priority", str(DEFAULT_PRIORITY)))
        table, packets = whole(told.get("table")), whole(told.get("n_packets"))
        cookie = _hexadecimal(told.get("cookie", ""))
        if priority is None or table is None or packets is None or cookie is None:
            continue
        age = _AGE.fullmatch(told.get("duration", ""))
        seconds = float(age[1]) if age is not None else 0.0
        yield Rule(table, cookie, priority, match, actions.strip(), packets, seconds)


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value.strip('"')


def _hexadecimal(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"0x[0-9a-f]{1,16}", text) else None


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

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of packets that arrive from the port."""
        return tuple(rules_in(self._text("in_port")))

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


def read_first_tables(said: Mapping[str, Answer]) -> Mapping[str, FirstTable]:
    """Return bridge → its first table, from a host's answers by query."""
    found = {}
    for query, answer in said.items():
        match = _FIRST.fullmatch(query)
        if match is not None and answer.error is None and isinstance(answer.value, str):
            found[match[1]] = FirstTable(match[1], answer, tuple(rules_in(answer.value)))
    return found
