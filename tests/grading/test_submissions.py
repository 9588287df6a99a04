"""Submissions of a class: damaged, copied, renamed and hostile ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from tests.conftest import CONTROL_GROUPS, HEALTHY, RecordedHost, healthy
from tests.grading.conftest import task
from tests.test_bounds import bundle_of
from tests.trust.test_examination import key, needs_ssh

from hoodsnap import memory
from hoodsnap.bounds import unpacked
from hoodsnap.bundle import dump, load
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.grading import command, submissions
from hoodsnap.grading.classroom import grade_submission
from hoodsnap.grading.result import Grade, Status
from hoodsnap.grading.sheet import parse as parse_sheet
from hoodsnap.grading.submissions import Submission
from hoodsnap.trust.fingerprint import fingerprint, fingerprinted, signed
from hoodsnap.trust.signature import sign

SHEET = task(holds="guest.server.status == 'ACTIVE'", title="=1+1")


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_folder_a_zip_and_a_file_are_read_alike(tmp_path: Path) -> None:
    folder = tmp_path / "ann"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "mine.json").write_bytes(b"{}")
    (folder / "answers.yaml").write_bytes(b"a: b")
    (folder / "essay.pdf").write_bytes(b"%PDF")
    archive = zipped(
        tmp_path / "ann.zip",
        {"x/mine.json": b"{}", "x/answers.yaml": b"a: b", "__MACOSX/._mine.json": b"?"},
    )
    (tmp_path / "file").mkdir()
    file = tmp_path / "file" / "ann.json"
    file.write_bytes(b"{}")
    (tmp_path / "file" / "ann.answers.yaml").write_bytes(b"a: b")

    read = [submissions.read(path) for path in (folder, archive, file)]

    assert [one.student for one in read] == ["ann", "ann", "ann"]
    assert [[data for _, data in one.bundles] for one in read] == [[b"{}"]] * 3
    assert [one.answers for one in read] == [b"a: b"] * 3
    assert [one.remarks for one in read] == [()] * 3


def test_a_zip_is_not_unpacked_to_disk(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive = zipped(tmp_path / "in" / "ann.zip", {"../../evil.json": b"{}", "/tmp/x.json": b"{}"})
    before = sorted(tmp_path.rglob("*"))

    read = submissions.read(archive)

    assert [name for name, _ in read.bundles] == ["evil.json", "x.json"]
    assert sorted(tmp_path.rglob("*")) == before


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(b"{}")
    folder = tmp_path / "ann"
    folder.mkdir()
    (folder / "mine.json").symlink_to(secret)
    (folder / "deep").symlink_to(tmp_path)
    link = zipfile.ZipInfo("mine.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bob.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")

    assert submissions.read(folder).bundles == ()
    assert submissions.read(tmp_path / "bob.zip").bundles == ()


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "MOST_BYTES", 1 << 20)
    bomb = zipped(tmp_path / "ann.zip", {"a.json": b" " * (2 << 20)})
    many = zipped(tmp_path / "bob.zip", {f"{number}.json": b"" for number in range(1001)})

    assert submissions.read(bomb).remarks == (
        "ann.zip can't be read: it unpacks to more than 1 MiB, which is too much for its size",
    )
    assert submissions.read(many).remarks == ("bob.zip can't be read: it has more than 1000 files",)


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_small_zip_is_not_unpacked_to_hundreds_of_megabytes(tmp_path: Path, how: int) -> None:
    path = tmp_path / "ann.zip"
    with zipfile.ZipFile(path, "w", how) as archive, archive.open("a.json", "w") as file:
        for _ in range(60):
            file.write(b" " * (1 << 20))

    (remark,) = submissions.read(path).remarks

    assert "which is too much for its size" in remark


def test_many_bundles_together_have_the_bounds_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[int] = []
    monkeypatch.setattr(memory, "allow", allowed.append)
    large = gzip.compress(bundle_of({"value": "x" * (3 << 20)}))
    given = Submission("mallory", tuple((f"{number}.json.gz", large) for number in range(100)))

    found, _ = grade_submission(parse_sheet(SHEET.encode()), given)

    assert sum(allowed) <= unpacked(100 * len(large))
    assert "the bundles unpack to too much for files of their size" in str(found.remarks)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no zip", b"PK\x05\x06" + b"\xff" * 18])
def test_a_damaged_zip_is_a_remark(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "ann.zip"
    path.write_bytes(data)

    read = submissions.read(path)

    assert (read.bundles, len(read.remarks)) == ((), 1)


def grade(student: str, data: bytes, sheet: str = SHEET) -> Grade:
    handed_in = Submission(student, ((f"{student}.json", data),))
    return grade_submission(parse_sheet(sheet.encode()), handed_in, "vm-plain")[0]


@pytest.mark.parametrize("data", [b"", b"{", b"\x1f\x8b damaged", b"[]", b"\x28\xb5\x2f\xfd"])
def test_a_damaged_bundle_is_not_graded_but_remarked(data: bytes) -> None:
    found = grade("ann", data)

    assert [one.status for one in found.results] == [Status.UNGRADED]
    assert found.remarks[0].startswith("ann.json can't be read: ")


def test_a_bundle_before_the_opening_is_stale() -> None:
    opened = json.dumps(json.loads(SHEET) | {"opens": "2030-01-01T00:00:00Z"})
    closed = json.dumps(json.loads(SHEET) | {"closes": "2020-01-01T00:00:00Z"})

    assert grade("ann", dump(healthy()), opened).remarks[0].startswith("stale: captured ")
    assert grade("ann", dump(healthy()), closed).remarks[0].startswith("late: captured ")
    assert grade("ann", dump(healthy())).remarks == ()


def test_a_bundle_without_the_challenge_is_remarked() -> None:
    challenged = json.dumps(json.loads(SHEET) | {"challenge": "week 3"})

    remarks = grade("ann", dump(healthy()), challenged).remarks

    assert remarks == ("challenge not answered: it answers no challenge",)


def test_an_altered_bundle_is_remarked() -> None:
    data = dump(fingerprinted(healthy()))
    assert grade("ann", data).remarks == ()

    remarks = grade("ann", data.replace(b'"ACTIVE"', b'"SHUTOFF"')).remarks

    assert remarks[0].startswith("altered after it was collected: ")


def test_a_contradiction_is_remarked(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    host.edit("kernel", f"/proc/{pid}/stat", f"{pid} (", "7 (")

    remarks = grade("ann", dump(host.bundle)).remarks

    assert f"not plausible: /proc/{pid}/stat belongs to process 7 (numbered-alike)" in remarks


@needs_ssh
def test_a_bundle_not_signed_by_the_student_is_remarked(tmp_path: Path) -> None:
    alice = key(tmp_path / "alice")
    allowed = tmp_path / "allowed"
    allowed.write_text(f"alice@example.org {alice.with_suffix('.pub').read_text()}")
    bundle = fingerprinted(healthy())
    hers = dump(signed(bundle, sign(fingerprint(bundle), alice)))

    def remarks(student: str, data: bytes) -> tuple[str, ...]:
        handed_in = Submission(student, (("mine.json", data),))
        sheet = parse_sheet(SHEET.encode())
        return grade_submission(sheet, handed_in, "vm-plain", allowed)[0].remarks

    assert remarks("alice", hers) == ()
    assert remarks("bob", hers) == ("not signed by bob: signed by alice@example.org",)
    assert remarks("alice", dump(bundle)) == ("not signed by alice: it is not signed",)


def test_signatures_need_a_list_of_signers(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"

    with pytest.raises(command.UsageError, match="nowhere can't be read: no such file"):
        command.grade("compute", [HEALTHY], None, "vm-plain", "text", False, nowhere)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four students: a good one, a damaged one, a copy in a zip, and one named like a formula."""
    top = tmp_path_factory.mktemp("school")
    data = HEALTHY.read_bytes()
    (top / "submissions").mkdir()
    (top / "submissions" / "ann.json.zst").write_bytes(data)
    (top / "submissions" / "bob.json").write_bytes(b"{")
    zipped(top / "submissions" / "cat.zip", {"mine.json.zst": data})
    (top / "submissions" / "=cmd").mkdir()
    (top / "sheet.yaml").write_text(SHEET)
    return top


def run(school: Path, format: str, *paths: Path) -> tuple[str, int]:
    given = paths or (school / "submissions",)
    done = command.grade(str(school / "sheet.yaml"), given, None, "vm-plain", format, False)
    return "\n".join(line.plain for line in done.lines(80)), done.status


def test_a_class_as_csv(school: Path) -> None:
    text, status = run(school, "csv")

    rows = list(csv.DictReader(io.StringIO(text)))
    assert status == 3
    assert [(row["student"], row["points"], row["one"]) for row in rows] == [
        ("'=cmd", "0", ""),
        ("ann", "1", "1"),
        ("bob", "0", ""),
        ("cat", "1", "1"),
    ]
    assert rows[1]["remarks"] == "with cat: the same bundle"


def test_a_class_for_a_person(school: Path) -> None:
    text, _ = run(school, "text")

    assert "bob: bob.json can't be read: " in text
    assert "ann and cat: the same bundle" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_class_as_junit(school: Path) -> None:
    text, _ = run(school, "junit")

    root = fromstring(text.encode())  # noqa: S314 (we wrote it)
    found = [
        (suite.get("name"), suite.get("failures"), suite.get("errors"))
        for suite in root.iter("testsuite")
    ]
    assert found == [("=cmd", "0", "1"), ("ann", "0", "0"), ("bob", "0", "1"), ("cat", "0", "0")]
    assert [out.text for out in root.iter("system-out")][-1] == "with ann: the same bundle"


def test_a_class_as_json(school: Path) -> None:
    text, _ = run(school, "json")

    read = json.loads(text)
    assert read["students"][0]["results"][0]["points"] is None
    assert read["copies"] == [
        {"students": ["ann", "cat"], "sure": "certain", "shared": ["the same bundle"]}
    ]


def test_one_student_for_gradescope(school: Path) -> None:
    text, status = run(school, "gradescope", school / "submissions" / "cat.zip")

    read = json.loads(text)
    assert (status, read["score"]) == (0, 1)
    assert read["tests"][0]["status"] == "passed"
    assert read["tests"][0]["visibility"] == "visible"


def test_a_task_that_can_not_be_graded_has_no_score(school: Path) -> None:
    text, status = run(school, "gradescope", school / "submissions" / "bob.json")

    read = json.loads(text)
    assert status == 3
    assert "score" not in read["tests"][0]
    assert read["extra_data"]["ungraded"] == ["one"]
    assert read["output"].startswith("1 can't be graded")


def test_a_students_text_sends_no_control_characters(host: RecordedHost, tmp_path: Path) -> None:
    asking = task(questions=[{"id": "pid", "text": "?", "answer": "guest.process.pid"}])
    (tmp_path / "sheet.yaml").write_text(asking)
    (tmp_path / "answers.yaml").write_text('one: {pid: "\\e[31mred\\a\\u202e"}')

    for format in ("text", "gradescope", "junit", "csv", "json"):
        done = command.grade(
            str(tmp_path / "sheet.yaml"),
            [HEALTHY],
            tmp_path / "answers.yaml",
            "vm-plain",
            format,
            False,
        )
        text = "\n".join(line.plain for line in done.lines(80))
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        if format == "junit":
            fromstring(text.encode())  # noqa: S314 (we wrote it)


def test_an_example_shows_what_is_wrong_with_a_sheet(tmp_path: Path) -> None:
    path = tmp_path / "sheet.yaml"
    path.write_text(task(holds="guest.servr"))

    done = command.check(str(path), [HEALTHY], "vm-plain")

    lines = [line.plain for line in done.lines(80)]
    assert done.status == 1
    assert lines[1].startswith(
        "one can't be graded with this example: the sheet is wrong: guest.servr"
    )


def test_every_documented_field_exists() -> None:
    """The documented fields are exactly those that expressions can read."""
    from hoodsnap.grading.evaluation import evaluate
    from hoodsnap.grading.sheet_view import documented, view

    report, grouped = analyze(load(HEALTHY)), analyze(load(CONTROL_GROUPS))
    for name in ("vm-data", "vm-config", "vm-plain"):
        facts = view(report, _guest(report, name)).facts
        of_groups = view(grouped, _guest(grouped, name)).facts
        for path, help in documented():
            # The healthy recording is older than the layer of control groups, and `guests[]` as a
            # whole can't be evaluated: some guest has an uncollected value.
            seen = of_groups if path.startswith("guest.cgroup") else facts
            evaluate("length(guests)" if path == "guests[]" else path, seen)
            assert help, path


def test_sheets_can_read_a_guests_control_group() -> None:
    from hoodsnap.grading.evaluation import evaluate
    from hoodsnap.grading.sheet_view import view

    report = analyze(load(CONTROL_GROUPS))
    assert evaluate("guest.cgroup", view(report, _guest(report, "vm-duo")).facts).value == {
        "machine": "qemu-2-instance-00000005.libvirt-qemu",
        "vcpu_percent": None,
        "throttled_percent": 0,
        "memory_limit_kib": None,
        "cpus": "0-1",
    }


def _guest(report: Report, name: str) -> Guest:
    [guest] = [one for one in report.cloud.guests if one.name == name]
    return guest
