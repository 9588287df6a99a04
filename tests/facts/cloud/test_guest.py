"""The join: one UUID with the facts of every layer."""

from __future__ import annotations

import pytest
from tests.conftest import FAULTS, RecordedHost, healthy

from hoodsnap.bundle import Answer, Bundle, load, merge
from hoodsnap.facts.cloud.cloud import read
from hoodsnap.facts.cloud.guest import Guest

HERE = ("libvirt", "kernel", "images", "host", "qemu", "logs", "block", "network")


def _only(bundle: Bundle, *layers: str) -> Bundle:
    return bundle.with_answers(answer for answer in bundle.answers if answer.layer in layers)


def _as(name: str, bundle: Bundle) -> Bundle:
    """Return the bundle of the same host under another name."""

    def renamed(answer: Answer) -> Answer:
        update: dict[str, object] = {"host": name}
        if answer.query == "/etc/nova/nova.conf":
            value = answer.value
            update["value"] = {**value, "DEFAULT": {**value["DEFAULT"], "host": name}}
        return answer.model_copy(update=update)

    return bundle.with_answers(map(renamed, bundle.answers))


def _named(guests: tuple[Guest, ...], name: str) -> list[Guest]:
    return [guest for guest in guests if guest.name == name]


def test_every_layer_of_a_running_guest_is_joined(host: RecordedHost) -> None:
    [guest] = _named(read(host.bundle).guests, "vm-plain")

    assert guest.server and guest.instance and guest.domain and guest.process and guest.images
    assert guest.server.uuid == guest.instance.uuid == guest.domain.uuid == guest.process.uuid
    assert guest.allocation and guest.allocation.consumer == guest.uuid
    assert guest.domain.name == guest.process.name == guest.server.instance_name
    assert guest.images[0].path.endswith(f"/{guest.uuid}/disk")
    assert guest.is_here
    assert guest.unheard.keys() == {"qemu", "cgroup"}


def test_a_server_on_no_host_is_a_guest(host: RecordedHost) -> None:
    [guest] = _named(read(host.bundle).guests, "vm-shelved")

    assert guest.is_nowhere
    assert guest.domain is None
    assert {"libvirt", "kernel", "images"} <= guest.unheard.keys()


def test_a_deleted_server_without_leftovers_is_not_a_guest(host: RecordedHost) -> None:
    assert _named(read(host.bundle).guests, "vm-deleted") == []


def test_a_compute_node_without_nova_has_its_guests(host: RecordedHost) -> None:
    guests = read(_only(host.bundle, *HERE)).guests

    names = {guest.domain_name for guest in guests}
    assert host.domain("vm-plain") in names
    assert all({"nova", "nova-db"} <= guest.unheard.keys() for guest in guests)


def test_a_controller_without_a_hypervisor_has_its_servers(host: RecordedHost) -> None:
    guests = read(_only(host.bundle, "nova", "glance", "nova-db", "cinder")).guests

    [plain] = _named(guests, "vm-plain")
    assert (plain.host, plain.host_name) == (None, "vm")
    assert plain.unheard["libvirt"] == "host vm is in no bundle"


def test_a_controller_and_its_compute_node_are_joined(host: RecordedHost) -> None:
    apart = [
        _only(host.bundle, "nova", "glance", "nova-db", "placement", "cinder", "neutron"),
        _only(host.bundle, *HERE),
    ]

    joined, whole = read(merge(apart)), read(host.bundle)

    assert [guest.uuid for guest in joined.guests] == [guest.uuid for guest in whole.guests]
    assert [guest.unheard for guest in joined.guests] == [guest.unheard for guest in whole.guests]


def test_a_guest_on_two_hosts_is_two_guests(host: RecordedHost) -> None:
    cloud = read(merge([healthy(), _as("vm2", _only(healthy(), *HERE))]))

    first, second = _named(cloud.guests, "vm-plain")
    assert first.host and second.host
    assert {first.host.name, second.host.name} == {"vm", "vm2"}
    assert [guest.host.name for guest in (first, second) if guest.host and guest.is_here] == ["vm"]


def test_a_shared_instances_directory_makes_no_guests(host: RecordedHost) -> None:
    shared = _as("vm2", _only(healthy(), "images"))

    cloud = read(merge([healthy(), shared]))

    assert [guest for guest in cloud.guests if guest.host and guest.host.name == "vm2"] == []


def test_a_hosts_name_in_nova_comes_from_its_configuration(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), host="alias")
    host.server(host.uuid("vm-plain"), **{"OS-EXT-SRV-ATTR:host": "alias"})
    conf = host.last("host", "/etc/nova/nova.conf").value
    host.set(
        "host", "/etc/nova/nova.conf", {**conf, "DEFAULT": {**conf["DEFAULT"], "host": "alias"}}
    )

    [plain] = _named(read(host.bundle).guests, "vm-plain")
    [duo] = _named(read(host.bundle).guests, "vm-duo")

    assert plain.is_here
    assert not duo.is_here


def test_a_guests_process_is_the_one_that_holds_libvirts_pid_file() -> None:
    guests = read(load(FAULTS / "duplicate-qemu.json.zst")).guests
    (twice,) = (guest for guest in guests if len(guest.processes) > 1)

    assert twice.process is not None
    pid_file = f"/{twice.domain_name}.pid"
    assert any(file.path.endswith(pid_file) for file in twice.process.files)
    others = [process for process in twice.processes if process.pid != twice.process.pid]
    assert not any(file.path.endswith(pid_file) for other in others for file in other.files)


@pytest.mark.parametrize(("holders", "own"), [([7], 7), ([7, 8], 6), ([6, 7, 8], 6), ([], 6)])
def test_a_guests_process_is_the_first_if_the_pid_file_does_not_decide(
    host: RecordedHost, holders: list[int], own: int
) -> None:
    pid = host.pid("vm-plain")
    pid_file = f"/{host.domain('vm-plain')}.pid"
    of_plain = [it for it in host.bundle.by_layer["kernel"] if it.subject == str(pid)]
    listed = host.last("kernel", "ls -l /proc/*/exe")
    row = next(it for it in listed.value if it["pid"] == pid)
    others = [it for it in listed.value if it["pid"] != pid]
    host.drop(lambda answer: answer.subject != str(pid))
    host.set("kernel", listed.query, [*others, *({**row, "pid": copy} for copy in (6, 7, 8))])
    for copy in (6, 7, 8):
        for answer in of_plain:
            value = answer.value
            if answer.query.startswith("ls -lL ") and copy not in holders:
                value = [it for it in value if not it["path"].endswith(pid_file)]
            query = answer.query.replace(f"/proc/{pid}/", f"/proc/{copy}/")
            changed = {"query": query, "subject": str(copy), "value": value}
            host.add(answer.model_copy(update=changed))

    [plain] = _named(read(host.bundle).guests, "vm-plain")

    assert [process.pid for process in plain.processes] == [6, 7, 8]
    assert plain.process is not None and plain.process.pid == own
