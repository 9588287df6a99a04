"""One host in several bundles."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.conftest import FAULTS, RecordedHost

from hoodsnap.bundle import Answer, Bundle, Failure, load
from hoodsnap.facts.cloud.newest_visit import TwoCloudsError, newest


def _later(bundle: Bundle, change: Callable[[Answer], Answer]) -> Bundle:
    """Return the same visit, an hour later."""
    hour = timedelta(hours=1)
    answers = [
        change(answer).model_copy(update={"at": answer.at + hour}) for answer in bundle.answers
    ]
    raw = {"started": bundle.started + hour, "ended": bundle.ended + hour}
    return Bundle(tool=bundle.tool, answers=tuple(answers), **raw)


def _count(bundle: Bundle, layer: str) -> int:
    return len(bundle.by_layer.get(layer, ()))


def test_a_hosts_own_layers_are_taken_from_its_newest_visit(host: RecordedHost) -> None:
    old, new = host.bundle, _later(host.bundle, lambda answer: answer)

    for order in ([old, new], [new, old]):
        taken, remarks = newest(order)

        first, second = taken if order[0] is old else reversed(taken)
        assert [_count(first, layer) for layer in ("libvirt", "kernel", "images")] == [0, 0, 0]
        assert _count(first, "nova") == _count(old, "nova"), "all answers about the cloud are used"
        assert second is new
        when = f"{new.started:%Y-%m-%d %H:%M:%S} UTC"
        assert remarks == [
            "vm appears in several bundles; its host data is taken from the newest, collected at "
            f"{when}"
        ]


def test_bundles_of_two_hosts_are_both_used_whole(host: RecordedHost) -> None:
    other = _later(host.bundle, lambda answer: answer.model_copy(update={"host": "vm2"}))

    taken, remarks = newest([host.bundle, other])

    assert taken == [host.bundle, other]
    assert remarks == []


def test_layers_of_one_host_in_two_bundles_supplement_each_other(host: RecordedHost) -> None:
    above, below = RecordedHost(host.bundle), RecordedHost(host.bundle)
    above.drop(lambda answer: answer.layer in ("nova", "nova-db"))
    below.drop(lambda answer: answer.layer not in ("nova", "nova-db"))

    taken, remarks = newest([above.bundle, below.bundle])

    assert taken == [above.bundle, below.bundle]
    assert remarks == []


def test_a_visit_supersedes_only_layers_that_answered(host: RecordedHost) -> None:
    def silenced(answer: Answer) -> Answer:
        if answer.layer != "libvirt":
            return answer
        raw = answer.model_dump(exclude={"error", "value"})
        return Answer(**raw, error=Failure(kind="unreachable", message="no answer"))

    new = _later(host.bundle, silenced)
    taken, _ = newest([host.bundle, new])

    assert _count(taken[0], "libvirt") == _count(host.bundle, "libvirt")
    assert _count(taken[0], "kernel") == 0


def test_hosts_of_two_clouds_with_one_name_are_not_one_host(host: RecordedHost) -> None:
    other = load(FAULTS / "memory-live.json.zst")  # another deployment; its host is called vm, too

    with pytest.raises(TwoCloudsError, match="two clouds have a host named vm") as caught:
        newest([host.bundle, other])
    assert (caught.value.first, caught.value.second) == (0, 1)


@pytest.mark.parametrize("layer", ["nova", "nova-db"])
def test_either_of_nova_s_layers_tells_the_clouds_apart(host: RecordedHost, layer: str) -> None:
    other = RecordedHost(load(FAULTS / "memory-live.json.zst"))
    for bundle in (host, other):
        bundle.drop(lambda answer: answer.layer == layer or not answer.layer.startswith("nova"))

    with pytest.raises(TwoCloudsError):
        newest([host.bundle, other.bundle])


def test_a_bundle_without_nova_is_of_any_cloud(host: RecordedHost) -> None:
    other = RecordedHost(load(FAULTS / "memory-live.json.zst"))
    other.drop(lambda answer: not answer.layer.startswith("nova"))

    taken, remarks = newest([host.bundle, other.bundle])

    assert len(taken) == 2
    assert len(remarks) == 1


def test_the_old_ids_of_services_are_the_same_in_every_cloud(host: RecordedHost) -> None:
    """Before microversion 2.53 a service's id is a small number, so it proves nothing."""
    other = RecordedHost(load(FAULTS / "memory-live.json.zst"))
    for bundle in (host, other):
        bundle.drop(
            lambda answer: (
                answer.layer not in ("nova", "nova-db") or answer.query == "GET /v2.1/os-services"
            )
        )

    assert len(newest([host.bundle, other.bundle])[0]) == 2
