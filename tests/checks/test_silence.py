"""Services of a host that fell silent together."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from tests.checks.test_services import services
from tests.conftest import RecordedHost
from tests.daemons import alter, end

AGENTS = "GET /v2.0/agents?host=vm"

SILENT = (
    "5 services of vm (neutron-dhcp-agent, neutron-l3-agent and 3 more) run, but have reported "
    "nothing since "
)


def silence(host: RecordedHost, *, compute: float = 10.0, agents: float = 10.0) -> None:
    """Make nova-compute and neutron's agents silent for so many minutes; 0: they report."""
    now = host.report().cloud.now
    if compute:
        at = f"{now - timedelta(minutes=compute):%Y-%m-%dT%H:%M:%S.000000}"
        services(host, "nova-compute", state="down", updated_at=at)
    if agents:
        body = json.loads(json.dumps(host.last("neutron", AGENTS).value))
        at = f"{now - timedelta(minutes=agents):%Y-%m-%d %H:%M:%S}"
        for agent in body["agents"]:
            agent |= {"alive": False, "heartbeat_timestamp": at}
        host.set("neutron", AGENTS, body)


def silent(host: RecordedHost) -> list[str]:
    return [one.title for one in host.report().findings if one.check.name == NAME]


NAME = "services-silent-together"


def test_services_silent_together(served: RecordedHost) -> None:
    silence(served)

    [finding] = [one for one in served.report().findings if one.check.name == NAME]
    assert finding.title.startswith(SILENT)
    # Only the API was edited, not the rows that it is made from.
    assert {one.check.name for one in served.report().findings} == {NAME, "api-list-differs"}


@pytest.mark.parametrize("minutes", [{"compute": 0}, {"agents": 0}, {"agents": 20}])
def test_services_that_fell_silent_apart(served: RecordedHost, minutes: dict[str, float]) -> None:
    silence(served, **minutes)

    assert silent(served) == []


def test_a_service_that_ended_does_not_count(served: RecordedHost) -> None:
    silence(served)
    end(served, "neutron-l3-agent")

    [title] = silent(served)
    assert title.startswith("4 services of vm (")


def test_a_service_that_was_stopped_has_its_own_finding(served: RecordedHost) -> None:
    silence(served, agents=0)
    alter(served, "nova-compute", state="T")

    assert silent(served) == []


def test_it_is_unknown_whether_the_services_run(host: RecordedHost) -> None:
    assert NAME in {skip.check.name for skip in host.report().skips}
