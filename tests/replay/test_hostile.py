"""A stranger's recording may hold anything: it breaks no stand-in, and nothing is written or shown
outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fuzz.targets import REQUESTS, STATEMENTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import MONITORS, NOT_SEALED, RecordedHost, healthy
from tests.test_hostile import odd_values

from hoodsnap.bundle import Answer, Bundle, Failure, load, save
from hoodsnap.replay import procfs, shell
from hoodsnap.replay.apis.openstack import ApiError, OpenStack
from hoodsnap.replay.images import Images
from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.libvirtd import Libvirtd
from hoodsnap.replay.libvirtd.procedure import PROCEDURES, REMOTE
from hoodsnap.replay.monitor import MonitorSocket, reply
from hoodsnap.replay.mysqld.database import QueryResult, ReplayedDatabase
from hoodsnap.replay.mysqld.mysqld_error import MySQLError
from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording, hosts

several = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])

odd_texts = st.sampled_from(
    (
        *("../../etc/passwd", "/var/lib/nova/instances/../../../x", "a\nb", "\x1b]0;owned\x07"),
        *("\0", "\ud800", "\udcff", "x" * 5000, "", "-", "--", "main", "'; drop table x", "%s"),
        *("file:///etc/passwd", "<a>\0</a>", "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc'>]>"),
        *("CREATE TABLE", "CREATE TABLE `a` (\n  `a` int(11),\n  `A` int(11)\n)", "99999999999"),
    )
)
damages = st.lists(
    st.tuples(
        st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=6), odd_values | odd_texts
    ),
    min_size=1,
    max_size=8,
)
"""Index of an answer, path into its value, and the value to put there."""


def damaged(bundle: Bundle, layers: Iterable[str], damage: Any) -> Recording:
    """Return a recording with some damaged answers."""
    answers = list(bundle.answers)
    numbers = [
        number
        for number, answer in enumerate(answers)
        if answer.layer in layers and answer.error is None
    ]
    for which, way, instead in damage:
        number = numbers[which % len(numbers)]
        box = {"value": json.loads(json.dumps(answers[number].value))}
        place: Any = box
        key: Any = "value"
        for step in way:
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner:
                break
            place = inner
            key = (
                [*inner][step % len(inner)] if isinstance(inner, dict) else step % len(inner)
            )  # fmt: skip
        place[key] = instead
        answers[number] = answers[number].model_copy(update={"value": box["value"]})
    changed = bundle.with_answers(answers)
    return Recording(changed, hosts(changed)[0])


def _arguments(recording: Recording) -> list[bytes]:
    """Return arguments that a client may send: a domain or a network, if the lists can be read."""
    found = [b"", xdr.int_(1) + xdr.uint(0)]
    for query in ("virsh list --all", "virsh net-list --all"):
        listed: Any = recording.value("libvirt", query)
        with contextlib.suppress(*UNREADABLE):
            for row in listed[:3]:
                head = xdr.string(row["name"]) + bytes.fromhex(row["uuid"].replace("-", ""))
                found += [head + struct.pack(">iI", 1, 0) + xdr.uint(0) * 4, head + xdr.uint(0)]
    return found


@given(damages)
@several
def test_libvirt_answers_or_refuses(damage: Any) -> None:
    recording = damaged(healthy(), ["libvirt"], damage)
    daemon = Libvirtd(recording)

    for payload in _arguments(recording):
        for program, number in PROCEDURES:
            header = struct.pack(">IIiIII", program, 1, number, 0, 1, 0)
            answer = daemon.reply(header + payload)
            assert int.from_bytes(answer[:4], "big") == len(answer)
            if answer[27]:
                text = xdr.Reader(answer[36:]).optional_string()
                assert text is not None
                assert text.isprintable()


@given(damages)
@several
def test_a_database_answers_or_refuses(damage: Any) -> None:
    recording = damaged(healthy(), ["nova-db"], damage)
    try:
        database = ReplayedDatabase(recording)
    except NotRecordedError:
        return
    for statement in STATEMENTS:
        with contextlib.suppress(MySQLError):
            found = database.ask(statement, "nova")
            if isinstance(found, QueryResult):
                for row in found.rows:
                    assert len([*row]) == len(found.columns)


@given(damages)
@several
def test_an_api_answers_or_refuses(damage: Any) -> None:
    layers = ("nova", "glance", "neutron", "cinder", "placement", "keystone")
    cloud = OpenStack(damaged(healthy(), layers, damage), "http://127.0.0.1:5000")
    for target in REQUESTS:
        # What else is raised the server turns into a refusal.
        with contextlib.suppress(ApiError, *UNREADABLE):
            _, body, version = cloud.answer("GET", target, {})
            json.dumps(body)
            assert "\n" not in version


@given(damages)
@several
def test_a_monitor_answers_or_refuses(damage: Any) -> None:
    recording = damaged(load(MONITORS), ["qemu"], damage)
    for uuid in sorted({a.subject for a in recording.asked("qemu", "") if a.subject})[:2]:
        for question in ('{"execute": "query-status"}', "[]", '{"execute": 1}', "\0"):
            json.loads(reply(recording, uuid, question))
        with contextlib.suppress(NotRecordedError, *UNREADABLE):
            MonitorSocket(recording, uuid).greeting()


@given(damages)
@several
def test_nothing_is_created_outside(damage: Any) -> None:
    recording = damaged(healthy(), ["images", "kernel", "logs", "host"], damage)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        Images(recording, root / "in/images").make()
        procfs.make(recording, root / "in/proc")
        for line in [*shell.coverage(recording), *shell.lacking(recording)]:
            assert line.isprintable()

        assert os.listdir(root) == ["in"]
        assert sorted(os.listdir(root / "in")) == ["images", "proc"]
        for made in (root / "in/images").rglob("*"):
            mode = made.lstat().st_mode
            assert made.is_symlink() or made.is_dir() or not mode & 0o7111


def test_a_domain_with_an_invalid_id_is_not_shut_off(host: RecordedHost) -> None:
    rows = host.last("libvirt", "virsh list --all").value
    for number in (-1, 1 << 40, "7", [7], True, None):
        host.set("libvirt", "virsh list --all", [{**rows[0], "id": number}])
        daemon = Libvirtd(Recording(host.bundle, hosts(host.bundle)[0]))

        answer = daemon.reply(
            struct.pack(">IIiIII", REMOTE, 1, 273, 0, 1, 0) + xdr.int_(1) + xdr.uint(0)
        )

        assert bool(answer[27]) == (number not in (None, "7"))


def test_an_unreadable_list_is_not_empty(host: RecordedHost) -> None:
    host.set("libvirt", "virsh list --all", "nonsense")
    daemon = Libvirtd(Recording(host.bundle, hosts(host.bundle)[0]))

    answer = daemon.reply(struct.pack(">IIiIII", REMOTE, 1, 273, 0, 1, 0) + xdr.int_(1) * 2)

    assert b"hoodsnap: the recorded list of domains can't be read" in answer


def test_ten_of_a_thousand_databases_can_be_queried(host: RecordedHost) -> None:
    made = host.last("nova-db", "SHOW CREATE TABLE nova.instances")
    for number in range(1000):
        query = f"SHOW CREATE TABLE d{number:04}.instances"
        host.add(made.model_copy(update={"query": query}))

    database = ReplayedDatabase(Recording(host.bundle, hosts(host.bundle)[0]))

    with pytest.raises(MySQLError) as refused:
        database.ask("select host from instances", "d0999")
    assert "d0999.instances can't be queried: there are too many databases" in refused.value.text
    with pytest.raises(MySQLError, match=r"d0999\.instances can't be queried"):
        database.ask("select host from d0999.instances", None)
    with pytest.raises(MySQLError, match=r"the rows of d0001\.instances were not recorded"):
        database.ask("select count(*) from d0001.instances", None)


def test_an_unreadable_definition_is_refused_by_name(host: RecordedHost) -> None:
    twice = "CREATE TABLE `instances` (\n  `uuid` int(11),\n  `UUID` int(11)\n)"
    host.set("nova-db", "SHOW CREATE TABLE nova.instances", {"columns": [], "rows": [["t", twice]]})

    database = ReplayedDatabase(Recording(host.bundle, hosts(host.bundle)[0]))

    with pytest.raises(MySQLError, match=r"the table nova\.instances can't be queried"):
        database.ask("select uuid from instances", "nova")
    assert isinstance(database.ask("select count(*) from services", "nova"), QueryResult)


def _with(host: RecordedHost, tmp_path: Path, *entries: dict[str, Any]) -> Path:
    """Return a bundle with these recorded files."""
    query = next(
        answer.query
        for answer in host.bundle.answers
        if answer.layer == "images" and answer.query.startswith("find ")
    )
    host.set("images", query, list(entries))
    path = tmp_path / "hostile.json"
    save(host.bundle, path)
    return path


def _run(bundle: Path, line: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap", "shell", bundle, "-c", line],
        capture_output=True,
        text=True,
    )
    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


def test_no_recorded_file_is_executable(host: RecordedHost, tmp_path: Path) -> None:
    path = "/var/lib/nova/instances/program"
    entry = {"path": path, "type": "f", "mode": "100755", "size": 9, "magic": b"#!/bin/ls".hex()}
    bundle = _with(host, tmp_path, entry)

    done = _run(bundle, f"{path}; echo $?; ls -l {path} | cut -c1-10")

    assert done.stdout.split() == ["126", "-rw-r--r--"]


def test_no_recorded_program_is_found(host: RecordedHost, tmp_path: Path) -> None:
    programs = Path("/opt/hoodsnap-test/bin")
    entry = {"path": f"{programs}/virsh", "type": "f", "mode": "100755", "size": 0}
    bundle = _with(host, tmp_path, entry)

    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap", "shell", bundle, "-c", "echo $PATH"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )

    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())
    assert "/usr/bin" in done.stdout.strip().split(":")
    assert str(programs) not in done.stdout


def test_no_recorded_file_covers_a_folder_of_programs(host: RecordedHost, tmp_path: Path) -> None:
    query = next(
        answer.query
        for answer in host.bundle.answers
        if answer.layer == "images" and answer.query.startswith("find ")
    )
    paths = ("/opt/venv/bin/virsh", "/opt/venv", "/opt/venv2/disk", "/opt/other")
    kinds = ("f", "l", "f", "f")
    entries = [
        {"path": path, "type": kind, "size": 1, "target": "/tmp"}
        for path, kind in zip(paths, kinds, strict=True)
    ]
    host.set("images", query, entries)
    images = Images(Recording(host.bundle, hosts(host.bundle)[0]), tmp_path, ["/opt/venv"])

    images.make()

    assert sorted(path.name for path in (tmp_path / "opt").rglob("*")) == ["disk", "other", "venv2"]
    assert list(images.covered) == ["/opt/venv"]


def test_no_control_character_of_a_name_reaches_the_terminal(
    host: RecordedHost, tmp_path: Path
) -> None:
    name = "evil\x1b[2J\nhost"
    answers = [answer.model_copy(update={"host": name}) for answer in host.bundle.answers]
    path = tmp_path / "evil.json"
    save(host.bundle.with_answers(answers), path)

    wrong = subprocess.run(
        [sys.executable, "-m", "hoodsnap", "shell", path, "--host", "x", "-c", "true"],
        capture_output=True, text=True,
    )  # fmt: skip
    done = _run(path, 'printf "%s" "$PS1"')

    assert wrong.returncode == 2
    assert "\x1b" not in wrong.stderr + done.stdout + done.stderr
    assert done.returncode == 0


def test_a_recorded_failure_is_shown_in_one_line(host: RecordedHost) -> None:
    asked = host.last("nova-db", "SELECT VERSION()")
    failure = Failure(kind="unreachable", message="no\x1b[31m\nserver")
    raw = asked.model_dump(exclude={"error", "value"})
    others = [answer for answer in host.bundle.answers if answer.query != asked.query]
    bundle = host.bundle.with_answers([*others, Answer(**raw, error=failure)])

    (line,) = shell.lacking(Recording(bundle, hosts(bundle)[0]))

    assert line.startswith("not in this recording: nova's database, for mysql")
    assert line.isprintable()


def test_a_command_may_arrive_in_pieces_and_without_a_line_break(monitored: RecordedHost) -> None:
    async def asked(uuid: str, folder: str, *pieces: bytes) -> list[Any]:
        path = f"{folder}/monitor.sock"
        server = await MonitorSocket(recording, uuid).serve(path)
        reader, writer = await asyncio.open_unix_connection(path)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write_eof()
        received = (await reader.read()).splitlines()
        writer.close()
        server.close()
        return [json.loads(line) for line in received]

    recording = Recording(monitored.bundle, hosts(monitored.bundle)[0])
    uuid = sorted({answer.subject or "" for answer in recording.asked("qemu", "")})[0]
    pieces = (b'{"execute": "qmp_', b'capabilities"}{"execute":"query-', b'uuid"} nonsense\n{}')
    with tempfile.TemporaryDirectory() as folder:
        greeting, capable, named, *wrong = asyncio.run(asked(uuid, folder, *pieces))

    assert greeting["QMP"]["capabilities"] == []
    assert capable == {"return": {}}
    assert named == {"return": {"UUID": uuid}}
    assert [line["error"]["class"] for line in wrong] == ["GenericError", "GenericError"]
