"""Placement's resource providers, their inventories, and what each consumer holds of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.body import item_of
from hoodsnap.facts.fact import (
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    caught,
    integer,
    text,
    value_of,
)
from hoodsnap.facts.layer import PLACEMENT, Layer
from hoodsnap.facts.quantity import whole

_QUERY = re.compile(
    r"GET /(?P<what>resource_providers|allocations)(/(?P<uuid>[^/?\s]+))?(/(?P<part>\w+))?"
    r"(?P<filter>\?\S+)?( \[[\d.]+\])?"
)

OF_A_HOST = frozenset(["VCPU", "PCPU", "MEMORY_MB"])
"""Resource classes that only the server's own host can provide. Disk may be shared storage."""

Amounts = Mapping[str, int]
"""Resource class → amount: `{"VCPU": 1, "MEMORY_MB": 64}`."""


class Inventory(NamedTuple):
    """A provider's inventory of one resource class."""

    total: int
    reserved: int
    ratio: float
    """Allocation ratio: how many times each unit may be allocated."""
    min_unit: int | None = None
    """Least amount of one allocation; None if it is not known."""
    max_unit: int | None = None
    """Largest amount of one allocation; None if it is not known."""
    step_size: int | None = None
    """What the amount of one allocation must be a multiple of; None if it is not known."""

    @property
    def capacity(self) -> float:
        """Largest amount that placement allocates."""
        return (self.total - self.reserved) * self.ratio


@dataclass(frozen=True, eq=False, kw_only=True)
class Provider(Fact):
    """A resource provider: a compute node, a part of one, or shared storage."""

    layer: ClassVar[Layer] = PLACEMENT
    noun: ClassVar[str] = "provider"
    uuid: str
    raw: Mapping[str, object]

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "inventories": ("inventories", "inventories"),
        "traits": ("traits", "traits"),
        "aggregates": ("aggregates", "aggregates"),
        "consumers": ("allocations", "allocations"),
    }

    @property
    def name(self) -> str | None:
        """Name of the provider; of a compute node, its hypervisor's host name."""
        return text(self.raw, "name")

    @property
    def root(self) -> str:
        """UUID of the provider at the top of the tree; its own UUID if it is not a part."""
        if "root_provider_uuid" not in self.raw:  # before microversion 1.14 there were no trees
            return self.uuid
        return (text(self.raw, "root_provider_uuid") or self.uuid).lower()

    @cached_property
    def inventories(self) -> Mapping[str, Inventory]:
        """The provider's inventories by resource class."""
        found = {}
        for name, raw in self._part("inventories").items():
            if not isinstance(raw, dict):
                raise UnheardError(f"the inventory of {name} can't be read")
            total, reserved = integer(raw, "total"), integer(raw, "reserved")
            ratio = raw.get("allocation_ratio", 1.0)
            if total is None or not isinstance(ratio, int | float):
                raise UnheardError(f"the inventory of {name} can't be read")
            units = (whole(raw.get(key)) for key in ("min_unit", "max_unit", "step_size"))
            found[name] = Inventory(total, reserved or 0, float(ratio), *units)
        return found

    @cached_property
    def traits(self) -> frozenset[str]:
        """The provider's traits, such as `COMPUTE_STATUS_DISABLED`."""
        what = "the list of the provider's traits"
        listed = value_of(self.said.get("traits"), what, dict[str, object]).get("traits")
        if not isinstance(listed, list):
            raise UnheardError(f"{what} can't be read")
        return frozenset(trait for trait in listed if isinstance(trait, str))

    @cached_property
    def aggregates(self) -> frozenset[str]:
        """UUIDs of the aggregates that the provider is in: nova's, and those of shared storage."""
        what = "the list of the provider's aggregates"
        listed = value_of(self.said.get("aggregates"), what, dict[str, object]).get("aggregates")
        if not isinstance(listed, list):
            raise UnheardError(f"{what} can't be read")
        return frozenset(uuid.lower() for uuid in listed if isinstance(uuid, str))

    @cached_property
    def consumers(self) -> Mapping[str, Mapping[str, object]]:
        """Consumer UUID → its entry in the provider's list of allocations."""
        entries = self._part("allocations")
        return {uuid.lower(): entry for uuid, entry in entries.items() if isinstance(entry, dict)}

    def _part(self, part: str) -> Mapping[str, object]:
        return item_of(self.said.get(part), part, f"the list of the provider's {part}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Allocation(Fact):
    """Everything that one consumer holds. A consumer is a server or a migration."""

    layer: ClassVar[Layer] = PLACEMENT
    noun: ClassVar[str] = "allocation"

    documented: ClassVar[Documented] = (
        DocumentedField(
            "resources",
            "Reserved resources: `class` (`VCPU`, `MEMORY_MB` …) and `amount` of each.",
            lambda allocation: [
                {"class": name, "amount": amount} for name, amount in allocation.resources.items()
            ],
        ),
    )
    consumer: str
    entries: Mapping[str, Mapping[str, object]]
    """Provider UUID → the consumer's entry for that provider."""
    providers: Mapping[str, Provider] = field(repr=False)
    """Every provider that was collected, by UUID."""
    whole: bool
    """True if complete: resources of other providers would also be listed."""

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it.

        The place names the consumer, unless the answer is about this consumer alone.
        """
        answer, _ = super().where(name)
        about = answer is not None and answer.query.startswith("GET /allocations/")
        return answer, "allocations" if about else f"allocations.{self.consumer}"

    @property
    def held(self) -> Mapping[str, Amounts]:
        """Provider UUID → the amounts that the consumer holds of it."""
        return {uuid: _amounts(entry.get("resources")) for uuid, entry in self.entries.items()}

    @property
    def resources(self) -> Amounts:
        """The amounts that the consumer holds, summed over all providers."""
        total: dict[str, int] = {}
        for amounts in self.held.values():
            for name, amount in amounts.items():
                total[name] = total.get(name, 0) + amount
        return total

    @property
    def roots(self) -> frozenset[str]:
        """UUIDs of the hosts (and shared storage) that the consumer holds resources of."""
        return frozenset(self.root(uuid) for uuid in self.entries)

    @property
    def hosts(self) -> frozenset[str]:
        """UUIDs of the hosts that the consumer holds resources of. Raises `UnheardError`."""
        givers = (uuid for uuid, amounts in self.held.items() if OF_A_HOST & amounts.keys())
        return frozenset(map(self.root, givers))

    def root(self, uuid: str) -> str:
        """Return the UUID of the host that a provider is a part of. Raises `UnheardError`."""
        return self.provider(uuid).root

    def provider(self, uuid: str) -> Provider:
        """Return the provider with a UUID. Raises `UnheardError` if it was not collected."""
        if uuid not in self.providers:
            raise UnheardError(f"placement: provider {uuid} was not collected")
        return self.providers[uuid]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the allocation's providers; the UUID where the name was not collected."""
        return tuple(sorted(self._name(uuid) for uuid in self.entries))

    def _name(self, uuid: str) -> str:
        try:
            return self.providers[uuid].name or uuid
        except (KeyError, UnheardError):
            return uuid

    @property
    def words(self) -> str:
        """The amounts per provider, in words: `1 VCPU, 64 MEMORY_MB of vm; 1 PCI of vm_pci`."""
        return "; ".join(
            f"{worded(amounts)} of {self._name(uuid)}" for uuid, amounts in self.held.items()
        )

    @property
    def consumer_type(self) -> str | None:
        """`INSTANCE`, `MIGRATION` or another service's type; None if it is not known."""
        answer = self.said.get("consumer")
        value = answer.value if answer is not None else None
        kind = value.get("consumer_type") if isinstance(value, dict) else None
        return kind if isinstance(kind, str) and kind != "unknown" else None


class Placement:
    """All answers of placement: providers and consumers."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.providers: dict[str, Provider] = {}
        self.lists: list[Answer] = []
        """Answers that list providers: all of them, or those of one name."""
        self.obstacle: str | None = None
        """Message of placement's first error; None without one."""
        self._consumers: dict[str, Answer] = {}
        self._of_all: Answer | None = None
        said: dict[str, dict[str, Answer]] = {}
        raws: dict[str, Mapping[str, object]] = {}
        for answer in answers:
            found = _QUERY.fullmatch(answer.query)
            if answer.error is not None and self.obstacle is None:
                self.obstacle = answer.error.message
            if found is None:
                continue
            uuid = (found["uuid"] or "").lower()
            if found["what"] == "allocations":
                self._consumers[uuid] = answer
            elif found["part"]:
                said.setdefault(uuid, {})[found["part"]] = answer
            elif answer.error is None:
                if not uuid:
                    self.lists.append(answer)
                    self._of_all = answer if not found["filter"] else self._of_all
                for entry in _listed(answer):
                    its = str(entry.get("uuid")).lower()
                    raws[its] = entry
                    said.setdefault(its, {})["provider"] = answer
        for uuid, entry in raws.items():
            # The list comes first, because fields without a place of their own are read from it.
            parts = {"provider": said[uuid]["provider"], **said[uuid]}
            self.providers[uuid] = Provider(uuid=uuid, raw=entry, said=parts)

    @cached_property
    def _held(self) -> Mapping[str, Mapping[str, Provider]]:
        """Consumer → the providers whose lists contain it."""
        found: dict[str, dict[str, Provider]] = {}
        for provider in self.providers.values():
            try:
                consumers = provider.consumers
            except Exception as error:
                caught(error)
                continue
            for consumer in consumers:
                found.setdefault(consumer, {})[provider.uuid] = provider
        return found

    @cached_property
    def consumers(self) -> frozenset[str]:
        """UUIDs of all consumers that hold anything."""
        asked = (uuid for uuid in self._consumers if self.of(uuid) is not None)
        return frozenset([*self._held, *asked])

    def of(self, consumer: str) -> Allocation | None:
        """Return what a consumer holds; None if it holds nothing, or if that is not known.

        `nothing` tells the two apart.
        """
        try:
            entries = self._own(consumer)
        except Exception as error:
            caught(error)
            listed = self._held.get(consumer, {})
            if not listed:
                return None
            return Allocation(
                consumer=consumer,
                entries={u: provider.consumers[consumer] for u, provider in listed.items()},
                providers=self.providers,
                whole=self._unread is None,
                said={u: provider.said["allocations"] for u, provider in listed.items()},
            )
        if not entries:
            return None
        return Allocation(
            consumer=consumer,
            entries=entries,
            providers=self.providers,
            whole=True,
            said={"consumer": self._consumers[consumer]},
        )

    def nothing(self, consumer: str) -> Answer:
        """Return the answer that proves that a consumer holds nothing.

        Raises `UnheardError` if no answer does.
        """
        if consumer in self._consumers:
            self._own(consumer)
            return self._consumers[consumer]
        if self._unread is None and self._of_all is not None:
            return self._of_all
        why = self.obstacle or self._unread or "the allocation was not collected"
        raise UnheardError(f"placement: {why}")

    def without(self, provider: str) -> Answer:
        """Return the answer that proves that a provider does not exist.

        Raises `UnheardError` if no answer does.
        """
        for answer in self.lists:
            if answer is self._of_all or provider in answer.query:
                return answer
        raise UnheardError(f"placement: {self.obstacle or 'this provider was not collected'}")

    def _own(self, consumer: str) -> Mapping[str, Mapping[str, object]]:
        """Return provider UUID → entry, from the answer about this consumer alone."""
        found = item_of(self._consumers.get(consumer), "allocations", "the allocation")
        if not all(isinstance(entry, dict) for entry in found.values()):
            raise UnheardError("the allocation can't be read")
        return {uuid.lower(): entry for uuid, entry in found.items()}

    @cached_property
    def _unread(self) -> str | None:
        """Return why the providers' lists may miss a consumer; None if they contain all of them."""
        if self._of_all is None:
            return "the list of all providers was not collected"
        try:
            for provider in self.providers.values():
                provider.consumers  # noqa: B018 (raises if it was not collected)
        except UnheardError as reason:
            return str(reason)
        return None


def worded(amounts: Amounts) -> str:
    """Return amounts in words, in nova's usual order: `1 VCPU, 64 MEMORY_MB`."""
    order = {"VCPU": 0, "PCPU": 1, "MEMORY_MB": 2, "DISK_GB": 3}
    named = sorted(amounts.items(), key=lambda item: (order.get(item[0], 9), item[0]))
    return ", ".join(f"{amount} {name}" for name, amount in named)


def _amounts(raw: object) -> Amounts:
    if not isinstance(raw, dict):
        raise UnheardError("the amounts of the allocation can't be read")
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in raw.values()):
        raise UnheardError("the amounts of the allocation can't be read")
    return raw


def _listed(answer: Answer) -> Iterator[Mapping[str, object]]:
    """Yield the providers of a list, or the one provider of a single answer."""
    if not isinstance(answer.value, dict):
        return
    listed = answer.value.get("resource_providers", [answer.value])
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("uuid"), str):
            yield entry
