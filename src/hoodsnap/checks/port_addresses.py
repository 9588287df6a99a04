"""Addresses that neutron has lost of a guest's port, while others still have them."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.fact import known
from hoodsnap.phrase import several


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def port_address_lost(
    guest: Guest, cloud: Cloud, instance: Instance | None, ports: tuple[Port, ...]
) -> Problems:
    """A port of the guest has lost an address in neutron, which the guest still uses.

    Nothing was removed on purpose: neutron would have told nova and its agents, and nova's info
    cache, the DHCP server's file or the port's rules still have the address. The guest goes on
    until its lease ends, its port is wired again, or neutron gives the address to another port.
    Causes: a row of neutron's database was deleted by hand, or the database is a restored one.

    Authority: nova's info cache and the host, for what the port had; neutron gives it again.

    Traps: A port that just changed. A port without an address may be wanted: then nobody else has
    one for it. Addresses that only `allowed_address_pairs` names were never the port's own.

    Next: Write the address down first: up to 2024.2, nova overwrites its info cache with neutron's
    list within minutes, and the agent's files follow. Check the port, and that no other port has
    the address by now:

        openstack port show PORT -c fixed_ips -c mac_address
        openstack port list --fixed-ip ip-address=ADDRESS
        openstack server show UUID -c addresses

    neutron has a second record of the address, which its list of ports does not show. If no port
    has the address but that record exists, neutron refuses the address as already allocated:

        SELECT a.ip_address FROM neutron.ipamallocations a JOIN neutron.ipamsubnets i ON i.id = a.ipam_subnet_id JOIN neutron.subnets s ON s.id = i.neutron_subnet_id WHERE s.network_id = 'NETWORK' AND a.ip_address = 'ADDRESS'

    Then delete that record, after a backup of neutron's database:

        DELETE a FROM neutron.ipamallocations a JOIN neutron.ipamsubnets i ON i.id = a.ipam_subnet_id JOIN neutron.subnets s ON s.id = i.neutron_subnet_id WHERE s.network_id = 'NETWORK' AND a.ip_address = 'ADDRESS'

    If no other port has it, and the owner of the server did not remove it, give the address back to
    the port. Its other addresses stay, and so do the guest's connections:

        openstack port set --fixed-ip ip-address=ADDRESS PORT

    It worked if the port has the address:

        openstack port show PORT -c fixed_ips
        openstack server show UUID -c addresses

    Not yet: Do not restart nova-compute, detach the port, or stop, reboot or move the server: each
    of them writes neutron's list over the last record of the address. Do not run `openstack server
    add fixed ip`, which takes any free address.

    Source: neutron db/ipam_pluggable_backend.py `update_port_with_ips`; nova network/neutron.py
    `_build_network_info_model`, compute/manager.py `_heal_instance_info_cache`; neutron
    ipam/drivers/neutrondb_ipam/driver.py `NeutronDbSubnet.allocate`.
    """  # noqa: E501 (an SQL statement is one line)
    if not (guest.host is None or guest.is_here):
        return
    if guest.record is None or guest.record.deleted:
        return
    for port in ports:
        own = {*port.addresses}
        pairs = {*_pairs(port)}
        found: dict[str, list[Evidence]] = {}
        for address, evidence in _witnesses(guest, cloud, instance, port):
            # A witness of another address may be an outdated one: only what was lost is reported.
            if address not in own | pairs and ":" not in address:
                found.setdefault(address, []).append(evidence)
        cached = lost(instance, port)
        for address, evidences in found.items():
            if own and address not in cached:
                continue
            yield problem(
                f"neutron has lost {address} of {guest.title}'s port {port.id[:8]}, which "
                f"{several([*dict.fromkeys(_holder(one) for one in evidences)])} still "
                f"{'has' if len(evidences) == 1 else 'have'}",
                says(port, id=port.id, addresses=", ".join(port.addresses) or None),
                *evidences,
                PORT=port.id,
                ADDRESS=address,
                NETWORK=port.network_id,
            )


def lost(instance: Instance | None, port: Port) -> frozenset[str]:
    """Return the addresses that nova's info cache has of a port, and neutron has not.

    None if neutron has an address that the cache lacks: the port's addresses were changed then, and
    the cache is outdated.
    """
    noted = (known(lambda: instance.network_info) or ()) if instance is not None else ()
    cached = {ip for vif in noted if vif.id == port.id for ip in vif.addresses}
    own = {*(known(lambda: port.addresses) or ())}
    return frozenset(cached - own if own < cached else ())


def _pairs(port: Port) -> Iterator[str]:
    """Yield the addresses that the port may use besides its own."""
    pairs = port.raw.get("allowed_address_pairs")
    for pair in pairs if isinstance(pairs, list) else ():
        address = pair.get("ip_address") if isinstance(pair, dict) else None
        if isinstance(address, str):
            yield address.removesuffix("/32")


def _witnesses(
    guest: Guest, cloud: Cloud, instance: Instance | None, port: Port
) -> Iterator[tuple[str, Evidence]]:
    """Yield each address of the port that nova, a DHCP server or the port's rules have."""
    noted = (known(lambda: instance.network_info) or ()) if instance is not None else ()
    for vif in noted:
        if vif.id == port.id and instance is not None:
            for ip in vif.addresses:
                yield ip, says(instance, network_info=f"{vif.id}: {ip}")
    for host in cloud.hosts:
        file = host.network.dhcp.get(port.network_id or "")
        for line in file.lines if file is not None else ():
            if line.mac == port.mac and file is not None:
                for ip in sorted(line.addresses):
                    yield ip, hears(file.answer, "DHCP server", port.mac, **{port.mac: ip})
    for tap in known(lambda: guest.taps) or ():
        number = known(lambda: tap.ofport or -1)  # noqa: B023
        flows = guest.host.network.flows.get(number or -1) if guest.host is not None else None
        if tap.prefix == port.id[:PREFIX] and flows is not None:
            for ip in sorted(flows.addresses):
                yield ip, hears(flows.answer, "flows", tap.name, nw_src=ip)


def _holder(evidence: Evidence) -> str:
    return {
        "instance": "nova's info cache",
        "DHCP server": "the DHCP server",
        "flows": "the rules of its tap",
    }.get(evidence.noun, evidence.noun)
