"""Sockets of the host's daemons to which nobody can connect."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost
from tests.daemons import alter

PROXY = "/var/lib/neutron/metadata_proxy"


def test_daemon_socket_gone(served: RecordedHost) -> None:
    alter(served, "neutron-metadata-agent", pid=98, lost_sockets=[PROXY])

    [finding] = served.report().findings
    assert (finding.check.name, finding.severity.word) == ("daemon-socket-gone", "error")
    assert finding.title == (
        "neutron-metadata-agent on vm (process 98) listens at /var/lib/neutron/metadata_proxy, but"
        " that file is gone: no guest gets metadata"
    )
    assert finding.names["SOCKET_FOLDER"] == "/var/lib/neutron"
    assert finding.names["SERVICE"] == "neutron-metadata-agent"


def test_a_daemon_that_must_not_be_restarted(served: RecordedHost) -> None:
    alter(served, "virtlogd", pid=98, lost_sockets=["/run/libvirt/virtlogd-sock"])

    [finding] = served.report().findings
    assert finding.names["SERVICE"] == ""


def test_a_socket_that_was_missing_for_a_moment(served: RecordedHost) -> None:
    alter(served, "neutron-metadata-agent", lost_sockets=[])
    alter(served, "neutron-metadata-agent", looks=1, lost_sockets=[PROXY])

    assert served.headlines() == []


@pytest.mark.parametrize("value", [[], None, "none", {}])
def test_no_socket_is_gone(served: RecordedHost, value: object) -> None:
    alter(served, "neutron-metadata-agent", lost_sockets=value)

    assert served.headlines() == []
