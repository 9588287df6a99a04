"""MySQL's protocol over recorded tables, with PyMySQL as the client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import RecordedHost, healthy

from hoodsnap.facts.database.tables import Tables
from hoodsnap.replay.mysqld import database, sql, tables
from hoodsnap.replay.mysqld.database import QueryResult, ReplayedDatabase
from hoodsnap.replay.mysqld.mysqld import Mysqld
from hoodsnap.replay.mysqld.mysqld_error import MySQLError
from hoodsnap.replay.recording import Recording, hosts

pymysql: Any = pytest.importorskip("pymysql")


def recording(host: RecordedHost) -> Recording:
    (name,) = hosts(host.bundle)
    return Recording(host.bundle, name)


@pytest.fixture
def socket(host: RecordedHost, tmp_path: Path) -> Iterator[str]:
    """Start a server for the healthy recording; return the path of its socket."""
    loop = asyncio.new_event_loop()
    path = str(tmp_path / "mysqld.sock")
    server = loop.run_until_complete(Mysqld(recording(host)).serve(path))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield path
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(_hang_up())
    loop.close()


async def _hang_up() -> None:
    """End open sessions, and wait until the connections are closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for _ in range(5):  # closing a connection takes the loop a round or two
        await asyncio.sleep(0.01)


@pytest.fixture
def nova(socket: str) -> Iterator[Any]:
    """A cursor in the database nova."""
    with pymysql.connect(unix_socket=socket, database="nova") as connection:
        yield connection.cursor()


def _rows(host: RecordedHost, *columns: str) -> list[tuple[object, ...]]:
    tables = Tables(host.bundle.by_layer["nova-db"])
    rows = [row.cells for row in tables.of("instances", None, "nova")]
    rows.sort(key=lambda cells: cells["id"])  # type: ignore[arg-type,return-value]
    return [tuple(cells[column] for column in columns) for cells in rows]


def test_the_query_of_the_exercise(nova: Any, host: RecordedHost) -> None:
    nova.execute("select uuid, vm_state, hostname, host from instances")

    assert list(nova.fetchall()) == _rows(host, "uuid", "vm_state", "hostname", "host")


def test_numbers_stay_numbers_and_missing_values_are_null(nova: Any, host: RecordedHost) -> None:
    nova.execute("select id, task_state from instances where display_name = 'vm-plain'")

    ((number, task),) = nova.fetchall()
    assert (number, task) == (_rows(host, "id")[0][0], None)


def test_tables_are_joined(nova: Any, host: RecordedHost) -> None:
    nova.execute(
        "select count(*) from instances i join block_device_mapping b"
        " on b.instance_uuid = i.uuid where b.deleted = 0 and i.display_name = %s",
        ("vm-data",),
    )

    assert nova.fetchall() == ((2,),)  # its root disk and its volume


def test_another_database_has_other_tables(socket: str, host: RecordedHost) -> None:
    with pymysql.connect(unix_socket=socket) as connection:
        cursor = connection.cursor()
        cursor.execute("use nova_cell0")
        cursor.execute("select display_name from instances")
        assert cursor.fetchall() == (("vm-error",),)
        cursor.execute("select count(*) from nova.instances where display_name = 'vm-error'")
        assert cursor.fetchall() == ((0,),)


def test_now_is_the_time_of_the_recording(nova: Any, host: RecordedHost) -> None:
    recorded = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)").value["rows"][0][0]

    nova.execute("select now(), now() - interval 1 hour < now()")

    assert nova.fetchall() == ((recorded[:19], 1),)


def test_a_description_is_the_recorded_one(nova: Any, host: RecordedHost) -> None:
    nova.execute("describe instances")
    described = nova.fetchall()
    nova.execute("show create table instances")

    columns = host.last("nova-db", "SHOW COLUMNS FROM nova.instances").value["rows"]
    assert [list(row) for row in described] == columns
    table = host.last("nova-db", "SHOW CREATE TABLE nova.instances").value["rows"][0]
    assert nova.fetchall() == (tuple(table),)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from instances",
        "update instances set host = 'x'",
        "insert into instances (id) values (1)",
        "drop table instances",
        "create table t (a int)",
        "truncate instances",
        "load data infile '/etc/passwd' into table instances",
    ],
)
def test_nothing_can_be_changed(nova: Any, statement: str) -> None:
    with pytest.raises(pymysql.err.MySQLError, match="can't change a recording") as refusal:
        nova.execute(statement)

    assert refusal.value.args[0] == 1290


@pytest.mark.parametrize(
    "statement", ["selec 1", "attach database '/tmp/x' as y", "pragma writable_schema = 1"]
)
def test_a_statement_with_an_unknown_first_word_is_not_supported(nova: Any, statement: str) -> None:
    with pytest.raises(pymysql.err.MySQLError, match="is not supported") as refusal:
        nova.execute(statement)

    assert refusal.value.args[0] == 1064


def test_only_one_statement_is_allowed(nova: Any) -> None:
    with pytest.raises(pymysql.err.MySQLError, match="one statement at a time"):
        nova.execute("select 1; delete from instances")


ENDLESS = "with recursive a as (select 1 as n union all select n + 1 from a) select {} from a"


@pytest.mark.parametrize(
    "statement",
    [
        ENDLESS.format("sum(n)"),
        "select count(*) from instances a, instances b, instances c, instances d, instances e",
    ],
)
def test_an_endless_statement_is_stopped(
    nova: Any, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(tables, "MOST_STEPS", 1 << 18)

    with pytest.raises(pymysql.err.Error, match="takes too long"):
        nova.execute(statement)
    nova.execute("select count(*) from instances")

    assert nova.fetchone()[0] > 5


def test_an_endless_result_is_refused(nova: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST_ROWS", 1000)

    with pytest.raises(pymysql.err.Error, match="more than 1000 rows"):
        nova.execute(ENDLESS.format("n"))
    nova.execute("select 1")


def test_a_column_that_was_not_recorded_is_named(nova: Any) -> None:
    for statement in ("select user_data from instances", "select * from instances"):
        with pytest.raises(pymysql.err.MySQLError, match=r"the column \w+ of nova.instances was"):
            nova.execute(statement)


def test_a_table_that_was_not_recorded_is_named(nova: Any) -> None:
    with pytest.raises(pymysql.err.MySQLError, match=r"the table nova\.quotas was not recorded"):
        nova.execute("select * from quotas")
    with pytest.raises(pymysql.err.MySQLError, match=r"Table 'nova\.nosuch' doesn't exist"):
        nova.execute("select * from nosuch")


def test_a_setting_that_was_not_recorded_is_named(nova: Any) -> None:
    with pytest.raises(pymysql.err.MySQLError, match="innodb_buffer_pool_size was not recorded"):
        nova.execute("select @@innodb_buffer_pool_size")


def test_a_url_has_no_password(host: RecordedHost) -> None:
    found = ReplayedDatabase(recording(host)).ask(
        "select database_connection from cell_mappings", "nova_api"
    )

    assert isinstance(found, QueryResult)
    for (url,) in found.rows:
        assert str(url).startswith("mysql+pymysql://[withheld]@")


@pytest.mark.parametrize(
    ("mysql", "sqlite"),
    [
        ("select a from t where b <=> null", "select a from @.t where b IS null"),
        ('select "it\'s", "a""b"', "select 'it''s' , 'a\"b'"),
        ("select `a` from `t`", 'select "a" from @."t"'),
        ("select a from x.t, u", "select a from x . t , @.u"),
        ("select a from (select b from t) s", "select a from ( select b from @.t ) s"),
        (
            "select a - interval 5 minute from t",
            "select date_sub ( a , interval_of ( 5 , 'minute' ) ) from @.t",
        ),
    ],
)
def test_a_statement_is_translated(mysql: str, sqlite: str) -> None:
    translated = sql.translated(sql.tokens(mysql), lambda name: "d")

    assert translated == sqlite.replace("@.", '"d" . ')


@given(statement=st.text(max_size=80))
def test_no_statement_breaks_the_stand_in(statement: str) -> None:
    database = _healthy_database()
    with contextlib.suppress(MySQLError):
        database.ask(statement, "nova")


@cache
def _healthy_database() -> ReplayedDatabase:
    (name,) = hosts(healthy())
    return ReplayedDatabase(Recording(healthy(), name))
