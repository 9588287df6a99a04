from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.collect import database_client as database_module
from hoodsnap.collect.database_client import Address, DatabaseClient
from hoodsnap.collect.recorder import Recorder, RefusedError


@pytest.mark.parametrize(
    ("url", "server", "user", "password", "database"),
    [
        ("mysql+pymysql://nova:pw@db:3307/nova?charset=utf8", "db:3307", "nova", "pw", "nova"),
        ("mysql://nova:pw@db/nova", "db:3306", "nova", "pw", "nova"),
        ("mysql+mysqldb://nova@db/nova", "db:3306", "nova", "", "nova"),
        ("mariadb+mariadbconnector://nova:pw@DB/nova", "db:3306", "nova", "pw", "nova"),
        (
            "mysql://nova:p%40%2Fw%3A@10.0.0.1/nova_api",
            "10.0.0.1:3306",
            "nova",
            "p@/w:",
            "nova_api",
        ),
        ("mysql://nova:p/w?@db/nova?ssl_ca=/etc/ca.pem", "db:3306", "nova", "p/w?", "nova"),
        ("mysql+pymysql://nova:pw@[fd00::1]:3306/nova", "fd00::1:3306", "nova", "pw", "nova"),
        ("mysql:///nova?unix_socket=/run/m.sock", "/run/m.sock", "", "", "nova"),
        ("mysql://root@/?unix_socket=/run/m.sock", "/run/m.sock", "root", "", ""),
        ("mysql://db", "db:3306", "", "", ""),
    ],
)
def test_a_url_is_parsed_into_server_and_account(
    url: str, server: str, user: str, password: str, database: str
) -> None:
    address = Address.parse(url)

    assert (address.server, address.user, address.password) == (server, user, password)
    assert address.database == database


def test_a_url_names_the_tls_certificates() -> None:
    address = Address.parse("mysql://nova:pw@db/nova?ssl_ca=/etc/ca.pem&charset=utf8")

    assert address.tls == {"ssl_ca": "/etc/ca.pem"}


@pytest.mark.parametrize("dialect", ["postgresql", "postgresql+psycopg2", "sqlite"])
def test_other_databases_are_refused_by_name(dialect: str) -> None:
    with pytest.raises(
        RefusedError, match=f"the database is {dialect.partition('+')[0]}: only MySQL"
    ):
        Address.parse(f"{dialect}://nova:sesame42@db/nova")


@given(st.text(max_size=40) | st.from_regex(r"mysql://[a-z:@/?%\[\]]{0,20}sesame42[@/:?a-z]{0,20}"))
def test_the_password_of_a_malformed_url_is_not_shown(url: str) -> None:
    try:
        address = Address.parse(url)
    except RefusedError as refusal:
        assert refusal.kind == "missing"
        assert "sesame42" not in str(refusal)
    else:
        assert "@" not in address.host


def test_the_repr_of_an_address_hides_the_password() -> None:
    assert "sesame42" not in repr(Address.parse("mysql://nova:sesame42@db/nova"))


def test_a_server_that_stays_silent_after_connecting_times_out_quickly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_module, "_LOGIN_TIME", 0.2)
    recorder = Recorder("here")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(host="127.0.0.1", port=silent.getsockname()[1])

        assert not DatabaseClient(recorder, address).open()

    assert [answer.error.kind for answer in recorder.answers if answer.error] == ["timeout"]
