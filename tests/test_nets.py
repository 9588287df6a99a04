"""No value in a bundle crashes a command.

An unreadable value is reported, is never a pass, and does not affect anything else.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from fuzz.campaign import Campaign
from fuzz.targets import TARGETS
from tests.command import hoodsnap
from tests.conftest import FAULTS, HEALTHY, healthy, healthy_report
from tests.test_bounds import bundle_of

from hoodsnap import check as checks
from hoodsnap.bundle import parse
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.join import Join
from hoodsnap.facts.fact import Fact, UnheardError, read_each
from hoodsnap.facts.layer import KERNEL
from hoodsnap.findings.analysis import analyze
from hoodsnap.grading import classroom
from hoodsnap.grading.sheet import load as load_sheet
from hoodsnap.grading.submissions import Submission
from hoodsnap.render import json as as_json
from hoodsnap.render import markdown
from hoodsnap.render import text as as_text
from hoodsnap.trust import plausible

UUID = "148ab7d4-5c5f-420e-85dd-eb24494f9617"
SERVERS = {
    "layer": "nova",
    "query": "GET /v2.1/servers/detail?all_tenants=True [2.93]",
    "value": {"servers": [{"id": UUID, "name": "x", "status": "ACTIVE"}]},
}
VOLUME = "0ab94923-722d-4c2b-912f-aaaaaaaaaaaa"
ATTACHED = {"attachment_id": "a", "volume_id": {}, "server_id": UUID}

CRASHES: dict[str, list[dict[str, Any]]] = {
    "pid": [
        {
            "layer": "kernel",
            "query": "ls -l /proc/*/exe",
            "value": [{"pid": {}, "comm": "x", "exe": "/x"}],
        },
        {
            "layer": "images",
            "query": "find /var/lib/nova/instances -ls",
            "value": [{"path": f"/var/lib/nova/instances/{UUID}", "type": "d"}],
        },
    ],
    "volume_id": [
        SERVERS,
        {
            "layer": "cinder",
            "query": "GET /v3/volumes/detail?all_tenants=True",
            "value": {"volumes": [{"id": VOLUME, "attachments": [ATTACHED]}]},
        },
        {"query": "virsh list --all", "value": [{"id": 1, "name": "i", "uuid": UUID}]},
    ],
    "boot_id": [
        {
            "layer": "hoodsnap",
            "query": "hoodsnap challenge",
            "value": {"challenge": "x", "boot_id": {}, "utc": {}},
        },
        {"layer": "kernel", "query": "/proc/sys/kernel/random/boot_id", "value": "b"},
    ],
    "device_id": [
        SERVERS,
        {
            "layer": "neutron",
            "query": "GET /v2.0/ports?network_id=n",
            "value": {"ports": [{"id": "p1", "device_id": {}}]},
        },
        {
            "layer": "neutron",
            "query": f"GET /v2.0/ports?device_id={UUID}",
            "value": {"ports": []},
        },
    ],
}
"""Name of a field → answers in which it is an object instead of a number or text."""

COMMANDS = (
    ["explain"],
    ["explain", "-f", "markdown"],
    ["explain", "-f", "json"],
    ["check"],
    ["timeline"],
    ["timeline", "-v"],
    ["timeline", "-f", "json"],
    ["verify", "--plausible", "--challenge", "x"],
    ["grade", "compute"],
    ["redact", "-o", "redacted.json"],
)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nets catch exceptions, as they do outside of the tests."""
    monkeypatch.delenv("HOODSNAP_DEBUG", raising=False)


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = hoodsnap(*arguments, cwd=cwd)
    text = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, *text)


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("crash", CRASHES)
def test_no_command_crashes_on_a_value(crash: str, command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(bundle_of(*CRASHES[crash]))

    done = run(*command, path, cwd=tmp_path)

    assert "defect" not in done.stderr
    assert not [*tmp_path.glob("hoodsnap-crash*")]
    assert done.returncode in (0, 1, 3)


def _breaking(guest: object) -> Iterator[Any]:
    raise KeyError(guest)


@pytest.mark.usefixtures("closed")
def test_a_check_that_raises_is_neither_a_pass_nor_a_finding() -> None:
    def broken(guest: object) -> Iterator[Any]:
        """It raises."""
        yield from _breaking(guest)

    one = checks.check(Severity.ERROR)(broken)

    report = analyze(healthy(), (one,))

    assert not report.findings
    assert {id(skip.guest) for skip in report.skips} == {*map(id, report.cloud.guests)}
    assert all(skip.reason.startswith("could not be read: KeyError at ") for skip in report.skips)


@pytest.mark.usefixtures("closed")
def test_a_field_that_raises_is_unheard_and_not_absent() -> None:
    class Odd(Fact):
        layer, noun = KERNEL, "odd"

        @cached_property
        def name(self) -> str:
            """It raises."""
            raise KeyError("S3CRET")

    with pytest.raises(UnheardError, match="could not be read: KeyError"):
        Odd().name  # noqa: B018


@pytest.mark.usefixtures("closed")
def test_an_answer_that_breaks_its_reader_counts_as_failed() -> None:
    answers = [one for one in healthy().answers if one.error is None][:50]
    bad = {answers[7].query, answers[31].query}

    def read(heard: Any) -> dict[str, str | None]:
        for answer in heard:
            if answer.query in bad and answer.error is None:
                raise TypeError
        return {one.query: one.error and one.error.message for one in heard}

    found = read_each(read, answers)

    failed = {query for query, error in found.items() if error is not None}
    assert failed == bad
    assert all("could not be read: TypeError" in str(found[query]) for query in bad)


@pytest.mark.usefixtures("closed")
def test_a_reader_that_raises_for_every_answer_reads_none() -> None:
    def read(heard: Any) -> int:
        if any(answer.error is None for answer in heard):
            raise TypeError
        return len(heard)

    assert read_each(read, healthy().answers[:40]) == 40


@pytest.mark.usefixtures("closed")
def test_a_guest_that_can_not_be_joined_exists_and_is_unheard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other guests are checked as usual."""
    lost = healthy_report().cloud.guests[3].uuid
    whole = Join._guest

    def broken(self: Join, uuid: str, host: Any) -> Any:
        if uuid == lost:
            raise TypeError
        return whole(self, uuid, host)

    monkeypatch.setattr(Join, "_guest", broken)

    report = analyze(healthy())

    assert [one.uuid for one in report.cloud.guests if one.name == ""] == [lost]
    assert len(report.cloud.guests) == len(healthy_report().cloud.guests)
    told = "\n".join(
        line.plain for line in as_text.render(report, report.cloud.guests, verbose=True)
    )
    assert "could not be read: TypeError" in told
    assert not [one for one in report.everything() if one.guest and one.guest.uuid == lost]
    json.loads(as_json.render(report, report.cloud.guests))


@pytest.mark.usefixtures("closed")
def test_a_rule_that_raises_is_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(visit: object) -> Iterator[str]:
        raise TypeError

    monkeypatch.setattr(plausible, "RULES", (broken,))

    assert [doubt.rule for doubt in plausible.doubts(healthy())] == ["broken"]


@pytest.mark.usefixtures("closed")
def test_a_partially_read_guest_is_not_reported_as_agreeing() -> None:
    def broken(guest: object) -> Iterator[Any]:
        """It raises."""
        yield from _breaking(guest)

    report = analyze(healthy(), (checks.check(Severity.ERROR)(broken),))
    told = [line.plain for line in as_text.render(report, report.cloud.guests)]

    assert not [line for line in told if line.strip().startswith("✓")]
    count = len(report.cloud.guests)
    assert f"? {count} servers, not all of it could be read: vm-bfv" in "\n".join(told)
    assert f"{count} servers: not decided" in told


def test_with_debugging_nets_catch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOODSNAP_DEBUG", "1")

    with pytest.raises(TypeError):
        read_each(lambda heard: {}[[]], healthy().answers[:5])  # type: ignore[index]


def test_no_recording_needs_a_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOODSNAP_DEBUG", "1")

    for path in (HEALTHY, *sorted(FAULTS.glob("*.zst"))[::9]):
        report = analyze(parse(path.read_bytes()))
        markdown.render(report, report.cloud.guests)
        [*plausible.doubts(report.cloud.bundle)]


@pytest.mark.usefixtures("closed")
def test_a_hostile_submission_affects_no_other_grade(tmp_path: Path) -> None:
    subs = tmp_path / "subs"
    subs.mkdir()
    (subs / "ann.json.zst").write_bytes(HEALTHY.read_bytes())
    (subs / "bob.json.zst").write_bytes((FAULTS / "dir-missing.json.zst").read_bytes())
    for name, crash in CRASHES.items():
        (subs / f"{name}.json").write_bytes(bundle_of(*crash))
    (subs / "date.json").write_bytes(bundle_of({"at": "9999-12-31T23:59:59-14:00"}))

    done = run("grade", "compute", subs, "-s", "vm-snap", "-f", "json", cwd=tmp_path)

    students = {one["student"]: one for one in json.loads(done.stdout)["students"]}
    assert students.keys() == {"ann", "bob", "date", *CRASHES}
    assert students["ann"]["points"] > 0
    assert "the year is not between 1901 and 8999" in str(students["date"]["remarks"])
    assert done.stderr == ""


def test_a_hanging_worker_is_one_remark(tmp_path: Path) -> None:
    (tmp_path / "ann.json.zst").write_bytes(HEALTHY.read_bytes())
    os.mkfifo(tmp_path / "mallory.json")  # opening it waits for a writer

    grades = classroom.grade_class(
        load_sheet("compute"),
        [tmp_path / "ann.json.zst", tmp_path / "mallory.json"],
        patience=8.0,
    )

    assert [grade.student for grade in grades] == ["ann", "mallory"]
    assert grades[0].traces.fingerprints
    assert "grading took longer than 8 s" in str(grades[1].remarks)


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("error", [TypeError("secret"), RecursionError("secret"), MemoryError()])
def test_an_exception_while_grading_is_a_remark(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(classroom, "analyze", broken)
    given = Submission("mallory", (("b.json", HEALTHY.read_bytes()),))

    grade, bundle = classroom.grade_submission(load_sheet("compute"), given)

    assert bundle is None
    assert len(grade.remarks) == 1
    assert "can't be graded" in grade.remarks[0]
    assert "secret" not in grade.remarks[0]


def test_a_short_campaign_finds_no_escaping_exception() -> None:
    """This campaign is the same in every run; `make fuzz` runs new ones."""
    tally = Campaign(20261129, None, list(TARGETS)).run(lambda tally: tally.bundles >= 40)

    assert not [signature for signature in tally.finds if signature.escapes]
    assert tally.executions["explain"] == 40
