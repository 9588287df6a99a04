"""Limits of the guest: what its flavor sells, what libvirt applies, and what the next start has."""

from __future__ import annotations

import json

import pytest
from tests.conftest import RecordedHost, changes

IOTUNE = "<iotune><total_iops_sec>500</total_iops_sec></iotune>"


def _sell(host: RecordedHost, name: str, **specs: str) -> None:
    """Put `quota:` properties into the flavor that a server keeps."""
    instance = host.guest(name).instance
    assert instance is not None and instance.instance_extra is not None
    stored = json.loads(str(instance.instance_extra["flavor"]))
    stored["cur"]["nova_object.data"]["extra_specs"] = {
        f"quota:{key}": value for key, value in specs.items()
    }
    host.row("instance_extra", host.uuid(name), flavor=json.dumps(stored))


def _limit(host: RecordedHost, name: str, old: str, new: str, *kinds: str) -> None:
    """Edit the definitions of a domain, the live one and the stored one by default."""
    for kind in kinds or ("", "--inactive "):
        host.edit("libvirt", f"virsh dumpxml {kind}{host.domain(name)}", old, new)


VDA = "<target dev='vda' bus='virtio'/>"
VCPU = "<vcpu placement='static'>1</vcpu>"


def test_limits_not_as_sold(host: RecordedHost) -> None:
    _sell(host, "vm-plain", disk_total_iops_sec="1000")
    _limit(host, "vm-plain", VDA, VDA + IOTUNE)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert finding.headline == (
        "vm-plain runs with other limits than flavor lab.tiny sells: total_iops_sec of vda 500 "
        "instead of 1000"
    )


def _in_qemu(host: RecordedHost, name: str, **limits: int) -> None:
    """Change the limits that QEMU reports of a guest's first disk."""
    query = f'virsh qemu-monitor-command {host.domain(name)} \'{{"execute": "query-block"}}\''
    disks = json.loads(json.dumps(host.last("qemu", query).value))
    [disk] = [disk for disk in disks if "virtio-disk0" in disk["qdev"]]
    disk["inserted"].update(limits)
    host.set("qemu", query, disks)


def test_qemu_has_another_limit_than_libvirt(monitored: RecordedHost) -> None:
    _in_qemu(monitored, "vm-plain", iops=500)

    assert monitored.headlines() == [
        "vm-plain runs with other limits in QEMU than in libvirt: total_iops_sec of vda 500 instead "
        "of unlimited"
    ]
    assert changes(monitored.found("limits-not-as-sold")) == [
        f"virsh blkdeviotune {monitored.domain('vm-plain')} vda --total-iops-sec 0 --live"
    ]


def test_qemu_lost_a_limit_that_was_sold(monitored: RecordedHost) -> None:
    _sell(monitored, "vm-plain", disk_total_iops_sec="500")
    _limit(monitored, "vm-plain", VDA, VDA + IOTUNE)

    assert monitored.headlines() == [
        "vm-plain runs with other limits in QEMU than in libvirt: total_iops_sec of vda unlimited "
        "instead of 500"
    ]


def test_a_limit_that_qemu_keeps_is_quiet(monitored: RecordedHost) -> None:
    _sell(monitored, "vm-plain", disk_total_iops_sec="500")
    _limit(monitored, "vm-plain", VDA, VDA + IOTUNE)
    _in_qemu(monitored, "vm-plain", iops=500)

    assert monitored.findings() == []


@pytest.mark.parametrize(
    ("old", "new", "specs"),
    [
        (VDA, VDA + IOTUNE, {"disk_total_iops_sec": "500"}),
        (VCPU, VCPU + "<cputune><quota>20000</quota></cputune>", {"cpu_quota": "20000"}),
        (VCPU, VCPU + "<cputune><quota>-1</quota></cputune>", {}),
        (VCPU, VCPU + "<cputune><shares>1024</shares></cputune>", {}),
        (VCPU, VCPU, {"vif_inbound_average": "1000"}),
    ],
)
def test_limits_that_are_as_sold_are_quiet(
    host: RecordedHost, old: str, new: str, specs: dict[str, str]
) -> None:
    _sell(host, "vm-plain", **specs)
    _limit(host, "vm-plain", old, new)

    assert host.findings() == []


def test_a_period_without_a_quota_limits_nothing(host: RecordedHost) -> None:
    """`virsh schedinfo --live vcpu_period=100000 vcpu_quota=-1` leaves it in the running domain."""
    tune = VCPU + "<cputune><period>100000</period><quota>-1</quota></cputune>"
    _limit(host, "vm-plain", VCPU, tune, "")

    assert host.findings() == []


def test_a_volume_is_limited_by_its_type(host: RecordedHost) -> None:
    target = "<target dev='vdb' bus='virtio'/>"
    _limit(host, "vm-data", target, target + IOTUNE)

    assert host.findings() == []


@pytest.mark.parametrize(
    ("name", "old", "new", "limit"),
    [
        (
            "vm-plain",
            VCPU,
            VCPU + "<cputune><quota>20000</quota></cputune>",
            "runs with other limits than flavor lab.tiny sells: cputune quota 20000 instead of "
            "unlimited",
        ),
        (
            "vm-data",
            "<serial>",
            IOTUNE + "<serial>",
            "total_iops_sec of vdb 500 now, unlimited then",
        ),
        (
            "vm-plain",
            VCPU,
            VCPU + "<memtune><hard_limit unit='KiB'>65536</hard_limit></memtune>",
            "memtune hard_limit 65536 now, unlimited then",
        ),
        (
            "vm-plain",
            VCPU,
            VCPU + "<blkiotune><weight>300</weight></blkiotune>",
            "blkiotune weight 300 now, the default then",
        ),
    ],
)
def test_a_limit_that_was_set_in_the_running_guest_is_found(
    host: RecordedHost, name: str, old: str, new: str, limit: str
) -> None:
    _limit(host, name, old, new, "")

    [finding] = host.report().findings
    assert finding.check.name == "limits-not-as-sold"
    assert limit in finding.headline


def test_a_limited_card_of_a_flavor_without_limits_is_found(host: RecordedHost) -> None:
    limit = "<mtu size='1450'/><bandwidth><inbound average='100'/></bandwidth>"
    _limit(host, "vm-plain", "<mtu size='1450'/>", limit)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("limits-not-as-sold", "warning")
    assert "inbound average of" in finding.headline


def test_limits_are_undecided_if_what_was_sold_was_not_collected(host: RecordedHost) -> None:
    host.silence("nova-db")

    skips = [skip for skip in host.report().skips if skip.guest and skip.guest.name == "vm-plain"]
    assert "limits-not-as-sold" in [skip.check.name for skip in skips]


@pytest.mark.parametrize(
    ("old", "new", "way_back"),
    [
        (VDA, VDA + IOTUNE, "blkdeviotune {} vda --total-iops-sec 0 --live"),
        (
            VCPU,
            VCPU + "<cputune><quota>20000</quota></cputune>",
            "schedinfo {} --live vcpu_quota=-1",
        ),
        (
            VCPU,
            VCPU + "<memtune><hard_limit unit='KiB'>900000</hard_limit></memtune>",
            "memtune {} --hard-limit=-1 --live",
        ),
    ],
)
def test_a_limit_of_the_running_domain_alone_is_lifted_without_a_restart(
    host: RecordedHost, old: str, new: str, way_back: str
) -> None:
    name = host.domain("vm-plain")
    host.edit("libvirt", f"virsh dumpxml {name}", old, new)

    assert changes(host.found("limits-not-as-sold")) == [f"virsh {way_back.format(name)}"]


def test_a_limit_of_both_definitions_needs_a_restart(host: RecordedHost) -> None:
    _limit(host, "vm-plain", VDA, VDA + IOTUNE)

    assert [line.split()[:3] for line in changes(host.found("limits-not-as-sold"))] == [
        ["openstack", "server", "stop"],
        ["openstack", "server", "start"],
    ]
