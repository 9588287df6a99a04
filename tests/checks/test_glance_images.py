"""Images in glance, and the copies of their descriptions."""

from __future__ import annotations

import json

import pytest
from tests.checks.test_attachments import NOBODY, named, volume_says
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer, Failure
from hoodsnap.findings.advice import instructions

LIST = "GET /v2/images?limit=1000"
ZEROS = "0" * 32


def image(host: RecordedHost, uuid: str, **fields: object) -> None:
    """Set fields of an image, in the list and in its own answer."""
    listed = host.last("glance", LIST).value
    changed = [one | fields if one["id"] == uuid else one for one in listed["images"]]
    assert changed != listed["images"]
    host.set("glance", LIST, listed | {"images": changed})
    one = f"GET /v2/images/{uuid}"
    if any(answer.query == one for answer in host.bundle.by_layer["glance"]):
        host.set("glance", one, host.last("glance", one).value | fields)


def forget(host: RecordedHost, key: str) -> None:
    """Remove the rows of a key from every answer of instance_system_metadata."""
    for answer in host.bundle.by_layer["nova-db"]:
        query = answer.query.replace("`", "")
        if query.startswith("SELECT") and ".instance_system_metadata" in query:
            number = answer.value["columns"].index("key")
            kept = [row for row in answer.value["rows"] if row[number] != key]
            host.set("nova-db", answer.query, answer.value | {"rows": kept})


def image_of(host: RecordedHost, name: str) -> str:
    return next(
        str(guest.instance.image)
        for guest in host.report().cloud.guests
        if guest.name == name and guest.instance is not None
    )


def shelved(host: RecordedHost) -> str:
    found = next(one for one in host.report().cloud.guests if one.name == "vm-shelved")
    assert found.instance is not None and found.instance.shelved_image is not None
    return found.instance.shelved_image


def metadata(host: RecordedHost, name: str, key: str, value: str) -> None:
    """Set a value of a server's system metadata, in every answer."""
    uuid, edited = host.uuid(name), 0
    for answer in host.bundle.by_layer["nova-db"]:
        if ".instance_system_metadata WHERE" not in answer.query or not answer.value:
            continue
        body = json.loads(json.dumps(answer.value))
        at = [body["columns"].index(column) for column in ("instance_uuid", "key", "value")]
        for row in body["rows"]:
            if [row[at[0]], row[at[1]]] == [uuid, key]:
                row[at[2]] = value
                edited += 1
        host.set("nova-db", answer.query, body)
    assert edited


def healthy_machine_type(host: RecordedHost, name: str) -> str:
    instance = host.guest(name).instance
    assert instance is not None
    return instance.image_copy["hw_machine_type"]


def test_shelve_image_unusable(host: RecordedHost) -> None:
    gone = shelved(host)
    listed = host.last("glance", LIST).value
    kept = [one for one in listed["images"] if one["id"] != gone]
    host.set("glance", LIST, listed | {"images": kept})

    assert host.headlines() == [f"vm-shelved's shelve image {gone[:8]} does not exist in glance"]
    assert [one.severity.word for one in host.report().findings] == ["error"]


def test_a_list_that_goes_on_proves_no_absence(host: RecordedHost) -> None:
    gone = shelved(host)
    listed = host.last("glance", LIST).value
    kept = [one for one in listed["images"] if one["id"] != gone]
    more = {"images": kept, "next": "/v2/images?limit=1000&marker=x"}
    host.set("glance", LIST, more)

    assert host.findings() == []


@pytest.mark.parametrize("status", ["deactivated", "queued", "killed"])
def test_a_shelve_image_that_is_not_active(host: RecordedHost, status: str) -> None:
    image(host, shelved(host), status=status)

    assert host.headlines() == [
        f"vm-shelved's shelve image vm-shelved-shelved is {status} in glance"
    ]


def test_shelve_image_unusable_if_nova_does_not_name_it(host: RecordedHost) -> None:
    uuid, image_id = host.uuid("vm-shelved"), shelved(host)
    forget(host, "shelved_image_id")

    assert host.headlines() == [
        "vm-shelved is shelved_offloaded, but nova's record names no image to restore it from; "
        "glance has vm-shelved-shelved"
    ]
    [finding] = host.report().findings
    [command] = changes(finding)
    assert command.endswith(f"'{uuid}', 'shelved_image_id', '{image_id}')")


@pytest.mark.parametrize("field", ["owner", "instance_uuid", "base_image_ref"])
def test_a_shelve_image_of_another_server(host: RecordedHost, field: str) -> None:
    image(host, shelved(host), **{field: NOBODY})

    assert named(host) == ["shelve-image-unusable of vm-shelved"]
    assert [one.severity.word for one in host.report().findings] == ["warning"]


def test_image_not_usable(host: RecordedHost) -> None:
    image(host, image_of(host, "vm-snap"), status="killed")

    assert host.headlines() == ["vm-snap's image plain-snap is killed in glance"]
    assert [found.severity.word for found in host.report().findings] == ["warning"]


def test_an_image_that_was_deactivated_on_purpose_is_a_note(host: RecordedHost) -> None:
    image(host, image_of(host, "vm-snap"), status="deactivated")

    assert host.headlines() == ["vm-snap's image plain-snap is deactivated in glance"]
    assert [found.severity.word for found in host.report().findings] == ["note"]


def test_an_image_that_was_deleted_is_no_finding(host: RecordedHost) -> None:
    uuid = image_of(host, "vm-snap")
    asked = host.last("glance", f"GET /v2/images/{uuid}")
    gone = Failure(kind="absent", message="HTTP 404")
    host.drop(lambda answer: answer.query != asked.query)
    host.add(Answer(**asked.model_dump(exclude={"value", "error"}), error=gone))

    assert "image-not-usable of vm-snap" not in named(host)


@pytest.mark.parametrize(
    ("field", "value"), [("checksum", ZEROS), ("size", 1), ("disk_format", "raw")]
)
def test_image_record_differs(host: RecordedHost, field: str, value: object) -> None:
    image(host, image_of(host, "vm-snap"), **{field: value})

    assert "image-record-differs of vm-snap" in named(host)


def test_cinders_copy_of_an_image_differs(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-bfv")
    found = next(one for one in host.report().cloud.guests if one.name == "vm-bfv")
    [copied] = [one.image for one in found.volumes or () if one.id == volume]
    volume_says(host, volume, volume_image_metadata={**copied, "checksum": ZEROS})

    [headline] = host.headlines()
    assert headline.startswith("volume 0ab94923's image lab-guest has checksum 00000000")


def test_a_property_that_changed_later_is_no_finding(host: RecordedHost) -> None:
    uuid = image_of(host, "vm-snap")
    image(host, uuid, hw_video_model="vga", updated_at="2026-11-25T18:36:00Z")

    assert host.findings() == []


def test_a_property_that_the_server_never_got_is_a_note(host: RecordedHost) -> None:
    image(host, image_of(host, "vm-snap"), hw_video_model="vga")

    assert host.headlines() == [
        "vm-snap's copy of image plain-snap has hw_video_model virtio, but it is vga in glance,"
        " which has not changed it since"
    ]


def test_a_machine_type_that_nova_manage_updated_is_legal(host: RecordedHost) -> None:
    """`nova-manage libvirt update_machine_type` changes the server's copy, not the image."""
    own = healthy_machine_type(host, "vm-snap")
    image(host, image_of(host, "vm-snap"), hw_machine_type=f"{own}-5.2")

    assert host.findings() == []


def test_another_kernel_than_the_images(host: RecordedHost) -> None:
    image(host, image_of(host, "vm-linux"), kernel_id=NOBODY)

    assert any("starts with kernel_id f0e27fd7" in headline for headline in host.headlines())


def test_image_property_not_in_guest(host: RecordedHost) -> None:
    host.row("block_device_mapping", host.uuid("vm-duo"), disk_bus="sata")

    assert host.headlines() == [
        "vm-duo runs with root disk vda on bus virtio, but nova's record of its image has"
        " hw_disk_bus sata"
    ]


def test_a_copy_that_differs_from_the_guest_and_from_glance_is_one_finding(
    host: RecordedHost,
) -> None:
    metadata(host, "vm-snap", "image_hw_disk_bus", "ide")
    host.row("block_device_mapping", host.uuid("vm-snap"), disk_bus=None)

    [finding] = host.report().findings
    assert finding.check.name == "image-property-not-in-guest"
    assert [part.said for part in finding.evidence[1:]] == [
        (("hw_disk_bus", "ide"),),
        (("hw_disk_bus", "virtio"),),
    ]
    assert "image-record-differs" not in {one.check.name for one in host.report().everything()}


def test_the_bus_of_the_first_start_counts(host: RecordedHost) -> None:
    metadata(host, "vm-duo", "image_hw_disk_bus", "sata")

    assert "image-property-not-in-guest of vm-duo" not in named(host)


def test_firmware_is_compared(host: RecordedHost) -> None:
    metadata(host, "vm-duo", "image_os_distro", "x")
    uuid = host.uuid("vm-duo")
    for answer in host.bundle.by_layer["nova-db"]:
        if ".instance_system_metadata WHERE" in answer.query and uuid in answer.query:
            text = json.dumps(answer.value)
            uefi = text.replace('"image_os_distro", "x"', '"image_hw_firmware_type", "uefi"')
            host.set("nova-db", answer.query, json.loads(uefi))

    assert "image-property-not-in-guest of vm-duo" in named(host)


def test_a_rescued_server_has_the_bus_of_the_rescue_image(host: RecordedHost) -> None:
    metadata(host, "vm-rescued", "image_hw_disk_bus", "sata")
    host.row("block_device_mapping", host.uuid("vm-rescued"), disk_bus="sata")

    assert "image-property-not-in-guest of vm-rescued" not in named(host)


def test_glance_returned_another_image(host: RecordedHost) -> None:
    uuid = image_of(host, "vm-snap")
    query = f"GET /v2/images/{uuid}"
    host.set("glance", query, host.last("glance", query).value | {"id": NOBODY})

    assert host.headlines() == [
        f"On vm, the answer to a question about {uuid[:8]} is about {NOBODY[:8]}",
        f"glance returned image {NOBODY[:8]} for vm-snap's image {uuid[:8]}",
    ]
    [finding] = host.report().findings
    assert finding.check.name == "answer-about-another-object"


def _alone(host: RecordedHost, uuid: str, **fields: object) -> None:
    """Change an image in the answer about it, but not in the list."""
    query = f"GET /v2/images/{uuid}"
    host.set("glance", query, host.last("glance", query).value | fields)


@pytest.mark.parametrize("field", ["min_disk", "size"])
def test_glance_answers_differ(host: RecordedHost, field: str) -> None:
    uuid = next(it.query for it in host.bundle.by_layer["glance"] if "images/" in it.query)[-36:]
    _alone(host, uuid, **{field: 7})

    [finding] = [f for f in host.report().everything() if f.check.name == "glance-answers-differ"]
    assert finding.headline.endswith(f" in glance's list, but {field} 7 by itself")


def test_an_image_that_changed_between_two_questions(host: RecordedHost) -> None:
    uuid = next(it.query for it in host.bundle.by_layer["glance"] if "images/" in it.query)[-36:]
    _alone(host, uuid, min_disk=7, updated_at="2026-11-25T18:36:40Z", tags=["new"])

    assert not any("glance-answers-differ" in line for line in host.findings())


HOURS = "2026-11-25T15:30:00Z"
"""Three hours before the recording."""
DAYS = "2026-11-20T15:30:00Z"


def snapshot(host: RecordedHost, asked: str | None, **fields: object) -> str:
    """Make `plain-snap` a snapshot of vm-plain that is not finished; return its id.

    `asked`: when nova was asked for a snapshot; None for an action that makes none.
    """
    listed = host.last("glance", LIST).value["images"]
    [uuid] = [str(one["id"]) for one in listed if one["name"] == "plain-snap"]
    image(host, uuid, **{"status": "queued", "checksum": None, "size": None} | fields)
    edited = 0
    for answer in host.bundle.by_layer["nova-db"]:
        if ".instance_actions WHERE" in answer.query and "createImage" in str(answer.value):
            body = json.loads(json.dumps(answer.value))
            at = [body["columns"].index(column) for column in ("action", "start_time")]
            for row in body["rows"]:
                if row[at[0]] == "createImage":
                    row[at[0]] = "createImage" if asked else "reboot"
                    row[at[1]] = asked or row[at[1]]
                    edited += 1
            host.set("nova-db", answer.query, body)
    assert edited
    return uuid


def stuck(host: RecordedHost) -> list[str]:
    found = host.report().everything()
    return [it.headline for it in found if it.check.name == "snapshot-image-stuck"]


@pytest.mark.parametrize("status", ["queued", "saving"])
def test_snapshot_image_stuck(host: RecordedHost, status: str) -> None:
    asked = HOURS.replace("T", " ").replace("30:00Z", "29:58")
    uuid = snapshot(host, asked, status=status, created_at=HOURS, updated_at=HOURS)

    assert stuck(host) == [
        f"Snapshot plain-snap of vm-plain has been {status} in glance since 15:30 (3 h 6 min), but "
        "the server has no task"
    ]
    finding = host.found("snapshot-image-stuck")
    assert finding.severity.word == "warning"
    assert finding.guest is not None
    assert finding.guest.name == "vm-plain"
    assert [
        command.text
        for step in instructions(finding)
        for command in step.commands
        if command.changes
    ] == [
        f"openstack image delete {uuid}",
        f"openstack server image create --name NEW_NAME {host.uuid('vm-plain')}",
    ]


def test_a_snapshot_of_last_week_is_stuck_whoever_asked_for_it(host: RecordedHost) -> None:
    snapshot(host, None, created_at=DAYS, updated_at=DAYS)

    assert len(stuck(host)) == 1


def test_cinder_may_upload_a_volume_that_was_made_from_a_snapshot(host: RecordedHost) -> None:
    snapshot(host, None, created_at=HOURS, updated_at=HOURS)

    assert stuck(host) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"updated_at": "2026-11-25T17:40:00Z"},
        {"status": "active"},
        {"status": "killed"},
        {"image_type": "base"},
        {"instance_uuid": NOBODY},
    ],
)
def test_other_images_are_not_stuck(host: RecordedHost, fields: dict[str, str]) -> None:
    snapshot(host, DAYS[:10], **{"created_at": DAYS, "updated_at": DAYS} | fields)

    assert stuck(host) == []


def test_a_snapshot_in_progress_is_not_stuck(host: RecordedHost) -> None:
    snapshot(host, None, created_at=DAYS, updated_at=DAYS)
    host.task("vm-plain", "image_uploading")

    assert stuck(host) == []


def test_a_task_without_a_worker_finishes_no_snapshot(host: RecordedHost) -> None:
    snapshot(host, None, created_at=DAYS, updated_at=DAYS)
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, task_state="image_uploading", updated_at="2026-11-20 15:30:00")
    host.server(uuid, task_state="image_uploading")

    assert len(stuck(host)) == 1
    assert stuck(host)[0].endswith("but nova does not work on image_uploading any more")
