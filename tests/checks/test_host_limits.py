"""Limits of the host's kernel that stop the next start of a guest."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost
from tests.daemons import alter

from hoodsnap.bundle import Answer
from hoodsnap.redaction.pseudonyms import Pseudonyms
from hoodsnap.redaction.redactor import Redactor


def reserve(host: RecordedHost, used: int, most: int) -> None:
    """Add what the kernel says of asynchronous I/O."""
    raw = host.last("kernel", "/proc/meminfo").model_dump(exclude={"value", "error"})
    for name, number in (("aio-nr", used), ("aio-max-nr", most)):
        host.add(Answer(**raw | {"query": f"/proc/sys/fs/{name}", "value": f"{number}\n"}))


def test_asynchronous_io_used_up(host: RecordedHost) -> None:
    reserve(host, 65000, 65536)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("asynchronous-io-used-up", "warning")
    assert finding.headline == (
        "vm has 536 of 65536 events of asynchronous I/O left, and the next guest with disks like"
        " those of vm-bfv and vm-data takes 1024"
    )


def test_more_is_reserved_than_the_limit_allows(host: RecordedHost) -> None:
    reserve(host, 2048, 2047)

    [headline] = host.headlines()
    assert headline.startswith("vm has 0 of 2047 events")


def test_an_older_qemu_needs_less(host: RecordedHost) -> None:
    reserve(host, 65000, 65536)
    host.set("host", "qemu-system-x86_64 --version", "QEMU emulator version 4.2.1")
    assert host.headlines() == []

    reserve(host, 65409, 65536)
    [headline] = host.headlines()
    assert headline.endswith("takes 128")


def test_enough_for_one_more_guest(host: RecordedHost) -> None:
    reserve(host, 65536 - 1024, 65536)

    assert host.findings() == []


def test_a_host_without_native_disks(host: RecordedHost) -> None:
    for name in ("vm-bfv", "vm-data"):
        for option in ("", "--inactive "):
            query = f"virsh dumpxml {option}{host.domain(name)}"
            text = host.last("libvirt", query).value
            host.set("libvirt", query, text.replace(" io='native'", " io='threads'"))
    reserve(host, 65536, 65536)

    assert not any("asynchronous-io" in line for line in host.findings())


def test_the_limit_is_kept_in_a_redacted_bundle(host: RecordedHost) -> None:
    reserve(host, 65536, 65536)
    host.bundle = Redactor(Pseudonyms(b"k" * 32), [host.bundle]).bundle(host.bundle)

    assert any("asynchronous-io-used-up" in line for line in host.findings())


def count_files(host: RecordedHost, name: str, used: int, soft: str, hard: str = "524288") -> None:
    """Add what the kernel says of the open files of a guest's QEMU."""
    pid = host.pid(name)
    raw = host.last("kernel", f"/proc/{pid}/stat").model_dump(exclude={"value", "error", "query"})
    line = f"{'Max open files':<26}{soft:<21}{hard:<21}files     \n"
    host.add(Answer(**raw, query=f"grep '^Max open files' /proc/{pid}/limits", value=line))
    host.add(Answer(**raw, query=f"ls /proc/{pid}/fd | wc -l", value=used))


def test_open_files_used_up(host: RecordedHost) -> None:
    count_files(host, "vm-plain", 922, "1024")

    pid = host.pid("vm-plain")
    assert host.findings() == [
        f"open-files-used-up of vm-plain: process reports pid = {pid}, open_files = 922,"
        " most_open_files = 1024"
    ]
    assert host.headlines() == [f"vm-plain's QEMU (process {pid}) has 922 of 1024 files open"]
    assert host.report().findings[0].names["FILES"] == "524288"


@pytest.mark.parametrize(("used", "soft"), [(921, "1024"), (60_000, "unlimited"), (60, "524288")])
def test_a_guest_may_open_more_files(host: RecordedHost, used: int, soft: str) -> None:
    count_files(host, "vm-plain", used, soft)

    assert host.findings() == []


def limited(used: int) -> dict[str, Any]:
    return {"open_files": used, "limit": "Max open files            1024                 4096"
            "                 files"}  # fmt: skip


def test_daemon_open_files_used_up(served: RecordedHost) -> None:
    alter(served, "libvirtd", pid=98, **limited(1000))

    [finding] = served.report().findings
    assert finding.check.name == "daemon-open-files-used-up"
    assert finding.title == "libvirtd on vm (process 98) has 1000 of 1024 files open"
    assert finding.names["FILES"] == "4096"


@pytest.mark.parametrize(("used", "looks"), [(900, 2), (1000, 1)])
def test_a_daemon_needs_many_files_for_a_moment(
    served: RecordedHost, used: int, looks: int
) -> None:
    alter(served, "libvirtd", **limited(10))
    alter(served, "libvirtd", looks=looks, **limited(used))

    assert served.headlines() == []


def test_a_hard_limit_that_is_too_low_is_raised_too(host: RecordedHost) -> None:
    count_files(host, "vm-plain", 1024, "1024", "1024")

    assert host.report().findings[0].names["FILES"] == "65536"


@pytest.mark.parametrize("line", ["", "Max open files -1 files", "Max open files 10 20 bytes"])
def test_a_limit_that_can_not_be_read_is_unknown(host: RecordedHost, line: str) -> None:
    count_files(host, "vm-plain", 1024, "1024")
    host.set("kernel", f"grep '^Max open files' /proc/{host.pid('vm-plain')}/limits", line)

    assert host.findings() == []
    assert any(skip.check.name == "open-files-used-up" for skip in host.report().skips)
