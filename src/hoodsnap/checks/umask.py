"""The umask of nova-compute, with which it makes the folders of guests."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.files import novas_account, novas_folders
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.access import PASS
from hoodsnap.facts.host.instances_directory import FolderEntry


@check(Severity.WARNING)
def new_folders_closed(host: Host) -> Problems:
    """QEMU can't enter the folders that nova-compute makes, because of nova-compute's umask.

    nova-compute makes the folder of each new server with the umask that it was started with, and
    QEMU runs as another account, which has to pass through the folder. With a umask such as 077 or
    027, each server that is created, resized to this host or unshelved here fails with `Cannot
    access storage file … Permission denied`. Servers that have their folder run on. Causes: a
    hardened login shell or unit, from which nova-compute was restarted by hand or by a script.

    Authority: The kernel, for the umask of the process.

    Traps: QEMU runs as nova's own account, or is in its group. With disks in rbd, LVM or on volumes
    only, QEMU opens nothing but the console's log there.

    Next: Check the umask of the process and where it comes from, and the newest folders:

        grep Umask /proc/DAEMON/status
        systemctl show -p UMask nova-compute
        ls -ldt INSTANCES_PATH/*

    If a setting of the unit or of the shell made it, correct that setting to 022. Then restart
    nova-compute with it; guests keep running:

        systemctl restart nova-compute

    Servers whose build failed meanwhile are not tried again; create them anew.

    It worked if the umask lets others through (022):

        grep Umask /proc/[0-9]*/status

    Not yet: Do not migrate or resize servers to this host. Do not make the disks readable for all.

    Source: nova virt/libvirt/driver.py `_create_image`, oslo.utils fileutils `ensure_tree`;
    umask(2); libvirt, `virStorageFileAccess`.
    """
    if not host.images.tops:
        raise UnheardError("the instances directory was not collected")
    daemon = host.daemons.lasting("nova-compute")
    account = novas_account(novas_folders(host))
    if daemon is None or account is None:
        return
    if daemon.umask is None:
        raise UnheardError("the umask of nova-compute was not collected")
    uid, gid = account
    made = FolderEntry(
        path="",
        type="d",
        size=0,
        uid=uid,
        gid=gid,
        mode=f"{0o777 & ~daemon.umask:o}",
        acl=False,
    )
    if host.access.user.may(made, PASS):
        return
    yield problem(
        f"nova-compute on {host.name} (process {daemon.pid}) has umask {daemon.umask:03o}: the "
        "next server that it makes does not start",
        hears(
            host.daemons.census, "daemons", "nova-compute", daemon=daemon.name, pid=daemon.pid
        ).and_so(umask=f"{daemon.umask:03o}"),
        DAEMON=daemon.pid,
        INSTANCES_PATH=host.images.tops[0],
    )
