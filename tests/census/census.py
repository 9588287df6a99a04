"""The census itself: the verdict on every kind of leaf, with all processors."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.census.batch import judged, shown
from tests.census.leaf import Kind, Leaf
from tests.census.mutation import Mutation, mutations, of_member
from tests.census.recordings import Recording, groups, recording
from tests.census.result import Row
from tests.census.verdict import Verdict, Word

FEW, MANY = 6, 24
"""Leaves that are changed at once: of those that may be noticed, and of those that have not been.
"""

SHARE = 48
"""Leaves that one process is given at a time."""

COMMAND_LINE = "cmdline"
"""End of the questions whose leaves are changed one at a time: a word that can't be read hides those
behind it."""

Known = Mapping[Kind, Row]
"""An earlier census. It decides what is tried first and what together, and no verdict."""


class Count(NamedTuple):
    """The verdict on one kind of leaf."""

    recording: str
    kind: Kind
    verdict: Verdict
    mutation: str
    """Name of the mutation that was noticed best."""
    value: object
    new: object


def census(wanted: Collection[str] | None = None, known: Known | None = None) -> Iterator[Count]:
    """Yield the verdict on every kind of leaf of some layers, or of all."""
    # Forked processes share the recordings that _shares() has read.
    shares = [(*share, known or {}) for share in _shares(wanted)]
    workers = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("fork").Pool(workers, begin) as pool:
        for counts in pool.imap_unordered(_share, shares):
            yield from counts


def alone(kinds: Iterable[tuple[str, Kind]]) -> Iterator[Count]:
    """Yield the verdict on leaves of recordings again, each changed alone.

    In a batch, one change may hide another: a majority that tells right from wrong is gone.
    """
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0)), begin) as pool:
        for counts in pool.imap_unordered(_alone, list(kinds)):
            yield from counts


def _alone(kind: tuple[str, Kind]) -> list[Count]:
    return list(counted(recording(kind[0]), [kind[1]]))


def _shares(wanted: Collection[str] | None) -> Iterator[tuple[str, Sequence[Kind]]]:
    layers: dict[tuple[str, str], list[Kind]] = defaultdict(list)
    for name, (layer, _), kinds in groups():
        if wanted is None or layer in wanted:
            layers[name, layer] += sorted(kinds)
    for (name, _), found in layers.items():
        for at in range(0, len(found), SHARE):
            yield name, found[at : at + SHARE]


def begin() -> None:
    """Prepare a forked process."""
    # What was read before the fork stays: looking through it for garbage takes time.
    gc.freeze()
    gc.set_threshold(100_000)


def _share(share: tuple[str, Sequence[Kind], Known]) -> list[Count]:
    name, kinds, known = share
    return list(counted(recording(name), kinds, known))


def counted(
    home: Recording, kinds: Collection[Kind], known: Known | None = None
) -> Iterator[Count]:
    """Yield the verdicts on some kinds of leaves of a recording, each the best of its mutations."""
    turns = _Turns(home, kinds, known or {})
    turns.judge()
    turns.look_at_text()
    for kind, (verdict, mutation) in turns.best.items():
        yield Count(home.name, kind, verdict, mutation.name, mutation.old, mutation.edit.new)


class _Turns:
    """The mutations of some leaves, one after another until a check notices."""

    def __init__(self, home: Recording, kinds: Collection[Kind], known: Known) -> None:
        wanted = frozenset(kinds)
        self.home, self.known = home, known
        self.ways = {
            leaf.kind: list(ways_of(home, leaf))
            for leaf in (*home.leaves.all, *home.leaves.members)
            if leaf.kind in wanted
        }
        for kind, ways in self.ways.items():
            if kind in known and known[kind].is_judged:
                ways.sort(key=lambda way: way.name != known[kind].mutation)
        self.best: dict[Kind, tuple[Verdict, Mutation]] = {}

    def judge(self) -> None:
        """Find the best verdict of the checks on each leaf."""
        for turn in range(max(map(len, self.ways.values()), default=0)):
            tried = [
                ways[turn]
                for kind, ways in self.ways.items()
                if turn < len(ways) and not self._is_settled(kind)
            ]
            self._try(tried, turn)

    def _try(self, tried: Sequence[Mutation], turn: int) -> None:
        sizes: dict[int, list[Mutation]] = defaultdict(list)
        for mutation in tried:
            sizes[self._together(mutation.kind, turn)].append(mutation)
        for most, some in sizes.items():
            for mutation, verdict in judged(self.home, some, most):
                best = self.best.get(mutation.kind)
                if best is None or _rank(verdict, mutation) < _rank(*best):
                    self.best[mutation.kind] = verdict, mutation

    def _together(self, kind: Kind, turn: int) -> int:
        if kind.question.endswith(COMMAND_LINE):
            return 1
        row = self.known.get(kind)
        if row is None or self.home.name != row.recording:
            # What nothing noticed in the first turn, nothing will notice in most cases.
            return FEW if turn == 0 else MANY
        return 1 if row.word in (Word.JUDGED, Word.JOINED, Word.SKIPPED) else MANY

    def _is_settled(self, kind: Kind) -> bool:
        return kind in self.best and self.best[kind][0].word <= Word.JOINED

    def look_at_text(self) -> None:
        """Replace the verdict on leaves that no check judged, but that the report shows."""
        sizes: dict[int, list[Mutation]] = defaultdict(list)
        for kind, (verdict, _) in self.best.items():
            if verdict.word > Word.SHOWN:
                row = self.known.get(kind)
                size = FEW if row is None else 1 if row.word is Word.SHOWN else MANY
                sizes[size] += self.ways[kind][:1]
        for most, some in sizes.items():
            for mutation, verdict in shown(self.home, some, most):
                if verdict.word <= Word.SHOWN:
                    self.best[mutation.kind] = verdict, mutation


def ways_of(home: Recording, leaf: Leaf) -> Iterator[Mutation]:
    """Yield the mutations of a leaf or of a member."""
    if leaf.kind.path.startswith("member "):
        return of_member(home.leaves, leaf)
    return mutations(leaf)


def _rank(verdict: Verdict, mutation: Mutation) -> int:
    # A check that can't be decided without a value is no judge of the value.
    if verdict.word is Word.SKIPPED and mutation.name == "gone":
        return Word.SILENT
    return verdict.word
