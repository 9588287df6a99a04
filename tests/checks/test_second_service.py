"""More than one nova-compute on one host."""

from __future__ import annotations

from tests.conftest import RecordedHost, changes

from hoodsnap.facts.host.daemon import CENSUS


def _second(host: RecordedHost, **fields: object) -> int:
    """Add a second nova-compute to the list of daemons; return its PID."""
    rows = host.last("daemons", CENSUS).value
    first = next(row for row in rows if row["name"] == "nova-compute")
    other = first | {"pid": first["pid"] + 1, "started": first["started"] + 500} | fields
    host.set("daemons", CENSUS, [*rows, other])
    return int(other["pid"])


def test_nova_compute_twice(served: RecordedHost) -> None:
    host = served
    other = _second(host)

    [finding] = host.report().findings
    assert finding.check.name == "nova-compute-twice"
    assert finding.headline is not None
    assert finding.headline.startswith(f"2 nova-compute processes run on vm: {other - 1} since ")
    assert changes(finding) == [f"kill {other}", "systemctl restart nova-compute"]


def test_the_process_outside_of_a_unit_is_to_end(served: RecordedHost) -> None:
    host = served
    other = _second(host, unit="nova-compute.service")

    [finding] = host.report().findings
    assert changes(finding)[0] == f"kill {other - 1}"


def test_a_process_that_may_be_another_program_is_not_counted(served: RecordedHost) -> None:
    host = served
    _second(host, doubt="its executable is sleep")

    assert host.findings() == []
