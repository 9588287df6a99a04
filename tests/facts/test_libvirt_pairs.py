"""libvirt makes a command line from a domain's XML, so our readings of the two must agree.

libvirt's own tests contain hundreds of such pairs, from 2012 to 2025. Each legal difference has a
function in this file that explains it.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hoodsnap.facts.domain.disk import DiskImage
from hoodsnap.facts.domain.domain_xml import DomainXML, read_domain_xml
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.process.command_line import CommandLine, read_command_line
from hoodsnap.facts.process.drive import Node
from hoodsnap.facts.quantity import size

STALE = {
    "qemuxml2argv-pseries-vio-address-clash.args",  # empty: libvirt refuses the domain
    "qemuxml2argv-hostdev-scsi-boot.args",  # another domain's
    "qemuxml2argv-pcihole64-none.args",  # another domain's
    "qemuxml2argv-lease.args",  # another size of memory
}
"""Command lines that were not made from the XML beside them."""

LOCAL = ("file", "host_device", "host_cdrom")


FDGROUP = "devices/disk/source[@fdgroup]"
"""Element in which a domain refers to files that another process opened for it."""


class Pair:
    """One domain, and the command line that libvirt made from it."""

    def __init__(self, era: str, args: Path, xml: Path) -> None:
        self.name = f"{era} {args.name}"
        self.stale = args.name in STALE
        self.text = xml.read_text()
        self.words = command(args.read_text(), quoted=not era.startswith("0.9.10"))

    @cached_property
    def argv(self) -> CommandLine:
        return read_command_line(self.words)

    @cached_property
    def xml(self) -> DomainXML:
        return read_domain_xml(self.text)

    @cached_property
    def tree(self) -> ElementTree.Element:
        """The XML as the standard library reads it, for explaining a difference."""
        return ElementTree.fromstring(self.text)  # noqa: S314 (a file of our own repository)


def command(text: str, *, quoted: bool) -> list[str]:
    """Return the words of one `.args` file, without the environment before them."""
    joined = text.replace("\\\n", "")
    words = shlex.split(joined) if quoted else list(unquoted(joined))
    # CEPH_ARGS has spaces, and was not quoted before 2016.
    start = next((at for at, word in enumerate(words) if word.startswith(("/", "./"))), len(words))
    return words[start:]


def unquoted(text: str) -> Iterator[str]:
    """Yield the words of 2012, when nothing was quoted: a value ends at the next option."""
    option, *value = "", ""
    for word in text.split():
        if not option or word.startswith("-"):
            yield from filter(None, [option, " ".join(value)])
            option, value = (word, []) if word.startswith("-") else ("", [word])
        else:
            value.append(word)
    yield from filter(None, [option, " ".join(value)])


@pytest.fixture(scope="module")
def pairs(corpus: Path) -> list[Pair]:
    folder = corpus / "libvirt-pairs"
    with (folder / "pairs.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) > 500
    found = []
    for row in rows:
        era = folder / f"libvirt-{row['era']}"
        found.append(Pair(row["era"], era / row["args"], era / row["xml"]))
    return found


def disagreements(
    pairs: Iterable[Pair],
    expected: Callable[[Pair], Any],
    got: Callable[[Pair], Any],
    reasons: Iterable[Callable[[Pair, Any, Any], bool]],
) -> tuple[list[str], Counter[str]]:
    """Return the pairs that differ without a reason, and the number of pairs for each reason."""
    unexplained, explained = [], Counter[str]()
    for pair in pairs:
        xml, argv = expected(pair), got(pair)
        if xml == argv:
            explained["agree"] += 1
            continue
        reason = next((reason.__name__ for reason in reasons if reason(pair, xml, argv)), None)
        if reason is None:
            unexplained.append(f"{pair.name}: the XML says {xml}, the command line {argv}")
        else:
            explained[reason] += 1
    return unexplained, explained


def stale_fixture(pair: Pair, xml: Any, argv: Any) -> bool:
    return pair.stale


def older_qemu_has_no_name_option(pair: Pair, xml: Any, argv: Any) -> bool:
    return argv is None and "name" not in pair.argv.options and _is_old(pair)


def older_qemu_has_no_uuid_option(pair: Pair, xml: Any, argv: Any) -> bool:
    return argv is None and "uuid" not in pair.argv.options and _is_old(pair)


def _is_old(pair: Pair) -> bool:
    """True for tests of libvirt before 1.3, where few declared that QEMU has these options."""
    return "guest=" not in " ".join(pair.words)


def test_names_agree(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        pairs,
        lambda pair: pair.xml.name,
        lambda pair: pair.argv.name,
        [stale_fixture, older_qemu_has_no_name_option],
    )

    assert unexplained == []
    assert explained["agree"] > len(pairs) / 2


def test_uuids_agree(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        pairs,
        lambda pair: pair.xml.uuid,
        lambda pair: pair.argv.uuid,
        [stale_fixture, older_qemu_has_no_uuid_option],
    )

    assert unexplained == []
    assert explained["agree"] > len(pairs) / 2


def test_maximum_vcpus_agree(pairs: list[Pair]) -> None:
    unexplained, _ = disagreements(
        pairs, lambda pair: pair.xml.vcpus, lambda pair: pair.argv.max_vcpus, [stale_fixture]
    )

    assert unexplained == []


def vcpus_are_plugged_in_after_the_start(pair: Pair, xml: int, argv: int) -> bool:
    vcpus = pair.tree.findall("vcpus/vcpu[@enabled='yes']")
    return argv == sum(vcpu.get("hotpluggable") != "yes" for vcpu in vcpus)


def test_the_vcpus_at_boot_agree(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        pairs,
        lambda pair: pair.xml.current_vcpus,
        lambda pair: pair.argv.vcpus,
        [stale_fixture, vcpus_are_plugged_in_after_the_start],
    )

    assert unexplained == []
    assert explained["vcpus_are_plugged_in_after_the_start"] < 10


MIB = 1024


def _up(kib: int, step: int) -> int:
    return math.ceil(kib / step) * step


def _step(pair: Pair) -> int:
    """Return the granularity of memory in KiB: POWER machines use blocks of 256 MiB."""
    return 256 * MIB if "ppc64" in pair.argv.binary else MIB


def _kib(element: ElementTree.Element, text: str | None) -> int:
    amount = size(text or "", unit=element.get("unit", "KiB"))
    assert amount is not None
    return math.ceil(amount / 1024)


def memory_is_rounded_up(pair: Pair, xml: int, argv: int) -> bool:
    return argv == _up(xml, _step(pair))


def memory_of_each_numa_cell_is_rounded_up(pair: Pair, xml: int, argv: int) -> bool:
    cells = pair.tree.findall("cpu/numa/cell")
    return argv == sum(_up(_kib(cell, cell.get("memory")), _step(pair)) for cell in cells)


def each_module_is_rounded_up_first(pair: Pair, xml: int, argv: int) -> bool:
    total = pair.tree.find("memory")
    assert total is not None
    sizes = pair.tree.findall("devices/memory/target/size")
    modules = sum(_up(_kib(module, module.text), _step(pair)) for module in sizes)
    return argv == _up(_kib(total, total.text), _step(pair)) - modules


def memory_is_the_migration_sources(pair: Pair, xml: int, argv: int) -> bool:
    """An incoming guest keeps its memory size, even if the cells don't add up to it."""
    total = pair.tree.find("memory")
    assert total is not None
    return pair.argv.incoming is not None and abs(argv - _kib(total, total.text)) < MIB


def test_the_memory_at_boot_agrees(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        pairs,
        lambda pair: pair.xml.memory_kib,
        lambda pair: pair.argv.memory_kib,
        [
            stale_fixture,
            memory_is_rounded_up,
            memory_of_each_numa_cell_is_rounded_up,
            each_module_is_rounded_up_first,
            memory_is_the_migration_sources,
        ],
    )

    assert unexplained == []
    assert explained["agree"] > len(pairs) / 2


def _macs(cards: Iterable[ElementTree.Element]) -> list[str]:
    return sorted(mac.get("address", "").lower() for card in cards for mac in card.iter("mac"))


def cards_passed_through_get_their_address_on_the_host(
    pair: Pair, xml: list[str], argv: list[str]
) -> bool:
    """A network may provide such a card too, as the transient part of a team of cards."""
    cards = pair.tree.findall("devices/interface")
    own = [
        card
        for card in cards
        if card.get("type") != "hostdev" and card.find("teaming[@type='transient']") is None
    ]
    return len(own) < len(cards) and _macs(own) == argv


def test_every_network_cards_address_agrees(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        pairs,
        lambda pair: sorted(card.mac for card in pair.xml.interfaces if card.mac is not None),
        lambda pair: sorted(pair.argv.macs),
        [stale_fixture, cards_passed_through_get_their_address_on_the_host],
    )

    assert unexplained == []
    assert explained["agree"] > len(pairs) * 0.9


def _sources(pair: Pair, *types: str) -> list[str]:
    disks = pair.xml.disks
    return sorted(disk.source for disk in disks if disk.source and disk.image.type in types)


def medium_is_out_while_the_tray_is_open(pair: Pair, xml: list[str], argv: list[str]) -> bool:
    out = [target.get("dev") for target in pair.tree.findall("devices/disk/target[@tray='open']")]
    loaded = [disk.source for disk in pair.xml.disks if disk.target not in out and disk.source]
    return sorted(loaded) == argv


def qemu_gets_the_descriptors_of_open_files(pair: Pair, xml: list[str], argv: list[str]) -> bool:
    given = pair.tree.findall(FDGROUP)
    return len(given) > 0 and all(path.startswith("/dev/fdset/") for path in set(argv) - set(xml))


def a_shared_disks_overlay_is_plugged_in_after_the_start(
    pair: Pair, xml: list[str], argv: list[str]
) -> bool:
    later = pair.tree.findall("devices/disk/transient[@shareBacking='yes']/../source")
    return sorted(set(xml) - {source.get("file") for source in later}) == argv


def a_pools_volume_is_named_by_its_path(pair: Pair, xml: list[str], argv: list[str]) -> bool:
    volumes = len(pair.tree.findall("devices/disk[@type='volume']/source"))
    return set(xml) <= set(argv) and len(argv) - len(xml) <= volumes


def the_domain_passes_extra_words_to_qemu(pair: Pair, xml: list[str], argv: list[str]) -> bool:
    words = re.findall(r"<\w+:arg value=['\"]([^'\"]+)", pair.text)
    extra = set(argv) - set(xml)
    return set(xml) <= set(argv) and bool(extra) and extra <= set(words)


def test_every_file_and_block_device_of_a_disk_agrees(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        pairs,
        lambda pair: _sources(pair, "file", "block"),
        lambda pair: sorted(
            disk.source for disk in pair.argv.disks if disk.source and disk.protocol in LOCAL
        ),
        [
            stale_fixture,
            medium_is_out_while_the_tray_is_open,
            qemu_gets_the_descriptors_of_open_files,
            a_shared_disks_overlay_is_plugged_in_after_the_start,
            a_pools_volume_is_named_by_its_path,
            the_domain_passes_extra_words_to_qemu,
        ],
    )

    assert unexplained == []
    assert explained["agree"] > len(pairs) * 0.9


def test_every_rbd_image_agrees(pairs: list[Pair]) -> None:
    def in_xml(pair: Pair) -> list[str]:
        return sorted(str(disk.source) for disk in pair.xml.disks if disk.protocol == "rbd")

    def on_argv(pair: Pair) -> list[str]:
        return sorted(str(disk.source) for disk in pair.argv.disks if disk.protocol == "rbd")

    unexplained, _ = disagreements(pairs, in_xml, on_argv, [stale_fixture])

    assert unexplained == []
    assert sum(len(on_argv(pair)) for pair in pairs) > 10


def test_every_image_below_a_disk_agrees(pairs: list[Pair]) -> None:
    """With -blockdev libvirt spells out the chain, which the XML of that time also contains."""
    chains = 0
    for pair in pairs:
        drives = [drive.backing for drive in pair.argv.disks if drive.backing is not None]
        spelled_out = [[_local(pair, node) for node in backing] for backing in drives]
        for disk in pair.xml.disks:
            if disk.backing and drives:
                chains += 1
                assert [_local(pair, image) for image in disk.backing] in spelled_out, pair.name

    assert chains > 5


def _local(pair: Pair, image: DiskImage | Node) -> tuple[str | None, str | None]:
    kind = image.type if isinstance(image, DiskImage) else image.protocol
    known = kind in ("block", *LOCAL) and not pair.tree.findall(FDGROUP)
    return image.format, image.source if known else None


def test_every_domain_of_other_projects_is_read(corpus: Path) -> None:
    paths = sorted((corpus / "domxml").rglob("*.xml"))
    texts = {path: path.read_text(errors="surrogateescape") for path in paths}
    read = 0
    for path, text in texts.items():
        if re.search(r"<domain\b.*</domain>", text, re.DOTALL) is None:
            continue
        try:
            tree = ElementTree.fromstring(text)  # noqa: S314 (a file of our own repository)
        except ElementTree.ParseError:
            continue  # pasted incompletely
        xml = read_domain_xml(text)
        name = tree.find(".//name")
        assert name is not None and xml.name == name.text, path
        assert len(xml.disks) == len(tree.findall(".//devices/disk")), path
        read += 1

    assert read > 80


def test_libvirts_status_files_are_unwrapped(corpus: Path) -> None:
    notes = sorted((corpus / "domxml/libvirt-status").glob("*.xml"))
    for note in notes:
        xml = read_domain_xml(note.read_text())
        assert xml.status["state"] in ("running", "paused", "shutoff"), note.name
        assert int(xml.status["pid"]) > 1
        assert xml.name and len(xml.uuid) == 36
        assert xml.memory_kib > 0

    assert len(notes) == 14


def _consoles(pair: Pair, argv: bool) -> set[tuple[str, int | None]]:
    if argv:
        return {(console.type, console.port) for console in pair.argv.graphics}
    return {
        (console.type, console.port)
        for console in pair.xml.graphics
        if console.type in ("vnc", "spice") and (console.port or console.listens)
    }


def libvirt_chooses_the_port(pair: Pair, xml: Any, argv: Any) -> bool:
    elements = pair.tree.findall("devices/graphics")
    return any(element.get("autoport") == "yes" or not element.get("port") for element in elements)


def only_with_tls(pair: Pair, xml: Any, argv: Any) -> bool:
    elements = pair.tree.findall("devices/graphics")
    return any(element.get("tlsPort") and not element.get("port") for element in elements)


def test_consoles_agree(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        pairs,
        lambda pair: _consoles(pair, argv=False),
        lambda pair: _consoles(pair, argv=True),
        [stale_fixture, libvirt_chooses_the_port, only_with_tls],
    )

    assert unexplained == []
    assert explained["agree"] > len(pairs) / 2


def test_the_addresses_of_consoles_agree(pairs: list[Pair]) -> None:
    compared = 0
    for pair in pairs:
        consoles = {
            (console.type, console.port): console.listens
            for console in pair.xml.graphics
            if console.port and console.listens
        }
        for console in pair.argv.graphics:
            listens = consoles.get((console.type, console.port))
            if listens:
                assert listens[0].strip("[]") == console.address, pair.name
                compared += 1
    assert compared > 10


def an_alias(pair: Pair, xml: str, argv: str) -> bool:
    names = {"pc": "pc-i440fx-", "q35": "pc-q35-", "virt": "virt-", "pseries": "pseries-"}
    return argv.startswith(names.get(xml, "?"))


def test_machines_agree(pairs: list[Pair]) -> None:
    unexplained, explained = disagreements(
        [pair for pair in pairs if pair.xml.machine and pair.argv.machine],
        lambda pair: pair.xml.machine,
        lambda pair: pair.argv.machine,
        [stale_fixture, an_alias],
    )

    assert unexplained == []
    assert explained["agree"] > len(pairs) / 2


def test_host_devices_agree(pairs: list[Pair]) -> None:
    compared = 0
    for pair in pairs:
        words = " ".join(pair.words).replace('"', "")
        for device in pair.xml.host_devices:
            if device.type == "pci":
                unassigned = device.address not in words and "type='unassigned'" in pair.text
                # Until 2013 libvirt did not pass the PCI domain to QEMU.
                assert device.address.partition(":")[2] in words or unassigned, pair.name
            else:
                assert device.address in words, pair.name
            compared += 1
    assert compared > 20


def test_the_hardware_of_real_domains_is_read(corpus: Path) -> None:
    for path in sorted((corpus / "domxml").rglob("*.xml")):
        try:
            xml = read_domain_xml(path.read_text(errors="surrogateescape"))
        except UnheardError:
            continue  # pasted incompletely
        for console in xml.graphics:
            assert console.type in ("vnc", "spice", "sdl", "rdp", "dbus", "egl-headless"), path
        assert all(log.startswith("/") for log in xml.logs)
        assert all(cpus for cpus in xml.pins.values())
        assert all(path.startswith("/") for path in filter(None, xml.firmware))
        assert all(label.model for label in xml.labels if label.image)
