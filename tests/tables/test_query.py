"""Questions in SQL and JMESPath over the tables."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import FAULTS, HEALTHY, RecordedHost, healthy_report

from hoodsnap.bundle import load
from hoodsnap.findings.analysis import analyze
from hoodsnap.grading.expression import ExpressionError
from hoodsnap.tables import path, sql
from hoodsnap.tables.table import NOT_COLLECTED, TABLES, TableColumn

DESTROYED = FAULTS / "virsh-destroy.json.zst"


def asked(statement: str) -> list[tuple[object, ...]]:
    return [*sql.query(statement, healthy_report()).rows]


@pytest.mark.parametrize("name", TABLES)
def test_sql_has_every_table_with_every_row(name: str) -> None:
    rows = [*TABLES[name].rows(healthy_report())]
    answered = sql.query(f"SELECT * FROM {name}", healthy_report())
    found = [*answered.rows]

    assert list(answered.columns) == [column.name for column in TABLES[name].columns]
    assert [dict(zip(answered.columns, row, strict=True)) for row in found] == rows


def test_sql_joins_layers() -> None:
    rows = asked(
        "SELECT server FROM domains JOIN processes USING (server_id, server)"
        " WHERE domains.memory_kib <> processes.memory_kib"
    )
    pairs = asked("SELECT count(*) FROM domains JOIN processes USING (server_id)")

    assert rows == []
    assert pairs == [(len([*TABLES["processes"].rows(healthy_report())]),)]


def test_sql_reads_lists_as_json() -> None:
    [row] = asked("SELECT macs->>0 FROM domains WHERE server = 'vm-plain'")

    assert str(row[0]).startswith("fa:16:3e:")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT 1; COPY servers TO '{folder}/x.csv'",
        "SELECT 1; ATTACH '{folder}/x.db'",
        "SELECT 1; SET enable_external_access = true",
        "SELECT 1; INSTALL httpfs",
        "SELECT 1; LOAD httpfs",
        "SELECT * FROM '/etc/passwd'",
        "FROM sniff_csv('/etc/passwd')",
    ],
)
def test_sql_reaches_no_file(statement: str, tmp_path: Path) -> None:
    with pytest.raises(sql.SqlError):
        asked(statement.format(folder=tmp_path))
    assert [*tmp_path.iterdir()] == []


def test_sql_says_what_is_wrong_in_one_line() -> None:
    with pytest.raises(sql.SqlError, match=r"nosuch") as caught:
        asked("SELECT nosuch FROM servers")
    assert "\n" not in str(caught.value)


def test_jmespath_reads_the_same_tables() -> None:
    report = healthy_report()
    found = path.query("servers[?pid].{name: server, pid: pid}", report)
    rows = [row for row in TABLES["servers"].rows(report) if row["pid"]]

    assert found.value == [{"name": row["server"], "pid": row["pid"]} for row in rows]
    assert found.unknown == 0


def test_jmespath_counts_what_was_not_collected(host: RecordedHost) -> None:
    host.silence("libvirt", "denied")
    report = host.report()
    found = path.query("servers[].domain_state", report)

    assert found.value == []
    assert found.unknown == len([row for row in TABLES["servers"].rows(report) if row["host"]])


def test_jmespath_names_an_unknown_field() -> None:
    with pytest.raises(ExpressionError, match="vm_stat"):
        path.query("servers[].vm_stat", healthy_report())


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_both_languages_give_the_same_answer(format: str) -> None:
    by_sql = hoodsnap(
        "query", "SELECT server, pid FROM servers WHERE pid > 0", DESTROYED, "-f", format
    )
    by_path = hoodsnap("query", "servers[?pid].{server: server, pid: pid}", DESTROYED, "-f", format)

    assert by_sql.returncode == by_path.returncode == 0
    assert by_sql.stdout == by_path.stdout
    assert b"vm-bfv" in by_sql.stdout


def test_the_list_has_the_columns_that_were_asked_for() -> None:
    done = hoodsnap("list", "servers", DESTROYED, "-s", "vm-plain", "-c", "server,finding")

    assert done.stdout.decode().split() == [
        "server",
        "finding",
        "vm-plain",
        "active-but-domain-off",
    ]


def test_an_unknown_value_is_marked_in_the_list(host: RecordedHost, tmp_path: Path) -> None:
    from hoodsnap.bundle import save

    host.drop(lambda answer: answer.layer != "libvirt")
    save(host.bundle, tmp_path / "b.json")
    columns = ("-c", "server,domain", "-s", "vm-plain")
    done = hoodsnap("list", "servers", tmp_path / "b.json", *columns, "-f", "csv")
    missing = hoodsnap("list", "domains", tmp_path / "b.json")

    assert done.stdout.decode().splitlines()[1] == "vm-plain,?"
    assert b"rows may be missing: libvirt" in missing.stderr
    assert missing.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "domain", DESTROYED), "did you mean domains?"),
        (("list", "servers"), "no bundle given"),
        (("list", "servers", DESTROYED, "-c", "nme"), "servers has no column nme"),
        (("query", "servers[", DESTROYED), "the expression can't be evaluated"),
        (("query", "SELECT * FROM nosuch", DESTROYED), "the statement can't be run"),
    ],
)
def test_a_wrong_question_is_a_usage_error(arguments: tuple[object, ...], said: str) -> None:
    done = hoodsnap(*arguments)

    assert done.returncode == 2
    assert said in done.stderr.decode()


def test_a_name_is_no_formula_and_no_escape(host: RecordedHost, tmp_path: Path) -> None:
    from hoodsnap.bundle import save

    host.row("instances", host.uuid("vm-plain"), display_name="=HYPERLINK(1)\x1b[31m")
    save(host.bundle, tmp_path / "b.json")
    done = hoodsnap("list", "servers", tmp_path / "b.json", "-f", "csv", "-c", "server")
    found = hoodsnap("query", "SELECT server FROM servers", tmp_path / "b.json", "-f", "json")

    assert "'=HYPERLINK(1)" in done.stdout.decode()
    assert b"\x1b" not in done.stdout + found.stdout
    assert "=HYPERLINK(1)\x1b[31m" in [row["server"] for row in json.loads(found.stdout)]


def test_the_healthy_report_is_not_changed_by_questions() -> None:
    report = analyze(load(DESTROYED))
    before = len(report.findings)
    [*sql.query("SELECT * FROM findings", report).rows]

    assert len(report.findings) == before


def test_ctrl_c_ends_a_long_statement_as_any_command() -> None:
    endless = "SELECT count(*) FROM range(100000000000) a, range(100000) b"
    command = [sys.executable, "-m", "hoodsnap", "query", endless, str(HEALTHY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        time.sleep(4)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)

    assert running.returncode == 130
    assert b"defect" not in said


def test_a_number_that_sql_cannot_hold_is_not_absent() -> None:
    columns = (TableColumn("pid", "Process id.", int), TableColumn(NOT_COLLECTED, "Names."))
    row = sql._row({"pid": 1 << 70, NOT_COLLECTED: []}, columns)

    assert row == {"pid": None, NOT_COLLECTED: ["pid"]}
