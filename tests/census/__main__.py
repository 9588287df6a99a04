"""The command: `python -m tests.census`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.census import things
from tests.census.batch import shown
from tests.census.census import Count, alone, census, ways_of
from tests.census.declared import Declaration, complaints, declaration_of, load
from tests.census.edit import edited
from tests.census.leaf import Kind
from tests.census.recordings import RECORDINGS, chosen, recording
from tests.census.result import RESULT, Row, read, written
from tests.census.swaps import swaps
from tests.census.told import Tellers
from tests.census.verdict import Word
from tests.census.verify import verify


def main(arguments: Sequence[str]) -> int:
    """Run a census, print its table, and return 1 if a leaf is silent and not declared."""
    parser = argparse.ArgumentParser(prog="python -m tests.census", description=__doc__)
    parser.add_argument("--layer", action="append", help="only this layer; repeatable")
    parser.add_argument("--leaf", help="try each mutation of one leaf: 'QUESTION|PATH'")
    parser.add_argument("--out", type=Path, help="write all verdicts, with values, to this file")
    parser.add_argument("--members", action="store_true", help="list silent members, too")
    parser.add_argument("--swaps", action="store_true", help="only swap identities of two guests")
    parser.add_argument("--verify", action="store_true", help="try again what was noticed before")
    parser.add_argument("--check", action="store_true", help="fail if result.tsv is outdated")
    options = parser.parse_args(arguments)
    if options.leaf:
        return _try(options.leaf)
    if options.verify:
        return 1 if _verified(options.layer) else 0
    if options.swaps:
        return 1 if _unnoticed(options.layer) else 0
    started = time.monotonic()
    rows = [_row(count) for count in census(options.layer, _known())]
    declared = [one for one in load() if not options.layer or one.layer in options.layer]
    unsure = {row.kind for row in _holes(rows, declared, members=False)}
    unsure |= {row.kind for row in rows if row.told and not row.is_judged}
    again = {row.kind: row for row in map(_row, alone(_homes(rows, unsure)))}
    rows = [again.get(row.kind, row) for row in rows]
    if options.out:
        options.out.write_text("".join(written(rows, values=True)))
    holes = _holes(rows, declared, members=options.members)
    for row in holes:
        told = ",".join(row.told) or "-"
        print("\t".join((*row.kind, row.word.name.lower(), f"told by {told}", row.old, row.new)))
    wrong = list(complaints(declared, rows))
    for complaint in wrong:
        print(complaint)
    print("\n".join(_table(rows, declared)))
    print(f"{len(rows)} kinds in {time.monotonic() - started:.0f} s")
    if not options.layer:
        wrong += _unnoticed(None)
        wrong += _kept("".join(written(rows)), check=options.check)
    return 1 if holes or wrong else 0


def _verified(layers: Collection[str] | None) -> int:
    """Print the leaves that are no longer as the last census says; return their number."""
    started = time.monotonic()
    found = sorted(verify(read(), load(), layers))
    for line in found:
        print(line)
    print(f"{len(found)} leaves differ; {time.monotonic() - started:.0f} s")
    return len(found)


def _unnoticed(layers: Collection[str] | None) -> list[str]:
    """Print and return the swaps of two guests' identities that nothing notices."""
    declared = load()
    found = []
    for swap in sorted(swaps(layers)):
        if swap.verdict.word <= Word.JOINED:
            continue
        if swap.question and declaration_of(declared, swap.kind) is not None:
            continue
        where = f"{swap.question}\t{swap.path}" if swap.question else "all answers"
        one, other = (" ".join(value.replace("\0", " ").split())[:60] for value in swap[4:6])
        found.append(f"swap\t{swap.layer}\t{where}\t{swap.thing}\t{one}\t{other}")
        print(found[-1])
    print(f"{len(found)} swaps are not noticed")
    return found


def _known() -> dict[Kind, Row]:
    return {row.kind: row for row in read()} if RESULT.exists() else {}


def _kept(text: str, *, check: bool) -> list[str]:
    if RESULT.exists() and RESULT.read_text() == text:
        return []
    if check:
        print("result.tsv is outdated")
        return ["outdated"]
    RESULT.write_text(text)
    return []


@cache
def _tellers(name: str) -> tuple[Tellers, Mapping[str, tuple[str, ...]]]:
    home = recording(name)
    guest = chosen(home.judge.report.cloud)
    return Tellers(home.bundle), things.identities(guest) if guest is not None else {}


def _row(count: Count) -> Row:
    tellers, known = _tellers(count.recording)
    old, new = (" ".join(str(value).split())[:40] for value in (count.value, count.new))
    return Row(
        *(count.kind, count.verdict.word, count.verdict.by, count.mutation),
        things.thing(count.value, known, count.kind),
        tellers.others(count.kind, count.value),
        count.recording,
        tellers.mention(count.kind.layer, count.value),
        *(old, new),
    )


def _homes(rows: Iterable[Row], kinds: Collection[Kind]) -> list[tuple[str, Kind]]:
    return [(row.recording, row.kind) for row in rows if row.kind in kinds]


def _holes(rows: Iterable[Row], declared: Sequence[Declaration], *, members: bool) -> list[Row]:
    """Return the leaves that nothing notices and nobody declared."""
    return sorted(
        (
            row
            for row in rows
            if not row.is_noticed
            and (members or row.told or not row.is_member)
            and declaration_of(declared, row.kind) is None
        ),
        key=lambda row: row.kind,
    )


def _table(rows: Iterable[Row], declared: Sequence[Declaration]) -> Iterable[str]:
    layers: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for name in (row.kind.layer, "all"):
            layers[f"{name} (members)" if row.is_member else name].append(row)
    yield (
        "layer                 kinds  judged  joined   shown declared    skip  silent  crash"
        "   told: judged, declared, left   mentioned: judged"
    )
    for name in sorted(layers, key=lambda name: (name.startswith("all"), name)):
        yield _line(name, layers[name], declared)


def _line(name: str, rows: Sequence[Row], declared: Sequence[Declaration]) -> str:
    words = [row.word for row in rows]
    named = [declaration_of(declared, row.kind) is not None for row in rows]
    left = [row for row, known in zip(rows, named, strict=True) if not known]
    told = [row for row in rows if row.told]
    judged = sum(row.is_judged for row in told)
    untold = sum(bool(row.told) and not row.is_judged for row in left)
    mentioned = [row for row in rows if row.mentions]
    of_mentioned = sum(row.is_judged for row in mentioned)
    counts = (
        *(len(rows), words.count(Word.JUDGED), words.count(Word.JOINED), words.count(Word.SHOWN)),
        sum(named),
        *(
            sum(row.word is word for row in left)
            for word in (Word.SKIPPED, Word.SILENT, Word.CRASH)
        ),
    )
    cells = "".join(f"{count:8}" for count in counts)
    return (
        f"{name:19}{cells}   {len(told):5}: {judged:5}, {len(told) - judged - untold:5}, {untold:5}"
        f"   {len(mentioned):5}: {of_mentioned}"
    )


def _try(wanted: str) -> int:
    """Print what each mutation of a leaf does, in the first recording that has it."""
    question, _, path = wanted.partition("|")
    for name in RECORDINGS:
        home = recording(name)
        for leaf in (*home.leaves.all, *home.leaves.members):
            if (leaf.kind.question, leaf.kind.path) != (question, path):
                continue
            print(f"{name}: {home.bundle.answers[leaf.answer].query}")
            for mutation in ways_of(home, leaf):
                mutant = edited(home.leaves, [mutation.edit])
                verdict = home.judge.verdict(mutant)
                if verdict.word > Word.SHOWN:
                    [(_, shows)] = shown(home, [mutation], 1)
                    verdict = min(verdict, shows)
                print(f"  {mutation.name:8}{mutation.old!r} -> {mutation.edit.new!r}")
                print(f"          {verdict.word.name.lower()} {verdict.by}")
            return 0
    print(f"no recording has a leaf {question!r} {path!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
