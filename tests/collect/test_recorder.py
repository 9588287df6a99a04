"""Recorder: what is asked, what fails, what is withheld."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.collect import recorder as recorders
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.keep.secret import WITHHELD, without_secrets


def fails(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (PermissionError(13, "Permission denied"), "denied", "Permission denied"),
        (FileNotFoundError(2, "No such file or directory"), "absent", "No such file or directory"),
        (ConnectionRefusedError(111, "Connection refused"), "unreachable", "Connection refused"),
        (ProcessLookupError(3, "No such process"), "absent", "No such process"),
        (RefusedError("missing", "virsh is not installed"), "missing", "virsh is not installed"),
        (
            ModuleNotFoundError("x", name="libvirt"),
            "missing",
            "the Python package libvirt is not installed",
        ),
        (MemoryError(), "too-large", "the answer does not fit into memory"),
        (ValueError("odd\nvalue"), "failed", "ValueError: odd value"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt:"),
    ],
)
def test_every_kind_of_failure_is_recorded(error: BaseException, kind: str, message: str) -> None:
    answer = Recorder("vm").ask("host", "something", lambda: fails(error))

    assert answer.error is not None
    assert (answer.error.kind, answer.error.message) == (kind, message)


def slowly() -> str:
    time.sleep(0.05)
    return "qemu:///system"


def test_an_answer_has_its_layer_host_subject_and_times() -> None:
    recorder = Recorder("vm")

    answer = recorder.ask("libvirt", "virsh uri", slowly)

    assert recorder.answers == [answer]
    assert (answer.layer, answer.host, answer.query) == ("libvirt", "vm", "virsh uri")
    assert answer.value == "qemu:///system"
    assert 0.05 <= answer.took < 5


def test_a_question_that_hangs_is_abandoned() -> None:
    recorder, hanging = Recorder("vm"), threading.Event()
    start = time.monotonic()

    answer = recorder.ask("images", "stat /dead", hanging.wait, patience=0.1)
    after = recorder.ask("images", "stat /alive", lambda: "there")

    assert time.monotonic() - start < 5
    assert answer.error is not None
    assert (answer.error.kind, answer.error.message) == ("timeout", "no answer within 0.1 s")
    assert after.value == "there"
    hanging.set()


def test_an_answer_that_cannot_be_searched_in_time_is_not_kept() -> None:
    """Answer that arrives in time, but takes longer than its patience to search for secrets."""
    answer = Recorder("vm").ask(
        "host", "cat", lambda: ["password=sesame42"] * 500_000, patience=0.1
    )

    assert answer.error is not None
    assert answer.error.kind == "timeout"
    assert answer.value is None


def test_bytes_that_are_not_utf_8_are_escaped_in_queries_and_errors() -> None:
    recorder = Recorder("vm")

    answer = recorder.ask("host", "stat /\udcff", lambda: "\udcff", subject="/\udcff")
    failed = recorder.ask("host", "stat", lambda: fails(ValueError("/\udcff")))

    assert (answer.query, answer.subject, answer.value) == ("stat /\\udcff", "/\\udcff", "\udcff")
    assert failed.error is not None
    assert failed.error.message == "ValueError: /\\udcff"


@pytest.mark.parametrize("depth", [150, 100_000])
def test_an_answer_that_is_nested_too_deeply_is_not_kept(depth: int) -> None:
    value: list[object] = []
    for _ in range(depth):
        value = [value]

    answer = Recorder("vm").ask("nova", "GET /", lambda: value)

    assert answer.error is not None
    assert answer.error.kind == "too-large"


def test_numbers_that_json_does_not_have_become_texts() -> None:
    answer = Recorder("vm").ask("nova", "GET /", lambda: [float("nan"), float("-inf"), 1.5])

    assert answer.value == ["nan", "-inf", 1.5]


def test_several_threads_can_ask_in_parallel() -> None:
    recorder = Recorder("vm")

    def ask() -> None:
        for number in range(50):
            recorder.ask("host", str(number), partial(int, number))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(recorder.answers) == 400
    assert all(answer.query == str(answer.value) for answer in recorder.answers)


def test_an_answer_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "LARGEST_STRING", 1000)

    answer = Recorder("vm").ask("host", "cat huge", lambda: "x" * 1001)

    assert answer.error is not None
    assert answer.error.kind == "too-large"


SECRETS = [
    "rbd:pool/img:id=u:key={}:auth_supported=cephx",
    "-object secret,id=masterKey0,format=raw,data={}",
    "-object\0secret,id=masterKey0,data={}\0-S",
    '{{"qom-type":"secret","id":"s","data":"{}"}}',
    "-vnc 127.0.0.1:0,password={}",
    "mysql+pymysql://nova:{}@127.0.0.1/nova",
    "<graphics type='vnc' passwd='{}'/>",
    "-object qom-type=secret,id=s,data={}",
    "-object secret,id=s,data=a,,{}",
    '{{"data":"{}","qom-type":"secret"}}',
    '{{"qom-type":"secret","data":"a\\"{}"}}',
    '{{"qom-type":"secret","data":"{}',  # as older kernels cut it off
    '{{"file":"json:{{\\"driver\\":\\"ssh\\",\\"password\\":\\"{}\\"}}"}}',
    '{{"=keyvalue-pairs": "[\\"auth\\", \\"x\\", \\"key\\", \\"{}\\"]"}}',
    '{{"=keyvalue-pairs":["key","{}"]}}',
    '{{"auth_method": "CHAP", "discovery_auth_password": "{}"}}',
    "-iscsi user=u,password=a,,{}",
    "iscsi://user%{}@10.0.0.5:3260/iqn.2010-10.org.openstack:volume-1/0",
    "iscsi://user%p@ss{}@10.0.0.5:3260/iqn.2010-10.org.openstack:volume-1/0",
    "rabbit://nova:p@{0}/ss@10.0.0.1:5672,nova:{0}@10.0.0.2:5672/",
    "redis://:{}@10.0.0.1:6379",
    "OS_PASSWORD={}",
    "rd.luks.passphrase={}",
    "password='it is {}'",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_in_a_text_is_withheld(text: str) -> None:
    kept = without_secrets(text.format("S3CRET+=="))

    assert "S3CRET" not in kept
    assert WITHHELD in kept


def test_a_ceph_key_is_recognized_by_its_form() -> None:
    key = f"AQS3CRET{'A' * 30}=="

    assert without_secrets(f"[client.nova] {key}, x") == f"[client.nova] {WITHHELD}, x"


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.1:8774/v2.1/servers?name=a@b",
        '{"url": "http://10.0.0.1:8774", "user": "a@b"}',
        "nbd://10.0.0.1:10809/disk@snap",
        "qemu+ssh://nova@compute2/system",
        "[fd00::1]:8774 a@b",
        '{"qom-type": "iothread", "data": "x"}',
        "ALTER TABLE users ADD password varchar(255)",
    ],
)
def test_texts_that_merely_resemble_a_secret_stay(text: str) -> None:
    assert without_secrets(text) == text


def test_text_beside_a_secret_is_kept() -> None:
    kept = without_secrets("-drive\0file=rbd:p/i:key=S3CRET\0-device\0virtio-blk-pci,id=a\0")

    assert kept == f"-drive\0file=rbd:p/i:key={WITHHELD}\0-device\0virtio-blk-pci,id=a\0"


@given(
    st.recursive(
        st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_values_without_secrets_are_unchanged(value: object) -> None:
    assert without_secrets(value) == value or WITHHELD in str(without_secrets(value))


def test_the_answers_of_a_host_share_one_size_limit() -> None:
    recorder = Recorder("vm", room=1 << 20)

    answers = [recorder.ask("kernel", "/proc/1", lambda: "x" * 300_000) for _ in range(5)]
    last = recorder.ask("kernel", "/proc/2", lambda: "short")

    assert [answer.error is None for answer in answers] == [True, True, False, False, False]
    assert answers[2].error is not None
    assert answers[2].error.kind == "too-large"
    assert last.value == "short"


def test_values_without_text_count_for_the_limit() -> None:
    recorder = Recorder("vm", room=1 << 20)

    answer = recorder.ask("network", "ip -j link", lambda: [[] for _ in range(100_000)])

    assert answer.error is not None
    assert answer.error.kind == "too-large"


def test_slow_answers_cannot_make_a_collection_endless() -> None:
    recorder, waiting = Recorder("vm", time_left=0.3), threading.Event()

    first = recorder.ask("nova", "GET /", lambda: waiting.wait(0.2))
    late = recorder.ask("nova", "GET /", waiting.wait)
    then = recorder.ask("nova", "GET /", lambda: 1)

    assert first.error is None
    assert late.error is not None and then.error is not None
    assert late.error.kind == then.error.kind == "timeout"
    assert then.error.message == "not asked: earlier questions took 0.3 s"
