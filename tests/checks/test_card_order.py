"""The order of a guest's network cards."""

from __future__ import annotations

import json

from tests.conftest import RecordedHost

NAME = "card-order-differs"
FIRST, SECOND = "57c477c1", "bee92e96"


def found(host: RecordedHost) -> list[tuple[str, str]]:
    return [
        (one.severity.word, one.headline)
        for one in host.report().findings
        if one.check.name == NAME
    ]


def lose_row(host: RecordedHost, *ports: str) -> None:
    """Mark rows of vm-config in virtual_interfaces as deleted."""
    for port in host.ports("vm-config"):
        if port["id"].startswith(ports):
            host.cells("virtual_interfaces", port["id"], deleted=1)


def test_card_order_differs(host: RecordedHost) -> None:
    instance = host.guest("vm-config").instance
    assert instance is not None
    assert instance.info_cache is not None
    vifs = json.loads(str(instance.info_cache["network_info"]))
    uuid = host.uuid("vm-config")
    host.row("instance_info_caches", uuid, network_info=json.dumps(vifs[::-1]))

    assert found(host) == [
        (
            "warning",
            f"vm-config's cards come in another order at its next start: {FIRST}, {SECOND} now, "
            f"{SECOND}, {FIRST} then",
        )
    ]


def test_a_lost_row_moves_its_card_to_the_end(host: RecordedHost) -> None:
    lose_row(host, FIRST)

    assert found(host) == [
        (
            "note",
            "vm-config's cards come in another order once nova rebuilds its info cache: "
            f"{FIRST}, {SECOND} now, {SECOND}, {FIRST} then, as port {FIRST} has no row",
        )
    ]


def test_a_lost_row_of_the_last_card_changes_no_order(host: RecordedHost) -> None:
    lose_row(host, SECOND)

    assert found(host) == []


def test_a_server_from_before_newton_has_no_rows(host: RecordedHost) -> None:
    lose_row(host, FIRST, SECOND)

    assert found(host) == []
