"""Servers, as the nova API returns them."""

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
"""A query for many servers. Its options `all_tenants` and `host` decide how many it returns."""

ONE = re.compile(r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/servers/(?P<uuid>[0-9a-f-]{36}) \[")


@dataclass(frozen=True, eq=False, kw_only=True)
class Server(Fact):
    """One server, as `GET /servers/detail` or `GET /servers/UUID` returns it."""

    layer: ClassVar[Layer] = NOVA
    noun: ClassVar[str] = "server"
    raw: Mapping[str, object]
    older: Mapping[str, Answer] = field(default_factory=dict)
    """Field that the newest answer lacks → the older answer that has it."""

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
        "volumes_attached": ("body", "os-extended-volumes:volumes_attached"),
        "card_addresses": ("body", "addresses"),
        "fault_message": ("body", "fault.message"),
        "fault_code": ("body", "fault.code"),
        "fault_at": ("body", "fault.created"),
    }

    documented: ClassVar[Documented] = (
        *("uuid", "name", "status", "vm_state", "task_state"),
        DocumentedField("power", POWERS, lambda record: power_word(record.power_state)),
        *("host", "instance_name", "image", "flavor", "memory_mib", "vcpus"),
        *("config_drive", "updated_at", "launched_at"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the server's id."""
        answer, place = super().where(name)
        answer = self.older.get(place.partition(".")[0], answer)
        return answer, f"servers[{self.uuid}].{place}"

    @property
    def uuid(self) -> str:
        """The server's id, lower case."""
        return (text(self.raw, "id") or "").lower()

    @property
    def name(self) -> str:
        """Name of the server, chosen by its owner."""
        return text(self.raw, "name") or ""

    @property
    def status(self) -> str:
        """`ACTIVE`, `SHUTOFF` …, which nova derives from vm_state and task_state."""
        return text(self.raw, "status") or ""

    @property
    def vm_state(self) -> str:
        """`active`, `stopped`, `shelved_offloaded` …, as in the database."""
        return text(self.raw, "OS-EXT-STS:vm_state") or ""

    @property
    def task_state(self) -> str | None:
        """The task that nova is performing: `powering-off`, `resize_prep` …; None if none."""
        return text(self.raw, "OS-EXT-STS:task_state") or None

    @property
    def power_state(self) -> int | None:
        """Code of `PowerState`; None if the API returned null."""
        return integer(self.raw, "OS-EXT-STS:power_state")

    @property
    def host(self) -> str | None:
        """The nova-compute host; only administrators see it."""
        return text(self.raw, "OS-EXT-SRV-ATTR:host")

    @property
    def addresses(self) -> tuple[tuple[str, str, str], ...]:
        """Its addresses, sorted, each with its network's name and `fixed` or `floating`."""
        found = set()
        for network, listed in mapping(self.raw, "addresses").items():
            for one in listed if isinstance(listed, list) else ():
                if isinstance(one, dict) and isinstance(one.get("addr"), str):
                    kind = one.get("OS-EXT-IPS:type", "fixed")
                    found.add((network, str(kind), one["addr"]))
        return tuple(sorted(found))

    @property
    def card_addresses(self) -> frozenset[str]:
        """MAC addresses of its ports, lower case; empty if the API does not report them."""
        networks = mapping(self.raw, "addresses").values()
        listed = [one for each in networks if isinstance(each, list) for one in each]
        macs = (one.get("OS-EXT-IPS-MAC:mac_addr") for one in listed if isinstance(one, dict))
        return frozenset(mac.lower() for mac in macs if isinstance(mac, str))

    @property
    def instance_name(self) -> str | None:
        """Name of the server's domain; only administrators see it."""
        return text(self.raw, "OS-EXT-SRV-ATTR:instance_name")

    @property
    def image(self) -> str | None:
        """Id of the image that the server was made from; None if it boots from a volume."""
        image = self.raw.get("image")
        if image in ("", None) and "image" in self.raw:
            return None  # the API writes an empty string
        return text(mapping(self.raw, "image"), "id")

    @property
    def flavor(self) -> str | None:
        """Name of the flavor (microversion 2.47 and later); with older ones, the flavor's id."""
        flavor = mapping(self.raw, "flavor")
        return text(flavor, "original_name" if "original_name" in flavor else "id")

    @property
    def memory_mib(self) -> int | None:
        """Memory of the flavor as it was at boot, in MiB (microversion 2.47 and later)."""
        return integer(mapping(self.raw, "flavor"), "ram")

    @property
    def vcpus(self) -> int | None:
        """Number of vCPUs of the flavor as it was at boot (microversion 2.47 and later)."""
        return integer(mapping(self.raw, "flavor"), "vcpus")

    @property
    def config_drive(self) -> bool:
        """True if the server has a config drive, a disk with its metadata."""
        return text(self.raw, "config_drive") == "True"

    @property
    def volumes_attached(self) -> frozenset[str]:
        """Ids of the attached volumes, lower case."""
        listed = self.raw.get("os-extended-volumes:volumes_attached")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise UnheardError("os-extended-volumes:volumes_attached was not collected")
        return frozenset((text(one, "id") or "").lower() for one in listed)

    @property
    def updated_at(self) -> str:
        """Time of the last update: UTC, ISO 8601."""
        return text(self.raw, "updated") or ""

    @property
    def launched_at(self) -> str | None:
        """Time of the last launch: UTC, ISO 8601; None if the server never ran."""
        return text(self.raw, "OS-SRV-USG:launched_at")

    @property
    def _fault(self) -> Mapping[str, object]:
        """The last fault; the API returns it only for a server in error. Empty without one."""
        return mapping(self.raw, "fault") if self.raw.get("fault") is not None else {}

    @property
    def fault_message(self) -> str | None:
        """Message of the last fault, as the owner sees it; None without a fault."""
        return text(self._fault, "message") if self._fault else None

    @property
    def fault_code(self) -> int | None:
        """HTTP status of the last fault, for example 500; None without a fault."""
        return integer(self._fault, "code") if self._fault else None

    @property
    def fault_at(self) -> str | None:
        """Time of the last fault: UTC, ISO 8601; None without a fault."""
        return text(self._fault, "created") if self._fault else None

    @property
    def deleted(self) -> bool:
        """True if the server is deleted. The API lists such servers only on request."""
        return self.status == "DELETED"


class Servers:
    """All servers that the nova API returned, and the lists that are complete."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.by_uuid: dict[str, Server] = {}
        self.absent: dict[str, Answer] = {}
        self.unreadable: dict[str, str] = {}
        self.everywhere: Answer | None = None
        """The answer that lists the servers of all hosts and projects; None without one."""
        self.of_host: dict[str, Answer] = {}
        """Host → the answer that lists its servers of all projects."""
        self.failures: list[Answer] = []
        """Lists that failed or can't be read."""
        self.heard = False
        """True if any list or any server was returned."""
        self.obstacle: str | None = None
        """Message of the API's first error, not counting `absent`; None without one."""
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
            return  # such a list holds only what changed
        if "all_tenants" in options:
            host = re.search(r"(?:^|&)host=([^&]*)", options)
            if host is None:
                self.everywhere = answer
            else:
                self.of_host[host[1]] = answer

    @property
    def sees_all(self) -> bool:
        """True if the user sees all projects' servers. Tenants get 404 for other projects'."""
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
            self.failures.append(answer)  # this server is unknown, so absence proves nothing
            return
        before = self.by_uuid.get(uuid.lower())
        if before is not None and not before.raw.keys() <= raw.keys():
            # A tenant sees fewer fields than an administrator. The fields it doesn't see are kept.
            older = dict.fromkeys(before.raw.keys() - raw.keys(), before.said["body"])
            raw = {**before.raw, **raw}
            server = Server(raw=raw, said={"body": answer}, older={**before.older, **older})
        else:
            server = Server(raw=raw, said={"body": answer})
        self.by_uuid[uuid.lower()] = server
        self.absent.pop(uuid.lower(), None)
