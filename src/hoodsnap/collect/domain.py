"""libvirt's answers about its host and each domain, over read-only connections."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hoodsnap.collect.libvirt_client import LibvirtClient, binding
from hoodsnap.collect.recorder import Recorder
from hoodsnap.facts.domain.hardware import home_of, tpm_state
from hoodsnap.keep.domain_xml import kept_definition

SAVES = "/var/lib/libvirt/qemu/save"
"""Folder in which libvirt's system daemon keeps the memory of saved domains."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Values that change when something happens to a domain: equal marks mean no change."""

    name: str

    id: int | None
    """libvirt's id; None while the domain is off."""

    state: tuple[int, int] | None
    """libvirt's numbers of the state and its reason; None if they were not collected."""


@dataclass(frozen=True, slots=True)
class SeenDomain:
    """Properties of a domain that the other collectors need."""

    uuid: str
    name: str
    id: int | None
    images: Mapping[str, str | None]
    """The files and block devices that its definitions name, including backing files: path →
    format. The format is None if the definitions don't give it."""
    firmware: tuple[str, ...] = ()
    """Paths of its firmware, the firmware's variables and its TPM's state, and their folders."""
    saves: tuple[str, ...] = ()
    """Files with its saved memory, from which it will start."""
    volumes: frozenset[str] = frozenset()
    """Serials of its disks. The serial of a volume is the volume's id."""
    remote: frozenset[str] | None = frozenset()
    """Protocols (`rbd`, `nbd` …) of its disks that are neither files nor devices of the host; None
    if it is running and its definition was not read."""


class Domains:
    """All domains of one libvirt daemon. Each object is for one thread at a time."""

    def __init__(self, recorder: Recorder, uri: str | None = None) -> None:
        self._daemon = LibvirtClient(recorder, uri)
        self._marks: dict[str, Mark] = {}

    @property
    def host(self) -> str | None:
        """The host that the domains run on, if it is not the recorder's."""
        return self._daemon.host

    def close(self) -> None:
        """Close the connection."""
        self._daemon.close()

    def ask_host(self) -> None:
        """Ask the daemon about itself, its host and its networks."""
        ask = self._daemon.ask
        ask("virsh hostname", lambda connection: connection.getHostname())
        ask("virsh uri", lambda connection: connection.getURI())
        ask("virsh version", _version)
        ask("virsh nodeinfo", _nodeinfo)
        ask("virsh capabilities", lambda connection: connection.getCapabilities())
        networks = ask("virsh net-list --all", _networks)
        for network in networks.value or []:
            name = network["name"]
            ask(f"virsh net-dumpxml {name}", _network_xml(name))
        ask("virsh secret-list", _secrets)

    def look(self) -> dict[str, Mark] | None:
        """Ask for all domains and their states: UUID → mark, sorted by name.

        Return None if the daemon did not list its domains, which does not mean that it has none.
        """
        self._daemon.look_again()
        listed = self._daemon.ask("virsh list --all", _domains)
        if listed.error is not None:
            return None
        marks = {}
        for row in listed.value:
            query = f"virsh domstate --reason {row['name']}"
            state = self._daemon.ask_domain(row["uuid"], query, _state)
            number = None if state.error else (state.value["state"], state.value["reason"])
            marks[row["uuid"]] = Mark(row["name"], row["id"], number)
        self._marks |= marks
        return marks

    def ask_about(self, uuids: Iterable[str]) -> list[SeenDomain]:
        """Ask everything about these domains, including domains that have disappeared since an
        earlier look. UUIDs that no look has listed are ignored."""
        wanted = set(uuids)
        known = sorted(self._marks.items(), key=lambda item: (item[1].name, item[0]))
        return [self._ask_about(uuid, mark) for uuid, mark in known if uuid in wanted]

    def _ask_about(self, uuid: str, mark: Mark) -> SeenDomain:
        def ask(query: str, question: Any, of_qemu: bool = False) -> Any:
            """Ask about this domain. Return the value, or None if that failed."""
            return self._daemon.ask_domain(uuid, query, question, of_qemu=of_qemu).value

        name, active = mark.name, mark.id is not None
        info = ask(f"virsh dominfo {name}", _info)
        live = ask(f"virsh dumpxml {name}", _xml) if active else None
        stored = None
        if info is None or info["persistent"]:
            stored = ask(f"virsh dumpxml --inactive {name}", _stored_xml)
        ask(f"virsh snapshot-list {name}", _snapshots)
        ask(f"virsh checkpoint-list {name}", _checkpoints)
        # Questions that QEMU may have to answer come last, in case it is frozen.
        if active:
            ask(f"virsh domjobinfo {name}", _job, of_qemu=True)
            for target in targets(live or ""):
                ask(f"virsh blockjob {name} {target}", _block_job(target), of_qemu=True)
        paths = firmware(stored or "", uuid) | firmware(live or "", uuid)
        disks = images(stored or "") | images(live or "")
        saves = (f"{SAVES}/{name}.save",) if info and info["managed_save"] else ()
        volumes = frozenset((*serials(stored or ""), *serials(live or "")))
        far = None if active and live is None else remote(stored or "") | remote(live or "")
        return SeenDomain(uuid, name, mark.id, disks, tuple(paths), saves, volumes, far)


def targets(xml: str) -> list[str]:
    """Return the target names (`vda`) of a domain's disks, in order."""
    return [
        target.get("dev", "") for disk in _disks(xml) if (target := disk.find("target")) is not None
    ]


def serials(xml: str) -> list[str]:
    """Return the serial numbers of a domain's disks, which the guest can see."""
    return [serial for disk in _disks(xml) if (serial := disk.findtext("serial"))]


def images(xml: str) -> dict[str, str | None]:
    """Return the paths that a domain's disks name, including backing files and mirrors, in order.

    Each has its format (`qcow2`, `raw`), or None if the definition does not give it.
    """
    found: dict[str, str | None] = {}
    for disk in _disks(xml):
        for image in disk.iter():  # the disk itself, each <backingStore>, a <mirror>
            source = image.find("source")
            path = None if source is None else source.get("file") or source.get("dev")
            if path is not None:
                form = image.find("driver" if image is disk else "format")
                found.setdefault(path, None if form is None else form.get("type"))
    return found


def remote(xml: str) -> frozenset[str]:
    """Return the protocols of a domain's images that are neither files nor devices of the host.

    Backing files and mirrors are included. For an image in a libvirt pool, whose kind is unknown,
    the protocol is `volume`.
    """
    found = set()
    for disk in _disks(xml):
        for image in disk.iter():
            kind = image.get("type")
            if image.tag in _IMAGES and kind not in (None, "file", "block", "dir"):
                source = image.find("source")
                found.add((source.get("protocol") if source is not None else None) or str(kind))
    return frozenset(found)


_IMAGES = frozenset(["disk", "backingStore", "mirror", "dataStore"])


def firmware(xml: str, uuid: str) -> dict[str, None]:
    """Return the paths of a domain's firmware, its variables and its TPM's state.

    Each is preceded by the folder in which it should be.
    """
    domain = _document(xml)
    if domain is None:
        return {}
    paths = [element.text or "" for element in domain.iterfind("os/loader")]
    for element in domain.iterfind("os/nvram"):  # newer libvirt writes the path into <source>
        source = element.find("source")
        paths.append((element.text or "") if source is None else source.get("file", ""))
    for backend in domain.iterfind("devices/tpm/backend[@type='emulator']"):
        paths.append(tpm_state(uuid, backend.get("version")))
    found: dict[str, None] = {}
    for path in filter(lambda path: path.startswith("/"), map(str.strip, paths)):
        found |= {home_of(path): None, path: None}
    return found


def _disks(xml: str) -> Iterator[ET.Element]:
    domain = _document(xml)
    if domain is not None:
        yield from domain.iterfind("devices/disk")


def _document(xml: str) -> ET.Element | None:
    # libvirt writes no DOCTYPE. Without one, XML can't expand when it is parsed.
    if not xml or "<!DOCTYPE" in xml:
        return None
    try:
        return ET.fromstring(xml)  # noqa: S314 (see above)
    except ET.ParseError:
        return None  # the text is kept as it is, and the analysis reports what is wrong with it


def _version(connection: Any) -> dict[str, object]:
    """Return versions as libvirt encodes them: 9001002 is 9.1.2."""
    return {
        "library": binding().getVersion(),
        "daemon": connection.getLibVersion(),
        "type": connection.getType(),
        "hypervisor": connection.getVersion(),
    }


def _nodeinfo(connection: Any) -> dict[str, object]:
    names = (
        "cpu_model",
        "memory_mib",
        "cpus",
        "mhz",
        "numa_cells",
        "sockets",  # of each cell
        "cores",  # of each socket
        "threads",  # of each core
    )
    model, interpretation = connection.getSecurityModel()
    found: dict[str, object] = dict(zip(names, connection.getInfo(), strict=True))
    return {**found, "security_model": {"model": model, "doi": interpretation}}


def _networks(connection: Any) -> list[dict[str, object]]:
    found = [
        {
            "name": network.name(),
            "uuid": network.UUIDString(),
            "active": bool(network.isActive()),
            "persistent": bool(network.isPersistent()),
            "autostart": bool(network.autostart()),
        }
        for network in connection.listAllNetworks()
    ]
    return sorted(found, key=lambda network: str(network["name"]))


def _network_xml(name: str) -> Any:
    return lambda connection: kept_definition(str(connection.networkLookupByName(name).XMLDesc()))


def _secrets(connection: Any) -> list[dict[str, object]]:
    """Return each secret's UUID and usage, but never its value."""
    found = [
        {
            "uuid": secret.UUIDString(),
            "usage_type": secret.usageType(),
            "usage_id": secret.usageID(),
        }
        for secret in connection.listAllSecrets()
    ]
    return sorted(found, key=lambda secret: str(secret["uuid"]))


def _domains(connection: Any) -> list[dict[str, object]]:
    found = [
        {
            "id": None if domain.ID() == -1 else domain.ID(),
            "name": domain.name(),
            "uuid": domain.UUIDString(),
        }
        for domain in connection.listAllDomains()
    ]
    return sorted(found, key=lambda domain: str(domain["name"]))


def _state(domain: Any) -> dict[str, int]:
    state, reason = domain.state()
    return {"state": state, "reason": reason}


def _info(domain: Any) -> dict[str, object]:
    _, max_memory, memory, vcpus, cpu_time = domain.info()
    label = domain.securityLabel()
    found = {
        "persistent": bool(domain.isPersistent()),
        "autostart": bool(domain.autostart()),
        "managed_save": bool(domain.hasManagedSaveImage()),
        "max_memory_kib": max_memory,
        "memory_kib": memory,
        "vcpus": vcpus,
        "cpu_time_ns": cpu_time,
        "security_label": {"label": label[0], "enforcing": bool(label[1])},
    }
    once = _optional(domain, "autostartOnce")  # libvirt 11.2
    if once is not None:
        found["autostart_once"] = bool(once)
    messages = _optional(domain, "messages")  # libvirt 7.1
    if messages is not None:
        found["messages"] = messages
    return found


def _optional(domain: Any, name: str) -> Any:
    """Return the answer to a call that the client library or the daemon may be too old for.

    Return None if one of them is: the daemon may be older than the library.
    """
    call = getattr(domain, name, None)
    if call is None:
        return None
    try:
        return call()
    except binding().libvirtError as error:
        if "unknown procedure" in str(error) or "not supported by" in str(error):
            return None
        raise


def _xml(domain: Any) -> str:
    return kept_definition(str(domain.XMLDesc()))


def _stored_xml(domain: Any) -> str:
    inactive = 2  # VIR_DOMAIN_XML_INACTIVE
    return kept_definition(str(domain.XMLDesc(inactive)))


def _job(domain: Any) -> dict[str, object]:
    found = dict(domain.jobStats())
    return {} if found == {"type": 0} else found  # type 0 is "no job"


def _block_job(target: str) -> Any:
    return lambda domain: domain.blockJobInfo(target) or {}


def _snapshots(domain: Any) -> list[dict[str, object]]:
    found = [
        {"name": snapshot.getName(), "current": bool(snapshot.isCurrent())}
        for snapshot in domain.listAllSnapshots()
    ]
    return sorted(found, key=lambda snapshot: str(snapshot["name"]))


def _checkpoints(domain: Any) -> list[str]:
    return sorted(checkpoint.getName() for checkpoint in domain.listAllCheckpoints())
