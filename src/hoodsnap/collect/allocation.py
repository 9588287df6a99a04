"""The placement API: what each host has, and who holds how much of it.

It knows no hosts and no servers: a host is a resource provider (its compute node's UUID, its
hypervisor's name), a server a consumer with its UUID. While one is moved, its migration is another.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import quote

from hoodsnap.bundle import Answer
from hoodsnap.collect.cloud_client import LOGIN_TIME, PATIENCE, CloudClient
from hoodsnap.collect.instance import rows_of
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.facts.database.tables import SELECT
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.allow_list import placement_body

LAYER = "placement"

MICROVERSION = (1, 39)
"""The highest that is asked for: Zed's. Later ones add nothing that is kept."""

TREES, TRAITS = (1, 14), (1, 6)
"""Since when a provider has children, and traits."""

LIST_PATIENCE = 60.0
"""Seconds for the list of all providers."""

AT_ONCE = 4
"""Requests at the same time."""

ALLOCATIONS_TIME = 60.0
"""Seconds for everything together."""


class AllocationApi:
    """The placement API of one cloud."""

    def __init__(self, recorder: Recorder, cloud: str | None = None) -> None:
        """Asks nothing yet. `cloud` is a name of clouds.yaml."""
        self._recorder = recorder
        self._cloud = CloudClient(cloud)
        self._base = ""
        self._microversion = (1, 0)
        self._end = 0.0
        self._providers: set[str] = set()
        """Those that were shown by name."""
        self._asked: set[str] = set()
        self._held: dict[str, set[str]] = {}
        """Who holds something of which provider."""

    @property
    def consumers(self) -> set[str]:
        """Whoever holds something of a provider that was asked."""
        return set(self._held)

    def connect(self) -> bool:
        """Log in and ask which version the API speaks. False: there is none to ask, for a reason
        that is recorded."""
        self._end = time.monotonic() + ALLOCATIONS_TIME
        answer = self._recorder.ask(LAYER, "GET /", self._discover, patience=LOGIN_TIME)
        return answer.error is None

    def _discover(self) -> object:
        base = self._cloud.endpoint("placement").rstrip("/")
        body = placement_body(self._cloud.get(f"{base}/", {}).body)
        self._microversion = _highest(body)
        self._base = base
        return body

    def ask_providers(self, names: Collection[str] | None = None) -> None:
        """Ask for the providers of these names (or UUIDs) with all below them, or for all of them:
        what each has, and who holds what of it."""
        if not self._base:
            return
        if names is None:
            pages = [self._ask("/resource_providers", patience=LIST_PATIENCE)]
        else:
            pages = self._trees(names)
        found = sorted({provider["uuid"] for page in pages for provider in _providers(page)})
        parts = ["allocations", "inventories", "usages"]
        parts += ["aggregates", "traits"] if self._microversion >= TRAITS else []
        self._together(partial(self._ask_provider, uuid, part) for uuid in found for part in parts)

    def ask_consumers(self, uuids: Iterable[str]) -> None:
        """Ask what each of these holds, of whatever provider; nothing is asked twice."""
        if not self._base:
            return
        new = sorted(set(uuids) - self._asked)
        self._asked.update(new)
        self._together(partial(self._ask_consumer, uuid) for uuid in new)
        # Of providers that are of no captured host, at least the name.
        foreign = sorted(set[str]().union(*self._held.values()) - self._providers)
        self._providers.update(foreign)
        self._together(
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
        number = f"{self._microversion[0]}.{self._microversion[1]}"
        headers = {"OpenStack-API-Version": f"placement {number}"}

        def how() -> object:
            if time.monotonic() > self._end:
                raise RefusedError("timeout", "not asked: placement took too long")
            return placement_body(
                self._cloud.get(self._base + path, headers, patience=patience).body
            )

        text = f"GET {path} [{number}]"
        return self._recorder.ask(LAYER, text, how, subject=subject, patience=patience + 10)

    def _together(self, tasks: Iterator[Callable[[], object]]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda task: task(), tasks):
                pass


def names_of(answers: Iterable[Answer], nova_host: str) -> set[str]:
    """What the providers of a host may be called: by what was heard of its hypervisors, their names
    and UUIDs."""
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
            for node in _dicts(answer.value.get("hypervisors")):
                if _of_host(node, nova_host):
                    found |= {str(node.get("id")), str(node.get("hypervisor_hostname"))}
    return {name for name in found if name and not name.isdecimal()}


def _of_host(node: dict[str, Any], nova_host: str) -> bool:
    service = node.get("service")
    return isinstance(service, dict) and service.get("host") == nova_host


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _providers(answer: Answer) -> list[dict[str, Any]]:
    """The providers of a list."""
    if answer.error is not None or not isinstance(answer.value, dict):
        return []
    listed = _dicts(answer.value.get("resource_providers"))
    return [provider for provider in listed if isinstance(provider.get("uuid"), str)]


def _keys(answer: Answer) -> list[str]:
    """The keys of allocations: of a provider the consumers, of a consumer the providers."""
    if answer.error is not None or not isinstance(answer.value, dict):
        return []
    held = answer.value.get("allocations")
    return list(held) if isinstance(held, dict) else []


def _highest(body: Any) -> tuple[int, int]:
    """The highest microversion that both sides know."""
    try:
        [theirs] = [re.fullmatch(r"(\d+)\.(\d+)", v["max_version"]) for v in body["versions"][:1]]
    except (TypeError, KeyError, ValueError):
        theirs = None
    if theirs is None:
        raise RefusedError("failed", "the placement endpoint does not say which versions it has")
    return min(MICROVERSION, (int(theirs[1]), int(theirs[2])))
