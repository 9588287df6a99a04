"""Signals that end a collection early; the answers collected so far are kept.

Ctrl-C in a terminal, SIGTERM from a supervisor and SIGHUP from a broken connection mean the same.
The first signal stops the questions. Later ones are ignored, because the bundle is being written.
"""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Context in which these signals raise `KeyboardInterrupt` once, while questions are asked.

    A signal that was ignored before (as under nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.asking = False
        """True while a signal may interrupt."""
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        if self.asking:
            self.asking = False
            raise KeyboardInterrupt


def _leave_terminal() -> None:
    """Redirect output from the closed terminal to /dev/null; writing to it would fail."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
