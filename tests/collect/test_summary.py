"""The summary that an operator reads after collecting."""

from __future__ import annotations

from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer, Failure
from hoodsnap.collect.summary import details, summary


def test_a_host_that_answered_has_one_line(host: RecordedHost) -> None:
    [line] = summary(host.bundle)

    assert line.startswith("✓ ")
    assert "from host, nova, glance, nova-db, placement, libvirt, kernel" in line


def test_layers_silent_for_one_reason_share_a_line(host: RecordedHost) -> None:
    for layer in ("nova", "placement", "neutron"):
        host.silence(layer)

    first, *others = summary(host.bundle)

    assert "nova," not in first
    assert [line.partition(": ")[2] for line in others if line[0] == "✗"] == [
        f"nova, placement, neutron: unreachable: no answer ({_first(host, 'nova')})"
    ]


def _first(host: RecordedHost, layer: str) -> str:
    query = host.bundle.by_layer[layer][0].query
    return query if len(query) <= 60 else f"{query[:59]}…"


def test_a_missing_package_is_named_with_what_installs_it(host: RecordedHost) -> None:
    failure = Failure(kind="missing", message="the Python package openstack is not installed")
    host.bundle = host.bundle.with_answers(
        _without(answer, failure) if answer.layer == "nova" else answer
        for answer in host.bundle.answers
    )

    assert any(
        "not collected: nova: the Python package openstack is not installed; install the extra "
        "hoodsnap[collect]: " in line
        for line in summary(host.bundle)
    )


def _without(answer: Answer, failure: Failure) -> Answer:
    return Answer(**answer.model_dump(exclude={"value", "error"}), error=failure)


def test_six_lines_are_enough_whatever_failed(host: RecordedHost) -> None:
    for number, layer in enumerate(host.bundle.by_layer):
        host.silence(layer, kind=f"kind-{number}")

    lines = list(summary(host.bundle))

    assert len(lines) <= 6
    assert "more reasons: --verbose lists them" in lines[-1]
    assert len(list(details(host.bundle))) > 6


def test_an_account_that_may_not_read_is_told_to_collect_as_root(host: RecordedHost) -> None:
    failure = Failure(kind="denied", message="Permission denied")
    pid = host.pid("vm-plain")
    host.bundle = host.bundle.with_answers(
        _without(answer, failure) if answer.query == f"ls -lL /proc/{pid}/fd" else answer
        for answer in host.bundle.answers
    )

    [_, said] = summary(host.bundle)
    assert said.endswith(
        f"not answered: denied: Permission denied (ls -lL /proc/{pid}/fd); collect as root"
    )
