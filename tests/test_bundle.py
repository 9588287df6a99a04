"""Every bundle can be read and written unchanged; anything else is refused in one sentence."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard  # noqa: TID253 (the ban is for what `explain` loads)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hoodsnap import bounds
from hoodsnap.bundle import (
    Answer,
    Bundle,
    Failure,
    UnreadableBundleError,
    dump,
    load,
    merge,
    parse,
    save,
)
from hoodsnap.output import UnwritableError

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
any_text = st.text(st.characters(codec=None))  # lone surrogates too: bytes that were no UTF-8


def answer(query: str = "virsh list --all", **more: Any) -> Answer:
    told: dict[str, Any] = {} if "error" in more else {"value": []}
    return Answer(
        **{
            "layer": "libvirt",
            "host": "vm",
            "query": query,
            "at": NOON,
            "took": 0.25,
            **told,
            **more,
        }
    )


def a_bundle(*answers: Answer) -> Bundle:
    return Bundle(
        tool="hoodsnap 0", started=NOON, ended=NOON + timedelta(seconds=2), answers=answers
    )


answers = st.builds(
    Answer,
    layer=st.text(),
    host=st.text(),
    query=any_text,
    subject=st.none() | st.text(),
    at=st.datetimes(
        min_value=datetime(1970, 1, 1), max_value=datetime(8999, 1, 1), timezones=st.just(UTC)
    ),
    took=st.integers(0, 10**9).map(lambda micros: micros / 10**6),
    value=json_values | any_text,
) | st.builds(
    Answer,
    layer=st.text(),
    host=st.text(),
    query=any_text,
    at=st.just(NOON),
    took=st.just(0.5),
    error=st.builds(Failure, kind=st.text(), message=st.text()),
)


@given(st.lists(answers, max_size=5))
def test_what_is_written_is_read_again(found: list[Answer]) -> None:
    written = dump(a_bundle(*found))

    assert parse(written) == a_bundle(*found)
    assert dump(parse(written)) == written


def test_an_answer_is_one_line_of_the_file() -> None:
    written = dump(a_bundle(answer("virsh list --all"), answer("virsh version", value="9.0.0")))

    assert written.decode().splitlines() == [
        '{"format":1,"tool":"hoodsnap 0","started":"2026-11-23T12:00:00.000000Z","ended":"2026-11-23T12:00:02.000000Z","answers":[',
        '{"layer":"libvirt","host":"vm","query":"virsh list --all","at":"2026-11-23T12:00:00.000000Z","took":0.25,"value":[]},',
        '{"layer":"libvirt","host":"vm","query":"virsh version","at":"2026-11-23T12:00:00.000000Z","took":0.25,"value":"9.0.0"}',
        "]}",
    ]


@pytest.mark.parametrize("name", ["bundle.json", "bundle.json.gz", "bundle.json.zst"])
def test_the_file_name_decides_the_compression(tmp_path: Path, name: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        save(a_bundle(answer()), folder / name)

    starts = {".json": b'{"format"', ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
    assert (first / name).read_bytes().startswith(starts[Path(name).suffix])
    assert (first / name).read_bytes() == (second / name).read_bytes()
    assert load(first / name) == a_bundle(answer())


def test_only_its_owner_may_read_a_bundle(tmp_path: Path) -> None:
    save(a_bundle(answer()), tmp_path / "bundle.json")

    assert (tmp_path / "bundle.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.json"]


def test_a_file_that_can_not_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError, match="No such file or directory"):
        save(a_bundle(answer()), tmp_path / "missing" / "bundle.json")
    assert list(tmp_path.iterdir()) == []


def test_a_dash_is_standard_input_and_output() -> None:
    copy = "import sys; from hoodsnap.bundle import *; save(load(STDIO), STDIO)"
    written = dump(a_bundle(answer()))

    done = subprocess.run(
        [sys.executable, "-c", copy], input=gzip.compress(written), capture_output=True
    )

    assert (done.stdout, done.stderr) == (written, b"")


def test_several_bundles_are_merged_into_one() -> None:
    later = Bundle(
        tool="hoodsnap 0",
        started=NOON + timedelta(hours=1),
        ended=NOON + timedelta(hours=2),
        answers=(answer("virsh version"),),
    )

    both = merge([a_bundle(answer()), later])

    assert [one.query for one in both.answers] == ["virsh list --all", "virsh version"]
    assert both.ended - both.started == timedelta(hours=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "it is a text file, not a hoodsnap bundle"),
        (b"\x80\x81\x00", "it is neither JSON nor gzip nor zstd"),
        (b'{"findings": [], "format": 3}', "it is a hoodsnap report, not a hoodsnap bundle"),
        (b"[]", "it is JSON, but not a hoodsnap bundle"),
        (b"{}", "it has no format number, so it is not a hoodsnap bundle"),
        (b'{"format": true}', "it has no format number, so it is not a hoodsnap bundle"),
        (b'{"format": 2}', "it has format 2, and this release reads up to 1: update hoodsnap"),
        (b'{"format": 1}', "it is not a hoodsnap bundle: tool: field required"),
        (b'{"format": 1, "format": 1}', "an object has the same key twice, which hoodsnap never writes"),
        (b'{"format": NaN}', "it holds NaN, which is not valid JSON"),
        (b"[" * 90_000, "it is nested too deeply for a hoodsnap bundle"),
        (b'{"a":' * 90_000, "it is nested too deeply for a hoodsnap bundle"),
        (b"\x1f\x8b broken", "its gzip data is damaged or truncated"),
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "its gzip data is damaged or truncated"),
        (b"\x28\xb5\x2f\xfd broken", "its zstd data is damaged or truncated"),
        (dump(a_bundle(answer()))[:-20], "it is truncated"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableBundleError) as refusal:
        parse(data)
    assert str(refusal.value).startswith(reason)
    assert "\n" not in str(refusal.value)


def test_an_endless_number_is_refused() -> None:
    with pytest.raises(UnreadableBundleError, match="holds a value that no layer returns"):
        parse(b'{"format": 1' + b"0" * 5000 + b"}")


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LARGEST", 1 << 20)
    blank = b" " * (64 << 20)

    for bomb in (gzip.compress(blank), zstandard.compress(blank), blank):
        with pytest.raises(UnreadableBundleError, match="larger than"):
            parse(bomb)


def test_a_frame_that_asks_for_gigabytes_of_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=False)
    out = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(
        out, closefd=False
    ) as writer:
        writer.write(b"{}")

    with pytest.raises(UnreadableBundleError):
        parse(out.getvalue())


def test_a_giant_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LONGEST_TEXT", 1000)

    with pytest.raises(UnreadableBundleError, match="a string of 1001 characters"):
        parse(dump(a_bundle(answer(value="x" * 1001))))


@pytest.mark.parametrize("path", ["/", "/no/such/file", "/proc/self/mem"])
def test_a_path_without_a_file_is_refused(path: str) -> None:
    with pytest.raises(UnreadableBundleError):
        load(Path(path))


@given(json_values)
def test_arbitrary_json_is_read_or_refused(value: object) -> None:
    _read_or_refuse(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    _read_or_refuse(data)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 20), st.binary(max_size=20)),
        min_size=1,
        max_size=4,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_damage_is_read_or_refused(
    recorded: bytes, damage: list[tuple[float, int, bytes]]
) -> None:
    for place, length, instead in damage:
        start = int(place * len(recorded))
        recorded = recorded[:start] + instead + recorded[start + length :]
    _read_or_refuse(recorded)


def _read_or_refuse(data: bytes) -> None:
    try:
        assert isinstance(parse(data), Bundle)
    except UnreadableBundleError as refusal:
        assert "\n" not in str(refusal)
        assert str(refusal)


def test_an_endless_device_is_refused_after_its_first_part() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableBundleError, match="it is not valid JSON"):
            load(Path("/dev/zero"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 16 << 20


@pytest.mark.parametrize("begin", [b"", b"{", b" [", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_a_stream_that_goes_on_is_refused_at_the_limit(
    begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LARGEST", 3 << 20)
    left = [begin + b" " * ((1 << 20) - len(begin)), *[b" " * (1 << 20)] * 9]

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return left.pop(0)

    monkeypatch.setattr(sys, "stdin", type("Stream", (), {"buffer": Endless()})())
    with pytest.raises(UnreadableBundleError):
        load(Path("-"))

    assert len(left) == (9 if not begin else 6)
