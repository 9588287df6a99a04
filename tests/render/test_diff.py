"""The difference of two bundles as text and as JSON."""

from __future__ import annotations

import json

import pytest
from tests.conftest import FAULTS, MONITORS, RecordedHost, healthy_report

from hoodsnap.bundle import load
from hoodsnap.diff.difference import Difference, difference
from hoodsnap.findings.analysis import analyze
from hoodsnap.render.diff import as_json, render


def text(found: Difference, width: int | None = None) -> list[str]:
    return [line.plain.rstrip() for line in render(found, width=width)]


def destroyed(host: RecordedHost, *names: str) -> Difference:
    for name in names:
        host.end(name)
        query = f"virsh domstate --reason {host.domain(name)}"
        host.set("libvirt", query, {"state": 5, "reason": 2})
    return difference(healthy_report(), host.report())


def test_a_change_has_its_server_its_layer_and_both_values(host: RecordedHost) -> None:
    found = text(destroyed(host, "vm-plain"))

    assert "vm-plain  libvirt  running → shut off (destroyed)" in found
    assert f"          kernel   - process: pid {host.pid('vm-plain')}" in found
    [finding] = [line for line in found if "finding" in line and "·" not in line]
    assert finding.startswith("          finding  + active-but-domain-off (error): ")
    assert found[-1] == "1 server changed, 15 as before · 1 new finding, 0 gone"


def test_nothing_changed() -> None:
    found = text(difference(healthy_report(), analyze(load(MONITORS))))

    assert found[0] == "before  2026-11-25 18:36:33 UTC, vm, 688 answers"
    assert found[-1] == "0 servers changed, 16 as before · 0 new findings, 0 gone"
    assert found[-2] == (
        "not compared, not collected before: QEMU's monitor was not collected (use collect --qmp)"
    )


def test_a_change_of_many_servers_is_one_line(host: RecordedHost) -> None:
    names = ["vm-plain", "vm-bfv", "vm-data", "vm-duo", "vm-config", "vm-tenant"]

    found = text(destroyed(host, *names))

    [line] = [line for line in found if "running → shut off (destroyed)" in line]
    assert line.startswith("6 servers")
    assert line.endswith("(vm-bfv, vm-config, vm-data and 3 more)")


def test_the_order_of_two_bundles_is_remarked() -> None:
    before, after = (
        analyze(load(FAULTS / f"{name}.json.zst")) for name in ("disk-closed", "autostart")
    )

    found = text(difference(before, after))

    assert found[2] == "note: the first bundle was collected later than the second"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_lines_fit(host: RecordedHost, width: int) -> None:
    host.conf("DEFAULT", allocation_ratio="9 " * 200)

    found = text(destroyed(host, "vm-plain"), width)

    assert max(map(len, found)) <= width


def test_hostile_text_stays_in_its_line(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name="a\x1b[31m\nb")
    host.server(host.uuid("vm-plain"), name="a\x1b[31m\nb", status="x\u202e\ny")

    lines = text(difference(healthy_report(), host.report()))

    assert [line for line in lines if line.startswith("a�[31m�b")]
    assert not [char for char in "".join(lines) if not char.isprintable()]


def test_json_has_every_change(host: RecordedHost) -> None:
    document = json.loads(as_json(destroyed(host, "vm-plain")))

    assert (document["format"], document["changed"], document["same_servers"]) == (1, True, 15)
    [server] = document["servers"]
    assert (server["uuid"], server["fate"]) == (host.uuid("vm-plain"), "changed")
    assert {
        "layers": ["libvirt"],
        "field": "state_words",
        "before": "running",
        "after": "shut off (destroyed)",
        "at": None,
    } in server["changes"]
    [finding] = server["findings"]
    assert (finding["check"], finding["is"]) == ("active-but-domain-off", "new")


def test_an_endless_name_does_not_take_hours_to_wrap(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name="x" * 3_000_000)
    found = destroyed(host, "vm-plain")

    # Broken at the width, it would take hours.
    assert sum("xxx" in line for line in text(found, width=80)) < 200
