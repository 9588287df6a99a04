"""Open vSwitch's record of a tap."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost


def _tap(host: RecordedHost, name: str) -> str:
    taps = host.guest(name).taps
    assert taps is not None
    return taps[0].name


def test_switch_record_outdated(host: RecordedHost) -> None:
    tap = _tap(host, "vm-plain")
    host.switch("Interface", tap, mtu=1400)

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.headlines() == [
        f"vm-plain's tap {tap}'s MTU is 1450 in the kernel, but 1400 in Open vSwitch"
    ]
    assert host.findings() == [
        "switch-record-outdated of vm-plain: tap reports mtu = 1450; tap reports switch_mtu = 1400"
    ]


@pytest.mark.parametrize(
    ("column", "shown"),
    [("admin_state", "'s state is up in the kernel"), ("link_state", "'s carrier is up in the")],
)
def test_another_state_in_open_vswitch_is_found(
    host: RecordedHost, column: str, shown: str
) -> None:
    host.switch("Interface", _tap(host, "vm-plain"), **{column: "down"})

    [headline] = host.headlines()
    assert shown in headline


def test_a_state_that_open_vswitch_does_not_report_is_not_compared(host: RecordedHost) -> None:
    host.switch("Interface", _tap(host, "vm-plain"), mtu=["set", []], link_state=["set", []])

    assert host.findings() == []
