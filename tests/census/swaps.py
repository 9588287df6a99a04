"""Swaps: two running guests have each other's identity in one layer, and every one must be found.

Swapped are the values of one kind of leaf, and all values of a whole layer.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from tests.census import tree
from tests.census.edit import Edit, How, edited, with_value
from tests.census.leaf import Kind, Leaf, Leaves
from tests.census.question import is_counted
from tests.census.recordings import recording
from tests.census.texts import Span
from tests.census.things import identities
from tests.census.verdict import Verdict

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.cloud.guest import Guest

Things = Mapping[str, tuple[str, ...]]

OF_OTHERS = ("network", "project", "user", "image")
"""What guests share, so that nothing is wrong if two of them swap it."""


class Swap(NamedTuple):
    """Two guests' values of one thing in one layer, and what noticed that they are swapped."""

    layer: str
    question: str
    """Empty if they are swapped in all answers of the layer."""
    path: str
    thing: str
    one: str
    other: str
    verdict: Verdict

    @property
    def kind(self) -> Kind:
        """The kind of leaf that is swapped."""
        return Kind(*self[:3])


def things(guest: Guest) -> Things:
    """Return the identities that are the guest's own."""
    return {name: found for name, found in identities(guest).items() if name not in OF_OTHERS}


def swaps(layers: Collection[str] | None = None, name: str = "healthy") -> Iterator[Swap]:
    """Yield the verdict on each swap between the guests of a recording, in some layers or in all."""
    home = recording(name)
    running = [guest for guest in home.judge.report.cloud.guests if guest.runs]
    running.sort(key=lambda guest: (-len(things(guest)), guest.name or ""))
    with multiprocessing.get_context("fork").Pool() as pool:
        mutants = [
            mutant
            for mutant in (*_of_leaves(name, running), *_of_layers(name, running))
            if layers is None or mutant.swap[0] in layers
        ]
        yield from pool.imap_unordered(_judged, mutants)


class _Mutant(NamedTuple):
    recording: str
    swap: tuple[str, str, str, str, str, str]
    edits: tuple[Edit, ...]


def _judged(mutant: _Mutant) -> Swap:
    home = recording(mutant.recording)
    if mutant.edits:
        bundle = edited(home.leaves, mutant.edits)
    else:
        layer, *_, one, other = mutant.swap
        bundle = exchanged(home.bundle, layer, one, other)
    return Swap(*mutant.swap, home.judge.verdict(bundle))


def _of_leaves(name: str, running: list[Guest]) -> Iterator[_Mutant]:
    home = recording(name)
    leaves = {
        guest.uuid: {leaf.kind: leaf for leaf in Leaves(home.bundle, guest).all}
        for guest in running
    }
    done: set[object] = set()
    for one in running:
        for other in running:
            for kind, leaf in leaves[one.uuid].items():
                there = leaves[other.uuid].get(kind)
                if kind in done or there is None or there.value == leaf.value:
                    continue
                thing = _thing(leaf, things(one), there, things(other))
                if thing is not None and not _are_alike(home.bundle, leaf, there):
                    done.add(kind)
                    edits = (_put(leaf, there.value), _put(there, leaf.value))
                    yield _Mutant(name, (*kind, thing, leaf.value, there.value), edits)


OF_THE_ROW = (
    *("id", "created_at", "updated_at", "atime", "mtime", "ctime", "btime", "ino"),
    *("size", "blocks", "nlink"),
)
"""Cells that identify a row, and nothing that any other layer has: if two rows differ in nothing
else, they are the same two rows when their owners are swapped."""


def _are_alike(bundle: Bundle, leaf: Leaf, there: Leaf) -> bool:
    """True if two rows of one list differ in nothing that identifies anything but the leaves."""
    if leaf.answer != there.answer:
        return False
    one, other = _row(bundle, leaf), _row(bundle, there)
    return one is not None and one == other


def _row(bundle: Bundle, leaf: Leaf) -> Mapping[str, object] | None:
    """Return the other cells of the row of a leaf, by name; None if the leaf is in no row."""
    answer = bundle.answers[leaf.answer].value
    if isinstance(leaf.place, Span) or len(leaf.place) < 2:
        return None
    *folder, key = leaf.place
    cells = tree.get(answer, tuple(folder))
    if isinstance(cells, list) and isinstance(answer, dict) and folder[0] == "rows":
        cells, key = dict(zip(answer.get("columns", ()), cells, strict=False)), leaf.kind.path[1:-1]
    if not isinstance(cells, dict) or len(folder) > 2:
        return None
    # A disk is known by its inode to the process that has it open.
    is_file = cells.get("type") == "f"
    return {
        name: value
        for name, value in cells.items()
        if name != key and (name not in OF_THE_ROW or (is_file and name == "ino"))
    }


def _put(leaf: Leaf, new: object) -> Edit:
    return Edit(leaf.kind[:2], leaf.answer, leaf.place, How.PUT, new)


def _thing(leaf: Leaf, mine: Things, there: Leaf, theirs: Things) -> str | None:
    """Return what both values identify, each of its own guest."""
    if not isinstance(leaf.value, str) or not isinstance(there.value, str):
        return None
    for thing in sorted(mine.keys() & theirs.keys()):
        if thing == "process":
            ours, foreign = leaf.value in mine[thing], there.value in theirs[thing]
        else:
            ours = any(text in leaf.value for text in mine[thing])
            foreign = any(text in there.value for text in theirs[thing])
        if ours and foreign:
            return thing
    return None


UNTOLD = {"logs": ("process", "domain name", "port")}
"""What a layer tells of no guest but in free text, so that no record can disagree. By layer; of the
others, it is the number of the process, which has different meanings."""


def _of_layers(name: str, running: list[Guest]) -> Iterator[_Mutant]:
    home = recording(name)
    texts = {layer: _text(home.bundle, layer) for layer in home.bundle.by_layer}
    for layer, text in texts.items():
        for thing in things(running[0]):
            found = _pair(running, thing, text)
            if found is not None and thing not in UNTOLD.get(layer, ("process",)):
                yield _Mutant(name, (layer, "", "", thing, *found), ())


def _pair(running: list[Guest], thing: str, text: str) -> tuple[str, str] | None:
    values = [value for guest in running for value in things(guest).get(thing, ())[:1]]
    told = [value for value in dict.fromkeys(values) if value in text]
    return (told[0], told[1]) if len(told) > 1 else None


def _text(bundle: Bundle, layer: str) -> str:
    return "\n".join(
        json.dumps(answer.value) for answer in bundle.by_layer[layer] if is_counted(answer)
    )


def exchanged(bundle: Bundle, layer: str, one: str, other: str) -> Bundle:
    """Return a recording in whose answers of one layer two texts stand for each other."""

    def changed(answer: Answer) -> Answer:
        if answer.layer != layer or not is_counted(answer):
            return answer
        is_text = isinstance(answer.value, str)
        text = answer.value if is_text else json.dumps(answer.value)
        text = other.join(part.replace(other, one) for part in text.split(one))
        return with_value(answer, text if is_text else json.loads(text))

    return bundle.with_answers(map(changed, bundle.answers))
