"""Nova API, and the glance images that its servers use. Bodies are kept by allow-lists.

The user may be an admin or a tenant. A denied request is recorded as denied, and then what the user
may see is asked for instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.collect.clients import ask_for_clients
from hoodsnap.collect.cloud_client import LOGIN_TIME, PATIENCE, CloudClient
from hoodsnap.collect.crew import together
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.rest_api import (
    LIST_PATIENCE,
    Microversion,
    items,
    negotiated,
    next_marker,
    object_of,
    objects,
    pages,
    quote,
    unversioned,
    written,
)
from hoodsnap.keep.glance_api import image_body
from hoodsnap.keep.nova_api import api_body

MICROVERSION = (2, 96)
"""Highest microversion that is requested. From 2.98 on nova adds properties of images, from 2.100
on scheduler hints."""

HYPERVISORS = (2, 87)
"""Microversion for the hypervisors. From 2.88 on nova omits their resource numbers, and asks each
compute node."""

HISTORY_TIME = 60.0
"""Seconds for the action histories of all servers together."""


class ServerApi:
    """Nova API of one cloud. Its methods may be called from several threads."""

    def __init__(self, recorder: Recorder, cloud: str | None = None) -> None:
        """Send no request yet. `cloud` is a name in clouds.yaml."""
        self._recorder = recorder
        self._cloud = CloudClient(cloud)
        self._lock = threading.Lock()
        self._base = ""
        """URL of the endpoint, with the project's id if the catalog has it."""
        self._version = ""
        """Version of the API, as in its paths: `/v2.1`. Empty until it is known."""
        self._microversion = (2, 0)
        self._is_admin = True
        self._servers: dict[str, dict[str, Any]] = {}

    def connect(self) -> bool:
        """Log in and ask for the API's version.

        Returns False if the API can't be asked; the reason is recorded.
        """
        for version in ("/v2.1", "/v2"):
            discover = partial(self._discover, version)
            answer = self._recorder.ask("nova", f"GET {version}/", discover, patience=LOGIN_TIME)
            if answer.error is None:
                self._recorder.ask("nova", f"HEAD {version}/", self._date, patience=LOGIN_TIME)
                return True
            if answer.error.kind != "absent" or not self._base:
                return False
        return False

    def _discover(self, version: str) -> object:
        root, project = unversioned(self._cloud.endpoint("compute"))
        self._base = f"{root}{version}{project}"
        body = self._cloud.get(f"{root}{version}/", {}).body
        self._microversion = _agreed(body)
        self._version = version
        return api_body(body)

    def _date(self) -> object:
        """Return the API's clock, to compare with the clocks of the host and the database."""
        root, _ = unversioned(self._base)
        date = self._cloud.get(f"{root}{self._version}/", {}, method="HEAD").headers.get("Date")
        if date is None:
            raise RefusedError("absent", "the API returned no Date header")
        return {"date": date}

    def ask_servers(self, host: str | None = None) -> set[str]:
        """Ask for all servers of a host, or of the cloud, that this user may see.

        Returns their UUIDs.
        """
        if not self._version:
            return set()
        found: list[Answer] = []
        if self._is_admin:
            of_host = "" if host is None else f"&host={quote(host)}"
            found = self._pages("/servers/detail", f"all_tenants=True{of_host}", "servers")
            self._is_admin = not _is_denied(found[0])
        if not self._is_admin:
            found = self._pages("/servers/detail", "", "servers")
        servers = [server for page in found for server in items(page, "servers")]
        self._note(servers)
        return {server["id"] for server in servers}

    def ask_server(self, uuid: str) -> Answer | None:
        """Ask for one server; None if there is no API to ask.

        The failure `absent` means that the server does not exist.
        """
        if not self._version:
            return None
        answer = self._ask(f"/servers/{quote(uuid)}", subject=uuid)
        if answer.error is None:
            self._note(objects([answer.value.get("server")]))
        return answer

    def ask_surroundings(
        self, host: str | None = None, *, days: int = 7, events: bool = True
    ) -> None:
        """Ask for flavors, images, hypervisors, services, migrations and groups, and for the
        actions on each server in the last days.

        `events`: ask for the events of each action, too (admin only). They take most requests.
        """
        if not self._version:
            return
        since = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock:
            servers = list(self._servers.values())
        images = {image["id"] for server in servers for image in objects([server.get("image")])}
        tasks: list[Callable[[], object]] = [
            self._ask_flavors,
            partial(self._ask_migrations, host, since),
            partial(self._ask, "/os-hypervisors/detail", at_most=HYPERVISORS),
            partial(self._ask, "/os-services"),
            partial(self._ask, "/os-server-groups", "all_projects=True"),
            *(partial(self._ask_image, image) for image in sorted(images)),
            *self._histories(servers, since, events and self._is_admin),
        ]
        together(tasks)

    def ask_for_clients(self, host: str | None) -> None:
        """Ask for what only the clients of a replay need."""
        if self._version == "/v2.1":
            ask_for_clients(self._recorder, self._cloud, self._base, host)

    def close(self) -> None:
        """Close the connections."""
        self._cloud.close()

    @property
    def volumes(self) -> set[str]:
        """Ids of the volumes that nova lists as attached to the servers."""
        with self._lock:
            servers = list(self._servers.values())
        shown = (server.get("os-extended-volumes:volumes_attached") for server in servers)
        return {volume["id"] for volumes in shown for volume in objects(volumes)}

    def _note(self, servers: Iterable[dict[str, Any]]) -> None:
        with self._lock:
            self._servers.update((server["id"], server) for server in servers)

    # Flavors, migrations, images, actions

    def _ask_flavors(self) -> None:
        found = self._pages("/flavors/detail", "is_public=None", "flavors")
        if _is_denied(found[0]):
            self._pages("/flavors/detail", "", "flavors")

    def _ask_migrations(self, host: str | None, since: str) -> None:
        """Ask for the newest thousand migrations of a host, or for those of the last days of all
        hosts, if nova can filter by time."""
        if host is not None:
            self._ask("/os-migrations", f"host={quote(host)}")
        elif self._microversion >= (2, 59):
            self._pages("/os-migrations", f"changes-since={since}", "migrations")
        else:
            self._ask("/os-migrations")

    def _ask_image(self, uuid: str) -> None:
        def how() -> object:
            root, _ = unversioned(self._cloud.endpoint("image"))
            body = self._cloud.get(f"{root}/v2/images/{quote(uuid)}", {}).body
            return object_of(image_body(body), "glance")

        text = f"GET /v2/images/{uuid}"
        self._recorder.ask("glance", text, how, subject=uuid, patience=PATIENCE + 10)

    def _histories(
        self, servers: Iterable[dict[str, Any]], since: str, events: bool
    ) -> Iterator[Callable[[], object]]:
        """Ask for recent actions: at least one request per server, limited by `HISTORY_TIME`."""
        end = time.monotonic() + HISTORY_TIME
        for server in servers:
            # Every action updates its server, so all other servers have no recent actions.
            if str(server.get("updated", "")) >= since:
                yield partial(self._ask_history, server["id"], since, events, end)

    def _ask_history(self, uuid: str, since: str, events: bool, end: float) -> None:
        path = f"/servers/{quote(uuid)}/os-instance-actions"
        can_filter = self._microversion >= (2, 58)
        query = f"changes-since={since}" if can_filter else ""
        if time.monotonic() > end:
            self._refuse(path, query, "not asked: the action histories took too long", uuid)
            return
        answer = self._ask(path, query, subject=uuid)
        for action in items(answer, "instanceActions", "request_id"):
            lately = str(action.get("start_time", "")) >= since.rstrip("Z")
            if events and lately and time.monotonic() <= end:
                self._ask(f"{path}/{quote(action['request_id'])}", subject=uuid)

    # Requests

    def _ask(
        self,
        path: str,
        query: str = "",
        *,
        subject: str | None = None,
        at_most: Microversion = MICROVERSION,
        patience: float = PATIENCE,
    ) -> Answer:
        number = written(min(self._microversion, at_most))
        headers = {
            "X-OpenStack-Nova-API-Version": number,
            "OpenStack-API-Version": f"compute {number}",
        }
        target = path + (query and f"?{query}")
        url = self._base + target

        def how() -> object:
            # Clouds older than microversions get no header; all others accept this header.
            sent = headers if self._microversion > (2, 0) else {}
            return object_of(api_body(self._cloud.get(url, sent, patience=patience).body), "nova")

        text = f"GET {self._version}{target} [{number}]"
        return self._recorder.ask("nova", text, how, subject=subject, patience=patience + 10)

    def _refuse(self, path: str, query: str, why: str, subject: str | None = None) -> None:
        text = f"GET {self._version}{path}{query and '?' + query} [{written(self._microversion)}]"
        self._recorder.refuse("nova", text, RefusedError("timeout", why), subject=subject)

    def _pages(self, path: str, query: str, name: str) -> list[Answer]:
        """Ask for all pages of a list. If the list does not end, a failure is recorded."""
        ask = partial(self._ask, path, patience=LIST_PATIENCE)
        return pages(ask, partial(self._refuse, path), query, name, self._next)

    def _next(self, page: Answer, name: str) -> str | None:
        """Return the id after which the next page begins; None if this page is the last."""
        listed = items(page, name)
        if self._microversion == (2, 0) and listed:
            # Before microversions, a page that nova cut off has no `next` link.
            return next_marker(page, name) or str(listed[-1]["id"])
        return next_marker(page, name)


def _is_denied(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "denied"


def _agreed(body: Any) -> Microversion:
    """Return the highest microversion that both sides know; (2, 0) if the API has none."""
    version = body.get("version") if isinstance(body, dict) else None
    if not isinstance(version, dict):
        raise RefusedError("failed", "the compute endpoint did not report its versions")
    found = negotiated(version.get("version") or "2.0", MICROVERSION)
    if found is None:
        raise RefusedError("failed", "the compute endpoint returned a version that can't be parsed")
    return found
