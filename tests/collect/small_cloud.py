"""Small cloud of the tests' own, served over HTTP: keystone, and replies that a test adds."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "sesame42"  # noqa: S105 (planted, and searched for)
TOKEN = "gAAAAAbcd-token"  # noqa: S105 (likewise)

Reply = tuple[int, Any] | Callable[[], tuple[int, Any]]


class SmallCloud(ThreadingHTTPServer):
    """Keystone, and replies that a test adds. `heard`: the requests after the login."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.replies: dict[str, Reply] = {}
        self.endpoints = {"compute": f"{self.url}/compute/v2.1", "image": f"{self.url}/image"}
        self.heard: list[tuple[str, str | None]] = []
        self.authorized: list[str] = []
        """Authorization headers of requests."""
        self.reply("/compute/v2.1/", {"version": {"id": "v2.1", "version": "2.100"}})
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors: some tests stop reading on purpose."""

    def reply(self, path: str, body: Any, status: int = 200) -> None:
        self.replies[path] = (status, body)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path in ("/identity/v3", "/identity/v3/"):
            link = {"rel": "self", "href": f"{self.url}/identity/v3/"}
            return 200, {"version": {"id": "v3.14", "status": "stable", "links": [link]}}
        if path == "/identity/v3/auth/tokens":
            if body["auth"]["identity"]["password"]["user"]["password"] != PASSWORD:
                return 401, {"error": {"code": 401, "message": "Wrong.", "title": "Unauthorized"}}
            return 201, {"token": self._token()}
        path = path.partition("?changes-since=")[0]  # the query contains today's date
        reply = self.replies.get(
            path, (404, {"itemNotFound": {"message": "Not found.", "code": 404}})
        )
        return reply() if callable(reply) else reply

    def _token(self) -> dict[str, Any]:
        return {
            "methods": ["password"],
            "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "p", "domain": {"id": "default", "name": "Default"}},
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "catalog": [
                {
                    "type": service,
                    "name": service,
                    "id": service,
                    "endpoints": [
                        {
                            "id": service,
                            "interface": "public",
                            "region": "R",
                            "region_id": "R",
                            "url": url,
                        }
                    ],
                }
                for service, url in self.endpoints.items()
            ],
        }


class _Handler(BaseHTTPRequestHandler):
    server: SmallCloud
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else {}
        if authorization := self.headers.get("Authorization"):
            self.server.authorized.append(authorization)
        if not self.path.startswith("/identity"):
            with self.server.lock:
                version = self.headers.get("X-OpenStack-Nova-API-Version")
                self.server.heard.append((self.path, version))
        status, reply = self.server.answer(self.path, body)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Subject-Token", TOKEN)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_POST = do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallCloud]:
    pytest.importorskip("openstack")
    with SmallCloud() as small:
        threading.Thread(target=small.serve_forever, args=(0.05,), daemon=True).start()
        log_in(monkeypatch, tmp_path, small.url)
        yield small
        small.shutdown()


def log_in(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    log_out(monkeypatch, home)
    for name, value in {
        "AUTH_URL": f"{url}/identity/v3",
        "USERNAME": "u",
        "PASSWORD": PASSWORD,
        "PROJECT_NAME": "p",
        "USER_DOMAIN_NAME": "Default",
        "PROJECT_DOMAIN_NAME": "Default",
    }.items():
        monkeypatch.setenv(f"OS_{name}", value)


def log_out(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(home / "none.yaml"))
