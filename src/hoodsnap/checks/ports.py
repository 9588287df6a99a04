"""neutron's ports of a guest, nova's info cache of them, and the network cards the guest has."""

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
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import Interface
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.tap import NAME

BOUND_OTHERWISE = frozenset(["remote-managed", "baremetal", "smart-nic"])
"""VNIC types whose ports are bound to the name of a card or of an Ironic node, not to the host name
of nova-compute."""


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, migrating])
def port_bound_elsewhere(
    guest: Guest, record: Server | Instance, ports: tuple[Port, ...]
) -> Problems:
    """neutron has the guest's port bound to another host than nova has the server on.

    The other host's agent wires the port, and this host's agent does not. The guest is unreachable
    now or will be soon. Causes: a migration or an evacuation that stopped half way, a changed host
    name. The names must match exactly. An inactive binding that was left behind (a warning) makes
    the next live migration to that host fail.

    Authority: nova, for the server's host, once the guest is confirmed to run there; neutron, for
    the binding.

    Traps: During a migration the port is bound to two hosts. Ports of a card that does the
    switching itself, and ports of Ironic's nodes, are bound to the card or node.

    Next: Check the binding, nova's host, and on which host the guest runs:

        openstack port show PORT -c binding_host_id -c binding_vif_type
        openstack server show UUID -c OS-EXT-SRV-ATTR:host
        virsh domstate NAME

    Then bind the port to the guest's host, which interrupts its network for a moment:

        openstack port set --host HOST PORT

    Not yet: Do not run `openstack port set --host` before it is confirmed that the guest runs
    nowhere else. Do not run `openstack server reboot --hard`.

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
    """True on nova's host; on no captured host, true unless nova has the server on no host."""
    return guest.is_here if guest.host is not None else not guest.is_nowhere


def _tap_of(guest: Guest, port: Port) -> Iterator[Evidence]:
    for tap in guest.taps or ():
        if tap.prefix == port.id[:PREFIX] and tap.is_there:
            yield says(tap, name=tap.name)


def _left_bindings(port: Port) -> str:
    try:
        found = [bound for bound in port.bindings if bound.status == "INACTIVE"]
    except UnheardError:  # releases before Pike have only one binding
        return ""
    return ", ".join(f"{bound.status} on {bound.host}" for bound in found)


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, migrating])
def port_binding_bad(
    guest: Guest, instance: Instance | None, ports: tuple[Port, ...] | None
) -> Problems:
    """A port of the guest has no valid binding or is down, so no traffic passes.

    `binding_failed` means that neutron found no way to bind the port: no agent on that host was
    alive, or its bridge mappings lack the network. nova keeps the failed binding in its info cache,
    and a restart of nova-compute then puts the server into error. A port that is down although its
    guest runs was bound but not wired by the agent. A port that is administratively down
    (`admin_state_up`) is a warning.

    Authority: neutron.

    Traps: An agent that was just restarted wires its ports one after the other. Guests that are
    off. The ports of passed-through cards follow the cable.

    Next: Check the port, whether the agent is alive, and whether it has the bridge mapping; AGENT
    is the agent's id:

        openstack port show PORT
        openstack network agent list --host HOST
        openstack network agent show AGENT

    Then, if the agent is alive, bind the port again:

        openstack port set --host HOST PORT

    If the port is administratively down, enable it:

        openstack port set --enable PORT

    Not yet: Do not restart nova-compute while the info cache contains binding_failed.

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
    for vif in instance.network_info if instance is not None else ():
        if vif.type in NOT_BOUND and vif.id not in unbound:
            assert instance is not None  # noqa: S101 (else it has none)
            yield (says(instance, network_info=f"{vif.id}: {vif.type}"),)
    if ports is None:
        raise UnheardError(guest.unheard["neutron"])


def _should_be_wired(port: Port) -> bool:
    return port.admin_state_up and not passed_through(port) and not just_changed(port)


def _running(guest: Guest) -> Evidence | None:
    """Evidence that the guest is switched on; None if it is off."""
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
    """nova's info cache lacks ports of the guest; its next start may be without network.

    nova builds the domain from this cache, not from neutron. Ports are lost from it when neutron
    returns an incomplete list at the wrong moment. Up to 2024.2, nova-compute repairs the cache
    within a few minutes, one guest a minute. Since 2025.1 it does not, unless
    `heal_instance_info_cache_interval` is set. Differing addresses and ports that no longer exist
    are a warning.

    Authority: neutron.

    Traps: Servers that are being built. Ports that were just attached. A shelved server keeps its
    ports and its cache.

    Next: Compare both sides; if nova repairs the cache, look again a few minutes later:

        openstack port list --server UUID --long
        openstack server show UUID -c addresses

    Then, if the cache is still wrong and no port is in binding_failed, set
    `heal_instance_info_cache_interval = 60` in nova.conf, and restart nova-compute. Attaching
    another port does not bring back the ports that are missing.

    Not yet: Do not run `openstack server reboot --hard`, or `stop` and `start`: the guest would
    come back without network cards.

    Source: nova network/neutron.py `_build_network_info_model`, compute/manager.py
    `_heal_instance_info_cache`; nova bugs 1751923, 1996094, 2089225, 2080531.
    """
    if instance.deleted or not (guest.host is None or guest.is_here):
        return
    noted = {vif.id: vif for vif in instance.network_info}
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
                says(instance, network_info=f"{uuid}: {addresses}"),
                says(port, addresses=", ".join(port.addresses) or None),
            )
            yield Problem(Severity.WARNING, evidence)
        # port-guest-mismatch reports it if the running guest still has the card.
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
    """The guest's network cards do not match neutron's ports for it.

    A card without a port is cut off, or uses an address that neutron gives to another port. A port
    without a card (a warning) is an address that the guest does not have. Causes: a port was
    deleted while in use, the guest did not release its card, an attachment stopped half way.
    Leftover ports of a deleted server are a warning.

    Authority: libvirt, for the cards; neutron, for the ports.

    Traps: Cards that were just attached. A trunk's subports have no card of their own.
    Passed-through cards are no interface of the domain.

    Next: Compare both sides:

        openstack port list --server UUID --long
        virsh domiflist NAME

    Then attach a port that the guest lacks. Where a port exists that the guest should not have,
    remove it, which also deletes it if nova created it:

        openstack server add port UUID PORT
        openstack server remove port UUID PORT

    A port of a deleted server may be deleted if nova created it.

    Not yet: Do not run `openstack port delete` while a running guest has the card. Do not run
    `openstack server reboot --hard`, which writes the cards again from nova's info cache.

    Source: nova network/neutron.py `deallocate_for_instance`, virt/libvirt/driver.py
    `detach_interface`, compute/manager.py `_process_instance_vif_deleted_event`.
    """
    if domain is None:
        yield from _of_a_deleted_server(guest, ports)
        return
    if not guest.is_here or guest.record is None or guest.record.deleted or domain.state not in ON:
        return
    # A card without an address could belong to any port.
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
        raise UnheardError("a network card's address was not collected")
    for port in ports:
        if not passed_through(port) and not any(_fits(card, port) for card in cards):
            evidence = (
                says(port, id=port.id, mac=port.mac),
                says(domain, macs=", ".join(domain.macs) or None),
            )
            yield Problem(Severity.WARNING, evidence)


def _of_a_deleted_server(guest: Guest, ports: tuple[Port, ...]) -> Problems:
    """Report ports still bound to this host whose server is deleted or unknown to nova."""
    bound = [port for port in ports if guest.host is not None and port.host == guest.host.nova_name]
    if not bound or (guest.record is not None and not guest.record.deleted):
        return
    if isinstance(guest.instance, Instance):
        nova = says(guest.instance, deleted_at=guest.instance.deleted_at)
    elif "nova-db" in guest.census:
        nova = hears(guest.census["nova-db"], "nova-db", guest.uuid, record=None)
    else:
        raise UnheardError(guest.unheard.get("nova-db", "the nova database was not collected"))
    for port in bound:
        evidence = (nova, says(port, id=port.id, device_id=port.device_id, host=port.host))
        yield Problem(Severity.WARNING, evidence)


def _fits(card: Interface, port: Port) -> bool:
    name = NAME.fullmatch(card.target or "")
    return card.mac == port.mac or (name is not None and name["prefix"] == port.id[:PREFIX])


def _known(guest: Guest, card: Interface) -> Iterable[Port]:
    """Return the ports that the card is named after, of any server."""
    name = NAME.fullmatch(card.target or "")
    if name is None or guest.host is None:
        return ()
    return guest.host.ports.by_prefix.get(name["prefix"], ())


@check(Severity.WARNING)
def network_agent_dead(host: Host, cloud: Cloud) -> Problems:
    """neutron reports the agent that wires this host's guests as down.

    Running guests keep their connections because Open vSwitch keeps its flows. But neutron binds no
    port to this host any more (`binding_failed`): whatever is started, moved or attached here fails
    or has no network, and changes to security groups and addresses do not arrive.

    Authority: The host, for whether the agent runs; neutron, for what is bound.

    Traps: neutron uses the clock of its own server. Agents of DHCP and routers wire no guests. An
    agent of another kind or installation may have replaced this one and left its record behind: one
    live agent is enough.

    Next: Check the agent in neutron and on the host, and look in its log whether it reaches the
    message queue:

        openstack network agent list --host HOST --long
        systemctl status neutron-openvswitch-agent
        journalctl -u neutron-openvswitch-agent -n 50

    Then start the agent, which leaves existing wiring as it is:

        systemctl start neutron-openvswitch-agent

    Not yet: Do not run `openstack server reboot --hard`. Do not migrate to this host or attach
    ports. Each needs a new binding.

    Source: neutron db/agents_db.py `is_agent_down`; neutron ml2 mech_agent.py `bind_port`.
    """
    if host.ports.agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    wiring = [
        agent
        for agent in host.ports.agents.values()
        if agent.kind in WIRING and agent.host == host.nova_name
    ]
    if any(agent.alive for agent in wiring):
        return
    guests = sum(guest.process is not None for guest in cloud.guests_of(host) if guest.is_here)
    for agent in wiring:
        said = says(agent, kind=agent.kind, alive=False, heartbeat=agent.heartbeat)
        yield (said.and_so(host=agent.host, running_guests=guests),)
