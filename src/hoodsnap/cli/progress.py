"""Progress of a visit to a host, as one line of a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from hoodsnap.printable import clean, cut

if TYPE_CHECKING:
    from rich.text import Text

    from hoodsnap.collect.recorder import Recorder

NOTICED = 1.0
"""Seconds after which a question that waits for its answer is shown."""


class Progress:
    """The phase of a visit, and the question that waits for its answer, drawn by rich."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        """The recorder whose questions are shown, once it exists."""
        self._phase = "reading nova.conf"
        self._start = time.monotonic()

    def begin(self, phase: str) -> None:
        """Show the name of a phase that begins now."""
        self._phase = phase

    def __str__(self) -> str:
        now = time.monotonic()
        line = f"{self._phase} … {now - self._start:.0f} s"
        question = self.recorder.awaited() if self.recorder is not None else None
        if question is None or now - question.since < NOTICED:
            return line
        from hoodsnap.keep.secret import without_secrets

        query = cut(clean(without_secrets(question.query[:200])), 60)
        waited = f"{now - question.since:.0f} s"
        return f"{line}, waiting for {question.layer} for {waited}: {query}"

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(str(self), no_wrap=True, overflow="ellipsis")


def shown(progress: Progress) -> AbstractContextManager[object]:
    """Return a context in which progress is shown, if standard error is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()  # rich would write to it, and a full disk would end the collection
    from rich.console import Console

    return Console(stderr=True, highlight=False).status(progress)
