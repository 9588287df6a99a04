"""Layers that were asked and did not answer are reported; those that were never asked are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.command import hoodsnap
from tests.conftest import CONTROL_GROUPS, FAULTS, HEALTHY, MONITORS, ROOT, RecordedHost

from hoodsnap.bundle import Answer, Bundle, Failure, load, merge, save
from hoodsnap.findings.analysis import analyze
from hoodsnap.findings.silence import LONGEST_REASON, brief, one_line

KEYSTONE = "(127.0.0.1:5000: connection closed)"

REFUSED = {
    "db-down": f"nova API, placement, cinder, neutron API {KEYSTONE};"
    " nova database (127.0.0.1:3306: connection refused)",
    "api-down": "nova API (127.0.0.1:8774: connection refused)",
    "placement-down": "placement (127.0.0.1:8778: connection refused)",
    "libvirt-lost": "libvirt of vm (Failed to connect socket to"
    " '/var/run/libvirt/libvirt-sock-ro': No such file or directory)",
}
"""Fault → the layers that did not answer."""


def silent(bundle: Bundle) -> str:
    return one_line(analyze(bundle, ()).uncollected)


@pytest.mark.parametrize("fault", REFUSED)
def test_a_recorded_refusal_is_reported(fault: str) -> None:
    assert silent(load(FAULTS / f"{fault}.json.zst")) == REFUSED[fault]


RECORDINGS = [HEALTHY, MONITORS, CONTROL_GROUPS, *sorted((ROOT / "fixtures/two-hosts").iterdir())]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_a_healthy_recording_has_no_silent_layer(path: Path) -> None:
    assert silent(load(path)) == ""


def failing(host: RecordedHost, layer: str, kind: str, message: str, part: str = "") -> None:
    """Replace each answer of a layer whose query contains `part` by a failure."""

    def change(answer: Answer) -> Answer:
        if answer.layer != layer or part not in answer.query:
            return answer
        asked = answer.model_dump(exclude={"value", "error"})
        return Answer(**asked, error=Failure(kind=kind, message=message))

    host.bundle = host.bundle.with_answers(map(change, host.bundle.answers))


def test_an_api_that_lists_only_its_versions_did_not_answer(host: RecordedHost) -> None:
    failing(host, "nova", "failed", "HTTP 500: Unexpected API Error", "/servers")

    assert silent(host.bundle) == "nova API (HTTP 500: Unexpected API Error)"


@pytest.mark.parametrize(
    ("layer", "part"),
    [("placement", "/allocations"), ("cinder", "os-services"), ("nova", "os-hypervisors")],
)
def test_a_layer_of_which_a_part_is_denied_answered(
    host: RecordedHost, layer: str, part: str
) -> None:
    failing(host, layer, "denied", "HTTP 403: Policy doesn't allow it", part)

    assert silent(host.bundle) == ""


def test_a_service_that_the_cloud_does_not_have_is_not_silent(host: RecordedHost) -> None:
    failing(host, "cinder", "absent", "keystone's catalog has no endpoint for volumev3")

    assert silent(host.bundle) == ""


def test_a_database_without_a_password_was_never_asked(host: RecordedHost) -> None:
    failing(host, "nova-db", "missing", "nova.conf names no database")

    assert silent(host.bundle) == ""


def test_without_nova_nothing_can_be_compared(host: RecordedHost) -> None:
    failing(host, "nova-db", "missing", "nova.conf names no database")
    message = "can't log in: neither OS_CLOUD nor OS_AUTH_URL is set, and clouds.yaml does not …"
    for layer in ("nova", "glance", "placement", "cinder", "neutron"):
        failing(host, layer, "missing", message)

    assert silent(host.bundle) == "nova API (no OpenStack credentials were given)"


def test_a_cell_that_did_not_answer_is_reported(host: RecordedHost) -> None:
    version = host.last("nova-db", "SELECT VERSION()")
    asked = version.model_dump(exclude={"value", "error", "query"})
    failure = Failure(kind="unreachable", message="cell2:3306: Can't connect (timed out)")
    query = "SELECT VERSION() /* at cell2:3306 */"
    host.add(Answer(**asked, query=query, error=failure))

    assert silent(host.bundle) == "nova database (one cell) (cell2:3306: no answer in time)"


def test_another_host_may_have_collected_the_layer() -> None:
    heard, dead = load(ROOT / "fixtures/control-groups.json.zst"), FAULTS / "api-down.json.zst"

    assert silent(merge([load(dead), heard])) == ""


def test_hosts_with_the_same_reason_are_listed_together() -> None:
    first, second = (
        load(ROOT / f"fixtures/two-hosts/healthy.{which}.json.zst") for which in ("first", "second")
    )
    both = RecordedHost(merge([first, second]))
    both.silence("libvirt")

    assert silent(both.bundle) == "libvirt of compute2, vm (no answer)"


@given(st.text())
def test_any_message_becomes_a_short_printable_reason(message: str) -> None:
    reason = brief(message)

    assert reason.isprintable()
    assert len(reason) <= LONGEST_REASON


@pytest.mark.parametrize("command", ["check", "explain"])
@pytest.mark.parametrize(
    ("fault", "options", "status"),
    [
        ("api-down", [], 0),
        ("api-down", ["--fail-on", "unheard"], 3),
        ("api-down", ["--fail-on", "unheard", "--fail-on", "never"], 3),
        ("libvirt-lost", [], 1),
        ("libvirt-lost", ["--fail-on", "unheard"], 3),
        ("memory-live", ["--fail-on", "unheard"], 1),
        ("memory-live", ["--fail-on", "unheard", "--fail-on", "never"], 0),
        ("libvirt-lost", ["--fail-on", "error"], 0),
        ("libvirt-lost", ["--fail-on", "error", "--fail-on", "warning"], 1),
    ],
)
def test_silence_fails_on_request(
    command: str, fault: str, options: list[str], status: int
) -> None:
    path = FAULTS / f"{fault}.json.zst"

    assert hoodsnap(command, path, *options).returncode == status


def test_check_reports_silence_on_standard_error() -> None:
    done = hoodsnap("check", FAULTS / "db-down.json.zst")

    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == f"hoodsnap: not collected: {REFUSED['db-down']}\n"


def test_explain_ends_with_what_was_not_collected() -> None:
    done = hoodsnap("explain", FAULTS / "placement-down.json.zst")

    assert b"not collected: placement (127.0.0.1:8778: connection refused)" in done.stdout


def test_the_document_has_the_whole_reason() -> None:
    done = hoodsnap("explain", FAULTS / "api-down.json.zst", "--format", "json")

    [layer] = json.loads(done.stdout)["not_collected"]
    assert layer["layer"] == "nova"
    assert layer["reason"] == "http://127.0.0.1:8774: Connection refused"


def test_a_host_without_guests_and_a_wrong_login_do_not_agree(
    host: RecordedHost, tmp_path: Path
) -> None:
    message = "keystone rejected the user, password or project: HTTP 401"
    host.drop(lambda answer: answer.layer not in ("nova-db", "kernel", "images", "network"))
    host.set("libvirt", "virsh list --all", [])
    host.drop(lambda answer: answer.layer != "libvirt" or answer.subject is None)
    for layer in ("nova", "glance", "placement", "cinder", "neutron"):
        failing(host, layer, "denied", message)
    save(host.bundle, tmp_path / "bundle.json")

    done = hoodsnap("explain", tmp_path / "bundle.json")

    assert b"agree" not in done.stdout
    text = " ".join(done.stdout.decode().split())
    assert "nova API, placement, cinder, neutron API, glance (login rejected)" in text
