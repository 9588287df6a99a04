"""QEMU as it was started."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost


def _start(host: RecordedHost, name: str, old: str, new: str) -> None:
    """Let the guest's QEMU have been started with another command line."""
    host.edit("kernel", f"/proc/{host.pid(name)}/cmdline", old, new)


def _status(host: RecordedHost, name: str, old: str, new: str) -> None:
    host.edit("kernel", f"/proc/{host.pid(name)}/status", old, new)


def test_qemu_started_differently(host: RecordedHost) -> None:
    _start(host, "vm-plain", "-accel\0tcg", "-accel\0kvm")

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert finding.headline == (
        "vm-plain's accelerator is tcg in libvirt, but its QEMU was started with kvm"
    )
    assert host.findings() == [
        "qemu-started-differently of vm-plain: domain reports accelerator = tcg;"
        " process reports accelerator = kvm"
    ]


@pytest.mark.parametrize(
    ("old", "new", "headline"),
    [
        ("-cpu\0EPYC,", "-cpu\0Nehalem,", "CPU model is EPYC in libvirt"),
        ("cores=1", "cores=2", "number of cores is 1 in libvirt"),
        ("version=26.2.2", "version=25.0.0", "SMBIOS version is 26.2.2 in libvirt"),
        ("serial=", "serial=0", "SMBIOS serial is "),
        ("base=utc", "base=localtime", "clock is utc in libvirt"),
        ('"/dev/urandom"', '"/dev/random"', "source of random numbers is /dev/urandom in libvirt"),
        ('"size":67108864', '"size":134217728', "QEMU was started with 65536 KiB of memory"),
        ('"host_mtu":1450', '"host_mtu":1500', "has MTU 1450 in libvirt"),
        ("/usr/bin/qemu-system-x86_64\0", "/opt/qemu-system-x86_64\0", "emulator is /usr/bin"),
    ],
)
def test_other_settings_on_the_command_line_are_found(
    host: RecordedHost, old: str, new: str, headline: str
) -> None:
    _start(host, "vm-plain", old, new)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("qemu-started-differently", "warning")
    assert headline in finding.headline


def test_a_process_that_is_another_program_is_found(host: RecordedHost) -> None:
    query = f"readlink /proc/{host.pid('vm-plain')}/exe"
    host.set("kernel", query, "/usr/bin/qemu-system-i386")

    [finding] = host.report().findings
    assert finding.headline == (
        f"vm-plain's process {host.pid('vm-plain')} is /usr/bin/qemu-system-i386, but it was "
        "started as /usr/bin/qemu-system-x86_64"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-accel\0tcg", "-accel\0tcg,thread=multi"),
        ("-rtc\0base=utc", "-rtc\0base=utc,driftfix=slew"),
    ],
)
def test_what_libvirt_adds_to_a_setting_is_no_difference(
    host: RecordedHost, old: str, new: str
) -> None:
    _start(host, "vm-plain", old, new)

    assert host.findings() == []


def test_a_link_to_the_program_is_no_difference(host: RecordedHost) -> None:
    query = f"readlink /proc/{host.pid('vm-plain')}/exe"
    host.set("kernel", query, "/usr/libexec/qemu-kvm")

    assert host.findings() == []


def test_qemu_runs_as_another_user(host: RecordedHost) -> None:
    _status(host, "vm-plain", "Uid:\t64055\t64055", "Uid:\t0\t0")

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert finding.headline == (
        f"vm-plain's QEMU (PID {host.pid('vm-plain')}) runs as 0:64055, but libvirt started it as "
        "64055:64055"
    )


def test_a_user_that_the_next_start_changes_is_a_warning(host: RecordedHost) -> None:
    capabilities = str(host.last("libvirt", "virsh capabilities").value)
    old = "<baselabel type='kvm'>+64055:+64055</baselabel>"
    assert capabilities.count(old) == 1
    new = capabilities.replace("+64055:+64055", "+107:+107")
    host.set("libvirt", "virsh capabilities", new)

    found = [it for it in host.report().findings if it.check.name == "qemu-runs-as-another-user"]
    assert found and {it.severity.word for it in found} == {"warning"}
    assert "but libvirt would start" in found[0].headline


def test_numbers_of_another_user_namespace_are_not_compared(host: RecordedHost) -> None:
    _status(host, "vm-plain", "Uid:\t64055\t64055", "Uid:\t164055\t164055")
    query = f"readlink /proc/{host.pid('vm-plain')}/ns/*"
    spaces = host.last("kernel", query).value
    host.set("kernel", query, spaces | {"user": "user:[4026532999]"})

    assert [it for it in host.findings() if it.startswith("qemu-runs-as")] == []


def test_qemu_not_confined(host: RecordedHost) -> None:
    _status(host, "vm-plain", "Seccomp:\t2", "Seccomp:\t0")

    assert host.headlines() == [
        f"vm-plain's QEMU (PID {host.pid('vm-plain')}) does not filter its system calls, although "
        "it was started with -sandbox on"
    ]


def test_capabilities_of_an_ordinary_user_are_found(host: RecordedHost) -> None:
    none, some = "CapEff:\t0000000000000000", "CapEff:\t0000000000003000"
    _status(host, "vm-plain", none, some)

    assert host.headlines() == [
        f"vm-plain's QEMU (PID {host.pid('vm-plain')}) has capabilities (CapEff 0000000000003000),"
        " although it runs as user 64055"
    ]


def test_a_filter_that_is_off_by_configuration_is_quiet(host: RecordedHost) -> None:
    sandbox = "-sandbox\0on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\0"
    _start(host, "vm-plain", sandbox, "")
    _status(host, "vm-plain", "Seccomp:\t2", "Seccomp:\t0")

    assert host.findings() == []


def test_a_card_that_was_started_in_place_of_libvirts_is_found(host: RecordedHost) -> None:
    mac = host.guest("vm-plain").domain.macs[0]  # type: ignore[union-attr]
    _start(host, "vm-plain", mac, "fa:16:3e:00:00:01")

    assert [line for line in host.headlines() if "network card" in line] == [
        f"vm-plain has network card {mac} in libvirt, but its QEMU was started with"
        " fa:16:3e:00:00:01"
    ]


def test_a_volume_that_was_started_in_place_of_libvirts_is_found(host: RecordedHost) -> None:
    [serial] = [disk.serial for disk in host.guest("vm-bfv").domain.disks if disk.serial]  # type: ignore[union-attr]
    _start(host, "vm-bfv", f'"serial":"{serial}"', f'"serial":"0000{serial[4:]}"')

    assert any("vm-bfv has volume" in line for line in host.headlines())


def test_a_card_may_have_been_plugged_in_later(host: RecordedHost) -> None:
    uuid, mac = host.uuid("vm-plain"), host.guest("vm-plain").domain.macs[0]  # type: ignore[union-attr]
    _start(host, "vm-plain", mac, "fa:16:3e:00:00:01")
    host.row("instance_actions", uuid, action="attach_interface")

    assert [line for line in host.headlines() if "network card" in line] == []


def test_another_cpu_feature_is_found(host: RecordedHost) -> None:
    _start(host, "vm-plain", ",acpi=on", ",acpi=off")

    [finding] = host.report().findings
    assert finding.check.name == "qemu-started-differently"
    assert "CPU feature acpi is on in libvirt" in finding.headline


def test_a_cpu_feature_that_qemu_could_not_give_is_off_in_libvirt(host: RecordedHost) -> None:
    _start(host, "vm-plain", ",vme=off", ",vme=on")

    assert host.findings() == []


def test_a_qemu_that_kept_another_users_ids_is_found(host: RecordedHost) -> None:
    _status(host, "vm-plain", "Uid:\t64055\t64055\t64055\t64055", "Uid:\t64055\t64055\t0\t64055")

    [finding] = host.report().findings
    assert finding.check.name == "qemu-runs-as-another-user"
    assert "runs as 64055:64055, but has kept the ids of 0:64055" in finding.headline
