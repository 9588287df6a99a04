"""Answers that name what they are about."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer


def _found(host: RecordedHost) -> list[str]:
    name = "answer-about-another-object"
    return [it.headline for it in host.report().findings if it.check.name == name]


def test_answer_about_another_object(host: RecordedHost) -> None:
    first = next(it for it in host.bundle.by_layer["images"] if it.query == "stat -L /var")
    host.set("images", first.query, first.value | {"path": "/srv"})

    [finding] = [
        it for it in host.report().findings if it.check.name == "answer-about-another-object"
    ]
    assert finding.severity.word == "error"
    assert finding.headline == "On vm, the answer to a question about /var is about /srv"


def test_an_image_of_another_guest_is_found(host: RecordedHost) -> None:
    own, other = host.uuid("vm-plain"), host.uuid("vm-duo")
    answer = next(
        it
        for it in host.bundle.by_layer["images"]
        if it.query.startswith("qemu-img info") and own in it.query and isinstance(it.value, list)
    )
    first, *rest = answer.value
    renamed = first | {"filename": first["filename"].replace(own, other)}
    host.set("images", answer.query, [renamed, *rest])

    [headline] = _found(host)
    assert own[:8] in headline and other[:8] in headline


def test_a_process_of_another_number_is_found(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    host.edit("kernel", f"/proc/{pid}/status", f"Pid:\t{pid}\n", "Pid:\t77\n")

    assert _found(host) == [f"On vm, the answer to a question about {pid} is about 77"]


@pytest.mark.parametrize("value", [{"path": "/var"}, {}, {"path": None}])
def test_an_answer_that_says_nothing_else_is_not_judged(
    host: RecordedHost, value: dict[str, object]
) -> None:
    host.set("images", "stat -L /var", value)

    assert _found(host) == []


def test_a_volume_of_another_id_is_found(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    asked = host.last("cinder", "GET /v3/os-services [3.70]")
    raw = asked.model_dump(exclude={"error", "value"})
    raw |= {"query": f"GET /v3/volumes/{volume} [3.70]", "subject": volume}
    host.add(Answer(**raw, value={"volume": {"id": "00000000-0000-4000-8000-000000000000"}}))

    [headline] = _found(host)
    assert headline.endswith(f"a question about {volume[:8]} is about 00000000")
