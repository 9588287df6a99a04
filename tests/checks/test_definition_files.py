"""Files in which libvirt keeps its definitions, compared with what it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer

LIST = "ls -l --full-time /etc/libvirt/qemu"


def files(host: RecordedHost, *, left_out: str = "", more: tuple[str, ...] = ()) -> None:
    """Add the lists of libvirt's files; all were changed an hour before the collection."""
    [census] = [host.last("libvirt", "virsh list --all")]
    names = [row["name"] for row in census.value if row["name"] != left_out]
    at = census.at.timestamp() - 3600
    rows: list[dict[str, Any]] = [{"name": f"{one}.xml", "modified": at} for one in [*names, *more]]
    host.add(answer(host, LIST, rows))
    later = [dict(row) for row in rows]
    host.add(answer(host, LIST, later).model_copy(update={"at": host.bundle.ended}))


def change_last(host: RecordedHost, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Edit the list that was made at the end of the collection."""
    last = host.last("host", LIST)
    edit(last.value)


def answer(host: RecordedHost, query: str, value: Any) -> Answer:
    raw = host.last("host", "/etc/libvirt/qemu.conf")
    return Answer(**raw.model_dump(exclude={"value", "error", "query"}), query=query, value=value)


def content(host: RecordedHost, name: str, *edits: tuple[str, str]) -> None:
    """Add the content of a guest's file: libvirt's definition with these edits."""
    domain = host.domain(name)
    text = host.last("libvirt", f"virsh dumpxml --inactive {domain}").value
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    host.add(answer(host, f"cat /etc/libvirt/qemu/{domain}.xml", text))


def test_definition_file_differs(host: RecordedHost) -> None:
    files(host)
    content(host, "vm-stopped", (">1</vcpu>", ">4</vcpu>"))

    assert host.headlines() == [
        f"vm-stopped's file /etc/libvirt/qemu/{host.domain('vm-stopped')}.xml was edited since "
        "libvirt read it: it has <vcpu placement='static'>4</vcpu>"
    ]


def test_definition_file_differs_because_it_is_gone(host: RecordedHost) -> None:
    domain = host.domain("vm-plain")
    files(host, left_out=domain)

    assert host.headlines() == [
        f"vm-plain's file /etc/libvirt/qemu/{domain}.xml does not exist: libvirtd's next restart "
        "loses the domain"
    ]


@pytest.mark.parametrize(
    "edit",
    [
        ("<vcpu ", "      <vcpu "),
        ("<graphics type='vnc'", "<graphics type='vnc' passwd='s3cret'"),
    ],
)
def test_indentation_and_passwords_are_not_compared(
    host: RecordedHost, edit: tuple[str, str]
) -> None:
    files(host)
    content(host, "vm-plain", edit)

    assert host.findings() == []


def test_files_that_libvirt_has_read_are_not_compared(host: RecordedHost) -> None:
    files(host)

    assert host.findings() == []


def test_another_driver_of_libvirt_has_other_files(host: RecordedHost) -> None:
    files(host, left_out=host.domain("vm-plain"))
    host.set("libvirt", "virsh uri", "qemu:///session")

    assert host.findings() == []


def test_definition_file_left(host: RecordedHost) -> None:
    files(host, more=("instance-0000dead",))

    [finding] = host.report().findings
    assert finding.title == (
        "/etc/libvirt/qemu/instance-0000dead.xml on vm defines a domain that libvirt does not "
        "have: libvirtd's next restart brings it back"
    )
    assert finding.names["FILE"] == "/etc/libvirt/qemu/instance-0000dead.xml"


def test_the_files_were_not_collected(host: RecordedHost) -> None:
    skipped = {skip.check.name for skip in host.report().skips}

    assert skipped >= {"definition-file-differs", "definition-file-left"}


def test_libvirt_wrote_a_file_during_the_collection(host: RecordedHost) -> None:
    files(host, more=("deleted",), left_out=host.domain("vm-plain"))
    content(host, "vm-stopped", (">1</vcpu>", ">4</vcpu>"))
    written = host.bundle.ended.timestamp()

    def wrote(rows: list[dict[str, Any]]) -> None:
        kept = [row for row in rows if row["name"] != "deleted.xml"]
        for row in kept:
            row["modified"] = written
        rows[:] = [*kept, {"name": f"{host.domain('vm-plain')}.xml", "modified": written}]

    change_last(host, wrote)

    assert host.headlines() == []


def test_one_list_of_files_decides_nothing(host: RecordedHost) -> None:
    files(host, more=("left",), left_out=host.domain("vm-plain"))
    last = host.last("host", LIST)
    host.bundle = host.bundle.with_answers(
        tuple(one for one in host.bundle.answers if one is not last)
    )

    report = host.report()
    assert not report.findings
    assert "libvirt's definition files were listed only once" in {
        one.reason for one in report.skips
    }
