"""The line about a host's daemons."""

from __future__ import annotations

import json

from tests.command import hoodsnap
from tests.conftest import DAEMONS, FAULTS, HEALTHY, RecordedHost
from tests.daemons import alter, listed

from hoodsnap.render.host import daemons_line


def line(host: RecordedHost) -> str | None:
    [captured] = host.report().cloud.hosts
    return daemons_line(captured)


def test_running_daemons_are_listed_by_name(served: RecordedHost) -> None:
    said = line(served)

    assert said is not None
    assert said.startswith("running: cinder-volume (2), libvirtd, ")
    assert ", nova-compute, " in said


def test_a_daemon_that_does_nothing_comes_first(served: RecordedHost) -> None:
    alter(served, "nova-compute", state="T")

    said = line(served) or ""
    assert said.startswith("nova-compute is stopped by a signal (state T); running: ")
    assert said.count("nova-compute") == 1


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
