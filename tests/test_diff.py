"""hoodsnap diff, run the way a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import FAULTS, HEALTHY, MONITORS
from tests.test_bounds import bundle_of
from tests.test_nets import CRASHES


def test_nothing_changed_ends_with_0() -> None:
    done = hoodsnap("diff", HEALTHY, MONITORS)

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"0 servers changed, 16 as before" in done.stdout


def test_a_change_ends_with_1() -> None:
    paths = FAULTS / "qemu-kill9.json.zst", FAULTS / "virsh-destroy.json.zst"

    done = hoodsnap("diff", *paths)

    assert done.returncode == 1
    assert "vm-plain  libvirt  shut off (crashed) → shut off (destroyed) at 17:24:35" in (
        done.stdout.decode()
    )
    document = json.loads(hoodsnap("diff", *paths, "-f", "json", "-s", "vm-plain").stdout)
    assert [server["name"] for server in document["servers"]] == ["vm-plain"]


def test_another_server_did_not_change() -> None:
    paths = FAULTS / "qemu-kill9.json.zst", FAULTS / "virsh-destroy.json.zst"

    assert hoodsnap("diff", *paths, "-s", "vm-duo").returncode == 0


def test_two_clouds_can_not_be_compared() -> None:
    done = hoodsnap("diff", HEALTHY, FAULTS / "autostart.json.zst")

    assert (done.returncode, done.stdout) == (3, b"")
    assert b"are of two clouds" in done.stderr


def test_a_server_that_neither_bundle_has_is_wrong_usage() -> None:
    assert hoodsnap("diff", HEALTHY, MONITORS, "-s", "nobody").returncode == 2


def test_a_file_that_can_not_be_read_ends_with_3(tmp_path: Path) -> None:
    assert hoodsnap("diff", HEALTHY, tmp_path / "none.json").returncode == 3


@pytest.mark.parametrize("crash", CRASHES)
def test_no_value_crashes_it(crash: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOODSNAP_DEBUG", raising=False)
    path = tmp_path / "b.json"
    path.write_bytes(bundle_of(*CRASHES[crash]))

    done = hoodsnap("diff", path, path, cwd=tmp_path)

    assert b"defect" not in done.stderr
    assert done.returncode in (0, 3)
