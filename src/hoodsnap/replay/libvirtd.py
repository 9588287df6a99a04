"""A libvirtd that knows what was recorded: libvirt's own protocol over a UNIX socket.

Not libvirt's test driver: that one renumbers domains, forgets the reason of a state, and invents
sizes and addresses. Here a document is the recorded text, a number the recorded number, and
whatever was not recorded is an error.

The messages are those of libvirt's src/rpc/virnetprotocol.x (a header and XDR) and
src/remote/remote_protocol.x (the procedures); only ever appended to, so that any virsh speaks to
any libvirtd.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

from hoodsnap.facts.fact import Unheard
from hoodsnap.facts.quantity import whole
from hoodsnap.replay import monitor, xdr
from hoodsnap.replay.recording import UNREADABLE, NotRecorded, Recording, plain

REMOTE, QEMU = 0x20008086, 0x20008087
"""The programs: everything, and what only QEMU's driver has."""

LARGEST_MESSAGE = 32 << 20
"""Bytes, as of libvirt (VIR_NET_MESSAGE_MAX)."""

_HEADER = struct.Struct(">IIiIII")
_CALL, _REPLY, _MESSAGE = 0, 1, 2

KEEPALIVE, _PING, _PONG = 0x6B656570, 1, 2
"""The program that asks whether anybody is there (virkeepaliveprotocol.x)."""

INACTIVE = 2
"""The flag of a definition that would be started next (VIR_DOMAIN_XML_INACTIVE)."""


@dataclass(eq=False)
class Refusal(Exception):
    """An error as libvirt sends it: virsh prints the text."""

    code: int
    text: str
    domain: int = 10
    """Which part of libvirt it is from: 10 is QEMU's driver."""


NO_SUPPORT, NO_DOMAIN, NO_NETWORK, INVALID, NO_METADATA = 3, 42, 43, 55, 80

WRITES: Mapping[int, str] = {
    8: "attach-device",
    9: "start",
    10: "create",
    11: "define",
    12: "destroy",
    13: "detach-device",
    27: "reboot",
    28: "resume",
    29: "autostart",
    31: "setmem",
    32: "setvcpus",
    33: "shutdown",
    34: "suspend",
    35: "undefine",
    39: "net-start",
    40: "net-create",
    41: "net-define",
    42: "net-destroy",
    48: "net-autostart",
    49: "net-undefine",
    53: "dump",
    54: "restore",
    55: "save",
    160: "attach-device",
    161: "detach-device",
    164: "domjobabort",
    174: "update-device",
    182: "managedsave",
    184: "managedsave-remove",
    185: "snapshot-create",
    192: "snapshot-revert",
    193: "snapshot-delete",
    196: "start",
    199: "setvcpus",
    204: "setmem",
    210: "inject-nmi",
    231: "undefine",
    234: "destroy",
    237: "blockjob --abort",
    245: "reset",
    251: "blockresize",
    258: "shutdown",
    264: "metadata",
    266: "blockcopy",
    290: "blockcommit",
}
"""What would change something, by virsh's word for it; every other call that has no procedure here
was not recorded."""

READS: Mapping[int, str] = {
    20: "vcpuinfo",
    64: "domblkstat",
    65: "domifstat",
    102: "freecell",
    159: "dommemstat",
    163: "domjobinfo",
    194: "domblkinfo",
    200: "vcpucount",
    201: "console",
    211: "screenshot",
    227: "nodecpustats",
    228: "nodememstats",
    229: "domcontrol",
    230: "vcpupin",
    243: "domblkstat",
    262: "cpu-stats",
    263: "domblkerror",
    344: "domstats",
    353: "domifaddr",
}
"""What is asked for often and was not recorded, by virsh's word for it."""


@dataclass(frozen=True, slots=True)
class _Domain:
    name: str
    uuid: str
    id: int | None

    @property
    def encoded(self) -> bytes:
        number = -1 if self.id is None else self.id
        return xdr.string(self.name) + UUID(self.uuid).bytes + xdr.int_(number)


Procedure = Callable[["Libvirtd", xdr.Reader], bytes]
PROCEDURES: dict[tuple[int, int], Procedure] = {}
"""(program, number) → what answers it."""

_P = TypeVar("_P", bound=Procedure)


def procedure(number: int, program: int = REMOTE) -> Callable[[_P], _P]:
    """Register a method under its number in remote_protocol.x (qemu_protocol.x)."""

    def register(method: _P) -> _P:
        if (program, number) in PROCEDURES:
            raise ValueError(f"two methods answer {program:#x}/{number}")
        PROCEDURES[program, number] = method
        return method

    return register


class Libvirtd:
    """Answers for one recorded host."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    async def serve(self, path: str) -> asyncio.Server:
        """Listen on a UNIX socket."""
        return await asyncio.start_unix_server(self._client, path)

    async def serve_on(self, listener: socket.socket) -> asyncio.Server:
        """Answer on a socket that listens already."""
        return await asyncio.start_unix_server(self._client, sock=listener)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                if not _HEADER.size + 4 <= size <= LARGEST_MESSAGE:
                    break
                message = await reader.readexactly(size - 4)
                writer.write(self.reply(message))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    def reply(self, message: bytes) -> bytes:
        """The answer to one message, which has no length before it; empty if none is due."""
        program, version, number, kind, serial, _ = _HEADER.unpack_from(message)
        if program == KEEPALIVE and number == _PING:
            pong = _HEADER.pack(program, version, _PONG, _MESSAGE, serial, 0)
            return struct.pack(">I", len(pong) + 4) + pong
        if kind != _CALL:
            return b""
        try:
            payload, status = self._call(program, number, xdr.Reader(message[_HEADER.size :])), 0
        except Refusal as refusal:
            self._recording.miss("libvirt", refusal.text)
            payload, status = _error(refusal), 1
        if len(payload) > LARGEST_MESSAGE - _HEADER.size - 4:
            large = Refusal(INVALID, "hoodsnap: what was recorded is too large for a message")
            payload, status = _error(large), 1
        header = _HEADER.pack(program, version, number, _REPLY, serial, status)
        return struct.pack(">I", len(header) + len(payload) + 4) + header + payload

    def _call(self, program: int, number: int, arguments: xdr.Reader) -> bytes:
        method = PROCEDURES.get((program, number))
        try:
            if method is not None:
                return method(self, arguments)
        except NotRecorded as reason:
            raise Refusal(INVALID, f"hoodsnap: {reason}") from None
        except (Unheard, xdr.Malformed) as reason:
            raise Refusal(INVALID, f"hoodsnap: {reason}") from None
        except UNREADABLE as error:
            what = type(error).__name__
            text = f"hoodsnap: what was recorded for this can't be read ({what})"
            raise Refusal(INVALID, text) from None
        if program == REMOTE and number in WRITES:
            word = WRITES[number]
            raise Refusal(NO_SUPPORT, f"hoodsnap: this is a recording, {word} changes nothing here")
        call = READS.get(number) if program == REMOTE else None
        call = call or f"libvirt's call {program:#x}/{number}"
        raise Refusal(NO_SUPPORT, f"hoodsnap: {call} was not recorded")

    # What was recorded.

    @cached_property
    def _domains(self) -> tuple[_Domain, ...]:
        listed: Any = self._recording.value("libvirt", "virsh list --all")
        if not isinstance(listed, list):
            raise NotRecorded("what was recorded as the list of domains is none")
        return tuple(_domain(row) for row in listed)

    @cached_property
    def _by_uuid(self) -> Mapping[str, _Domain]:
        return {domain.uuid: domain for domain in self._domains}

    @cached_property
    def _by_name(self) -> Mapping[str, _Domain]:
        return {domain.name: domain for domain in self._domains}

    @cached_property
    def _networks(self) -> Mapping[str, Mapping[str, Any]]:
        listed: Any = self._recording.value("libvirt", "virsh net-list --all")
        if not isinstance(listed, list):
            raise NotRecorded("what was recorded as the list of networks is none")
        return {str(row["name"]): row for row in listed}

    def _host(self, query: str) -> Any:
        return self._recording.value("libvirt", query)

    def _of(self, domain: _Domain, command: str, rest: str = "") -> Any:
        query = f"virsh {command} {domain.name}{rest}"
        return self._recording.value("libvirt", query, domain.uuid)

    def _info(self, domain: _Domain, field: str) -> Any:
        info = self._of(domain, "dominfo")
        if field not in info:
            raise NotRecorded(f"{field} of {domain.name} was not recorded")
        return info[field]

    def _state(self, domain: _Domain) -> tuple[int, int]:
        said = self._of(domain, "domstate --reason")
        return said["state"], said["reason"]

    def _xml(self, domain: _Domain, flags: int = 0) -> str:
        # What is off has one definition only, and libvirt shows it whatever is asked for.
        stored = flags & INACTIVE or domain.id is None
        return str(self._of(domain, "dumpxml --inactive" if stored else "dumpxml"))

    def _domain(self, arguments: xdr.Reader) -> _Domain:
        name, uuid, _ = arguments.string(), arguments.uuid(), arguments.int()
        return self._found(self._by_uuid.get(uuid), f"matching uuid '{uuid}' ({name})")

    def _found(self, domain: _Domain | None, what: str) -> _Domain:
        if domain is None:
            raise Refusal(NO_DOMAIN, f"Domain not found: no domain with {what}")
        return domain

    def _network(self, arguments: xdr.Reader) -> Mapping[str, Any]:
        name, _ = arguments.string(), arguments.uuid()
        return self._found_network(name)

    def _found_network(self, name: str) -> Mapping[str, Any]:
        if name not in self._networks:
            text = f"Network not found: no network with matching name '{name}'"
            raise Refusal(NO_NETWORK, text, domain=19)
        return self._networks[name]

    # The connection.

    @procedure(66)
    def auth_list(self, _: xdr.Reader) -> bytes:
        """None is needed."""
        return xdr.array([xdr.int_(0)])

    @procedure(60)
    def supports_feature(self, _: xdr.Reader) -> bytes:
        """No keepalive, no events, no file descriptors."""
        return xdr.int_(0)

    @procedure(1)
    def open(self, _: xdr.Reader) -> bytes:
        """Whatever URI: this is the daemon that it leads to."""
        return b""

    @procedure(2)
    def close(self, _: xdr.Reader) -> bytes:
        """Nothing to do."""
        return b""

    @procedure(149)
    def is_secure(self, _: xdr.Reader) -> bytes:
        """A UNIX socket is."""
        return xdr.int_(1)

    @procedure(3)
    def type(self, _: xdr.Reader) -> bytes:
        """`QEMU`."""
        return xdr.string(self._host("virsh version")["type"])

    @procedure(4)
    def version(self, _: xdr.Reader) -> bytes:
        """QEMU's."""
        return xdr.hyper(self._host("virsh version")["hypervisor"])

    @procedure(157)
    def library_version(self, _: xdr.Reader) -> bytes:
        """libvirtd's."""
        return xdr.hyper(self._host("virsh version")["daemon"])

    @procedure(59)
    def hostname(self, _: xdr.Reader) -> bytes:
        """What libvirt calls its host."""
        return xdr.string(self._host("virsh hostname"))

    @procedure(110)
    def uri(self, _: xdr.Reader) -> bytes:
        """`qemu:///system`."""
        return xdr.string(self._host("virsh uri"))

    @procedure(7)
    def capabilities(self, _: xdr.Reader) -> bytes:
        """The document."""
        return xdr.string(self._host("virsh capabilities"))

    @procedure(6)
    def node_info(self, _: xdr.Reader) -> bytes:
        """struct remote_node_get_info_ret; the model is 32 characters, each an int."""
        info = self._host("virsh nodeinfo")
        model = info["cpu_model"].encode()[:31].ljust(32, b"\0")
        names = ("cpus", "mhz", "numa_cells", "sockets", "cores", "threads")
        numbers = b"".join(xdr.int_(info[name]) for name in names)
        # In KiB, which libvirt's binding for Python divides by 1024.
        memory = _host_memory(self._host("virsh capabilities"), info["memory_mib"])
        return b"".join(map(xdr.int_, model)) + xdr.hyper(memory) + numbers

    @procedure(122)
    def security_model(self, _: xdr.Reader) -> bytes:
        """Model and domain of interpretation, each an array of characters."""
        model = self._host("virsh nodeinfo").get("security_model")
        if model is None:
            raise NotRecorded("the host's security model was not recorded")
        return _characters(model["model"]) + _characters(model["doi"])

    # Domains.

    @procedure(273)
    def list_all_domains(self, arguments: xdr.Reader) -> bytes:
        """All, or those that the flags (VIR_CONNECT_LIST_DOMAINS_*) pick."""
        wanted, flags = arguments.int(), arguments.uint()
        found = [domain for domain in self._domains if self._is_picked(domain, flags)]
        if not wanted:
            return xdr.uint(0) + xdr.uint(len(found))
        return xdr.array([domain.encoded for domain in found]) + xdr.uint(len(found))

    def _is_picked(self, domain: _Domain, flags: int) -> bool:
        def one(yes: int, no: int, is_so: Callable[[], bool]) -> bool:
            both = flags & (yes | no)
            return both in (0, yes | no) or is_so() == bool(flags & yes)

        def state() -> bool:
            number = self._state(domain)[0]
            return bool(flags & {1: 16, 3: 32, 5: 64}.get(number, 128))

        return (
            one(1, 2, lambda: domain.id is not None)
            and one(4, 8, lambda: self._info(domain, "persistent"))
            and (not flags & 0xF0 or state())
            and one(0x100, 0x200, lambda: self._info(domain, "managed_save"))
            and one(0x400, 0x800, lambda: self._info(domain, "autostart"))
            and one(0x1000, 0x2000, lambda: bool(self._of(domain, "snapshot-list")))
            and one(0x4000, 0x8000, lambda: bool(self._of(domain, "checkpoint-list")))
        )

    @procedure(51)
    def count_active(self, _: xdr.Reader) -> bytes:
        """How many have an id."""
        return xdr.int_(sum(domain.id is not None for domain in self._domains))

    @procedure(37)
    def list_ids(self, arguments: xdr.Reader) -> bytes:
        """Up to so many ids."""
        ids = [domain.id for domain in self._domains if domain.id is not None]
        return xdr.array([xdr.int_(number) for number in ids[: arguments.int()]])

    @procedure(25)
    def count_defined(self, _: xdr.Reader) -> bytes:
        """How many are off."""
        return xdr.int_(sum(domain.id is None for domain in self._domains))

    @procedure(21)
    def list_defined(self, arguments: xdr.Reader) -> bytes:
        """Up to so many names of those that are off."""
        names = [domain.name for domain in self._domains if domain.id is None]
        return xdr.array([xdr.string(name) for name in names[: arguments.int()]])

    @procedure(22)
    def by_id(self, arguments: xdr.Reader) -> bytes:
        """The domain of a number."""
        number = arguments.int()
        found = next((domain for domain in self._domains if domain.id == number), None)
        return self._found(found, f"matching id {number}").encoded

    @procedure(23)
    def by_name(self, arguments: xdr.Reader) -> bytes:
        """The domain of a name."""
        name = arguments.string()
        return self._found(self._by_name.get(name), f"matching name '{name}'").encoded

    @procedure(24)
    def by_uuid(self, arguments: xdr.Reader) -> bytes:
        """The domain of a UUID."""
        uuid = arguments.uuid()
        return self._found(self._by_uuid.get(uuid), f"matching uuid '{uuid}'").encoded

    @procedure(14)
    def xml(self, arguments: xdr.Reader) -> bytes:
        """The document, as it is or as it would be started next."""
        domain, flags = self._domain(arguments), arguments.uint()
        if flags & ~INACTIVE:
            text = f"the definition of {domain.name} with the flags {flags:#x} was not recorded"
            raise NotRecorded(text)
        return xdr.string(self._xml(domain, flags))

    @procedure(212)
    def state(self, arguments: xdr.Reader) -> bytes:
        """State and reason."""
        state, reason = self._state(self._domain(arguments))
        return xdr.int_(state) + xdr.int_(reason)

    @procedure(16)
    def info(self, arguments: xdr.Reader) -> bytes:
        """struct remote_domain_get_info_ret."""
        domain = self._domain(arguments)
        info = self._of(domain, "dominfo")
        return (
            xdr.uint(self._state(domain)[0])
            + xdr.hyper(info["max_memory_kib"])
            + xdr.hyper(info["memory_kib"])
            + xdr.uint(info["vcpus"])
            + xdr.hyper(info["cpu_time_ns"])
        )

    @procedure(17)
    def max_memory(self, arguments: xdr.Reader) -> bytes:
        """KiB."""
        return xdr.hyper(self._info(self._domain(arguments), "max_memory_kib"))

    @procedure(19)
    def os_type(self, arguments: xdr.Reader) -> bytes:
        """`hvm`, of the definition."""
        domain = self._domain(arguments)
        found = re.search(r"<type\b[^>]*>([^<]*)</type>", self._xml(domain))
        if found is None:
            raise NotRecorded(f"the OS type of {domain.name} was not recorded")
        return xdr.string(found[1])

    @procedure(15)
    def autostart(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        return xdr.int_(self._info(self._domain(arguments), "autostart"))

    @procedure(150)
    def is_active(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        return xdr.int_(self._domain(arguments).id is not None)

    @procedure(151)
    def is_persistent(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        return xdr.int_(self._info(self._domain(arguments), "persistent"))

    @procedure(183)
    def has_managed_save(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        return xdr.int_(self._info(self._domain(arguments), "managed_save"))

    @procedure(202)
    def is_updated(self, arguments: xdr.Reader) -> bytes:
        """Whether its definition was changed while it runs: libvirt's QEMU driver says yes as soon
        as the two differ, which the recorded documents do not tell."""
        raise NotRecorded(f"whether {self._domain(arguments).name} was updated was not recorded")

    @procedure(121)
    def security_label(self, arguments: xdr.Reader) -> bytes:
        """The label, an array of characters, and whether it is enforced."""
        label = self._info(self._domain(arguments), "security_label")
        return _characters(label["label"]) + xdr.int_(label["enforcing"])

    @procedure(426)
    def messages(self, arguments: xdr.Reader) -> bytes:
        """Taints and deprecations."""
        said = self._info(self._domain(arguments), "messages")
        return xdr.array([xdr.string(text) for text in said])

    @procedure(265)
    def metadata(self, arguments: xdr.Reader) -> bytes:
        """Description, title, or the element of a namespace, cut out of the recorded document."""
        domain = self._domain(arguments)
        kind, uri, flags = arguments.int(), arguments.optional_string(), arguments.uint()
        found = _metadata(self._xml(domain, INACTIVE if flags & 2 else 0), kind, uri or "")
        if found is None:
            text = "metadata not found: Requested metadata element is not present"
            raise Refusal(NO_METADATA, text)
        return xdr.string(found)

    @procedure(298)
    def job(self, arguments: xdr.Reader) -> bytes:
        """The kind of a job, and its numbers."""
        domain = self._domain(arguments)
        if domain.id is None:
            raise Refusal(INVALID, "Requested operation is not valid: domain is not running")
        said = dict(self._of(domain, "domjobinfo"))
        kind = said.pop("type", 0)
        return xdr.int_(kind) + xdr.array([_parameter(*item) for item in said.items()])

    @procedure(238)
    def block_job(self, arguments: xdr.Reader) -> bytes:
        """struct remote_domain_get_block_job_info_ret."""
        domain, disk = self._domain(arguments), arguments.string()
        job = self._of(domain, "blockjob", f" {disk}")
        return (
            xdr.int_(bool(job))
            + xdr.int_(job.get("type", 0))
            + b"".join(xdr.hyper(job.get(name, 0)) for name in ("bandwidth", "cur", "end"))
        )

    @procedure(274)
    def snapshots(self, arguments: xdr.Reader) -> bytes:
        """Their names."""
        domain, wanted = self._domain(arguments), arguments.int()
        listed = self._of(domain, "snapshot-list")
        found = [xdr.string(row["name"]) + domain.encoded for row in listed]
        return (xdr.array(found) if wanted else xdr.uint(0)) + xdr.int_(len(found))

    @procedure(271)
    def snapshot_is_current(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        name = arguments.string()
        listed = self._of(self._domain(arguments), "snapshot-list")
        return xdr.int_(any(row["name"] == name and row["current"] for row in listed))

    @procedure(413)
    def checkpoints(self, arguments: xdr.Reader) -> bytes:
        """Their names."""
        domain, wanted = self._domain(arguments), arguments.int()
        found = [xdr.string(name) + domain.encoded for name in self._of(domain, "checkpoint-list")]
        return (xdr.array(found) if wanted else xdr.uint(0)) + xdr.int_(len(found))

    # Networks.

    @procedure(283)
    def list_all_networks(self, arguments: xdr.Reader) -> bytes:
        """All, or those that the flags (VIR_CONNECT_LIST_NETWORKS_*) pick."""
        wanted, flags = arguments.int(), arguments.uint()
        pairs = ((2, 1, "active"), (4, 8, "persistent"), (16, 32, "autostart"))
        found = [
            _encoded(row)
            for row in self._networks.values()
            if all(
                flags & (yes | no) in (0, yes | no) or bool(row[field]) == bool(flags & yes)
                for yes, no, field in pairs
            )
        ]
        return (xdr.array(found) if wanted else xdr.uint(0)) + xdr.uint(len(found))

    @procedure(46)
    def network_by_name(self, arguments: xdr.Reader) -> bytes:
        """The network of a name."""
        return _encoded(self._found_network(arguments.string()))

    @procedure(152)
    def network_is_active(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        return xdr.int_(self._network(arguments)["active"])

    @procedure(153)
    def network_is_persistent(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        return xdr.int_(self._network(arguments)["persistent"])

    @procedure(44)
    def network_autostart(self, arguments: xdr.Reader) -> bytes:
        """0 or 1."""
        return xdr.int_(self._network(arguments)["autostart"])

    @procedure(43)
    def network_xml(self, arguments: xdr.Reader) -> bytes:
        """The document."""
        network = self._network(arguments)
        return xdr.string(self._host(f"virsh net-dumpxml {network['name']}"))

    @procedure(45)
    def network_bridge(self, arguments: xdr.Reader) -> bytes:
        """The name of its bridge, of the document."""
        network = self._network(arguments)
        found = re.search(
            r"<bridge name='([^']*)'", self._host(f"virsh net-dumpxml {network['name']}")
        )
        if found is None:
            text = f"internal error: network '{network['name']}' does not have a bridge name."
            raise Refusal(1, text, domain=19)
        return xdr.string(found[1])

    @procedure(287)
    def list_all_secrets(self, arguments: xdr.Reader) -> bytes:
        """Which there are, and what for; their values were never asked for."""
        wanted, flags = arguments.int(), arguments.uint()
        if flags:
            raise NotRecorded(f"the list of secrets with the flags {flags:#x} was not recorded")
        found = [
            UUID(row["uuid"]).bytes + xdr.int_(row["usage_type"]) + xdr.string(row["usage_id"])
            for row in self._host("virsh secret-list")
        ]
        return (xdr.array(found) if wanted else xdr.uint(0)) + xdr.uint(len(found))

    # QEMU's driver.

    @procedure(1, QEMU)
    def monitor_command(self, arguments: xdr.Reader) -> bytes:
        """What the monitor said to this command when it was recorded."""
        domain, command, flags = self._domain(arguments), arguments.string(), arguments.uint()
        if flags & 1:
            raise NotRecorded("QEMU's human monitor was not recorded")
        return xdr.string(monitor.reply(self._recording, domain.uuid, command))


def _error(refusal: Refusal) -> bytes:
    """struct remote_error."""
    text = xdr.optional_string(plain(refusal.text))
    nothing = xdr.optional_string(None)
    level_and_domain = xdr.int_(2) + xdr.uint(0)
    numbers_and_network = xdr.int_(-1) + xdr.int_(-1) + xdr.uint(0)
    return (
        xdr.int_(refusal.code)
        + xdr.int_(refusal.domain)
        + text
        + level_and_domain
        + text
        + nothing
        + nothing
        + numbers_and_network
    )


def _characters(text: str) -> bytes:
    """`char text<>`: an array of ints, the final zero included."""
    return xdr.array([xdr.int_(byte) for byte in text.encode() + b"\0"])


def _host_memory(capabilities: str, mib: int) -> int:
    """KiB, of the capabilities, which were recorded a moment before or after."""
    cells = re.findall(r"<memory unit='KiB'>(\d+)</memory>", capabilities)
    return sum(map(int, cells)) if cells and sum(map(int, cells)) >> 10 == mib else mib << 10


def _encoded(network: Mapping[str, Any]) -> bytes:
    return xdr.string(network["name"]) + UUID(network["uuid"]).bytes


def _domain(row: Mapping[str, Any]) -> _Domain:
    number = row["id"]
    if number is not None and whole(number) is None:
        raise ValueError("the number of a domain is none")
    return _Domain(str(row["name"]), str(UUID(row["uuid"])), whole(number))


_INTS = frozenset(["operation", "auto_converge_throttle"])
"""The numbers of a job that are an `int`; virsh does not find them under another type."""


def _parameter(name: str, value: Any) -> bytes:
    """struct remote_typed_param."""
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
    """Cut out of the text, since an XML reader would write it in a way of its own."""
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
    # libvirt shows it alone: without the prefix of its namespace, and at the left margin.
    indent, prefix = found[1], found[2]
    text = re.sub(rf"(?m)^{indent}", "", found[0])
    text = re.sub(rf"(</?){prefix}:", r"\1", text)
    return text.replace(f' xmlns:{prefix}="{uri}"', "", 1)
