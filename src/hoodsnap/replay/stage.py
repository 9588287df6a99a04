"""The stand-ins of one recorded host, started: which sockets and ports they listen on."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import suppress
from pathlib import Path

from hoodsnap.replay import openstack
from hoodsnap.replay.libvirtd import Libvirtd
from hoodsnap.replay.monitor import MonitorSocket, monitored
from hoodsnap.replay.mysqld import Mysqld
from hoodsnap.replay.recording import NotRecorded, Recording

LIBVIRT_SOCKETS = ("libvirt-sock", "libvirt-sock-ro", "virtqemud-sock", "virtqemud-sock-ro")

MYSQL_PORT = 3306

CLOUD = {
    "OS_USERNAME": "recorded",
    "OS_PASSWORD": "recorded",  # the stand-in lets everybody in
    "OS_PROJECT_NAME": "recorded",
    "OS_USER_DOMAIN_ID": "default",
    "OS_PROJECT_DOMAIN_ID": "default",
    "OS_IDENTITY_API_VERSION": "3",
}


def start(recording: Recording, folder: Path, *, ports: bool = True) -> dict[str, str]:
    """Start every stand-in that has something to say, with its sockets in a folder (`libvirt/`,
    `mysqld/`, `qemu/`), in threads that end with the program.

    `ports`: at the ports where clients look for them; else at whichever are free. Returns the
    environment in which OpenStack's clients find theirs.
    """
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_listen(recording, folder, ports))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    api = openstack.server(recording, openstack.PORT if ports else 0)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    return {"OS_AUTH_URL": f"http://127.0.0.1:{api.server_port}/v3", **CLOUD}


async def _listen(recording: Recording, folder: Path, ports: bool) -> None:
    for name in ("libvirt", "mysqld", "qemu"):
        (folder / name).mkdir()
    libvirtd = Libvirtd(recording)
    for name in LIBVIRT_SOCKETS:
        await libvirtd.serve(str(folder / "libvirt" / name))
    with suppress(NotRecorded):
        mysqld = Mysqld(recording)
        await mysqld.serve(str(folder / "mysqld" / "mysqld.sock"))
        if ports:
            await mysqld.serve_tcp("127.0.0.1", MYSQL_PORT)
    with suppress(NotRecorded):
        await _listen_for_monitors(recording, folder / "qemu")


async def _listen_for_monitors(recording: Recording, folder: Path) -> None:
    """Where libvirt has them: `domain-ID-NAME/monitor.sock`, the name cut off after 20 letters."""
    with_monitor = monitored(recording)
    listed = recording.value("libvirt", "virsh list --all")
    for row in listed if isinstance(listed, list) else ():
        number, name = row.get("id"), str(row.get("name"))
        if row.get("uuid") in with_monitor and isinstance(number, int) and is_plain(name):
            place = folder / f"domain-{number}-{name[:20]}"
            place.mkdir()
            await MonitorSocket(recording, row["uuid"]).serve(str(place / "monitor.sock"))


def is_plain(name: str) -> bool:
    """Whether a recorded name may become the name of a file."""
    return re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII) is not None and name.strip(".") != ""
