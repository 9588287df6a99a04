"""Procedures about a host's domains."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hoodsnap.replay import monitor
from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.host import INACTIVE, ReplayedDomain, ReplayedHost, must_be_there
from hoodsnap.replay.libvirtd.procedure import QEMU, counted, procedure
from hoodsnap.replay.libvirtd.virterror import INVALID, NO_METADATA, LibvirtError
from hoodsnap.replay.recording import NotRecordedError


@procedure(273)
def list_all_domains(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """List all domains, or those selected by the flags (VIR_CONNECT_LIST_DOMAINS_*)."""
    wanted, flags = arguments.int(), arguments.uint()
    found = [domain for domain in host.domains if _is_picked(host, domain, flags)]
    return counted([domain.encoded for domain in found], wanted)


def _is_picked(host: ReplayedHost, domain: ReplayedDomain, flags: int) -> bool:
    def one(yes: int, no: int, is_so: Callable[[], bool]) -> bool:
        both = flags & (yes | no)
        return both in (0, yes | no) or is_so() == bool(flags & yes)

    def state() -> bool:
        number = host.state(domain)[0]
        return bool(flags & {1: 16, 3: 32, 5: 64}.get(number, 128))

    return (
        one(1, 2, lambda: domain.id is not None)
        and one(4, 8, lambda: host.info(domain, "persistent"))
        and (not flags & 0xF0 or state())
        and one(0x100, 0x200, lambda: host.info(domain, "managed_save"))
        and one(0x400, 0x800, lambda: host.info(domain, "autostart"))
        and one(0x1000, 0x2000, lambda: bool(host.of(domain, "snapshot-list")))
        and one(0x4000, 0x8000, lambda: bool(host.of(domain, "checkpoint-list")))
    )


@procedure(51)
def count_active(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return the number of running domains, which have an id."""
    return xdr.int_(sum(domain.id is not None for domain in host.domains))


@procedure(37)
def list_ids(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """List ids of running domains, up to the requested number."""
    ids = [domain.id for domain in host.domains if domain.id is not None]
    return xdr.array([xdr.int_(number) for number in ids[: arguments.int()]])


@procedure(25)
def count_defined(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return the number of domains that are shut off."""
    return xdr.int_(sum(domain.id is None for domain in host.domains))


@procedure(21)
def list_defined(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """List names of domains that are shut off, up to the requested number."""
    names = [domain.name for domain in host.domains if domain.id is None]
    return xdr.array([xdr.string(name) for name in names[: arguments.int()]])


@procedure(22)
def by_id(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the domain with an id."""
    number = arguments.int()
    found = next((domain for domain in host.domains if domain.id == number), None)
    return must_be_there(found, f"matching id {number}").encoded


@procedure(23)
def by_name(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the domain with a name."""
    name = arguments.string()
    return must_be_there(host.by_name.get(name), f"matching name '{name}'").encoded


@procedure(24)
def by_uuid(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the domain with a UUID."""
    uuid = arguments.uuid()
    return must_be_there(host.by_uuid.get(uuid), f"matching uuid '{uuid}'").encoded


@procedure(14)
def xml(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the domain's XML document: the live one, or the one for the next start."""
    domain, flags = host.domain(arguments), arguments.uint()
    if flags & ~INACTIVE:
        text = f"the definition of {domain.name} with the flags {flags:#x} was not recorded"
        raise NotRecordedError(text)
    return xdr.string(host.xml(domain, flags))


@procedure(212)
def state(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the domain's state and its reason."""
    state, reason = host.state(host.domain(arguments))
    return xdr.int_(state) + xdr.int_(reason)


@procedure(16)
def info(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return struct remote_domain_get_info_ret."""
    domain = host.domain(arguments)
    info = host.of(domain, "dominfo")
    return (
        xdr.uint(host.state(domain)[0])
        + xdr.hyper(info["max_memory_kib"])
        + xdr.hyper(info["memory_kib"])
        + xdr.uint(info["vcpus"])
        + xdr.hyper(info["cpu_time_ns"])
    )


@procedure(17)
def max_memory(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the domain's largest memory in KiB."""
    return xdr.hyper(host.info(host.domain(arguments), "max_memory_kib"))


@procedure(19)
def os_type(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the OS type from the definition: `hvm`."""
    domain = host.domain(arguments)
    found = re.search(r"<type\b[^<>]*+>([^<]*+)</type>", host.xml(domain))
    if found is None:
        raise NotRecordedError(f"the OS type of {domain.name} was not recorded")
    return xdr.string(found[1])


@procedure(15)
def autostart(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the domain starts with the host, else 0."""
    return xdr.int_(host.info(host.domain(arguments), "autostart"))


@procedure(150)
def is_active(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the domain is running, else 0."""
    return xdr.int_(host.domain(arguments).id is not None)


@procedure(151)
def is_persistent(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the domain is persistent, else 0."""
    return xdr.int_(host.info(host.domain(arguments), "persistent"))


@procedure(183)
def has_managed_save(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the domain has a managed save image, else 0."""
    return xdr.int_(host.info(host.domain(arguments), "managed_save"))


@procedure(202)
def is_updated(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Refuse: the recorded documents don't show if the definition was changed while the domain
    runs."""
    raise NotRecordedError(f"whether {host.domain(arguments).name} was updated was not recorded")


@procedure(121)
def security_label(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the security label as an array of characters, and 1 if it is enforced, else 0."""
    label = host.info(host.domain(arguments), "security_label")
    return xdr.characters(label["label"]) + xdr.int_(label["enforcing"])


@procedure(426)
def messages(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the messages about taints and deprecations."""
    found = host.info(host.domain(arguments), "messages")
    return xdr.array([xdr.string(text) for text in found])


@procedure(265)
def metadata(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the description, the title or a namespace's element, cut from the recorded XML."""
    domain = host.domain(arguments)
    kind, uri, flags = arguments.int(), arguments.optional_string(), arguments.uint()
    found = _metadata(host.xml(domain, INACTIVE if flags & 2 else 0), kind, uri or "")
    if found is None:
        text = "metadata not found: Requested metadata element is not present"
        raise LibvirtError(NO_METADATA, text)
    return xdr.string(found)


@procedure(298)
def job(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the kind of the domain's job, and its numbers."""
    domain = host.domain(arguments)
    if domain.id is None:
        raise LibvirtError(INVALID, "Requested operation is not valid: domain is not running")
    found = dict(host.of(domain, "domjobinfo"))
    kind = found.pop("type", 0)
    return xdr.int_(kind) + xdr.array([_parameter(*item) for item in found.items()])


@procedure(238)
def block_job(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return struct remote_domain_get_block_job_info_ret."""
    domain, disk = host.domain(arguments), arguments.string()
    job = host.of(domain, "blockjob", f" {disk}")
    return (
        xdr.int_(bool(job))
        + xdr.int_(job.get("type", 0))
        + b"".join(xdr.hyper(job.get(name, 0)) for name in ("bandwidth", "cur", "end"))
    )


@procedure(274)
def snapshots(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """List the names of the domain's snapshots."""
    domain, wanted = host.domain(arguments), arguments.int()
    listed = host.of(domain, "snapshot-list")
    found = [xdr.string(row["name"]) + domain.encoded for row in listed]
    return counted(found, wanted)


@procedure(271)
def snapshot_is_current(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the snapshot is the current one, else 0."""
    name = arguments.string()
    listed = host.of(host.domain(arguments), "snapshot-list")
    return xdr.int_(any(row["name"] == name and row["current"] for row in listed))


@procedure(413)
def checkpoints(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """List the names of the domain's checkpoints."""
    domain, wanted = host.domain(arguments), arguments.int()
    found = [xdr.string(name) + domain.encoded for name in host.of(domain, "checkpoint-list")]
    return counted(found, wanted)


@procedure(1, QEMU)
def monitor_command(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the monitor's recorded reply to this command."""
    domain, command, flags = host.domain(arguments), arguments.string(), arguments.uint()
    if flags & 1:
        raise NotRecordedError("QEMU's human monitor was not recorded")
    return xdr.string(monitor.reply(host.recording, domain.uuid, command))


_INTS = frozenset(["operation", "auto_converge_throttle"])
"""Fields of a job that must be sent as `int`; virsh ignores them in any other type."""


def _parameter(name: str, value: Any) -> bytes:
    """Encode struct remote_typed_param."""
    if isinstance(value, bool):
        kind, encoded = 6, xdr.int_(value)
    elif isinstance(value, str):
        kind, encoded = 7, xdr.string(value)
    elif name in _INTS:
        kind, encoded = 1, xdr.int_(value)
    else:
        kind, encoded = 4, xdr.hyper(value)
    return xdr.string(name) + xdr.int_(kind) + encoded


def _metadata(document: str, kind: int, uri: str) -> str | None:
    """Cut metadata out of the document's text: parsing it and writing it again would change it."""
    if kind in (0, 1):
        word = ("description", "title")[kind]
        found = re.search(rf"^  <{word}>(.*?)</{word}>$", document, re.MULTILINE | re.DOTALL)
        return found[1] if found else None
    found = re.search(
        rf'^( *)<(\w+):(\w+) xmlns:\2="{re.escape(uri)}"[^>]*(?:/>|>.*?^\1</\2:\3>)$',
        document,
        re.MULTILINE | re.DOTALL,
    )
    if found is None:
        return None
    # libvirt shows the element without the prefix of its namespace and without indentation.
    indent, prefix = found[1], found[2]
    text = re.sub(rf"(?m)^{indent}", "", found[0])
    text = re.sub(rf"(</?){prefix}:", r"\1", text)
    return text.replace(f' xmlns:{prefix}="{uri}"', "", 1)
