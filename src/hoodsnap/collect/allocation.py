"""Placement API: the resources of each host, and the consumers that hold them.

Placement knows neither hosts nor servers. A host is a resource provider (with its compute node's
UUID and its hypervisor's name); a server is a consumer with the server's UUID. While a server is
moved, its migration is a second consumer.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.collect.cloud_client import LOGIN_TIME, PATIENCE, CloudClient
from hoodsnap.collect.crew import together
from hoodsnap.collect.instance import rows_of
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.rest_api import (
    LIST_PATIENCE,
    Microversion,
    items,
    negotiated,
    object_of,
    objects,
    quote,
    written,
)
from hoodsnap.facts.database.tables import SELECT
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.placement_api import placement_body

LAYER = "placement"

MICROVERSION = (1, 39)
"""Highest microversion that is requested: Zed's. Later ones add nothing that is kept."""

TREES, TRAITS = (1, 14), (1, 6)
"""First microversions in which providers have children, and traits."""

ALLOCATIONS_TIME = 60.0
"""Seconds for all requests to placement together."""


class AllocationApi:
    """The placement API of one cloud."""

    def __init__(self, recorder: Recorder, cloud: str | None = None) -> None:
        """Send no request yet. `cloud` is a name in clouds.yaml."""
        self._recorder = recorder
        self._cloud = CloudClient(cloud)
        self._base = ""
        self._microversion = (1, 0)
        self._end = 0.0
        self._providers: set[str] = set()
        """UUIDs of the providers that were requested already."""
        self._asked: set[str] = set()
        self._held: dict[str, set[str]] = {}
        """Consumer → the providers from which it holds resources."""

    @property
    def consumers(self) -> set[str]:
        """UUIDs of the consumers that hold resources of a collected provider."""
        return set(self._held)

    def connect(self) -> bool:
        """Log in and agree on a microversion with the API.

        Return False if the API can't be used; the reason is recorded.
        """
        self._end = time.monotonic() + ALLOCATIONS_TIME
        answer = self._recorder.ask(LAYER, "GET /", self._discover, patience=LOGIN_TIME)
        return answer.error is None

    def _discover(self) -> object:
        base = self._cloud.endpoint("placement").rstrip("/")
        body = object_of(placement_body(self._cloud.get(f"{base}/", {}).body), "placement")
        self._microversion = _agreed(body)
        self._base = base
        return body

    def ask_providers(self, names: Collection[str] | None = None) -> None:
        """Ask for providers, their resources, and the consumers that hold them.

        `names`: names or UUIDs of the providers, whose children are included; None: all providers.
        """
        if not self._base:
            return
        if names is None:
            pages = [self._ask("/resource_providers", patience=LIST_PATIENCE)]
        else:
            pages = self._trees(names)
        found = sorted({provider["uuid"] for page in pages for provider in _providers(page)})
        parts = ["allocations", "inventories", "usages"]
        parts += ["aggregates", "traits"] if self._microversion >= TRAITS else []
        together(partial(self._ask_provider, uuid, part) for uuid in found for part in parts)

    def ask_consumers(self, uuids: Iterable[str]) -> None:
        """Ask what each of these consumers holds, from any provider. Nothing is asked twice."""
        if not self._base:
            return
        new = sorted(set(uuids) - self._asked)
        self._asked.update(new)
        together(partial(self._ask_consumer, uuid) for uuid in new)
        # For providers that belong to no collected host, ask at least for the name.
        foreign = sorted(set[str]().union(*self._held.values()) - self._providers)
        self._providers.update(foreign)
        together(
            partial(self._ask, f"/resource_providers/{quote(uuid)}", subject=uuid)
            for uuid in foreign
        )

    def close(self) -> None:
        """End the connections."""
        self._cloud.close()

    def _trees(self, names: Collection[str]) -> list[Answer]:
        uuids = {name for name in names if UUID.fullmatch(name)}
        pages = [
            self._ask(f"/resource_providers?name={quote(name)}")
            for name in sorted(set(names) - uuids)
        ]
        uuids |= {provider["uuid"] for page in pages for provider in _providers(page)}
        how = "in_tree" if self._microversion >= TREES else "uuid"
        return [self._ask(f"/resource_providers?{how}={uuid}") for uuid in sorted(uuids)]

    def _ask_provider(self, uuid: str, part: str) -> None:
        self._providers.add(uuid)
        answer = self._ask(f"/resource_providers/{quote(uuid)}/{part}", subject=uuid)
        if part == "allocations":
            for consumer in _keys(answer):
                self._held.setdefault(consumer, set()).add(uuid)

    def _ask_consumer(self, uuid: str) -> None:
        answer = self._ask(f"/allocations/{quote(uuid)}", subject=uuid)
        if providers := _keys(answer):
            self._held.setdefault(uuid, set()).update(providers)

    def _ask(self, path: str, *, subject: str | None = None, patience: float = PATIENCE) -> Answer:
        number = written(self._microversion)
        headers = {"OpenStack-API-Version": f"placement {number}"}

        def how() -> object:
            if time.monotonic() > self._end:
                message = (
                    f"not asked: placement's answers took more than {ALLOCATIONS_TIME:g} s in total"
                )
                raise RefusedError("timeout", message)
            body = self._cloud.get(self._base + path, headers, patience=patience).body
            return object_of(placement_body(body), "placement")

        text = f"GET {path} [{number}]"
        return self._recorder.ask(LAYER, text, how, subject=subject, patience=patience + 10)


def names_of(answers: Iterable[Answer], nova_host: str) -> set[str]:
    """Return the names and UUIDs that the providers of a host may have.

    They are those of its hypervisors, from the answers collected so far.
    """
    found = {nova_host}
    for answer in answers:
        if answer.error is not None:
            continue
        if answer.layer == "libvirt" and answer.query == "virsh hostname":
            found.add(str(answer.value))
        elif answer.layer == "nova-db":
            table = SELECT.match(answer.query)
            if table and table["table"].strip("`") == "compute_nodes":
                rows = [row for row in rows_of(answer) if nova_host in (row.get("host"), None)]
                found |= {
                    row[key]
                    for row in rows
                    for key in ("uuid", "hypervisor_hostname")
                    if row.get(key)
                }
        elif answer.layer == "nova" and "/os-hypervisors/" in answer.query:
            for node in items(answer, "hypervisors", "hypervisor_hostname"):
                if _of_host(node, nova_host):
                    found |= {str(node.get("id")), str(node.get("hypervisor_hostname"))}
    return {name for name in found if name and not name.isdecimal()}


def _of_host(node: dict[str, Any], nova_host: str) -> bool:
    service = node.get("service")
    return isinstance(service, dict) and service.get("host") == nova_host


def _providers(answer: Answer) -> list[dict[str, Any]]:
    """Return the providers in a list that the API returned."""
    return items(answer, "resource_providers", "uuid")


def _keys(answer: Answer) -> list[str]:
    """Return the keys of allocations: a provider's consumers, or a consumer's providers."""
    if answer.error is not None or not isinstance(answer.value, dict):
        return []
    held = answer.value.get("allocations")
    return list(held) if isinstance(held, dict) else []


def _agreed(body: dict[str, Any]) -> Microversion:
    """Return the highest microversion that both sides support. Raises `RefusedError`."""
    versions = objects(body.get("versions"), "max_version")
    found = negotiated(versions[0]["max_version"], MICROVERSION) if versions else None
    if found is None:
        raise RefusedError("failed", "placement lists no microversion that hoodsnap supports")
    return found
