"""Lists of nova's API compared with the rows of its databases, which they are made from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import EARLIER
from hoodsnap.evidence import Evidence, Severity, hears
from hoodsnap.facts.api.listing import ApiList, Item, read_listing
from hoodsnap.facts.clock import clock_of, moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.database.tables import Row, Tables
from hoodsnap.facts.fact import UnheardError, text
from hoodsnap.phrase import brief

IN_USE = (
    *("vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb", "free_disk_gb"),
    *("running_vms", "current_workload"),
)
"""Values that nova-compute writes every minute, and that only change with a server. The API has
them up to microversion 2.87. disk_available_least changes with each write to a disk, so it is not
compared."""

REPORTED = 30.0
"""A service that reported so many seconds ago is up: `service_down_time` is 60 s by default."""

Pairs = Mapping[str, tuple[object, object]]
"""Name of a value → what the API has, and what the row has. None: not told."""


@check(Severity.WARNING)
def api_list_differs(cloud: Cloud) -> Problems:
    """nova's API lists other values than its database has.

    nova-api makes its lists of services, hypervisors, flavors and aggregates from rows of its
    databases; histories-apart compares migrations and actions. If a list differs from the rows,
    nova-api reads another database than the one that was collected: a replica that lags behind, a
    restored copy, or the database of another cell. Operators then decide by what the API shows, and
    nova acts by what the rows say.

    Authority: The rows in the database that the scheduler and the conductors use.

    Traps: Both are asked seconds apart, so the numbers of what is in use, which nova-compute writes
    every minute, are compared only if the row was written before both questions and no server
    changed meanwhile. Sizes of disks are compared only roughly, and the space that is left on them
    (`disk_available_least`) is not: both move while guests write. Several cells use the same
    numbers. Old microversions list numbers in place of UUIDs. A user who is no administrator
    sees no services and no hypervisors.

    Next: Compare the list with the rows:

        openstack compute service list --long
        openstack hypervisor list --long
        SELECT * FROM DATABASE.TABLE WHERE id = ID

    Compare the database that nova-api uses (`[database]connection` and `[api_database]connection`
    in its nova.conf) with the one that the cell has:

        nova-manage cell_v2 list_cells --verbose

    If it is a replica, check how far it lags behind; ask the API twice, because each nova-api may
    have another connection.

    Not yet: Do not change a row to what the API shows. Do not enable, disable, force down or delete
    a service by this list.

    Source: nova api/openstack/compute/services.py, hypervisors.py, flavors.py; nova admin guide,
    cells.
    """
    undecided: UnheardError | None = None
    for part in (_services, _hypervisors, _flavors, _aggregates):
        try:
            yield from part(cloud)
        except UnheardError as reason:
            undecided = undecided or reason
    if undecided is not None:
        raise undecided


def _services(cloud: Cloud) -> Iterator[Problem]:
    listing = read_listing(cloud.bundle, "os-services", "services")
    for item, row in _matched(cloud.instances.tables, listing, "services"):
        cells = row.cells
        name = f"Service {item.get('binary')} on {item.get('host')}"
        pairs: Pairs = {
            "id": (_text(item, "id"), _text(cells, "uuid")),
            "binary": (_text(item, "binary"), _text(cells, "binary")),
            "host": (_text(item, "host"), _text(cells, "host")),
            "status": (_text(item, "status"), _word(cells, "disabled", "disabled", "enabled")),
            "disabled_reason": (_text(item, "disabled_reason"), _text(cells, "disabled_reason")),
            "forced_down": (_flag(item, "forced_down"), _flag(cells, "forced_down")),
        }
        yield from _apart(name, "service", "services", listing, item, row, pairs)
        if listing is not None:
            yield from _alive(cloud, name, listing, item, row)
    yield from _zones(listing)


def _alive(cloud: Cloud, name: str, listing: ApiList, item: Item, row: Row) -> Iterator[Problem]:
    """Compare a service's state with the time of its last report, by the database's clock."""
    state, last = item.get("state"), moment(row.cells.get("last_seen_up"))
    asked = _by_database(cloud, listing.answer, row)
    if last is None or asked is None or item.get("forced_down") or row.cells.get("forced_down"):
        return
    # Negative if it reported since.
    silent = (asked - last).total_seconds()
    if state != "down" or not 0 <= silent < REPORTED:
        return  # service-state-skew reports a service that is up and does not report
    yield problem(
        f"{name} is {state} in nova's API, but its row in the database says that it reported "
        f"{silent:.0f} s before",
        _heard(listing.answer, "service", item, {"state": state}),
        hears(
            *(row.answer, "nova-db", f"services[id={row.cells.get('id')}]"),
            last_seen_up=row.cells.get("last_seen_up"),
        ),
        TABLE="services",
        ID=row.cells.get("id"),
        DATABASE=_database(row.answer),
    )


def _by_database(cloud: Cloud, answer: Answer, row: Row) -> datetime | None:
    """Return when a question was asked, by the clock of a row's database; None if unknown."""
    clock = clock_of(cloud.bundle.asked("nova-db", "SELECT UTC_TIMESTAMP", row.answer.host))
    return answer.at + (clock[1] - clock[0].at) if clock is not None else None


def _zones(listing: ApiList | None) -> Iterator[Problem]:
    """Compare the zones of services that are not nova-compute: one option of nova-api names it."""
    items = listing.items if listing is not None else ()
    found = [
        (zone, item)
        for item in items
        if item.get("binary") != "nova-compute" and (zone := _text(item, "zone")) is not None
    ]
    zones = [zone for zone, _ in found]
    usual = max(sorted(set(zones)), key=zones.count, default=None)
    for own, item in found:
        if own != usual and listing is not None:
            other = next(one for zone, one in found if zone == usual)
            yield problem(
                f"Service {item.get('binary')} on {item.get('host')} is in zone {own} in nova's "
                f"API, but {other.get('binary')} on {other.get('host')} is in zone {usual}",
                _heard(listing.answer, "service", item, {"zone": own}),
                _heard(listing.answer, "service", other, {"zone": usual}),
                TABLE="services",
            )


def _hypervisors(cloud: Cloud) -> Iterator[Problem]:
    listing = read_listing(cloud.bundle, "os-hypervisors/detail", "hypervisors")
    services = read_listing(cloud.bundle, "os-services", "services")
    known = {item.get("id"): item for item in services.items} if services is not None else {}
    changes = _last_changes(cloud)
    for item, row in _matched(cloud.instances.tables, listing, "compute_nodes"):
        cells, name = row.cells, f"Hypervisor {item.get('hypervisor_hostname')}"
        service = item.get("service")
        service = service if isinstance(service, dict) else {}
        pairs: dict[str, tuple[object, object]] = {
            key: (item.get(key), cells.get(key))
            for key in (
                *("hypervisor_hostname", "hypervisor_type", "hypervisor_version", "host_ip"),
                *("vcpus", "memory_mb", "local_gb"),
            )
        }
        pairs["cpu_info"] = (_processor(item.get("cpu_info")), _processor(cells.get("cpu_info")))
        if listing is not None and _is_settled(cloud, listing.answer, row, changes):
            pairs |= {key: (item.get(key), cells.get(key)) for key in IN_USE}
        sizes = pairs["local_gb"]
        if sizes[0] != sizes[1] and _is_about(*sizes):
            # nova derives the free size from it, so both moved.
            pairs = {key: pairs[key] for key in pairs.keys() - {"local_gb", "free_disk_gb"}}
        pairs["id"] = (_text(item, "id"), _text(cells, "uuid"))
        pairs["service.host"] = (_text(service, "host"), _text(cells, "host"))
        yield from _apart(name, "hypervisor", "compute_nodes", listing, item, row, pairs)
        its = known.get(service.get("id"))
        if known and its is None and any(type(key) is type(service.get("id")) for key in known):
            yield _without_service(name, listing, item, service)
        elif its is not None and services is not None and listing is not None:
            same = {
                key: (item.get(key), its.get(key))
                for key in ("state", "status")
                if key in item and item.get(key) != its.get(key)
            }
            if same:
                yield problem(
                    f"{name} is {' and '.join(str(one) for one, _ in same.values())} in nova's "
                    f"list of hypervisors, but its service on {its.get('host')} is "
                    f"{' and '.join(str(other) for _, other in same.values())}",
                    _heard(listing.answer, "hypervisor", item, {k: v[0] for k, v in same.items()}),
                    _heard(services.answer, "service", its, {k: v[1] for k, v in same.items()}),
                    TABLE="services",
                )


def _is_settled(cloud: Cloud, listed: Answer, row: Row, changes: Mapping[object, datetime]) -> bool:
    """True if the row was written before both questions, so that both are about one version."""
    written, asked = moment(row.cells.get("updated_at")), _by_database(cloud, listed, row)
    if written is None or asked is None or listed.at > row.answer.at:
        return False
    last = changes.get(row.cells.get("host"), written)
    return max(written, last) < asked - EARLIER


def _last_changes(cloud: Cloud) -> Mapping[object, datetime]:
    """Return when a server of each host was changed last; `datetime.max` if one changed meanwhile.

    The database's snapshot is older than the list, and lacks what nova-compute has claimed or freed
    in between.
    """
    found: dict[object, datetime] = {}
    for one in cloud.instances.by_uuid.values():
        since = moment(text(one.raw, "updated_at"))
        if since is not None:
            found[one.host] = max(since, found.get(one.host, since))
    if any(guest.moving for guest in cloud.guests):
        return dict.fromkeys(found, datetime.max.replace(tzinfo=UTC))
    return found


def _processor(value: object) -> object:
    """Return the JSON document about a processor, which old microversions and the database have as
    a text; a text that can't be read stays one. nova keeps the features as a set, so they have no
    order."""
    try:
        document = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    if not isinstance(document, dict) or not isinstance(document.get("features"), list):
        return document
    return document | {"features": sorted(map(str, document["features"]))}


def _is_about(one: object, other: object) -> bool:
    """True if two sizes differ by little: the size of a shared storage moves by itself."""
    if not isinstance(one, int) or not isinstance(other, int):
        return False
    return max(one, other) <= min(one, other) * 1.1


def _without_service(name: str, listing: ApiList | None, item: Item, service: Item) -> Problem:
    answer = listing.answer if listing is not None else None
    assert answer is not None  # noqa: S101 (the item is of this list)
    return problem(
        f"{name} belongs to service {brief(str(service.get('id')))}, which nova's list of services "
        "lacks",
        _heard(answer, "hypervisor", item, {"service.id": service.get("id")}),
        TABLE="services",
    )


def _flavors(cloud: Cloud) -> Iterator[Problem]:
    listing = read_listing(cloud.bundle, "flavors/detail", "flavors")
    tables = cloud.instances.tables
    table = "flavors" if any(True for _ in tables.of("flavors")) else "instance_types"
    rows = {
        str(row.cells.get("flavorid")): row
        for row in tables.of(table)
        if not row.cells.get("deleted")
    }
    names = {str(row.cells.get("name")): row for row in rows.values()}
    items = listing.items if listing is not None else ()
    listed = {str(item.get("id")) for item in items}
    for item in items:
        own = rows.get(str(item.get("id")))
        if own is None:
            own = names.get(str(item.get("name")))
            if own is not None and str(own.cells.get("flavorid")) in listed:
                continue  # the row is that of another flavor in the list
        if own is None:
            continue  # only flavors of the servers were collected
        cells = own.cells
        pairs: Pairs = {
            "id": (_text(item, "id"), _text(cells, "flavorid")),
            "name": (_text(item, "name"), _text(cells, "name")),
            "ram": (item.get("ram"), cells.get("memory_mb")),
            "vcpus": (item.get("vcpus"), cells.get("vcpus")),
            "disk": (item.get("disk"), cells.get("root_gb")),
            "ephemeral": (item.get("OS-FLV-EXT-DATA:ephemeral"), cells.get("ephemeral_gb")),
            "swap": (_size(item.get("swap")), _size(cells.get("swap"))),
            "rxtx_factor": (_ratio(item.get("rxtx_factor")), _ratio(cells.get("rxtx_factor"))),
            "disabled": (_flag(item, "OS-FLV-DISABLED:disabled"), _flag(cells, "disabled")),
            "is_public": (_flag(item, "os-flavor-access:is_public"), _flag(cells, "is_public")),
        }
        name = f"Flavor {item.get('name')}"
        yield from _apart(name, "flavor", table, listing, item, own, pairs)


def _aggregates(cloud: Cloud) -> Iterator[Problem]:
    listing = read_listing(cloud.bundle, "os-aggregates", "aggregates")
    tables = cloud.instances.tables
    for item, row in _matched(tables, listing, "aggregates"):
        number = row.cells.get("id")
        hosts = {
            member.cells.get("host")
            for member in tables.of("aggregate_hosts")
            if member.cells.get("aggregate_id") == number and not member.cells.get("deleted")
        }
        zones = [
            other.cells.get("value")
            for other in tables.of("aggregate_metadata")
            if other.cells.get("aggregate_id") == number and not other.cells.get("deleted")
        ]
        listed = item.get("hosts")
        pairs: Pairs = {
            "name": (_text(item, "name"), _text(row.cells, "name")),
            "uuid": (_text(item, "uuid"), _text(row.cells, "uuid")),
            "hosts": (_names(listed), _names(hosts)),
            "availability_zone": (item.get("availability_zone"), zones[0] if zones else None),
        }
        name = f"Aggregate {item.get('name')}"
        yield from _apart(name, "aggregate", "aggregates", listing, item, row, pairs)


def _matched(tables: Tables, listing: ApiList | None, table: str) -> Iterator[tuple[Item, Row]]:
    """Yield each item with its row, by UUID; by number if the list has numbers, or the UUID is
    nobody's."""
    rows = [row for row in tables.of(table) if not row.cells.get("deleted")]
    uuids = {row.cells.get("uuid"): row for row in rows if row.cells.get("uuid")}
    numbers: dict[object, list[Row]] = {}
    names: dict[object, list[Row]] = {}
    for row in rows:
        numbers.setdefault(row.cells.get("id"), []).append(row)
        names.setdefault(_key(row.cells), []).append(row)
    is_one = is_one_cell(tables)
    for item in listing.items if listing is not None else ():
        own = uuids.get(item.get("uuid")) or uuids.get(item.get("id"))
        if own is None and is_one:
            same = numbers.get(item.get("id")) or names.get(_key(item)) or ()
            own = same[0] if len(same) == 1 else None  # cells may have the same numbers
        if own is not None:
            yield item, own


def is_one_cell(tables: Tables) -> bool:
    """True if nova has one cell with servers, so that a number is that of one row only."""
    cells = [row for row in tables.of("cell_mappings") if row.cells.get("name") != "cell0"]
    cells = [row for row in cells if set(str(row.cells.get("uuid"))) != {"0", "-"}]
    return len(cells) <= 1


def _key(raw: Item) -> object:
    return raw.get("hypervisor_hostname") or (raw.get("binary"), raw.get("host"))


def _apart(
    name: str,
    noun: str,
    table: str,
    listing: ApiList | None,
    item: Item,
    row: Row,
    pairs: Pairs,
) -> Iterator[Problem]:
    apart = {key: pair for key, pair in pairs.items() if None not in pair and pair[0] != pair[1]}
    if not apart or listing is None:
        return
    listed = {key: pair[0] for key, pair in apart.items()}
    stored = {key: pair[1] for key, pair in apart.items()}
    yield problem(
        f"{name} has {_words(listed)} in nova's API, but {_words(stored)} in its database",
        _heard(listing.answer, noun, item, listed),
        hears(row.answer, "nova-db", f"{table}[id={row.cells.get('id')}]", **stored),
        TABLE=table,
        ID=row.cells.get("id"),
        DATABASE=_database(row.answer),
    )


def _heard(answer: Answer, noun: str, item: Item, values: Mapping[str, object]) -> Evidence:
    return hears(answer, noun, f"[id={item.get('id')}]", **values)


def _words(values: Mapping[str, object]) -> str:
    named = [f"{key} {brief(str(value))}" for key, value in values.items()]
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def _database(answer: Answer) -> str | None:
    place = answer.query.partition(" FROM ")[2].partition(" ")[0]
    return place.partition(".")[0].strip("`") or None


def _text(raw: Item, key: str) -> str | None:
    value = raw.get(key)
    return value if isinstance(value, str) and value else None


def _flag(raw: Item, key: str) -> bool | None:
    value = raw.get(key)
    return bool(value) if isinstance(value, bool | int) else None


def _word(raw: Item, key: str, yes: str, no: str) -> str | None:
    flag = _flag(raw, key)
    return None if flag is None else yes if flag else no


def _size(value: object) -> int | None:
    return value if isinstance(value, int) else 0 if value == "" else None


def _ratio(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None


def _names(value: object) -> str | None:
    if not isinstance(value, list | set):
        return None
    return ", ".join(sorted(str(name) for name in value)) or "none"
