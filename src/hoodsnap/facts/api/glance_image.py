"""Images, as glance returns them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.body import items_of
from hoodsnap.facts.clock import moment
from hoodsnap.facts.fact import Fact, UnheardError, integer, text, value_of
from hoodsnap.facts.layer import GLANCE, Layer

ASKED = re.compile(r"GET /v2/images(?:/(?P<id>[^/?\s]+))?(?:\?(?P<options>\S*))?(?: \[.*)?")
"""A query to glance: for a page of the list, or for one image."""

GONE = frozenset(["deleted", "pending_delete"])
"""Statuses of an image that was deleted."""

WITHHELD = "[withheld]"
"""Value of a property whose text was not recorded."""

_PROPERTY = re.compile(
    r"(hw_|os_(?!hash|hidden)|img_)\w+|kernel_id|ramdisk_id|architecture"
    r"|instance_uuid|image_(type|location|state)"
)
"""Properties that a server gets a copy of, and that nova acts on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GlanceImage(Fact):
    """One image in glance."""

    layer: ClassVar[Layer] = GLANCE
    noun: ClassVar[str] = "glance image"
    raw: Mapping[str, object]

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the image's id."""
        answer, place = super().where(name)
        return answer, f"images[{self.raw.get('id')}].{place}"

    @property
    def id(self) -> str:
        """Id of the image, lower case."""
        return (text(self.raw, "id") or "").lower()

    @property
    def name(self) -> str:
        """Name of the image, chosen by its owner."""
        return text(self.raw, "name") or ""

    @property
    def status(self) -> str:
        """`active`, `queued`, `saving`, `deactivated`, `killed` …"""
        return text(self.raw, "status") or ""

    @property
    def checksum(self) -> str | None:
        """MD5 of the image's data; None without data, or if glance did not compute it."""
        return text(self.raw, "checksum") or None

    @property
    def size(self) -> int | None:
        """Bytes that glance stores for the image; None without data."""
        return integer(self.raw, "size")

    @property
    def disk_format(self) -> str | None:
        """`qcow2`, `raw` …"""
        return text(self.raw, "disk_format")

    @property
    def container_format(self) -> str | None:
        """`bare`, `ami` …"""
        return text(self.raw, "container_format")

    @property
    def owner(self) -> str | None:
        """Id of the project that owns the image."""
        return text(self.raw, "owner")

    @property
    def min_disk(self) -> int | None:
        """GiB that a server's root disk must have."""
        return integer(self.raw, "min_disk")

    @property
    def min_ram(self) -> int | None:
        """MiB that a server's memory must have."""
        return integer(self.raw, "min_ram")

    @property
    def base_image_ref(self) -> str | None:
        """Of a snapshot, the image of the server that it was made from; else None."""
        return text(self.raw, "base_image_ref") if "base_image_ref" in self.raw else None

    @property
    def instance_uuid(self) -> str | None:
        """Of a snapshot, the server that it was made from; else None."""
        return text(self.raw, "instance_uuid") if "instance_uuid" in self.raw else None

    def is_shared_with(self, project: object) -> bool:
        """True if nova made this snapshot for an administrator, and shared it with a project."""
        owner = self.raw.get("instance_owner")  # older collectors withhold it
        return self.raw.get("visibility") == "shared" and owner in (project, WITHHELD)

    @cached_property
    def properties(self) -> Mapping[str, str]:
        """Properties that nova acts on, and copies to each server."""
        return {
            name: value
            for name, value in self.raw.items()
            if isinstance(value, str) and _PROPERTY.fullmatch(name)
        }

    @cached_property
    def updated_at(self) -> datetime | None:
        """Time of the last change of the image or its properties; None if it can't be read."""
        return moment(text(self.raw, "updated_at"))


class GlanceImages:
    """All answers of glance: the images, and those that do not exist."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.by_id: dict[str, GlanceImage] = {}
        self.absent: dict[str, Answer] = {}
        """Id of an image that does not exist for this user → the answer."""
        self.listed: dict[str, GlanceImage] = {}
        """The images as the list has them."""
        self.list: Answer | None = None
        """The last page of the list; None if the list was not collected to its end."""
        for answer in answers:
            found = ASKED.fullmatch(answer.query)
            if found is None:
                continue
            if found["id"] is None:
                self._read_page(answer)
            elif answer.error is None:
                raw = value_of(answer, "an image in glance", dict[str, object])
                self.by_id[found["id"].lower()] = GlanceImage(raw=raw, said={"body": answer})
            elif answer.error.kind == "absent":
                self.absent[found["id"].lower()] = answer

    def _read_page(self, answer: Answer) -> None:
        if answer.error is not None:
            self.list = None
            return
        for raw in items_of(answer, "images", "glance: the list of images"):
            uuid = text(raw, "id")
            if uuid is not None:
                image = GlanceImage(raw=raw, said={"body": answer})
                self.listed[uuid.lower()] = image
                self.by_id.setdefault(uuid.lower(), image)
        is_last = isinstance(answer.value, dict) and answer.value.get("next") is None
        self.list = answer if is_last else None

    @cached_property
    def snapshots(self) -> Mapping[str, tuple[GlanceImage, ...]]:
        """UUID of a server → the snapshots that were made from it."""
        found: dict[str, tuple[GlanceImage, ...]] = {}
        for image in self.by_id.values():
            if image.instance_uuid and image.properties.get("image_type") == "snapshot":
                server = image.instance_uuid.lower()
                found[server] = (*found.get(server, ()), image)
        return found

    def image(self, uuid: str) -> GlanceImage | None:
        """Return an image; None if glance has no such image for this user.

        Raises `UnheardError` if that is unknown.
        """
        uuid = uuid.lower()
        if uuid in self.by_id:
            return self.by_id[uuid]
        if uuid in self.absent:
            return None
        raise UnheardError("glance: this image was not collected")
