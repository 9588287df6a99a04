"""Real programs: their output, their failures, and that no process of them is left."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from hoodsnap.collect import program
from hoodsnap.collect.program import run
from hoodsnap.collect.question import end_group
from hoodsnap.collect.recorder import Recorder, RefusedError

PYTHON = [sys.executable, "-c"]


def test_a_program_with_endless_output_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LARGEST_STRING", 1000)

    with pytest.raises(RefusedError, match="printed more than a bundle keeps") as refusal:
        run([*PYTHON, "while True: print('x' * 100)"])
    assert refusal.value.kind == "too-large"


def test_a_hanging_program_is_killed() -> None:
    with pytest.raises(RefusedError, match=r"was killed after 0\.3 s") as refusal:
        run([*PYTHON, "import time; time.sleep(60)"], patience=0.3)
    assert refusal.value.kind == "timeout"


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("raise SystemExit('cannot: Permission denied')", "denied", "cannot: Permission denied"),
        (
            "raise SystemExit('x: No such file or directory')",
            "absent",
            "x: No such file or directory",
        ),
        ("raise SystemExit(7)", "failed", "exit status 7"),
        ("raise SystemExit('a\\nb')", "failed", "a b"),
    ],
)
def test_a_failed_programs_stderr_is_the_reason(program: str, kind: str, message: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        run([*PYTHON, program])
    assert (refusal.value.kind, str(refusal.value)) == (kind, message)


def test_a_program_that_is_not_installed_is_missing() -> None:
    with pytest.raises(RefusedError, match="no-such-program is not installed") as refusal:
        run(["no-such-program"])
    assert refusal.value.kind == "missing"


def test_bytes_that_are_not_utf_8_are_kept() -> None:
    assert run([*PYTHON, "import sys; sys.stdout.buffer.write(b'\\xff\\x00')"]) == "\udcff\0"


@pytest.mark.parametrize("size", [65_536, 300_000])
def test_a_program_with_much_stderr_is_read_to_its_end(size: int) -> None:
    complaint = f"import sys; sys.stderr.write('x' * {size}); print('fine')"

    assert run([*PYTHON, complaint], patience=60) == "fine\n"


def test_only_the_beginning_of_a_long_stderr_is_kept() -> None:
    with pytest.raises(RefusedError) as refusal:
        run([*PYTHON, "raise SystemExit('cannot: ' + 'x' * 300_000)"], patience=60)

    assert str(refusal.value).startswith("cannot: xxx")
    assert len(str(refusal.value)) == 64 << 10


def test_a_program_that_closes_its_streams_and_runs_on_is_killed() -> None:
    with pytest.raises(RefusedError, match=r"was killed after 0\.5 s"):
        run([*PYTHON, "import os, time; os.close(1); os.close(2); time.sleep(60)"], patience=0.5)


def _number_in(path: Path) -> int:
    for _ in range(600):
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.05)
    raise AssertionError(f"nothing was written to {path}")


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _ends(pid: int) -> bool:
    for _ in range(200):
        if not _is_running(pid):
            return True
        time.sleep(0.05)
    return False


def test_processes_that_a_program_left_behind_are_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    start = time.monotonic()

    output = run(["sh", "-c", f"sleep 600 & echo $! > {noted}; echo hi"], patience=60)

    assert output == "hi\n"
    assert time.monotonic() - start < 30
    assert _ends(_number_in(noted))


def test_children_of_a_slow_program_are_killed_with_it(tmp_path: Path) -> None:
    noted = tmp_path / "pid"

    with pytest.raises(RefusedError, match="was killed after 1 s"):
        run(["sh", "-c", f"sleep 600 & echo $! > {noted}; wait"], patience=1.0)

    assert _ends(_number_in(noted))


def test_programs_of_an_abandoned_question_are_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {noted}; wait"

    answer = Recorder("vm").ask("host", "sh", lambda: run(["sh", "-c", script]), patience=1.0)

    assert answer.error is not None and answer.error.kind == "timeout"
    assert _ends(_number_in(noted))


def test_a_daemon_in_its_own_session_is_neither_killed_nor_waited_for(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    start = time.monotonic()
    daemon_of = f"setsid -f sh -c 'echo $$ > {noted}; exec sleep 600'"
    until_there = f"while [ ! -s {noted} ]; do sleep 0.05; done"
    output = run(["sh", "-c", f"{daemon_of}; {until_there}; echo hi"], patience=60)
    daemon = _number_in(noted)
    try:
        assert output == "hi\n"
        assert time.monotonic() - start < 30
        assert _is_running(daemon)
    finally:
        os.kill(daemon, 9)


def test_an_interruption_kills_the_running_programs() -> None:
    failed: list[RefusedError] = []

    def ask() -> None:
        try:
            run(["sleep", "600"], patience=300)
        except RefusedError as refusal:
            failed.append(refusal)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(600):
        program.end_programs()
        asking.join(0.05)
        if not asking.is_alive():
            break

    assert [str(refusal) for refusal in failed] == ["exit status -9"]


def test_the_group_of_a_reaped_child_is_not_killed() -> None:
    """The PID may belong to another process: here it is the group of the child's own child."""
    import subprocess

    script = "sleep 600 & echo $!"
    leader = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    other = int(leader.stdout.readline())
    leader.stdout.close()
    leader.wait()
    try:
        end_group(leader)

        time.sleep(0.2)
        assert _is_running(other)
    finally:
        os.kill(other, 9)


def test_parallel_programs_return_their_own_output() -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = run(["sh", "-c", f"echo {number}; echo {number} >&2"], patience=60)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {number: f"{number}\n" for number in range(16)}
