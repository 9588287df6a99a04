"""The id of a server's image in its row, against nova's other copies of the id."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, changes

OTHER = "aaaaaaaa-1111-4222-8333-444455556666"


def _image_of(host: RecordedHost, name: str) -> str:
    instance = host.guest(name).instance
    assert instance is not None and instance.image is not None
    return instance.image


def test_image_reference_changed(host: RecordedHost) -> None:
    uuid, own = host.uuid("vm-plain"), _image_of(host, "vm-plain")
    host.row("instances", uuid, image_ref=OTHER)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("image-reference-changed", "error")
    assert finding.headline == (
        "vm-plain's row in nova has image aaaaaaaa, but its other records have lab-guest "
        f"({own[:8]})"
    )
    assert changes(finding) == [
        f"UPDATE nova.instances SET image_ref = '{own}' WHERE uuid = '{uuid}' AND deleted = 0"
    ]


@pytest.mark.parametrize("name", ["vm-linux", "vm-snap"])
def test_what_reads_the_wrong_image_is_explained(host: RecordedHost, name: str) -> None:
    host.row("instances", host.uuid("vm-plain"), image_ref=_image_of(host, name))

    assert [finding.check.name for finding in host.report().findings] == ["image-reference-changed"]


def test_one_copy_that_differs_is_reported_by_other_checks(host: RecordedHost) -> None:
    host.cells("instances", host.uuid("vm-plain"), image_ref=OTHER)
    host.mappings(
        lambda row: (
            [row | {"image_id": OTHER}]
            if row["instance_uuid"] == host.uuid("vm-plain") and "image_id" in row
            else [row]
        )
    )

    assert "image-reference-changed" not in "".join(host.findings())
