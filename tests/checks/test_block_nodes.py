"""The images that QEMU has open."""

from __future__ import annotations

import json

import pytest
from tests.conftest import RecordedHost


def _started(host: RecordedHost, name: str, old: str, new: str) -> None:
    host.edit("kernel", f"/proc/{host.pid(name)}/cmdline", old, new)


def _asked(host: RecordedHost, name: str, command: str, arguments: str = "") -> str:
    said = f'"execute": "{command}"{arguments}'
    return f"virsh qemu-monitor-command {host.domain(name)} '{{{said}}}'"


def _nodes(host: RecordedHost, name: str) -> str:
    return _asked(host, name, "query-named-block-nodes", ', "arguments": {"flat": true}')


def _top(host: RecordedHost, name: str, query: str, **said: object) -> None:
    """Change what QEMU reports of the node libvirt-1-format."""
    changed = json.loads(json.dumps(host.last("qemu", query).value))
    found = [one.get("inserted", one) for one in changed]
    [node] = [one for one in found if one["node-name"] == "libvirt-1-format"]
    node.update(said)
    host.set("qemu", query, changed)


def test_block_node_differs(host: RecordedHost) -> None:
    _started(
        host,
        "vm-plain",
        '"node-name":"libvirt-1-format","read-only":false,"cache":{"direct":true',
        '"node-name":"libvirt-1-format","read-only":false,"cache":{"direct":false',
    )

    assert host.headlines() == [
        "vm-plain's block node libvirt-1-format has O_DIRECT on in libvirt, but off on its QEMU's "
        "command line"
    ]
    assert host.findings() == [
        "block-node-differs of vm-plain: domain reports node = libvirt-1-format, direct = True;"
        " process reports node = libvirt-1-format, direct = False"
    ]


@pytest.mark.parametrize(
    ("said", "headline"),
    [
        ({"drv": "raw"}, "has driver qcow2 in libvirt, but raw in QEMU"),
        (
            {"detect_zeroes": "on"},
            "has detection of zeros off on its QEMU's command line, but on in",
        ),
        ({"node-name": "libvirt-9-format"}, "has no block node libvirt-1-format in QEMU"),
    ],
)
def test_a_node_that_qemu_reports_otherwise_is_found(
    monitored: RecordedHost, said: dict[str, object], headline: str
) -> None:
    query = _nodes(monitored, "vm-plain")
    if "node-name" in said:  # libvirt-1-storage still is a node of image 1
        value = json.dumps(monitored.last("qemu", query).value)
        monitored.set("qemu", query, json.loads(value.replace("libvirt-1-", "libvirt-9-")))
    else:
        _top(monitored, "vm-plain", query, **said)

    assert any(headline in line for line in monitored.headlines())
    assert {f.split()[0] for f in monitored.findings()} == {"block-node-differs"}


def test_a_disk_that_qemu_lists_otherwise_is_found(monitored: RecordedHost) -> None:
    query = _asked(monitored, "vm-plain", "query-block")
    cache = {"direct": False, "no-flush": False, "writeback": True}
    _top(monitored, "vm-plain", query, cache=cache)

    assert monitored.headlines() == [
        "vm-plain's block node libvirt-1-format has O_DIRECT on in libvirt, but off in QEMU's list "
        "of disks"
    ]


def test_a_disk_in_another_device_is_found(monitored: RecordedHost) -> None:
    query = _asked(monitored, "vm-plain", "query-block")
    monitored.edit("qemu", query, "/virtio-disk0/", "/virtio-disk1/")

    assert monitored.headlines() == [
        "vm-plain's vda is libvirt's device virtio-disk0, but QEMU has its image in "
        "/machine/peripheral/virtio-disk1/virtio-backend"
    ]


def test_a_backing_file_that_a_commit_made_the_top_is_writable(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    base = host.guest("vm-plain").domain.disks[0].backing[0].source  # type: ignore[union-attr,index]
    xml = host.last("libvirt", f"virsh dumpxml {name}").value
    xml = xml.replace("type='qcow2' cache='none'", "type='raw' cache='none'")
    start, end = xml.index("<source file="), xml.index("<target dev='vda'")
    top = f"<source file='{base}' index='2'/>\n      <backingStore/>\n      "
    host.set("libvirt", f"virsh dumpxml {name}", xml[:start] + top + xml[end:])

    assert "block-node-differs" not in "".join(host.findings())


def test_disk_resized_behind_qemu(monitored: RecordedHost) -> None:
    query = _asked(monitored, "vm-plain", "query-block")
    value = json.loads(json.dumps(monitored.last("qemu", query).value))
    value[0]["inserted"]["image"]["virtual-size"] *= 2
    monitored.set("qemu", query, value)
    path = f"{monitored.folder('vm-plain')}/disk"

    [finding] = monitored.report().findings
    assert finding.severity.word == "error"
    assert finding.headline.startswith("vm-plain's vda has 2 GiB in QEMU, but 1 GiB in its image ")
    assert monitored.findings() == [
        f"disk-resized-behind-qemu of vm-plain: monitor reports file = {path}, "
        f"virtual_size = 2147483648; image reports path = {path}, virtual_size = 1073741824"
    ]
