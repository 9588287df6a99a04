"""Only the daemons' units are kept, and of them only systemd's own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.daemons import FILES_SHOWN, PROPERTIES_SHOWN, UNITS_SHOWN

from hoodsnap.keep.daemon import KNOWN, daemon_of_unit, properties, units


@pytest.mark.parametrize(
    ("unit", "daemon"),
    [
        ("nova-compute.service", "nova-compute"),
        ("openstack-nova-compute.service", "nova-compute"),
        ("devstack@n-cpu.service", "nova-compute"),
        ("devstack@q-agt.service", "neutron-openvswitch-agent"),
        ("tripleo_nova_compute.service", "nova-compute"),
        ("edpm_nova_compute.service", "nova-compute"),
        ("kolla-nova_compute-container.service", "nova-compute"),
        ("snap.openstack-hypervisor.nova-compute.service", "nova-compute"),
        ("libvirtd-ro.socket", "libvirtd"),
        ("virtqemud.socket", "virtqemud"),
        ("openvswitch-switch.service", "ovs-vswitchd"),
        ("nova-compute.timer", None),
        ("my-nova-compute.service", None),
        ("nova-compute-acme.service", None),
        ("nova-compute.service\n", None),
        ("", None),
    ],
)
def test_the_daemon_of_a_unit(unit: str, daemon: str | None) -> None:
    assert daemon_of_unit(unit) == daemon


def test_descriptions_and_other_units_are_not_kept() -> None:
    assert units(UNITS_SHOWN, 3) == (
        "multipathd.service loaded active running\n"
        "neutron-openvswitch-agent.service loaded activating auto-restart\n"
        "nova-compute.service loaded failed failed\n"
        "virtqemud.service loaded inactive dead\n"
        "virtqemud.socket loaded active listening\n"
    )


def test_a_mark_before_a_failed_unit_is_left_out() -> None:
    shown = "● nova-compute.service loaded failed failed OpenStack Compute\n"

    assert units(shown, 3) == "nova-compute.service loaded failed failed\n"


def test_of_unit_files_the_state_is_kept() -> None:
    assert units(FILES_SHOWN, 1).splitlines()[:3] == [
        "multipathd.service disabled",
        "neutron-dhcp-agent.service disabled",
        "nova-compute.service static",
    ]


def test_properties_are_kept_by_their_form() -> None:
    first, second, third = properties(PROPERTIES_SHOWN)

    assert first == {
        "Id": "nova-compute.service",
        "Result": "exit-code",
        "NRestarts": "0",
        "ExecMainCode": "1",
        "ExecMainStatus": "3",
        "StateChangeTimestampMonotonic": "1761181968",
    }
    assert (second["NRestarts"], third["Result"]) == ("7", "success")


@pytest.mark.parametrize(
    "line", ["Environment=OS_PASSWORD=x", "Result=pass word", "NRestarts=-1", "ExecMainStatus=1 x"]
)
def test_another_property_or_form_is_not_kept(line: str) -> None:
    assert properties(f"Id=nova-compute.service\n{line}\n") == [{"Id": "nova-compute.service"}]


@given(st.text(), st.integers(0, 4))
def test_any_table_leaves_only_units_and_words(table: str, columns: int) -> None:
    for row in units(table, columns).splitlines():
        name, *states = row.split(" ")
        assert daemon_of_unit(name) in KNOWN
        assert len(states) == columns
        assert all(state.isascii() and state.replace("-", "").isalpha() for state in states)


@given(st.text())
def test_any_output_leaves_only_properties_of_daemons(output: str) -> None:
    for unit in properties(output):
        assert daemon_of_unit(unit["Id"]) in KNOWN
