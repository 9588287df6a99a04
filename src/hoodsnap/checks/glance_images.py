"""Images in glance, and the copies that nova and cinder have of their descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, never_launched, rescued, task_in_flight
from hoodsnap.evidence import Evidence, Severity, derives, hears, says
from hoodsnap.facts.api.glance_image import GONE, WITHHELD, GlanceImage
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.request_spec import RequestSpec
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, UnheardError, known, text
from hoodsnap.phrase import brief, several

BUSY = frozenset(["queued", "saving", "importing", "uploading"])
"""Statuses of an image whose data is not complete yet."""

DEACTIVATED = "deactivated"
"""Status of an image whose data an administrator withholds."""

OF_DATA = ("checksum", "size", "disk_format", "container_format")
"""Fields that never change once an image is active."""

OF_OWNER = ("name", "owner", "min_disk", "min_ram")
"""Fields that the owner may change."""

NOT_COPIED = ("img_mappings", "img_block_device_mapping")
"""Properties that are too long for nova's copy."""

CHANGED_LATER = "hw_machine_type"
"""Property whose copy `nova-manage libvirt update_machine_type` changes. machine-or-cpu-drift
compares it with the domain."""

NO_KERNEL = frozenset(["", "nokernel"])
"""Values of kernel_id for an image that is no kernel's."""


class ImageCopy(NamedTuple):
    """A copy of a field of an image."""

    words: str
    """Where it stands: `nova's request spec`."""
    value: object
    fact: Fact
    field: str
    """The fact's field that holds it."""

    def evidence(self, name: str) -> Evidence:
        """Return the evidence of the copy; it is made only for a copy that differs."""
        return derives(self.fact, self.field, **{name: self.value})


@check(Severity.ERROR, traps=[task_in_flight])
def shelve_image_unusable(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """A shelved server can't be restored from its image in glance.

    When nova offloads a shelved server, it removes the disk from the host. The image that it took
    before is the only copy of the data. Unshelving fails if the image does not exist, is not
    active, or belongs to another project. If nova's record does not name the image, unshelving
    starts the server from the image that it was created from, without its data.

    Authority: glance.

    Traps: A server that boots from a volume has no such image. Only an administrator's list of
    images contains every image. Hidden images are not in the list. If an administrator shelves a
    server, the image belongs to the administrator's project and is shared with the server's.

    Next: Check the image, and the server's history:

        openstack image show IMAGE
        openstack server event list UUID

    If the image is deactivated, ask who deactivated it, and activate it again:

        openstack image set --activate IMAGE

    If its owner is wrong, correct it:

        openstack image set --project PROJECT IMAGE

    If the image does not exist, restore it from a backup of glance's storage with the same id.

    If nova's record names no image, find the newest snapshot of the server in glance, whose name
    ends in `-shelved`:

        openstack image list --property instance_uuid=UNNAMED --long

    If its data are the server's, write its id into the cell's database, after a backup of it; no
    command of nova does it:

        INSERT INTO DATABASE.instance_system_metadata (created_at, deleted, instance_uuid, `key`, value) VALUES (UTC_TIMESTAMP(), 0, 'UNNAMED', 'shelved_image_id', 'SHELVED_IMAGE')

    It worked if the image is active and owned by the server's project, and nova's record names it:

        openstack image show IMAGE -c status -c owner
        SELECT value FROM DATABASE.instance_system_metadata WHERE instance_uuid = 'UNNAMED' AND `key` = 'shelved_image_id'

    Not yet: Do not run `openstack server unshelve`: it fails and may leave the server in error, or
    starts the server without its data. Do not delete the server, or its snapshots.

    Source: nova compute/manager.py `_shelve_instance`, compute/api.py `unshelve`.
    """  # noqa: E501 (an SQL statement is one line)
    if instance.deleted or instance.vm_state != "shelved_offloaded":
        return
    uuid = instance.shelved_image
    if uuid is None:
        yield from _unnamed(guest, cloud, instance)
        return
    where = says(instance, shelved_image=uuid)
    its = f"{guest.title}'s shelve image {brief(uuid)}"
    names = {"IMAGE": uuid, "PROJECT": "", "UNNAMED": "", "SHELVED_IMAGE": ""}
    image = cloud.glance.by_id.get(uuid)
    if image is None:
        proof = cloud.glance.absent.get(uuid) or cloud.glance.list
        if proof is None or not cloud.servers.sees_all:
            raise UnheardError("glance: the server's shelve image was not collected")
        none = hears(proof, "glance", image=None)
        yield problem(f"{its} does not exist in glance", where, none, severity=None, **names)
        return
    name = f"{guest.title}'s shelve image {image.name or brief(uuid)}"
    if image.status != "active":
        shown = says(image, id=uuid, status=image.status)
        yield problem(f"{name} is {image.status} in glance", where, shown, severity=None, **names)
    for field, theirs, ours in _of_a_snapshot(image, instance):
        project = ours if field == "owner" else ""
        shown = derives(image, field, **{field: theirs})
        yield problem(
            f"{name} has {field} {brief(str(theirs))} in glance, but {guest.title} has "
            f"{brief(str(ours))}",
            where,
            shown,
            derives(instance, "raw", **{f"own_{field}": ours}),
            severity=Severity.WARNING,
            **{**names, "PROJECT": project},
        )


def _unnamed(guest: Guest, cloud: Cloud, instance: Instance) -> Iterator[Problem]:
    """Report an offloaded server whose record names no image, although its disk was a file.

    nova then starts it from the image that it was created from.
    """
    if instance.boots_from_volume:
        return
    snapshots = cloud.glance.snapshots.get(guest.uuid, ())
    taken = [it for it in snapshots if it.name.endswith("-shelved")]
    newest = max(taken, key=lambda it: str(it.updated_at or ""), default=None)
    likely = f"; glance has {newest.name}" if newest is not None else ""
    yield problem(
        f"{guest.title} is {instance.vm_state}, but nova's record names no image to restore it "
        f"from{likely}",
        says(instance, vm_state=instance.vm_state, shelved_image=None),
        *([says(newest, id=newest.id, name=newest.name)] if newest is not None else []),
        IMAGE="",
        PROJECT="",
        UNNAMED=guest.uuid,
        SHELVED_IMAGE=newest.id if newest is not None else None,
        DATABASE=plain_name(instance.database),
    )


def _of_a_snapshot(image: GlanceImage, instance: Instance) -> Iterator[tuple[str, str, str]]:
    """Yield field, glance's value and the server's value, where a snapshot is another server's."""
    pairs = (
        ("owner", image.owner, text(instance.raw, "project_id")),
        ("instance_uuid", image.instance_uuid, instance.uuid),
        ("base_image_ref", image.base_image_ref, known(lambda: instance.base_image)),
    )
    for field, theirs, ours in pairs:
        if field == "owner" and image.is_shared_with(instance.raw.get("project_id")):
            continue  # an administrator shelved the server
        if theirs and ours and theirs != ours:
            yield field, theirs, ours


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched])
def image_not_usable(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """The image of a server can't be downloaded from glance.

    The guest itself does not need it. But a rebuild, a rescue, an evacuation, and a move to a host
    without this base image fail. An image that was deactivated is a note: only an administrator
    does that, and on purpose.

    Authority: glance.

    Traps: Many clouds delete old images while servers still use them: an image that does not exist
    is not reported here. An image whose upload is in progress.

    Next: Check the image's status, and which base images the hosts have:

        openstack image show IMAGE
        ls -l INSTANCES_PATH/_base

    If the image was deactivated and is needed, activate it again:

        openstack image set --activate IMAGE

    It worked if the image is active:

        openstack image show IMAGE -c status

    Not yet: Do not rebuild, rescue or evacuate the server. Do not remove its base image.

    Source: glance, "Image statuses"; nova virt/libvirt/imagebackend.py `cache`.
    """
    if instance.deleted or instance.image is None:
        return
    image = cloud.glance.by_id.get(instance.image)
    if image is None or image.status in ("active", *GONE):
        return
    if image.status in BUSY and image.checksum is None:
        return
    yield problem(
        f"{guest.title}'s image {image.name or brief(instance.image)} is {image.status} in glance",
        says(instance, image=instance.image),
        says(image, id=image.id, status=image.status),
        severity=Severity.NOTE if image.status == DEACTIVATED else None,
        IMAGE=instance.image,
    )


UNFINISHED = frozenset(["queued", "saving"])
"""Statuses of a snapshot that nova has begun and not finished."""

SNAPSHOT_TAKES = timedelta(hours=1)
"""Age of an unfinished snapshot from which on it is reported, if the server has no task."""

AT_ONCE = timedelta(minutes=2)
"""Longest time between a request for a snapshot and its image in glance."""

UPLOAD_TAKES = timedelta(days=1)
"""Longest time for which cinder may upload a volume: the image may have a snapshot's properties if
the volume was made from one."""

MAKES_SNAPSHOT = frozenset(["createImage", "createBackup", "shelve"])
"""Actions of a server that make a snapshot in glance."""


@check(Severity.WARNING, traps=[task_in_flight])
def snapshot_image_stuck(guest: Guest, cloud: Cloud, record: Server | Instance) -> Problems:
    """A snapshot of the server was begun in glance, and will never be finished.

    nova creates the image (queued) before it copies the disk into it (saving), and the server has a
    task_state until the copy has ended. If nova-compute stops in between, it clears the task_state
    at its next start and leaves the image behind. The image has no data, or only a part: it is no
    backup. The guest and its disks are not affected.

    Authority: glance, for the image; nova, for the task.

    Traps: An upload takes hours for a large disk, and the server has a task_state meanwhile. cinder
    uploads a volume without a task of the server.

    Next: Check the image, and what was requested of the server when the image was created:

        openstack image show IMAGE
        openstack server show UUID -c OS-EXT-STS:task_state
        openstack server event list UUID

    If no task is in progress, delete the image, which no server can use:

        openstack image delete IMAGE

    If the snapshot is still needed, take it again:

        openstack server image create --name NEW_NAME UUID

    It worked if the new image is active:

        openstack image show NEW_NAME -c status

    Not yet: Do not count the image as a backup. Do not delete it while a task of the server is in
    progress. Do not reboot or rebuild the server, or reset its state: nothing is wrong with it.

    Source: nova compute/manager.py `_snapshot_instance`, `_init_instance`; glance, "Image
    statuses".
    """
    if not guest.carries_record:
        return
    for image in cloud.glance.snapshots.get(guest.uuid, ()):
        since, answer = image.updated_at, image.said["body"]
        own = isinstance(record, Instance) and image.id == record.shelved_image
        if image.status not in UNFINISHED or since is None or own:
            continue  # shelve-image-unusable reports the image of a shelved server
        age = answer.at - since
        if age < SNAPSHOT_TAKES or (age < UPLOAD_TAKES and not _is_novas(image, record)):
            continue
        task = record.task_state
        yield problem(
            f"Snapshot {image.name or brief(image.id)} of {guest.title} has been {image.status} in "
            f"glance {phrase.since(since, answer.at)}, but "
            + (f"nova does not work on {task} any more" if task else "the server has no task"),
            says(image, status=image.status, updated_at=f"{since:%Y-%m-%d %H:%M:%S}"),
            says(record, vm_state=record.vm_state, task_state=record.task_state),
            IMAGE=image.id,
        )


def _is_novas(image: GlanceImage, record: Server | Instance) -> bool:
    """True if nova was asked for a snapshot just before the image was created."""
    made = moment(text(image.raw, "created_at"))
    actions = known(lambda: record.actions) if isinstance(record, Instance) else None
    asked = [moment(one.start_time) for one in actions or () if one.action in MAKES_SNAPSHOT]
    return made is not None and any(when and abs(made - when) < AT_ONCE for when in asked)


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched])
def image_record_differs(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """nova's or cinder's copy of an image's description differs from the image in glance.

    nova builds a guest from its own copy of the image's properties, and downloads the image again
    for a rebuild, a rescue or a move. The data of an image never changes once it is active: if its
    checksum, size or formats differ, the image was replaced behind its id, or a record was edited,
    and the next download is not what the server was made from. Other fields may change. If they
    differ although the image has not changed since, this is a note, or a warning if the next start
    gives the guest other hardware.

    Authority: glance.

    Traps: The name, the owner and the properties of an image may change later. A snapshot of a
    server has properties of its own. A rebuilt server may have an older image. An operator may have
    updated the server's machine type. `image-property-not-in-guest` reports a property that the
    running guest does not have.

    Next: Compare the image with the base image that the server uses, and with the other copies:

        openstack image show IMAGE
        openstack --os-compute-api-version 2.3 server show UUID
        ls -l INSTANCES_PATH/_base

    If glance's image was replaced, keep the base image below the guest's disk: it may be the only
    copy of the old data. Upload it as a new image:

        openstack image create --disk-format raw --container-format bare --file BASE NEW_NAME

    It worked if the new image is active:

        openstack image show NEW_NAME -c status

    If the server's copy of a property is wrong, set it back. nova accepts that while the server is
    stopped or shelved (Yoga and later):

        nova-manage image_property set OFF_SERVER --property PROPERTY=VALUE

    It worked if the copy has the value:

        nova-manage image_property show UUID PROPERTY

    If another record was edited, restore the row from a backup of the database.

    Not yet: Do not start, hard-reboot, rebuild, rescue, evacuate or migrate the server. Do not
    remove the base image.

    Source: nova utils.py `get_system_metadata_from_image`; nova objects/request_spec.py; cinder
    `copy_image_to_volume`; glance, "Image data is immutable".
    """
    if instance.deleted:
        return
    reason: UnheardError | None = None
    names = {"BASE": None, "IMAGE": instance.image, **_NO_PROPERTY}
    if instance.image is not None and (image := cloud.glance.by_id.get(instance.image)):
        if image.id != instance.image:
            yield problem(
                f"glance returned image {brief(image.id)} for {guest.title}'s image "
                f"{brief(instance.image)}",
                says(instance, image=instance.image),
                says(image, id=image.id),
                BASE="",
                NEW_NAME="",
                IMAGE=instance.image,
                OFF_SERVER="",
            )
            return
        try:
            yield from _compared(guest.title, image, _copies(instance), names)
        except UnheardError as unheard:
            reason = unheard
        try:
            yield from _own_copy(guest, image, instance)
        except UnheardError as unheard:
            reason = reason or unheard
    for volume in guest.volumes or ():
        image = cloud.glance.by_id.get(str(volume.image.get("image_id")))
        if image is not None:
            title = guest.storage.volumes.title_of(volume.id)
            of_volume = {"BASE": "", "NEW_NAME": "", "IMAGE": image.id, **_NO_PROPERTY}
            made = moment(text(volume.raw, "created_at"))
            yield from _compared(title, image, _of_volume(volume), of_volume, made)
    if reason is not None:
        raise reason


def _copies(instance: Instance) -> Mapping[str, list[ImageCopy]]:
    """Return field → its copies in nova's records."""
    found: dict[str, list[ImageCopy]] = {}
    spec = known(lambda: instance.request_spec)
    fields = known(lambda: spec.image_fields) if isinstance(spec, RequestSpec) else None
    if isinstance(spec, RequestSpec) and fields and fields.get("id") == instance.image:
        for field in (*OF_DATA, *OF_OWNER, "updated_at"):
            if field in fields:
                found[field] = [
                    ImageCopy("nova's request spec", fields[field], spec, "image_fields")
                ]
    for field in ("disk_format", "container_format"):
        if (value := instance.image_copy.get(field)) is not None:
            copy = ImageCopy("nova's system metadata", value, instance, "image_copy")
            found.setdefault(field, []).append(copy)
    return found


def _of_volume(volume: Volume) -> Mapping[str, list[ImageCopy]]:
    copied = dict(volume.image)
    copied["name"] = copied.pop("image_name", None)
    for number in ("size", "min_disk", "min_ram"):
        written = copied.get(number)
        if isinstance(written, str) and written.isdecimal() and len(written) < 19:
            copied[number] = int(written)
    return {
        field: [ImageCopy("cinder's copy", copied.get(field), volume, "image")]
        for field in (*OF_DATA, *OF_OWNER)
    }


def _compared(
    title: str,
    image: GlanceImage,
    copies: Mapping[str, list[ImageCopy]],
    names: Mapping[str, str | None],
    made: datetime | None = None,
) -> Iterator[Problem]:
    """Yield the fields of an image's data whose copies differ from glance."""
    if image.status != "active":
        return
    for field in OF_DATA:
        theirs = getattr(image, field)
        for copy in copies.get(field, ()):
            if theirs is None or copy.value in (None, "") or copy.value == theirs:
                continue
            yield problem(
                f"{title}'s image {image.name or brief(image.id)} has {field} "
                f"{_brief(copy.value)} in {copy.words}, but {_brief(theirs)} in glance",
                derives(image, field, **{field: theirs}),
                copy.evidence(field),
                severity=None,
                **names,
            )
    for field in OF_OWNER:
        theirs = getattr(image, field)
        for copy in copies.get(field, ()):
            if theirs in (None, "") or copy.value in (None, "") or copy.value == theirs:
                continue
            if _is_unchanged(image, copies.get("updated_at") or (), made):
                yield problem(
                    f"{title}'s image has {field} {brief(str(copy.value))} in {copy.words}, but "
                    f"{brief(str(theirs))} in glance, which has not changed it since",
                    derives(image, field, **{field: theirs}),
                    copy.evidence(field),
                    severity=Severity.NOTE,
                    **{**names, "BASE": "", "NEW_NAME": ""},
                )


def _brief(value: object) -> str:
    """Return a value in short; the first eight characters of a checksum of any kind."""
    return brief(re.sub(r"^([0-9a-f]{8})[0-9a-f]{24,}$", r"\1", str(value)))


def _is_unchanged(image: GlanceImage, copies: Iterable[ImageCopy], made: datetime | None) -> bool:
    """True if glance has not changed an image since the copy was made."""
    since = image.updated_at
    if since is None:
        return False
    return any(moment(copy.value) == since for copy in copies) or (
        made is not None and since < made
    )


def _own_copy(guest: Guest, image: GlanceImage, instance: Instance) -> Iterator[Problem]:
    """Yield the properties of the image that the server's own copy lacks or has differently."""
    made, changed = moment(text(instance.raw, "created_at")), image.updated_at
    if made is None or changed is None or changed > made or image.status != "active":
        return
    copy = instance.image_copy
    title = f"{guest.title}'s copy of image {image.name or brief(image.id)}"
    for name, value in image.properties.items():
        own = copy.get(name)
        if own == value[:255] or name.startswith(NOT_COPIED) or value.startswith(WITHHELD):
            continue
        if name == CHANGED_LATER and own is not None:
            continue
        if name in _seen_in_guest(guest, instance):
            continue  # image-property-not-in-guest reports it, with what the guest has
        then = _at_next_start(guest, name, own)
        rest = then or ", which has not changed it since"
        yield problem(
            f"{title} has {f'{name} {brief(own)}' if own is not None else f'no {name}'}, but it is "
            f"{brief(value)} in glance{rest}",
            derives(instance, "image_copy", **{name: own}),
            derives(image, "properties", **{name: value}),
            severity=Severity.WARNING if then else Severity.NOTE,
            IMAGE=image.id,
            BASE="",
            NEW_NAME="",
            OFF_SERVER=guest.uuid if instance.vm_state in SETTABLE else "",
            PROPERTY=name,
            VALUE=value,
        )
    for name in ("kernel_id", "ramdisk_id"):
        own, theirs = text(instance.raw, name) or "", image.properties.get(name, "")
        if theirs not in NO_KERNEL and own != theirs:
            yield problem(
                f"{guest.title} starts with {name} {brief(own) or 'none'}, but its image in glance "
                f"has {brief(theirs)}",
                derives(instance, "raw", **{name: own or None}),
                derives(image, "properties", **{f"image_{name}": theirs}),
                severity=None,
                IMAGE=image.id,
                BASE="",
                NEW_NAME="",
                **_NO_PROPERTY,
            )
    base = known(lambda: instance.base_image)
    if base and base not in (image.id, image.base_image_ref):
        yield problem(
            f"{guest.title}'s copy of its image names base image {brief(base)}, but its image is "
            f"{brief(image.base_image_ref or image.id)}",
            derives(instance, "base_image", base_image_ref=base),
            says(image, id=image.id, base_image_ref=image.base_image_ref),
            severity=Severity.NOTE,
            IMAGE=image.id,
            BASE="",
            NEW_NAME="",
            **_NO_PROPERTY,
        )
    smallest, root = image.min_disk, known(lambda: instance.flavor_root_gb)
    memory = known(lambda: instance.flavor_memory_mib)
    for field, least, has in (("min_disk", smallest, root), ("min_ram", image.min_ram, memory)):
        if least and has and has < least and guest.instance is not None and _is_local(instance):
            yield problem(
                f"{guest.title}'s image needs {field} {least}, but its flavor has {has}",
                derives(image, field, **{field: least}),
                derives(instance, "flavor", flavor=has),
                severity=Severity.NOTE,
                IMAGE=image.id,
                BASE="",
                NEW_NAME="",
                **_NO_PROPERTY,
            )


_NO_PROPERTY = dict.fromkeys(("OFF_SERVER", "PROPERTY", "VALUE"), "")
"""The placeholders of the advice for a problem that is not about one property."""

SETTABLE = frozenset(["stopped", "shelved", "shelved_offloaded"])
"""States of a server in which nova-manage changes its copy of an image's properties."""


def _at_next_start(guest: Guest, name: str, own: str | None) -> str | None:
    """Return how the next start through nova changes the hardware of a guest that is off.

    A guest that runs is compared by image-property-not-in-guest.
    """
    domain = guest.domain
    if domain is None or domain.id is not None or own is None or name != "hw_disk_bus":
        return None
    root = next((disk for disk in domain.inactive_disks if disk.device == "disk"), None)
    if root is None or root.bus in (None, own):
        return None
    if guest.instance is None or any(row.raw.get("disk_bus") for row in guest.instance.mappings):
        return (
            None  # the bus that was chosen at the first start counts, whatever the image asks for
        )
    return f"; the next start moves disk {root.target} to bus {own}"


def _is_local(instance: Instance) -> bool:
    return not (known(lambda: instance.boots_from_volume) or False)


@check(Severity.WARNING)
def glance_answers_differ(cloud: Cloud) -> Problems:
    """glance's list has an image with other values than the image itself.

    Both are read from the same rows. If they differ although neither shows a later change, several
    glance APIs use different databases or a stale cache. A server then gets the image's data from
    one and its properties from the other.

    Authority: Neither, until it is known which database each glance API uses.

    Traps: An image that changed between the two questions shows another time of its last change;
    only what never changes is compared then. Tags change without one.

    Next: Ask several times; if the answers alternate, the APIs behind the endpoint differ:

        openstack image show IMAGE
        openstack image list --long
        openstack endpoint list --service image

    Then compare `[database]connection` in the glance-api.conf of all APIs, and check for a caching
    proxy between them and their users.

    Not yet: Do not create or rebuild servers from the image. Do not set a property to either value.

    Source: glance api/v2/images.py `ResponseSerializer`; glance configuration, `[database]`.
    """
    for uuid, listed in cloud.glance.listed.items():
        own = cloud.glance.by_id[uuid]
        if own is listed or own.id != listed.id:
            continue  # answer-about-another-object reports another id
        if listed.updated_at == own.updated_at:
            fields = sorted(listed.raw.keys() & own.raw.keys() - {"tags", "locations"})
        else:
            fields = [*OF_DATA] if listed.status == own.status == "active" else []
        apart = {
            field: (listed.raw.get(field), own.raw.get(field))
            for field in fields
            if listed.raw.get(field) != own.raw.get(field)
        }
        if apart:
            names = [f"{field} {_brief(one)}" for field, (one, _) in apart.items()][:3]
            others = [f"{field} {_brief(other)}" for field, (_, other) in apart.items()][:3]
            yield problem(
                f"Image {own.name or brief(own.id)} has {several(names)} in glance's list, but "
                f"{several(others)} by itself",
                derives(listed, *apart, **{field: str(one) for field, (one, _) in apart.items()}),
                derives(own, *apart, **{field: str(other) for field, (_, other) in apart.items()}),
                IMAGE=own.id,
            )


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched, rescued])
def image_property_not_in_guest(
    guest: Guest, cloud: Cloud, instance: Instance, domain: Domain
) -> Problems:
    """A running guest has other hardware than its image asks for.

    An image chooses the guest's disk bus and firmware. nova keeps a copy of these properties with
    the server and builds each domain from it. If the guest runs with something else, the next hard
    reboot changes its hardware: names of its disks change, and a system without the driver does not
    boot. card-model-mismatch compares the network cards.

    Authority: libvirt, for what the guest has; nova's copy of the properties, for its next start.

    Traps: A property that was changed with `nova-manage image_property set` is applied at the next
    hard reboot. Disks that were attached with a bus of their own.

    Next: Compare the properties with the guest's hardware:

        virsh dumpxml NAME | grep -e '<target' -e '<loader'
        openstack --os-compute-api-version 2.3 server show UUID
        openstack server event list UUID

    nova's copy of a property is wrong if the image in glance has what the guest has. Do not restart
    the server before the copy is set back: `hoodsnap checks image-record-differs` says how. If the
    copy is right, and the guest's system supports the hardware that it asks for, restart the
    server, which builds the domain from it:

        openstack server reboot --hard UUID

    It worked if the guest has that hardware:

        virsh dumpxml NAME | grep -e '<target' -e '<loader'

    Not yet: Do not hard-reboot, migrate or resize the server before it is decided whether nova's
    copy is right: its domain is built anew. Do not edit the domain with virsh.

    Source: nova virt/libvirt/blockinfo.py `get_disk_bus_for_device_type`, driver.py
    `_configure_guest_by_virt_type`; glance, "Useful image properties".
    """
    if instance.deleted or domain.id is None or not guest.is_here:
        return
    image = cloud.glance.by_id.get(instance.image or "")
    for name, asked, has in _hardware(instance, domain):
        value = image.properties.get(name) if image is not None else None
        yield problem(
            f"{guest.title} runs with {has}, but nova's record of its image has {name} {asked}",
            derives(domain, "xml", hardware=has),
            derives(instance, "image_copy", **{name: asked}),
            *([derives(image, "properties", **{name: value})] if image and value else []),
        )


def _seen_in_guest(guest: Guest, instance: Instance) -> frozenset[str]:
    """Return the properties that image-property-not-in-guest reports."""
    domain = guest.domain
    if domain is None or domain.id is None or not guest.is_here or rescued(guest):
        return frozenset()
    return frozenset(name for name, *_ in known(lambda: [*_hardware(instance, domain)]) or ())


def _hardware(instance: Instance, domain: Domain) -> Iterator[tuple[str, str, str]]:
    """Yield property, its value, and what the guest has instead."""
    copy = instance.image_copy
    asked, root = _root(copy, instance, domain)
    if asked and root is not None and root.bus and root.bus != asked:
        yield "hw_disk_bus", asked, f"root disk {root.target} on bus {root.bus}"
    drive = copy.get("hw_cdrom_bus")
    for disk in domain.disks:
        if drive and disk.device == "cdrom" and disk.bus and disk.bus != drive:
            yield "hw_cdrom_bus", drive, f"drive {disk.target} on bus {disk.bus}"
    firmware = copy.get("hw_firmware_type")
    loader = domain.firmware.loader
    if firmware == "uefi" and loader is None:
        yield "hw_firmware_type", "uefi", "BIOS firmware"
    elif firmware == "bios" and loader is not None and "seabios" not in loader.lower():
        yield "hw_firmware_type", "bios", f"firmware {loader}"


def _root(
    copy: Mapping[str, str], instance: Instance, domain: Domain
) -> tuple[str | None, Disk | None]:
    """Return the bus that nova uses for the root disk at the next start, and the disk now."""
    roots = [row for row in instance.mappings if row.boot_index == 0]
    if len(roots) != 1:
        return None, None
    # The bus that was chosen at the first start counts, whatever the image asks for later.
    bus = text(roots[0].raw, "disk_bus") or copy.get("hw_disk_bus")
    return bus, next((disk for disk in domain.disks if disk.device == "disk"), None)
