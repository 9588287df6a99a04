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
        """The newest list of the files. Raises `UnheardError` if it was not collected."""
        answer = self.bundle.last("host", LIST, self.host)
        value_of(answer, "the list of libvirt's definition files", list[dict[str, Any]])
        assert answer is not None  # noqa: S101 (value_of raises for None)
        return answer

    @cached_property
    def first(self) -> Answer:
        """The oldest list of the files. Raises `UnheardError` if they were listed only once.

        libvirt may write, and delete, a file between this list and what it said of the domain.
        """
        found = [one for one in self.bundle.asked("host", LIST, self.host) if one.error is None]
        if self.answer is found[0]:
            raise UnheardError("libvirt's definition files were listed only once")
        return found[0]

    @cached_property
    def lasting(self) -> Mapping[str, datetime]:
        """Name of a domain → time at which its file was changed last.

        Only files that were the same when they were listed first and last. Raises `UnheardError`.
        """
        last = _times(self.answer)
        return {name: time for name, time in _times(self.first).items() if last.get(name) == time}

    @cached_property
    def seen(self) -> frozenset[str]:
        """Names of the domains that had a file at any time. Raises `UnheardError`."""
        return frozenset([*_times(self.first), *_times(self.answer)])

    def content(self, name: str) -> tuple[str, Answer] | None:
        """Return a domain's file as it was kept, and the answer; None if it was not read, because
        libvirt has read it since its last change."""
        answer = self.bundle.last("host", f"cat {FOLDER}/{name}.xml", self.host)
        if answer is None or answer.error is not None:
            return None
        return value_of(answer, f"the definition file of {name}", str), answer


def _times(answer: Answer) -> dict[str, datetime]:
    found = {}
    for row in value_of(answer, LIST, list[dict[str, Any]]):
        name, time = text(row, "name") or "", row.get("modified")
        if not isinstance(time, int | float) or not 0 <= time < LATEST:
            raise UnheardError("the list of libvirt's definition files can't be read")
        found[name.removesuffix(".xml")] = datetime.fromtimestamp(time, UTC)
    return found
