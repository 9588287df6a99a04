"""Layers that were asked and did not answer. Without them, agreement of the others proves little.

A layer that was never asked is not listed: a compute node usually has no password of the database,
and a tenant does not collect libvirt. A layer that answered in part is not listed either: the
skips have the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.layer import (
    CINDER,
    DAEMONS,
    GLANCE,
    GUESTS_LIVE_IN,
    NEUTRON,
    NOVA,
    NOVA_DB,
    OF_HOST,
    PLACEMENT,
    TABLE,
    Layer,
    Scope,
)
from hoodsnap.printable import clean, cut

LONGEST_REASON = 100
"""Characters of a reason in the one line about all layers."""

MOST_HOSTS = 3
"""Hosts to name in that line for the same layer and reason."""

ESSENTIAL: Mapping[Layer, re.Pattern[str]] = {
    NOVA: re.compile(r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/servers\b"),
    NOVA_DB: re.compile(r"\ASELECT .*\.instances\b", re.DOTALL),
    PLACEMENT: re.compile(r"GET /(?:resource_providers|allocations)\b"),
    CINDER: re.compile(r"GET /v[23](?:/[0-9a-f]+)?/(?:volumes|attachments)\b"),
    NEUTRON: re.compile(r"GET /v2\.0/ports\b"),
    GLANCE: re.compile(r"GET /v2/images\b"),
}
"""The queries without which a layer of the cloud tells nothing: an API whose database is down still
lists its versions."""

NO_REFUSAL = frozenset(["absent", "missing"])
"""Kinds of failure after which a layer doesn't count as asked: the cloud has no such service, or
the means to ask (a package, a login) are not there."""


class UncollectedLayer(NamedTuple):
    """A layer that was asked and did not answer."""

    layer: Layer
    host: str | None
    """The host whose layer it is; None for a layer of the whole cloud."""
    kind: str
    """Kind of the failure: `unreachable`, `denied`, `timeout` … (see `Failure`)."""
    reason: str
    """The layer's own message, on one line."""
    part: str = ""
    """The part of the layer that did not answer; empty for the whole layer."""

    @property
    def title(self) -> str:
        """Name in reports: `nova database`, `nova database (one cell)`."""
        return f"{self.layer.title} ({self.part})" if self.part else self.layer.title

    @property
    def brief(self) -> str:
        """The reason in a few words: `127.0.0.1:8774: connection refused`."""
        return brief(self.reason)


def uncollected(cloud: Cloud) -> tuple[UncollectedLayer, ...]:
    """Return the layers that were asked and did not answer: those of the cloud, then by host."""
    found = [one for layer in TABLE if layer in ESSENTIAL for one in _of_cloud(cloud, layer)]
    if not any(_is_heard(cloud, layer) for layer in (NOVA, NOVA_DB)) and not found:
        # Without nova there is nothing to compare with, even if nobody could have asked.
        found += _failed(NOVA, None, cloud.bundle.by_layer.get(NOVA.id, ()), frozenset())
    for host in cloud.hosts:
        found += _of_host(host)
    return tuple(found)


def one_line(layers: Iterable[UncollectedLayer]) -> str:
    """Return the layers in one line, grouped by reason; empty without layers.

    `nova database (127.0.0.1:3306: connection refused); libvirt of compute2 (no answer)`.
    """
    hosts: dict[tuple[str, str], list[str]] = {}
    for one in layers:
        hosts.setdefault((one.brief, one.title), []).extend([one.host] if one.host else [])
    titles: dict[str, list[str]] = {}
    for (reason, title), names in hosts.items():
        titles.setdefault(reason, []).append(title + _of(names))
    return "; ".join(
        ", ".join(names) + (f" ({reason})" if reason else "") for reason, names in titles.items()
    )


def _of(hosts: list[str]) -> str:
    if not hosts:
        return ""
    named = ", ".join(clean(name) for name in hosts[:MOST_HOSTS])
    more = f" and {len(hosts) - MOST_HOSTS} more hosts" if len(hosts) > MOST_HOSTS else ""
    return f" of {named}{more}"


def _of_cloud(cloud: Cloud, layer: Layer) -> Iterator[UncollectedLayer]:
    answers = cloud.bundle.by_layer.get(layer.id, ())
    essential = [answer for answer in answers if ESSENTIAL[layer].match(answer.query)]
    if layer is NOVA_DB and any(answer.error is None for answer in essential):
        yield from _cells(answers)
    elif not any(map(_is_answered, essential or answers)):
        yield from _failed(layer, None, essential or answers)


def _cells(answers: Iterable[Answer]) -> Iterator[UncollectedLayer]:
    """Yield the nova database if one of its cells did not answer, but others did."""
    connected = [one for one in answers if one.query.startswith("SELECT VERSION() /*")]
    tables = [one for one in answers if ESSENTIAL[NOVA_DB].match(one.query)]
    yield from _failed(NOVA_DB, None, (*connected, *tables), part="one cell")


def _of_host(host: Host) -> Iterator[UncollectedLayer]:
    for layer in (*OF_HOST, DAEMONS):
        if layer.id not in host.unheard and layer is not DAEMONS:
            continue
        answers = [one for one in host.bundle.by_layer.get(layer.id, ()) if one.host == host.name]
        refused = [*_failed(layer, host.name, answers)]
        if refused and not any(answer.error is None for answer in answers):
            yield from refused
        elif layer.id in GUESTS_LIVE_IN:
            # Hardly any guest can be judged without it, so it is reported even if never asked.
            reason = host.unheard[layer.id].removeprefix(f"{layer.title}: ")
            silent = "" if reason == layer.silence else reason
            yield UncollectedLayer(layer, host.name, "failed", silent)


def _failed(
    layer: Layer,
    host: str | None,
    answers: Iterable[Answer],
    passed: frozenset[str] = NO_REFUSAL,
    part: str = "",
) -> Iterator[UncollectedLayer]:
    """Yield the layer with its first failure; nothing if all failures are of the kinds `passed`."""
    for answer in answers:
        if answer.error is not None and answer.error.kind not in passed:
            reason = answer.error.message
            yield UncollectedLayer(layer, host, answer.error.kind, reason, part)
            return


def _is_heard(cloud: Cloud, layer: Layer) -> bool:
    return any(answer.error is None for answer in cloud.bundle.by_layer.get(layer.id, ()))


def _is_answered(answer: Answer) -> bool:
    """True if the layer answered, even if the object does not exist."""
    return answer.error is None or answer.error.kind == "absent"


_PLACE = re.compile(r"(?:https?://)?([\w.-]{1,80}:\d{1,5})(?=[:/'])", re.ASCII)

_CAUSES = {
    "connection refused": "connection refused",
    "closed connection": "connection closed",
    "connection reset": "connection reset",
    "no route to host": "no route to host",
    "network is unreachable": "network is unreachable",
    "name or service not known": "unknown host name",
    "did not answer in time": "no answer in time",
    "timed out": "no answer in time",
    "rejected the user, password or project": "login rejected",
    "access denied for user": "login rejected",
    "neither os_cloud nor os_auth_url is set": "no OpenStack credentials were given",
}
"""Part of a message, lower case → the cause in a few words."""


def brief(message: str) -> str:
    """Return an error message in a few words: place and cause if known, else its beginning."""
    lower = message[:2000].lower()
    cause = next((short for part, short in _CAUSES.items() if part in lower), None)
    if cause is None:
        return cut(clean(message), LONGEST_REASON)
    place = _PLACE.search(message[:2000])
    return f"{place[1]}: {cause}" if place else cause


if missing := {one.id for one in TABLE if one.scope is Scope.CLOUD} - {one.id for one in ESSENTIAL}:
    raise TypeError(f"findings/silence.py does not list the essential queries of {missing}")
