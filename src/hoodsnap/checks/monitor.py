"""Whether QEMU can be talked to, and says what libvirt says for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.legal_states import STATUS_OF
from hoodsnap.checks.traps import migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import ON, Domain
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process

STOPPED = frozenset("Tt")
"""The kernel's states of a process that was stopped by a signal, or by a debugger."""


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def libvirt_vs_qmp_status(domain: Domain, monitor: Monitor | None) -> Problems:
    """libvirt says one thing of the guest, and QEMU itself another.

    libvirt keeps its own copy of the state and brings it up to date with QEMU's events. An event
    that was lost (a daemon that was restarted at the wrong moment, a monitor used by somebody
    else) leaves nova with a guest that "runs" and stands still.

    Authority: QEMU.

    Traps: both are asked within seconds, and a guest whose state changed meanwhile is not judged;
    a guest that sleeps (`suspended`) is asleep for both; an I/O error has a check of its own.

    Next: `virsh domstate --reason NAME`, and the end of /var/log/libvirt/qemu/NAME.log. A restart
    of libvirtd asks QEMU anew, where its guests outlive it (not in every container).

    Not yet: restarting libvirt's container, `virsh resume`, `openstack server reboot --hard`.

    Source: libvirt qemu_monitor.c; QEMU's RunState; containers/podman issue 12717.
    """
    if monitor is None:
        return
    expected = STATUS_OF.get(domain.state)
    if expected is None or domain.id is None or monitor.status == "io-error":
        return
    if monitor.status not in expected:
        yield says(domain, state=domain.state_words), says(monitor, status=monitor.status)


@check(Severity.ERROR)
def qemu_monitor_dead(
    guest: Guest, host: Host, domain: Domain, process: Process, monitor: Monitor | None
) -> Problems:
    """QEMU is there and does not answer: nova and libvirt hang with everything they ask of it.

    It was stopped by a signal, or waits in the kernel for a storage that does not answer. Its guest
    stands still, and libvirt goes on saying that it runs.

    Authority: the kernel's state of the process: `T` is stopped, `D` waits for storage.

    Traps: a collector that was too impatient, or a libvirt that answers nobody, is no silence of
    this QEMU: without the kernel's word this is a warning; where a migration comes in, or nova
    works at it, others have to wait.

    Next: `cat /proc/PID/stack /proc/PID/wchan`, `ps -o stat,wchan PID`, and see whether the storage
    of its disks answers. A process in state T goes on with `kill -CONT PID`.

    Not yet: `kill -9` (in state D it does nothing, and strikes when the storage is back), an
    evacuation: the guest may still write.

    Source: libvirt, "cannot acquire state change lock"; Linux, proc(5), the state of a process.
    """
    if domain.state not in ON:
        return
    state = says(process, pid=process.pid, state=process.state)
    if process.state in STOPPED:
        yield state, says(domain, state=domain.state_words)
        return
    silent = next(_silent(domain, host, monitor), None)
    if silent is not None and process.state == "D":
        yield state, silent
    elif silent is not None and not task_in_flight(guest) and not migrating(guest):
        # Where a migration comes in, whoever asks waits for its end.
        yield Problem(Severity.WARNING, (state, silent))


def _silent(domain: Domain, host: Host, monitor: Monitor | None) -> Iterator[Evidence]:
    """What this QEMU was asked and did not answer in time, where others were heard."""
    for answer in _unanswered(domain.said):
        # libvirt itself answers the others.
        if answer.query.startswith(("virsh domjobinfo", "virsh blockjob")):
            yield hears(answer, "libvirt", said=_reason(answer))
    others = [other for other in host.monitors.values() if other is not monitor]
    if monitor is not None and any(_speaks(other) for other in others):
        for answer in _unanswered(monitor.said):
            yield hears(answer, "monitor", said=_reason(answer))


def _unanswered(said: Mapping[str, Answer]) -> Iterator[Answer]:
    for answer in said.values():
        if answer.error is not None and (
            answer.error.kind == "timeout" or "state change lock" in answer.error.message
        ):
            yield answer


def _reason(answer: Answer) -> str:
    return answer.error.message if answer.error is not None else ""


def _speaks(monitor: Monitor) -> bool:
    return any(answer.error is None for answer in monitor.said.values())
