"""Folders of snapshots that nova did not finish."""

from __future__ import annotations

from typing import Any

from tests.conftest import RecordedHost, changes

LISTING = "find /var/lib/nova/instances -ls"
FOLDER = "/var/lib/nova/instances/snapshots/tmpk3x0v9qz"


def _left(host: RecordedHost, mtime: str) -> None:
    """Add a temporary folder with a copy of 64 MiB to the listing."""
    lines: list[dict[str, Any]] = host.last("images", LISTING).value
    like = {kind: next(line for line in lines if line["type"] == kind) for kind in "df"}
    copy = {"path": f"{FOLDER}/0d6c1f2a", "size": 64 << 20, "blocks": 131072, "mtime": mtime}
    host.set("images", LISTING, [*lines, like["d"] | {"path": FOLDER}, like["f"] | copy])


def test_snapshot_folder_left(host: RecordedHost) -> None:
    _left(host, "2026-01-01T00:00:00+00:00")

    assert host.headlines() == [
        "1 folder of unfinished snapshots on vm (64 MiB): …/snapshots/tmpk3x0v9qz"
    ]
    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("snapshot-folder-left", "note")
    assert changes(finding) == [f"rm -r {FOLDER}"]


def test_a_snapshot_may_be_in_progress(host: RecordedHost) -> None:
    _left(host, host.last("images", LISTING).at.isoformat())

    assert host.findings() == []


def test_a_copy_may_be_uploaded_for_days(host: RecordedHost) -> None:
    _left(host, "2026-01-01T00:00:00+00:00")
    host.task("vm-plain", "image_uploading")

    assert "snapshot-folder-left" not in "".join(host.findings())
