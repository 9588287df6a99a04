"""Server groups: are the members where their group's policy puts them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.listing import read_listing
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.tables import Tables
from hoodsnap.facts.fact import UnheardError
from hoodsnap.phrase import counted, several

SHOWN = 10
"""Number of members that one finding shows; the others are only counted."""


class _Group(NamedTuple):
    """A server group, as nova's API or its database has it."""

    name: str
    uuid: str
    policy: str
    """`affinity`, `anti-affinity`, `soft-affinity` or `soft-anti-affinity`."""
    most: int
    """Members that anti-affinity allows on one host (`max_server_per_host`, 1 without the rule)."""
    members: tuple[str, ...]
    answer: Answer
    place: str


@check(Severity.WARNING)
def server_group_broken(cloud: Cloud) -> Problems:
    """The members of a server group are on hosts that its policy forbids.

    The policy is checked when a server is built or moved, each time for one server. Two members
    that move at the same time, a move to a host that was named by hand, or an evacuation with a
    forced host put members of an anti-affinity group onto one host, or spread an affinity group. A
    host that fails then takes with it the servers that were to survive, and the scheduler may find
    no host for a member of an affinity group.

    Authority: nova's record of each member's host; the group, for what its owner wants.

    Traps: A soft policy is only a wish. A member that is being moved has two hosts. Deleted members
    and members without a host (shelved) don't count. `max_server_per_host` allows several members
    on a host. A server may not join a group later, so every member was built under the policy.

    Next: Compare the group with the hosts of its members:

        openstack server group show GROUP_ID
        openstack server show UUID -c OS-EXT-SRV-ATTR:host
        openstack server migration list --server UUID

    Then move one member without naming a host, so that the scheduler applies the policy: a running
    one live, which works only if its disks can be copied or are shared:

        openstack server migrate --live-migration --wait UUID

    It worked if the member is on a host that the policy allows:

        openstack server show UUID -c OS-EXT-SRV-ATTR:host

    Not yet: Do not name a host for the move: the policy is then not applied. Do not delete the
    group, which would only hide the fault.

    Source: nova scheduler/filters/affinity_filter.py, compute/manager.py
    `_validate_instance_group_policy`; nova API reference, server groups; nova bug 1821755.
    """
    undecided: UnheardError | None = None
    for group in _groups(cloud):
        try:
            found = _broken(cloud, group)
        except UnheardError as reason:
            undecided = undecided or reason
            continue
        if found is not None:
            yield found
    if undecided is not None:
        raise undecided


@check(Severity.WARNING)
def server_group_differs(cloud: Cloud) -> Problems:
    """nova's API and its database have different members or another policy of a server group.

    The scheduler reads the group from the database, and operators read it from the API. If they
    differ, servers are placed by another group than the one that is shown.

    Authority: The database.

    Traps: The API leaves out deleted members; the database keeps them. A server that was built or
    deleted between the two questions. Only the groups of the collected servers are read from the
    database.

    Next: Compare the group with its rows:

        openstack server group show GROUP_ID
        SELECT * FROM DATABASE.instance_group_member WHERE group_id = ID
        SELECT * FROM DATABASE.instance_group_policy WHERE group_id = ID

    Compare the databases that nova-api and the scheduler use (`[api_database]connection` in
    nova.conf).

    Not yet: Do not edit the rows: the group of a server can't be changed after it was built.

    Source: nova objects/instance_group.py; nova API reference, server groups.
    """
    stored = {group.uuid: group for group in _stored(cloud.instances.tables)}
    for group in _listed(cloud):
        other = stored.get(group.uuid)
        if other is None:
            continue
        live = {member for member in other.members if _is_live(cloud, member)}
        shown = {member for member in group.members if _is_live(cloud, member)}
        apart: list[tuple[str, object, object]] = []
        if live != shown:
            apart.append(("members", cloud.titles_of(sorted(shown)), cloud.titles_of(sorted(live))))
        if other.policy and group.policy != other.policy:
            apart.append(("policy", group.policy, other.policy))
        if group.name != other.name:
            apart.append(("name", group.name, other.name))
        for what, one, two in apart:
            yield problem(
                f"Server group {group.name} has {what} {one or 'none'} in nova's API, but "
                f"{two or 'none'} in its database",
                hears(group.answer, "server group", group.place, **{what: one}),
                hears(other.answer, "nova-db", other.place, **{what: two}),
                GROUP_ID=group.uuid,
                ID=other.place.partition("=")[2].rstrip("]") or None,
                DATABASE="nova_api",
            )


def _is_live(cloud: Cloud, uuid: str) -> bool:
    instance = cloud.instances.by_uuid.get(uuid)
    return instance is not None and not instance.deleted


def _groups(cloud: Cloud) -> Iterator[_Group]:
    """Yield each group once: as the API lists it, or else as the database has it."""
    seen = set()
    for group in _listed(cloud):
        seen.add(group.uuid)
        yield group
    for group in _stored(cloud.instances.tables):
        if group.uuid not in seen:
            yield group


def _listed(cloud: Cloud) -> Iterator[_Group]:
    listing = read_listing(cloud.bundle, "os-server-groups", "server_groups")
    for item in listing.items if listing is not None else ():
        policies, rules = item.get("policies"), item.get("rules")
        first = policies[0] if isinstance(policies, list) and policies else None
        members = item.get("members")
        if listing is not None and isinstance(members, list):
            yield _Group(
                str(item.get("name")),
                str(item.get("id")),
                str(item.get("policy") or first or ""),
                _most(rules.get("max_server_per_host") if isinstance(rules, dict) else None),
                tuple(str(member).lower() for member in members),
                listing.answer,
                f"server_groups[id={item.get('id')}]",
            )


def _stored(tables: Tables) -> Iterator[_Group]:
    members: dict[object, list[str]] = {}
    for row in tables.of("instance_group_member"):
        uuid = row.cells.get("instance_uuid") or row.cells.get("instance_id")
        if isinstance(uuid, str) and not row.cells.get("deleted"):
            members.setdefault(row.cells.get("group_id"), []).append(uuid.lower())
    policies: dict[object, Mapping[str, object]] = {
        row.cells.get("group_id"): row.cells
        for row in tables.of("instance_group_policy")
        if not row.cells.get("deleted")
    }
    for row in tables.of("instance_groups"):
        number = row.cells.get("id")
        if not row.cells.get("deleted"):
            policy = policies.get(number, {})
            yield _Group(
                str(row.cells.get("name")),
                str(row.cells.get("uuid")),
                str(policy.get("policy") or ""),
                _most(_rule(policy.get("rules"))),
                tuple(members.get(number, ())),
                row.answer,
                f"instance_groups[id={number}]",
            )


def _rule(written: object) -> object:
    """Return `max_server_per_host` of the column `rules`, a JSON object; None without it."""
    import json

    try:
        rules = json.loads(written) if isinstance(written, str) else None
    except (ValueError, RecursionError):
        return None
    return rules.get("max_server_per_host") if isinstance(rules, dict) else None


def _most(rule: object) -> int:
    return int(rule) if isinstance(rule, int | str) and str(rule).isdecimal() else 1


def _broken(cloud: Cloud, group: _Group) -> Problem | None:
    places: dict[str, list[Guest]] = {}
    for member in group.members:
        guest = _settled(cloud, member)
        if guest is not None and guest.believed is not None:
            places.setdefault(guest.believed, []).append(guest)
    if group.policy == "anti-affinity":
        crowded = {host: guests for host, guests in places.items() if len(guests) > group.most}
        if crowded:
            host = max(crowded, key=lambda name: len(crowded[name]))
            guests = crowded[host]
            allowed = counted(group.most, "member")
            return _problem(
                group,
                guests,
                f"{several(guest.title for guest in guests)} are on host {host}, but server group "
                f"{group.name} (anti-affinity) allows {allowed} on a host",
            )
    if group.policy == "affinity" and len(places) > 1:
        guests = [guests[0] for guests in places.values()]
        named = several(f"{guest.title} on {guest.believed}" for guest in guests)
        return _problem(
            group,
            guests,
            f"Server group {group.name} (affinity) allows one host, but its members are on "
            f"{counted(len(places), 'host')}: {named}",
        )
    return None


def _problem(group: _Group, guests: Sequence[Guest], headline: str) -> Problem:
    policy = hears(group.answer, "server group", group.place, policy=group.policy, name=group.name)
    return problem(
        headline,
        policy.and_so(members=len(group.members)),
        *_hosts(guests),
        GROUP_ID=group.uuid,
        UUID=guests[-1].uuid,
    )


def _hosts(guests: Sequence[Guest]) -> Iterator[Evidence]:
    for guest in guests[:SHOWN]:
        if guest.record is not None:
            yield says(guest.record, uuid=guest.uuid).and_so(host=guest.believed)


def _settled(cloud: Cloud, uuid: str) -> Guest | None:
    """Return the member on the host where nova has it; None if it is on none, or moves."""
    twins = cloud.twins(uuid)
    guest = next((twin for twin in twins if twin.carries_record), next(iter(twins), None))
    if guest is None or guest.record is None or guest.record.deleted:
        return None
    if guest.hidden is not None:
        raise UnheardError(guest.hidden)
    if guest.moving or task_in_flight(guest) or migrating(guest):
        return None
    return guest
