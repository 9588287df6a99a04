"""The tables: every fact has its row, and what is unknown is marked."""

from __future__ import annotations

import json

import pytest
from tests.conftest import FAULTS, RecordedHost, healthy_report
from tests.daemons import alter

from hoodsnap.bundle import load
from hoodsnap.facts.cloud.guest import NOUNS
from hoodsnap.findings.analysis import analyze
from hoodsnap.tables.table import NAMES, NOT_COLLECTED, TABLES, plain, silent


def _names(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


@pytest.mark.parametrize("name", TABLES)
def test_a_row_has_each_column_and_values_of_its_type(name: str) -> None:
    table = TABLES[name]
    for row in table.rows(healthy_report()):
        assert [*row] == [column.name for column in table.columns]
        for column in table.columns:
            value = row[column.name]
            if value is not None and column.type is not None:
                assert type(value) is column.type, (column.name, value)
            if column.type is None:
                assert value is None or isinstance(value, list | dict), (column.name, value)


@pytest.mark.parametrize("name", TABLES)
def test_a_column_is_named_once_and_explained(name: str) -> None:
    columns = TABLES[name].columns

    assert len({column.name for column in columns}) == len(columns)
    assert all(column.help.endswith((".", "…")) for column in columns)


def test_every_noun_with_documented_fields_has_a_table() -> None:
    nouns = {name for name, noun in NOUNS.items() if noun.fact.documented}

    assert nouns == NAMES.keys()
    assert set(NAMES.values()) <= TABLES.keys()


def test_the_tables_have_what_the_layers_listed() -> None:
    report = healthy_report()
    guests = report.cloud.guests
    counts = {name: len([*table.rows(report)]) for name, table in TABLES.items()}

    assert counts["servers"] == len(guests)
    assert counts["domains"] == sum(guest.domain is not None for guest in guests)
    assert counts["processes"] == sum(guest.process is not None for guest in guests)
    running = [guest.domain for guest in guests if guest.domain and guest.domain.id is not None]
    assert counts["disks"] == sum(len(domain.disks) for domain in running)
    assert counts["ports"] == sum(len(guest.ports or ()) for guest in guests)
    assert counts["findings"] == 0
    assert counts["hosts"] == 1


def test_a_server_is_a_row_with_its_worst_finding() -> None:
    report = analyze(load(FAULTS / "virsh-destroy.json.zst"))
    [row] = [row for row in TABLES["servers"].rows(report) if row["finding"]]

    assert row["server"] == "vm-plain"
    assert (row["vm_state"], row["domain_state"]) == ("active", "shut off (destroyed)")
    assert (row["severity"], row["finding"], row["pid"]) == ("error", "active-but-domain-off", None)
    assert row[NOT_COLLECTED] == []


def test_what_was_not_collected_is_not_absent(host: RecordedHost) -> None:
    host.silence("libvirt", "denied")
    report = host.report()
    [row] = [row for row in TABLES["servers"].rows(report) if row["server"] == "vm-plain"]

    assert row["domain"] is None
    assert row[NOT_COLLECTED] == ["domain", "domain_state"]
    domains = [*TABLES["domains"].rows(report)]
    assert len(domains) > 10
    for row in domains:
        assert {key for key, value in row.items() if value is None} == {*_names(row[NOT_COLLECTED])}


def test_rows_that_may_be_missing_are_explained(host: RecordedHost) -> None:
    host.drop(lambda answer: answer.layer != "libvirt")
    report = host.report()

    assert [*TABLES["domains"].rows(report)] == []
    assert len(silent(TABLES["domains"], report)) == 1
    assert silent(TABLES["ports"], report) == []


def test_a_list_that_cannot_be_read_is_explained() -> None:
    """The definition of a domain that is off is not the one that `disks` shows."""
    assert silent(TABLES["disks"], healthy_report()) == ["virsh dumpxml was not collected"]


def test_a_server_that_is_on_no_host_misses_nothing() -> None:
    assert silent(TABLES["domains"], healthy_report()) == []


def test_findings_that_another_explains_are_rows_too() -> None:
    report = analyze(load(FAULTS / "instances-hidden.json.zst"))
    rows = [*TABLES["findings"].rows(report)]

    assert len(rows) == len([*report.everything()])
    assert {row["explained_by"] for row in rows} != {None}


def test_every_process_of_a_daemon_is_a_row(served: RecordedHost) -> None:
    alter(served, "nova-compute", state="T")
    rows = {row["name"]: row for row in TABLES["daemons"].rows(served.report())}

    assert rows["libvirtd"]["condition"] == "running"
    assert str(rows["libvirtd"]["started_at"]).startswith("2026-11-30 08:38:25")
    assert rows["nova-compute"]["condition"] == "stopped by a signal (state T)"
    assert all(row["host"] == "vm" and row[NOT_COLLECTED] == [] for row in rows.values())


def test_daemons_that_were_not_collected_are_explained() -> None:
    assert [*TABLES["daemons"].rows(healthy_report())] == []
    reasons = silent(TABLES["daemons"], healthy_report())
    assert reasons == ["the host's daemons were not collected"]


def test_the_rows_of_daemons_have_the_types_of_their_columns(served: RecordedHost) -> None:
    columns = TABLES["daemons"].columns
    for row in TABLES["daemons"].rows(served.report()):
        assert [*row] == [column.name for column in columns]
        for column in columns:
            if column.type is not None and row[column.name] is not None:
                assert type(row[column.name]) is column.type


def test_rows_are_plain_json() -> None:
    for table in TABLES.values():
        rows = [*table.rows(healthy_report())]
        assert json.loads(json.dumps(rows)) == rows


def test_a_set_has_an_order() -> None:
    assert plain({"a": frozenset(["c", "b"]), "d": (1, None)}) == {"a": ["b", "c"], "d": [1, None]}
