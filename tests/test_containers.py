"""The recorded host, as if libvirt and nova-compute ran in Kolla's containers.

The instances directory is a volume. QEMU, the domains and the image headers use its path inside the
container; the collector, outside, finds it under another path. So qemu-img, outside, does not find
the backing files that the headers name.
"""

from __future__ import annotations

import json

import pytest
from tests.conftest import HEALTHY, RecordedHost

from hoodsnap.bundle import Answer, Failure, load

INSIDE = "/var/lib/nova/instances"
OUTSIDE = "/var/lib/docker/volumes/nova_compute/_data/instances"


@pytest.fixture
def kolla() -> RecordedHost:
    host = RecordedHost(load(HEALTHY))
    answers: list[Answer] = []
    for answer in host.bundle.answers:
        answers += _outside(answer) if answer.layer == "images" else [_inside(answer)]
    host.bundle = host.bundle.with_answers(tuple(answers))
    return host


def _outside(answer: Answer) -> list[Answer]:
    """Return the answers about a file that the collector would get outside the container."""
    raw = answer.model_dump(exclude={"value", "error"})
    for key in ("query", "subject"):
        if raw[key] is not None and not raw[key].startswith("stat -L /var/lib/nova/instances /opt"):
            raw[key] = raw[key].replace(INSIDE, OUTSIDE)
    if answer.error is not None:
        return [Answer(**raw, error=answer.error)]
    value = answer.value
    if not answer.query.startswith("qemu-img"):
        if not answer.query.endswith("/disk.info"):
            value = json.loads(json.dumps(value).replace(INSIDE, OUTSIDE))
        return [Answer(**raw, value=value)]
    if isinstance(value, str):
        return []  # text output; nothing reads it
    top = {**value[0], "filename": value[0]["filename"].replace(INSIDE, OUTSIDE)}
    if len(value) == 1:
        return [Answer(**raw, value=[top])]
    message = (
        f"qemu-img: Could not open '{top['filename']}': Could not open"
        f" '{top['backing-filename']}': No such file or directory"
    )
    chain = Answer(**raw, error=Failure(kind="absent", message=message))
    raw["query"] = raw["query"].replace("--backing-chain ", "")
    return [chain, Answer(**raw, value=top)]


def _inside(answer: Answer) -> Answer:
    """Return a QEMU's mountinfo inside a container: an overlay as root, with the volume on it."""
    if not answer.query.endswith("/mountinfo") or answer.subject is None or answer.error:
        return answer
    own = "355 354 0:77 / / rw,relatime - overlay overlay rw\n"
    volume = OUTSIDE.removesuffix("/instances")
    mount = f"356 355 254:0 {volume} /var/lib/nova rw,relatime - ext4 /dev/vda rw\n"
    return answer.model_copy(update={"value": own + mount})


def test_a_healthy_cloud_in_containers_is_quiet(kolla: RecordedHost) -> None:
    assert kolla.findings() == []


def _disk(kolla: RecordedHost, name: str) -> str:
    return f"{OUTSIDE}/{kolla.uuid(name)}/disk"


def _found(kolla: RecordedHost) -> set[str]:
    return {
        f"{finding.check.name} of {finding.guest.name if finding.guest else None}"
        for finding in kolla.report().everything()
    }


def _change(kolla: RecordedHost, path: str, **fields: object) -> None:
    """Set fields of a file in the listing; without fields, remove the file."""
    query = f"find {OUTSIDE} -ls"
    lines = kolla.last("images", query).value
    changed = [line | fields if line["path"] == path else line for line in lines]
    if not fields:
        changed = [line for line in lines if line["path"] != path]
    assert changed != lines
    kolla.set("images", query, changed)


def _base(kolla: RecordedHost, name: str) -> str:
    images = kolla.guest(name).images
    assert images
    return images[0].chain[-1].path.replace(INSIDE, OUTSIDE)


def test_a_replaced_disk_is_found_from_outside(kolla: RecordedHost) -> None:
    _change(kolla, _disk(kolla, "vm-plain"), ino=4711)

    assert _found(kolla) == {"disk-deleted-but-open of vm-plain"}


def test_a_missing_base_is_found_from_outside(kolla: RecordedHost) -> None:
    _change(kolla, _base(kolla, "vm-snap"))

    assert _found(kolla) == {
        "backing-file-missing of vm-snap",
        "disk-deleted-but-open of vm-snap",
    }


def test_a_replaced_base_is_found_from_outside(kolla: RecordedHost) -> None:
    _change(kolla, _base(kolla, "vm-snap"), ino=4711)

    assert _found(kolla) == {"base-replaced-or-truncated of vm-snap"}


def test_an_ambiguous_directory_is_left_out(kolla: RecordedHost) -> None:
    """If QEMU's open file is listed in two directories, its path may stand for either."""
    [before] = kolla.report().cloud.hosts
    assert before.images.container_paths == {INSIDE: OUTSIDE}
    listing = kolla.last("images", f"find {OUTSIDE} -ls")
    lines = json.loads(json.dumps(listing.value).replace(OUTSIDE, "/mnt/instances"))
    other = listing.model_dump(exclude={"value", "error"}) | {"query": "find /mnt/instances -ls"}
    kolla.add(Answer(**other, value=lines))

    [after] = kolla.report().cloud.hosts
    assert after.images.container_paths == {}


def test_a_missing_disk_is_found_from_outside(kolla: RecordedHost) -> None:
    _change(kolla, _disk(kolla, "vm-stopped"))

    assert _found(kolla) == {"server-without-disk of vm-stopped"}


def test_a_base_that_nova_would_remove_is_found_from_outside(kolla: RecordedHost) -> None:
    kolla.row("instances", kolla.uuid("vm-snap"), host="other")
    _change(kolla, _base(kolla, "vm-snap"), mtime="2020-01-01T00:00:00.000000Z")

    assert "base-image-reapable of None" in _found(kolla)


NEEDS_ITS_FILES = {
    "backing-file-missing",
    "base-replaced-or-truncated",
    "chain-qmp-vs-ondisk",
    "console-log-problem",
    "disk-deleted-but-open",
    "disk-format-mismatch",
}


def test_unrecognized_files_are_skipped(kolla: RecordedHost) -> None:
    """QEMU's open files are not the listed ones: they belong to another instances directory."""
    for name in {str(guest.name) for guest in kolla.report().cloud.guests if guest.process}:
        kolla.hold(name, lambda file: file | {"ino": file["ino"] + (1 << 32)})
    _change(kolla, _base(kolla, "vm-snap"), mtime="2020-01-01T00:00:00.000000Z")
    kolla.row("instances", kolla.uuid("vm-snap"), host="other")

    report = kolla.report()
    unsaid = {skip.check.name for skip in report.skips if not skip.legal}
    assert {*NEEDS_ITS_FILES, "base-image-reapable"} <= unsaid
    assert not {*NEEDS_ITS_FILES, "base-image-reapable", "server-without-disk"} & {
        finding.check.name for finding in report.everything()
    }


def test_faults_are_found_if_a_container_uses_the_hosts_paths(host: RecordedHost) -> None:
    """TripleO and OpenStack-Helm: another root file system, but equal paths to the same files."""
    for answer in host.bundle.by_layer["kernel"]:
        if answer.query.endswith("/mountinfo") and answer.subject is not None:
            host.set("kernel", answer.query, answer.value.replace(" 254:0 / / ", " 0:77 / / "))
    host.file(f"{host.folder('vm-plain')}/disk", ino=4711)

    assert _found(host) == {"disk-deleted-but-open of vm-plain"}


def test_an_image_cache_with_another_name_is_recognized_from_outside(kolla: RecordedHost) -> None:
    answers = []
    for answer in kolla.bundle.answers:
        raw = answer.model_dump_json(exclude_unset=True).replace("/_base", "/cache")
        answers.append(Answer.model_validate_json(raw))
    kolla.bundle = kolla.bundle.with_answers(tuple(answers))
    kolla.conf("image_cache", subdirectory_name="cache")

    assert _found(kolla) == set()
