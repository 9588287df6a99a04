"""neutron's records of floating IPs, ports, subnets and routers, which contradict each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.floating_ips import is_new, promised
from hoodsnap.checks.info_cache import of_subnet
from hoodsnap.checks.traps import just_changed
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import NOT_BOUND, Port, Ports
from hoodsnap.facts.api.subnet import FloatingIp, Router, Subnet
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.fact import is_true, known
from hoodsnap.facts.layer import NEUTRON
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
    yield from _of_owners(cloud)


LISTS = re.compile(r"GET /v2\.0/(?:[a-z-]+)(?:\?.*)?")
"""A question for a list of neutron's."""


def _of_owners(cloud: Cloud) -> Problems:
    """Compare both names of an object's project, which neutron fills from one column."""
    for answer in cloud.bundle.by_layer.get(NEUTRON.id, ()):
        if not LISTS.fullmatch(answer.query) or not isinstance(answer.value, dict):
            continue
        for name, items in answer.value.items():
            for item in items if isinstance(items, list) else ():
                for noun, raw in _owned(name, item):
                    own, old = raw.get("project_id"), raw.get("tenant_id")
                    if not (isinstance(own, str) and isinstance(old, str)) or own == old:
                        continue
                    place = f"{name}[id={item.get('id')}]"
                    yield problem(
                        f"neutron's {noun} {raw.get('name') or brief(str(raw.get('id')))} belongs "
                        f"to project {brief(own)}, and to {brief(old)} by the field's old name",
                        hears(answer, "neutron", f"{place}.project_id", project_id=own),
                        hears(answer, "neutron", f"{place}.tenant_id", tenant_id=old),
                    )


def _owned(name: str, item: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield an object with its noun, and the rules of a security group."""
    if not isinstance(item, dict):
        return
    yield name.removesuffix("s").replace("_", " ").replace("floatingip", "floating IP"), item
    rules = item.get("security_group_rules")
    for rule in rules if isinstance(rules, list) else ():
        if isinstance(rule, dict):
            yield "security group rule", rule


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
            yield from _told_by_port(title, leads, port)
            if leads.fixed not in port.addresses:
                yield problem(
                    f"{title} leads to {leads.fixed}, which its {port.title} does not have",
                    promised(leads, fixed_ip_address=leads.fixed),
                    says(port, id=port.id, addresses=", ".join(port.addresses) or None),
                )
            yield from _through(title, leads, port, ports, gateways)


DETAILS = {
    "mac_address": "mac",
    "network_id": "network_id",
    "device_id": "device_id",
    "device_owner": "device_owner",
}
"""Field of a floating IP's `port_details` → field of the port that it repeats."""


def _told_by_port(title: str, leads: FloatingIp, port: Port) -> Problems:
    details = leads.raw.get("port_details")
    for name, field in DETAILS.items():
        own = details.get(name) if isinstance(details, dict) else None
        its = port.raw.get(name)
        if own is not None and its is not None and str(own).lower() != str(its).lower():
            yield problem(
                f"{title} has {name} {brief(str(own))} of its {port.title}, which has "
                f"{brief(str(its))}",
                promised(leads, **{f"port_details_{name}": own}),
                says(port, id=port.id, **{field: its}),
            )


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
        yield from _of_binding(title, port)
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


BINDING = ("vif_type", "vnic_type", "vif_details", "profile")
"""Fields of a binding that the port repeats, with `binding:` before their names."""


def _of_binding(title: str, port: Port) -> Problems:
    """Compare the port's binding with its row among the bindings of the same host."""
    for bound in known(lambda: port.bindings) or ():
        if bound.status != "ACTIVE" or bound.host != port.host:
            continue
        if port.vif_type in NOT_BOUND:
            continue  # port-binding-bad reports it
        for name in BINDING:
            own, its = port.raw.get(f"binding:{name}"), bound.raw.get(name)
            if isinstance(own, dict) and isinstance(its, dict):
                both = own.keys() & its.keys()
                own, its = (
                    {key: one[key] for key in both if own[key] != its[key]} for one in (own, its)
                )
            if own is not None and its is not None and own != its:
                yield problem(
                    f"{title} has {name} {brief(_word(own))}, its active binding for {bound.host} "
                    f"{brief(_word(its))}",
                    says(port, id=port.id, host=port.host).and_so(**{name: _word(own)}),
                    says(port, id=port.id, bindings=f"{name} {_word(its)} on {bound.host}"),
                )


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


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
