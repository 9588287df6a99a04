"""Silence of a host: all of its services stopped reporting at once, although they run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.api.service import read_services
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.daemon import Condition
from hoodsnap.phrase import counted, several, since

AT_ONCE = 120.0
"""Seconds between the last reports of services that stopped for one reason: agents of neutron
report every 30 s, nova-compute every 10 s, and a slow queue delays some reports."""


class _Reporter(NamedTuple):
    """A service of the host that reports to an API."""

    binary: str
    """`nova-compute`, `neutron-dhcp-agent` …"""
    project: str
    """`nova` or `neutron`."""
    is_down: bool
    last: datetime | None
    """Time of its last report."""
    evidence: Evidence


@check(Severity.WARNING)
def services_silent_together(host: Host) -> Problems:
    """All services of the host stopped reporting at once, although their processes run.

    nova-compute and neutron's agents report through the message queue (RabbitMQ). If they fall
    silent together and run on, the host has lost the queue: RabbitMQ stopped or hangs, a firewall
    or a network between them changed, or its password did. Running guests are not affected, but
    nothing that nova or neutron requests is carried out here.

    Authority: The APIs, for the last reports; the host, for the processes.

    Traps: Services that were stopped one after another. A service whose process is missing or
    stopped has its own finding. If only nova-compute or only the agents are silent, it may be a
    controller's fault, and nothing is reported. nova-conductor, nova-scheduler and cinder's
    services write to their databases, and OVN's agents to OVN's, so they report without the queue.

    Next: Check whether other hosts report, whether the host is connected to the queue, and what its
    services log:

        openstack compute service list
        openstack network agent list
        ss -tn dport = :5672 or dport = :5671
        tail -n 50 /var/log/nova/nova-compute.log

    On the hosts of RabbitMQ, check that it answers, has all its nodes, and raises no alarm (memory,
    disk):

        rabbitmqctl cluster_status
        rabbitmqctl list_connections user peer_host state

    If RabbitMQ does not run or does not answer, mend the reason, and restart it, in a cluster one
    node after the other:

        systemctl restart rabbitmq-server

    If only this host is cut off, mend its network, its firewall or its `transport_url`. The
    services connect again by themselves within some minutes; restart those that do not.

    It worked if the services report again:

        openstack compute service list --host HOST
        openstack network agent list --host HOST

    Not yet: Do not evacuate the host: its guests run. Do not force the service down. Do not delete
    services or agents. Do not send requests again: those in the queue are still carried out.

    Source: oslo.messaging, RabbitMQ driver; nova servicegroup/drivers/db.py; neutron
    db/agents_db.py `is_agent_down`.
    """
    reporters = [one for one in _reporters(host) if one.last is not None]
    running = [one for one in reporters if _runs(host, one.binary)]
    times = [one.last for one in running if one.last is not None]
    if len({one.project for one in running}) < 2 or not all(one.is_down for one in running):
        return
    if (max(times) - min(times)).total_seconds() > AT_ONCE:
        return
    names = several(sorted({one.binary for one in running}), 2)
    yield problem(
        f"{counted(len(running), 'service')} of {host.name} ({names}) run, but have reported "
        f"nothing {since(max(times), host.bundle.ended)}",
        *(one.evidence for one in running),
    )


def _runs(host: Host, binary: str) -> bool:
    condition, _ = host.daemons.condition(binary)
    return condition is Condition.RUNNING


def _reporters(host: Host) -> Iterator[_Reporter]:
    """Yield the services of the host that the APIs list. Raises `UnheardError`."""
    for service in read_services(host.bundle):
        own = service.binary == "nova-compute" and service.host == host.nova_name
        if own and not service.forced_down:
            last = service.updated_at
            seen = says(service, binary=service.binary, state=service.state, updated_at=last)
            yield _Reporter(service.binary, "nova", service.state != "up", last, seen)
    if host.ports.agents is None:
        raise UnheardError("neutron API: the list of its agents was not collected")
    for agent in host.ports.agents.values():
        by_queue = agent.binary.startswith("neutron-") and "-ovn-" not in agent.binary
        if agent.host == host.nova_name and by_queue:
            seen = says(agent, binary=agent.binary, alive=agent.alive, heartbeat=agent.heartbeat)
            last = moment(agent.heartbeat)
            yield _Reporter(agent.binary, "neutron", not agent.alive, last, seen)
