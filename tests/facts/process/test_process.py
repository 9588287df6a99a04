from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.process.process import OpenFile, Process

PID = 4711
UUID = "6d40e248-2a96-47cc-b535-4fae46854b60"

WORDS = [
    *("/usr/bin/qemu-system-x86_64", "-name", "guest=instance-0000000a,debug-threads=on", "-S"),
    *("-machine", "pc-i440fx-7.2,usb=off", "-m", "size=2097152k", "-smp", "2,sockets=2"),
    *("-uuid", UUID, "-smbios", f"type=1,product=OpenStack Nova,uuid={UUID}", "-no-user-config"),
    *("-blockdev", '{"driver":"file","filename":"/i/disk","node-name":"libvirt-1-storage"}'),
    *("-blockdev", '{"node-name":"f","driver":"qcow2","file":"libvirt-1-storage"}'),
    *("-device", "virtio-blk-pci,drive=f,id=virtio-disk0"),
    *("-device", "virtio-net-pci,netdev=hostnet0,id=net0,mac=fa:16:3e:30:2d:1f"),
]
CMDLINE = "\0".join(WORDS) + "\0"

STAT = (
    f"{PID} (CPU 0) S 1/KVM) S 1 4710 4710 0 -1 138412416 10659 0 0 0 433 97 0 0 20 0 5 0 45397"
    " 1703174144 12849 18446744073709551615 0 0 0 0 0 0 268444224 4096 16451 0 0 0 17 1 0 0 0 0 0\n"
)

ROOT_DISK: dict[str, object] = {
    "fd": 13,
    "path": "/i/disk (deleted)",
    "dev": "0:42",
    "ino": 5,
    "rdev": "0:0",
    "size": 393216,
    "mode": "100644",
    "flags": "02100002",
}
BASE = ROOT_DISK | {"fd": 12, "path": "/i/_base/ffbc", "ino": 4, "flags": "02100000"}

VALUES: dict[str, Any] = {
    f"/proc/{PID}/cmdline": CMDLINE,
    f"/proc/{PID}/stat": STAT,
    f"/proc/{PID}/status": "Name:\tqemu\nUid:\t0\t64055\t64055\t64055\nThreads:\t5\n",
    f"/proc/{PID}/comm": "qemu-system-x86\n",
    f"readlink /proc/{PID}/exe": "/usr/bin/qemu-system-x86_64",
    f"ls -lL /proc/{PID}/fd": [ROOT_DISK, BASE],
    f"readlink /proc/{PID}/ns/*": {"pid": "pid:[4026531836]", "mnt": "mnt:[4026531841]"},
}


def answer(query: str, value: object, pid: int = PID) -> Answer:
    return Answer(
        layer="kernel",
        host="compute1",
        query=query,
        subject=str(pid),
        at=datetime(2026, 11, 23, tzinfo=UTC),
        took=0.01,
        value=value,
    )


def failed(query: str, message: str) -> Answer:
    error = Failure(kind="denied", message=message)
    return Answer(**answer(query, None).model_dump(exclude={"value", "error"}), error=error)


def process(**changed: object) -> Process:
    """Return the process, with other answers for some of its files in /proc."""
    values = {query: changed.get(_file(query), value) for query, value in VALUES.items()}
    return Process.read_all([answer(query, value) for query, value in values.items()])[PID]


def _file(query: str) -> str:
    return query.removesuffix("/*").rpartition("/")[2]


def test_a_process_is_read() -> None:
    read = process()

    assert (read.pid, read.name, read.uuid) == (PID, "instance-0000000a", UUID)
    assert (read.memory_kib, read.vcpus, read.max_vcpus) == (2097152, 2, 2)
    assert read.machine == "pc-i440fx-7.2"
    assert read.macs == ("fa:16:3e:30:2d:1f",)
    assert [(disk.source, disk.device) for disk in read.disks] == [("/i/disk", "virtio-disk0")]
    assert read.smbios["product"] == "OpenStack Nova"
    assert read.incoming is None
    assert not read.is_probe
    assert (read.state, read.threads) == ("S", 5)
    assert read.uid == 64055
    assert read.exe == "/usr/bin/qemu-system-x86_64"
    assert read.namespaces["mnt"] == "mnt:[4026531841]"


def test_open_files_are_read() -> None:
    disk, base = process().files

    assert disk == OpenFile(
        fd=13,
        path="/i/disk",
        deleted=True,
        dev="0:42",
        ino=5,
        rdev="0:0",
        size=393216,
        mode=0o100644,
        writable=True,
    )
    assert (base.path, base.deleted, base.writable) == ("/i/_base/ffbc", False, False)


def test_an_empty_file_at_descriptor_0_is_an_open_file() -> None:
    [empty] = process(fd=[ROOT_DISK | {"fd": 0, "size": 0}]).files

    assert (empty.fd, empty.size) == (0, 0)


@pytest.mark.parametrize(
    "binary",
    [
        "/usr/bin/qemu-system-aarch64",
        "/usr/libexec/qemu-kvm",
        "/usr/bin/kvm",
        "kvm-spice",
        "qemu",
        "/usr/bin/qemu-system-x86_64 (deleted)",
    ],
)
def test_every_qemu_that_runs_a_machine_is_recognized(binary: str) -> None:
    assert process(cmdline=f"{binary}\0-S\0", exe="/x", comm="y\n").is_emulator
    assert process(cmdline="renamed\0-S\0", exe=binary, comm="y\n").is_emulator


@pytest.mark.parametrize(
    "words",
    [
        ["qemu-img", "convert", "a", "b"],
        ["/usr/bin/qemu-nbd", "-c", "/dev/nbd0"],
        ["/usr/bin/qemu-ga"],
        ["/usr/bin/qemu-x86_64-static", "ls"],
        ["/usr/lib/qemu/qemu-bridge-helper"],
        ["grep", "qemu-system-x86_64"],
        ["/bin/sh", "-c", "exec qemu-system-x86_64 -S"],
    ],
)
def test_other_programs_are_ignored(words: list[str]) -> None:
    answers = [
        answer(f"/proc/{PID}/cmdline", "\0".join(words) + "\0"),
        answer(f"readlink /proc/{PID}/exe", words[0]),
        answer(f"/proc/{PID}/comm", words[0].rpartition("/")[2][:15] + "\n"),
        answer("pgrep qemu | xargs ps ww", ""),
        answer("/proc/self/mountinfo", ""),
    ]

    assert Process.read_all(answers) == {}


def test_a_process_that_only_reports_capabilities_is_a_probe() -> None:
    words = ["/usr/bin/qemu-system-x86_64", "-S", "-no-user-config", "-nodefaults", "-nographic"]
    read = process(cmdline="\0".join([*words, "-machine", "none,accel=kvm:tcg"]) + "\0")

    assert read.is_probe
    with pytest.raises(UnheardError, match="no readable -uuid"):
        _ = read.uuid


def test_a_dead_qemu_is_still_a_process() -> None:
    read = process(cmdline="", exe=None, stat=STAT.replace(") S 1 ", ") Z 1 "))

    assert read.state == "Z"
    with pytest.raises(UnheardError, match="no command line"):
        _ = read.uuid


def test_a_denied_answer_is_unheard_with_its_reason() -> None:
    answers = [answer(f"/proc/{PID}/cmdline", CMDLINE), failed(f"ls -lL /proc/{PID}/fd", "Denied")]
    read = Process.read_all(answers)[PID]

    assert read.uuid == UUID
    with pytest.raises(UnheardError, match=rf"ls -lL /proc/{PID}/fd: Denied"):
        _ = read.files
    with pytest.raises(UnheardError, match=f"/proc/{PID}/stat was not collected"):
        _ = read.state


def filled(size: int) -> str:
    """Return the command line, lengthened to this many bytes by a long directory name."""
    longer = CMDLINE.replace(
        "/i/disk", "/" + "ä" * 200 + "x" * (size - len(CMDLINE) - 401) + "/i/disk"
    )
    assert len(longer.encode()) == size
    return longer


@pytest.mark.parametrize("length", range(40, len(CMDLINE), 7))
def test_a_truncated_command_line_has_no_wrong_values(length: int) -> None:
    binary, _, rest = CMDLINE.partition("\0")
    filler = "x" * (4096 - length - len("-append__"))
    line = f"{binary}\0-append\0{filler}\0{rest}"[:4096]
    whole, cut = process(), process(cmdline=line)
    said = {}
    for field in ARGUMENTS:
        try:
            said[field] = getattr(cut, field)
        except UnheardError:
            continue

    assert said == {field: getattr(whole, field) for field in said}
    assert "disks" not in said
    assert "macs" not in said


def test_a_command_line_of_a_whole_page_may_have_been_longer() -> None:
    """Kernels before 4.2 show 4096 bytes; one time in thirty they cut between two words."""
    page, longer = process(cmdline=filled(4096)), process(cmdline=filled(4097))

    assert page.uuid == longer.uuid == UUID
    assert len(longer.disks) == 1
    with pytest.raises(UnheardError, match="truncated the command line"):
        _ = page.disks


def test_each_invalid_byte_counts_as_one() -> None:
    named = filled(4097).replace("ä", "\udce4\udce4")

    assert len(process(cmdline=named).disks) == 1
    assert len(os.fsencode(named)) == 4097


def test_evidence_names_the_answer_and_the_place() -> None:
    read = process()
    memory, place = read.where("memory_kib")

    assert memory is not None
    assert (memory.query, place) == (f"/proc/{PID}/cmdline", "-m")
    for field, (part, place) in Process.places.items():
        assert read.where(field) == (read.said.get(part), place)


FIELDS = [*Process.places, "is_emulator"]
ARGUMENTS = [field for field, (part, _) in Process.places.items() if part == "cmdline"]
ARGUMENTS.remove("argv")

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.just(10**400)
    | st.text(st.characters(), max_size=9)
    | st.sampled_from(["\ud800", "a\udc80", *map(str, VALUES.values())]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(list(ROOT_DISK)), inner, max_size=8)
        | st.dictionaries(st.sampled_from(list(ROOT_DISK)), inner, max_size=8).map(
            lambda changes: [ROOT_DISK | changes]
        )
    ),
    max_leaves=9,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(VALUES)), anything))
def test_any_answer_raises_only_unheard_error(values: dict[str, object]) -> None:
    answers = [answer(query, value) for query, value in (VALUES | values).items()]
    for read in Process.read_all(answers).values():
        for field in FIELDS:
            try:
                getattr(read, field)
            except UnheardError:
                continue


@pytest.mark.lab
def test_the_labs_domains_and_processes_agree(cloud: Path) -> None:
    """libvirt and the kernel agree on every guest that is running now."""
    from hoodsnap.facts.domain.domain_xml import read_domain_xml

    virsh = ["virsh", "--readonly", "--connect", "qemu:///system"]

    def say(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    domains = {}
    for name in say(*virsh, "list", "--name").split():
        xml = read_domain_xml(say(*virsh, "dumpxml", name))
        domains[xml.uuid] = xml
    answers = []
    for pid in say("pgrep", "qemu").split():
        try:
            cmdline = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape")
        except FileNotFoundError:
            continue  # it has ended meanwhile
        answers.append(answer(f"/proc/{pid}/cmdline", cmdline, int(pid)))
    processes = {
        read.uuid: read for read in Process.read_all(answers).values() if not read.is_probe
    }

    both = domains.keys() & processes.keys()
    assert len(both) >= 5
    for uuid in both:
        xml, read = domains[uuid], processes[uuid]
        assert (xml.name, xml.memory_kib, xml.vcpus) == (read.name, read.memory_kib, read.max_vcpus)
        assert xml.machine == read.machine
        assert xml.smbios == read.smbios
        assert sorted(read.macs) == sorted(card.mac or "" for card in xml.interfaces)
        assert {disk.source for disk in read.disks} <= {disk.source for disk in xml.disks}
