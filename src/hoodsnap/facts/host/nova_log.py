"""nova-compute's log: the zone of its times, and requests refused because of its credentials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.clock import moment, wall_time
from hoodsnap.facts.fact import UnheardError, value_of
from hoodsnap.facts.layer import LOGS

_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>\d\d)(?P<minutes>\d\d) ")
_CONTAINER = re.compile(r" /proc/| \S*/kolla|/containers?/")
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[\d.,]*+(?:Z|[+-]\d\d:?\d\d)?) [A-Z]{1,10} "
    r"(?:\[instance: [0-9a-f-]{36}\] )?(?P<message>.*)"
)

_REFUSED = re.compile(
    r"http\.Unauthorized|\(HTTP 401\)|Placement service credentials|a valid admin token"
)
"""Parts of nova's messages about a request that was refused because of its credentials."""

_OPERATIONS = (
    ("placement", re.compile(r"placement|resource provider", re.IGNORECASE)),
    ("neutron", re.compile(r"neutron|network cache|network info", re.IGNORECASE)),
    ("cinder", re.compile(r"cinder|volume|block device", re.IGNORECASE)),
    ("glance", re.compile(r"glance|image", re.IGNORECASE)),
)
"""The service that a message of nova is about, by its words."""

_PERIODIC = re.compile(
    r"refreshing the network cache|Placement service credentials|valid admin token"
    r"|periodic|Error updating resources"
)
"""Messages about requests that nova-compute makes with its own account, not with a user's token."""


class Refusal(NamedTuple):
    """A request of nova-compute that was refused because of its credentials (HTTP 401)."""

    at: datetime
    """Time of the message, in UTC."""
    message: str
    service: str | None
    """`neutron`, `cinder`, `glance` or `placement`; None if the message does not tell."""
    is_own: bool
    """True if nova-compute asked with its own account; False if a user's token may be what was
    refused."""


def nova_log_of(bundle: Bundle, host: str) -> Answer:
    """Return the newest lines of a host's nova-compute log.

    Raises `UnheardError` if they were not collected.
    """
    found = None
    for answer in bundle.by_layer.get(LOGS.id, ()):
        is_log = answer.query.startswith(("tail", "journalctl -u")) and answer.subject is None
        found = answer if is_log and answer.host == host else found
    if found is None:
        raise UnheardError("nova-compute's log was not collected")
    value_of(found, "nova-compute's log", str)
    return found


def refusals(bundle: Bundle, answer: Answer) -> Iterator[Refusal]:
    """Yield the refused requests in nova-compute's log, the oldest first.

    An exception and the end of its traceback have the same time and are one refusal. Raises
    `UnheardError` if there is one whose time is in an unknown zone.
    """
    zone, before = writer_zone(bundle, answer), None
    for line in value_of(answer, "nova-compute's log", str).splitlines():
        found = _LINE.match(line)
        if found is None or _REFUSED.search(line) is None or " INFO " in line[:50]:
            continue
        at, message = moment_in(found["time"], zone), found["message"]
        if at is None:
            raise UnheardError("the time zone of nova-compute's log is unknown")
        if at != before:
            names = (name for name, words in _OPERATIONS if words.search(message))
            own = _PERIODIC.search(message) is not None
            yield Refusal(at, message, next(names, None), own)
        before = at


def writer_zone(bundle: Bundle, answer: Answer) -> timezone | None:
    """Return the zone in which the writer of a log writes local time; None if unknown.

    It is the host's, unless the writer runs in a container, which often has UTC.
    """
    local = bundle.last("host", "date '+%z %Z'", answer.host)
    found = _OFFSET.match(f"{local.value} ") if local is not None else None
    if found is None:
        return None
    offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"]))
    in_container = _CONTAINER.search(answer.query) is not None
    if offset >= timedelta(hours=24) or (in_container and offset):
        return None
    return timezone(-offset if found["sign"] == "-" else offset)


def moment_in(written: str, zone: timezone | None) -> datetime | None:
    """Return the time in UTC; None if it can't be read or has no known zone."""
    found = wall_time(written)
    if found is None:
        return None
    if found.tzinfo is not None:
        return moment(written)
    return moment(found.replace(tzinfo=zone).isoformat()) if zone else None
