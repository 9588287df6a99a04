"""The laws that every check obeys."""

from __future__ import annotations

import inspect
import re
import typing
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import FAULTS, RecordedHost, healthy, healthy_report, sample

from hoodsnap import checks
from hoodsnap.bundle import Answer, dump, load, parse
from hoodsnap.check import COMMANDS, Check
from hoodsnap.checks import CATALOG, TOPICS, traps
from hoodsnap.checks.dangers import DANGERS
from hoodsnap.checks.root_causes import CROWDS, OF_ITS_LAYERS, ROOTS
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.layer import LAYERS, TABLE
from hoodsnap.findings.advice import READ_ONLY, WORKED
from hoodsnap.findings.analysis import Report

LEFT_OUT = ("rbd-lock-or-orphan",)  # the reason is in docs/explanation/not-checked.md
"""Names in the tables of roots and dangers that belong to no check."""

every_check = pytest.mark.parametrize("check", CATALOG, ids=lambda check: check.name)


def test_the_healthy_cloud_is_quiet(host: RecordedHost) -> None:
    assert host.findings() == []


def test_the_healthy_cloud_has_guests_in_every_state_that_matters() -> None:
    states = {guest.record.vm_state for guest in healthy_report().cloud.guests if guest.record}

    assert states == {
        "active", "stopped", "paused", "suspended", "shelved_offloaded", "resized", "rescued", "error",
    }  # fmt: skip


def test_the_healthy_cloud_is_quiet_with_its_monitors(monitored: RecordedHost) -> None:
    report = monitored.report()

    assert report.findings == ()
    guests = report.cloud.guests
    asked = [guest for guest in guests if guest.monitor is not None]
    assert len(asked) == sum(guest.process is not None for guest in guests) >= 11


@pytest.mark.parametrize("kind", ["unreachable", "denied", "timeout"])
def test_silent_monitors_are_not_a_finding(monitored: RecordedHost, kind: str) -> None:
    monitored.silence("qemu", kind)

    assert monitored.findings() == []


@every_check
def test_parameters_are_attributes_of_a_guest(check: Check) -> None:
    hints = typing.get_type_hints(check.find)
    hints.pop("return")
    if check.scope == "guest":
        attributes = typing.get_type_hints(Guest) | {"cloud": Cloud}
        attributes["record"] = typing.get_type_hints(Guest.__dict__["record"].func)["return"]
        for name, hint in hints.items():
            if name == "guest":
                assert hint is Guest
            else:
                assert set(_parts(hint)) <= set(_parts(attributes[name]))
    else:
        assert check.scope in hints
        assert hints.items() <= {"host": Host, "cloud": Cloud}.items()


def _parts(hint: object) -> tuple[object, ...]:
    origin = typing.get_origin(hint)
    return typing.get_args(hint) if origin is not None and origin is not tuple else (hint,)


@every_check
def test_the_docstring_is_a_manual_page(check: Check) -> None:
    assert check.message.endswith(".")
    assert len(check.message) < 120
    assert check.sections["why"], "it does not explain the cause"
    for section in ("authority", "traps", "next", "not yet", "source"):
        assert check.sections.get(section), f"the section {section} is missing"


def commands(check: Check) -> list[list[str]]:
    """Return the commands of the advice, in groups."""
    paragraphs = check.sections["next"].split("\n\n")
    return [
        [line.strip() for line in paragraph.splitlines()]
        for paragraph in paragraphs
        if paragraph.startswith(COMMANDS)
    ]


@every_check
def test_the_first_advice_changes_nothing(check: Check) -> None:
    first, *_ = commands(check)

    assert [command for command in first if not READ_ONLY.match(command)] == []
    assert all(">" not in re.sub(r"'[^']*'", "", command) for command in first)


@every_check
def test_a_change_is_followed_by_a_look_whether_it_worked(check: Check) -> None:
    paragraphs = check.sections["next"].split("\n\n")
    changing = [
        number
        for number, paragraph in enumerate(paragraphs)
        if paragraph.startswith(COMMANDS) and any(map(_changes, _lines(paragraph)))
    ]
    if not changing:
        return

    after = paragraphs[changing[-1] + 1 :]
    assert [paragraph[: len(WORKED)] for paragraph in after].count(WORKED) == 1
    at = next(at for at, paragraph in enumerate(after) if paragraph.startswith(WORKED))
    [look] = after[at + 1 : at + 2]
    assert look.startswith(COMMANDS)
    assert not any(map(_changes, _lines(look)))


def _lines(paragraph: str) -> list[str]:
    return [line.strip() for line in paragraph.splitlines()]


def _changes(command: str) -> bool:
    return not READ_ONLY.match(command)


@every_check
def test_the_words_that_a_report_fills_in_stand_only_in_commands(check: Check) -> None:
    """`the UUID of the cell` would become this server's UUID of the cell."""
    advice = f"{check.sections['next']}\n\n{check.sections['not yet']}"
    prose = [part for part in advice.split("\n\n") if not part.startswith(COMMANDS)]
    words = re.findall(r"\b(?:UUID|NAME|PID)\b", re.sub(r"`[^`]*`", "", " ".join(prose)))

    assert words == [] or check.scope != "guest"


@every_check
def test_the_advice_is_not_forbidden_by_its_own_check(check: Check) -> None:
    """Otherwise nobody could follow it: the check forbids the command until it is quiet."""
    advised = [command for group in commands(check) for command in group]

    assert [
        (command, danger)
        for command in advised
        if not command.startswith("virsh autostart --disable ")
        for danger in forbidden_commands(check)
        if any(part <= {*command.split()} for part in parts_of(danger))
    ] == []


def forbidden_commands(check: Check) -> list[str]:
    """Return the commands that a check forbids until it is quiet."""
    return [danger.command for danger in DANGERS if check.name in danger.gates] + _not_yet(check)


def _not_yet(check: Check) -> list[str]:
    """Return the commands that a check's own "Not yet" names, in full.

    "`openstack server reboot` or `delete`" names `openstack server delete`, too.
    """
    found: list[str] = []
    for span in re.findall(r"`([^`]*)`", check.sections["not yet"]):
        words = span.split()
        if words[0] in PROGRAMS:
            found.append(span)
        elif found and re.fullmatch(r"-?[a-z][a-z-]+", words[0]):
            at = 1 if words[0].startswith("-") else len(words)
            found.append(" ".join([*found[-1].split()[:-at], *words]))
    return found


PROGRAMS = (
    *("openstack", "nova-manage", "cinder", "virsh", "qemu-img", "systemctl", "ovs-vsctl"),
    *("rm", "cp", "mv", "touch", "kill", "chown", "restorecon", "rbd", "iscsiadm", "multipath"),
    *("UPDATE", "DELETE", "INSERT"),
)
"""First words of commands that a check may forbid."""


def parts_of(danger: str) -> list[set[str]]:
    """Return the words of each command in a danger, without placeholders: `virsh resume NAME`."""
    parts: list[set[str]] = []
    for command in danger.split("; "):
        first, *others = command.split(", ")
        # After a comma stands another end of the command: `qemu-img rebase -u, commit`.
        program = first.split()[0]
        parts += [
            {word for word in part.split() if not (word.isalpha() and word.isupper())}
            for part in (first, *(f"{program} {other}" for other in others))
        ]
    return parts


@every_check
def test_required_layers_exist(check: Check) -> None:
    assert set(check.heard) <= set(LAYERS)


@every_check
def test_every_check_has_a_test_of_its_name(check: Check) -> None:
    source = (Path(__file__).parent / f"test_{check.topic}.py").read_text()

    assert f"def test_{check.find.__name__}(" in source


def test_names_are_unique() -> None:
    names = [check.name for check in CATALOG]

    assert len(names) == len(set(names))


def test_every_topic_is_listed() -> None:
    folder = Path(inspect.getfile(checks)).parent
    modules = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "traps",
        "root_causes",
        "dangers",
        "legal_states",
        "zones",
    }

    assert {topic.__name__.rpartition(".")[2] for topic in TOPICS} == modules


def test_every_trap_is_in_the_traps_module_and_gives_its_reason() -> None:
    used = {trap for check in CATALOG for trap in check.traps}

    assert used
    for trap in used:
        assert inspect.getmodule(trap) is traps
        assert trap.__doc__


def test_tables_name_existing_checks() -> None:
    crowds = [name for check, (_, names) in CROWDS.items() for name in (check, *names)]
    roots = [name for root, names in ROOTS.items() for name in (root, *names)]
    gates = [gate for danger in DANGERS for gate in danger.gates]
    names = {*crowds, *roots, *gates, *OF_ITS_LAYERS}

    assert names - {check.name for check in CATALOG} <= set(LEFT_OUT)


@pytest.mark.parametrize("layer", [layer.id for layer in TABLE])
@pytest.mark.parametrize("kind", ["unreachable", "denied", "timeout"])
def test_a_silent_layer_is_not_a_finding(host: RecordedHost, layer: str, kind: str) -> None:
    host.silence(layer, kind)
    report = host.report()

    assert report.findings == ()
    if layer in ("nova-db", "libvirt", "kernel", "images"):
        assert any(not skip.legal for skip in report.skips)
    if layer in LAYERS:
        assert all(layer in guest.unheard for guest in report.cloud.guests)


@pytest.mark.parametrize("layer", [layer.id for layer in TABLE if layer.id in healthy().by_layer])
def test_a_layer_that_was_not_collected_is_not_a_finding(host: RecordedHost, layer: str) -> None:
    host.drop(lambda answer: answer.layer != layer)

    assert host.findings() == []


@pytest.mark.parametrize("number", sample(range(200), 40))
def test_a_missing_answer_is_not_a_finding(host: RecordedHost, number: int) -> None:
    # Every 200th answer of the recording, starting at another one each time.
    answers = host.bundle.answers
    gone = set(range(number % len(answers), len(answers), 200))
    kept = tuple(answer for at, answer in enumerate(answers) if at not in gone)
    host.bundle = host.bundle.with_answers(kept)

    assert host.findings() == []


@pytest.mark.parametrize("name", ["db-flavor-drift", "attachment-twice", "console-exposed"])
def test_a_bundle_that_was_mailed_says_the_same(name: str) -> None:
    """Tests edit answers in memory; a person's bundle comes out of a file."""
    edited = RecordedHost(load(FAULTS / f"{name}.json.zst"))
    edited.silence("placement")
    edited.set("host", "/etc/nova/nova.conf", {"DEFAULT": {"debug": "True"}})
    mailed = RecordedHost(parse(dump(edited.bundle)))

    assert edited.findings() != []
    assert mailed.findings() == edited.findings()
    assert mailed.folded() == edited.folded()
    assert skipped(mailed.report()) == skipped(edited.report())


def test_two_cells_with_databases_of_one_name_change_nothing(host: RecordedHost) -> None:
    """The cell's database is on another server; the first server has an empty cell's database of
    the same name."""
    there = " /* at 10.0.0.5:3306 */"
    listed = host.last(
        "nova-db",
        "SELECT id, uuid, name, disabled, database_connection FROM nova_api.cell_mappings",
    )
    [first, own] = listed.value["rows"]
    cells = [first, [*own[:4], "10.0.0.5:3306", "nova"], [3, "c3", "cell2", 0, *own[4:]]]
    host.set("nova-db", listed.query, listed.value | {"rows": cells})
    answers: list[Answer] = []
    for answer in host.bundle.answers:
        if answer.layer == "nova-db" and " FROM nova." in answer.query:
            answers.append(answer.model_copy(update={"query": answer.query + there}))
            empty = {"columns": answer.value["columns"], "rows": []} if answer.value else None
            answer = answer.model_copy(update={"value": empty})
        answers.append(answer)
    host.bundle = host.bundle.with_answers(tuple(answers))

    report = host.report()
    assert report.findings == ()
    assert skipped(report) == skipped(healthy_report())


def skipped(report: Report) -> Counter[str]:
    return Counter(f"{skip.check.name}: {skip.reason}" for skip in report.skips)
