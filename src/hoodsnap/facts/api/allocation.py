"""What placement says: what each resource provider has, and what each consumer holds of it."""

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

_QUERY = re.compile(
    r"GET /(?P<what>resource_providers|allocations)(/(?P<uuid>[^/?\s]+))?(/(?P<part>\w+))?"
    r"(?P<filter>\?\S+)?( \[[\d.]+\])?"
)

OF_A_HOST = frozenset(["VCPU", "PCPU", "MEMORY_MB"])
"""The resource classes that only the host a server runs on can give. Disk may be shared storage."""

Amounts = Mapping[str, int]
"""Resource class → how many: `{"VCPU": 1, "MEMORY_MB": 64}`."""


class Inventory(NamedTuple):
    """What a provider has of one resource class."""

    total: int
    reserved: int
    ratio: float
    """Allocation ratio: how many times each unit may be allocated."""

    @property
    def capacity(self) -> float:
        """How many placement gives away at most."""
        return (self.total - self.reserved) * self.ratio


@dataclass(frozen=True, eq=False, kw_only=True)
class Provider(Fact):
    """A resource provider: a compute node, or a part of one, or storage that many share."""

    layer: ClassVar[Layer] = PLACEMENT
    noun: ClassVar[str] = "provider"
    uuid: str
    raw: Mapping[str, object]

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "inventories": ("inventories", "inventories"),
        "traits": ("traits", "traits"),
        "consumers": ("allocations", "allocations"),
    }

    @property
    def name(self) -> str | None:
        """The hypervisor's, if it is a compute node."""
        return text(self.raw, "name")

    @property
    def root(self) -> str:
        """The UUID of the provider that it belongs to: its own, if it is nobody's part."""
        if "root_provider_uuid" not in self.raw:  # before 1.14 there were no parts
            return self.uuid
        return (text(self.raw, "root_provider_uuid") or self.uuid).lower()

    @cached_property
    def inventories(self) -> Mapping[str, Inventory]:
        """What it has, by resource class."""
        found = {}
        for name, raw in self._part("inventories").items():
            if not isinstance(raw, dict):
                raise UnheardError(f"the inventory of {name} can't be read")
            total, reserved = integer(raw, "total"), integer(raw, "reserved")
            ratio = raw.get("allocation_ratio", 1.0)
            if total is None or not isinstance(ratio, int | float):
                raise UnheardError(f"the inventory of {name} can't be read")
            found[name] = Inventory(total, reserved or 0, float(ratio))
        return found

    @cached_property
    def traits(self) -> frozenset[str]:
        """What it can do, `COMPUTE_STATUS_DISABLED` among it."""
        answer = value_of(self.said.get("traits"), "the provider's traits", dict[str, object])
        listed = answer.get("traits")
        if not isinstance(listed, list):
            raise UnheardError("the provider's traits can't be read")
        return frozenset(trait for trait in listed if isinstance(trait, str))

    @cached_property
    def consumers(self) -> Mapping[str, Mapping[str, object]]:
        """Who holds something of it, and the entry that says what."""
        entries = self._part("allocations")
        return {uuid.lower(): entry for uuid, entry in entries.items() if isinstance(entry, dict)}

    def _part(self, part: str) -> Mapping[str, object]:
        return item_of(self.said.get(part), part, f"the provider's {part}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Allocation(Fact):
    """All that one consumer holds: a server's, or a migration's."""

    layer: ClassVar[Layer] = PLACEMENT
    noun: ClassVar[str] = "allocation"

    documented: ClassVar[Documented] = (
        DocumentedField(
            "resources",
            "The resources it holds: `class` (`VCPU`, `MEMORY_MB` …) and `amount` of each.",
            lambda allocation: [
                {"class": name, "amount": amount} for name, amount in allocation.resources.items()
            ],
        ),
    )
    consumer: str
    entries: Mapping[str, Mapping[str, object]]
    """Provider UUID → what is held of it."""
    providers: Mapping[str, Provider] = field(repr=False)
    """All that are known."""
    whole: bool
    """Whether it would have been seen if it held more, of other providers."""

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place names what the answer is not about."""
        answer, _ = super().where(name)
        about = answer is not None and answer.query.startswith("GET /allocations/")
        return answer, "allocations" if about else f"allocations.{self.consumer}"

    @property
    def held(self) -> Mapping[str, Amounts]:
        """What it holds, by provider UUID."""
        return {uuid: _amounts(entry.get("resources")) for uuid, entry in self.entries.items()}

    @property
    def resources(self) -> Amounts:
        """What it holds of all providers together."""
        total: dict[str, int] = {}
        for amounts in self.held.values():
            for name, amount in amounts.items():
                total[name] = total.get(name, 0) + amount
        return total

    @property
    def roots(self) -> frozenset[str]:
        """The UUIDs of the hosts (and of shared storage) that it holds something of."""
        return frozenset(self.root(uuid) for uuid in self.entries)

    @property
    def hosts(self) -> frozenset[str]:
        """The UUIDs of the hosts that it holds something of. Raises `UnheardError`."""
        givers = (uuid for uuid, amounts in self.held.items() if OF_A_HOST & amounts.keys())
        return frozenset(map(self.root, givers))

    def root(self, uuid: str) -> str:
        """The host that a provider is a part of. Raises `UnheardError`."""
        return self.provider(uuid).root

    def provider(self, uuid: str) -> Provider:
        """One of those that it holds something of, or the host of one. Raises `UnheardError`."""
        if uuid not in self.providers:
            raise UnheardError(f"provider {uuid} was not asked")
        return self.providers[uuid]

    @property
    def names(self) -> tuple[str, ...]:
        """What its providers are called; their UUIDs where that was not heard."""
        return tuple(sorted(self._name(uuid) for uuid in self.entries))

    def _name(self, uuid: str) -> str:
        try:
            return self.providers[uuid].name or uuid
        except (KeyError, UnheardError):
            return uuid

    @property
    def words(self) -> str:
        """`1 VCPU, 64 MEMORY_MB of vm`; of several providers what is held of each."""
        return "; ".join(
            f"{worded(amounts)} of {self._name(uuid)}" for uuid, amounts in self.held.items()
        )

    @property
    def consumer_type(self) -> str | None:
        """`INSTANCE`, `MIGRATION` or what another service calls it; None if nobody said."""
        answer = self.said.get("consumer")
        value = answer.value if answer is not None else None
        kind = value.get("consumer_type") if isinstance(value, dict) else None
        return kind if isinstance(kind, str) and kind != "unknown" else None


class Placement:
    """All that placement said."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.providers: dict[str, Provider] = {}
        self.lists: list[Answer] = []
        """The lists of providers, whole or for one name."""
        self.obstacle: str | None = None
        """Why it did not speak, if it did not even begin to."""
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
            # The list first: where a field has no other place, it was read from there.
            parts = {"provider": said[uuid]["provider"], **said[uuid]}
            self.providers[uuid] = Provider(uuid=uuid, raw=entry, said=parts)

    @cached_property
    def _held(self) -> Mapping[str, Mapping[str, Provider]]:
        """Consumer → the providers whose lists have it."""
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
        """Everybody who holds something."""
        asked = (uuid for uuid in self._consumers if self.of(uuid) is not None)
        return frozenset([*self._held, *asked])

    def of(self, consumer: str) -> Allocation | None:
        """What a consumer holds; None if nothing, or if that was not heard (see `nothing`)."""
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
        """The answer that shows that a consumer holds nothing. Raises `UnheardError` if none
        does."""
        if consumer in self._consumers:
            self._own(consumer)
            return self._consumers[consumer]
        if self._unread is None and self._of_all is not None:
            return self._of_all
        raise UnheardError(f"placement: {self.obstacle or self._unread or 'it was not asked'}")

    def without(self, provider: str) -> Answer:
        """The answer that shows that there is no such provider. Raises `UnheardError` if none
        does."""
        for answer in self.lists:
            if answer is self._of_all or provider in answer.query:
                return answer
        raise UnheardError(f"placement: {self.obstacle or 'it was not asked for this provider'}")

    def _own(self, consumer: str) -> Mapping[str, Mapping[str, object]]:
        """What the answer about this consumer says: provider UUID → entry."""
        found = item_of(self._consumers.get(consumer), "allocations", "what it holds")
        if not all(isinstance(entry, dict) for entry in found.values()):
            raise UnheardError("what it holds can't be read")
        return {uuid.lower(): entry for uuid, entry in found.items()}

    @cached_property
    def _unread(self) -> str | None:
        """Why the providers' lists don't have everybody who holds something; None if they do."""
        if self._of_all is None:
            return "it was not asked for all providers"
        try:
            for provider in self.providers.values():
                provider.consumers  # noqa: B018 (raises if it was not heard)
        except UnheardError as reason:
            return str(reason)
        return None


def worded(amounts: Amounts) -> str:
    """`1 VCPU, 64 MEMORY_MB`, in the order in which nova counts."""
    order = {"VCPU": 0, "PCPU": 1, "MEMORY_MB": 2, "DISK_GB": 3}
    named = sorted(amounts.items(), key=lambda item: (order.get(item[0], 9), item[0]))
    return ", ".join(f"{amount} {name}" for name, amount in named)


def _amounts(raw: object) -> Amounts:
    if not isinstance(raw, dict):
        raise UnheardError("the amounts can't be read")
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in raw.values()):
        raise UnheardError("the amounts can't be read")
    return raw


def _listed(answer: Answer) -> Iterator[Mapping[str, object]]:
    """The providers of a list; of a question for one, that one."""
    if not isinstance(answer.value, dict):
        return
    listed = answer.value.get("resource_providers", [answer.value])
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("uuid"), str):
            yield entry
