"""More than one nova-compute on one host."""

from __future__ import annotations

from collections.abc import Sequence

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.host.daemon import Daemon
from hoodsnap.phrase import several, since

NAME = "nova-compute"


@check(Severity.WARNING)
def nova_compute_twice(host: Host) -> Problems:
    """Several nova-compute processes run on one host.

    They report under the same name and take requests from the same queue, so each request reaches
    one of them at random. Locks between two tasks of one server hold only inside one process: two
    tasks may change the same guest at once. If their configurations or releases differ, a request
    succeeds or fails by chance. Causes: one was started by hand, or one runs in a container and
    one from a package.

    Authority: The kernel. The processes exist.

    Traps: A process that was started or ended while the host was collected is not counted.
    Services with different `host` options in their configurations may share one machine; nova then
    lists them separately.

    Next: Check when and how each process was started, and which names nova lists:

        ps -C nova-compute -o pid,ppid,user,lstart,unit,args
        openstack compute service list --service nova-compute

    If nova lists one service for this host, end the process that no unit and no container starts.
    It finishes its requests first; guests keep running:

        kill EXTRA_DAEMON

    Then restart the other one, so that it reads the guests' states again:

        systemctl restart nova-compute

    It worked if one process is left, and nova lists its service as up:

        ps -C nova-compute -o pid,ppid,user,lstart,unit,args
        openstack compute service list --service nova-compute

    Not yet: Do not run `kill -9`: the process may be changing a guest's disk. Do not start, resize
    or migrate servers of this host.

    Source: nova compute/manager.py, `utils.synchronized(instance.uuid)`; oslo.messaging, "Target".
    """
    processes = [looks[-1] for looks in host.daemons.looks_at(NAME).values()]
    if len(processes) < 2:
        return
    extra = _extra(processes)
    shown = [_shown(host, one) for one in processes]
    yield problem(
        f"{len(processes)} {NAME} processes run on {host.name}: {several(shown)}",
        *(
            hears(host.daemons.census, "daemons", NAME, daemon=NAME, pid=one.pid, unit=one.unit)
            for one in processes
        ),
        EXTRA_DAEMON=extra.pid if extra is not None else None,
    )


def _shown(host: Host, daemon: Daemon) -> str:
    """Return `16013 since 09:02 (5 min)`, with the unit that started it."""
    started = host.daemons.since(daemon)
    words = f" {since(started, host.bundle.ended)}" if started is not None else ""
    unit = f" of {daemon.unit}" if daemon.unit is not None else ""
    return f"{daemon.pid}{unit}{words}"


def _extra(processes: Sequence[Daemon]) -> Daemon | None:
    """Return the process that is to end: the only one outside of a unit, or where none is in a
    unit, the youngest of two. None if that does not tell one.
    """
    alone = [one for one in processes if one.unit is None]
    if len(alone) == 1:
        return alone[0]
    if len(alone) == len(processes) == 2:
        return max(alone, key=lambda one: one.started)
    return None
