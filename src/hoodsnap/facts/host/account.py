"""Accounts of the host: which of them libvirt runs guests as."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.hypervisor import Hypervisor

ROOT = 0

SYSTEM = (range(1000), range(42400, 42500), range(60000, 65536))
"""The numbers that distributions give to services, and those of Kolla's images."""

_LABEL = re.compile(r"\+?(\d{1,10}):\+?\d{1,10}", re.ASCII)


class Accounts:
    """The accounts whose QEMU processes may be guests of libvirt's.

    Any account may start the host's QEMU with any UUID and name, so the command line of an ordinary
    account's process proves nothing about a guest.
    """

    def __init__(self, hypervisor: Hypervisor, domains: Iterable[Domain]) -> None:
        self._own = {ROOT}
        with suppress(UnheardError):  # then the numbers of services are left
            self._own.add(hypervisor.owner[0])
        for domain in domains:
            self._own |= set(_uids(domain))

    def has(self, uid: int) -> bool:
        """Return whether a process of this account may be a guest of libvirt's."""
        return uid in self._own or any(uid in numbers for numbers in SYSTEM)


def _uids(domain: Domain) -> Iterable[int]:
    """The accounts that a domain's own security labels name."""
    try:
        labels = [label.image for label in domain.labels if label.model == "dac"]
    except UnheardError:
        return
    for label in labels:
        if found := _LABEL.fullmatch(label or ""):
            yield int(found[1])
