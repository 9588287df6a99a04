"""Operations on volumes that never ended."""

from __future__ import annotations

from typing import Any

import pytest
from tests.checks.test_attachments import NOBODY, moving, named, unplug, volume_says
from tests.conftest import RecordedHost

from hoodsnap.findings.advice import instructions

LONG_AGO = "2026-11-21T08:00:00.000000"
LISTED = "GET /v3/volumes/detail?all_tenants=True [3.70]"


def commands(host: RecordedHost, check: str) -> list[str]:
    """Return the commands that the first finding of a check advises."""
    found = next(one for one in host.report().findings if one.check.name == check)
    return [command.text for step in instructions(found) for command in step.commands]


def stuck(host: RecordedHost, status: str = "detaching", **fields: Any) -> str:
    """Let the volume of vm-data have had a status for days."""
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status=status, updated_at=LONG_AGO, **fields)
    return volume


def another(host: RecordedHost, **fields: Any) -> None:
    """Give cinder a volume that no server has."""
    body = host.last("cinder", LISTED).value
    [first, *_] = body["volumes"]
    more = first | {"id": NOBODY, "name": "spare", "attachments": [], "updated_at": LONG_AGO}
    host.set("cinder", LISTED, body | {"volumes": [*body["volumes"], more | fields]})


def test_volume_stuck(host: RecordedHost) -> None:
    volume = stuck(host)

    assert named(host) == ["volume-stuck of vm-data"]
    assert host.headlines() == [
        "vm-data's volume data-vol has been detaching since 2026-11-21 08:00 (4 d 10 h); nova and"
        " the guest have it, its attachment is attached"
    ]
    advised = commands(host, "volume-stuck")
    assert f"openstack volume set --state in-use {volume}" in advised
    assert not any("attachment-delete" in command for command in advised)


@pytest.mark.parametrize("status", ["error_extending", "error_restoring", "error_backing-up"])
def test_an_operation_that_failed_is_reported_at_once(host: RecordedHost, status: str) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status=status)

    assert named(host) == ["volume-stuck of vm-data"]


@pytest.mark.parametrize("status", ["detaching", "extending", "retyping", "uploading", "deleting"])
def test_an_operation_that_began_just_now_is_not_stuck(host: RecordedHost, status: str) -> None:
    volume, _ = host.volume("vm-data")
    moving(host, volume, status)

    assert "volume-stuck of vm-data" not in named(host)


def test_a_copy_may_take_a_day(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status="retyping", updated_at="2026-11-24T18:00:00.000000")

    assert host.findings() == []


def test_a_migration_that_never_ended_is_stuck(host: RecordedHost) -> None:
    stuck(host, "in-use", **{"os-vol-mig-status-attr:migstat": "migrating"})

    [headline] = host.headlines()
    assert headline.startswith("vm-data's volume data-vol has been migrating since ")


def test_a_migration_that_nothing_copies_is_stuck(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    since = {"updated_at": "2026-11-25T08:00:00.000000"}
    volume_says(host, volume, **since, **{"os-vol-mig-status-attr:migstat": "migrating"})

    assert named(host) == ["volume-stuck of vm-data"]
    advised = commands(host, "volume-stuck")
    assert f"cinder reset-state --reset-migration-status {volume}" in advised
    assert not any("--state" in command for command in advised)


def test_a_migration_that_libvirt_copies_may_take_a_day(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    since = {"updated_at": "2026-11-25T08:00:00.000000"}
    volume_says(host, volume, **since, **{"os-vol-mig-status-attr:migstat": "migrating"})
    job = {"type": 2, "cur": 1, "end": 9}
    host.set("libvirt", f"virsh blockjob {host.domain('vm-data')} vdb", job)

    assert "volume-stuck of vm-data" not in named(host)


def test_a_volume_in_use_for_days_is_not_stuck(host: RecordedHost) -> None:
    stuck(host, "in-use")

    assert host.findings() == []


@pytest.mark.parametrize("status", ["awaiting-transfer", "unheard-of"])
def test_a_status_that_no_used_volume_has(host: RecordedHost, status: str) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status=status)

    [headline] = host.headlines()
    assert headline.startswith(f"vm-data's volume data-vol has status {status} in cinder; nova and")


def test_unattached_volume_stuck(host: RecordedHost) -> None:
    another(host, status="creating")

    assert host.headlines() == [
        "Volume spare, which no server has, has been creating since 2026-11-21 08:00 (4 d 10 h)"
    ]
    assert "openstack volume set --state error" in commands(host, "unattached-volume-stuck")[-2]


def test_volumes_that_failed_are_one_note(host: RecordedHost) -> None:
    another(host, status="error")

    assert host.headlines() == ["1 volume without a server is in error: volume spare"]
    assert [found.severity.word for found in host.report().findings] == ["note"]


@pytest.mark.parametrize("status", ["available", "awaiting-transfer", "in-use"])
def test_a_volume_that_no_server_has_may_be_old(host: RecordedHost, status: str) -> None:
    another(host, status=status)

    assert host.findings() == []


def unattached(host: RecordedHost, status: str) -> str:
    """Set the status of the attachment of vm-data's volume; cinder then does not list it."""
    volume, attachment = host.volume("vm-data")

    def change(what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "attachment":
            return body | {"status": status} if body["id"] == attachment else body
        return body | {"attachments": [], "updated_at": LONG_AGO} if body["id"] == volume else body

    host.cinder(change)
    host.mapping(volume, updated_at="2026-11-21 08:00:00")
    return attachment


@pytest.mark.parametrize("status", ["attaching", "reserved", "error_attaching", "detaching"])
def test_attachment_stuck(host: RecordedHost, status: str) -> None:
    attachment = unattached(host, status)

    assert named(host) == ["attachment-stuck of vm-data"]
    [headline] = host.headlines()
    assert headline == (
        f"cinder's attachment {attachment[:8]} of vm-data's volume data-vol is {status} since"
        " 2026-11-21 08:00 (4 d 10 h), but the guest has the volume"
    )
    advised = commands(host, "attachment-stuck")
    assert any(f"attachment-complete {attachment}" in command for command in advised)
    assert not any("server stop" in command for command in advised)


def test_an_attachment_that_the_guest_does_not_have_is_made_again(host: RecordedHost) -> None:
    unattached(host, "reserved")
    unplug(host, "vm-data", host.volume("vm-data")[0])

    assert "attachment-stuck of vm-data" in named(host)
    advised = commands(host, "attachment-stuck")
    assert f"openstack server stop {host.uuid('vm-data')}" in advised
    assert not any("attachment-complete" in command for command in advised)


def test_an_attachment_that_began_just_now_is_not_stuck(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    unattached(host, "attaching")
    asked = host.last("cinder", LISTED).at
    volume_says(host, volume, updated_at=f"{asked:%Y-%m-%dT%H:%M:%S}")

    assert host.findings() == []


def test_the_volumes_of_a_shelved_server_are_reserved(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    unattached(host, "reserved")
    volume_says(host, volume, status="reserved")
    host.row("instances", host.uuid("vm-data"), vm_state="shelved_offloaded")
    host.server(host.uuid("vm-data"), vm_state="shelved_offloaded", status="SHELVED_OFFLOADED")

    assert not {"volume-stuck of vm-data", "attachment-stuck of vm-data"} & {*named(host)}


def test_an_attach_that_never_ended_is_one_finding(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    volume_says(host, volume, status="attaching", updated_at="2026-11-21T08:00:00.000000")
    unplug(host, "vm-data", volume)

    assert "bdm-not-in-guest" not in " ".join(host.findings())
    assert "volume-stuck ← bdm-not-in-guest of vm-data" in [
        line.partition(":")[0] for line in host.folded()
    ]


def test_a_volume_that_cinder_migrates_is_remarked(host: RecordedHost) -> None:
    uuid, volume = host.uuid("vm-data"), host.volume("vm-data")[0]
    asked = host.last("cinder", "GET /v3/os-services [3.70]").at
    fields = {"os-vol-mig-status-attr:migstat": "migrating"}
    volume_says(host, volume, updated_at=asked.strftime("%Y-%m-%dT%H:%M:%S.000000"), **fields)

    report = host.report()
    assert report.findings == ()
    assert "cinder is migrating its volume" in {
        skip.reason
        for skip in report.skips
        if skip.guest is not None and skip.guest.uuid == uuid and skip.legal and skip.differs
    }
