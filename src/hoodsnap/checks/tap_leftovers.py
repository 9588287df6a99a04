"""Taps and ports of Open vSwitch that are left over from guests."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.tap import NAME, Tap
from hoodsnap.phrase import several

MANY = 3
"""Stale rows of Open vSwitch from which on they are one finding; evidence quotes so many."""


@check(Severity.WARNING)
def tap_orphan(host: Host) -> Problems:
    """A tap or an Open vSwitch port is left over from a guest that is no longer on this host.

    If it has the id of an existing port, the agent may wire it instead of the right one, and a
    leftover with a bridge of its own keeps the guest's filters in place. A row of Open vSwitch
    without its device does little harm, but the switch and its agent try to open each of them again
    and again: hundreds stall ovs-vswitchd and ovn-controller. It is left behind when a guest is
    deleted or moved while nova-compute or libvirt is down, and when a host is rebooted.

    Authority: libvirt and the kernel, for what uses it; neutron, for which server it belongs to.

    Traps: The taps of DHCP and routers belong to neutron. An incoming live migration has its tap
    before its domain exists. Guests that are off keep their Open vSwitch port. neutron may have
    deleted the port just after the taps were collected.

    Next: Check the port in Open vSwitch and in neutron, and whether a process uses the tap:

        ovs-vsctl --columns=name,ofport,error,external_ids list Interface
        openstack port show PORT
        grep -l TAP /proc/*/fdinfo/*

    If no process uses it, and the port's guest is confirmed to run on another host or nowhere,
    remove it from Open vSwitch:

        ovs-vsctl --if-exists del-port TAP

    Then remove the device itself, if it exists:

        ip link delete DEVICE

    It worked if the device does not exist, and Open vSwitch does not list it:

        ip link show TAP
        ovs-vsctl --columns=name,ofport,error,external_ids list Interface

    Not yet: Do not delete it before the port's guest is confirmed to run on another host, or
    nowhere.

    Source: os-vif vif_plug_ovs `unplug`; nova virt/libvirt/driver.py `unplug_vifs`.
    """
    for layer in ("libvirt", "kernel", "network"):
        if layer in host.unheard:
            raise UnheardError(host.unheard[layer])
    left = {prefix: tap for prefix, tap in host.network.taps.items() if _may_be_guests(host, tap)}
    if not left:
        return
    # Read all possible users only if there are candidates.
    used = {name for process in host.processes.own.values() for name in process.taps}
    used |= {name for domain in host.domains.values() for name in _targets(domain)}
    prefixes = {found["prefix"] for name in used if (found := NAME.fullmatch(name))}
    listing = host.ports.of_host(host.nova_name)
    stale: list[tuple[Tap, Problem]] = []
    for prefix, tap in left.items():
        if prefix in prefixes or prefix in host.ports.went:
            continue
        if listing is None:
            raise UnheardError(host.ports.silence)
        ports = host.ports.by_prefix.get(prefix, ())
        if not any(_is_expected(host, port) for port in ports):
            none = hears(listing, "neutron", tap.name, port=None)
            bound = [says(port, id=port.id, host=port.host) for port in ports]
            has = "which neutron has no port for"
            if ports:
                has = f"whose {ports[0].title} is bound to {ports[0].host or 'no host'}"
            still = f"Host {host.name} still has {tap.name}"
            if not tap.is_there and not tap.links:
                still = f"Open vSwitch on host {host.name} still has {tap.name} without a device"
            left_over = problem(
                f"{still}, {has}",
                _left(tap),
                *(bound or [none]),
                TAP=tap.name,
                DEVICE=tap.name if tap.is_there else "",
                PORT=ports[0].id if ports else known(lambda: tap.iface_id),  # noqa: B023
            )
            if ports or tap.links:
                yield left_over
            else:
                stale.append((tap, left_over))
    if len(stale) > MANY:
        yield _stalled(host, [tap for tap, _ in stale], listing)
    else:
        yield from (left_over for _, left_over in stale)


def _stalled(host: Host, taps: list[Tap], listing: Answer | None) -> Problem:
    """Report many rows of Open vSwitch that have neither a device nor a port, as one problem."""
    names = several(tap.name for tap in taps)
    found = [_left(tap) for tap in taps[:MANY]]
    found[0] = found[0].and_so(of_so_many=len(taps))
    none = [hears(listing, "neutron", taps[0].name, port=None)] if listing is not None else []
    return problem(
        f"Open vSwitch on host {host.name} has {len(taps)} ports without a device and neutron "
        f"port: {names}",
        *found,
        *none,
        TAP=taps[0].name,
        DEVICE="",
        PORT=known(lambda: taps[0].iface_id),
    )


def _may_be_guests(host: Host, tap: Tap) -> bool:
    """True unless it is neutron's own device, which has no vm-uuid or is a veth pair."""
    if host.network.switch_listing is not None and tap.is_switched:
        return tap.vm_uuid is not None
    return not tap.is_there or tap.kind == "tun"


def _targets(domain: Domain) -> Iterator[str]:
    try:
        yield from domain.taps
    except UnheardError:
        # A domain that is off only has the definition of its next start.
        yield from (card.target for card in domain.inactive.interfaces if card.target)


def _is_expected(host: Host, port: Port) -> bool:
    """True if the port is bound here or has a second binding here because its guest is coming."""
    if port.host == host.nova_name:
        return True
    try:
        return any(bound.host == host.nova_name for bound in port.bindings)
    except UnheardError:
        return False


def _left(tap: Tap) -> Evidence:
    if tap.is_there:
        return says(tap, name=tap.name, up=tap.up)
    names = ", ".join(f"{kind}{tap.prefix}" for kind in sorted(tap.links))
    if names:
        return says(tap, name=names)
    return says(tap, name=tap.name, ofport=tap.ofport, error=tap.error)
