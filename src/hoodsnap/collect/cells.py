"""Cells: find nova's databases. The API database lists the cells, and each cell has its own.

Their URLs contain passwords, so they are kept in memory only and never written anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hoodsnap.collect.database_client import LAYER, Address, DatabaseClient
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.sql_statement import named, select
from hoodsnap.collect.trusted.ownership import Owners
from hoodsnap.keep.tables import CELL_MAPPINGS, ReadableTable, Rows

SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/run/mysql/mysql.sock")
"""Places where distributions put the socket of a database server on the same host."""

Conf = Mapping[str, Mapping[str, str]]
"""Options of nova.conf, by section and name, including passwords."""

_CELL0 = "00000000-0000-0000-0000-000000000000"


@dataclass
class Cell:
    """The database of a cell, and what was found in it."""

    server: DatabaseClient
    name: str
    """Name of the database."""

    uuid: str = ""
    """UUID of the cell; empty in releases without cells."""

    found: set[str] = field(default_factory=set)
    """UUIDs of the instances that have a row in it."""

    flavors: set[int] = field(default_factory=set)
    """Ids of these instances' flavors."""

    markers: dict[str, None] = field(default_factory=dict)
    """Statements that are sent again at the end of the visit, in order, each once."""

    @property
    def has_hosts(self) -> bool:
        """True if instances run in this cell. cell0 holds those that got no host."""
        return self.uuid != _CELL0


class Cells:
    """All databases of one nova deployment."""

    def __init__(
        self,
        recorder: Recorder,
        conf: Conf,
        url: str | None = None,
        owners: Owners | None = None,
    ) -> None:
        """Open no connection yet.

        `url`: the database URL given by the operator, used instead of those in nova.conf.
        `owners`: the accounts that may write nova.conf.
        """
        self.servers: list[DatabaseClient] = []
        self.api: Cell | None = None
        """The API database; None in releases that have none."""
        self.cells: list[Cell] = []
        self._recorder = recorder
        self._conf = conf
        self._url = url
        self._owners = owners or Owners()
        self._columns: dict[tuple[DatabaseClient, str, str], frozenset[str]] = {}

    def open(self) -> bool:
        """Connect and find the cells. Return False if none was found; the reason is recorded."""
        for address in self._addresses():
            main = DatabaseClient(self._recorder, address)
            if main.open():
                self.servers.append(main)
                main.ask("SELECT UTC_TIMESTAMP(6)")
                self._find(main)
                main.ask("SHOW DATABASES")
                for cell in filter(None, (self.api, *self.cells)):
                    cell.server.ask(f"SHOW TABLES FROM {named(cell.name)}")
                return bool(self.cells)
        return False

    def columns(self, cell: Cell, table: ReadableTable) -> tuple[str, ...]:
        """Return the columns of a table that exist in this release and may be read."""
        known = (cell.server, cell.name, table.name)
        if known not in self._columns:
            answer = cell.server.ask(f"SHOW CREATE TABLE {named(cell.name, table.name)}")
            if answer.error is None:
                # The output of `describe`: the definition holds it too, but in another form.
                cell.server.ask(f"SHOW COLUMNS FROM {named(cell.name, table.name)}")
            definition = "" if answer.error is not None else _cell(answer.value["rows"], 1)
            self._columns[known] = frozenset(re.findall(r"^ +[`\"](\w+)[`\"] ", definition, re.M))
        return tuple(column for column in table.columns if column in self._columns[known])

    # Database servers

    def _addresses(self) -> Iterator[Address]:
        """Yield the addresses to try, in order, until one answers."""
        found = False
        for url in [self._url] if self._url else _urls(self._conf):
            address = self._parsed(url, named=url is self._url)
            if address is not None and not address.named:
                address = self._checked(address)
            found = True
            if address is not None:
                yield address
        if self._url:
            return
        for socket in SOCKETS:
            if Path(socket).is_socket():
                found = True
                # The operator's own clients send the password of ~/.my.cnf to this socket, too.
                address = self._checked(Address(socket=socket, user="root", named=True))
                if address is not None:
                    yield address
        if not found:
            self._refuse(
                RefusedError(
                    "missing",
                    "nova.conf names no database ([database] connection) and this host has no"
                    " database socket; name the database with --db-url",
                )
            )

    def _parsed(self, url: str, note: str = "", *, named: bool = False) -> Address | None:
        try:
            address = Address.parse(url, named=named)
        except RefusedError as refusal:
            self._refuse(refusal, note)
            return None
        return address

    def _checked(self, address: Address, note: str = "") -> Address | None:
        """Return the address; None if it names files that other accounts could have put there."""
        try:
            # The files may be on a file system that does not answer.
            seen = self._recorder.wait(
                LAYER, lambda: address.require_own_files(self._owners), 5.0, source="files"
            )
            if isinstance(seen, TimeoutError):
                raise RefusedError("timeout", "the files that the URL names could not be examined")
            if isinstance(seen, BaseException):
                raise seen
        except RefusedError as refusal:
            self._refuse(refusal, note)
            return None
        return address

    def _refuse(self, refusal: RefusedError, note: str = "") -> None:
        self._recorder.refuse(LAYER, f"SELECT VERSION(){note}", refusal)

    def _server(self, address: Address) -> DatabaseClient:
        """Return the connection to this server, and open one if there is none yet."""
        for server in self.servers:
            if server.address.server == address.server:
                return server
        server = DatabaseClient(self._recorder, address, note=f" /* at {address.server} */")
        server.open()
        self.servers.append(server)
        return server

    # Databases

    def _find(self, main: DatabaseClient) -> None:
        answer = main.ask(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_name IN ('cell_mappings', 'instance_info_caches')"
        )
        if answer.error is not None:
            return
        rows: list[list[str]] = answer.value["rows"]
        here = {schema for schema, table in rows if table == "instance_info_caches"}
        apis = sorted(schema for schema, table in rows if table == "cell_mappings")
        if apis:
            # Prefer the usual names: the server may hold a restored copy under another name.
            usual = [name for name in (main.address.database, "nova_api") if name in apis]
            self.api = Cell(main, (usual or apis)[0])
            self._find_mapped(self.api, here)
        if not self.cells:
            self._find_unmapped(main, here)

    def _find_mapped(self, api: Cell, here: set[str]) -> None:
        """Add the cells that the API database lists."""
        columns = self.columns(api, CELL_MAPPINGS)
        urls: dict[str, str] = {}
        templates: set[str] = set()
        base = self._conf.get("database", {}).get("connection") or self._url or ""
        statement = select(api.name, CELL_MAPPINGS, columns)
        if (
            api.server.ask(statement, lambda rows: _places(rows, base, urls, templates)).error
            is not None
        ):
            return
        places = {uuid: self._parsed(url, _note(uuid)) for uuid, url in urls.items()}
        names = [place.database for place in places.values() if place is not None]
        for uuid, place in places.items():
            if place is None:
                continue
            # It is the same database even if it was reached at another address (a proxy, a tunnel,
            # the socket).
            ours = place.database in here and names.count(place.database) == 1
            if ours:
                self.cells.append(Cell(api.server, place.database, uuid))
            elif self._may_go_to(place, _note(uuid), with_password=uuid in templates):
                self.cells.append(Cell(self._server(place), place.database, uuid))

    def _may_go_to(self, place: Address, note: str, *, with_password: bool) -> bool:
        """Return True if a cell's database may be connected to; if not, record the reason.

        Its address comes from the API database, and an account that can write there could name any
        server. `with_password`: the cell's URL is filled with the password in nova.conf.
        """
        if with_password and place.password:
            named = [url for url in (*_urls(self._conf), self._url) if url]
            if place.server not in {_server_of(url) for url in named}:
                message = (
                    f"not asked: cell_mappings would send nova.conf's password to {place.server},"
                    " which nova.conf does not name; collect that database with --db-url"
                )
                self._refuse(RefusedError("denied", message), note)
                return False
        return self._checked(place, note) is not None

    def _find_unmapped(self, main: DatabaseClient, here: set[str]) -> None:
        """Add the only database of nova, as it was before Ocata."""
        urls = [] if self._url else _urls(self._conf)[-1:]
        own = [place for place in map(self._parsed, urls) if place is not None]
        for name in (main.address.database, *(place.database for place in own), "nova"):
            if name in here:
                self.cells.append(Cell(main, name))
                return
        checked = [place for place in own if self._checked(place) is not None]
        self.cells.extend(Cell(self._server(place), place.database) for place in checked)


def _cell(rows: list[list[Any]], column: int) -> str:
    return str(rows[0][column]) if rows else ""


def _urls(conf: Conf) -> list[str]:
    """Return the database URLs in nova.conf: the API database first, because it lists the cells."""
    places = (
        ("api_database", "connection"),
        ("database", "connection"),
        ("DEFAULT", "sql_connection"),
    )
    urls = [conf.get(section, {}).get(option, "") for section, option in places]
    return [url for url in urls if url]


def _note(uuid: str) -> str:
    return f" /* cell {uuid} */"


def _server_of(url: str) -> str | None:
    try:
        return Address.parse(url).server
    except RefusedError:
        return None


def _places(rows: Rows, base: str, urls: dict[str, str], templates: set[str]) -> Rows:
    """Return the rows of cell_mappings with each database's host and name instead of its URL.

    Add each URL to `urls`, by cell. Add the cells whose URL is filled with the password in
    nova.conf to `templates`.
    """
    columns = [column for column in rows["columns"] if column != "database_connection"]
    kept = []
    for row in rows["rows"]:
        cell: dict[str, Any] = dict(zip(rows["columns"], row, strict=True))
        written = cell.get("database_connection") or ""
        urls[cell["uuid"]] = url = _filled(written, base)
        if "{password}" in written:
            templates.add(cell["uuid"])
        try:
            place = Address.parse(url)
            where: list[str | None] = [place.server, place.database]
        except RefusedError:
            where = [None, None]
        kept.append([cell[column] for column in columns] + where)
    return {"columns": [*columns, "database_host", "database_name"], "rows": kept}


def _filled(url: str, base: str) -> str:
    """Return a cell's URL. If it is a template, fill it from nova's [database] connection."""
    if "{" not in url:
        return url
    if "{password}" in url and _PASSWORD_PLACE.fullmatch(url) is None:
        return ""  # elsewhere it would become a name, and names are recorded and resolved
    place = re.fullmatch(
        r"(?P<scheme>[^:]+)://(?:(?P<username>[^:@/]*)(?::(?P<password>[^@]*))?@)?"
        r"(?P<hostname>[^:/?]*)(?::(?P<port>\d+))?(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?.*",
        base,
    )
    values = place.groupdict(default="") if place else {"scheme": "mysql"}
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], ""), url)


_PASSWORD_PLACE = re.compile(r"[^:]+://[^:@/?#]*:\{password\}@(?!.*\{password\}).*")
