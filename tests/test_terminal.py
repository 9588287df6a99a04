"""What a bundle, a file's name or an argument holds reaches the terminal as text, never as a command to it."""

from __future__ import annotations

import gc
import json
import os
import pty
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz.slices import Raw, slices
from tests.command import hoodsnap, process
from tests.conftest import FAULTS, HEALTHY
from tests.test_bounds import bundle_of

from hoodsnap import cli
from hoodsnap.cli import crash
from hoodsnap.printable import escaped

ESCAPE = "\x1b]0;PWNED\x07\x1b[31m\x9b31m\u202e\x7f\x08\u2028\x85"
"""A title, colors, the other direction, deletions, other line ends."""

COMMANDS = (
    ["explain"],
    ["explain", "--verbose"],
    ["explain", "-f", "json"],
    ["explain", "-f", "markdown"],
    ["explain", "-s", f"x{ESCAPE}"],
    ["check"],
    ["check", "-f", "text"],
    ["check", "-f", "json"],
    ["check", "--select", f"x{ESCAPE}"],
    ["timeline"],
    ["timeline", "--verbose"],
    ["timeline", "-f", "json"],
    ["timeline", "--since", f"x{ESCAPE}"],
    ["diff", str(FAULTS / "virsh-suspend.json.zst")],
    ["diff", str(FAULTS / "virsh-suspend.json.zst"), "-f", "json"],
    ["diff", str(HEALTHY)],
    ["verify", "--plausible", "--challenge", "x"],
    ["verify", "-f", "json"],
    ["redact", "-o", "/dev/null"],
    ["grade", "compute"],
    ["grade", "compute", "-f", "json"],
    ["grade", "compute", "-f", "csv"],
    ["grade", "compute", "-f", "junit"],
    ["grade", "compute", "-f", "gradescope"],
    ["shell", "--host", f"x{ESCAPE}", "-c", "true"],
    ["replay", "--host", "x", "--"],
)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    return value


def _words(raw: Raw) -> None:
    """In what is around the values."""
    raw["tool"] += ESCAPE
    for number, answer in enumerate(raw["answers"]):
        for name in ("layer", "host", "query", "subject")[number % 4 :][:1]:
            answer[name] = f"{answer.get(name) or ''}{ESCAPE}"


def _hosts(raw: Raw) -> None:
    for answer in raw["answers"]:
        answer["host"] = f"h{ESCAPE}"


def _values(raw: Raw) -> None:
    """In every text of every answer; first the escape, so that what is cut off keeps it."""
    for answer in raw["answers"]:
        if "value" in answer and answer["query"] != "virsh list --all":
            answer["value"] = _each_text(answer["value"], lambda text: text + ESCAPE)


def _names(raw: Raw) -> None:
    """In names that people give, and so in what still can be read."""
    text = json.dumps(raw)
    for name in ("vm-", "lab.tiny", "plain-snap", "lab-net", "active", "running"):
        text = text.replace(name, name + json.dumps(ESCAPE)[1:-1])
    raw.update(json.loads(text))


def _errors(raw: Raw) -> None:
    """Every second answer is an error."""
    for answer in raw["answers"][::2]:
        answer.pop("value", None)
        answer["error"] = {"kind": f"denied{ESCAPE}", "message": f"no{ESCAPE}"}


def _all_errors(raw: Raw) -> None:
    for answer in raw["answers"]:
        answer.pop("value", None)
        answer["error"] = {"kind": "denied", "message": f"no{ESCAPE}"}


def _key(raw: Raw) -> None:
    """A key that an answer has not."""
    raw["answers"][0][ESCAPE] = 1


def _top_key(raw: Raw) -> None:
    raw[ESCAPE] = 1


def _format(raw: Raw) -> None:
    raw["format"] = ESCAPE


PLANTED = (_words, _hosts, _values, _names, _errors, _all_errors, _key, _top_key, _format)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands run here: no limit of memory for all that comes after."""
    monkeypatch.setenv("HOODSNAP_MEMORY", "unlimited")
    yield
    gc.enable()


def _obeyed(text: str) -> str:
    """What a terminal would obey in a text."""
    return "".join(sorted({char for char in text if char != "\n" and not char.isprintable()}))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_no_command_prints_what_a_terminal_obeys(
    plant: Callable[[Raw], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    raw = _slice()
    plant(raw)
    path = tmp_path / f"b{ESCAPE}.json"
    path.write_text(json.dumps(raw))
    told = ""

    for command in COMMANDS:
        monkeypatch.setattr(sys, "argv", ["hoodsnap", *command[:2], *command[2:], str(path)])
        if "--" in command:
            monkeypatch.setattr(sys, "argv", ["hoodsnap", "replay", str(path), *command[1:], "x"])
        with pytest.raises(SystemExit):
            cli.main()
        out, err = capfd.readouterr()
        assert _obeyed(out.replace("\r\n", "\n")) == "", command
        assert _obeyed(err) == "", command
        assert "defect" not in err
        told += out + err

    assert "\\u001b" in told or "\N{REPLACEMENT CHARACTER}" in told


def _slice() -> Raw:
    return next(slices(FAULTS / "dir-missing.json.zst", random.Random(1)))  # noqa: S311


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--x{ESCAPE}"],
        ["explain"],
        ["explain", f"--x{ESCAPE}"],
        ["explain", f"/no/such{ESCAPE}"],
        ["explain", "x", "-f", f"y{ESCAPE}"],
        ["collect", "--days", f"y{ESCAPE}"],
        [f"nothing{ESCAPE}"],
        ["lab", "show", f"x{ESCAPE}"],
        ["checks", f"x{ESCAPE}"],
        ["grade", f"x{ESCAPE}", "y"],
        ["replay", str(HEALTHY), "--", f"no-such{ESCAPE}"],
    ],
    ids=lambda arguments: arguments[0][:8],
)
def test_no_argument_is_obeyed_either(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    # A replay makes namespaces, which a process can't leave.
    done = (process if arguments[0] == "replay" else hoodsnap)(*arguments)

    assert done.returncode not in (0, 1)
    assert _obeyed((done.stdout + done.stderr).decode()) == ""


def test_a_name_that_is_no_text_is_escaped(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap", "explain", b"/no/\xff\x1b"], capture_output=True
    )

    assert done.returncode == 3
    assert b"/no/\\udcff\\u001b" in done.stderr


def test_where_a_person_looks_only_our_own_colours_are_obeyed(tmp_path: Path) -> None:
    raw = _slice()
    _names(raw)
    (tmp_path / "b.json").write_text(json.dumps(raw))
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "hoodsnap", "explain", "b.json"],
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm-256color"},
    ):
        os.close(follower)
        told = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:
                break
            told += part
            if not part:
                break
    os.close(leader)

    assert b"\x1b[" in told
    assert b"\x1b]0;PWNED" not in told
    assert "\u202e".encode() not in told
    assert b"\x07" not in told


def test_json_stays_json() -> None:
    said = json.dumps({"a": f"{ESCAPE}\U000e0001"})

    assert json.loads(escaped(said)) == json.loads(said)
    assert escaped("a\nb") == "a\\u000ab"
    assert escaped("a\nb", newlines=True) == "a\nb"


DEFECT = """
import sys
from hoodsnap.cli import explain, main

def breaks(*_, **__):
    secret = "S3CRET-LOCAL"
    try:
        {}["S3CRET-KEY"]
    except KeyError as error:
        raise TypeError("S3CRET-TEXT") from error

explain.merged = breaks
sys.argv = ["hoodsnap", "explain", "S3CRET.json", "--server", "S3CRET", "--format=json", "-v"]
main()
"""


def _crash(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: said for name, said in os.environ.items() if name != "HOODSNAP_DEBUG"}
    return subprocess.run(
        [sys.executable, "-c", DEFECT],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, **variables},
    )


def test_a_defect_is_reported_with_nothing_of_the_bundle(tmp_path: Path) -> None:
    done = _crash(tmp_path)

    [report] = tmp_path.glob("hoodsnap-crash-*.txt")
    text = report.read_text()
    assert done.returncode == 3
    assert done.stdout == ""
    assert report.name in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "S3CRET" not in text + done.stderr
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert text.startswith("hoodsnap ")
    assert "command: hoodsnap explain --server --format -v (and 2 other words)" in text
    assert "hoodsnap/cli/__init__.py:" in text
    assert "builtins.TypeError" in text
    assert "builtins.KeyError" in text
    assert "pydantic " in text


def test_a_report_is_written_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()

    done = _crash(Path("/proc/self"), TMPDIR=str(tmp_path / "tmp"))

    assert done.returncode == 3
    assert [*(tmp_path / "tmp").glob("hoodsnap-crash-*.txt")]


def test_a_report_never_replaces_a_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "report.txt").symlink_to(victim)

    with pytest.raises(FileExistsError):
        crash._written(tmp_path / "report.txt", "x")

    assert victim.read_text() == "mine"


def test_with_debugging_a_defect_is_raised(tmp_path: Path) -> None:
    done = _crash(tmp_path, HOODSNAP_DEBUG="1")

    assert "Traceback" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_an_unknown_key_is_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(bundle_of({ESCAPE: 1}))

    for command in ("explain", "check", "verify"):
        said = hoodsnap(command, "b.json", cwd=tmp_path).stderr.decode()
        assert "answers.0.\\u001b]0;PWNED\\u0007" in said
        assert _obeyed(said) == ""
