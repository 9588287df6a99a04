"""Image chains: the base images below a disk."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.conftest import FAULTS, RecordedHost

from hoodsnap.bundle import Answer, Failure, load
from hoodsnap.findings.analysis import analyze


def _disk(host: RecordedHost, name: str) -> str:
    return f"{host.folder(name)}/disk"


def _base(host: RecordedHost, name: str) -> str:
    """Return the path of the base image of a guest's root disk."""
    guest = host.guest(name)
    assert guest.images
    return guest.images[0].chain[-1].path


def _lose_base(host: RecordedHost, base: str) -> None:
    """Let qemu-img fail to find the base of vm-snap's disk."""
    guest = host.guest("vm-snap")
    assert guest.images
    chain = guest.images[0].said["chain"]
    gone = f"qemu-img: Could not open '{base}': No such file or directory"
    said = chain.model_dump(exclude={"value", "error", "query"})

    def broken(answer: Answer) -> Answer:
        if answer.query != chain.query:
            return answer
        return Answer(**said, query=chain.query, error=Failure(kind="absent", message=gone))

    header = chain.query.replace(" --backing-chain", "")
    host.bundle = host.bundle.with_answers(map(broken, host.bundle.answers))
    host.add(Answer(**said, query=header, value=chain.value[0]))


def test_backing_file_missing(host: RecordedHost) -> None:
    _lose_base(host, "/var/lib/nova/instances/_base/x")

    guest = host.guest("vm-snap")
    assert guest.images and guest.process
    assert host.findings() == [
        f"backing-file-missing of vm-snap: image reports path = {guest.images[0].path},"
        f" backing_filename = {guest.images[0].backing_filename}, file = missing;"
        f" process reports pid = {guest.process.pid}, state = {guest.process.state}"
    ]
    assert host.headlines() == [
        "vm-snap runs, but its base image …/_base/x is missing",
    ]


def test_a_guest_that_runs_shows_the_new_name_of_a_stopped_guests_base() -> None:
    report = analyze(load(FAULTS / "base-moved.json.zst"))

    found = [one for one in report.everything() if one.check.name == "backing-file-missing"]
    stopped = [one for one in found if one.guest is not None and one.guest.process is None]
    base = "/var/lib/nova/instances/_base/6b069ff17bbc9dcf65dedf4bb2ff93d0d763d727"
    assert {one.names["FOUND"] for one in found if one.names["MISSING"] == base} == {
        f"{base}.lab-moved"
    }
    assert all("was renamed to …/_base/6b069ff1.lab-moved" in one.headline for one in stopped)


def test_a_base_in_a_folder_that_was_not_listed_may_exist(host: RecordedHost) -> None:
    _lose_base(host, "/opt/kolla/instances/_base/x")

    assert host.findings() == []


def test_leftovers_need_no_base(host: RecordedHost) -> None:
    _lose_base(host, "/var/lib/nova/instances/_base/x")
    assert len(host.findings()) == 1
    uuid = host.uuid("vm-snap")
    host.end("vm-snap")
    lines = host.last("libvirt", "virsh list --all").value
    host.set("libvirt", "virsh list --all", [line for line in lines if line["uuid"] != uuid])
    host.drop(lambda answer: not (answer.layer == "libvirt" and answer.subject == uuid))
    host.row("instances", uuid, deleted=14, deleted_at=_now(host), vm_state="deleted")
    host.row("instance_mappings", uuid, queued_for_delete=1)
    host.unplug("vm-snap")

    assert host.findings() == []


def _now(host: RecordedHost) -> str:
    clock = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)").value["rows"][0][0]
    assert isinstance(clock, str)
    return clock.partition(".")[0]


def test_backing_not_image_ref(host: RecordedHost) -> None:
    image = "00000000-0000-4000-8000-000000000001"
    host.row("instances", host.uuid("vm-stopped"), image_ref=image)

    expected = hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()
    assert (
        f"image-reference-changed ← backing-not-image-ref of vm-stopped: instance reports"
        f" image = {image}, base = {expected};"
        f" image reports path = {_disk(host, 'vm-stopped')},"
        f" backing_filename = {_base(host, 'vm-stopped')}"
    ) in host.folded()
    assert (
        "vm-stopped's disk is based on _base/2f8e0c22 (image lab-guest), but its image 00000000 is _base/329ec4f4"
        in host.headlines()
    )


def test_a_disk_that_is_being_rebuilt_may_use_another_base(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-stopped"), image_ref="another")
    host.task("vm-stopped", "rebuilding")

    assert host.findings() == []


def test_blank_disks_and_a_rescue_disk_use_other_bases(host: RecordedHost) -> None:
    # vm-config has disk.eph0 and disk.swap; a rescue may use any image.
    path = f"{host.folder('vm-rescued')}/disk.rescue"
    other = "/var/lib/nova/instances/_base/" + "0" * 40
    assert any("/_base/swap_" in file["path"] for file in _held(host, "vm-config"))
    host.image(path, lambda layers: layers[0].update({"backing-filename": other}))

    assert "backing-not-image-ref" not in {line.partition(" ")[0] for line in host.findings()}


def _held(host: RecordedHost, name: str) -> list[dict[str, Any]]:
    files = host.last("kernel", f"ls -lL /proc/{host.pid(name)}/fd").value
    assert isinstance(files, list)
    return files


def test_base_replaced_or_truncated(host: RecordedHost) -> None:
    base = _base(host, "vm-snap")
    [held] = [file for file in _held(host, "vm-snap") if file["path"] == base]
    host.file(base, ino=4711)

    assert host.findings() == [
        f"base-replaced-or-truncated of vm-snap: process reports pid = {host.pid('vm-snap')},"
        f" files = {base} (inode {held['ino']}); images reports base = {base}, inode = 4711"
    ]
    assert host.headlines() == [
        "vm-snap's base image …/_base/a11ab982 was replaced: its QEMU has inode 1515852 open, not inode 4711",
    ]


def test_base_replaced_or_truncated_if_it_was_deleted_first(host: RecordedHost) -> None:
    base, pid = _base(host, "vm-snap"), host.pid("vm-snap")
    host.hold(
        "vm-snap",
        lambda file: {**file, "path": f"{base} (deleted)"} if file["path"] == base else file,
    )
    host.file(base, ino=4711)

    [finding] = host.findings()
    assert finding.startswith(
        f"base-replaced-or-truncated of vm-snap: process reports pid = {pid},"
    )
    assert f"{base} (deleted) (inode " in finding
    assert host.headlines() == [
        "vm-snap's base image …/_base/a11ab982 was replaced: its QEMU has inode 1515852 open, not inode 4711",
    ]


def test_base_replaced_or_truncated_if_it_is_smaller_than_the_image(host: RecordedHost) -> None:
    base, image = _base(host, "vm-snap"), host.guest("vm-snap").record
    assert image is not None
    size = host.last("glance", f"GET /v2/images/{image.image}").value["virtual_size"]
    for path in (base, _disk(host, "vm-snap")):
        host.image(path, lambda layers: layers[-1].update({"virtual-size": size - 512}))

    disk = _disk(host, "vm-snap")
    assert host.findings() == [
        f"base-replaced-or-truncated of vm-snap: image reports path = {disk}, virtual_size = {size},"
        f" base = {base}, base_virtual_size = {size - 512}; image service reports virtual_size = {size}"
    ]
    assert host.headlines() == [
        "vm-snap's base image …/_base/a11ab982 has only 1073741312 bytes of its image's 1073741824 bytes",
    ]


def test_base_replaced_or_truncated_if_it_is_larger_than_the_disk(host: RecordedHost) -> None:
    disk, base = _disk(host, "vm-snap"), _base(host, "vm-snap")
    host.image(disk, lambda layers: layers[-1].update({"virtual-size": 5 << 30}))

    assert host.findings() == [
        f"base-replaced-or-truncated of vm-snap: image reports path = {disk},"
        f" virtual_size = {1 << 30}, base = {base}, base_virtual_size = {5 << 30}"
    ]
    assert host.headlines() == [
        "vm-snap's base image …/_base/a11ab982 has 5 GiB, more than its disk's 1 GiB",
    ]


def test_base_replaced_or_truncated_if_it_is_blank(host: RecordedHost) -> None:
    base = _base(host, "vm-snap")
    host.file(base, blocks=0)

    [finding] = host.findings()
    assert finding.startswith("base-replaced-or-truncated of vm-snap: image reports ")
    assert ", blocks = 0; image service reports virtual_size = " in finding
    assert host.headlines() == [
        "vm-snap's base image …/_base/a11ab982 is empty on disk, but its image has 6528 KiB",
    ]


def _spec(host: RecordedHost, name: str) -> object:
    """Return a server's request spec, as stored."""
    for answer in host.bundle.by_layer["nova-db"]:
        if answer.query.startswith("SELECT") and ".request_specs " in answer.query:
            for row in answer.value["rows"]:
                named = dict(zip(answer.value["columns"], row, strict=True))
                if named.get("instance_uuid") == host.uuid(name):
                    return named["spec"]
    raise LookupError(name)


def test_a_blank_image_has_a_blank_base(host: RecordedHost) -> None:
    image = host.guest("vm-snap").record
    assert image is not None
    for answer in host.bundle.by_layer["glance"]:
        value = json.loads(json.dumps(answer.value))
        for body in value.get("images", [value]) if isinstance(value, dict) else []:
            if body.get("id") == image.image:
                body["size"] = 196616
                host.set("glance", answer.query, value)
    spec = json.loads(str(_spec(host, "vm-snap")))
    spec["nova_object.data"]["image"]["nova_object.data"]["size"] = 196616
    host.row("request_specs", host.uuid("vm-snap"), spec=json.dumps(spec))
    host.file(_base(host, "vm-snap"), blocks=0)

    assert host.findings() == []


def test_a_base_that_another_container_sees_is_not_replaced(host: RecordedHost) -> None:
    host.file(_base(host, "vm-snap"), ino=4711)
    host.contain("vm-snap")

    assert host.findings() == []


def test_chain_qmp_vs_ondisk(host: RecordedHost) -> None:
    # The disk was rebased while the guest was running.
    disk, base = _disk(host, "vm-plain"), _base(host, "vm-plain")
    other = _base(host, "vm-snap")

    def rebase(layers: list[dict[str, object]]) -> None:
        layers[0].update({"backing-filename": other, "full-backing-filename": other})
        layers[1]["filename"] = other

    host.image(disk, rebase)

    assert [line for line in host.findings() if not line.startswith("backing-not-")] == [
        f"chain-qmp-vs-ondisk of vm-plain: domain reports disks = {disk} ← {base};"
        f" image reports chain = {disk} ← {other}"
    ]
    assert (
        f"vm-plain's QEMU uses …/_base/2f8e0c22 below its disk …/{host.uuid('vm-plain')[:8]}/disk, but the disk's header names …/_base/a11ab982"
        in host.headlines()
    )


def test_chain_qmp_vs_ondisk_from_the_monitor(monitored: RecordedHost) -> None:
    [guest] = [guest for guest in monitored.report().cloud.guests if guest.name == "vm-plain"]
    assert guest.images
    disk, base = (layer.path for layer in guest.images[0].chain)
    query = f"""virsh qemu-monitor-command {guest.domain_name} '{{"execute": "query-block"}}'"""
    asked = deepcopy(monitored.last("qemu", query).value)  # the tests share the recording
    asked[0]["inserted"]["image"].pop("backing-image")
    monitored.set("qemu", query, asked)

    assert monitored.findings() == [
        f"chain-qmp-vs-ondisk of vm-plain: monitor reports disks = {disk};"
        f" image reports chain = {disk} ← {base}"
    ]
    assert monitored.headlines() == [
        "vm-plain's QEMU uses no file below its disk …/018ef94c/disk, but the disk's header names …/_base/2f8e0c22",
    ]


def test_a_chain_may_be_named_by_other_paths(host: RecordedHost) -> None:
    # Another name for the same file, as through a link.
    base = _base(host, "vm-plain")
    link = base.replace("/_base/", "/_cache/")
    host.image(_disk(host, "vm-plain"), lambda layers: layers[1].update(filename=link))
    line = next(
        file for file in host.last("images", f"find {host.top} -ls").value if file["path"] == base
    )
    asked = host.last("images", f"find {host.top} -ls").model_dump(exclude={"value", "error"})
    at = datetime.fromisoformat(str(asked["at"])) + timedelta(seconds=1)
    asked |= {"query": f"stat -L {link}", "subject": link, "at": at}
    host.add(Answer(**asked, value={**line, "path": link}))

    assert host.findings() == []


def test_a_chain_may_differ_while_a_block_job_changes_it(host: RecordedHost) -> None:
    disk = _disk(host, "vm-plain")
    host.image(disk, lambda layers: layers.pop())
    host.set(
        "libvirt", f"virsh blockjob {host.domain('vm-plain')} vda", {"type": 1, "cur": 1, "end": 9}
    )

    assert "chain-qmp-vs-ondisk of vm-plain" not in {
        line.partition(":")[0] for line in host.findings()
    }


@pytest.mark.parametrize("key", ["backing-filename", "full-backing-filename"])
def test_chain_qmp_vs_ondisk_if_a_header_names_another_file_than_qemu_img_opened(
    host: RecordedHost, key: str
) -> None:
    other = f"{host.top}/_base/ephemeral_1_40d1d2c"
    path = f"{host.folder('vm-plain')}/disk"
    host.image(path, lambda layers: layers[0].update({key: other}))

    names = {line.partition(":")[0] for line in host.findings()}
    assert "chain-qmp-vs-ondisk of vm-plain" in names


def test_a_header_that_qemu_read_otherwise_is_found(monitored: RecordedHost) -> None:
    query = (
        f'virsh qemu-monitor-command {monitored.domain("vm-duo")} \'{{"execute": "query-block"}}\''
    )
    value = json.loads(json.dumps(monitored.last("qemu", query).value))
    disk = next(one["inserted"] for one in value if one["inserted"]["file"].endswith("/disk"))
    disk["backing_file"] = f"{monitored.top}/_base/swap_64"
    monitored.set("qemu", query, value)

    [finding] = monitored.report().findings
    assert finding.check.name == "chain-qmp-vs-ondisk"
    assert "but read …/_base/swap_64 in the disk's header" in finding.headline
