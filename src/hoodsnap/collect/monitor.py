"""QEMU's monitors, asked only with `--qmp`.

Asking through libvirt needs a read-write connection, and libvirt marks the domain as tainted
(`custom-monitor`) until its QEMU ends. Only the members of `Query` can be sent, through libvirt or
directly, and all of them only read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from hoodsnap.bundle import Answer
from hoodsnap.collect import file
from hoodsnap.collect.domain import SeenDomain
from hoodsnap.collect.libvirt_client import LibvirtClient, binding
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.storage import obstacle
from hoodsnap.facts.host.account import ROOT, SYSTEM

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

PATIENCE = 5.0
"""Seconds for one question. A healthy QEMU answers in a few milliseconds."""

CLOSING = 2.0
"""Seconds for disconnecting from a monitor."""


class Query(StrEnum):
    """Command that may be sent to a monitor. No others are sent."""

    STATUS = "query-status"  # first, because every QEMU answers it
    UUID = "query-uuid"
    NAME = "query-name"
    VERSION = "query-version"
    BLOCK = "query-block"
    NAMED_BLOCK_NODES = "query-named-block-nodes"
    BLOCKSTATS = "query-blockstats"
    BLOCK_JOBS = "query-block-jobs"
    JOBS = "query-jobs"
    MIGRATE = "query-migrate"
    CPUS_FAST = "query-cpus-fast"
    MEMORY_SIZE_SUMMARY = "query-memory-size-summary"
    MEMORY_DEVICES = "query-memory-devices"
    BALLOON = "query-balloon"
    VNC = "query-vnc"


_OF_DISKS = frozenset([Query.BLOCK, Query.NAMED_BLOCK_NODES])
"""Commands that may make QEMU, and all its vCPUs, wait for the storage of its disks."""

_Ask = Callable[[Query, dict[str, bool], RefusedError | None], Answer]

_FLAT = {"flat": True}
"""Argument that omits nested backing images, which are in the list themselves."""


Obstacle = Callable[[str], RefusedError | None]
"""Function that returns why a guest must not be asked about its disks, by UUID; None if it may be.
See `hoodsnap.collect.storage`."""


def ask_monitors(
    recorder: Recorder,
    domains: Iterable[SeenDomain],
    uri: str | None = None,
    obstacle_of: Obstacle | None = None,
) -> None:
    """Ask the QEMU of each active domain through libvirt, which taints the domain.

    Without `obstacle_of`, only the domain's definition decides if disks can be asked about.
    """
    daemon = LibvirtClient(recorder, uri, layer="qemu", read_write=True)
    for domain in domains:
        if domain.id is not None:
            by_definition = partial(obstacle, domain, ())
            decided = partial(obstacle_of, domain.uuid) if obstacle_of else by_definition
            _ask_all(_through_libvirt(daemon, domain), decided)
    daemon.close()


def _through_libvirt(daemon: LibvirtClient, domain: SeenDomain) -> _Ask:
    def ask(query: Query, arguments: dict[str, bool], refusal: RefusedError | None) -> Answer:
        command = json.dumps({"execute": query, **({"arguments": arguments} if arguments else {})})

        def question(libvirt_domain: Any) -> object:
            if refusal is not None:
                raise refusal
            reply = binding("libvirt_qemu").qemuMonitorCommand(libvirt_domain, command, 0)
            return _returned(json.loads(reply))

        shown = f"virsh qemu-monitor-command {domain.name} '{command}'"
        return daemon.ask_domain(domain.uuid, shown, question, of_qemu=True)

    return ask


def ask_sockets(
    recorder: Recorder,
    sockets: Mapping[str, str],
    obstacle_of: Obstacle = lambda subject: None,
) -> None:
    """Ask QEMUs directly, through monitor sockets that have no client: subject → path.

    A monitor serves one client at a time. Leave out libvirt's monitors: libvirt stays connected, so
    they would not answer. Leave out sockets with `wait=on`: connecting would start the guest.
    """
    for subject, path in sockets.items():
        socket = _Socket(path)
        _ask_all(_directly(recorder, subject, path, socket), partial(obstacle_of, subject))
        # An abandoned question may still use the socket, and hanging up waits for QEMU.
        recorder.wait("qemu", socket.close, CLOSING, source=path)


def _directly(recorder: Recorder, subject: str, path: str, socket: _Socket) -> _Ask:
    def ask(query: Query, arguments: dict[str, bool], refusal: RefusedError | None) -> Answer:
        words = [query.value, *(f"{name}={json.dumps(it)}" for name, it in arguments.items())]
        return recorder.ask(
            "qemu",
            f"qmp-shell {path}: {' '.join(words)}",
            partial(_raise, refusal) if refusal else partial(socket.ask, query, arguments),
            subject=subject,
            patience=2 * PATIENCE,  # the socket has its own, shorter timeout
            source=path,
        )

    return ask


def _ask_all(ask: _Ask, decided: Callable[[], RefusedError | None]) -> None:
    for query in Query:
        # The storage may have failed since the last command, so check before each one.
        refusal = decided() if query in _OF_DISKS else None
        answer = ask(query, _FLAT if query is Query.NAMED_BLOCK_NODES else {}, refusal)
        if answer.error is not None and "'flat'" in answer.error.message:  # QEMU before 5.0
            ask(query, {}, None)


def _raise(refusal: RefusedError) -> None:
    raise refusal


class _Socket:
    """Monitor socket of which we are the only client. Connects at the first command."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._client: QMPClient | None = None
        self._refusal: RefusedError | None = None

    def close(self) -> None:
        """Disconnect. Raises `RuntimeError` if a question still uses the socket."""
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    def ask(self, query: Query, arguments: dict[str, bool]) -> object:
        """Return QEMU's reply. Raises `RefusedError`; always, once QEMU failed to answer."""
        if self._refusal is not None:
            raise RefusedError(self._refusal.kind, str(self._refusal))
        asked = asyncio.wait_for(self._ask(query, arguments), PATIENCE)
        try:
            return self._loop.run_until_complete(asked)
        except TimeoutError:
            message = "not asked: QEMU did not answer an earlier command"
            self._refusal = RefusedError("timeout", message)
            raise RefusedError("timeout", f"no answer within {PATIENCE:g} s") from None

    async def _ask(self, query: Query, arguments: dict[str, bool]) -> object:
        from qemu.qmp import ConnectError, ExecuteError, QMPError

        try:
            client = await self._connected()
            return await client.execute(query.value, arguments or None)
        except ExecuteError as error:
            raise _refused(error.error_class, str(error)) from None
        except ConnectError as error:
            denied = isinstance(error.exc, PermissionError)
            self._refusal = RefusedError("denied" if denied else "unreachable", str(error))
        except QMPError as error:
            self._refusal = RefusedError("unreachable", f"the monitor disconnected: {error}")
        except RefusedError as refusal:
            self._refusal = refusal
        raise self._refusal

    async def _connected(self) -> QMPClient:
        from qemu.qmp import QMPClient

        if self._client is None:
            _must_be_of_a_service(self._path)
            client = QMPClient()
            await client.connect(self._path)
            self._client = client
        return self._client

    async def _hang_up(self) -> None:
        from qemu.qmp import QMPError

        if self._client is not None:
            # disconnect() raises the error that ended the connection, which is recorded already.
            with contextlib.suppress(QMPError, OSError, EOFError):
                await asyncio.wait_for(self._client.disconnect(), CLOSING / 2)


def _must_be_of_a_service(path: str) -> None:
    """Raise `RefusedError` (`denied`) for a socket that an ordinary account could have put there.

    The path comes from the command line of a QEMU that started long ago, maybe in another folder.
    """
    if not path.startswith("/"):
        raise RefusedError("denied", f"not asked: {path} is not an absolute path")
    try:
        status = file.status(path)
    except PermissionError as error:
        raise RefusedError("denied", f"not asked: {error.strerror}") from None
    except OSError:  # the socket does not exist, and connecting reports that
        return
    uid = status.st_uid
    if not stat.S_ISSOCK(status.st_mode):
        raise RefusedError("denied", f"not asked: {path} is not a socket")
    if uid != os.geteuid() and uid != ROOT and not any(uid in numbers for numbers in SYSTEM):
        raise RefusedError("denied", f"not asked: {path} belongs to uid {uid}")


def _returned(reply: dict[str, Any]) -> object:
    """Return the value of a monitor's reply. Raises `RefusedError` if it is an error."""
    if "error" in reply:
        raise _refused(reply["error"]["class"], reply["error"]["desc"])
    return reply["return"]


def _refused(kind: str, message: str) -> RefusedError:
    kinds = {
        "CommandNotFound": "missing",  # this QEMU is too old, or was built without the feature
        "DeviceNotActive": "absent",
        "DeviceNotFound": "absent",
    }
    return RefusedError(kinds.get(kind, "failed"), message)
