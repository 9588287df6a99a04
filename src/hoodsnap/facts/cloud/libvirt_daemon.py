"""The libvirt that was asked: which QEMU may be its own, and when its word is no word on this host.

A host may have several (the system's, a user's session, one in a container), and a URI may lead to
any of them. One that never heard of a guest proves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.domain.domain import NAME, PRODUCTS, Domain
from hoodsnap.facts.fact import UnheardError, is_true, value_of
from hoodsnap.facts.process.process import Process

INITIAL = "pid:[4026531836]"
"""The PID namespace of a host itself (the kernel's PROC_PID_INIT_INO): a container has another."""

HOME = "/lib/libvirt/qemu"
"""How the folder of the system's libvirt ends, wherever it is installed; a session's is below its
user's, and one that is embedded has a root of its own."""


@dataclass(frozen=True, eq=False)
class LibvirtDaemon:
    """The libvirt daemon that was asked on one host."""

    uri: str | None
    """As it says itself: `qemu:///system`. None if that was not asked."""
    name: str | None
    """What it calls its host; None if that was not asked."""
    spaces: frozenset[str]
    """The PID namespaces in which its guests may be: those where some of them were seen, else the
    collector's own; empty if that was not told."""

    @classmethod
    def read(
        cls,
        bundle: Bundle,
        host: str,
        domains: Mapping[str, Domain],
        processes: Mapping[int, Process],
    ) -> LibvirtDaemon:
        """Of one host's answers."""
        running = {uuid for uuid, domain in domains.items() if _is_active(domain)}
        own = (process for process in processes.values() if _is_among(process, running))
        seen = frozenset(process.space for process in own if process.space is not None)
        return cls(
            uri=_text(bundle.last("libvirt", "virsh uri", host)),
            name=_text(bundle.last("libvirt", "virsh hostname", host)),
            spaces=seen or _own_space(bundle, host),
        )

    def may_have(self, process: Process) -> bool:
        """Whether a QEMU may be one of its guests. Not if another libvirt started it: it keeps its
        files elsewhere, or lives among processes that this one can't reach."""
        if self.of_system is not None:
            try:
                home = process.home
            except UnheardError:
                home = None
            if home is not None and home.endswith(HOME) is not self.of_system:
                return False
        return process.space is None or not self.spaces or process.space in self.spaces

    @property
    def of_system(self) -> bool | None:
        """It is the system's libvirt for QEMU, as nova's is; None if that was not asked."""
        if self.uri is None:
            return None
        try:
            parts = urlsplit(self.uri)
        except ValueError:
            return None
        return parts.scheme.partition("+")[0] == "qemu" and parts.path == "/system"

    def is_of(self, host: str) -> bool:
        """Whether it runs on the host of this name, by its own word."""
        return self.name is None or _short(self.name) == _short(host)


def doubts(
    bundle: Bundle,
    host: str,
    domains: Mapping[str, Domain],
    processes: Mapping[int, Process],
    known: Collection[str],
) -> Mapping[str, str]:
    """Return the layers that were evidently asked in the wrong namespace or daemon, and the reason:
    the list of one is empty while the other's is full. `known` are the UUIDs that nova has."""
    running = {uuid for uuid, domain in domains.items() if _is_active(domain)}
    seen = [process for process in processes.values() if _is_guest(process)]
    found: dict[str, str] = {}
    if running & {process.uuid for process in seen}:
        return found
    guests = [process for process in seen if _is_novas(process, known)]
    uuids = {process.uuid for process in guests}
    daemon = LibvirtDaemon.read(bundle, host, domains, processes)
    far = not daemon.is_of(host)
    # One alone may be the odd one; several that all miss their other half are not.
    alone = running and (far or (_is_aside(bundle, host) and not processes))
    if len(running) > 1 or alone:
        found["kernel"] = (
            f"libvirt has {len(running)} running, and the QEMU process of none is to be seen: "
            "was this asked in another PID namespace?"
        )
    foreign = bool(guests) and (far or not any(map(daemon.may_have, guests)))
    if (len(uuids) > 1 or foreign) and not uuids & domains.keys():
        found["libvirt"] = (
            f"{len(uuids)} QEMU processes run, and libvirt has the domain of none: "
            "was another libvirt asked?"
        )
    return found


def _is_aside(bundle: Bundle, host: str) -> bool:
    """Whether the kernel was asked in a container that has processes of its own."""
    return bool(_own_space(bundle, host) - {INITIAL})


def _own_space(bundle: Bundle, host: str) -> frozenset[str]:
    """The PID namespace that the collector was in."""
    answer = bundle.last("host", "readlink /proc/self/ns/*", host)
    try:
        own = value_of(answer, "its namespaces", dict[str, str]).get("pid")
    except UnheardError:
        own = None
    return frozenset([own] if own is not None else [])


def _text(answer: Answer | None) -> str | None:
    try:
        return value_of(answer, "what libvirt says of itself", str)
    except UnheardError:
        return None


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


def _is_active(domain: Domain) -> bool:
    return is_true(lambda: domain.id is not None)


def _is_among(process: Process, uuids: Collection[str]) -> bool:
    return is_true(lambda: process.uuid in uuids)


def _is_guest(process: Process) -> bool:
    return is_true(lambda: bool(process.uuid) and not process.is_probe)


def _is_novas(process: Process, known: Collection[str]) -> bool:
    """Whether it is one of nova's guests. What else runs on the host, libvirt need not have."""
    return (
        _is_among(process, known)
        or is_true(lambda: process.smbios.get("product") in PRODUCTS)
        or is_true(lambda: NAME.fullmatch(process.name) is not None)
    )
