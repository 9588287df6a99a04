"""Client libraries talk to the stand-ins as they would to the servers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import HEALTHY, MONITORS, RecordedHost

from hoodsnap.bundle import load
from hoodsnap.collect.libvirt_client import binding
from hoodsnap.collect.recorder import RefusedError
from hoodsnap.replay import stage
from hoodsnap.replay.recording import Recording, hosts


def _served(path: Path, folder: str) -> Path:
    bundle = load(path)
    problems: list[str] = []
    recording = Recording(bundle, hosts(bundle)[0])
    stage.answer(recording, stage.listen(recording, Path(folder), ports=False), problems.append)
    assert problems == []
    return Path(folder)


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    """Stand-ins of the healthy recording; they end with the tests."""
    # A socket's path may have 107 characters; pytest's own folders have more.
    with tempfile.TemporaryDirectory() as folder:
        yield _served(HEALTHY, folder)


@pytest.fixture(scope="module")
def with_monitors() -> Iterator[Path]:
    """Stand-ins of a recording with monitors."""
    with tempfile.TemporaryDirectory() as folder:
        yield _served(MONITORS, folder)


@pytest.fixture(scope="module")
def libvirt() -> Any:
    try:
        return binding()
    except RefusedError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def connection(libvirt: Any, sockets: Path) -> Iterator[Any]:
    found = libvirt.openReadOnly(f"qemu+unix:///system?socket={sockets}/libvirt/libvirt-sock-ro")
    yield found
    found.close()


def test_libvirt_s_binding_lists_the_domains(connection: Any, host: RecordedHost) -> None:
    listed = host.last("libvirt", "virsh list --all").value

    found = {(d.name(), d.UUIDString(), d.ID()) for d in connection.listAllDomains()}

    assert found == {(row["name"], row["uuid"], row["id"] or -1) for row in listed}


def test_libvirt_s_binding_reads_the_documents(connection: Any, host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    domain = connection.lookupByName(name)

    assert domain.XMLDesc() == host.last("libvirt", f"virsh dumpxml {name}").value
    assert connection.getCapabilities() == host.last("libvirt", "virsh capabilities").value
    state = host.last("libvirt", f"virsh domstate --reason {name}").value
    assert domain.state() == [state["state"], state["reason"]]


def test_libvirt_s_binding_gets_a_refusal(
    libvirt: Any, connection: Any, host: RecordedHost
) -> None:
    domain = connection.lookupByName(host.domain("vm-plain"))

    with pytest.raises(libvirt.libvirtError, match="hoodsnap: domstats was not recorded"):
        connection.getAllDomainStats()
    with pytest.raises(libvirt.libvirtError, match="hoodsnap: domblkinfo was not recorded"):
        domain.blockInfo("vda")


def test_libvirt_s_binding_can_not_change_anything(
    libvirt: Any, sockets: Path, host: RecordedHost
) -> None:
    writable = libvirt.open(f"qemu+unix:///system?socket={sockets}/libvirt/libvirt-sock")
    domain = writable.lookupByName(host.domain("vm-plain"))

    for change in (domain.destroy, domain.suspend, domain.undefine, domain.shutdown, domain.reset):
        with pytest.raises(libvirt.libvirtError, match="can't change a recording"):
            change()

    writable.close()


def _engine(dialect: str, sockets: Path) -> Any:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    url = f"mysql+{dialect}://reader:any@/nova?unix_socket={sockets}/mysqld/mysqld.sock"
    return sqlalchemy.create_engine(url)


@pytest.mark.parametrize("dialect", ["pymysql", "mysqlconnector"])
def test_sqlalchemy_reflects_the_tables(dialect: str, sockets: Path, host: RecordedHost) -> None:
    pytest.importorskip("mysql.connector" if dialect == "mysqlconnector" else "pymysql")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = _engine(dialect, sockets)
    described = host.last("nova-db", "SHOW COLUMNS FROM nova.instances").value["rows"]
    names = host.last("nova-db", "SHOW TABLES FROM nova").value["rows"]

    seen = sqlalchemy.inspect(engine)
    table = sqlalchemy.Table("instances", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        chosen = sqlalchemy.select(table.c.uuid).where(table.c.display_name == "vm-plain")
        (found,) = connection.execute(chosen).scalars()
    engine.dispose()

    assert sorted(seen.get_table_names()) == sorted(name for (name,) in names)
    assert [column.name for column in table.columns] == [row[0] for row in described]
    assert [column.name for column in table.primary_key] == ["id"]
    assert found == host.uuid("vm-plain")


def test_sqlalchemy_gets_a_refusal_that_names_the_table(sockets: Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip("pymysql")
    engine = _engine("pymysql", sockets)

    with pytest.raises(sqlalchemy.exc.DBAPIError, match=r"nova\.quotas was not recorded"):
        sqlalchemy.Table("quotas", sqlalchemy.MetaData(), autoload_with=engine)

    engine.dispose()


def test_mysql_s_own_connector_asks(sockets: Path, host: RecordedHost) -> None:
    connector = pytest.importorskip("mysql.connector")
    connection = connector.connect(
        unix_socket=f"{sockets}/mysqld/mysqld.sock",
        user="reader",
        password="any",  # noqa: S106 (everybody is let in)
        database="nova",
        use_pure=True,
    )
    cursor = connection.cursor(dictionary=True)

    cursor.execute("SELECT uuid, vm_state FROM instances WHERE display_name = %s", ("vm-plain",))
    found = cursor.fetchall()
    with pytest.raises(connector.Error, match="UPDATE can't change a recording"):
        cursor.execute("UPDATE instances SET host = 'x'")
    with pytest.raises(connector.Error, match="prepared statements are not supported"):
        connection.cursor(prepared=True).execute("SELECT uuid FROM instances WHERE id = %s", (1,))
    connection.close()

    assert found == [{"uuid": host.uuid("vm-plain"), "vm_state": "active"}]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("version_comment", "hoodsnap: a recording"), ("lower_case_table_names", "0")],
)
def test_a_variable_has_the_value_of_the_stand_in(sockets: Path, variable: str, value: str) -> None:
    pymysql = pytest.importorskip("pymysql")
    with pymysql.connect(unix_socket=f"{sockets}/mysqld/mysqld.sock") as connection:
        cursor = connection.cursor()
        cursor.execute(f"SHOW VARIABLES LIKE '{variable}'")
        assert cursor.fetchall() == ((variable, value),)
        with pytest.raises(pymysql.err.MySQLError, match="was not recorded"):
            cursor.execute("SHOW VARIABLES LIKE 'innodb_%'")


def test_qemu_s_client_asks(with_monitors: Path, monitored: RecordedHost) -> None:
    qmp = pytest.importorskip("qemu.qmp")
    place, uuid = _monitor(with_monitors, monitored)

    async def ask() -> tuple[Any, str]:
        client = qmp.QMPClient("test")
        await client.connect(str(place))
        reply = await client.execute("query-uuid")
        with pytest.raises(qmp.ExecuteError) as refused:
            await client.execute("quit")
        await client.disconnect()
        return reply, str(refused.value)

    reply, refusal = asyncio.run(ask())

    assert reply == {"UUID": uuid}
    assert refusal == "hoodsnap: quit was not recorded"


def test_qmp_shell_asks(with_monitors: Path, monitored: RecordedHost) -> None:
    program = Path(sys.executable).with_name("qmp-shell")
    if not program.exists():
        pytest.skip("qmp-shell is not installed")
    place, uuid = _monitor(with_monitors, monitored)

    done = subprocess.run(
        [program, "-N", place], input="query-uuid\nquit\n", capture_output=True, text=True
    )

    assert f'{{"return": {{"UUID": "{uuid}"}}' in done.stdout.replace("'", '"')
    assert "hoodsnap: quit was not recorded" in done.stdout


def _monitor(folder: Path, monitored: RecordedHost) -> tuple[Path, str]:
    place = sorted((folder / "qemu").iterdir())[0]
    number = int(place.name.split("-")[1])
    listed = monitored.last("libvirt", "virsh list --all").value
    (uuid,) = (row["uuid"] for row in listed if row["id"] == number)
    return place / "monitor.sock", uuid
