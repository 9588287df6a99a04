from __future__ import annotations

from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer
from hoodsnap.findings.gating import closed_by

ALIEN = "6d40e248-2a96-47cc-b535-4fae46854b60"


def _define(host: RecordedHost, source: str, *, more: str = "", metadata: str = "") -> None:
    """Define a domain `repair` by hand, which is off and has one disk."""
    listed = host.last("libvirt", "virsh list --all").value
    stopped = host.uuid("vm-stopped")
    [line] = [one for one in listed if one["uuid"] == stopped]
    host.set("libvirt", "virsh list --all", [*listed, line | {"uuid": ALIEN, "name": "repair"}])
    domain = host.domain("vm-stopped")

    def copied(answer: Answer) -> Answer:
        new = {"subject": ALIEN, "query": answer.query.replace(domain, "repair")}
        if "dumpxml" in answer.query:
            new["value"] = (
                f"<domain><name>repair</name><uuid>{ALIEN}</uuid>{metadata}"
                "<memory unit='MiB'>64</memory><vcpu>1</vcpu>"
                "<os><type machine='pc'>hvm</type></os><devices>"
                "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
                f"<source file='{source}'/><target dev='vda' bus='virtio'/>{more}</disk>"
                "</devices></domain>"
            )
        return answer.model_copy(update=new)

    of_stopped = [one for one in host.bundle.answers if one.layer == "libvirt"]
    for answer in [one for one in of_stopped if one.subject == stopped]:
        host.add(copied(answer))
    asked = [one for one in host.bundle.answers if "SELECT id, uuid, host" in one.query]
    for answer in asked:  # nova was asked for it as well and has no such row
        query = f"{answer.query.partition(' WHERE ')[0]} WHERE uuid IN ('{ALIEN}')"
        nothing = {"columns": answer.value["columns"], "rows": []}
        host.add(answer.model_copy(update={"query": query, "value": nothing}))


def test_alien_domain_has_servers_disk(host: RecordedHost) -> None:
    path = f"{host.folder('vm-resized')}/disk"
    _define(host, path)

    [finding] = host.report().findings
    assert (finding.severity.word, finding.check.name) == ("error", "alien-domain-has-servers-disk")
    assert finding.headline == (
        "repair, which nova does not know, names vm-resized's disk as its vda: "
        f"…/{host.uuid('vm-resized')[:8]}/disk; do not start it"
    )
    assert {one.check.name for one in finding.folded} == {
        "alien-domain",
        "persistent-xml-foreign-devices",
        "uuid-name-chain-broken",
    }
    assert changes(finding) == ["virsh undefine repair"]


def test_no_command_of_nova_is_advised_or_forbidden_for_a_domain_that_it_does_not_know(
    host: RecordedHost,
) -> None:
    _define(host, f"{host.folder('vm-resized')}/disk")

    everything = [*host.report().everything()]
    assert "persistent-xml-foreign-devices" in {one.check.name for one in everything}
    told = [line for one in everything for line in changes(one)]
    told += [item.danger.command for item in closed_by(everything)]
    assert "virsh start NAME" in told
    assert not [line for line in told if line.startswith("openstack server ")]


def test_a_copy_of_a_servers_definition_is_no_server_that_nova_lost(host: RecordedHost) -> None:
    xml = host.last("libvirt", f"virsh dumpxml --inactive {host.domain('vm-resized')}").value
    metadata = xml[xml.index("<metadata>") : xml.index("</metadata>") + len("</metadata>")]
    _define(host, f"{host.folder('vm-resized')}/disk", metadata=metadata)

    [finding] = host.report().findings
    assert finding.check.name == "alien-domain-has-servers-disk"
    assert "domain-without-server" in {one.check.name for one in finding.folded}


def test_an_alien_domain_may_share_a_disk_on_purpose(host: RecordedHost) -> None:
    _define(host, f"{host.folder('vm-resized')}/disk", more="<shareable/>")

    assert host.headlines() == [
        "repair on host vm is not managed by nova: shut off (destroyed), 64 MiB, 1 vCPU"
    ]


def test_an_alien_domain_with_a_disk_of_its_own_takes_none(host: RecordedHost) -> None:
    _define(host, "/var/lib/libvirt/images/repair.qcow2")

    assert "alien-domain-has-servers-disk" not in {
        one.check.name for one in host.report().everything()
    }


def test_a_domain_is_not_alien_as_long_as_nova_was_not_asked(host: RecordedHost) -> None:
    _define(host, f"{host.folder('vm-resized')}/disk")
    host.silence("nova-db")
    host.silence("nova")

    assert "alien-domain-has-servers-disk" not in {
        one.check.name for one in host.report().everything()
    }
