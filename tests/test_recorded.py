"""Recordings that ship with hoodsnap, by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hatch_build import _archived
from tests.command import hoodsnap
from tests.conftest import FAULTS, HEALTHY

from hoodsnap import recorded
from hoodsnap.bundle import load, parse


def test_every_recorded_fault_is_listed_and_explained() -> None:
    files = {path.name.removesuffix(".json.zst") for path in FAULTS.glob("*.json.zst")}

    assert recorded.faults().keys() == files
    assert all(recorded.faults().values())


def test_the_names_stand_for_the_files() -> None:
    assert load(Path("@demo")) == load(HEALTHY)
    assert load(Path("@demo/base-moved")) == load(FAULTS / "base-moved.json.zst")


def test_an_installed_wheel_reads_them_from_its_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is made as the build hook makes it, of three faults instead of all."""
    names = ("api-down", "base-moved", "virsh-destroy")
    (tmp_path / "faults.tar.zst").write_bytes(
        _archived([FAULTS / f"{name}.json.zst" for name in names])
    )
    monkeypatch.setattr(recorded, "_ARCHIVE", tmp_path / "faults.tar.zst")

    for name in names:
        bundle = parse(recorded.read(Path(recorded.name_of(name))))
        assert bundle == load(FAULTS / f"{name}.json.zst")
    with pytest.raises(recorded.UnknownRecordingError, match="does not contain it"):
        recorded.read(Path("@demo/renamed"))


def test_the_archive_is_the_same_every_time() -> None:
    paths = [FAULTS / "api-down.json.zst", FAULTS / "db-down.json.zst"]

    assert _archived(paths) == _archived(paths)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("@demo/base-mved", "no recorded fault is named base-mved; did you mean base-moved?"),
        ("@demo/xyzzy", "no recorded fault is named xyzzy (see: hoodsnap demo --list)"),
        ("@demo/../../healthy", "no recorded fault is named ../../healthy (see: "),
        ("@demo/\x1b[31m", "no recorded fault is named \\u001b[31m (see: "),
    ],
)
def test_another_name_is_one_sentence(name: str, reason: str) -> None:
    done = hoodsnap("explain", name)

    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode().startswith(f"hoodsnap: {name.replace(chr(27), chr(92) + 'u001b')} ")
    assert reason in done.stderr.decode()


def test_a_file_of_that_name_is_reached_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "@demo").write_bytes(b"")

    assert b"it is empty" in hoodsnap("explain", tmp_path / "@demo").stderr


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "@demo"),
        ("check", "@demo"),
        ("verify", "@demo"),
        ("redact", "@demo", "-o", "-"),
        ("grade", "compute", "@demo", "--server", "vm-plain"),
        ("lab", "check", "compute", "--bundle", "@demo", "--server", "vm-plain"),
    ],
)
def test_every_command_that_takes_bundles_takes_recordings(command: tuple[str, ...]) -> None:
    done = hoodsnap(*command)

    assert b"can't be read" not in done.stdout + done.stderr
    assert b"defect" not in done.stderr
