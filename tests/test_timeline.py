"""hoodsnap timeline, run the way a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import FAULTS, HEALTHY


def test_one_server_in_a_pipe_has_a_line_for_each_event() -> None:
    done = hoodsnap("timeline", FAULTS / "virsh-destroy.json.zst", "-s", "vm-plain")

    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    [end] = [line for line in lines if "reason=destroyed" in line]
    assert end.split()[0] == "17:24:35"
    assert not [line for line in lines if "vm-duo" in line]


def test_json_can_be_limited_in_time() -> None:
    done = hoodsnap(
        "timeline", HEALTHY, "-f", "json", "--since", "30s", "--until", "2026-11-25T18:36:33Z"
    )

    times = [event["at"] for event in json.loads(done.stdout)["events"]]
    assert times and min(times) >= "2026-11-25T18:36:06" and max(times) <= "2026-11-25T18:36:33.Z"


def test_a_span_without_events_is_remarked() -> None:
    done = hoodsnap("timeline", HEALTHY, "--until", "2020-01-01")

    assert done.returncode == 0
    assert done.stderr == b"hoodsnap: no event of this time was recorded\n"


@pytest.mark.parametrize("given", ["yesterday", "", "5x", "99999999d", "2026-13-01"])
def test_a_time_that_can_not_be_read_is_wrong_usage(given: str) -> None:
    done = hoodsnap("timeline", HEALTHY, "--since", given)

    assert done.returncode == 2
    assert b"is not a time: write 2026-11-25" in done.stderr


def test_a_server_that_does_not_exist_is_wrong_usage() -> None:
    done = hoodsnap("timeline", HEALTHY, "-s", "nobody")

    assert (done.returncode, done.stdout) == (2, b"")


def test_a_file_that_can_not_be_read_ends_with_3(tmp_path: Path) -> None:
    assert hoodsnap("timeline", tmp_path / "none.json").returncode == 3


@pytest.mark.parametrize("span", ["999999d", "999999h"])
def test_a_span_longer_than_all_of_time_leaves_nothing_out(span: str) -> None:
    done = hoodsnap("timeline", HEALTHY, "--since", span)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == hoodsnap("timeline", HEALTHY).stdout
