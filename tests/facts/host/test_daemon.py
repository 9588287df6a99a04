"""Daemons and units, as they were recorded, and as a stranger may write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import DAEMONS, RecordedHost
from tests.daemons import FILES_SHOWN, PROPERTIES_SHOWN, UNITS_SHOWN, listed, systemd

from hoodsnap.bundle import load
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.daemon import CENSUS, Condition, Daemons
from hoodsnap.keep.daemon import KNOWN, properties, units

RECORDED = load(DAEMONS)


def daemons(host: RecordedHost) -> Daemons:
    return Daemons(host.bundle, "vm")


def test_the_daemons_of_the_lab(served: RecordedHost) -> None:
    assert set(daemons(served).by_name) == {
        *("nova-compute", "nova-conductor", "nova-scheduler", "nova-api"),
        *("neutron-server", "neutron-openvswitch-agent", "neutron-dhcp-agent"),
        *("neutron-l3-agent", "neutron-metadata-agent", "ovs-vswitchd", "ovsdb-server"),
        *("libvirtd", "virtlogd", "cinder-volume"),
    }


def test_a_running_daemon_is_older_than_the_recording(served: RecordedHost) -> None:
    [compute] = daemons(served).by_name["nova-compute"]
    since = daemons(served).since(compute)

    assert since is not None
    assert timedelta() < served.bundle.started - since < timedelta(days=1)


def test_units_of_systemd(served: RecordedHost) -> None:
    systemd(served, units(UNITS_SHOWN, 3), units(FILES_SHOWN, 1), properties(PROPERTIES_SHOWN))
    found = daemons(served).units

    failed, loops = found["nova-compute.service"], found["neutron-openvswitch-agent.service"]
    assert (failed.has_failed, failed.result, failed.end, failed.file) == (
        True, "exit-code", "exit status 3", "static",
    )  # fmt: skip
    assert (loops.has_failed, loops.restarts) == (True, 7)
    assert not found["virtqemud.socket"].has_failed
    assert not found["virtqemud.service"].has_failed


def test_a_host_without_systemd_has_no_units(served: RecordedHost) -> None:
    assert daemons(served).units == {}


def test_what_was_not_collected_is_unknown(host: RecordedHost) -> None:
    for read in (
        lambda: daemons(host).by_name,
        lambda: daemons(host).units,
        lambda: daemons(host).condition("nova-compute"),
    ):
        with pytest.raises(UnheardError, match="the host's daemons were not collected"):
            read()


VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([])
)

ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["nova-compute", "libvirtd"]) | VALUES,
            "pid": st.integers(1, 3) | VALUES,
            "state": st.sampled_from("SRDTtZ") | VALUES,
            "switches": st.integers(0, 2) | VALUES,
            "started": st.integers() | VALUES,
            "unit": st.just("nova-compute.service") | VALUES,
            "frozen": VALUES,
            "doubt": VALUES,
        },
    ),
    max_size=4,
)


@given(ROWS, ROWS)
def test_any_list_is_read_or_unknown(
    first: list[dict[str, object]], second: list[dict[str, object]]
) -> None:
    host = RecordedHost(RECORDED)
    listed(host, lambda _: first)
    listed(host, lambda _: second, looks=1)
    try:
        condition, daemon = daemons(host).condition("nova-compute")
    except UnheardError:
        return
    assert (daemon is None) == (condition is Condition.MISSING)
    if condition is not Condition.RUNNING and daemon is not None:
        assert any(row.get("pid") == daemon.pid for row in second)


def test_a_list_that_failed_once_is_not_an_absence(served: RecordedHost) -> None:
    """The second look failed: the first one still shows what runs."""
    served.drop(lambda answer: answer.query != CENSUS or answer is served.last("daemons", CENSUS))

    condition, _ = daemons(served).condition("nova-compute")
    assert condition is Condition.RUNNING
    assert set(daemons(served).by_name) <= set(KNOWN)
