"""Server that greets like MySQL and asks for data that no client should send."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLUGIN_AUTH, SECURE, LENENC, PROTOCOL41, TLS = 1 << 19, 1 << 15, 1 << 21, 1 << 9, 1 << 11

OK = b"\0\0\0\2\0\0\0"

THEN = b"<then>"
"""Separator of packets that are sent without waiting for an answer."""

LOCAL_INFILE = b"\xfb/etc/hostname"
"""Server's answer to a statement that asks for a file of the client."""


class RogueServer:
    """Server on the loopback; `sent` has all packets that clients sent to it."""

    def __init__(
        self, *, greets: bytes, asks: tuple[bytes, ...] = (), certificate: Path | None = None
    ) -> None:
        """Start to listen.

        `greets`: the plugin in the greeting. `asks`: the answers to the packets after the greeting,
        one each; the last answer is repeated.
        """
        self.sent: list[bytes] = []
        self._greets, self._asks = greets, asks
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(10)
            with client:
                try:
                    self._serve(client)
                except OSError:
                    continue

    def _serve(self, client: socket.socket) -> None:
        can = PLUGIN_AUTH | SECURE | LENENC | PROTOCOL41 | (TLS if self._tls else 0)
        greeting = (
            b"\x0a8.0.99\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<H", can & 0xFFFF)
            + b"\x21\2\0" + struct.pack("<H", can >> 16) + b"\x15" + bytes(10)
            + b"123456789012\0" + self._greets + b"\0"
        )  # fmt: skip
        client.sendall(_packet(0, greeting))
        number, packet = _received(client)
        # A packet of 32 bytes is the client's request for TLS: it has no user name.
        if self._tls is not None and len(packet) == 32:
            with self._tls.wrap_socket(client, server_side=True) as wrapped:
                self._talk(wrapped, *_received(wrapped))
        else:
            self._talk(client, number, packet)

    def _talk(self, client: socket.socket, number: int, packet: bytes) -> None:
        self.sent.append(packet)
        asks = iter(self._asks)
        last = b"\xff\x15\x04#28000Access denied"
        while True:
            last = next(asks, last)
            for place, part in enumerate(last.split(THEN)):
                client.sendall(_packet(number + 1 + place, part))
            number, packet = _received(client)
            self.sent.append(packet)


@contextmanager
def rogue_server(
    greets: bytes, *asks: bytes, certificate: Path | None = None
) -> Iterator[RogueServer]:
    """Run a server for a while."""
    server = RogueServer(greets=greets, asks=asks, certificate=certificate)
    try:
        yield server
    finally:
        server.close()


def self_signed(folder: Path) -> Path:
    """Make a self-signed certificate, with its key in the same file."""
    path = folder / "rogue.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def _packet(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", len(payload))[:3] + bytes([number & 0xFF]) + payload


def _received(client: socket.socket) -> tuple[int, bytes]:
    head = _exactly(client, 4)
    return head[3], _exactly(client, int.from_bytes(head[:3], "little"))


def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise OSError("the client disconnected")
        data += piece
    return data
