from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer

PORT = "5f765b2e-6b7d-4bf7-a703-85bd40b36efe"
LONG_AGO = "2020-01-01T00:00:00Z"


def _create(host: RecordedHost, guest: str, **fields: object) -> None:
    """Create a port that names a guest, as `openstack port create --device UUID` does."""
    [own, *_] = host.ports(guest)
    new = own | {
        "id": PORT,
        "name": "heat-port",
        "mac_address": "fa:16:3e:39:40:cf",
        "fixed_ips": [own["fixed_ips"][0] | {"ip_address": "10.20.0.197"}],
        "status": "DOWN",
        "binding:host_id": "",
        "binding:vif_type": "unbound",
        "binding:vif_details": {},
        "created_at": LONG_AGO,
        "updated_at": LONG_AGO,
        **{key.replace("__", ":"): value for key, value in fields.items()},
    }

    def added(answer: Answer) -> Answer:
        value: Any = answer.value
        if answer.layer != "neutron" or answer.error or "/ports" not in answer.query:
            return answer
        ports = value.get("ports") if isinstance(value, dict) else None
        if not ports or own["id"] not in {port["id"] for port in ports}:
            return answer
        return answer.model_copy(update={"value": value | {"ports": [*ports, new]}})

    host.bundle = host.bundle.with_answers(map(added, host.bundle.answers))


@pytest.mark.parametrize("guest", ["vm-plain", "vm-stopped"])
def test_port_never_attached(host: RecordedHost, guest: str) -> None:
    _create(host, guest)

    # The DHCP server has no entry for a port that was added to the recording.
    found = [it for it in host.report().findings if it.check.name != "dhcp-entry-missing"]
    [finding] = found
    assert (finding.severity.word, finding.check.name) == ("warning", "port-never-attached")
    assert finding.headline == (
        f"{guest}'s port 5f765b2e (10.20.0.197) was never attached: it is bound to no host, and "
        "the guest has no card for it"
    )
    assert changes(finding)[-2:] == [
        f"openstack server add port {host.uuid(guest)} {PORT}",
        f"openstack port delete {PORT}",
    ]


def test_a_port_that_nova_attaches_at_the_moment_is_not_bound_yet(host: RecordedHost) -> None:
    now = host.last("neutron", "GET /v2.0/ports?limit=1000").at.strftime("%Y-%m-%dT%H:%M:%SZ")
    _create(host, "vm-plain", name="", updated_at=now)

    assert "port-never-attached" not in {one.check.name for one in host.report().everything()}


def test_a_port_whose_card_the_guest_has_was_attached(host: RecordedHost) -> None:
    [own, *_] = host.ports("vm-plain")
    host.port(own["id"], binding__host_id="", binding__vif_type="unbound")

    assert "port-binding-bad" in {one.check.name for one in host.report().everything()}
    assert "port-never-attached" not in {one.check.name for one in host.report().everything()}


def test_a_port_that_is_bound_was_attached(host: RecordedHost) -> None:
    _create(host, "vm-plain", binding__host_id="vm", binding__vif_type="ovs")

    assert "port-never-attached" not in {one.check.name for one in host.report().everything()}


def test_a_port_may_be_attached_if_nova_was_not_asked(host: RecordedHost) -> None:
    _create(host, "vm-plain")
    host.silence("nova-db")

    assert "port-never-attached" not in {one.check.name for one in host.report().everything()}
