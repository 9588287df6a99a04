"""What the nova API says of a VM: its server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.body import item_of, items_of
from hoodsnap.facts.database.instance import POWERS, power_word
from hoodsnap.facts.fact import (
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    integer,
    mapping,
    text,
)
from hoodsnap.facts.layer import NOVA, Layer

LISTS = re.compile(r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/servers/detail(?:\?(?P<options>\S*))? \[")
"""A question for many servers. `all_tenants` and `host` in its options say how many."""

ONE = re.compile(r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/servers/(?P<uuid>[0-9a-f-]{36}) \[")


@dataclass(frozen=True, eq=False, kw_only=True)
class Server(Fact):
    """One server, as `GET /servers/detail` or `GET /servers/UUID` shows it."""

    layer: ClassVar[Layer] = NOVA
    noun: ClassVar[str] = "server"
    raw: Mapping[str, object]
    older: Mapping[str, Answer] = field(default_factory=dict)
    """For the fields that the newest answer does not have: the answer that has."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "vm_state": ("body", "OS-EXT-STS:vm_state"),
        "task_state": ("body", "OS-EXT-STS:task_state"),
        "power_state": ("body", "OS-EXT-STS:power_state"),
        "host": ("body", "OS-EXT-SRV-ATTR:host"),
        "instance_name": ("body", "OS-EXT-SRV-ATTR:instance_name"),
        "image": ("body", "image.id"),
        "memory_mib": ("body", "flavor.ram"),
        "vcpus": ("body", "flavor.vcpus"),
        "flavor": ("body", "flavor.original_name"),
        "updated_at": ("body", "updated"),
    }

    documented: ClassVar[Documented] = (
        *("uuid", "name", "status", "vm_state", "task_state"),
        DocumentedField("power", POWERS, lambda record: power_word(record.power_state)),
        *("host", "instance_name", "image", "flavor", "memory_mib", "vcpus"),
        *("config_drive", "updated_at", "launched_at"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the server's id, since a body holds many."""
        answer, place = super().where(name)
        answer = self.older.get(place.partition(".")[0], answer)
        return answer, f"servers[{self.uuid}].{place}"

    @property
    def uuid(self) -> str:
        """The server's id, lower case."""
        return (text(self.raw, "id") or "").lower()

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return text(self.raw, "name") or ""

    @property
    def status(self) -> str:
        """`ACTIVE`, `SHUTOFF` …: what nova derives from vm_state and task_state."""
        return text(self.raw, "status") or ""

    @property
    def vm_state(self) -> str:
        """As in the database: `active`, `stopped`, `shelved_offloaded` …"""
        return text(self.raw, "OS-EXT-STS:vm_state") or ""

    @property
    def task_state(self) -> str | None:
        """What nova is doing with it; None when nothing."""
        return text(self.raw, "OS-EXT-STS:task_state") or None

    @property
    def power_state(self) -> int | None:
        """Return a code of `PowerState`; None if the API has none."""
        return integer(self.raw, "OS-EXT-STS:power_state")

    @property
    def host(self) -> str | None:
        """The nova-compute host; only administrators see it."""
        return text(self.raw, "OS-EXT-SRV-ATTR:host")

    @property
    def instance_name(self) -> str | None:
        """The name of its domain; only administrators see it."""
        return text(self.raw, "OS-EXT-SRV-ATTR:instance_name")

    @property
    def image(self) -> str | None:
        """The id of the image it was made from; None when it boots from a volume."""
        image = self.raw.get("image")
        if image in ("", None) and "image" in self.raw:
            return None  # the API writes an empty string
        return text(mapping(self.raw, "image"), "id")

    @property
    def flavor(self) -> str | None:
        """The name of its flavor (microversion 2.47 and later), else the flavor's id."""
        flavor = mapping(self.raw, "flavor")
        return text(flavor, "original_name" if "original_name" in flavor else "id")

    @property
    def memory_mib(self) -> int | None:
        """MiB, of the flavor as it was at boot (microversion 2.47 and later)."""
        return integer(mapping(self.raw, "flavor"), "ram")

    @property
    def vcpus(self) -> int | None:
        """Of the flavor as it was at boot (microversion 2.47 and later)."""
        return integer(mapping(self.raw, "flavor"), "vcpus")

    @property
    def config_drive(self) -> bool:
        """Whether a disk with its metadata is attached."""
        return text(self.raw, "config_drive") == "True"

    @property
    def updated_at(self) -> str:
        """UTC, ISO 8601."""
        return text(self.raw, "updated") or ""

    @property
    def launched_at(self) -> str | None:
        """UTC, ISO 8601; None if it never ran."""
        return text(self.raw, "OS-SRV-USG:launched_at")

    @property
    def deleted(self) -> bool:
        """The API shows only servers that are not (or in the state DELETED, when asked for)."""
        return self.status == "DELETED"


class Servers:
    """All that the nova API said: the servers it showed, and where it has shown all there are."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.by_uuid: dict[str, Server] = {}
        self.absent: dict[str, Answer] = {}
        self.unreadable: dict[str, str] = {}
        self.everywhere: Answer | None = None
        """The answer that lists the servers of every host and project, if there is one."""
        self.of_host: dict[str, Answer] = {}
        """For each host the answer that lists its servers of every project."""
        self.failures: list[Answer] = []
        """The lists that were not told, or not in a shape that can be read."""
        self.heard = False
        """Whether any list, or any server, was shown."""
        self.obstacle: str | None = None
        """Why the API did not speak, if it did not even begin to."""
        for answer in answers:
            if answer.error is not None and answer.error.kind != "absent":
                self.obstacle = self.obstacle or answer.error.message
            if found := LISTS.match(answer.query):
                self._read_list(answer, found["options"] or "")
            elif found := ONE.match(answer.query):
                self._read_one(answer, found["uuid"])

    def _read_list(self, answer: Answer, options: str) -> None:
        try:
            found = items_of(answer, "servers", "the list of servers")
        except UnheardError:
            self.failures.append(answer)
            return
        self.heard = True
        for raw in found:
            self._add(raw, answer)
        if "changes-since" in options:
            return  # it shows what changed, not what there is
        if "all_tenants" in options:
            host = re.search(r"(?:^|&)host=([^&]*)", options)
            if host is None:
                self.everywhere = answer
            else:
                self.of_host[host[1]] = answer

    @property
    def sees_all(self) -> bool:
        """Whether the user sees every project's servers. A tenant gets 404 for those of others."""
        denied = any(answer.error and answer.error.kind == "denied" for answer in self.failures)
        return (self.everywhere is not None or bool(self.of_host)) and not denied

    def _read_one(self, answer: Answer, uuid: str) -> None:
        if answer.error is not None:
            if answer.error.kind == "absent":
                self.absent[uuid] = answer
                self.by_uuid.pop(uuid, None)
            else:
                self.unreadable[uuid] = answer.error.message
            return
        try:
            self._add(item_of(answer, "server", "the server"), answer)
        except UnheardError as reason:
            self.unreadable[uuid] = str(reason)

    def _add(self, raw: Mapping[str, object], answer: Answer) -> None:
        uuid = raw.get("id")
        if not isinstance(uuid, str):
            self.failures.append(answer)  # one more server than can be read: absence proves nothing
            return
        before = self.by_uuid.get(uuid.lower())
        if before is not None and not before.raw.keys() <= raw.keys():
            # A tenant sees less of a server than an administrator: what it does not, stays.
            older = dict.fromkeys(before.raw.keys() - raw.keys(), before.said["body"])
            raw = {**before.raw, **raw}
            server = Server(raw=raw, said={"body": answer}, older={**before.older, **older})
        else:
            server = Server(raw=raw, said={"body": answer})
        self.by_uuid[uuid.lower()] = server
        self.absent.pop(uuid.lower(), None)
