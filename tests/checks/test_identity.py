"""Every layer has the same VMs."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from tests.checks.test_error import set_aside
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer, Failure
from hoodsnap.findings.advice import instructions


def _without(host: RecordedHost, layer: str, query: str, uuid: str) -> None:
    """Remove one VM's line from a list."""
    lines = host.last(layer, query).value
    kept = [line for line in lines if line["uuid"] != uuid]
    assert len(kept) == len(lines) - 1
    host.set(layer, query, kept)


def _undefine(host: RecordedHost, name: str) -> None:
    uuid = host.uuid(name)
    _without(host, "libvirt", "virsh list --all", uuid)
    host.drop(lambda answer: not (answer.layer == "libvirt" and answer.subject == uuid))


def _forget(host: RecordedHost, name: str, tables: tuple[str, ...] = ("instances",)) -> None:
    """Remove a server from the database and the API."""
    uuid = host.uuid(name)

    def forget(answer: Answer) -> Answer:
        if answer.layer == "nova-db" and any(
            f".{table} " in f"{answer.query} " for table in tables
        ):
            columns, rows = answer.value["columns"], answer.value["rows"]
            at = columns.index("uuid") if "uuid" in columns else None
            kept = [row for row in rows if at is None or row[at] != uuid]
            return answer.model_copy(update={"value": {"columns": columns, "rows": kept}})
        if answer.layer == "nova" and "/servers/detail" in answer.query:
            servers = [one for one in answer.value["servers"] if one["id"] != uuid]
            return answer.model_copy(update={"value": {**answer.value, "servers": servers}})
        return answer

    host.bundle = host.bundle.with_answers(tuple(map(forget, host.bundle.answers)))


def _not_found(host: RecordedHost, name: str) -> None:
    asked = host.last("nova", "HEAD /v2.1/").model_dump(exclude={"value", "error", "query"})
    gone = Failure(kind="absent", message="Instance could not be found.")
    host.add(Answer(**asked, query=f"GET /v2.1/servers/{host.uuid(name)} [2.93]", error=gone))


def _search(host: RecordedHost, name: str) -> None:
    """Ask the API and every cell for an unlisted UUID, as the collector does."""
    _not_found(host, name)
    first = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    for cell in ("nova", "nova_cell0"):
        query = "SELECT id, uuid FROM {}.instances WHERE uuid IN ('{}')"
        query = query.format(cell, host.uuid(name))
        value = {"columns": ["id", "uuid"], "rows": []}
        host.add(first.model_copy(update={"query": query, "value": value}))


def test_qemu_without_domain(host: RecordedHost) -> None:
    _undefine(host, "vm-plain")

    pid, uuid = host.pid("vm-plain"), host.uuid("vm-plain")
    assert host.findings() == [
        f"qemu-without-domain of vm-plain: process reports pid = {pid}, uuid = {uuid}; libvirt reports no domain",
        "server-without-domain of vm-plain: instance reports vm_state = active, host = vm; libvirt reports no domain",
    ]
    assert (
        f"vm-plain's QEMU runs (PID {host.pid('vm-plain')}), but libvirt has no domain for it"
        in host.headlines()
    )


def test_qemu_without_domain_if_libvirt_reports_it_as_off(host: RecordedHost) -> None:
    name = host.domain("vm-stopped")
    plain, stopped = host.uuid("vm-plain"), host.uuid("vm-stopped")
    host.edit(
        "kernel", f"/proc/{host.pid('vm-plain')}/cmdline", f"-uuid\0{plain}", f"-uuid\0{stopped}"
    )

    state = "shut off (destroyed)"
    assert (
        f"qemu-without-domain of vm-stopped: process reports pid = {host.pid('vm-plain')}, uuid = {stopped};"
        f" domain reports state = {state}"
    ) in host.findings()
    assert host.last("libvirt", f"virsh domstate --reason {name}").value == {
        "state": 5,
        "reason": 2,
    }
    assert (
        f"vm-stopped's QEMU runs (PID {host.pid('vm-plain')}), but its domain is shut off (destroyed) in libvirt"
        in host.headlines()
    )


def test_qemu_that_was_not_started_for_nova_is_ignored(host: RecordedHost) -> None:
    _undefine(host, "vm-plain")
    _forget(host, "vm-plain")
    cmdline = f"/proc/{host.pid('vm-plain')}/cmdline"
    host.edit("kernel", cmdline, "product=OpenStack Nova", "product=Somebody Else")

    assert host.findings() == []


def test_qemu_in_another_container_may_belong_to_another_libvirt(host: RecordedHost) -> None:
    _undefine(host, "vm-plain")
    query = f"readlink /proc/{host.pid('vm-plain')}/ns/*"
    namespaces = host.last("kernel", query).value
    assert "qemu-without-domain of vm-plain" in {f.split(":")[0] for f in host.findings()}

    host.set("kernel", query, namespaces | {"pid": "pid:[4026539999]"})
    assert "qemu-without-domain of vm-plain" not in {f.split(":")[0] for f in host.findings()}


def test_qemu_of_another_libvirt_beside_this_ones_guests(host: RecordedHost) -> None:
    _undefine(host, "vm-plain")
    query = f"/proc/{host.pid('vm-plain')}/cmdline"
    home = "/home/stack/.config/libvirt/qemu/lib/domain-1-"
    host.edit("kernel", query, '"file":"/var/lib/libvirt/qemu/domain-1-', f'"file":"{home}')

    assert host.findings() == []


def test_an_old_definition_in_another_libvirt_does_not_claim_qemu(
    host: RecordedHost,
) -> None:
    """A guest that moved into a container is still defined outside it, and off."""
    uuid, name = host.uuid("vm-plain"), host.domain("vm-plain")
    listed = host.last("libvirt", "virsh list --all").value
    off = [line | {"id": None} if line["uuid"] == uuid else line for line in listed]
    host.set("libvirt", "virsh list --all", off)
    host.set("libvirt", f"virsh domstate --reason {name}", {"state": 5, "reason": 0})
    assert "qemu-without-domain of vm-plain" in {f.split(":")[0] for f in host.findings()}

    query = f"readlink /proc/{host.pid('vm-plain')}/ns/*"
    spaces = host.last("kernel", query).value
    host.set("kernel", query, spaces | {"pid": "pid:[4026539999]"})
    assert "qemu-without-domain of vm-plain" not in {f.split(":")[0] for f in host.findings()}


def test_domain_without_qemu(host: RecordedHost) -> None:
    host.end("vm-plain")

    assert host.findings() == [
        "domain-without-qemu of vm-plain: domain reports id = 1, state = running (unpaused);"
        " kernel reports no process"
    ]
    assert host.headlines() == [
        "vm-plain is running (unpaused) in libvirt, but vm runs no QEMU of it",
    ]


def test_an_unreadable_process_may_be_the_missing_one(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")

    def unread(answer: Answer) -> Answer:
        if answer.query != f"/proc/{pid}/cmdline":
            return answer
        said = answer.model_dump(exclude={"value", "error"})
        return Answer(**said, error=Failure(kind="timeout", message="no answer within 3 s"))

    host.bundle = host.bundle.with_answers(tuple(map(unread, host.bundle.answers)))

    assert host.findings() == []
    assert any("no answer within 3 s" in skip.reason for skip in host.report().skips)


def test_domain_of_deleted_server(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, deleted=1, deleted_at="2026-11-23 01:00:00", vm_state="deleted")
    host.row("instance_mappings", uuid, queued_for_delete=1)

    assert (
        "domain-of-deleted-server of vm-plain: instance reports deleted_at = 2026-11-23 01:00:00,"
        " vm_state = deleted; domain reports state = running (unpaused)"
    ) in host.findings()
    assert host.headlines() == [
        "vm-plain has been deleted in nova since 2026-11-23 01:00 (2 d 17 h), but its domain is running (unpaused)",
    ]


def test_domain_of_deleted_server_is_a_warning_if_off(host: RecordedHost) -> None:
    uuid = host.uuid("vm-stopped")
    host.row("instances", uuid, deleted=1, deleted_at="2026-11-23 01:00:00", vm_state="deleted")

    [finding] = [f for f in host.report().findings if f.check.name == "domain-of-deleted-server"]
    assert finding.severity.word == "warning"
    assert host.headlines() == [
        "vm-stopped has been deleted in nova since 2026-11-23 01:00 (2 d 17 h), but its domain is shut off (destroyed)",
    ]


def test_domain_of_deleted_server_if_its_row_is_archived(host: RecordedHost) -> None:
    _forget(host, "vm-plain")
    uuid = host.uuid("vm-plain")
    columns = ["id", "uuid", "host", "vm_state", "task_state", "deleted", "deleted_at"]
    row = [1, uuid, "vm", "deleted", None, 1, "2026-11-23 01:00:00"]
    query = f"SELECT {', '.join(columns)} FROM nova.shadow_instances WHERE uuid IN ('{uuid}')"
    asked = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    value = {"columns": columns, "rows": [row]}
    host.add(asked.model_copy(update={"query": query, "value": value}))

    assert (
        "domain-of-deleted-server of vm-plain: instance reports deleted_at = 2026-11-23 01:00:00,"
        " vm_state = deleted, archived = nova-compute will never remove its guest;"
        " domain reports state = running (unpaused)"
    ) in [finding.replace(host.domain("vm-plain"), "vm-plain") for finding in host.findings()]
    assert host.headlines() == [
        "instance-00000001 has been deleted in nova since 2026-11-23 01:00 (2 d 17 h), but its domain is running (unpaused)",
    ]


def test_domain_without_server(host: RecordedHost) -> None:
    _forget(host, "vm-plain")
    _search(host, "vm-plain")

    found = [it for it in host.report().findings if it.check.name == "domain-without-server"]
    assert [it.severity.word for it in found] == ["error"]
    # Its allocation is another finding.
    assert [it for it in host.findings() if not it.startswith("allocation-orphan")] == [
        f"domain-without-server of {host.domain('vm-plain')}:"
        f" domain reports name = {host.domain('vm-plain')}, state = running (unpaused);"
        " nova-db reports no record; nova reports no record"
    ]
    assert [it.headline for it in found] == [
        "instance-00000001 (vm-plain in its metadata) is running (unpaused) in libvirt on vm, but nova has no record of it",
    ]


def test_domain_without_server_is_a_warning_if_only_the_api_answered(
    host: RecordedHost,
) -> None:
    _forget(host, "vm-plain")
    _not_found(host, "vm-plain")
    host.silence("nova-db")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("domain-without-server", "warning")
    assert host.headlines() == [
        "instance-00000001 (vm-plain in its metadata) is running (unpaused) in libvirt on vm, but nova has no record of it",
    ]


def test_a_cell_that_was_not_read_may_have_the_server(host: RecordedHost) -> None:
    _forget(host, "vm-plain")
    host.drop(lambda answer: answer.layer != "nova" and ".instances" not in answer.query)

    assert host.findings() == []


def test_a_domain_that_nova_does_not_manage_needs_no_server(host: RecordedHost) -> None:
    _forget(host, "vm-plain")
    _search(host, "vm-plain")
    name, uuid = host.domain("vm-plain"), host.uuid("vm-plain")
    lines = host.last("libvirt", "virsh list --all").value
    renamed = [line | {"name": "mine"} if line["uuid"] == uuid else line for line in lines]
    host.set("libvirt", "virsh list --all", renamed)
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        xml = host.last("libvirt", query).value
        metadata = xml[xml.index("<metadata>") : xml.index("</metadata>") + len("</metadata>")]
        host.edit("libvirt", query, metadata, "")
        host.edit("libvirt", query, f"<name>{name}<", "<name>mine<")
        host.edit("libvirt", query, "'product'>OpenStack Nova<", "'product'>Mine<")

    cmdline = f"/proc/{host.pid('vm-plain')}/cmdline"
    host.edit("kernel", cmdline, "product=OpenStack Nova", "product=Mine")
    host.edit("kernel", cmdline, f"guest={name},", "guest=mine,")

    # Its allocation and its other rows are findings of their own.
    left = ("allocation-orphan", "row-without-instance")
    found = [it for it in host.findings() if not it.startswith(left)]
    assert len(found) == 1
    assert found[0].startswith("alien-domain of mine: domain reports name = mine,")


def test_server_without_domain(host: RecordedHost) -> None:
    _undefine(host, "vm-stopped")

    [finding] = host.report().findings
    assert finding.severity.word == "note"
    assert host.findings() == [
        "server-without-domain of vm-stopped: instance reports vm_state = stopped, host = vm;"
        " libvirt reports no domain"
    ]
    assert host.headlines() == [
        "vm-stopped is stopped on vm in nova, but libvirt has no domain for it",
    ]


def test_server_without_domain_if_only_the_api_answered(host: RecordedHost) -> None:
    _undefine(host, "vm-stopped")
    host.silence("nova-db", "missing")

    assert host.findings() == [
        "server-without-domain of vm-stopped: server reports vm_state = stopped, host = vm;"
        " libvirt reports no domain"
    ]
    assert host.headlines() == [
        "vm-stopped is stopped on vm in nova, but libvirt has no domain for it",
    ]


def test_server_without_domain_while_a_resize_waits_for_confirmation(host: RecordedHost) -> None:
    _undefine(host, "vm-verify")
    host.end("vm-verify")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("server-without-domain", "error")
    assert host.headlines() == [
        "vm-verify is resized on vm in nova, but libvirt has no domain for it",
    ]


def test_a_server_that_is_being_built_has_no_domain_yet(host: RecordedHost) -> None:
    _undefine(host, "vm-stopped")
    host.row("instances", host.uuid("vm-stopped"), vm_state="building", task_state="spawning")

    assert host.findings() == []


def test_server_without_disk(host: RecordedHost) -> None:
    uuid = host.uuid("vm-stopped")
    query = "find /var/lib/nova/instances -ls"
    listed = host.last("images", query).value
    host.set(
        "images", query, [entry for entry in listed if not entry["path"].endswith(f"{uuid}/disk")]
    )

    assert host.findings() == [
        "server-without-disk of vm-stopped: instance reports vm_state = stopped, host = vm;"
        " images reports disk = missing"
    ]
    assert host.headlines() == [
        f"vm-stopped is stopped in nova, but its disk is missing in …/instances/{host.uuid('vm-stopped')[:8]}",
    ]


def test_before_grizzly_folders_were_named_after_the_domain(host: RecordedHost) -> None:
    uuid, name = host.uuid("vm-stopped"), host.domain("vm-stopped")
    host.list_files(
        lambda line: line | {"path": line["path"].replace(f"/{uuid}", f"/{name}")},
    )
    query = f"virsh dumpxml --inactive {name}"
    xml = host.last("libvirt", query).value
    host.set("libvirt", query, xml.replace(f"/{uuid}/", f"/{name}/"))

    assert "server-without-disk" not in "".join(host.findings())


def test_server_without_disk_if_the_file_is_empty(host: RecordedHost) -> None:
    uuid = host.uuid("vm-stopped")
    query = "find /var/lib/nova/instances -ls"
    listed = host.last("images", query).value
    empty = [
        entry | {"size": 0} if entry["path"].endswith(f"{uuid}/disk") else entry for entry in listed
    ]
    host.set("images", query, empty)

    assert host.findings() == [
        "server-without-disk of vm-stopped: instance reports vm_state = stopped, host = vm;"
        " images reports disk = empty"
    ]
    assert host.headlines() == [
        f"vm-stopped is stopped in nova, but its disk is empty in …/instances/{host.uuid('vm-stopped')[:8]}",
    ]


def test_server_without_config_drive(host: RecordedHost) -> None:
    uuid = host.uuid("vm-config")
    query = "find /var/lib/nova/instances -ls"
    listed = host.last("images", query).value
    kept = [entry for entry in listed if not entry["path"].endswith(f"{uuid}/disk.config")]
    host.set("images", query, kept)

    [gone] = host.findings()  # QEMU still has it open
    assert gone.startswith("disk-deleted-but-open of vm-config: process reports ")
    assert host.folded() == [
        "disk-deleted-but-open ← server-without-disk of vm-config: "
        "instance reports vm_state = active, host = vm; images reports disk.config = missing"
    ]


@pytest.mark.parametrize("name", ["disk.eph0", "disk.swap"])
def test_server_without_one_of_its_other_disks(host: RecordedHost, name: str) -> None:
    uuid = host.uuid("vm-config")
    query = "find /var/lib/nova/instances -ls"
    listed = host.last("images", query).value
    kept = [entry for entry in listed if not entry["path"].endswith(f"{uuid}/{name}")]
    assert len(kept) == len(listed) - 1
    host.set("images", query, kept)

    assert [line for line in host.folded() if " ← server-without-disk" in line] == [
        "disk-deleted-but-open ← server-without-disk of vm-config: "
        f"instance reports vm_state = active, host = vm; images reports {name} = missing"
    ]


def test_a_server_that_boots_from_a_volume_has_no_disk_file(host: RecordedHost) -> None:
    listed = host.last("images", "find /var/lib/nova/instances -ls").value
    assert not any(entry["path"].endswith(f"{host.uuid('vm-bfv')}/disk") for entry in listed)

    assert host.findings() == []


def test_disks_in_rbd_are_not_files(host: RecordedHost) -> None:
    query = "find /var/lib/nova/instances -ls"
    listed = host.last("images", query).value
    host.set("images", query, [entry for entry in listed if not entry["path"].endswith("/disk")])
    conf = host.last("host", "/etc/nova/nova.conf").value
    host.set(
        "host", "/etc/nova/nova.conf", conf | {"libvirt": {**conf["libvirt"], "images_type": "rbd"}}
    )

    assert not [line for line in host.findings() if line.startswith("server-without-disk")]


def test_a_host_whose_storage_was_not_collected_is_not_judged(host: RecordedHost) -> None:
    query = "find /var/lib/nova/instances -ls"
    listed = host.last("images", query).value
    host.set("images", query, [entry for entry in listed if not entry["path"].endswith("/disk")])
    host.drop(lambda answer: answer.query != "/etc/nova/nova.conf")

    assert not [line for line in host.findings() if line.startswith("server-without-disk")]


def test_a_tenants_server_may_be_on_any_host(host: RecordedHost) -> None:
    host.end("vm-plain")
    host.set(
        "libvirt", f"virsh domstate --reason {host.domain('vm-plain')}", {"state": 5, "reason": 3}
    )
    host.silence("nova-db", "missing")
    host.set("nova", "GET /v2.1/servers/detail?all_tenants=True [2.93]", _as_a_tenant_sees(host))

    report = host.report()
    assert report.findings == ()
    assert any("OS-EXT-SRV-ATTR:host was not collected" in skip.reason for skip in report.skips)


def _as_a_tenant_sees(host: RecordedHost) -> object:
    body = host.last("nova", "GET /v2.1/servers/detail?all_tenants=True [2.93]").value
    hidden = "OS-EXT-SRV-ATTR:"
    servers = [
        {name: value for name, value in server.items() if not name.startswith(hidden)}
        for server in body["servers"]
    ]
    return {"servers": servers}


def test_bundles_of_different_times_are_not_compared(host: RecordedHost) -> None:
    host.end("vm-plain")
    host.set(
        "libvirt", f"virsh domstate --reason {host.domain('vm-plain')}", {"state": 5, "reason": 3}
    )
    day = timedelta(hours=26)
    host.drop(lambda answer: "TIMESTAMP" not in answer.query and "HEAD" not in answer.query)
    host.bundle = host.bundle.with_answers(
        answer
        if answer.layer.startswith("nova")
        else answer.model_copy(update={"at": answer.at + day})
        for answer in host.bundle.answers
    )

    report = host.report()
    assert [finding.check.name for finding in report.findings] == []
    assert any("collected 26.0 hours apart" in skip.reason for skip in report.skips)


def _numbered(answer: Answer, old: int, new: int) -> object:
    """Return what /proc has about a process, with another number of the process in it."""
    if answer.query == f"/proc/{old}/stat":
        return re.sub(rf"^{old} ", f"{new} ", answer.value)
    if answer.query == f"/proc/{old}/status":
        return re.sub(rf"(?m)^((?:Tgid|Pid|NS\w+):\s+){old}$", rf"\g<1>{new}", answer.value)
    return answer.value


def test_processes_of_an_older_bundle_are_ignored(host: RecordedHost) -> None:
    """Two bundles of one host; its guests were restarted in between."""
    old = host.pid("vm-plain")
    day = timedelta(days=1)
    earlier = [
        answer.model_copy(
            update={
                "at": answer.at - day,
                "query": answer.query.replace(f"/{old}/", "/77/"),
                "subject": "77",
                "value": _numbered(answer, old, 77),
            }
        )
        for answer in host.bundle.answers
        if answer.layer == "kernel" and answer.subject == str(old)
    ]
    host.bundle = host.bundle.with_answers([*earlier, *host.bundle.answers])

    assert host.findings() == []


def test_a_server_that_a_tenant_cannot_see_may_exist(host: RecordedHost) -> None:
    _forget(host, "vm-plain")
    _not_found(host, "vm-plain")
    host.silence("nova-db", "missing")
    assert len(host.findings()) == 1

    query = "GET /v2.1/servers/detail?all_tenants=True [2.93]"
    body = host.last("nova", query).value
    asked = host.last("nova", query).model_dump(exclude={"value", "error", "query"})
    denied = Failure(kind="denied", message="Policy doesn't allow it to be performed.")
    host.drop(lambda answer: answer.query != query)
    host.add(Answer(**asked, query=query, error=denied))
    host.add(Answer(**asked, query="GET /v2.1/servers/detail [2.93]", value=body))

    assert host.findings() == []


def test_server_without_disk_which_a_resize_has_set_aside(host: RecordedHost) -> None:
    set_aside(host, "vm-stopped")

    folder = host.folder("vm-stopped")
    brief = host.uuid("vm-stopped")[:8]
    assert host.headlines()[0] == (
        f"vm-stopped is stopped in nova, but its disk is in …/instances/{brief}_resize, where an"
        " unfinished resize left it"
    )
    [finding] = host.report().findings
    steps = instructions(finding)
    commands = [command.text for step in steps for command in step.commands if command.changes]
    assert commands == [f"mv -T {folder}_resize {folder}"]
    assert [line.partition(":")[0] for line in host.folded()] == [
        "server-without-disk ← orphan-instance-dir of vm-stopped"
    ]
