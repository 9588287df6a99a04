"""What nova-compute needs at its next start."""

from __future__ import annotations

from typing import Any

import pytest
from tests.checks.test_configuration import FILES, examine, folder
from tests.conftest import RecordedHost, changes

LOG = "/var/log/nova/nova-compute.log"


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"uid": 116, "gid": 0, "mode": "400"},
        {"gid": 64},
        {"gid": 0, "mode": "644"},
        {"gid": 0, "mode": "600", "acl": True},
        {"refused": "not followed: /etc/nova belongs to uid 7", "uid": None},
        {"folders": []},
    ],
)
def test_nova_can_read_its_configuration(host: RecordedHost, own: dict[str, Any]) -> None:
    examine(host, **own)

    assert host.findings() == []


def test_nova_conf_unusable(host: RecordedHost) -> None:
    examine(host, gid=0, mode="600")

    assert host.findings() == [
        "nova-conf-unusable: nova-compute.conf reports mode = 600, uid = 0, gid = 0"
    ]
    assert host.headlines() == [
        f"nova's account on vm can't read {FILES[1]}: nova-compute's next start fails"
    ]


@pytest.mark.parametrize(
    ("own", "headline"),
    [
        (
            {"folders": [folder("/etc/nova", mode="700")]},
            f"nova's account on vm can't read {FILES[1]}, as /etc/nova is closed to it: "
            "nova-compute's next start fails",
        ),
        (
            {"error": {"line": 7, "message": "No ':' or '=' found in assignment"}},
            f"Line 7 of {FILES[1]} on vm is none that nova can read "
            "(No ':' or '=' found in assignment): nova-compute's next start fails",
        ),
        (
            {"absent": True},
            f"{FILES[1]}, which nova-compute on vm reads, does not exist: nova-compute's next "
            "start fails",
        ),
    ],
)
def test_nova_conf_unusable_because_of(
    host: RecordedHost, own: dict[str, Any], headline: str
) -> None:
    examine(host, **own)

    assert host.headlines() == [headline]


def _log(host: RecordedHost, parent: str = "750", **own: Any) -> None:
    """Add an answer about the configuration and the log of nova-compute."""
    above = [folder(path) for path in ("/", "/var", "/var/log")]
    above.append(folder("/var/log/nova", uid=116, gid=4, mode=parent))
    row = {"path": LOG, "uid": 116, "gid": 116, "mode": "644", "folders": above}
    examine(host)
    query = f"stat -L {' '.join(FILES)}"
    host.set("host", query, host.last("host", query).value | {"log": row | own})


def test_nova_log_not_writable(host: RecordedHost) -> None:
    _log(host, uid=0, gid=0, mode="640")

    [finding] = host.report().findings
    assert (finding.severity.word, finding.check.name) == ("warning", "nova-log-not-writable")
    assert finding.headline == (
        f"nova's account on vm can't write {LOG}: nova-compute's next start fails"
    )
    assert changes(finding) == [f"chown nova {LOG}", f"chmod u+rwX {LOG}"]


@pytest.mark.parametrize(
    ("parent", "own", "expected"),
    [
        (
            "550",
            {"absent": True, "uid": None},
            ["chown nova /var/log/nova", "chmod u+rwX /var/log/nova"],
        ),
        ("650", {}, ["chmod g+x,o+x /var/log/nova"]),
        ("750", {"mode": "444"}, [f"chown nova {LOG}", f"chmod u+rwX {LOG}"]),
    ],
)
def test_nova_log_not_writable_because_of(
    host: RecordedHost, parent: str, own: dict[str, Any], expected: list[str]
) -> None:
    _log(host, parent, **own)

    assert changes(host.found("nova-log-not-writable")) == expected


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"absent": True, "uid": None},
        {"uid": 0, "gid": 64, "mode": "660"},
        {"uid": 0, "gid": 0, "mode": "640", "acl": True},
        {"refused": "not followed: /var/log belongs to uid 7", "uid": None},
    ],
)
def test_nova_can_write_its_log(host: RecordedHost, own: dict[str, Any]) -> None:
    _log(host, **own)

    assert host.findings() == []


def test_a_service_may_log_to_no_file(host: RecordedHost) -> None:
    _log(host)
    query = f"stat -L {' '.join(FILES)}"
    host.set("host", query, host.last("host", query).value | {"log": None})

    assert host.findings() == []


def test_an_older_collector_did_not_ask_for_the_log(host: RecordedHost) -> None:
    examine(host)

    report = host.report()
    assert report.findings == ()
    assert "the log file of nova-compute was not examined" in {
        skip.reason for skip in report.skips if skip.check.name == "nova-log-not-writable"
    }
