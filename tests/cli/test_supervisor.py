"""The process that waits for a collection: its status, its signals, its end."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

SUPERVISES = """
import sys, time
from hoodsnap.cli.interruption import Interruption
from hoodsnap.cli.supervisor import supervised

def run():
    with Interruption() as interruption:
        try:
            interruption.asking = True
            print("asking", flush=True)
            {body}
        except KeyboardInterrupt:
            print("interrupted")
            sys.exit(130)
    print("done")
    sys.exit(4)

supervised(run)
"""


def started(body: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISES.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )


def test_the_status_and_the_output_are_those_of_the_child() -> None:
    said, _ = (done := started("pass")).communicate(timeout=30)

    assert (said, done.returncode) == ("asking\ndone\n", 4)


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_child(number: signal.Signals) -> None:
    done = started("time.sleep(30)")
    assert done.stdout is not None
    assert done.stdout.readline() == "asking\n"

    done.send_signal(number)
    said, _ = done.communicate(timeout=20)

    assert (said, done.returncode) == ("interrupted\n", 130)


def test_a_child_that_is_killed_is_no_success() -> None:
    (done := started("import os; os.kill(os.getpid(), 9)")).communicate(timeout=30)

    assert done.returncode == 137


def test_a_defect_is_printed() -> None:
    _, said = (done := started("raise ValueError('odd')")).communicate(timeout=30)

    assert done.returncode == 3
    assert "ValueError: odd" in said


def test_nobody_waits_for_a_child_that_does_not_end(tmp_path: Path) -> None:
    """A thread in the kernel would keep it. This one is stopped after its last word."""
    hangs = "import os; os._exit = lambda status: time.sleep(20)"

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        done = started(hangs, pass_fds=[lock.fileno()])
    said, _ = done.communicate(timeout=18)

    assert (said, done.returncode) == ("asking\ndone\n", 4)
    assert time.monotonic() - start < 18
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
