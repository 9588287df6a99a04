"""Folders and patterns of bundles, for every command that takes bundles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import FAULTS

TWO_HOSTS = FAULTS.parent / "two-hosts"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as a run over two hosts leaves it, with another file beside the bundles."""
    folder = tmp_path / "a run"
    (folder / "second").mkdir(parents=True)
    shutil.copy(TWO_HOSTS / "split-brain.first.json.zst", folder)
    shutil.copy(TWO_HOSTS / "split-brain.second.json.zst", folder / "second")
    (folder / "report.json").write_text('{"format": 3}')
    (folder / ".hidden.json").write_text("{}")
    return folder


@pytest.mark.parametrize("command", [("check",), ("explain",), ("list", "hosts")])
def test_a_folder_stands_for_its_bundles(command: tuple[str, ...], run: Path) -> None:
    whole = hoodsnap(*command, run)
    named = hoodsnap(*command, *sorted(TWO_HOSTS.glob("split-brain.*")))

    assert whole.stdout == named.stdout
    assert whole.returncode == named.returncode
    assert b"report.json is left out: " in whole.stderr
    assert b"hidden" not in whole.stderr


def test_a_quoted_pattern_stands_for_the_files_that_it_matches(run: Path) -> None:
    done = hoodsnap("check", run / "*.json.zst", run / "second" / "*")

    assert done.returncode == hoodsnap("check", run).returncode == 1
    assert done.stdout == hoodsnap("check", run).stdout


def test_verify_looks_at_each_bundle_of_a_folder(run: Path) -> None:
    lines = hoodsnap("verify", run).stdout.decode()

    assert "split-brain.first" in lines
    assert "split-brain.second" in lines


@pytest.mark.parametrize("name", ["", "*.json", "no.json"])
def test_a_folder_without_bundles_is_said(name: str, tmp_path: Path) -> None:
    done = hoodsnap("check", tmp_path / name)

    assert done.returncode == 3
    assert done.stdout == b""
    assert len(done.stderr.splitlines()) == 1


def test_two_clouds_whose_hosts_have_one_name_are_refused() -> None:
    healthy = Path("src/hoodsnap/recorded/healthy.json.zst")
    done = hoodsnap("check", healthy, FAULTS / "memory-live.json.zst")

    assert done.returncode == 3
    assert b"two clouds have a host named vm" in done.stderr
    assert b"healthy.json.zst and " in done.stderr


def test_the_name_of_another_file_adds_no_line_to_the_messages(run: Path) -> None:
    (run / "x\nhoodsnap: all is well.json").write_text("{}")

    lines = hoodsnap("check", run).stderr.decode().splitlines()

    assert not [line for line in lines if line.startswith("hoodsnap: all is well")]
    assert [line for line in lines if "all is well" in line]
