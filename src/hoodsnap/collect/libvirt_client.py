"""Client of one libvirt daemon: connections, time limits, and the meaning of errors.

A call into libvirt can't be ended from outside. While QEMU is silent, the daemon waits, and one of
its few worker threads (20 by default) waits with it. A domain that did not answer once is therefore
not asked again, and after a few such domains no more questions are asked that QEMU has to answer: a
collector that takes the last thread takes libvirt away from nova.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from hoodsnap.bundle import Answer
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import PATIENCE, Recorder, RefusedError, patiently

SYSTEM = "qemu:///system"
"""URI of the daemon that nova-compute uses unless nova.conf names another."""

DOMAIN_PATIENCE = 5.0
"""Seconds for one question about one domain. A healthy domain takes a few milliseconds."""

MOST_HUNG = 5
"""Number of unanswered questions after which no more are asked that QEMU has to answer."""

CLOSING = 1.0
"""Seconds for closing a connection. A healthy daemon takes a few milliseconds."""

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

DISTRIBUTION_FOLDERS = (
    Path("/usr/lib/python3/dist-packages"),
    Path(f"/usr/lib64/{_VERSION}/site-packages"),
    Path(f"/usr/lib/{_VERSION}/site-packages"),
    Path(f"/usr/lib/{_VERSION}/dist-packages"),
)
"""Folders in which distributions install the binding that their nova-compute depends on."""


class LibvirtClient:
    """One libvirt daemon. Each object is for one thread at a time."""

    def __init__(
        self,
        recorder: Recorder,
        uri: str | None = None,
        *,
        layer: str = "libvirt",
        read_write: bool = False,
    ) -> None:
        self.uri = uri or SYSTEM
        self._recorder = recorder
        self._layer = layer
        self._read_write = read_write
        self._line = _Line(self.uri, read_write)
        self._silent: set[str] = set()
        self._hung = 0

    @cached_property
    def host(self) -> str | None:
        """Hostname of a remote daemon, or the name in the URI if it is unreachable; None for this
        host."""
        there = remote_host(self.uri)
        if there is None:
            return None
        # Answers are recorded under this name, so ask for it first, with a separate recorder.
        aside = Recorder(there)
        answer = self._ask(aside, "virsh hostname", lambda line: line.open().getHostname(), None)
        return there if answer.error else str(answer.value)

    def look_again(self) -> None:
        """Start over: silent domains may answer again, and the daemon may have been restarted."""
        self._silent.clear()
        self._leave()

    def close(self) -> None:
        """Close the connection, unless the daemon does not answer that."""
        self._leave()

    def _leave(self, refusal: RefusedError | None = None) -> None:
        line, self._line = self._line, _Line(self.uri, self._read_write, refusal)
        line.leave()

    def ask(self, query: str, question: Callable[[Any], object]) -> Answer:
        """Ask the daemon itself; `question` receives the `virConnect`."""
        host = self.host
        return self._ask(self._recorder, query, lambda line: question(line.open()), host)

    def ask_domain(
        self, uuid: str, query: str, question: Callable[[Any], object], *, of_qemu: bool = False
    ) -> Answer:
        """Ask about one domain; `question` receives the `virDomain`.

        `of_qemu`: the daemon may have to ask QEMU for this, and QEMU may be frozen.
        """
        host = self.host
        refusal = self._refusal(uuid, of_qemu)
        if refusal is not None:
            return self._recorder.refuse(self._layer, query, refusal, subject=uuid, host=host)
        answer = self._ask(
            self._recorder,
            query,
            lambda line: question(line.domain(uuid)),
            host,
            subject=uuid,
            patience=DOMAIN_PATIENCE,
        )
        if answer.error is not None and answer.error.kind == "timeout":
            self._silent.add(uuid)
            self._hung += 1
        return answer

    def _refusal(self, uuid: str, of_qemu: bool) -> RefusedError | None:
        if uuid in self._silent:
            message = "not asked: libvirt did not answer an earlier question about the domain"
            return RefusedError("timeout", message)
        if of_qemu and self._hung >= MOST_HUNG:
            message = f"not asked: libvirt left {self._hung} questions about domains unanswered"
            return RefusedError("timeout", message)
        return None

    def _ask(
        self,
        recorder: Recorder,
        query: str,
        question: Callable[[_Line], object],
        host: str | None,
        subject: str | None = None,
        patience: float | None = None,
    ) -> Answer:
        patience = patience or PATIENCE
        line = self._line

        def how() -> object:
            with libvirt_errors():
                return question(line)

        answer = recorder.ask(
            self._layer, query, how, subject=subject, patience=patience, host=host
        )
        kind = answer.error.kind if answer.error else None
        if kind == "timeout" and line.connection is None:
            refusal = RefusedError(
                "timeout", f"{self.uri} accepted no connection within {patience:g} s"
            )
            self._leave(refusal)
        elif kind == "timeout" or (kind == "unreachable" and line.refusal is None):
            self._leave()
        return answer


class _Line:
    """A connection, opened by the first question. If that fails, it is not tried again."""

    def __init__(self, uri: str, read_write: bool, refusal: RefusedError | None = None) -> None:
        self.uri = uri
        self.read_write = read_write
        self.refusal = refusal
        self.connection: Any = None
        self.domains: dict[str, Any] = {}

    def open(self) -> Any:
        """Return the `virConnect`. Raises `RefusedError`."""
        if self.refusal is not None:
            raise RefusedError(self.refusal.kind, str(self.refusal))
        if self.connection is None:
            try:
                libvirt = binding()
                with libvirt_errors():
                    opened_by = libvirt.open if self.read_write else libvirt.openReadOnly
                    connection = opened_by(self.uri)
                must_go_on()  # if it came too late, this thread closes it again
                _open.add(connection)
                self.connection = connection
            except RefusedError as refusal:
                self.refusal = refusal
                raise
        return self.connection

    def domain(self, uuid: str) -> Any:
        """Return the `virDomain`. Raises `RefusedError`."""
        if uuid not in self.domains:
            self.domains[uuid] = self.open().lookupByUUIDString(uuid)
        return self.domains[uuid]

    def leave(self) -> None:
        """Close the connection in another thread, and don't wait long for it.

        The binding closes a connection when the last reference to it is dropped, and that is a
        round trip to the daemon: with a frozen daemon, it never returns. If a question still uses
        the connection, its thread will drop it.
        """
        held = [self.domains, self.connection]
        self.connection, self.domains = None, {}
        if held[1] is not None:
            patiently(partial(_close, held), CLOSING)


_open: set[Any] = set()
"""Connections that were opened and not closed. They must not be closed in any other way, such as by
the garbage collector, which runs in any thread."""


def _close(held: list[Any]) -> None:
    """Drop the last references to a connection and its domains."""
    domains, connection = held
    held.clear()
    domains.clear()
    _open.discard(connection)
    del connection


def remote_host(uri: str) -> str | None:
    """Return the host in a libvirt URI; None if it is this host, possibly in a container."""
    try:
        name = urlsplit(uri).hostname
    except ValueError:
        return None
    return None if name in (None, "localhost", "127.0.0.1", "::1") else name


_loading = threading.Lock()


def binding(name: str = "libvirt") -> Any:
    """Return the module `libvirt` or `libvirt_qemu` of this environment or of the distribution.

    libvirt-python has no wheels. Every host with nova-compute has it already, but outside of our
    virtual environment. Raises `RefusedError` if it is not installed for this version of Python.
    """
    with _loading:
        module = _imported(name)
        if name == "libvirt":
            # By default libvirt prints every error on stderr.
            module.registerErrorHandler(lambda context, error: None, None)
        return module


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        pass
    if name != "libvirt":
        _imported("libvirt")  # `libvirt_qemu` depends on it
    native_name = name.replace("libvirt", "libvirtmod")
    for folder in DISTRIBUTION_FOLDERS:
        source = folder / f"{name}.py"
        for suffix in EXTENSION_SUFFIXES:
            native = folder / f"{native_name}{suffix}"
            # The name of a plain `.so` doesn't tell for which Python it was built, and a module for
            # the wrong one crashes.
            if suffix != ".so" and native.is_file() and source.is_file():
                _load(native_name, native)
                return _load(name, source)
    raise RefusedError(
        "missing",
        "libvirt-python is not installed (apt-get install python3-libvirt, or pip install "
        "'.[libvirt]' in hoodsnap's checkout)",
    )


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RefusedError("missing", f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def libvirt_errors() -> Iterator[None]:
    """Convert a `libvirtError` to a `RefusedError` of the matching kind."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "libvirtError":  # the class may not be importable
            raise
        raise RefusedError(_kind_of(error), str(error)) from None


def _kind_of(error: Any) -> str:
    """Return the kind of failure that a `libvirtError` means."""
    libvirt = binding()
    code = error.get_error_code()
    if code in (
        libvirt.VIR_ERR_OPERATION_DENIED,
        libvirt.VIR_ERR_ACCESS_DENIED,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    ):
        return "denied"
    if code in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK):
        return "absent"
    if code in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN):
        return "unreachable"
    # This includes "cannot acquire state change lock": another question waits for this QEMU.
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        return "timeout"
    if code == libvirt.VIR_ERR_NO_SUPPORT:
        return "missing"
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:  # the daemon is not running
        denied = code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() == errno.EACCES
        return "denied" if denied else "unreachable"
    return "failed"
