"""Copies of a server's record: what nova's API, its databases and placement tell of one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from hoodsnap.agreement import Thing, Told, disagreements
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.legal_states import LEGAL
from hoodsnap.checks.traps import (
    CAPTURE,
    building,
    migrating,
    moving_to_another_cell,
    task_in_flight,
)
from hoodsnap.checks.zones import zone_of
from hoodsnap.evidence import Severity, derives
from hoodsnap.facts.api.allocation import Allocation
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instance_mapping import InstanceMapping
from hoodsnap.facts.database.request_spec import RequestSpec
from hoodsnap.facts.fact import Fact, UnheardError, integer, mapping, text

NOTHING = "none"
"""A null, in a headline: it is a value, and differs from a name."""

SENTINEL = "00000000-0000-0000-0000-000000000000"
"""Owner in placement of an allocation that was written without one (before Pike)."""


def _listed(key: str, raw: Mapping[str, object]) -> str | None:
    """Return a text of an API's body; None if this release, or this user's view, lacks it."""
    if key not in raw:
        return None
    return text(raw, key) or NOTHING


def _api(key: str, *inside: str) -> Told:
    def read(server: Server) -> object:
        raw = server.raw
        for name in inside:
            if not raw.get(name):
                return NOTHING if name in raw else None
            raw = mapping(raw, name)
        return _listed(key, raw)

    return Told("server", "nova's API", ".".join((*inside, key)), read)


def _row(column: str) -> Told:
    return Told("instance", "its database row", column, partial(_cell, column))


def _cell(column: str, instance: Instance) -> str:
    return text(instance.raw, column) or NOTHING


def _number(key: str, *inside: str) -> Told:
    """Return a teller of a number or a flag of the API's body."""

    def read(server: Server) -> object:
        raw: object = server.raw
        for name in inside:
            raw = raw.get(name) if isinstance(raw, dict) else None
        value = raw.get(key) if isinstance(raw, dict) else None
        return value if isinstance(value, int) else None

    return Told("server", "nova's API", ".".join((*inside, key)), read)


def _whole(column: str, *, or_zero: bool = False) -> Told:
    """Return a teller of a number; a null is none, or 0 where the API shows it so."""

    def read(instance: Instance) -> object:
        value = instance.raw.get(column)
        if value is None and or_zero and column in instance.raw:
            return 0
        return value if isinstance(value, int) else None

    return Told("instance", "its database row", column, read)


def _flag(column: str, yes: object = True, no: object = False) -> Told:
    """Return a teller of a flag in the API's words."""

    def read(instance: Instance) -> object:
        value = instance.raw.get(column)
        return None if not isinstance(value, int) else yes if value else no

    return Told("instance", "its database row", column, read)


def _time(key: str) -> Told:
    return Told("server", "nova's API", key, lambda server: moment(server.raw.get(key)))


def _column_time(column: str) -> Told:
    def read(instance: Instance) -> object:
        return moment(text(instance.raw, column))

    return Told("instance", "its database row", column, read)


def _flavor(key: str) -> Told:
    def read(server: Server) -> object:
        flavor = server.raw.get("flavor")
        return flavor.get(key) if isinstance(flavor, dict) else None

    return Told("server", "nova's API", f"flavor.{key}", read)


def _stored(key: str) -> Told:
    def read(instance: Instance) -> object:
        if instance.instance_extra is None:
            return None  # instance-extra-missing reports it
        current = instance.stored_flavor("cur")
        return current.get(key) if current is not None else None

    return Told("instance", "its stored flavor", f"flavor.{key}", read)


def _of_cell0(column: str) -> Told:
    """Return a teller of a column that flavor-three-way-drift compares for servers on a host."""

    def read(instance: Instance) -> object:
        return integer(instance.raw, column) if instance.raw.get("host") is None else None

    return Told("instance", "its database row", column, read)


def _name_from_id(instance: Instance) -> str | None:
    return f"instance-{instance.id:08x}" if instance.id is not None else None


def _status_of_row(instance: Instance) -> str | None:
    """Return the status that the API makes of the row's vm_state; a task may make another one."""
    legal = LEGAL.get(text(instance.raw, "vm_state") or "")
    return legal.status if legal is not None and not text(instance.raw, "task_state") else None


def _domain_name(server: Server) -> str | None:
    name = server.raw.get("OS-EXT-SRV-ATTR:instance_name")
    # Another template in nova.conf makes other names.
    is_default = isinstance(name, str) and name.startswith("instance-") and len(name) == 17
    return name if is_default else None  # type: ignore[return-value]  # it is a text


def _root_device(instance: Instance) -> str | None:
    roots = [row for row in instance.devices or () if row.get("boot_index") == 0]
    names = {text(row, "device_name") for row in roots}
    name = next(iter(names)) if len(names) == 1 else None
    # Old rows name the device without its folder.
    return name if name is None or name.startswith("/dev/") else f"/dev/{name}"


def _flavor_id(instance: Instance) -> str | None:
    """Return the id of the flavor whose row the record names; None if it was deleted since."""
    number = instance.raw.get("instance_type_id")
    for row in instance.tables.of("flavors") if instance.tables is not None and number else ():
        if row.cells.get("id") == number and not row.cells.get("deleted"):
            return text(row.cells, "flavorid")
    return None


SERVER = (
    Thing("name", (_row("display_name"), _api("name"))),
    Thing("host name", (_row("hostname"), _api("OS-EXT-SRV-ATTR:hostname"))),
    Thing("project", (_row("project_id"), _api("tenant_id"))),
    Thing("user", (_row("user_id"), _api("user_id"))),
    Thing("key pair", (_row("key_name"), _api("key_name"))),
    Thing("reservation", (_row("reservation_id"), _api("OS-EXT-SRV-ATTR:reservation_id"))),
    Thing("image", (_row("image_ref"), _api("id", "image"))),
    Thing("vm_state", (_row("vm_state"), _api("OS-EXT-STS:vm_state"))),
    Thing(
        "status",
        (
            Told("instance", "its row's vm_state", "status", _status_of_row),
            Told("server", "nova's API", "status", lambda server: server.status or None),
        ),
    ),
    Thing(
        "power_state",
        (_whole("power_state", or_zero=True), _number("OS-EXT-STS:power_state")),
    ),
    Thing("host", (_row("host"), _api("OS-EXT-SRV-ATTR:host"))),
    Thing("node", (_row("node"), _api("OS-EXT-SRV-ATTR:hypervisor_hostname"))),
    Thing("lock", (_flag("locked"), _number("locked"))),
    Thing("config drive", (_row("config_drive"), _api("config_drive"))),
    Thing("kernel", (_row("kernel_id"), _api("OS-EXT-SRV-ATTR:kernel_id"))),
    Thing("RAM disk", (_row("ramdisk_id"), _api("OS-EXT-SRV-ATTR:ramdisk_id"))),
    Thing("launch index", (_whole("launch_index"), _number("OS-EXT-SRV-ATTR:launch_index"))),
    Thing(
        "disk configuration",
        (_flag("auto_disk_config", "AUTO", "MANUAL"), _api("OS-DCF:diskConfig")),
    ),
    Thing(
        "root device",
        (
            _row("root_device_name"),
            _api("OS-EXT-SRV-ATTR:root_device_name"),
            Told("instance", "its block device mapping", "devices", _root_device),
        ),
    ),
    Thing(
        "domain name",
        (
            Told("instance", "its database row", "id", _name_from_id),
            Told("server", "nova's API", "instance_name", _domain_name),
        ),
    ),
    Thing("creation", (_column_time("created_at"), _time("created"))),
    Thing("launch", (_column_time("launched_at"), _time("OS-SRV-USG:launched_at"))),
    Thing("flavor", (_stored("name"), _flavor("original_name"))),
    Thing("root disk in GiB", (_stored("root_gb"), _of_cell0("root_gb"), _flavor("disk"))),
    Thing(
        "ephemeral disk in GiB",
        (_stored("ephemeral_gb"), _of_cell0("ephemeral_gb"), _flavor("ephemeral")),
    ),
    Thing("swap in MiB", (_stored("swap"), _flavor("swap"))),
    Thing(
        "flavor id",
        (
            _stored("flavorid"),
            Told("instance", "nova's flavors", "instance_type_id", _flavor_id),
        ),
    ),
)
"""Properties of a server in the API, and in the row of the cell's database that the API reads."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, moving_to_another_cell])
def server_copies_differ(guest: Guest, server: Server, instance: Instance) -> Problems:
    """nova's API and the cell's database report different values of one server.

    nova-api reads the row in the cell's database and adds nothing of its own. If the two differ,
    nova-api reads another database than the one that was collected (a replica that lags behind, a
    restored copy, another cell with a row of the same server), or part of the row was changed by
    hand. Owners then see another server than the one that the hosts work on.

    Authority: The row in the database of the cell that the server's mapping names.

    Traps: The API and the database are asked seconds apart, so a server that changed a moment ago
    is compared only if both show the same time of its last change. Users who are no administrators
    see fewer fields, and old microversions have fewer. The domain's name is compared only if it
    follows nova's default template.

    Next: Compare the server in the API with its row:

        openstack server show UUID
        SELECT * FROM DATABASE.instances WHERE uuid = 'UUID'

    Compare the databases that nova-api and the cell use:

        nova-manage cell_v2 list_cells
        nova-manage cell_v2 verify_instance --uuid UUID

    If the databases are the same, ask twice: each nova-api process may have another connection.

    Not yet: Do not change the row with an SQL statement before it is clear which database is the
    right one. Do not rebuild or resize the server: nova would work with one of the two values.

    Source: nova api/openstack/compute/views/servers.py `show`; nova admin guide, cells.
    """
    if instance.deleted or _changed_between(server, instance):
        return
    for found in disagreements(guest.title, SERVER, server=server, instance=instance):
        yield problem(found.headline, *found.evidence, DATABASE=instance.database)


def _changed_between(server: Server, instance: Instance) -> bool:
    """True if the record changed between the two questions, as far as its times tell."""
    one, other = moment(server.updated_at), moment(instance.updated_at)
    if one is None or other is None or one == other:
        return False
    asked = [fact.where("updated_at")[0] for fact in (server, instance)]
    return max(one, other) > min(answer.at for answer in asked if answer is not None) - CAPTURE


def _spec(key: str) -> Callable[[RequestSpec], str | None]:
    return lambda spec: spec.told(key)


def _mapped(column: str) -> Callable[[InstanceMapping], str | None]:
    def read(record: InstanceMapping) -> str | None:
        if "row" not in record.said or record.raw is None or column not in record.raw:
            return None  # user_id since Stein; a missing row is instance-mapping-skew's
        return text(record.raw, column) or None

    return read


def _consumer(key: str) -> Callable[[Allocation], str | None]:
    def read(allocation: Allocation) -> str | None:
        answer = allocation.said.get("consumer")
        owner = answer.value.get(key) if answer and isinstance(answer.value, dict) else None
        return owner if isinstance(owner, str) and owner != SENTINEL else None

    return read


OWNER = (
    Thing(
        "project",
        (
            _row("project_id"),
            Told("mapping", "its instance mapping", "project_id", _mapped("project_id")),
            Told("spec", "its request spec", "spec.project_id", _spec("project_id")),
            Told("allocation", "placement", "project_id", _consumer("project_id")),
        ),
    ),
    Thing(
        "user",
        (
            _row("user_id"),
            Told("mapping", "its instance mapping", "user_id", _mapped("user_id")),
            Told("spec", "its request spec", "spec.user_id", _spec("user_id")),
        ),
    ),
)
"""Owners of a server, in each record of it."""


@check(Severity.WARNING, traps=[building, moving_to_another_cell])
def owner_copies_differ(
    guest: Guest, instance: Instance, mapping: InstanceMapping, allocation: Allocation | None
) -> Problems:
    """A record of the server names another owner than the server's row.

    nova writes the project and the user of a server into its row, its instance mapping, its request
    spec and its consumer in placement. The mapping decides in which cells nova-api looks for the
    servers of a project and whose quota counts the server, the request spec decides on which hosts
    the server may be placed, and placement adds up the usage of a project. A server that was handed
    over with an SQL statement, or a restored table, leaves them apart.

    Authority: The server's row, from which nova-api takes the owner of a request's target.

    Traps: The mapping has a user since Stein, and an old mapping has none. An allocation that was
    written before Pike has an owner of zeros. An administrator who moves a server may become its
    user in placement, so the users of the server's actions are allowed there.

    Next: Compare the server's owner with the evidence, and check that the project exists:

        openstack server show UUID -c project_id -c user_id
        openstack project show PROJECT
        openstack user show USER

    Then, if the server's row is right, write its owner into the mapping, in nova's API database; no
    command does it:

        UPDATE instance_mappings SET COLUMN = 'OWNER' WHERE instance_uuid = 'UUID'

    If placement has the wrong project, compare what would be written, and write it:

        nova-manage placement heal_allocations --instance CONSUMER --force --dry-run --verbose
        nova-manage placement heal_allocations --instance CONSUMER --force --verbose

    It worked if the records name one owner:

        SELECT project_id, user_id FROM instance_mappings WHERE instance_uuid = 'UUID'

    Not yet: Do not change the owner in the server's row: its ports, volumes and quota stay with the
    other project. Do not edit the JSON of the request spec by hand.

    Source: nova objects/instance_mapping.py, objects/request_spec.py `from_components`; nova
    quota.py `_instances_cores_ram_count_api_db_placement`.
    """
    if instance.deleted or not guest.carries_record:
        return
    facts: dict[str, Fact | None] = {
        "instance": instance,
        "mapping": mapping,
        "allocation": allocation,
    }
    reason: UnheardError | None = None
    try:
        spec = instance.request_spec
        facts["spec"] = spec if isinstance(spec, RequestSpec) else None
    except UnheardError as unheard:
        reason = unheard
    owner: dict[str, Any] = {
        "PROJECT": _owner(instance, "project_id"),
        "USER": _owner(instance, "user_id"),
    }
    for found in disagreements(guest.title, OWNER, **facts):
        wrong = {evidence.noun for evidence in found.evidence[1:]}
        column = "user_id" if "user is" in found.headline.partition(" in ")[0] else "project_id"
        yield problem(
            found.headline,
            *found.evidence,
            COLUMN=column if "mapping" in wrong else "",
            OWNER=_owner(instance, column),
            CONSUMER=guest.uuid if "allocation" in wrong else "",
            **owner,
        )
    yield from _user_in_placement(guest, instance, allocation, owner)
    if reason is not None:
        raise reason


def _user_in_placement(
    guest: Guest, instance: Instance, allocation: Allocation | None, owner: dict[str, Any]
) -> Iterator[Problem]:
    """Yield a problem if the consumer's user is nobody who ever acted on the server."""
    user = _consumer("user_id")(allocation) if allocation is not None else None
    own = _owner(instance, "user_id")
    if user is None or allocation is None or own in (None, user):
        return
    actions = instance.rows("instance_actions")
    if user not in {row.cells.get("user_id") for row in actions}:
        yield problem(
            f"{guest.title}'s user is {own} in its database row, but {user} in placement",
            derives(instance, "user_id", user_id=own),
            derives(allocation, "user_id", user_id=user),
            COLUMN="",
            OWNER=own,
            CONSUMER=guest.uuid,
            **owner,
        )


def _owner(instance: Instance, column: str) -> str | None:
    return text(instance.raw, column)


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def availability_zone_differs(
    guest: Guest, cloud: Cloud, instance: Instance, server: Server | None
) -> Problems:
    """The server's availability zone is not the zone of its host.

    nova writes the zone of the host into the server's record when the server is built or moved. An
    operator who moves a host with servers into another zone leaves the two different. A server that
    was requested for its old zone then can't be moved: no host of that zone has it.

    Authority: The host's aggregates.

    Traps: A host in no aggregate with a zone is in the default zone, whose name nova's list of
    services has; `nova` is always legal there. A server without a host has no zone. nova-api lists
    the zone of the host, not of the record.

    Next: Compare the zone of the server with the aggregates and the services of the host:

        openstack server show UUID -c OS-EXT-AZ:availability_zone
        openstack aggregate list --long
        openstack availability zone list --compute --long

    If the host was moved by mistake, put it back into its former aggregate; AGGREGATE is the one
    with zone ZONE. If it was moved on purpose, migrate the server, which writes the zone again.

    Not yet: Do not change an aggregate's zone while its hosts have servers. Do not edit the column
    in nova's database: the request spec keeps the old zone all the same.

    Source: nova availability_zones.py `get_instance_availability_zone`; nova admin guide,
    availability zones; nova bug 1378904.
    """
    if instance.deleted or instance.host is None or not guest.carries_record:
        return
    own = text(instance.raw, "availability_zone")
    listed = server.raw.get("OS-EXT-AZ:availability_zone") if server is not None else None
    zone = zone_of(cloud, guest.records, instance.host, own) if own else None
    if zone is not None and own and own != zone.name:
        yield problem(
            f"{guest.title} is in availability zone {own} in nova's database, but its host "
            f"{instance.host} is in zone {zone.name}",
            derives(instance, "availability_zone", availability_zone=own, host=instance.host),
            zone.evidence,
            ZONE=own,
        )
    elif own and isinstance(listed, str) and listed and listed != own and server is not None:
        yield problem(
            f"{guest.title} is in availability zone {own} in nova's database, but in {listed} in "
            "nova's API",
            derives(instance, "availability_zone", availability_zone=own),
            derives(server, "OS-EXT-AZ:availability_zone", availability_zone=listed),
            ZONE=own,
        )
