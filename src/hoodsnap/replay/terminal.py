"""A terminal of its own for a sealed shell: the operator's is never passed in.

A program that holds the operator's terminal can type into it (TIOCSTI, TIOCLINUX), so a shell that
is typed in gets a pseudo terminal, made inside, and its bytes are carried to and fro. Job control
works in it as usual.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import termios
import tty
from types import FrameType

_BLOCK = 1 << 16


def is_wanted() -> bool:
    """Is this command typed and read at a terminal? What is read by another program (`| less`) is
    not, for that one types, too: it gets no terminal at all, and can't type into one."""
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


def carry(master: int) -> None:
    """Carry what is typed to a pseudo terminal and what it says back, until it is closed. The
    operator's terminal is then as it was."""
    before = termios.tcgetattr(0)
    _resize(master)
    handled = signal.signal(signal.SIGWINCH, lambda _, __: _resize(master))
    termios.tcsetattr(master, termios.TCSANOW, before)
    try:
        tty.setraw(0)
        _exchange(master)
    finally:
        signal.signal(signal.SIGWINCH, handled)
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _exchange(master: int) -> None:
    os.set_blocking(master, False)
    typed = b""
    sources = [master, 0]
    while True:
        # While what was typed is not taken, no more is read; what is said is always carried.
        readable = [each for each in sources if each == master or not typed]
        ready, room, _ = select.select(readable, [master] if typed else [], [])
        if master in ready:
            try:
                said = os.read(master, _BLOCK)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return  # its last user has gone
            if not said:
                return
            _write(1, said)
        if 0 in ready:
            typed = os.read(0, _BLOCK)
            if not typed:
                sources.remove(0)  # the operator's terminal was hung up
        if room:
            with contextlib.suppress(BlockingIOError):
                typed = typed[os.write(master, typed) :]


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _resize(master: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def end_on(number: int, frame: FrameType | None) -> None:
    """A handler of signals that end us: what has to be put right is, on the way out."""
    raise SystemExit(128 + number)
