"""Cinder API: the servers' volumes, their attachments and snapshots, and cinder's services.

Bodies are kept by an allow-list, since an attachment's connection_info holds storage passwords.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.collect.cloud_client import LOGIN_TIME, PATIENCE, CloudClient
from hoodsnap.collect.crew import together
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.rest_api import (
    LIST_PATIENCE,
    Microversion,
    items,
    negotiated,
    object_of,
    objects,
    pages,
    unversioned,
    written,
)
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.cinder_api import volume_body

LAYER = "cinder"

MICROVERSION = (3, 70)
"""Highest microversion that is requested: Zed's. The fields of later ones are not kept anyway."""

ATTACHMENTS = (3, 27)
"""Microversion since which attachments can be requested. Before, only their volumes list them."""


class VolumeApi:
    """Cinder API of one cloud. Its methods may be called from several threads."""

    def __init__(self, recorder: Recorder, cloud: str | None = None) -> None:
        """Send no request yet. `cloud` is a name in clouds.yaml."""
        self._recorder = recorder
        self._cloud = CloudClient(cloud)
        self._base = ""
        """URL of the endpoint, with the project's id if the catalog has it."""
        self._version = ""
        """Version of the API, as in its paths: `/v3`. Empty until it is known."""
        self._microversion = (0, 0)
        """Microversion of v3; (0, 0) for v2, which has none."""
        self._asked: set[str] = set()
        """Ids of volumes, attachments and servers that were asked about."""

    def connect(self) -> bool:
        """Log in and ask for the API's versions.

        Returns False if the API can't be asked; the reason is recorded.
        """
        for version in ("/v3", "/v2"):
            discover = partial(self._discover, version)
            answer = self._recorder.ask(LAYER, f"GET {version}/", discover, patience=LOGIN_TIME)
            if answer.error is None:
                return True
            if answer.error.kind != "absent" or not self._base:
                return False
        return False

    def _discover(self, version: str) -> object:
        root, project = unversioned(self._cloud.endpoint("block-storage"))
        self._base = f"{root}{version}{project}"
        body = self._body(f"{root}{version}/", {})
        self._microversion = _agreed(body, version)
        self._version = version
        return body

    def ask_everything(self) -> None:
        """Ask for all volumes, attachments and snapshots; of all projects, if that is allowed."""
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
        together(tasks)

    def ask_services(self) -> None:
        """Ask for cinder's own services (admin only)."""
        if self._version:
            self._ask("/os-services")

    def ask_about(
        self, servers: Iterable[str], volumes: Iterable[str], attachments: Iterable[str]
    ) -> None:
        """Ask for the attachments of these servers, and for those of these volumes and attachments
        that are in no list, even if they do not exist.

        Call it again for objects that are found later: nothing is asked twice.
        """
        if not self._version:
            return
        by_id = self._microversion >= ATTACHMENTS
        whole = self._listed("attachments", lists=True)
        if by_id and whole is None:
            together(
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
        together(tasks)

    def ask_again(self, servers: Collection[str], volumes: Iterable[str]) -> None:
        """Ask again for the attachments and volumes of these servers, which have changed."""
        if not self._version:
            return
        tasks: list[Callable[[], object]] = []
        if self._microversion >= ATTACHMENTS:
            tasks += [
                partial(self._pages, "/attachments/detail", _of_server(uuid), "attachments")
                for uuid in _uuids(servers)
            ]
        tasks += [partial(self._ask, f"/volumes/{uuid}", subject=uuid) for uuid in _uuids(volumes)]
        together(tasks)

    def close(self) -> None:
        """Close the connections."""
        self._cloud.close()

    def _new(self, uuids: Iterable[str]) -> list[str]:
        new = [uuid for uuid in _uuids(uuids) if uuid not in self._asked]
        self._asked.update(new)
        return new

    def _listed(self, name: str, *, lists: bool = False) -> dict[str, dict[str, Any]] | None:
        """Return the items of the collected lists by id; None if no list was collected.

        `lists`: use only the lists of everything, not those of one server.
        """
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
        return {item["id"]: item for page in pages for item in items(page, name)}

    def _ask(
        self, path: str, query: str = "", *, subject: str | None = None, patience: float = PATIENCE
    ) -> Answer:
        number = written(self._microversion)
        has_number = self._microversion > (0, 0)
        headers = {"OpenStack-API-Version": f"volume {number}"} if has_number else {}
        target = path + (query and f"?{query}")
        how = partial(self._body, self._base + target, headers, patience)
        text = f"GET {self._version}{target}" + (f" [{number}]" if has_number else "")
        return self._recorder.ask(LAYER, text, how, subject=subject, patience=patience + 10)

    def _pages(self, path: str, query: str, name: str) -> None:
        """Ask for all pages of a list. If the list does not end, a failure is recorded."""
        ask = partial(self._ask, path, patience=LIST_PATIENCE)
        pages(ask, partial(self._refuse, path), query, name)

    def _body(
        self, url: str, headers: Mapping[str, str], patience: float = PATIENCE
    ) -> dict[str, Any]:
        body = volume_body(self._cloud.get(url, headers, patience=patience).body)
        return object_of(body, "cinder")

    def _refuse(self, path: str, query: str, why: str) -> None:
        target = f"GET {self._version}{path}?{query}"
        self._recorder.refuse(LAYER, target, RefusedError("timeout", why))


def _of_server(uuid: str) -> str:
    return f"all_tenants=True&instance_id={uuid}"


def _uuids(named: Iterable[str]) -> list[str]:
    """Return the UUIDs among these texts, in lower case, each once: rows may hold anything."""
    return sorted({name.lower() for name in named if UUID.fullmatch(name.lower())})


def _agreed(body: dict[str, Any], version: str) -> Microversion:
    """Return the highest microversion of v3 that both sides know; (0, 0) for v2."""
    for known in objects(body.get("versions")):
        found = negotiated(known.get("version"), MICROVERSION)
        if known["id"].startswith(version[1:]) and found is not None:
            return found
    if version == "/v3":
        raise RefusedError("failed", "the block-storage endpoint did not report its versions")
    return (0, 0)
