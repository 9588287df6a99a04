"""Stand-in for libvirtd: it speaks libvirt's own protocol over a UNIX socket.

libvirt's test driver would not do, because it renumbers domains, forgets the reason of a state, and
invents sizes and addresses. Here every document and number is the recorded one, and anything that
was not recorded is an error.

The messages follow libvirt's src/rpc/virnetprotocol.x: a header and XDR.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from hoodsnap.replay.libvirtd import connection, domains, xdr  # noqa: F401 (the first two register)
from hoodsnap.replay.libvirtd.host import ReplayedHost
from hoodsnap.replay.libvirtd.procedure import PROCEDURES, READS, REMOTE, WRITES
from hoodsnap.replay.libvirtd.virterror import INVALID, NO_SUPPORT, LibvirtError
from hoodsnap.replay.recording import NotRecordedError, Recording

LARGEST_MESSAGE = 32 << 20
"""Largest number of bytes in a message, as in libvirt (VIR_NET_MESSAGE_MAX)."""

_HEADER = struct.Struct(">IIiIII")
_CALL, _REPLY, _MESSAGE = 0, 1, 2

KEEPALIVE, _PING, _PONG = 0x6B656570, 1, 2
"""Program and messages of the keepalive protocol (virkeepaliveprotocol.x)."""


class Libvirtd:
    """Stand-in for the libvirtd of one recorded host."""

    def __init__(self, recording: Recording) -> None:
        self._host = ReplayedHost(recording)

    async def serve(self, path: str) -> asyncio.Server:
        """Listen on a UNIX socket."""
        return await asyncio.start_unix_server(self._client, path)

    async def serve_on(self, listener: socket.socket) -> asyncio.Server:
        """Answer on a socket that is already listening."""
        return await asyncio.start_unix_server(self._client, sock=listener)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                if not _HEADER.size + 4 <= size <= LARGEST_MESSAGE:
                    break
                message = await reader.readexactly(size - 4)
                writer.write(self.reply(message))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client disconnected
        finally:
            writer.close()

    def reply(self, message: bytes) -> bytes:
        """Return the reply to one message (given without its length); empty if none is expected."""
        program, version, number, kind, serial, _ = _HEADER.unpack_from(message)
        if program == KEEPALIVE and number == _PING:
            pong = _HEADER.pack(program, version, _PONG, _MESSAGE, serial, 0)
            return struct.pack(">I", len(pong) + 4) + pong
        if kind != _CALL:
            return b""
        try:
            payload, status = self._call(program, number, xdr.Reader(message[_HEADER.size :])), 0
        except LibvirtError as refusal:
            self._host.recording.miss("libvirt", refusal.text.removeprefix("hoodsnap: "))
            payload, status = refusal.encoded, 1
        if len(payload) > LARGEST_MESSAGE - _HEADER.size - 4:
            text = "hoodsnap: the recorded answer is too large for a message"
            large = LibvirtError(INVALID, text)
            payload, status = large.encoded, 1
        header = _HEADER.pack(program, version, number, _REPLY, serial, status)
        return struct.pack(">I", len(header) + len(payload) + 4) + header + payload

    def _call(self, program: int, number: int, arguments: xdr.Reader) -> bytes:
        answer = PROCEDURES.get((program, number))
        try:
            if answer is not None:
                return answer(self._host, arguments)
        except (NotRecordedError, xdr.MalformedMessageError) as reason:
            raise LibvirtError(INVALID, f"hoodsnap: {reason}") from None
        except LibvirtError:
            raise
        except Exception as error:  # the net around each call
            what = type(error).__name__
            text = f"hoodsnap: the recorded answer can't be read ({what})"
            raise LibvirtError(INVALID, text) from None
        if program == REMOTE and number in WRITES:
            word = WRITES[number]
            raise LibvirtError(NO_SUPPORT, f"hoodsnap: {word} can't change a recording")
        call = READS.get(number) if program == REMOTE else None
        call = call or f"libvirt's call {program:#x}/{number}"
        raise LibvirtError(NO_SUPPORT, f"hoodsnap: {call} was not recorded")
