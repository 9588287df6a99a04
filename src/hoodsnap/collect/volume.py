"""The cinder API: the volumes of the servers, their attachments, snapshots and services.

Bodies are kept by allow-list: an attachment's way to its volume holds the passwords of the storage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from hoodsnap.bundle import Answer
from hoodsnap.collect.cloud_client import LOGIN_TIME, PATIENCE, CloudClient
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.allow_list import volume_body

LAYER = "cinder"

MICROVERSION = (3, 70)
"""The highest that is asked for: Zed's. What later ones add is not kept anyway."""

ATTACHMENTS = (3, 27)
"""Since when attachments can be asked for by themselves. Before, a volume names its own."""

LIST_PATIENCE = 60.0
"""Seconds for a page of a list."""

AT_ONCE = 4
"""Small requests at the same time."""

MOST_PAGES = 1000


class VolumeApi:
    """The cinder API of one cloud. Its methods may be called from several threads."""

    def __init__(self, recorder: Recorder, cloud: str | None = None) -> None:
        """Asks nothing yet. `cloud` is a name of clouds.yaml."""
        self._recorder = recorder
        self._cloud = CloudClient(cloud)
        self._base = ""
        """The endpoint's URL, with the project's id where the catalogue has it."""
        self._version = ""
        """The API's, as in its paths: `/v3`."""
        self._microversion = (0, 0)
        """Of v3; v2 has none."""
        self._asked: set[str] = set()
        """What was asked about: volumes, attachments and servers."""

    def connect(self) -> bool:
        """Log in and ask which versions the API speaks. False: there is none to ask, for a reason
        that is recorded."""
        for version in ("/v3", "/v2"):
            discover = partial(self._discover, version)
            answer = self._recorder.ask(LAYER, f"GET {version}/", discover, patience=LOGIN_TIME)
            if answer.error is None:
                return True
            if answer.error.kind != "absent" or not self._base:
                return False
        return False

    def _discover(self, version: str) -> object:
        root, project = _split(self._cloud.endpoint("block-storage"))
        self._base = f"{root}{version}{project}"
        body = volume_body(self._cloud.get(f"{root}{version}/", {}).body)
        self._microversion = _highest(body, version)
        self._version = version
        return body

    def ask_everything(self) -> None:
        """Ask for all volumes, attachments and snapshots; of every project, where it is allowed."""
        if not self._version:
            return
        tasks: list[Callable[[], object]] = [
            partial(self._pages, "/volumes/detail", "all_tenants=True", "volumes"),
            partial(self._pages, "/snapshots/detail", "all_tenants=True", "snapshots"),
            partial(self._ask, "/os-services"),
        ]
        if self._microversion >= ATTACHMENTS:
            path = "/attachments/detail"
            tasks.append(partial(self._pages, path, "all_tenants=True", "attachments"))
        self._together(tasks)

    def ask_services(self) -> None:
        """Ask for cinder's own services, which only an administrator sees."""
        if self._version:
            self._ask("/os-services")

    def ask_about(
        self, servers: Iterable[str], volumes: Iterable[str], attachments: Iterable[str]
    ) -> None:
        """Ask for the attachments of these servers, and for these volumes and attachments, each
        that no list has shown: also for those that are named and do not exist.

        Call it again with what turns up later: nothing is asked twice.
        """
        if not self._version:
            return
        by_id = self._microversion >= ATTACHMENTS
        whole = self._listed("attachments", lists=True)
        if by_id and whole is None:
            self._together(
                partial(self._pages, "/attachments/detail", _of_server(uuid), "attachments")
                for uuid in self._new(servers)
            )
        known = self._listed("attachments") or {}
        named = {str(item.get("volume_id")) for item in known.values()}
        tasks: list[Callable[[], object]] = []
        for uuid in self._new((*volumes, *named)):
            if uuid not in (self._listed("volumes") or {}):
                tasks.append(partial(self._ask, f"/volumes/{uuid}", subject=uuid))
        for uuid in self._new(attachments) if by_id else ():
            if uuid not in known:
                tasks.append(partial(self._ask, f"/attachments/{uuid}", subject=uuid))
        self._together(tasks)

    def ask_again(self, servers: Collection[str], volumes: Iterable[str]) -> None:
        """Ask again for the attachments of these servers, which moved, and for their volumes."""
        if not self._version:
            return
        tasks: list[Callable[[], object]] = []
        if self._microversion >= ATTACHMENTS:
            tasks += [
                partial(self._pages, "/attachments/detail", _of_server(uuid), "attachments")
                for uuid in _uuids(servers)
            ]
        tasks += [partial(self._ask, f"/volumes/{uuid}", subject=uuid) for uuid in _uuids(volumes)]
        self._together(tasks)

    def close(self) -> None:
        """End the connections."""
        self._cloud.close()

    def _new(self, uuids: Iterable[str]) -> list[str]:
        new = [uuid for uuid in _uuids(uuids) if uuid not in self._asked]
        self._asked.update(new)
        return new

    def _listed(self, name: str, *, lists: bool = False) -> dict[str, dict[str, Any]] | None:
        """What the lists have shown, by id; None if there was no list (`lists`: of everything)."""
        start = f"GET {self._version}/{name}/detail?all_tenants=True"
        pages = [
            answer
            for answer in self._recorder.answers
            if answer.layer == LAYER
            and answer.error is None
            and answer.query.startswith(start if lists else f"GET {self._version}/{name}/detail?")
            and not (lists and "instance_id=" in answer.query)
        ]
        if not pages:
            return None
        return {item["id"]: item for page in pages for item in _items(page, name)}

    def _together(self, tasks: Iterable[Callable[[], object]]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda task: task(), tasks):
                pass

    def _ask(
        self, path: str, query: str = "", *, subject: str | None = None, patience: float = PATIENCE
    ) -> Answer:
        number = "{}.{}".format(*self._microversion)
        has_number = self._microversion > (0, 0)
        headers = {"OpenStack-API-Version": f"volume {number}"} if has_number else {}
        target = path + (query and f"?{query}")
        url = self._base + target

        def how() -> object:
            return volume_body(self._cloud.get(url, headers, patience=patience).body)

        text = f"GET {self._version}{target}" + (f" [{number}]" if has_number else "")
        return self._recorder.ask(LAYER, text, how, subject=subject, patience=patience + 10)

    def _pages(self, path: str, query: str, name: str) -> None:
        """Ask for a list to its end. A list that never ends ends with a failure."""
        page = self._ask(path, query, patience=LIST_PATIENCE)
        seen: set[str] = set()
        while (marker := _next(page, name)) is not None:
            if marker in seen or len(seen) == MOST_PAGES:
                why = "not asked: the cloud's list does not end"
                text = f"GET {self._version}{path}?{query}&marker={marker}"
                self._recorder.ask(LAYER, text, partial(_refuse, why))
                return
            seen.add(marker)
            page = self._ask(path, f"{query}&marker={quote(marker)}", patience=LIST_PATIENCE)


def _refuse(why: str) -> object:
    raise RefusedError("timeout", why)


def _of_server(uuid: str) -> str:
    return f"all_tenants=True&instance_id={uuid}"


def _uuids(named: Iterable[str]) -> list[str]:
    """What is an id among what was named, each once: rows and XML may hold anything."""
    return sorted({name.lower() for name in named if UUID.fullmatch(name.lower())})


def _items(page: Answer, name: str) -> list[dict[str, Any]]:
    if page.error is not None or not isinstance(page.value, dict):
        return []
    items = page.value.get(name)
    return [
        item
        for item in (items if isinstance(items, list) else ())
        if isinstance(item.get("id"), str)
    ]


def _next(page: Answer, name: str) -> str | None:
    """After which item the next page begins. None: this was the last."""
    links = page.value.get(f"{name}_links") if isinstance(page.value, dict) else None
    for link in links if isinstance(links, list) else ():
        if link.get("rel") == "next":
            markers = parse_qs(urlsplit(str(link.get("href"))).query).get("marker")
            return markers[0] if markers else None
    return None


def _split(endpoint: str) -> tuple[str, str]:
    """An endpoint of the catalogue without its version, and the `/PROJECT` that may follow it."""
    match = re.fullmatch(r"(.*?)(?:/v\d+(?:\.\d+)?(/[^/]+)?)?", endpoint.rstrip("/"))
    return (match[1], match[2] or "") if match else (endpoint, "")


def _highest(body: Any, version: str) -> tuple[int, int]:
    """The highest microversion of v3 that both sides know; (0, 0) for v2."""
    versions = body.get("versions") if isinstance(body, dict) else None
    for known in versions if isinstance(versions, list) else ():
        theirs = re.fullmatch(r"(\d+)\.(\d+)", str(known.get("version")))
        if str(known.get("id")).startswith(version[1:]) and theirs is not None:
            return min(MICROVERSION, (int(theirs[1]), int(theirs[2])))
    if version == "/v3":
        raise RefusedError(
            "failed", "the block-storage endpoint does not say which versions it has"
        )
    return (0, 0)
