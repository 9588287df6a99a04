"""Settings of the guests' network cards."""

from __future__ import annotations

from typing import Any

from tests.conftest import RecordedHost


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


LINK = "<link state='down'/>"
LIMIT = "<bandwidth><inbound average='128'/></bandwidth>"


def _edit(host: RecordedHost, name: str, more: str, *, inactive: bool = False) -> str:
    """Add elements to the first card of a domain; return the card's tap."""
    query = f"virsh dumpxml {'--inactive ' if inactive else ''}{host.domain(name)}"
    host.edit("libvirt", query, "</interface>", f"{more}</interface>")
    return f"tap{_port(host, name)['id'][:11]}"


def test_card_changed_by_hand(host: RecordedHost) -> None:
    tap = _edit(host, "vm-plain", LINK)

    assert host.findings() == [
        f"card-changed-by-hand of vm-plain: domain reports interfaces = {tap} link down;"
        f" domain reports inactive = {tap} link up"
    ]
    assert host.headlines() == [f"vm-plain's card {tap} is unplugged in libvirt (link state down)"]


def test_a_limit_that_the_definition_does_not_have(host: RecordedHost) -> None:
    tap = _edit(host, "vm-plain", LIMIT)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.headlines() == [
        f"vm-plain's card {tap} runs with inbound average 128, but is defined with no limit"
    ]


def test_a_limit_that_is_in_both_was_not_set_on_the_running_guest(host: RecordedHost) -> None:
    _edit(host, "vm-plain", LIMIT)
    _edit(host, "vm-plain", LIMIT, inactive=True)

    # Nor was it sold, which is another finding.
    assert [found.check.name for found in host.report().findings] == ["limits-not-as-sold"]


def test_card_model_mismatch(host: RecordedHost) -> None:
    tap = _edit(host, "vm-plain", "")
    _model(host, "vm-plain", "e1000")

    assert host.headlines() == [f"vm-plain's card {tap} is a virtio, but its image asks for e1000"]


def test_the_model_that_the_image_asks_for(host: RecordedHost) -> None:
    _model(host, "vm-plain", "virtio")

    assert host.findings() == []


def _model(host: RecordedHost, name: str, model: str) -> None:
    """Set the property hw_vif_model of the image in nova's copy."""
    uuid, found = host.uuid(name), False
    for answer in host.bundle.by_layer["nova-db"]:
        if "instance_system_metadata" not in answer.query or not isinstance(answer.value, dict):
            continue
        rows = [
            dict(zip(answer.value["columns"], row, strict=True)) for row in answer.value["rows"]
        ]
        like = next((row for row in rows if row.get("instance_uuid") == uuid), None)
        if like is not None and not found:
            found = True
            row = {**like, "key": "image_hw_vif_model", "value": model}
            added = [row[column] for column in answer.value["columns"]]
            host.set(
                "nova-db", answer.query, {**answer.value, "rows": [*answer.value["rows"], added]}
            )
    assert found


def _plugged(host: RecordedHost, name: str, port: str, *, inactive: bool = False) -> str:
    """Let libvirt plug the card, as nova did up to Wallaby."""
    parameters = f"<parameters interfaceid='{port}'/>"
    return _edit(
        host, name, f"<virtualport type='openvswitch'>{parameters}</virtualport>", inactive=inactive
    )


def test_card_names_another_port(host: RecordedHost) -> None:
    port, other = _port(host, "vm-plain"), _port(host, "vm-duo")["id"]
    tap = _plugged(host, "vm-plain", other)
    _plugged(host, "vm-plain", port["id"], inactive=True)

    assert host.findings() == [
        f"card-names-another-port of vm-plain: domain reports interfaces = {tap} {other};"
        f" port reports id = {port['id']}, mac = {port['mac_address']}"
    ]
    assert host.headlines() == [
        f"vm-plain runs with card {tap} of port {other[:8]}, its port is {port['id'][:11]}"
    ]


def test_the_definition_names_another_port(host: RecordedHost) -> None:
    _plugged(host, "vm-plain", _port(host, "vm-plain")["id"])
    _plugged(host, "vm-plain", _port(host, "vm-duo")["id"], inactive=True)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("card-names-another-port", "warning")


def test_a_card_that_names_its_own_port(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")["id"]
    _plugged(host, "vm-plain", port.upper())
    _plugged(host, "vm-plain", port, inactive=True)

    assert host.findings() == []


def test_the_definition_has_another_ports_device(host: RecordedHost) -> None:
    tap, other = (f"tap{_port(host, name)['id'][:11]}" for name in ("vm-plain", "vm-duo"))
    host.edit("libvirt", f"virsh dumpxml --inactive {host.domain('vm-plain')}", tap, other)

    assert host.headlines() == [
        f"vm-plain is defined with card {other} of another port's device, its port is {tap[3:]}"
    ]
