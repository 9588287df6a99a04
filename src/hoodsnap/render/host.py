"""A host in one line: its daemons, those that do not work first."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import caught
from hoodsnap.facts.host.daemon import Condition
from hoodsnap.printable import clean


def daemons_line(host: Host) -> str | None:
    """Return the daemons of a host in one line; None if they were not collected.

    `neutron-l3-agent is stopped by a signal (state T); running: libvirtd, nova-compute, swtpm (3)`.
    A daemon that is missing is not in the line: only checks know which daemons a host needs.
    """
    try:
        conditions = host.daemons.conditions
        counts = {name: len(same) for name, same in host.daemons.by_name.items()}
    except Exception as error:  # a net: the line is left out
        caught(error)
        return None
    parts = [
        f"{clean(name)} is {condition}"
        for name, condition in conditions.items()
        if condition is not Condition.RUNNING
    ]
    running = [name for name, condition in conditions.items() if condition is Condition.RUNNING]
    parts.append(f"running: {', '.join(_counted(running, counts)) or 'none'}")
    return "; ".join(parts)


def _counted(names: list[str], counts: dict[str, int]) -> Iterator[str]:
    for name in names:
        yield clean(name) + (f" ({counts[name]})" if counts.get(name, 1) > 1 else "")
