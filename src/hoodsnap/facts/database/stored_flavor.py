"""Flavor and CPU pins of an instance, as `instance_extra` stores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hoodsnap.facts.database.stored_object import fields_if_wrapped, read_object
from hoodsnap.facts.fact import UnheardError, integer, text
from hoodsnap.facts.quantity import whole


class StoredFlavor(NamedTuple):
    """An instance's own copy of its flavor."""

    name: str | None
    memory_mib: int | None
    vcpus: int | None
    root_gb: int | None
    """GiB of the root disk; 0 means as large as the image."""
    ephemeral_gb: int | None
    swap_mib: int | None

    @staticmethod
    def read(data: Mapping[str, object]) -> StoredFlavor:
        """Read a stored flavor's fields. Raises `UnheardError`."""
        return StoredFlavor(
            text(data, "name"),
            integer(data, "memory_mb"),
            integer(data, "vcpus"),
            integer(data, "root_gb"),
            integer(data, "ephemeral_gb"),
            integer(data, "swap"),
        )


def read_pins(topology: str | None) -> Mapping[int, int]:
    """Return vCPU → host CPU from the column `numa_topology`. Raises `UnheardError`."""
    what = "the instance's NUMA topology"
    found: dict[int, int] = {}
    cells = fields_if_wrapped(read_object(topology, what)).get("cells") if topology else ()
    for cell in cells if isinstance(cells, list | tuple) else ():
        pins = fields_if_wrapped(cell).get("cpu_pinning_raw") if isinstance(cell, dict) else None
        for vcpu, cpu in pins.items() if isinstance(pins, dict) else ():
            number, processor = whole(vcpu), whole(cpu)
            if number is None or processor is None:
                raise UnheardError(f"{what} can't be read")
            found[number] = processor
    return found


def read_pinned_cpus(topology: str) -> frozenset[int]:
    """Return the host CPUs that a compute node's column `numa_topology` has as pinned.

    Raises `UnheardError`.
    """
    what = "the compute node's NUMA topology"
    cells = fields_if_wrapped(read_object(topology, what)).get("cells")
    found: set[int] = set()
    for cell in cells if isinstance(cells, list | tuple) else ():
        pinned = fields_if_wrapped(cell).get("pinned_cpus") if isinstance(cell, dict) else None
        for cpu in pinned if isinstance(pinned, list | tuple) else ():
            if not isinstance(cpu, int):
                raise UnheardError(f"{what} can't be read")
            found.add(cpu)
    return frozenset(found)
