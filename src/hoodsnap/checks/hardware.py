"""Hardware: processors and devices that a guest has from its host, and its firmware state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    in_a_container,
    migrating,
    never_started,
    resizing,
    task_in_flight,
)
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.exclusive_resources import ExclusiveResources
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.hardware import HostDevice, Tpm, home_of, read_cpus, tpm_state
from hoodsnap.facts.domain.state import ON, DomainState
from hoodsnap.facts.fact import UnheardError, text
from hoodsnap.facts.host.cgroup import Cgroup
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import brief, several

ELSEWHERE = frozenset(["direct", "vdpa", "vhostuser"])
"""Types of network cards that are PCI devices for nova but not for the guest."""


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, resizing])
def pinned_cpu_overlap(
    guest: Guest,
    host: Host,
    cloud: Cloud,
    instance: Instance,
    domain: Domain | None,
    process: Process | None,
) -> Problems:
    """A dedicated CPU is shared with another guest, or a vCPU runs on other CPUs than its own.

    For a guest with dedicated CPUs, nova reserves one host CPU for each vCPU, and libvirt pins the
    vCPU's thread to it. Before Train a live migration kept the CPU numbers of the source host. A
    container or service manager that sets the CPUs of its processes again undoes the pinning. A
    real-time guest then misses its deadlines.

    Authority: The kernel, for where a thread may run; the nova database, for which CPUs are
    reserved.

    Traps: Guests with floating vCPUs share CPUs by design. With the policy `mixed` only some vCPUs
    are pinned. Threads that are not vCPUs run on other CPUs.

    Next: Compare the pinning, the threads and the server's record:

        virsh vcpupin NAME
        grep Cpus_allowed_list /proc/PID/task/*/status
        openstack server show UUID

    Then live-migrate the server, which reserves CPUs on another host and pins the guest to them:

        openstack server migrate --live-migration --wait UUID

    It worked if each vCPU is pinned to a CPU of its own on the new host:

        virsh vcpupin NAME

    Not yet: Do not run `openstack server reboot --hard`: it pins as the database says, and reserves
    nothing.

    Source: nova bug 1289064; nova virt/hardware.py; spec numa-aware-live-migration.
    """
    if instance.deleted or not guest.is_here:
        return
    pins, claimed = instance.pins, cloud.exclusive(host)
    ours = says(instance, pins=_pinned({vcpu: frozenset([cpu]) for vcpu, cpu in pins.items()}))
    for cpu in sorted(set(pins.values())):
        for other in claimed.processors.get(cpu, ()):
            if other is not guest and other.instance is not None:
                yield problem(
                    f"{guest.title} has host CPU {cpu} reserved, which is also reserved for "
                    f"{other.title}",
                    ours,
                    says(other.instance, pins=f"also {cpu}"),
                    OTHER=other.uuid,
                )
    if pins and domain is not None and domain.state in ON and _is_loose(domain, pins):
        reserved = {vcpu: frozenset([cpu]) for vcpu, cpu in pins.items()}
        yield problem(
            f"{guest.title} has {_pinned(reserved, 2)} reserved, but libvirt pins "
            f"{_pinned(domain.pins, 2)}",
            ours,
            says(domain, pins=_pinned(domain.pins)),
        )
    if process is not None and claimed.processors:
        yield from _threads(guest, claimed, instance, process)
    if pins:
        yield from _outside(guest, host, instance)
        claimed.require_processors()


def _is_loose(domain: Domain, pins: Mapping[int, int]) -> bool:
    return any(domain.pins.get(vcpu) != frozenset([cpu]) for vcpu, cpu in pins.items())


def _threads(
    guest: Guest, claimed: ExclusiveResources, instance: Instance, process: Process
) -> Iterator[Problem]:
    pins, threads = instance.pins, process.vcpu_threads
    loose = {
        vcpu: cpus for vcpu, cpus in threads.items() if vcpu in pins and not cpus <= {pins[vcpu]}
    }
    if loose:
        wanted = {vcpu: frozenset([pins[vcpu]]) for vcpu in loose}
        yield problem(
            f"{guest.title} has {_pinned(wanted, 2)} reserved, but its threads may run on other "
            f"CPUs: {_pinned(loose, 2)}",
            says(instance, pins=_pinned(wanted)),
            says(process, vcpu_threads=_pinned(loose)),
        )
    if pins:
        return
    allowed = frozenset[int]().union(*threads.values())
    for cpu in sorted(allowed & claimed.processors.keys()):
        owner = claimed.processors[cpu][0]
        if owner.instance is not None:
            yield problem(
                f"{guest.title} may run on host CPU {cpu}, which is dedicated to {owner.title}",
                says(process, pid=process.pid, vcpu_threads=_pinned(threads)),
                says(owner.instance, pins=f"{cpu} is dedicated"),
                severity=Severity.WARNING,
                OTHER=owner.uuid,
            )
            return


def _outside(guest: Guest, host: Host, instance: Instance) -> Iterator[Problem]:
    section, name = "compute", "cpu_dedicated_set"
    dedicated = host.option(section, name)
    if not dedicated:
        section, name = "DEFAULT", "vcpu_pin_set"  # before Train
        dedicated = host.option(section, name)
    answer = host.hypervisor.answer("host", "/etc/nova/nova.conf")
    if not dedicated or answer is None:
        return
    outside = set(instance.pins.values()) - read_cpus(dedicated)
    if outside:
        shown = ",".join(map(str, sorted(outside)))
        yield problem(
            f"{guest.title} has host CPUs {several(sorted(outside), 5)} reserved, but {name} of "
            f"host {host.name} is {dedicated}",
            says(instance, pins=shown),
            hears(
                answer, host.file_name_of(section, name), f"[{section}]{name}", **{name: dedicated}
            ),
            severity=Severity.WARNING,
        )


def _pinned(pins: Mapping[int, frozenset[int]], most: int | None = None) -> str:
    """Format pins for people: `vCPU 0 at 2, vCPU 1 at 3`; at most so many, if a limit is given."""
    places = [f"vCPU {vcpu} at {','.join(map(str, sorted(pins[vcpu])))}" for vcpu in sorted(pins)]
    if most is not None and places:
        return several(places, most)
    return ", ".join(places) or "none"


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def threads_pinned_by_hand(
    guest: Guest, domain: Domain, process: Process, cgroup: Cgroup
) -> Problems:
    """QEMU's threads may run on fewer host CPUs than libvirt gave them.

    The guest is slow although nova, libvirt and its control group show no limit. Somebody ran
    `taskset`, or a tool that distributes processes or interrupts did.

    Authority: The kernel, for where a thread may run; libvirt, for where it should.

    Traps: A definition that pins vCPUs, the emulator or memory, or lets libvirt choose CPUs, is not
    compared here. A CPU that was switched off and on again is missing in the control groups of
    older guests, too.

    Next: Compare the CPUs of the threads with libvirt's and with the control group's:

        grep Cpus_allowed_list /proc/PID/task/*/status
        virsh vcpupin NAME
        virsh emulatorpin NAME

    If nobody wants this, let all threads run on the CPUs of the control group again, which works at
    once and changes nothing in the definition:

        taskset -apc CPUS PID

    It worked if all threads have these CPUs:

        grep Cpus_allowed_list /proc/PID/task/*/status

    Not yet: Do not reboot the server for this.

    Source: sched_setaffinity(2); libvirt src/qemu/qemu_process.c `qemuProcessInitCpuAffinity`,
    `qemuProcessSetupPid`.
    """
    if domain.state not in ON or domain.xml.is_placed:
        return
    wanted = read_cpus(cgroup.cpus)
    fewer = {name: cpus for name, cpus in process.thread_cpus.items() if cpus and cpus < wanted}
    if fewer:
        places = several(sorted({_cpus(cpus) for cpus in fewer.values()}))
        some = "All" if len(fewer) == len(process.thread_cpus) else f"{len(fewer)}"
        yield problem(
            f"{some} threads of {guest.title}'s QEMU may run on host CPU {places} only; libvirt "
            f"gave them {_cpus(wanted)}",
            says(process, pid=process.pid, thread_cpus=_threads_shown(fewer)),
            says(cgroup, cpus=cgroup.cpus),
            says(domain, pins=_pinned(domain.pins)),
            CPUS=cgroup.cpus,
        )


def _cpus(cpus: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


def _threads_shown(threads: Mapping[str, frozenset[int]]) -> str:
    return several((f"{name} at {_cpus(cpus)}" for name, cpus in threads.items()), 3)


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, resizing])
def pci_or_mdev_claim_mismatch(
    guest: Guest, host: Host, cloud: Cloud, instance: Instance, domain: Domain
) -> Problems:
    """A guest has a host device that is not reserved for it, or lacks one that is.

    nova will assign the device to another guest, or consider it in use forever. Device addresses
    change with a new kernel, firmware or card, and nova's records do not follow.

    Authority: libvirt, for which devices the guest has; the nova database, for which guest a device
    is reserved for.

    Traps: A suspended or migrating guest has released its devices. A network card may be a PCI
    device for nova and a tap (macvtap, vdpa, vhost-user) for the guest. After a host reboot nova
    creates mdevs again, with other UUIDs.

    Next: Compare the guest's devices with the host's devices:

        virsh dumpxml NAME | grep -A8 '<hostdev'
        ls /sys/bus/pci/devices

    Compare both with nova's claims, in the cell's database:

        SELECT address, status, instance_uuid FROM pci_devices WHERE deleted = 0

    If the device is gone from the host, bring it back first. Check that the server's volumes and
    ports are right, because a hard reboot defines the guest again from all of nova's records:

        openstack server volume list UUID
        openstack port list --server UUID

    Then reboot the server hard, which ends the guest and boots it with the devices that nova has
    reserved for it:

        openstack server reboot --hard UUID

    It worked if the guest has these devices and no others:

        virsh dumpxml NAME | grep -A8 '<hostdev'

    Not yet: Do not remove rows of pci_devices. Do not remove the device from `[pci]device_spec`
    while it is reserved. Do not unbind a device that QEMU holds.

    Source: nova pci/manager.py `_set_hvdevs`; nova bug 1981813.
    """
    if instance.deleted or not guest.is_here:
        return
    wanted = domain.definition.host_devices
    for device in wanted:
        if device.type == "pci" and device.address not in host.hypervisor.pci_addresses:
            answer = host.hypervisor.answer("kernel", "ls /sys/bus/pci/devices")
            if answer is not None:
                yield problem(
                    f"{guest.title} has the PCI device {device.address}, which host {host.name} "
                    "does not have",
                    says(domain, host_devices=device.address),
                    hears(answer, "kernel", device.address, device=None),
                )
    if domain.id is None:
        return
    devices = domain.host_devices
    for device in dict.fromkeys(devices):
        for other in cloud.exclusive(host).devices.get(device, ()):
            if other is not guest and other.domain is not None:
                yield problem(
                    f"{guest.title} and {other.title} both have the host device {device.address}",
                    says(domain, host_devices=device.address),
                    says(other.domain, name=other.domain.name, host_devices="the same"),
                    OTHER=other.uuid,
                )
    if domain.state == DomainState.RUNNING:
        yield from _claims(guest, host, instance, domain, devices)
    if devices:
        cloud.exclusive(host).require_devices()


def _claims(
    guest: Guest, host: Host, instance: Instance, domain: Domain, devices: tuple[HostDevice, ...]
) -> Iterator[Problem]:
    has = {device.address for device in devices if device.type == "pci"}
    if host.node is None:
        raise UnheardError("nova has no compute node for this host")
    claims = instance.pci_devices(host.node.id)
    for address in sorted(has - claims.keys()):
        answer = host.hypervisor.bundle.last("nova-db", _query_of(instance))
        unclaimed = hears(answer, "instance", address, pci_device=None) if answer else None
        given = says(domain, host_devices=address)
        yield problem(
            f"{guest.title} has the PCI device {address}, but nova has not reserved it for this "
            "server",
            *((given, unclaimed) if unclaimed is not None else (given,)),
        )
    if any(card.type in ELSEWHERE for card in domain.interfaces):
        return
    for address in sorted(claims.keys() - has):
        row = claims[address]
        place = f"{instance.database}.pci_devices[address={address}].status"
        claimed = hears(row.answer, "instance", place, pci_device=address, status="allocated")
        shown = ", ".join(sorted(has)) or None
        yield problem(
            f"{guest.title} does not have the PCI device {address}, which nova has reserved for it",
            claimed,
            says(domain, host_devices=shown),
        )


def _query_of(instance: Instance) -> str:
    tables = instance.tables
    asked = tables.read.get((instance.database, "pci_devices"), ()) if tables else ()
    return asked[-1].query if asked else ""


@check(
    Severity.ERROR,
    traps=[building, task_in_flight, migrating, resizing, never_started, in_a_container],
)
def firmware_state_missing(
    guest: Guest, host: Host, record: Server | Instance, domain: Domain
) -> Problems:
    """The guest's firmware state, its TPM state or the firmware itself is missing.

    libvirt creates new, empty files at the next start: boot entries and Secure Boot keys are lost,
    and a disk sealed with the TPM (BitLocker, LUKS) can no longer be opened. Without the firmware
    itself the guest does not start at all.

    Authority: The files.

    Traps: The files are created at the guest's first start. Firmware that stores nothing has no
    state. In a container libvirt sees other folders than the collector.

    Next: List the paths, look for the missing file there and on the hosts that the guest was on
    before, and list these hosts:

        virsh dumpxml --inactive NAME | grep -E 'loader|nvram|tpm'
        ls -l PATH
        openstack server migration list --server UUID

    Then, before the guest is started, copy the file back with its owner and mode from the host or
    backup that has it.

    Not yet: Do not start the guest. Do not run `virsh undefine --nvram` or `openstack server reboot
    --hard`. Do not migrate the guest. Each of these may drop the last copy.

    Source: nova bugs 1633447, 2131730, 1997352, 2118888; nova admin guide, uefi and emulated-tpm.
    """
    if record.deleted:
        return
    files = zip(("firmware", "UEFI variable store"), domain.firmware, strict=True)
    paths = [(what, path, says(domain, firmware=path)) for what, path in files if path is not None]
    for tpm in domain.tpms:
        if tpm.source is None:
            state = tpm_state(guest.uuid, tpm.version)
            paths.append(("TPM state", state, says(domain, tpms=state)))
        yield from _secret(guest, domain, tpm)
    for what, path, named in paths:
        entry = host.images.entry(path)
        answer = host.hypervisor.answer("images", f"stat -L {path}")
        # If even the folder is missing, this is probably the wrong place to look.
        wrong_place = host.images.entry(home_of(path)) is None
        if answer is not None and not wrong_place and (entry is None or entry.size == 0):
            state = "missing" if entry is None else "empty"
            yield problem(
                f"{guest.title}'s {what} {brief(path)} is {state}",
                named,
                hears(answer, "images", path, file=state),
                PATH=path,
            )


def _secret(guest: Guest, domain: Domain, tpm: Tpm) -> Iterator[Problem]:
    instance = guest.instance
    if instance is None or tpm.secret is None:
        return
    rows = instance.rows("instance_system_metadata")
    known = [text(row.cells, "value") for row in rows if row.cells.get("key") == VTPM_SECRET]
    if [(secret or "").lower() for secret in known] != [tpm.secret]:
        answer = rows[0].answer if rows else instance.said["row"]
        names = ", ".join(filter(None, known))
        yield problem(
            f"{guest.title}'s TPM state is encrypted with secret {brief(tpm.secret)}, but nova's "
            f"record has {f'secret {brief(names)}' if names else 'no secret'}",
            says(domain, tpms=f"secret {tpm.secret}"),
            hears(answer, "instance", VTPM_SECRET, vtpm_secret_uuid=names),
            PATH=tpm.source or tpm_state(guest.uuid, tpm.version),
        )


VTPM_SECRET = "vtpm_secret_uuid"  # noqa: S105 (the name of a row)
