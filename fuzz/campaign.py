"""Run targets on damaged bundles, count the results, and write a reproducer of each find.

There are two kinds of finds: exceptions that *escape* (they would end a command), and exceptions
that a *net* catches (the command reports that a value could not be read, which is correct, but the
code did not expect it). Finds are told apart by target, type of the exception and our own line.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar

from fuzz import mutations, slices
from fuzz.mutations import Mutation, Way
from fuzz.slices import Raw
from fuzz.targets import TARGETS
from hoodsnap.bundle import UnreadableBundleError, parse

SLOW = 10.0
"""Seconds of CPU time allowed. A small bundle takes a hundredth of a second."""

MEMORY = 4 << 30
"""Bytes of address space allowed."""

TOGETHER = 6
"""Edits to try in one execution. Nearly all of them are far apart."""

SELDOM = {"redact": 3, "grade": 3, "page": 3, "diff": 5}
"""The slowest targets, and on which share of the bundles they run: 3 is every third one."""

DEBUG = "HOODSNAP_DEBUG"

T = TypeVar("T")


class TooSlow(BaseException):
    """A target did not finish in time. No net catches this exception."""


@dataclass(frozen=True)
class Signature:
    """Key of a find: finds with equal keys are the same."""

    target: str
    kind: str
    line: str
    escapes: bool

    def __str__(self) -> str:
        return f"{self.target}: {self.kind} at {self.line}"

    @property
    def file(self) -> str:
        """File name of the reproducer."""
        digest = hashlib.sha256(str(self).encode()).hexdigest()[:8]
        word = "escapes" if self.escapes else "netted"
        return f"{word}-{self.target}-{self.kind}-{digest}.json"


@dataclass
class Tally:
    """Result of one process of the campaign."""

    bundles: int = 0
    refused: int = 0
    """Bundles that `parse` refused with a sentence; no target ran on them."""
    executions: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the longest execution."""
    finds: Counter[Signature] = field(default_factory=Counter)
    edits: dict[Signature, str] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    """Kinds of places that were edited."""

    def add(self, other: Tally) -> None:
        """Add the results of another process."""
        self.bundles += other.bundles
        self.refused += other.refused
        self.executions += other.executions
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, worst in other.worst.items():
            self.worst[name] = max(worst, self.worst.get(name, 0.0))
        self.finds += other.finds
        self.edits |= {key: said for key, said in other.edits.items() if key not in self.edits}
        self.kinds |= other.kinds


@dataclass(frozen=True)
class Part:
    """Task of one process of the campaign."""

    seed: int
    seconds: float
    out: Path
    targets: Sequence[str]


def part(given: Part) -> Tally:
    """Run one process's part of the campaign."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = time.monotonic() + given.seconds
    campaign = Campaign(given.seed, given.out, given.targets)
    return campaign.run(lambda tally: time.monotonic() > end)


class Campaign:
    """One process's part: an endless series of damaged bundles, until its time is up."""

    def __init__(self, seed: int, out: Path | None, targets: Sequence[str]) -> None:
        self.chance = random.Random(seed)
        self.out = out
        self.targets = targets
        self.tally = Tally()

    def run(self, until: Callable[[Tally], bool]) -> Tally:
        """Run until `until` returns True; return the results."""
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        before = signal.signal(signal.SIGVTALRM, _too_slow)
        try:
            for raw, edits in self._tampered():
                self._execute(raw, edits)
                if until(self.tally):
                    break
        finally:
            signal.signal(signal.SIGVTALRM, before)
            os.environ.pop(DEBUG, None)
        return self.tally

    def _tampered(self) -> Iterator[tuple[Raw, list[Mutation]]]:
        """Yield slices with their edits: first every odd value at each new kind of place, a few at
        once, then random edits."""
        recordings = slices.recordings()
        tried: set[str] = set()
        for turn in range(1 << 30):
            path = recordings[0] if turn == 0 else self.chance.choice(recordings)
            for raw in list(slices.slices(path, self.chance))[:2]:
                places = dict(mutations.kinds(raw))
                self.chance.shuffle(fresh := [kind for kind in places if kind not in tried])
                # Only a part of the new kinds, so that a short run covers something of everything.
                fresh = fresh[:400]
                tried |= {*fresh}
                self.tally.kinds |= {*fresh}
                pairs = [(places[kind], odd) for kind in fresh for odd in self._values()]
                self.chance.shuffle(pairs)
                inner = [pair for pair in pairs if _is_inner(pair[0])]
                for start in range(0, len(inner), TOGETHER):
                    yield raw, [mutations.replaced(*pair) for pair in inner[start:][:TOGETHER]]
                for way, odd in [pair for pair in pairs if not _is_inner(pair[0])][:100]:
                    yield raw, [mutations.replaced(way, odd)]
                ways = [way for way in places.values() if _is_inner(way)]
                for _ in range(150):
                    yield raw, self._by_chance(raw, ways)

    def _values(self) -> list[object]:
        """Return the types that code expects least, and a sample of the other odd values."""
        return [{}, [], None, 10**30, *self.chance.sample(mutations.ODD, 8)]

    def _by_chance(self, raw: Raw, ways: list[Way]) -> list[Mutation]:
        count = self.chance.randint(1, TOGETHER)
        return [mutations.random_mutation(raw, ways, self.chance) for _ in range(count)]

    def _execute(self, raw: Raw, edits: list[Mutation]) -> None:
        self.tally.bundles += 1
        tampered = _edited(raw, edits)
        data = _written(tampered)
        for name in self.targets:
            if self.tally.bundles % SELDOM.get(name, 1):
                continue
            started = time.process_time()
            signatures = list(_run(name, data))
            took = time.process_time() - started
            self.tally.executions[name] += 1
            self.tally.seconds[name] = self.tally.seconds.get(name, 0.0) + took
            self.tally.worst[name] = max(took, self.tally.worst.get(name, 0.0))
            for signature in signatures:
                if signature.kind == "refused":
                    self.tally.refused += 1
                    return
                self.tally.finds[signature] += 1
                if self.tally.finds[signature] == 1:
                    self._keep(signature, raw, edits)

    def _keep(self, signature: Signature, raw: Raw, edits: list[Mutation]) -> None:
        """Minimize a find and write its reproducer."""
        edits = _fewest(edits, lambda some: _finds(signature, _edited(raw, some)))
        self.tally.edits[signature] = "; ".join(edit.says for edit in edits)
        if self.out is None:
            return
        small = _edited(raw, edits)
        answers = _fewest(
            small["answers"], lambda some: _finds(signature, {**small, "answers": some})
        )
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / signature.file).write_bytes(_written({**small, "answers": answers}))


def _is_inner(way: Way) -> bool:
    """True if the place is inside a value. Damage elsewhere is mostly refused on reading."""
    return len(way) > 2 and way[2] == "value"


def _edited(raw: Raw, edits: Sequence[Mutation]) -> Raw:
    tampered = copy.deepcopy(raw)
    for edit in edits:
        edit.apply(tampered)
    return tampered


def _written(raw: Raw) -> bytes:
    return json.dumps(raw, separators=(",", ":")).encode()


def _finds(signature: Signature, raw: Raw) -> bool:
    return signature in _run(signature.target, _written(raw))


def _fewest(items: list[T], still: Callable[[list[T]], bool], most: int = 80) -> list[T]:
    """Return a smallest subset for which `still` holds, by halving, in at most `most` tries."""
    size = len(items)
    while size > 0 and most > 0:
        start = 0
        while start < len(items) and most > 0:
            fewer = items[:start] + items[start + size :]
            most -= 1
            if fewer and still(fewer):
                items = fewer
            else:
                start += size
        size //= 2
    return items


def _run(name: str, data: bytes) -> Iterator[Signature]:
    """Run a target and yield its finds: without the nets, then, after a failure, with them."""
    for debug in (True, False):
        if debug:
            os.environ[DEBUG] = "1"
        else:
            os.environ.pop(DEBUG, None)
        try:
            with _in_time():
                TARGETS[name](parse(data))
            return
        except UnreadableBundleError:
            yield Signature(name, "refused", "parse", False)
            return
        except (Exception, TooSlow) as error:
            yield Signature(name, type(error).__name__, _line(error), not debug)


@contextmanager
def _in_time() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_VIRTUAL, SLOW)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def _line(error: BaseException) -> str:
    """Return the innermost line of our own code in the traceback."""
    place, trace = "?", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if "/hoodsnap/" in path:
            place = f"{path.rpartition('/hoodsnap/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
