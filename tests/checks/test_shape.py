"""Memory, vCPUs and disk sizes of the guest."""

from __future__ import annotations

from tests.conftest import RecordedHost


def _define(host: RecordedHost, name: str, old: str, new: str) -> None:
    """Edit the running definition and the stored one."""
    for which in ("", "--inactive "):
        host.edit("libvirt", f"virsh dumpxml {which}{host.domain(name)}", old, new)


def _info(host: RecordedHost, name: str, **sizes: int) -> None:
    """Edit what libvirt counts for a running domain."""
    query = f"virsh dominfo {host.domain(name)}"
    host.set("libvirt", query, host.last("libvirt", query).value | sizes)


def test_memory_chain_mismatch(host: RecordedHost) -> None:
    _define(host, "vm-plain", "<memory unit='KiB'>65536<", "<memory unit='MiB'>128<")
    _define(host, "vm-plain", "<currentMemory unit='KiB'>65536<", "<currentMemory unit='MiB'>128<")
    _info(host, "vm-plain", max_memory_kib=131072, memory_kib=131072)

    assert host.findings() == [
        "memory-chain-mismatch of vm-plain: server reports memory_mib = 64; instance reports memory_mib = 64;"
        " instance reports flavor_memory_mib = 64; domain reports memory_kib = 131072, memory_mib = 128;"
        " process reports memory_kib = 65536, memory_mib = 64"
    ]
    assert host.headlines() == [
        "vm-plain has 128 MiB of memory in libvirt, but 64 MiB in nova and QEMU"
    ]


def test_memory_chain_mismatch_in_the_row(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), memory_mb=4096)

    [drift] = host.findings()
    assert drift.startswith(
        "flavor-three-way-drift of vm-plain: instance reports memory_mb = 4096;"
    )
    [mismatch] = host.folded()
    assert (
        "instance reports memory_mib = 4096; instance reports flavor_memory_mib = 64;" in mismatch
    )


def test_memory_chain_mismatch_in_the_process(host: RecordedHost) -> None:
    cmdline = f"/proc/{host.pid('vm-plain')}/cmdline"
    host.edit(
        "kernel",
        cmdline,
        "-m\0size=65536k\0"
        if "-m\0size" in host.last("kernel", cmdline).value
        else "-m\0" + "64\0",
        "-m\0" + "32\0",
    )
    host.edit("kernel", cmdline, f'"size":{64 << 20}', f'"size":{32 << 20}')

    [finding] = host.findings()
    assert finding.endswith(
        "domain reports memory_kib = 65536, memory_mib = 64;"
        " process reports memory_kib = 32768, memory_mib = 32"
    )
    assert host.headlines() == [
        "vm-plain has 32 MiB of memory in QEMU, but 64 MiB in nova and libvirt"
    ]


def test_memory_that_libvirt_rounded_up_is_no_mismatch(host: RecordedHost) -> None:
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit("libvirt", live, "<memory unit='KiB'>65536<", "<memory unit='KiB'>65500<")
    host.edit("libvirt", live, "<currentMemory unit='KiB'>65536<", "<currentMemory>65500<")
    _info(host, "vm-plain", max_memory_kib=65500, memory_kib=65500)

    assert host.findings() == []


def test_a_balloon_that_took_memory_is_a_note(host: RecordedHost) -> None:
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit("libvirt", live, "<currentMemory unit='KiB'>65536<", "<currentMemory>32768<")
    _info(host, "vm-plain", memory_kib=32768)

    [finding] = host.report().findings
    assert finding.severity.word == "note"
    assert host.findings() == [
        "memory-chain-mismatch of vm-plain: domain reports memory_kib = 65536,"
        " current_memory_kib = 32768"
    ]
    assert host.headlines() == [
        "vm-plain has 32 MiB of its 64 MiB of memory: a balloon took the rest",
    ]


def test_an_unconfirmed_resize_may_have_two_sizes(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-verify"), memory_mb=4096, vcpus=7)

    report = host.report()
    assert report.findings == ()
    assert "a resize is not confirmed yet" in [skip.reason for skip in report.skips]


def test_vcpu_chain_mismatch(host: RecordedHost) -> None:
    _define(host, "vm-duo", ">2</vcpu>", ">4</vcpu>")
    _info(host, "vm-duo", vcpus=4)

    assert host.findings() == [
        "vcpu-chain-mismatch of vm-duo: server reports vcpus = 2; instance reports vcpus = 2;"
        " instance reports flavor_vcpus = 2; domain reports vcpus = 4; process reports max_vcpus = 2"
    ]
    assert host.headlines() == [
        "vm-duo has 4 vCPUs in libvirt, but 2 vCPUs in nova and QEMU",
    ]


def test_vcpu_chain_mismatch_in_the_row(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-duo"), vcpus=1)

    [drift] = host.findings()
    assert drift.startswith("flavor-three-way-drift of vm-duo: instance reports vcpus = 1;")
    [mismatch] = host.folded()
    assert mismatch.partition(" ← ")[2].startswith(
        "vcpu-chain-mismatch of vm-duo: server reports vcpus = 2; instance reports vcpus = 1;"
    )
    assert host.headlines() == [
        "vm-duo's database row has 1 vCPU, but its stored flavor lab.duo has 2 vCPUs",
        "vm-duo has 1 vCPU in its database row, but 2 vCPUs in the nova API, its stored flavor, libvirt and QEMU",
    ]


def test_one_layer_alone_is_not_compared(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-duo"), vcpus=1)
    for layer in ("nova", "libvirt", "kernel"):
        host.silence(layer)

    assert not [it for it in host.findings() if it.startswith("vcpu-chain-mismatch")]


def _asked(host: RecordedHost, name: str, query: str) -> str:
    [guest] = [guest for guest in host.report().cloud.guests if guest.name == name]
    return f"""virsh qemu-monitor-command {guest.domain_name} '{{"execute": "{query}"}}'"""


def test_memory_chain_mismatch_in_the_monitor(monitored: RecordedHost) -> None:
    query = _asked(monitored, "vm-plain", "query-memory-size-summary")
    assert monitored.last("qemu", query).value["base-memory"] == 64 << 20
    monitored.edit("qemu", query, str(64 << 20), str(32 << 20))

    [finding] = monitored.findings()
    assert finding.startswith("memory-chain-mismatch of vm-plain: ")
    assert finding.endswith(
        "process reports memory_kib = 65536, memory_mib = 64;"
        " monitor reports memory_kib = 32768, memory_mib = 32"
    )


def test_vcpu_chain_mismatch_in_the_monitor(monitored: RecordedHost) -> None:
    query = _asked(monitored, "vm-duo", "query-cpus-fast")
    cpus = monitored.last("qemu", query).value
    assert len(cpus) == 2
    monitored.set("qemu", query, cpus[:1])
    threads = f"grep -E '^(Name|Cpus_allowed_list):' /proc/{monitored.pid('vm-duo')}/task/*/status"
    listed = monitored.last("kernel", threads).value
    gone = str(cpus[1]["thread-id"])
    assert gone in listed
    monitored.set("kernel", threads, {tid: it for tid, it in listed.items() if tid != gone})

    [finding] = monitored.report().findings
    assert finding.severity.word == "warning"
    assert monitored.findings() == [
        "vcpu-chain-mismatch of vm-duo: domain reports current_vcpus = 2; monitor reports vcpus = 1"
    ]
    assert finding.headline == "vm-duo has 2 vCPUs plugged in in libvirt, but 1 in QEMU's monitor"


def _size(host: RecordedHost, path: str, size: int) -> None:
    host.image(path, lambda layers: layers[0].update({"virtual-size": size}))


def test_disk_size_vs_flavor(host: RecordedHost) -> None:
    path = f"{host.folder('vm-plain')}/disk"
    _size(host, path, (1 << 30) - 512)

    assert host.findings() == [
        "disk-size-vs-flavor of vm-plain: instance reports flavor_root_gb = 1, size = 1073741824 bytes;"
        f" image reports path = {path}, virtual_size = {(1 << 30) - 512}, size = 1073741312 bytes"
    ]
    assert host.headlines() == [
        "vm-plain's root disk has 1073741312 bytes, but its flavor has 1073741824 bytes"
    ]


def test_disk_size_vs_flavor_is_a_warning_if_larger(host: RecordedHost) -> None:
    _size(host, f"{host.folder('vm-plain')}/disk", 2 << 30)

    [finding] = host.report().findings
    assert (finding.severity.word, finding.check.name) == ("warning", "disk-size-vs-flavor")
    assert finding.headline == "vm-plain's root disk has 2 GiB, but its flavor has 1 GiB"


def test_disk_size_vs_flavor_of_blank_disks(host: RecordedHost) -> None:
    folder = host.folder("vm-config")
    _size(host, f"{folder}/disk.swap", 32 << 20)
    _size(host, f"{folder}/disk.eph0", 2 << 30)

    found = [
        finding for finding in host.report().findings if finding.check.name == "disk-size-vs-flavor"
    ]
    assert sorted(finding.severity.word for finding in found) == ["error", "warning"]
    assert [finding.headline for finding in found] == [
        "vm-config's disk.swap has 32 MiB, but its owner requested 64 MiB",
        "vm-config's disk.eph0 has 2 GiB, but its owner requested 1 GiB",
    ]


def test_a_disk_that_is_being_resized_has_another_size(host: RecordedHost) -> None:
    _size(host, f"{host.folder('vm-verify')}/disk", 1 << 30)  # it waits to be confirmed
    _size(host, f"{host.folder('vm-plain')}/disk", 2 << 30)
    host.task("vm-plain", "resize_finish")

    assert not [line for line in host.findings() if line.startswith("disk-size-vs-flavor")]


def test_disks_of_a_flavor_without_size_are_as_large_as_their_image(host: RecordedHost) -> None:
    path, uuid = f"{host.folder('vm-plain')}/disk", host.uuid("vm-plain")
    [extra] = [
        dict(zip(answer.value["columns"], row, strict=True))["flavor"]
        for answer in host.bundle.by_layer["nova-db"]
        if ".instance_extra " in answer.query and answer.query.startswith("SELECT")
        for row in answer.value["rows"]
        if uuid in row
    ]
    assert extra.count('"root_gb": 1,') == 1
    host.row("instance_extra", uuid, flavor=extra.replace('"root_gb": 1,', '"root_gb": 0,'))
    _size(host, path, 64 << 20)

    assert not [line for line in host.findings() if line.startswith("disk-size-vs-flavor")]
