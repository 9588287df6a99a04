"""Real faults, recorded while they existed: the findings that must follow, and no others."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache

import pytest
from tests.checks.test_catalog import forbidden_commands, parts_of
from tests.conftest import FAULTS, ROOT
from tests.live import remedies
from tests.live.remedies import Trial

from hoodsnap.bundle import load
from hoodsnap.check import COMMANDS
from hoodsnap.checks import CATALOG
from hoodsnap.findings.advice import (
    PLACEHOLDERS,
    READ_ONLY,
    Command,
    instructions,
    of_guest,
)
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.finding import Finding

FOUND = {
    "qemu-kill9": ["error active-but-domain-off of vm-plain"],
    "virsh-destroy": ["error active-but-domain-off of vm-plain"],
    "cpu-quota-by-hand": ["warning cpu-quota-not-applied of vm-duo"],
    "cgroup-left-over": ["note control-group-leftover of "],
    "duplicate-qemu": ["error duplicate-qemu-identity of vm-snap"],
    "disk-shared": [
        "error disk-shared-by-two-qemu of lab-second-writer",
        "error disk-shared-by-two-qemu of vm-duo",
    ],
    "qemu-without-domain": ["error qemu-without-domain of vm-tenant"],
    "undefine-stopped": ["note server-without-domain of vm-stopped"],
    "domain-gone": ["error server-without-domain of vm-tenant"],
    "domain-without-qemu": ["error domain-without-qemu of vm-snap"],
    "start-behind": ["error stopped-but-domain-on of vm-stopped"],
    "orphan-domain": ["error domain-without-server of instance-0000beef"],
    "base-moved": [
        "error disk-deleted-but-open of vm-snap",
    ],
    # Three of these recordings also contain QEMUs of a test suite; new recordings must not.
    "disk-deleted": [
        "error disk-deleted-but-open of vm-tenant",
    ],
    "base-replaced": ["error base-replaced-or-truncated of vm-snap"],
    "overlay-rebased": ["error chain-qmp-vs-ondisk of vm-tenant"],
    "backing-outside": ["error image-unsafe-reference of vm-stopped"],
    "disk-corrupt-bit": ["error qcow2-corrupt-bit of vm-stopped"],
    "instances-hidden": ["error instances-path-not-mounted of "],
    "disk-grown": ["warning disk-size-vs-flavor of vm-stopped"],
    "resize-copy-gone": ["error resize-source-copy-missing of "],
    "leftover-resize": ["warning orphan-instance-dir of vm-resized"],
    "definition-other-disk": ["error chain-live-vs-persistent of vm-duo"],
    "definition-foreign-disk": [
        "error persistent-xml-foreign-devices of vm-stopped",
        "error uuid-name-chain-broken of vm-stopped",
    ],
    "saved-behind": ["warning managed-save-mismatch of vm-config"],
    "attach-unknown-disk": [
        "warning chain-live-vs-persistent of vm-data",
        "warning guest-volume-not-in-bdm of vm-data",
    ],
    "disk-info-wrong": ["error disk-format-mismatch of vm-stopped"],
    "leftover-dir": ["warning orphan-instance-dir of "],
    "volume-file-gone": ["error disk-deleted-but-open of vm-bfv"],
    # nova keeps base images only for the servers that it has on this host.
    "db-host": [
        "error domain-running-on-wrong-host of vm-config",
        "warning base-image-reapable of ",
        "warning base-image-reapable of ",
    ],
    "dir-missing": ["error server-without-disk of vm-stopped"],
    "disk-missing": ["error server-without-disk of vm-stopped"],
    "base-committed": ["error guest-writes-into-base of "],
    "disk-emptied": ["error disk-empty of vm-stopped"],
    "disk-served": ["warning disk-locked-by-another of vm-stopped"],
    "base-written": ["error guest-writes-into-base of "],
    "share-unmounted": ["error share-not-mounted of "],
    "share-covered": ["error share-not-mounted of "],
    "disk-flocked": ["warning disk-locked-by-another of vm-plain"],
    "io-error": ["error io-error-paused of vm-duo"],
    "db-soft-deleted": [
        "error domain-of-deleted-server of vm-snap",
        "warning base-image-reapable of ",
        "note instance-mapping-skew of vm-snap",
    ],
    "db-row-gone": ["error domain-without-server of instance-0000000d"],
    "db-vm-state-stopped": ["error stopped-but-domain-on of vm-config"],
    "db-task-state": ["error stuck-task-state of vm-paused"],
    "memory-live": ["error memory-chain-mismatch of vm-snap"],
    "vcpus-live": ["error vcpu-chain-mismatch of vm-duo"],
    "db-flavor-drift": ["warning flavor-three-way-drift of vm-config"],
    "db-migration-stuck": ["warning migration-record-stale of vm-bfv"],
    "db-request-spec": ["warning request-spec-skew of vm-bfv"],
    "placement-lost": ["error allocation-missing of vm-tenant"],
    "placement-orphan": ["warning allocation-orphan of "],
    "compute-disabled": ["note service-state-skew of "],
    "libvirt-lost": ["warning libvirt-not-running of "],
    "compute-down": ["warning nova-compute-not-running of "],
    "compute-frozen": ["warning nova-compute-frozen of "],
    "conductor-down": ["warning nova-controller-not-running of "],
    "conf-listen": ["warning nova-conf-wrong of ", "note nova-conf-not-applied of "],
    "conf-address": ["warning nova-conf-wrong of "],
    "dhcp-agent-down": ["warning network-agent-not-running of "],
    "qemu-traced": ["error qemu-monitor-dead of vm-tenant"],
    "qemu-dumping-core": ["error qemu-crashed of vm-snap"],
    "log-not-writable": ["warning nova-log-not-writable of "],
    "conf-closed": ["warning nova-conf-unusable of "],
    "conf-broken-line": ["warning nova-conf-unusable of "],
    "conf-virt-type": ["note nova-conf-not-applied of "],
    "queue-frozen": ["warning services-silent-together of "],
    "definition-file-edited": ["warning definition-file-differs of vm-stopped"],
    "definition-file-gone": ["warning definition-file-differs of vm-stopped"],
    "definition-file-left": ["warning definition-file-left of "],
    "qemu-stopped": ["error qemu-monitor-dead of vm-tenant"],
    "virsh-suspend": ["error paused-or-crashed-guest of vm-duo"],
    "undefine-running": ["error domain-transient of vm-tenant"],
    "external-snapshot": ["error snapshot-or-blockjob-residue of vm-snap"],
    "internal-snapshot": ["warning snapshot-or-blockjob-residue of vm-duo"],
    "db-power-state": ["warning power-state-stale of vm-config"],
    "db-vm-state-error": ["warning error-but-running of vm-data"],
    "autostart": ["warning guest-autostart-enabled of vm-plain"],
    "memory-config": ["warning live-vs-persistent-drift of vm-duo"],
    "vcpus-config": ["warning live-vs-persistent-drift of vm-duo"],
    "disk-closed": ["error file-owner-or-label-wrong of vm-stopped"],
    "folder-closed": ["error file-owner-or-label-wrong of vm-stopped"],
    "console-log-huge": ["warning console-log-problem of vm-plain"],
    "console-log-gone": ["warning console-log-problem of vm-duo"],
    "renamed": ["note xml-metadata-stale of vm-renamed"],
    "machine-config": ["warning machine-or-cpu-drift of vm-duo"],
    "flavor-remade": ["note flavor-three-way-drift of vm-duo"],
    "console-exposed": ["warning vnc-port-conflict-or-exposed of vm-snap"],
    "alien-domain-disk": ["error alien-domain-has-servers-disk of resized-repair"],
    "rogue-domain": ["note alien-domain of rogue-vm"],
    "db-bdm-missing": ["error guest-volume-not-in-bdm of vm-data"],
    "db-bdm-stale": ["error bdm-attachment-or-volume-missing of vm-plain"],
    "db-bdm-twice": ["error bdm-record-bad of vm-data"],
    "attachment-deleted": ["error volume-free-in-cinder-but-open of vm-data"],
    "volume-reset": ["error volume-free-in-cinder-but-open of vm-data"],
    "attachment-host": ["warning attachment-host-mismatch of vm-data"],
    # vm-plain is the second server that cinder has attached the volume to.
    "attachment-twice": [
        "error cinder-attachment-without-bdm of vm-plain",
        "error volume-attached-twice of vm-data",
        "error volume-attached-twice of vm-plain",
    ],
    "volume-detaching": ["warning volume-stuck of vm-data"],
    "attachment-attaching": ["warning attachment-stuck of vm-data"],
    "db-connection-mode": ["warning volume-record-differs of vm-data"],
    "cache-config": ["note disk-cache-mode-differs of "],
    "shelve-image-gone": ["error shelve-image-unusable of vm-shelved"],
    "backend-renamed": ["warning volume-backend-down of "],
    "db-image-card": ["warning card-model-mismatch of vm-duo"],
    "image-deactivated": ["note image-not-usable of vm-snap"],
    "image-replaced": ["warning image-record-differs of vm-snap"],
    "volume-extend-failed": ["warning volume-stuck of vm-bfv"],
    "volume-multiattach": ["warning volume-disk-differs of vm-data"],
    "db-mapping-missing": ["error instance-mapping-skew of vm-data"],
    "db-mapping-no-cell": ["error instance-mapping-skew of vm-config"],
    "db-mapping-queued": ["warning instance-mapping-skew of vm-tenant"],
    "db-two-cells": ["error instance-in-two-cells of vm-snap"],
    "db-node": ["error active-without-host of vm-config"],
    "group-broken": ["warning server-group-broken of "],
    "zone-moved": [
        "warning availability-zone-differs of ",
        "warning placement-aggregates-differ of ",
    ],
    "db-hidden": ["error instance-hidden of vm-snap"],
    "db-image-properties": ["warning image-properties-lost of vm-config"],
    "db-launched-on": ["note launch-host-unknown of vm-duo"],
    "db-mapping-building": ["error instance-mapping-skew of vm-config"],
    "db-mapping-owner": ["warning owner-copies-differ of vm-duo"],
    "db-migration-of-nobody": ["note row-without-instance of "],
    "db-request-specs-swapped": [
        "warning row-of-another-instance of vm-duo",
        "warning row-of-another-instance of vm-plain",
    ],
    "db-vm-state-rescued": ["warning rescue-residue of vm-plain"],
    "db-image-ref": ["error image-reference-changed of vm-plain"],
    "db-device-name": ["warning volume-record-differs of vm-data"],
    "db-disable-terminate": ["note deletion-disabled of vm-tenant"],
    "machine-unsupported": ["error machine-or-cpu-drift of vm-duo"],
    "second-nova-compute": ["warning nova-compute-twice of "],
    "snapshot-left": ["note snapshot-folder-left of "],
    "node-pinned-cpus": ["warning pinned-cpus-differ of "],
    "pci-device-left": ["warning pci-device-of-deleted-server of "],
    "provider-renamed": ["error provider-vs-compute-node of "],
    "node-uuid-changed": ["error provider-vs-compute-node of "],
    "rescue-xml-gone": ["error rescue-residue of vm-rescued"],
    "config-drive-ejected": ["note config-drive-differs of vm-config"],
    "db-config-drive": ["warning config-drive-differs of vm-config"],
    "db-root-bdm-gone": ["warning root-bdm-broken of vm-plain"],
    "db-shelve-image": ["error shelve-image-unusable of vm-shelved"],
    "block-copy": ["warning snapshot-or-blockjob-residue of vm-snap"],
    "shelved-defined": ["warning shelved-or-soft-deleted-residue of vm-shelved"],
    "tap-renamed": ["error tap-missing-or-miswired of vm-plain"],
    "tap-deleted": ["error tap-missing-or-miswired of vm-data"],
    "ovs-agent-down": ["warning network-agent-not-running of "],
    "port-deleted": ["error port-guest-mismatch of vm-resized"],
    "port-owner-lost": ["warning port-owner-lost of vm-tenant"],
    "port-never-attached": ["warning port-never-attached of vm-plain"],
    "port-disabled": ["warning port-binding-bad of vm-snap"],
    "domain-renamed": ["warning domain-renamed of vm-stopped"],
    "checkpoint-left": ["warning backup-checkpoint-left of vm-duo"],
    "saved-memory-lost": ["error saved-memory-missing of vm-suspended"],
    "cpu-throttled-config": ["note limits-not-as-sold of vm-config"],
    "balloon-config": ["warning live-vs-persistent-drift of vm-data"],
    "cpu-mode-config": [
        "note live-vs-persistent-drift of vm-snap",
        "note live-vs-persistent-drift of vm-snap",
    ],
    "disk-throttled": ["warning limits-not-as-sold of vm-snap"],
    "instances-path-changed": ["error disks-outside-instances-path of "],
    "owner-config": ["warning xml-metadata-stale of vm-tenant"],
    "settings-config": ["note live-vs-persistent-drift of vm-plain"],
    "reboot-ends-guest": ["warning definition-not-novas of vm-tenant"],
    "rescue-disc-left": ["note definition-not-novas of vm-stopped"],
    "fip-rules-gone": ["error floating-ip-not-translated of vm-plain"],
    "dhcp-entry-gone": ["warning dhcp-entry-missing of vm-plain"],
    "flows-gone": ["error port-without-flows of vm-plain"],
    "link-down": ["error card-changed-by-hand of vm-plain"],
    "ports-leaked": ["warning port-of-no-server of "],
    "stale-ovs-rows": ["warning tap-orphan of "],
    "router-port-down": ["error network-namespace-wrong of "],
    "router-route-gone": ["error namespace-route-wrong of "],
    "flow-table-gone": ["error port-without-flows of vm-data"],
    "iface-id-gone": ["error tap-missing-or-miswired of vm-plain"],
    "fip-address-gone": ["error floating-ip-not-translated of vm-linux"],
    "tap-down": ["error tap-missing-or-miswired of vm-plain"],
    "db-cache-floating": ["warning info-cache-outdated of vm-plain"],
    "db-floating-fixed": ["warning neutron-records-disagree of "],
    "db-info-cache": ["error info-cache-lost of vm-config"],
    # Servers in error, guests that are off while nova ignores it, tasks that are over.
    "error-and-off": ["warning server-in-error of vm-snap"],
    "error-reboot-failed": ["warning server-in-error of vm-data"],
    "evacuated-allocation": ["note evacuated-allocation-left of vm-config"],
    "action-over-task": ["error stuck-task-state of vm-snap"],
    "error-paused": ["error paused-or-crashed-guest of vm-duo"],
    "migration-failed-task": ["error stuck-task-state of vm-config"],
    "resized-destroyed": ["error rescued-or-resized-but-off of vm-verify"],
    "rescued-killed": ["error rescued-or-resized-but-off of vm-rescued"],
    "deletion-half-done": ["error partial-deletion of vm-tenant"],
    "guests-killed": [
        "error guests-ended-at-once of ",
        "warning nova-compute-frozen of ",
    ],
    "db-extra-gone": ["error instance-extra-missing of vm-duo"],
    "tap-mtu": ["warning mtu-mismatch of vm-plain"],
    "tap-shaped": ["warning traffic-limited-by-hand of vm-plain"],
    "tap-policed": ["warning traffic-limited-by-hand of vm-snap"],
    "binding-left": ["warning port-binding-left of vm-data"],
    "patch-port-gone": ["error agent-bridge-missing of "],
    "patch-peer-wrong": ["error switch-interface-faulty of "],
    "switch-port-twice": ["error switch-port-twice of "],
    "switch-vlan": ["error switch-vlan-differs of "],
    "address-twice": ["error address-used-twice of "],
    "error-no-domain": ["warning server-in-error of vm-tenant"],
    "record-behind": ["error live-migration-half-done of vm-plain"],
    "db-resize-record": ["error migration-record-stale of vm-verify"],
    "request-forced": ["note request-spec-skew of vm-resized"],
    "qemu-user-changed": ["warning qemu-runs-as-another-user of "],
    "threads-pinned": ["warning threads-pinned-by-hand of vm-config"],
    "disk-borrowed": ["error disk-of-another-server of vm-plain"],
    "saved-and-noticed": ["warning managed-save-mismatch of vm-duo"],
    "stopped-rebased": ["warning backing-not-image-ref of vm-stopped"],
    "base-cut": ["error base-replaced-or-truncated of vm-snap"],
    "locks-closed": ["warning nova-folder-not-writable of "],
    "db-image-bus": ["warning image-record-differs of vm-stopped"],
    "trait-left": ["warning disabled-trait-left of "],
    "aggregate-lost": ["warning placement-aggregates-differ of "],
    "service-clock-ahead": ["error service-report-in-future of "],
    "cinder-volume-down": ["warning volume-backend-down of "],
    "foreign-rule-port": ["error foreign-rule-drops-packets of "],
    "router-forwarding-off": ["error router-forwarding-off of "],
    "router-metadata-gone": ["warning router-rule-missing of "],
    "router-snat-gone": ["error router-rule-missing of "],
    # The kernel drops the routes of a device that is switched off; switching it on restores none.
    "dhcp-port-down": [
        "error network-namespace-wrong of ",
        "warning namespace-route-wrong of ",
    ],
    "fip-without-router": ["error floating-ip-not-served of vm-linux"],
    "memory-held-back": ["warning memory-held-back of vm-snap"],
    "disk-access-limited": ["warning disk-access-limited of vm-data"],
    "tap-dead-vlan": ["error tap-missing-or-miswired of vm-linux"],
    "fip-on-host": ["error address-used-twice of "],
    "security-rule-gone": ["error security-group-not-enforced of vm-plain"],
    "port-build": ["warning port-binding-bad of vm-plain"],
    "port-status-down": ["warning port-binding-bad of vm-tenant"],
    "bridge-standalone": ["warning bridge-not-secure of "],
    "bridge-controller-gone": ["error bridge-without-controller of "],
    "bridge-mirrored": ["warning packets-mirrored of "],
    "port-address-lost": ["error port-address-lost of vm-data"],
    "card-by-hand": ["error port-guest-mismatch of vm-linux"],
    "router-not-hosted": ["error router-not-hosted of "],
    "dhcp-server-gone": ["error dhcp-server-silent of "],
    "backup-forgotten": [
        "warning port-opened-in-qemu of vm-snap",
        "note snapshot-or-blockjob-residue of vm-snap",
    ],
    "group-frozen": ["error qemu-monitor-dead of vm-linux"],
    "volume-migrating": ["warning volume-stuck of vm-data"],
    "save-cut": ["error saved-memory-damaged of vm-suspended"],
    "save-emptied": ["error saved-memory-damaged of vm-suspended"],
    "save-overwritten": ["error saved-memory-damaged of vm-suspended"],
    "disk-immutable": ["error guest-file-immutable of vm-stopped"],
    "folder-immutable": ["error guest-file-immutable of vm-stopped"],
    "start-immutable": ["error guest-file-immutable of vm-stopped"],
    "router-mtu": ["warning router-device-mtu-differs of "],
    "aio-used-up": ["warning asynchronous-io-used-up of "],
    "old-compute-record": ["warning compute-record-too-old of "],
    "snapshot-stuck": ["warning snapshot-image-stuck of vm-plain"],
    "share-read-only": ["error mount-read-only of "],
    "locks-immutable": ["warning nova-file-immutable of "],
    "base-immutable": ["note nova-file-immutable of "],
    "disk-append-only": ["warning guest-file-immutable of vm-snap"],
    "save-memory-cut": ["error saved-memory-damaged of vm-suspended"],
    "compute-record-left": ["note service-record-left of "],
    "soft-deleted-forever": ["note shelved-or-soft-deleted-residue of vm-stopped"],
    "files-limit": ["warning open-files-used-up of vm-plain"],
    "daemon-files-limit": ["warning daemon-open-files-used-up of "],
    "disk-weight-by-hand": ["warning disk-access-limited of vm-config"],
    "overlay-without-format": ["error backing-format-missing of vm-stopped"],
    "volume-extend-unheard": ["note volume-size-mismatch of vm-data"],
    "foreign-rule-mac": ["error foreign-rule-drops-packets of "],
    "foreign-rule-all": ["error foreign-rule-drops-packets of "],
    "l3-agent-silent": ["warning serving-agent-dead of "],
    "volume-reserved": ["warning unattached-volume-stuck of "],
    "volume-of-nobody": ["warning volume-of-no-server of "],
    "volume-of-deleted": ["error bdm-alive-for-deleted-instance of "],
    "boot-volume-unmarked": ["warning root-bdm-broken of vm-bfv"],
    "ratio-lowered": ["warning provider-over-capacity of "],
    "placement-cut": ["warning allocation-amount-wrong of vm-config"],
    "disk-shrunk": ["error disk-size-vs-flavor of vm-stopped"],
    "definition-other-format": ["error chain-live-vs-persistent of vm-duo"],
    "card-address-edited": ["error mac-chain-mismatch of vm-duo"],
    "dhcp-agent-stopped": ["warning daemon-frozen of "],
    "qemu-moved-out": ["note qemu-outside-machine-group of vm-resized"],
    "db-image-bus-running": ["warning image-property-not-in-guest of vm-snap"],
    "memory-limited": ["warning memory-limit-below-guest of vm-duo"],
    "metadata-socket-gone": ["error daemon-socket-gone of "],
    "umask-closed": ["warning new-folders-closed of "],
    "disk-looped": ["error loop-device-on-disk of vm-bfv"],
    "resize-reset": ["warning state-reset-by-hand of vm-verify"],
    "shelve-reset": ["error state-reset-by-hand of vm-shelved"],
}
"""Fault → the findings that must follow, worst first, then by guest."""

BEYOND = frozenset(
    [
        "api-down",
        "base-unused",
        "db-down",
        "disk-corrupt",
        "image-deleted",
        "placement-down",
    ]
)
"""Faults without a finding: no check is about them, or their layer is not collected."""


def test_every_recorded_fault_has_expected_findings() -> None:
    recorded = {path.name.removesuffix(".json.zst") for path in FAULTS.glob("*.json.zst")}

    assert recorded == FOUND.keys() | BEYOND


every_fault = pytest.mark.parametrize("fault", sorted(FOUND.keys() | BEYOND))


@cache
def _report(fault: str) -> Report:
    return analyze(load(FAULTS / f"{fault}.json.zst"))


@every_fault
def test_a_real_fault_is_found_and_nothing_else(fault: str) -> None:
    found = [
        f"{finding.severity.word} {finding.check.name} of {finding.guest.name if finding.guest else ''}"
        for finding in _report(fault).findings
    ]
    assert sorted(found) == sorted(FOUND.get(fault, []))


@every_fault
def test_every_headline_names_its_subject_and_is_a_short_sentence(fault: str) -> None:
    assert [
        f"{finding.check.name}: {finding.headline!r} {wrong}"
        for finding in _report(fault).everything()
        for wrong in _faults_of(finding)
    ] == []


def _faults_of(finding: Finding) -> Iterator[str]:
    headline = finding.headline
    if not headline or headline == finding.title == finding.check.message.removesuffix("."):
        yield "holds no value"
    if headline.endswith(".") or "\n" in headline or not headline.isprintable():
        yield "is no single line without a period"
    if len(headline) > 140:
        yield f"has {len(headline)} characters"
    if not any(name in headline for name in _subjects(finding)):
        yield "does not name its subject"


def _subjects(finding: Finding) -> Iterator[str]:
    """Yield the names by which a headline may call the subject of its finding."""
    if finding.guest is not None:
        yield finding.guest.title
        return
    if finding.host is not None:
        yield finding.host
    for evidence in finding.evidence:
        yield from (str(value) for _, value in evidence.said if value)


@every_fault
def test_no_command_lacks_a_value_that_the_bundle_holds(fault: str) -> None:
    assert [
        f"{finding.check.name}: {command.text}: {name}"
        for finding in _report(fault).everything()
        for command in _commands(finding)
        for name in command.left
        if name in _known(finding)
    ] == []


@every_fault
def test_no_finding_advises_what_another_one_of_its_server_forbids(fault: str) -> None:
    found = _report(fault).findings
    assert [
        f"{finding.check.name}: {command.text}, forbidden by {other.check.name}"
        for finding in found
        for command in _commands(finding)
        if command.changes
        for other in found
        if other is not finding and _share_a_server(finding, other)
        for danger in forbidden_commands(other.check)
        if any(part <= {*command.text.split()} for part in parts_of(danger))
    ] == []


@every_fault
def test_nova_is_not_asked_to_change_a_server_that_it_does_not_have(fault: str) -> None:
    report = _report(fault)
    novas = {guest.uuid for guest in report.cloud.guests if guest.is_novas}
    unknown = {guest.uuid for guest in report.cloud.guests} - novas
    assert [
        f"{finding.check.name}: {command.text}"
        for finding in report.everything()
        for command in _commands(finding)
        if command.changes and command.text.startswith("openstack server ")
        if unknown.intersection(command.text.split())
    ] == []


def _share_a_server(one: Finding, other: Finding) -> bool:
    return one.guest is None or other.guest is None or one.guest.uuid == other.guest.uuid


def _commands(finding: Finding) -> Iterator[Command]:
    for instruction in instructions(finding):
        yield from instruction.commands


VALUES = {
    "AGENT": ("agent",),
    "BASE": ("base", "backing_filename"),
    "CONSUMER": ("consumer",),
    "DISK": ("path", "disks", "backing_filename"),
    "FD": ("files",),
    "FOLDER": ("folder",),
    "LOG": ("log",),
    "MAC": ("mac",),
    "PORT": ("port", "ports"),
    "PROVIDER": ("provider",),
    "TAP": ("tap", "ifname"),
    "VOLUME": ("volume", "volume_id"),
}
"""Placeholder → names of values in evidence from which it follows."""


def _known(finding: Finding) -> set[str]:
    """Return the placeholders whose values follow from the finding."""
    guest = finding.shared.guests[0] if finding.shared is not None else finding.guest
    said = {name for evidence in finding.evidence for name, value in evidence.said if value}
    held = {name for name, sources in VALUES.items() if said.intersection(sources)}
    return {*of_guest(guest), *(("HOST",) if finding.host is not None else ()), *held}


TRIALS = [trial for trials in remedies.load().values() for trial in trials]

every_trial = pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)


def test_every_check_whose_advice_changes_something_is_tried_or_has_a_reason() -> None:
    changing = {
        check.name
        for check in CATALOG
        for paragraph in check.sections["next"].split("\n\n")
        if paragraph.startswith(COMMANDS)
        if not all(READ_ONLY.match(line.strip()) for line in paragraph.splitlines())
    }

    assert remedies.load().keys() == changing


@every_trial
def test_a_trial_has_a_fault_of_the_lab_or_a_short_reason(trial: Trial) -> None:
    assert bool(trial.fault) != bool(trial.untried)
    if trial.untried:
        assert re.fullmatch(r"[A-Z].{10,90}[^.]", trial.untried)
        return
    scripts = "".join(path.read_text() for path in (ROOT / "lab/faults").glob("*.sh"))
    assert re.search(f"^fault {trial.fault} ", scripts, re.MULTILINE)
    assert trial.set.keys() <= PLACEHOLDERS.keys()
    assert trial.undo in ("", "fix", "forget")


@every_trial
def test_the_commands_of_a_trial_are_advised_for_the_recorded_fault(trial: Trial) -> None:
    if not (FAULTS / f"{trial.fault}.json.zst").exists():
        pytest.skip("not tried, or the fault is not recorded")
    [found, *_] = [
        one for one in _report(trial.fault).everything() if one.check.name == trial.check
    ]

    advice = instructions(found)

    steps = remedies.steps(trial, advice)

    assert steps
    # A finding that no command of the advice mends is not told how to see the effect of one.
    assert remedies.looks(trial, advice) or all(one.startswith(remedies.BY_HAND) for one in steps)


def test_the_labs_table_of_faults_has_each_fault_once() -> None:
    printed = subprocess.run(
        [ROOT / "lab/break.sh", "--markdown"], capture_output=True, text=True, check=True
    ).stdout
    shown = (ROOT / "lab/README.md").read_text()

    assert [line for line in shown.splitlines(keepends=True) if line.startswith("| `")] == [
        line for line in printed.splitlines(keepends=True) if line.startswith("| `")
    ]
