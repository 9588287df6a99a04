"""Saved memory, and checkpoints of backups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import ROOT, RecordedHost

from hoodsnap.bundle import Answer, Failure, load
from hoodsnap.findings.advice import instructions
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


def save(host: RecordedHost, size: int, head: dict[str, object] | None = None) -> str:
    """Set the size of vm-suspended's saved memory, and libvirt's header; return its path."""
    path = f"/var/lib/libvirt/qemu/save/{host.domain('vm-suspended')}.save"
    stat = host.last("images", f"stat -L {path}")
    host.set("images", stat.query, stat.value | {"size": size})
    kept = [answer for answer in host.bundle.answers if answer.query != f"head -c 92 {path}"]
    host.bundle = host.bundle.with_answers(tuple(kept))
    if head is not None:
        raw = stat.model_dump(exclude={"value", "query"})
        host.add(Answer(**raw, query=f"head -c 92 {path}", value=head))
    return path


GOOD: dict[str, object] = {
    "magic": "LibvirtQemudSave",
    "read": 92,
    "version": 2,
    "data_len": 70_928,
    "was_running": 1,
    "compressed": 0,
    "cookie_offset": 5355,
}
BOOTS = "so libvirt removes it at the next start and boots the guest"
FAILS = "so the next start fails, and nova then removes it"


@pytest.mark.parametrize(
    ("size", "head", "words"),
    [
        (0, {"magic": None, "read": 0}, f"is empty, {BOOTS}"),
        (0, None, f"is empty, {BOOTS}"),
        (91, None, f"has 91 of the 92 bytes of libvirt's header, {BOOTS}"),
        (
            1_500_000,
            {"magic": None, "read": 92},
            f"does not begin with libvirt's header, {FAILS}",
        ),
        (1_500_000, GOOD | {"magic": "LibvirtQemudPart"}, f"was not written to its end, {BOOTS}"),
        (4096, GOOD, f"has 4096 bytes, but its header announces 71020, {FAILS}"),
        (71_019, GOOD, f"has 71019 bytes, but its header announces 71020, {FAILS}"),
        (102_400, GOOD, f"has 100 KiB, too few for a guest with 64 MiB, {FAILS}"),
    ],
)
def test_saved_memory_damaged(
    host: RecordedHost, size: int, head: dict[str, object] | None, words: str
) -> None:
    path = save(host, size, head)

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert finding.check.name == "saved-memory-damaged"
    assert finding.headline == f"vm-suspended's saved memory {words}"
    assert finding.names["SAVE"] == path


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (1_500_000, GOOD),
        (140_000, GOOD),  # a guest of 64 MiB that uses none of it has 147,456 bytes behind this
        (80_000, GOOD | {"compressed": 2}),
        (80_000, None),
        (1_500_000, {"magic": None, "read": 0}),  # it was written between the two questions
    ],
)
def test_saved_memory_that_may_be_whole(
    host: RecordedHost, size: int, head: dict[str, object] | None
) -> None:
    save(host, size, head)

    assert host.findings() == []


def test_the_advice_for_damaged_memory_begins_with_a_copy(host: RecordedHost) -> None:
    path = save(host, 0)

    finding = host.found("saved-memory-damaged")
    name = host.domain("vm-suspended")
    assert [
        command.text
        for step in instructions(finding)
        for command in step.commands
        if command.changes
    ] == [
        f"cp -a {path} COPY",
        f"virsh managedsave-remove {name}",
        f"openstack server resume {host.uuid('vm-suspended')}",
    ]


def test_stale_memory_that_is_damaged_is_only_damaged(host: RecordedHost) -> None:
    """The disk is newer than the file, which can't be restored anyway."""
    path = save(host, 4096, GOOD)
    host.edit("images", f"stat -L {path}", '"mtime": "2026', '"mtime": "2025')

    assert [one.check.name for one in host.report().findings] == ["saved-memory-damaged"]


def test_a_header_that_was_not_read_is_unknown(host: RecordedHost) -> None:
    path = save(host, 1_500_000, GOOD)
    host.fail("images", f"head -c 92 {path}", "denied", "permission denied")

    assert host.findings() == []
    assert "saved-memory-damaged" in {skip.check.name for skip in host.report().skips}
