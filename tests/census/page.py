"""The page docs/reference/coverage.md, made from the last result and the declarations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from tests.census.declared import READ_ELSEWHERE, Declaration, declaration_of
from tests.census.result import Row
from tests.census.verdict import Word

from hoodsnap.checks import CATALOG
from hoodsnap.facts.layer import TABLE

LAYERS = [layer.id for layer in TABLE]
TITLES: Mapping[str, str] = {layer.id: layer.title for layer in TABLE}
KNOWN = frozenset(check.name for check in CATALOG)


def page(rows: Sequence[Row], declared: Sequence[Declaration]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# Coverage"
    yield ""
    yield "A *leaf* is a value at a place of an answer: a cell of a row, an attribute of an element, an"
    yield "option of a command line, a line of a text. `make census` changes one leaf of each kind in"
    yield "the recordings (another value, a near one, an earlier or later time, gone), runs all checks"
    yield "again, and records what notices:"
    yield ""
    yield "- *judged*: a check reports it. *Joined*: a check reports that something is absent now."
    yield "- *shown*: no check reports it, but `explain --verbose` or `timeline --verbose` shows it."
    yield "- *declared*: nothing notices, for a reason that is listed below."
    yield "- *silent*: nothing notices, and no reason is given. A check that only can't be decided any more"
    yield "  notices nothing."
    yield ""
    yield "Of the leaves that another layer reports, too, the declared ones are *read elsewhere*, which"
    yield "are copies that a program prints again (of a value that is read where it stands first), or"
    yield "*free to differ*, because the two layers may rightly report different values."
    yield ""
    yield "Not counted are questions about the columns of nova's tables, which nova's release decides,"
    yield "and values that were withheld."
    yield from ("", "## Layers", "", *_layers([row for row in rows if not row.is_member], declared))
    yield from ("", "## Whole rows, objects, elements and options", "")
    yield "Here a whole member of a list is removed, or one too many is added."
    yield from ("", *_layers([row for row in rows if row.is_member], declared))
    yield from ("", "## Things that several layers report", "")
    yield "Two layers are compared if the same check reports a change in either of them. If a third"
    yield "layer is compared with both, a difference between the two is found, too. The last column"
    yield "separates with a bar what no check brings together."
    yield from ("", *_things(rows))
    yield from ("", "## Declared leaves", "", *_declared(rows, declared))


def _layers(rows: Sequence[Row], declared: Sequence[Declaration]) -> Iterator[str]:
    yield (
        "| layer | kinds of leaves | judged | joined | shown | declared | silent |"
        " reported by another layer | of these judged | read elsewhere | free to differ | left |"
    )
    yield f"|{'---|' * 12}"
    for layer in dict.fromkeys([*LAYERS, *(row.kind.layer for row in rows)]):
        of_layer = [row for row in rows if row.kind.layer == layer]
        if of_layer:
            yield _line(TITLES.get(layer, layer), of_layer, declared)
    yield _line("**all**", rows, declared)


def _line(title: str, rows: Sequence[Row], declared: Sequence[Declaration]) -> str:
    words = [row.word for row in rows]
    left = [row for row in rows if not row.is_noticed]
    named = sum(declaration_of(declared, row.kind) is not None for row in left)
    told = [row for row in rows if row.told]
    reasons = [_reason(row, declared) for row in told if not row.is_judged]
    elsewhere, open_ = sum(reason in READ_ELSEWHERE for reason in reasons), reasons.count("")
    cells = (
        *(title, len(rows), words.count(Word.JUDGED), words.count(Word.JOINED)),
        *(words.count(Word.SHOWN), named, len(left) - named, len(told), len(told) - len(reasons)),
        *(elsewhere, len(reasons) - elsewhere - open_, open_),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _reason(row: Row, declared: Sequence[Declaration]) -> str:
    found = declaration_of(declared, row.kind)
    return found.reason if found is not None else ""


def _things(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a line for each thing: who compares which layers, and which nobody compares."""
    things: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row.thing:
            checks = things[row.thing][row.kind.layer]
            if row.is_judged:
                checks |= KNOWN & set(row.by.split(","))
    yield "| thing | layers | compared | compared by no check |"
    yield "|---|---|---|---|"
    for name, tellers in sorted(things.items(), key=lambda thing: thing[0].lower()):
        if len(tellers) > 1:
            yield _thing(name, tellers)


def _thing(name: str, tellers: Mapping[str, set[str]]) -> str:
    layers = [layer for layer in LAYERS if layer in tellers]
    compared: dict[str, list[str]] = defaultdict(list)
    together = {layer: {layer} for layer in layers}
    for one, other in combinations(layers, 2):
        for check in tellers[one] & tellers[other]:
            compared[check].append(f"{one}–{other}")
            joined = together[one] | together[other]
            together |= dict.fromkeys(joined, joined)
    found = "<br>".join(
        f"[{check}](checks/{check}.md): {', '.join(pairs)}"
        for check, pairs in sorted(compared.items())
    )
    groups = dict.fromkeys(
        ", ".join(layer for layer in layers if layer in together[one]) for one in layers
    )
    apart = " \\| ".join(groups) if len(groups) > 1 else ""
    return f"| {name} | {', '.join(layers)} | {found} | {apart} |"


def _declared(rows: Sequence[Row], declared: Sequence[Declaration]) -> Iterator[str]:
    reasons: dict[str, list[Declaration]] = defaultdict(list)
    for one in declared:
        reasons[one.reason].append(one)
    for reason, entries in sorted(reasons.items()):
        yield from (f"### {reason[0].upper()}{reason[1:]}", "")
        yield "| layer | question | leaves | why |"
        yield "|---|---|---|---|"
        for one in entries:
            paths = ", ".join(f"`{_cell(path)}`" for path in one.paths)
            title = TITLES.get(one.layer, one.layer)
            yield f"| {title} | `{_cell(one.question)}` | {paths} | {_cell(one.why)} |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
