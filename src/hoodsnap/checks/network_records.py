"""Records about a guest's network that are copies of each other: of nova, and within neutron."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.floating_ips import promised
from hoodsnap.checks.traps import (
    MOMENT,
    building,
    just_changed,
    migrating,
    never_launched,
    passed_through,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import NOT_BOUND, PREFIX, Port, Ports
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.subnet import FloatingIp, Subnet
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.network_info import CachedSubnet, NetworkInterface
from hoodsnap.facts.fact import known
from hoodsnap.facts.host.tap import NAME
from hoodsnap.phrase import brief, several


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
            yield problem(
                f"{guest.title}'s port {brief(vif.id)} has {what} {cached or 'none'} in nova's "
                f"info cache, but {real or 'none'} in neutron",
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
        if cached and real and cached != real:
            yield what, cached, real, says(port, id=port.id, **{field: real})
    bridge = known(lambda: port.bridge)
    if vif.type == "ovs" and vif.bridge and bridge and vif.bridge != bridge:
        yield "bridge", vif.bridge, bridge, says(port, id=port.id, bridge=bridge)
    yield from _of_subnets(ports, vif, port)
    leads = ports.floating.get(port.id, ())
    if "floatingips" in ports.heard and not any(map(_is_new, leads)):
        real_ips = {one.address for one in leads}
        if real_ips != set(vif.floating):
            of = promised(leads[0], port_id=port.id) if leads else says(port, id=port.id)
            yield "floating IP", several(vif.floating), several(sorted(real_ips)), of


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


def _is_new(leads: FloatingIp) -> bool:
    at = moment(known(lambda: leads.updated_at))
    return at is not None and leads.answer.at - at < MOMENT


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


@check(Severity.WARNING)
def neutron_records_disagree(cloud: Cloud) -> Problems:
    """neutron's records of a port, subnet, router or floating IP contradict each other.

    neutron keeps them consistent, so somebody changed its database by hand, or restored a part of
    it. Agents carry out one record or the other, and some fail on the contradiction.

    Authority: None of them; compare with what the hosts do.

    Traps: Objects that changed while neutron was asked. Lists that were not collected as a whole do
    not prove that an object is missing.

    Next: Compare both records:

        openstack floating ip list --long
        openstack port list --long
        openstack subnet list --long
        openstack router list --long

    Then find out in neutron's database and its backups which of them was changed by hand.

    Not yet: Do not delete a network, subnet or router of the report: neutron may delete the wrong
    objects with it.

    Source: neutron db/l3_db.py `_update_fip_assoc`, db/db_base_plugin_v2.py
    `_validate_subnet`, `_validate_gw_out_pools`.
    """
    for found in (_of_floating_ips, _of_ports, _of_all_subnets):
        yield from found(cloud.ports)


def _of_floating_ips(ports: Ports) -> Problems:
    for uuid, listed in ports.floating.items():
        port = ports.by_id.get(uuid)
        for leads in listed:
            if _is_new(leads):
                continue
            title = f"neutron's floating IP {leads.address}"
            if port is None:
                if "ports" in ports.whole:
                    headline = f"{title} leads to port {brief(uuid)}, which does not exist"
                    yield problem(headline, promised(leads, port_id=uuid))
                continue
            if just_changed(port):
                continue
            if leads.fixed not in port.addresses:
                yield problem(
                    f"{title} leads to {leads.fixed}, which its {port.title} does not have",
                    promised(leads, fixed_ip_address=leads.fixed),
                    says(port, id=port.id, addresses=", ".join(port.addresses) or None),
                )
            yield from _details(title, leads, port)
            yield from _through(title, leads, port, ports)


def _details(title: str, leads: FloatingIp, port: Port) -> Problems:
    for field in ("device_id", "mac_address", "network_id"):
        copy, real = leads.port_details.get(field), port.raw.get(field)
        if isinstance(copy, str) and isinstance(real, str) and copy.lower() != real.lower():
            yield problem(
                f"{title} has its port with {field} {brief(copy)}, the port has {brief(real)}",
                promised(leads, **{field: copy}),
                hears(port.said["port"], "port", f"ports[id={port.id}].{field}", **{field: real}),
            )


def _through(title: str, leads: FloatingIp, port: Port, ports: Ports) -> Problems:
    router = ports.routers_by_id.get(leads.router_id or "")
    if router is None:
        if "routers" in ports.whole and leads.router_id:
            headline = (
                f"{title} is translated by router {brief(leads.router_id)}, which does not exist"
            )
            yield problem(headline, promised(leads, router_id=leads.router_id))
        return
    if router.gateway_network != leads.outside:
        yield problem(
            f"{title} is of network {brief(leads.outside or 'none')}, its router leads to "
            f"{brief(router.gateway_network or 'none')}",
            promised(leads, floating_network_id=leads.outside),
            hears(
                router.answer,
                "router",
                f"routers[id={router.id}].external_gateway_info.network_id",
                network_id=router.gateway_network,
            ),
        )
    inside = ports.routers.get(port.network_id or "", frozenset())
    if "ports" in ports.whole and router.id not in inside:
        yield problem(
            f"{title} is translated by router {router.name or brief(router.id)}, which has no "
            f"interface in the network of {port.title}",
            promised(leads, router_id=router.id),
            says(port, id=port.id, network_id=port.network_id),
        )
    outside = [one for one in ports.subnets.values() if one.network_id == leads.outside]
    if outside and not any(_is_in(leads.address, subnet.cidr) for subnet in outside):
        yield problem(
            f"{title} is in no subnet of its external network",
            promised(leads, floating_ip_address=leads.address),
            of_subnet(outside[0], cidr=outside[0].cidr),
        )


def _of_ports(ports: Ports) -> Problems:
    for port in ports.by_id.values():
        if just_changed(port):
            continue
        title = f"neutron's {port.title}"
        if "networks" in ports.whole and port.network_id not in ports.networks:
            yield problem(
                f"{title} is in network {brief(port.network_id or 'none')}, which does not exist",
                says(port, id=port.id, network_id=port.network_id),
            )
        for uuid, ip in zip(port.subnet_ids, known(lambda: port.addresses) or (), strict=False):  # noqa: B023
            subnet = ports.subnets.get(uuid)
            if subnet is None:
                continue
            if subnet.network_id != port.network_id:
                yield problem(
                    f"{title} is in network {brief(port.network_id or 'none')}, its subnet in "
                    f"{brief(subnet.network_id or 'none')}",
                    says(port, id=port.id, network_id=port.network_id),
                    of_subnet(subnet, network_id=subnet.network_id),
                )
            if not _is_in(ip, subnet.cidr):
                yield problem(
                    f"{title} has {ip}, which is not in its subnet {subnet.cidr}",
                    says(port, id=port.id, addresses=ip),
                    of_subnet(subnet, cidr=subnet.cidr),
                )
        yield from _bridges(title, port)


def _bridges(title: str, port: Port) -> Problems:
    """Report a binding with another bridge than its port's."""
    bridge = known(lambda: port.bridge)
    for bound in known(lambda: port.bindings) or ():
        if bridge and bound.bridge and bound.host == port.host and bound.bridge != bridge:
            yield problem(
                f"{title} is bound to bridge {bridge}, its binding on {bound.host} to "
                f"{bound.bridge}",
                says(port, id=port.id, bridge=bridge),
                says(port, bindings=f"{bound.bridge} on {bound.host}"),
            )


def _of_all_subnets(ports: Ports) -> Problems:
    for subnet in ports.subnets.values():
        title = f"neutron's subnet {subnet.cidr}"
        network = ports.networks.get(subnet.network_id or "")
        listed = network.raw.get("subnets") if network is not None else None
        if isinstance(listed, list) and subnet.id not in listed and network is not None:
            yield problem(
                f"{title} is not among the subnets of its network {network.name}",
                of_subnet(subnet, network_id=subnet.network_id),
                says(network, name=network.name),
            )
        # A gateway outside of the subnet is legal for a gateway on the link.
        for start, end in known(lambda: subnet.pools) or ():  # noqa: B023
            if not (_is_in(start, subnet.cidr) and _is_in(end, subnet.cidr)):
                yield problem(
                    f"{title} gives out {start} to {end}, which are not in it",
                    of_subnet(subnet, allocation_pools=f"{start}-{end}"),
                    of_subnet(subnet, cidr=subnet.cidr),
                )
        yield from _gateway(title, subnet, ports)


def _gateway(title: str, subnet: Subnet, ports: Ports) -> Problems:
    """Report a gateway address that a guest's or a DHCP server's port has."""
    for port in ports.by_network.get(subnet.network_id or "", ()):
        if port.device_owner == "network:dhcp" and subnet.gateway in port.addresses:
            yield problem(
                f"{title} has gateway {subnet.gateway}, which is the address of its DHCP server",
                of_subnet(subnet, gateway_ip=subnet.gateway),
                says(port, id=port.id, addresses=", ".join(port.addresses)),
            )


def _is_in(ip: str, cidr: str | None) -> bool:
    """True if an address is in a subnet, or one of them can't be read."""
    try:
        return ip_address(ip) in ip_network(cidr or "", strict=False)
    except ValueError:
        return True
