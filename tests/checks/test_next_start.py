"""The guest's next start through libvirt."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost


def _stored(host: RecordedHost, name: str) -> str:
    return f"virsh dumpxml --inactive {host.domain(name)}"


def test_live_vs_persistent_drift(host: RecordedHost) -> None:
    host.edit("libvirt", _stored(host, "vm-duo"), "<vcpu placement='static'>2<", "<vcpu>4<")

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        "live-vs-persistent-drift of vm-duo: domain reports vcpus = 2; domain reports next_vcpus = 4"
    ]
    assert host.headlines() == [
        "vm-duo runs with 2 vCPUs, but libvirt would start it with 4 vCPUs",
    ]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("listen='127.0.0.1'>", "listen='0.0.0.0'>", "console addresses"),
        ("</devices>", "<interface type='ethernet'><mac address='52:54:00:00:00:01'/></interface>"
         "</devices>", "network cards"),
        ("</devices>", "<hostdev mode='subsystem' type='mdev'><source><address uuid='a-b'/></source>"
         "</hostdev></devices>", "host devices"),
    ],
)  # fmt: skip
def test_live_vs_persistent_drift_of_devices(
    host: RecordedHost, old: str, new: str, part: str
) -> None:
    host.edit("libvirt", _stored(host, "vm-plain"), old, new)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("live-vs-persistent-drift", "note")
    name = part.replace(" ", "_")
    assert f"domain reports {name} = " in host.findings()[0]
    assert f"domain reports next_{name} = " in host.findings()[0]
    assert finding.headline.startswith(f"vm-plain has other {part} at its next start")


def test_what_libvirt_adds_to_a_running_guest_is_not_drift(host: RecordedHost) -> None:
    live = host.last("libvirt", f"virsh dumpxml {host.domain('vm-plain')}").value
    stored = host.last("libvirt", _stored(host, "vm-plain")).value
    assert "<alias" in live and "<alias" not in stored

    assert host.findings() == []


def test_a_transient_domain_has_no_persistent_definition(host: RecordedHost) -> None:
    name = host.domain("vm-duo")
    info = host.last("libvirt", f"virsh dominfo {name}").value
    host.set("libvirt", f"virsh dominfo {name}", info | {"persistent": False})
    host.edit("libvirt", _stored(host, "vm-duo"), "<vcpu placement='static'>2<", "<vcpu>4<")

    assert not [it for it in host.findings() if it.startswith("live-vs-persistent")]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("<acpi/>", "", "features/acpi yes now, none then"),
        ("arch='x86_64'", "arch='i686'", "os/type/@arch x86_64 now, i686 then"),
        ("cache='none'", "cache='writeback'", "disk[vda]/driver/@cache none now, writeback then"),
        ("<target dev='tap", "<target dev='vap", "/target/@dev tap"),
        ("heads='1'", "heads='2'", "video/model/@heads 1 now, 2 then"),
        (">/dev/urandom<", ">/dev/random<", "rng/backend /dev/urandom now, /dev/random then"),
        ("<on_crash>destroy<", "<on_crash>preserve<", "on_crash destroy now, preserve then"),
        ("<stats period='10'/>", "<stats period='5'/>", "memballoon/stats/@period 10 now, 5 then"),
        ("<entry name='version'>26.2.2<", "<entry name='version'>25.0.0<",
         "sysinfo/system/entry[version] 26.2.2 now, 25.0.0 then"),
    ],
)  # fmt: skip
def test_other_settings_at_the_next_start_are_a_note(
    host: RecordedHost, old: str, new: str, changed: str
) -> None:
    host.edit("libvirt", _stored(host, "vm-plain"), old, new)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("live-vs-persistent-drift", "note")
    assert changed in finding.headline


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("<domain type='qemu'", "<domain type='kvm'", "virtualization"),
        ("/usr/bin/qemu-system-x86_64<", "/usr/bin/qemu-system-i386<", "emulators"),
        ("<cpu mode='host-model' check='partial'>", "<cpu mode='host-passthrough'>", "CPU modes"),
        ("<nova:memory>64<", "<nova:memory>128<", "nova metadata"),
    ],
)
def test_other_parts_at_the_next_start_are_a_note(
    host: RecordedHost, old: str, new: str, part: str
) -> None:
    host.edit("libvirt", _stored(host, "vm-plain"), old, new)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("live-vs-persistent-drift", "note")
    assert f"vm-plain has other {part}" in finding.headline


def test_a_balloon_in_the_stored_definition_is_found(host: RecordedHost) -> None:
    host.edit(
        "libvirt",
        _stored(host, "vm-plain"),
        "<currentMemory unit='KiB'>65536<",
        "<currentMemory unit='KiB'>32768<",
    )

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("live-vs-persistent-drift", "warning")
    assert finding.headline == (
        "vm-plain would start through libvirt with 32 MiB of its 64 MiB of memory"
    )


def test_a_card_that_is_named_at_its_start_is_no_drift(host: RecordedHost) -> None:
    card = host.guest("vm-plain").domain.taps[0]  # type: ignore[union-attr]
    host.edit("libvirt", _stored(host, "vm-plain"), f"<target dev='{card}'/>", "")

    assert host.findings() == []


def test_a_note_that_an_attached_port_rewrote_is_no_drift(host: RecordedHost) -> None:
    host.edit("libvirt", _stored(host, "vm-plain"), "<nova:name>vm-plain<", "<nova:name>before<")

    assert host.findings() == []
