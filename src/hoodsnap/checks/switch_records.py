"""Open vSwitch's record of a tap against the kernel's device."""

from __future__ import annotations

from hoodsnap.agreement import Thing, Told, disagreements
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.tap import Tap

KERNEL, SWITCH = "the kernel", "Open vSwitch"


def _up(state: bool | None) -> str | None:
    return None if state is None else "up" if state else "down"


COPIES = (
    Thing(
        "MTU",
        (
            Told("tap", KERNEL, "mtu", lambda tap: tap.mtu),
            Told("tap", SWITCH, "switch_mtu", lambda tap: tap.switch_mtu),
        ),
    ),
    Thing(
        "state",
        (
            Told("tap", KERNEL, "up", lambda tap: _up(tap.up)),
            Told("tap", SWITCH, "switch_up", lambda tap: _up(tap.switch_up)),
        ),
    ),
    Thing(
        "carrier",
        (
            Told("tap", KERNEL, "has_carrier", lambda tap: _up(tap.has_carrier)),
            Told("tap", SWITCH, "switch_carrier", lambda tap: _up(tap.switch_carrier)),
        ),
    ),
)
"""What ovs-vswitchd reads from the kernel and writes into its database."""


@check(Severity.WARNING, traps=[task_in_flight, building, migrating])
def switch_record_outdated(guest: Guest, domain: Domain, taps: tuple[Tap, ...] | None) -> Problems:
    """Open vSwitch reports another state or MTU of a guest's tap than the kernel has.

    ovs-vswitchd watches the kernel's devices and writes each change into its database within a
    second. If the two differ, ovs-vswitchd hangs, or its database is a restored one. It then does
    not notice new taps either, so the next guest that starts has no network.

    Authority: The kernel.

    Traps: A tap that changes while both are asked. With a hybrid bridge per port another device is
    in Open vSwitch, and nothing is compared.

    Next: Compare the tap in both, and check whether ovs-vswitchd answers:

        ip -d link show TAP
        ovs-vsctl --columns=name,admin_state,link_state,mtu,error list Interface TAP
        systemctl status ovs-vswitchd openvswitch-switch
        tail -n 50 /var/log/openvswitch/ovs-vswitchd.log

    If ovs-vswitchd does not answer, find out what it waits for before it is restarted. A restart
    stops the traffic of every guest of the host for seconds.

    Not yet: Do not start or migrate guests to the host. Do not delete the tap or its port.

    Source: Open vSwitch, ovs-vswitchd.conf.db(5), `admin_state`, `link_state`, `mtu`.
    """
    if not guest.is_here or domain.state not in ON:
        return
    reason: UnheardError | None = None
    for tap in taps or ():
        if not tap.is_there:
            continue  # tap-missing-or-miswired reports it
        try:
            for found in disagreements(f"{guest.title}'s tap {tap.name}", COPIES, tap=tap):
                yield problem(found.headline, *found.evidence, TAP=tap.name)
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason
