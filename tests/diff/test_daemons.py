"""Changes of a host's daemons between two bundles."""

from __future__ import annotations

from tests.conftest import DAEMONS, FAULTS, RecordedHost, healthy_report
from tests.daemons import alter, end, systemd

from hoodsnap.bundle import load
from hoodsnap.diff.difference import Difference, difference
from hoodsnap.findings.analysis import analyze


def since(host: RecordedHost) -> Difference:
    return difference(analyze(load(DAEMONS)), host.report())


def changes(found: Difference) -> list[str]:
    return [f"{c.field}: {c.before} → {c.after}" for host in found.hosts for c in host.changes]


def test_a_daemon_that_ended_and_one_that_froze(served: RecordedHost) -> None:
    end(served, "nova-compute")
    alter(served, "libvirtd", state="T")

    assert sorted(changes(since(served))) == [
        "daemons[libvirtd]: running → stopped by a signal (state T)",
        "daemons[nova-compute]: running → not running",
    ]


def test_a_restart_is_one_change_with_the_time_of_the_new_start(served: RecordedHost) -> None:
    alter(served, "nova-compute", pid=30000, started=262_400)

    [host] = since(served).hosts
    [change] = host.changes
    assert (change.layers, change.field) == (("daemons",), "daemons[nova-compute].restarted")
    assert (change.before, change.after) == ("pid 8673", "pid 30000")
    btime = served.last("kernel", "grep btime /proc/stat").value
    assert change.at is not None
    assert change.at.timestamp() == int(str(btime).split()[-1]) + 2624


def test_a_recorded_restart_has_the_pid_of_the_daemon_not_of_its_workers() -> None:
    before, after = DAEMONS, FAULTS / "dhcp-agent-down.json.zst"
    found = difference(analyze(load(before)), analyze(load(after)))

    told = changes(found)
    assert "daemons[nova-compute].restarted: pid 8673 → pid 28228" in told
    assert "daemons[neutron-dhcp-agent]: running → not running" in told
    assert sum("nova-compute" in one for one in told) == 1


def test_a_daemon_that_is_seen_in_one_of_two_looks_runs(served: RecordedHost) -> None:
    end(served, "nova-compute", looks=1)

    assert changes(since(served)) == []


def test_a_collector_that_may_not_see_all_daemons_proves_no_end(served: RecordedHost) -> None:
    end(served, "nova-compute")
    served.set("host", "id", "uid=1000(zuul) gid=1000(zuul)")

    assert not any("nova-compute" in one for one in changes(since(served)))


def test_a_daemon_that_its_socket_starts_comes_and_goes(served: RecordedHost) -> None:
    systemd(served, "virtlogd.socket loaded active listening\n")
    before = served.report()
    end(served, "virtlogd")

    assert changes(difference(before, served.report())) == []


def test_a_unit_that_failed_and_one_that_is_not_enabled_any_more(served: RecordedHost) -> None:
    units = "nova-compute.service loaded {}\niscsid.service loaded active running\n"
    files = "nova-compute.service enabled -\niscsid.service {} -\n"
    systemd(served, units.format("active running"), files.format("enabled"))
    before = served.report()
    shown = [{"Id": "nova-compute.service", "Result": "oom-kill"}]
    systemd(served, units.format("failed failed"), files.format("disabled"), shown)

    assert changes(difference(before, served.report())) == [
        "units[nova-compute.service].active: active → failed (oom-kill)",
        "units[iscsid.service].file: enabled → disabled",
    ]


def test_a_bundle_without_daemons_is_not_compared(served: RecordedHost) -> None:
    served.drop(lambda answer: answer.layer != "daemons")

    found = since(served)

    assert not found.counts
    assert ("daemons", "the host's daemons were not collected", "after") in {
        (gap.layer, gap.reason, gap.side) for gap in found.gaps
    }


def test_two_bundles_without_daemons_have_no_gap() -> None:
    assert difference(healthy_report(), healthy_report()).gaps == ()
