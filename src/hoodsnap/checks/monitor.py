"""QEMU's monitor: does it answer, and does it report the same state as libvirt?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hoodsnap.agreement import Thing, Told, disagreements
from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.legal_states import STATUS_OF
from hoodsnap.checks.traps import building, disk_is_copied, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, derives, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host, is_unasked
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON, DomainState
from hoodsnap.facts.fact import is_true, known, value_of
from hoodsnap.facts.host.cgroup import Cgroup
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.quantity import is_address
from hoodsnap.phrase import place
from hoodsnap.printable import cut

LONGEST = 60
"""Longest text of an error in a headline, in characters."""

NOT_FROZEN: dict[str, Any] = {"FREEZER": "", "THAW": "", "TRACER": "", "STOPPED": ""}
"""Values for the advice if neither the control group is frozen nor the process stopped."""

STOPPED = frozenset("Tt")
"""Kernel states of a process that a signal or a debugger has stopped."""


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def libvirt_vs_qmp_status(guest: Guest, domain: Domain, monitor: Monitor | None) -> Problems:
    """libvirt and QEMU report different states of the guest.

    libvirt keeps its own copy of the state and updates it from QEMU's events. If an event is lost
    (the daemon was restarted at the wrong moment, another program used the monitor), nova shows a
    frozen guest as running.

    Authority: QEMU.

    Traps: Both are asked within seconds, and a guest is not judged if its state changed meanwhile.
    A sleeping guest (`suspended`) is asleep in both. An I/O error has a check of its own.

    Next: Check libvirt's state, and read the end of the QEMU log:

        virsh domstate --reason NAME
        tail /var/log/libvirt/qemu/NAME.log

    Then, where guests survive a restart of libvirtd (not in every container), restart it, so that
    it asks QEMU again:

        systemctl restart libvirtd

    It worked if libvirt reports QEMU's state:

        virsh domstate --reason NAME

    Not yet: Do not restart libvirt's container. Do not run `virsh resume` or `openstack server
    reboot --hard`.

    Source: libvirt qemu_monitor.c; QEMU's RunState; containers/podman issue 12717.
    """
    if monitor is None:
        return
    expected = STATUS_OF.get(domain.state)
    if expected is None or domain.id is None or monitor.status == "io-error":
        return
    if monitor.status not in expected:
        yield problem(
            f"{guest.title} is {domain.state_words} in libvirt, but {monitor.status} in QEMU",
            says(domain, state=domain.state_words),
            says(monitor, status=monitor.status),
        )
    elif domain.state == DomainState.RUNNING and not monitor.running:
        yield problem(
            f"{guest.title} is {domain.state_words} in libvirt, but its vCPUs do not run in QEMU",
            says(domain, state=domain.state_words),
            says(monitor, running=False),
        )


def _size(domain: Domain) -> int:
    return domain.size_told[1]


def _console(domain: Domain) -> str | None:
    consoles = [one for one in domain.graphics if one.type == "vnc" and one.port is not None]
    address = consoles[0].listens[0] if len(consoles) == 1 and consoles[0].listens else ""
    # QEMU reports a number where libvirt has a name.
    return f"{address}:{consoles[0].port}" if is_address(address) else None


def _display(monitor: Monitor) -> str:
    console = monitor.console
    return "none" if console is None else f"{console.address}:{console.port}"


OWN = (
    Thing(
        "memory (KiB, without the balloon's)",
        (
            Told("monitor", "QEMU", "balloon_kib", lambda monitor: monitor.balloon_kib),
            Told("domain", "libvirt", "size_told", _size),
        ),
    ),
    Thing(
        "VNC console",
        (
            Told("monitor", "QEMU", "console", _display),
            Told("domain", "libvirt", "graphics", _console),
        ),
    ),
)
"""What QEMU's monitor reports and libvirt keeps a copy of."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def monitor_differs(
    guest: Guest, host: Host, domain: Domain, process: Process, monitor: Monitor | None
) -> Problems:
    """QEMU's monitor and libvirt, or the kernel, report different things of one running guest.

    libvirt asks QEMU once and then keeps copies, which it updates from QEMU's events. A copy that
    is wrong (an event was lost, another program used the monitor, the monitor is that of another
    QEMU) leads commands astray: a console of another guest, a balloon that takes memory from a
    guest that has none left, CPU pinning of threads that are no vCPUs.

    Authority: QEMU; for its threads the kernel.

    Traps: A balloon that moves while both are asked. A console with a name for its address, or
    several of them. In a container threads have other numbers.

    Next: Compare libvirt's copies with the kernel's listeners and threads:

        virsh dommemstat NAME
        virsh domdisplay --all NAME
        virsh vcpupin NAME
        ss -ltnp
        ps -L -o lwp,comm -p PID

    Then, where guests survive a restart of libvirtd (not in every container), restart it, so that
    it asks QEMU again:

        systemctl restart libvirtd

    It worked if libvirt reports QEMU's values:

        virsh dommemstat NAME
        virsh domdisplay --all NAME

    Not yet: Do not run `virsh setmem` or `openstack console url show` before both agree.

    Source: libvirt src/qemu/qemu_process.c `qemuProcessRefreshState`; QEMU's QMP reference.
    """
    if domain.id is None or monitor is None:
        return
    if _shares_numbers(host, process):
        theirs, ours = known(lambda: monitor.vcpu_threads), known(lambda: process.threads_of_vcpus)
        if theirs and ours and theirs != ours:
            yield problem(
                f"{guest.title}'s vCPUs are threads {_threads(theirs)} in QEMU, but "
                f"{_threads(ours)} in the kernel",
                says(monitor, vcpu_threads=_threads(theirs)),
                derives(process, "vcpu_threads", vcpu_threads=_threads(ours)),
            )
    yield from disagreements(guest.title, OWN, domain=domain, monitor=monitor)


def _threads(threads: Mapping[int, int]) -> str:
    return ", ".join(str(threads[vcpu]) for vcpu in sorted(threads)) or "none"


def _shares_numbers(host: Host, process: Process) -> bool:
    """True if the collector is in the PID namespace of the process; False if that is unknown."""
    answer = host.bundle.last("host", "readlink /proc/self/ns/*", host.name)
    own = known(lambda: value_of(answer, "the collector's namespaces", dict[str, str]).get("pid"))
    return own is not None and own == known(lambda: process.namespaces.get("pid"))


FORMATS = frozenset(["qcow2", "raw"])
"""Drivers of QEMU that libvirt names like an image's format; others pass on what is below."""


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, disk_is_copied])
def qemu_has_another_disk(guest: Guest, domain: Domain, monitor: Monitor | None) -> Problems:
    """QEMU has another disk open than libvirt's definition of the running guest has.

    A copy or a commit of a disk ended in QEMU while libvirt was not looking, or something changed
    the disk through QEMU's monitor. What the guest writes is in the file that QEMU has open, and
    the next start uses the one in libvirt's definition. If QEMU has a disk read-only that the guest
    should write to (a warning), each write fails.

    Authority: QEMU, for what the guest uses.

    Traps: Disks on networks, and images that QEMU names in another way than by a path. A drive
    whose medium the guest may eject. A block job is about to change both.

    Next: Compare libvirt's disks with the files that QEMU has open:

        virsh domblklist --details NAME
        ls -l /proc/PID/fd

    Keep both files. The one that QEMU has open has the guest's newest data.

    Not yet: Do not stop, hard-reboot or migrate the server, and do not delete any of the two files.

    Source: libvirt src/qemu/qemu_block.c, src/qemu/qemu_blockjob.c; QEMU's QMP reference,
    query-block.
    """
    if monitor is None or domain.id is None:
        return
    disks = [disk for disk in domain.disks if disk.device in ("disk", "lun")]
    nodes = [device.node for device in monitor.disks if device.node is not None]
    sources = {disk.source for disk in domain.disks}
    by_file = {node.file: node for node in nodes}
    foreign = sorted(file for file in by_file if file and file not in sources and _is_path(file))
    for disk in disks:
        if not _is_path(disk.source) or disk.image.type not in ("file", "block"):
            continue
        node = by_file.get(disk.source)
        title = f"{guest.title}'s {disk.target}"
        if node is None:
            if len(foreign) == 1:
                yield problem(
                    f"{title} is {place(disk.source or '')} in libvirt, but QEMU has "
                    f"{place(foreign[0])} open",
                    says(domain, disks=disk.source),
                    says(monitor, disks=foreign[0]),
                )
        elif node.format in FORMATS and disk.image.format not in (None, node.format):
            yield problem(
                f"{title} is {disk.image.format} in libvirt, but {node.format} in QEMU",
                says(domain, disks=f"{disk.source} {disk.image.format}"),
                says(monitor, disks=f"{node.file} {node.format}"),
            )
        elif node.read_only and not disk.read_only and not node.corrupt:
            yield problem(
                f"{title} is writable in libvirt, but read-only in QEMU",
                says(domain, disks=disk.source),
                says(monitor, disks=f"{node.file} read-only"),
                severity=Severity.WARNING,
            )


def _is_path(name: str | None) -> bool:
    return name is not None and name.startswith("/")


@check(Severity.ERROR)
def qemu_monitor_dead(
    guest: Guest,
    host: Host,
    domain: Domain,
    process: Process,
    monitor: Monitor | None,
    cgroup: Cgroup | None,
) -> Problems:
    """QEMU exists but does not answer; nova and libvirt hang on every request to it.

    The process was stopped by a signal or by a debugger, its control group is frozen, or it waits
    in the kernel for storage that does not answer. The guest stands still while libvirt keeps
    reporting it as running.

    Authority: The kernel's state of the process: `T` was stopped by a signal, `t` by a debugger,
    `D` waits for storage.

    Traps: The collector's timeout may have been too short, or libvirt may not answer for any guest,
    so without a matching process state this is a warning. While a migration arrives, or while nova
    works on the guest, other requests have to wait.

    Next: Check where the process waits, and whether the storage of its disks answers:

        cat /proc/PID/stack /proc/PID/wchan
        ps -o stat,wchan -p PID

    If a debugger has stopped it (state t), no signal lets it continue. Find out who uses the
    debugger: gcore, which writes the guest's memory to a file, ends by itself after some minutes,
    and gdb waits for its user:

        ps -ww -o pid,user,tty,lstart,args -p TRACER

    Then ask its user to detach (`detach` and `quit` in gdb), or end the debugger, which lets the
    guest run again:

        kill TRACER

    If the process is in state T, let it continue, which lets the guest run again:

        kill -CONT STOPPED

    If its control group is frozen, ask who froze it: a backup, or a program for containers. Then
    thaw the group, which lets the guest run again:

        echo THAW > FREEZER

    It worked if the process is in another state, and libvirt gets an answer from it:

        ps -o stat,wchan -p PID
        virsh domjobinfo NAME

    Not yet: Do not run `kill -9`: in state D it has no effect until the storage is back, and then
    kills. Do not evacuate the server: the guest may still write.

    Source: libvirt, "cannot acquire state change lock"; Linux, proc(5), the state of a process.
    """
    if domain.state not in ON:
        return
    state = says(process, pid=process.pid, state=process.state)
    if process.state in STOPPED:
        by = f" (state {process.state})"
        names: dict[str, Any] = {"TRACER": "", "STOPPED": process.pid}
        if (tracer := known(lambda: process.tracer)) is not None or process.state == "t":
            by = f" by {_tracer(process, tracer)}"
            names = {"TRACER": tracer, "STOPPED": ""}
            state = state.and_so(tracer=tracer)
        yield problem(
            f"{_subject(guest, process)} is stopped{by}, but its domain is {domain.state_words}",
            state,
            says(domain, state=domain.state_words),
            **NOT_FROZEN | names,
        )
        return
    if cgroup is not None and is_true(lambda: cgroup.frozen):
        yield problem(
            f"{_subject(guest, process)} is frozen with its control group, but its domain is"
            f" {domain.state_words}",
            state,
            says(cgroup, frozen=True),
            says(domain, state=domain.state_words),
            **_freezer(cgroup),
        )
        return
    silent = next(_silent(domain, host, monitor), None)
    if silent is not None and process.state == "D":
        waits = "waits in the kernel (state D), and did not answer libvirt"
        yield problem(f"{_subject(guest, process)} {waits}", state, silent, **NOT_FROZEN)
    elif silent is not None and not task_in_flight(guest) and not migrating(guest):
        # Requests wait until an incoming migration ends.
        asked = "libvirt" if silent.layer == "libvirt" else "on its monitor"
        reason = cut(str(dict(silent.said).get("error")), LONGEST)
        headline = f"{_subject(guest, process)} did not answer {asked}: {reason}"
        yield problem(headline, state, silent, severity=Severity.WARNING, **NOT_FROZEN)


def _tracer(process: Process, tracer: int | None) -> str:
    """Return the words for a debugger. None: it is in another PID namespace."""
    if tracer is None:
        return f"a debugger (state {process.state})"
    name = known(lambda: process.tracer_name) or "a debugger"
    return f"{name} (PID {tracer}, state {process.state})"


def _freezer(cgroup: Cgroup) -> dict[str, Any]:
    """Return the file that thaws the group, and what to write to it."""
    old = cgroup.hierarchies.get("freezer")
    by_old = old is not None and cgroup.frozen_by_version_1
    path = old if old is not None and by_old else cgroup.hierarchies.get("", "")
    name = cgroup.machine or ""
    group = path.partition(name)[0] + name  # libvirt's groups inside of it are frozen with it
    if by_old:
        freezer = f"/sys/fs/cgroup/freezer{group}/freezer.state"
        return NOT_FROZEN | {"FREEZER": freezer, "THAW": "THAWED"}
    root = "/sys/fs/cgroup" if old is None else "/sys/fs/cgroup/unified"
    return NOT_FROZEN | {"FREEZER": f"{root}{group}/cgroup.freeze", "THAW": "0"}


def _subject(guest: Guest, process: Process) -> str:
    return f"{guest.title}'s QEMU (PID {process.pid})"


def _silent(domain: Domain, host: Host, monitor: Monitor | None) -> Iterator[Evidence]:
    """Yield the requests that this QEMU did not answer in time."""
    for answer in _unanswered(domain.said):
        # libvirt answers the other queries without QEMU. If it answered no other question after
        # this one, libvirt is silent, and its own daemon's checks report that.
        of_qemu = answer.query.startswith(("virsh domjobinfo", "virsh blockjob"))
        if of_qemu and host.libvirt_went_on_after(answer):
            yield hears(answer, "libvirt", error=_reason(answer))
    # If no other QEMU answered either, the fault may be the collector's or libvirt's.
    others = [other for other in host.monitors.values() if other is not monitor]
    if monitor is not None and any(_speaks(other) for other in others):
        for answer in _unanswered(monitor.said):
            yield hears(answer, "monitor", error=_reason(answer))


def _unanswered(said: Mapping[str, Answer]) -> Iterator[Answer]:
    for answer in said.values():
        if is_unasked(answer):
            continue  # a question that was never asked proves no silence
        if answer.error is not None and (
            answer.error.kind == "timeout" or "state change lock" in answer.error.message
        ):
            yield answer


def _reason(answer: Answer) -> str:
    return answer.error.message if answer.error is not None else ""


def _speaks(monitor: Monitor) -> bool:
    return any(answer.error is None for answer in monitor.said.values())
