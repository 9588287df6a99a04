"""An unreadable value is never mistaken for an object that does not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import FAULTS, RecordedHost, healthy

from hoodsnap.bundle import Answer, Bundle, load
from hoodsnap.findings.analysis import analyze

NOWHERE: set[str] = set()


def damaged(bundle: Bundle, layer: str, query: str, damage: Any) -> Bundle:
    """Return the bundle with the value of each matching answer damaged."""

    def change(answer: Answer) -> Answer:
        if answer.layer != layer or query not in answer.query or answer.error is not None:
            return answer
        return answer.model_copy(update={"value": damage(answer.value)})

    return bundle.with_answers(map(change, bundle.answers))


def found(bundle: Bundle) -> set[str]:
    """Return the checks that find something, except those about the capture itself."""
    findings = analyze(bundle).everything()
    return {one.check.name for one in findings if one.check.topic != "capture"}


def undecided(bundle: Bundle) -> set[str]:
    return {skip.check.name for skip in analyze(bundle).skips if not skip.legal}


def first_row(value: Any, instead: object) -> Any:
    return {**value, "rows": [instead, *value["rows"][1:]]} if value["rows"] else value


TABLES = (
    "instance_mappings WHERE",
    "request_specs WHERE",
    "instance_info_caches WHERE",
    "block_device_mapping WHERE",
    "instance_extra WHERE",
    "virtual_interfaces WHERE",
)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("instead", [{}, [], [{}]], ids=str)
def test_a_row_that_cannot_be_read_is_not_missing(table: str, instead: object) -> None:
    bundle = damaged(healthy(), "nova-db", table, lambda value: first_row(value, instead))

    assert found(bundle) == NOWHERE


def test_a_row_whose_owner_cannot_be_read_is_not_missing() -> None:
    def disown(value: Any) -> Any:
        owner = value["columns"].index("instance_uuid")
        return {**value, "rows": [[*row[:owner], {}, *row[owner + 1 :]] for row in value["rows"]]}

    for table in TABLES:
        assert found(damaged(healthy(), "nova-db", table, disown)) == NOWHERE


@pytest.mark.parametrize("field", ["device_id", "device_owner", "binding:host_id"])
def test_a_port_whose_owner_cannot_be_read_is_not_missing(field: str) -> None:
    def disown(value: Any) -> Any:
        return {**value, "ports": [port | {field: {}} for port in value["ports"]]}

    assert found(damaged(healthy(), "neutron", "GET /v2.0/ports?", disown)) == NOWHERE


def test_markers_alone_are_not_a_row() -> None:
    bundle = load(FAULTS / "db-flavor-drift.json.zst")
    whole = damaged(bundle, "nova-db", "SELECT id, uuid, host, node, vm_state", lambda _: [])

    assert "flavor-three-way-drift" in found(bundle)
    assert "flavor-three-way-drift" in undecided(whole)


@pytest.mark.parametrize(
    ("fault", "query", "check"),
    [
        ("disk-shared", "/fd", "disk-shared-by-two-qemu"),
        ("duplicate-qemu", "/cmdline", "duplicate-qemu-identity"),
    ],
)
def test_an_unreadable_process_may_be_the_second_one(fault: str, query: str, check: str) -> None:
    """If one process can't be read, the check has a finding or is undecided for each guest."""
    bundle = load(Path(FAULTS) / f"{fault}.json.zst")
    guests = {
        guest.uuid
        for one in analyze(bundle).everything()
        if one.check.name == check
        for guest in one.guests
    }
    numbers = [
        number
        for number, answer in enumerate(bundle.answers)
        if answer.layer == "kernel" and answer.query.endswith(query) and answer.error is None
    ]
    assert guests
    for number in numbers:
        answers = list(bundle.answers)
        answers[number] = answers[number].model_copy(update={"value": {}})
        report = analyze(bundle.with_answers(answers))
        still = {
            guest.uuid
            for one in report.everything()
            if one.check.name == check
            for guest in one.guests
        }
        still |= {
            skip.guest.uuid for skip in report.skips if skip.check.name == check and skip.guest
        }
        assert guests <= still


def test_a_domain_whose_disks_cannot_be_read_may_have_any_volume(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    host.set("libvirt", f"virsh dumpxml {name}", "<domain")

    skips = [one for one in host.report().skips if one.check.name == "volume-attached-twice"]
    assert host.uuid("vm-data") in {skip.guest.uuid for skip in skips if skip.guest}
