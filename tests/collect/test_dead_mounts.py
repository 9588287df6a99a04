"""Folders on file systems that do not answer, and output folders without room."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.collect.test_frozen import COLLECTS, LONGEST

from hoodsnap.bundle import load

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and FUSE"
)

MOUNTS = Path(__file__).with_name("dead_mounts.py")
NOWHERE = "qemu+unix:///system?socket=/nonexistent"


def collect(
    mounts: list[str], output: Path, **environment: str
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Collect a host with these mounts, of which no cloud and no libvirt is asked."""
    command = [sys.executable, str(MOUNTS), *mounts, "--", sys.executable, "-c", COLLECTS]
    start = time.monotonic()
    done = subprocess.run(
        [*command, "--libvirt-uri", NOWHERE, "-o", str(output)],
        capture_output=True,
        text=True,
        env=os.environ | {"OS_CLOUD": "", "OS_AUTH_URL": ""} | environment,
        timeout=150,
    )
    return done, time.monotonic() - start


def test_a_dead_file_system_costs_only_its_own_answers(tmp_path: Path) -> None:
    """The second folder is searched for every program."""
    dead = ["/opt/stack/data/nova/instances", "/usr/local/sbin"]
    output = tmp_path / "b.json"

    done, took = collect(dead, output)

    assert took < LONGEST, done.stderr
    assert done.returncode == 4, done.stderr
    bundle = load(output)
    (alone,) = bundle.asked("images", f"stat -L {dead[0]}")
    assert alone.error is not None
    assert alone.error.kind == "timeout"
    assert {"host", "kernel"} <= {answer.layer for answer in bundle.answers if not answer.error}


def test_a_bundle_whose_disk_is_full_is_written_elsewhere(tmp_path: Path) -> None:
    small, other = tmp_path / "small", tmp_path / "other"
    small.mkdir()
    other.mkdir()

    done, _ = collect([f"{small}="], small / "b.json", TMPDIR=str(other))

    assert done.returncode == 5, done.stderr
    (written,) = other.iterdir()
    assert f"hoodsnap: wrote {written} instead (" in done.stderr
    assert f"{small}/b.json can't be written: No space left on device" in done.stderr
    assert written.stat().st_mode & 0o777 == 0o600
    assert load(written).answers


def test_an_output_folder_that_does_not_answer_is_refused_at_once(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()

    done, took = collect([str(dead)], dead / "b.json")

    assert took < LONGEST
    assert done.returncode == 3, done.stderr
    assert "its file system did not answer within 10 s" in done.stderr
