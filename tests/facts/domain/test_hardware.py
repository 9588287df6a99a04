"""CPUs, firmware, consoles, TPMs and host devices in a domain's XML."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.facts.domain.domain_xml import DomainXML, read_domain_xml
from hoodsnap.facts.domain.hardware import (
    Graphics,
    HostDevice,
    Label,
    Tpm,
    read_cpus,
    read_machine_types,
    tpm_state,
)
from hoodsnap.facts.domain.xml import parsed
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.process.command_line import Display, read_command_line


def domain(devices: str = "", rest: str = "") -> DomainXML:
    return read_domain_xml(f"<domain><devices>{devices}</devices>{rest}</domain>")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("3", {3}),
        ("0-3,8", {0, 1, 2, 3, 8}),
        ("0-3,^2", {0, 1, 3}),
        ("1, 5-6", {1, 5, 6}),
    ],
)
def test_lists_of_cpus_are_read(text: str, cpus: set[int]) -> None:
    assert read_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "1-", "0-99999999", "1,,2", None])
def test_an_unreadable_list_of_cpus_is_unheard(text: str | None) -> None:
    with pytest.raises(UnheardError):
        read_cpus(text)


@given(st.text(max_size=12))
def test_any_text_is_a_list_of_cpus_or_unheard(text: str) -> None:
    with suppress(UnheardError):
        assert all(0 <= cpu < 1 << 20 for cpu in read_cpus(text))


def test_consoles_are_read() -> None:
    xml = domain(
        """<graphics type='vnc' port='5903' autoport='yes' listen='0.0.0.0'>
             <listen type='address' address='0.0.0.0'/></graphics>
           <graphics type='spice' port='-1' autoport='yes' passwdValidTo='2026-01-01T00:00:00'/>
           <graphics type='vnc'><listen type='socket' socket='/run/x.sock'/></graphics>"""
    )

    assert xml.graphics == (
        Graphics("vnc", 5903, ("0.0.0.0",), password=False),  # noqa: S104 (it is read)
        Graphics("spice", None, (), password=True),
        Graphics("vnc", None, (), password=False),
    )


@pytest.mark.parametrize(
    ("words", "consoles"),
    [
        ("-vnc 127.0.0.1:3", [Display("vnc", "127.0.0.1", 5903, False)]),
        ("-vnc :0,password=on", [Display("vnc", "", 5900, True)]),
        ("-vnc [::]:11,tls-creds=vnc-tls-creds0", [Display("vnc", "::", 5911, True)]),
        ("-vnc 0.0.0.0:1,password=off", [Display("vnc", "0.0.0.0", 5901, False)]),  # noqa: S104
        ("-vnc vnc=unix:/run/vnc.sock", []),
        ("-vnc none", []),
        (
            "-spice port=5905,addr=10.0.0.1,disable-ticketing=on",
            [Display("spice", "10.0.0.1", 5905, False)],
        ),
    ],
)
def test_consoles_are_read_from_a_command_line(words: str, consoles: list[Display]) -> None:
    assert read_command_line(["qemu", *words.split()]).graphics == tuple(consoles)


def test_firmware_and_its_variable_store_are_read() -> None:
    xml = domain(
        rest="""<os><type machine='q35'>hvm</type>
          <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
          <nvram template='/usr/share/OVMF/OVMF_VARS.fd'>/var/lib/libvirt/qemu/nvram/a_VARS.fd</nvram>
        </os>"""
    )

    assert xml.firmware == (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/var/lib/libvirt/qemu/nvram/a_VARS.fd",
    )
    assert domain(rest="<os><type>hvm</type></os>").firmware == (None, None)


def test_the_path_of_a_tpms_state_has_its_uuid_and_version() -> None:
    xml = domain(
        """<tpm model='tpm-crb'><backend type='emulator' version='2.0'>
             <encryption secret='6DD3E4A5-0000-4000-8000-000000000000'/></backend></tpm>
           <tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"""
    )

    assert xml.tpms == (Tpm("2.0", None, "6dd3e4a5-0000-4000-8000-000000000000"),)
    assert tpm_state("u", "2.0") == "/var/lib/libvirt/swtpm/u/tpm2/tpm2-00.permall"
    assert tpm_state("u", "1.2") == "/var/lib/libvirt/swtpm/u/tpm1.2/tpm-00.permall"


def test_host_devices_are_read() -> None:
    address = "<source><address {}domain='0x0000' bus='0x81' slot='0x00' function='0x1'/></source>"
    xml = domain(
        f"""<hostdev mode='subsystem' type='pci'>{address.format("")}</hostdev>
            <hostdev mode='subsystem' type='mdev'>
              <source><address uuid='4B20D080-1B54-4048-85B3-A6A62D165C01'/></source></hostdev>
            <hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev>
            <interface type='hostdev'>{address.format("type='pci' ")}</interface>
            <interface type='bridge'><source bridge='br0'/></interface>"""
    )

    pci = HostDevice("pci", "0000:81:00.1")
    assert xml.host_devices == (
        pci,
        HostDevice("mdev", "4b20d080-1b54-4048-85b3-a6a62d165c01"),
        pci,
    )


def test_pins_labels_and_logs_are_read() -> None:
    xml = domain(
        """<serial type='pty'><log file='/i/u/console.log' append='off'/></serial>
           <console type='pty'><log file='/i/u/console.log' append='off'/></console>
           <console type='file'><source path='/i/u/old.log'/></console>""",
        """<cputune><shares>1</shares><vcpupin vcpu='0' cpuset='2-3'/><emulatorpin cpuset='9'/></cputune>
           <seclabel type='dynamic' model='selinux' relabel='yes'>
             <label>system_u:system_r:svirt_t:s0:c1,c2</label>
             <imagelabel>system_u:object_r:svirt_image_t:s0:c1,c2</imagelabel></seclabel>
           <seclabel type='none' model='dac'/>""",
    )

    assert xml.logs == ("/i/u/console.log", "/i/u/old.log")
    assert xml.pins == {0: {2, 3}}
    assert xml.labels == (
        Label(
            "selinux",
            True,
            "system_u:object_r:svirt_image_t:s0:c1,c2",
            "system_u:system_r:svirt_t:s0:c1,c2",
        ),
        Label("dac", False, None),
    )


MACHINES = """<capabilities><host/><guest><os_type>hvm</os_type><arch name='x86_64'>
  <emulator>/usr/bin/qemu-system-x86_64</emulator>
  <machine maxCpus='255'>pc-i440fx-7.2</machine>
  <machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine>
  <machine maxCpus='255'>pc-i440fx-2.11</machine>
  <domain type='kvm'><machine maxCpus='288'>pc-q35-7.2</machine></domain></arch></guest></capabilities>"""


def test_machine_types_and_aliases_are_read() -> None:
    [types] = read_machine_types(parsed(MACHINES)).values()

    assert types.names >= {"pc", "pc-i440fx-7.2", "pc-i440fx-2.11", "pc-q35-7.2"}
    assert types.emulators == {"/usr/bin/qemu-system-x86_64"}
    assert types.same("pc", "pc-i440fx-7.2")
    assert not types.same("pc", "pc-i440fx-2.11")
    assert types.fits("pc", "pc-i440fx-2.11")  # an alias accepts any version
    assert not types.fits("pc", "pc-q35-7.2")
    assert not types.fits("pc-i440fx-7.2", "pc-i440fx-2.11")
