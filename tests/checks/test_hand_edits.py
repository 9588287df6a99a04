"""Elements of a definition that nova never writes."""

from __future__ import annotations

import json

import pytest
from tests.conftest import RecordedHost

from hoodsnap.findings.advice import instructions

VDA = "<target dev='vda' bus='virtio'/>"


def _edit(host: RecordedHost, name: str, old: str, new: str, which: str = "both") -> None:
    """Edit a guest's running definition, its stored one, or both."""
    domain = host.domain(name)
    if which != "stored":
        host.edit("libvirt", f"virsh dumpxml {domain}", old, new)
    if which != "live":
        host.edit("libvirt", f"virsh dumpxml --inactive {domain}", old, new)


def _commands(host: RecordedHost) -> list[str]:
    finding = host.found("definition-not-novas")
    return [command.text for step in instructions(finding) for command in step.commands]


def test_definition_not_novas(host: RecordedHost) -> None:
    _edit(host, "vm-plain", "<on_reboot>restart<", "<on_reboot>destroy<")

    assert host.headlines() == [
        "vm-plain's running and stored definitions have on_reboot destroy, which nova did not "
        "write: a reboot inside the guest ends it"
    ]
    assert host.findings() == [
        "definition-not-novas of vm-plain: domain reports on_reboot = destroy;"
        " domain reports next on_reboot = destroy"
    ]
    assert f"openstack server reboot --hard {host.uuid('vm-plain')}" in _commands(host)


@pytest.mark.parametrize(
    ("new", "severity", "part"),
    [
        (f"{VDA}<transient/>", "error", "transient disk vda, which nova did not write: what is"),
        (f"{VDA}<shareable/>", "warning", "shareable disk vda"),
        ("{}<filesystem type='mount'><source dir='/etc'/><target dir='h'/></filesystem>",
         "warning", "the host's folder /etc"),
        ("{}<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/></filesystem>",
         "warning", "the host's folder /srv"),
        ("{}<hostdev mode='subsystem' type='usb'><source><vendor id='0x0529'/>"
         "<product id='0x0001'/></source></hostdev>", "warning", "the host's device usb 0529:0001"),
        ("{}<watchdog model='i6300esb' action='poweroff'/>", "note", "a watchdog (poweroff)"),
        ("{}<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", "note",
         "a TPM 2.0"),
        ("{}<disk type='file' device='cdrom'><source file='/root/rescue.iso'/>"
         "<target dev='hdc'/></disk>", "note", "CD-ROM hdc (/root/rescue.iso)"),
    ],
)  # fmt: skip
def test_what_nova_never_writes_is_found(
    host: RecordedHost, new: str, severity: str, part: str
) -> None:
    if new.startswith("{}"):
        _edit(host, "vm-plain", "</devices>", f"{new[2:]}</devices>")
    else:
        _edit(host, "vm-plain", VDA, new)

    finding = host.found("definition-not-novas")
    assert finding.severity.word == severity
    start = "vm-plain's running and stored definitions have"
    assert finding.headline.startswith(f"{start} {part}")


def test_arguments_of_qemu_and_filters(host: RecordedHost) -> None:
    arguments = "<qemu:commandline><qemu:arg value='-snapshot'/></qemu:commandline></domain>"
    _edit(host, "vm-plain", "</domain>", arguments)
    card = "<model type='virtio'/>\n      <driver name='qemu'/>"
    _edit(host, "vm-tenant", card, f"{card}<filterref filter='clean-traffic'/>")

    found = {it.guest.title if it.guest else "": it for it in host.report().findings}
    assert {name: it.severity.word for name, it in found.items()} == {
        "vm-plain": "warning",
        "vm-tenant": "note",
    }
    assert "QEMU argument -snapshot" in found["vm-plain"].headline
    assert "network filter clean-traffic" in found["vm-tenant"].headline


def test_nothing_ends_a_guest_whose_disk_is_transient(host: RecordedHost) -> None:
    _edit(host, "vm-plain", VDA, f"{VDA}<transient/>")

    commands = _commands(host)
    assert f"virsh domblklist --details {host.domain('vm-plain')}" in commands
    assert not [one for one in commands if "reboot" in one or "start" in one]


def test_a_guest_that_is_off_only_has_to_be_started(host: RecordedHost) -> None:
    new = f"{VDA}<transient/>"
    host.edit("libvirt", f"virsh dumpxml --inactive {host.domain('vm-stopped')}", VDA, new)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert finding.headline.startswith("vm-stopped's stored definition has transient disk vda")
    assert f"openstack server start {host.uuid('vm-stopped')}" in _commands(host)


def test_a_disk_in_the_stored_definition_of_a_guest_that_is_off(host: RecordedHost) -> None:
    disk = "<disk type='file' device='disk'><source file='/root/a.img'/><target dev='vdk'/></disk>"
    query = f"virsh dumpxml --inactive {host.domain('vm-stopped')}"
    host.edit("libvirt", query, "</devices>", f"{disk}</devices>")

    assert "disk vdk (/root/a.img)" in host.found("definition-not-novas").headline


def test_a_volume_without_its_serial_number(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    _edit(host, "vm-data", f"<serial>{volume}</serial>", "")

    finding = host.found("definition-not-novas")
    assert finding.severity.word == "warning"
    assert "volume vdb without a serial number" in finding.headline


def test_a_setting_of_one_definition_is_reported_once(host: RecordedHost) -> None:
    _edit(host, "vm-plain", "<on_reboot>restart<", "<on_reboot>destroy<", "stored")
    assert [it.check.name for it in host.report().findings] == ["live-vs-persistent-drift"]


def test_a_setting_of_the_running_guest_is_reported_once(host: RecordedHost) -> None:
    _edit(host, "vm-plain", "<on_reboot>restart<", "<on_reboot>destroy<", "live")

    [finding] = host.report().findings
    assert finding.check.name == "definition-not-novas"
    assert finding.headline.startswith("vm-plain's running definition has on_reboot destroy")


@pytest.mark.parametrize(
    "device",
    [
        "<watchdog model='itco' action='reset'/>",
        "<filesystem type='mount'><target dir='h'/></filesystem>",
        "<hostdev mode='subsystem' type='mdev'/>",
        "<disk type='file' device='cdrom'><target dev='hdc'/></disk>",
    ],
)
def test_what_libvirt_or_nova_may_have_written_is_legal(host: RecordedHost, device: str) -> None:
    _edit(host, "vm-plain", "</devices>", f"{device}</devices>")

    assert "definition-not-novas" not in "".join(host.findings())


@pytest.mark.parametrize(
    ("specs", "device"),
    [
        ({"hw:watchdog_action": "reset"}, "<watchdog model='i6300esb' action='reset'/>"),
        ({"hw:tpm_version": "2.0"},
         "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"),
    ],
)  # fmt: skip
def test_what_the_flavor_asks_for_is_legal(
    host: RecordedHost, specs: dict[str, str], device: str
) -> None:
    _edit(host, "vm-plain", "</devices>", f"{device}</devices>")
    assert "definition-not-novas of vm-plain" in "".join(host.findings())

    instance = host.guest("vm-plain").instance
    assert instance is not None and instance.instance_extra is not None
    stored = json.loads(str(instance.instance_extra["flavor"]))
    stored["cur"]["nova_object.data"]["extra_specs"] = specs
    host.cells("instance_extra", host.uuid("vm-plain"), flavor=json.dumps(stored))

    assert "definition-not-novas" not in "".join(host.findings())


def test_a_share_that_a_newer_nova_attaches_is_legal(host: RecordedHost) -> None:
    share = "<filesystem><driver type='virtiofs'/><source dir='/srv'/></filesystem></devices>"
    _edit(host, "vm-plain", "</devices>", share)
    assert "definition-not-novas of vm-plain" in "".join(host.findings())

    host.set("host", "nova-compute --version", "31.0.0")
    services = host.report().cloud.instances.hosts.services
    service = next(one for one in services if one.binary == "nova-compute")
    host.row("services", service.uuid or "", version=68)

    assert "definition-not-novas" not in "".join(host.findings())


def test_filters_of_novas_own_firewall_are_legal(host: RecordedHost) -> None:
    card = "<model type='virtio'/>\n      <driver name='qemu'/>"
    _edit(host, "vm-plain", card, f"{card}<filterref filter='nova-instance-instance-1-fa163e'/>")

    assert host.findings() == []


def test_a_container_has_its_root_as_a_file_system(host: RecordedHost) -> None:
    root = "<filesystem type='mount'><source dir='/srv/rootfs'/><target dir='/'/></filesystem>"
    _edit(host, "vm-plain", "</devices>", f"{root}</devices>")
    assert "definition-not-novas of vm-plain" in "".join(host.findings())
    for query in (f"virsh dumpxml {host.domain('vm-plain')}",
                  f"virsh dumpxml --inactive {host.domain('vm-plain')}"):  # fmt: skip
        xml = host.last("libvirt", query).value
        host.set("libvirt", query, xml.replace("<domain type='qemu'", "<domain type='lxc'"))

    assert "definition-not-novas" not in "".join(host.findings())


def test_a_multiattach_volume_is_shareable(host: RecordedHost) -> None:
    volume, _ = host.volume("vm-data")
    serial = f"<serial>{volume}</serial>"
    _edit(host, "vm-data", serial, f"{serial}<shareable/>")
    assert "definition-not-novas of vm-data" in "".join(host.findings())

    host.cinder(
        lambda name, body: {**body, "multiattach": True} if body.get("id") == volume else body
    )
    assert "definition-not-novas" not in "".join(host.findings())


def test_without_the_database_a_watchdog_is_a_skip(host: RecordedHost) -> None:
    _edit(host, "vm-plain", "</devices>", "<watchdog model='i6300esb' action='reset'/></devices>")
    _edit(host, "vm-plain", VDA, f"{VDA}<transient/>")
    answers = [one for one in host.bundle.answers if one.layer != "nova-db"]
    host.bundle = host.bundle.with_answers(answers)

    report = host.report()
    found = [it for it in report.everything() if it.check.name == "definition-not-novas"]
    assert ["transient disk" in it.headline for it in found] == [True]
    assert any(skip.check.name == "definition-not-novas" for skip in report.skips)
