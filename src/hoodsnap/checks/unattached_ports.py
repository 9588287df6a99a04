"""Ports that name a server, and that nova never attached to it."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    just_changed,
    migrating,
    never_launched,
    passed_through,
    task_in_flight,
)
from hoodsnap.evidence import Severity, derives, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import known
from hoodsnap.facts.host.tap import NAME
from hoodsnap.phrase import several

UNBOUND = "unbound"
"""The VIF type of a port that names no host."""


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched, migrating])
def port_never_attached(
    guest: Guest, instance: Instance, domain: Domain, ports: tuple[Port, ...]
) -> Problems:
    """A port in neutron names the server, but was never attached to it.

    Somebody created the port with the server's UUID as its `device_id` (a script, an orchestration
    tool), which only nova should write. nova did not bind the port to a host, and the guest has no
    card for it, so its address leads nowhere. nova reads the ports of its servers from neutron,
    though: within minutes it takes this one into its info cache and binds it, and the next hard
    reboot, or stop and start, plugs a card that nobody expects. nova deletes the port together with
    the server.

    Authority: nova, which binds a port when it attaches it; libvirt, for the cards of the guest.

    Traps: nova creates a port for a network that is attached, and binds it a moment later; such a
    port has no name. A port that lost its binding while the guest has its card was attached:
    `port-binding-bad` reports it. Passed-through cards are no interface of the domain.

    Next: Check the port, who created it and when, and the cards of the guest:

        openstack port show PORT
        openstack port list --server UUID --long
        virsh domiflist NAME
        openstack catalog show network

    Ask its project whether the server should have it. If it should, take the server out of the
    port first, because nova refuses a port that is in use, and attach it. The guest gets the card
    while it runs; neutron's address is the URL of the network service:

        token=$(openstack token issue -f value -c id)
        curl -X PUT -H "X-Auth-Token: $token" -H "Content-Type: application/json" -d '{"port": {"device_id": ""}}' NEUTRON/v2.0/ports/PORT
        openstack server add port UUID PORT

    If nobody needs the port, delete it instead:

        openstack port delete PORT

    It worked if the addresses of the cards are those of the ports:

        openstack port list --server UUID --long
        virsh domiflist NAME

    Not yet: Do not run `openstack server reboot --hard UUID`, and do not stop the server, before
    that is decided. Do not bind the port with `openstack port set --host`: the guest has no card
    for it.

    Source: nova network/neutron.py `_build_network_info_model`, `_update_port`;
    compute/manager.py `_heal_instance_info_cache`, `_require_nw_info_update`.
    """  # noqa: E501 (a command is one line)
    if instance.deleted or not guest.is_here:
        return
    cached, cards = several(instance.cached_ports) or None, domain.current.interfaces
    for port in ports:
        # A user's port has a name, or names a server only when nova binds it.
        if not never_attached(guest, port) or (just_changed(port) and not port.raw.get("name")):
            continue
        yield problem(
            f"{guest.title}'s {port.title} was never attached: it is bound to no host, and the "
            "guest has no card for it",
            says(port, id=port.id, vif_type=port.vif_type, host=port.host),
            derives(instance, "cached_ports", cached_ports=cached),
            derives(domain, "macs", macs=several(card.mac for card in cards if card.mac) or None),
            PORT=port.id,
        )


def never_attached(guest: Guest, port: Port) -> bool:
    """True if a port names the guest, and neither nova nor libvirt ever had it; False if unknown.

    nova's info cache may have it as unbound, since nova found it in neutron.
    """
    instance, domain = guest.instance, guest.domain
    if port.vif_type != UNBOUND or port.host or passed_through(port):
        return False
    vifs = known(lambda: instance.network_info) if instance is not None else None
    cards = known(lambda: domain.current.interfaces) if domain is not None else None
    if vifs is None or cards is None:
        return False
    if any(vif.id == port.id and vif.type != UNBOUND for vif in vifs):
        return False
    return not any(
        card.mac == port.mac
        or ((named := NAME.fullmatch(card.target or "")) and named["prefix"] == port.id[:PREFIX])
        for card in cards
    )
