"""neutron's ports of a guest, nova's info cache of them, and the network cards the guest has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.port_addresses import lost
from hoodsnap.checks.traps import (
    building,
    just_changed,
    migrating,
    never_launched,
    passed_through,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.checks.unattached_ports import never_attached
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.agent import WIRING
from hoodsnap.facts.api.port import NOT_BOUND, PREFIX, Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import Interface
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, known, text
from hoodsnap.facts.host.tap import NAME, Tap
from hoodsnap.phrase import brief, counted, several

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
    name. The names must match exactly.

    Authority: nova, for the server's host, once the guest is confirmed to run there; neutron, for
    the binding.

    Traps: During a migration the port is bound to two hosts. Ports of a card that does the
    switching itself, and ports of Ironic's nodes, are bound to the card or node.

    Next: Check the binding, nova's host, and on which host the guest runs:

        openstack port show PORT -c binding_host_id -c binding_vif_type
        openstack server show UUID -c OS-EXT-SRV-ATTR:host
        virsh domstate NAME

    If the guest runs on nova's host and nowhere else, bind the port to that host, which interrupts
    the guest's network for a moment:

        openstack port set --host HOST PORT

    It worked if the port is bound to that host and its status is ACTIVE:

        openstack port show PORT -c binding_host_id -c binding_vif_type -c status

    Not yet: Do not bind the port before it is confirmed that the guest runs nowhere else. Do not
    run `openstack server reboot --hard`.

    Source: nova network/neutron.py `setup_instance_network_on_host`; neutron port bindings; nova
    bugs 1784579, 1809136, 1659062.
    """
    if record.deleted or not _judged_here(guest):
        return
    for port in ports:
        if port.vnic_type in BOUND_OTHERWISE:
            continue
        if port.host is not None and port.host != guest.host_name:
            yield problem(
                f"neutron has {guest.title}'s {port.title} bound to {port.host}, but nova has "
                f"{guest.title} on {guest.host_name or 'no host'}",
                says(record, host=record.host),
                says(port, id=port.id, host=port.host),
                *_tap_of(guest, port),
                PORT=port.id,
                HOST=guest.host_name,
            )
        elif (other := _active_elsewhere(port)) is not None:
            yield problem(
                f"neutron has {guest.title}'s {port.title} bound to {port.host}, but its active "
                f"binding is for {other}",
                says(port, id=port.id, host=port.host),
                says(port, id=port.id, bindings=f"ACTIVE on {other}"),
                severity=Severity.WARNING,
                PORT=port.id,
                HOST=guest.host_name,
            )


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched, migrating])
def port_binding_left(guest: Guest, record: Server | Instance, ports: tuple[Port, ...]) -> Problems:
    """neutron still has an inactive binding of the guest's port to another host.

    A live migration binds the port to its destination before it begins, and removes one of the two
    bindings at its end. A migration that was cut off leaves a binding. The guest's network works,
    but the next live migration to that host fails (HTTP 409).

    Authority: nova, for whether the server is being migrated.

    Traps: During a migration the port is bound to two hosts. Ports of a card that does the
    switching itself, and ports of Ironic's nodes, are bound to the card or node.

    Next: Check that no migration of the server runs, and which bindings the port has; neutron's
    address is the URL of the network service:

        openstack server migration list --server UUID
        openstack catalog show network
        token=$(openstack token issue -f value -c id)
        curl -s -H "X-Auth-Token: $token" NEUTRON/v2.0/ports/PORT/bindings

    Then delete the inactive binding, which changes nothing for the guest; the openstack command has
    no subcommand for it:

        curl -X DELETE -H "X-Auth-Token: $token" NEUTRON/v2.0/ports/PORT/bindings/LEFT_HOST

    If the port's profile still names the destination (migrating_to), remove that, too. nova looks
    there for where the server goes:

        openstack port unset --binding-profile migrating_to MARKED_PORT

    It worked if the port has only the binding to the server's host, without migrating_to:

        curl -s -H "X-Auth-Token: $token" NEUTRON/v2.0/ports/PORT/bindings

    Not yet: Do not delete the active binding, and do not delete the port. Do not bind the port to
    its host again: that keeps the inactive binding.

    Source: neutron API, port bindings extended; nova network/neutron.py `delete_port_binding`; nova
    bugs 1784579, 1809136.
    """
    if record.deleted or not _judged_here(guest):
        return
    for port in ports:
        if port.vnic_type in BOUND_OTHERWISE or port.host not in (None, guest.host_name):
            continue  # port-bound-elsewhere reports a port that is bound to another host
        for host in _left_bindings(port):
            said = says(port, id=port.id, bindings=f"INACTIVE on {host}")
            marked = known(lambda port=port: port.migrating_to)  # type: ignore[misc]
            also = "; its profile still names a migration to there" if marked == host else ""
            if marked:
                said = says(port, id=port.id, bindings=f"INACTIVE on {host}", migrating_to=marked)
            yield problem(
                f"neutron still has a binding of {guest.title}'s {port.title}: INACTIVE on {host}"
                f"{also}",
                says(record, host=record.host),
                said,
                PORT=port.id,
                MARKED_PORT=port.id if marked else "",
                LEFT_HOST=host,
            )


def _judged_here(guest: Guest) -> bool:
    """True on nova's host; on no captured host, true unless nova has the server on no host."""
    return guest.is_here if guest.host is not None else not guest.is_nowhere


def _tap_of(guest: Guest, port: Port) -> Iterator[Evidence]:
    for tap in guest.taps or ():
        if tap.prefix == port.id[:PREFIX] and tap.is_there:
            yield says(tap, name=tap.name)


def _active_elsewhere(port: Port) -> str | None:
    """Return the host of the active binding if the port itself names another one."""
    active = [
        bound.host for bound in known(lambda: port.bindings) or () if bound.status == "ACTIVE"
    ]
    return active[0] if port.host and len(active) == 1 and active[0] != port.host else None


def _left_bindings(port: Port) -> tuple[str, ...]:
    """Return the hosts of a port's inactive bindings."""
    try:
        return tuple(str(bound.host) for bound in port.bindings if bound.status == "INACTIVE")
    except UnheardError:  # releases before Pike have only one binding
        return ()


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, migrating])
def port_binding_bad(
    guest: Guest, instance: Instance | None, ports: tuple[Port, ...] | None
) -> Problems:
    """A port of the guest has no valid binding, is disabled, or is not ACTIVE in neutron.

    Traffic passes only a port that is wired and not administratively down (`admin_state_up`; a
    warning). On a port that is not bound, a guest that runs may keep its network until its next
    start or move, or until the agent wires the host's ports again; after that it has none.
    `binding_failed` means that neutron found no way to bind the port: no agent on that host was
    alive, or its bridge mappings lack the network. nova keeps the failed binding in its info cache,
    and a restart of nova-compute then puts the server into error. A port that is down or in BUILD
    although its guest runs was bound, but the agent did not report it as wired. If it is wired (a
    warning), its guest has its network, but neutron does not tell hosts with tunnels where it is.

    Authority: neutron.

    Traps: An agent that was just restarted wires its ports one after the other. Guests that are
    off. The ports of passed-through cards follow the cable.

    Next: Check the port, whether the agent is alive, and whether it has the bridge mapping:

        openstack port show PORT
        openstack network agent list --host HOST
        openstack network agent show AGENT

    If the port is administratively down and nobody did that on purpose, enable it, which connects
    the guest to its network:

        openstack port set --enable DISABLED_PORT

    If the port is not bound, and the agent is alive, bind the port again:

        openstack network agent show AGENT -c alive -c configuration
        openstack port set --host HOST UNBOUND_PORT

    If the port is DOWN or BUILD although its tap is wired (with a VLAN and rules, as the others),
    neutron missed the report of the agent. Compare the tap with the others, and restart the agent,
    which wires and reports all its ports again; guests keep their connections meanwhile:

        ovs-vsctl --columns=name,tag,other_config list Port
        systemctl restart REWIRING

    If the port is bound and DOWN although the agent is alive, the agent has removed its wiring.
    Enabling or binding the port again does not bring it back. Compare the interface with the
    port's id, and check the agent:

        ovs-vsctl --columns=name,ofport,error,external_ids list Interface UNWIRED
        openstack network agent show WIRING_AGENT -c alive -c configuration

    Then, once the server's volumes and ports are confirmed to be right, plug the port in again: a
    hard reboot does so, which switches the guest off and on:

        openstack server volume list GUEST
        openstack port list --server GUEST
        openstack server reboot --hard GUEST

    It worked if the port is up, bound and ACTIVE:

        openstack port show PORT -c admin_state_up -c binding_vif_type -c status

    Not yet: Do not restart nova-compute while the info cache contains binding_failed.

    Source: neutron ml2 `_bind_port_if_needed`; nova compute/manager.py `_init_instance`; nova bugs
    1784579, 1809136.
    """
    if not guest.is_here:
        return
    unbound = set()
    for port in ports or ():
        if never_attached(guest, port):
            unbound.add(port.id)  # port-never-attached reports it
        elif port.vif_type in NOT_BOUND:
            unbound.add(port.id)
            state = says(port, id=port.id, vif_type=port.vif_type, host=port.host)
            headline = f"{guest.title}'s {port.title} is not bound: {port.vif_type} on {port.host}"
            yield problem(headline, state, **_bind_again(guest, port.id))
        elif not port.admin_state_up and (running := _running(guest)):
            state = says(port, id=port.id, admin_state_up=False)
            headline = f"{guest.title}'s {port.title} is disabled (admin_state_up = False)"
            severity = Severity.WARNING
            words = {**_NONE, "DISABLED_PORT": port.id}
            yield problem(headline, state, running, severity=severity, PORT=port.id, **words)
        elif _should_be_wired(port) and port.status in UNWIRED and (running := _running(guest)):
            yield _not_reported(guest, port, running)
    for vif in instance.network_info if instance is not None else ():
        if vif.type in NOT_BOUND and vif.id not in unbound:
            assert instance is not None  # noqa: S101 (else it has none)
            cached = says(instance, network_info=f"{vif.id}: {vif.type}")
            headline = f"nova's info cache has {guest.title}'s port {brief(vif.id)} as {vif.type}"
            yield problem(headline, cached, **_bind_again(guest, vif.id))
    if ports is None:
        raise UnheardError(guest.unheard["neutron"])


UNWIRED = frozenset(["DOWN", "BUILD"])
"""Statuses of a port that its agent has not reported as wired. `BUILD`: the agent has asked for the
port's details, and did not come to its report."""


def _not_reported(guest: Guest, port: Port, running: Evidence) -> Problem:
    """Return the problem of a running guest's port that neutron does not have as wired."""
    state = says(port, id=port.id, status=port.status, host=port.host)
    tap = _wired_tap(guest, port)
    agent = _agent_of(guest)
    if tap is None and port.status == "DOWN":
        headline = f"{guest.title}'s {port.title} is DOWN in neutron, but the guest runs"
        words = {**_NONE, "GUEST": guest.uuid, "WIRING_AGENT": agent, "UNWIRED": port.tap}
        return problem(headline, state, running, PORT=port.id, **words)
    wired = [says(tap, name=tap.name, tag=tap.tag, ofport=tap.ofport)] if tap is not None else []
    what = f"its tap {tap.name} is wired" if tap is not None else "the guest runs"
    return problem(
        f"{guest.title}'s {port.title} is {port.status} in neutron, but {what}",
        state,
        *(wired or [running]),
        severity=Severity.WARNING if tap is not None else None,
        PORT=port.id,
        **{**_NONE, "AGENT": agent, "REWIRING": "neutron-openvswitch-agent"},
    )


def _wired_tap(guest: Guest, port: Port) -> Tap | None:
    """Return the port's tap if neutron's Open vSwitch agent has wired it: with its port's id, in a
    VLAN, and with rules."""
    host = guest.host
    for tap in known(lambda: guest.taps) or ():
        if tap.prefix != port.id[:PREFIX] or host is None:
            continue
        number = known(lambda: tap.ofport or -1)  # noqa: B023
        flows = host.network.flows.get(number or -1)
        has_rules = flows is not None and bool(flows.tables)
        has_tag = known(lambda: tap.tag is not None and not tap.is_dead)  # noqa: B023
        is_on = known(lambda: tap.is_there and tap.up and not tap.error)  # noqa: B023
        is_its = known(lambda: (tap.iface_id or "").lower() == port.id)  # noqa: B023
        if has_rules and has_tag and is_on and is_its:
            return tap
    return None


_NONE: Mapping[str, Any] = {
    "AGENT": "",
    "REWIRING": "",
    "WIRING_AGENT": "",
    "UNWIRED": "",
    "DISABLED_PORT": "",
    "UNBOUND_PORT": "",
    "GUEST": "",
}
"""Placeholders of the steps that do not apply to a problem."""


def _bind_again(guest: Guest, port: str) -> dict[str, Any]:
    return {**_NONE, "PORT": port, "UNBOUND_PORT": port, "AGENT": _agent_of(guest)}


def _agent_of(guest: Guest) -> str | None:
    """Return the id of the agent that wires the ports of the guest's host; None if unknown."""
    host = guest.host
    if host is None:
        return None
    wiring = known(
        lambda: [
            uuid
            for uuid, agent in (host.ports.agents or {}).items()
            if agent.kind in WIRING and agent.host == host.nova_name
        ]
    )
    return wiring[0] if wiring else None


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

    Attaching another port does not bring back the ports that are missing. If the cache is still
    wrong and no port is in binding_failed, set `heal_instance_info_cache_interval = 60` in
    nova.conf on the server's host. Then restart nova-compute there, which interrupts its tasks:

        systemctl restart nova-compute

    It worked if nova lists the addresses of all ports a few minutes later:

        openstack server show UUID -c addresses

    Not yet: Do not run `openstack server reboot --hard`, or `stop` and `start`: the guest would
    come back without network cards.

    Source: nova network/neutron.py `_build_network_info_model`, compute/manager.py
    `_heal_instance_info_cache`; nova bugs 1751923, 1996094, 2089225, 2080531.
    """
    if instance.deleted or not (guest.host is None or guest.is_here):
        return
    noted = {vif.id: vif for vif in instance.network_info}
    missing = [port for port in ports if port.id not in noted and not never_attached(guest, port)]
    if missing:
        names = several(port.title.removeprefix("port ") for port in missing)
        yield problem(
            f"nova's info cache of {guest.title} lacks {len(missing)} of "
            f"{counted(len(ports), 'port')}: {names}",
            says(instance, cached_ports=", ".join(noted) or None),
            *(says(port, id=port.id, device_id=port.device_id) for port in missing),
            PORT=missing[0].id,
        )
    known = {port.id: port for port in ports}
    for uuid, vif in noted.items():
        port = known.get(uuid)
        # port-address-lost reports an address that neutron has lost.
        if (
            port is not None
            and set(port.addresses) != set(vif.addresses)
            and not lost(instance, port)
        ):
            addresses = ", ".join(vif.addresses) or None
            yield problem(
                f"{guest.title}'s port {brief(uuid)} has {several(vif.addresses) or 'no address'} "
                f"in nova's info cache, but {several(port.addresses) or 'none'} in neutron",
                says(instance, network_info=f"{uuid}: {addresses}"),
                says(port, addresses=", ".join(port.addresses) or None),
                severity=Severity.WARNING,
                PORT=uuid,
            )
        # port-guest-mismatch reports it if the running guest still has the card.
        elif port is None and not _running(guest):
            answer = guest.census["neutron"]
            gone = hears(answer, "neutron", uuid, port=None)
            cached = says(instance, cached_ports=uuid)
            headline = f"{guest.title} has port {brief(uuid)} in nova's info cache, not in neutron"
            yield problem(headline, cached, gone, severity=Severity.WARNING, PORT=uuid)


@check(
    Severity.ERROR,
    heard=["libvirt"],
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def port_guest_mismatch(
    guest: Guest, cloud: Cloud, domain: Domain | None, ports: tuple[Port, ...]
) -> Problems:
    """The guest's network cards do not match neutron's ports for it.

    A card without a port is cut off, or uses an address that neutron gives to another port. A port
    without a card is an address that the guest does not have (a warning, if it has other cards).
    Causes: a port was deleted while in use, the guest did not release its card, an attachment
    stopped half way.

    Authority: libvirt, for the cards; neutron, for the ports.

    Traps: Cards that were just attached. A trunk's subports have no card of their own.
    Passed-through cards are no interface of the domain.

    Next: Compare both sides:

        openstack port list --server UUID --long
        virsh domiflist NAME

    If the guest has the card of a port that is not its own any more, remove the port from the
    server, which takes the card from the guest, and deletes the port if nova created it:

        openstack server remove port UUID LOST_PORT

    If the card was added by hand (`virsh attach-interface`), no security group filters it, and the
    list shows its bridge. Find out who added it, and whether the guest uses it. If nobody needs it,
    take it from the running guest. A guest whose system does not release the card keeps it until
    the server is stopped and started:

        virsh detach-interface NAME ADDED_TYPE --mac ADDED_MAC --live

    If the server should have a port for which the guest has no card, check that nova lists the
    port's address. Then stop and start the server at a time that suits its owner: nova plugs a card
    for each port that it lists. `openstack server add port` is refused, because the port already
    names this server:

        openstack server show RESTARTED -c addresses
        openstack server stop RESTARTED
        openstack server start RESTARTED

    It worked if the addresses of the cards are those of the ports:

        virsh domiflist NAME
        openstack port list --server UUID --long

    Not yet: Do not run `openstack port delete` while a running guest has the card. Do not run
    `openstack server reboot --hard` before nova's list of the server's ports is confirmed to be
    right: it writes the cards again from that list.

    Source: nova virt/libvirt/driver.py `detach_interface`, compute/manager.py
    `_process_instance_vif_deleted_event`.
    """
    if domain is None:
        return
    if not guest.is_here or guest.record is None or guest.record.deleted or domain.state not in ON:
        return
    # A card without an address could belong to any port.
    cards = [card for card in domain.xml.interfaces if card.mac is not None]
    for card in cards:
        if not any(fits(card, port) for port in ports):
            others = [*_named_after(guest, card)]
            added = False if others else _is_added(guest, card)
            answer = guest.census["neutron"]
            none = hears(answer, "neutron", guest.uuid, port=None)
            has = "neutron has no port for it"
            on = f" on {card.type} {card.source}" if added is not False and card.source else ""
            if others:
                owner = others[0].device_id
                has = (
                    f"its {others[0].title} belongs to {cloud.title_of(owner) if owner else 'none'}"
                )
                if owner == guest.uuid:
                    continue  # port-owner-lost reports it: the port is this server's
            yield problem(
                f"{guest.title} runs with card {card.target or card.type} ({card.mac}){on}, but "
                f"{has}",
                says(domain, interfaces=f"{card.target or card.type} {card.mac}"),
                *([says(it, id=it.id, device_id=it.device_id) for it in others] or [none]),
                LOST_PORT=others[0].id if others else "" if added else _cached_port(guest, card),
                ADDED_TYPE="" if added is False else card.type,
                ADDED_MAC="" if added is False else card.mac,
                RESTARTED="",
            )
    if len(cards) < len(domain.xml.interfaces):
        raise UnheardError("a network card's address was not collected")
    for port in ports:
        if passed_through(port) or never_attached(guest, port):
            continue
        if not any(fits(card, port) for card in cards):
            yield problem(
                f"{guest.title} runs without a card for its {port.title} with MAC {port.mac}",
                says(port, id=port.id, mac=port.mac),
                says(domain, macs=", ".join(domain.macs) or None),
                severity=Severity.WARNING if domain.xml.interfaces else Severity.ERROR,
                LOST_PORT="",
                ADDED_TYPE="",
                ADDED_MAC="",
                RESTARTED=guest.uuid,
            )


@check(
    Severity.WARNING,
    heard=["neutron"],
    traps=[task_in_flight, building, never_launched, migrating],
)
def port_owner_lost(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """A port of the server has no device_owner, or another one than a server's.

    neutron reports to nova that a port is wired only if its `device_owner` is a server's. The next
    start, hard reboot or live migration of the server waits for that report until it fails. Until
    then the guest and its network go on, because nova finds the ports of a server by `device_id`
    alone. Scripts that delete unused ports may find the port. Causes: a detach or a move that
    failed half way, or a change by hand.

    Authority: nova's info cache and the guest's cards, for whose port it is.

    Traps: A trunk's subports and ports of neutron itself have owners of their own. Ironic changes
    the owner of its nodes' ports. A port that was just changed. A port that only names the server,
    which neither the cache nor a card has, was made for it by hand and may not be attached yet.

    Next: Check the port, and that the guest has its card:

        openstack port show PORT -c device_id -c device_owner
        openstack port list --server UUID --long
        virsh domiflist NAME

    Then write the owner back, with the zone of the server. The guest's connections go on:

        openstack port set --device-owner compute:ZONE PORT

    It worked if device_id and device_owner name the server and its zone:

        openstack port show PORT -c device_id -c device_owner

    Not yet: Do not run `openstack server remove port` or `openstack port delete`, which take the
    card from a healthy guest. Do not run `openstack server reboot --hard`, and do not stop or
    migrate the server, before the owner is back.

    Source: neutron notifiers/nova.py `_is_compute_port`; nova network/neutron.py
    `_get_instance_nw_info`, `_update_ports_for_instance`.
    """
    if instance.deleted or not (guest.host is None or guest.is_here):
        return
    mine = cloud.ports.by_other_device.get(guest.uuid, ())
    if not mine:
        return
    cached = {vif.id for vif in known(lambda: instance.network_info) or ()}
    domain = guest.domain
    cards = (known(lambda: domain.xml.interfaces) or ()) if domain is not None else ()
    for port in mine:
        if port.device_owner.startswith(("trunk:", "baremetal:")) or just_changed(port):
            continue
        card = next((card for card in cards if fits(card, port)), None)
        if card is not None and domain is not None:
            has = says(domain, interfaces=f"{card.target or card.type} {card.mac}")
        elif port.id in cached:
            has = says(instance, cached_ports=port.id)
        else:
            continue
        owner = f"has device_owner {port.device_owner}" if port.device_owner else "has no owner"
        yield problem(
            f"{guest.title}'s {port.title} {owner} in neutron: device_owner should be "
            f"compute:{text(instance.raw, 'availability_zone') or 'ZONE'}",
            says(
                port, id=port.id, device_id=port.device_id, device_owner=port.device_owner or None
            ),
            has,
            PORT=port.id,
            ZONE=text(instance.raw, "availability_zone"),
        )


def fits(card: Interface, port: Port) -> bool:
    """True if a card has the port's MAC address, or is named after the port."""
    name = NAME.fullmatch(card.target or "")
    return card.mac == port.mac or (name is not None and name["prefix"] == port.id[:PREFIX])


def _is_added(guest: Guest, card: Interface) -> bool | None:
    """True if somebody else than nova gave the guest the card: it is named after no port, and nova
    has no port with its address. None if it is not known which addresses nova has."""
    if NAME.fullmatch(card.target or "") is not None:
        return False
    macs = _novas_macs(guest)
    return None if macs is None else card.mac not in macs


def _novas_macs(guest: Guest) -> Collection[str] | None:
    """Return the MAC addresses of the server's ports in nova's info cache, which the API shows,
    too; None if neither was collected."""
    instance, server = guest.instance, guest.server
    cached = known(lambda: instance.network_info) if instance is not None else None
    if cached is not None:
        return {vif.mac for vif in cached if vif.mac is not None}
    if server is None:
        return None
    # Without addresses, either the server has none or the API does not report them.
    return known(lambda: server.card_addresses) or (
        () if server.raw.get("addresses") == {} else None
    )


def _cached_port(guest: Guest, card: Interface) -> str | None:
    """Return the id, in nova's info cache, of the port that the card is named after."""
    name, instance = NAME.fullmatch(card.target or ""), guest.instance
    if name is None or instance is None:
        return None
    cached = known(lambda: instance.network_info) or ()
    return next((vif.id for vif in cached if vif.id[:PREFIX] == name["prefix"]), None)


def _named_after(guest: Guest, card: Interface) -> Iterable[Port]:
    """Return the ports that the card is named after, of any server."""
    name = NAME.fullmatch(card.target or "")
    if name is None or guest.host is None:
        return ()
    return guest.host.ports.by_prefix.get(name["prefix"], ())
