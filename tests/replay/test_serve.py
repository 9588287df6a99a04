"""Stand-ins on TCP ports answer only requests with the right host name and token."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.conftest import HEALTHY

SERVERS = "/compute/v2.1/servers/detail"


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """Start `serve`; return the variables that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "hoodsnap", "serve", "--force", HEALTHY],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        found: dict[str, str] = {}
        assert process.stdout is not None
        for line in process.stdout:
            word = shlex.split(line)
            if word[0] == "alias":
                break
            name, _, value = word[1].partition("=")
            found[name] = value
        yield found
        process.terminate()


def asked(
    served: Mapping[str, str],
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: object = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    url = urlsplit(served["OS_AUTH_URL"])
    assert url.hostname is not None
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, dict(headers or {}))
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def token(served: Mapping[str, str], password: str) -> str | None:
    user = {"name": "recorded", "domain": {"id": "default"}, "password": password}
    identity = {"methods": ["password"], "password": {"user": user}}
    _, headers, _ = asked(
        served, "/v3/auth/tokens", method="POST", body={"auth": {"identity": identity}}
    )
    return headers["X-Subject-Token"]


@pytest.mark.parametrize("path", [SERVERS, "/image/v2/images", "/network/v2.0/ports", "/volume/v3/",
    "/placement/resource_providers", "/compute//v2.1/servers", "/v3/../compute/v2.1/servers",
    "/v3/auth/tokens", "/v3/auth/tokens/", "/compute/v2.1/"])  # fmt: skip
@pytest.mark.parametrize("token", [None, "", "recorded", "x" * 32])
def test_nothing_is_answered_without_the_token(
    served: dict[str, str], path: str, token: str | None
) -> None:
    status, _, body = asked(served, path, {} if token is None else {"X-Auth-Token": token})

    assert status == 401
    assert b"vm-plain" not in body


@pytest.mark.parametrize("password", ["", "recorded", "x" * 32])
def test_no_token_is_given_for_another_password(served: dict[str, str], password: str) -> None:
    assert token(served, password) is None
    bodies: tuple[object, ...] = (
        [],
        {"auth": 1},
        {"auth": {"identity": {"methods": ["token"]}}},
        "x" * 100,
    )
    for body in bodies:
        status, headers, _ = asked(served, "/v3/auth/tokens", method="POST", body=body)
        assert (status, headers["X-Subject-Token"]) == (401, None)


def test_with_the_password_the_token_opens_the_apis(served: dict[str, str]) -> None:
    opened = token(served, served["OS_PASSWORD"])

    assert opened is not None and len(opened) == 32
    assert opened != served["OS_PASSWORD"]
    status, _, body = asked(served, SERVERS, {"X-Auth-Token": opened})
    assert status == 200
    assert b"vm-plain" in body


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:{}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{}.evil", ""]
)
def test_requests_for_other_host_names_are_refused(served: dict[str, str], name: str) -> None:
    url = urlsplit(served["OS_AUTH_URL"])
    opened = token(served, served["OS_PASSWORD"])
    headers = {"Host": name.format(url.port), "X-Auth-Token": opened or ""}

    for path in ("/", "/v3", SERVERS):
        status, _, body = asked(served, path, headers)
        assert status == 421
        assert b"vm-plain" not in body


@pytest.mark.parametrize("name", ["localhost:{}", "[::1]:{}", "LOCALHOST:{}"])
def test_requests_for_names_of_the_loopback_are_answered(served: dict[str, str], name: str) -> None:
    url = urlsplit(served["OS_AUTH_URL"])
    status, _, _ = asked(served, "/v3", {"Host": name.format(url.port)})

    assert status == 200


@pytest.mark.parametrize("length", ["-1", "99999999999", "x", "1048577", "+5"])
def test_a_body_has_a_limit(served: dict[str, str], length: str) -> None:
    status, _, _ = asked(served, "/v3", {"Content-Length": length}, method="POST")

    assert status == 413


@pytest.mark.skipif(shutil.which("openstack") is None, reason="openstack is not installed")
def test_the_real_client_works_with_the_printed_variables(served: dict[str, str]) -> None:
    command = ["openstack", "server", "list", "-f", "value", "-c", "Name"]
    right = subprocess.run(command, env={**os.environ, **served}, capture_output=True, text=True)
    wrong = subprocess.run(
        command, env={**os.environ, **served, "OS_PASSWORD": "x"}, capture_output=True, text=True
    )

    assert "vm-plain" in right.stdout.split()
    assert wrong.stdout == ""
    assert "HTTP 401" in wrong.stderr


def test_a_folder_whose_path_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()

    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap", "serve", "--force", HEALTHY],
        env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"hoodsnap: can't listen in {folder}/hoodsnap-")
    assert done.stderr.endswith(": AF_UNIX path too long. Set TMPDIR to a shorter path\n")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("at_once", [16, 120])
def test_many_clients_at_once_are_answered_under_the_limit_of_memory(at_once: int) -> None:
    done = subprocess.run([sys.executable, "-c", f"""
import http.client, socket, threading
from pathlib import Path
from hoodsnap import memory
from hoodsnap.bundle import load
from hoodsnap.replay.apis import http_server
from hoodsnap.replay.recording import Recording

recording = Recording(load(Path({str(HEALTHY)!r}), memory.allow), "vm")
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
api = http_server.server(recording, listener)
threading.Thread(target=api.serve_forever, daemon=True).start()
clients = [http.client.HTTPConnection("127.0.0.1", api.server_port, timeout=60) for _ in range({at_once})]
for client in clients:
    client.request("GET", "/placement/")
print(sum(client.getresponse().read() is not None and not client.close() for client in clients))
"""], capture_output=True, text=True, timeout=300)  # fmt: skip

    assert (done.stdout, done.stderr) == (f"{at_once}\n", "")


HOLD = """
import socket, sys, time
held = []
for _ in range(200):
    try:
        one = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
        one.sendall(b"GET / HTTP/1.1\\r\\nX")
    except OSError:
        continue
    held.append(one)
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_another_account_can_not_exhaust_the_connections(served: Mapping[str, str]) -> None:
    port = urlsplit(served["OS_AUTH_URL"]).port
    program = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    with subprocess.Popen(
        [program, "-I", "-c", HOLD, str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        user=65533, group=65533, extra_groups=[], cwd="/",
    ) as neighbor:  # fmt: skip
        assert neighbor.stdout is not None
        assert int(neighbor.stdout.readline()) > 0
        status, _, _ = asked(served, "/v3")
        neighbor.kill()

    assert status == 200
