"""The order of a guest's network cards, which decides their names in many systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Severity, derives, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import integer, text
from hoodsnap.phrase import brief, several


@check(
    Severity.WARNING,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def card_order_differs(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """The guest's network cards come in another order at its next start.

    nova plugs the cards in the order of its info cache. When it rebuilds the cache, it takes the
    order of the rows in virtual_interfaces, and puts ports without a row at the end (a note). Cards
    in another order have other places on the PCI bus, so in systems that name interfaces after
    them, each gets the configuration of another one. A lost row also loses the card's device tag.
    Causes: a restore or a DELETE in the database, or an info cache that was lost and rebuilt.

    Authority: libvirt, for the order that the guest has.

    Traps: Servers with one card. Servers from before Newton have no rows in virtual_interfaces. A
    system that names its interfaces after MAC addresses, as cloud-init does by default, is not
    affected.

    Next: Compare the guest's cards with nova's orders:

        virsh domiflist NAME
        openstack server show UUID -c addresses
        SELECT id, uuid, tag, deleted FROM DATABASE.virtual_interfaces WHERE instance_uuid = 'UUID'

    Ask the server's owner how its system names interfaces. If by MAC address, nothing has to be
    done. Otherwise, load lost rows from a backup of the database, with their ids. Where nova
    repairs its info cache (see `hoodsnap checks info-cache-lost`), the cache then gets that order
    within a few minutes.

    Not yet: Do not hard-reboot, stop, resize or migrate the server before its owner knows. Do not
    detach and attach a port to change the order: nova puts it at the end, and may delete the port.

    Source: nova network/neutron.py `_get_ordered_port_list`, `_build_network_info_model`;
    objects/virtual_interface.py `fill_virtual_interface_list`.
    """
    if not guest.is_here or instance.deleted or domain.state not in ON:
        return
    cached = {vif.mac: vif.id for vif in instance.network_info if vif.mac is not None}
    if len(cached) < len(instance.network_info):
        return  # two ports of one MAC address, in two networks
    now = [cached[card.mac] for card in domain.xml.interfaces if card.mac in cached]
    then = [port for port in cached.values() if port in now]
    if now != then:
        yield problem(
            f"{guest.title}'s cards come in another order at its next start: {_named(now)} now, "
            f"{_named(then)} then",
            says(domain, macs=", ".join(domain.macs)),
            says(instance, cached_ports=", ".join(then)),
            DATABASE=plain_name(instance.database),
        )
        return
    rows = _rows(instance)
    lost = [port for port in now if port not in rows]
    # Ports without a row come in the order of neutron's answer; the guest's order may be that.
    rebuilt = [*sorted(rows.keys() & {*now}, key=rows.__getitem__), *lost]
    if rows and rebuilt != now:
        because = f", as port {several(map(brief, lost))} has no row" if lost else ""
        yield problem(
            f"{guest.title}'s cards come in another order once nova rebuilds its info cache: "
            f"{_named(now)} now, {_named(rebuilt)} then{because}",
            says(instance, cached_ports=", ".join(now)),
            derives(
                instance, "macs", virtual_interfaces=", ".join(rebuilt[: len(now) - len(lost)])
            ),
            severity=Severity.NOTE,
            DATABASE=plain_name(instance.database),
        )


def _rows(instance: Instance) -> Mapping[str, int]:
    """Return port id → id of its row in virtual_interfaces."""
    _ = instance.macs  # raises UnheardError if the table was not collected
    found: dict[str, int] = {}
    for row in instance.virtual_interfaces or ():
        port, number = text(row, "uuid"), integer(row, "id")
        if port and number is not None:
            found[port.lower()] = number
    return found


def _named(ports: Sequence[str]) -> str:
    return ", ".join(brief(port) for port in ports)
