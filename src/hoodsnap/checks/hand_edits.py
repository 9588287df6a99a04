"""Elements of a definition that nova never writes: somebody edited the domain by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Severity, derives
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.release import Release
from hoodsnap.facts.cloud.volume_owners import is_disk_of, volume_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML
from hoodsnap.facts.fact import UnheardError, known, mapping
from hoodsnap.facts.host.instances_directory import disk_owner, is_base
from hoodsnap.phrase import place, several

LIFECYCLE = {"on_poweroff": "destroy", "on_reboot": "restart", "on_crash": "destroy"}
"""Setting → the value that libvirt writes where nova leaves it out, as nova always does."""

FULLY_VIRTUAL = frozenset(["kvm", "qemu"])
"""Types of domains that are compared: a container has its root as a `<filesystem>`."""

NOVAS_FILTERS = "nova-"
"""Beginning of the names of the filters that nova's own firewall made, up to Train."""

BUILT_IN = "itco"
"""Model of the watchdog that libvirt adds to a q35 machine."""


class Kind(NamedTuple):
    """One kind of element that nova does not write."""

    severity: Severity
    effect: str
    """The end of the headline."""
    compared: bool = False
    """True if live-vs-persistent-drift reports it where only the stored definition has it."""


KINDS: Mapping[str, Kind] = {
    "transient": Kind(Severity.ERROR, "what is written to it is lost when the guest stops"),
    "shareable": Kind(Severity.WARNING, "a second guest can open it for writing", compared=True),
    "serial": Kind(Severity.WARNING, "the guest can't find it in /dev/disk/by-id"),
    "medium": Kind(Severity.NOTE, "nova does not know the file"),
    "arguments": Kind(Severity.WARNING, "libvirt does not know what they do", compared=True),
    "filesystem": Kind(Severity.WARNING, "the guest can read a folder of the host", compared=True),
    "host device": Kind(Severity.WARNING, "the guest can't be live-migrated"),
    "on_poweroff": Kind(
        Severity.WARNING, "a shutdown inside the guest does not end it", compared=True
    ),
    "on_reboot": Kind(Severity.WARNING, "a reboot inside the guest ends it", compared=True),
    "on_crash": Kind(
        Severity.NOTE, "a crash of the guest does not end it as nova expects", compared=True
    ),
    "watchdog": Kind(Severity.NOTE, "neither flavor nor image asks for it", compared=True),
    "filter": Kind(Severity.NOTE, "it may drop packets of the guest", compared=True),
    "TPM": Kind(Severity.NOTE, "neither flavor nor image asks for it"),
}


class Part(NamedTuple):
    """One element that nova did not write."""

    kind: str
    what: str
    """The element in words: `transient disk vda`."""
    name: str
    """Its place in the definition."""
    value: str


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def definition_not_novas(
    guest: Guest, host: Host, domain: Domain, instance: Instance | None
) -> Problems:
    """The domain's definition has something that nova never writes.

    nova generates the whole definition from the flavor, the image, the volumes, the ports and
    nova.conf, and writes it again at each start and hard reboot. Anything else was added by hand,
    with `virsh edit`, `attach-device` or `define`: it works until the next start through nova,
    nobody sees it in the API, and it can break a migration. A transient disk is an error: libvirt
    throws away everything that the guest wrote when it stops.

    Authority: nova's driver, for what a definition may contain; the flavor and the image, for what
    the server asks for.

    Traps: A shareable disk of a multiattach volume. A share that nova attaches by virtiofs (since
    2024.2). A watchdog or TPM of the flavor or the image, and the watchdog of every q35 machine.
    Filters of nova's own firewall. Only guests of KVM and QEMU are compared. A setting that only
    the stored definition of a running guest has is reported by `live-vs-persistent-drift`.

    Next: Check both definitions, and who changed them:

        virsh dumpxml NAME
        virsh dumpxml --inactive NAME
        grep virsh /root/.bash_history /var/log/auth.log

    If a running guest's disk is transient, back up from inside the guest what was written since its
    start, before anything ends the guest:

        virsh domblklist --details TRANSIENT_DOMAIN

    Ask the server's owner whether the guest needs the element; nova's way to it is a property of
    the flavor or the image, or a volume. Check that the server's volumes and ports are right,
    because nova defines the guest again from all of its records:

        openstack server volume list UUID
        openstack port list --server UUID

    If the server is off, nothing else has to be done before its next start through nova, which
    writes nova's own definition:

        openstack server start STARTED

    If it runs, a hard reboot writes nova's own definition. It ends the guest and boots it again, so
    let the owner choose the time:

        openstack server reboot --hard REWRITTEN

    It worked if the element is gone from both definitions:

        virsh dumpxml NAME
        virsh dumpxml --inactive NAME

    Not yet: Do not stop or reboot a guest with a transient disk, and do not shut it down from
    inside, before its data is saved elsewhere. Do not start the guest with `virsh start`, which
    uses the edited definition. Do not live-migrate it: the element may not exist on the other
    host.

    Source: nova virt/libvirt/config.py and driver.py `_get_guest_config`; libvirt formatdomain.
    """
    if not domain.is_nova or guest.record is None:
        return
    if instance is not None and instance.deleted:
        return
    runs = domain.id is not None
    definitions = {"xml": domain.xml} if runs else {}
    if domain.persistent:
        definitions["inactive"] = domain.inactive
    context = _Context(guest, host, domain, instance)
    found: dict[str, dict[str, list[Part]]] = {}
    reasons = []
    for which, xml in definitions.items():
        if xml.type not in FULLY_VIRTUAL:
            continue
        for read in READERS:
            try:
                for part in read(xml, context):
                    found.setdefault(part.kind, {}).setdefault(which, []).append(part)
            except UnheardError as reason:
                reasons.append(reason)
    for kind, of in found.items():
        only_stored = runs and "xml" not in of
        # In one definition only, another check compares the two.
        if only_stored and KINDS[kind].compared:
            continue
        if kind == "serial" and len(of) < len(definitions):
            continue  # chain-live-vs-persistent compares the serial numbers
        yield _problem(guest, domain, kind, of)
    if reasons:
        raise reasons[0]


def _problem(guest: Guest, domain: Domain, kind: str, of: Mapping[str, list[Part]]) -> Problem:
    runs, live = domain.id is not None, "xml" in of
    severity, effect, _ = KINDS[kind]
    if severity is Severity.ERROR and not live:
        severity = Severity.WARNING  # the next start through nova defines the disk again
    names = {"xml": "running", "inactive": "stored"} if runs else {"inactive": "stored"}
    whose = " and ".join(name for which, name in names.items() if which in of)
    plural = "definitions have" if len(of) > 1 else "definition has"
    what = several(dict.fromkeys(part.what for parts in of.values() for part in parts))
    save_first = kind == "transient" and live
    saved = domain.managed_save if "info" in domain.said else True
    state = guest.record.vm_state if guest.record is not None else None
    return problem(
        f"{guest.title}'s {whose} {plural} {what}, which nova did not write: {effect}",
        *(
            derives(domain, which, **{_key(which, part.name): part.value for part in parts})
            for which, parts in of.items()
        ),
        severity=severity,
        TRANSIENT_DOMAIN=domain.name if save_first else "",
        STARTED=guest.uuid if state == "stopped" and not runs and not saved else "",
        REWRITTEN=guest.uuid if state == "active" and runs and not save_first else "",
    )


def _key(which: str, name: str) -> str:
    return name if which == "xml" else f"next {name}"


class _Context(NamedTuple):
    """What the definition of one guest is compared with."""

    guest: Guest
    host: Host
    domain: Domain
    instance: Instance | None

    def mappings(self) -> tuple[BlockDeviceMapping, ...]:
        """nova's rows of the guest's disks."""
        if self.instance is None:
            raise UnheardError(self.guest.unheard.get("nova-db", "no row of the instance"))
        return self.instance.mappings

    def asks_for(self, names: tuple[str, ...]) -> bool:
        """True if flavor or image have one of these properties, with `hw:` or `hw_` in front."""
        if self.instance is None:
            raise UnheardError(self.guest.unheard.get("nova-db", "no row of the instance"))
        flavor = self.instance.stored_flavor("cur")
        if flavor is None:
            raise UnheardError("the instance's stored flavor can't be read")
        asked = {*mapping(flavor, "extra_specs"), *self.instance.image_copy}
        return any(f"hw{mark}{name}" in asked for name in names for mark in ":_")


def is_unsold(name: str, value: str) -> bool:
    """True for a setting that definition-not-novas reports wherever the running guest has it."""
    return (
        LIFECYCLE.get(name, value) != value
        or name.startswith(("qemu:", "filesystem"))
        or name.endswith("/shareable")
    )


def _settings(xml: DomainXML, context: _Context) -> Iterator[Part]:
    """Yield what is a setting on its own, whatever the server asks for."""
    settings = xml.settings
    for name, usual in LIFECYCLE.items():
        value = settings.get(name, usual)
        if value != usual:
            yield Part(name, f"{name} {value}", name, value)
    for name, value in settings.items():
        if name.startswith("qemu:"):
            words = value if name.endswith("/@value") else f"{name} {value}"
            yield Part("arguments", f"QEMU argument {words}", name, value)
        elif name.endswith("/filterref/@filter") and not value.startswith(NOVAS_FILTERS):
            yield Part("filter", f"network filter {value}", name, value)


def _filesystems(xml: DomainXML, context: _Context) -> Iterator[Part]:
    settings = xml.settings
    for name, value in settings.items():
        device, _, rest = name.partition("/")
        if not device.startswith("filesystem") or rest not in ("source/@dir", "source/@file"):
            continue
        is_virtiofs = settings.get(f"{device}/driver/@type") == "virtiofs"
        # nova attaches shares by virtiofs; a release that is unknown may be one that does.
        if is_virtiofs and known(context.host.release.since, Release.R2024_2) is not False:
            continue
        yield Part("filesystem", f"the host's folder {place(value)}", name, value)


def _host_devices(xml: DomainXML, context: _Context) -> Iterator[Part]:
    for device in xml.unsold_devices:
        yield Part("host device", f"the host's device {device}", "hostdev", device)


def _watchdogs(xml: DomainXML, context: _Context) -> Iterator[Part]:
    for name, value in xml.settings.items():
        device, _, rest = name.partition("/")
        if not device.startswith("watchdog") or rest != "@model" or value == BUILT_IN:
            continue
        if not context.asks_for(("watchdog_action",)):
            action = xml.settings.get(f"{device}/@action", "reset")
            yield Part("watchdog", f"a watchdog ({action})", device, f"{value}, {action}")


def _tpms(xml: DomainXML, context: _Context) -> Iterator[Part]:
    for tpm in xml.tpms:
        if not context.asks_for(("tpm_version", "tpm_model")):
            yield Part("TPM", f"a TPM {tpm.version or ''}".rstrip(), "tpm", tpm.version or "any")


def _disks(xml: DomainXML, context: _Context) -> Iterator[Part]:
    for disk in xml.disks:
        name = f"disk[{disk.target}]"
        if disk.transient:
            yield Part("transient", f"transient disk {disk.target}", f"{name}/transient", "yes")
        if disk.shareable and _is_for_one(disk, context):
            yield Part("shareable", f"shareable disk {disk.target}", f"{name}/shareable", "yes")


def _is_for_one(disk: Disk, context: _Context) -> bool:
    """True if a disk is known to be no multiattach volume: nova's own, or a volume for one."""
    if disk_owner(disk.source or "") == context.guest.uuid:
        return True
    volume = volume_of(disk)
    if volume is None:
        return False
    rows = [row for row in context.mappings() if row.volume_id == volume]
    connections = [row.connection for row in rows]
    told = [known(lambda one: one.multiattach, one) for one in connections if one is not None]
    cinders = [one for one in context.guest.volumes or () if one.id == volume]
    told += [known(lambda one: one.multiattach, one) for one in cinders]
    return bool(connections) and bool(cinders) and all(one is False for one in told)


def _serials(xml: DomainXML, context: _Context) -> Iterator[Part]:
    for disk in xml.disks:
        if disk.serial or disk.device != "disk" or disk.source is None:
            continue
        if any(is_disk_of(row, disk) for row in context.mappings()):
            value = "none"
            yield Part("serial", f"volume {disk.target} without a serial number",
                       f"disk[{disk.target}]/serial", value)  # fmt: skip


def _media(xml: DomainXML, context: _Context) -> Iterator[Part]:
    """Yield files that are no disk or volume of nova's: CD-ROMs, and disks of a guest that is off.

    guest-volume-not-in-bdm reports disks of a running guest.
    """
    guest, domain = context.guest, context.domain
    for disk in xml.disks:
        source = disk.source or ""
        if disk.image.type != "file" or not source:
            continue
        if disk.device not in ("cdrom", "floppy") and domain.id is not None:
            continue
        # Before Grizzly a folder had the domain's name.
        if guest.uuid in source.lower() or f"/{domain.name}/" in source or is_base(source):
            continue
        if disk_owner(source) is not None or volume_of(disk) is not None:
            continue  # another server's disk and a volume are compared by other checks
        if not any(is_disk_of(row, disk) for row in context.mappings()):
            what = {"cdrom": "CD-ROM"}.get(disk.device, disk.device)
            name = f"disk[{disk.target}]/source"
            yield Part("medium", f"{what} {disk.target} ({place(source)})", name, source)


READERS: tuple[Callable[[DomainXML, _Context], Iterator[Part]], ...] = (
    _disks,
    _settings,
    _filesystems,
    _host_devices,
    _serials,
    _media,
    _watchdogs,
    _tpms,
)
