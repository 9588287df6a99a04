"""The devices of a running guest."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost


def _started(host: RecordedHost, name: str, old: str, new: str) -> None:
    host.edit("kernel", f"/proc/{host.pid(name)}/cmdline", old, new)


def test_guest_device_differs(host: RecordedHost) -> None:
    _started(host, "vm-plain", '"virtio-vga"', '"cirrus-vga"')

    assert host.headlines() == [
        "vm-plain's device video0 has model virtio in libvirt, but its QEMU was started with "
        "cirrus-vga"
    ]
    assert host.findings() == [
        "guest-device-differs of vm-plain: domain reports device = video0, model = virtio;"
        " process reports device = video0, model = cirrus-vga"
    ]


@pytest.mark.parametrize(
    ("old", "new", "headline"),
    [
        ('"driver":"virtio-blk-pci"', '"driver":"ide-hd"', "device virtio-disk0 has model virtio"),
        (
            '"bootindex":1,',
            "",
            "virtio-disk0 has boot order 1 in libvirt, but its QEMU was started",
        ),
        ('"bus":"pci.0","addr":"0x6"', '"bus":"pci.0","addr":"0x7"', "device rng0 has PCI address"),
        ('"write-cache":"on"', '"write-cache":"off"', "device virtio-disk0 has write cache on"),
        ('"id":"rng0"', '"id":"rng1"', "device rng1 has driver none in libvirt, but its QEMU"),
        ('"id":"net0"', '"id":"net1"', "device net1 has driver none in libvirt"),
    ],
)
def test_another_device_on_the_command_line_is_found(
    host: RecordedHost, old: str, new: str, headline: str
) -> None:
    _started(host, "vm-plain", old, new)

    [finding] = host.report().findings
    assert finding.check.name == "guest-device-differs"
    assert headline in finding.headline


def test_a_kind_of_device_that_nova_plugs_is_not_missed(host: RecordedHost) -> None:
    card = '{"driver":"virtio-net-pci","netdev":"hostnet9","id":"net9","mac":"fa:16:3e:00:00:09"}'
    _started(host, "vm-plain", "-msg\0", f"-device\0{card}\0-msg\0")
    assert host.findings() == []  # it may have been plugged out by hand: QEMU has no tap for it
    _hold_a_tap(host, "vm-plain")
    assert "guest-device-differs of vm-plain" in "".join(host.findings())

    row = host.last("nova-db", _actions(host)).value
    columns, rows = row["columns"], row["rows"]
    at = columns.index("instance_uuid"), columns.index("action")
    own = next(one for one in rows if one[at[0]] == host.uuid("vm-plain"))
    plugged = [cell if n != at[1] else "detach_interface" for n, cell in enumerate(own)]
    host.set("nova-db", _actions(host), {"columns": columns, "rows": [*rows, plugged]})

    assert "guest-device-differs" not in "".join(host.findings())


def _hold_a_tap(host: RecordedHost, name: str) -> None:
    query = f"ls -lL /proc/{host.pid(name)}/fd"
    files = host.last("kernel", query).value
    [tap] = [file for file in files if file["path"] == "/dev/net/tun"]
    host.set("kernel", query, [*files, {**tap, "fd": 99, "iff": "tap00000000-09"}])


@pytest.mark.parametrize("is_open", [False, True])
def test_a_disk_that_was_plugged_out_is_still_on_the_command_line(
    host: RecordedHost, is_open: bool
) -> None:
    file = '{"driver":"file","filename":"/srv/old.raw","node-name":"libvirt-9-storage"}'
    node = '{"driver":"raw","file":"libvirt-9-storage","node-name":"libvirt-9-format"}'
    disk = '{"driver":"virtio-blk-pci","drive":"libvirt-9-format","id":"virtio-disk9"}'
    words = f"-blockdev\0{file}\0-blockdev\0{node}\0-device\0{disk}\0"
    _started(host, "vm-plain", "-msg\0", f"{words}-msg\0")
    if is_open:
        query = f"ls -lL /proc/{host.pid('vm-plain')}/fd"
        files = host.last("kernel", query).value
        own = next(file for file in files if file["path"].endswith("/disk"))
        host.set("kernel", query, [*files, {**own, "fd": 98, "path": "/srv/old.raw", "ino": 7}])

    found = [line for line in host.headlines() if "device virtio-disk9 has driver none" in line]
    assert bool(found) == is_open


def _actions(host: RecordedHost) -> str:
    uuid = host.uuid("vm-plain")
    return next(
        answer.query
        for answer in reversed(host.bundle.answers)
        if "instance_actions" in answer.query
        and answer.query.startswith("SELECT")
        and "instance_actions_events" not in answer.query
        and uuid in str(answer.value)
    )
