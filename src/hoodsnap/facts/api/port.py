"""What neutron says of a VM: its ports, and the networks that they are in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.agent import Agent
from hoodsnap.facts.api.body import items_of
from hoodsnap.facts.fact import (
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    caught,
    integer,
    mapping,
    text,
    unheard,
)
from hoodsnap.facts.layer import NEUTRON, Layer

LIST = re.compile(r"GET /v2\.0/([a-z-]+)(?:\?(.*))?")

BINDINGS = re.compile(r"GET /v2\.0/ports/([0-9a-f-]+)/bindings")

PREFIX = 11
"""How many characters of a port's id are in the names of its devices. The ninth is a hyphen."""

NOT_BOUND = frozenset(["binding_failed", "unbound"])
"""The vif_types of a port that no host has made a way for."""


class Binding(NamedTuple):
    """A host that a port is, or is to be, on."""

    host: str
    status: str
    """`ACTIVE`; `INACTIVE` on the host that it is, or was, to move to."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Network(Fact):
    """One network of neutron."""

    layer: ClassVar[Layer] = NEUTRON
    noun: ClassVar[str] = "network"
    raw: Mapping[str, object]

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the network's id."""
        answer, place = super().where(name)
        return answer, f"networks[id={self.raw.get('id')}].{place}"

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return text(self.raw, "name") or ""

    @property
    def mtu(self) -> int | None:
        """Bytes of a packet in it (Mitaka and later)."""
        return integer(self.raw, "mtu")


@dataclass(frozen=True, eq=False, kw_only=True)
class Port(Fact):
    """One port. Tenants are not shown where it is bound: that is `UnheardError` then."""

    layer: ClassVar[Layer] = NEUTRON
    noun: ClassVar[str] = "port"
    raw: Mapping[str, object]
    network: Network | None = None
    """None if it was not heard."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "mac": ("port", "mac_address"),
        "host": ("port", "binding:host_id"),
        "vif_type": ("port", "binding:vif_type"),
        "vnic_type": ("port", "binding:vnic_type"),
        "bridge": ("port", "binding:vif_details.bridge_name"),
        "addresses": ("port", "fixed_ips"),
        "bindings": ("bindings", "bindings"),
    }

    documented: ClassVar[Documented] = (
        *("id", "mac", "tap", "status", "admin_state_up", "host", "vif_type", "addresses"),
        "network_id",
        DocumentedField(
            "network",
            "The name of its network; null if it is not known.",
            lambda port: port.network.name if port.network is not None else None,
        ),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the port's id."""
        answer, place = super().where(name)
        whole = self.places.get(name, ("port",))[0] == "bindings"
        return answer, place if whole else f"ports[id={self.id}].{place}"

    @property
    def id(self) -> str:
        """Lower case."""
        return (text(self.raw, "id") or "").lower()

    @property
    def tap(self) -> str:
        """What nova calls its device on the host: `tap3f6c1d2a-bb`."""
        return f"tap{self.id[:PREFIX]}"

    @property
    def mac(self) -> str:
        """Lower case."""
        return (text(self.raw, "mac_address") or "").lower()

    @property
    def network_id(self) -> str | None:
        """The network that it is in."""
        return text(self.raw, "network_id")

    @property
    def device_id(self) -> str:
        """Whose it is: a server's UUID, a router's; "" if nobody's."""
        return (text(self.raw, "device_id") or "").lower()

    @property
    def device_owner(self) -> str:
        """`compute:nova`, `network:dhcp`, `trunk:subport` …; "" if nobody's."""
        return text(self.raw, "device_owner") or ""

    @property
    def is_guests(self) -> bool:
        """nova has plugged it into a server."""
        return self.device_owner.startswith("compute:")

    @property
    def status(self) -> str:
        """`ACTIVE`, `DOWN`, `BUILD`: whether the agent of its host has wired it."""
        return text(self.raw, "status") or ""

    @property
    def admin_state_up(self) -> bool:
        """False: somebody has switched it off."""
        up = self.raw.get("admin_state_up")
        return up if isinstance(up, bool) else unheard("admin_state_up was not told")

    @property
    def host(self) -> str | None:
        """The host that it is bound to; None if to none."""
        return text(self.raw, "binding:host_id") or None

    @property
    def vif_type(self) -> str:
        """`ovs`, `bridge`, `vhostuser` …; `binding_failed` and `unbound` are none."""
        return text(self.raw, "binding:vif_type") or ""

    @property
    def vnic_type(self) -> str:
        """`normal`, `direct`, `macvtap`, `remote-managed` …"""
        return text(self.raw, "binding:vnic_type") or ""

    @property
    def bridge(self) -> str | None:
        """The bridge that its host's agent wants it on; None if that is not told, as by older
        releases."""
        name = mapping(self.raw, "binding:vif_details").get("bridge_name")
        return name if isinstance(name, str) and name else None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its fixed IPs."""
        listed = self.raw.get("fixed_ips")
        if not isinstance(listed, list):
            raise UnheardError("fixed_ips was not told")
        ips = [item.get("ip_address") if isinstance(item, dict) else None for item in listed]
        if not all(isinstance(ip, str) for ip in ips):
            raise UnheardError("fixed_ips can't be read")
        return tuple(ip for ip in ips if isinstance(ip, str))

    @property
    def updated_at(self) -> str | None:
        """UTC, `2026-11-25T13:14:39Z` (Newton and later)."""
        return text(self.raw, "updated_at")

    @cached_property
    def bindings(self) -> tuple[Binding, ...]:
        """Every host that it is prepared for (Pike and later, for administrators)."""
        listed = items_of(self.said.get("bindings"), "bindings", "the port's bindings")
        return tuple(
            Binding(text(item, "host") or "", text(item, "status") or "") for item in listed
        )


class Ports:
    """All that the neutron API said. A list may come in pages; together they are one answer."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.by_id: dict[str, Port] = {}
        self.obstacle: str | None = None
        """Why the API did not speak, if it did not even begin to."""
        self.networks: dict[str, Network] = {}
        self.floating: dict[str, tuple[str, ...]] = {}
        """For each port the floating IPs that lead to it."""
        self.agents: dict[str, Agent] | None = None
        """By id; None if they were not shown."""
        self.went: set[str] = set()
        """What of their id is in the names of the devices of ports that went away meanwhile."""
        self._lists: dict[frozenset[tuple[str, frozenset[str]]], _List] = {}
        """The lists of ports, by their options without the page."""
        bindings: dict[str, Answer] = {}
        rows: dict[str, tuple[Mapping[str, object], Answer]] = {}
        for answer in answers:
            if answer.error is not None:
                self.obstacle = self.obstacle or answer.error.message
            if found := BINDINGS.fullmatch(answer.query):
                bindings[found[1]] = answer
            elif found := LIST.fullmatch(answer.query):
                self._read_list(found[1], found[2] or "", answer, rows)
        for uuid, (raw, answer) in rows.items():
            said = {"port": answer}
            if uuid in bindings:
                said["bindings"] = bindings[uuid]
            network = self.networks.get(str(raw.get("network_id")))
            self.by_id[uuid] = Port(raw=raw, network=network, said=said)

    def _read_list(
        self,
        name: str,
        options: str,
        answer: Answer,
        rows: dict[str, tuple[Mapping[str, object], Answer]],
    ) -> None:
        items = _items(answer, name.replace("-", "_"))
        if name == "ports":
            asked = {key: frozenset(values) for key, values in parse_qs(options).items()}
            marker = next(iter(asked.pop("marker", ())), None)
            asked.pop("limit", None)
            listed = self._lists.setdefault(frozenset(asked.items()), _List(asked))
            listed.add(answer, items, marker)
            if items is not None and asked.keys() == {"device_id"} and listed.is_one_page:
                # What was heard of them before, and is not among them now, has gone meanwhile.
                for uuid, (raw, before) in [*rows.items()]:
                    device = raw.get("device_id")
                    if not isinstance(device, str) or before.host != answer.host:
                        continue
                    if device in asked["device_id"]:
                        del rows[uuid]
                        self.went.add(uuid[:PREFIX])
        if name == "agents" and items is not None:
            self.agents = self.agents or {}
        for raw in items or ():
            uuid = raw["id"].lower()
            if name == "ports":
                rows[uuid] = (raw, answer)
                self.went.discard(uuid[:PREFIX])
            elif name == "networks":
                self.networks[uuid] = Network(raw=raw, said={"network": answer})
            elif name == "floatingips":
                port, ip = raw.get("port_id"), raw.get("floating_ip_address")
                if isinstance(port, str) and isinstance(ip, str):
                    self.floating[port] = (*self.floating.get(port, ()), ip)
            elif name == "agents" and self.agents is not None:
                self.agents[uuid] = Agent(raw=raw, said={"agent": answer})

    @cached_property
    def sees_all(self) -> bool:
        """Whether the user sees every project's ports: only administrators are shown where a port
        is bound."""
        return any("binding:host_id" in port.raw for port in self.by_id.values())

    @property
    def silence(self) -> str:
        """Why it can't be said which ports a server has, if `of_device` has no answer."""
        if self.by_id and not self.sees_all:
            return "neutron API: it shows this user only the ports of some projects"
        return f"neutron API: {self.obstacle or 'it was not asked for this UUID'}"

    def of_device(self, uuid: str) -> Answer | None:
        """An answer that shows every port of a server, had it any."""
        return self._complete("device_id", uuid)

    def of_host(self, host: str) -> Answer | None:
        """An answer that shows every port that is bound to a host."""
        return self._complete("binding:host_id", host)

    def _complete(self, key: str, value: str) -> Answer | None:
        """The list of what has this value, or of everything; None if neither was told to its end,
        or to a user who does not see all."""
        if not self.sees_all:
            return None
        for listed in reversed(self._lists.values()):  # who moved was asked about again
            is_asked = listed.asked.keys() <= {key} and value in listed.asked.get(key, {value})
            if is_asked and listed.complete:
                return listed.first
        return None

    @cached_property
    def by_device(self) -> Mapping[str, tuple[Port, ...]]:
        """The servers' ports, by the UUID of the server."""
        found: dict[str, list[Port]] = {}
        for port in self.by_id.values():
            try:
                if port.is_guests:
                    found.setdefault(port.device_id, []).append(port)
            except Exception as error:
                caught(error)
                continue
        return {uuid: tuple(ports) for uuid, ports in found.items()}

    @cached_property
    def by_prefix(self) -> Mapping[str, tuple[Port, ...]]:
        """The ports by what of their id is in the names of their devices."""
        found: dict[str, list[Port]] = {}
        for uuid, port in self.by_id.items():
            found.setdefault(uuid[:PREFIX], []).append(port)
        return {prefix: tuple(ports) for prefix, ports in found.items()}

    @cached_property
    def routers(self) -> Mapping[str, frozenset[str]]:
        """For each network the routers that have an interface in it."""
        found: dict[str, set[str]] = {}
        for port in self.by_id.values():
            try:
                owner, network = port.device_owner, port.network_id
                # An interface is called router_interface, or for a distributed or doubled router
                # router_interface_distributed and ha_router_replicated_interface.
                if network and owner.startswith("network:") and "_interface" in owner:
                    found.setdefault(network, set()).add(port.device_id)
            except Exception as error:
                caught(error)
                continue
        return {network: frozenset(routers) for network, routers in found.items()}


class _List:
    """One list of ports, in one or more pages."""

    def __init__(self, asked: Mapping[str, frozenset[str]]) -> None:
        self.asked = asked
        self.first: Answer | None = None
        self._after: dict[str | None, str | None] = {}
        """For the marker of each page that was told the marker of the next."""

    def add(self, answer: Answer, items: list[dict[str, Any]] | None, marker: str | None) -> None:
        if items is None:
            self._after.pop(marker, None)
            return
        if marker is None:
            self.first = answer
        self._after[marker] = _next(answer)

    @property
    def is_one_page(self) -> bool:
        """There is nothing behind its first page."""
        return self._after == {None: None}

    @property
    def complete(self) -> bool:
        """It was told to its end."""
        marker: str | None = None
        for _ in range(len(self._after)):
            if marker not in self._after:
                return False
            marker = self._after[marker]
            if marker is None:
                return True
        return False


def _items(answer: Answer, name: str) -> list[dict[str, Any]] | None:
    """What is in a list; None if it was not told, or not all of it can be read."""
    try:
        items = items_of(answer, name, f"the list of {name}")
    except Exception as error:
        caught(error)
        return None
    if not all(isinstance(item.get("id"), str) for item in items):
        return None
    return items if all(_is_somebodys(item) for item in items) else None


def _is_somebodys(item: Mapping[str, object]) -> bool:
    """Can it be read whose port this is, and where it is bound?"""
    words = (item.get(key) for key in ("device_id", "device_owner", "binding:host_id"))
    return all(word is None or isinstance(word, str) for word in words)


def _next(answer: Answer) -> str | None:
    links = answer.value.get("ports_links") if isinstance(answer.value, dict) else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "next":
            markers = parse_qs(str(link.get("href")).partition("?")[2]).get("marker")
            return markers[0] if markers else ""
    return None
