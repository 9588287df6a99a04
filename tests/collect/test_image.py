import json
import os
import shutil
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hoodsnap.bundle import Answer
from hoodsnap.collect import image, patience
from hoodsnap.collect import recorder as recorders
from hoodsnap.collect.image import ask_again, ask_images, find_instances_dirs
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.trusted.ownership import Owners
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image_store import ImageStore

UUID = "c5925b92-45c5-4cb9-bb23-45aa4cc62d71"
OTHER = "3f5b1cd1-5799-4cff-9d15-235f99029d62"
CHAIN = "qemu-img info -U --backing-chain --output=json"
TEXT = "qemu-img info -U --backing-chain -f"
HEADER = "qemu-img info -U --output=json"


class Instances:
    """An instances directory with real images in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "_base").mkdir(parents=True)
        self.base = path / "_base/8a4e3303dcb5598845acb9e0f5ca816ab8556af2"
        self.base.write_bytes(bytes(1 << 20))

    def overlay(self, name: str, *, base: object = None, form: str = "raw") -> Path:
        """Create a disk whose base need not exist."""
        disk = self.path / name
        disk.parent.mkdir(exist_ok=True)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", form]
        subprocess.run([*command, "-b", str(base or self.base), disk, "1M"], check=True)
        return disk

    def declare(self, disk: Path, form: str) -> None:
        info = disk.parent / "disk.info"
        formats = json.loads(info.read_text()) if info.exists() else {}
        info.write_text(json.dumps(formats | {f"/moved/since/{disk.name}": form}))

    def ask(self, disks: dict[str, str | None] | None = None) -> Recorder:
        recorder = Recorder("host")
        ask_images(recorder, [self.path], disks or {})
        return recorder


@pytest.fixture
def instances(tmp_path: Path) -> Instances:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    return Instances(tmp_path / "instances")


def asked(recorder: Recorder, start: str = "") -> dict[str, Answer]:
    return {answer.query: answer for answer in recorder.answers if answer.query.startswith(start)}


def last_of(recorder: Recorder, start: str, path: Path) -> Answer:
    found = [
        answer
        for answer in recorder.answers
        if answer.query.startswith(start) and answer.query.endswith(f" {path}")
    ]
    assert len(found) == 1, f"{start} … {path} was asked {len(found)} times"
    return found[0]


# Instances directories.


def test_the_instances_directory_is_found_by_conf_domain_and_default(tmp_path: Path) -> None:
    for name in ("state/instances", "of-domains"):
        (tmp_path / name).mkdir(parents=True)
    recorder = Recorder("host")
    conf = {"DEFAULT": {"state_path": f"{tmp_path}/state"}}

    found = find_instances_dirs(recorder, conf, [f"{tmp_path}/of-domains/{UUID}/disk"])

    assert found[:2] == (tmp_path / "of-domains", tmp_path / "state/instances")
    assert "/opt/stack/data/nova/instances" in recorder.answers[0].query


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"instances_path": "{0}/a"}, "a"),
        ({"instances_path": "$state_path/a", "state_path": "{0}"}, "a"),
        ({"instances_path": "${{state_path}}/a", "state_path": "{0}"}, "a"),
        ({"state_path": "{0}"}, "instances"),
    ],
)
def test_nova_conf_names_the_instances_directory_in_several_ways(
    tmp_path: Path, options: dict[str, str], place: str
) -> None:
    (tmp_path / place).mkdir()
    options = {name: value.format(tmp_path) for name, value in options.items()}

    assert find_instances_dirs(Recorder("host"), {"DEFAULT": options}, [])[0] == tmp_path / place


def test_a_directory_with_two_names_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "DEFAULTS", (f"{tmp_path}/link",))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    conf = {"DEFAULT": {"instances_path": f"{tmp_path}/real"}}

    assert find_instances_dirs(Recorder("host"), conf, []) == (tmp_path / "real",)


def test_without_an_instances_directory_the_answer_names_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "DEFAULTS", (f"{tmp_path}/nowhere",))
    recorder = Recorder("host")

    found = find_instances_dirs(
        recorder,
        {"DEFAULT": {"instances_path": f"{tmp_path}/none"}},
        [
            "rbd-pool/volume",
            f"{tmp_path}/mnt/12b79a0d1575f0e2a3d62627a7d10a43/volume-1",
            "/dev/vdb",
        ],
    )

    assert found == ()
    (answer,) = recorder.answers
    assert answer.query == f"stat -L {tmp_path}/none {tmp_path}/nowhere"
    assert answer.error is not None
    assert answer.error.kind == "absent"
    assert f"{tmp_path}/none, {tmp_path}/nowhere" in answer.error.message


# Answers of qemu-img.


def test_a_person_who_types_the_query_gets_the_same_answer(instances: Instances) -> None:
    disk = instances.overlay(f"{UUID}/disk")
    instances.declare(disk, "qcow2")

    recorder = instances.ask()

    queries = asked(recorder, "qemu-img")
    assert set(queries) == {
        f"{CHAIN} -f qcow2 {disk}",
        f"{TEXT} qcow2 {disk}",
        f"{CHAIN} -f raw {instances.base}",
        f"{TEXT} raw {instances.base}",
    }
    for query, answer in queries.items():
        printed = subprocess.run(query.split(), capture_output=True, check=True, text=True).stdout
        assert answer.value == (json.loads(printed) if "json" in query else printed)
        assert answer.subject == query.split()[-1]


def test_a_base_of_many_overlays_is_asked_once(instances: Instances) -> None:
    disks = [instances.overlay(f"{UUID}/disk.eph{number}") for number in range(5)]
    named: dict[str, str | None] = {str(disk): "qcow2" for disk in disks}

    recorder = instances.ask(named)

    counted = Counter(answer.query for answer in recorder.answers)
    assert max(counted.values()) == 1
    assert counted[f"{CHAIN} -f raw {instances.base}"] == 1
    assert len([query for query in counted if query.startswith(CHAIN)]) == 6


def test_only_disks_in_instance_folders_and_their_leftovers_are_asked(
    instances: Instances,
) -> None:
    names = ["disk", "disk.eph0", "disk.swap", "disk.config", "disk.local", "disk.rescue"]
    wanted = [f"{UUID}/{name}" for name in names]
    wanted += [f"{UUID}_resize/disk", f"{UUID}_del/disk", "instance-0000002a/disk"]
    others = [f"{UUID}/console.log", f"{UUID}/kernel", "_base/x.part", "_base/y.converted"]
    for name in (*wanted, *others, "backup/disk", "locks/nova-1"):
        (instances.path / name).parent.mkdir(exist_ok=True)
        (instances.path / name).write_bytes(bytes(512))

    recorder = instances.ask()

    paths = {answer.subject for answer in asked(recorder, CHAIN).values()}
    assert paths == {f"{instances.path}/{name}" for name in wanted} | {str(instances.base)}


def test_the_overlay_is_described_if_its_base_is_missing(instances: Instances) -> None:
    disk = instances.overlay(f"{UUID}/disk", base="/gone/base")
    instances.declare(disk, "qcow2")

    recorder = instances.ask()

    chain, header = last_of(recorder, CHAIN, disk), last_of(recorder, HEADER, disk)
    assert chain.error is not None
    assert chain.error.kind == "absent"
    assert "Could not open '/gone/base'" in chain.error.message
    assert header.value["backing-filename"] == "/gone/base"
    gone = asked(recorder)["stat -L /gone/base"]
    assert gone.error is not None
    assert gone.error.kind == "absent"
    message = ImageStore.read(recorder.answers).images[str(disk)].backing_missing
    assert message == chain.error.message


def test_the_error_of_qemu_img_is_kept_for_a_damaged_image(instances: Instances) -> None:
    disk = instances.overlay(f"{UUID}/disk")
    instances.declare(disk, "qcow2")
    disk.write_bytes(b"QFI\xfb\0\0\0\x09" + bytes(500))

    recorder = instances.ask()

    error = last_of(recorder, HEADER, disk).error
    assert error is not None
    assert "Unsupported qcow2 version 9" in error.message


def test_an_image_locked_by_a_running_qemu_is_read(instances: Instances) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    disk = instances.overlay(f"{UUID}/disk")
    node = {"driver": "qcow2", "node-name": "a", "file": {"driver": "file", "filename": str(disk)}}
    argv = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
    argv += ["-blockdev", json.dumps(node), "-qmp", f"unix:{instances.path}/q,server=on,wait=off"]
    holder = subprocess.Popen([*argv, "-S"])
    try:
        until = time.monotonic() + 20
        while f":{disk.stat().st_ino} " not in Path("/proc/locks").read_text():
            assert holder.poll() is None and time.monotonic() < until, "qemu took no lock"
        recorder = instances.ask({str(disk): "qcow2"})
    finally:
        holder.kill()
        holder.wait()

    assert last_of(recorder, CHAIN, disk).value[0]["format"] == "qcow2"


# Headers that a guest may have written.


def hostile(disk: Path, backing: str, *, features: int = 0) -> None:
    """Write a qcow2 header as a guest can write it onto its raw disk, without the base's format."""
    head = bytearray(4096)
    struct.pack_into(">4sIQI", head, 0, b"QFI\xfb", 3, 0x200 if backing else 0, len(backing))
    struct.pack_into(">IQ", head, 20, 16, 1 << 20)
    struct.pack_into(">IQQ", head, 36, 1, 0x30000, 0x10000)
    struct.pack_into(">I", head, 56, 1)
    struct.pack_into(">QQQII", head, 72, features, 0, 0, 4, 104)
    head[0x200 : 0x200 + len(backing)] = backing.encode()
    disk.parent.mkdir(exist_ok=True)
    disk.write_bytes(bytes(head) + bytes(0x40000))


def test_a_header_that_a_guest_wrote_onto_its_raw_disk_is_ignored(instances: Instances) -> None:
    disk = instances.path / UUID / "disk"
    hostile(disk, "/etc/passwd")
    fooled = ["qemu-img", "info", "--backing-chain", str(disk)]  # shows that the attack works
    assert "/etc/passwd" in subprocess.run(fooled, capture_output=True, text=True).stdout

    recorder = instances.ask({str(disk): "raw"})

    (layer,) = last_of(recorder, CHAIN, disk).value
    assert layer["format"] == "raw"
    assert "passwd" not in json.dumps([answer.as_json() for answer in recorder.answers])


@pytest.mark.parametrize("backing", ["{0}/pipe", "/dev/null", "nbd://127.0.0.1:1/x", "json:{{}}"])
def test_a_probed_header_leads_only_to_regular_files(instances: Instances, backing: str) -> None:
    os.mkfifo(instances.path / "pipe")
    disk = instances.path / UUID / "disk"
    hostile(disk, backing.format(instances.path))
    start = time.monotonic()

    recorder = instances.ask()

    assert time.monotonic() - start < 5
    refused = last_of(recorder, CHAIN, disk).error
    assert refused is not None
    assert refused.message.startswith("not asked: the backing chain leads to ")
    assert last_of(recorder, HEADER, disk).value["backing-filename"]
    assert not [query for query in asked(recorder, TEXT) if query.endswith(str(disk))]


def test_a_probed_header_that_names_a_data_file_is_not_opened_at_all(instances: Instances) -> None:
    disk = instances.path / UUID / "disk"
    hostile(disk, "", features=4)

    recorder = instances.ask()

    (answer,) = (answer for answer in recorder.answers if str(disk) in answer.query)
    assert answer.query == f"{HEADER} {disk}"
    assert answer.error is not None
    assert answer.error.message.startswith("not asked: ")


def test_the_format_in_the_domain_overrides_disk_info(instances: Instances) -> None:
    disk = instances.path / UUID / "disk"
    hostile(disk, "")
    instances.declare(disk, "qcow2")

    recorder = instances.ask({str(disk): "raw"})

    assert last_of(recorder, CHAIN, disk).query == f"{CHAIN} -f raw {disk}"


# Files elsewhere.


def test_disks_elsewhere_are_examined_but_devices_are_not_opened(
    instances: Instances, tmp_path: Path
) -> None:
    volume = tmp_path / "mnt/volume-1"
    volume.parent.mkdir()
    volume.write_bytes(bytes(4096))

    recorder = instances.ask(
        {str(volume): "raw", "/dev/null": "raw", "volumes/volume-2": "raw", "/gone": "raw"}
    )

    looks = asked(recorder, "stat -L ")
    folders = (*instances.path.parents, *volume.parents)
    above = {f"stat -L {folder}" for folder in folders}
    assert set(looks) - above == {f"stat -L {volume}", "stat -L /dev/null", "stat -L /gone"}
    assert looks[f"stat -L {volume}"].value["ino"] == volume.stat().st_ino
    assert looks["stat -L /dev/null"].value["rdev"] == "1:3"
    assert looks["stat -L /gone"].error is not None
    assert last_of(recorder, CHAIN, volume).value[0]["virtual-size"] == 4096
    text = json.dumps([answer.as_json() for answer in asked(recorder, "qemu-img").values()])
    assert "/dev/null" not in text
    assert "volume-2" not in json.dumps([answer.as_json() for answer in recorder.answers])


def test_an_image_cache_behind_a_link_is_listed_too(instances: Instances, tmp_path: Path) -> None:
    shutil.move(instances.path / "_base", tmp_path / "fast")
    (instances.path / "_base").symlink_to(tmp_path / "fast")
    disk = instances.overlay(f"{UUID}/disk")
    instances.declare(disk, "qcow2")

    recorder = instances.ask()

    assert f"find {instances.path}/_base/ -ls" in asked(recorder)
    assert instances.base.name in ImageStore.read(recorder.answers).bases
    assert not asked(recorder, f"stat -L {tmp_path}/fast")


def test_the_usage_and_the_sharing_hosts_of_a_directory_are_asked(instances: Instances) -> None:
    (instances.path / "compute_nodes").write_text('{"node1": 1795416286.0}')

    answers = asked(instances.ask())

    space = answers[f"stat -f {instances.path}"].value
    assert space["blocks"] >= space["bfree"] > 0
    assert answers[f"cat {instances.path}/compute_nodes"].value == '{"node1": 1795416286.0}'


def test_a_missing_directory_is_a_single_failure(tmp_path: Path) -> None:
    recorder = Recorder("host")

    ask_images(recorder, [tmp_path / "gone"], {})

    (answer,) = recorder.answers
    assert answer.error is not None
    assert (answer.query, answer.error.kind) == (f"find {tmp_path}/gone -ls", "absent")


def test_no_qemu_img_is_started_on_a_dead_file_server(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A hanging mount would need a real file server, so the functions hang instead.
    monkeypatch.setattr(recorders, "Patience", lambda: patience.Patience(0.2))
    monkeypatch.setattr(patience, "AT_LEAST", 0.02)
    monkeypatch.setattr(image, "list_folder", lambda *args: time.sleep(1))
    monkeypatch.setattr(image, "look_at", lambda *args: time.sleep(1))
    disks: dict[str, str | None] = {f"{instances.path}/{UUID}/disk{n}": "raw" for n in range(20)}

    recorder = instances.ask(disks)

    assert {answer.error and answer.error.kind for answer in recorder.answers} == {"timeout"}
    assert sum(answer.took for answer in recorder.answers) < 5
    assert not asked(recorder, "qemu-img")


def test_a_chain_that_leads_to_a_dead_file_server_is_not_followed(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*args: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(image, "look_at", dead)
    disk = instances.overlay(f"{UUID}/disk", base="/mnt/dead/base")
    instances.declare(disk, "qcow2")

    recorder = instances.ask()

    refused = last_of(recorder, CHAIN, disk).error
    assert refused is not None
    assert refused.message.startswith("not asked: the backing chain leads to /mnt/dead/base")
    assert last_of(recorder, HEADER, disk).value["backing-filename"] == "/mnt/dead/base"


# The second look.


def test_only_guests_that_changed_are_asked_again(instances: Instances) -> None:
    for name in (f"{UUID}/disk", f"{UUID}_resize/disk", f"{OTHER}/disk"):
        instances.declare(instances.overlay(name), "qcow2")
    recorder = Recorder("host")

    ask_again(recorder, [instances.path], {f"{instances.path}/{UUID}/disk.eph0": None})

    assert f"find {instances.path} -ls" in asked(recorder)
    paths = {answer.subject for answer in asked(recorder, CHAIN).values()}
    assert paths == {
        f"{instances.path}/{UUID}/disk",
        f"{instances.path}/{UUID}_resize/disk",
        str(instances.base),
    }


# The running cloud.


def disks_of_domains() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    names = subprocess.run(["virsh", "list", "--all", "--name"], capture_output=True, check=True)
    for name in names.stdout.decode().split():
        xml = subprocess.run(["virsh", "dumpxml", name], capture_output=True, check=True).stdout
        for disk in ElementTree.fromstring(xml).iter("disk"):  # noqa: S314 (from our own libvirt)
            source, driver = disk.find("source"), disk.find("driver")
            if source is not None and driver is not None and source.get("file"):
                found[source.attrib["file"]] = driver.get("type")
    return found


@pytest.mark.lab
def test_every_image_of_the_cloud_is_read_and_its_base_is_in_the_cache(cloud: Path) -> None:
    disks = disks_of_domains()
    recorder = Recorder("host")

    dirs = find_instances_dirs(recorder, {}, disks)
    ask_images(recorder, dirs, disks)

    store = ImageStore.read(recorder.answers)
    assert not store.failures
    assert set(disks) <= set(store.images)
    for path, found in store.images.items():
        assert found.backing_missing is None
        assert found.virtual_size > 0
        if len(found.chain) > 1:
            assert Path(found.chain[1].path).name in store.bases, path
    counted = Counter(answer.query for answer in recorder.answers)
    assert max(counted.values()) == 1
    allowed = {f"{folder}/compute_nodes" for folder in dirs}
    failed: list[Any] = [answer.subject for answer in recorder.answers if answer.error]
    assert set(failed) <= allowed


def test_only_attributes_of_firmware_and_parent_folders_are_asked(
    instances: Instances, tmp_path: Path
) -> None:
    variables = tmp_path / "nvram/instance-1_VARS.fd"
    variables.parent.mkdir()
    variables.write_bytes(b"secret boot entries")
    gone = str(tmp_path / "nvram/instance-2_VARS.fd")
    recorder = Recorder("host")

    ask_images(recorder, [instances.path], {}, [str(variables), gone])

    store = ImageStore.read(recorder.answers)
    found = store.entry(str(variables))
    assert found is not None
    assert (found.size, found.magic) == (19, None)
    assert store.entry(gone) is None
    above = store.entry(str(tmp_path))
    assert above is not None
    assert (above.type, above.uid) == ("d", os.getuid())
    queries = [answer.query for answer in recorder.answers]
    assert "stat -L /" in queries
    assert len(queries) == len(set(queries))


def test_a_malformed_disk_info_does_not_prevent_other_answers(instances: Instances) -> None:
    disk = instances.overlay("11111111-2222-3333-4444-555555555555/disk")
    (disk.parent / "disk.info").write_text("[" * 200_000)

    recorder = instances.ask()

    assert any(query.endswith(f"{disk}") for query in asked(recorder, "qemu-img info"))


def test_every_qemu_img_has_limits_and_can_not_write(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Declared images need limits, too: the guest or tenant may have written their tables."""
    disk = instances.overlay("11111111-2222-3333-4444-555555555555/disk")
    instances.declare(disk, "qcow2")
    commands: list[list[str]] = []

    def note(command: list[str]) -> str:
        commands.append(command)
        return "[]"

    monkeypatch.setattr(image, "run", note)
    instances.ask()

    assert commands
    for command in commands:
        limits, program = command[: command.index("--")], command[command.index("--") + 1]
        assert program == "qemu-img"
        assert limits == [
            *("prlimit", f"--as={1 << 30}", "--cpu=30", "--fsize=0", "--core=0"),
        ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_account_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """nova's account could name any folder, and root can read folders that nova's account can't."""
    monkeypatch.setattr(image, "DEFAULTS", ())
    nova = Owners(frozenset({64060, 0}), frozenset({64060}))
    top = Path("/var/lib") / f"hs-{os.getpid()}"
    top.mkdir()
    try:
        for name, owner, mode in (
            ("novas", 64060, 0o700),
            ("roots", 0, 0o700),
            ("mallorys", 4242, 0o755),
        ):
            (top / name).mkdir(mode)
            os.chown(top / name, owner, owner)
        (top / "link").symlink_to("/root")
        paths = [str(top / name) for name in ("novas", "roots", "mallorys", "link")]
        refused = {}
        for path in (*paths, "/root", "/etc"):
            recorder = Recorder("host")
            conf = {"DEFAULT": {"instances_path": path}}
            found = find_instances_dirs(recorder, conf, [], nova)
            none = {"DEFAULT": {"instances_path": "/nowhere"}}
            disks = find_instances_dirs(Recorder("host"), none, [f"{path}/{UUID}/disk"], nova)
            assert found == disks
            refused[path] = found == ()
            if not found:
                kinds = [answer.error.kind for answer in recorder.answers if answer.error]
                assert kinds == ["denied", "denied"]
    finally:
        shutil.rmtree(top)

    assert [path for path, is_refused in refused.items() if not is_refused] == [f"{top}/novas"]


def test_the_header_of_saved_memory_is_read(instances: Instances, tmp_path: Path) -> None:
    header = struct.pack("=16s19I", b"LibvirtQemudSave", 2, 70_928, 1, 0, 5355, *[0] * 14)
    whole, pipe, gone = (tmp_path / f"{name}.save" for name in ("whole", "pipe", "gone"))
    whole.write_bytes(header + b"<domstatus>secret</domstatus>")
    os.mkfifo(pipe)
    recorder = Recorder("host")

    saves = [str(path) for path in (whole, pipe, gone)]
    ask_images(recorder, [instances.path], {}, saves=saves)

    store = ImageStore.read(recorder.answers)
    read = store.save_header(str(whole))
    assert read is not None
    assert (read[0].magic, read[0].read, read[0].data_len) == ("LibvirtQemudSave", 92, 70_928)
    assert "secret" not in str(read[1].value)
    assert store.entry(str(whole)) is not None
    assert store.save_header(str(gone)) is None
    errors = {
        answer.subject: answer.error.kind
        for answer in recorder.answers
        if answer.query.startswith("head -c 92 ") and answer.error is not None
    }
    assert errors == {str(pipe): "denied", str(gone): "absent"}
    with pytest.raises(UnheardError, match="not a regular file"):
        store.save_header(str(pipe))
