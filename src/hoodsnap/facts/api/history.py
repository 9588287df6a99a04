"""Migrations and actions of servers, as the nova API lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.body import items_of
from hoodsnap.facts.fact import Fact, UnheardError, text
from hoodsnap.facts.layer import NOVA, Layer

MIGRATIONS = re.compile(r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/os-migrations(?:\?\S*)? \[")

ACTIONS = re.compile(
    r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/servers/(?P<uuid>[0-9a-f-]{36})/os-instance-actions"
    r"(?:\?\S*)? \["
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ListedMigration(Fact):
    """One migration in `GET /os-migrations`."""

    layer: ClassVar[Layer] = NOVA
    noun: ClassVar[str] = "server"
    raw: Mapping[str, object]

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the migration's id."""
        answer, place = super().where(name)
        return answer, f"migrations[{self.raw.get('id')}].{place}"

    @property
    def uuid(self) -> str:
        """UUID of the migration, lower case (microversion 2.59 and later)."""
        return (text(self.raw, "uuid") or "").lower()


@dataclass(frozen=True, eq=False, kw_only=True)
class ListedAction(Fact):
    """One action in `GET /servers/UUID/os-instance-actions`."""

    layer: ClassVar[Layer] = NOVA
    noun: ClassVar[str] = "server"
    raw: Mapping[str, object]
    server: str
    """UUID of the server whose actions were listed, lower case."""

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the request's id."""
        answer, place = super().where(name)
        return answer, f"instanceActions[{self.raw.get('request_id')}].{place}"

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return text(self.raw, "request_id") or ""


def listed_migrations(answers: Iterable[Answer]) -> Iterator[ListedMigration]:
    """Yield the migrations that the API listed; lists that can't be read are left out."""
    for answer in answers:
        if MIGRATIONS.match(answer.query):
            for raw in _items(answer, "migrations"):
                yield ListedMigration(raw=raw, said={"body": answer})


def listed_actions(answers: Iterable[Answer]) -> Iterator[ListedAction]:
    """Yield the actions that the API listed; lists that can't be read are left out."""
    for answer in answers:
        if found := ACTIONS.match(answer.query):
            for raw in _items(answer, "instanceActions"):
                yield ListedAction(raw=raw, server=found["uuid"], said={"body": answer})


def _items(answer: Answer, key: str) -> Iterable[Mapping[str, object]]:
    try:
        return items_of(answer, key, f"the list of {key}")
    except UnheardError:
        return ()
