"""Sockets of the host's daemons to which nobody can connect."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.phrase import several

KEEPERS = frozenset(["virtlogd", "virtlockd"])
"""Daemons that hold the consoles or the locks of running guests, and lose them when they end."""

SERVES = {
    "neutron-metadata-agent": "no guest gets metadata",
    "neutron-ovn-metadata-agent": "no guest gets metadata",
    "virtlogd": "no guest starts",
    "virtlockd": "no guest starts",
    "libvirtd": "nova-compute and virsh do not reach it",
    "virtqemud": "nova-compute and virsh do not reach it",
    "ovsdb-server": "no card is plugged or unplugged",
}
"""Daemon → what its clients can no longer do."""


@check(Severity.ERROR)
def daemon_socket_gone(host: Host) -> Problems:
    """A daemon listens at a unix socket whose file is gone, so that nobody can connect to it.

    A client finds a unix socket by its file. If the file is deleted, or its folder is renamed or
    covered by a mount, the daemon runs on and notices nothing, and those that are connected stay
    connected. Causes: a cleanup of `/run` or `/var/lib`, a folder that was made anew or restored
    from a backup, a second instance of the daemon that removed the file when it ended.

    Authority: The file system, as the daemon sees it.

    Traps: Sockets without a file (abstract names), and those that systemd or a guest's QEMU listens
    at. A daemon in a container has files of its own, in which the path is looked for.

    Next: Check that the daemon listens at the path, and what is there:

        ss -xlp | grep SOCKET
        ls -ld SOCKET_FOLDER
        ls -l SOCKET_FOLDER

    If the folder was only renamed or covered, put the folder back; nothing has to be restarted. If
    the file was deleted, restart the daemon, which makes the file again. If a `.socket` unit of
    systemd listens for it, stop the service, restart the `.socket` unit, and start the service:

        systemctl restart SERVICE

    It worked if the file is there, and the same daemon listens at it:

        ls -l SOCKET
        ss -xlp | grep SOCKET

    Not yet: Do not restart virtlogd or virtlockd while guests run. Do not reboot guests.

    Source: unix(7); Linux net/unix/af_unix.c `unix_find_bsd`; neutron agent/metadata/agent.py
    `UnixDomainMetadataProxy`; libvirt src/logging/log_daemon.c.
    """
    daemons = [one for same in host.daemons.by_name.values() for one in same]
    if all(one.lost_sockets is None for one in daemons):
        raise UnheardError("the sockets of the host's daemons were not examined")
    for name in sorted(host.daemons.by_name):
        looks = host.daemons.looks_at(name).values()
        lasting = [look[-1] for look in looks if all(one.lost_sockets for one in look)]
        for path in sorted({path for one in lasting for path in one.lost_sockets or ()}):
            process = next(one for one in lasting if path in (one.lost_sockets or ()))
            harm = SERVES.get(name, "no client reaches it")
            restart = "" if name in KEEPERS else name
            yield problem(
                f"{name} on {host.name} (process {process.pid}) listens at {path}, but that file "
                f"is gone: {harm}",
                hears(host.daemons.census, "daemons", name, daemon=name, pid=process.pid).and_so(
                    lost_sockets=several(process.lost_sockets or ())
                ),
                SOCKET=path,
                SOCKET_FOLDER=path.rpartition("/")[0] or "/",
                SERVICE=restart,
            )
