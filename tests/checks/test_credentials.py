"""Requests of nova-compute that another service of the cloud refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.conftest import RecordedHost

from hoodsnap.facts.host.daemon import Daemons

LOG = "tail -c 4194304 /var/log/nova/nova-compute.log"
REFUSED = "keystoneauth1.exceptions.http.Unauthorized: It requires authentication. (HTTP 401)"
NETWORK = f"An error occurred while refreshing the network cache.: {REFUSED}"
UUID = "92ccb88b-0676-4ef3-8452-63770d01e159"


def log(host: RecordedHost, *lines: tuple[float, str]) -> None:
    """Add lines (seconds before the log was read, message with its subject) to nova's log."""
    answer = host.last("logs", LOG)
    written = [
        f"{answer.at - timedelta(seconds=age):%Y-%m-%d %H:%M:%S}.113 ERROR {message}"
        for age, message in lines
    ]
    host.set("logs", LOG, "\n".join([answer.value, *written]))


@pytest.fixture
def young(served: RecordedHost, monkeypatch: pytest.MonkeyPatch) -> RecordedHost:
    """Return the recording with daemons, in which nova-compute was started an hour before."""
    start = served.last("logs", LOG).at - timedelta(hours=1)
    monkeypatch.setattr(Daemons, "since", lambda *_: start)
    return served


def test_nova_compute_refused(young: RecordedHost) -> None:
    log(young, (40, f"[instance: {UUID}] {NETWORK}"), (40, f"[instance: {UUID}] {REFUSED}"))

    [finding] = young.report().findings
    assert finding.check.name == "nova-compute-refused"
    assert finding.title.startswith(
        "neutron refuses nova-compute's requests on vm (HTTP 401): 1 time"
    )


@pytest.mark.parametrize(
    ("message", "service"),
    [
        ("Placement service credentials [withheld] not work.", "placement"),
        ("Neutron client was not able to generate a valid admin token, please verify", "neutron"),
        (f"[instance: {UUID}] Failed to detach volume: {REFUSED}", "cinder"),
        (REFUSED, "A service of the cloud"),
    ],
)
def test_the_message_tells_the_service(young: RecordedHost, message: str, service: str) -> None:
    log(young, (130, message), (70, message))

    [finding] = young.report().findings
    assert finding.title.startswith(
        f"{service} refuses nova-compute's requests on vm (HTTP 401): 2"
    )


@pytest.mark.parametrize(
    "lines",
    [
        # A user's token expired: the operation failed once.
        [(40, f"[instance: {UUID}] Failed to detach volume: {REFUSED}")],
        # The password was corrected.
        [(1300, f"[instance: {UUID}] {NETWORK}"), (1200, f"[instance: {UUID}] {NETWORK}")],
        # An earlier nova-compute had another password.
        [(4000, f"[instance: {UUID}] {NETWORK}"), (3700, f"[instance: {UUID}] {NETWORK}")],
        [(40, f"[instance: {UUID}] Instance not resizing, skipping migration.")],
    ],
)
def test_other_refusals_are_quiet(young: RecordedHost, lines: list[tuple[float, str]]) -> None:
    log(young, *lines)

    assert young.findings() == []


def test_a_log_in_an_unknown_zone_is_not_judged(young: RecordedHost) -> None:
    log(young, (40, f"[instance: {UUID}] {NETWORK}"))
    young.drop(lambda answer: answer.query != "date '+%z %Z'")

    report = young.report()
    assert report.findings == ()
    [skip] = [one for one in report.skips if one.check.name == "nova-compute-refused"]
    assert skip.reason == "the time zone of nova-compute's log is unknown"


def test_a_zone_is_taken_into_account(young: RecordedHost) -> None:
    """In this zone, the lines were written hours before nova-compute started."""
    log(young, (40, f"[instance: {UUID}] {NETWORK}"))
    young.set("host", "date '+%z %Z'", "+0300 MSK")

    assert young.findings() == []
