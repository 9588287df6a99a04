"""What cinder says of a VM's disks: volumes, and the attachments that give them to servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar
from urllib.parse import parse_qsl

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.api.body import item_of, items_of
from hoodsnap.facts.database.block_device_mapping import Connection
from hoodsnap.facts.fact import (
    NOT_READ,
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    caught,
    integer,
    text,
)
from hoodsnap.facts.layer import CINDER, Layer

ASKED = re.compile(
    r"GET /v[23]/(?P<what>volumes|attachments|os-services)(?:/(?P<id>[^/?\s]+))?"
    r"(?:\?(?P<options>\S*))?(?: |$)"
)
"""A question to cinder: for a list (`detail`), or for one thing."""

GONE = frozenset(["detached", "deleted"])
"""The statuses of an attachment that attaches nothing any more."""

MOVING = frozenset(
    (
        *("creating", "attaching", "detaching", "extending", "downloading", "managing"),
        *("unmanaging", "restoring-backup", "maintenance", "retyping", "uploading"),
    )
)
"""The statuses of a volume that cinder is doing something with."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Attachment(Fact):
    """One attachment: that a server has a volume, on some host."""

    layer: ClassVar[Layer] = CINDER
    noun: ClassVar[str] = "attachment"
    id: str
    """Lower case."""

    raw: Mapping[str, object]
    """As the list of attachments, or the question for one, shows it; empty if neither did."""

    entry: Mapping[str, object]
    """As its volume shows it; empty if it does not. A volume shows only those that are attached."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "id": ("body", "id"),
        "status": ("body", "status"),
        "instance": ("body", "instance"),
        "volume_id": ("body", "volume_id"),
        "host": ("volume", "host_name"),
    }

    documented: ClassVar[Documented] = (
        DocumentedField("id", "Lower case."),
        *("status", "instance", "host"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the attachment's id, since a body holds many."""
        answer, place = super().where(name)
        return answer, f"attachments[{self.id}].{place}"

    @property
    def status(self) -> str:
        """`attached`, `reserved`, `attaching`, `detaching`, `error_attaching` …"""
        if "status" not in self.raw and self.entry:
            return "attached"
        return text(self.raw, "status") or ""

    @property
    def instance(self) -> str | None:
        """The server that has it, lower case; None if it is no server's."""
        uuid = text(self.raw, "instance") if self.raw else text(self.entry, "server_id")
        return uuid.lower() if uuid else None

    @property
    def volume_id(self) -> str:
        """Lower case."""
        return (text(self.raw if self.raw else self.entry, "volume_id") or "").lower()

    @property
    def host(self) -> str | None:
        """The nova-compute host that connected it; only administrators see it."""
        return text(self.entry, "host_name")

    @property
    def connection(self) -> Connection:
        """How the volume is reached by cinder's word; only administrators see it."""
        info = self.raw.get("connection_info")
        if not isinstance(info, dict):
            raise UnheardError("cinder did not tell how the volume is reached")
        return Connection(info, info)


@dataclass(frozen=True, eq=False, kw_only=True)
class Volume(Fact):
    """One volume, as `GET /volumes/detail` or `GET /volumes/UUID` shows it."""

    layer: ClassVar[Layer] = CINDER
    noun: ClassVar[str] = "volume"
    id: str
    """Lower case."""

    raw: Mapping[str, object]

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "size_gib": ("body", "size"),
        "backend": ("body", "os-vol-host-attr:host"),
        "name_id": ("body", "os-vol-mig-status-attr:name_id"),
    }

    documented: ClassVar[Documented] = (
        DocumentedField("id", "Lower case."),
        *("name", "status", "size_gib", "bootable", "multiattach", "backend"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the volume's id, since a body holds many."""
        answer, place = super().where(name)
        return answer, f"volumes[{self.id}].{place}"

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return text(self.raw, "name") or ""

    @property
    def status(self) -> str:
        """`available`, `in-use`, `reserved`, `error` …"""
        return text(self.raw, "status") or ""

    @property
    def size_gib(self) -> int | None:
        """GiB."""
        return integer(self.raw, "size")

    @property
    def multiattach(self) -> bool:
        """Whether several servers may have it at once."""
        value = self.raw.get("multiattach")
        if not isinstance(value, bool):
            raise UnheardError("cinder did not say whether several servers may have the volume")
        return value

    @property
    def bootable(self) -> bool:
        """Whether it holds something to boot from, as far as cinder knows."""
        return text(self.raw, "bootable") == "true"

    @property
    def encrypted(self) -> bool:
        """Whether what is written to it is to be encrypted."""
        value = self.raw.get("encrypted")
        if not isinstance(value, bool):
            raise UnheardError("cinder did not say whether the volume is encrypted")
        return value

    @property
    def name_id(self) -> str | None:
        """The volume's id on the backend after a migration (name_id); admin only."""
        return text(self.raw, "os-vol-mig-status-attr:name_id")

    @property
    def backend(self) -> str | None:
        """`host@backend#pool`; only administrators see it."""
        return text(self.raw, "os-vol-host-attr:host")

    @property
    def updated_at(self) -> str | None:
        """UTC, ISO 8601."""
        return text(self.raw, "updated_at") or text(self.raw, "created_at")

    @property
    def is_moving(self) -> bool:
        """Cinder is doing something with it."""
        moved = self.raw.get("os-vol-mig-status-attr:migstat")
        return self.status in MOVING or moved in ("starting", "migrating", "completing")


class Volumes:
    """All that cinder said: the volumes and attachments it showed, and those that it has not."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.by_id: dict[str, Volume] = {}
        self.absent: dict[str, Answer] = {}
        """The volumes and attachments that were asked for and do not exist, as far as this user
        sees."""
        self.heard = False
        """Whether any list, or any volume or attachment, was shown."""
        self.obstacle: str | None = None
        """Why cinder did not speak, if it did not even begin to."""
        self._gap: str | None = None
        """Why a volume or an attachment may be missing, although cinder was asked for it."""
        self._raw: dict[str, tuple[Mapping[str, object], Answer]] = {}
        self._of_server: dict[object, set[str]] = {}
        self._entries: dict[str, dict[str, tuple[Mapping[str, object], Answer]]] = {}
        """Volume → attachment → what the volume shows of it."""
        self._services = False
        for answer in answers:
            if answer.error is not None and answer.error.kind != "absent":
                self.obstacle = self.obstacle or answer.error.message
            if found := ASKED.match(answer.query):
                try:
                    self._read(answer, found["what"], found["id"], found["options"] or "")
                except UnheardError as reason:
                    self.obstacle = self.obstacle or str(reason)
                    self._gap = self._gap or f"cinder: {reason}"
                if answer.error is not None and found["what"] != "os-services":
                    self._fail(answer.error)

    def _fail(self, error: Failure) -> None:
        if error.kind != "absent":
            self._gap = self._gap or f"cinder: {error.message}"

    def require_all(self) -> None:
        """Raise `UnheardError` if what cinder was asked for is not all here: then what is missing
        here may exist."""
        reason = self._gap or self._unread
        if reason is not None:
            raise UnheardError(reason)

    @cached_property
    def _unread(self) -> str | None:
        """Why an attachment can't be given to its server and volume; None if all can."""
        for attachment in self.attachments.values():
            try:
                attachment.instance, attachment.volume_id, attachment.status  # noqa: B018
            except Exception as error:
                return f"an attachment in cinder {NOT_READ}: {caught(error)}"
        return None

    @property
    def sees_all(self) -> bool:
        """Whether the user sees every project's volumes. A tenant gets 404 for those of others."""
        return self._services

    def volume(self, uuid: str) -> Volume | None:
        """A volume; None if there is none. `UnheardError` if that can't be said."""
        if uuid in self.by_id:
            return self.by_id[uuid]
        self._must_be_absent(uuid, "volume")
        return None

    def attachment(self, uuid: str) -> Attachment | None:
        """An attachment; None if there is none. `UnheardError` if that can't be said."""
        if uuid in self.attachments:
            return self.attachments[uuid]
        self._must_be_absent(uuid, "attachment")
        return None

    def _must_be_absent(self, uuid: str, what: str) -> None:
        if uuid not in self.absent:
            raise UnheardError(
                f"cinder was not asked for this {what}" if self.heard else self.silence
            )
        if not self.sees_all:
            raise UnheardError("cinder shows this user only the volumes of some projects")

    @property
    def silence(self) -> str:
        """Why it was not heard."""
        return f"cinder: {self.obstacle or 'it was not asked'}"

    @cached_property
    def attachments(self) -> Mapping[str, Attachment]:
        """Every attachment that was shown, by id."""
        found = {}
        entries = {uuid: entry for shown in self._entries.values() for uuid, entry in shown.items()}
        for uuid in self._raw.keys() | entries.keys():
            raw, entry = self._raw.get(uuid), entries.get(uuid)
            said = {"body": raw[1]} if raw else {}
            if entry:
                said["volume"] = entry[1]
            found[uuid] = Attachment(
                id=uuid, raw=raw[0] if raw else {}, entry=entry[0] if entry else {}, said=said
            )
        return found

    @cached_property
    def by_server(self) -> Mapping[str, tuple[Attachment, ...]]:
        """The attachments that were shown, by the server that has them."""
        found: dict[str, list[Attachment]] = {}
        for attachment in self.attachments.values():
            try:
                if attachment.instance:
                    found.setdefault(attachment.instance, []).append(attachment)
            except Exception as error:
                caught(error)
                continue  # whose it is can't be read
        return {uuid: tuple(sorted(same, key=_by_id)) for uuid, same in found.items()}

    @cached_property
    def by_volume(self) -> Mapping[str, tuple[Attachment, ...]]:
        """The attachments that were shown, by the volume that they are of."""
        found: dict[str, list[Attachment]] = {}
        for attachment in self.attachments.values():
            try:
                found.setdefault(attachment.volume_id, []).append(attachment)
            except Exception as error:
                caught(error)
                continue
        return {uuid: tuple(sorted(same, key=_by_id)) for uuid, same in found.items()}

    def _read(self, answer: Answer, what: str, uuid: str | None, options: str) -> None:
        if what == "os-services":
            self._services = self._services or answer.error is None
            return
        if uuid not in (None, "detail"):
            self._read_one(answer, what, (uuid or "").lower())
            return
        if answer.error is not None:
            return
        if what == "attachments" and (server := dict(parse_qsl(options)).get("instance_id")):
            # A newer list of a server's attachments takes the older one's place.
            for known in self._of_server.pop(server, ()):
                self._raw.pop(known, None)
        for item in items_of(answer, what, "cinder's list"):
            self._add(answer, what, item)
        self.heard = True

    def _read_one(self, answer: Answer, what: str, uuid: str) -> None:
        if answer.error is not None:
            if answer.error.kind == "absent":
                self.heard = True
                self.absent[uuid] = answer
                self.by_id.pop(uuid, None)
                self._raw.pop(uuid, None)
            return
        self._add(answer, what, item_of(answer, what.removesuffix("s"), "cinder's answer"))
        self.heard = True

    def _add(self, answer: Answer, what: str, raw: Mapping[str, object]) -> None:
        uuid = raw.get("id")
        if not isinstance(uuid, str):
            raise UnheardError("an id can't be read")
        uuid = uuid.lower()
        self.absent.pop(uuid, None)
        if what == "attachments":
            self._raw[uuid] = raw, answer
            if isinstance(raw.get("instance"), str):
                self._of_server.setdefault(raw["instance"], set()).add(uuid)
            return
        self.by_id[uuid] = Volume(id=uuid, raw=raw, said={"body": answer})
        entries = raw.get("attachments")
        self._entries[uuid] = {
            entry["attachment_id"].lower(): (entry, answer)
            for entry in (entries if isinstance(entries, list) else ())
            if isinstance(entry, dict) and isinstance(entry.get("attachment_id"), str)
        }


def _by_id(attachment: Attachment) -> str:
    return attachment.id
