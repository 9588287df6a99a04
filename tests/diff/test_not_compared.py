"""The law of the fields: each one is compared, or left out with a reason."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import CONTROL_GROUPS, DAEMONS, FAULTS, MONITORS

from hoodsnap import facts
from hoodsnap.bundle import load
from hoodsnap.diff import guests, hosts
from hoodsnap.diff.not_compared import NOT_COMPARED
from hoodsnap.diff.plain import DERIVED, Unknown, compared, fields_of, plain
from hoodsnap.facts.cloud.cloud import read
from hoodsnap.facts.cloud.guest import NOUNS
from hoodsnap.facts.fact import Fact

for module in pkgutil.walk_packages(facts.__path__, "hoodsnap.facts."):
    importlib.import_module(module.name)

REACHED = {
    *(noun.fact.__name__ for noun in NOUNS.values()),
    *("InstanceMapping", "Attachment", "Migration", "BlockDeviceMapping", "RequestSpec"),
    *("Network", "Agent", "Service", "ComputeNode", "Provider"),
}
"""Facts whose fields are compared: those of a guest's nouns, of its host, and those in fields."""

APART = {
    "HostRecord": "the base of Service, ComputeNode and HostMapping",
    "ReportingService": "the base of ListedService and VolumeService",
    "ListedService": "hosts.SERVICES reads the same rows, of cinder too",
    "VolumeService": "hosts.SERVICES reads the same rows",
    "GlanceImage": "an image belongs to no server and no host; servers have copies of it",
    "InstanceAction": "hoodsnap timeline shows the actions",
    "ListedAction": "hoodsnap timeline shows the actions",
    "ListedMigration": "migrations has nova's rows of them",
    "ActionStep": "hoodsnap timeline shows the actions",
    "HostMapping": "the cell of a host, which the mapping of each of its servers has",
}


def _facts(of: type = Fact) -> Iterator[type]:
    kind: type
    for kind in of.__subclasses__():
        if kind.__module__.startswith("hoodsnap."):  # other tests make facts of their own
            yield kind
        yield from _facts(kind)


def _classes() -> dict[str, list[type]]:
    """Return name → classes of hoodsnap.facts; a name that has several is not used here."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(facts.__path__, "hoodsnap.facts."):
        for name, member in vars(importlib.import_module(module.name)).items():
            if isinstance(member, type) and member.__module__ == module.name:
                found.setdefault(name, []).append(member)
    return found


def test_every_fact_is_compared_or_named_with_a_reason() -> None:
    assert {kind.__name__ for kind in _facts()} == REACHED | APART.keys()


@pytest.mark.parametrize("name", sorted(NOT_COMPARED))
def test_a_field_that_is_left_out_exists_and_has_a_reason(name: str) -> None:
    kind, _, field = name.partition(".")

    assert field in fields_of(_classes()[kind][0])
    assert NOT_COMPARED[name]


@pytest.mark.parametrize("name", sorted(DERIVED))
def test_a_derived_value_replaces_a_field_or_stands_beside_one_that_is_left_out(name: str) -> None:
    kind = _classes()[name.partition(".")[0]][0]
    own = [*fields_of(kind)]

    assert name.partition(".")[2] in own or set(own) - set(compared(kind))


RECORDINGS = (MONITORS, CONTROL_GROUPS, DAEMONS, *sorted(FAULTS.glob("[a-d]*.zst"))[::6])


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.partition(".")[0])
def test_every_compared_field_has_a_value_that_can_be_compared(path: Path) -> None:
    cloud = read(load(path))

    for guest in cloud.guests:
        for name in (*NOUNS, "mapping"):
            _must_be_plain(plain(getattr(guest, name)))
    for host in cloud.hosts:
        for _, reader in hosts.READINGS.values():
            _must_be_plain(hosts._read(reader, host))


def _must_be_plain(value: Any) -> None:
    """Nothing that was recorded stays unread because our reader has a defect."""
    if isinstance(value, Unknown):
        assert "could not be read" not in value.reason
    elif isinstance(value, dict):
        for item in value.values():
            _must_be_plain(item)
    elif isinstance(value, tuple):
        for item in value:
            _must_be_plain(item)
    else:
        assert value is None or isinstance(value, str | int | float)


def test_the_words_for_whole_objects_are_of_nouns() -> None:
    assert guests.HEADS.keys() <= NOUNS.keys()
