"""Partial recordings: requests for a missing layer get a refusal that names it."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from tests.conftest import FAULTS, ROOT, RecordedHost
from tests.replay.test_shell import needs, replay

from hoodsnap.bundle import load, save
from hoodsnap.replay import shell
from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.libvirtd import Libvirtd
from hoodsnap.replay.recording import Recording, hosts

TWO = ROOT / "fixtures/two-hosts"


def of(path: Path) -> Recording:
    bundle = load(path)
    return Recording(bundle, hosts(bundle)[0])


@pytest.mark.parametrize(
    ("fault", "lacking"),
    [
        ("db-down", "not in this recording: nova's database, for mysql"),
        ("libvirt-lost", "not in this recording: libvirt, for virsh"),
        ("api-down", "not in this recording: the APIs of nova"),
    ],
)
def test_the_shell_lists_missing_layers(fault: str, lacking: str) -> None:
    path = FAULTS / f"{fault}.json.zst"
    lines = shell.lacking(of(path))

    assert any(line.startswith(lacking) for line in lines)
    assert shell.lacking(of(FAULTS / "base-unused.json.zst")) == []


def test_a_lost_libvirt_is_reported_with_the_reason() -> None:
    daemon = Libvirtd(of(FAULTS / "libvirt-lost.json.zst"))
    call = struct.pack(">IIiIII", 0x20008086, 1, 273, 0, 1, 0)

    answer = daemon.reply(call + xdr.int_(1) + xdr.uint(0))

    assert b"virsh list --all failed when it was recorded" in answer


@needs("mysql")
def test_a_database_that_was_down_is_reported() -> None:
    done = replay("replay", FAULTS / "db-down.json.zst", "--", "mysql", "nova", "-e", "select 1")

    assert done.returncode == 1
    assert "hoodsnap: nova's database is not in this recording" in done.stderr


@needs("virsh")
def test_a_host_among_two() -> None:
    bundles = [TWO / f"migrated-cold.{which}.json.zst" for which in ("first", "second")]
    names = sorted(hosts(load(path))[0] for path in bundles)
    for path in bundles:
        (name,) = hosts(load(path))
        listed = of(path).value("libvirt", "virsh list --all")
        assert isinstance(listed, list)

        done = replay("shell", *bundles, "--host", name, "-c", "virsh list --all --uuid")

        assert sorted(done.stdout.split()) == sorted(row["uuid"] for row in listed)
    wrong = replay("shell", *bundles, "--host", "third", "-c", "true")
    assert wrong.returncode == 2
    assert f"no host is named third; hosts in this bundle: {', '.join(names)}" in wrong.stderr


def test_a_bundle_without_a_host_can_not_be_replayed(host: RecordedHost, tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    save(host.bundle.with_answers(host.bundle.by_layer["nova"]), path)

    done = replay("shell", path, "-c", "true")

    assert done.returncode == 3
    assert done.stderr == "hoodsnap: no layer of a host answered when this bundle was collected\n"


@pytest.mark.parametrize(
    "layer", ["libvirt", "kernel", "images", "nova-db", "qemu", "nova", "logs"]
)
def test_a_shell_starts_without_a_layer(host: RecordedHost, tmp_path: Path, layer: str) -> None:
    answers = [answer for answer in host.bundle.answers if answer.layer != layer]
    path = tmp_path / "part.json"
    save(host.bundle.with_answers(answers), path)

    done = replay("shell", path, "-c", "echo started")

    assert (done.returncode, done.stdout) == (0, "started\n")


def test_a_shell_starts_with_one_layer(host: RecordedHost, tmp_path: Path) -> None:
    answers = [answer for answer in host.bundle.answers if answer.layer == "kernel"]
    path = tmp_path / "part.json"
    save(host.bundle.with_answers(answers), path)

    done = replay("shell", path, "-c", "pgrep -c qemu")

    running = host.last("kernel", "ls -l /proc/*/exe").value
    if shutil.which("pgrep"):
        assert done.stdout == f"{len(running)}\n"
