"""Volumes that cinder has attached to this host for servers that nova does not have."""

from __future__ import annotations

import json

import pytest
from tests.checks.test_leaked_ports import NOBODY
from tests.conftest import FAULTS, RecordedHost

from hoodsnap.bundle import load
from hoodsnap.findings.advice import instructions
from hoodsnap.findings.analysis import analyze
from hoodsnap.render import text

VOLUME = "0aaaaaaa-1111-4222-8333-444455556666"
ATTACHMENT = "0bbbbbbb-1111-4222-8333-444455556666"


def _leak(host: RecordedHost, server: str = NOBODY, at: str = "vm") -> None:
    """Add a volume that cinder has attached to a server on a host."""
    mine, _ = host.volume("vm-data")
    for name in ("volumes", "attachments"):
        query = f"GET /v3/{name}/detail?all_tenants=True [3.70]"
        body = json.loads(json.dumps(host.last("cinder", query).value))
        [first] = [
            one
            for one in body[name]
            if mine in (one["id"] if name == "volumes" else one["volume_id"])
        ]
        new = json.loads(json.dumps(first))
        if name == "volumes":
            new |= {"id": VOLUME, "name": "extra"}
            new["attachments"][0] |= {"id": VOLUME, "volume_id": VOLUME}
            new["attachments"][0] |= {"attachment_id": ATTACHMENT, "server_id": server}
            new["attachments"][0] |= {"host_name": at}
        else:
            new |= {"id": ATTACHMENT, "volume_id": VOLUME, "instance": server}
        body[name].append(new)
        host.set("cinder", query, body)


def test_volume_of_no_server(host: RecordedHost) -> None:
    _leak(host)

    assert host.findings() == [
        f"volume-of-no-server: attachment reports id = {ATTACHMENT}, volume_id = {VOLUME},"
        f" instance = {NOBODY}; nova reports no server"
    ]
    assert host.headlines() == [
        "cinder has 1 volume attached to vm for 1 server that nova does not have: extra"
    ]
    [finding] = host.report().findings
    commands = [command for step in instructions(finding) for command in step.commands]
    changes = [command.text for command in commands if command.changes]
    assert changes == [f"cinder --os-volume-api-version 3.27 attachment-delete {ATTACHMENT}"]


def test_a_volume_of_a_server_that_nova_has(host: RecordedHost) -> None:
    _leak(host, server=host.uuid("vm-shelved"))

    assert not any("volume-of-no-server" in line for line in host.findings())


def test_a_volume_that_is_attached_to_another_host(host: RecordedHost) -> None:
    _leak(host, at="compute2")

    assert host.findings() == []


def test_a_host_s_own_volumes_prove_nothing_about_other_servers() -> None:
    report = analyze(load(FAULTS / "card-by-hand.json.zst"))  # collected without --all-hosts

    assert {
        skip.check.name: skip.reason for skip in report.skips if skip.reason.startswith("cinder")
    } == dict.fromkeys(
        ["volume-of-no-server", "unattached-volume-stuck"],
        "cinder: only the volumes of this host's servers were collected (use collect --all-hosts)",
    )
    told = "\n".join(line.plain for line in text.render(report, report.cloud.guests))
    assert "--all-hosts" not in told
    everything = text.render(report, report.cloud.guests, verbose=True)
    assert any("--all-hosts" in line.plain for line in everything)


@pytest.mark.parametrize("layer", ["cinder", "nova"])
def test_what_is_unknown_is_no_leak(host: RecordedHost, layer: str) -> None:
    _leak(host)
    host.silence(layer)

    assert not any("volume-of-no-server" in line for line in host.findings())
