"""The collector of control groups, on trees as the kernel and systemd make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hoodsnap.collect import cgroup as module
from hoodsnap.collect.budget import TextBudget
from hoodsnap.collect.cgroup import ask_cgroups
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.facts.host.cgroup import CENSUS, UNITS

SCOPE = r"machine-qemu\x2d2\x2dinstance\x2d00000005.scope"

LISTED = r"""
machine-qemu\x2d2\x2dinstance\x2d00000005.scope loaded active running Virtual Machine qemu-2-instance-00000005
machine-qemu\x2d9\x2dinstance\x2d0000dead.scope loaded failed failed  Virtual Machine of the boss
"""
"""As systemctl of systemd 252 prints them."""


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "TOP", str(tmp_path))
    return tmp_path


def made(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def version_2(top: Path) -> Path:
    """One tree, and in it the scope that systemd has made."""
    made(top / "machine.slice")
    (top / "cgroup.controllers").write_text("cpu memory\n")
    scope = made(top / "machine.slice" / SCOPE, cgroup__procs="41\n42\n", memory__max="max\n")
    (scope / "memory.stat").write_text("anon 4096\n")
    made(scope / "libvirt" / "vcpu0", cpu__max="20000 100000\n", cgroup__procs="")
    made(scope / "libvirt" / "emulator", cpu__max="max 100000\n")
    made(scope / "not-a-group-of-libvirts", cpu__max="max 100000\n")
    return scope


def test_the_trees_of_version_1(top: Path) -> None:
    for name in ("cpu,cpuacct", "memory"):
        group = made(top / name / "machine" / "qemu-2-vm.libvirt-qemu", cgroup__procs="")
        made(group / "emulator", cgroup__procs="41\n")
    made(top / "memory" / "machine" / "lxc-1-other.libvirt-lxc", cgroup__procs="7\n")
    (top / "cpu").symlink_to("cpu,cpuacct")

    assert module._machines() == [
        {"path": f"{top}/cpu,cpuacct/machine/qemu-2-vm.libvirt-qemu", "pids": [41]},
        {"path": f"{top}/memory/machine/qemu-2-vm.libvirt-qemu", "pids": [41]},
    ]


def test_the_tree_of_version_2(top: Path) -> None:
    scope = version_2(top)

    assert module._machines() == [{"path": str(scope), "pids": [41, 42]}]


def test_of_a_group_only_what_is_listed_is_kept(top: Path) -> None:
    scope = version_2(top)

    assert module._settings(str(scope), TextBudget(1 << 20)) == {
        "memory.max": "max\n",
        "libvirt/emulator/cpu.max": "max 100000\n",
        "libvirt/vcpu0/cpu.max": "20000 100000\n",
    }


def test_the_folders_of_a_process(top: Path) -> None:
    text = f"0::/machine.slice/{SCOPE}/libvirt/emulator\n"

    assert [*module._folders(text)] == [f"{top}/machine.slice/{SCOPE}"]


def test_the_folders_of_a_process_of_version_1(top: Path) -> None:
    (top / "unified").mkdir()
    group = "/machine/qemu-2-vm.libvirt-qemu"
    text = (
        f"9:name=systemd:{group}\n5:devices:{group}\n"
        f"4:cpu,cpuacct:{group}/emulator\n2:memory:/user.slice\n0::{group}/emulator\n"
    )

    assert [*module._folders(text)] == [f"{top}/cpu,cpuacct{group}", f"{top}/unified{group}"]


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/../../machine/x.libvirt-qemu",
        "/",
        "",
        "machine/x.libvirt-qemu",
        "/a//x.libvirt-qemu",
    ],
)
def test_no_path_leads_out_of_the_trees(top: Path, path: str) -> None:
    assert [*module._folders(f"0::{path}\nodd line\n")] == []


def test_what_is_no_file_is_not_opened(top: Path) -> None:
    scope = version_2(top)
    (scope / "memory.max").unlink()
    os.mkfifo(scope / "memory.max")

    with pytest.raises(RefusedError, match="is a FIFO, not a regular file"):
        module._settings(str(scope), TextBudget(1 << 20))


def test_a_host_without_control_groups_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOP", str(tmp_path / "nothing"))
    recorder = Recorder("vm")

    ask_cgroups(recorder, [])

    [answer] = [answer for answer in recorder.answers if answer.query == CENSUS]
    assert answer.error is not None and answer.error.kind == "absent"


def test_this_process_is_in_no_group_of_a_guest() -> None:
    recorder = Recorder("vm")

    module.ask_processes(recorder, [os.getpid()])

    [answer] = recorder.answers
    assert (answer.query, answer.subject) == (f"/proc/{os.getpid()}/cgroup", str(os.getpid()))
    assert answer.value == Path("/proc/self/cgroup").read_text()


def test_of_systemds_units_only_the_states_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> str:
        commands.append(command)
        return LISTED

    monkeypatch.setattr(module, "run", run)

    assert module._units() == (
        "machine-qemu\\x2d2\\x2dinstance\\x2d00000005.scope loaded active running\n"
        "machine-qemu\\x2d9\\x2dinstance\\x2d0000dead.scope loaded failed failed\n"
    )
    assert commands == [["systemctl", "list-units", "machine-*.scope", *UNITS.split()[3:]]]
