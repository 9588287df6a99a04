"""How long a layer may keep us waiting altogether.

One question that gets no answer costs its ten seconds. Three hundred of them about disks on one
dead NFS server would cost an hour, so each one that was waited for in vain shortens the next.
"""

from __future__ import annotations

from collections.abc import Callable

from hoodsnap.bundle import Answer
from hoodsnap.collect.recorder import PATIENCE, Recorder


class Patience:
    """Asks a recorder, and waits less once too much was waited for in vain.

    What does answer is not hurt by that: a file on a healthy disk takes milliseconds.
    """

    def __init__(self, each: float = PATIENCE, altogether: float = 60.0, worn: float = 0.5) -> None:
        self.each = each
        """Seconds for a question, to begin with."""
        self.altogether = altogether
        """Seconds lost (added up over all threads) after which only `worn` seconds are left."""
        self.worn = worn
        self._lost = 0.0

    def ask(
        self, recorder: Recorder, layer: str, query: str, how: Callable[[], object], subject: str
    ) -> Answer:
        """`Recorder.ask`, with the patience that is left."""
        patience = self.each if self._lost < self.altogether else self.worn
        answer = recorder.ask(layer, query, how, subject=subject, patience=patience)
        if answer.error is not None and answer.error.kind == "timeout":
            self._lost += answer.took
        return answer
