"""Addresses that neutron's DHCP server gives out: dnsmasq's file `host` of a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from hoodsnap.bundle import Answer

_HOSTS = re.compile(r"cat \S+/dhcp/([0-9a-f-]+)/host")

_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


class DhcpLine(NamedTuple):
    """One line of the file: a MAC address, and what it is given."""

    mac: str
    """Lower case."""
    addresses: frozenset[str]
    """Its IPv4 addresses; empty for a line of IPv6."""


class DhcpHosts:
    """The file of one network."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    @cached_property
    def lines(self) -> tuple[DhcpLine, ...]:
        """Its lines, in order: `fa:16:3e:32:3a:8d,host-10-20-0-171.lan,10.20.0.171`."""
        found = []
        for line in str(self.answer.value).splitlines():
            mac, *rest = line.strip().split(",")
            ips = (word for word in rest if _IPV4.fullmatch(word))
            found.append(DhcpLine(mac.lower(), frozenset(ips)))
        return tuple(found)

    @cached_property
    def given(self) -> frozenset[tuple[str, str]]:
        """Each MAC address with each IPv4 address that it is given."""
        return frozenset((line.mac, ip) for line in self.lines for ip in line.addresses)


def read_dhcp_hosts(said: Mapping[str, Answer]) -> Mapping[str, DhcpHosts]:
    """Return network id → the file, from a host's answers by query. Files that could not be read
    are left out."""
    found = {}
    for query, answer in said.items():
        name = _HOSTS.fullmatch(query)
        if name is not None and answer.error is None and isinstance(answer.value, str):
            found[name[1]] = DhcpHosts(answer)
    return found
