"""Time that one visit may lose waiting for layers that do not answer.

A question that gets no answer costs up to a minute, and a frozen daemon or a dead NFS server leaves
hundreds unanswered. So all questions of a visit share one allowance. Each question may take half of
what is left, so a layer that is asked late still gets some; what was silent before gets little, and
soon nothing. What is healthy answers in milliseconds and never notices.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass

ALTOGETHER = 25.0
"""Seconds that a visit may lose. With the time of a healthy visit, it then ends within a minute."""

OVERTIME = 6.0
"""Seconds that may be lost after that, in layers of which a part left the last question unanswered.
Their other parts may be healthy."""

AT_LEAST, LEAST = 2.5, 0.8
"""Seconds for a question to a layer that has always answered, when nothing is left; and when much
more than that was lost."""

WORN = 0.5
"""Seconds for a question to a source that left `WEARY` questions in succession unanswered."""

WEARY, GIVEN_UP = 2, 6
"""Number of unanswered questions in succession after which a source is asked with little patience,
and after which it is asked no more."""

SILENCE = 0.1
"""Seconds that a failed question must have taken to count as unanswered; a refusal is quicker."""


@dataclass
class _Source:
    """What is known of one source of answers."""

    silent: int = 0
    """Number of questions in succession that it left unanswered."""


class Patience:
    """The time that a visit may still lose. May be used from several threads at once."""

    def __init__(self, altogether: float = ALTOGETHER) -> None:
        self._left = altogether
        self._lock = threading.Lock()
        self._sources: dict[Hashable, _Source] = {}
        self._layers: dict[Hashable, _Source] = {}
        self._until = 0.0
        """End of the latest wait that was counted, so that waits in parallel count once."""

    def allowed(self, layer: str, source: str, wanted: float) -> float:
        """Return the seconds that a question may take; 0 if it must not be asked.

        `source`: the part of the layer that answers, such as a file system; it may be empty.
        """
        with self._lock:
            silent = self._sources.get((layer, source), _Source()).silent
            is_silent_layer = self._layers.get(layer, _Source()).silent > 0
            if silent >= GIVEN_UP or (silent and self._left <= 0):
                return 0.0
            if is_silent_layer and self._left <= -OVERTIME:
                return 0.0
            if silent >= WEARY or (is_silent_layer and self._left <= 0):
                return min(wanted, WORN)
            late = max(AT_LEAST + min(0.0, self._left) / 8, LEAST)
            return min(wanted, max(self._left / 2, late))

    def heard(self, layer: str, source: str) -> None:
        """Note that this source answered."""
        with self._lock:
            for known, key in ((self._sources, (layer, source)), (self._layers, layer)):
                if key in known:
                    known[key].silent = 0

    def lost(self, layer: str, source: str, start: float, end: float) -> None:
        """Note that a question was not answered between these times of `time.monotonic`."""
        with self._lock:
            self._sources.setdefault((layer, source), _Source()).silent += 1
            self._layers.setdefault(layer, _Source()).silent += 1
            self._left -= max(0.0, end - max(start, self._until))
            self._until = max(self._until, end)
