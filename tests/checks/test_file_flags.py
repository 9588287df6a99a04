"""Files that not even root may change: `chattr +i` and `chattr +a`."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost

from hoodsnap.findings.advice import instructions


def found(host: RecordedHost) -> list[str]:
    """Return severity, check and headline of each finding."""
    return [
        f"{it.severity.word} {it.check.name}: {it.headline}" for it in host.report().everything()
    ]


def advised(host: RecordedHost, name: str) -> list[str]:
    """Return the commands in a finding's advice that change something."""
    steps = instructions(host.found(name))
    return [command.text for step in steps for command in step.commands if command.changes]


def test_guest_file_immutable(host: RecordedHost) -> None:
    disk = f"{host.folder('vm-stopped')}/disk"
    host.file(disk, immutable=True, append_only=False)

    short = host.uuid("vm-stopped")[:8]
    assert found(host) == [
        "error guest-file-immutable: vm-stopped can't be started: its "
        f"…/{short}/disk is immutable (chattr +i)"
    ]
    assert host.findings() == [
        f"guest-file-immutable of vm-stopped: images reports path = {disk}, immutable = True"
    ]
    assert advised(host, "guest-file-immutable") == [f"chattr -ia {disk}"]


def test_a_running_guest_may_not_write_to_an_immutable_disk(host: RecordedHost) -> None:
    disk = f"{host.folder('vm-plain')}/disk"
    host.file(disk, immutable=True)

    assert found(host) == [
        "error guest-file-immutable: vm-plain may not write to its disk: "
        f"…/{host.uuid('vm-plain')[:8]}/disk is immutable (chattr +i)"
    ]


@pytest.mark.parametrize("name", ["disk", "console.log", ""])
def test_a_running_guest_goes_on_with_an_append_only_file(host: RecordedHost, name: str) -> None:
    path = f"{host.folder('vm-plain')}/{name}".rstrip("/")
    host.file(path, append_only=True)

    [line] = found(host)
    assert line.startswith("warning guest-file-immutable: vm-plain's …/")
    assert line.endswith(" is append-only (chattr +a)")


def test_a_start_does_not_change_disk_info(host: RecordedHost) -> None:
    host.file(f"{host.folder('vm-stopped')}/disk.info", immutable=True)

    [line] = found(host)
    assert line.startswith("warning guest-file-immutable: vm-stopped's …/")


def test_all_flagged_files_of_a_folder_are_one_finding(host: RecordedHost) -> None:
    folder = host.folder("vm-stopped")
    host.list_files(lambda line: line | {"immutable": f"{line['path']}/".startswith(f"{folder}/")})

    [line] = found(host)
    assert line.startswith("error guest-file-immutable: vm-stopped can't be started: its …/")
    assert line.endswith("are immutable (chattr +i)")
    assert advised(host, "guest-file-immutable") == [
        f"chattr -ia {folder}",
        f"chattr -R -ia {folder}",
    ]


def test_a_volume_in_a_file(host: RecordedHost) -> None:
    [disk] = [
        disk.source
        for guest in host.report().cloud.guests
        if guest.name == "vm-bfv" and guest.domain is not None
        for disk in guest.domain.disks
        if disk.source is not None and not disk.source.startswith(host.top)
    ]
    query = f"stat -L {disk}"
    host.set("images", query, host.last("images", query).value | {"immutable": True})

    [line] = found(host)
    assert line.startswith("error guest-file-immutable: vm-bfv may not write to its disk: …/")
    assert host.report().findings[0].evidence[0].where[0].answer.query == query


def test_saved_memory_that_can_not_be_removed(host: RecordedHost) -> None:
    """A start restores it, and again at each later start: libvirt can't remove it."""
    query = f"stat -L /var/lib/libvirt/qemu/save/{host.domain('vm-suspended')}.save"
    host.set("images", query, host.last("images", query).value | {"immutable": True})

    [line] = found(host)
    assert line.startswith("warning guest-file-immutable: vm-suspended's …/save/")


def test_a_failed_start_has_removed_the_domain(host: RecordedHost) -> None:
    host.file(f"{host.folder('vm-stopped')}/disk", immutable=True)
    listed = host.last("libvirt", "virsh list --all").value
    kept = [one for one in listed if one["uuid"] != host.uuid("vm-stopped")]
    host.set("libvirt", "virsh list --all", kept)
    host.drop(lambda answer: answer.subject != host.uuid("vm-stopped") or answer.layer != "libvirt")

    [finding] = host.report().findings
    assert finding.check.name == "guest-file-immutable"
    assert [it.check.name for it in finding.folded] == ["server-without-domain"]
    assert advised(host, "guest-file-immutable")[-1] == (
        f"openstack server start {host.uuid('vm-stopped')}"
    )


@pytest.mark.parametrize("flag", [None, False])
def test_a_file_system_without_flags_is_quiet(host: RecordedHost, flag: bool | None) -> None:
    host.list_files(lambda line: line | {"immutable": flag, "append_only": flag})

    assert found(host) == []


def test_nova_file_immutable(host: RecordedHost) -> None:
    host.file(f"{host.top}/locks", immutable=True)

    assert found(host) == [
        f"warning nova-file-immutable: nova's folder …/instances/locks is immutable (chattr +i) on "
        f"{host.report().cloud.hosts[0].name}"
    ]
    assert advised(host, "nova-file-immutable") == [f"chattr -ia {host.top}/locks"]


def test_nothing_can_be_built_in_an_immutable_directory(host: RecordedHost) -> None:
    host.file(host.top, append_only=True)

    [line] = found(host)
    assert line.startswith("error nova-file-immutable: nova's folder …/")


def test_guests_only_read_a_base_image(host: RecordedHost) -> None:
    bases = [
        line["path"]
        for line in host.last("images", f"find {host.top} -ls").value
        if line["path"].startswith(f"{host.top}/_base/") and line["type"] == "f"
    ]
    host.file(bases[0], immutable=True)

    [line] = found(host)
    assert line.startswith("note nova-file-immutable: Base image …/_base/")


def test_a_flag_above_the_instances_directory_hinders_nobody(host: RecordedHost) -> None:
    query = "stat -L /var/lib/nova"
    host.set("images", query, host.last("images", query).value | {"immutable": True})

    assert found(host) == []


def test_an_entry_that_can_not_be_read_is_unknown(host: RecordedHost) -> None:
    host.file(f"{host.folder('vm-stopped')}/disk", immutable=True, size="none")

    assert "guest-file-immutable" not in " ".join(found(host))
    undecided = {skip.check.name for skip in host.report().skips}
    assert {"guest-file-immutable", "nova-file-immutable"} <= undecided
