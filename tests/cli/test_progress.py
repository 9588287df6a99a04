"""Progress of a visit."""

from __future__ import annotations

import threading
import time

from hoodsnap.cli import progress
from hoodsnap.collect.recorder import Recorder


def test_the_question_that_is_waited_for_is_shown() -> None:
    shown, recorder, answered = progress.Progress(), Recorder("vm"), threading.Event()
    shown.recorder = recorder
    shown.begin("libvirt")
    waiting = threading.Thread(
        target=lambda: recorder.ask("libvirt", "virsh domstats \x1b[2J", answered.wait)
    )
    waiting.start()
    time.sleep(progress.NOTICED + 0.2)

    assert str(shown).startswith("libvirt … 1 s, waiting for libvirt for 1 s: virsh domstats �[2J")
    answered.set()
    waiting.join()
    assert str(shown) in ("libvirt … 1 s", "libvirt … 2 s")
    assert recorder.awaited() is None
