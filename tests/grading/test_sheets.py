"""The sheets that come with hoodsnap: a healthy cloud passes, a broken one does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product

import pytest
from tests.conftest import FAULTS, RecordedHost, healthy, sample

from hoodsnap.bundle import dump, load
from hoodsnap.grading import sheet
from hoodsnap.grading.classroom import grade_submission
from hoodsnap.grading.result import Grade, Status, points, worth
from hoodsnap.grading.submissions import Submission


def graded(lab: str, bundle: bytes, answers: object, server: str | None = None) -> Grade:
    handed_in = Submission("ann", (("ann.json", bundle),), json.dumps(answers).encode())
    return grade_submission(sheet.load(lab), handed_in, server)[0]


def answers(host: RecordedHost) -> Mapping[str, tuple[str, object]]:
    """Return the answers that a student finds by hand, in recorded answers instead of facts."""
    data, snap = host.uuid("vm-data"), host.uuid("vm-snap")
    listed = host.last("libvirt", "virsh list --all").value
    [line] = [one for one in listed if one["uuid"] == data]
    top = "/var/lib/nova/instances"
    disk = f"{top}/{data}/disk"

    def based(uuid: str) -> str:
        [*_, info] = [
            answer.value
            for answer in host.bundle.asked("images", "qemu-img info")
            if answer.subject == f"{top}/{uuid}/disk" and isinstance(answer.value, list)
        ]
        return str(info[-1]["filename"])

    def image(uuid: str) -> str:
        shown = [
            server
            for answer in host.bundle.asked("nova", "GET /v2.1/servers/detail")
            for server in answer.value["servers"]
            if server["id"] == uuid
        ]
        return str(shown[0]["image"]["id"])

    volume, attachment = host.volume("vm-data")
    [port] = host.ports("vm-data")
    [other] = host.ports("vm-snap")
    mac = port["mac_address"]
    tap = f"tap{port['id'][:11]}"
    [link] = [row for row in host.last("network", "ip -d -j link").value if row["ifname"] == tap]
    mounted = [
        answer.subject
        for answer in host.bundle.asked("images", "qemu-img info")
        if answer.subject and answer.subject.endswith(f"volume-{volume}")
    ]
    tag = _tag(host, f"tap{other['id'][:11]}")
    return {
        "compute": (
            "vm-data",
            {
                "running": {"id": data.upper()},
                "process": {"pid": host.pid("vm-data"), "memory": "64", "vcpus": 1},
                "domain": {"name": line["name"], "mac": mac.upper()},
                "files": {
                    "disk": disk,
                    "format": "QCOW2",
                    "base": based(data),
                    "image": image(data),
                },
                "database": {
                    "row": str(int(line["name"].removeprefix("instance-"), 16)),
                    "host": host.last("libvirt", "virsh list --all").host,
                },
            },
        ),
        "volumes": (
            "vm-data",
            {
                "volume": {"id": volume, "size": "1"},
                "attachment": {"id": attachment},
                "disk": {"target": "/dev/vdb", "source": mounted[0]},
                "open": {"bus": "virtio"},
            },
        ),
        "networking": (
            "vm-data",
            {
                "port": {
                    "id": port["id"],
                    "addresses": [ip["ip_address"] for ip in port["fixed_ips"]],
                },
                "card": {"mac": mac},
                "tap": {"name": tap, "mtu": link["mtu"]},
                "bridge": {"name": "br-int", "iface": port["id"]},
            },
        ),
        "break-base-moved": (
            "vm-snap",
            {"chain": {"base": based(snap).rpartition("/")[2], "image": image(snap)}},
        ),
        "break-attachment-deleted": (
            "vm-data",
            {"cinder": {"volume": volume, "attachment": attachment}},
        ),
        "break-port-disabled": (
            "vm-snap",
            {"port": {"port": other["id"]}, "wired": {"tag": tag}},
        ),
    }


def _tag(host: RecordedHost, tap: str) -> int:
    [table] = [
        answer.value
        for answer in host.bundle.asked("network", "")
        if answer.query.endswith(" list Port")
    ]
    name, tag = table["headings"].index("name"), table["headings"].index("tag")
    [found] = [row[tag] for row in table["data"] if row[name] == tap]
    assert isinstance(found, int)
    return found


def test_every_sheet_is_tested_here(host: RecordedHost) -> None:
    assert set(answers(host)) == set(sheet.shipped())


@pytest.mark.parametrize("lab", sheet.shipped())
def test_a_healthy_cloud_and_right_answers_have_all_points(host: RecordedHost, lab: str) -> None:
    server, written = answers(host)[lab]

    found = graded(lab, dump(healthy()), written, server)

    assert [(one.id, one.found) for one in found.results if one.status is not Status.RIGHT] == []
    assert points(found.results) == worth(found.results) > 0
    assert found.remarks == ()


@pytest.mark.parametrize("lab", sheet.shipped())
def test_every_question_of_a_sheet_can_be_answered_wrongly(host: RecordedHost, lab: str) -> None:
    server, written = answers(host)[lab]
    assert isinstance(written, dict)
    wrong = {task: dict.fromkeys(given, "nonsense") for task, given in written.items()}

    found = graded(lab, dump(healthy()), wrong, server)

    asked = [one for one in found.results if "." in one.id]
    assert asked
    assert {one.status for one in asked} == {Status.WRONG}


@pytest.mark.parametrize(
    ("lab", "fault", "failed"),
    [
        ("break-base-moved", "base-moved", ["chain", "same"]),
        ("break-attachment-deleted", "attachment-deleted", ["cinder", "nova"]),
        ("break-port-disabled", "port-disabled", ["port", "wired"]),
    ],
)
def test_the_fault_of_a_break_fix_lab_does_not_pass(
    lab: str, fault: str, failed: list[str]
) -> None:
    found = graded(lab, dump(load(FAULTS / f"{fault}.json.zst")), {})

    done = [one for one in found.results if "." not in one.id]
    assert [one.id for one in done if one.status is not Status.RIGHT] == failed
    assert Status.UNGRADED not in {one.status for one in done}


LAYERS = ("nova", "nova-db", "libvirt", "kernel", "images", "neutron", "cinder", "network")


@pytest.mark.parametrize(("lab", "layer"), sample([*product(sheet.shipped(), LAYERS)], 24))
def test_a_silent_layer_costs_no_points(host: RecordedHost, lab: str, layer: str) -> None:
    """A task that passed does not fail without a layer: it still passes, waits or is ungraded."""
    server, written = answers(host)[lab]
    host.silence(layer)

    found = graded(lab, dump(host.bundle), written, server)

    lost = [one.id for one in found.results if one.status in (Status.WRONG, Status.PARTLY)]
    assert lost == []


@pytest.mark.parametrize("lab", sheet.shipped())
def test_every_task_and_question_has_a_hint(lab: str) -> None:
    for task in sheet.load(lab).tasks:
        assert task.hint or task.hidden, task.id
        assert [one.id for one in task.questions if not one.hint] == []
