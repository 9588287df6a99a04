"""Start of the stand-ins of one recorded host, and the sockets and ports they listen on.

The sockets listen at once, while the stand-ins are still loading and the shell starts: a client
that connects early waits a moment.
"""

from __future__ import annotations

import re
import resource
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording

LIBVIRT_SOCKETS = ("libvirt-sock", "libvirt-sock-ro", "virtqemud-sock", "virtqemud-sock-ro")

KEYSTONE_PORT, MYSQL_PORT = 5000, 3306

CLOUD = {
    "OS_USERNAME": "recorded",
    "OS_PROJECT_NAME": "recorded",
    "OS_USER_DOMAIN_ID": "default",
    "OS_PROJECT_DOMAIN_ID": "default",
    "OS_IDENTITY_API_VERSION": "3",
}

KNOWN_PASSWORD = "recorded"  # noqa: S105 it opens nothing
"""Password in a shell. Only the shell's own processes can connect, so all of them may know it."""

_WAITING = 128
"""Number of clients that may wait for an answer."""


@dataclass
class Listeners:
    """Listening sockets; clients that connect wait until `answer` is called."""

    libvirt: list[socket.socket]
    mysql: list[socket.socket]
    monitors: dict[str, socket.socket]
    """Sockets of monitors, by the guest's UUID."""
    cloud: socket.socket

    def close(self) -> None:
        """Close the sockets in this process."""
        for one in (*self.libvirt, *self.mysql, *self.monitors.values(), self.cloud):
            one.close()


def listen(recording: Recording, folder: Path, *, ports: bool = True) -> Listeners:
    """Listen for every stand-in, with its sockets in a folder (`libvirt/`, `mysqld/`, `qemu/`).

    `ports`: True for the standard ports; False for MySQL's socket only, and a free port for
    keystone.
    """
    for name in ("libvirt", "mysqld", "qemu"):
        (folder / name).mkdir()
    mysql = [_at(folder / "mysqld" / "mysqld.sock")]
    if ports:
        mysql.append(socket.create_server(("127.0.0.1", MYSQL_PORT), backlog=_WAITING))
    return Listeners(
        [_at(folder / "libvirt" / name) for name in LIBVIRT_SOCKETS],
        mysql,
        _monitors(recording, folder / "qemu"),
        socket.create_server(("127.0.0.1", KEYSTONE_PORT if ports else 0), backlog=_WAITING),
    )


def environment(listeners: Listeners, password: str = KNOWN_PASSWORD) -> dict[str, str]:
    """Return the variables by which OpenStack's clients find their stand-ins."""
    port = listeners.cloud.getsockname()[1]
    return {**CLOUD, "OS_AUTH_URL": f"http://127.0.0.1:{port}/v3", "OS_PASSWORD": password}


def answer(
    recording: Recording,
    listeners: Listeners,
    say: Callable[[str], None],
    password: str | None = None,
) -> None:
    """Answer for every stand-in, in threads that end with the program.

    `say` is called with a line for each stand-in that can't be started. `password`: the password
    that OpenStack clients must send; None if any client is answered.
    """
    arguments = (recording, listeners, say, password)
    threading.Thread(target=_serve, args=arguments, daemon=True).start()


def _at(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(_WAITING)
    return listener


def _monitors(recording: Recording, folder: Path) -> dict[str, socket.socket]:
    """Listen at libvirt's paths: `domain-ID-NAME/monitor.sock`, the name cut to 20 characters."""
    recorded = {answer.subject for answer in recording.asked("qemu", "")}
    found: dict[str, socket.socket] = {}
    if not recorded:
        return found
    try:
        listed = recording.value("libvirt", "virsh list --all")
    except NotRecordedError:
        return found
    most = _room()
    for row in listed if isinstance(listed, list) else ():
        if not isinstance(row, dict) or len(found) == most:
            continue
        uuid, number, name = row.get("uuid"), row.get("id"), row.get("name")
        if not isinstance(uuid, str) or uuid not in recorded or uuid in found:
            continue
        if _is_number(number) and isinstance(name, str) and is_plain(name):
            place = folder / f"domain-{number}-{name[:20]}"
            try:
                place.mkdir()
                found[uuid] = _at(place / "monitor.sock")
            except OSError:
                continue  # the name is taken, or the path is too long for a socket
    return found


def _room() -> int:
    """Return how many monitors may listen: half of the files that this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most, soft) // 2


def _serve(
    recording: Recording,
    listeners: Listeners,
    say: Callable[[str], None],
    password: str | None,
) -> None:
    """Create the stand-ins and answer forever. If that fails, close the sockets."""
    try:
        # Imported here, so that the shell does not wait for it.
        import asyncio

        from hoodsnap.replay.apis import http_server

        api = http_server.server(recording, listeners.cloud, password)
        threading.Thread(target=api.serve_forever, daemon=True).start()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_answer_on(recording, listeners))
        loop.run_forever()
    except Exception as error:  # the net around all of them
        say(f"a stand-in can't be started: {type(error).__name__}")
        for listener in (*listeners.libvirt, *listeners.mysql, *listeners.monitors.values()):
            listener.close()


async def _answer_on(recording: Recording, listeners: Listeners) -> None:
    """Let the stand-ins answer. Without a recorded database, its clients get a refusal."""
    from hoodsnap.replay.libvirtd.libvirtd import Libvirtd
    from hoodsnap.replay.monitor import MonitorSocket
    from hoodsnap.replay.mysqld import mysqld

    libvirtd = Libvirtd(recording)
    for listener in listeners.libvirt:
        await libvirtd.serve_on(listener)
    for uuid, listener in listeners.monitors.items():
        await MonitorSocket(recording, uuid).serve_on(listener)
    try:
        database = mysqld.Mysqld(recording)
    except (NotRecordedError, *UNREADABLE) as reason:
        why = f"nova's database is not in this recording: {reason}"
        for listener in listeners.mysql:
            await mysqld.refuse_on(listener, why)
        return
    for listener in listeners.mysql:
        await database.serve_on(listener)


def is_plain(name: str) -> bool:
    """True if a recorded name may become the name of a file."""
    return re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII) is not None and name.strip(".") != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
