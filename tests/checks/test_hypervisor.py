"""The compute host under the guests."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer

LISTING = "find /var/lib/nova/instances -ls"
ABOVE = "stat -L /var/lib/nova"


def _disk(host: RecordedHost, name: str) -> str:
    return f"/var/lib/nova/instances/{host.uuid(name)}/disk"


def _set_entry(host: RecordedHost, path: str, **fields: object) -> None:
    lines = host.last("images", LISTING).value
    assert [line["path"] for line in lines].count(path) == 1
    host.set("images", LISTING, [it | fields if it["path"] == path else it for it in lines])


def _autostart(host: RecordedHost, name: str) -> None:
    query = f"virsh dominfo {host.domain(name)}"
    host.set("libvirt", query, host.last("libvirt", query).value | {"autostart": True})


def test_guest_autostart_enabled(host: RecordedHost) -> None:
    _autostart(host, "vm-plain")

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        "guest-autostart-enabled of vm-plain: domain reports autostart = enabled,"
        " state = running (unpaused)"
    ]
    assert host.headlines() == [
        "vm-plain starts by itself when host vm boots: its autostart is enabled",
    ]


def test_autostart_at_the_next_boot_only_is_found(host: RecordedHost) -> None:
    query = f"virsh dominfo {host.domain('vm-plain')}"
    host.set("libvirt", query, host.last("libvirt", query).value | {"autostart_once": True})

    assert host.findings() == [
        "guest-autostart-enabled of vm-plain: domain reports autostart = disabled,"
        " autostart_once = enabled, state = running (unpaused)"
    ]
    assert host.headlines() == [
        "vm-plain starts by itself the next time that host vm boots: its autostart is enabled",
    ]


def test_guest_autostart_enabled_is_an_error_if_nova_has_the_server_elsewhere(
    host: RecordedHost,
) -> None:
    _autostart(host, "vm-stopped")
    host.row("instances", host.uuid("vm-stopped"), host="other", node="other")

    found = [it for it in host.report().findings if it.check.name == "guest-autostart-enabled"]
    assert [it.severity.word for it in found] == ["error"]
    assert str(found[0].evidence[1]) == "instance reports host = other"
    assert found[0].headline == (
        "vm-stopped starts by itself when host vm boots: its autostart is enabled,"
        " but nova has it on host other"
    )


def test_guest_autostart_enabled_of_one_that_only_its_domain_shows_to_be_novas(
    host: RecordedHost,
) -> None:
    _autostart(host, "vm-stopped")
    host.silence("nova")
    host.silence("nova-db")

    found = [it for it in host.report().findings if it.check.name == "guest-autostart-enabled"]
    assert [it.severity.word for it in found] == ["warning"]
    assert [it.guest.record for it in found if it.guest is not None] == [None]


def test_a_host_whose_name_was_not_collected_may_be_the_right_one(host: RecordedHost) -> None:
    _autostart(host, "vm-stopped")
    host.row("instances", host.uuid("vm-stopped"), host="vm.example.org")
    host.drop(lambda answer: answer.query != "/etc/nova/nova.conf")

    found = [it for it in host.report().findings if it.check.name == "guest-autostart-enabled"]
    assert [it.severity.word for it in found] == ["warning"]


def test_a_domain_that_nova_does_not_manage_may_autostart(host: RecordedHost) -> None:
    _autostart(host, "vm-stopped")
    _make_alien(host, "vm-stopped")

    assert not [it for it in host.findings() if it.startswith("guest-autostart-enabled")]


def test_file_owner_or_label_wrong(host: RecordedHost) -> None:
    path = _disk(host, "vm-stopped")
    _set_entry(host, path, mode="100044")
    uid, gid = host.guest("vm-stopped").host.hypervisor.owner  # type: ignore[union-attr]

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert host.findings() == [
        "file-owner-or-label-wrong of vm-stopped: domain reports state = shut off (destroyed);"
        f" images reports path = {path}, mode = 0044, owner = nova:nova;"
        f" libvirt reports qemu_runs_as = {uid}:{gid}"
    ]
    assert finding.headline == (
        f"vm-stopped's QEMU (user {uid}:{gid}) can't open …/{host.uuid('vm-stopped')[:8]}/disk:"
        " mode 0044, owner nova:nova"
    )
    assert finding.names["MODE"] == "u+rw"


def test_file_owner_or_label_wrong_is_a_warning_while_the_guest_runs(host: RecordedHost) -> None:
    _set_entry(host, _disk(host, "vm-plain"), mode="100044")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("file-owner-or-label-wrong", "warning")


def test_file_owner_or_label_wrong_in_the_guests_folder(host: RecordedHost) -> None:
    folder = f"/var/lib/nova/instances/{host.uuid('vm-stopped')}"
    _set_entry(host, folder, mode="40700")

    [finding] = host.findings()
    assert f"images reports path = {folder}, mode = 0700, owner = nova:nova;" in finding
    [headline] = host.headlines()
    assert headline.endswith(f"can't enter {folder[:-28]}: mode 0700, owner nova:nova")


def test_file_owner_or_label_wrong_above_the_instances_directory(host: RecordedHost) -> None:
    told = host.last("images", ABOVE).value
    host.set("images", ABOVE, told | {"mode": "40750"})

    found = host.report().findings
    assert {it.check.name for it in found} == {"file-owner-or-label-wrong"}
    assert {str(it.evidence[1]) for it in found} == {
        "images reports path = /var/lib/nova, mode = 0750, owner = nova:nova"
    }


def test_a_folder_is_open_to_qemus_group(host: RecordedHost) -> None:
    process = host.guest("vm-plain").process
    assert process is not None
    group = next(iter(process.groups))
    host.set("images", ABOVE, host.last("images", ABOVE).value | {"mode": "40750", "gid": group})

    assert host.findings() == []


def test_groups_that_were_not_collected_may_grant_access(host: RecordedHost) -> None:
    host.set("images", ABOVE, host.last("images", ABOVE).value | {"mode": "40750"})
    host.drop(lambda answer: not (answer.layer == "kernel" and answer.query.endswith("/status")))

    assert host.findings() == []


def test_with_an_access_control_list_the_mode_does_not_decide(host: RecordedHost) -> None:
    host.set("images", ABOVE, host.last("images", ABOVE).value | {"mode": "40750", "acl": True})

    assert host.findings() == []


@pytest.mark.parametrize("owner", [0, 12345])
def test_libvirt_gives_a_disk_of_any_owner_to_qemu(host: RecordedHost, owner: int) -> None:
    _set_entry(host, _disk(host, "vm-stopped"), uid=owner, gid=owner, mode="100600")

    assert host.findings() == []


def test_file_owner_or_label_wrong_without_dynamic_ownership(host: RecordedHost) -> None:
    host.set("host", "/etc/libvirt/qemu.conf", {"dynamic_ownership": "0"})
    uid, gid = host.guest("vm-stopped").host.hypervisor.owner  # type: ignore[union-attr]
    _set_entry(host, _disk(host, "vm-stopped"), uid=uid, gid=gid, mode="100600")
    before = set(host.findings())
    _set_entry(host, _disk(host, "vm-stopped"), uid=12345, gid=12345, mode="100600")

    [finding] = set(host.findings()) - before
    assert finding.startswith("file-owner-or-label-wrong of vm-stopped: ")
    [closed] = [it for it in host.report().findings if it.headline.startswith("vm-stopped's QEMU")]
    assert "MODE" not in closed.names, "the mode is right, and the owner wrong"


def test_owners_on_a_file_server_are_not_judged(host: RecordedHost) -> None:
    _set_entry(host, _disk(host, "vm-stopped"), dev="0:44", mode="100044")

    assert host.findings() == []


def test_a_disk_that_every_account_may_write_to(host: RecordedHost) -> None:
    path = _disk(host, "vm-plain")
    _set_entry(host, path, mode="100666", acl=False)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert finding.headline.startswith(
        f"Every account of vm can write to vm-plain's …/{host.uuid('vm-plain')[:8]}/disk: mode 0666"
    )
    assert changes(finding) == [f"chmod o-w {path}"]


@pytest.mark.parametrize("fields", [{"mode": "100664"}, {"dev": "0:44"}, {"acl": True}])
def test_a_disk_that_not_every_account_may_write_to(
    host: RecordedHost, fields: dict[str, object]
) -> None:
    _set_entry(host, _disk(host, "vm-plain"), **{"mode": "100666", "acl": False, **fields})

    assert not [it for it in host.headlines() if "Every account" in it]


def test_a_disk_in_a_closed_folder_is_not_open_to_every_account(host: RecordedHost) -> None:
    path = _disk(host, "vm-plain")
    _set_entry(host, path, mode="100666", acl=False)
    _set_entry(host, path.rpartition("/")[0], mode="40750", acl=False)

    assert not [it for it in host.headlines() if "Every account" in it]


SELINUX = """<seclabel type='dynamic' model='selinux' relabel='yes'>
  <label>system_u:system_r:svirt_t:s0:c1,c2</label>
  <imagelabel>system_u:object_r:svirt_image_t:s0:c1,c2</imagelabel></seclabel></domain>"""


def test_file_owner_or_label_wrong_by_selinux(host: RecordedHost) -> None:
    """The lab has no SELinux; label and attribute are as libvirt and Fedora write them."""
    host.edit("libvirt", f"virsh dumpxml {host.domain('vm-plain')}", "</domain>", SELINUX)
    path = _disk(host, "vm-plain")
    _set_entry(host, path, selinux="system_u:object_r:nova_var_lib_t:s0")

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert host.findings() == [
        "file-owner-or-label-wrong of vm-plain: domain reports"
        " labels = system_u:object_r:svirt_image_t:s0:c1,c2;"
        f" images reports path = {path}, selinux = system_u:object_r:nova_var_lib_t:s0"
    ]
    assert host.headlines() == [
        "vm-plain's disk vda has label system_u:object_r:nova_var_lib_t:s0, but libvirt gave it system_u:object_r:svirt_image_t:s0:c1,c2",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"selinux": "system_u:object_r:svirt_image_t:s0:c1,c2"},
        {"selinux": None},
        {"selinux": "system_u:object_r:nfs_t:s0", "dev": "0:44"},
    ],
)
def test_a_right_label_or_a_file_servers_label_is_no_finding(
    host: RecordedHost, fields: dict[str, object]
) -> None:
    host.edit("libvirt", f"virsh dumpxml {host.domain('vm-plain')}", "</domain>", SELINUX)
    _set_entry(host, _disk(host, "vm-plain"), **fields)

    # The label on a file server is not the label of the file that QEMU has open.
    assert not [it for it in host.findings() if it.startswith("file-owner-or-label-wrong")]


def test_owners_are_not_judged_while_nova_works_on_the_server(host: RecordedHost) -> None:
    _set_entry(host, _disk(host, "vm-stopped"), mode="100044")
    host.row("instances", host.uuid("vm-stopped"), task_state="powering-on")

    report = host.report()
    assert "file-owner-or-label-wrong" not in [it.check.name for it in report.findings]
    excused = [it.check.name for it in report.skips if it.differs and it.guest]
    assert "file-owner-or-label-wrong" in excused


def test_qemu_binary_outdated(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    exe = host.last("kernel", f"readlink /proc/{pid}/exe").value
    host.set("kernel", f"readlink /proc/{pid}/exe", f"{exe} (deleted)")

    [finding] = host.report().findings
    assert finding.severity.word == "note"
    assert host.findings() == [
        f"qemu-binary-outdated of vm-plain: process reports pid = {pid}, exe = {exe} (deleted)"
    ]
    assert host.headlines() == [
        f"vm-plain (PID {pid}) runs {exe}, which was replaced on host vm after its start"
    ]


def test_host_fs_overcommit(host: RecordedHost) -> None:
    query = "stat -f /var/lib/nova/instances"
    room = host.last("images", query).value
    half = room["blocks"] // 2  # so that it is not nearly full
    unit = (4 << 30) // half  # 4 GiB free, less than the guests' flavors promise
    host.set("images", query, room | {"bavail": half, "frsize": unit})

    found = [it for it in host.report().findings if it.check.name == "host-fs-overcommit"]
    assert [it.severity.word for it in found] == ["warning"]
    # (placement also has a larger inventory, which is another finding.)
    [said] = [it for it in host.findings() if it.startswith("host-fs-overcommit")]
    assert (
        "images reports folder = /var/lib/nova/instances, free_gib = 4.0; images reports disks_may"
        in said
    )
    # Each guest that does not boot from a volume has a nearly empty disk of 1 or 2 GiB.
    assert 10 < float(said.rpartition(" = ")[2]) < 25
    [headline] = [it.headline for it in found]
    assert headline.startswith("Host vm: the disks in /var/lib/nova/instances may grow by ")
    assert headline.endswith(" GiB, but only 4.0 GiB are free")


def test_host_fs_overcommit_is_an_error_if_nearly_full(host: RecordedHost) -> None:
    query = "stat -f /var/lib/nova/instances"
    room = host.last("images", query).value
    host.set("images", query, room | {"bavail": (4 << 30) // room["frsize"]})

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("host-fs-overcommit", "error")


def test_intended_overcommit_is_a_note(host: RecordedHost) -> None:
    node = host.guest("vm-plain").host.node  # type: ignore[union-attr]
    query = f"GET /resource_providers/{node.uuid}/inventories [1.39]"  # type: ignore[union-attr]
    value = json.loads(json.dumps(host.last("placement", query).value))
    value["inventories"]["DISK_GB"]["allocation_ratio"] = 3.0
    host.set("placement", query, value)
    query = "stat -f /var/lib/nova/instances"
    room = host.last("images", query).value
    half = room["blocks"] // 2
    host.set("images", query, room | {"bavail": half, "frsize": (4 << 30) // half})

    found = [it for it in host.report().findings if it.check.name == "host-fs-overcommit"]
    assert [it.severity.word for it in found] == ["note"]


def test_host_fs_overcommit_of_inodes(host: RecordedHost) -> None:
    query = "stat -f /var/lib/nova/instances"
    host.set("images", query, host.last("images", query).value | {"favail": 3})

    assert host.findings() == ["host-fs-overcommit: images reports free_inodes = 3"]
    [headline] = host.headlines()
    assert headline.startswith("Host vm: only 3 of ")
    assert headline.endswith(" inodes are free in /var/lib/nova/instances")


def test_a_file_system_without_fixed_inodes_is_no_finding(host: RecordedHost) -> None:
    query = "stat -f /var/lib/nova/instances"
    host.set("images", query, host.last("images", query).value | {"files": 0, "favail": 0})

    assert host.findings() == []


def _make_alien(host: RecordedHost, name: str) -> None:
    """Replace a stopped domain by one that nova does not manage."""
    listed = host.last("libvirt", "virsh list --all").value
    uuid, new = host.uuid(name), "6d40e248-2a96-47cc-b535-4fae46854b60"
    host.set("libvirt", "virsh list --all", [
        it | {"uuid": new, "name": "pfsense"} if it["uuid"] == uuid else it for it in listed
    ])  # fmt: skip
    domain = host.domain(name)

    def renamed(answer: Answer) -> Answer:
        if answer.subject != uuid or answer.layer != "libvirt":
            return answer
        changed = {"subject": new, "query": answer.query.replace(domain, "pfsense")}
        if "dumpxml" in answer.query:
            changed["value"] = (
                "<domain><name>pfsense</name><memory unit='MiB'>512</memory>"
                "<vcpu>2</vcpu><os><type machine='pc'>hvm</type></os></domain>"
            )
        return answer.model_copy(update=changed)

    host.bundle = host.bundle.with_answers(map(renamed, host.bundle.answers))
    later = host.last("libvirt", "virsh list --all").at + timedelta(seconds=1)
    asked = [it for it in host.bundle.answers if "SELECT id, uuid, host" in it.query]
    for answer in asked:  # nova was asked for it as well and has no such row
        query = f"{answer.query.partition(' WHERE ')[0]} WHERE uuid IN ('{new}')"
        nothing = {"columns": answer.value["columns"], "rows": []}
        host.add(answer.model_copy(update={"query": query, "at": later, "value": nothing}))


def test_alien_domain(host: RecordedHost) -> None:
    _make_alien(host, "vm-stopped")

    found = [it for it in host.report().findings if it.check.name == "alien-domain"]
    assert [it.severity.word for it in found] == ["note"]
    assert str(found[0].evidence[0]) == (
        "domain reports name = pfsense, state = shut off (destroyed), memory_mib = 512, vcpus = 2"
    )
    assert found[0].headline == (
        "pfsense on host vm is not managed by nova: shut off (destroyed), 512 MiB, 2 vCPUs"
    )


def test_a_domain_is_not_alien_if_nova_was_not_asked_for_it(host: RecordedHost) -> None:
    _make_alien(host, "vm-stopped")
    host.silence("nova-db")
    host.silence("nova")

    assert host.findings() == []


def test_one_base_that_nobody_may_read_is_one_finding(host: RecordedHost) -> None:
    files = host.last("kernel", f"ls -lL /proc/{host.pid('vm-plain')}/fd").value
    base = next(file["path"] for file in files if "/_base/" in file["path"])
    host.file(base, mode="100000")

    [finding] = host.report().findings
    assert finding.shared is not None and finding.shared.path == base
    assert finding.severity.word == "error"


def test_a_qemu_of_another_version_than_the_hosts_is_found(monitored: RecordedHost) -> None:
    query = "qemu-system-x86_64 --version"
    monitored.edit("host", query, "version 7.2.22 ", "version 8.1.0 ")

    headlines = [f.headline for f in monitored.report().everything()]
    assert any("runs QEMU 7.2.22, but host vm has 8.1.0" in line for line in headlines)
