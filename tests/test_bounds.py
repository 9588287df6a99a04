"""A stranger's small file costs neither memory nor time, and is refused in one sentence."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard  # noqa: TID253 (the ban is for what `explain` loads)
from tests.conftest import FAULTS, HEALTHY, MONITORS, healthy

from hoodsnap import bounds
from hoodsnap.bundle import UnreadableBundleError, dump, load, parse

HEAD: dict[str, Any] = {
    "format": 1,
    "tool": "t",
    "started": "2026-11-25T14:51:00Z",
    "ended": "2026-11-25T14:51:00Z",
}
ANSWER: dict[str, Any] = {
    "layer": "libvirt",
    "host": "h",
    "query": "virsh list --all",
    "at": "2026-11-25T14:51:00Z",
    "took": 0.1,
}
PEAK = """
import re, sys
sys.argv[0] = "hoodsnap"
from hoodsnap.cli import main
try:
    main()
finally:
    # Not ru_maxrss: a child starts with the value of its parent.
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def bundle_of(*answers: dict[str, Any], **head: object) -> bytes:
    whole = {**HEAD, **head, "answers": [{**ANSWER, "value": [], **one} for one in answers]}
    return json.dumps(whole, separators=(",", ":")).encode()


def bomb(path: Path, item: bytes, size: int) -> Path:
    """A file of a few KB that unpacks to `size` bytes of JSON values."""
    start, end = bundle_of({"value": ["HERE"]}).split(b'"HERE"')
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    line = item * 1000 + b"\n"
    parts = [packer.compress(start), *(packer.compress(line) for _ in range(size // len(line)))]
    path.write_bytes(b"".join([*parts, packer.compress(b"0" + end), packer.flush()]))
    return path


@pytest.mark.parametrize("command", ["explain", "check", "verify"])
@pytest.mark.parametrize(
    ("item", "size"),
    [
        (b"[],", 100 << 20),  # unpacks to too much
        (b"[],", 12 << 20),  # too many values
        (b"{},", 12 << 20),
        (b"1.5,", 12 << 20),
        (b'"' + b"<a/>" * 50 + b'",', 12 << 20),
    ],
)
def test_a_small_file_takes_no_gigabytes(
    command: str, item: bytes, size: int, tmp_path: Path
) -> None:
    path = bomb(tmp_path / "bomb.json.zst", item, size)
    assert path.stat().st_size < 20_000

    done = subprocess.run(
        [sys.executable, "-c", PEAK, command, str(path)], capture_output=True, text=True
    )

    refusal, peak = done.stderr.splitlines()
    assert refusal.startswith(f"hoodsnap: {path} can't be read: it ")
    assert done.returncode == 3
    assert int(peak) < 300_000  # KiB


def test_what_a_small_file_may_hold_at_most_is_explained_in_a_gigabyte(tmp_path: Path) -> None:
    """Within every bound there is still as much as the bounds allow."""
    item = b'[],"' + b"x" * 90 + b'",'
    path = bomb(tmp_path / "dense.json.zst", item, 15 << 20)

    done = subprocess.run(
        [sys.executable, "-c", PEAK, "explain", str(path)], capture_output=True, text=True
    )

    assert done.returncode == 0
    assert int(done.stderr.splitlines()[-1]) < 1_000_000


def test_the_ratio_of_gzip_is_bounded() -> None:
    blank = bundle_of({}) + b" " * (64 << 20)

    with pytest.raises(UnreadableBundleError, match="too much for a file of its size"):
        parse(gzip.compress(blank))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bundle_of({"value": [[]] * 200_000}), "lists and objects"),
        (bundle_of({"value": [0] * 1_200_000}), "values"),
        (bundle_of({"value": "<a>" * 400_000}), "XML elements"),
        (bundle_of(*[{}] * 40_000), "answers"),
        (bundle_of({"layer": "l" * 1000}), "the layer of answer 0"),
        (bundle_of({"host": "h" * 5000}), "the host of answer 0"),
        (bundle_of({}, {"query": "q" * (5 << 20)}), "the query of answer 1"),
        (bundle_of({"subject": "s" * 100_000}), "the subject of answer 0"),
        (bundle_of({}, tool="t" * 5000), "the tool"),
    ],
)
def test_a_bundle_beyond_a_bound_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableBundleError, match=reason):
        parse(data)


def test_deep_nesting_is_refused_before_anything_recurses() -> None:
    deep = ANSWER | {"value": None}
    for _ in range(bounds.DEEPEST):
        deep["value"] = [deep["value"]]

    with pytest.raises(UnreadableBundleError, match="nested too deeply"):
        parse(bundle_of(deep))


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_beyond_every_float_is_refused(number: str) -> None:
    data = bundle_of({"value": "N"}).replace(b'"N"', number.encode())

    with pytest.raises(UnreadableBundleError, match="a number larger than any layer returns"):
        parse(data)


@pytest.mark.parametrize("took", ['"9e999"', '"1"', "true", "null"])
def test_a_duration_is_a_number(took: str) -> None:
    data = bundle_of({}).replace(b"0.1", took.encode())

    with pytest.raises(UnreadableBundleError, match="took"):
        parse(data)


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z"],
)
@pytest.mark.parametrize("field", ["at", "started", "ended"])
def test_a_time_that_no_clock_shows_is_refused(field: str, moment: str) -> None:
    data = bundle_of({"at": moment}) if field == "at" else bundle_of({}, **{field: moment})

    with pytest.raises(UnreadableBundleError, match="the year is not between 1901 and 8999"):
        parse(data)


def test_times_are_in_utc_however_they_were_written() -> None:
    read = parse(
        bundle_of({"at": "2026-11-25T14:51:00+05:30"}, started="2026-11-25T14:51:00+05:30")
    )

    assert read.answers[0].at.isoformat() == "2026-11-25T09:21:00+00:00"
    assert f"{read.started:%H:%M}" == "09:21"


def test_recordings_are_far_from_every_bound() -> None:
    for path in (HEALTHY, MONITORS, *sorted(FAULTS.glob("*.zst"))[::10]):
        packed, data = path.read_bytes(), dump(load(path))
        assert len(data) * 2 < bounds.unpacked(len(packed))
        for share in bounds.SHARES:
            count = sum(map(data.count, share.marks))
            assert count * 2 < share.per_byte * len(data)
        assert len(data) > 2 * bounds.BYTES_PER_ANSWER * len(load(path).answers)


def _limited(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hoodsnap", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 80 MB: the healthy one's answers, again and again."""
    path = tmp_path_factory.mktemp("large") / "large.json"
    path.write_bytes(dump(healthy().with_answers(healthy().answers * 60)))
    return path


@pytest.mark.parametrize("command", ["explain", "check", "verify", "redact"])
def test_what_does_not_fit_is_said_in_one_sentence(
    command: str, large: Path, tmp_path: Path
) -> None:
    arguments = [command, str(large)]
    if command == "redact":
        arguments += ["-o", str(tmp_path / "redacted.json")]

    # However little is allowed, Python and its libraries have room: not they are what is missing.
    done = _limited(arguments, HOODSNAP_MEMORY="20")

    assert done.returncode == 3
    assert "memory" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "defect" not in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_the_limit_can_be_lifted() -> None:
    assert _limited(["verify", str(HEALTHY)], HOODSNAP_MEMORY="unlimited").returncode == 0


def test_a_limit_that_is_set_already_is_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "healthy.json"
    path.write_bytes(dump(healthy()))
    code = (
        "import resource\nfrom pathlib import Path\nfrom hoodsnap import memory\n"
        "from hoodsnap.bundle import load\n"
        f"load(Path({str(path)!r}), memory.allow)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS))\n"
        "memory.lift()\nprint(resource.getrlimit(resource.RLIMIT_AS))"
    )
    most = 700 << 20

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )

    assert done.stdout.splitlines() == [f"({most}, {most})"] * 2


def test_a_client_of_the_shell_may_take_what_it_needs() -> None:
    done = _limited(["shell", str(HEALTHY), "-c", "ulimit -Sv"])
    if done.returncode == 3:
        pytest.skip(f"this machine gives no namespaces: {done.stderr}")

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    assert done.stdout.strip() == ("unlimited" if soft < 0 else str(soft >> 10))


def test_a_class_goes_on_where_one_bundle_does_not_fit(tmp_path: Path) -> None:
    subs = tmp_path / "subs"
    subs.mkdir()
    (subs / "ann.json.zst").write_bytes(HEALTHY.read_bytes())
    (subs / "bob.json.zst").write_bytes((FAULTS / "dir-missing.json.zst").read_bytes())
    bomb(subs / "mallory.json.zst", b"[],", 100 << 20)

    done = _limited(["grade", "compute", str(subs), "-s", "vm-snap", "-f", "json"])

    grades = {one["student"]: one for one in json.loads(done.stdout)["students"]}
    assert grades.keys() == {"ann", "bob", "mallory"}
    assert grades["ann"]["points"] > 0
    assert "can't be read" in str(grades["mallory"]["remarks"])
