"""An interrupted collection keeps its answers, whatever interrupts it and however often."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COLLECTS = """
import sys, time
from hoodsnap.cli.interruption import Interruption
from hoodsnap.cli.terminal import say

with Interruption() as interruption:
    try:
        interruption.asking = True
        print("asking", flush=True)
        time.sleep(30)
        interruption.asking = False
    except KeyboardInterrupt:
        say("interrupted")
    with open(sys.argv[1], "w") as file:
        file.write("all")
        print("writing", flush=True)
        time.sleep(0.5)
        file.write(" of it")
    say("wrote it")
"""


pytestmark = pytest.mark.usefixtures("heeded_hangup")


def collecting(path: Path, **more: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COLLECTS, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_collected_answers_are_written_even_if_the_signal_comes_twice(
    number: signal.Signals, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with collecting(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        process.send_signal(number)
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == 0

    assert path.read_text() == "all of it"


def test_a_closed_terminal_loses_no_answers(tmp_path: Path) -> None:
    path = tmp_path / "b"
    master, slave = pty.openpty()
    with collecting(path, stderr=slave) as process:
        os.close(slave)
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        os.close(master)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=20) == 0

    assert path.read_text() == "all of it"


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    path = tmp_path / "b"
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = collecting(path)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0

    assert path.read_text() == "all of it"
