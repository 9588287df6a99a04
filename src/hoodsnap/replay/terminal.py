"""A terminal of its own for a sealed shell: the operator's is never passed in.

A program that holds the operator's terminal can type into it (TIOCSTI, TIOCLINUX), so a shell that
is typed in gets a pseudo terminal, made inside, and its bytes are carried to and fro. Job control
works in it as usual.
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
    """Is this command typed and read at a terminal? What is read by another program (`| less`) is
    not, for that one is typed to, too: it gets no terminal at all."""
    return os.isatty(0) and os.isatty(1)


def take(slave: int) -> None:
    """Let a terminal be this session's, in the place of the operator's."""
    replace(slave)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def replace(slave: int) -> None:
    """Let a terminal stand for standard input, output and error, where these are one: what was
    sent to a file goes there."""
    for number in (0, 1, 2):
        if os.isatty(number):
            os.dup2(slave, number)


@contextlib.contextmanager
def carried(master: int) -> Iterator[None]:
    """While the operator's terminal is carried to a pseudo terminal and back. It is then as it
    was."""
    before = termios.tcgetattr(0)
    _resize(master)
    handled = signal.signal(signal.SIGWINCH, lambda _, __: _resize(master))
    termios.tcsetattr(master, termios.TCSANOW, before)
    try:
        tty.setraw(0)
        yield
    finally:
        signal.signal(signal.SIGWINCH, handled)
        with contextlib.suppress(termios.error):  # it was hung up
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _resize(master: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def end_on(number: int, frame: FrameType | None) -> None:
    """A handler of signals that end us: what has to be put right is, on the way out."""
    raise SystemExit(128 + number)
