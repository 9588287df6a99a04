"""Texts in a bundle that look like secrets are withheld, however they got there."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import FAULTS, HEALTHY, MONITORS, RecordedHost
from typer.testing import CliRunner

from hoodsnap.bundle import Answer, Bundle, Failure, load
from hoodsnap.cli import program
from hoodsnap.keep.fence import _looks, fenced, leaks, report
from hoodsnap.keep.secret import WITHHELD, without_secrets
from hoodsnap.trust.fingerprint import fingerprinted, verify

SECRET = "sesame42"  # noqa: S105 (planted, and searched for)

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


SPELLINGS = (
    f"Passwort: {SECRET}",
    f"Kennwort={SECRET}",
    f"PASS={SECRET}",
    f"MYSQL_PWD={SECRET}",
    f"password%3D{SECRET}&x=1",
    f"password%22%3A%20%22{SECRET}",
    f"Authorization: Basic {SECRET}dXNlcjp",
    f"basic dXNlcjp{SECRET}Zz09==",
    f"bearer {SECRET}{SECRET}",
    f"AWS_SECRET_ACCESS_KEY={SECRET}",
    f"client-secret: {SECRET}",
    f"token={SECRET}",
    f"tls-psk: {SECRET}",
    f"node.session.auth.password_in={SECRET}",
    f"backup --password {SECRET}",
    f"credentials={SECRET}",
    f"$argon2id$v=19$m=65536,t=3,p=4${SECRET}",
    f"{{SSHA}}{SECRET}{SECRET}",
    f"ghp_{SECRET}{'a' * 30}",
    f"glpat-{SECRET}{'a' * 20}",
    f"xoxb-1234-{SECRET}",
)
"""Spellings of secrets in other programs and languages."""


@pytest.mark.parametrize("text", SPELLINGS)
def test_other_spellings_are_withheld(host: RecordedHost, text: str) -> None:
    for value in (text, f"a line\n{text}\nanother line", {"name": text}, f"x\0{text}\0y"):
        kept, found = fenced(with_value(host, value))

        assert SECRET not in json.dumps(kept.answers[-1].as_json())
        assert found


def with_value(host: RecordedHost, value: object) -> Bundle:
    answer = host.last("host", "hostname")
    planted = answer.model_copy(update={"query": "cat /somewhere", "value": value})
    return host.bundle.with_answers([answer, planted])


@pytest.mark.parametrize("looks", PLANTED)
def test_a_secret_is_found_in_any_text(host: RecordedHost, looks: str) -> None:
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
def test_every_spelling_of_a_password_is_found(host: RecordedHost, text: str) -> None:
    [leak, *_] = leaks(with_value(host, text))

    assert SECRET not in str(leak)


@pytest.mark.parametrize("key", ["password", "adminPass", "discovery_auth_password", "user_data"])
def test_a_value_under_a_key_that_names_a_secret_is_withheld(host: RecordedHost, key: str) -> None:
    [leak] = leaks(with_value(host, {"servers": [{key: SECRET}]}))

    assert leak.place == f"the answer/servers/0/{key}"


def test_a_secret_in_a_query_or_an_error_is_found(host: RecordedHost) -> None:
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
def test_a_text_that_only_mentions_secrets_stays(host: RecordedHost, text: str) -> None:
    assert list(leaks(with_value(host, text))) == []


@pytest.mark.parametrize("text", PLANTED.values())
def test_already_withheld_texts_are_not_reported(host: RecordedHost, text: str) -> None:
    if SECRET not in (blanked := without_secrets(text)):
        assert list(leaks(with_value(host, blanked))) == []


@pytest.mark.parametrize("path", [HEALTHY, MONITORS, *sorted(FAULTS.glob("*.zst"))[::12]])
def test_recordings_contain_no_secrets(path: Path) -> None:
    assert list(leaks(load(path))) == []


NAMES = [
    "password: reset the VM",
    "api_key: rotate",
    "Reset-password: done",
    "keyring: prod",
    "$1$00000000",
    "lab$2a$abcdefgh",
    "-----BEGIN PRIVATE KEY-----",
    f"gAAAA{'x' * 60}",
    "http://a:b@c/",
    "secret,data=x",
    ":key=AQ",
    "user_data = \x1b[31m\u202e\0",
]
"""Names that a tenant may give a server, a port, a volume or a flavor."""


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_looks_like_a_secret_is_withheld_and_the_bundle_is_written(
    host: RecordedHost, name: str
) -> None:
    value = {"servers": [{"id": "148ab7d4", "name": name, "status": "ACTIVE"}, {"name": "web"}]}

    kept, found = fenced(with_value(host, value))

    shown = kept.answers[-1].value["servers"]
    assert (shown[0]["id"], shown[0]["status"], shown[1]) == ("148ab7d4", "ACTIVE", {"name": "web"})
    assert WITHHELD in shown[0]["name"]
    assert [leak.place for leak in found] == ["the answer/servers/0/name"]
    assert leaks(kept) == []


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_name_inside_a_document_is_withheld_without_the_document(
    host: RecordedHost, name: str
) -> None:
    xml = f"<domain>\n  <nova:name>{name}</nova:name>\n  <uuid>148ab7d4</uuid>\n</domain>\n"
    spec = json.dumps({"display_name": name, "flavor": {"name": "lab.tiny"}, "said": "x" * 300})

    kept, found = fenced(with_value(host, [xml, spec]))

    cleaned, document = kept.answers[-1].value
    assert cleaned.endswith("</nova:name>\n  <uuid>148ab7d4</uuid>\n</domain>\n")
    assert json.loads(document) == {**json.loads(spec), "display_name": WITHHELD}
    assert len(found) == 2
    assert not any(word in cleaned + document for word in ("reset", "rotate", "done"))


def test_a_key_that_looks_like_a_secret_is_withheld_with_its_value(
    host: RecordedHost,
) -> None:
    value = {"password: a": SECRET, f"{WITHHELD} 1": 1, "password: b": [SECRET], "plan": "x"}

    kept, found = fenced(with_value(host, {"metadata": value}))

    shown = kept.answers[-1].value["metadata"]
    assert shown == {
        f"{WITHHELD} 1": 1,
        f"{WITHHELD} 2": WITHHELD,
        f"{WITHHELD} 3": WITHHELD,
        "plan": "x",
    }
    assert {leak.place for leak in found} == {"a key in the answer/metadata"}


def test_host_names_and_queries_that_look_like_secrets_are_withheld(host: RecordedHost) -> None:
    asked = host.last("host", "hostname").model_copy(
        update={"host": "password: x", "query": f"virsh dumpxml password: {SECRET}"}
    )

    kept, found = fenced(host.bundle.with_answers([asked]))

    [answer] = kept.answers
    assert (answer.host, answer.query) == (WITHHELD, f"virsh dumpxml password: {WITHHELD}")
    assert [leak.place for leak in found] == ["the query", "the host"]


IDS = [
    "148ab7d4-5c5f-420e-85dd-eb24494f9617",
    "req-148ab7d4-5c5f-420e-85dd-eb24494f9617",
    "fa:16:3e:00:00:01",
    "instance-00000010",
    "0" * 32,
    "a" * 64,
    "iqn.2010-10.org.openstack:volume-148ab7d4-5c5f-420e-85dd-eb24494f9617",
    "/var/lib/nova/instances/148ab7d4-5c5f-420e-85dd-eb24494f9617/disk.config",
    "tapdc16d96a-bc",
    "0000:3b:02.1",
]


@given(st.sampled_from(IDS) | st.uuids().map(str))
def test_no_id_looks_like_a_secret(text: str) -> None:
    assert _looks(text) is None


def test_many_locations_are_summarized(host: RecordedHost) -> None:
    _, found = fenced(with_value(host, [{"name": f"password: {n}"} for n in range(10_000)]))
    lines = report(found)

    assert len(found) == 10_000
    assert len(lines) == 11
    assert lines[-1] == "withheld: 9990 more locations, in the answers to one query"


def test_control_characters_of_a_key_are_not_in_the_report(host: RecordedHost) -> None:
    bundle = with_value(host, {"\x1b]0;x\x07\n": {"name": "password: x"}})

    assert all(line.isprintable() for line in report(leaks(bundle)))


def test_the_bundle_is_written_without_the_secret_and_its_location_is_reported(
    host: RecordedHost, tmp_path: Path
) -> None:
    bundle = with_value(host, {"password": SECRET, "name": "password: reset", "id": "148ab7d4"})
    bundle = fingerprinted(bundle)
    out = tmp_path / "out.json"

    with patch("hoodsnap.cli.collect.collected", return_value=(bundle, False)):
        done = CliRunner().invoke(program(), ["collect", "-o", str(out)])

    assert "host, cat /somewhere, the answer/password: it looks like a password" in done.output
    assert SECRET not in done.output + out.read_text()
    written = load(out)
    [answer] = written.asked("host", "cat /somewhere")
    assert answer.value == {"password": WITHHELD, "name": WITHHELD, "id": "148ab7d4"}
    assert verify(written).intact
    assert done.exit_code == 3, "only because this bundle has no layer that nova is asked through"
