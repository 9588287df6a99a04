"""The demo of a recorded fault."""

from __future__ import annotations

import shlex
import subprocess
import sys

from tests.command import hoodsnap, process

from hoodsnap import recorded


def test_a_fault_is_explained_by_its_name() -> None:
    done = hoodsnap("demo", "virsh-destroy")

    assert done.returncode == 0
    assert b"active-but-domain-off" in done.stdout
    assert b"hoodsnap: virsh-destroy: vm-plain: " in done.stderr


def test_the_hints_are_commands_that_work_as_printed() -> None:
    done = process("demo", "virsh-destroy")

    hints = [
        line.partition(": ")[2].partition(": ")[2]
        for line in done.stderr.decode().splitlines()
        if line.startswith("hoodsnap: to print")
    ]
    [hint] = hints
    again = subprocess.run(["sh", "-c", hint], capture_output=True)
    assert again.stdout == done.stdout
    assert shlex.split(hint)[0] == sys.executable


def test_an_unknown_fault_is_an_error_of_usage() -> None:
    done = hoodsnap("demo", "virsh-destory")

    assert done.returncode == 2
    assert done.stderr == (
        b"hoodsnap: no recorded fault is named virsh-destory; did you mean virsh-destroy?\n"
    )


def test_the_list_names_every_fault() -> None:
    done = hoodsnap("demo", "--list")

    names = [line.split()[0] for line in done.stdout.decode().splitlines() if line[:1] != " "]
    assert names == list(recorded.faults())
    assert all(len(line) <= 80 for line in done.stdout.decode().splitlines())
