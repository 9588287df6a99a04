"""The result of a census, as a table in a file: one line for each kind of leaf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.census.leaf import Kind
from tests.census.verdict import Word

RESULT = Path(__file__).parent / "result.tsv"

COLUMNS = ("layer", "question", "path", "verdict", "by", "mutation", "thing", "told", "recording")


@dataclass(frozen=True)
class Row:
    """The verdict on one kind of leaf."""

    kind: Kind
    word: Word
    by: str
    """Checks that fired, or what shows the change."""
    mutation: str
    thing: str
    """Name of what the leaf tells, if it is a thing that several layers tell."""
    told: tuple[str, ...]
    """The other layers that tell the same value."""
    recording: str
    mentions: int = 0
    old: str = ""
    new: str = ""

    @property
    def is_judged(self) -> bool:
        """True if a check notices a change."""
        return self.word in (Word.JUDGED, Word.JOINED)

    @property
    def is_noticed(self) -> bool:
        """True if a check or the report notices a change."""
        return self.is_judged or self.word is Word.SHOWN

    @property
    def is_member(self) -> bool:
        """True for a whole row, object, element or option."""
        return self.kind.path.startswith("member ")


def written(rows: Iterable[Row], *, values: bool = False) -> Iterator[str]:
    """Yield the lines of the file, sorted; with the values, which differ in each recording."""
    yield "\t".join((*COLUMNS, *(("old", "new") if values else ()))) + "\n"
    for row in sorted(rows, key=lambda row: row.kind):
        cells = [*row.kind, row.word.name.lower(), row.by, row.mutation]
        cells += [
            row.thing,
            ",".join(row.told),
            row.recording,
            *((row.old, row.new) if values else ()),
        ]
        yield "\t".join(" ".join(cell.split("\t")).replace("\n", " ") for cell in cells) + "\n"


def read(path: Path = RESULT) -> tuple[Row, ...]:
    """Read the file."""
    _, *lines = path.read_text().splitlines()
    return tuple(_row(line.split("\t")) for line in lines)


def _row(cells: list[str]) -> Row:
    layer, question, path, word, by, mutation, thing, told, recording = cells
    kind = Kind(layer, question, path)
    layers = tuple(told.split(",")) if told else ()
    return Row(kind, Word[word.upper()], by, mutation, thing, layers, recording)
