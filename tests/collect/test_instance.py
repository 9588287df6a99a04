"""Databases of nova: a private MariaDB with the tables of several releases, and the lab's."""

from __future__ import annotations

import configparser
import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.collect.conftest import closed_folder
from tests.collect.rogue import rogue_server

from hoodsnap.bundle import Answer
from hoodsnap.collect import cells, database_client, instance
from hoodsnap.collect.cells import Cells
from hoodsnap.collect.database_client import Address, DatabaseClient
from hoodsnap.collect.instance import InstanceDatabase
from hoodsnap.collect.recorder import Recorder
from hoodsnap.keep.secret import WITHHELD

SECRET = "sesame42"  # noqa: S105 (it is planted, to be looked for)

SCHEMAS = Path(__file__).parent / "schemas"

# Instances: on this host, deleted on it, moving away from it, on another host, archived.
HERE = "10000000-0000-4000-8000-000000000000"
GONE = "20000000-0000-4000-8000-000000000000"
MOVED = "30000000-0000-4000-8000-000000000000"
ELSEWHERE = "40000000-0000-4000-8000-000000000000"
LOST = "50000000-0000-4000-8000-000000000000"


class MariaDB:
    """A MariaDB server with its own folder."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "socket")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        data = f"--datadir={folder}/data"
        user = ["--user=root"] if os.geteuid() == 0 else []
        install = ["mariadb-install-db", "--no-defaults", data, *user]
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.process = subprocess.Popen(
            [
                *("mariadbd", "--no-defaults", data, *user, f"--socket={self.socket}"),
                *(f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
                *("--innodb-buffer-pool-size=16M", f"--pid-file={folder}/pid"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()
        for name, schema in (("nova_api", "api"), ("nova_cell0", "cell"), ("nova", "cell")):
            self.create(name, schema)
        self.run("DELETE FROM nova_cell0.instances; DELETE FROM nova_cell0.migrations")
        self.run(f"CREATE USER nova IDENTIFIED BY '{SECRET}'; GRANT SELECT ON nova.* TO nova")
        self.run("GRANT SELECT ON nova_api.* TO nova; GRANT SELECT ON nova_cell0.* TO nova")

    def url(self, name: str = "nova", user: str = "nova", password: str = SECRET) -> str:
        return f"mysql+pymysql://{user}:{password}@127.0.0.1:{self.port}/{name}?charset=utf8"

    def create(self, name: str, schema: str) -> None:
        tables = (SCHEMAS / f"{schema}.sql").read_text()
        self.run(f"CREATE DATABASE {name}; USE {name}; {tables}")

    def run(self, statements: str) -> list[Any]:
        import pymysql
        from pymysql.constants import CLIENT

        connection = pymysql.connect(
            unix_socket=self.socket,
            user="root",
            autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statements)
            rows = list(cursor.fetchall())
            while cursor.nextset():
                pass
        return rows

    def _wait(self) -> None:
        import pymysql

        end = time.monotonic() + 60
        while True:
            assert time.monotonic() < end, "MariaDB does not start"
            if Path(self.socket).is_socket():  # without it, the driver would leak a socket
                with contextlib.suppress(pymysql.MySQLError):
                    self.run("SELECT 1")
                    return
            time.sleep(0.1)


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    for program in ("mariadbd", "mariadb-install-db"):
        if shutil.which(program, path="/usr/sbin:/usr/bin") is None:
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("pymysql")
    folder = closed_folder()
    server = MariaDB(folder)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _no_other_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cells, "SOCKETS", ())
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder("vm")


def conf(url: str) -> dict[str, dict[str, str]]:
    return {"database": {"connection": url}}


def asked(recorder: Recorder, table: str) -> list[Answer]:
    """Return the answers with rows of a table."""
    return [
        answer
        for answer in recorder.answers
        if answer.query.startswith("SELECT")
        and f" FROM {table}" in answer.query.split(" WHERE")[0]
        and answer.query.split(f" FROM {table}")[1][:1] in ("", " ")
    ]


def column(recorder: Recorder, table: str, name: str) -> list[Any]:
    """Return all collected values of a column."""
    values = []
    for answer in asked(recorder, table):
        if name not in answer.value["columns"]:
            continue  # statements for markers ask for fewer columns
        place = answer.value["columns"].index(name)
        values += [row[place] for row in answer.value["rows"]]
    return values


def errors(recorder: Recorder) -> list[tuple[str, str]]:
    return [(a.query, a.error.kind) for a in recorder.answers if a.error is not None]


def everything(recorder: Recorder) -> str:
    return json.dumps([answer.as_json() for answer in recorder.answers])


@pytest.fixture
def nova(recorder: Recorder, mariadb: MariaDB) -> Iterator[InstanceDatabase]:
    found = InstanceDatabase(Cells(recorder, conf(mariadb.url())))
    assert found.connect()
    yield found
    found.close()


def test_instances_of_a_host_include_those_moving_away(
    nova: InstanceDatabase, recorder: Recorder
) -> None:
    assert nova.ask_instances("vm") == {HERE, MOVED}
    nova.ask_rest()

    assert set(column(recorder, "nova.instances", "uuid")) == {HERE, MOVED}
    assert set(column(recorder, "nova.instance_extra", "instance_uuid")) == {HERE}
    assert set(column(recorder, "nova.migrations", "id")) == {1, 3}
    assert column(recorder, "nova.services", "host") == ["vm", "other"]
    assert column(recorder, "nova.compute_nodes", "host") == ["vm"]
    assert column(recorder, "nova.pci_devices", "id") == [1]
    assert column(recorder, "nova_api.host_mappings", "host") == ["vm"]
    assert column(recorder, "nova_api.instance_mappings", "instance_uuid") == [HERE]
    assert column(recorder, "nova_api.instance_groups", "name") == ["spread"]
    assert column(recorder, "nova_api.flavors", "name") == ["lab.tiny", "lab.small"]


def test_without_a_host_all_hosts_are_asked_about(
    nova: InstanceDatabase, recorder: Recorder
) -> None:
    assert nova.ask_instances(None) == {HERE, MOVED, ELSEWHERE}
    nova.ask_rest()

    assert column(recorder, "nova.compute_nodes", "host") == ["vm", "other"]
    assert set(column(recorder, "nova.instance_extra", "instance_uuid")) == {HERE, ELSEWHERE}


def test_no_secret_is_kept(nova: InstanceDatabase, recorder: Recorder) -> None:
    nova.ask_instances(None)
    nova.ask_rest([GONE, LOST])
    nova.look()

    assert SECRET not in everything(recorder)
    assert column(recorder, "nova.instance_system_metadata", "value") == ["pc"]
    assert column(recorder, "nova_api.aggregate_metadata", "value") == ["az1"]
    assert WITHHELD in column(recorder, "nova_api.request_specs", "spec")[0]
    assert json.loads(column(recorder, "nova.block_device_mapping", "connection_info")[0]) == {
        "serial": "s1",
        "data": {"target_lun": 1},
    }


def test_cells_are_recorded_without_their_urls(nova: InstanceDatabase, recorder: Recorder) -> None:
    (answer,) = asked(recorder, "nova_api.cell_mappings")

    assert answer.value["columns"] == [
        "id",
        "uuid",
        "name",
        "disabled",
        "database_host",
        "database_name",
    ]
    hosts = [row[4:] for row in answer.value["rows"]]
    assert hosts[0] == ["10.9.9.9:3306", "nova_cell0"]
    assert hosts[1][0].startswith("127.0.0.1:")
    assert hosts[1][1] == "nova"


def test_values_are_kept_as_the_server_sends_them(
    nova: InstanceDatabase, recorder: Recorder
) -> None:
    nova.ask_instances("vm")
    nova.ask_rest()

    row = asked(recorder, "nova.instances")[0].value["rows"][0]
    assert row == [HERE, "vm", "vm", "active", None, 1, "2026-01-02 03:04:05", 0]
    assert column(recorder, "nova.compute_nodes", "cpu_allocation_ratio") == ["16"]


def test_each_table_definition_is_recorded_once(nova: InstanceDatabase, recorder: Recorder) -> None:
    nova.ask_instances("vm")
    nova.ask_rest()
    nova.ask_rest([LOST])

    definitions = [a.query for a in recorder.answers if a.query.startswith("SHOW CREATE TABLE")]
    assert "SHOW CREATE TABLE nova.instances" in definitions
    assert len(definitions) == len(set(definitions))


def test_a_missing_table_is_recorded_as_absent(nova: InstanceDatabase, recorder: Recorder) -> None:
    nova.ask_instances("vm")
    nova.ask_rest()

    assert ("SHOW CREATE TABLE nova.virtual_interfaces", "absent") in errors(recorder)
    assert asked(recorder, "nova.virtual_interfaces") == []


def test_only_the_newest_rows_of_histories_are_asked(
    nova: InstanceDatabase, recorder: Recorder
) -> None:
    nova.ask_instances("vm")
    nova.ask_rest()

    assert column(recorder, "nova.instance_actions", "id") == list(range(3, 13))
    assert column(recorder, "nova.instance_actions_events", "action_id") == list(range(3, 13))
    assert column(recorder, "nova.instance_faults", "id") == [3, 4, 5]


def test_deleted_rows_are_left_out_unless_no_others_exist(
    nova: InstanceDatabase, recorder: Recorder
) -> None:
    nova.ask_instances("vm")
    nova.ask_rest()
    assert set(column(recorder, "nova.block_device_mapping", "id")) == {1}

    nova.ask_rest([GONE])
    assert set(column(recorder, "nova.block_device_mapping", "id")) == {1, 3}


def test_a_uuid_seen_on_the_host_is_searched_in_all_cells(
    nova: InstanceDatabase, recorder: Recorder
) -> None:
    nova.ask_instances("vm")
    nova.ask_rest()
    before = len(recorder.answers)

    nova.ask_rest([GONE, LOST.upper(), "not-a-uuid'"])

    assert GONE in column(recorder, "nova.instances", "uuid")
    assert column(recorder, "nova.shadow_instances", "uuid") == [LOST]
    late = [answer.query for answer in recorder.answers[before:]]
    assert any("nova_cell0.instances" in query and LOST in query for query in late)
    assert not any("not-a-uuid" in query for query in late)
    nova.ask_rest([GONE, LOST])
    assert len(recorder.answers) == before + len(late)


def test_many_uuids_are_asked_in_several_statements(
    nova: InstanceDatabase, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "AT_ONCE", 2)
    many = [f"70000000-0000-4000-8000-{number:012}" for number in range(4)]
    nova.ask_instances("vm")

    nova.ask_rest(many)

    statements = [answer.query for answer in asked(recorder, "nova_api.instance_mappings")]
    assert [statement.count("'") // 2 for statement in statements] == [2, 2, 2]


def test_late_questions_see_the_snapshot_of_the_first(
    nova: InstanceDatabase, recorder: Recorder, mariadb: MariaDB
) -> None:
    nova.ask_instances("vm")
    mariadb.run("UPDATE nova.instances SET vm_state = 'error' WHERE id = 4")
    try:
        nova.ask_rest([ELSEWHERE])
        assert set(column(recorder, "nova.instances", "vm_state")) == {"active", "resized"}

        nova.look()
        assert "error" in column(recorder, "nova.instances", "vm_state")
    finally:
        mariadb.run("UPDATE nova.instances SET vm_state = 'active' WHERE id = 4")


def test_the_second_look_repeats_the_statements_of_the_first(
    nova: InstanceDatabase, recorder: Recorder
) -> None:
    nova.ask_instances("vm")
    nova.ask_rest([GONE])
    first = [answer.query for answer in recorder.answers]

    nova.look()

    again = [answer.query for answer in recorder.answers[len(first) :]]
    assert set(again) <= set(first)
    assert sum("nova.instances WHERE host = 'vm'" in query for query in again) == 1
    assert sum("nova.migrations" in query for query in again) == 1
    assert sum(GONE in query and ".instances " in query for query in again) == 2  # in both cells
    assert sum(GONE in query and ".block_device_mapping " in query for query in again) == 1


def test_instances_that_changed_are_asked_again_in_the_new_snapshot(
    nova: InstanceDatabase, recorder: Recorder, mariadb: MariaDB
) -> None:
    nova.ask_instances("vm")
    nova.ask_rest()
    mariadb.run("UPDATE nova.instance_extra SET flavor = '[]' WHERE keypairs IS NOT NULL")
    try:
        nova.look()
        nova.ask_again([HERE])
        assert column(recorder, "nova.instance_extra", "flavor") == ["{}", "[]"]
    finally:
        mariadb.run("UPDATE nova.instance_extra SET flavor = '{}'")


def test_a_database_from_before_cells_is_read(recorder: Recorder, mariadb: MariaDB) -> None:
    mariadb.create("havana", "havana")
    mariadb.run("CREATE USER old IDENTIFIED BY 'old'; GRANT SELECT ON havana.* TO old")
    nova = InstanceDatabase(Cells(recorder, conf(mariadb.url("havana", "old", "old"))))

    assert nova.connect()
    assert nova.ask_instances("vm") == {HERE}
    nova.ask_rest()
    nova.close()

    assert "scheduled_at" in asked(recorder, "havana.instances")[1].value["columns"]
    assert column(recorder, "havana.instance_system_metadata", "value") == ["512"]
    assert column(recorder, "havana.instance_types", "name") == ["m1.tiny"]
    assert column(recorder, "havana.instance_groups", "name") == ["old"]
    assert ("SHOW CREATE TABLE havana.instance_extra", "absent") in errors(recorder)


def test_a_given_url_overrides_nova_conf(recorder: Recorder, mariadb: MariaDB) -> None:
    nova = InstanceDatabase(
        Cells(recorder, conf("mysql://nova@127.0.0.1:1/nova"), mariadb.url("nova_api"))
    )

    assert nova.connect()
    assert errors(recorder) == []
    nova.close()


def test_the_socket_on_this_host_is_tried_last(
    recorder: Recorder, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "SOCKETS", ("/nonexistent", mariadb.socket))
    nova = InstanceDatabase(Cells(recorder, {}))

    assert nova.connect()
    assert nova.ask_instances("vm") == {HERE, MOVED}
    nova.close()


def test_a_compute_node_without_a_database_is_one_failure(recorder: Recorder) -> None:
    nova = InstanceDatabase(Cells(recorder, {}))

    assert not nova.connect()
    assert nova.ask_instances("vm") == set()
    nova.ask_rest([HERE])
    nova.look()
    nova.close()

    assert errors(recorder) == [("SELECT VERSION()", "missing")]
    assert len(recorder.answers) == 1


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://nova:sesame42@127.0.0.1/nova", "missing"),
        ("mysql://nova:sesame42@127.0.0.1:1/nova", "unreachable"),
        ("mysql:///nova?unix_socket=/nonexistent", "unreachable"),
    ],
)
def test_an_unreachable_database_is_recorded(recorder: Recorder, url: str, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the driver leaves its socket open
        assert not InstanceDatabase(Cells(recorder, conf(url))).connect()
        gc.collect()

    assert errors(recorder) == [("SELECT VERSION()", kind)]
    assert SECRET not in everything(recorder)


def test_a_wrong_password_is_recorded_as_denied(recorder: Recorder, mariadb: MariaDB) -> None:
    assert not InstanceDatabase(Cells(recorder, {}, mariadb.url("nova", "nova", "no"))).connect()

    assert errors(recorder) == [("SELECT VERSION()", "denied")]


def test_a_cell_on_a_server_that_is_down_does_not_stop_the_others(
    recorder: Recorder, mariadb: MariaDB
) -> None:
    far = "mysql://nova@127.0.0.1:1/nova_cell2"
    mariadb.run(f"INSERT INTO nova_api.cell_mappings VALUES (3, 'c3', 'cell2', '', '{far}', 0)")
    try:
        nova = InstanceDatabase(Cells(recorder, conf(mariadb.url())))
        assert nova.connect()
        assert nova.ask_instances("vm") == {HERE, MOVED}
        nova.ask_rest()
        nova.look()
        nova.close()
    finally:
        mariadb.run("DELETE FROM nova_api.cell_mappings WHERE id = 3")

    there = "/* at 127.0.0.1:1 */"
    assert (f"SELECT VERSION() {there}", "unreachable") in errors(recorder)
    assert (f"SHOW CREATE TABLE nova_cell2.instances {there}", "unreachable") in errors(recorder)
    assert column(recorder, "nova_api.instance_mappings", "instance_uuid") == [HERE]


def test_cells_with_databases_of_the_same_name_are_distinguished(
    recorder: Recorder, mariadb: MariaDB
) -> None:
    far = mariadb.url().replace("127.0.0.1", "localhost")
    mariadb.run(f"INSERT INTO nova_api.cell_mappings VALUES (3, 'c3', 'cell2', '', '{far}', 0)")
    try:
        nova = InstanceDatabase(Cells(recorder, conf(mariadb.url())))
        assert nova.connect()
        assert nova.ask_instances("vm") == {HERE, MOVED}
        nova.look()
        nova.close()
    finally:
        mariadb.run("DELETE FROM nova_api.cell_mappings WHERE id = 3")

    assert errors(recorder) == []
    queries = [answer.query for answer in recorder.answers]
    there = f" /* at localhost:{mariadb.port} */"
    marked = [query.removesuffix(there) for query in queries if query.endswith(there)]
    assert "SHOW CREATE TABLE nova.instances" in marked
    assert set(marked) <= set(queries)
    assert SECRET not in everything(recorder)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{scheme}}://{{username}}:{{password}}@127.0.0.1:{port}/nova_cell2", "denied"),
        ("mysql://nova:{{password}}@127.0.0.1:{port}/nova_cell2?charset=utf8", "denied"),
        ("mysql://nova@127.0.0.1:{port}/{{password}}", "missing"),
        ("mysql://{{password}}@127.0.0.1:{port}/nova_cell2", "missing"),
        ("mysql://nova@{{password}}.example.org/nova_cell2", "missing"),
        ("mysql://nova:{{password}}@{{hostname}}:{{port}}/{{password}}", "missing"),
        ("mysql://nova:x@127.0.0.1:{port}/nova_cell2?unix_socket={folder}/socket", "denied"),
        ("mysql://nova:x@127.0.0.1:{port}/nova_cell2?ssl_key={folder}/key", "denied"),
    ],
)
def test_cell_mappings_can_not_redirect_the_password_of_nova(
    template: str, error: str, recorder: Recorder, mariadb: MariaDB, tmp_path: Path
) -> None:
    """Accounts that can write to the API database can put any URL into cell_mappings."""
    tmp_path.chmod(0o777)
    (tmp_path / "key").touch()
    with socket.socket(socket.AF_UNIX) as listener, rogue_server(b"mysql_native_password") as rogue:
        listener.bind(str(tmp_path / "socket"))
        url = template.format(port=rogue.port, folder=tmp_path)
        mariadb.run(f"INSERT INTO nova_api.cell_mappings VALUES (3, 'c3', 'cell2', '', '{url}', 0)")
        try:
            nova = InstanceDatabase(Cells(recorder, conf(mariadb.url())))
            assert nova.connect()
            assert nova.ask_instances("vm") == {HERE, MOVED}
            nova.close()
        finally:
            mariadb.run("DELETE FROM nova_api.cell_mappings WHERE id = 3")

    assert rogue.sent == []
    assert errors(recorder) == [("SELECT VERSION() /* cell c3 */", error)]
    assert SECRET not in everything(recorder)


def test_a_template_for_the_same_server_is_filled(recorder: Recorder, mariadb: MariaDB) -> None:
    url = "{scheme}://{username}:{password}@{hostname}:{port}/nova?{query}"
    mariadb.run(f"UPDATE nova_api.cell_mappings SET database_connection = '{url}' WHERE id = 2")
    try:
        nova = InstanceDatabase(Cells(recorder, conf(mariadb.url())))
        assert nova.connect()
        assert nova.ask_instances("vm") == {HERE, MOVED}
        nova.close()
    finally:
        mariadb.run(
            "UPDATE nova_api.cell_mappings SET database_connection ="
            f" '{mariadb.url()}' WHERE id = 2"
        )

    assert errors(recorder) == []
    assert SECRET not in everything(recorder)


@pytest.fixture
def server(recorder: Recorder, mariadb: MariaDB) -> Iterator[DatabaseClient]:
    found = DatabaseClient(recorder, Address(socket=mariadb.socket, user="root"))
    assert found.open()
    yield found
    found.close()


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM nova.services", "INSERT INTO nova.services VALUES (3, 'x', 'y', 0, 0)"],
)
def test_the_connection_can_not_write(
    server: DatabaseClient, mariadb: MariaDB, statement: str
) -> None:
    answer = server.ask(statement)

    assert answer.error is not None
    assert "READ ONLY" in answer.error.message
    assert mariadb.run("SELECT COUNT(*) FROM nova.services") == [(2,)]


def test_a_server_that_closes_the_connection_is_not_asked_again(
    server: DatabaseClient, mariadb: MariaDB
) -> None:
    killer = threading.Timer(0.5, _kill, [mariadb])
    killer.start()

    answer = server.ask("SELECT COUNT(*), SLEEP(30) FROM nova.instances")
    killer.join()

    assert answer.error is not None
    assert (answer.error.kind, answer.took < 10) == ("unreachable", True)
    later = server.ask("SELECT 1")
    assert later.error is not None
    assert later.error.kind == "unreachable"
    assert later.error.message.startswith("not asked: ")


def test_truncated_rows_are_not_an_answer(server: DatabaseClient, mariadb: MariaDB) -> None:
    killer = threading.Timer(0.5, _kill, [mariadb])
    killer.start()

    answer = server.ask("SELECT REPEAT('x', 20000), SLEEP(0.1) FROM nova.instance_actions")
    killer.join()

    assert answer.error is not None
    assert answer.error.kind == "unreachable"


def _kill(mariadb: MariaDB) -> None:
    processes = mariadb.run("SHOW PROCESSLIST")
    (victim,) = [row[0] for row in processes if row[7] and "SLEEP" in row[7]]
    mariadb.run(f"KILL CONNECTION {victim}")


def test_a_lost_server_is_reconnected_for_the_second_look(
    server: DatabaseClient, mariadb: MariaDB
) -> None:
    killer = threading.Timer(0.3, _kill, [mariadb])
    killer.start()
    server.ask("SELECT SLEEP(30)")
    killer.join()

    assert server.look_again().error is None
    assert server.ask("SELECT 1").value == {"columns": ["1"], "rows": [[1]]}


def test_a_slow_statement_times_out_and_the_next_is_answered(
    server: DatabaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_client, "_STATEMENT_TIME", 0.2)
    server.look_again()
    many = "nova.seq_1_to_100000000"
    slow = f"SELECT COUNT(*) FROM {many} AS a, {many} AS b WHERE a.seq + b.seq < 0"

    assert _kind(server.ask(slow)) == "timeout"
    assert server.ask("SELECT 7").error is None
    assert _kind(server.ask(slow)) == "timeout"
    assert _kind(server.ask(slow)) == "timeout"
    assert _kind(server.ask("SELECT 7")) == "unreachable"  # three timeouts are too many


def test_a_frozen_server_times_out(
    server: DatabaseClient, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_client, "_READ_TIME", 1.0)
    monkeypatch.setattr(server, "_given_up", "so that the next look connects again")
    server.look_again()
    os.kill(mariadb.process.pid, signal.SIGSTOP)
    try:
        while not _stands_still(mariadb.process.pid):
            time.sleep(0.01)
        first, second = server.ask("SELECT 1"), server.ask("SELECT 1")
    finally:
        os.kill(mariadb.process.pid, signal.SIGCONT)

    assert _kind(first) == "timeout"
    assert _kind(second) == "unreachable"  # the statement was not even sent


def _stands_still(pid: int) -> bool:
    """Return True if every thread has stopped. A single running thread could still answer."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_the_connection_of_an_abandoned_statement_is_not_reused(
    server: DatabaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_client, "_PATIENCE", 0.3)

    assert _kind(server.ask("SELECT SLEEP(2)")) == "timeout"
    assert _kind(server.ask("SELECT 1")) == "unreachable"


def test_after_too_many_rows_the_next_answer_is_correct(
    server: DatabaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_client, "LARGEST", 1000)

    assert (
        _kind(server.ask("SELECT REPEAT('x', 200), id FROM nova.instance_actions")) == "too-large"
    )
    assert server.ask("SELECT 7").value == {"columns": ["7"], "rows": [[7]]}


def test_bytes_and_bits_can_be_kept(server: DatabaseClient) -> None:
    answer = server.ask(
        "SELECT x'ff00' AS bytes, CAST('1.50' AS DECIMAL(5,2)) AS exact, NULL AS none"
    )

    assert answer.value["rows"] == [["\udcff\x00", "1.50", None]]
    assert json.loads(json.dumps(answer.value)) == answer.value


def _kind(answer: Answer) -> str:
    return answer.error.kind if answer.error is not None else "answered"


@pytest.fixture
def lab_conf(cloud: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    parser.read("/etc/nova/nova.conf")
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.mark.lab
def test_the_lab_is_read_in_full(recorder: Recorder, lab_conf: dict[str, dict[str, str]]) -> None:
    nova = InstanceDatabase(Cells(recorder, lab_conf))
    assert nova.connect()
    live = nova.ask_instances(None)
    nova.ask_rest(["ffffffff-0000-4000-8000-000000000000"])
    nova.look()
    nova.close()

    assert errors(recorder) == []
    assert len(live) >= 10
    assert live <= set(column(recorder, "nova_api.request_specs", "instance_uuid"))
    text = everything(recorder)
    assert "nova:hoodlab@" not in text
    assert "#!/bin/sh" not in text  # the user data of one of the lab's servers
    assert len(text) < 40_000 * len(live)


@pytest.mark.lab
def test_the_lab_is_found_through_its_socket(
    recorder: Recorder, cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    nova = InstanceDatabase(Cells(recorder, {}))

    assert nova.connect()
    assert nova.ask_instances(None)
    nova.close()
    assert errors(recorder) == []
