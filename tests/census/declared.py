"""Declared leaves: those that nothing needs to notice, each with its reason.

`declared/LAYER.toml` lists them by kind of question:

    [[declared]]
    question = "GET /v2.0/subnets"           # `*` matches anything
    paths = [".subnets[].dns_nameservers[]"]
    reason = "identity of no other layer"
    why = "A sentence; required where another layer tells the value."
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.census.leaf import Kind
from tests.census.patterns import matches
from tests.census.question import LONGEST
from tests.census.result import Row

FOLDER = Path(__file__).parent / "declared"

REASONS = (
    "identity of no other layer",
    "hardware detail chosen by libvirt",
    "moves by itself",
    "copy of the same record",
    "free text",
    "recorded for replay only",
    "chosen by its owner",
    "asked only to find others",
)
"""Why nothing needs to notice a change."""

READ_ELSEWHERE = frozenset(
    ["copy of the same record", "recorded for replay only", "asked only to find others"]
)
"""Reasons for a value that the layer has at another place too, which a check reads."""


class BadDeclarationError(Exception):
    """A file declares something that it may not. The text names the file and the entry."""


@dataclass(frozen=True)
class Declaration:
    """One entry of a file: leaves of one kind of question, declared for one reason."""

    layer: str
    question: str
    paths: tuple[str, ...]
    reason: str
    why: str = ""

    @property
    def title(self) -> str:
        """How a message names it."""
        return f"declared/{self.layer}.toml: {self.question}"

    def covers(self, kind: Kind, path: str | None = None) -> bool:
        """True if one of the patterns, or this one, matches a kind of leaf."""
        question = self.question if "*" in self.question else self.question[:LONGEST]
        if kind.layer != self.layer or not matches(question, kind.question):
            return False
        return any(matches(one, kind.path) for one in ((path,) if path else self.paths))


def load(folder: Path = FOLDER) -> tuple[Declaration, ...]:
    """Read all files. Raises `BadDeclarationError`."""
    return tuple(one for path in sorted(folder.glob("*.toml")) for one in _read(path))


def _read(path: Path) -> Iterator[Declaration]:
    try:
        entries = tomllib.loads(path.read_text()).get("declared", [])
    except tomllib.TOMLDecodeError as error:
        raise BadDeclarationError(f"declared/{path.name}: {error}") from None
    for raw in entries:
        unknown = raw.keys() - {"question", "paths", "reason", "why"}
        missing = {"question", "paths", "reason"} - raw.keys()
        if unknown or missing:
            raise BadDeclarationError(f"declared/{path.name}: {raw}: {unknown or missing}?")
        if raw["reason"] not in REASONS:
            raise BadDeclarationError(f"declared/{path.name}: no such reason: {raw['reason']}")
        yield Declaration(
            path.stem, raw["question"], tuple(raw["paths"]), raw["reason"], raw.get("why", "")
        )


def declaration_of(declared: Iterable[Declaration], kind: Kind) -> Declaration | None:
    """Return the first declaration of a kind of leaf, if there is one."""
    return next((one for one in declared if one.covers(kind)), None)


def complaints(declared: Iterable[Declaration], rows: Iterable[Row]) -> Iterator[str]:
    """Yield what is wrong with declarations, given the verdicts on all leaves of their layers."""
    rows = tuple(rows)
    for one in declared:
        for path in one.paths:
            covered = [row for row in rows if one.covers(row.kind, path)]
            if not covered:
                yield f"{one.title}: {path} matches no leaf"
            for row in covered:
                if row.is_judged:
                    yield f"{one.title}: {path} matches {row.kind.path}, judged by {row.by}"
                elif row.told and not one.why:
                    told = ", ".join(row.told)
                    yield f"{one.title}: {row.kind.path} needs `why`: {told} tells it too"
