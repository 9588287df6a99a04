"""Each recorded question has a reader: without its answers, the report is another one.

A question that is read only where something is wrong, by another command than `explain`, or by
nobody but the clients of a replayed recording, is listed here with that reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache, partial
from operator import eq
from typing import Any

import pytest
from tests.census.question import kind
from tests.conftest import healthy, sample

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.checks import echoes
from hoodsnap.facts.cloud import movement
from hoodsnap.facts.database import tables
from hoodsnap.findings.analysis import analyze
from hoodsnap.render import json, text
from hoodsnap.timeline import timeline

SAMPLE = 3
"""Questions of each run. Each costs an analysis."""

WITH_A_FAULT = """
block: lvs …  block: pvs …  block: vgs …  block: dmsetup info …  block: multipath …
block: multipathd …  block: ls …  block: tgtadm …  block: cat /etc/iscsi/initiatorname.iscsi
cinder: GET /v3/snapshots/detail  host: id
host: /etc/libvirt/virtlogd.conf  images: stat -L /
images: cat /var/lib/nova/instances/UUID/disk.info
images: cat /var/lib/nova/instances/UUID_resize/disk.info
images: stat -L /var/lib/nova/instances /…  images: qemu-img info -U --backing-chain -f …
kernel: /proc/PID/cgroup  kernel: /proc/PID/comm  kernel: grep …  kernel: /proc/uptime
kernel: /proc/sys/kernel/random/boot_id  kernel: readlink /proc/PID/root  kernel: ls /sys/bus/…
host: nova-compute --version  libvirt: virsh domjobinfo NAME  libvirt: virsh net-…
libvirt: virsh secret-list  logs: dmesg …
network: iptables-save …  network: ovs-ofctl …
network: cat /var/lib/neutron/dhcp/UUID/host  network: ip -j -n qrouter-UUID route
network: bridge …  neutron: GET /v2.0/ports/UUID/bindings  nova: GET /v2.1/os-aggregates
nova: GET /v2.1/os-hypervisors/detail  nova: GET /v2.1/os-server-groups
nova: GET /v2.1/os-migrations
nova: GET /v2.1/flavors/detail  nova: GET /v2.1/servers/UUID/os-instance-actions
nova-db: SELECT VERSION()  nova-db: SELECT UTC_TIMESTAMP(6)  nova-db: SELECT nova.instance_faults
nova-db: SELECT nova_api.flavors  nova-db: SELECT nova_api.flavor_extra_specs
nova-db: SELECT nova_cell0.virtual_interfaces
nova-db: SELECT nova_api.instance_group_member  placement: GET /allocations/UUID
nova-db: SELECT nova_cell0.console_auth_tokens  placement: GET /resource_providers/UUID/aggregates
placement: GET /resource_providers/UUID/usages  host: hostname  host: hostname -f
host: qemu-system-x86_64 --version  kernel: /proc/sys/kernel/osrelease
"""
"""Read by checks and lines that have something to report only if something is wrong."""

DECIDES_WHAT_IS_ASKED = """
cinder: GET /v3/  neutron: GET /v2.0/extensions  nova: HEAD /v2.1/  placement: GET /
nova-db: SHOW …  nova-db: SELECT information_schema.…
nova-db: SELECT nova.instance_id_mappings  nova-db: SELECT nova_cell0.instance_id_mappings
"""
"""The collector itself reads it, to know what it may ask next."""

FOR_THE_REPLAY = """
host: cat /etc/os-release  host: dpkg-query …  host: uname -a
host: libvirtd --version  kernel: /proc/PID/statm
kernel: /proc/cpuinfo  kernel: /proc/loadavg  kernel: /proc/stat  kernel: /proc/version
kernel: /proc/sys/kernel/pid_max  kernel: pgrep …
network: cat /var/lib/neutron/dhcp/UUID/leases
"""
"""Read by `verify`, `diff`, or the programs in `hoodsnap shell` alone."""

QUIET = tuple(
    question
    for group in (WITH_A_FAULT, DECIDES_WHAT_IS_ASKED, FOR_THE_REPLAY)
    for line in group.strip().splitlines()
    for question in line.split("  ")
)


def named(answer: Answer) -> str:
    return f"{answer.layer}: {kind(answer.query)}"


def is_entry(quiet: str, question: str) -> bool:
    """True if this entry of the list lists the question."""
    return question.startswith(quiet[:-1]) if quiet.endswith("…") else question == quiet


def is_quiet(question: str) -> bool:
    return any(is_entry(quiet, question) for quiet in QUIET)


def shown(bundle: Bundle) -> list[str]:
    """Return everything that `explain` and `timeline` print of a bundle, but for its size."""
    report = analyze(bundle)
    guests = report.cloud.guests
    lines = [line.plain for line in text.render(report, guests, verbose=True, walk=True)]
    lines += [f"{event.at} {event.what}" for event in timeline.read(report.cloud).events]
    lines += json.render(report, guests).splitlines()
    return [re.sub(r"\d+ answers", "", line) for line in lines]


@cache
def whole() -> list[str]:
    return shown(healthy())


QUESTIONS = sorted({named(answer) for answer in healthy().answers if answer.layer != "hoodsnap"})


def without(is_left_out: Callable[[str], bool]) -> list[str]:
    """Return what is printed without the answers to these questions."""
    kept = tuple(answer for answer in healthy().answers if not is_left_out(named(answer)))
    return shown(healthy().with_answers(kept))


@pytest.mark.parametrize(
    "question", sample([one for one in QUESTIONS if not is_quiet(one)], SAMPLE)
)
def test_the_report_is_another_one_without_the_answers(question: str) -> None:
    assert without(partial(eq, question)) != whole(), (
        f"nothing reads {question}: compare it, show it, stop asking it, or list it here"
    )


@pytest.mark.parametrize("quiet", QUIET)
def test_a_listed_question_was_recorded(quiet: str) -> None:
    assert any(is_entry(quiet, question) for question in QUESTIONS)


# All of them, not a sample: a new check may read one of these at any time.
@pytest.mark.parametrize("quiet", QUIET)
def test_the_report_is_the_same_without_a_listed_question(quiet: str) -> None:
    assert without(partial(is_entry, quiet)) == whole(), f"{quiet} need not be listed any more"


GENERIC = {movement.__file__, tables.__file__, echoes.__file__}
"""Modules that go through all answers, of which most have nothing for them."""


def test_no_check_reads_what_is_kept_for_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    original = Answer.__getattribute__

    def noting(answer: Answer, name: str) -> Any:
        if name == "value" and sys._getframe(1).f_code.co_filename not in GENERIC:
            read.add(named(answer))
        return original(answer, name)

    bundle = healthy().with_answers(healthy().answers)
    monkeypatch.setattr(Answer, "__getattribute__", noting)
    report = analyze(bundle)
    text.render(report, report.cloud.guests, verbose=True, walk=True)
    monkeypatch.undo()

    assert "libvirt: virsh list --all" in read
    listed = [one for line in FOR_THE_REPLAY.strip().splitlines() for one in line.split("  ")]
    assert [quiet for quiet in listed for one in read if is_entry(quiet, one)] == []
