"""The overview as lines of text: a table of the guests that need a look, and the names of the rest.

Columns are as wide as their texts; if the table is wider than the page, columns shrink, and then
those that say least are left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hoodsnap.printable import cut
from hoodsnap.render.line import Line, line
from hoodsnap.render.overview import LONGEST, OverviewRow, Standing

MOST_ROWS = 12
"""Rows at most for guests that need a look; the others are named in one line."""

MOST_ALIKE = 4
"""Rows at most with the same verdict; if there are more, all of them are named in one line."""

MOST_NAMES = 20
"""Names at most in one line."""

WIDEST = {"server": LONGEST, "host": 64, "nova": 40, "libvirt": 40, "verdict": 120}
"""Characters of a column at most, however wide the page is."""

LEAST = {"server": 10, "host": 6, "nova": 8, "libvirt": 8, "verdict": 24}
"""Characters down to which a column shrinks if the page is narrow. Other columns do not shrink."""

DROPPED = ("net", "disk", "pid", "host", "libvirt", "nova")
"""Columns to leave out, in this order, if the table is still too wide."""

STYLES: Mapping[Standing, str] = {
    Standing.ERROR: "bold red",
    Standing.WARNING: "yellow",
    Standing.UNDECIDED: "yellow",
    Standing.NOTE: "cyan",
    Standing.EXPECTED: "cyan",
    Standing.AGREES: "green",
}

_HEADS = {"process": "pid", "network": "net"}

_Texts = Mapping[str, str]
"""Head of a column → text of a row in it."""


def table(rows: Sequence[OverviewRow], width: int, *, everyone: bool = False) -> Iterator[Line]:
    """Yield the lines of the overview: a head, the rows, and the names of the guests without one.

    `everyone`: give each guest a row.
    """
    shown: tuple[OverviewRow, ...] = tuple(rows)
    counted: tuple[tuple[OverviewRow, ...], ...] = ()
    if not everyone:
        shown, counted = _divided(rows)
    if shown:
        yield from _table(shown, width, len({row.host for row in rows if row.host}) > 1)
        below = tuple(row for row in shown if row.verdict and not row.findings)
        counted = (*_alike(below).values(), *counted)
    for same in counted:
        yield _named(same, width, len(same) < len(rows))


def _divided(
    rows: Sequence[OverviewRow],
) -> tuple[tuple[OverviewRow, ...], tuple[tuple[OverviewRow, ...], ...]]:
    """Return the rows to show, and groups of those to name in one line each."""
    shown: list[OverviewRow] = []
    counted: list[tuple[OverviewRow, ...]] = []
    rest: list[OverviewRow] = []
    for (standing, _), same in _alike(rows).items():
        if standing >= Standing.EXPECTED or len(same) > MOST_ALIKE:
            counted.append(same)
        else:
            room = max(MOST_ROWS - len(shown), 0)
            shown += same[:room]
            rest += same[room:]
    if rest:
        counted.insert(0, tuple(rest))
    return tuple(shown), tuple(counted)


def _alike(rows: Iterable[OverviewRow]) -> dict[tuple[Standing, str], tuple[OverviewRow, ...]]:
    """Return the rows with the same standing and verdict together."""
    alike: dict[tuple[Standing, str], list[OverviewRow]] = {}
    for row in rows:
        alike.setdefault((row.standing, row.verdict), []).append(row)
    return {key: tuple(same) for key, same in alike.items()}


def _named(rows: tuple[OverviewRow, ...], width: int, more: bool) -> Line:
    """Return the line for guests without a row of their own. `more`: there are other guests."""
    first = rows[0]
    mark, style = first.standing.mark, STYLES[first.standing]
    same = all(row.verdict == first.verdict for row in rows)
    if first.standing is Standing.AGREES:
        what = f"{len(rows)}{' more' if more else ''} agree{'s' if len(rows) == 1 else ''}: "
        return _listed((f"{mark} {what}", style), rows, " (-v walks them)", width)
    if len(rows) == 1:
        said = f"{mark} {first.name}: {first.verdict}"
        return line((cut(said, width), style))
    what = first.verdict if same else "other findings"
    return _listed(
        (f"{mark} {len(rows)} servers, {what}: ", style), rows, " (-v lists them)", width
    )


def _listed(head: tuple[str, str], rows: Sequence[OverviewRow], hint: str, width: int) -> Line:
    """Return a line with as many names as fit."""
    room = width - _cells(head[0]) - len(hint)
    names: list[str] = []
    for row in rows[:MOST_NAMES]:
        name = row.name
        more = f" and {len(rows) - len(names) - 1} more"
        if names and _cells(", ".join([*names, name])) + len(more) > room:
            break
        names.append(name)
    left = len(rows) - len(names)
    return line(head, ", ".join(names) + (f" and {left} more" if left else ""), (hint, "dim"))


def _table(rows: Sequence[OverviewRow], width: int, several_hosts: bool) -> Iterator[Line]:
    texts = [_texts(row, several_hosts) for row in rows]
    widths = {
        head: min(max(_cells(one[head]) for one in [*texts, {head: head}]), WIDEST.get(head, 20))
        for head in texts[0]
    }
    if not any(one["verdict"] for one in texts):
        del widths["verdict"]
    _shrink(widths, width)
    heads = "  ".join(head + " " * (widths[head] - len(head)) for head in widths)
    yield line((f"  {heads}".rstrip(), "dim"))
    for row, said in zip(rows, texts, strict=True):
        yield line(*_parts(row, said, widths))


def _texts(row: OverviewRow, several_hosts: bool) -> _Texts:
    cells = {_HEADS.get(name, name): cell.text for name, cell in row.cells.items()}
    host = {"host": row.host or "–"} if several_hosts else {}
    # Without a finding it stands below the table, once for all guests with the same verdict.
    verdict = row.verdict if row.findings else ""
    return {"server": row.name, **host, **cells, "verdict": verdict}


def _shrink(widths: dict[str, int], width: int) -> None:
    """Make the columns fit the page: the widest shrinks first, then columns are left out."""
    while 2 * len(widths) + sum(widths.values()) > width:
        spare = {head: widths[head] - LEAST.get(head, widths[head]) for head in widths}
        widest = max(spare, key=lambda head: spare[head])
        dropped = next((head for head in DROPPED if head in widths), None)
        if spare[widest] > 0:
            widths[widest] -= 1
        elif dropped is not None:
            del widths[dropped]
        else:
            return


def _parts(row: OverviewRow, said: _Texts, widths: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    style = STYLES[row.standing]
    bad = {_HEADS.get(name, name) for name, cell in row.cells.items() if cell.bad}
    styles = {"server": "bold", "verdict": style}
    styles |= dict.fromkeys(bad, "red" if row.standing is Standing.ERROR else "yellow")
    heads = [head for head in widths if head != "verdict" or said[head]]
    yield (f"{row.standing.mark} ", style)
    for head in heads:
        text = _fitted(said[head], widths[head])
        end = "" if head == heads[-1] else " " * (widths[head] - _cells(text) + 2)
        yield (text, styles.get(head, ""))
        if end:
            yield (end, "")


def _fitted(text: str, room: int) -> str:
    """Shorten a text: drop its reason in parentheses, or its end."""
    if _cells(text) <= room:
        return text
    brief = text.partition(" (")[0]
    if _cells(brief) <= room:
        return brief
    while text and _cells(text) >= room:
        text = text[:-1]
    return f"{text}…"


def _cells(text: str) -> int:
    """Return the columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char)
        for char in text
    )
