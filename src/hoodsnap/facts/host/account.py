"""The host's accounts that libvirt may run guests as."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.hypervisor import Hypervisor

ROOT = 0

SYSTEM = (range(1000), range(42400, 42500), range(60000, 65536))
"""User ids that distributions, and Kolla's images, assign to services."""

_LABEL = re.compile(r"\+?(\d{1,10}):\+?\d{1,10}", re.ASCII)


class Accounts:
    """Accounts whose QEMU processes may be libvirt guests.

    Any account can start the host's QEMU with any UUID and name, so the command line of an ordinary
    account's process proves nothing about a guest.
    """

    def __init__(self, hypervisor: Hypervisor, domains: Iterable[Domain]) -> None:
        self._own = {ROOT}
        with suppress(UnheardError):  # SYSTEM still applies
            self._own.add(hypervisor.owner[0])
        for domain in domains:
            self._own |= set(_uids(domain))

    def has(self, uid: int) -> bool:
        """True if a process of this account may be a libvirt guest."""
        return uid in self._own or any(uid in numbers for numbers in SYSTEM)


def _uids(domain: Domain) -> Iterable[int]:
    """Yield the user ids in a domain's own security labels."""
    try:
        labels = [label.image for label in domain.labels if label.model == "dac"]
    except UnheardError:
        return
    for label in labels:
        if found := _LABEL.fullmatch(label or ""):
            yield int(found[1])
