"""Domains and their XML, as libvirt returns them."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.domain.disk import Disk, DiskImage
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML, read_domain_xml
from hoodsnap.facts.domain.state import WORDS
from hoodsnap.facts.fact import UnheardError

UUID = "6d40e248-2a96-47cc-b535-4fae46854b60"
NAME = "instance-0000000a"

XML = f"""\
<domain type='kvm' id='7'>
  <name>{NAME}</name>
  <uuid>{UUID}</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:package version="26.2.2"/>
      <nova:name>web &amp; more</nova:name>
      <nova:creationTime>2026-11-23 06:52:17</nova:creationTime>
      <nova:flavor name="m1.small">
        <nova:memory>2048</nova:memory>
        <nova:vcpus>2</nova:vcpus>
      </nova:flavor>
      <nova:owner>
        <nova:user uuid="417fa202">admin</nova:user>
        <nova:project uuid="eb06feb9">demo</nova:project>
      </nova:owner>
      <nova:root type="image" uuid="ee3f0f1c-7c56-4edb-95c5-2c07d88d3c5b"/>
      <nova:ports>
        <nova:port uuid="032d65aa-2d4a-4dcb-92b3-7d76e63ca3ec">
          <nova:ip type="fixed" address="10.20.0.3" ipVersion="4"/>
        </nova:port>
      </nova:ports>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' current='1'>2</vcpu>
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>OpenStack Foundation</entry>
      <entry name='product'>OpenStack Nova</entry>
      <entry name='uuid'>{UUID}</entry>
    </system>
  </sysinfo>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
  </os>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>EPYC</model>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/i/{UUID}/disk' index='1'/>
      <backingStore type='file' index='2'>
        <format type='raw'/>
        <source file='/i/_base/ffbc'/>
        <backingStore/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='rbd' name='volumes/volume-1'>
        <host name='10.0.0.1' port='6789'/>
      </source>
      <target dev='vdb' bus='virtio'/>
      <serial>8d6f23df-49a8-456d-86cb-5cd5b1fd8460</serial>
      <shareable/>
    </disk>
    <disk type='block' device='cdrom'>
      <source dev='/dev/sr0'/>
      <target dev='hda' bus='ide' tray='open'/>
      <readonly/>
    </disk>
    <interface type='bridge'>
      <mac address='FA:16:3E:D9:E7:AB'/>
      <source bridge='qbr032d65aa-2d'/>
      <target dev='tap032d65aa-2d'/>
    </interface>
    <interface type='ethernet'>
      <mac address='fa:16:3e:cb:69:30'/>
      <target dev='tap3c4f3f71-a4'/>
    </interface>
  </devices>
</domain>
"""


def answer(query: str, value: object, subject: str | None = UUID) -> Answer:
    return Answer(
        layer="libvirt",
        host="compute1",
        query=query,
        subject=subject,
        at=datetime(2026, 11, 23, tzinfo=UTC),
        took=0.01,
        value=value,
    )


def failed(query: str, message: str, subject: str | None = UUID) -> Answer:
    return Answer(
        layer="libvirt",
        host="compute1",
        query=query,
        subject=subject,
        at=datetime(2026, 11, 23, tzinfo=UTC),
        took=10.0,
        error=Failure(kind="timeout", message=message),
    )


def listing(*lines: dict[str, object]) -> Answer:
    found = list(lines) or [{"id": 7, "name": NAME, "uuid": UUID}]
    return answer("virsh list --all", found, subject=None)


def answers() -> list[Answer]:
    info = {
        "persistent": True,
        "autostart": False,
        "managed_save": False,
        "max_memory_kib": 2097152,
        "memory_kib": 2097152,
        "vcpus": 2,
    }
    return [
        listing(),
        answer(f"virsh domstate --reason {NAME}", {"state": 1, "reason": 5}),
        answer(f"virsh dominfo {NAME}", info),
        answer(f"virsh dumpxml {NAME}", XML),
        answer(f"virsh dumpxml --inactive {NAME}", XML.replace(" id='7'", "")),
        answer(f"virsh domjobinfo {NAME}", {}),
        answer(f"virsh snapshot-list {NAME}", [{"name": "before", "current": True}]),
        answer(f"virsh checkpoint-list {NAME}", ["monday"]),
        answer(f"virsh blockjob {NAME} vda", {"type": 2, "bandwidth": 0, "cur": 1, "end": 4}),
        answer(f"virsh blockjob {NAME} vdb", {}),
        answer(f"virsh blockjob {NAME} hda", {}),
    ]


def domain(*more: Answer) -> Domain:
    return Domain.read_all([*answers(), *more])[UUID]


def test_jobs_and_snapshots_are_read() -> None:
    read = domain()

    assert (read.job, read.snapshots) == (False, ("before",))
    assert read.block_jobs == {"vda": "copy, 25 %"}
    assert domain(answer(f"virsh domjobinfo {NAME}", {"type": 1})).job
    assert domain(answer(f"virsh blockjob {NAME} vda", {"type": 9})).block_jobs == {"vda": "job"}


def test_a_disk_without_an_answer_may_have_a_job() -> None:
    some = [one for one in answers() if not one.query.endswith(" hda")]

    with pytest.raises(UnheardError):
        Domain.read_all(some)[UUID].block_jobs  # noqa: B018


def test_the_current_xml_of_a_domain_that_is_off_is_its_definition() -> None:
    assert domain().current.id == 7

    no_xml = [a for a in answers() if a.query != f"virsh dumpxml {NAME}"]
    lines = [line | {"id": None} for line in listing().value]
    read = Domain.read_all([*no_xml[1:], answer("virsh list --all", lines)])[UUID]
    assert read.current.id is None
    assert read.current.name == NAME


def test_a_domain_is_read() -> None:
    read = domain()

    assert (read.uuid, read.name, read.id) == (UUID, NAME, 7)
    assert (read.state, read.reason, read.state_words) == (1, 5, "running (unpaused)")
    assert (read.persistent, read.autostart, read.managed_save) == (True, False, False)
    assert (read.memory_kib, read.current_memory_kib) == (2097152, 1048576)
    assert (read.vcpus, read.current_vcpus) == (2, 1)
    assert read.machine == "pc-i440fx-7.2"
    assert read.macs == ("fa:16:3e:d9:e7:ab", "fa:16:3e:cb:69:30")
    assert [(card.type, card.target, card.source) for card in read.interfaces] == [
        ("bridge", "tap032d65aa-2d", "qbr032d65aa-2d"),
        ("ethernet", "tap3c4f3f71-a4", None),
    ]
    assert read.smbios["uuid"] == UUID
    assert read.is_nova
    assert read.inactive.id is None
    assert read.xml.id == 7


def test_disks_are_read() -> None:
    root, volume, cdrom = domain().disks

    assert root == Disk(
        target="vda",
        bus="virtio",
        device="disk",
        image=DiskImage("file", f"/i/{UUID}/disk", "qcow2"),
        protocol=None,
        serial=None,
        read_only=False,
        shareable=False,
        transient=False,
        backing=(DiskImage("file", "/i/_base/ffbc", "raw"),),
        cache="none",
        names_backing=True,
    )
    assert (volume.source, volume.protocol, volume.format) == ("volumes/volume-1", "rbd", "raw")
    assert volume.serial == "8d6f23df-49a8-456d-86cb-5cd5b1fd8460"
    assert volume.shareable
    assert volume.backing is None, "libvirt does not report its backing files"
    assert (cdrom.source, cdrom.device, cdrom.read_only) == ("/dev/sr0", "cdrom", True)


def test_novas_metadata_is_read() -> None:
    nova = domain().nova

    assert nova is not None
    assert (nova.package, nova.name, nova.created) == (
        "26.2.2",
        "web & more",
        "2026-11-23 06:52:17",
    )
    assert (nova.flavor, nova.memory_mib, nova.vcpus) == ("m1.small", 2048, 2)
    assert nova.project == "eb06feb9"
    assert nova.root_image == "ee3f0f1c-7c56-4edb-95c5-2c07d88d3c5b"
    assert nova.ports == ("032d65aa-2d4a-4dcb-92b3-7d76e63ca3ec",)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"', ""),
        ("nova/1.1", "nova/1.0"),
        ("nova:", "os:"),
    ],
)
def test_novas_metadata_is_read_under_any_namespace(old: str, new: str) -> None:
    nova = read_domain_xml(XML.replace(old, new)).nova

    assert nova is not None
    assert (nova.flavor, nova.vcpus, len(nova.ports)) == ("m1.small", 2, 1)


def test_another_programs_metadata_is_not_novas() -> None:
    xml = XML.replace("http://openstack.org/xmlns/libvirt/nova/1.1", "http://ovirt.org/vm/1.0")

    assert read_domain_xml(xml.replace("nova:", "ovirt:")).nova is None


def test_the_last_answer_to_a_query_counts() -> None:
    moved = domain(answer(f"virsh domstate --reason {NAME}", {"state": 3, "reason": 5}))

    assert moved.state_words == "paused (I/O error)"


def test_a_domain_whose_details_failed_is_still_in_the_list() -> None:
    query = f"virsh dumpxml {NAME}"
    read = Domain.read_all([listing(), failed(query, "no answer within 10 s")])[UUID]

    assert read.name == NAME
    assert read.is_nova, "its name shows it"
    with pytest.raises(UnheardError, match="virsh dumpxml: no answer within 10 s"):
        _ = read.memory_kib
    with pytest.raises(UnheardError, match="virsh domstate was not collected"):
        _ = read.state


def test_a_domain_that_left_the_list_does_not_exist() -> None:
    other = "00000000-0000-0000-0000-000000000001"
    later = listing({"id": None, "name": "other", "uuid": other})

    assert set(Domain.read_all([*answers(), later])) == {other}


@pytest.mark.parametrize("value", [None, {}, "", [1], [{"name": "x"}], [{"uuid": 7}]])
def test_without_a_list_the_domains_are_those_that_were_queried(value: object) -> None:
    read = Domain.read_all([*answers(), answer("virsh list --all", value, subject=None)])[UUID]

    assert (read.name, read.id, read.memory_kib) == (NAME, 7, 2097152)


def test_evidence_names_the_answer_and_the_place() -> None:
    read = domain()

    memory, place = read.where("memory_kib")
    assert memory is not None
    assert (memory.query, place) == (f"virsh dumpxml {NAME}", "/domain/memory")
    for field in Domain.places:
        assert hasattr(Domain, field) or field in {
            field.name for field in dataclasses.fields(Domain)
        }, field
        assert read.where(field)[0] is not None


def test_states_are_shown_in_virshs_words() -> None:
    words = {
        (1, 1): "running (booted)",
        (3, 1): "paused (user)",
        (4, 1): "in shutdown (user)",
        (5, 2): "shut off (destroyed)",
        (5, 5): "shut off (saved)",
        (6, 1): "crashed (panicked)",
        (5, 77): "shut off (unknown)",
        (99, 1): "state 99 (unknown)",
    }
    for (state, reason), text in words.items():
        said = answer(f"virsh domstate --reason {NAME}", {"state": state, "reason": reason})
        assert domain(said).state_words == text
    assert set(WORDS) == set(range(8))


@pytest.mark.parametrize(
    ("old", "new", "kib"),
    [
        ("<memory unit='KiB'>2097152<", "<memory>2097152<", 2097152),
        ("<memory unit='KiB'>2097152<", "<memory unit='MiB'>2048<", 2097152),
        ("<memory unit='KiB'>2097152<", "<memory unit='GiB'>2<", 2097152),
        ("<memory unit='KiB'>2097152<", "<memory unit='MB'>2<", 1954),
        ("<memory unit='KiB'>2097152<", "<memory unit='bytes'>1025<", 2),
        ("<memory unit='KiB'>2097152<", "<memory dumpCore='on' unit='KiB'>64<", 64),
        (
            "</cpu>",
            "  <numa>\n      <cell id='0' cpus='0' memory='1' unit='GiB'/>\n"
            "      <cell id='1' cpus='1' memory='512' unit='KiB'/>\n    </numa>\n  </cpu>",
            (1 << 20) + 512,
        ),
        (
            "</interface>\n  </devices>",
            "</interface>\n    <memory model='dimm'>\n      <target>\n"
            "        <size unit='MiB'>512</size>\n      </target>\n    </memory>\n"
            "    <memory model='virtio-mem'>\n      <target>\n"
            "        <size unit='KiB'>1024</size>\n        <requested unit='KiB'>0</requested>\n"
            "      </target>\n    </memory>\n  </devices>",
            2097152 - 512 * 1024 - 1024,
        ),
        (
            "  <sysinfo",
            "  <numatune>\n    <memory mode='strict' nodeset='0'/>\n  </numatune>\n  <sysinfo",
            2097152,
        ),
    ],
)
def test_memory_at_boot(old: str, new: str, kib: int) -> None:
    assert XML.count(old) == 1
    xml = XML.replace(old, new)

    assert read_domain_xml(xml).memory_kib == kib
    assert read_domain_xml(f"<!-- parsed whole -->{xml}").memory_kib == kib


@pytest.mark.parametrize(
    "memory",
    ["", "much", "-5", "1e9", "9" * 400, "٣٣", "<b/>"],
)
def test_memory_that_cant_be_read_is_unheard(memory: str) -> None:
    xml = read_domain_xml(XML.replace(">2097152<", f">{memory}<"))

    with pytest.raises(UnheardError, match="memory can't be read"):
        _ = xml.memory_kib


def test_an_element_is_found_in_any_layout() -> None:
    flat = re.sub(r">\s+<", "><", XML)
    late = XML.replace("</devices>\n", "</devices><vcpu>9</vcpu>\n").replace(
        "  <vcpu placement='static' current='1'>2</vcpu>\n", ""
    )
    inside = XML.replace("  </devices>", "<disk type='file'><target dev='vdz'/></disk></devices>")

    assert read_domain_xml(flat).disks == read_domain_xml(XML).disks
    assert read_domain_xml(late).vcpus == 9
    assert [disk.target for disk in read_domain_xml(inside).disks] == ["vda", "vdb", "hda", "vdz"]


def test_elements_in_comments_are_ignored() -> None:
    hidden = "    <disk type='file'>\n      <target dev='vdz'/>\n    </disk>\n"
    xml = XML.replace("  <devices>\n", f"  <devices>\n    <!--\n{hidden}    -->\n")

    assert [disk.target for disk in read_domain_xml(xml).disks] == ["vda", "vdb", "hda"]


def test_a_domstatus_document_is_unwrapped() -> None:
    status = (
        f"<!-- generated -->\n<domstatus state='paused' reason='ioerror' pid='9'>{XML}</domstatus>"
    )
    xml = read_domain_xml(status)

    assert (xml.name, xml.memory_kib) == (NAME, 2097152)
    assert xml.status == {"state": "paused", "reason": "ioerror", "pid": "9"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "can't be read"),
        ("error: failed to get domain", "can't be read"),
        (XML[:-20], "can't be read"),
        ("<network/>", "the document is not libvirt domain XML"),
        ("<domstatus/>", "the document is not libvirt domain XML"),
        (f"<!DOCTYPE domain [<!ENTITY a 'b'>]>{XML}", "document type"),
        (
            XML.replace("<name>", "<!-- x --><name>").replace("\n</domain>", "\0</domain>"),
            "can't be read",
        ),
        (XML.replace(NAME, "a\udc80"), "can't be read"),
        ("x" * (5 << 20), "more than libvirt sends"),
    ],
)
def test_other_documents_are_unheard(text: str, reason: str) -> None:
    with pytest.raises(UnheardError, match=reason):
        _ = read_domain_xml(text).name


BOMBS = {
    "nested": "<domain>" + "<a>" * 150_000 + "</a>" * 75_000,
    "nested in the layout": XML.replace("  <devices>", "  <devices>" + "<disk>" * 150_000),
    "long": XML.replace("<os>", "<os>" + "x" * 4_000_000),
    "many": XML.replace("  </devices>", "    <disk a='b'/>\n" * 40_000 + "  </devices>"),
    "unclosed": XML.replace("  </devices>", "    <disk a='b'>\n" * 40_000 + "  </devices>"),
    "memories": XML.replace("  <vcpu ", "  <memory a='b'>\n" * 40_000 + "  <vcpu "),
    "namespaces": "<domain xmlns:n='"
    + "x" * 1_000_000
    + "'>"
    + "".join(f"<n:a{number}/>" for number in range(80_000))
    + "</domain>",
    "attributes": "<domain " + " ".join(f"a{number}=''" for number in range(80_000)) + "/>",
    "chain": XML.replace("<backingStore/>", "<backingStore><source file='x'/>" * 20_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_document_takes_long_to_read(name: str) -> None:
    started = time.process_time()
    heard(Domain(uuid=UUID, said={"xml": answer(f"virsh dumpxml {NAME}", BOMBS[name])}))

    assert time.process_time() - started < 10


FIELDS = [name for name in Domain.places if name not in ("xml", "inactive")]


def heard(read: Domain) -> dict[str, object]:
    """Return all fields that can be read. Exceptions other than `UnheardError` are raised."""
    found: dict[str, object] = {}
    for field in FIELDS:
        try:
            found[field] = getattr(read, field)
        except UnheardError:
            continue
    for document in ("xml", "inactive"):
        try:
            xml: DomainXML = getattr(read, document)
            found |= {f"{document}.disks": xml.disks, f"{document}.id": xml.id}
        except UnheardError:
            continue
    return found


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.just(10**400)
    | st.text(st.characters(), max_size=9)
    | st.just("a\udc80")
    | st.sampled_from([UUID, NAME, XML]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "name", "uuid", "state", "reason", "persistent", "autostart"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.data())
def test_no_answer_makes_the_reader_fail(data: st.DataObject) -> None:
    damaged = [_damaged(good, data.draw(anything)) for good in _some(data, answers())]

    for read in Domain.read_all(damaged).values():
        heard(read)


def _some(data: st.DataObject, good: list[Answer]) -> Iterable[Answer]:
    return data.draw(st.lists(st.sampled_from(good), max_size=8))


def _damaged(good: Answer, value: Any) -> Answer:
    return good.model_copy(update={"value": value})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(XML)), st.integers(0, 60), st.text(max_size=5))))
def test_no_damaged_xml_makes_the_reader_fail(edits: list[tuple[int, int, str]]) -> None:
    xml = XML
    for start, length, text in edits:
        xml = xml[:start] + text + xml[start + length :]

    heard(Domain(uuid=UUID, said={"xml": answer(f"virsh dumpxml {NAME}", xml)}))


def test_every_field_of_a_complete_domain_can_be_read() -> None:
    assert set(FIELDS) <= set(heard(domain()))
