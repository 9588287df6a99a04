"""The HTTP server in front of the replayed APIs: who may ask, how much, and for how long."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread, Timer
from typing import Any
from urllib.parse import urlsplit

from hoodsnap.replay.apis.openstack import ApiError, OpenStack
from hoodsnap.replay.apis.services import SERVICES
from hoodsnap.replay.recording import Recording

MOST_CLIENTS = 64
"""Number of connections answered at the same time; further ones wait."""

MOST_STRANGERS = 8
"""Number of other accounts' connections answered at the same time; further ones are closed."""

LARGEST_BODY = 1 << 20
"""Largest number of bytes in the body of a request."""

PATIENCE = 60.0
"""Seconds that a client may be silent, and that a connection of another account may last."""


class _Server(ThreadingHTTPServer):
    """HTTP server with a thread for each connection, up to a limit.

    Connections of other accounts have a limit of their own, so they can't exhaust ours.
    """

    def __init__(self, recording: Recording, listener: socket.socket, password: str | None) -> None:
        self._room = BoundedSemaphore(MOST_CLIENTS)
        self._strangers = BoundedSemaphore(MOST_STRANGERS)
        address, port = listener.getsockname()[:2]
        super().__init__((address, port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.server_name, self.server_port = listener, address, port
        self.has_neighbours = password is not None
        """True if other accounts of this machine can connect."""
        self.door = Door(port, password)
        self.stand_in = OpenStack(recording, f"http://127.0.0.1:{port}")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a free place, then answer in a thread."""
        address, port = client_address[:2]
        is_ours = (
            not self.has_neighbours or _account(address, port, self.server_port) == os.geteuid()
        )
        room = self._room if is_ours else self._strangers
        if not room.acquire(blocking=is_ours):
            self.shutdown_request(request)
            return
        answering = Thread(target=self._answer, args=(request, client_address, room), daemon=True)
        try:
            answering.start()
        except BaseException:  # no thread was started that would release the place
            room.release()
            raise

    def _answer(self, request: Any, client_address: Any, room: BoundedSemaphore) -> None:
        """Answer, and release the place."""
        ending = Timer(PATIENCE, _end, (request,))
        ending.daemon = True
        try:
            if room is self._strangers:
                ending.start()
            self.process_request_thread(request, client_address)
        finally:
            ending.cancel()
            room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: the client disconnected, or does not speak HTTP."""


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it ended already
        connection.shutdown(socket.SHUT_RDWR)


_ESTABLISHED = "01"
"""State of an open connection. Once the client has closed it, the kernel no longer names its
account."""


def _account(address: str, port: int, ours: int) -> int | None:
    """Return the account that connected to our port from an IPv4 address of this machine; None if
    the kernel lists no such connection."""
    far = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
    for name in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/net/{name}") as lines:
            for line in lines:
                # sl local_address rem_address st queues timer retransmits uid
                words = line.split(maxsplit=8)
                is_it = words[1].endswith(far) and words[2].endswith(f":{ours:04X}")
                if is_it and words[3] == _ESTABLISHED:
                    return int(words[7])
    return None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def _answer(self) -> None:
        version = ""
        try:
            data = self._data()
            self.server.door.admit(self.path, self.headers, data)
            status, body, version = self.server.stand_in.answer(
                self.command, self.path, dict(self.headers.items())
            )
        except ApiError as refusal:
            status = refusal.status
            body = {"error": {"message": str(refusal), "code": status, "title": "recording"}}
            # The rest of a request that was not read must not be taken for the next request.
            self.close_connection = status in _HANG_UP or self.close_connection
        except Exception as error:  # the net around each request
            status = 501
            text = f"hoodsnap: the recorded answer can't be read ({type(error).__name__})"
            body = {"error": {"message": text, "code": status, "title": "recording"}}
        self._reply(status, body, version)

    def _data(self) -> bytes:
        """Return the request's body. Raises `ApiError`."""
        length = self.headers.get("Content-Length") or "0"
        if not re.fullmatch("[0-9]{1,7}", length) or int(length) > LARGEST_BODY:
            raise ApiError(413, f"hoodsnap: a request may have at most {LARGEST_BODY} bytes")
        return self.rfile.read(int(length))

    def _reply(self, status: int, body: Any, version: str) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status < 300 and _is_about_tokens(self.path):
            self.send_header("X-Subject-Token", self.server.door.token)
        if status == 401:
            self.send_header(
                "WWW-Authenticate",
                f'Keystone uri="http://{self.server.server_name}:{self.server.server_port}/v3"',
            )
        if self.close_connection:
            self.send_header("Connection", "close")
        if version:
            self._send_version(version)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send_version(self, version: str) -> None:
        for service in SERVICES:
            if service.header and self.path.startswith(service.prefix):
                self.send_header("OpenStack-API-Version", f"{service.header} {version}")
                if service.layer == "nova":
                    self.send_header("X-OpenStack-Nova-API-Version", version)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass  # no log of requests


def server(
    recording: Recording, listener: socket.socket, password: str | None = None
) -> ThreadingHTTPServer:
    """Return a server for keystone and the other APIs, on a socket that is already listening.

    Call its `serve_forever` to answer requests. With a `password`, keystone gives its token only to
    clients that send the password, and the other APIs require the token. Only requests with a host
    name of the loopback are answered, so a web page can't reach the recording by its own name.
    """
    return _Server(recording, listener, password)


_HANG_UP = (413, 421)


def _is_about_tokens(target: str) -> bool:
    return urlsplit(target).path.rstrip("/") == "/v3/auth/tokens"


class Door:
    """Access control: no requests for other host names and, if there is a password, no requests
    without it."""

    def __init__(self, port: int, password: str | None) -> None:
        names = ("127.0.0.1", "localhost", "[::1]")
        self._hosts = frozenset(f"{name}:{port}" for name in names)
        self._password = password
        self.token = "recorded" if password is None else secrets.token_hex(16)
        """Token that keystone gives to clients, and that the other APIs require."""

    def admit(self, target: str, headers: Message, data: bytes) -> None:
        """Raise `ApiError` if a request must not be answered."""
        named = headers.get_all("Host") or []
        if len(named) != 1 or named[0].strip().lower() not in self._hosts:
            names = ", ".join(sorted(self._hosts))
            raise ApiError(421, f"hoodsnap: use one of these host names: {names}")
        if self._password is None:
            return
        has_token = self._is_known(headers.get("X-Auth-Token"), self.token)
        if _is_about_tokens(target):
            if not has_token and not self._is_known(_password_in(data), self._password):
                raise ApiError(401, "hoodsnap: OS_PASSWORD is not the one that `serve` printed")
        elif not has_token and urlsplit(target).path.rstrip("/") not in ("", "/v3"):
            raise ApiError(401, "hoodsnap: the token is not the one that keystone issued")

    def _is_known(self, given: object, wanted: str) -> bool:
        # The comparison takes the same time wherever they differ.
        return isinstance(given, str) and secrets.compare_digest(
            given.encode(errors="replace"), wanted.encode()
        )


def _password_in(data: bytes) -> object:
    """Return the password in a token request (identity API v3, method `password`), or None."""
    try:
        return json.loads(data)["auth"]["identity"]["password"]["user"]["password"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
