"""The log file of a service: its path, its owner and its mode."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hoodsnap.collect.configuration_file import described_log, log_of
from hoodsnap.collect.trusted.ownership import Owners
from hoodsnap.collect.trusted.service import RunningService


def _service(*arguments: str) -> RunningService:
    return RunningService(1, Path("/"), Path("/usr/bin/nova-compute"), arguments)


@pytest.mark.parametrize(
    ("options", "arguments", "path"),
    [
        ({}, (), None),
        ({"log_dir": "/var/log/nova"}, (), "/var/log/nova/nova-compute.log"),
        ({"logdir": "/srv", "logfile": "n.log"}, (), "/srv/n.log"),
        ({"log_dir": "/srv", "log_file": "/var/log/n.log"}, (), "/var/log/n.log"),
        ({}, ("--log-file=/var/log/a.log",), "/var/log/a.log"),
        ({"log_dir": "/srv"}, ("--log-dir", "/var/log/kolla"), "/var/log/kolla/nova-compute.log"),
        ({"log_file": "a.log"}, ("--config-file", "x", "--logfile", "/b.log"), "/b.log"),
        ({"log_dir": "$undefined/log"}, (), None),
        ({"log_file": "/dev/stdout"}, (), None),
        ({}, ("--log-file",), None),
    ],
)
def test_the_path_is_the_one_of_oslo_log(
    options: dict[str, str], arguments: tuple[str, ...], path: str | None
) -> None:
    assert log_of(_service(*arguments), {"DEFAULT": options}, "nova-compute") == path


def test_a_log_is_described_inside_the_root_of_its_service(tmp_path: Path) -> None:
    log = tmp_path / "var/log/nova-compute.log"
    log.parent.mkdir(parents=True)
    log.write_text("a secret")
    log.chmod(0o640)
    owners = Owners(frozenset({os.geteuid()}), frozenset({os.getegid()}))

    row = described_log("/var/log/nova-compute.log", owners, str(tmp_path))

    assert (row["path"], row["uid"], row["mode"]) == (
        "/var/log/nova-compute.log",
        os.geteuid(),
        "640",
    )
    assert [one["path"] for one in row["folders"]] == ["/", "/var", "/var/log"]
    assert "a secret" not in str(row)


def test_a_log_may_not_exist_yet(tmp_path: Path) -> None:
    row = described_log("/nova-compute.log", Owners(), str(tmp_path))

    assert row["absent"] is True
