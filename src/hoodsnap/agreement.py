"""The definition of a thing that several layers tell: who tells it, and where they differ.

A check that compares plain copies is a table of things and one call of `disagreements`. What needs
judgment (a trap for one field, a tolerance) is written as a check of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from hoodsnap.check import Problem, problem
from hoodsnap.evidence import Evidence, derives
from hoodsnap.facts.fact import Fact, UnheardError
from hoodsnap.phrase import brief


class Told(NamedTuple):
    """A layer that tells a thing: its noun, its name in a headline, and how to read its word."""

    noun: str
    """Parameter of `disagreements`, which is an attribute of a guest: `instance`."""
    words: str
    """Name of the source, as a headline has it after "in": `nova's database row`."""
    field: str
    """Name of the value in the evidence, and the fact's field that was read: `project`."""
    read: Callable[[Any], object]
    """Reader of a fact. It returns None if the layer says nothing about the thing (it has no such
    record), and raises `UnheardError` if that was not collected. Values must be normalized: two
    layers agree if their values are equal."""


@dataclass(frozen=True)
class Thing:
    """A property of a guest that several layers tell."""

    name: str
    """With a possessive before it: `host name`, in "vm-a's host name"."""
    tellers: tuple[Told, ...]
    """Its sources; the first has the authority, and the others are compared with it. If it says
    nothing, the next one takes its place."""


class _Word(NamedTuple):
    """What a layer tells of a thing; made only where layers differ, which is rare."""

    teller: Told
    value: object
    fact: Fact

    @property
    def evidence(self) -> Evidence:
        """Evidence of the value."""
        field = self.teller.field
        return derives(self.fact, field, **{field: self.value})


def disagreements(title: str, things: Iterable[Thing], **facts: Fact | None) -> Iterator[Problem]:
    """Yield a problem for each thing that layers tell differently.

    `title` is the name of what has the things; `facts` are the nouns of the tellers. A fact that is
    None tells nothing. If a value was not collected, the others are still compared; at the end, the
    reason is raised as `UnheardError`, so the check also becomes a skip.
    """
    reason: UnheardError | None = None
    for thing in things:
        words: list[tuple[Told, object, Fact]] = []
        differs = False
        for teller in thing.tellers:
            fact = facts.get(teller.noun)
            if fact is None:
                continue
            try:
                value = teller.read(fact)
            except UnheardError as unheard:
                reason = reason or unheard
                continue
            if value is not None:
                words.append((teller, value, fact))
                differs = differs or value != words[0][1]
        if differs:
            first, *others = (_Word(*word) for word in words)
            apart = [word for word in others if word.value != first.value]
            evidence = (word.evidence for word in (first, *others))
            yield problem(_headline(title, thing, first, apart), *evidence)
    if reason is not None:
        raise reason


def _headline(title: str, thing: Thing, first: _Word, apart: list[_Word]) -> str:
    others = ", ".join(f"but {brief(str(w.value))} in {w.teller.words}" for w in apart)
    return f"{title}'s {thing.name} is {brief(str(first.value))} in {first.teller.words}, {others}"
