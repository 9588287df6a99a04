"""Limits of the guest: what its flavor sells, what libvirt applies, and what the next start has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, resizing, task_in_flight
from hoodsnap.evidence import Severity, derives, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML
from hoodsnap.facts.domain.settings import is_limit
from hoodsnap.facts.fact import UnheardError, known, mapping
from hoodsnap.facts.host.cgroup import USUAL_WEIGHTS
from hoodsnap.facts.host.instances_directory import owner_of
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.phrase import several

OF_CPU = {"cpu_shares": "shares", "cpu_period": "period", "cpu_quota": "quota"}
"""Flavor's property after `quota:` → libvirt's element in `<cputune>`."""

OF_DISKS = tuple(
    f"{what}_{unit}_sec" for what in ("read", "write", "total") for unit in ("bytes", "iops")
)
"""libvirt's elements in `<iotune>`; the flavor's properties are the same after `quota:disk_`."""

OF_CARDS = ("average", "peak", "burst")
"""libvirt's attributes in `<bandwidth>`; the flavor's properties are `quota:vif_inbound_…`."""

SHARES_OF_A_VCPU = 1024
"""CPU shares of each vCPU that nova set without a flavor's order until 2023.1."""

MOST = 3
"""Number of limits that a headline names."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, resizing])
def limits_not_as_sold(
    guest: Guest, domain: Domain, instance: Instance | None, monitor: Monitor | None
) -> Problems:
    """The guest's limits differ from its flavor's, or its next start has other limits.

    nova writes the flavor's `quota:` properties into the domain when it defines it: CPU time, disk
    and network traffic. A change with virsh affects what runs, what starts next, or both. The guest
    is then slow, or takes more than it was sold, and nova shows nothing of it.

    Authority: The flavor that the server keeps, for what was sold; libvirt, for what it applies;
    QEMU, for the limits of disks that are in force.

    Traps: A volume's limits come from its volume type, not from the flavor. Until 2023.1, nova gave
    each vCPU 1024 CPU shares if the flavor ordered none. Not every kind of network card can be
    limited, so a limit that the flavor sells and the card lacks is not reported. QEMU's limits of
    disks are known only if its monitor was asked.

    Next: Compare the limits that are applied, those of the next start, and the flavor:

        virsh dumpxml NAME | grep -A12 -E '<(cputune|iotune|bandwidth|memtune|blkiotune)'
        virsh dumpxml --inactive NAME | grep -A12 -E '<(cputune|iotune|bandwidth|memtune|blkiotune)'
        openstack server show UUID -c flavor

    Ask who set the limit, and why: it may protect other guests.

    If only the running domain has the limit of a disk, or QEMU has another one than libvirt, set it
    back, and so each limit that the headline names. The guest keeps running:

        virsh blkdeviotune NAME TARGET --DISK_LIMIT AMOUNT --live

    If only the running domain has the limit of CPU time, set it back:

        virsh schedinfo NAME --live CPU_LIMIT=AMOUNT

    If only the running domain has the limit of memory, set it back:

        virsh memtune NAME --MEMORY_LIMIT=AMOUNT --live

    If the stored definition has the limit, too, check first that the server's volumes and ports are
    right, because a stop and start defines the guest again from all of nova's records:

        openstack server volume list RESTARTED
        openstack port list --server RESTARTED

    Then stop and start the server, which ends the guest and boots it again:

        openstack server stop RESTARTED
        openstack server start RESTARTED

    It worked if the applied limits are the flavor's:

        virsh dumpxml NAME | grep -A12 -E '<(cputune|iotune|bandwidth|memtune|blkiotune)'

    Not yet: Do not remove a limit that protects other guests before its reason is known. Do not
    change the flavor's properties: the server keeps a copy of them.

    Source: nova virt/libvirt/driver.py `_update_guest_cputune`, imagebackend.py `disk_qos`; nova
    admin guide, resource limits; libvirt formatdomain, `iotune`, `bandwidth`; QEMU's QMP reference,
    `block_set_io_throttle`.
    """
    if domain.id is None:
        return
    apart = {}
    sold = _sold(instance)
    if sold is not None and instance is not None:
        apart = dict(_unsold(domain, sold))
        if apart:
            name = instance.flavor.name
            shown = [
                f"{_words(key)} {_set(key, now)} instead of {_set(key, wanted)}"
                for key, (now, wanted) in apart.items()
            ]
            yield problem(
                f"{guest.title} runs with other limits than flavor {name} sells: "
                f"{several(shown, MOST)}",
                derives(domain, "xml", **{key: now for key, (now, _) in apart.items()}),
                says(instance, flavor=name).and_so(
                    **{f"sold {key}": wanted for key, (_, wanted) in apart.items()}
                ),
                severity=None,
                **_way_back(guest, domain, {key: wanted for key, (_, wanted) in apart.items()}),
            )
    if domain.persistent:
        yield from _later(guest, domain, apart)
    if monitor is not None:
        yield from _in_force(guest, domain, monitor)
    if instance is None and "nova-db" in guest.unheard:
        raise UnheardError(guest.unheard["nova-db"])  # what was sold is unknown


_NO_WAY = dict.fromkeys(
    ("TARGET", "DISK_LIMIT", "CPU_LIMIT", "MEMORY_LIMIT", "AMOUNT", "RESTARTED"), ""
)
"""The placeholders of the advice for each way to set a limit back: none applies."""

NO_LIMIT = {"period": "100000", "quota": "-1", "hard_limit": "-1", "soft_limit": "-1"}
"""Setting of CPU time or memory → the value that means no limit; shares have none."""


def _way_back(guest: Guest, domain: Domain, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Return the placeholders of the advice: how to set limits back to these values.

    If the stored definition has all of them, the first one that virsh can change gets its command
    for the running domain.
    """
    then = domain.inactive.settings if domain.persistent else {}
    if not all(_same(then.get(key), value) for key, value in wanted.items()):
        return {**_NO_WAY, "RESTARTED": guest.uuid}
    for key, value in wanted.items():
        if disk := _IOTUNE.fullmatch(key):
            limit = disk["limit"].replace("_", "-")
            return {
                **_NO_WAY,
                "TARGET": disk["target"],
                "DISK_LIMIT": limit,
                "AMOUNT": value or "0",
            }
        part, _, name = key.partition("/")
        amount = value or NO_LIMIT.get(name)
        if amount is not None and part == "cputune" and name in OF_CPU.values():
            cpu = "cpu_shares" if name == "shares" else f"vcpu_{name}"
            return {**_NO_WAY, "CPU_LIMIT": cpu, "AMOUNT": amount}
        if amount is not None and part == "memtune" and name in NO_LIMIT:
            return {**_NO_WAY, "MEMORY_LIMIT": name.replace("_", "-"), "AMOUNT": amount}
    return _NO_WAY


_IOTUNE = re.compile(r"disk\[(?P<target>\w+)\]/iotune/(?P<limit>\w+_sec)")


def _sold(instance: Instance | None) -> Mapping[str, str] | None:
    """Return the flavor's properties after `quota:`; None if the flavor is unknown."""
    if instance is None or instance.deleted:
        return None
    flavor = instance.stored_flavor("cur")
    if flavor is None or "extra_specs" not in flavor:
        return None
    specs = mapping(flavor, "extra_specs")
    return {
        key.removeprefix("quota:"): str(value)
        for key, value in specs.items()
        if key.startswith("quota:")
    }


def _unsold(
    domain: Domain, sold: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
    """Yield setting → its value in libvirt and the flavor's, if these differ."""
    limits = domain.xml.settings
    for name, element in OF_CPU.items():
        key = f"cputune/{element}"
        now, wanted = limits.get(key), sold.get(name)
        if name == "cpu_shares" and wanted is None and now == str(_shares(domain.xml)):
            continue
        quotas = limits.get("cputune/quota"), sold.get("cpu_quota")
        if name == "cpu_period" and not any(map(_number, quotas)):
            continue  # a period means something only with a quota
        if not _same(now, wanted):
            yield key, (now, wanted)
    for disk in domain.disks:
        if disk.device == "disk" and _is_novas(disk):
            for element in OF_DISKS:
                key = f"disk[{disk.target}]/iotune/{element}"
                now, wanted = limits.get(key), sold.get(f"disk_{element}")
                if not _same(now, wanted):
                    yield key, (now, wanted)
    then = domain.inactive.settings if domain.persistent else {}
    for card in domain.macs:
        for way in ("inbound", "outbound"):
            for attribute in OF_CARDS:
                key = f"interface[{card}]/bandwidth/{way}/@{attribute}"
                now, wanted = limits.get(key), sold.get(f"vif_{way}_{attribute}")
                # What only the running card has is reported by another check.
                if now is not None and now == then.get(key) and not _same(now, wanted):
                    yield key, (now, wanted)


def _shares(xml: DomainXML) -> int:
    return SHARES_OF_A_VCPU * xml.vcpus


def _is_novas(disk: Disk) -> bool:
    """True if nova made the disk, so the flavor's limits apply to it."""
    return disk.source is not None and not disk.serial and owner_of(disk.source) is not None


def _same(one: str | None, other: str | None) -> bool:
    """True if two limits are equal; 0 and below mean no limit."""
    return one == other or _number(one) == _number(other) is not None


def _number(limit: str | None) -> int | None:
    """Return a limit, 0 without one; None for text that is no number."""
    number = int(limit) if limit and _WHOLE.fullmatch(limit) else None
    return 0 if limit is None or (number is not None and number < 0) else number


_WHOLE = re.compile(r"-?[0-9]{1,18}")


def _later(guest: Guest, domain: Domain, reported: Mapping[str, object]) -> Iterator[Problem]:
    """Yield the limits that only one of libvirt's definitions has."""
    now, then = domain.xml.settings, domain.inactive.settings
    if now == then:
        return
    shared = _devices(now) & _devices(then)
    apart = {}
    for key in sorted(now.keys() | then.keys()):
        one, two = now.get(key), then.get(key)
        device, of_device, rest = key.partition("]")
        if _same(one, two) or not is_limit(key) or key in reported:
            continue
        if key.endswith("period") and not any(map(_number, _quotas(key, now, then))):
            continue  # as above
        if key == "blkiotune/weight" and {one, two} <= {None, *_usual_weights(guest)}:
            continue  # set back by virsh, which can't remove it from the running domain
        # A device may be in one definition only. Another check compares the network cards.
        if of_device and (device not in shared or rest.startswith("/bandwidth")):
            continue
        apart[key] = (one, two)
    if apart:
        shown = [
            f"{_words(key)} {_set(key, one)} now, {_set(key, two)} then"
            for key, (one, two) in apart.items()
        ]
        yield problem(
            f"{guest.title} has other limits at its next start through libvirt: "
            f"{several(shown, MOST)}",
            derives(domain, "xml", **{key: one for key, (one, _) in apart.items()}),
            derives(domain, "inactive", **{f"next {key}": two for key, (_, two) in apart.items()}),
            severity=Severity.NOTE,
            **_way_back(guest, domain, {key: two for key, (_, two) in apart.items()}),
        )


def _usual_weights(guest: Guest) -> set[str]:
    """Return the weights for disks that the host's kernel gives a group by itself."""
    cgroup = guest.cgroup
    files = (known(lambda: [*cgroup.io_weights]) if cgroup is not None else None) or ["io.weight"]
    return {str(weight) for file in files for weight in USUAL_WEIGHTS[file]}


def _in_force(guest: Guest, domain: Domain, monitor: Monitor) -> Iterator[Problem]:
    """Yield the limits of disks that QEMU has otherwise than libvirt's definition."""
    targets = {alias: one.target for alias, one in domain.xml.devices.items() if one.target}
    for device in known(lambda: monitor.disks) or ():
        # Before -blockdev, a disk is known by its drive.
        names = {*(device.qdev or "").split("/"), (device.device or "").removeprefix("drive-")}
        named = [target for alias, target in targets.items() if alias in names]
        apart = {}
        for element, limit in device.limits.items() if len(named) == 1 else ():
            key = f"disk[{named[0]}]/iotune/{element}"
            if not _same(domain.xml.settings.get(key), str(limit)):
                apart[key] = (str(limit), domain.xml.settings.get(key))
        if apart:
            shown = [
                f"{_words(key)} {now if now != '0' else 'unlimited'} instead of "
                f"{wanted or 'unlimited'}"
                for key, (now, wanted) in apart.items()
            ]
            key, (_, wanted) = next(iter(apart.items()))
            yield problem(
                f"{guest.title} runs with other limits in QEMU than in libvirt: "
                f"{several(shown, MOST)}",
                derives(domain, "xml", **{key: wanted for key, (_, wanted) in apart.items()}),
                derives(monitor, "disks", **{key: now for key, (now, _) in apart.items()}),
                severity=None,
                **{
                    **_NO_WAY,
                    "TARGET": named[0],
                    "DISK_LIMIT": key.rpartition("/")[2].replace("_", "-"),
                    "AMOUNT": wanted or "0",
                },
            )


def _quotas(period: str, *settings: Mapping[str, str]) -> list[str | None]:
    """Return the quotas that a period is of, in each of the definitions."""
    return [one.get(f"{period.removesuffix('period')}quota") for one in settings]


def _devices(settings: Mapping[str, str]) -> set[str]:
    return {key.partition("]")[0] for key in settings if "]" in key}


def _set(key: str, value: str | None) -> str:
    """Return what a limit is set to. A weight or a share by itself limits nothing."""
    return value or ("the default" if key.endswith(("weight", "shares")) else "unlimited")


def _words(key: str) -> str:
    """Return a limit in words: `read_iops_sec of vda`, `cputune quota`."""
    device, of_device, rest = key.partition("]/")
    path = (rest if of_device else key).replace("@", "").split("/")
    if of_device:
        return f"{' '.join(path[1:])} of {device.partition('[')[2]}"
    return " ".join(path)
