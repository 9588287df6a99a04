"""The config drive: nova's record, the domain's definition, and the running guest."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, changes

DEFINITIONS = ("virsh dumpxml {}", "virsh dumpxml --inactive {}")


def _xml(host: RecordedHost, query: str, old: str, new: str) -> None:
    host.edit("libvirt", query.format(host.domain("vm-config")), old, new)


def test_config_drive_differs(host: RecordedHost) -> None:
    uuid = host.uuid("vm-config")
    host.row("instances", uuid, config_drive="")
    host.server(uuid, config_drive="")

    assert host.headlines() == [
        f"vm-config has no config drive in nova's record, but its domain has …/{uuid[:8]}/disk.config"
    ]
    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert changes(finding) == [
        f"UPDATE nova.instances SET config_drive = 'True' WHERE uuid = '{uuid}' AND deleted = 0"
    ]


def test_an_image_may_demand_a_config_drive(host: RecordedHost) -> None:
    uuid = host.uuid("vm-config")
    host.row("instances", uuid, config_drive="")
    host.server(uuid, config_drive="")
    host.cells("instance_system_metadata", uuid, key="image_img_config_drive", value="mandatory")

    assert "config-drive-differs" not in "".join(host.findings())


def test_config_drive_differs_if_only_nova_has_it(host: RecordedHost) -> None:
    uuid = host.uuid("vm-config")
    for query in DEFINITIONS:
        _xml(host, query, f"{uuid}/disk.config'", f"{uuid}/disk.eph7'")

    finding = host.found("config-drive-differs")
    assert finding.headline == (
        "vm-config has a config drive in nova's record, but its domain has none"
    )
    assert changes(finding) == [f"openstack server {verb} {uuid}" for verb in ("stop", "start")]


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        ("<target dev='hda' bus='ide'/>", "<target dev='hda' bus='ide' tray='open'/>", "has an open tray"),
        ("<source file='{}' index='1'/>", "<source index='8'/>", "was ejected"),
    ],
)  # fmt: skip
def test_config_drive_differs_if_it_was_ejected(
    host: RecordedHost, old: str, new: str, how: str
) -> None:
    uuid = host.uuid("vm-config")
    path = f"{host.top}/{uuid}/disk.config"
    _xml(host, DEFINITIONS[0], old.format(path), new)

    assert host.headlines() == [f"vm-config's config drive hda {how}"]
    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("config-drive-differs", "note")
    domain = host.domain("vm-config")
    assert changes(finding) == [
        f"virsh change-media {domain} hda --eject --live --force",
        f"virsh change-media {domain} hda {path} --insert --live",
    ]


def test_a_server_in_rescue_has_another_config_drive(host: RecordedHost) -> None:
    uuid = host.uuid("vm-rescued")
    host.row("instances", uuid, config_drive="True")
    host.server(uuid, config_drive="True")

    assert "config-drive-differs" not in "".join(host.findings())
