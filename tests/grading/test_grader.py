"""Grading: conditions that hold, values that are unknown, and answers that must not be shown."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost
from tests.grading.conftest import GradeIt, task

from hoodsnap.grading.result import Result, Status, points
from hoodsnap.grading.sheet import SHIPPED, load
from hoodsnap.grading.text import render


def only(results: tuple[Result, ...]) -> Result:
    assert len(results) == 1
    return results[0]


def test_a_condition_that_holds_gives_its_points(grade: GradeIt) -> None:
    result = only(grade(task(holds="guest.server.status == 'ACTIVE'", points=3)).results)

    assert (result.status, result.points, result.worth) == (Status.RIGHT, 3, 3)


def test_a_condition_that_fails_is_shown_with_the_values_found(grade: GradeIt) -> None:
    sheet = task(holds="guest.server.status == 'ACTIVE'", expected="it is ACTIVE", hint="start it")

    result = only(grade(sheet, server="vm-stopped").results)

    assert (result.status, result.points) == (Status.WRONG, 0)
    assert (result.expected, result.hint) == ("it is ACTIVE", "start it")
    assert [line.partition(" (GET")[0] for line in result.found] == [
        "guest.server.status = SHUTOFF"
    ]


def test_a_missing_thing_is_null_and_not_unknown(grade: GradeIt) -> None:
    result = only(grade(task(holds="guest.process == null"), server="vm-stopped").results)

    assert result.status is Status.RIGHT


@pytest.mark.parametrize(
    ("layer", "expression"),
    [
        ("kernel", "guest.process"),
        ("kernel", "guest.process == null"),
        ("kernel", "!(guest.process)"),
        ("libvirt", "guest.domain.state == 'running'"),
        ("images", "length(guest.images) > `0`"),
        ("neutron", "guest.ports"),
        ("nova-db", "guest.instance.vm_state"),
        ("placement", "guest.allocation.resources"),
        ("cinder", "guest.volumes"),
        ("network", "guest.taps[].name"),
    ],
)
def test_a_layer_that_was_not_collected_costs_no_points(
    host: RecordedHost, grade: GradeIt, layer: str, expression: str
) -> None:
    host.silence(layer)

    result = only(grade(task(holds=expression)).results)

    assert result.status is Status.UNGRADED
    assert result.reason


def test_a_failed_condition_is_wrong_even_if_another_is_unknown(
    host: RecordedHost, grade: GradeIt
) -> None:
    host.silence("neutron")
    sheet = task(holds=["guest.server.status == 'SHUTOFF'", "guest.ports"])

    assert only(grade(sheet).results).status is Status.WRONG


def test_a_misspelled_field_is_a_mistake_of_the_sheet(grade: GradeIt) -> None:
    result = only(grade(task(holds="guest.proces.pid")).results)

    assert result.status is Status.UNGRADED
    assert result.reason.startswith("the sheet is wrong: guest.proces.pid: no field proces;")


def test_a_check_that_must_be_quiet(host: RecordedHost, grade: GradeIt) -> None:
    sheet = task(quiet="active-but-domain-off")
    assert only(grade(sheet).results).status is Status.RIGHT

    host.end("vm-plain")
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 5, "reason": 3})

    result = only(grade(sheet).results)
    assert result.status is Status.WRONG
    assert result.found[0].startswith("active-but-domain-off: nova reports the server as active")
    assert only(grade(sheet, server="vm-data").results).status is Status.RIGHT
    assert only(grade(task(fires="active-but-domain-off")).results).status is Status.RIGHT


def test_a_check_that_must_fire_and_does_not(grade: GradeIt) -> None:
    assert only(grade(task(fires="active-but-domain-off")).results).status is Status.WRONG


@pytest.mark.parametrize("kind", ["quiet", "fires"])
def test_a_check_that_could_not_be_decided_is_not_graded(
    host: RecordedHost, grade: GradeIt, kind: str
) -> None:
    host.silence("libvirt")
    host.silence("kernel")

    result = only(grade(task(**{kind: "active-but-domain-off"})).results)

    assert result.status is Status.UNGRADED
    assert result.reason.startswith("active-but-domain-off can't be decided: ")


def test_with_partial_each_condition_counts(grade: GradeIt) -> None:
    holds = ["guest.server.status == 'ACTIVE'", "guest.server.status == 'SHUTOFF'"]

    part = only(grade(task(holds=holds, points=3, partial=True)).results)
    none = only(grade(task(holds=holds, points=3)).results)

    assert (part.status, part.points) == (Status.PARTLY, 1.5)
    assert (none.status, none.points) == (Status.WRONG, 0)


ASKED = [{"id": "pid", "text": "The PID?", "answer": "guest.process.pid", "points": 2}]


def test_a_question_is_answered_by_the_students_own_bundle(
    host: RecordedHost, grade: GradeIt
) -> None:
    right, other = host.pid("vm-plain"), host.pid("vm-data")

    assert only(grade(task(questions=ASKED), f"one: {{pid: {right}}}").results).points == 2
    assert only(grade(task(questions=ASKED), f"one: {{pid: {other}}}").results).points == 0
    assert only(grade(task(questions=ASKED)).results).status is Status.UNANSWERED


def test_a_question_with_an_unknown_answer_is_not_graded(
    host: RecordedHost, grade: GradeIt
) -> None:
    host.silence("kernel")

    assert only(grade(task(questions=ASKED), "one: {pid: 1}").results).status is Status.UNGRADED


def test_the_answers_name_the_server(host: RecordedHost, grade: GradeIt) -> None:
    pid = host.pid("vm-data")
    written = f"server: vm-data\none: {{pid: {pid}}}"

    assert only(grade(task(questions=ASKED), written, None).results).points == 2


def test_the_server_is_not_guessed_among_several(grade: GradeIt) -> None:
    result = only(grade(task(holds="guest.server"), server=None).results)

    assert result.status is Status.UNGRADED
    assert "servers: name one with `server:` in the answers" in result.reason


TWO = """
id: lab
title: Lab
tasks:
- {id: first, title: First, holds: "guest.server.status == 'ACTIVE'"}
- {id: second, title: Second, holds: guest.domain, needs: first}
- {id: third, title: Third, holds: guest.domain, needs: second, hidden: true}
"""


def test_a_task_waits_for_the_tasks_it_needs(grade: GradeIt) -> None:
    statuses = [one.status for one in grade(TWO, server="vm-stopped").results]

    assert statuses == [Status.WRONG, Status.WAITS, Status.WAITS]


def test_a_task_that_needs_an_ungraded_one_is_ungraded(host: RecordedHost, grade: GradeIt) -> None:
    host.silence("nova")

    found = grade(TWO)

    assert [one.status for one in found.results] == [Status.UNGRADED] * 3
    assert found.results[1].reason == 'it needs "First", which can\'t be graded'


def test_a_reason_does_not_reveal_the_title_of_a_hidden_task(grade: GradeIt) -> None:
    sheet = TWO.replace("title: First,", "title: First, hidden: true,")

    found = grade(sheet, server="vm-stopped")

    assert found.results[1].reason == "it needs another task, which is not done"


def test_hidden_tasks_count_only_for_the_teacher(grade: GradeIt) -> None:
    found = grade(TWO)

    assert points(found.shown(hidden=True)) == 3
    assert points(found.shown(hidden=False)) == 2
    text = "\n".join(one.plain for one in render(load("compute"), found))
    assert "Third" not in text


@pytest.mark.parametrize("server", ["vm-data", "vm-stopped", "vm-suspended", "vm-bfv"])
@pytest.mark.parametrize("lab", ["compute", "volumes", "networking"])
def test_no_right_answer_is_ever_shown(
    host: RecordedHost, grade: GradeIt, lab: str, server: str
) -> None:
    guest = host.guest(server)
    assert guest.domain is not None
    macs = {port["mac_address"] for port in host.ports(server)}
    secrets = {
        "compute": {guest.uuid, guest.domain.name, *macs},
        "volumes": {volume.id for volume in guest.volumes or ()},
        "networking": {port["id"] for port in host.ports(server)} | macs,
    }[lab]
    assert secrets or lab == "volumes"

    found = grade((SHIPPED / f"{lab}.yaml").read_bytes(), server=server)

    shown = render(load(lab), found, width=10_000, hidden=True)
    text = "\n".join(one.plain for one in shown)
    assert [secret for secret in secrets if secret in text] == []
