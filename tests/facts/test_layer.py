"""The table of layers: a mismatch with checks, facts or guests is an error at import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from hoodsnap.check import Problems, check
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import NOUNS, Guest, nouns_of
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact
from hoodsnap.facts.layer import APIS, KERNEL, LAYER_OF, OF_HOST, TABLE, Layer, Scope
from hoodsnap.replay.apis.services import SERVICES


@dataclass(frozen=True, eq=False, kw_only=True)
class Toy(Fact):
    """A fact of a layer that is in the table."""

    layer: ClassVar[Layer] = KERNEL
    noun: ClassVar[str] = "toy"


def test_a_check_parameter_without_a_layer_is_rejected() -> None:
    def toy_is_broken(guest: Guest, toy: int) -> Problems:
        yield from ()

    with pytest.raises(TypeError, match="toy_is_broken compares toy, which no layer"):
        check(Severity.NOTE)(toy_is_broken)


def test_a_check_parameter_that_a_guest_does_not_have_is_rejected() -> None:
    def toy_is_broken(toy: Toy) -> Problems:
        yield from ()

    with pytest.raises(TypeError, match="toy_is_broken compares toy, which a guest does not have"):
        check(Severity.NOTE)(toy_is_broken)


def test_a_check_parameter_of_the_wrong_type_is_rejected() -> None:
    def mistaken(process: Domain) -> Problems:
        yield from ()

    with pytest.raises(TypeError, match="compares process, which is not of type Process"):
        check(Severity.NOTE)(mistaken)


def test_a_check_that_needs_an_unknown_layer_is_rejected() -> None:
    def needs_much(guest: Guest) -> Problems:
        yield from ()

    with pytest.raises(TypeError, match="needs_much needs kernal, which is not a layer"):
        check(Severity.NOTE, heard=["kernal"])(needs_much)


def test_a_fact_without_a_layer_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"Lost \(a thing\) has no layer in facts/layer.py"):

        class Lost(Fact):
            noun = "thing"


def test_an_attribute_of_a_guest_that_is_not_a_noun_is_rejected() -> None:
    @dataclass(frozen=True, eq=False)
    class More(Guest):
        toy: Toy | None = None

    with pytest.raises(TypeError, match=r"guest\.toy is not among the nouns of kernel"):
        nouns_of(More)


def test_a_noun_that_is_not_an_attribute_of_a_guest_is_rejected() -> None:
    more: Mapping[str, Layer] = {**LAYER_OF, "toy": KERNEL}

    with pytest.raises(TypeError, match="a guest has no toy, which is a noun"):
        nouns_of(Guest, more)


def test_every_noun_has_its_layer() -> None:
    assert {name: noun.layer for name, noun in NOUNS.items()} == LAYER_OF


def test_a_record_is_provided_by_two_layers() -> None:
    from hoodsnap.checks.identity import server_without_domain

    assert [layer.id for layer in server_without_domain.compared["record"]] == ["nova", "nova-db"]


def test_every_api_is_replayed() -> None:
    assert {api.layer for api in SERVICES} == APIS


def test_a_layer_of_the_cloud_has_no_list_on_a_host() -> None:
    for layer in TABLE:
        assert layer.census is None or layer.scope is Scope.HOST
    assert {layer.id for layer in OF_HOST if layer.census is None} == {"qemu"}
