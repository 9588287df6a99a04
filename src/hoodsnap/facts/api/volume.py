"""Volumes, and the attachments of volumes to servers, as cinder returns them."""

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
    OF_ALL_HOSTS,
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    caught,
    integer,
    known,
    text,
)
from hoodsnap.facts.layer import CINDER, Layer
from hoodsnap.phrase import brief

ASKED = re.compile(
    r"GET /v[23]/(?P<what>volumes|attachments|os-services)(?:/(?P<id>[^/?\s]+))?"
    r"(?:\?(?P<options>\S*))?(?: |$)"
)
"""A query to cinder: for a list (`detail`), or for one object."""

SETTLED = frozenset(["attached"])
"""Statuses of an attachment that a server uses."""

GONE = frozenset(["detached", "deleted"])
"""Statuses of an attachment that is over."""

MOVING = frozenset(
    (
        *("creating", "attaching", "detaching", "extending", "downloading", "managing"),
        *("unmanaging", "restoring-backup", "maintenance", "retyping", "uploading"),
    )
)
"""Statuses of a volume that cinder is working on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Attachment(Fact):
    """One attachment of a volume to a server, on one host."""

    layer: ClassVar[Layer] = CINDER
    noun: ClassVar[str] = "attachment"
    id: str
    """Id of the attachment, lower case."""

    raw: Mapping[str, object]
    """The attachment in the list of attachments, or in its own answer; empty if in neither."""

    entry: Mapping[str, object]
    """The attachment in its volume's `attachments`, which lists only attached ones; else empty."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "id": ("body", "id"),
        "status": ("body", "status"),
        "instance": ("body", "instance"),
        "volume_id": ("body", "volume_id"),
        "host": ("volume", "host_name"),
        "device": ("volume", "device"),
        "server": ("volume", "server_id"),
        "listed_volume": ("volume", "volume_id"),
        "mode": ("body", "attach_mode"),
        "connection": ("body", "connection_info"),
    }

    documented: ClassVar[Documented] = (
        DocumentedField("id", "Id of the attachment, lower case."),
        *("status", "instance", "host"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the attachment's id."""
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
        """UUID of the server, lower case; None if the attachment belongs to no server."""
        uuid = text(self.raw, "instance") if self.raw else text(self.entry, "server_id")
        return uuid.lower() if uuid else None

    @property
    def volume_id(self) -> str:
        """Id of the volume, lower case."""
        return (text(self.raw if self.raw else self.entry, "volume_id") or "").lower()

    @property
    def host(self) -> str | None:
        """The nova-compute host that connected the volume; only administrators see it."""
        return text(self.entry, "host_name")

    @property
    def device(self) -> str | None:
        """Device name in the guest, as nova reported it: `/dev/vdb`; None if nova did not."""
        device = text(self.entry, "device")
        return device if device and device.startswith("/dev/") else None

    @property
    def server(self) -> str | None:
        """UUID of the server in the volume's own list of attachments; None if it is not in it."""
        return (text(self.entry, "server_id") or "").lower() or None if self.entry else None

    @property
    def listed_volume(self) -> str | None:
        """Id of the volume in the volume's own list of attachments; None if it is not in it."""
        if not self.entry:
            return None
        ids = {(text(self.entry, key) or "").lower() for key in ("volume_id", "id")}
        ids = ids - {self.volume_id, ""} or ids
        return min(ids)

    @property
    def mode(self) -> str | None:
        """`rw` or `ro`; None if it was not attached yet, which cinder writes as `null`."""
        mode = text(self.raw, "attach_mode") if "attach_mode" in self.raw else None
        return None if mode in ("null", "") else mode

    @property
    def connection(self) -> Connection:
        """The volume's connection as cinder stores it; only administrators see it."""
        info = self.raw.get("connection_info")
        if not isinstance(info, dict):
            raise UnheardError("cinder: connection_info of the attachment was not collected")
        return Connection(info, info)


@dataclass(frozen=True, eq=False, kw_only=True)
class Volume(Fact):
    """One volume, as `GET /volumes/detail` or `GET /volumes/UUID` returns it."""

    layer: ClassVar[Layer] = CINDER
    noun: ClassVar[str] = "volume"
    id: str
    """Id of the volume, lower case."""

    raw: Mapping[str, object]

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "size_gib": ("body", "size"),
        "backend": ("body", "os-vol-host-attr:host"),
        "name_id": ("body", "os-vol-mig-status-attr:name_id"),
        "project": ("body", "os-vol-tenant-attr:tenant_id"),
        "image": ("body", "volume_image_metadata"),
        "cluster": ("body", "cluster_name"),
        "user": ("body", "user_id"),
    }

    documented: ClassVar[Documented] = (
        DocumentedField("id", "Id of the volume, lower case."),
        *("name", "status", "size_gib", "bootable", "multiattach", "backend"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the volume's id."""
        answer, place = super().where(name)
        return answer, f"volumes[{self.id}].{place}"

    @property
    def name(self) -> str:
        """Name of the volume, chosen by its owner."""
        return text(self.raw, "name") or ""

    @property
    def status(self) -> str:
        """`available`, `in-use`, `reserved`, `error` …"""
        return text(self.raw, "status") or ""

    @property
    def size_gib(self) -> int | None:
        """Size in GiB."""
        return integer(self.raw, "size")

    @property
    def multiattach(self) -> bool:
        """True if several servers may attach the volume at once."""
        value = self.raw.get("multiattach")
        if not isinstance(value, bool):
            raise UnheardError("cinder: multiattach of the volume was not collected")
        return value

    @property
    def bootable(self) -> bool:
        """True if cinder marks the volume as bootable."""
        return text(self.raw, "bootable") == "true"

    @property
    def encrypted(self) -> bool:
        """True if the volume is encrypted."""
        value = self.raw.get("encrypted")
        if not isinstance(value, bool):
            raise UnheardError("cinder: encrypted of the volume was not collected")
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
    def project(self) -> str | None:
        """Id of the project that owns the volume; only administrators see it."""
        return text(self.raw, "os-vol-tenant-attr:tenant_id")

    @property
    def user(self) -> str | None:
        """Id of the user who created the volume."""
        return text(self.raw, "user_id")

    @property
    def cluster(self) -> str | None:
        """Cluster of cinder-volume services that serves the volume; None without one."""
        return text(self.raw, "cluster_name") if "cluster_name" in self.raw else None

    @property
    def image(self) -> Mapping[str, object]:
        """cinder's copy of the image that the volume was made from; empty without one."""
        copied = self.raw.get("volume_image_metadata")
        return copied if isinstance(copied, dict) else {}

    @property
    def updated_at(self) -> str | None:
        """Time of the last update, or of the creation: UTC, ISO 8601."""
        return text(self.raw, "updated_at") or text(self.raw, "created_at")

    @property
    def is_moving(self) -> bool:
        """True if cinder is working on the volume."""
        moved = self.raw.get("os-vol-mig-status-attr:migstat")
        return self.status in MOVING or moved in ("starting", "migrating", "completing")


class Volumes:
    """All answers of cinder: volumes and attachments, and those that do not exist."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.by_id: dict[str, Volume] = {}
        self.absent: dict[str, Answer] = {}
        """UUID of a volume or attachment that does not exist for this user → the answer."""
        self.heard = False
        """True if cinder answered a query for volumes or attachments, even with "not found"."""
        self.whole: set[str] = set()
        """Lists that were collected for the whole cloud: `volumes`, `attachments`."""
        self.obstacle: str | None = None
        """Message of cinder's first error, not counting `absent`; None without one."""
        self._gap: str | None = None
        """Reason why a volume or an attachment may be missing although it exists."""
        self._raw: dict[str, tuple[Mapping[str, object], Answer]] = {}
        self._of_server: dict[object, set[str]] = {}
        self._entries: dict[str, dict[str, tuple[Mapping[str, object], Answer]]] = {}
        """Volume id → attachment id → its entry in the volume's `attachments`."""
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
        """Raise `UnheardError` if a query failed, so that missing objects may exist."""
        reason = self._gap or self._unread
        if reason is not None:
            raise UnheardError(reason)

    @cached_property
    def _unread(self) -> str | None:
        """Reason why an attachment's server or volume can't be read; None if all can."""
        for attachment in self.attachments.values():
            try:
                attachment.instance, attachment.volume_id, attachment.status  # noqa: B018
            except Exception as error:
                return f"an attachment in cinder {NOT_READ}: {caught(error)}"
        return None

    def require_whole(self, *lists: str) -> None:
        """Raise `UnheardError` if none of these lists was collected for the whole cloud.

        Without one, only the volumes and attachments of this host's servers are known.
        """
        if not self.heard:
            raise UnheardError(self.silence)
        if self.whole.isdisjoint(lists):
            raise UnheardError(
                f"cinder: only the volumes of this host's servers were collected {OF_ALL_HOSTS}"
            )

    @property
    def sees_all(self) -> bool:
        """True if the user sees all projects' volumes. Tenants get 404 for other projects'."""
        return self._services

    def volume(self, uuid: str) -> Volume | None:
        """Return a volume; None if it does not exist. Raises `UnheardError` if that is unknown."""
        if uuid in self.by_id:
            return self.by_id[uuid]
        self._must_be_absent(uuid, "volume")
        return None

    def attachment(self, uuid: str) -> Attachment | None:
        """Return an attachment; None if it does not exist.

        Raises `UnheardError` if that is unknown.
        """
        if uuid in self.attachments:
            return self.attachments[uuid]
        self._must_be_absent(uuid, "attachment")
        return None

    def _must_be_absent(self, uuid: str, what: str) -> None:
        if uuid not in self.absent:
            raise UnheardError(
                f"cinder: this {what} was not collected" if self.heard else self.silence
            )
        if not self.sees_all:
            raise UnheardError("cinder: this user sees only the volumes of some projects")

    def title_of(self, uuid: str) -> str:
        """Return `volume NAME`; without a name, `volume` and the beginning of the id."""
        volume = self.by_id.get(uuid)
        name = known(lambda: volume.name) if volume is not None else None
        return f"volume {name or brief(uuid)}"

    @property
    def silence(self) -> str:
        """Reason why cinder's volumes are not known."""
        return f"cinder: {self.obstacle or 'the volumes were not collected'}"

    @cached_property
    def attachments(self) -> Mapping[str, Attachment]:
        """The returned attachments by id."""
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
        """Server UUID → the returned attachments of the server."""
        found: dict[str, list[Attachment]] = {}
        for attachment in self.attachments.values():
            try:
                if attachment.instance:
                    found.setdefault(attachment.instance, []).append(attachment)
            except Exception as error:
                caught(error)
                continue  # its server can't be read
        return {uuid: tuple(sorted(same, key=_by_id)) for uuid, same in found.items()}

    @cached_property
    def by_volume(self) -> Mapping[str, tuple[Attachment, ...]]:
        """Volume id → the returned attachments of the volume."""
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
            # A newer list of a server's attachments replaces the older one.
            for older in self._of_server.pop(server, ()):
                self._raw.pop(older, None)
        for item in items_of(answer, what, "cinder's list"):
            self._add(answer, what, item)
        self.heard = True
        if "instance_id" not in dict(parse_qsl(options)):
            self.whole.add(what)

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
            raise UnheardError("an id in cinder's answer can't be read")
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
