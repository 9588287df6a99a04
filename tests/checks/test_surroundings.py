"""The namespaces and mounts of QEMU, and the host that started it."""

from __future__ import annotations

from tests.conftest import RecordedHost

LOG = "tail -c 65536 /var/log/libvirt/qemu/{}.log"


def test_qemu_in_another_namespace(host: RecordedHost) -> None:
    query = f"readlink /proc/{host.pid('vm-plain')}/ns/*"
    spaces = dict(host.last("kernel", query).value)
    own = spaces["ipc"]
    host.set("kernel", query, spaces | {"ipc": "ipc:[4026532999]"})

    assert host.headlines() == [
        f"vm-plain's QEMU (PID {host.pid('vm-plain')}) is in another ipc namespace than host vm"
    ]
    assert host.findings() == [
        f"qemu-in-another-namespace of vm-plain: process reports pid = {host.pid('vm-plain')}, "
        f"namespaces = ipc:[4026532999]; host reports namespaces = {own}"
    ]


def test_a_mount_namespace_of_its_own_is_normal(host: RecordedHost) -> None:
    query = f"readlink /proc/{host.pid('vm-plain')}/ns/*"
    spaces = dict(host.last("kernel", query).value)
    host.set("kernel", query, spaces | {"mnt": "mnt:[4026532999]"})

    assert host.findings() == []


def _mounts(host: RecordedHost, name: str) -> str:
    process = host.guest(name).process
    assert process is not None
    return process.said["mountinfo"].query


def test_mount_differs_in_qemu(host: RecordedHost) -> None:
    host.edit("kernel", _mounts(host, "vm-bfv"), " 7:0 / ", " 7:9 / ")

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.headlines()[0].startswith("vm-bfv's QEMU has /dev/loop0 (7:9) at …/")
    assert host.headlines()[0].endswith(", but host vm has /dev/loop0 (7:0) there")


def test_a_mount_that_was_not_asked_about_is_not_missing(host: RecordedHost) -> None:
    query = _mounts(host, "vm-bfv")
    share = next(word for word in query.split('"') if word.startswith("/var/lib/nova/mnt/"))
    lines = [line for line in host.last("kernel", query).value.splitlines() if " 7:0 " not in line]
    host.set("kernel", query, "\n".join(lines))
    assert "mount-differs-in-qemu of vm-bfv" in "".join(host.findings())

    answers = (
        answer.model_copy(update={"query": answer.query.replace(share, "/elsewhere/")})
        for answer in host.bundle.answers
    )
    host.bundle = host.bundle.with_answers(tuple(answers))
    assert "mount-differs-in-qemu" not in "".join(host.findings())


def _log(host: RecordedHost, old: str, new: str) -> None:
    query = LOG.format(host.domain("vm-plain"))
    host.set("logs", query, host.last("logs", query).value.replace(old, new))


def test_started_on_another_host(host: RecordedHost) -> None:
    _log(host, "hostname: vm", "hostname: old-name")

    assert host.headlines() == [
        "vm-plain was started on host name old-name, but host vm has host name vm"
    ]
    assert host.findings() == [
        "started-on-another-host of vm-plain: log reports host_name = old-name;"
        " host reports host_name = vm"
    ]


def test_another_kernel_is_found_and_a_longer_host_name_is_not(host: RecordedHost) -> None:
    _log(host, "hostname: vm", "hostname: vm.example.org")
    assert host.findings() == []

    host.set("kernel", "/proc/sys/kernel/osrelease", "6.1.0-13-amd64\n")
    assert "but host vm has kernel 6.1.0-13-amd64" in host.headlines()[0]


def test_the_monitor_of_another_qemu_is_found(monitored: RecordedHost) -> None:
    _log(monitored, "qemu version: 7.2.22", "qemu version: 6.2.0")

    [headline] = monitored.headlines()
    assert headline.startswith("vm-plain was started with QEMU 6.2.0")
    assert headline.endswith(", but its monitor is that of 7.2.22")
