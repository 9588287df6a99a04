from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.process.monitor import BlockNode, Monitor

UUID = "6d40e248-2a96-47cc-b535-4fae46854b60"
NAME = "instance-0000000a"

NODE = {
    "node-name": "libvirt-1-format",
    "drv": "qcow2",
    "ro": False,
    "file": "/i/disk",
    "backing_file": "/i/_base/old",
    "backing_file_depth": 2,
    "image": {
        "filename": "/i/disk",
        "format": "qcow2",
        "backing-image": {
            "filename": "/i/delta",
            "format": "qcow2",
            "backing-image": {"filename": "/i/_base/ffbc", "format": "raw"},
        },
    },
}

RETURNS: dict[str, Any] = {
    "query-status": {"status": "io-error", "singlestep": False, "running": False},
    "query-uuid": {"UUID": UUID.upper()},
    "query-name": {"name": NAME},
    "query-cpus-fast": [{"cpu-index": 0}, {"cpu-index": 1}],
    "query-memory-size-summary": {"base-memory": 2147483648, "plugged-memory": 1048576},
    "query-block": [
        {
            "device": "",
            "qdev": "/machine/peripheral/virtio-disk0/virtio-backend",
            "io-status": "nospace",
            "inserted": NODE,
        },
        {"device": "drive-ide0-0-0", "qdev": "ide0-0-0", "io-status": "ok", "tray_open": False},
    ],
    "query-named-block-nodes": [NODE],
}


def answer(command: str, value: object) -> Answer:
    return Answer(
        layer="qemu",
        host="compute1",
        query=f'virsh qemu-monitor-command {NAME} \'{{"execute": "{command}"}}\'',
        subject=UUID,
        at=datetime(2026, 11, 23, tzinfo=UTC),
        took=0.01,
        value=value,
    )


def monitor(**changed: object) -> Monitor:
    returns = RETURNS | {command.replace("_", "-"): value for command, value in changed.items()}
    answers = [answer(command, value) for command, value in returns.items() if value is not ...]
    return Monitor.read_all(answers)[UUID]


def test_a_monitor_is_read() -> None:
    read = monitor()

    assert (read.status, read.running) == ("io-error", False)
    assert (read.uuid, read.name) == (UUID, NAME)
    assert read.vcpus == 2
    assert read.memory_kib == 2097152
    assert read.io_errors == {"/machine/peripheral/virtio-disk0/virtio-backend": "nospace"}
    node = BlockNode(
        *("libvirt-1-format", "/i/disk", "qcow2", False, ("/i/delta", "/i/_base/ffbc")),
        named_backing="/i/_base/old",
    )
    assert [disk.node for disk in read.disks] == [node, None]
    assert read.nodes == (node,)


def test_the_name_is_none_if_qemu_has_no_name() -> None:
    assert monitor(query_name={}).name is None


def test_a_qemu_of_2013_is_read() -> None:
    old = {"device": "drive-virtio-disk0", "inserted": {"file": "/d", "backing_file": "/b"}}
    read = monitor(query_cpus=[{"CPU": 0}], query_cpus_fast=..., query_block=[old], query_name=...)

    assert read.vcpus == 1
    (disk,) = read.disks
    assert disk.node == BlockNode(None, "/d", None, False, ("/b",), named_backing="/b")
    assert disk.io_status is None
    assert read.io_errors == {}
    with pytest.raises(UnheardError, match="query-name was not collected"):
        _ = read.name


def test_a_hanging_monitor_is_unheard_with_its_reason() -> None:
    failure = Failure(kind="timeout", message="no answer within 10 s")
    hanging = Answer(
        **answer("query-status", None).model_dump(exclude={"value", "error"}), error=failure
    )
    read = Monitor.read_all([answer("query-status", RETURNS["query-status"]), hanging])[UUID]

    with pytest.raises(UnheardError, match="query-status: no answer within 10 s"):
        _ = read.status


def test_evidence_names_the_answer_and_the_place() -> None:
    status, place = monitor().where("status")

    assert status is not None
    assert (status.query.count("query-status"), place) == (1, "status")


FIELDS = list(Monitor.places)

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.just(10**400)
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(list(RETURNS.values())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "running", "UUID", "name", "base-memory", *NODE])
            | st.sampled_from(["inserted", "io-status", "device", "backing-image", "filename"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=9,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*RETURNS, "query-cpus"]), anything))
def test_any_answer_raises_only_unheard_error(values: dict[str, object]) -> None:
    for read in Monitor.read_all([answer(key, value) for key, value in values.items()]).values():
        for field in FIELDS:
            try:
                getattr(read, field)
            except UnheardError:
                continue
