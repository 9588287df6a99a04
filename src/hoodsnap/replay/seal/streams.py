"""Standard input, output and error of a sealed shell: pipes, whose bytes are carried in and out.

An open file is a way out of the seal: /proc/self/fd/0 reopens the operator's file, even for
writing; its owner can turn it into a setuid program; a socket can be connected to another server; a
terminal's settings can be changed. So only pipes are passed in, which lead nowhere.
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
"""Number of bytes that a writable pipe accepts without blocking."""


@dataclass
class Flow:
    """A flow of bytes from one descriptor to another."""

    source: int
    target: int
    ours: int | None = None
    """Descriptor to close at the end, so that the shell notices the end; None to close nothing."""
    pending: bytes = b""
    """Bytes that were read, but not written yet."""
    is_over: bool = False
    error: OSError | None = None
    """Error that ended writing."""

    def read(self) -> None:
        """Read the available bytes."""
        try:
            self.pending = os.read(self.source, _BLOCK)
        except BlockingIOError:
            return
        except OSError:  # a terminal that hung up, or a folder
            self.pending = b""
        if not self.pending:
            self._end()

    def write(self) -> None:
        """Write as many bytes as the target accepts."""
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
    """Standard streams of one shell, created before the fork, so that both processes have them."""

    def __init__(self, *, has_terminal: bool, is_typed: bool) -> None:
        """`has_terminal`: leave streams that are a terminal alone, because the shell gets its own.
        `is_typed`: pass typed input to the shell; otherwise it may be meant for the next program of
        a pipeline (`| less`)."""
        self._inside: dict[int, int] = {}
        """The shell's ends of the pipes, by standard stream."""
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
        """Make the pipes the standard streams of this process, in the shell."""
        for number, inside in self._inside.items():
            os.dup2(inside, number)

    def stay(self) -> None:
        """Close the shell's ends of the pipes, in the process outside."""
        for number, inside in self._inside.items():
            if number != _INPUT:  # kept, because it tells at the end how much was not read
                os.close(inside)

    def carry(self, control: socket.socket, terminal: int | None = None) -> list[OSError]:
        """Carry bytes until the other end of `control` is closed and everything is written.

        `terminal`: the master of the shell's terminal, if it has one. Returns the errors that kept
        output from being written.
        """
        flows = [*self._flows]
        if terminal is not None:
            os.set_blocking(terminal, False)
            flows += [Flow(0, terminal), Flow(terminal, 1)]
        open_flows, is_done = flows, False
        while open_flows or not is_done:
            # A flow reads more only after its pending bytes were written.
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
        """Seek back in the operator's file, so that reading continues where the shell ended."""
        if self._input is None:
            return
        left = fcntl.ioctl(self._inside[_INPUT], termios.FIONREAD, b"\0" * 4)
        unread = struct.unpack("@i", left)[0] + len(self._input.pending)
        with contextlib.suppress(OSError):  # a terminal or a socket
            os.lseek(_INPUT, -unread, os.SEEK_CUR)


def _is_pipe(number: int) -> bool:
    """True if this is a pipe without a name; a named one is a file of the host."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{number}").startswith("pipe:")
    return False


def _is_closed(control: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return not control.recv(1)
    return True
