"""A bundle with a secret in it is refused, whatever let it through."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from tests.conftest import FAULTS, HEALTHY, MONITORS, RecordedHost
from typer.testing import CliRunner

from hoodsnap.bundle import Answer, Bundle, Failure, load
from hoodsnap.cli import program
from hoodsnap.collect.fence import leaks
from hoodsnap.collect.recorder import WITHHELD, without_secrets

SECRET = "sesame42"  # noqa: S105 (it is planted, to be looked for)

PLANTED = {
    "a private key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n",
    "a password": f"node.session.auth.password = {SECRET}",
    "a token of keystone": f"X-Whatever: gAAAAABm{SECRET}{'x' * 80}",
    "a web token": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{SECRET}.{SECRET}{SECRET}",
    "a key of ceph": f"[client.nova]\n\tkey : AQ{SECRET}{'A' * 28}==\n",
    "a URL with credentials": f"transport_url = rabbit://nova:{SECRET}@10.0.0.1:5672/",
    "a hash of a password": f"root:$6$salt${SECRET}:19000:0:99999:7:::",
    "a secret of QEMU": f"-object\0secret,id=s0,data={SECRET}",
}


def with_value(host: RecordedHost, value: object) -> Bundle:
    answer = host.last("host", "hostname")
    planted = answer.model_copy(update={"query": "cat /somewhere", "value": value})
    return host.bundle.with_answers([answer, planted])


@pytest.mark.parametrize("looks", PLANTED)
def test_a_secret_is_found_wherever_it_stands(host: RecordedHost, looks: str) -> None:
    for value in (PLANTED[looks], {"a": [1, {"b": PLANTED[looks]}]}, [[PLANTED[looks]]]):
        [leak, *_] = leaks(with_value(host, value))

        assert (leak.layer, leak.query, leak.looks) == ("host", "cat /somewhere", looks)
        assert SECRET not in str(leak)


@pytest.mark.parametrize(
    "text",
    [
        f"<graphics type='vnc' passwd='{SECRET}'/>",
        f"-drive\0file=rbd:vms/disk:id=nova:key={SECRET}",
        f'{{"auth_method": "CHAP", "auth_password": "{SECRET}"}}',
        f'{{"adminPass": "{SECRET}"}}',
        f"admin_password={SECRET}",
        f"OS_PASSWORD={SECRET}",
        f"BOOT_IMAGE=/vmlinuz rd.luks.passphrase={SECRET} ro",
        f"Auth-Token: {SECRET}",
        f"user_data = {SECRET}",
    ],
)
def test_every_way_of_writing_a_password_is_known(host: RecordedHost, text: str) -> None:
    [leak, *_] = leaks(with_value(host, text))

    assert SECRET not in str(leak)


@pytest.mark.parametrize("key", ["password", "adminPass", "discovery_auth_password", "user_data"])
def test_what_stands_under_a_key_of_a_secret_is_one(host: RecordedHost, key: str) -> None:
    [leak] = leaks(with_value(host, {"servers": [{key: SECRET}]}))

    assert leak.place == f"the answer/servers/0/{key}"


def test_a_secret_in_a_question_and_in_a_complaint_is_found(host: RecordedHost) -> None:
    asked = host.last("host", "hostname").model_dump(exclude={"value", "error", "query"})
    failed = Failure(kind="failed", message=f"mysql://nova:{SECRET}@db/nova refused")
    refused = Answer(**asked, query="mysql", error=failed)
    asking = Answer(**asked, query=f"curl http://admin:{SECRET}@keystone/", value="")

    found = list(leaks(host.bundle.with_answers([refused, asking])))

    assert [leak.place for leak in found] == ["the error", "the query"]
    assert SECRET not in " ".join(map(str, found))


@pytest.mark.parametrize(
    "text",
    [
        "`password` varchar(255) DEFAULT NULL,\n  `user_data` mediumtext",
        "SELECT id, `key`, value FROM nova.instance_system_metadata",
        "-spice port=5900,disable-ticketing=on,password-secret=sec0",
        "-vnc 127.0.0.1:0,password=on,audiodev=audio1",
        f"-object secret,id=s0,data={WITHHELD}",
        f"rabbit://nova:{WITHHELD}@10.0.0.1:5672/",
        f"password = {WITHHELD}",
        "master-key.aes",
        "nbd://10.0.0.1:10809/disk",
        "http://[fd00::1]:8774/v2.1/",
        "vm@nfs#nfs",
        "iqn.2010-10.org.openstack:volume-1",
        "cost $5 or $6",
    ],
)
def test_what_only_speaks_of_secrets_is_none(host: RecordedHost, text: str) -> None:
    assert list(leaks(with_value(host, text))) == []


@pytest.mark.parametrize("text", PLANTED.values())
def test_what_the_door_has_blanked_is_none(host: RecordedHost, text: str) -> None:
    if SECRET not in (blanked := without_secrets(text)):
        assert list(leaks(with_value(host, blanked))) == []


@pytest.mark.parametrize("path", [HEALTHY, MONITORS, *sorted(FAULTS.glob("*.zst"))[::12]])
def test_what_was_recorded_has_none(path: Path) -> None:
    assert list(leaks(load(path))) == []


def test_nothing_is_written_and_the_place_is_said(host: RecordedHost, tmp_path: Path) -> None:
    bundle = with_value(host, {"password": SECRET})
    out = tmp_path / "out.json"

    with patch("hoodsnap.cli.collect.collected", return_value=(bundle, False)):
        done = CliRunner().invoke(program(), ["collect", "-o", str(out)])

    assert done.exit_code == 3
    assert not out.exists()
    assert "host, cat /somewhere, the answer/password: it looks like a password" in done.output
    assert SECRET not in done.output
