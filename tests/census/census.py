"""The census itself: the verdict on every kind of leaf, with all processors."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.census.edit import edited
from tests.census.leaf import Kind, Leaf
from tests.census.mutation import Mutation, mutations, of_member
from tests.census.recordings import Recording, groups, recording
from tests.census.verdict import SILENT, Verdict, Word

from hoodsnap.bundle import Bundle

TOGETHER = 8
"""Leaves that are changed at once. Only if that is noticed, halves of them are."""

SHARE = 24
"""Leaves that one process is given at a time."""


class Count(NamedTuple):
    """The verdict on one kind of leaf."""

    recording: str
    kind: Kind
    verdict: Verdict
    mutation: str
    """Name of the mutation that was noticed best."""
    value: object
    new: object


def census(wanted: Collection[str] | None = None) -> Iterator[Count]:
    """Yield the verdict on every kind of leaf of some layers, or of all."""
    shares = [
        (name, kinds[at : at + SHARE])
        for name, group, found in groups()
        if wanted is None or group[0] in wanted
        for kinds in [sorted(found)]
        for at in range(0, len(kinds), SHARE)
    ]
    # Forked processes share the recordings that groups() has read.
    workers = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("fork").Pool(workers, _begin) as pool:
        for counts in pool.imap_unordered(_share, shares):
            yield from counts


def _begin() -> None:
    # What was read before the fork stays: looking through it for garbage takes time.
    gc.freeze()
    gc.set_threshold(100_000)


def _share(share: tuple[str, Sequence[Kind]]) -> list[Count]:
    name, kinds = share
    return list(counted(recording(name), kinds))


def counted(home: Recording, kinds: Collection[Kind]) -> Iterator[Count]:
    """Yield the verdicts on some kinds of leaves of a recording, each the best of its mutations."""
    wanted = frozenset(kinds)
    ways = {
        leaf.kind: list(ways_of(home, leaf))
        for leaf in (*home.leaves.all, *home.leaves.members)
        if leaf.kind in wanted
    }
    best: dict[Kind, tuple[Verdict, Mutation]] = {}
    for turn in range(max(map(len, ways.values()), default=0)):
        tried = [
            ways[kind][turn]
            for kind in ways
            if turn < len(ways[kind]) and not _is_settled(best.get(kind))
        ]
        # What nothing noticed in the first turn, nothing will notice in most cases.
        for batch in _batches(tried, TOGETHER if turn == 0 else 3 * TOGETHER):
            for mutation, verdict in _halved(home, batch, home.judge.verdict):
                known = best.get(mutation.kind)
                if known is None or _rank(verdict, mutation) < _rank(*known):
                    best[mutation.kind] = verdict, mutation
    _look_at_text(home, ways, best)
    for kind, (verdict, mutation) in best.items():
        yield Count(home.name, kind, verdict, mutation.name, mutation.old, mutation.edit.new)


def ways_of(home: Recording, leaf: Leaf) -> Iterator[Mutation]:
    """Yield the mutations of a leaf or of a member."""
    if leaf.kind.path.startswith("member "):
        return of_member(home.leaves, leaf)
    return mutations(leaf)


def _is_settled(known: tuple[Verdict, Mutation] | None) -> bool:
    return known is not None and known[0].word <= Word.JOINED


def _rank(verdict: Verdict, mutation: Mutation) -> int:
    # A check that can't be decided without a value is no judge of the value.
    if verdict.word is Word.SKIPPED and mutation.name == "gone":
        return Word.SILENT
    return verdict.word


def _batches(tried: Iterable[Mutation], most: int = TOGETHER) -> Iterator[list[Mutation]]:
    """Yield mutations that can be made at once."""
    batch: list[Mutation] = []
    for mutation in tried:
        if mutation.edit.is_alone:
            yield [mutation]
            continue
        if len(batch) == most or any(mutation.edit.overlaps(other.edit) for other in batch):
            yield batch
            batch = []
        batch.append(mutation)
    if batch:
        yield batch


def _halved(
    home: Recording, batch: list[Mutation], notice: Callable[[Bundle], Verdict]
) -> Iterator[tuple[Mutation, Verdict]]:
    """Yield the verdict on each mutation of a batch. If all of them together make no difference,
    none of them does."""
    verdict = notice(edited(home.leaves, [mutation.edit for mutation in batch]))
    if len(batch) == 1 or verdict == SILENT:
        yield from ((mutation, verdict) for mutation in batch)
        return
    middle = len(batch) // 2
    yield from _halved(home, batch[:middle], notice)
    yield from _halved(home, batch[middle:], notice)


def _look_at_text(
    home: Recording,
    ways: dict[Kind, list[Mutation]],
    best: dict[Kind, tuple[Verdict, Mutation]],
) -> None:
    """Replace the verdict of leaves that no check judged, but that the report shows."""
    left = [kind for kind, known in best.items() if known[0].word > Word.SHOWN]
    for batch in _batches(way for kind in left for way in ways[kind][:1]):
        for mutation, verdict in _halved(home, batch, home.judge.shows):
            if verdict.word <= Word.SHOWN:
                best[mutation.kind] = verdict, mutation
