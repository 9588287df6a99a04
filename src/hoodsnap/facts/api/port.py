"""Ports, their networks, and the agents that wire them, as the neutron API returns them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.agent import Agent
from hoodsnap.facts.api.body import items_of
from hoodsnap.facts.api.subnet import FloatingIp, Router, SecurityGroup, Subnet
from hoodsnap.facts.fact import (
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    caught,
    integer,
    known,
    mapping,
    text,
    unheard,
)
from hoodsnap.facts.layer import NEUTRON, Layer
from hoodsnap.phrase import brief

LIST = re.compile(r"GET /v2\.0/([a-z-]+)(?:\?(.*))?")

BINDINGS = re.compile(r"GET /v2\.0/ports/([0-9a-f-]+)/bindings")

PREFIX = 11
"""Length of the beginning of a port's id that device names contain, the hyphen included."""

OWNERS = ("compute:", "network:", "trunk:", "baremetal:")
"""Beginnings of the device_owner of ports that nova, neutron or Ironic put to use."""

RESERVED = "reserved_dhcp_port"
"""device_id of a DHCP port that no agent has: neutron keeps it for the network's next agent."""

NOT_BOUND = frozenset(["binding_failed", "unbound"])
"""vif_types of a port that is not bound to any host."""


class Binding(NamedTuple):
    """A port's binding to one host."""

    host: str
    status: str
    """`ACTIVE`; `INACTIVE` on the host that the port moves to, or was meant to move to."""
    raw: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, eq=False, kw_only=True)
class Network(Fact):
    """One neutron network."""

    layer: ClassVar[Layer] = NEUTRON
    noun: ClassVar[str] = "network"
    raw: Mapping[str, object]

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "segment": ("network", "provider:segmentation_id"),
        "physical": ("network", "provider:physical_network"),
        "kind": ("network", "provider:network_type"),
        "project": ("network", "project_id"),
        "enabled": ("network", "admin_state_up"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the network's id."""
        answer, place = super().where(name)
        return answer, f"networks[id={self.raw.get('id')}].{place}"

    @property
    def name(self) -> str:
        """Name of the network, chosen by its owner."""
        return text(self.raw, "name") or ""

    @property
    def enabled(self) -> bool | None:
        """False if its owner has disabled it, which stops its DHCP servers; None if unknown."""
        told = self.raw.get("admin_state_up")
        return told if isinstance(told, bool) else None

    @property
    def mtu(self) -> int | None:
        """MTU of the network in bytes (Mitaka and later)."""
        return integer(self.raw, "mtu")

    @property
    def segment(self) -> int | None:
        """VLAN or VNI; None for a flat network, and one of several segments. Admin only."""
        return integer(self.raw, "provider:segmentation_id")

    @property
    def kind(self) -> str | None:
        """`vxlan`, `vlan`, `flat` …; None for a network of several segments. Admin only."""
        return text(self.raw, "provider:network_type")

    @property
    def project(self) -> str | None:
        """Id of the project that owns it; None if it is not known."""
        owner = self.raw.get("project_id") or self.raw.get("tenant_id")
        return owner if isinstance(owner, str) and owner else None

    @property
    def physical(self) -> str | None:
        """Physical network; None for a tunneled network. Admin only."""
        return text(self.raw, "provider:physical_network")


@dataclass(frozen=True, eq=False, kw_only=True)
class Port(Fact):
    """One port. Tenants don't see bindings: reading them then raises `UnheardError`."""

    layer: ClassVar[Layer] = NEUTRON
    noun: ClassVar[str] = "port"
    raw: Mapping[str, object]
    network: Network | None = None
    """The port's network; None if it was not collected."""

    own: ClassVar[str] = "port"

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "mac": ("port", "mac_address"),
        "host": ("port", "binding:host_id"),
        "vif_type": ("port", "binding:vif_type"),
        "vnic_type": ("port", "binding:vnic_type"),
        "bridge": ("port", "binding:vif_details.bridge_name"),
        "migrating_to": ("port", "binding:profile.migrating_to"),
        "addresses": ("port", "fixed_ips"),
        "subnet_ids": ("port", "fixed_ips"),
        "is_filtered": ("port", "port_security_enabled"),
        "qos_policy": ("port", "qos_policy_id"),
        "drivers": ("port", "binding:vif_details.bound_drivers"),
        "bindings": ("bindings", "bindings"),
    }

    documented: ClassVar[Documented] = (
        *("id", "mac", "tap", "status", "admin_state_up", "host", "vif_type", "addresses"),
        "network_id",
        DocumentedField(
            "network",
            "Name of the port's network; null if it is not known.",
            lambda port: port.network.name if port.network is not None else None,
        ),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the port's id."""
        answer, place = super().where(name)
        whole = self.places.get(name, ("port",))[0] == "bindings"
        return answer, place if whole else f"ports[id={self.id}].{place}"

    @cached_property
    def id(self) -> str:
        """Id of the port, lower case."""
        return (text(self.raw, "id") or "").lower()

    @property
    def title(self) -> str:
        """`port 3f6c1d2a (10.0.0.5)`: the beginning of its id, and its first address if known."""
        addresses = known(lambda: self.addresses)
        return f"port {brief(self.id)}" + (f" ({addresses[0]})" if addresses else "")

    @property
    def tap(self) -> str:
        """Name that nova gives to the port's device on the host: `tap3f6c1d2a-bb`."""
        return f"tap{self.id[:PREFIX]}"

    @property
    def mac(self) -> str:
        """MAC address of the port, lower case."""
        return (text(self.raw, "mac_address") or "").lower()

    @property
    def network_id(self) -> str | None:
        """Id of the port's network."""
        return text(self.raw, "network_id")

    @property
    def device_id(self) -> str:
        """UUID of the server or router that uses the port, lower case; "" if unused."""
        return (text(self.raw, "device_id") or "").lower()

    @property
    def device_owner(self) -> str:
        """`compute:nova`, `network:dhcp`, `trunk:subport` …; "" if unused."""
        return text(self.raw, "device_owner") or ""

    @property
    def is_guests(self) -> bool:
        """True if nova attached the port to a server."""
        return self.device_owner.startswith("compute:")

    @property
    def is_disowned(self) -> bool:
        """True if the port has a device that `device_owner` does not explain.

        nova finds a server's ports by device alone, neutron treats the port as nobody's.
        """
        return bool(self.device_id) and not self.device_owner.startswith(OWNERS)

    @property
    def status(self) -> str:
        """`ACTIVE` if the agent of its host has wired the port; else `DOWN` or `BUILD`."""
        return text(self.raw, "status") or ""

    @property
    def admin_state_up(self) -> bool:
        """False if an administrator or the owner disabled the port."""
        up = self.raw.get("admin_state_up")
        return up if isinstance(up, bool) else unheard("admin_state_up was not collected")

    @property
    def host(self) -> str | None:
        """Host that the port is bound to; None if it is not bound."""
        return text(self.raw, "binding:host_id") or None

    @property
    def vif_type(self) -> str:
        """`ovs`, `bridge`, `vhostuser` …; `binding_failed` or `unbound` if it is not bound."""
        return text(self.raw, "binding:vif_type") or ""

    @property
    def vnic_type(self) -> str:
        """`normal`, `direct`, `macvtap`, `remote-managed` …"""
        return text(self.raw, "binding:vnic_type") or ""

    @property
    def migrating_to(self) -> str | None:
        """Host to which nova said that it migrates the port's server; None without a migration."""
        host = mapping(self.raw, "binding:profile").get("migrating_to")
        return host if isinstance(host, str) else None

    @property
    def bridge(self) -> str | None:
        """Bridge that the host's agent expects the port on; None if neutron does not report it.

        Older releases don't.
        """
        name = mapping(self.raw, "binding:vif_details").get("bridge_name")
        return name if isinstance(name, str) and name else None

    @property
    def details(self) -> Mapping[str, object]:
        """Details of the binding that the driver passes to nova (`binding:vif_details`)."""
        return mapping(self.raw, "binding:vif_details")

    @property
    def subnet_ids(self) -> tuple[str, ...]:
        """Subnets of the port's fixed IPs, in their order."""
        listed = self.raw.get("fixed_ips")
        ids = (item.get("subnet_id") for item in listed or () if isinstance(item, dict))  # type: ignore[attr-defined]
        return tuple(uuid for uuid in ids if isinstance(uuid, str))

    @property
    def has_policy(self) -> bool:
        """True if the port or its network has a QoS policy, which may limit its bandwidth."""
        network = self.network.raw if self.network is not None else {}
        asked = (self.raw.get("qos_policy_id"), self.raw.get("qos_network_policy_id"))
        return any((*asked, network.get("qos_policy_id")))

    @property
    def is_filtered(self) -> bool:
        """True if port security lets the port send from its own addresses only."""
        return self.raw.get("port_security_enabled") is not False

    @property
    def drivers(self) -> frozenset[str]:
        """Mechanism drivers that bound the port: `openvswitch`, `ovn` …; empty before Train."""
        bound = mapping(self.raw, "binding:vif_details").get("bound_drivers")
        return frozenset(map(str, bound.values())) if isinstance(bound, dict) else frozenset()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The port's fixed IPs."""
        listed = self.raw.get("fixed_ips")
        if not isinstance(listed, list):
            raise UnheardError("fixed_ips was not collected")
        ips = [item.get("ip_address") if isinstance(item, dict) else None for item in listed]
        if not all(isinstance(ip, str) for ip in ips):
            raise UnheardError("fixed_ips can't be read")
        return tuple(ip for ip in ips if isinstance(ip, str))

    @property
    def updated_at(self) -> str | None:
        """Time of the last update: UTC, `2026-11-25T13:14:39Z` (Newton and later)."""
        return text(self.raw, "updated_at")

    @cached_property
    def bindings(self) -> tuple[Binding, ...]:
        """The port's bindings, one per host (Pike and later; only administrators see them)."""
        listed = items_of(self.said.get("bindings"), "bindings", "the list of the port's bindings")
        return tuple(
            Binding(text(item, "host") or "", text(item, "status") or "", item) for item in listed
        )


class Ports:
    """All answers of the neutron API. The pages of a list count as one answer."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.by_id: dict[str, Port] = {}
        self.obstacle: str | None = None
        """Message of the API's first error; None without one."""
        self.networks: dict[str, Network] = {}
        self.floating: dict[str, tuple[FloatingIp, ...]] = {}
        """Port id → the floating IPs that lead to the port."""
        self.subnets: dict[str, Subnet] = {}
        self.routers_by_id: dict[str, Router] = {}
        self.security_groups: dict[str, SecurityGroup] = {}
        self.heard: set[str] = set()
        """Lists that were collected, of the whole cloud or in part."""
        self.whole: set[str] = set()
        """Lists that were collected for the whole cloud, on one page: `networks`, `ports` …"""
        self.agents: dict[str, Agent] | None = None
        """The agents by id; None if they were not collected."""
        self.went: set[str] = set()
        """Id prefixes (`PREFIX`) of ports that disappeared during collection."""
        self._lists: dict[frozenset[tuple[str, frozenset[str]]], _List] = {}
        """The lists of ports by the options of their query, without `marker` and `limit`."""
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
                # Earlier ports of these servers that are not in this list have disappeared since.
                for uuid, (raw, before) in [*rows.items()]:
                    device = raw.get("device_id")
                    if not isinstance(device, str) or before.host != answer.host:
                        continue
                    if device in asked["device_id"]:
                        del rows[uuid]
                        self.went.add(uuid[:PREFIX])
        if items is not None:
            self.heard.add(name)
        if items is not None and re.fullmatch(r"(limit=\d+)?", options) and not _next(answer):
            self.whole.add(name)
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
                    leads = FloatingIp(raw, answer)
                    others = [it for it in self.floating.get(port, ()) if it.id != leads.id]
                    self.floating[port] = (*others, leads)
            elif name == "subnets":
                self.subnets[uuid] = Subnet(raw, answer)
            elif name == "security-groups":
                self.security_groups[uuid] = SecurityGroup(raw, answer)
            elif name == "routers":
                self.routers_by_id[uuid] = Router(raw, answer)
            elif name == "agents" and self.agents is not None:
                self.agents[uuid] = Agent(raw=raw, said={"agent": answer})

    @cached_property
    def agents_on(self) -> Mapping[str, tuple[Agent, ...]]:
        """Host in neutron → its agents. A cloud has thousands, and every port is about one host."""
        found: dict[str, list[Agent]] = {}
        for agent in (self.agents or {}).values():
            found.setdefault(agent.host, []).append(agent)
        return {host: tuple(agents) for host, agents in found.items()}

    @cached_property
    def sees_all(self) -> bool:
        """True if the user sees all projects' ports. Only such users see bindings."""
        return any("binding:host_id" in port.raw for port in self.by_id.values())

    @property
    def silence(self) -> str:
        """Reason why a server's ports are not known, if `of_device` returns None."""
        if self.by_id and not self.sees_all:
            return "neutron API: this user sees only the ports of some projects"
        return f"neutron API: {self.obstacle or 'the ports of this UUID were not collected'}"

    def of_device(self, uuid: str) -> Answer | None:
        """Return an answer that would contain every port of a server; None without one."""
        return self._complete("device_id", uuid)

    def of_host(self, host: str) -> Answer | None:
        """Return an answer that would contain every port bound to a host; None without one."""
        return self._complete("binding:host_id", host)

    def of_network(self, uuid: str) -> Answer | None:
        """Return an answer that would contain every port of a network; None without one."""
        return self._complete("network_id", uuid)

    def _complete(self, key: str, value: str) -> Answer | None:
        """Return the first page of a list of all ports, or of those with this value.

        None if no such list is complete, or if the user does not see all projects' ports.
        """
        if not self.sees_all:
            return None
        # Newest first: the ports of servers that moved are collected again.
        for listed in reversed(self._lists.values()):
            is_asked = listed.asked.keys() <= {key} and value in listed.asked.get(key, {value})
            if is_asked and listed.complete:
                return listed.first
        return None

    @cached_property
    def by_device(self) -> Mapping[str, tuple[Port, ...]]:
        """Server UUID → the server's ports."""
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
    def by_other_device(self) -> Mapping[str, tuple[Port, ...]]:
        """Device → the ports that name it, but whose owner is not a server's."""
        found: dict[str, list[Port]] = {}
        for port in self.by_id.values():
            try:
                if port.device_id and not port.is_guests:
                    found.setdefault(port.device_id, []).append(port)
            except Exception as error:
                caught(error)
                continue
        return {device: tuple(ports) for device, ports in found.items()}

    def of_server(self, uuid: str) -> tuple[Port, ...]:
        """Return a server's ports as nova finds them: by device, also without an owner."""
        disowned = tuple(port for port in self.by_other_device.get(uuid, ()) if port.is_disowned)
        return self.by_device.get(uuid, ()) + disowned

    @cached_property
    def by_prefix(self) -> Mapping[str, tuple[Port, ...]]:
        """Id prefix (`PREFIX`) → the ports whose device names contain it."""
        found: dict[str, list[Port]] = {}
        for uuid, port in self.by_id.items():
            found.setdefault(uuid[:PREFIX], []).append(port)
        return {prefix: tuple(ports) for prefix, ports in found.items()}

    @cached_property
    def subnets_of(self) -> Mapping[str, tuple[Subnet, ...]]:
        """Network id → the network's subnets that were collected."""
        found: dict[str, list[Subnet]] = {}
        for subnet in self.subnets.values():
            try:
                found.setdefault(subnet.network_id or "", []).append(subnet)
            except Exception as error:
                caught(error)
                continue
        return {network: tuple(subnets) for network, subnets in found.items()}

    @cached_property
    def by_network(self) -> Mapping[str, tuple[Port, ...]]:
        """Network id → the ports in the network that belong to no server: routers', DHCP's …"""
        found: dict[str, list[Port]] = {}
        for port in self.by_id.values():
            try:
                if not port.is_guests and port.network_id:
                    found.setdefault(port.network_id, []).append(port)
            except Exception as error:
                caught(error)
                continue
        return {network: tuple(ports) for network, ports in found.items()}

    @cached_property
    def routers(self) -> Mapping[str, frozenset[str]]:
        """Network id → the routers that have an interface in the network."""
        found: dict[str, set[str]] = {}
        for port in self.by_id.values():
            try:
                owner, network = port.device_owner, port.network_id
                # The owner is network:router_interface; for a distributed router
                # network:router_interface_distributed, for an HA router
                # network:ha_router_replicated_interface.
                if network and owner.startswith("network:") and "_interface" in owner:
                    found.setdefault(network, set()).add(port.device_id)
            except Exception as error:
                caught(error)
                continue
        return {network: frozenset(routers) for network, routers in found.items()}


class _List:
    """A list of ports in one or more pages."""

    def __init__(self, asked: Mapping[str, frozenset[str]]) -> None:
        self.asked = asked
        self.first: Answer | None = None
        self._after: dict[str | None, str | None] = {}
        """Marker of each collected page → marker of the next page; None ends the list."""

    def add(self, answer: Answer, items: list[dict[str, Any]] | None, marker: str | None) -> None:
        if items is None:
            self._after.pop(marker, None)
            return
        if marker is None:
            self.first = answer
        self._after[marker] = _next(answer)

    @property
    def is_one_page(self) -> bool:
        """True if the first page is the only one."""
        return self._after == {None: None}

    @property
    def complete(self) -> bool:
        """True if every page was collected."""
        marker: str | None = None
        for _ in range(len(self._after)):
            if marker not in self._after:
                return False
            marker = self._after[marker]
            if marker is None:
                return True
        return False


def _items(answer: Answer, name: str) -> list[dict[str, Any]] | None:
    """Return the items of a list; None if it was not collected or is not entirely readable."""
    try:
        items = items_of(answer, name, f"the list of {name}")
    except Exception as error:
        caught(error)
        return None
    if not all(isinstance(item.get("id"), str) for item in items):
        return None
    return items if all(_owner_is_readable(item) for item in items) else None


def _owner_is_readable(item: Mapping[str, object]) -> bool:
    """True if the port's device, owner and host can be read."""
    words = (item.get(key) for key in ("device_id", "device_owner", "binding:host_id"))
    return all(word is None or isinstance(word, str) for word in words)


def _next(answer: Answer) -> str | None:
    body = answer.value if isinstance(answer.value, dict) else {}
    lists = (links for key, links in body.items() if key.endswith("_links"))
    for link in next((links for links in lists if isinstance(links, list)), ()):
        if isinstance(link, dict) and link.get("rel") == "next":
            markers = parse_qs(str(link.get("href")).partition("?")[2]).get("marker")
            return markers[0] if markers else ""
    return None
