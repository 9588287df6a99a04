"""Terminal of a sealed shell: a pseudo-terminal, because the operator's is never passed in.

A program that holds the operator's terminal can type into it (TIOCSTI, TIOCLINUX). So an
interactive shell gets a pseudo-terminal, created inside, whose bytes are carried in and out. Job
control works as usual.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios
import tty
from collections.abc import Iterator
from types import FrameType


def is_wanted() -> bool:
    """True if both input and output are a terminal. A shell whose output goes to another program
    (`| less`) gets no terminal at all, because that program reads the keyboard."""
    return os.isatty(0) and os.isatty(1)


def take(slave: int) -> None:
    """Make a terminal the controlling terminal of this session, instead of the operator's."""
    replace(slave)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def replace(slave: int) -> None:
    """Replace those standard streams that are a terminal; redirected ones stay redirected."""
    for number in (0, 1, 2):
        if os.isatty(number):
            os.dup2(slave, number)


@contextlib.contextmanager
def carried(master: int) -> Iterator[None]:
    """Set the operator's terminal to raw mode while its bytes are carried to a pseudo-terminal, and
    restore it afterward."""
    before = termios.tcgetattr(0)
    _resize(master)
    handled = signal.signal(signal.SIGWINCH, lambda _, __: _resize(master))
    termios.tcsetattr(master, termios.TCSANOW, before)
    try:
        tty.setraw(0)
        yield
    finally:
        signal.signal(signal.SIGWINCH, handled)
        with contextlib.suppress(termios.error):  # the terminal hung up
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _resize(master: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def end_on(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising SystemExit, so that the terminal is restored on the way out."""
    raise SystemExit(128 + number)
