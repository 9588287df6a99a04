"""Records of nova's services on other hosts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer, Failure

OLD = "88888888-0000-4000-8000-000000000000"
LONG_AGO = "2023-06-01 10:00:00"


def _services(host: RecordedHost) -> Answer:
    asked = host.bundle.asked("nova-db", "SELECT ")
    [found] = [it for it in asked if it.query.partition(" WHERE ")[0].endswith(".services")]
    return found


def _add(
    host: RecordedHost,
    binary: str = "nova-compute",
    *,
    cells: Mapping[str, object] | None = None,
    **more: object,
) -> None:
    """Add the record of a service on another host, like the one on the collected host."""
    found = _services(host)
    columns = found.value["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in found.value["rows"]]
    like = next(row for row in rows if row["binary"] == binary)
    added = like | {"id": 99, "uuid": OLD, "host": "old", "last_seen_up": LONG_AGO} | more
    added |= cells or {}
    value = {"columns": columns, "rows": [[*row.values()] for row in (*rows, added)]}
    host.set("nova-db", found.query, value)


def _days_ago(host: RecordedHost, days: float) -> str:
    return f"{_services(host).at - timedelta(days=days):%Y-%m-%d %H:%M:%S}"


def test_compute_record_too_old(host: RecordedHost) -> None:
    _add(host, version=60)

    assert host.findings() == [
        "compute-record-too-old: service reports host = old, version = 60, oldest_supported = 61;"
        " nova-compute reports version = 26.2.2"
    ]
    [headline] = host.headlines()
    assert headline.startswith("nova-compute on old, which has not reported since 2023-06-01 10:00")
    assert headline.endswith("), has service version 60, but Zed needs 61 to start")
    found = host.found("compute-record-too-old")
    assert found.severity.word == "warning"
    assert changes(found) == [
        f"openstack --os-compute-api-version 2.53 compute service delete {OLD}"
    ]


def test_an_old_nova_compute_that_reports_is_not_to_be_deleted(host: RecordedHost) -> None:
    _add(host, version=60, last_seen_up=_days_ago(host, 0))

    assert host.headlines() == [
        "nova-compute on old has service version 60, but Zed needs 61 to start"
    ]
    assert changes(host.found("compute-record-too-old")) == []


@pytest.mark.parametrize(
    "cells", [{"version": 61}, {"forced_down": 1}, {"deleted": 99}, {"version": 0}]
)
def test_a_record_that_nova_does_not_refuse(host: RecordedHost, cells: dict[str, int]) -> None:
    """The previous release, a host that is forced down, a deleted record, and one that hides all
    others from nova."""
    _add(host, cells={"version": 52, "last_seen_up": _days_ago(host, 30), **cells})

    assert host.findings() == []


def test_services_that_start_anyway(host: RecordedHost) -> None:
    _add(host, version=60, last_seen_up=_days_ago(host, 30))
    host.conf("workarounds", disable_compute_service_check_for_ffu="True")

    assert host.findings() == []


def test_only_the_version_of_nova_compute_is_checked_at_the_start(host: RecordedHost) -> None:
    _add(host, "nova-conductor", version=52, last_seen_up=_days_ago(host, 30))

    assert host.findings() == []


def test_services_that_were_not_collected_prove_nothing(host: RecordedHost) -> None:
    _add(host, version=52)
    found = _services(host)
    said = found.model_dump(exclude={"value", "error"})
    host.drop(lambda answer: answer.query != found.query)
    host.add(Answer(**said, error=Failure(kind="denied", message="SELECT command denied")))

    assert host.findings() == []
    assert "nova database: SELECT command denied" in {it.reason for it in host.report().skips}


@pytest.mark.parametrize("binary", ["nova-compute", "nova-conductor", "nova-scheduler"])
def test_service_record_left(host: RecordedHost, binary: str) -> None:
    _add(host, binary)

    assert host.findings() == [
        f"service-record-left: service reports host = old, last_seen_up = {LONG_AGO}"
    ]
    [headline] = host.headlines()
    assert headline.startswith(f"{binary} on old has not reported since 2023-06-01 10:00 (")
    found = host.found("service-record-left")
    assert found.severity.word == "note"
    assert changes(found) == [
        f"openstack --os-compute-api-version 2.53 compute service delete {OLD}"
    ]


@pytest.mark.parametrize(
    "cells", [{"disabled": 1}, {"forced_down": 1}, {"deleted": 99}, {"last_seen_up": None}]
)
def test_a_service_that_may_rest(host: RecordedHost, cells: dict[str, object]) -> None:
    _add(host, cells=cells)

    assert host.findings() == []


def test_a_host_that_is_repaired_may_be_down_for_weeks(host: RecordedHost) -> None:
    _add(host, last_seen_up=_days_ago(host, 80))

    assert host.findings() == []


def test_services_that_report_to_memcached_have_old_rows(host: RecordedHost) -> None:
    _add(host)
    host.conf("DEFAULT", servicegroup_driver="mc")

    assert host.findings() == []


def test_services_without_reports_are_not_left_behind(host: RecordedHost) -> None:
    _add(host, "nova-osapi_compute")

    assert host.findings() == []
