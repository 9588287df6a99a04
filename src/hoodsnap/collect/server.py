"""The nova API, and the glance images that its servers name. Bodies are kept as they come.

The user may be an admin or a tenant: what is denied is recorded as denied, and what this user may
see is asked instead.
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
    together,
    unversioned,
    written,
)
from hoodsnap.keep.glance_api import image_body
from hoodsnap.keep.nova_api import api_body

MICROVERSION = (2, 96)
"""The highest that is asked for. From 2.98 on nova adds properties of images, from 2.100 hints."""

HYPERVISORS = (2, 87)
"""For the hypervisors. From 2.88 on their numbers are gone, and each compute node is asked."""

HISTORY_TIME = 60.0
"""Seconds for the histories of all servers together."""


class ServerApi:
    """The nova API of one cloud. Its methods may be called from several threads."""

    def __init__(self, recorder: Recorder, cloud: str | None = None) -> None:
        """Asks nothing yet. `cloud` is a name of clouds.yaml."""
        self._recorder = recorder
        self._cloud = CloudClient(cloud)
        self._lock = threading.Lock()
        self._base = ""
        """The endpoint's URL, with the project's id where the catalogue has it."""
        self._version = ""
        """The API's, as in its paths: `/v2.1`."""
        self._microversion = (2, 0)
        self._is_admin = True
        self._servers: dict[str, dict[str, Any]] = {}

    def connect(self) -> bool:
        """Log in and ask which version the API speaks. False: there is none to ask, for a reason
        that is recorded."""
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
        """The API's clock, to compare with the host's and the database's."""
        root, _ = unversioned(self._base)
        date = self._cloud.get(f"{root}{self._version}/", {}, method="HEAD").headers.get("Date")
        if date is None:
            raise RefusedError("absent", "the API does not say what time it is")
        return {"date": date}

    def ask_servers(self, host: str | None = None) -> set[str]:
        """Ask for all servers of a host, or of the cloud; all that this user may see.

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
        """Ask for one server. A failure `absent` says that there is none; None: nobody to ask."""
        if not self._version:
            return None
        answer = self._ask(f"/servers/{quote(uuid)}", subject=uuid)
        if answer.error is None:
            self._note(objects([answer.value.get("server")]))
        return answer

    def ask_surroundings(
        self, host: str | None = None, *, days: int = 7, events: bool = True
    ) -> None:
        """Ask for flavors, images, hypervisors, services, migrations and groups, and for what was
        done with each server in the last days.

        `events`: also for the steps of each such action (only admins), which is most requests.
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
        """Ask for what only clients of the recording will ask for."""
        if self._version == "/v2.1":
            ask_for_clients(self._recorder, self._cloud, self._base, host)

    def close(self) -> None:
        """End the connections."""
        self._cloud.close()

    @property
    def volumes(self) -> set[str]:
        """The ids of the volumes that the servers show as theirs."""
        with self._lock:
            servers = list(self._servers.values())
        shown = (server.get("os-extended-volumes:volumes_attached") for server in servers)
        return {volume["id"] for volumes in shown for volume in objects(volumes)}

    def _note(self, servers: Iterable[dict[str, Any]]) -> None:
        with self._lock:
            self._servers.update((server["id"], server) for server in servers)

    # What surrounds the servers

    def _ask_flavors(self) -> None:
        found = self._pages("/flavors/detail", "is_public=None", "flavors")
        if _is_denied(found[0]):
            self._pages("/flavors/detail", "", "flavors")

    def _ask_migrations(self, host: str | None, since: str) -> None:
        """Of a host the newest thousand; of all hosts those of the last days, if nova can tell."""
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
        """What was done lately: a question and more per server, which may take a minute in all."""
        end = time.monotonic() + HISTORY_TIME
        for server in servers:
            # Whatever is done with a server updates it, so of the others there is nothing to tell.
            if str(server.get("updated", "")) >= since:
                yield partial(self._ask_history, server["id"], since, events, end)

    def _ask_history(self, uuid: str, since: str, events: bool, end: float) -> None:
        path = f"/servers/{quote(uuid)}/os-instance-actions"
        can_filter = self._microversion >= (2, 58)
        query = f"changes-since={since}" if can_filter else ""
        if time.monotonic() > end:
            self._refuse(path, query, "not asked: the histories took too long", uuid)
            return
        answer = self._ask(path, query, subject=uuid)
        for action in items(answer, "instanceActions", "request_id"):
            lately = str(action.get("start_time", "")) >= since.rstrip("Z")
            if events and lately and time.monotonic() <= end:
                self._ask(f"{path}/{quote(action['request_id'])}", subject=uuid)

    # How it is asked

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
            # A cloud from before microversions gets no header; all others know this one.
            sent = headers if self._microversion > (2, 0) else {}
            return object_of(api_body(self._cloud.get(url, sent, patience=patience).body), "nova")

        text = f"GET {self._version}{target} [{number}]"
        return self._recorder.ask("nova", text, how, subject=subject, patience=patience + 10)

    def _refuse(self, path: str, query: str, why: str, subject: str | None = None) -> None:
        text = f"GET {self._version}{path}{query and '?' + query} [{written(self._microversion)}]"
        self._recorder.refuse("nova", text, RefusedError("timeout", why), subject=subject)

    def _pages(self, path: str, query: str, name: str) -> list[Answer]:
        """Ask for a list to its end. A list that never ends ends with a failure."""
        ask = partial(self._ask, path, patience=LIST_PATIENCE)
        return pages(ask, partial(self._refuse, path), query, name, self._next)

    def _next(self, page: Answer, name: str) -> str | None:
        """Return the id after which the next page begins. None: this page was the last."""
        listed = items(page, name)
        if self._microversion == (2, 0) and listed:
            # Before microversions, a list that nova cut off does not say so.
            return next_marker(page, name) or str(listed[-1]["id"])
        return next_marker(page, name)


def _is_denied(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "denied"


def _agreed(body: Any) -> Microversion:
    """Return the highest microversion that both sides know; (2, 0) if the API has none."""
    version = body.get("version") if isinstance(body, dict) else None
    if not isinstance(version, dict):
        raise RefusedError("failed", "the compute endpoint does not say which versions it has")
    found = negotiated(version.get("version") or "2.0", MICROVERSION)
    if found is None:
        raise RefusedError("failed", "the compute endpoint has a version that can't be read")
    return found
