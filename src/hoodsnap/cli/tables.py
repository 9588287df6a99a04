"""hoodsnap list prints a table of bundles; hoodsnap query answers a question about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.cli.bundles import Bundles, merged, speaks
from hoodsnap.cli.explain import ServerOption, chosen
from hoodsnap.cli.terminal import give_up, put_document, say, width_of_terminal
from hoodsnap.exit_status import USAGE

if TYPE_CHECKING:
    from hoodsnap.findings.analysis import Report
    from hoodsnap.tables.table import Table


class TableFormat(StrEnum):
    """Format of a table."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


TableFormatOption = Annotated[
    TableFormat, typer.Option("--format", "-f", help="Format of the table.")
]

SomeBundles = Annotated[
    list[Path] | None,
    typer.Argument(help="Bundles, or folders of bundles.", metavar="BUNDLE", readable=False),
]


_SQL = re.compile(r"\s*(select|with|from|describe|show|summarize|pivot)\b", re.IGNORECASE)


def list_(
    table: Annotated[
        str, typer.Argument(help="Table to print, or help for a list of tables.", metavar="TABLE")
    ],
    bundles: SomeBundles = None,
    server: ServerOption = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns", "-c", help="Print only these columns, in this order. Repeatable."
        ),
    ] = None,
    format: TableFormatOption = TableFormat.TABLE,
) -> None:
    """Print a table of servers, domains, processes, disks, ports, volumes, findings or hosts."""
    from hoodsnap.tables.table import NOT_COLLECTED, TABLES, silent

    if table == "help":
        put_document("".join(f"{one.name:<14} {one.help}\n" for one in TABLES.values()))
        return
    found = _named(table)
    if not bundles:
        give_up(f"no bundle given: hoodsnap list {table} BUNDLE", USAGE)
    wanted = [part for given in columns or () for part in given.split(",") if part]
    known = [one.name for one in found.columns]
    for name in wanted:
        if name not in known:
            give_up(f"{table} has no column {name}; its columns are: {', '.join(known)}", USAGE)
    report = _report(bundles)
    rows = [*found.rows(report)]
    if server:
        ids = {guest.uuid for guest in chosen(report, tuple(server))}
        rows = [row for row in rows if row.get("server_id") in ids]
    for reason in silent(found, report)[:5]:
        say(f"rows may be missing: {reason}")
    shown = wanted or [
        name for name in known if name != NOT_COLLECTED or format is not TableFormat.TABLE
    ]
    marked = [[_marked(row, name, format) for name in shown] for row in rows]
    _print(shown, marked, format)


def query(
    question: Annotated[
        str, typer.Argument(help="JMESPath expression or SQL statement.", metavar="QUESTION")
    ],
    bundles: Bundles,
    format: TableFormatOption = TableFormat.TABLE,
) -> None:
    """Answer a question about bundles in JMESPath or SQL, over the tables of hoodsnap list.

    A question that begins with SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or PIVOT is SQL, of
    DuckDB's dialect. Any other question is JMESPath.
    """
    from hoodsnap.render.table import tabular

    if _SQL.match(question):
        import duckdb  # noqa: F401 (a missing package is reported before the bundles are read)

        columns, rows = _by_sql(question, _report(bundles))
        _print(columns, rows, format)
        return
    import jmespath  # noqa: F401

    value = _by_path(question, _report(bundles))
    if format is TableFormat.JSON:
        import json

        put_document(json.dumps(value, indent=1) + "\n")
    else:
        _print(*tabular(value), format)


def _by_sql(statement: str, report: Report) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    from hoodsnap.tables import sql
    from hoodsnap.tables.table import TABLES, silent

    words = set(re.findall(r"\w+", statement.lower()))
    for table in TABLES.values():
        if table.name in words:
            for reason in silent(table, report)[:5]:
                say(f"rows of {table.name} may be missing: {reason}")
    try:
        answered = sql.query(statement, report)
        return answered.columns, [*answered.rows]
    except sql.SqlError as reason:
        give_up(f"the statement can't be run: {reason}", USAGE)


def _by_path(expression: str, report: Report) -> object:
    from hoodsnap.grading.expression import ExpressionError
    from hoodsnap.tables import path

    try:
        found = path.query(expression, report)
    except ExpressionError as reason:
        give_up(f"the expression can't be evaluated: {reason}", USAGE)
    if found.unknown:
        many = "value was" if found.unknown == 1 else "values were"
        say(f"{found.unknown} {many} not collected: null in the answer")
    return found.value


def _named(name: str) -> Table:
    from difflib import get_close_matches

    from hoodsnap.tables.table import TABLES

    if name in TABLES:
        return TABLES[name]
    near = get_close_matches(name, TABLES, 1)
    hint = f"did you mean {near[0]}?" if near else f"the tables are: {', '.join(TABLES)}"
    return give_up(f"there is no table {name}; {hint}", USAGE)


def _report(bundles: Sequence[Path]) -> Report:
    from hoodsnap.findings.analysis import analyze

    bundle = merged(bundles)
    if not speaks(bundle):
        give_up("no layer answered when this bundle was collected")
    return analyze(bundle)


def _marked(row: object, name: str, format: TableFormat) -> object:
    from hoodsnap.render.table import UNKNOWN
    from hoodsnap.tables.table import NOT_COLLECTED

    assert isinstance(row, dict)  # noqa: S101 (see Table.rows)
    if name in row[NOT_COLLECTED] and format is not TableFormat.JSON:
        return UNKNOWN
    return row[name]


def _print(columns: Sequence[str], rows: Iterable[Sequence[object]], format: TableFormat) -> None:
    from hoodsnap.render import table

    if format is TableFormat.JSON:
        put_document(table.as_json(columns, rows))
    elif format is TableFormat.CSV:
        put_document(table.as_csv(columns, rows))
    else:
        widest = table.WIDEST if width_of_terminal() else None
        put_document("".join(f"{line}\n" for line in table.as_table(columns, rows, widest)))
