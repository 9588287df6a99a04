"""Saved memory, and checkpoints of backups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import ROOT, RecordedHost

from hoodsnap.bundle import Answer, Failure, load
from hoodsnap.findings.analysis import analyze

CASE = ROOT.parent / "shared/cases/lab/miss-managedsave-lost.json.gz"


def _remove_save(host: RecordedHost) -> str:
    """Let the file with the saved memory of vm-suspended be gone; return its path."""
    path = f"/var/lib/libvirt/qemu/save/{host.domain('vm-suspended')}.save"
    gone = Failure(kind="absent", message="No such file or directory")
    host.bundle = host.bundle.with_answers(
        tuple(
            Answer(**answer.model_dump(exclude={"value", "error"}), error=gone)
            if answer.query == f"stat -L {path}"
            else answer
            for answer in host.bundle.answers
        )
    )
    return path


def test_saved_memory_missing(host: RecordedHost) -> None:
    path = _remove_save(host)

    [finding] = [it for it in host.report().findings if it.check.name == "saved-memory-missing"]
    assert finding.severity.word == "error"
    assert finding.headline == (
        f"vm-suspended is shut off (saved) with saved memory in libvirt, but {path} does not exist"
    )


@pytest.mark.parametrize("lost", [True, False])
def test_a_running_guest_has_a_stale_save_only_if_the_file_exists(
    host: RecordedHost, lost: bool
) -> None:
    """libvirt reports a save that is lost also while the guest runs."""
    name = host.domain("vm-plain")
    host.edit("libvirt", f"virsh dominfo {name}", '"managed_save": false', '"managed_save": true')
    there = host.last("images", _stat(host, "vm-suspended"))
    gone = Failure(kind="absent", message="No such file or directory")
    raw = there.model_dump(exclude={"value", "error", "query", "subject"})
    path = f"/var/lib/libvirt/qemu/save/{name}.save"
    found = {"error": gone} if lost else {"value": {**there.value, "path": path}}
    host.add(Answer(**raw, query=f"stat -L {path}", subject=path, **found))

    assert [one.check.name for one in host.report().findings] == ["managed-save-mismatch"] * (
        not lost
    )


def _stat(host: RecordedHost, name: str) -> str:
    return f"stat -L /var/lib/libvirt/qemu/save/{host.domain(name)}.save"


def test_saved_memory_that_nobody_looked_for_is_not_missing(host: RecordedHost) -> None:
    path = f"/var/lib/libvirt/qemu/save/{host.domain('vm-suspended')}.save"
    host.drop(lambda answer: answer.query != f"stat -L {path}")

    assert host.findings() == []


@pytest.mark.skipif(not CASE.exists(), reason="the recording is not here")
def test_a_suspended_server_that_lost_its_memory(tmp_path: Path) -> None:
    found = [it for it in analyze(load(CASE)).findings if it.check.name == "saved-memory-missing"]

    assert [it.guest.name for it in found if it.guest is not None] == ["vm-suspended"]


def test_backup_checkpoint_left(host: RecordedHost) -> None:
    host.set("libvirt", f"virsh checkpoint-list {host.domain('vm-plain')}", ["monday", "tuesday"])

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert finding.headline == (
        "vm-plain has checkpoints of a backup, with which nova can't remove its domain: monday and "
        "tuesday"
    )
    assert host.findings() == [
        "backup-checkpoint-left of vm-plain: instance reports vm_state = active;"
        " domain reports state = running (unpaused), checkpoints = monday, tuesday"
    ]


def test_a_domain_without_checkpoints_is_quiet(host: RecordedHost) -> None:
    query = f"virsh checkpoint-list {host.domain('vm-plain')}"
    assert json.dumps(host.last("libvirt", query).value) == "[]"

    assert host.findings() == []
