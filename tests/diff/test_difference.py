"""The difference of two bundles: of the same host, of two hosts, and with silent layers."""

from __future__ import annotations

import pytest
from tests.conftest import FAULTS, MONITORS, ROOT, RecordedHost, healthy_report

from hoodsnap.bundle import load
from hoodsnap.diff.difference import Difference, NothingInCommonError, difference
from hoodsnap.findings.analysis import analyze

PAIRS = ROOT / "fixtures/two-hosts"


def since_healthy(host: RecordedHost) -> Difference:
    return difference(healthy_report(), host.report())


def recorded(before: str, after: str) -> Difference:
    old, new = (analyze(load(FAULTS / f"{name}.json.zst")) for name in (before, after))
    return difference(old, new)


def changes(found: Difference, name: str) -> list[str]:
    [server] = [server for server in found.servers if server.name == name]
    return [f"{','.join(c.layers)} {c.field}: {c.before} → {c.after}" for c in server.changes]


def of_host(found: Difference) -> list[str]:
    return [
        f"{host.name} {','.join(c.layers)} {c.field}: {c.before} → {c.after}"
        for host in found.hosts
        for c in host.changes
    ]


def findings(found: Difference) -> list[str]:
    return [f"{'+' if one.is_new else '-'} {one.check}" for one in found.findings]


def test_a_bundle_does_not_differ_from_itself() -> None:
    found = difference(healthy_report(), healthy_report())

    assert (found.servers, found.hosts, found.gaps, found.same) == ((), (), (), 16)
    assert not found.counts


def test_two_collections_of_one_healthy_host_do_not_differ() -> None:
    """One has the monitors, which is no change; 10 s of counters and heartbeats lie between."""
    found = difference(healthy_report(), analyze(load(MONITORS)))

    assert (found.servers, found.hosts) == ((), ())
    assert not found.counts
    assert {(gap.layer, gap.side) for gap in found.gaps} == {("qemu", "before")}


def test_a_guest_that_was_destroyed(host: RecordedHost) -> None:
    host.end("vm-plain")
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 5, "reason": 2})

    found = since_healthy(host)

    told = changes(found, "vm-plain")
    assert "libvirt state_words: running → shut off (destroyed)" in told
    assert f"kernel process: pid {host.pid('vm-plain')} → None" in told
    assert "+ active-but-domain-off" in findings(found)
    assert found.counts


def test_a_restart_is_reported_once_with_its_time() -> None:
    found = recorded("attachment-host", "disk-closed")  # the first is the later one

    restarts = [c for s in found.servers if s.name == "vm-duo" for c in s.changes]
    assert [(c.layers, c.field) for c in restarts] == [(("kernel",), "restarted")]
    assert restarts[0].before == "pid 1084" and restarts[0].after == "pid 17284"
    assert restarts[0].at is not None and f"{restarts[0].at:%H:%M:%S}" == "14:56:07"


def test_a_change_that_nova_has_twice_is_reported_once() -> None:
    found = recorded("virsh-suspend", "autostart")

    assert "nova,nova-db power_state: paused → running" in changes(found, "vm-duo")
    assert "libvirt state_words: paused (user) → running" in changes(found, "vm-duo")
    assert sorted(findings(found)) == [
        *("+ guest-autostart-enabled", "- paused-or-crashed-guest"),
    ]


def test_a_base_image_that_was_renamed() -> None:
    found = recorded("port-disabled", "base-moved")

    base = "/var/lib/nova/instances/_base/6b069ff17bbc9dcf65dedf4bb2ff93d0d763d727"
    assert of_host(found) == [f"vm images file: {base} → renamed to {base}.lab-moved"]


def test_modes_of_a_guests_files_count() -> None:
    found = recorded("virsh-suspend", "disk-closed")

    assert "images files[disk].mode: 100644 → 100000" in changes(found, "vm-stopped")


@pytest.mark.parametrize(
    "layer",
    [
        "libvirt",
        "kernel",
        "nova",
        "nova-db",
        "neutron",
        "images",
        "cinder",
        "network",
        "block",
        "logs",
    ],
)
def test_a_layer_that_did_not_answer_is_no_change(host: RecordedHost, layer: str) -> None:
    host.silence(layer)

    found = since_healthy(host)

    assert [change for server in found.servers for change in server.changes] == []
    assert [change for part in found.hosts for change in part.changes] == []
    assert not found.counts
    assert (layer, "after") in {(gap.layer, gap.side) for gap in found.gaps}


def test_a_finding_that_can_not_be_decided_any_more_is_not_gone() -> None:
    found = recorded("attachment-host", "db-down")

    [finding] = found.findings
    assert (finding.check, finding.is_new) == ("attachment-host-mismatch", False)
    assert finding.undecided is not None and "Connection refused" in finding.undecided


def test_a_server_that_was_deleted_and_one_that_was_created(host: RecordedHost) -> None:
    before, after = (
        analyze(load(PAIRS / f"{name}.first.json.zst")) for name in ("healthy", "migrated-live")
    )

    found = difference(before, after)

    fates = {server.name: server.fate for server in found.servers}
    assert fates == {"pair-first": "went", "pair-second": "went", "pair-live": "appeared"}


def test_a_server_that_one_bundle_could_not_know_is_no_change() -> None:
    """The bundle of a compute node has no database, and lists only its own domains."""
    before, after = (
        analyze(load(PAIRS / f"{name}.json.zst"))
        for name in ("healthy.first", "migrated-live.second")
    )

    found = difference(before, after)

    assert [server.name for server in found.servers] == ["pair-live"]


def test_a_server_on_two_hosts_is_found_by_its_uuid() -> None:
    before, after = (
        analyze(load(PAIRS / f"split-brain.{name}.json.zst")) for name in ("first", "second")
    )

    found = difference(before, after)

    assert "host moved: vm → compute2" in changes(found, "pair-split")


def test_a_reboot_and_a_service_that_went_down(host: RecordedHost) -> None:
    host.set("kernel", "/proc/sys/kernel/random/boot_id", "1c1c1c1c-0000-4000-8000-000000000000\n")
    for query in ("GET /v2.1/os-services [2.93]", "GET /v2.1/os-services"):
        value = host.last("nova", query).value
        services = [
            one | {"state": "down"} if one["binary"] == "nova-compute" else one
            for one in value["services"]
        ]
        host.set("nova", query, {"services": services})
    host.conf("DEFAULT", reserved_host_memory_mb="4096")

    told = of_host(since_healthy(host))

    assert "vm kernel rebooted: boot → another boot" in told
    assert "None nova services[nova-compute on vm].state: up → down" in told
    assert "vm host nova.conf.DEFAULT.reserved_host_memory_mb: 512 → 4096" in told


def test_two_clouds_are_refused(host: RecordedHost) -> None:
    with pytest.raises(NothingInCommonError):
        difference(healthy_report(), analyze(load(FAULTS / "autostart.json.zst")))


def test_a_choice_of_servers_leaves_out_the_rest(host: RecordedHost) -> None:
    host.server(host.uuid("vm-plain"), status="SHUTOFF")
    host.server(host.uuid("vm-duo"), status="SHUTOFF")
    host.conf("DEFAULT", host="other")

    found = difference(healthy_report(), host.report(), {host.uuid("vm-duo")})

    assert [server.name for server in found.servers] == ["vm-duo"]
    assert found.hosts == ()
