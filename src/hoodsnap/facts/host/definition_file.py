"""Files in which libvirt keeps the definitions of domains, which it reads when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.fact import UnheardError, text, value_of

FOLDER = "/etc/libvirt/qemu"

LIST = f"ls -l --full-time {FOLDER}"

LATEST = 1 << 36
"""Seconds since 1970 up to which a time is possible."""


@dataclass(frozen=True, eq=False)
class DefinitionFiles:
    """The definition files of one host."""

    bundle: Bundle
    host: str

    @cached_property
    def answer(self) -> Answer:
        """The list of the files. Raises `UnheardError` if it was not collected."""
        answer = self.bundle.last("host", LIST, self.host)
        value_of(answer, "the list of libvirt's definition files", list[dict[str, Any]])
        assert answer is not None  # noqa: S101 (value_of raises for None)
        return answer

    @cached_property
    def changed(self) -> Mapping[str, datetime]:
        """Name of a domain → time at which its file was changed last. Raises `UnheardError`."""
        found = {}
        for row in value_of(self.answer, LIST, list[dict[str, Any]]):
            name, time = text(row, "name") or "", row.get("modified")
            if not isinstance(time, int | float) or not 0 <= time < LATEST:
                raise UnheardError("the list of libvirt's definition files can't be read")
            found[name.removesuffix(".xml")] = datetime.fromtimestamp(time, UTC)
        return found

    def content(self, name: str) -> tuple[str, Answer] | None:
        """Return a domain's file as it was kept, and the answer; None if it was not read, because
        libvirt has read it since its last change."""
        answer = self.bundle.last("host", f"cat {FOLDER}/{name}.xml", self.host)
        if answer is None or answer.error is not None:
            return None
        return value_of(answer, f"the definition file of {name}", str), answer
