"""A redacted bundle identifies nobody, and has the same findings."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.command import hoodsnap
from tests.conftest import FAULTS, HEALTHY, MONITORS, ROOT, RecordedHost, healthy, sample

from hoodsnap.bundle import Bundle, dump, load, merge
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.finding import Finding
from hoodsnap.redaction.names import COMMON
from hoodsnap.redaction.pseudonyms import Pseudonyms
from hoodsnap.redaction.redactor import Redactor, any_of
from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.libvirtd import Libvirtd
from hoodsnap.replay.libvirtd.procedure import REMOTE
from hoodsnap.replay.mysqld.database import QueryResult, ReplayedDatabase
from hoodsnap.replay.recording import Recording, hosts
from hoodsnap.trust.fingerprint import fingerprint, fingerprinted, signed, verify

PSEUDONYMS = Pseudonyms(b"k" * 32)

PAIRS: dict[str, list[Path]] = {}
for _path in sorted((ROOT / "fixtures/two-hosts").glob("*.json.zst")):
    PAIRS.setdefault(_path.name.split(".")[0], []).append(_path)

RECORDED = [[HEALTHY], [MONITORS], *PAIRS.values()]
RECORDED += sample([[path] for path in sorted(FAULTS.glob("*.json.zst"))], 12)


def redacted(bundle: Bundle) -> Bundle:
    return Redactor(PSEUDONYMS, [bundle]).bundle(bundle)


@cache
def healthy_redactor() -> Redactor:
    return Redactor(PSEUDONYMS, [healthy()])


@cache
def redacted_healthy() -> Bundle:
    return healthy_redactor().bundle(healthy())


def told(report: Report, text: Callable[[str], str]) -> Counter[object]:
    """Return every finding, with every text in it rewritten. Pseudonyms sort differently, so lists
    and evidence are compared without their order, and what represents a crowd is not compared."""

    def unordered(value: object) -> tuple[str, ...]:
        return tuple(sorted(re.split("[ ,]+", text(str(value)))))

    return Counter(
        (
            finding.check.name,
            finding.severity,
            text(finding.host or ""),
            frozenset((text(guest.uuid), text(guest.name or "")) for guest in finding.guests),
            None
            if finding.shared or is_sample(finding)
            else tuple(
                sorted(
                    (piece.layer, piece.noun, text(name), unordered(value))
                    for piece in finding.evidence
                    for name, value in piece.said
                )
            ),
        )
        for finding in report.everything()
    )


def is_sample(finding: Finding) -> bool:
    """True if the evidence names only the first of many."""
    return any(name == "of_so_many" for piece in finding.evidence for name, _ in piece.said)


def unjudged(report: Report, text: Callable[[str], str]) -> Counter[object]:
    """Return every skip, with every text in it rewritten."""
    return Counter(
        (
            skip.check.name,
            text(skip.host or ""),
            text(skip.guest.uuid if skip.guest else ""),
            text(skip.reason),
            skip.legal,
            skip.differs,
        )
        for skip in report.skips
    )


@pytest.mark.parametrize("paths", RECORDED, ids=lambda paths: paths[0].name.split(".")[0])
def test_the_findings_are_the_same_under_pseudonyms(paths: list[Path]) -> None:
    bundles = [load(path) for path in paths]
    # Each host redacts its own bundle, by the same key; only the test knows both.
    redactors = [Redactor(PSEUDONYMS, [bundle]) for bundle in bundles]
    redactor = redactors[0] if len(bundles) == 1 else Redactor(PSEUDONYMS, bundles)

    redacted = [own.bundle(bundle) for own, bundle in zip(redactors, bundles, strict=True)]
    report = analyze(merge(redacted))

    original = analyze(merge(bundles))
    assert told(report, str) == told(original, redactor.text)
    assert unjudged(report, str) == unjudged(original, redactor.text)


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40
) | st.sampled_from([*sorted(COMMON), "a&b", 'the "best"', "it's", "é", "web", "web-1", "1", "."])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, other=NAMES)
def test_the_findings_do_not_depend_on_a_servers_name(name: str, other: str) -> None:
    host = RecordedHost(healthy())
    uuid, off = host.uuid("vm-plain"), host.uuid("vm-stopped")
    host.row("instances", uuid, display_name=name, hostname=name, vm_state="stopped", power_state=4)
    host.row("instances", off, display_name=other, task_state="deleting")
    redactor = Redactor(PSEUDONYMS, [host.bundle])

    original, report = host.report(), analyze(redactor.bundle(host.bundle))

    assert original.findings
    assert told(report, str) == told(original, redactor.text)


def test_no_id_and_no_name_remains() -> None:
    written, redactor = dump(redacted_healthy()).decode(), healthy_redactor()
    original = dump(healthy()).decode()

    # All but the number of nova's cell0, which every cloud has.
    for looks in (
        r"[0-9a-f]{8}-[0-9a-f]{4}-",
        r"\b[0-9a-f]{8}-[0-9a-f]{2}\b",
        r"\bfa:16:3e:[0-9a-f:]+",
    ):
        seen = set(re.findall(looks, original)) - {"00000000-0000-"}
        assert seen
        assert not seen & set(re.findall(looks, written))
    assert {"vm-plain", "lab-net", "lab.tiny", "vm"} <= redactor.identities.names
    # The host is called like the beginning of two of Open vSwitch's keys.
    written = re.sub(r"\bvm-(?:uu)?id\b", "", written)
    for name in redactor.identities.names:
        assert not re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", written)


def test_only_addresses_that_identify_nobody_remain() -> None:
    looks = r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.])"
    before, after = (
        set(re.findall(looks, dump(bundle).decode())) for bundle in (healthy(), redacted_healthy())
    )

    stay = {"127.0.0.1", "169.254.169.254", "255.255.255.0"}
    assert {address for address in before & after if not address.startswith("0.")} <= stay
    assert len(before) == len(after)


def test_the_same_bundle_and_key_give_the_same_bytes() -> None:
    assert dump(redacted(healthy())) == dump(redacted_healthy())


def test_times_are_kept() -> None:
    collected = [its for its in healthy().answers if its.layer != "hoodsnap"]
    for before, after in zip(collected, redacted_healthy().answers, strict=True):
        assert (before.layer, before.at, before.took) == (after.layer, after.at, after.took)
        assert (before.error and before.error.kind) == (after.error and after.error.kind)


def summed(how: str, text: str) -> str:
    return hashlib.new(how, text.encode(), usedforsecurity=False).hexdigest()


def test_a_base_image_is_named_by_the_sha1_of_its_image_id(host: RecordedHost) -> None:
    image = host.last("glance", "GET /v2/images?limit=1000").value["images"][0]["id"]
    was = summed("sha1", image)

    text = healthy_redactor().text(f"/var/lib/nova/instances/_base/{was}_64")

    now = summed("sha1", healthy_redactor().text(image))
    assert text == f"/var/lib/nova/instances/_base/{now}_64"


def test_an_export_is_mounted_in_a_folder_named_by_its_md5(host: RecordedHost) -> None:
    export = "10.1.2.3:/srv/volumes"

    def moved(what: str, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"connection_info": {"export": export}} if what == "attachment" else body

    host.cinder(moved)
    redactor = Redactor(PSEUDONYMS, [host.bundle])

    mounted = summed("md5", export)

    now = redactor.text(export)
    assert now != export
    assert redactor.text(f"/mnt/{mounted}") == f"/mnt/{summed('md5', now)}"


PORT = "0b9bcb8c-2a4c-4b0e-9a4b-2f7de9f1c2aa"


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("tap{}", 11),
        ("qbr{}", 11),
        ("qvo{}", 11),
        ("vhu{}", 11),
        ("qr-{}", 11),
        (":neutron-openvswi-i{} - [0:0]", 10),
        ("NIPv4{}", 28),
        ("/dev/disk/by-id/virtio-{}-part1", 20),
        ("req-{}", 36),
        ("dhcp{}-x", 36),
        ("volume-{}.deleted", 36),
    ],
)
def test_a_name_derived_from_an_id_stays_derived_from_it(text: str, length: int) -> None:
    made = healthy_redactor().text(PORT)

    assert made != PORT
    assert healthy_redactor().text(text.format(PORT[:length])) == text.format(made[:length])


@pytest.mark.parametrize(
    "text",
    [
        "instance-0000000a",
        "/machine/qemu-1-instance-0000000a.libvirt-qemu",
        "pc-i440fx-7.2",
        "0000:00:1f.2",
        "2026-11-25 14:51:39.123456",
        "2026-11-25T14:51:39Z",
        "fe:00:1540274",
        "0::/machine.slice",
        "std::string",
        "0-1,2-3",
        "00000000-0000-0000-0000-000000000000",
        "5:7.2+dfsg-7+deb12u18+b3",
        "000001fffeffffff",
    ],
)
def test_text_that_only_resembles_an_id_is_kept(text: str) -> None:
    assert healthy_redactor().text(text) == text


def test_a_version_of_four_numbers_is_not_an_address(host: RecordedHost) -> None:
    [query] = {its.query for its in host.bundle.answers if its.query.startswith("dpkg-query")}
    host.set("host", query, "ceph-common\t10.2.11.1\npython3-nova\t26.2.2.1")

    [answer] = redacted(host.bundle).asked("host", "dpkg-query")

    assert answer.value == "ceph-common\t10.2.11.1\npython3-nova\t26.2.2.1"


@pytest.mark.parametrize("name", ['a "b"', "a&b<c>", "it's", "café", "two words", "a%20b", "a\\b"])
def test_a_name_is_found_in_every_format(host: RecordedHost, name: str) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name=name)
    redactor = Redactor(PSEUDONYMS, [host.bundle])
    other = PSEUDONYMS.name(name)

    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert redactor.text(f"<nova:name>{escaped}</nova:name>") == f"<nova:name>{other}</nova:name>"
    inner = json.dumps({"name": name})
    assert json.loads(redactor.text(inner)) == {"name": other}
    assert json.loads(json.loads(redactor.text(json.dumps(inner)))) == {"name": other}
    assert redactor.text(f"\0{name}\0") == f"\0{other}\0"


def test_a_host_name_that_begins_a_guest_name_is_separate() -> None:
    text = healthy_redactor().text

    assert text("vm@nfs#nfs") == f"{PSEUDONYMS.name('vm')}@nfs#nfs"
    assert text("vm-plain") == PSEUDONYMS.name("vm-plain")
    assert text("vm_state") == "vm_state"


def test_a_reason_set_by_nova_is_kept(host: RecordedHost) -> None:
    reason = "AUTO: Connection to libvirt lost: 0"
    asked = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    value = {"columns": ["id", "disabled_reason"], "rows": [[1, reason], [2, "by Alice"]]}
    query = "SELECT id, disabled_reason FROM nova.services"
    host.add(asked.model_copy(update={"query": query, "value": value}))
    redactor = Redactor(PSEUDONYMS, [host.bundle])

    assert redactor.text("by Alice") == PSEUDONYMS.name("by Alice")
    assert redactor.text(reason) == reason


def test_each_of_ten_thousand_names_is_found_whole() -> None:
    many = {f"web-{number:05}": PSEUDONYMS.name(str(number)) for number in range(10_000)}
    pattern = re.compile(any_of(many))

    text = " ".join(f"web-{number:05}" for number in range(0, 10_000, 7))

    assert len(pattern.findall(text)) == len(range(0, 10_000, 7))
    assert pattern.findall("web-00001x xweb-00001 web-00001_ web-0000") == []


@given(st.sets(st.text("ab-", min_size=1, max_size=60), min_size=1, max_size=30))
def test_the_longest_name_is_taken(names: set[str]) -> None:
    pattern = re.compile(any_of(names))

    for name in names:
        assert pattern.fullmatch(name)
        found = pattern.match(name)
        assert found
        assert found[0] == name


def test_the_recording_can_still_be_replayed() -> None:
    [name] = hosts(redacted_healthy())
    recording = Recording(redacted_healthy(), name)

    listed = recording.value("libvirt", "virsh list --all")
    assert isinstance(listed, list)
    daemon = Libvirtd(recording)
    for row in listed:
        domain = xdr.string(row["name"]) + UUID(row["uuid"]).bytes + xdr.int_(row["id"] or -1)
        reply = daemon.reply(struct.pack(">IIiIII", REMOTE, 1, 14, 0, 7, 0) + domain + xdr.uint(0))
        document = xdr.Reader(reply[28:]).string()
        assert row["uuid"] in document
    uuid = listed[0]["uuid"]
    result = ReplayedDatabase(recording).ask(
        f"SELECT id FROM instances WHERE uuid = '{uuid}'", "nova"
    )
    assert isinstance(result, QueryResult)
    numbers = [number for row in result.rows for number in row]
    assert [f"instance-{int(str(number)):08x}" for number in numbers] == [listed[0]["name"]]


def test_two_bundles_redacted_with_one_key_belong_together(tmp_path: Path) -> None:
    paths = PAIRS["healthy"]
    for number, path in enumerate(paths):
        out = tmp_path / f"{number}.json.gz"
        done = hoodsnap("redact", path, "-o", out, "--key-file", tmp_path / "key")
        assert done.returncode == 0

    done = hoodsnap("explain", tmp_path / "0.json.gz", tmp_path / "1.json.gz")

    assert done.returncode == 0
    assert b"compute2" not in done.stdout


def test_the_summary_contains_no_originals(tmp_path: Path) -> None:
    done = hoodsnap("redact", HEALTHY, "-o", tmp_path / "shared.json")

    assert done.returncode == 0
    assert re.search(rb"hoodsnap: UUID: [0-9]+, in [0-9]+ places", done.stderr)
    assert b"vm-plain" not in done.stderr
    assert b"vm-plain" not in (tmp_path / "shared.json").read_bytes()


def test_the_fingerprint_of_the_original_is_recorded(tmp_path: Path) -> None:
    hoodsnap("redact", HEALTHY, "-o", tmp_path / "shared.json")

    verdict = verify(load(tmp_path / "shared.json"))

    assert verdict.intact
    assert verdict.original == fingerprint(healthy())


def test_a_signature_is_removed(host: RecordedHost) -> None:
    sealed = signed(fingerprinted(host.bundle), "-----BEGIN SSH SIGNATURE-----")

    assert redacted(sealed).by_layer.get("hoodsnap") is None


def test_a_file_without_a_key_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")

    done = hoodsnap("redact", HEALTHY, "-o", tmp_path / "out.json", "--key-file", tmp_path / "key")

    assert done.returncode == 2
    assert not (tmp_path / "out.json").exists()
