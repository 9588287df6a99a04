"""Allocations of a compute node in placement, compared with what placement offers of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, derives, says
from hoodsnap.facts.api.allocation import Inventory, Provider, worded
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.quantity import number, whole

RATIOS = {
    "VCPU": "cpu_allocation_ratio",
    "MEMORY_MB": "ram_allocation_ratio",
    "DISK_GB": "disk_allocation_ratio",
}
"""Resource class → option of nova.conf with its allocation ratio. If it is not set, operators set
the ratio in placement."""


class Over(NamedTuple):
    """A resource class of which more is allocated than may be."""

    name: str
    used: int
    inventory: Inventory


@check(Severity.WARNING)
def provider_over_capacity(host: Host) -> Problems:
    """The servers on the host hold more of a resource than placement may allocate there.

    placement allocates up to (total - reserved) × allocation_ratio. The servers keep what they
    have, but no further server is placed on the host, and a resize to a larger flavor on it is
    refused: "No valid host was found". Causes: a ratio that was lowered by hand or by a tool, or a
    larger reserved amount. nova-compute writes a ratio only if nova.conf sets one
    (`cpu_allocation_ratio`, `ram_allocation_ratio`, `disk_allocation_ratio`); the initial ratios of
    nova.conf are used only when the inventory is made. So a wrong ratio stays.

    Authority: placement, for what it allocates; the operator, for the ratio.

    Traps: An operator may lower a ratio on purpose, to fill a host no further. Custom resource
    classes and providers of shared storage are not compared.

    Next: Compare what is used with what is offered, and find out who changed the ratio:

        openstack resource provider usage show PROVIDER
        openstack resource provider inventory list PROVIDER
        grep -E '_allocation_ratio|^reserved_host' /etc/nova/nova*.conf

    If nova.conf sets the ratio, correct it there. If it sets none and the ratio was lowered by
    mistake, set the ratio that it had before in placement, which changes nothing for running guests:

        openstack resource provider inventory set RATIO_PROVIDER --amend --resource RESOURCE:allocation_ratio=RATIO

    If the lower ratio is intended, nothing has to be done; to free the host, migrate servers away.

    It worked if placement offers more than is used:

        openstack resource provider inventory list PROVIDER
        openstack resource provider usage show PROVIDER

    Not yet: Do not delete allocations, and do not run `nova-manage placement heal_allocations`: the
    allocations are right, and without them more servers are placed than the host can carry.

    Source: nova virt/libvirt/driver.py `_get_allocation_ratios`, `update_provider_tree`; placement
    objects/allocation.py `_check_capacity_exceeded`.
    """  # noqa: E501 (a command is one line)
    provider, node = host.provider, host.node
    if provider is None:
        return
    for name, used, inventory in over_capacity(provider):
        option = RATIOS.get(name, "")
        sets = bool(option and host.option("DEFAULT", option))
        own = number(node.raw.get(option)) if node is not None and option else None
        former = own if own and own > inventory.ratio and not sets else None
        names: dict[str, Any] = {"PROVIDER": provider.uuid, "RESOURCE": name}
        names["RATIO_PROVIDER"] = "" if sets else provider.uuid
        names["RATIO"] = f"{former:g}" if former else None
        yield problem(
            f"Servers hold {used} {name} of host {host.nova_name}, but placement offers "
            f"{inventory.capacity:.0f} (ratio {inventory.ratio:g}): no further server is placed "
            "there",
            says(provider, inventories=worded({name: inventory.total})).and_so(
                reserved=inventory.reserved, allocation_ratio=inventory.ratio
            ),
            says(provider, consumers=len(provider.consumers)).and_so(used=worded({name: used})),
            *([derives(node, option, **{option: own})] if former and node is not None else ()),
            **names,
        )


def over_capacity(provider: Provider) -> Sequence[Over]:
    """Return the resources of which more is allocated than may be. Raises `UnheardError`."""
    used: dict[str, int] = {}
    for entry in provider.consumers.values():
        amounts = entry.get("resources")
        if isinstance(amounts, dict):
            for name in RATIOS:
                used[name] = used.get(name, 0) + (whole(amounts.get(name)) or 0)
    return [
        Over(name, used[name], inventory)
        for name, inventory in provider.inventories.items()
        if used.get(name, 0) > inventory.capacity
    ]
