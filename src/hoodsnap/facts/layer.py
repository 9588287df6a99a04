"""The table of layers: one row each. Every other list of layers is derived from this table.

The nouns of a layer are attributes of `Guest` (facts/cloud/guest.py), each with a fact whose
`layer` is that row. A mismatch raises `TypeError` at import: a noun without a layer would look
absent where it was not collected, and unknown is never absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

Listed = list[dict[str, object]]
"""Shape of a list: one object per thing."""


class Scope(Enum):
    """The reach of a layer's answers."""

    CLOUD = 1
    """The whole cloud: every host gets the same answers."""
    HOST = 2
    """One host, at one moment."""


@dataclass(frozen=True)
class Census:
    """The query whose answer lists everything that a layer has on one host.

    Only such a list proves that an object does not exist.
    """

    query: str
    """The whole query, or its beginning if the layer's reader picks the answer."""
    shape: Any = Listed
    """Shape of the answer; None if the layer's reader decides which answer is the list."""
    name: str | None = None
    """Name of the answer in reasons; None for the layer's title."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: its id in a bundle, its title in reports, and its nouns."""

    id: str
    title: str
    """Name in reports: `nova database`."""
    scope: Scope
    nouns: Mapping[str, str] = field(default_factory=dict)
    """Attribute of a guest that the layer provides → its description: `The volumes, from cinder`.
    Empty for a layer that provides nothing about single guests."""
    has_guests: bool = False
    """True if the layer has the guests themselves, not only things that belong to them. A bundle
    without any such layer explains nothing."""
    is_api: bool = False
    """True if the layer is an HTTP API, whose answers are bodies."""
    census: Census | None = None
    """The list of everything on one host; None without such a list. Then a layer of a host is
    unheard for each guest without a fact."""
    silence: str = ""
    """Reason in reports if the layer was not collected; by default `TITLE was not collected`."""

    def __post_init__(self) -> None:
        """Make the nouns read-only, and fill in the reason."""
        object.__setattr__(self, "nouns", MappingProxyType(dict(self.nouns)))
        object.__setattr__(self, "silence", self.silence or f"{self.title} was not collected")

    @property
    def census_query(self) -> str:
        """The query for the list of everything. Raises `TypeError` if the layer has no list."""
        if self.census is None:
            raise TypeError(f"{self.title} has no list of everything on a host")
        return self.census.query


NOVA = Layer(
    "nova",
    "nova API",
    Scope.CLOUD,
    {"server": "The server in nova's API"},
    has_guests=True,
    is_api=True,
)
NOVA_DB = Layer(
    "nova-db",
    "nova database",
    Scope.CLOUD,
    {"instance": "The server's row in nova's database"},
    has_guests=True,
)
PLACEMENT = Layer(
    "placement",
    "placement",
    Scope.CLOUD,
    {"allocation": "The guest's allocation in placement"},
    is_api=True,
)
LIBVIRT = Layer(
    "libvirt",
    "libvirt",
    Scope.HOST,
    {"domain": "The domain in libvirt"},
    has_guests=True,
    census=Census("virsh list --all"),
)
KERNEL = Layer(
    "kernel",
    "kernel",
    Scope.HOST,
    {"process": "The QEMU process"},
    has_guests=True,
    census=Census("ls -l /proc/*/exe"),
)
QEMU = Layer(
    "qemu",
    "QEMU",
    Scope.HOST,
    {"monitor": "QEMU's monitor"},
    has_guests=True,
    silence="QEMU's monitor was not collected (use collect --qmp)",
)
IMAGES = Layer(
    "images",
    "disk images",
    Scope.HOST,
    {"images": "The disk images, as qemu-img shows them"},
    has_guests=True,
    census=Census("find /", shape=None),
    silence="disk images were not collected",
)
BLOCK = Layer(
    "block",
    "block devices",
    Scope.HOST,
    {"devices": "The host's block devices behind the guest's disks"},
    census=Census("lsblk --json --bytes --output-all", dict[str, Listed], "lsblk"),
    silence="lsblk was not collected",
)
CINDER = Layer(
    "cinder",
    "cinder",
    Scope.CLOUD,
    {"volumes": "The volumes, from cinder"},
    is_api=True,
)
NEUTRON = Layer(
    "neutron",
    "neutron API",
    Scope.CLOUD,
    {"ports": "The ports, from neutron"},
    is_api=True,
)
CGROUP = Layer(
    "cgroup",
    "control groups",
    Scope.HOST,
    {"cgroup": "The control groups of the guest's QEMU process"},
    census=Census("find /sys/fs/cgroup -path '*/machine*' -name '*qemu*' -type d"),
    silence="control groups were not collected",
)
NETWORK = Layer(
    "network",
    "host network",
    Scope.HOST,
    {"taps": "The tap devices on the host"},
    census=Census("ip -d -j link"),
)
LOGS = Layer(
    "logs",
    "logs",
    Scope.HOST,
    {"log": "The last log lines about the guest"},
    census=Census("ls -l /", shape=None),
    silence="logs were not collected",
)
DAEMONS = Layer(
    "daemons",
    "daemons",
    Scope.HOST,
    census=Census("ps -e -o pid,ppid,uid,stat,lstart,comm"),
    silence="the host's daemons were not collected",
)
GLANCE = Layer("glance", "glance", Scope.CLOUD, is_api=True)
HYPERVISOR = Layer("host", "host", Scope.HOST)

TABLE = (
    *(NOVA, NOVA_DB, PLACEMENT, LIBVIRT, KERNEL, CGROUP, QEMU, IMAGES, BLOCK, CINDER, NEUTRON),
    *(NETWORK, LOGS, GLANCE, DAEMONS, HYPERVISOR),
)
"""All layers of a cloud: those of guests, outermost first, then those without nouns.

Not listed are keystone, whose answer is only replayed, and the fingerprint, signature and challenge
of a bundle, which describe the bundle itself.
"""

LAYERS: Mapping[str, Layer] = {layer.id: layer for layer in TABLE if layer.nouns}
"""The layers that a guest is joined from, by id, outermost first."""

LAYER_OF: Mapping[str, Layer] = {noun: layer for layer in TABLE for noun in layer.nouns}
"""The layer that provides each noun."""

OF_HOST = tuple(layer for layer in LAYERS.values() if layer.scope is Scope.HOST)
"""The layers of one host. They are unheard for a guest that is on no captured host."""

WITHOUT_CENSUS = tuple(layer for layer in OF_HOST if layer.census is None)
"""The layers of a host that are unheard for each guest without a fact."""

CLOUD_WIDE = frozenset(layer.id for layer in TABLE if layer.scope is Scope.CLOUD)
"""Ids of the layers whose answers are the same on every host."""

OF_GUESTS = frozenset(layer.id for layer in TABLE if layer.has_guests)
"""Ids of the layers that have the guests themselves."""

GUESTS_LIVE_IN = frozenset(layer.id for layer in OF_HOST if layer.has_guests and layer.census)
"""Ids of the layers that list a host's guests. Without them hardly any guest can be judged."""

APIS = frozenset(layer.id for layer in TABLE if layer.is_api)
"""Ids of the layers that are HTTP APIs."""

if len(LAYER_OF) != sum(len(layer.nouns) for layer in TABLE):
    raise TypeError("two layers in facts/layer.py have the same noun")
