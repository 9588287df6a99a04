"""Standard input, output and error of a sealed shell: pipes, whose bytes are carried to and fro.

An open file leads back to where it was opened: /proc/self/fd/0 opens the operator's file anew, for
writing too; its owner may make it a setuid program; a socket can be connected to another server;
a terminal can be set up otherwise. So only pipes are passed in, behind which is nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
from dataclasses import dataclass

_INPUT, _OUTPUTS = 0, (1, 2)

_BLOCK = 4096
"""Bytes that a pipe takes at once if it takes any."""


@dataclass
class Flow:
    """Bytes on their way from one file to another."""

    source: int
    target: int
    ours: int | None = None
    """End that is closed last, so that the shell notices."""
    pending: bytes = b""
    """Read, and not written yet."""
    is_over: bool = False
    error: OSError | None = None
    """Error with which the target took no more."""

    def read(self) -> None:
        """Read what there is."""
        try:
            self.pending = os.read(self.source, _BLOCK)
        except BlockingIOError:
            return
        except OSError:  # a terminal that was hung up, a folder
            self.pending = b""
        if not self.pending:
            self._end()

    def write(self) -> None:
        """Write what the target takes."""
        try:
            self.pending = self.pending[os.write(self.target, self.pending) :]
        except BlockingIOError:
            return
        except OSError as error:
            self.pending, self.error = b"", error
            self._end()

    def _end(self) -> None:
        self.is_over = True
        if self.ours is not None:
            os.close(self.ours)


class Streams:
    """The streams of one shell. Made before the fork: both processes have it then."""

    def __init__(self, *, has_terminal: bool, is_typed: bool) -> None:
        """`has_terminal`: what is a terminal is not for us. `is_typed`: what is typed is for the
        shell; else it may be for the next program of a pipeline (`| less`), and is left alone."""
        self._inside: dict[int, int] = {}
        """Standard stream → the end of its pipe in the shell."""
        self._flows: list[Flow] = []
        self._input: Flow | None = None
        for number in (_INPUT, *_OUTPUTS):
            if _is_pipe(number) or (has_terminal and os.isatty(number)):
                continue
            reading, writing = os.pipe()
            self._inside[number] = reading if number == _INPUT else writing
            if number != _INPUT:
                self._flows.append(Flow(reading, number, reading))
            elif os.isatty(number) and not is_typed:
                os.close(writing)
            else:
                self._input = Flow(number, writing, writing)
                self._flows.append(self._input)

    def enter(self) -> None:
        """Let the pipes be the standard streams of this process."""
        for number, inside in self._inside.items():
            os.dup2(inside, number)

    def stay(self) -> None:
        """Let go of the shell's ends, in the process outside."""
        for number, inside in self._inside.items():
            if number != _INPUT:  # it tells in the end how much was not read
                os.close(inside)

    def carry(self, control: socket.socket, terminal: int | None = None) -> list[OSError]:
        """Carry until the other end of `control` is closed and everything is written; why what was
        said could not be written. `terminal`: the master of the shell's terminal, if it has one."""
        flows = [*self._flows]
        if terminal is not None:
            os.set_blocking(terminal, False)
            flows += [Flow(0, terminal), Flow(terminal, 1)]
        open_flows, is_done = flows, False
        while open_flows or not is_done:
            # While what was read is not taken, no more is read.
            sources = [flow.source for flow in open_flows if not flow.pending]
            sources += [] if is_done else [control.fileno()]
            targets = [flow.target for flow in open_flows if flow.pending]
            readable, writable, _ = select.select(sources, targets, [])
            for flow in open_flows:
                if flow.pending and flow.target in writable:
                    flow.write()
                elif not flow.pending and flow.source in readable:
                    flow.read()
            if control.fileno() in readable:
                is_done = _is_closed(control)
            open_flows = [
                flow
                for flow in open_flows
                if not flow.is_over and not (is_done and flow.target not in _OUTPUTS)
            ]
        self._put_back()
        return [flow.error for flow in flows if flow.error is not None and flow.target in _OUTPUTS]

    def _put_back(self) -> None:
        """Let the next reader of the operator's file begin where the shell stopped."""
        if self._input is None:
            return
        left = fcntl.ioctl(self._inside[_INPUT], termios.FIONREAD, b"\0" * 4)
        unread = struct.unpack("@i", left)[0] + len(self._input.pending)
        with contextlib.suppress(OSError):  # a terminal, a socket
            os.lseek(_INPUT, -unread, os.SEEK_CUR)


def _is_pipe(number: int) -> bool:
    """Is this a pipe without a name? One with a name is a file of the host."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{number}").startswith("pipe:")
    return False


def _is_closed(control: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return not control.recv(1)
    return True
