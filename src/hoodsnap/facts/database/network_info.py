"""nova's cache of an instance's ports: the column `instance_info_caches.network_info`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from hoodsnap.facts.fact import UnheardError


class NetworkInterface(NamedTuple):
    """A port as nova cached it when it last asked neutron. nova builds the domain from it."""

    id: str
    """Id of the port, lower case."""
    mac: str | None
    """MAC address, lower case."""
    device: str | None
    """`tap3f6c1d2a-bb`."""
    type: str | None
    """`ovs`, `bridge` …, as in `binding:vif_type`."""
    vnic_type: str | None
    addresses: tuple[str, ...]
    """The port's fixed IPs."""
    floating: tuple[str, ...]
    mtu: int | None
    """Bytes; None if it is not recorded, as before Newton."""
    ovs_id: str | None = None
    """Id that it has in Open vSwitch (`ovs_interfaceid`); None for other switches."""
    network_id: str | None = None
    label: str | None = None
    """Name of the network."""
    bridge: str | None = None
    plugged: str | None = None
    """Bridge in the details of its binding."""
    subnets: tuple[CachedSubnet, ...] = ()
    details: Mapping[str, object] = MappingProxyType({})
    """Details of its binding, as in `binding:vif_details`."""
    owner: str | None = None
    """Project of the network."""
    tunneled: bool | None = None
    """True if the network is a tunnel; None if it is not recorded, as before Rocky."""
    physical: str | None = None
    """Physical network; None for a tunneled network, and before Rocky."""
    kept: bool | None = None
    """The port outlives its server (`preserve_on_delete`): somebody else than nova created it."""


class CachedSubnet(NamedTuple):
    """A subnet of a port, as nova cached it."""

    cidr: str | None
    gateway: str | None
    dhcp: str | None
    """Address of the network's DHCP server."""
    addresses: tuple[str, ...]
    dns: tuple[str, ...] = ()
    """Its name servers."""


def read_network_info(text: str | None) -> tuple[NetworkInterface, ...]:
    """Return the ports in the column; none if it is NULL. Raises `UnheardError`."""
    if not text:
        return ()
    try:
        ports = json.loads(text)
    except (ValueError, RecursionError):
        raise UnheardError("network_info of the info cache can't be read") from None
    if not isinstance(ports, list):
        raise UnheardError("network_info of the info cache can't be read")
    return tuple(map(_port, ports))


def _port(raw: object) -> NetworkInterface:
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
        raise UnheardError("network_info of the info cache can't be read")
    network = _mapping(raw.get("network"))
    meta = _mapping(network.get("meta"))
    mtu, tunneled = meta.get("mtu"), meta.get("tunneled")
    ips = list(_ips(network))
    mac = _text(raw.get("address"))
    return NetworkInterface(
        id=raw["id"].lower(),
        mac=mac.lower() if mac is not None else None,
        device=_text(raw.get("devname")),
        type=_text(raw.get("type")),
        vnic_type=_text(raw.get("vnic_type")),
        addresses=tuple(ip for ip in (_text(one.get("address")) for one in ips) if ip),
        floating=tuple(_floating(ips)),
        mtu=mtu if isinstance(mtu, int) else None,
        ovs_id=_text(raw.get("ovs_interfaceid")),
        network_id=_text(network.get("id")),
        label=_text(network.get("label")),
        bridge=_text(network.get("bridge")),
        plugged=_text(_mapping(raw.get("details")).get("bridge_name")),
        subnets=tuple(_subnet(_mapping(one)) for one in _list(network.get("subnets"))),
        details=_mapping(raw.get("details")),
        owner=_text(meta.get("tenant_id")),
        tunneled=tunneled if isinstance(tunneled, bool) else None,
        physical=_text(meta.get("physical_network")),
        kept=kept if isinstance(kept := raw.get("preserve_on_delete"), bool) else None,
    )


def _subnet(raw: Mapping[str, object]) -> CachedSubnet:
    ips = (_text(_mapping(ip).get("address")) for ip in _list(raw.get("ips")))
    servers = (_text(_mapping(ip).get("address")) for ip in _list(raw.get("dns")))
    return CachedSubnet(
        cidr=_text(raw.get("cidr")),
        gateway=_text(_mapping(raw.get("gateway")).get("address")),
        dhcp=_text(_mapping(raw.get("meta")).get("dhcp_server")),
        addresses=tuple(ip for ip in ips if ip),
        dns=tuple(ip for ip in servers if ip),
    )


def _ips(network: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for subnet in _list(network.get("subnets")):
        yield from map(_mapping, _list(_mapping(subnet).get("ips")))


def _floating(ips: list[Mapping[str, object]]) -> Iterator[str]:
    for ip in ips:
        for one in _list(ip.get("floating_ips")):
            address = _text(_mapping(one).get("address"))
            if address is not None:
                yield address


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
