"""The line about a host's daemons."""

from __future__ import annotations

import json

from tests.command import hoodsnap
from tests.conftest import DAEMONS, FAULTS, HEALTHY, RecordedHost
from tests.daemons import alter, end, listed, systemd

from hoodsnap.render import markdown
from hoodsnap.render.host import daemons_line, troubled_daemons
from hoodsnap.render.text import render


def line(host: RecordedHost) -> str | None:
    [captured] = host.report().cloud.hosts
    return daemons_line(captured)


def troubled(host: RecordedHost) -> str | None:
    report = host.report()
    [captured] = report.cloud.hosts
    return troubled_daemons(report, captured)


def heading(host: RecordedHost, *, verbose: bool = False) -> list[tuple[str, str]]:
    """Return the text and the style of the lines about daemons."""
    report = host.report()
    lines = render(report, report.cloud.guests, width=1000, verbose=verbose)
    told = [parts for parts in lines if parts.plain.startswith("daemons:")]
    return [(parts.plain, parts.parts[0][1]) for parts in told]


def test_running_daemons_are_listed_by_name(served: RecordedHost) -> None:
    said = line(served)

    assert said is not None
    assert said.startswith("cinder-volume (2), libvirtd, ")
    assert ", nova-compute, " in said
    assert said.endswith(" run")


def test_a_daemon_that_does_nothing_does_not_run(served: RecordedHost) -> None:
    alter(served, "nova-compute", state="T")

    assert "nova-compute" not in (line(served) or "nova-compute")
    assert troubled(served) == "nova-compute is stopped by a signal (state T)"


def test_a_daemon_that_nova_expects_is_missing(served: RecordedHost) -> None:
    end(served, "nova-compute")

    assert troubled(served) == "nova-compute is not running"


def test_a_daemon_that_nobody_expects_is_not_missed(served: RecordedHost) -> None:
    end(served, "virtlogd")

    assert troubled(served) is None


def test_a_daemon_whose_unit_failed_is_missing(served: RecordedHost) -> None:
    end(served, "nova-compute")
    systemd(
        served, "nova-compute.service loaded failed failed\niscsid.service loaded failed failed"
    )

    assert troubled(served) == "nova-compute is not running; iscsid is not running"


def test_the_report_shows_only_daemons_that_do_not_work(served: RecordedHost) -> None:
    assert heading(served) == []

    alter(served, "libvirtd", state="T")
    assert heading(served) == [("daemons: libvirtd is stopped by a signal (state T)", "yellow")]


def test_a_verbose_report_shows_the_daemons_that_run(served: RecordedHost) -> None:
    assert heading(served, verbose=True) == [(f"daemons: {line(served)}", "dim")]


def test_an_issue_shows_the_daemons_that_run(served: RecordedHost) -> None:
    report = served.report()

    assert f"\ndaemons of vm: {line(served)}\n" in markdown.render(report, report.cloud.guests)


def test_without_daemons_there_is_no_line(host: RecordedHost) -> None:
    assert line(host) is None


def test_a_name_can_not_control_a_terminal(served: RecordedHost) -> None:
    listed(served, lambda rows: [rows[0] | {"name": "\x1b[2J"}])

    assert (line(served) or "\x1b").isprintable()


def test_the_document_has_the_daemons() -> None:
    shown = {
        path: json.loads(hoodsnap("explain", path, "--format", "json").stdout)["hosts"][0]
        for path in (HEALTHY, DAEMONS, FAULTS / "compute-frozen.json.zst")
    }

    assert shown[HEALTHY]["daemons"] is None
    assert set(shown[DAEMONS]["daemons"].values()) == {"running"}
    frozen = shown[FAULTS / "compute-frozen.json.zst"]["daemons"]
    assert frozen["nova-compute"] == "stopped by a signal (state T)"
