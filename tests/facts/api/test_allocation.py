"""Providers, inventories and allocations, as placement returns them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.api.allocation import Placement
from hoodsnap.facts.fact import UnheardError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NODE = "ac663621-398b-4fa3-94b4-eec5656dc199"
CHILD = "bd663621-398b-4fa3-94b4-eec5656dc199"
SERVER = "59bedb74-03f2-47bf-b547-e1cb56b4c802"
NOBODY = "00000000-03f2-47bf-b547-e1cb56b4c802"
PROVIDERS = [
    {"uuid": NODE, "name": "vm", "parent_provider_uuid": None, "root_provider_uuid": NODE},
    {"uuid": CHILD, "name": "vm_pci", "parent_provider_uuid": NODE, "root_provider_uuid": NODE},
]


def said(query: str, value: object) -> Answer:
    query = f"GET {query} [1.39]"
    return Answer(layer="placement", host="vm", query=query, at=NOON, took=0.1, value=value)


def failed(query: str, message: str = "no answer") -> Answer:
    error = Failure(kind="timeout", message=message)
    return Answer(
        layer="placement", host="vm", query=f"GET {query} [1.39]", at=NOON, took=0.1, error=error
    )


def listed(uuid: str, **consumers: dict[str, int]) -> Answer:
    held = {consumer: {"resources": amounts} for consumer, amounts in consumers.items()}
    return said(f"/resource_providers/{uuid}/allocations", {"allocations": held})


ALL = said("/resource_providers", {"resource_providers": PROVIDERS})


def test_an_allocation_is_read_from_the_lists_of_its_providers() -> None:
    placement = Placement(
        [
            ALL,
            listed(NODE, **{SERVER: {"VCPU": 2, "MEMORY_MB": 64}}),
            listed(CHILD, **{SERVER: {"PCI": 1}}),
        ]
    )

    allocation = placement.of(SERVER)
    assert allocation is not None
    assert allocation.words == "2 VCPU, 64 MEMORY_MB of vm; 1 PCI of vm_pci"
    assert allocation.resources == {"VCPU": 2, "MEMORY_MB": 64, "PCI": 1}
    assert allocation.roots == {NODE}
    assert allocation.whole


def test_an_allocation_is_read_from_its_own_answer() -> None:
    held = {"allocations": {NODE: {"resources": {"VCPU": 1}, "generation": 3}}}
    placement = Placement([said(f"/allocations/{SERVER}", held)])

    allocation = placement.of(SERVER)
    assert allocation is not None
    assert allocation.words == f"1 VCPU of {NODE}"
    with pytest.raises(UnheardError, match=f"provider {NODE} was not collected"):
        _ = allocation.roots


def test_a_consumer_in_none_of_the_complete_lists_holds_nothing() -> None:
    placement = Placement([ALL, listed(NODE), listed(CHILD)])

    assert placement.of(SERVER) is None
    assert placement.nothing(SERVER) is ALL


def test_an_empty_answer_about_a_consumer_proves_that_it_holds_nothing() -> None:
    answer = said(f"/allocations/{SERVER}", {"allocations": {}})

    assert Placement([answer]).nothing(SERVER) is answer


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [ALL, listed(NODE)],  # the child's list was not collected
        [ALL, listed(NODE), failed(f"/resource_providers/{CHILD}/allocations")],
        [said("/resource_providers?name=vm", {"resource_providers": PROVIDERS}), listed(NODE), listed(CHILD)],
        [ALL, listed(NODE), listed(CHILD), failed(f"/allocations/{SERVER}")],
        [ALL, listed(NODE), listed(CHILD), said(f"/allocations/{SERVER}", [])],
        [failed("/")],
    ],
)  # fmt: skip
def test_incomplete_lists_prove_nothing(answers: list[Answer]) -> None:
    placement = Placement(answers)

    assert placement.of(SERVER) is None
    with pytest.raises(UnheardError):
        placement.nothing(SERVER)


def test_an_incomplete_list_still_shows_its_consumers() -> None:
    one = said("/resource_providers?name=vm", {"resource_providers": PROVIDERS[:1]})
    placement = Placement([one, listed(NODE, **{SERVER: {"VCPU": 1}})])

    allocation = placement.of(SERVER)
    assert allocation is not None
    assert not allocation.whole
    with pytest.raises(UnheardError):
        placement.nothing(NOBODY)


def test_without_trees_each_provider_is_its_own_root() -> None:
    old = said("/resource_providers", {"resource_providers": [{"uuid": NODE, "name": "vm"}]})

    assert Placement([old]).providers[NODE].root == NODE


def test_the_capacity_includes_the_allocation_ratio() -> None:
    raw = {"total": 2, "reserved": 0, "allocation_ratio": 16.0}
    part = said(f"/resource_providers/{NODE}/inventories", {"inventories": {"VCPU": raw}})

    assert Placement([ALL, part]).providers[NODE].inventories["VCPU"].capacity == 32


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("inventories", {"inventories": {"VCPU": []}}),
        ("inventories", {"inventories": {"VCPU": {"total": "x", "reserved": 0}}}),
        ("inventories", {"inventories": []}),
        ("traits", {"traits": None}),
    ],
)
def test_unreadable_parts_of_a_provider_are_unheard(part: str, value: object) -> None:
    provider = Placement([ALL, said(f"/resource_providers/{NODE}/{part}", value)]).providers[NODE]

    with pytest.raises(UnheardError):
        getattr(provider, part)


@pytest.mark.parametrize("entry", [[], {"resources": []}, {"resources": {"VCPU": "1"}}, {}])
def test_unreadable_amounts_are_unheard(entry: object) -> None:
    value = {"allocations": {NODE: entry}}
    placement = Placement([ALL, said(f"/allocations/{SERVER}", value)])

    with pytest.raises(UnheardError):
        allocation = placement.of(SERVER)
        _ = allocation.words if allocation is not None else placement.nothing(SERVER)


def test_every_recorded_server_on_a_host_has_an_allocation(host: RecordedHost) -> None:
    guests = [g for g in host.report().cloud.guests if g.instance is not None]

    assert guests
    for guest in guests:
        assert (guest.allocation is not None) == (guest.believed is not None)
        assert "placement" not in guest.unheard
        if guest.allocation is not None and guest.host is not None:
            assert guest.host.provider is not None
            assert guest.allocation.roots == {guest.host.provider.uuid}
