"""Network namespaces of neutron's routers and DHCP servers: addresses, routes, translations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, value_of

NAMESPACES = "ip -j netns"

_INSIDE = re.compile(r"ip -j -n (\S+) (address|route)")

_PARTS = {
    "iptables-save -t nat": "nat",
    "sysctl net.ipv4.ip_forward": "forward",
    "cat /proc/net/tcp": "tcp",
    "cat /proc/net/tcp6": "tcp6",
    "cat /proc/net/udp": "udp",
}
"""Command that was run inside → the part of what is known that it tells."""

_RUN_INSIDE = re.compile(rf"ip netns exec (\S+) ({'|'.join(map(re.escape, _PARTS))})")

_INWARDS = re.compile(
    r"-A \S+-PREROUTING -d ([\d.]+)/32 (?:-i \S+ )?-j DNAT --to-destination ([\d.]+)"
)

_OUTWARDS = re.compile(r"-A \S+-float-snat -s ([\d.]+)/32 (?:-o \S+ )?-j SNAT --to-source ([\d.]+)")

_METADATA = re.compile(
    r"-A \S+-PREROUTING -d 169\.254\.169\.254/32 .*-j REDIRECT --to-ports (\d{1,5})\b"
)

_CHAIN = re.compile(r"^:neutron-\S+-PREROUTING ", re.MULTILINE)

_LISTENS = re.compile(r"^ {0,9}\d{1,9}: 0{1,32}:([0-9A-F]{4}) ", re.MULTILINE)

DHCP_PORT = 67
"""UDP port at which a DHCP server listens."""

_SOURCE = re.compile(r"-A \S+-snat -o \S+ -j SNAT --to-source ([\d.]+)")


class Namespace(NamedTuple):
    """One network namespace. What was not collected raises `UnheardError`."""

    name: str
    """`qrouter-` with the router's id, `qdhcp-` with the network's."""
    said: Mapping[str, Answer]
    """The answers about it: `address`, `route`, `nat`, `forward`, `tcp`, `tcp6`, `udp`."""

    @property
    def addresses(self) -> frozenset[str]:
        """Its addresses, without the length of their prefix."""
        return frozenset(ip.partition("/")[0] for ip in addresses_of(self._value("address")))

    @property
    def devices(self) -> Mapping[str, tuple[str, ...]]:
        """Name of each device → its addresses with the length of their prefix: `10.20.0.1/24`."""
        return devices_of(self._value("address"))

    @property
    def widths(self) -> Mapping[str, int]:
        """Name of each device → its MTU in bytes."""
        rows = value_of(self.said.get("address"), f"devices of {self.name}", list[dict[str, Any]])
        return {
            str(row.get("ifname")): mtu for row in rows if isinstance(mtu := row.get("mtu"), int)
        }

    @property
    def cut_off(self) -> frozenset[str]:
        """The names of its devices that are switched on, but have no carrier: the other end of
        their pair is off or gone."""
        rows = value_of(self.said.get("address"), f"devices of {self.name}", list[dict[str, Any]])
        return frozenset(
            str(row.get("ifname"))
            for row in rows
            if isinstance(flags := row.get("flags"), list) and {"UP", "NO-CARRIER"} <= {*flags}
        )

    @property
    def forwards(self) -> bool:
        """True if the kernel passes IPv4 packets from one of its devices to another."""
        if "forward" not in self.said:
            raise UnheardError("net.ipv4.ip_forward of the routers was not collected")
        text = value_of(self.said["forward"], f"net.ipv4.ip_forward of {self.name}", str)
        name, _, value = text.strip().partition(" = ")
        if name != "net.ipv4.ip_forward" or value not in ("0", "1"):
            raise UnheardError(f"net.ipv4.ip_forward of {self.name} can't be read")
        return value == "1"

    @property
    def has_chains(self) -> bool:
        """True if neutron's chains exist in the table of translations."""
        return _CHAIN.search(self._rules()) is not None

    @property
    def metadata_port(self) -> int | None:
        """TCP port to which requests for metadata are redirected; None without such a rule."""
        found = _METADATA.search(self._rules())
        return int(found[1]) if found is not None else None

    @property
    def listens(self) -> Mapping[int, Answer]:
        """TCP port on which a program listens on all addresses → the answer that shows it.

        Raises `UnheardError` only if neither IPv4 nor IPv6 was collected.
        """
        found: dict[int, Answer] = {}
        parts = [self.said[part] for part in ("tcp", "tcp6") if part in self.said]
        parts = [answer for answer in parts if answer.error is None]
        if not parts:
            raise UnheardError("the sockets in the routers' namespaces were not collected")
        for answer in parts:
            for port in _LISTENS.findall(str(answer.value)):
                found[int(port, 16)] = answer
        return found

    @property
    def answers_dhcp(self) -> bool:
        """True if a program has a socket of the DHCP server's UDP port on all addresses."""
        if "udp" not in self.said:
            raise UnheardError("the sockets in the DHCP servers' namespaces were not collected")
        rows = value_of(self.said["udp"], f"sockets of {self.name}", str)
        return f"{DHCP_PORT:04X}" in _LISTENS.findall(rows)

    @property
    def down(self) -> frozenset[str]:
        """The names of its devices that are switched off."""
        rows = value_of(self.said.get("address"), f"devices of {self.name}", list[dict[str, Any]])
        return frozenset(
            str(row.get("ifname"))
            for row in rows
            if isinstance(flags := row.get("flags"), list) and "UP" not in flags
        )

    @property
    def macs(self) -> Mapping[str, str]:
        """Name of each device → its MAC address, lower case."""
        rows = value_of(self.said.get("address"), f"devices of {self.name}", list[dict[str, Any]])
        return {
            str(row.get("ifname")): mac.lower()
            for row in rows
            if isinstance(mac := row.get("address"), str)
        }

    @property
    def gateways(self) -> tuple[str, ...]:
        """The gateways of its default routes, IPv4."""
        rows = value_of(self.said.get("route"), f"routes of {self.name}", list[dict[str, Any]])
        ways = (row.get("gateway") for row in rows if row.get("dst") == "default")
        return tuple(way for way in ways if isinstance(way, str))

    @property
    def inwards(self) -> Mapping[str, str]:
        """Floating IP → the fixed IP to which it translates arriving packets."""
        return dict(_INWARDS.findall(self._rules()))

    @property
    def outwards(self) -> Mapping[str, str]:
        """Fixed IP → the floating IP that it writes into packets on their way out."""
        return dict(_OUTWARDS.findall(self._rules()))

    @property
    def sources(self) -> tuple[str, ...]:
        """Addresses that it writes into all other packets that leave; empty without a rule."""
        return tuple(_SOURCE.findall(self._rules()))

    def _rules(self) -> str:
        return value_of(self.said.get("nat"), f"translations of {self.name}", str)

    def _value(self, part: str) -> object:
        answer = self.said.get(part)
        if answer is None or answer.error is not None:
            raise UnheardError(f"network namespace {self.name}: its addresses were not collected")
        return answer.value


def read_namespaces(said: Mapping[str, Answer]) -> Mapping[str, Namespace]:
    """Return name → namespace that was looked into, from a host's answers by query."""
    found: dict[str, dict[str, Answer]] = {}
    for query, answer in said.items():
        if inside := _INSIDE.fullmatch(query):
            found.setdefault(inside[1], {})[inside[2]] = answer
        elif run := _RUN_INSIDE.fullmatch(query):
            found.setdefault(run[1], {})[_PARTS[run[2]]] = answer
    return {name: Namespace(name, answers) for name, answers in found.items()}


def devices_of(value: object) -> Mapping[str, tuple[str, ...]]:
    """Return device → its addresses (`10.20.0.1/24`), from the output of `ip -j address`."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    return {str(row.get("ifname")): tuple(addresses_of([row])) for row in rows}


def addresses_of(value: object) -> Iterator[str]:
    """Yield the addresses in the output of `ip -j address`: `10.20.0.1/24`; not those of links."""
    for link in value if isinstance(value, list) else ():
        listed = link.get("addr_info") if isinstance(link, dict) else None
        for address in listed if isinstance(listed, list) else ():
            if isinstance(address, dict) and address.get("scope") != "link":
                yield f"{address.get('local')}/{address.get('prefixlen')}"
