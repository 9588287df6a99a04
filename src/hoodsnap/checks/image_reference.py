"""The id of a server's image in its row, against nova's other copies of the id."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, never_launched, task_in_flight
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.request_spec import RequestSpec
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.fact import known
from hoodsnap.phrase import brief


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched])
def image_reference_changed(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """The server's row names another image than all other records of the server.

    nova writes the id of the image into the server's row, its request spec, its system metadata and
    its block device mapping. Only the row was changed, which no command of nova does. A resize,
    migration or evacuation then downloads the wrong image below the server's disk, and a rescue
    starts from the wrong image.

    Authority: The copies that agree: the request spec and the system metadata, and where it exists
    the block device mapping.

    Traps: A rebuild changes all of them. While a server is unshelved, its row names the snapshot.
    If only one copy differs, another check reports it.

    Next: Compare the copies in nova's databases, and the base image that the disk uses:

        SELECT image_ref FROM DATABASE.instances WHERE uuid = 'UUID' AND deleted = 0
        SELECT value FROM DATABASE.instance_system_metadata WHERE instance_uuid = 'UUID' AND `key` = 'image_base_image_ref'
        SELECT image_id FROM DATABASE.block_device_mapping WHERE instance_uuid = 'UUID' AND deleted = 0
        qemu-img info -U INSTANCES_PATH/UUID/disk
        printf %s IMAGE | sha1sum

    If the disk's backing file has the SHA-1 of the copies' image as its name, correct the row,
    after a backup of the database:

        UPDATE DATABASE.instances SET image_ref = 'IMAGE' WHERE uuid = 'UUID' AND deleted = 0

    It worked if nova reports this image:

        openstack server show UUID -c image

    Not yet: Do not rebuild, rescue, resize, migrate, evacuate or shelve the server.

    Source: nova compute/api.py `_populate_instance_for_create`, `rebuild`.
    """  # noqa: E501 (an SQL statement is one line)
    row, copied = instance.image, known(lambda: instance.base_image)
    spec = known(lambda: instance.request_spec)
    if instance.deleted or not copied or not isinstance(spec, RequestSpec):
        return
    wanted = known(lambda: spec.image)
    if row is None or wanted is None or not row.lower() != wanted.lower() == copied.lower():
        return
    roots = [it for it in known(lambda: instance.mappings) or () if it.boot_index == 0 and it.image]
    if any(it.image != wanted.lower() for it in roots):
        return
    name = cloud.image_names.get(wanted)
    title = f"{name} ({brief(wanted)})" if name is not None else brief(wanted)
    yield problem(
        f"{guest.title}'s row in nova has image {brief(row)}, but its other records have {title}",
        says(instance, image=row),
        says(spec, image=wanted),
        says(instance, base_image=copied),
        *(says(it, image=it.image) for it in roots[:1]),
        IMAGE=wanted,
        DATABASE=plain_name(instance.database),
    )
