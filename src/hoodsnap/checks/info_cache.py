"""nova's info cache of a guest's ports, compared with neutron."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.floating_ips import is_new, promised
from hoodsnap.checks.traps import (
    building,
    just_changed,
    migrating,
    never_launched,
    passed_through,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import NOT_BOUND, PREFIX, Network, Port, Ports
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.subnet import Subnet
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.network_info import CachedSubnet, NetworkInterface
from hoodsnap.facts.fact import known
from hoodsnap.facts.host.tap import NAME
from hoodsnap.phrase import brief, several

TUNNELS = frozenset(["vxlan", "gre", "geneve"])
"""Types of networks that nova records as tunneled."""


@check(
    Severity.WARNING,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def info_cache_outdated(
    guest: Guest,
    cloud: Cloud,
    instance: Instance | None,
    server: Server | None,
    ports: tuple[Port, ...],
) -> Problems:
    """nova's info cache of a port differs from neutron, in its network, device or floating IPs.

    The API answers from this cache, the metadata service and the config drive tell the guest of it,
    and nova writes the domain from it at the next start. Up to 2024.2, nova-compute repairs the
    cache within a few minutes, one guest a minute. Since 2025.1 it does not, unless
    `heal_instance_info_cache_interval` is set.

    Authority: neutron.

    Traps: Changes of the last minutes. The name of a network (a note) stays in the cache after the
    network was renamed. The addresses of DHCP servers are compared only if all of them were
    collected.

    Next: Compare both sides; if nova repairs the cache, look again a few minutes later:

        openstack port show PORT
        openstack server show UUID -c addresses
        openstack floating ip list --port PORT

    If the cache stays wrong, set `heal_instance_info_cache_interval = 60` in nova.conf on the
    server's host. Then restart nova-compute there, which interrupts its tasks:

        systemctl restart nova-compute

    It worked if nova lists the addresses as neutron does a few minutes later:

        openstack server show UUID -c addresses

    Not yet: Do not run `openstack server reboot --hard`, or `stop` and `start`: the guest would
    start with what the cache has.

    Source: nova network/neutron.py `_build_vif_model`, `_nw_info_build_network`,
    compute/manager.py `_heal_instance_info_cache`; nova bug 2080531.
    """
    if not (guest.host is None or guest.is_here):
        return
    if instance is not None and instance.deleted:
        return
    known_ports = {port.id: port for port in ports}
    for vif in instance.network_info if instance is not None else ():
        port = known_ports.get(vif.id)
        if port is None or instance is None or vif.type in NOT_BOUND:
            continue
        for what, cached, real, evidence in _differences(cloud.ports, vif, port):
            old, new = brief(str(cached or "none")), brief(str(real or "none"))
            yield problem(
                f"{guest.title}'s port {brief(vif.id)} has {what} {old} in nova's info cache, but "
                f"{new} in neutron",
                says(instance, network_info=f"{vif.id}: {what} {cached}"),
                evidence,
                severity=Severity.NOTE if what == "network name" else None,
                PORT=vif.id,
            )
    if server is not None:
        yield from _listed(guest, cloud, instance, server, ports)


def _differences(
    ports: Ports, vif: NetworkInterface, port: Port
) -> Iterator[tuple[str, object, object, Evidence]]:
    """Yield name, cached value and neutron's value of what differs, and neutron's evidence."""
    network = port.network
    if vif.network_id is not None and vif.network_id != port.network_id:
        of = says(port, id=port.id, network_id=port.network_id)
        yield "network", vif.network_id, port.network_id, of
    elif network is not None and vif.label is not None and vif.label != network.name:
        yield "network name", vif.label, network.name, says(network, name=network.name)
    if vif.ovs_id is not None and vif.ovs_id.lower() != port.id:
        yield "Open vSwitch id", vif.ovs_id, port.id, says(port, id=port.id)
    named = NAME.fullmatch(vif.device or "")
    is_tap = vif.device is not None and vif.device.startswith("tap") and not passed_through(port)
    if is_tap and (not named or named["prefix"] != port.id[:PREFIX]):
        yield "device", vif.device, port.tap, says(port, id=port.id, tap=port.tap)
    for what, cached, real, field in (
        ("type", vif.type, known(lambda: port.vif_type), "vif_type"),
        ("VNIC type", vif.vnic_type, known(lambda: port.vnic_type), "vnic_type"),
    ):
        if cached and real and cached != real and real not in NOT_BOUND:
            yield what, cached, real, says(port, id=port.id, **{field: real})
    bridge = known(lambda: port.bridge)
    for cached in (vif.bridge, vif.plugged):
        if vif.type == "ovs" and cached and bridge and cached != bridge:
            yield "bridge", cached, bridge, says(port, id=port.id, bridge=bridge)
            break
    yield from _of_binding(vif, port)
    if network is not None and vif.network_id in (None, port.network_id):
        yield from _of_network(vif, network)
    yield from _of_subnets(ports, vif, port)
    leads = ports.floating.get(port.id, ())
    # Older collectors did not ask for the floating IPs of a port without an owner.
    is_asked = "floatingips" in ports.heard and (leads or not port.is_disowned)
    if is_asked and not any(map(is_new, leads)):
        real_ips = {one.address for one in leads}
        if real_ips != set(vif.floating):
            of = promised(leads[0], port_id=port.id) if leads else says(port, id=port.id)
            yield "floating IP", several(vif.floating), several(sorted(real_ips)), of


def _of_binding(
    vif: NetworkInterface, port: Port
) -> Iterator[tuple[str, object, object, Evidence]]:
    """Compare the details that both have: newer releases of neutron have more."""
    real = known(lambda: port.details) or {}
    for name in sorted(vif.details.keys() & real.keys() - {"bridge_name"}):
        if vif.details[name] != real[name]:
            of = says(port, id=port.id).and_so(**{name: _word(real[name])})
            yield name, _word(vif.details[name]), _word(real[name]), of


def _word(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _of_network(
    vif: NetworkInterface, network: Network
) -> Iterator[tuple[str, object, object, Evidence]]:
    owner, kind = network.project, known(lambda: network.kind)
    if vif.owner and owner and vif.owner != owner:
        yield "network's project", vif.owner, owner, says(network, project=owner)
    if vif.tunneled is not None and kind is not None and vif.tunneled != (kind in TUNNELS):
        cached = "tunneled" if vif.tunneled else "not tunneled"
        yield "network type", cached, kind, says(network, kind=kind)
    physical = known(lambda: network.physical)
    if vif.tunneled is not None and physical and vif.physical != physical:
        of = says(network, physical=physical)
        yield "physical network", vif.physical, physical, of


def _of_subnets(
    ports: Ports, vif: NetworkInterface, port: Port
) -> Iterator[tuple[str, object, object, Evidence]]:
    cached_of = {ip: cached for cached in vif.subnets for ip in cached.addresses}
    for uuid, ip in zip(port.subnet_ids, port.addresses, strict=False):
        subnet, cached = ports.subnets.get(uuid), cached_of.get(ip)
        if subnet is None or cached is None:
            continue
        for what, one, real, field in (
            ("subnet", cached.cidr, subnet.cidr, "cidr"),
            ("gateway", cached.gateway, subnet.gateway, "gateway_ip"),
        ):
            if one != real:
                yield what, one, real, of_subnet(subnet, **{field: real})
        dns = known(lambda: subnet.dns)  # noqa: B023
        if dns is not None and set(dns) != set(cached.dns):
            real = several(dns) or None
            yield "name server", several(cached.dns), real, of_subnet(subnet, dns_nameservers=real)
        yield from _of_dhcp(ports, cached, port, subnet)


def _of_dhcp(
    ports: Ports, cached: CachedSubnet, port: Port, subnet: Subnet
) -> Iterator[tuple[str, object, object, Evidence]]:
    """Compare the cached DHCP server with the network's DHCP ports, if all were collected."""
    if cached.dhcp is None or "ports" not in ports.whole or not subnet.serves_dhcp:
        return
    owners = ("network:dhcp", "network:distributed")
    servers = [
        one for one in ports.by_network.get(port.network_id or "", ()) if one.device_owner in owners
    ]
    found = {ip for one in servers for ip in one.addresses}
    if servers and cached.dhcp not in found and not any(map(just_changed, servers)):
        of = says(servers[0], id=servers[0].id, addresses=", ".join(servers[0].addresses))
        yield "DHCP server", cached.dhcp, several(sorted(found)), of


def of_subnet(subnet: Subnet, **values: object) -> Evidence:
    """Return evidence of fields of a subnet."""
    place = f"subnets[id={subnet.id}].{next(iter(values))}"
    return hears(subnet.answer, "subnet", place, **values)


def _listed(
    guest: Guest,
    cloud: Cloud,
    instance: Instance | None,
    server: Server,
    ports: tuple[Port, ...],
) -> Iterator[Problem]:
    """Compare the addresses that the API lists with the cache they come from, else with neutron."""
    listed = {(kind, ip) for _, kind, ip in server.addresses}
    cached = known(lambda: instance.network_info) if instance is not None else None
    if cached is not None and instance is not None:
        there = {("fixed", ip) for vif in cached for ip in vif.addresses}
        there |= {("floating", ip) for vif in cached for ip in vif.floating}
        macs = {vif.mac for vif in cached if vif.mac}
        labels = {vif.label for vif in cached if vif.label}
        of, words = says(instance, network_info=several(ip for _, ip in sorted(there))), "its cache"
    elif not cloud.ports.sees_all:
        return  # a user does not see the ports and floating IPs of other projects
    else:
        there = {("fixed", ip) for port in ports for ip in port.addresses}
        if "floatingips" not in cloud.ports.heard:
            listed = {one for one in listed if one[0] == "fixed"}
        leads = [one for port in ports for one in cloud.ports.floating.get(port.id, ())]
        there |= {("floating", one.address) for one in leads}
        macs, labels = {port.mac for port in ports}, set()
        if not ports:
            return
        of, words = says(ports[0], addresses=", ".join(ports[0].addresses)), "neutron"
    if listed != there:
        yield _apart(guest, server, (ip for _, ip in listed), (ip for _, ip in there), of, words)
    elif server.card_addresses and not server.card_addresses <= macs:
        yield _apart(guest, server, server.card_addresses, macs, of, words)
    elif labels and (names := {name for name, _, _ in server.addresses}) - labels:
        yield _apart(guest, server, names, (str(label) for label in labels), of, words)


def _apart(
    guest: Guest,
    server: Server,
    listed: Iterator[str] | frozenset[str] | set[str],
    there: Iterator[str] | set[str],
    of: Evidence,
    words: str,
) -> Problem:
    one, other = several(sorted(listed)), several(sorted(there))
    return problem(
        f"nova's API lists {one or 'no address'} for {guest.title}, but {words} has "
        f"{other or 'none'}",
        says(server, addresses=one or None),
        of,
        PORT="",
    )
