"""Guest consoles."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.findings.advice import instructions

LISTING = "find /var/lib/nova/instances -ls"


def _log(host: RecordedHost, name: str) -> str:
    return f"/var/lib/nova/instances/{host.uuid(name)}/console.log"


def _set_entry(host: RecordedHost, path: str, **fields: object) -> None:
    """Change the entry of one file in the listing of the instances directory."""
    lines = host.last("images", LISTING).value
    assert [line["path"] for line in lines].count(path) == 1
    host.set("images", LISTING, [it | fields if it["path"] == path else it for it in lines])


def _console(host: RecordedHost, name: str) -> int:
    domain = host.guest(name).domain
    assert domain is not None
    [console] = domain.graphics
    assert console.port is not None
    return console.port


def test_console_log_problem(host: RecordedHost) -> None:
    path = _log(host, "vm-plain")
    _set_entry(host, path, size=1 << 30, blocks=(1 << 30) // 512)
    free = host.guest("vm-plain").host.hypervisor.room(path).free >> 20  # type: ignore[union-attr]

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        f"console-log-problem of vm-plain: images reports path = {path}, mib = 1024;"
        f" images reports free_mib = {free}"
    ]
    assert host.headlines() == [
        f"vm-plain's console log takes 1024 MiB of vm's disk, where {free} MiB are free"
    ]


def test_console_log_problem_that_fills_the_file_system(host: RecordedHost) -> None:
    _set_entry(host, _log(host, "vm-plain"), size=1 << 30, blocks=(1 << 30) // 512)
    room = host.last("images", "stat -f /var/lib/nova/instances").value
    host.set("images", "stat -f /var/lib/nova/instances", room | {"bavail": 1000})

    severities = {found.check.name: found.severity.word for found in host.report().findings}
    assert severities["console-log-problem"] == "error"


def test_console_log_problem_if_the_log_is_missing(host: RecordedHost) -> None:
    path = _log(host, "vm-plain")
    lines = host.last("images", LISTING).value
    host.set("images", LISTING, [line for line in lines if line["path"] != path])

    assert host.findings() == [
        "console-log-problem of vm-plain: domain reports state = running (unpaused),"
        f" logs = {path}; images reports console_log = missing"
    ]
    prose = [step.prose for step in instructions(host.found("console-log-problem"))]
    assert any(step.startswith("If the log was removed, only console output") for step in prose)


def test_a_log_with_a_hole_only_looks_large(host: RecordedHost) -> None:
    _set_entry(host, _log(host, "vm-plain"), size=1 << 40, blocks=8)

    assert host.findings() == []


def test_a_stopped_guest_needs_no_log(host: RecordedHost) -> None:
    path = _log(host, "vm-stopped")
    lines = host.last("images", LISTING).value
    host.set("images", LISTING, [line for line in lines if line["path"] != path])

    assert host.findings() == []


def test_a_log_is_not_judged_while_nova_starts_the_guest(host: RecordedHost) -> None:
    _set_entry(host, _log(host, "vm-plain"), size=1 << 30, blocks=(1 << 30) // 512)
    host.row("instances", host.uuid("vm-plain"), task_state="rebooting_hard")

    report = host.report()
    names = [finding.check.name for finding in report.findings]
    assert "console-log-problem" not in names
    assert "console-log-problem" in [skip.check.name for skip in report.skips if skip.differs]


def test_vnc_port_conflict_or_exposed(host: RecordedHost) -> None:
    pid, port = host.pid("vm-plain"), _console(host, "vm-plain")
    host.edit("kernel", f"/proc/{pid}/cmdline", "-vnc\0" + "127.0.0.1:", "-vnc\0" + "0.0.0.0:")

    assert host.findings() == [
        "vnc-port-conflict-or-exposed of vm-plain:"
        f" process reports pid = {pid}, graphics = vnc at 0.0.0.0:{port}"
    ]
    assert host.headlines() == [f"vm-plain's VNC console is open to everyone at 0.0.0.0:{port}"]


def test_a_console_with_a_password_may_be_open(host: RecordedHost) -> None:
    cmdline = f"/proc/{host.pid('vm-plain')}/cmdline"
    host.edit("kernel", cmdline, "-vnc\0" + "127.0.0.1:", "-vnc\0" + "0.0.0.0:")
    host.edit(
        "kernel", cmdline, ",audiodev=audio1\0-device", ",password=on,audiodev=audio1\0-device"
    )

    assert host.findings() == []


def test_two_consoles_on_one_port(host: RecordedHost) -> None:
    one, other = _console(host, "vm-plain"), _console(host, "vm-duo")
    live = f"virsh dumpxml {host.domain('vm-duo')}"
    host.edit("libvirt", live, f"port='{other}'", f"port='{one}'")

    found = host.report().findings
    assert {finding.severity.word for finding in found} == {"error"}
    pair = [host.domain("vm-duo"), host.domain("vm-plain")]
    assert host.findings() == [
        f"vnc-port-conflict-or-exposed of vm-duo: domain reports name = {pair[0]}, graphics = vnc at"
        f" port {one}; domain reports name = {pair[1]}, graphics = port {one}",
        f"vnc-port-conflict-or-exposed of vm-duo: domain reports name = {pair[0]}, graphics = vnc at"
        f" port {one}; process reports pid = {host.pid('vm-duo')}, graphics = port {other}",
        f"vnc-port-conflict-or-exposed of vm-plain: domain reports name = {pair[1]}, graphics = vnc at"
        f" port {one}; domain reports name = {pair[0]}, graphics = port {one}",
    ]


def test_many_consoles_on_one_port_are_one_finding_each(host: RecordedHost) -> None:
    names = ["vm-plain", "vm-duo", "vm-data", "vm-bfv", "vm-linux"]
    port = _console(host, "vm-plain")
    for name in names[1:]:
        own = _console(host, name)
        host.edit(
            "libvirt", f"virsh dumpxml {host.domain(name)}", f"port='{own}'", f"port='{port}'"
        )
        cmdline = f"/proc/{host.pid(name)}/cmdline"
        host.edit("kernel", cmdline, f"127.0.0.1:{own - 5900},", f"127.0.0.1:{port - 5900},")

    found = host.findings()
    assert len(found) == len(names)
    assert all(
        line.count("domain reports") == 4 and line.endswith("others = more, not shown")
        for line in found
    )


def test_another_process_listens_where_the_console_should_be(host: RecordedHost) -> None:
    here, pid = host.pid("vm-plain"), host.pid("vm-duo")
    port = _console(host, "vm-plain")
    host.edit("kernel", "ss -Hltnp", f"pid={here},", f"pid={pid},")

    assert {finding.severity.word for finding in host.report().findings} == {"error"}
    assert host.findings() == [
        f"vnc-port-conflict-or-exposed of vm-plain: domain reports name = {host.domain('vm-plain')},"
        f" graphics = port {port}; kernel reports listening_pid = {pid}"
    ]


def test_the_same_port_in_another_network_namespace_is_no_conflict(host: RecordedHost) -> None:
    here, pid = host.pid("vm-plain"), host.pid("vm-duo")
    host.edit("kernel", "ss -Hltnp", f"pid={here},", f"pid={pid},")
    spaces = host.last("kernel", f"readlink /proc/{pid}/ns/*").value
    host.set("kernel", f"readlink /proc/{pid}/ns/*", spaces | {"net": "net:[4026530001]"})

    assert host.findings() == []


def test_sockets_whose_owners_were_not_visible_prove_nothing(host: RecordedHost) -> None:
    host.set("kernel", "ss -Hltnp", "")

    assert host.findings() == []


def test_the_persistent_definition_has_no_port(host: RecordedHost) -> None:
    stored = host.last("libvirt", f"virsh dumpxml --inactive {host.domain('vm-plain')}").value

    assert "port='-1' autoport='yes'" in stored
    assert host.findings() == []


def _give_token(host: RecordedHost, name: str, port: int, seconds: float) -> None:
    for answer in host.bundle.asked("nova-db", "SELECT id, instance_uuid, console_type"):
        if host.uuid(name) in answer.query:
            expires = int(answer.at.timestamp() + seconds)
            row = [1, host.uuid(name), "novnc", "127.0.0.1", port, expires, "2026-11-25 13:00:00"]
            assert len(row) == len(answer.value["columns"])
            host.set("nova-db", answer.query, answer.value | {"rows": [row]})
            return
    raise AssertionError("no console tokens were collected")


def test_a_token_that_leads_to_another_guest(host: RecordedHost) -> None:
    here, there = _console(host, "vm-plain"), _console(host, "vm-duo")
    _give_token(host, "vm-plain", there, 300)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        f"vnc-port-conflict-or-exposed of vm-plain: instance reports console_token_port = {there};"
        f" domain reports graphics = port {here}; domain reports name = {host.domain('vm-duo')}"
    ]


def test_a_token_that_leads_nowhere_is_a_note(host: RecordedHost) -> None:
    _give_token(host, "vm-plain", 6000, 300)

    [finding] = host.report().findings
    assert finding.severity.word == "note"


def test_a_token_that_is_right_or_expired_is_not_a_finding(host: RecordedHost) -> None:
    _give_token(host, "vm-plain", _console(host, "vm-plain"), 300)
    assert host.findings() == []

    _give_token(host, "vm-plain", 6000, -1)
    assert host.findings() == []


@pytest.mark.parametrize(
    ("address", "severity"), [("127.0.0.1", "warning"), ("[::1]", "warning"), ("*", "error")]
)
def test_port_opened_in_qemu(host: RecordedHost, address: str, severity: str) -> None:
    listens = host.last("kernel", "ss -Hltnp").value
    pid = host.pid("vm-plain")
    line = f'LISTEN 0 10 {address}:10809 0.0.0.0:* users:(("qemu-system-x86",pid={pid},fd=40))'
    host.set("kernel", "ss -Hltnp", f"{listens}{line}\n")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("port-opened-in-qemu", severity)
    assert f"vm-plain's QEMU (PID {pid}) listens on port 10809 at " in finding.headline
    assert f"virsh domjobabort {host.domain('vm-plain')}" in changes(finding)


def test_a_serial_line_of_the_definition_may_listen(host: RecordedHost) -> None:
    listens = host.last("kernel", "ss -Hltnp").value
    line = f'LISTEN 0 1 *:10000 *:* users:(("qemu",pid={host.pid("vm-plain")},fd=40))'
    host.set("kernel", "ss -Hltnp", f"{listens}{line}\n")
    serial = '<serial type="tcp"><source mode="bind" host="0.0.0.0" service="10000"/></serial>'
    name = host.domain("vm-plain")
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        host.edit("libvirt", query, "</devices>", f"{serial}</devices>")

    assert "port-opened-in-qemu" not in "".join(host.findings())


def test_a_console_that_listens_at_another_address_is_found(host: RecordedHost) -> None:
    port = _console(host, "vm-plain")
    host.edit("kernel", "ss -Hltnp", f" 127.0.0.1:{port} ", f" 192.0.2.9:{port} ")

    assert host.headlines() == [
        "vm-plain's VNC console is at 127.0.0.1 in libvirt, but its QEMU listens at 192.0.2.9"
    ]
