from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.collect.conftest import VNC_PASSWORD, stopped

from hoodsnap.bundle import Answer
from hoodsnap.collect import libvirt_client as daemon_module
from hoodsnap.collect.domain import Domains, Mark, firmware, images, targets
from hoodsnap.collect.libvirt_client import binding
from hoodsnap.collect.recorder import Recorder
from hoodsnap.keep.secret import WITHHELD

DISK = """
<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vda'/>
</disk>
"""


class Asked:
    """The domains of a daemon, and the answers recorded about them."""

    def __init__(self, uri: str | None = None) -> None:
        self.recorder = Recorder("here")
        self.domains = Domains(self.recorder, uri)

    @property
    def answers(self) -> list[Answer]:
        return self.recorder.answers

    @property
    def queries(self) -> list[str]:
        return [answer.query for answer in self.answers]

    def value(self, query: str) -> Any:
        return self.last(query).value

    def last(self, query: str) -> Answer:
        return [answer for answer in self.answers if answer.query == query][-1]

    def kinds(self) -> dict[str, str]:
        return {answer.query: answer.error.kind for answer in self.answers if answer.error}


@contextmanager
def waiting_for(uri: str, name: str) -> Iterator[None]:
    """Let another client wait for a frozen QEMU, as nova's periodic tasks do."""
    domain = binding().openReadOnly(uri).lookupByName(name)
    waiting = threading.Thread(target=domain.memoryStats, daemon=True)
    waiting.start()
    time.sleep(0.3)
    yield


def test_everything_about_a_running_guest_is_asked_in_a_fixed_order(libvirtd: Any) -> None:
    asked = Asked(libvirtd.uri)
    disk = libvirtd.disk("everything")
    with libvirtd.guest("instance-2"), libvirtd.guest("instance-1", DISK.format(path=disk)) as one:
        uuid = one.UUIDString()
        marks = asked.domains.look()
        assert marks is not None
        seen = asked.domains.ask_about(marks)

    assert asked.queries == [
        "virsh list --all",
        "virsh domstate --reason instance-1",
        "virsh domstate --reason instance-2",
        "virsh dominfo instance-1",
        "virsh dumpxml instance-1",
        "virsh snapshot-list instance-1",
        "virsh checkpoint-list instance-1",
        "virsh domjobinfo instance-1",
        "virsh blockjob instance-1 vda",
        "virsh dominfo instance-2",
        "virsh dumpxml instance-2",
        "virsh snapshot-list instance-2",
        "virsh checkpoint-list instance-2",
        "virsh domjobinfo instance-2",
    ]
    assert asked.kinds() == {}
    assert marks[uuid] == Mark("instance-1", one.ID(), (3, 1))
    assert asked.value("virsh domstate --reason instance-1") == {"state": 3, "reason": 1}
    info = asked.value("virsh dominfo instance-1")
    assert info.pop("cpu_time_ns") > 0
    assert info == {
        "persistent": False,
        "autostart": False,
        "managed_save": False,
        "max_memory_kib": 16384,
        "memory_kib": 16384,
        "vcpus": 1,
        "security_label": {"label": "", "enforcing": False},
        "messages": [],
    }
    assert asked.value("virsh domjobinfo instance-1") == {}
    assert asked.value("virsh blockjob instance-1 vda") == {}
    assert seen[0].images == {str(disk): "qcow2"}
    assert {answer.subject for answer in asked.answers[3:9]} == {uuid}
    assert VNC_PASSWORD not in str(asked.answers)


def test_block_jobs_are_recorded_as_libvirt_returns_them(libvirtd: Any) -> None:
    asked = Asked(libvirtd.uri)
    disk = libvirtd.disk("source")
    copy = f"<disk type='file'><source file='{disk}.copy'/><driver type='qcow2'/></disk>"
    with libvirtd.guest("busy", DISK.format(path=disk)) as domain:
        domain.blockCopy("vda", copy, {"bandwidth": 1})
        seen = asked.domains.ask_about(asked.domains.look() or ())

    job = asked.value("virsh blockjob busy vda")
    assert job["type"] == binding().VIR_DOMAIN_BLOCK_JOB_TYPE_COPY
    assert job["end"] == 1 << 20
    assert seen[0].images == {str(disk): "qcow2", f"{disk}.copy": "qcow2"}


def test_a_stopped_domain_is_asked_only_for_its_stored_definition(libvirtd: Any) -> None:
    asked = Asked(libvirtd.uri)
    disk = libvirtd.disk("stored")
    xml = f"""
        <domain type='qemu'><name>stored</name><memory>16384</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{DISK.format(path=disk)}</devices>
        </domain>"""
    domain = libvirtd.connection().defineXML(xml)
    try:
        domain.snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>")
        domain.snapshotCreateXML("<domainsnapshot><name>after</name></domainsnapshot>")
        seen = asked.domains.ask_about(asked.domains.look() or ())
        expected = domain.XMLDesc(binding().VIR_DOMAIN_XML_INACTIVE)
    finally:
        domain.undefineFlags(binding().VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)

    assert asked.value("virsh list --all")[0]["id"] is None
    assert asked.queries[2:] == [
        "virsh dominfo stored",
        "virsh dumpxml --inactive stored",
        "virsh snapshot-list stored",
        "virsh checkpoint-list stored",
    ]
    assert asked.value("virsh dumpxml --inactive stored") == expected
    assert asked.value("virsh snapshot-list stored") == [
        {"name": "after", "current": True},
        {"name": "before", "current": False},
    ]
    assert asked.value("virsh checkpoint-list stored") == []
    assert (seen[0].id, seen[0].images) == (None, {str(disk): "qcow2"})


def test_the_host_is_asked_about_itself_and_its_networks(libvirt: Any) -> None:
    asked = Asked("test:///default")

    asked.domains.ask_host()

    assert asked.queries == [
        "virsh hostname",
        "virsh uri",
        "virsh version",
        "virsh nodeinfo",
        "virsh capabilities",
        "virsh net-list --all",
        "virsh net-dumpxml default",
        "virsh secret-list",
    ]
    # libvirt's test driver does not support secrets.
    assert asked.kinds() == {"virsh secret-list": "missing"}
    assert asked.value("virsh uri") == "test:///default"
    assert asked.value("virsh version")["type"] == "TEST"
    assert asked.value("virsh nodeinfo")["cpus"] == 16
    (network,) = asked.value("virsh net-list --all")
    del network["uuid"]
    expected = {"name": "default", "active": True, "persistent": True, "autostart": False}
    assert network == expected
    assert "<name>default</name>" in asked.value("virsh net-dumpxml default")


def test_without_a_daemon_the_domains_are_unknown(libvirt: Any) -> None:
    asked = Asked("qemu+unix:///system?socket=/nowhere")

    asked.domains.ask_host()

    assert asked.domains.look() is None
    assert asked.domains.ask_about(["e6a2b6e6-1f5c-4b2c-b1f4-1d7ad12ed9e1"]) == []
    assert asked.kinds()["virsh list --all"] == "unreachable"


def test_a_second_look_shows_changes(libvirtd: Any) -> None:
    asked = Asked(libvirtd.uri)
    with libvirtd.guest("moves") as domain:
        uuid = domain.UUIDString()
        first = asked.domains.look()
        domain.resume()
        second = asked.domains.look()

    assert first is not None
    assert second is not None
    assert (first[uuid].state, second[uuid].state) == ((3, 1), (1, 5))
    assert asked.domains.look() == {}


def test_a_domain_that_ended_after_the_list_is_absent(libvirtd: Any) -> None:
    asked = Asked(libvirtd.uri)
    with libvirtd.guest("goes") as domain:
        marks = asked.domains.look()
        assert marks is not None
        domain.destroy()
        seen = asked.domains.ask_about(marks)

    assert asked.kinds()["virsh dumpxml goes"] == "absent"
    assert set(asked.kinds().values()) == {"absent"}
    assert seen[0].images == {}


def test_a_frozen_qemu_delays_only_its_own_jobs_and_only_once(
    libvirtd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "DOMAIN_PATIENCE", 0.5)
    asked = Asked(libvirtd.uri)
    devices = DISK.format(path=libvirtd.disk("frozen"))
    with (
        libvirtd.guest("a-frozen", devices),
        libvirtd.guest("b-awake"),
        stopped(libvirtd.qemu("a-frozen")),
        waiting_for(libvirtd.uri, "a-frozen"),
    ):
        seen = asked.domains.ask_about(asked.domains.look() or ())

    timeout = "timeout"
    assert asked.kinds() == {
        "virsh domjobinfo a-frozen": timeout,
        "virsh blockjob a-frozen vda": timeout,
    }
    waited = asked.last("virsh domjobinfo a-frozen").took
    assert asked.last("virsh blockjob a-frozen vda").took < waited
    assert asked.value("virsh dumpxml a-frozen").startswith("<domain ")
    assert asked.value("virsh domjobinfo b-awake") == {}
    assert [domain.name for domain in seen] == ["a-frozen", "b-awake"]


def test_a_thawed_guest_answers_at_the_next_look(
    libvirtd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "DOMAIN_PATIENCE", 0.5)
    asked = Asked(libvirtd.uri)
    with libvirtd.guest("sleepy"):
        with stopped(libvirtd.qemu("sleepy")), waiting_for(libvirtd.uri, "sleepy"):
            marks = asked.domains.look()
            assert marks is not None
            asked.domains.ask_about(marks)
        assert asked.kinds() == {"virsh domjobinfo sleepy": "timeout"}
        asked.domains.look()
        asked.domains.ask_about(marks)

    assert asked.value("virsh domjobinfo sleepy") == {}


def test_the_last_threads_of_libvirt_are_left_free(
    libvirtd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "DOMAIN_PATIENCE", 0.5)
    monkeypatch.setattr(daemon_module, "MOST_HUNG", 1)
    asked = Asked(libvirtd.uri)
    with ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(libvirtd.guest(name))
            stack.enter_context(stopped(libvirtd.qemu(name)))
            stack.enter_context(waiting_for(libvirtd.uri, name))
        asked.domains.ask_about(asked.domains.look() or ())

    timeout = "timeout"
    assert asked.kinds() == {"virsh domjobinfo one": timeout, "virsh domjobinfo two": timeout}
    assert asked.last("virsh domjobinfo one").took > 0.4
    second = asked.last("virsh domjobinfo two")
    assert second.took < asked.last("virsh domjobinfo one").took
    assert second.error is not None
    message = "not asked: libvirt left 1 questions about domains unanswered"
    assert second.error.message == message
    assert asked.value("virsh dumpxml two").startswith("<domain ")


CHAIN = """
<domain>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/i/disk'/>
      <backingStore type='file'>
        <format type='raw'/><source file='/i/_base/abc'/><backingStore/>
      </backingStore>
      <mirror type='file' job='copy'><source file='/i/mirror'/></mirror>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='block' device='disk'><source dev='/dev/sdc'/><target dev='vdb'/></disk>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='vms/1_disk'/><target dev='vdc'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='hda'/></disk>
    <interface type='bridge'><source bridge='br'/><target dev='tap1'/></interface>
  </devices>
</domain>
"""


def test_every_file_in_the_chain_of_a_disk_is_an_image() -> None:
    found = {"/i/disk": "qcow2", "/i/_base/abc": "raw", "/i/mirror": None, "/dev/sdc": None}
    assert images(CHAIN) == found
    assert list(images(CHAIN)) == list(found)
    assert targets(CHAIN) == ["vda", "vdb", "vdc", "hda"]


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain><devices>",
        "no XML",
        '<!DOCTYPE domain [<!ENTITY a "aaaa">]>' + CHAIN,
        CHAIN.replace("<domain>", "<domain xmlns='x'>"),
    ],
)
def test_text_that_is_not_a_libvirt_domain_names_no_images(xml: str) -> None:
    assert (images(xml), targets(xml)) == ({}, [])


@pytest.mark.lab
def test_definitions_of_the_labs_domains_match_virsh_word_for_word() -> None:
    asked = Asked()
    asked.domains.ask_host()
    marks = asked.domains.look()
    assert marks
    seen = asked.domains.ask_about(marks)

    listed = subprocess.check_output(["virsh", "list", "--all", "--name"], text=True).split()
    assert [domain.name for domain in seen] == sorted(listed)
    assert asked.kinds() == {}
    for domain in seen:
        option = [] if domain.id is not None else ["--inactive"]
        command = ["virsh", "-r", "dumpxml", *option, domain.name]
        text = subprocess.check_output(command, text=True)
        text = re.sub(r"(?<=<cmdline>).*(?=</cmdline>)", WITHHELD, text)  # as for vm-linux
        assert text.rstrip("\n") == asked.value(" ".join(["virsh", *command[2:]])).rstrip("\n")
    assert all(domain.images for domain in seen)


@pytest.mark.lab
def test_asking_the_labs_domains_does_not_taint_them() -> None:
    def messages() -> list[list[str]]:
        connection = binding().openReadOnly("qemu:///system")
        return [domain.messages() for domain in connection.listAllDomains()]

    asked = Asked()
    before = messages()
    asked.domains.ask_about(asked.domains.look() or ())

    assert messages() == before


@pytest.mark.lab
def test_a_frozen_guest_of_the_lab_does_not_hang_the_collection() -> None:
    asked = Asked()
    marks = asked.domains.look()
    assert marks
    asked.domains.ask_about(marks)
    (name,) = (
        mark.name
        for mark in marks.values()
        if mark.id and "<nova:name>vm-tenant<" in asked.value(f"virsh dumpxml {mark.name}")
    )
    qemu = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
    again = Asked()
    with stopped(qemu), waiting_for("qemu:///system", name):
        start = time.monotonic()
        seen = again.domains.ask_about(again.domains.look() or ())
        took = time.monotonic() - start

    assert took < daemon_module.DOMAIN_PATIENCE + 2
    assert len(seen) == len(marks)
    assert again.kinds()[f"virsh domjobinfo {name}"] == "timeout"
    assert all(name in query for query in again.kinds())
    assert again.value(f"virsh dumpxml {name}") == asked.value(f"virsh dumpxml {name}")


def test_files_of_firmware_and_tpm_are_named() -> None:
    xml = """<domain><os><loader type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
      <nvram type='file'><source file='/var/lib/libvirt/qemu/nvram/a_VARS.fd'/></nvram></os>
      <devices><tpm><backend type='emulator' version='2.0'/></tpm></devices></domain>"""

    assert list(firmware(xml, "u")) == [
        "/usr/share/OVMF",
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/var/lib/libvirt/qemu/nvram",
        "/var/lib/libvirt/qemu/nvram/a_VARS.fd",
        "/var/lib/libvirt/swtpm",
        "/var/lib/libvirt/swtpm/u/tpm2/tpm2-00.permall",
    ]
    assert firmware("<domain><os><nvram>relative</nvram></os></domain>", "u") == {}
    assert firmware("no XML", "u") == {}
