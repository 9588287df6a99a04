"""Changes of hosts and services: versions, configuration, services, inventories, image cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from hoodsnap.bundle import Answer
from hoodsnap.diff import daemons
from hoodsnap.diff.change import Change, merged
from hoodsnap.diff.files import cached_files
from hoodsnap.diff.plain import Unknown, differences, plain, words
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, caught, value_of
from hoodsnap.facts.layer import (
    CINDER,
    DAEMONS,
    HYPERVISOR,
    IMAGES,
    KERNEL,
    LIBVIRT,
    NETWORK,
    NEUTRON,
    NOVA,
    NOVA_DB,
    PLACEMENT,
)
from hoodsnap.trust.plausible.visit import HostAnswers

T = TypeVar("T")

_PACKAGES = ("dpkg-query -W", "rpm -q")


def _text(layer: str, start: str) -> Callable[[Host], object]:
    """Return a reader of the first line of the newest answer whose query begins like this."""

    def read(host: Host) -> object:
        found = _newest(host, layer, start)
        lines = value_of(found, start, str).strip().splitlines()
        return lines[0] if lines else None

    return read


def _mapping(layer: str, start: str) -> Callable[[Host], object]:
    def read(host: Host) -> object:
        return value_of(_newest(host, layer, start), start, dict[str, object])

    return read


def _newest(host: Host, layer: str, start: str) -> Answer | None:
    return next(reversed([*host.bundle.asked(layer, start, host.name)]), None)


def _packages(host: Host) -> object:
    for start in _PACKAGES:
        if (found := _newest(host, HYPERVISOR.id, start)) is not None and found.error is None:
            lines = [line.split() for line in value_of(found, start, str).splitlines()]
            return {line[0]: line[1] if len(line) > 1 else None for line in lines if line}
    raise UnheardError("the packages were not collected")


def _release(host: Host) -> object:
    text = value_of(_newest(host, HYPERVISOR.id, "cat /etc/os-release"), "os-release", str)
    named = (line.partition("=") for line in text.splitlines())
    return next((value.strip('"') for key, _, value in named if key == "PRETTY_NAME"), None)


def _compute_id(host: Host) -> object:
    return host.compute_id[0] if host.compute_id is not None else None


def _provider(host: Host) -> object:
    if host.provider is None and not host.placement.providers:
        raise UnheardError(host.placement.obstacle or "placement was not collected")
    return host.provider


def _namespaces(host: Host) -> object:
    return dict.fromkeys(host.network.namespaces, "exists")


READINGS: Mapping[str, tuple[str, Callable[[Host], object]]] = {
    "kernel version": (KERNEL.id, _text(KERNEL.id, "/proc/sys/kernel/osrelease")),
    "release": (HYPERVISOR.id, _release),
    "packages": (HYPERVISOR.id, _packages),
    "nova-compute version": (HYPERVISOR.id, _text(HYPERVISOR.id, "nova-compute --version")),
    "libvirt version": (LIBVIRT.id, _mapping(LIBVIRT.id, "virsh version")),
    "libvirtd version": (HYPERVISOR.id, _text(HYPERVISOR.id, "libvirtd --version")),
    "QEMU version": (HYPERVISOR.id, _text(HYPERVISOR.id, "qemu-system")),
    "nova.conf": (HYPERVISOR.id, _mapping(HYPERVISOR.id, "/etc/nova/nova.conf")),
    "qemu.conf": (HYPERVISOR.id, _mapping(HYPERVISOR.id, "/etc/libvirt/qemu.conf")),
    "virtlogd.conf": (HYPERVISOR.id, _mapping(HYPERVISOR.id, "/etc/libvirt/virtlogd.conf")),
    "compute_id": (HYPERVISOR.id, _compute_id),
    "PCI devices": (KERNEL.id, lambda host: host.hypervisor.pci_addresses),
    "machine types": (LIBVIRT.id, lambda host: sorted(host.hypervisor.machine_types)),
    "namespaces": (NETWORK.id, _namespaces),
    "service": (NOVA_DB.id, lambda host: host.service),
    "compute node": (NOVA_DB.id, lambda host: host.node),
    "resource provider": (PLACEMENT.id, _provider),
    "units": (DAEMONS.id, daemons.units_of),
}
"""Name of a value of a host → its layer, and its reader."""


def changes_of(before: Host, after: Host) -> tuple[Change, ...]:
    """Return what changed of a host that both bundles have."""
    return tuple(merged(_changes(before, after)))


def _changes(before: Host, after: Host) -> Iterator[Change]:
    if before.boot_ids and after.boot_ids and before.boot_ids.keys().isdisjoint(after.boot_ids):
        booted = HostAnswers(after.bundle, after.name).boot
        yield Change((KERNEL.id,), "rebooted", "boot", "another boot", booted)
    try:
        yield from tuple(daemons.changes_of(before, after))
    except Exception as error:  # a net: unread daemons cost their own comparison
        caught(error)
    for name, (layer, read) in READINGS.items():
        old, new = _read(read, before), _read(read, after)
        yield from _differing(layer, name, old, new)
    if IMAGES.id not in before.unheard and IMAGES.id not in after.unheard:
        yield from _files(cached_files(before), cached_files(after))


def _read(read: Callable[[T], object], source: T) -> Any:
    try:
        return plain(read(source))
    except UnheardError as reason:
        return Unknown(str(reason))
    except Exception as error:  # a net: a value of an unexpected type costs its reading
        return Unknown(str(caught(error)))


def _differing(layer: str, name: str, old: Any, new: Any) -> Iterator[Change]:
    if () in (old, new) and not isinstance(old, Unknown) and not isinstance(new, Unknown):
        old, new = old or {}, new or {}
    for field, one, other in differences(old, new, name):
        if field.endswith("[MEMORY_MB].total") and _is_near(one, other):
            continue
        yield Change((layer,), field, words(one), words(other))


NEAR = 0.05
"""Part by which a host's memory may differ: it does a little at every boot, and the balloon of a
host that is a VM itself changes it."""


def _is_near(one: object, other: object) -> bool:
    if not isinstance(one, int) or not isinstance(other, int):
        return False
    return abs(other - one) <= NEAR * max(one, other)


def _files(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    """Compare the image cache; a file with the inode of one that went was renamed."""
    went = {old[path]["inode"]: path for path in old if path not in new}
    came = {path: new[path]["inode"] for path in new if path not in old}
    renamed = {path: went[inode] for path, inode in came.items() if inode in went}
    for path, source in renamed.items():
        yield Change((IMAGES.id,), "file", source, f"renamed to {path}")
    gone = {*renamed.values()}
    yield from _differing(
        IMAGES.id,
        "files",
        {path: line for path, line in old.items() if path not in gone},
        {path: line for path, line in new.items() if path not in renamed},
    )


def services(before: Cloud, after: Cloud) -> tuple[Change, ...]:
    """Return what changed of the cloud's services, agents and flavors."""
    found: list[Change] = []
    try:
        found += _differing(NEUTRON.id, "agents", *_agents(before, after))
    except Exception as error:  # a net: an unreadable agent costs this comparison
        caught(error)
    for layer, name, read in SERVICES:
        old, new = _read(read, before), _read(read, after)
        if old is not None and new is not None:
            found += _differing(layer, name, old, new)
    return tuple(merged(found))


def _listed(layer: str, start: str, *fields: str) -> Callable[[Cloud], dict[str, Any] | None]:
    """Return a reader of the services that an API lists; None if it did not list any."""

    def read(cloud: Cloud) -> dict[str, Any] | None:
        found: dict[str, Any] | None = None
        for answer in cloud.bundle.asked(layer, start):
            body = answer.value.get("services") if isinstance(answer.value, dict) else None
            for service in body if isinstance(body, list) else ():
                if isinstance(service, dict):
                    found = found if found is not None else {}
                    name = f"{service.get('binary')} on {service.get('host')}"
                    own = found.setdefault(name, dict.fromkeys(fields, _NO_FIELD))
                    # An older microversion has fewer fields.
                    own |= {key: _single(service[key]) for key in fields if key in service}
        return found

    return read


_NO_FIELD = Unknown("this release has no such field")


def _single(value: object) -> object:
    """Return a JSON value if it is a single one; its text otherwise."""
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _agents(before: Cloud, after: Cloud) -> tuple[Any, Any]:
    """Return both bundles' agents by kind and host.

    A compute host may list only its own agents, so an agent that one bundle lacks counts only if
    its host was captured in both.
    """
    found = [
        {f"{values['kind']} on {values['host']}": values for values in map(plain, agents.values())}
        if (agents := cloud.ports.agents) is not None
        else None
        for cloud in (before, after)
    ]
    old, new = found
    if old is None or new is None:
        return None, None
    captured = {host.name for host in before.hosts} & {host.name for host in after.hosts}
    kept = {
        name
        for name, values in (*old.items(), *new.items())
        if (name in old and name in new) or values["host"] in captured
    }
    one, other = ({n: v for n, v in side.items() if n in kept} for side in (old, new))
    return one, other


def _flavors(cloud: Cloud) -> Any:
    asked = cloud.bundle.asked(NOVA.id, "GET /v2.1/flavors/detail")
    if not cloud.hosts or all(answer.error is not None for answer in asked):
        return None
    return cloud.hosts[0].offered_flavors


SERVICES: tuple[tuple[str, str, Callable[[Cloud], Any]], ...] = (
    (
        NOVA.id,
        "services",
        _listed(
            NOVA.id, "GET /v2.1/os-services", "state", "status", "forced_down", "disabled_reason"
        ),
    ),
    (
        CINDER.id,
        "services",
        _listed(
            CINDER.id,
            "GET /v3/os-services",
            *("state", "status", "backend_state", "frozen", "disabled_reason"),
        ),
    ),
    (NOVA.id, "flavors", _flavors),
)
"""Layer, name and reader of what the control plane lists."""
