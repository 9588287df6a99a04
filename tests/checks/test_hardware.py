"""CPUs, devices and firmware that a guest has from its host.

The lab has no dedicated CPUs, passed-through devices or firmware, so the answers about them are
written by hand here, in the form of nova, libvirt and the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from tests.conftest import RecordedHost

CELL = (
    '{"nova_object.name": "InstanceNUMACell", "nova_object.data": {"id": 0, "cpu_pinning_raw": %s}}'
)


def _reserve(host: RecordedHost, name: str, pins: dict[int, int]) -> None:
    """Reserve CPUs for a guest in nova's instance_extra."""
    cell = json.loads(CELL % json.dumps({str(vcpu): cpu for vcpu, cpu in pins.items()}))
    topology = {"nova_object.name": "InstanceNUMATopology", "nova_object.data": {"cells": [cell]}}
    host.row("instance_extra", host.uuid(name), numa_topology=json.dumps(topology))
    _count(host, pins.values())


def _count(host: RecordedHost, cpus: Iterable[int]) -> None:
    """Let nova's record of the host have these CPUs as pinned, too."""
    [node] = host.report().cloud.hosts[0].records.nodes_of("vm")
    counted = json.loads(str(node.raw["numa_topology"]))
    pinned = counted["nova_object.data"]["cells"][0]["nova_object.data"]["pinned_cpus"]
    pinned += [cpu for cpu in cpus if cpu not in pinned]
    host.cells("compute_nodes", node.uuid or "", numa_topology=json.dumps(counted))


def _bind(host: RecordedHost, name: str, pins: dict[int, int]) -> None:
    """Pin the guest's vCPUs that way in libvirt and in the kernel."""
    tune = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>" for vcpu, cpu in pins.items())
    live = f"virsh dumpxml {host.domain(name)}"
    host.edit("libvirt", live, "<os>", f"<cputune>{tune}</cputune><os>")
    _run(host, name, {vcpu: str(cpu) for vcpu, cpu in pins.items()})


def _run(host: RecordedHost, name: str, cpus: dict[int, str]) -> None:
    query = f"grep -E '^(Name|Cpus_allowed_list):' /proc/{host.pid(name)}/task/*/status"
    threads: dict[str, Any] = {}
    for tid, thread in host.last("kernel", query).value.items():
        vcpu = [number for number in cpus if thread["comm"].startswith(f"CPU {number}/")]
        threads[tid] = thread | {"cpus": cpus[vcpu[0]]} if vcpu else thread
    host.set("kernel", query, threads)


def test_pinned_cpu_overlap(host: RecordedHost) -> None:
    _reserve(host, "vm-plain", {0: 5})
    _reserve(host, "vm-snap", {0: 5})
    _bind(host, "vm-plain", {0: 5})
    _bind(host, "vm-snap", {0: 5})

    assert {finding.severity.word for finding in host.report().findings} == {"error"}
    assert host.findings() == [
        "pinned-cpu-overlap of vm-plain: instance reports pins = vCPU 0 at 5; instance reports pins = also 5",
        "pinned-cpu-overlap of vm-snap: instance reports pins = vCPU 0 at 5; instance reports pins = also 5",
    ]
    assert host.headlines() == [
        "vm-plain has host CPU 5 reserved, which is also reserved for vm-snap",
        "vm-snap has host CPU 5 reserved, which is also reserved for vm-plain",
    ]


def test_guests_with_dedicated_cpus_are_quiet(host: RecordedHost) -> None:
    _reserve(host, "vm-plain", {0: 5})
    _reserve(host, "vm-duo", {0: 6, 1: 7})
    _bind(host, "vm-plain", {0: 5})
    _bind(host, "vm-duo", {0: 6, 1: 7})

    assert host.findings() == []


def test_pinned_cpu_overlap_if_libvirt_pins_differently(host: RecordedHost) -> None:
    _reserve(host, "vm-duo", {0: 6, 1: 7})
    _bind(host, "vm-duo", {0: 2, 1: 3})

    said = "instance reports pins = vCPU 0 at 6, vCPU 1 at 7"
    assert host.findings() == [
        f"pinned-cpu-overlap of vm-duo: {said}; domain reports pins = vCPU 0 at 2, vCPU 1 at 3",
        f"pinned-cpu-overlap of vm-duo: {said}; process reports vcpu_threads = vCPU 0 at 2, vCPU 1 at 3",
    ]
    assert host.headlines() == [
        "vm-duo has vCPU 0 at 6 and vCPU 1 at 7 reserved, but libvirt pins vCPU 0 at 2 and vCPU 1 at 3",
        "vm-duo has vCPU 0 at 6 and vCPU 1 at 7 reserved, but its threads may run on other CPUs: vCPU 0 at 2 and vCPU 1 at 3",
    ]


def test_pinned_cpu_overlap_if_the_kernels_affinity_differs(host: RecordedHost) -> None:
    _reserve(host, "vm-duo", {0: 6, 1: 7})
    _bind(host, "vm-duo", {0: 6, 1: 7})
    _run(host, "vm-duo", {0: "6", 1: "4-7"})

    assert host.findings() == [
        "pinned-cpu-overlap of vm-duo: instance reports pins = vCPU 1 at 7;"
        " process reports vcpu_threads = vCPU 1 at 4,5,6,7"
    ]
    assert host.headlines() == [
        "vm-duo has vCPU 1 at 7 reserved, but its threads may run on other CPUs: vCPU 1 at 4,5,6,7",
    ]


def test_pinned_cpu_overlap_with_a_floating_guest(host: RecordedHost) -> None:
    _reserve(host, "vm-plain", {0: 5})
    _bind(host, "vm-plain", {0: 5})
    _run(host, "vm-snap", {0: "4-7"})

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        f"pinned-cpu-overlap of vm-snap: process reports pid = {host.pid('vm-snap')}, vcpu_threads ="
        " vCPU 0 at 4,5,6,7; instance reports pins = 5 is dedicated"
    ]
    assert host.headlines() == [
        "vm-snap may run on host CPU 5, which is dedicated to vm-plain",
    ]


def test_with_the_policy_mixed_some_vcpus_float(host: RecordedHost) -> None:
    _reserve(host, "vm-duo", {1: 7})
    _bind(host, "vm-duo", {1: 7})

    assert host.findings() == []


def test_pinned_cpu_overlap_outside_of_the_dedicated_set(host: RecordedHost) -> None:
    conf = host.last("host", "/etc/nova/nova.conf").value
    dedicated = conf | {"compute": {"cpu_dedicated_set": "2-4,^3"}}
    host.set("host", "/etc/nova/nova.conf", dedicated)
    _reserve(host, "vm-plain", {0: 3})
    _bind(host, "vm-plain", {0: 3})

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        "pinned-cpu-overlap of vm-plain: instance reports pins = 3;"
        " nova.conf reports cpu_dedicated_set = 2-4,^3"
    ]
    assert host.headlines() == [
        "vm-plain has host CPUs 3 reserved, but cpu_dedicated_set of host vm is 2-4,^3",
    ]


def test_an_unconfirmed_resize_has_cpus_twice(host: RecordedHost) -> None:
    _reserve(host, "vm-verify", {0: 5})

    report = host.report()
    assert report.findings == ()
    excused = [skip.check.name for skip in report.skips if skip.differs]
    assert "pinned-cpu-overlap" in excused


PCI = (
    "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
    "<address domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></source></hostdev></devices>"
)
ADDRESS = "0000:00:05.0"


def _pass_through(host: RecordedHost, name: str) -> None:
    """Give a guest one of the host's PCI devices, in both of its definitions."""
    assert ADDRESS in host.last("kernel", "ls /sys/bus/pci/devices").value
    host.edit("libvirt", f"virsh dumpxml {host.domain(name)}", "</devices>", PCI)
    host.edit("libvirt", f"virsh dumpxml --inactive {host.domain(name)}", "</devices>", PCI)


def _claim(host: RecordedHost, name: str, status: str = "allocated") -> None:
    """Reserve that device for a guest in nova."""
    [answer] = host.bundle.asked("nova-db", "SELECT id, uuid, compute_node_id, address")
    node = host.guest(name).host.node  # type: ignore[union-attr]
    assert node is not None
    said = {"id": 1, "compute_node_id": node.id, "address": ADDRESS, "status": status,
            "instance_uuid": host.uuid(name), "dev_type": "type-PCI", "deleted": 0}  # fmt: skip
    row = [said.get(column) for column in answer.value["columns"]]
    host.set("nova-db", answer.query, answer.value | {"rows": [row]})


def test_a_device_reserved_for_its_guest_is_quiet(host: RecordedHost) -> None:
    _pass_through(host, "vm-plain")
    _claim(host, "vm-plain")

    assert host.findings() == []


def test_pci_or_mdev_claim_mismatch(host: RecordedHost) -> None:
    _pass_through(host, "vm-plain")

    assert host.findings() == [
        f"pci-or-mdev-claim-mismatch of vm-plain: domain reports host_devices = {ADDRESS};"
        " instance reports no pci_device"
    ]
    assert host.headlines() == [
        "vm-plain has the PCI device 0000:00:05.0, but nova has not reserved it for this server",
    ]


def test_pci_or_mdev_claim_mismatch_if_the_guest_lacks_the_device(host: RecordedHost) -> None:
    _claim(host, "vm-plain")

    assert host.findings() == [
        f"pci-or-mdev-claim-mismatch of vm-plain: instance reports pci_device = {ADDRESS},"
        " status = allocated; domain reports no host_devices"
    ]
    assert host.headlines() == [
        "vm-plain does not have the PCI device 0000:00:05.0, which nova has reserved for it",
    ]


def test_a_free_device_belongs_to_no_guest(host: RecordedHost) -> None:
    _claim(host, "vm-plain", status="available")

    assert host.findings() == []


def test_a_network_card_may_be_a_pci_device_for_nova_only(host: RecordedHost) -> None:
    _claim(host, "vm-plain")
    card = (
        "<interface type='direct'><source dev='ens1f0v1' mode='passthrough'/></interface></devices>"
    )
    host.edit("libvirt", f"virsh dumpxml {host.domain('vm-plain')}", "</devices>", card)

    assert host.findings() == []


@pytest.mark.parametrize("name", ["vm-paused", "vm-suspended"])
def test_a_guest_that_does_not_run_has_released_its_devices(host: RecordedHost, name: str) -> None:
    _claim(host, name)

    assert host.findings() == []


def test_pci_or_mdev_claim_mismatch_of_two_guests(host: RecordedHost) -> None:
    _pass_through(host, "vm-plain")
    _pass_through(host, "vm-snap")
    _claim(host, "vm-plain")

    both = [it for it in host.findings() if "the same" in it]
    assert [it.partition(":")[0] for it in both] == [
        "pci-or-mdev-claim-mismatch of vm-plain",
        "pci-or-mdev-claim-mismatch of vm-snap",
    ]
    assert "vm-plain and vm-snap both have the host device 0000:00:05.0" in host.headlines()


def test_a_guest_that_is_off_may_name_the_device_of_one_that_runs(host: RecordedHost) -> None:
    _pass_through(host, "vm-plain")
    _claim(host, "vm-plain")
    stored = f"virsh dumpxml --inactive {host.domain('vm-stopped')}"
    host.edit("libvirt", stored, "</devices>", PCI)
    # Without --inactive libvirt shows the same of a domain that is off.
    same = host.last("libvirt", stored)
    host.add(same.model_copy(update={"query": stored.replace(" --inactive", "")}))

    assert host.findings() == []


def test_pci_or_mdev_claim_mismatch_if_the_address_changed(host: RecordedHost) -> None:
    _pass_through(host, "vm-plain")
    _claim(host, "vm-plain")
    devices = host.last("kernel", "ls /sys/bus/pci/devices").value
    host.set("kernel", "ls /sys/bus/pci/devices", [it for it in devices if it != ADDRESS])

    assert host.findings() == [
        f"pci-or-mdev-claim-mismatch of vm-plain: domain reports host_devices = {ADDRESS};"
        " kernel reports no device"
    ]
    assert host.headlines() == [
        "vm-plain has the PCI device 0000:00:05.0, which host vm does not have",
    ]


NVRAM = "/var/lib/libvirt/qemu/nvram/guest_VARS.fd"


def _give_firmware(host: RecordedHost, name: str) -> None:
    for query in (
        f"virsh dumpxml {host.domain(name)}",
        f"virsh dumpxml --inactive {host.domain(name)}",
    ):
        if host.bundle.last("libvirt", query) is not None:
            host.edit("libvirt", query, "</os>", f"<nvram>{NVRAM}</nvram></os>")


def _look(host: RecordedHost, path: str, size: int | None) -> None:
    """Set the collected file at a path; None: the file does not exist."""
    seen = host.last("images", "stat -L /var/lib/nova")
    raw = seen.model_dump(exclude={"value", "error"}) | {
        "query": f"stat -L {path}",
        "subject": path,
    }
    if size is None:
        host.add(
            type(seen)(**raw, error={"kind": "absent", "message": "No such file or directory"})
        )
    else:
        host.add(type(seen)(**raw, value=seen.value | {"path": path, "type": "f", "size": size}))


def test_firmware_state_missing(host: RecordedHost) -> None:
    _give_firmware(host, "vm-stopped")
    _look(host, "/var/lib/libvirt/qemu/nvram", 4096)
    _look(host, NVRAM, None)

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert host.findings() == [
        f"firmware-state-missing of vm-stopped: domain reports firmware = {NVRAM};"
        " images reports file = missing"
    ]
    assert host.headlines() == [
        "vm-stopped's UEFI variable store /var/lib/libvirt/qemu/nvram/guest_VARS.fd is missing",
    ]


def test_existing_firmware_state_is_quiet(host: RecordedHost) -> None:
    _give_firmware(host, "vm-stopped")
    _look(host, "/var/lib/libvirt/qemu/nvram", 4096)
    _look(host, NVRAM, 131072)

    assert host.findings() == []


def test_in_a_container_libvirt_sees_other_folders(host: RecordedHost) -> None:
    _give_firmware(host, "vm-stopped")
    _look(host, "/var/lib/libvirt/qemu/nvram", None)
    _look(host, NVRAM, None)

    assert host.findings() == []


def test_firmware_state_is_created_at_the_first_start(host: RecordedHost) -> None:
    _give_firmware(host, "vm-stopped")
    _look(host, "/var/lib/libvirt/qemu/nvram", 4096)
    _look(host, NVRAM, None)
    host.row("instances", host.uuid("vm-stopped"), launched_at=None)

    assert not [it for it in host.findings() if it.startswith("firmware-state-missing")]
    reasons = [skip.reason for skip in host.report().skips if skip.differs]
    first = "the server has not been started yet; its state files are created at the first start"
    assert first in reasons


SECRET = "0f3c6f0e-5b62-4d0a-9d6e-3c9f5b1d2a77"  # noqa: S105 (the secret's UUID)


def _give_tpm(host: RecordedHost, name: str, size: int | None) -> str:
    backend = f"<backend type='emulator' version='2.0'><encryption secret='{SECRET}'/></backend>"
    tpm = f"<tpm model='tpm-crb'>{backend}</tpm></devices>"
    host.edit("libvirt", f"virsh dumpxml --inactive {host.domain(name)}", "</devices>", tpm)
    path = f"/var/lib/libvirt/swtpm/{host.uuid(name)}/tpm2/tpm2-00.permall"
    _look(host, "/var/lib/libvirt/swtpm", 4096)
    _look(host, path, size)
    return path


def _note_secret(host: RecordedHost, name: str, secret: str) -> None:
    for answer in host.bundle.asked("nova-db", "SELECT instance_uuid, `key`, value"):
        if host.uuid(name) in answer.query:
            row = [host.uuid(name), "vtpm_secret_uuid", secret, 0]
            host.set("nova-db", answer.query, answer.value | {"rows": [*answer.value["rows"], row]})


def _state(lines: list[str]) -> list[str]:
    """Leave out that neither the flavor nor the image asks for the TPM that a test adds."""
    of_the_tpm = ("definition-not-novas", "nova did not write")
    return [line for line in lines if not any(words in line for words in of_the_tpm)]


def test_firmware_state_missing_of_a_tpm(host: RecordedHost) -> None:
    path = _give_tpm(host, "vm-stopped", 0)
    _note_secret(host, "vm-stopped", SECRET)

    assert _state(host.findings()) == [
        f"firmware-state-missing of vm-stopped: domain reports tpms = {path}; images reports file = empty"
    ]
    [headline] = _state(host.headlines())
    assert headline.startswith("vm-stopped's TPM state /var/lib/libvirt/swtpm/")
    assert headline.endswith("/tpm2/tpm2-00.permall is empty")


def test_firmware_state_missing_of_the_secret(host: RecordedHost) -> None:
    _give_tpm(host, "vm-stopped", 6000)
    _note_secret(host, "vm-stopped", SECRET)
    assert _state(host.findings()) == []

    _note_secret(host, "vm-stopped", "another")
    assert _state(host.findings()) == [
        f"firmware-state-missing of vm-stopped: domain reports tpms = secret {SECRET};"
        " instance reports vtpm_secret_uuid = another"
    ]
    assert _state(host.headlines()) == [
        "vm-stopped's TPM state is encrypted with secret 0f3c6f0e, but nova's record has secret another",
    ]


PINNED = "grep -E '^(Name|Cpus_allowed_list):' /proc/16692/task/*/status"
"""The threads of vm-duo's QEMU in the recording with control groups."""


def _taskset(host: RecordedHost, cpus: str) -> None:
    threads = host.last("kernel", PINNED).value
    host.set("kernel", PINNED, {tid: {**thread, "cpus": cpus} for tid, thread in threads.items()})


def test_threads_pinned_by_hand(grouped: RecordedHost) -> None:
    _taskset(grouped, "1")

    [line] = grouped.headlines()
    assert line.startswith(
        "All threads of vm-duo's QEMU may run on host CPU 1 only; libvirt gave them 0,1"
    )


def test_threads_that_libvirt_pins_are_not_pinned_by_hand(grouped: RecordedHost) -> None:
    _taskset(grouped, "1")
    for query in ("virsh dumpxml instance-00000005", "virsh dumpxml --inactive instance-00000005"):
        text = grouped.last("libvirt", query).value
        grouped.set(
            "libvirt",
            query,
            text.replace("<vcpu placement='static'", "<vcpu placement='static' cpuset='1'"),
        )

    assert not any("may run on host CPU" in line for line in grouped.headlines())
