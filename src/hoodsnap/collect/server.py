"""The nova API, and the glance images that its servers name. Bodies are kept as they come.

The user may be an admin or a tenant: what is denied is recorded as denied, and what this user may
see is asked instead.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from hoodsnap.bundle import Answer
from hoodsnap.collect.clients import ask_for_clients
from hoodsnap.collect.cloud_client import LOGIN_TIME, PATIENCE, CloudClient
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.keep.allow_list import api_body, image_body

MICROVERSION = (2, 96)
"""The highest that is asked for. From 2.98 on nova adds properties of images, from 2.100 hints."""

HYPERVISORS = (2, 87)
"""For the hypervisors. From 2.88 on their numbers are gone, and each compute node is asked."""

LIST_PATIENCE = 60.0
"""Seconds for a page of a list: nova may think for long about a thousand servers."""

AT_ONCE = 4
"""Small requests at the same time."""

MOST_PAGES = 1000

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
        root, project = _split(self._cloud.endpoint("compute"))
        self._base = f"{root}{version}{project}"
        body = self._cloud.get(f"{root}{version}/", {}).body
        self._microversion = _highest(body)
        self._version = version
        return api_body(body)

    def _date(self) -> object:
        """The API's clock, to compare with the host's and the database's."""
        root, _ = _split(self._base)
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
        pages: list[Answer] = []
        if self._is_admin:
            of_host = "" if host is None else f"&host={quote(host)}"
            pages = self._pages("/servers/detail", f"all_tenants=True{of_host}", "servers")
            self._is_admin = not _is_denied(pages[0])
        if not self._is_admin:
            pages = self._pages("/servers/detail", "", "servers")
        servers = [server for page in pages for server in _items(page, "servers")]
        self._note(servers)
        return {server["id"] for server in servers}

    def ask_server(self, uuid: str) -> Answer | None:
        """Ask for one server. A failure `absent` says that there is none; None: nobody to ask."""
        if not self._version:
            return None
        answer = self._ask(f"/servers/{quote(uuid)}", subject=uuid)
        if answer.error is None:
            self._note(_dicts([answer.value.get("server")]))
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
        images = {image["id"] for server in servers for image in _dicts([server.get("image")])}
        tasks: list[Callable[[], object]] = [
            self._ask_flavors,
            partial(self._ask_migrations, host, since),
            partial(self._ask, "/os-hypervisors/detail", at_most=HYPERVISORS),
            partial(self._ask, "/os-services"),
            partial(self._ask, "/os-server-groups", "all_projects=True"),
            *(partial(self._ask_image, image) for image in sorted(images)),
            *self._histories(servers, since, events and self._is_admin),
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda task: task(), tasks):
                pass

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
        return {item["id"] for items in shown if isinstance(items, list) for item in _dicts(items)}

    def _note(self, servers: Iterable[dict[str, Any]]) -> None:
        with self._lock:
            self._servers.update((server["id"], server) for server in servers)

    # What surrounds the servers

    def _ask_flavors(self) -> None:
        pages = self._pages("/flavors/detail", "is_public=None", "flavors")
        if _is_denied(pages[0]):
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
            root, _ = _split(self._cloud.endpoint("image"))
            return image_body(self._cloud.get(f"{root}/v2/images/{quote(uuid)}", {}).body)

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
        for action in _items(answer, "instanceActions", "request_id"):
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
        at_most: tuple[int, int] = MICROVERSION,
        patience: float = PATIENCE,
    ) -> Answer:
        number = _text(min(self._microversion, at_most))
        headers = {
            "X-OpenStack-Nova-API-Version": number,
            "OpenStack-API-Version": f"compute {number}",
        }
        target = path + (query and f"?{query}")
        url = self._base + target

        def how() -> object:
            # A cloud from before microversions gets no header; all others know this one.
            sent = headers if self._microversion > (2, 0) else {}
            body = api_body(self._cloud.get(url, sent, patience=patience).body)
            if not isinstance(body, dict):
                raise RefusedError("failed", "the answer is no object: it does not come from nova")
            return body

        text = f"GET {self._version}{target} [{number}]"
        return self._recorder.ask("nova", text, how, subject=subject, patience=patience + 10)

    def _refuse(self, path: str, query: str, why: str, subject: str | None = None) -> None:
        def how() -> object:
            raise RefusedError("timeout", why)

        text = f"GET {self._version}{path}{query and '?' + query} [{_text(self._microversion)}]"
        self._recorder.ask("nova", text, how, subject=subject)

    def _pages(self, path: str, query: str, name: str) -> list[Answer]:
        """Ask for a list to its end. A list that never ends ends with a failure."""
        ask = partial(self._ask, path, patience=LIST_PATIENCE)
        pages = [ask(query)]
        seen: set[str] = set()
        while (marker := self._next(pages[-1], name)) is not None:
            further = f"{query}&marker={quote(marker)}".lstrip("&")
            if marker in seen or len(pages) == MOST_PAGES:
                self._refuse(path, further, "not asked: the cloud's list does not end")
                break
            seen.add(marker)
            pages.append(ask(further))
        return pages

    def _next(self, page: Answer, name: str) -> str | None:
        """After which item the next page begins. None: this was the last."""
        items = _items(page, name)
        if not items:
            return None
        for link in _items(page, f"{name}_links", "href"):
            if link.get("rel") == "next":
                markers = parse_qs(urlsplit(link["href"]).query).get("marker")
                return markers[0] if markers else None
        # Before microversions, a list that nova cut off does not say so.
        return str(items[-1]["id"]) if self._microversion == (2, 0) else None


def _items(answer: Answer, name: str, key: str = "id") -> list[dict[str, Any]]:
    """The list of this name in a body; of what is in it, whatever has a text under this key."""
    if answer.error is not None:
        return []
    items = answer.value.get(name)
    return _dicts(items, key) if isinstance(items, list) else []


def _dicts(items: Iterable[Any], key: str = "id") -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict) and isinstance(item.get(key), str)]


def _is_denied(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "denied"


def _split(endpoint: str) -> tuple[str, str]:
    """An endpoint of the catalogue without its version, and the `/PROJECT` that may follow it."""
    match = re.fullmatch(r"(.*?)(?:/v\d+(?:\.\d+)?(/[^/]+)?)?", endpoint.rstrip("/"))
    return (match[1], match[2] or "") if match else (endpoint, "")


def _highest(body: Any) -> tuple[int, int]:
    """The highest microversion that both sides know; (2, 0) if the API has none."""
    try:
        theirs = re.fullmatch(r"(\d+)\.(\d+)", body["version"].get("version") or "2.0")
    except (TypeError, KeyError, AttributeError):
        raise RefusedError(
            "failed", "the compute endpoint does not say which versions it has"
        ) from None
    if theirs is None:
        raise RefusedError("failed", "the compute endpoint has a version that can't be read")
    return min(MICROVERSION, (int(theirs[1]), int(theirs[2])))


def _text(microversion: tuple[int, int]) -> str:
    return f"{microversion[0]}.{microversion[1]}"
