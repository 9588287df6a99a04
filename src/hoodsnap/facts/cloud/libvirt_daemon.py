"""The libvirt daemon that answered: the processes it may own, and whether it is the right one.

A host may run several (the system's, a user's session, one in a container), and a URI may lead to
any of them. If the wrong daemon has no domain for a guest, that proves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.domain.domain import NAME, PRODUCTS, Domain
from hoodsnap.facts.fact import UnheardError, is_true, known, value_of
from hoodsnap.facts.process.process import Process

INITIAL = "pid:[4026531836]"
"""PID namespace of the host itself (the kernel's PROC_PID_INIT_INO); a container has another."""

HOME = "/lib/libvirt/qemu"
"""End of the path of the system libvirt's folder, under any installation prefix. A session's folder
is in the user's home, and an embedded libvirt has its own root."""


@dataclass(frozen=True, eq=False)
class LibvirtDaemon:
    """The libvirt daemon that answered on one host."""

    uri: str | None
    """URI that it reports: `qemu:///system`. None if it was not collected."""
    name: str | None
    """Host name that it reports; None if it was not collected."""
    spaces: frozenset[str]
    """PID namespaces in which its guests may run: those of its known guests, else the collector's;
    empty if unknown."""

    @classmethod
    def read(
        cls,
        bundle: Bundle,
        host: str,
        domains: Mapping[str, Domain],
        processes: Mapping[int, Process],
    ) -> LibvirtDaemon:
        """Read it from one host's answers."""
        running = {uuid for uuid, domain in domains.items() if _is_active(domain)}
        own = (process for process in processes.values() if _is_among(process, running))
        seen = frozenset(process.space for process in own if process.space is not None)
        return cls(
            uri=_text(bundle.last("libvirt", "virsh uri", host)),
            name=_text(bundle.last("libvirt", "virsh hostname", host)),
            spaces=seen or _own_space(bundle, host),
        )

    def may_have(self, process: Process) -> bool:
        """True if a QEMU process may be one of its guests.

        False if another libvirt started the process: one with its files elsewhere, or in another
        PID namespace.
        """
        if self.of_system is not None:
            try:
                home = process.home
            except UnheardError:
                home = None
            if home is not None and home.endswith(HOME) is not self.of_system:
                return False
        return process.space is None or not self.spaces or process.space in self.spaces

    @cached_property
    def of_system(self) -> bool | None:
        """True if it is the system's libvirt for QEMU, which nova uses; None if not collected."""
        if self.uri is None:
            return None
        try:
            parts = urlsplit(self.uri)
        except ValueError:
            return None
        return parts.scheme.partition("+")[0] == "qemu" and parts.path == "/system"

    def is_of(self, host: str) -> bool:
        """True if the host name that it reports matches, or was not collected."""
        return self.name is None or _short(self.name) == _short(host)


def doubts(
    bundle: Bundle,
    host: str,
    domains: Mapping[str, Domain],
    processes: Mapping[int, Process],
    ours: Collection[str],
) -> Mapping[str, str]:
    """Return the layers that evidently answered from the wrong namespace or daemon → the reason.

    The sign is that libvirt's domains and the kernel's QEMU processes do not overlap. `ours`:
    UUIDs in nova's records.
    """
    running = {uuid for uuid, domain in domains.items() if _is_active(domain)}
    seen = [process for process in processes.values() if _is_guest(process)]
    found: dict[str, str] = {}
    if running & {process.uuid for process in seen}:
        return found
    guests = [process for process in seen if _is_novas(process, ours)]
    uuids = {process.uuid for process in guests}
    daemon = LibvirtDaemon.read(bundle, host, domains, processes)
    far = not daemon.is_of(host)
    # A single guest without its counterpart may be a fault; several at once mean a wrong capture.
    alone = running and (far or (_is_aside(bundle, host) and not processes))
    # A process whose command line was not read may be the QEMU of any of these domains.
    nameless = not all(map(_is_named, processes.values()))
    if (len(running) > 1 or alone) and not nameless:
        found["kernel"] = (
            f"libvirt has {len(running)} running domains, but none of their QEMU processes was"
            " found: possibly the processes were collected in another PID namespace"
        )
    foreign = bool(guests) and (far or not any(map(daemon.may_have, guests)))
    if (len(uuids) > 1 or foreign) and not uuids & domains.keys():
        found["libvirt"] = (
            f"{len(uuids)} QEMU processes of nova's guests run, but libvirt has no domain for any "
            "of them: possibly another libvirt daemon answered"
        )
    return found


def _is_aside(bundle: Bundle, host: str) -> bool:
    """True if the collector ran in a container with its own PID namespace."""
    return bool(_own_space(bundle, host) - {INITIAL})


def _own_space(bundle: Bundle, host: str) -> frozenset[str]:
    """Return the collector's PID namespace; empty if it was not collected."""
    answer = bundle.last("host", "readlink /proc/self/ns/*", host)
    try:
        own = value_of(answer, "the collector's namespaces", dict[str, str]).get("pid")
    except UnheardError:
        own = None
    return frozenset([own] if own is not None else [])


def _text(answer: Answer | None) -> str | None:
    try:
        return value_of(answer, "libvirt's URI or host name", str)
    except UnheardError:
        return None


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


def _is_active(domain: Domain) -> bool:
    return is_true(lambda: domain.id is not None)


def _is_named(process: Process) -> bool:
    """True if the process's command line was read, so that it shows which guest it is."""
    return known(lambda: process.argv) is not None


def _is_among(process: Process, uuids: Collection[str]) -> bool:
    return is_true(lambda: process.uuid in uuids)


def _is_guest(process: Process) -> bool:
    return is_true(lambda: bool(process.uuid) and not process.is_probe)


def _is_novas(process: Process, ours: Collection[str]) -> bool:
    """True if it is one of nova's guests. libvirt need not have a domain for any other QEMU."""
    return (
        _is_among(process, ours)
        or is_true(lambda: process.smbios.get("product") in PRODUCTS)
        or is_true(lambda: NAME.fullmatch(process.name) is not None)
    )
