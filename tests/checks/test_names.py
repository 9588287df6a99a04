"""Names of a domain, and libvirt's answers about one domain."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost


def _rename(host: RecordedHost, name: str, new: str) -> None:
    """Rename a domain that is off, as `virsh domrename` does."""
    old = host.domain(name)
    listed = host.last("libvirt", "virsh list --all").value
    rows = [row | {"name": new} if row["name"] == old else row for row in listed]
    host.set("libvirt", "virsh list --all", rows)
    host.edit("libvirt", f"virsh dumpxml --inactive {old}", f"<name>{old}<", f"<name>{new}<")


def test_domain_renamed(host: RecordedHost) -> None:
    nova = host.domain("vm-stopped")
    _rename(host, "vm-stopped", f"{nova}-old")

    [finding] = [it for it in host.report().findings if it.check.name == "domain-renamed"]
    assert finding.severity.word == "warning"
    assert finding.headline == f"vm-stopped's domain is called {nova}-old, but nova calls it {nova}"


def test_domains_with_names_of_another_template_are_not_judged(host: RecordedHost) -> None:
    _rename(host, "vm-stopped", "guest-7")
    host.conf("DEFAULT", instance_name_template="guest-%d")

    assert [it for it in host.findings() if it.startswith("domain-renamed")] == []


def test_definition_of_another_domain(host: RecordedHost) -> None:
    uuid, other = host.uuid("vm-plain"), host.uuid("vm-duo")
    stored = f"virsh dumpxml --inactive {host.domain('vm-plain')}"
    host.edit("libvirt", stored, f"<uuid>{uuid}</uuid>", f"<uuid>{other}</uuid>")

    found = [it for it in host.report().findings if it.check.name == "definition-of-another-domain"]
    assert [(it.severity.word, it.headline) for it in found] == [
        (
            "error",
            f"libvirt lists vm-plain with uuid {uuid[:8]}, but its stored definition has uuid "
            f"{other[:8]}",
        )
    ]


@pytest.mark.parametrize("kind", ["", "--inactive "])
def test_a_definition_with_another_name_is_found(host: RecordedHost, kind: str) -> None:
    name, other = host.domain("vm-plain"), host.domain("vm-duo")
    query = f"virsh dumpxml {kind}{name}"
    host.edit("libvirt", query, f"<name>{name}</name>", f"<name>{other}</name>")

    assert [it.split(":")[0] for it in host.findings()] == [
        "definition-of-another-domain of vm-plain"
    ]


def test_another_number_in_the_live_definition_is_found(host: RecordedHost) -> None:
    domain = host.guest("vm-plain").domain
    assert domain is not None
    host.edit(
        "libvirt",
        f"virsh dumpxml {domain.name}",
        f"<domain type='qemu' id='{domain.id}'",
        "<domain type='qemu' id='99'",
    )

    assert host.headlines() == [
        f"libvirt lists vm-plain with number {domain.id}, but its live definition has 99"
    ]


@pytest.mark.parametrize(
    ("figure", "value"), [("max_memory_kib", 131072), ("vcpus", 2), ("memory_kib", 131072)]
)
def test_figures_that_differ_from_the_definition_are_found(
    host: RecordedHost, figure: str, value: int
) -> None:
    query = f"virsh dominfo {host.domain('vm-plain')}"
    host.set("libvirt", query, host.last("libvirt", query).value | {figure: value})

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == (
        "definition-of-another-domain",
        "warning",
    )


def test_a_balloon_that_is_inflated_is_no_contradiction(host: RecordedHost) -> None:
    query = f"virsh dominfo {host.domain('vm-plain')}"
    host.set("libvirt", query, host.last("libvirt", query).value | {"memory_kib": 32768})

    assert [it for it in host.findings() if it.startswith("definition-of-another")] == []


def test_a_broken_stored_definition_is_a_skip(host: RecordedHost) -> None:
    host.set("libvirt", f"virsh dumpxml --inactive {host.domain('vm-plain')}", "<nothing/>")

    assert [it for it in host.findings() if it.startswith("definition-of-another")] == []
    assert any(it.check.name == "definition-of-another-domain" for it in host.report().skips)


def _of_another(host: RecordedHost) -> list[str]:
    name = "process-has-another-domains-files"
    return [it.headline for it in host.report().findings if it.check.name == name]


def test_process_has_another_domains_files(host: RecordedHost) -> None:
    own, other, pid = host.domain("vm-plain"), host.domain("vm-duo"), host.pid("vm-plain")
    number = host.guest("vm-plain").domain.id  # type: ignore[union-attr]
    folder = f"/domain-{number}-{own}/"
    host.edit("kernel", f"/proc/{pid}/cmdline", folder, f"/domain-{number}-{other}/")

    [headline] = _of_another(host)
    assert headline == f"vm-plain's QEMU (PID {pid}) has the folder of {other}, not of {own}"


def test_a_folder_with_another_number_is_found(host: RecordedHost) -> None:
    own, pid = host.domain("vm-plain"), host.pid("vm-plain")
    number = host.guest("vm-plain").domain.id  # type: ignore[union-attr]
    host.edit("kernel", f"/proc/{pid}/cmdline", f"/domain-{number}-{own}/", f"/domain-77-{own}/")

    [headline] = _of_another(host)
    assert headline.endswith(f"has the folder of domain number 77, not of {own}")


def test_a_control_group_of_another_domain_is_found(host: RecordedHost) -> None:
    own, other, pid = host.domain("vm-plain"), host.domain("vm-duo"), host.pid("vm-plain")
    query = f"/proc/{pid}/cgroup"
    host.set("kernel", query, host.last("kernel", query).value.replace(own, other))

    [headline] = _of_another(host)
    assert headline.endswith(f"has the control group of {other}, not of {own}")


def test_a_pid_file_of_another_domain_is_found(host: RecordedHost) -> None:
    own, other, pid = host.domain("vm-plain"), host.domain("vm-duo"), host.pid("vm-plain")
    query = f"ls -lL /proc/{pid}/fd"
    files = [
        file | {"path": file["path"].replace(f"{own}.pid", f"{other}.pid")}
        for file in host.last("kernel", query).value
    ]
    host.set("kernel", query, files)

    [headline] = _of_another(host)
    assert headline.endswith(f"has the PID file of {other}, not of {own}")


def test_a_log_of_another_domain_is_found(host: RecordedHost) -> None:
    own, uuid, other = host.domain("vm-plain"), host.uuid("vm-plain"), host.uuid("vm-duo")
    query = next(
        answer.query
        for answer in host.bundle.by_layer["logs"]
        if answer.query.endswith(f"/{own}.log")
    )
    host.edit("logs", query, f"-uuid {uuid}", f"-uuid {other}")

    [headline] = _of_another(host)
    assert headline.endswith(f"has the log of {other[:8]}, not of {own}")


def test_a_domain_with_a_name_of_its_own_is_not_compared(host: RecordedHost) -> None:
    own, pid = host.domain("vm-plain"), host.pid("vm-plain")
    number = host.guest("vm-plain").domain.id  # type: ignore[union-attr]
    listed = host.last("libvirt", "virsh list --all").value
    rows = [row | {"name": "guest-7"} if row["name"] == own else row for row in listed]
    host.set("libvirt", "virsh list --all", rows)
    host.edit("kernel", f"/proc/{pid}/cmdline", f"/domain-{number}-{own}/", "/domain-77-other/")

    assert _of_another(host) == []
