"""Words that a shell offers, asked for as the scripts do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import HEALTHY, RecordedHost

from hoodsnap.bundle import dump
from hoodsnap.cli.completion import SCRIPTS, Shell


def offered(line: str, cwd: Path | None = None, **environment: str) -> list[str]:
    """Return the words for a line that ends at the cursor."""
    asked = {
        "_HOODSNAP_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }
    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | asked | environment,
    )
    assert done.stderr == ""
    return [word.partition("\t")[0] for word in done.stdout.splitlines() if word]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hoodsnap exp", ["explain"]),
        ("hoodsnap explain @demo/base-m", ["@demo/base-moved"]),
        ("hoodsnap explain @demo -s vm-p", ["vm-paused", "vm-plain"]),
        ("hoodsnap explain @demo --server vm-pl", ["vm-plain"]),
        ("hoodsnap check @demo --select active-but", ["active-but-domain-off"]),
        ("hoodsnap check @demo --select shape,active-b", ["shape,active-but-domain-off"]),
        ("hoodsnap demo base-m", ["base-moved"]),
        ("hoodsnap lab show c", ["compute"]),
        ("hoodsnap grade compute @demo -s vm-pl", ["vm-plain"]),
        ("hoodsnap help coll", ["collect"]),
        ("hoodsnap explain /no/such/file -s ", []),
        ("hoodsnap explain bundle", []),
    ],
)
def test_what_is_known_is_offered(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_files_with_spaces_are_read(tmp_path: Path) -> None:
    (tmp_path / "a bundle.zst").write_bytes(HEALTHY.read_bytes())

    for name in ("a\\ bundle.zst", "'a bundle.zst'", '"a bundle.zst"'):
        assert offered(f"hoodsnap explain {name} -s vm-pl", cwd=tmp_path) == ["vm-plain"]


def test_a_name_that_a_shell_would_obey_is_not_offered(host: RecordedHost, tmp_path: Path) -> None:
    uuid = host.uuid("vm-plain")
    text = dump(host.bundle).replace(b"vm-plain", b"vm-$(reboot)")
    (tmp_path / "hostile.json").write_bytes(text)

    words = offered("hoodsnap explain hostile.json -s ", cwd=tmp_path)

    assert not any("$" in word for word in words)
    assert uuid in words


@pytest.mark.parametrize("damage", [b"{", b"\x1f\x8b", b"[]", b"hello"])
def test_an_unreadable_bundle_offers_nothing_and_prints_nothing(
    damage: bytes, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_bytes(damage)

    assert offered("hoodsnap explain bad.json -s ", cwd=tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")

    assert offered("hoodsnap explain fifo.json -s ", cwd=tmp_path) == []


def test_bash_completes_with_the_printed_script() -> None:
    """bash itself, with the script and the variables that it sets at a key."""
    program = Path(sys.executable).with_name("hoodsnap")
    script = (
        f"{SCRIPTS[Shell.BASH]}\n"
        'COMP_LINE="hoodsnap explain @demo/base-m"; COMP_POINT=${#COMP_LINE}\n'
        f"_hoodsnap_completion '{program}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p hoodsnap\n'
    )

    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True)

    assert done.stdout.splitlines() == [
        "@demo/base-moved",
        "complete -o bashdefault -o default -F _hoodsnap_completion hoodsnap",
    ]


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", ".local/share/bash-completion/completions/hoodsnap"),
        ("zsh", ".zfunc/_hoodsnap"),
        ("fish", ".config/fish/completions/hoodsnap.fish"),
    ],
)
def test_one_command_installs_the_script(shell: str, place: str, tmp_path: Path) -> None:
    done = hoodsnap(
        "completion",
        "--install",
        SHELL=f"/usr/bin/{shell}",
        HOME=str(tmp_path),
        XDG_DATA_HOME="",
        XDG_CONFIG_HOME="",
    )

    assert done.returncode == 0
    assert (tmp_path / place).read_text() == SCRIPTS[Shell(shell)]
    assert hoodsnap("completion", shell).stdout.decode() == SCRIPTS[Shell(shell)]


def test_an_unknown_shell_is_an_error_of_usage() -> None:
    assert hoodsnap("completion", SHELL="/bin/dash").returncode == 2
