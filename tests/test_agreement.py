"""What several layers tell is compared, and what one of them does not tell hides nothing."""

from __future__ import annotations

import pytest
from tests.conftest import HEALTHY

from hoodsnap.agreement import Thing, Told, disagreements
from hoodsnap.bundle import load
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import UnheardError, unheard
from hoodsnap.findings.analysis import analyze

SERVER = Told("server", "nova's API", "name", lambda server: server.name)
INSTANCE = Told("instance", "nova's database row", "name", lambda row: row.name)
DOMAIN = Told("domain", "libvirt", "name", lambda domain: domain.name)
SILENT = Told("server", "nova's API", "name", lambda server: None)
UNHEARD = Told("instance", "nova's database row", "name", lambda row: unheard("never asked"))


@pytest.fixture(scope="module")
def guest() -> Guest:
    return next(guest for guest in analyze(load(HEALTHY)).cloud.guests if guest.name == "vm-plain")


def found(guest: Guest, *tellers: Told) -> list[str]:
    facts = {"server": guest.server, "instance": guest.instance, "domain": guest.domain}
    things = [Thing("name", tellers)]
    return [each.headline for each in disagreements("vm-plain", things, **facts)]


def test_equal_values_are_no_problem(guest: Guest) -> None:
    assert found(guest, SERVER, INSTANCE) == []


def test_the_first_teller_has_the_authority(guest: Guest) -> None:
    assert found(guest, SERVER, INSTANCE, DOMAIN) == [
        "vm-plain's name is vm-plain in nova's API, but instance-00000001 in libvirt"
    ]


def test_a_teller_that_says_nothing_is_not_compared(guest: Guest) -> None:
    assert found(guest, SILENT, INSTANCE) == []
    assert found(guest, SILENT, INSTANCE, DOMAIN) == [
        "vm-plain's name is vm-plain in nova's database row, but instance-00000001 in libvirt"
    ]


def test_an_unheard_teller_hides_no_difference_between_the_others(guest: Guest) -> None:
    facts = {"server": guest.server, "instance": guest.instance, "domain": guest.domain}
    problems = disagreements("vm-plain", [Thing("name", (UNHEARD, SERVER, DOMAIN))], **facts)

    assert [piece.layer for piece in next(problems).evidence] == ["nova", "libvirt"]
    with pytest.raises(UnheardError, match="never asked"):
        next(problems)
