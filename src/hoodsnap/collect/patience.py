"""Limit for the total time that a layer may keep us waiting.

A question that gets no answer costs ten seconds. Three hundred of them about disks on one dead NFS
server would cost an hour, so after too many timeouts each further question gets less time.
"""

from __future__ import annotations

from collections.abc import Callable

from hoodsnap.bundle import Answer
from hoodsnap.collect.recorder import PATIENCE, Recorder


class Patience:
    """Patience with a layer, which is reduced once too much time was lost in timeouts.

    What is healthy still answers in time: a file on a healthy disk takes milliseconds.
    """

    def __init__(self, each: float = PATIENCE, altogether: float = 60.0, worn: float = 0.5) -> None:
        self.each = each
        """Seconds for each question at first."""
        self.altogether = altogether
        """Seconds lost in timeouts, over all threads, after which each question gets `worn`."""
        self.worn = worn
        """Seconds for each question after that."""
        self._lost = 0.0

    def ask(
        self, recorder: Recorder, layer: str, query: str, how: Callable[[], object], subject: str
    ) -> Answer:
        """Call `Recorder.ask` with the patience that is left."""
        patience = self.each if self._lost < self.altogether else self.worn
        answer = recorder.ask(layer, query, how, subject=subject, patience=patience)
        if answer.error is not None and answer.error.kind == "timeout":
            self._lost += answer.took
        return answer
