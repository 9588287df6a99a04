"""Login to a MySQL or MariaDB server that an attacker may control.

The server chooses the login method, and some methods send it the password itself. These are
answered only over TLS with a verified certificate. All others prove knowledge of the password
without sending it. Nothing else that the server asks for is answered.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.ownership import operators, read_owned

UNSENT = "the server asks for the password itself, which is sent only over verified TLS (ssl_ca=…)"

LARGEST_PACKET = 16 << 20
"""Bytes of a packet, which holds one row. PyMySQL itself joins any number of parts."""

_ASKED_AGAIN = ("sha256_password", "caching_sha2_password")

_OPTIONS = ("user", "password", "ssl-ca", "ssl-cert", "ssl-key")


def connect(**arguments: Any) -> Any:
    """Return a `pymysql` connection. Raises what `pymysql.connect` does."""
    from pymysql import connections

    base: Any = connections.Connection  # its type stubs lack the methods overridden here

    class CarefulConnection(base):  # type: ignore[misc]
        """Connection whose first packet has no password, and that reads no endless packet."""

        def _get_server_information(self) -> None:
            super()._get_server_information()
            if getattr(self, "_auth_plugin_name", "") in _ASKED_AGAIN:
                # PyMySQL would answer the first round itself, without the handlers. If the server
                # needs this method, it asks again, and the handlers answer.
                self._auth_plugin_name = "mysql_native_password"

        def _read_packet(self, *arguments: Any, **named: Any) -> Any:
            self._size = 0
            return super()._read_packet(*arguments, **named)

        def _read_bytes(self, size: int) -> Any:
            must_go_on()
            self._size = getattr(self, "_size", 0) + size
            if self._size > LARGEST_PACKET:
                self._force_close()
                raise _too_large()
            return super()._read_bytes(size)

    return CarefulConnection(
        local_infile=False,
        auth_plugin_map=_handlers(),
        # Otherwise PyMySQL uses TLS because of the CA file, but verifies nothing.
        ssl_verify_cert=True if arguments.get("ssl_ca") else None,
        **arguments,
    )


def option_file() -> Mapping[str, str]:
    """Return the client settings in the operator's ~/.my.cnf: user, password, TLS files.

    An empty dict if the file does not exist. Raises `RefusedError` (`denied`) if other accounts
    could have written it.
    """
    from configparser import Error

    from pymysql.optionfile import Parser

    own = Path("~/.my.cnf").expanduser()
    if not own.is_file():
        return {}
    parser = Parser(strict=False)
    try:
        parser.read_string(read_owned(str(own), operators()))
    except Error as error:
        raise RefusedError("failed", f"{own} can't be read: {type(error).__name__}") from None
    named = [name for name in _OPTIONS if parser.has_option("client", name)]
    return {name: value for name in named if (value := parser.get("client", name))}


def _handlers() -> dict[bytes, type[_Handler]]:
    return {
        b"mysql_clear_password": _Clear,
        b"dialog": _Handler,
        b"mysql_old_password": _Handler,
        b"sha256_password": _Sha256,
        b"caching_sha2_password": _CachingSha2,
    }


class _Handler:
    """Login method that is refused."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def authenticate(self, packet: Any) -> Any:
        """Answer a packet of the server and return the server's next packet."""
        self._must_be_verified(on_this_host=False)
        raise _refused(
            "the server asks for an unsupported login method (dialog, mysql_old_password)"
        )

    def _must_be_verified(self, *, on_this_host: bool) -> None:
        own = self.connection
        verified = own._secure and own.ssl and own.ctx.verify_mode == ssl.CERT_REQUIRED
        if own.password and not verified and not (on_this_host and own.unix_socket):
            raise _refused(UNSENT)


class _Clear(_Handler):
    """mysql_clear_password: the password itself, unencrypted."""

    def authenticate(self, packet: Any) -> Any:
        self._must_be_verified(on_this_host=False)
        self.connection.write_packet(self.connection.password + b"\0")
        answer = self.connection._read_packet()
        answer.check_error()
        return answer


class _Sha256(_Handler):
    """sha256_password: the password itself, at best encrypted with a key the server just sent."""

    def authenticate(self, packet: Any) -> Any:
        from pymysql import _auth

        self._must_be_verified(on_this_host=True)
        answer: object = _auth.sha256_password_auth(self.connection, packet)  # type: ignore[no-untyped-call]
        return answer


class _CachingSha2(_Handler):
    """caching_sha2_password: a proof; the password itself if the account is not cached."""

    def authenticate(self, packet: Any) -> Any:
        from pymysql import _auth

        own = self.connection
        if packet.is_auth_switch_request() and own.password:
            own.salt = packet.read_all().removesuffix(b"\0")
            own.write_packet(_auth.scramble_caching_sha2(own.password, own.salt))
            packet = own._read_packet()
            packet.check_error()
        if packet.is_extra_auth_data() and packet.get_all_data()[1:2] == _FULL:
            self._must_be_verified(on_this_host=True)
        return packet if packet.is_ok_packet() else _auth.caching_sha2_password_auth(own, packet)


_FULL = b"\4"
"""Server's reply that the account is not in its cache and that it needs the password itself."""


def _refused(message: str) -> Exception:
    from pymysql.constants import CR
    from pymysql.err import OperationalError

    return OperationalError(CR.CR_AUTH_PLUGIN_ERR, message)


def _too_large() -> Exception:
    from pymysql.constants import CR
    from pymysql.err import OperationalError

    message = f"the server sent a packet of more than {LARGEST_PACKET >> 20} MiB"
    return OperationalError(CR.CR_NET_PACKET_TOO_LARGE, message)
