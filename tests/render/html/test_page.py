"""The page as a document, without a browser: what it contains, what it must never contain."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.command import hoodsnap, process
from tests.conftest import HEALTHY, ROOT, RecordedHost, healthy

from hoodsnap.bundle import Bundle, load, save
from hoodsnap.findings.analysis import analyze
from hoodsnap.render.html import page, verbatim

DESTROYED = ROOT / "fixtures/faults/virsh-destroy.json.zst"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}'\"\u202e\u2028"


class Document(HTMLParser):
    """The elements and the text of a page, as a browser's parser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.seen: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data
        else:
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())

    def element(self, name: str) -> dict[str, str | None]:
        return next(attributes for _, attributes in self.elements if attributes.get("id") == name)


def rendered(bundle: Bundle) -> str:
    report = analyze(bundle)
    return page.render(report, report.cloud.guests)


def unpacked(document: str, name: str) -> Any:
    text = document.partition(f'id="{name}">')[2].partition("<")[0]
    return json.loads(gzip.decompress(base64.b64decode(text)))


def data(document: str) -> Any:
    return json.loads(document.partition('id="data">')[2].partition("</script>")[0])


def server(document: str, name: str) -> Any:
    listed = data(document)
    [at] = [at for at, one in enumerate(listed) if one["name"] == name]
    return listed[at] | unpacked(document, "details")[at]


def box(one: Any, noun: str) -> Any:
    return next(found for found in one["boxes"] if found["noun"] == noun)


@pytest.fixture(scope="module")
def destroyed() -> str:
    return rendered(load(DESTROYED))


def test_the_answer_comes_first(destroyed: str) -> None:
    text = Document(destroyed[destroyed.index("<main") :]).text

    assert text.startswith(
        "✗ 1 error in 1 of 15 servers vm-plain Findings ✗ vm-plain is active in nova, but its domain"
        " is shut off (destroyed) since 17:24"
    )


def test_a_finding_is_complete_without_the_script(destroyed: str) -> None:
    text = Document(destroyed).text

    for part in (
        "active-but-domain-off",
        "vm_state = active",
        "state = shut off (destroyed)",
        "virsh domstate --reason instance-00000001",
        "What not to do yet",
        "13 more servers agree",
    ):
        assert part in text


def test_the_link_between_two_layers_that_differ_is_broken(destroyed: str) -> None:
    one = server(destroyed, "vm-plain")

    [broken] = one["breaks"]
    assert one["boxes"][broken["left"]]["layer"] == "nova database"
    assert one["boxes"][broken["right"]]["layer"] == "libvirt"
    assert broken["values"] == [["vm_state = active"], ["state = shut off (destroyed)"]]
    assert box(one, "domain")["severity"] == "error"
    assert box(one, "server")["severity"] == ""


def test_values_of_one_name_break_the_link_where_they_differ(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        host.edit("libvirt", query, ">1</vcpu>", ">2</vcpu>")

    one = server(rendered(host.bundle), "vm-plain")

    nouns = [box["noun"] for box in one["boxes"]]
    pairs = [(nouns[broken["left"]], nouns[broken["right"]]) for broken in one["breaks"]]
    assert pairs == [("instance", "domain")]


def test_a_server_without_findings_has_no_broken_link(destroyed: str) -> None:
    one = server(destroyed, "vm-duo")

    assert one["verdict"] == "agrees"
    assert one["breaks"] == []
    assert {box["severity"] for box in one["boxes"]} == {""}


def test_a_disk_is_drawn_down_to_its_image(destroyed: str) -> None:
    [chain] = server(destroyed, "vm-duo")["disks"]

    assert [station[0] for station in chain] == [
        "in the guest",
        "qcow2 image",
        "base image",
        "glance image",
    ]
    assert chain[0][1] == "vda"
    assert chain[3][1] == "lab-guest"


def test_a_missing_base_is_drawn_as_missing() -> None:
    document = rendered(load(ROOT / "fixtures/faults/base-moved.json.zst"))

    [chain] = server(document, "vm-snap")["disks"]

    missing = next(station for station in chain if station[3] == "absent")
    assert missing[:3] == ["base image", missing[1], "is missing"]
    assert missing[4] == "/var/lib/nova/instances/_base/6b069ff17bbc9dcf65dedf4bb2ff93d0d763d727"


def test_a_port_is_drawn_out_to_its_router(destroyed: str, host: RecordedHost) -> None:
    [chain] = server(rendered(healthy()), "vm-snap")["ports"]
    tap = "tap" + host.ports("vm-snap")[0]["id"][:11]

    assert [station[0] for station in chain][:5] == [
        "in the guest",
        "neutron port",
        "tap",
        "bridge",
        "network",
    ]
    assert chain[2][1] == tap
    assert chain[3][1] == "br-int"


def test_a_renamed_tap_is_drawn_as_absent() -> None:
    document = rendered(load(ROOT / "fixtures/faults/tap-deleted.json.zst"))
    taps = [
        (one["name"], station[3])
        for one in (server(document, listed["name"]) for listed in data(document) if listed["host"])
        for chain in one["ports"]
        for station in chain
        if station[0] == "tap" and one["verdict"] in ("error", "warning")
    ]

    assert taps and {state for _, state in taps} == {"absent"}


def test_every_box_leads_to_the_answers_that_it_was_read_from(destroyed: str) -> None:
    answers = unpacked(destroyed, "answers")
    one = server(destroyed, "vm-plain")

    queries = {answers[number]["query"] for number in box(one, "domain")["answers"]}
    assert "virsh domstate --reason instance-00000001" in queries
    absent = box(one, "process")
    assert absent["state"] == "absent"
    [listing] = absent["answers"]
    assert answers[listing]["query"] == "ls -l /proc/*/exe"


def test_evidence_leads_to_the_recorded_answer(destroyed: str) -> None:
    answers = unpacked(destroyed, "answers")
    bundle = load(DESTROYED)
    buttons = [
        attributes["data-answer"]
        for tag, attributes in Document(destroyed).elements
        if tag == "button" and "data-answer" in attributes
    ]

    shown = [answers[int(number or "")] for number in buttons]
    assert len(shown) == 3
    for one in shown:
        recorded = {answer.query: answer for answer in bundle.answers}[one["query"]]
        value = recorded.value
        if isinstance(value, str):
            assert one["text"] == value.expandtabs()


def test_a_long_answer_is_quoted_where_it_names_the_server(destroyed: str) -> None:
    answers = unpacked(destroyed, "answers")
    uuid = server(destroyed, "vm-plain")["uuid"]
    parts = [
        answers[number]
        for number in box(server(destroyed, "vm-plain"), "server")["answers"]
        if answers[number]["note"]
    ]

    assert parts
    for part in parts:
        assert uuid in part["text"]
        assert "entries that name the server" in part["note"]
        assert len(part["text"]) <= verbatim.LONGEST


def test_a_refusing_control_plane_is_no_agreement() -> None:
    document = rendered(load(ROOT / "fixtures/faults/db-down.json.zst"))
    text = Document(document).text

    assert "14 servers: no findings, but not every layer answered" in text
    assert "Asked, but no answer nova API : 127.0.0.1:5000: connection closed" in text
    assert {one["verdict"] for one in data(document)} == {"undecided"}


def test_a_shared_finding_is_shown_for_each_of_its_servers(host: RecordedHost) -> None:
    for name in ("vm-plain", "vm-duo", "vm-data", "vm-snap"):
        host.end(name)

    document = rendered(host.bundle)

    found = {one["name"] for one in data(document) if one["findings"]}
    assert found >= {"vm-plain", "vm-duo", "vm-data", "vm-snap"}


def test_the_policy_allows_this_script_and_this_style_alone(destroyed: str) -> None:
    document = Document(destroyed)
    [policy] = [
        attributes["content"]
        for tag, attributes in document.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    style, _, _, _, script = document.scripts

    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, script)
    ]
    assert policy is not None
    assert policy.split("; ")[:3] == [
        "default-src 'none'",
        f"style-src {hashes[0]}",
        f"script-src {hashes[1]}",
    ]
    assert "unsafe" not in policy


def test_it_refers_to_nothing_outside_of_itself(destroyed: str) -> None:
    for tag, attributes in Document(destroyed).elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {
            name for name in attributes if name.startswith("on") or name in ("src", "style")
        }
        assert (attributes.get("href") or "#").startswith("#")
    for file in ("page.css", "page.js"):
        text = (Path(page.__file__).parent / file).read_text()
        assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text) == []
        assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text) == []


def hostile() -> Bundle:
    """The recording with hostile text in place of names of a server, a network, a host and more."""
    host = RecordedHost(healthy())
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, display_name=HOSTILE, vm_state=HOSTILE, task_state=HOSTILE)
    host.end("vm-plain")
    port = host.ports("vm-duo")[0]["id"]
    host.port(port, status=HOSTILE, mac_address=HOSTILE)
    host.set("host", "nova-compute --version", HOSTILE)
    return host.bundle


def test_text_of_a_bundle_stays_text() -> None:
    plain, document = rendered(healthy()), rendered(hostile())

    tags = {tag for tag, _ in Document(plain).elements}
    found = Document(document)
    assert {tag for tag, _ in found.elements} <= tags | {
        "article",
        "header",
        "h3",
        "dl",
        "dt",
        "dd",
    } | {"ol", "button", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert len(found.scripts) == 5
    assert found.scripts[-1] == Document(plain).scripts[-1]
    assert "49" not in re.findall(r"alert\(1\)>(.{0,10})", document)
    assert "<img src=x onerror=alert(1)>{{7*7}}" in found.text
    assert "\u202e" not in document and "\u2028" not in document


def test_endless_names_do_not_make_an_endless_page() -> None:
    endless = "x" * 300_000
    host = RecordedHost(healthy())
    host.row("instances", host.uuid("vm-plain"), display_name=endless, vm_state=endless)
    host.end("vm-plain")
    for port in host.ports("vm-duo"):
        host.port(port["id"], status=endless, mac_address=endless)
    query = f"virsh dumpxml {host.domain('vm-snap')}"
    host.edit("libvirt", query, "148ab7d4-5c5f-420e-85dd-eb24494f9617/disk'", f"{endless}'")

    assert len(rendered(host.bundle)) < 1_000_000


@settings(max_examples=15)
@given(st.text(max_size=60))
def test_any_name_leaves_the_page_whole(name: str) -> None:
    host = RecordedHost(healthy())
    host.row("instances", host.uuid("vm-plain"), display_name=name + "\0<")
    host.end("vm-plain")

    found = Document(rendered(host.bundle))

    assert len(found.scripts) == 5
    json.loads(found.scripts[1])
    for text in found.seen:
        assert all(char.isprintable() or char == "\n" for char in text)


def test_it_is_written_to_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "report.html"

    done = hoodsnap("explain", DESTROYED, "--format", "html", "-o", file)

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"hoodsnap: wrote {file}\n"
    assert file.read_text().startswith("<!doctype html>\n")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("format", ["text", "json", "markdown"])
def test_other_formats_are_written_to_a_file_as_they_are_printed(
    tmp_path: Path, format: str
) -> None:
    file = tmp_path / "report"

    printed = hoodsnap("explain", DESTROYED, "--format", format)
    done = hoodsnap("explain", DESTROYED, "--format", format, "-o", file)

    assert (done.returncode, done.stdout) == (1, b"")
    assert file.read_bytes() == printed.stdout


@pytest.mark.parametrize(
    "given", [Path.absolute, lambda bundle: bundle.parent], ids=["file", "folder"]
)
def test_a_report_does_not_overwrite_its_bundle(
    tmp_path: Path, given: Callable[[Path], Path]
) -> None:
    bundle = tmp_path / "bundle.json.zst"
    save(healthy(), bundle)
    before = bundle.read_bytes()

    done = hoodsnap("explain", given(bundle), "-o", bundle)

    assert done.returncode == 2
    assert b"it would overwrite" in done.stderr
    assert bundle.read_bytes() == before


def test_a_report_that_can_not_be_written_is_status_3(tmp_path: Path) -> None:
    done = hoodsnap("explain", HEALTHY, "-o", tmp_path / "no" / "report.txt")

    assert done.returncode == 3
    assert done.stderr.decode().endswith("can't be written: No such file or directory\n")


def test_the_page_is_the_same_whatever_the_terminal_can_show(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    hoodsnap("explain", DESTROYED, "--format", "html", "-o", file)

    done = process(
        *("explain", DESTROYED, "--format", "html"),
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )

    assert done.stdout == file.read_bytes()


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    (tmp_path / "jinja2.py").write_text("raise ModuleNotFoundError('no', name='jinja2')\n")

    done = process("explain", HEALTHY, "--format", "html", PYTHONPATH=str(tmp_path))

    assert done.returncode == 3
    assert b"jinja2" in done.stderr and b"hoodsnap[reports]" in done.stderr
    assert done.stderr.count(b"\n") == 1
