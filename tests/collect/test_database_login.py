"""No server gets a password or a file that is not meant for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collect.rogue import LOCAL_INFILE, OK, THEN, rogue_server, self_signed

from hoodsnap.collect import cells
from hoodsnap.collect.cells import Cells
from hoodsnap.collect.database_client import Address, DatabaseClient
from hoodsnap.collect.instance import InstanceDatabase
from hoodsnap.collect.recorder import Recorder

pytest.importorskip("pymysql")

PASSWORD = "Root-DB-S3cret"  # noqa: S105 (planted, and searched for)

PUBLIC_KEY = b"""-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCtmSqLlbJDTsA3IWb8OIn7DSo+
qT7M4yTyMkAtvqWVJQM6BiqHO8gEBEOQ0qRUGtVGdmmWlAqBQ3N8yQbvmZTv9dXJ
VKq7Qk3iyM1Fd7a9qC9GeSRjbbGpm5ZmdhYCMuAoxNZGJUJZ3Nb5Z2DHXQ0mCsVc
F3uTNdRk5dXE6ZG1dQIDAQAB
-----END PUBLIC KEY-----
"""

CLEAR = b"\xfemysql_clear_password\0"
DIALOG = b"\xfedialog\0\4Password: "
SHA256 = b"\xfesha256_password\0" + b"x" * 20 + b"\0"
SHA2 = b"\xfecaching_sha2_password\0" + b"x" * 20 + b"\0"
DENIED = b"\xff\x15\x04#28000Access denied"
FULL, KEY = b"\1\4", b"\1" + PUBLIC_KEY

WAYS = {
    "clear": (b"mysql_native_password", CLEAR),
    "dialog": (b"mysql_native_password", DIALOG),
    "old": (b"mysql_native_password", b"\xfemysql_old_password\x0012345678\0"),
    "sha256, greeted": (b"sha256_password", KEY),
    "sha256, switched to": (b"mysql_native_password", SHA256, KEY),
    "sha2, forgotten": (b"caching_sha2_password", FULL, KEY),
    "sha2, switched to": (b"mysql_native_password", SHA2, FULL, KEY),
}


@pytest.fixture(autouse=True)
def home(closed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Operator's home, with the password that the operator's own clients use."""
    option_file = closed / ".my.cnf"
    option_file.write_text(f"[client]\nuser=root\npassword={PASSWORD}\n")
    option_file.chmod(0o600)
    monkeypatch.setenv("HOME", str(closed))
    monkeypatch.setattr(cells, "SOCKETS", ())
    yield closed


def open_at(port: int, password: str = PASSWORD, **more: str) -> Recorder:
    recorder = Recorder("here")
    address = Address(host="127.0.0.1", port=port, user="nova", password=password, tls=more)
    database = DatabaseClient(recorder, address)
    assert not database.open()
    database.close()
    return recorder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tls", [False, True])
def test_the_password_is_never_sent_to_an_unverified_server(
    way: str, tls: bool, tmp_path: Path
) -> None:
    if tls and shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate = self_signed(tmp_path) if tls else None
    greets, *asks = WAYS[way]
    with rogue_server(greets, *asks, certificate=certificate) as server:
        recorder = open_at(server.port)

    assert server.sent  # otherwise nothing was tried
    assert not any(PASSWORD.encode() in packet for packet in server.sent)
    # Encrypted with a key that the server just made, the password would be as good as clear text.
    assert not any(len(packet) in (128, 256) for packet in server.sent)
    assert recorder.answers[-1].error is not None
    assert recorder.answers[-1].error.kind in ("denied", "unreachable")


def test_the_password_is_sent_over_tls_with_a_verified_certificate(tmp_path: Path) -> None:
    """The operator has configured the certificate of the same server."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate = self_signed(tmp_path)
    greets, *asks = WAYS["clear"]
    with rogue_server(greets, *asks, certificate=certificate) as server:
        open_at(server.port, ssl_ca=f"{certificate}.crt")

    assert PASSWORD.encode() + b"\0" in server.sent


def test_a_server_that_has_cached_the_account_gets_only_a_proof() -> None:
    """Server like MySQL 8 after a service has logged in with the same account."""
    remembered = b"\1\3" + THEN + OK
    with rogue_server(b"caching_sha2_password", SHA2, remembered, OK, DENIED) as server:
        open_at(server.port)

    assert server.sent[2] == b"\x03SET NAMES utf8mb4"  # the login succeeded
    assert not any(PASSWORD.encode() in packet for packet in server.sent)


def test_no_server_gets_a_local_file() -> None:
    with rogue_server(b"mysql_native_password", OK, OK, LOCAL_INFILE) as server:
        recorder = open_at(server.port)

    assert recorder.answers[0].error is not None
    assert len(server.sent) == 3  # the login and two statements; no file after them
    assert Path("/etc/hostname").read_bytes() not in b"".join(server.sent)


def test_the_option_files_password_is_used_only_for_a_typed_url() -> None:
    with rogue_server(b"mysql_native_password") as server:
        url = f"mysql+pymysql://root@127.0.0.1:{server.port}/nova"
        configured = InstanceDatabase(Cells(Recorder("here"), {"database": {"connection": url}}))
        assert not configured.connect()
        of_configuration = list(server.sent)
        assert not InstanceDatabase(Cells(Recorder("here"), {}, url)).connect()
        of_operator = server.sent[len(of_configuration) :]

    # The name is followed by the length of the proof: 0 or 20 bytes.
    assert all(b"root\0\0" in packet for packet in of_configuration)
    assert of_configuration
    assert any(b"root\0\x14" in packet for packet in of_operator)


def test_an_option_file_that_others_can_write_is_not_used(home: Path) -> None:
    (home / ".my.cnf").chmod(0o666)
    recorder = Recorder("here")
    with rogue_server(b"mysql_native_password") as server:
        url = f"mysql+pymysql://root@127.0.0.1:{server.port}/nova"
        assert not InstanceDatabase(Cells(recorder, {}, url)).connect()

    assert all(b"root\0\0" in packet for packet in server.sent)
    errors = [answer.error for answer in recorder.answers if answer.query == "ls -ld ~/.my.cnf"]
    assert errors and errors[0] is not None and errors[0].kind == "denied"


def test_an_endless_packet_is_not_read() -> None:
    part = b"x" * 0xFFFFFF  # a packet of this length continues in the next packet
    with rogue_server(b"mysql_native_password", OK, OK, part + THEN + part + THEN + part) as server:
        recorder = open_at(server.port)

    assert recorder.answers[0].error is not None
    assert "a packet of more than 16 MiB" in recorder.answers[0].error.message
