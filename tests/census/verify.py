"""The quick census: does each leaf still have the verdict that the last census wrote down?

Only the mutation that was noticed best is made again. Leaves that different checks judge are
changed together, because the check that fires tells which leaf it noticed.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tests.census.batch import clash, made, shown
from tests.census.census import MANY, begin, counted, ways_of
from tests.census.declared import Declaration, declaration_of
from tests.census.leaf import Kind
from tests.census.mutation import Mutation
from tests.census.recordings import Recording, groups, recording
from tests.census.result import Row
from tests.census.verdict import Word

SHARE = 64
"""Rows that one process is given at a time."""


def verify(
    rows: Collection[Row], declared: Sequence[Declaration], layers: Collection[str] | None = None
) -> Iterator[str]:
    """Yield each leaf that is less noticed than a census says, new, or silent and not declared.

    `rows` are those of the census; `layers` limits both to some layers.
    """
    wanted = [row for row in rows if layers is None or row.kind.layer in layers]
    known = {row.kind for row in wanted}
    for name, (layer, question), kinds in groups():
        if layers is None or layer in layers:
            for kind in sorted(kinds - known):
                yield f"{layer}\t{question}\t{kind.path}\tis new in {name}: run `make census`"
    for row in wanted:
        counts = not row.is_noticed and (bool(row.told) or not row.is_member)
        if counts and declaration_of(declared, row.kind) is None:
            yield f"{_named(row)}\tis {row.word.name.lower()}, and not declared"
    workers = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("fork").Pool(workers, begin) as pool:
        for lost in pool.imap_unordered(_share, _shares(wanted)):
            yield from lost


def _shares(rows: Iterable[Row]) -> list[tuple[str, Sequence[Row]]]:
    homes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.is_noticed:
            homes[row.recording].append(row)
    found: list[tuple[str, Sequence[Row]]] = []
    for name, some in homes.items():
        # The rows of one layer have the same checks; apart, more of them fit into one batch.
        parts = max(1, len(some) // SHARE)
        found += [(name, some[at::parts]) for at in range(parts)]
    return found


def _share(share: tuple[str, Sequence[Row]]) -> list[str]:
    name, rows = share
    return list(lost(recording(name), rows))


def lost(home: Recording, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the rows of one recording that nothing notices any more."""
    ways = _ways(home, {row.kind for row in rows})
    unsure = []
    for row in rows:
        if row.kind not in ways:
            yield f"{_named(row)}\tis not in {home.name}: run `make census`"
    rows = [row for row in rows if row.kind in ways]
    judged = [(row, _best(row, ways[row.kind])) for row in rows if row.is_judged]
    for batch in batches(judged):
        fired = set(home.judge.verdict(made(home, [one for _, one in batch])).by.split(","))
        unsure += [row for row, _ in batch if not fired & set(row.by.split(","))]
    seen = {row.kind: row for row in rows if row.word is Word.SHOWN}
    for mutation, verdict in shown(home, (ways[kind][0] for kind in seen), MANY):
        if verdict.word > Word.SHOWN:
            unsure.append(seen[mutation.kind])
    for row in unsure:
        for count in counted(home, [row.kind]):
            if count.verdict.word > max(row.word, Word.JOINED):
                now = count.verdict.word.name.lower()
                yield f"{_named(row)}\tis {now}, was {row.word.name.lower()} by {row.by}"


def _ways(home: Recording, kinds: Collection[Kind]) -> Mapping[Kind, Sequence[Mutation]]:
    leaves = (*home.leaves.all, *home.leaves.members)
    return {leaf.kind: [*ways_of(home, leaf)] for leaf in leaves if leaf.kind in kinds}


def _best(row: Row, ways: Sequence[Mutation]) -> Mutation:
    return next((way for way in ways if way.name == row.mutation), ways[0])


def batches(tried: Iterable[tuple[Row, Mutation]]) -> Iterator[list[tuple[Row, Mutation]]]:
    """Yield batches in which each row has checks of its own."""
    waiting: list[tuple[set[str], list[tuple[Row, Mutation]]]] = []
    for row, mutation in tried:
        checks = set(row.by.split(","))
        if row.word is not Word.JUDGED:  # it takes a guest away, and what is judged of it
            yield [(row, mutation)]
            continue
        for names, batch in waiting:
            if not names & checks and not any(clash(mutation, one) for _, one in batch):
                names |= checks
                batch.append((row, mutation))
                break
        else:
            waiting.append((checks, [(row, mutation)]))
    yield from (batch for _, batch in waiting)


def _named(row: Row) -> str:
    return "\t".join(row.kind)
