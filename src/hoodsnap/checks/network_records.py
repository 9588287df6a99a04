"""neutron's records of floating IPs, ports, subnets and routers, which contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.floating_ips import is_new, promised
from hoodsnap.checks.info_cache import of_subnet
from hoodsnap.checks.traps import just_changed
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import Port, Ports
from hoodsnap.facts.api.subnet import FloatingIp, Router, Subnet
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.fact import is_true, known
from hoodsnap.phrase import brief, several


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
    for found in (_of_floating_ips, _of_ports, _of_all_subnets, _of_routers):
        yield from found(cloud.ports)


def _of_floating_ips(ports: Ports) -> Problems:
    gateways = _gateways(ports)
    for uuid, listed in ports.floating.items():
        port = ports.by_id.get(uuid)
        for leads in listed:
            if is_new(leads):
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
            yield from _through(title, leads, port, ports, gateways)


def _through(
    title: str,
    leads: FloatingIp,
    port: Port,
    ports: Ports,
    gateways: Mapping[str, Sequence[Port]],
) -> Problems:
    router = ports.routers_by_id.get(leads.router_id or "")
    if router is None:
        if "routers" in ports.whole and leads.router_id:
            headline = (
                f"{title} is translated by router {brief(leads.router_id)}, which does not exist"
            )
            yield problem(headline, promised(leads, router_id=leads.router_id))
        return
    outer = {port.network_id for port in gateways.get(router.id, ())}
    if router.gateway_network != leads.outside and leads.outside not in outer:
        yield problem(
            f"{title} is of network {brief(leads.outside or 'none')}, its router leads to "
            f"{brief(router.gateway_network or 'none')}",
            promised(leads, floating_network_id=leads.outside),
            of_router(router, network_id=router.gateway_network),
        )
    inside = ports.routers.get(port.network_id or "", frozenset())
    if "ports" in ports.whole and router.id not in inside:
        yield problem(
            f"{title} is translated by router {router.name or brief(router.id)}, which has no "
            f"interface in the network of {port.title}",
            promised(leads, router_id=router.id),
            says(port, id=port.id, network_id=port.network_id),
        )
    outside = ports.subnets_of.get(leads.outside or "", ())
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


def _gateways(ports: Ports) -> Mapping[str, list[Port]]:
    """Return router → its ports in external networks."""
    found: dict[str, list[Port]] = {}
    for port in ports.by_id.values():
        if is_true(lambda: port.device_owner == "network:router_gateway"):  # noqa: B023
            found.setdefault(port.device_id, []).append(port)
    return found


def _of_routers(ports: Ports) -> Problems:
    """Compare each router with the port that it has in its external network."""
    for uuid, gateways in _gateways(ports).items():
        router, port = ports.routers_by_id.get(uuid), gateways[0]
        if router is None or len(gateways) > 1 or just_changed(port):
            continue  # since 2024.1 a router may have several gateways
        title = f"neutron's router {router.name or brief(router.id)}"
        if {*router.gateway_addresses} != {*port.addresses}:
            yield problem(
                f"{title} has {several(router.gateway_addresses) or 'no address'} outside, its "
                f"gateway {port.title}",
                of_router(router, external_fixed_ips=", ".join(router.gateway_addresses) or None),
                says(port, id=port.id, addresses=", ".join(port.addresses) or None),
            )
        if router.gateway_network != port.network_id:
            yield problem(
                f"{title} leads to network {brief(router.gateway_network or 'none')}, its gateway "
                f"port is in {brief(port.network_id or 'none')}",
                of_router(router, network_id=router.gateway_network),
                says(port, id=port.id, network_id=port.network_id),
            )


def of_router(router: Router, **values: object) -> Evidence:
    """Return evidence of a router's gateway."""
    place = f"routers[id={router.id}].external_gateway_info.{next(iter(values))}"
    return hears(router.answer, "router", place, **values)


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
        return ip_address(ip) in _network(cidr or "")
    except ValueError:
        return True


@lru_cache(maxsize=4096)
def _network(cidr: str) -> IPv4Network | IPv6Network:
    return ip_network(cidr, strict=False)
