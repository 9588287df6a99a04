"""The layers under an instance: one row each. Whatever else lists layers is derived from here.

A new layer is a row, and its nouns are attributes of `Guest` (facts/cloud/guest.py), each with a
fact whose `layer` is this row. What does not fit together is an error at import, since a noun whose
layer is not known could not be told to be unheard, and unknown is never absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

Listed = list[dict[str, object]]
"""The shape of a list: one object for each thing."""


class Scope(Enum):
    """Where the answers of a layer are true."""

    CLOUD = 1
    """The same wherever it is asked."""
    HOST = 2
    """Of one host, at one moment."""


@dataclass(frozen=True)
class Census:
    """The question whose answer lists everything that a layer has on one host.

    It is what an absence is proved by.
    """

    query: str
    """The whole question; the beginning of it if the reader of the layer picks the answer."""
    shape: Any = Listed
    """Of the answer; None if the reader of the layer decides whether an answer is the list."""
    name: str | None = None
    """What a reason calls the answer; None: the layer's title."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, as a bundle calls it and as people do."""

    id: str
    title: str
    """Its name for people: `nova database`."""
    scope: Scope
    nouns: Mapping[str, str] = field(default_factory=dict)
    """The attributes of a guest that it tells, each with what that is: `its volumes by cinder`.
    Empty for a layer that tells nothing of a single guest."""
    has_guests: bool = False
    """It has the guests themselves, and not only what belongs to them: a bundle without a word of
    any such layer is worth nothing."""
    is_api: bool = False
    """It is asked over HTTP, and answers with bodies."""
    census: Census | None = None
    """How one host's list of everything is found; None if there is no such list on a host. Then the
    layer is unheard for each guest of which it has not told anything."""
    silence: str = ""
    """Why nothing is known of it if nobody asked; empty: that its title was not asked."""

    def __post_init__(self) -> None:
        """Make what was given read-only, and fill in the reason."""
        object.__setattr__(self, "nouns", MappingProxyType(dict(self.nouns)))
        object.__setattr__(self, "silence", self.silence or f"{self.title} was not asked")

    @property
    def census_query(self) -> str:
        """The question for the list of everything. Raises `TypeError` if there is no such list."""
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
    {"allocation": "The resources that placement has reserved for it"},
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
    {"monitor": "The monitor of QEMU"},
    has_guests=True,
    silence="QEMU was not asked (collect --qmp asks it)",
)
IMAGES = Layer(
    "images",
    "disk images",
    Scope.HOST,
    {"images": "The disk images, as qemu-img shows them"},
    has_guests=True,
    census=Census("find /", shape=None),
    silence="disk images were not asked",
)
BLOCK = Layer(
    "block",
    "block devices",
    Scope.HOST,
    {"devices": "The block devices of the host that are its disks"},
    census=Census("lsblk --json --bytes --output-all", dict[str, Listed], "lsblk"),
    silence="lsblk was not asked",
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
    {"cgroup": "the control groups of its QEMU, which limit it"},
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
    {"log": "The last lines of logs about it"},
    census=Census("ls -l /", shape=None),
    silence="the logs were not asked",
)
GLANCE = Layer("glance", "glance", Scope.CLOUD, is_api=True)
HYPERVISOR = Layer("host", "host", Scope.HOST)

TABLE = (
    *(NOVA, NOVA_DB, PLACEMENT, LIBVIRT, KERNEL, CGROUP, QEMU, IMAGES, BLOCK, CINDER, NEUTRON),
    *(NETWORK, LOGS, GLANCE, HYPERVISOR),
)
"""Every layer that is asked, outermost first, and then those that tell nothing of a single guest.
(What is said of a bundle itself, its fingerprint and the like, is no layer of a cloud.)"""

LAYERS: Mapping[str, Layer] = {layer.id: layer for layer in TABLE if layer.nouns}
"""The layers that a guest is joined from, outermost first, by id."""

LAYER_OF: Mapping[str, Layer] = {noun: layer for layer in TABLE for noun in layer.nouns}
"""For each noun the layer that tells it."""

OF_HOST = tuple(layer for layer in LAYERS.values() if layer.scope is Scope.HOST)
"""The layers that nobody heard of a guest that is on no captured host."""

WITHOUT_CENSUS = tuple(layer for layer in OF_HOST if layer.census is None)
"""The layers of a host that are unheard for each guest of which they have not told anything."""

CLOUD_WIDE = frozenset(layer.id for layer in TABLE if layer.scope is Scope.CLOUD)
"""The layers that tell the same wherever they are asked."""

OF_GUESTS = frozenset(layer.id for layer in TABLE if layer.has_guests)
"""The layers that have the guests themselves."""

GUESTS_LIVE_IN = frozenset(layer.id for layer in OF_HOST if layer.has_guests and layer.census)
"""The layers of a host that list its guests: without them nearly nothing of these is judged."""

APIS = frozenset(layer.id for layer in TABLE if layer.is_api)
"""The layers that answer with bodies."""

if len(LAYER_OF) != sum(len(layer.nouns) for layer in TABLE):
    raise TypeError("two layers in facts/layer.py have the same noun")
