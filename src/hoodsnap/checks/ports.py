"""The ports that neutron has for a guest, what nova noted of them, and the cards it really has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hoodsnap.check import Problem, Problems, check
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
from hoodsnap.facts.api.agent import WIRING
from hoodsnap.facts.api.port import NOT_BOUND, PREFIX, Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import ON, Domain, Interface
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.tap import NAME

BOUND_OTHERWISE = frozenset(["remote-managed", "baremetal", "smart-nic"])
"""The kinds of ports that are bound to another name than their nova-compute's: to that of the card,
or of Ironic's node."""


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, migrating])
def port_bound_elsewhere(
    guest: Guest, record: Server | Instance, ports: tuple[Port, ...]
) -> Problems:
    """neutron has a guest's port on another host than nova has the guest.

    The other host's agent makes the way for its packets, and this host's none: the guest is not
    reached, or not for long. It is left by a migration or an evacuation that broke off, and by
    a host whose name was changed. The names must be the same to the letter. A second binding that
    was left inactive (a warning) makes the next live migration to that host fail.

    Authority: nova for where the guest is, once it is seen to run there; neutron for the binding.

    Traps: a migration has it bound to two hosts; ports of a card that does the switching itself,
    and of Ironic's nodes, which are bound to the node.

    Next: `openstack port show PORT -c binding_host_id -c binding_vif_type`, `openstack server show
    UUID -c OS-EXT-SRV-ATTR:host`, and see on which host it runs (`virsh domstate NAME`). Then
    `openstack port set --host HOST PORT` binds it anew, which interrupts its network for a moment.

    Not yet: `openstack port set --host` before it is known that the guest runs nowhere else;
    `openstack server reboot --hard`.

    Source: nova network/neutron.py `setup_instance_network_on_host`; neutron port bindings; nova
    bugs 1784579, 1809136, 1659062.
    """
    if record.deleted or not _judged_here(guest):
        return
    for port in ports:
        if port.vnic_type in BOUND_OTHERWISE:
            continue
        if port.host is not None and port.host != guest.host_name:
            evidence = (says(record, host=record.host), says(port, id=port.id, host=port.host))
            yield (*evidence, *_tap_of(guest, port))
        elif left := _left_bindings(port):
            evidence = (says(record, host=record.host), says(port, id=port.id, bindings=left))
            yield Problem(Severity.WARNING, evidence)


def _judged_here(guest: Guest) -> bool:
    """Once: where nova has it, or if that host is in no bundle where nothing else is known."""
    return guest.is_here if guest.host is not None else not guest.is_nowhere


def _tap_of(guest: Guest, port: Port) -> Iterator[Evidence]:
    for tap in guest.taps or ():
        if tap.prefix == port.id[:PREFIX] and tap.is_there:
            yield says(tap, name=tap.name)


def _left_bindings(port: Port) -> str:
    try:
        found = [bound for bound in port.bindings if bound.status == "INACTIVE"]
    except UnheardError:  # releases before Pike have one binding
        return ""
    return ", ".join(f"{bound.status} on {bound.host}" for bound in found)


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, migrating])
def port_binding_bad(
    guest: Guest, instance: Instance | None, ports: tuple[Port, ...] | None
) -> Problems:
    """A port of the guest is bound to no network, or not wired: no packet gets through.

    neutron found no way to bind it (`binding_failed`): no agent of that host was alive, or its
    bridge mappings lack the network. nova keeps that result in its info cache, and with it in the
    cache a restart of nova-compute puts the guest into error. A port that is down although its
    guest runs was bound, but the agent has not wired it. One that somebody switched off
    (`admin_state_up`) is a warning.

    Authority: neutron.

    Traps: an agent that was just restarted wires its ports one after the other; guests that are
    off; cards that are passed through follow the cable.

    Next: `openstack port show PORT`, `openstack network agent list --host HOST`: is the agent
    alive, does it have the bridge mapping? Then, the agent being alive, `openstack port set --host
    HOST PORT` binds it anew; `openstack port set --enable PORT` switches it on.

    Not yet: restarting nova-compute while the cache says binding_failed.

    Source: neutron ml2 `_bind_port_if_needed`; nova compute/manager.py `_init_instance`; nova bugs
    1784579, 1809136.
    """
    if not guest.is_here:
        return
    unbound = set()
    for port in ports or ():
        if port.vif_type in NOT_BOUND:
            unbound.add(port.id)
            yield (says(port, id=port.id, vif_type=port.vif_type, host=port.host),)
        elif not port.admin_state_up and (running := _running(guest)):
            evidence = (says(port, id=port.id, admin_state_up=False), running)
            yield Problem(Severity.WARNING, evidence)
        elif _should_be_wired(port) and port.status == "DOWN" and (running := _running(guest)):
            yield says(port, id=port.id, status=port.status, host=port.host), running
    for vif in instance.vifs if instance is not None else ():
        if vif.type in NOT_BOUND and vif.id not in unbound:
            assert instance is not None  # noqa: S101 (else it has no vifs)
            yield (says(instance, vifs=f"{vif.id}: {vif.type}"),)
    if ports is None:
        raise UnheardError(guest.unheard["neutron"])


def _should_be_wired(port: Port) -> bool:
    return port.admin_state_up and not passed_through(port) and not just_changed(port)


def _running(guest: Guest) -> Evidence | None:
    """That it is switched on."""
    if guest.domain is None:
        if "libvirt" in guest.unheard:
            raise UnheardError(guest.unheard["libvirt"])
        return None
    if guest.domain.state not in ON:
        return None
    return says(guest.domain, state=guest.domain.state_words)


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def info_cache_lost(guest: Guest, instance: Instance, ports: tuple[Port, ...]) -> Problems:
    """nova's note of a guest's ports lacks what neutron has: the next start may be without network.

    nova makes the domain from this note (the info cache), not from neutron. It is lost when
    neutron answers too little at the wrong moment. Until 2024.2 nova-compute fills it again by
    itself within a few minutes, one guest a minute; from 2025.1 on it does not, unless
    `heal_instance_info_cache_interval` is set. Addresses that differ, and ports that are gone, are
    a warning.

    Authority: neutron.

    Traps: servers that are being built; ports that were just plugged in; a shelved server keeps its
    ports and its note.

    Next: `openstack port list --server UUID --long` and `openstack server show UUID -c addresses`
    show both sides; look again a few minutes later if nova heals it. Then attach any port and
    detach it again, or set `heal_instance_info_cache_interval = 60` for a while.

    Not yet: `openstack server reboot --hard`, `stop` and `start`: the guest would come back
    without network cards.

    Source: nova network/neutron.py `_build_network_info_model`, compute/manager.py
    `_heal_instance_info_cache`; nova bugs 1751923, 1996094, 2089225, 2080531.
    """
    if instance.deleted or not (guest.host is None or guest.is_here):
        return
    noted = {vif.id: vif for vif in instance.vifs}
    missing = [port for port in ports if port.id not in noted]
    if missing:
        yield (
            says(instance, cached_ports=", ".join(noted) or None),
            *(says(port, id=port.id, device_id=port.device_id) for port in missing),
        )
    known = {port.id: port for port in ports}
    for uuid, vif in noted.items():
        port = known.get(uuid)
        if port is not None and set(port.addresses) != set(vif.addresses):
            addresses = ", ".join(vif.addresses) or None
            evidence = (
                says(instance, vifs=f"{uuid}: {addresses}"),
                says(port, addresses=", ".join(port.addresses) or None),
            )
            yield Problem(Severity.WARNING, evidence)
        # That a running guest still has such a card is the business of the next check.
        elif port is None and not _running(guest):
            answer = guest.census["neutron"]
            gone = hears(answer, "neutron", uuid, port=None)
            yield Problem(Severity.WARNING, (says(instance, cached_ports=uuid), gone))


@check(
    Severity.ERROR,
    heard=["libvirt"],
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def port_guest_mismatch(guest: Guest, domain: Domain | None, ports: tuple[Port, ...]) -> Problems:
    """The guest has other network cards than neutron has ports for it.

    A card without a port is cut off, or lives on an address that neutron gives to another. A port
    without a card (a warning) is an address that the owner believes to have. It comes of a port
    deleted while in use, of a guest that did not let go of its card, of an attachment that broke
    off; and of a server that was deleted, but not its ports (a warning).

    Authority: libvirt for the cards; neutron for the ports.

    Traps: cards just plugged in; a trunk's subports have no card of their own; cards passed
    through are no interface of the domain.

    Next: `openstack port list --server UUID --long`, `virsh domiflist NAME`. Then `openstack server
    add port` or `remove port`; a port of a deleted server may be deleted if nova had made it.

    Not yet: `openstack port delete` while a running guest has the card; `openstack server reboot
    --hard`, which writes the cards anew from nova's info cache.

    Source: nova network/neutron.py `deallocate_for_instance`, virt/libvirt/driver.py
    `detach_interface`, compute/manager.py `_process_instance_vif_deleted_event`.
    """
    if domain is None:
        yield from _of_the_dead(guest, ports)
        return
    if not guest.is_here or guest.record is None or guest.record.deleted or domain.state not in ON:
        return
    # One without an address could be any port's.
    cards = [card for card in domain.xml.interfaces if card.mac is not None]
    for card in cards:
        if not any(_fits(card, port) for port in ports):
            others = [
                says(port, id=port.id, device_id=port.device_id) for port in _known(guest, card)
            ]
            answer = guest.census["neutron"]
            none = hears(answer, "neutron", guest.uuid, port=None)
            yield (
                says(domain, interfaces=f"{card.target or card.type} {card.mac}"),
                *(others or [none]),
            )
    if len(cards) < len(domain.xml.interfaces):
        raise UnheardError("a network card's address was not told")
    for port in ports:
        if not passed_through(port) and not any(_fits(card, port) for card in cards):
            evidence = (
                says(port, id=port.id, mac=port.mac),
                says(domain, macs=", ".join(domain.macs) or None),
            )
            yield Problem(Severity.WARNING, evidence)


def _of_the_dead(guest: Guest, ports: tuple[Port, ...]) -> Problems:
    """The ports of a server that nova has deleted, or has not, and that is not here either."""
    bound = [port for port in ports if guest.host is not None and port.host == guest.host.nova_name]
    if not bound or (guest.record is not None and not guest.record.deleted):
        return
    if isinstance(guest.instance, Instance):
        nova = says(guest.instance, deleted_at=guest.instance.deleted_at)
    elif "nova-db" in guest.census:
        nova = hears(guest.census["nova-db"], "nova-db", guest.uuid, record=None)
    else:
        raise UnheardError(guest.unheard.get("nova-db", "the nova database was not asked"))
    for port in bound:
        evidence = (nova, says(port, id=port.id, device_id=port.device_id, host=port.host))
        yield Problem(Severity.WARNING, evidence)


def _fits(card: Interface, port: Port) -> bool:
    name = NAME.fullmatch(card.target or "")
    return card.mac == port.mac or (name is not None and name["prefix"] == port.id[:PREFIX])


def _known(guest: Guest, card: Interface) -> Iterable[Port]:
    """The ports that have the card's name, whosever they are."""
    name = NAME.fullmatch(card.target or "")
    if name is None or guest.host is None:
        return ()
    return guest.host.ports.by_prefix.get(name["prefix"], ())


@check(Severity.WARNING)
def network_agent_dead(host: Host) -> Problems:
    """neutron hears nothing more of the agent that wires the guests of this host.

    The packets of the guests that run go on, since Open vSwitch keeps its flows. But nothing new
    gets through: neutron binds no port to this host any more (`binding_failed`), so whatever is
    started, moved or plugged in here fails or has no network, and changes of security groups and
    addresses do not arrive.

    Authority: the host for whether the agent runs; neutron for what is bound.

    Traps: neutron counts by the clock of its own server; agents of DHCP and routers, which wire no
    guest; the record of an agent that another kind, or another installation, has followed: one that
    lives is enough.

    Next: `openstack network agent list --host HOST --long`, `systemctl status
    neutron-openvswitch-agent`, its log, and whether the host reaches the message queue. Then start
    it: it leaves what is wired as it is.

    Not yet: `openstack server reboot --hard`, migrating to this host, plugging in ports: each wants
    a binding.

    Source: neutron db/agents_db.py `is_agent_down`; neutron ml2 mech_agent.py `bind_port`.
    """
    if host.ports.agents is None:
        raise UnheardError("neutron API: it did not show its agents")
    wiring = [
        agent
        for agent in host.ports.agents.values()
        if agent.kind in WIRING and agent.host == host.nova_name
    ]
    if any(agent.alive for agent in wiring):
        return
    guests = sum(guest.process is not None for guest in host.guests if guest.is_here)
    for agent in wiring:
        said = says(agent, kind=agent.kind, alive=False, heartbeat=agent.heartbeat)
        yield (said.and_so(host=agent.host, running_guests=guests),)
