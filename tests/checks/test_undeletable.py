"""Servers that nova does not delete."""

from __future__ import annotations

from tests.conftest import RecordedHost, changes


def test_deletion_disabled(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, disable_terminate=1)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("deletion-disabled", "note")
    assert finding.headline == (
        "vm-plain can't be deleted: nova's record has disable_terminate, and ignores each request"
    )
    assert changes(finding) == [
        f"UPDATE nova.instances SET disable_terminate = 0 WHERE uuid = '{uuid}' AND deleted = 0"
    ]
