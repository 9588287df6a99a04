"""The list of checks, and the page of each."""

from __future__ import annotations

import json

import pytest
from tests.command import hoodsnap

from hoodsnap.check import Check
from hoodsnap.checks import CATALOG, TOPICS
from hoodsnap.render.catalog import listing, markdown, page


def test_every_check_is_listed_once_with_its_topic() -> None:
    lines = hoodsnap("checks").stdout.decode().splitlines()

    names = [line.split()[1] for line in lines if line.startswith(("  error", "  warn", "  note"))]
    assert names == [check.name for check in CATALOG]
    assert sum(not line.startswith(" ") for line in lines) == len(TOPICS)


def test_the_list_fits_80_columns() -> None:
    assert [line for line in listing() if len(line) > 80 and line.startswith("   ")] == []


def test_a_named_check_prints_its_page() -> None:
    done = hoodsnap("checks", "server-without-domain")

    lines = done.stdout.decode().splitlines()
    assert lines[0] == (
        "server-without-domain  error · nova API × nova database × libvirt · identity"
    )
    assert "Next" in lines
    assert "  - nova is still building the server" in lines
    assert "  - host-identity-changed" in lines[lines.index("Explained by") :]


def test_a_topic_is_a_shorter_list() -> None:
    lines = hoodsnap("checks", "identity").stdout.decode().splitlines()

    assert lines[0].startswith("identity: ")
    assert sum(not line.startswith(" ") for line in lines) == 1


def test_an_unknown_check_is_a_usage_error() -> None:
    done = hoodsnap("checks", "server-without-domian")

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no check or topic matches server-without-domian" in done.stderr


def test_the_list_as_json() -> None:
    told = json.loads(hoodsnap("checks", "--format", "json", "disk-shared-by-two-qemu").stdout)

    assert [entry["name"] for entry in told] == ["disk-shared-by-two-qemu"]
    [entry] = told
    assert (entry["topic"], entry["severity"], entry["scope"]) == ("corruption", "error", "guest")
    assert entry["layers"] == ["kernel"]
    assert "openstack server reboot --hard UUID" in entry["forbids"]
    assert "live-migration-half-done" in entry["explained_by"]
    assert all(
        entry[section] for section in ("why", "authority", "traps", "next", "not_yet", "source")
    )


@pytest.mark.parametrize("check", CATALOG, ids=lambda check: check.name)
def test_a_page_contains_the_whole_docstring(check: Check) -> None:
    for text in ("\n".join(page(check)), markdown(check)):
        words = " ".join(text.split())
        for section in check.sections.values():
            assert " ".join(section.split()) in words


def test_a_page_gives_each_command_a_line_of_its_own() -> None:
    [check] = [check for check in CATALOG if check.name == "disk-deleted-but-open"]

    for lines in (list(page(check)), markdown(check).splitlines()):
        first = next(at for at, line in enumerate(lines) if line.strip() == "virsh suspend NAME")
        assert lines[first + 1].strip() == "cp --sparse=always /proc/PID/fd/FD COPY"
        assert lines[first + 2].strip() == "virsh resume NAME"
