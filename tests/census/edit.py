"""Edits: one leaf in all answers that repeat it, so that the two looks of a visit agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.census import tree
from tests.census.leaf import Leaves, at
from tests.census.texts import Span

from hoodsnap.bundle import Answer, Bundle

IDENTITY = ("id", "uuid", "instance_uuid", "ID", "_uuid", "path", "ifname", "name")
"""Names of what tells rows and objects apart, most exact first."""


class How(Enum):
    """What an edit does at its place."""

    PUT = "put"
    DROP = "drop"
    BESIDE = "beside"
    """One more member after this one."""


@dataclass(frozen=True, eq=False)
class Edit:
    """A change at one place of one answer, which is made wherever the same is repeated."""

    group: tuple[str, str]
    answer: int
    place: tree.Place | Span
    how: How
    new: Any = None

    @property
    def is_alone(self) -> bool:
        """True if other edits may not find their places after this one."""
        if self.how is How.BESIDE:
            return True
        dropped = self.how is How.DROP and not isinstance(self.place, Span)
        return dropped and isinstance(self.place[-1], int)

    def overlaps(self, other: Edit) -> bool:
        """True if both change the same piece of a text."""
        if not isinstance(self.place, Span) or not isinstance(other.place, Span):
            return False
        apart = self.place.last <= other.place.first or other.place.last <= self.place.first
        return self.answer == other.answer and not apart


def edited(leaves: Leaves, edits: Sequence[Edit]) -> Bundle:
    """Return the recording with these edits."""
    answers = list(leaves.bundle.answers)
    texts: dict[int, list[tuple[Span, str]]] = {}
    for edit in edits:
        for number, place in _repeats(leaves, edit):
            if isinstance(place, Span):
                span = place if edit.how is How.PUT else Span(*place[2:], *place[2:])
                texts.setdefault(number, []).append((span, "" if edit.new is None else edit.new))
            else:
                answers[number] = with_value(
                    answers[number], _changed(answers[number].value, place, edit)
                )
    for number, changes in texts.items():
        answers[number] = with_value(answers[number], _rewritten(answers[number].value, changes))
    return leaves.bundle.with_answers(answers)


def _changed(value: Any, place: tree.Place, edit: Edit) -> Any:
    if edit.how is How.DROP:
        return tree.without(value, place)
    if edit.how is How.BESIDE:
        return tree.beside(value, place, edit.new)
    return tree.put(value, place, edit.new)


def _rewritten(text: str, changes: Iterable[tuple[Span, str]]) -> str:
    for span, new in sorted(changes, key=lambda change: -change[0].start):
        text = text[: span.start] + new + text[span.end :]
    return text


def with_value(answer: Answer, value: object) -> Answer:
    """Return an answer with another value, which is not validated again."""
    # A mutant has the shape of its answer.
    raw = {name: getattr(answer, name) for name in answer.model_fields_set}
    return Answer.model_construct(_fields_set=answer.model_fields_set, **(raw | {"value": value}))


def _repeats(leaves: Leaves, edit: Edit) -> Iterator[tuple[int, tree.Place | Span]]:
    source = leaves.bundle.answers[edit.answer]
    value = at(source.value, edit.place)
    for number in leaves.groups[edit.group]:
        answer = leaves.bundle.answers[number]
        if answer.host != source.host or type(answer.value) is not type(source.value):
            continue
        if number == edit.answer:
            yield number, edit.place
        elif isinstance(edit.place, Span):
            end = edit.place.end
            if answer.subject == source.subject and answer.value[:end] == source.value[:end]:
                yield number, edit.place
        else:
            place = counterpart(source.value, answer.value, edit.place)
            if place is not None and _at(answer.value, place) == value:
                yield number, place


def _at(value: Any, place: tree.Place) -> Any:
    try:
        return tree.get(value, place)
    except (LookupError, TypeError, ValueError):
        return None


def counterpart(value: Any, other: Any, place: tree.Place) -> tree.Place | None:
    """Return the place in another answer of the same object, wherever that lists it; or None."""
    found: list[Any] = []
    names: tuple[list[str], list[str]] | None = None
    for key in place:
        try:
            if names is not None and isinstance(value, list) and len(value) == len(names[0]):
                key_there = names[1].index(names[0][key])  # a cell: its column
                names = None
            elif isinstance(key, int) and isinstance(value, list):
                same = names if names is not None else None
                key_there = next(
                    n for n, one in enumerate(other) if _is_same(value[key], one, same)
                )
            else:
                key_there = key
                columns = next((n for n, rows in tree.TABLES if key == rows and n in value), None)
                if columns is not None:
                    names = value[columns], other[columns]
            value, other = tree.get(value, (key,)), tree.get(other, (key_there,))
        except (LookupError, StopIteration, TypeError, ValueError):
            return None
        found.append(key_there)
    return tuple(found)


def _is_same(one: Any, other: Any, names: tuple[list[str], list[str]] | None) -> bool:
    if names is not None:
        one, other = (
            dict(zip(names[0], one, strict=False)),
            dict(zip(names[1], other, strict=False)),
        )
    if one == other:
        return True
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    known = [name for name in IDENTITY if name in one and name in other]
    return bool(known) and one[known[0]] == other[known[0]]
