from typing import Any

from tests.census.leaf import Kind, Leaf
from tests.census.mutation import mutations, near_text


def _made(value: Any, *pool: Any, path: str = ".a") -> list[tuple[str, Any]]:
    leaf = Leaf(Kind("nova", "GET /", path), 0, ("a",), value, (value, *pool))
    return [(mutation.name, mutation.edit.new) for mutation in mutations(leaf)]


def test_a_value_becomes_another_one_a_near_one_and_is_gone() -> None:
    assert _made("b", "c") == [("other", "c"), ("near", "bx"), ("gone", None)]


def test_a_number_that_nobody_shares_is_also_made_far() -> None:
    assert _made(4) == [("near", 5), ("near", 15), ("less", 2), ("gone", None)]


def test_a_time_moves_both_ways_in_its_own_form() -> None:
    assert _made("2026-11-25T18:00:00.5Z") == [
        ("earlier", "2026-11-23T16:00:00.5Z"),
        ("later", "2026-11-25T23:00:00.5Z"),
        ("gone", None),
    ]


def test_an_empty_value_only_becomes_that_of_another() -> None:
    assert _made(None) == []
    assert _made(None, "x") == [("other", "x")]


def test_a_near_text_keeps_its_form() -> None:
    assert near_text("yes") == "no"
    assert near_text("12") == "31"
    assert near_text("fa:16:3e:00:00:01") == "fa:16:3e:00:00:00"
    assert near_text("10.0.0.7/24") == "10.0.0.251/24"
    assert near_text("volume-00000000-0000-4000-8000-000000000000") == (
        "volume-00000000-0000-4001-8000-000000000000"
    )
    assert near_text("Threads:\t3") == "Threads:\t13"
