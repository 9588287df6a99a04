"""Neutron API: the guests' ports, and the networks, routers and security groups they use.

Bodies are kept by an allow-list: values of unknown keys are withheld.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlencode

from hoodsnap.bundle import Answer
from hoodsnap.collect.cloud_client import LOGIN_TIME, PATIENCE, CloudClient
from hoodsnap.collect.crew import together
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.rest_api import (
    LIST_PATIENCE,
    items,
    object_of,
    pages,
    quote,
    unversioned,
)
from hoodsnap.keep.neutron_api import network_body

LAYER = "neutron"

PAGE = 1000
"""Ports per page. Neutron may be configured to return fewer."""

NAMED = 50
"""Ids per request: proxies reject longer URLs."""

BINDINGS_TIME = 20.0
"""Seconds for the bindings of all ports together; each port takes one request."""


@dataclass(frozen=True)
class SeenNetworks:
    """Networks and routers of the guests' ports, which decide the namespaces to look into."""

    ports: tuple[str, ...] = ()
    """Ids of the guests' ports."""
    devices: frozenset[str] = field(default_factory=frozenset)
    """Owners of ports on the hosts that were asked about: UUIDs, mostly of servers."""
    networks: frozenset[str] = field(default_factory=frozenset)
    routers: frozenset[str] = field(default_factory=frozenset)


class PortApi:
    """Neutron API of one cloud."""

    def __init__(self, recorder: Recorder, cloud: str | None = None) -> None:
        """Send no request yet. `cloud` is a name in clouds.yaml."""
        self._recorder = recorder
        self._cloud = CloudClient(cloud)
        self._base = ""

    def connect(self) -> bool:
        """Log in and ask for the API's extensions.

        Returns False if the API can't be asked; the reason is recorded.
        """

        def how() -> object:
            root, _ = unversioned(self._cloud.endpoint("network"))
            body = self._body(f"{root}/v2.0/extensions")
            self._base = f"{root}/v2.0"
            return body

        answer = self._recorder.ask(LAYER, "GET /v2.0/extensions", how, patience=LOGIN_TIME)
        self._extensions = {item["alias"] for item in items(answer, "extensions", "alias")}
        return answer.error is None

    def ask(self, host: str | None, uuids: Iterable[str]) -> SeenNetworks:
        """Ask for the ports of a host and of these servers, and for what the ports use.

        `host`: None asks for all hosts.
        """
        servers = frozenset(uuids)
        ports = self._ask_ports(host, sorted(servers))
        networks = {port["network_id"] for port in ports if isinstance(port.get("network_id"), str)}
        guests = [port for port in ports if _is_guests(port)]
        # What they use is asked of ports that lost their owner, too: they are still their servers'.
        used = [*guests, *(port for port in ports if _is_disowned(port, servers))]
        theirs = {port["network_id"] for port in guests if isinstance(port.get("network_id"), str)}
        routers = self._ask_routers(theirs)
        of_host = f"?host={quote(host)}" if host is not None else ""
        groups = {group for port in used for group in _texts(port.get("security_groups"))}
        tasks: list[Callable[[], object]] = [
            *self._of_all(host, "/networks", "id", networks),
            *self._of_all(host, "/subnets", "network_id", networks),
            *self._of_all(host, "/routers", "id", routers),
            *self._of_all(host, "/floatingips", "port_id", {port["id"] for port in used}),
            *self._of_all(host, "/security-groups", "id", groups),
            partial(self._get, f"/agents{of_host}"),
            *self._bindings(used),
        ]
        together(tasks)
        return SeenNetworks(
            ports=tuple(port["id"] for port in guests),
            devices=frozenset(port["device_id"] for port in guests),
            networks=frozenset(theirs),
            routers=frozenset(routers),
        )

    def ask_again(self, uuids: Iterable[str]) -> None:
        """Ask again for the ports of these servers, which have changed."""
        if not self._base:
            return
        for some in _groups(sorted(uuids)):
            self._pages("/ports", {"device_id": some}, "ports")

    def close(self) -> None:
        """Close the connections."""
        self._cloud.close()

    def _ask_ports(self, host: str | None, uuids: Sequence[str]) -> list[dict[str, Any]]:
        if host is None:
            return self._pages("/ports", {}, "ports")
        found = self._pages("/ports", {"binding:host_id": host}, "ports")
        # A server on this host may have ports that are bound to another host.
        for some in _groups(uuids):
            found += self._pages("/ports", {"device_id": some}, "ports")
        return list({port["id"]: port for port in found}.values())

    def _ask_routers(self, networks: Collection[str]) -> set[str]:
        """Return the ids of the routers that have an interface in these networks."""
        found = []
        for some in _groups(sorted(networks)):
            owners = [
                "network:router_interface",
                "network:router_interface_distributed",
                "network:ha_router_replicated_interface",
            ]
            found += self._pages("/ports", {"network_id": some, "device_owner": owners}, "ports")
        return {port["device_id"] for port in found if isinstance(port.get("device_id"), str)}

    def _of_all(
        self, host: str | None, path: str, key: str, values: Collection[str]
    ) -> Iterator[Callable[[], object]]:
        """Ask for these objects only, or for the whole list if all hosts are collected.

        Clients of the recording ask for whole lists.
        """
        if host is None:
            yield partial(self._pages, path, {}, path[1:].replace("-", "_"))
        else:
            yield from self._in_groups(path, key, values)

    def _in_groups(
        self, path: str, key: str, values: Collection[str]
    ) -> Iterator[Callable[[], object]]:
        for some in _groups(sorted(values)):
            yield partial(self._pages, path, {key: some}, path[1:].replace("-", "_"))

    def _bindings(self, ports: Iterable[dict[str, Any]]) -> Iterator[Callable[[], object]]:
        """Ask for the bindings of each port: one per host, two during a live migration."""
        end = time.monotonic() + BINDINGS_TIME
        # Since Pike; admin only.
        if "binding-extended" not in self._extensions:
            return
        for port in ports:
            if port.get("binding:host_id"):
                yield partial(self._ask_bindings, port["id"], end)

    def _ask_bindings(self, port: str, end: float) -> None:
        if time.monotonic() < end:
            self._get(f"/ports/{quote(port)}/bindings", subject=port)

    # Requests

    def _get(
        self, target: str, *, subject: str | None = None, patience: float = PATIENCE
    ) -> Answer:
        how = partial(self._body, self._base + target, patience)
        text = f"GET /v2.0{target}"
        return self._recorder.ask(LAYER, text, how, subject=subject, patience=patience + 10)

    def _body(self, url: str, patience: float = PATIENCE) -> dict[str, Any]:
        body = network_body(self._cloud.get(url, {}, patience=patience).body)
        return object_of(body, "neutron")

    def _refuse(self, path: str, query: str, why: str) -> None:
        self._recorder.refuse(LAYER, f"GET /v2.0{path}?{query}", RefusedError("timeout", why))

    def _pages(
        self, path: str, query: dict[str, str | Sequence[str]], name: str
    ) -> list[dict[str, Any]]:
        """Ask for all pages of a list and return its items.

        If the list does not end, a failure is recorded.
        """
        whole = urlencode({**query, "limit": PAGE}, doseq=True, safe=":", errors="replace")

        def ask(query: str) -> Answer:
            return self._get(f"{path}?{query}", patience=LIST_PATIENCE)

        found = pages(ask, partial(self._refuse, path), whole, name)
        return [item for page in found for item in items(page, name)]


def _is_guests(port: dict[str, Any]) -> bool:
    owner = port.get("device_owner")
    is_one = isinstance(owner, str) and owner.startswith("compute:")
    return is_one and isinstance(port.get("device_id"), str)


def _is_disowned(port: dict[str, Any], servers: Collection[str]) -> bool:
    """True if the port names one of these servers, but its device_owner does not say so."""
    return port.get("device_id") in servers and not port.get("device_owner")


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _groups(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(values), NAMED):
        yield values[at : at + NAMED]
