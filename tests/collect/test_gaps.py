"""Which bundles are partial: layers that are there and did not answer everything."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, healthy

from hoodsnap.bundle import Answer, Bundle, Failure
from hoodsnap.collect.gaps import gaps


def failing(bundle: Bundle, layer: str, start: str, kind: str, message: str = "") -> Bundle:
    """Let the questions of a layer fail that begin with a text."""

    def fail(answer: Answer) -> Answer:
        if answer.layer != layer or not answer.query.startswith(start):
            return answer
        asked = answer.model_dump(exclude={"value", "error"})
        return Answer(**asked, error=Failure(kind=kind, message=message or kind))

    return bundle.with_answers(tuple(map(fail, bundle.answers)))


def test_a_healthy_host_has_no_gap(host: RecordedHost) -> None:
    assert gaps(host.bundle) == ()


@pytest.mark.parametrize("kind", ["timeout", "unreachable", "denied", "failed", "too-large"])
@pytest.mark.parametrize("layer", ["nova", "nova-db", "libvirt", "cinder"])
def test_a_layer_that_answered_nothing_is_a_gap(layer: str, kind: str) -> None:
    assert gaps(failing(healthy(), layer, "", kind)) == (layer,)


@pytest.mark.parametrize("kind", ["absent", "missing"])
def test_a_layer_that_does_not_exist_or_cannot_be_asked_is_none(kind: str) -> None:
    assert gaps(failing(healthy(), "cinder", "", kind)) == ()


def test_a_layer_that_fell_silent_between_two_looks_is_a_gap() -> None:
    assert gaps(failing(healthy(), "libvirt", "virsh list", "timeout")) == ("libvirt",)


@pytest.mark.parametrize("kind", ["denied", "failed"])
def test_one_question_that_was_refused_is_none(kind: str) -> None:
    assert gaps(failing(healthy(), "libvirt", "virsh secret-list", kind)) == ()


def test_a_slow_name_server_is_none() -> None:
    assert gaps(failing(healthy(), "host", "hostname -f", "timeout")) == ()


def test_libvirt_on_a_host_without_it_is_none() -> None:
    bundle = failing(healthy(), "libvirt", "", "unreachable", "Failed to connect socket")

    assert gaps(failing(bundle, "host", "/etc/libvirt/", "absent")) == ()
    assert gaps(failing(bundle, "host", "/etc/libvirt/", "denied")) == ("libvirt",)
