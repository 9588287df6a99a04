"""The overview: a row for each guest, the troubled ones first."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.conftest import FAULTS, ROOT, RecordedHost, healthy_report

from hoodsnap.bundle import load, merge
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.render.overview import COLUMNS, OverviewRow, Standing, rows


def _rows(report: Report) -> dict[str, OverviewRow]:
    return {row.guest.name: row for row in rows(report, report.cloud.guests)}


def _of_fault(name: str) -> dict[str, OverviewRow]:
    return _rows(analyze(load(FAULTS / f"{name}.json.zst")))


def _texts(row: OverviewRow) -> list[str]:
    return [row.cells[name].text for name in COLUMNS]


def test_a_healthy_cloud_agrees_but_for_the_resize_that_waits() -> None:
    found = _rows(healthy_report())

    differing = {name: row for name, row in found.items() if row.standing is not Standing.AGREES}
    assert {name: (row.standing, row.verdict) for name, row in differing.items()} == {
        "vm-verify": (Standing.EXPECTED, "a resize is not confirmed yet")
    }
    assert next(iter(found)) == "vm-verify"
    assert _texts(found["vm-plain"])[:2] == ["ACTIVE", "running"]
    assert _texts(found["vm-plain"])[3:] == ["ok", "ok"]
    assert _texts(found["vm-stopped"])[:3] == ["SHUTOFF", "shut off (destroyed)", "–"]


def test_a_server_on_no_host_has_nothing_there() -> None:
    assert _texts(_rows(healthy_report())["vm-error"]) == ["ERROR", "–", "–", "–", "–"]


def test_a_destroyed_domain_shows_both_sides_and_leaves_disk_and_network_alone() -> None:
    first, *others = _of_fault("virsh-destroy").values()

    assert first.guest.name == "vm-plain"
    assert (first.standing, first.verdict) == (Standing.ERROR, "active-but-domain-off")
    assert _texts(first) == ["ACTIVE", "shut off (destroyed)", "–", "ok", "ok"]
    assert {name for name, cell in first.cells.items() if cell.bad} >= {"nova", "libvirt"}
    assert not any(row.findings for row in others)


@pytest.mark.parametrize(
    ("fault", "server", "column", "text"),
    [
        ("base-moved", "vm-snap", "disk", "missing"),
        ("disk-corrupt-bit", "vm-stopped", "disk", "bad"),
        ("tap-renamed", "vm-plain", "network", "bad"),
        ("port-disabled", "vm-snap", "network", "bad"),
    ],
)
def test_a_finding_marks_the_column_that_it_is_about(
    fault: str, server: str, column: str, text: str
) -> None:
    row = _of_fault(fault)[server]

    assert row.cells[column].text == text
    assert row.cells[column].bad
    [other] = {"disk", "network"} - {column}
    assert row.cells[other].text == "ok"


def test_without_nova_no_guest_is_called_healthy() -> None:
    found = rows(report := analyze(load(FAULTS / "db-down.json.zst")), report.cloud.guests)

    assert {(row.standing, row.verdict) for row in found} == {
        (Standing.UNDECIDED, "nova was not collected")
    }
    assert {row.cells["nova"].text for row in found} == {"?"}


def test_an_uncollected_layer_is_unknown_and_not_absent(host: RecordedHost) -> None:
    host.silence("libvirt", "denied")

    texts = {row.cells["libvirt"].text for row in rows(host.report(), host.report().cloud.guests)}
    assert texts == {"?", "–"}
    stopped = _rows(host.report())["vm-stopped"]
    assert stopped.cells["libvirt"].text == "?"


def test_a_guest_that_changed_is_not_decided(host: RecordedHost) -> None:
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    before = host.last("libvirt", query)
    after = before.model_copy(
        update={"value": {"state": 3, "reason": 1}, "at": before.at + timedelta(seconds=9)}
    )
    host.add(after)

    row = _rows(host.report())["vm-plain"]
    assert row.standing is Standing.UNDECIDED
    assert row.verdict.startswith("changed during collection (state ")


def test_a_root_of_the_host_is_the_verdict_of_its_guests() -> None:
    pair = [
        load(ROOT / f"fixtures/two-hosts/split-brain.{which}.json.zst")
        for which in ("first", "second")
    ]
    report = analyze(merge(pair))

    for row in rows(report, report.cloud.guests):
        roots = {one.check.name for one in report.findings if row.guest in one.guests}
        assert not roots or row.verdict.split()[0] in roots
        assert row.host in {"", *(host.name for host in report.cloud.hosts)}


def test_names_of_a_bundle_are_printable(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name="vm\x1b[2J\n\u202ex")

    names = [row.name for row in rows(host.report(), host.report().cloud.guests)]
    assert "vm�[2J��x" in names
