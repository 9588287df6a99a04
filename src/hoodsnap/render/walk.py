"""The walk of one guest through its layers. Each step names what ties it to the next one."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from hoodsnap.facts.api.allocation import Allocation
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.subnet import FloatingIp
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import NOUNS, Guest
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.power_state import POWER_STATES
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught, is_true, known
from hoodsnap.facts.host.cgroup import Cgroup
from hoodsnap.facts.host.device import Device, Devices
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.host.tap import Tap
from hoodsnap.facts.layer import LAYER_OF
from hoodsnap.facts.process.monitor import Monitor

LONG_PATH = 40
"""Characters up to which a path is shown whole; a longer one is cut, and whole in the evidence."""


@dataclass(frozen=True, slots=True)
class Step:
    """One layer's view of a guest, in one line."""

    layer: str
    noun: str
    state: str
    """`there`, `absent` or `unheard`."""
    text: str


def steps(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    """Yield the steps, outermost layer first: server, instance, allocation, volumes … log."""
    try:
        yield from _steps(cloud, guest)
    except Exception as error:  # a net around each guest's walk
        yield Step("", "the rest", "unheard", str(caught(error)))


def _steps(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    for noun, lines in LINES.items():
        if guest.host is not None or noun in ANYWHERE:
            yield from lines(cloud, guest)


def _servers(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    yield _step(guest, "server", guest.server, lambda: _server(cloud, guest.server))


def _instances(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    yield _step(guest, "instance", guest.instance, lambda: _instance(guest, guest.instance))
    yield from _faults(guest)


def _faults(guest: Guest) -> Iterator[Step]:
    """Yield the server's last fault, with the last action if it failed: no noun of a guest, but
    what its owner asks about first."""
    try:
        record = guest.record
        if record is None or record.fault_message is None:
            return
        layer = record.layer.id
    except UnheardError:
        return  # no answer has faults, or the server has none in a tenant's view
    try:
        yield Step(layer, "fault", "there", _fault(record, guest.instance))
    except Exception as error:  # the net around each step
        yield Step(layer, "fault", "unheard", str(caught(error)))


def _fault(record: Server | Instance, instance: Instance | None) -> str:
    said = (record.fault_message or "").strip().rstrip(".")
    at = moment(known(lambda: record.fault_at))
    host = known(lambda: instance.fault_host) if instance is not None else None
    links = [
        " ".join(
            filter(
                None,
                (
                    f"{at:%Y-%m-%d %H:%M}" if at is not None else "",
                    str(known(lambda: record.fault_code) or ""),
                    said,
                    f"(on {host})" if host else "",
                ),
            )
        )
    ]
    actions = known(lambda: instance.actions) if instance is not None else None
    last = actions[-1] if actions else None
    if last is not None and known(lambda: last.message) is not None:
        step = last.failed_step
        where = f" in {step.event} on {known(lambda: step.host) or '?'}" if step is not None else ""
        links.append(f"{last.action} failed{where}, {last.request_id}")
    return " → ".join(links)


def _allocations(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    if guest.record is not None or guest.allocation is not None:
        yield _step(guest, "allocation", guest.allocation, lambda: _allocation(guest.allocation))


def _domains(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    yield _step(guest, "domain", guest.domain, lambda: _domain(guest.domain))


def _processes(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    yield _step(guest, "process", guest.process, lambda: _process(guest))


def _cgroups(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    if guest.cgroup is not None:
        yield _step(guest, "cgroup", guest.cgroup, lambda: _cgroup(guest.cgroup))


def _monitors(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    if guest.monitor is not None:
        yield _step(guest, "monitor", guest.monitor, lambda: _monitor(guest.monitor))


def _images(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    images = guest.images or ()
    elsewhere = [*_disks_elsewhere(guest)]
    if not images and not elsewhere:
        yield _step(guest, "images", None, str)
    for image in images:
        yield _step(guest, "image", image, partial(_image, cloud, guest, image))
    for disk in elsewhere:
        where = disk.protocol or "network" if disk.image.type == "network" else "block device"
        told = f"{disk.target} = {where} {disk.source}, known by its name only"
        yield Step("images", "image", "there", told)


def _disks_elsewhere(guest: Guest) -> Iterator[Disk]:
    """Yield the disks that nova keeps for the guest outside of files: in rbd or LVM."""
    try:
        disks = guest.domain.current.disks if guest.domain is not None else ()
    except UnheardError:
        return
    for disk in disks:
        outside = disk.image.type in ("network", "block") and disk.source is not None
        if outside and volume_of(disk) is None:
            yield disk


def _logs(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    if guest.log is not None and (said := _log(guest, guest.log)):
        yield Step("logs", "log", "there", said)


def _volumes(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    """Yield a step for each volume in nova's block device mappings, as cinder reports it."""
    for mapping in guest.instance.mappings_shown if guest.instance is not None else ():
        try:
            named = mapping.volume_id
            if named is not None:
                yield Step("cinder", "volume", *_volume(guest, mapping, named))
        except UnheardError as reason:
            state = "unheard" if guest.volumes is None else "there"
            yield Step("cinder", "volume", state, str(reason))
        except Exception as error:  # the net around each step
            yield Step("cinder", "volume", "unheard", str(caught(error)))


def _volume(guest: Guest, mapping: BlockDeviceMapping, named: str) -> tuple[str, str]:
    volume = guest.storage.volumes.volume(named)
    target = posixpath.basename(mapping.device_name or "")
    if volume is None:
        return "absent", f"{target}: cinder has no volume {named}"
    attachments = guest.storage.volumes.by_volume.get(named, ())
    own = [found for found in attachments if found.instance == guest.uuid]
    return "there", _told(
        lambda: f"{target} = {volume.name or 'volume'} ({named[:8]}…, {volume.size_gib} GiB)",
        lambda: volume.status,
        lambda: f"attached on host {own[0].host}" if own else "not attached to this server",
    )


def _devices(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    """Yield a step for each volume of the domain: how it reaches this host."""
    host = guest.host
    try:
        disks = guest.domain.disks if guest.domain is not None else ()
    except UnheardError:
        return
    if host is None:
        return
    for disk in disks:
        if volume_of(disk) is not None and disk.source is not None:
            if "block" in guest.unheard:
                yield Step("block", "device", "unheard", guest.unheard["block"])
                return
            yield Step("block", "device", "there", _device(host.devices, disk))


def _device(devices: Devices, disk: Disk) -> str:
    source = disk.source or ""
    links = [f"{disk.target} = {_end(source)}"]
    device = devices.find(source) if disk.image.type == "block" else None
    try:
        if device is not None:
            links.append(_layers(devices, device))
        elif disk.image.type == "network":
            links[0] = f"{disk.target} = {source}"
            links.append(f"{disk.protocol or 'network'}, opened by QEMU itself")
        elif (mount := devices.mount_of(source)) is not None:
            links.append(f"{mount.type} mount of {_of(devices, mount.source)}")
        else:
            links.append("no known device of this host")
    except UnheardError as reason:
        links.append(f"the rest was not collected ({reason})")
    return " → ".join(links)


def _end(path: str) -> str:
    name = posixpath.basename(path)
    return name if len(path) > LONG_PATH else path


def _layers(devices: Devices, device: Device) -> str:
    """Return the chain below a device: `mpatha (mpath) → sdb, sdc → iqn.2010-10.… LUN 1`."""
    disks = sorted(devices.below(device))
    links = [f"{device.name} ({device.type}, {size(device.size)})"]
    if disks != [device.kname]:
        links.append(", ".join(disks))
    reached = {
        f"{session.target} LUN {lun}"
        for session in devices.sessions
        for lun, kname in session.disks
        if kname in disks
    }
    return " → ".join([*links, *sorted(reached)])


def _of(devices: Devices, source: str) -> str:
    file = devices.loops.get(posixpath.basename(source))
    return f"{source} ({file})" if file else source


def _step(guest: Guest, noun: str, fact: object, line: Callable[[], str]) -> Step:
    layer = (LAYER_OF.get(noun) or LAYER_OF[f"{noun}s"]).id
    if fact is not None:
        try:
            return Step(layer, noun, "there", line())
        except Exception as error:  # the net around each step
            return Step(layer, noun, "unheard", str(caught(error)))
    if layer in guest.unheard:
        return Step(layer, noun, "unheard", guest.unheard[layer])
    return Step(layer, noun, "absent", _absence(guest, noun))


def _absence(guest: Guest, noun: str) -> str:
    try:
        state = guest.record.vm_state if guest.record is not None else ""
    except UnheardError:
        state = ""
    expected = {
        "process": state in ("stopped", "suspended", "shelved", "error", "soft-delete"),
        "images": state == "error",
        "domain": state in ("error", "shelved_offloaded"),
        "allocation": state in ("error", "shelved_offloaded"),
    }
    return f"none, as expected in state {state}" if expected.get(noun) else "none"


def _told(*parts: Callable[[], str]) -> str:
    """Join the parts that were collected. Raise `UnheardError` if no part was."""
    heard: list[str] = []
    reason = None
    for part in parts:
        try:
            heard.append(part())
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None and not any(heard):
        raise reason
    return ", ".join(filter(None, heard))


def _server(cloud: Cloud, server: Server | None) -> str:
    assert server is not None  # noqa: S101 (called only for a fact that exists)
    return _told(
        lambda: server.status,
        lambda: f"task_state {server.task_state}" if server.task_state else "",
        lambda: server.flavor or "",
        lambda: _made_from(cloud, server.image),
    )


def _made_from(cloud: Cloud, image: str | None) -> str:
    if image is None:
        return "boots from a volume"
    name = cloud.image_names.get(image)
    return f"from image {name} ({image[:8]}…)" if name else f"from image {image}"


def _instance(guest: Guest, instance: Instance | None) -> str:
    assert instance is not None  # noqa: S101
    # The domain name is derived from the row only where the API did not return instance_name.
    name = f" → {_domain_name(guest, instance)}"
    return _told(
        lambda: f"row {instance.id} of {instance.database}{name}",
        lambda: f"deleted {instance.deleted_at}" if instance.deleted else "",
        lambda: instance.vm_state,
        lambda: f"task_state {instance.task_state}" if instance.task_state else "",
        lambda: _power(instance.power_state),
    )


def _power(state: int | None) -> str:
    word = POWER_STATES.get(-1 if state is None else state)
    return f"power {word}" if word else ""


def _domain_name(guest: Guest, instance: Instance) -> str:
    if guest.server is not None:
        try:
            if guest.server.instance_name:
                return guest.server.instance_name
        except UnheardError:
            pass
    try:
        template = guest.host.option("DEFAULT", "instance_name_template") if guest.host else ""
        return (template or "instance-%08x") % (instance.raw if "(" in template else instance.id)
    except (UnheardError, TypeError, ValueError, KeyError):
        return "a domain"


def _allocation(allocation: Allocation | None) -> str:
    assert allocation is not None  # noqa: S101
    return allocation.words


def _domain(domain: Domain | None) -> str:
    assert domain is not None  # noqa: S101
    return _told(
        lambda: domain.name,
        lambda: f"id {domain.id}" if domain.id is not None else "no id",
        lambda: domain.state_words,
    )


def _process(guest: Guest) -> str:
    process = guest.process
    assert process is not None  # noqa: S101
    others = len(guest.processes) - 1
    return _told(
        lambda: f"pid {process.pid}",
        lambda: f"-uuid {process.uuid}" if process.uuid else "no -uuid",
        lambda: "STOPPED (state T)" if process.state == "T" else "",
        lambda: f"and {others} more with this UUID" if others else "",
    )


def _cgroup(cgroup: Cgroup | None) -> str:
    assert cgroup is not None  # noqa: S101
    return _told(
        lambda: cgroup.machine or "in no group of its own",
        lambda: _cpu_time(cgroup),
        lambda: f"CPUs {cgroup.cpus}",
        lambda: _waiting(cgroup.cpu_pressure),
        lambda: _memory(cgroup),
        lambda: f"{cgroup.oom_kills} killed at its limit" if cgroup.oom_kills else "",
    )


def _cpu_time(cgroup: Cgroup) -> str:
    if cgroup.vcpu_percent is None:
        return ""
    throttled = cgroup.throttled_percent
    held = f", held back in {throttled} % of its periods" if throttled is not None else ""
    return f"each vCPU has {cgroup.vcpu_percent} % of a CPU{held}"


def _waiting(percent: float) -> str:
    return f"waits for a CPU {percent:.0f} % of the time" if percent >= 1 else ""


def _memory(cgroup: Cgroup) -> str:
    limit = cgroup.memory_limit_kib
    most = f" of at most {size(limit << 10)}" if limit is not None else ""
    return f"memory {size(cgroup.memory_used_kib << 10)}{most}"


def _monitor(monitor: Monitor | None) -> str:
    assert monitor is not None  # noqa: S101
    return _told(lambda: monitor.status, lambda: f"{monitor.vcpus} vCPU")


def _log(guest: Guest, log: Log) -> str:
    """Return how the last run ended, if the guest is off; else an empty text."""
    try:
        if guest.process is not None or log.ended is None:
            return ""
        killed = ", killed because the host ran out of memory" if log.oom_kill else ""
        return f"ended {log.ended.partition('.')[0]} ({log.end_reason}){killed}"
    except UnheardError:
        return ""


def _image(cloud: Cloud, guest: Guest, image: Image) -> str:
    links = [f"{_short(guest, image.path)} ({image.format}, {size(image.virtual_size)})"]
    if image.backing_missing:
        # The chain could not be followed; its first link is known from the image header.
        base = image.top.full_backing_filename or image.backing_filename or ""
        links.append(f"{_link(cloud, guest, base)}, MISSING")
    else:
        links += [_link(cloud, guest, layer.path) for layer in image.chain[1:]]
    return " → ".join(links)


def _ports(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    """Yield a step for each port in neutron, each followed by its tap on the host."""
    taps = {tap.prefix: tap for tap in guest.taps or ()}
    for port in guest.ports or ():
        yield _step(guest, "port", port, partial(_port, port))
        tap = taps.get(port.id[:PREFIX])
        # A guest that is off has no tap, and this host has no data about a guest elsewhere.
        if tap is not None or guest.process is not None or "network" in guest.unheard:
            yield _step(guest, "tap", tap, partial(_tap, cloud, guest, port, tap))
    if not guest.ports:
        yield _step(guest, "port", None, str)


def _taps(cloud: Cloud, guest: Guest) -> Iterator[Step]:
    """Taps on the host that belong to none of the guest's ports."""
    prefixes = {port.id[:PREFIX] for port in guest.ports or ()}
    for tap in guest.taps or ():
        if tap.prefix not in prefixes:
            yield _step(guest, "tap", tap, partial(_tap, cloud, guest, None, tap))


def _port(port: Port) -> str:
    network = port.network
    return _told(
        lambda: f"{port.id[:PREFIX]}…",
        lambda: port.status,
        lambda: "" if port.admin_state_up else "admin down",
        lambda: " ".join(port.addresses) + (f" in {network.name}" if network else ""),
        lambda: f"bound to {port.host}" if port.host else "not bound to a host",
    )


def _tap(cloud: Cloud, guest: Guest, port: Port | None, tap: Tap | None) -> str:
    assert tap is not None  # noqa: S101 (called only for a fact that exists)
    state = _told(lambda: "" if tap.is_there else "no such device", lambda: _down(tap))
    links = [_told(lambda: tap.name, lambda: state)]
    if tap.is_there and is_true(lambda: _is_unplugged(port, tap)):
        return " → ".join([*links, "not in Open vSwitch"])
    links.append(_told(lambda: _bridge(tap)))
    links += _outwards(cloud, guest, port)
    return " → ".join(filter(None, links))


def _down(tap: Tap) -> str:
    return "" if not tap.is_there or tap.up else "down"


def _is_unplugged(port: Port | None, tap: Tap) -> bool:
    return port is not None and port.vif_type == "ovs" and not tap.is_switched


def _bridge(tap: Tap) -> str:
    try:
        bridge, tag = tap.bridge, tap.tag
    except UnheardError:
        bridge, tag = None, None
    if bridge is None:  # not on Open vSwitch: a kernel bridge, if any
        return tap.master or "" if tap.is_there else ""
    return bridge if tag is None else f"{bridge} tag {tag}"


def _outwards(cloud: Cloud, guest: Guest, port: Port | None) -> Iterator[str]:
    """Yield the router namespaces of the port's network, and the port's floating IPs."""
    if port is None or guest.host is None:
        return
    try:
        routers = cloud.ports.routers.get(port.network_id or "", frozenset())
    except UnheardError:
        return
    for router in sorted(routers):
        if f"qrouter-{router}" in guest.host.network.namespaces:
            yield f"qrouter-{router[:8]}…"
    for leads in cloud.ports.floating.get(port.id, ()):
        if (fate := known(partial(translation, cloud, leads))) is not None:
            yield leads.address + fate


def translation(cloud: Cloud, leads: FloatingIp) -> str:
    """Return what a router on a captured host does with a floating IP: "" if it translates it."""
    for host in cloud.hosts:
        space = host.network.namespaces.get(f"qrouter-{leads.router_id}")
        if space is None:
            continue
        try:
            return "" if space.inwards.get(leads.address) == leads.fixed else " (not translated)"
        except UnheardError:
            break
    return " (neutron; its translation was not collected)"


def _link(cloud: Cloud, guest: Guest, path: str) -> str:
    base = posixpath.basename(path)
    image = cloud.image_of_base.get(base.partition("_")[0])
    if image is None:
        return _short(guest, path)
    return f"_base/{base[:8]}… = sha1 of image {image[:8]}…"


def _short(guest: Guest, path: str) -> str:
    """Shorten a path: drop the guest's own folder, keep `_base/`, cut other long folders."""
    folder, name = posixpath.split(path)
    if posixpath.basename(folder).startswith(guest.uuid):
        suffix = posixpath.basename(folder)[len(guest.uuid) :]
        return f"{name} in …{suffix}" if suffix else name
    if posixpath.basename(folder) == "_base":
        return f"_base/{name}"
    return path if len(path) <= LONG_PATH else f"…/{name}"


def size(number: int | None) -> str:
    """Return bytes for people: `1 GiB`, `8.2 MiB`; `size unknown` for None."""
    if number is None:
        return "size unknown"
    amount, unit = float(number), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, bigger
    return (
        f"{amount:.0f} {unit}" if amount >= 10 or amount == int(amount) else f"{amount:.1f} {unit}"
    )


LINES: Mapping[str, Callable[[Cloud, Guest], Iterator[Step]]] = {
    "server": _servers,
    "instance": _instances,
    "allocation": _allocations,
    "volumes": _volumes,
    "domain": _domains,
    "process": _processes,
    "cgroup": _cgroups,
    "monitor": _monitors,
    "images": _images,
    "devices": _devices,
    "ports": _ports,
    "taps": _taps,
    "log": _logs,
}
"""The lines of each noun of a guest, in the order of the walk."""

ANYWHERE = ("server", "instance", "allocation", "volumes")
"""Nouns that are also shown for a guest that is on no captured host."""

if LINES.keys() != NOUNS.keys():
    lacking = ", ".join(sorted(NOUNS.keys() ^ LINES.keys()))
    raise TypeError(f"nouns of a guest without lines in the walk, or the reverse: {lacking}")
