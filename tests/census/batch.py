"""Batches: mutations that are made at once, because most of them make no difference.

If a batch makes no difference, none of its mutations does; otherwise its halves are tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from tests.census.edit import How, edited
from tests.census.mutation import Mutation
from tests.census.recordings import Recording
from tests.census.verdict import SILENT, Verdict, Word

from hoodsnap.bundle import Bundle

OPEN = 16
"""Batches that are kept open for a mutation that fits."""

LONG = 5
"""Characters from which on two leaves with the same text probably are copies."""

Verdicts = Iterator[tuple[Mutation, Verdict]]


def judged(home: Recording, tried: Iterable[Mutation], most: int) -> Verdicts:
    """Yield the checks' verdict on each mutation, made with up to `most` at once."""
    for batch in _batches(tried, most):
        yield from _judged(home, batch)


def _judged(home: Recording, batch: list[Mutation]) -> Verdicts:
    verdict = home.judge.verdict(made(home, batch))
    if len(batch) == 1 or verdict == SILENT:
        yield from ((mutation, verdict) for mutation in batch)
        return
    middle = len(batch) // 2
    yield from _judged(home, batch[:middle])
    yield from _judged(home, batch[middle:])


def shown(home: Recording, tried: Iterable[Mutation], most: int) -> Verdicts:
    """Yield the report's verdict on each mutation, which no check noticed."""
    for batch in _batches(tried, most):
        yield from _shown(home, batch)


def _shown(home: Recording, batch: list[Mutation]) -> Verdicts:
    try:
        news = home.judge.news(made(home, batch))
    except Exception as error:
        if len(batch) == 1:
            yield batch[0], Verdict(Word.CRASH, repr(error)[:80])
            return
        news = {}
    else:
        if not news:
            yield from ((mutation, SILENT) for mutation in batch)
            return
    if len(batch) == 1:
        yield batch[0], Verdict(Word.SHOWN, ",".join(news))
        return
    # A new value that stands in a new line needs no second look.
    places = [_where(home, mutation, batch, news) for mutation in batch]
    rest = []
    for mutation, where in zip(batch, places, strict=True):
        if where:
            yield mutation, Verdict(Word.SHOWN, where)
        else:
            rest.append(mutation)
    for part in (rest,) if any(places) else (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
        if part:
            yield from _shown(home, part)


def _where(
    home: Recording, mutation: Mutation, batch: list[Mutation], news: Mapping[str, frozenset[str]]
) -> str:
    """Return which output shows the new value of a mutation; "" if that is not certain."""
    new = str(mutation.edit.new)
    if mutation.edit.how is not How.PUT or len(new) < LONG or new in home.judge.text:
        return ""
    if any(new in str(other.edit.new) for other in batch if other is not mutation):
        return ""
    return ",".join(name for name, lines in news.items() if any(new in line for line in lines))


def made(home: Recording, batch: Iterable[Mutation]) -> Bundle:
    """Return the recording with some mutations."""
    return edited(home.leaves, [mutation.edit for mutation in batch])


def _batches(tried: Iterable[Mutation], most: int) -> Iterator[list[Mutation]]:
    waiting: list[list[Mutation]] = []
    for mutation in tried:
        fitting = (batch for batch in waiting if not any(clash(mutation, one) for one in batch))
        batch = next(fitting, None)
        if batch is None:
            batch = []
            waiting.append(batch)
        batch.append(mutation)
        if len(batch) >= most or len(waiting) > OPEN:
            full = max(waiting, key=len)
            waiting = [other for other in waiting if other is not full]
            yield full
    yield from chain(waiting)


def clash(one: Mutation, other: Mutation) -> bool:
    """True if one of them hides the other, or moves its place."""
    if one.edit.overlaps(other.edit):
        return True
    if one.kind[:2] == other.kind[:2] and (one.edit.is_alone or other.edit.is_alone):
        return True
    # Two copies that change alike still agree.
    if one.edit.how is not How.PUT or one.old != other.old:
        return False
    return one.kind[:2] != other.kind[:2] or len(str(one.old)) >= LONG
