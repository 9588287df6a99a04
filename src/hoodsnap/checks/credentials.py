"""Credentials of nova-compute that the other services of the cloud refuse."""

from __future__ import annotations

from datetime import timedelta

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.nova_log import nova_log_of, refusals
from hoodsnap.phrase import counted, since

STILL = timedelta(minutes=10)
"""Age up to which the newest refusal counts: nova-compute asks neutron and placement each minute.

A password that was corrected later would leave older lines in the log."""


@check(Severity.WARNING)
def nova_compute_refused(host: Host) -> Problems:
    """A service of the cloud refuses nova-compute's credentials (HTTP 401).

    nova-compute asks neutron, cinder, glance and placement with accounts from nova.conf, which it
    reads only when it starts. If the password was changed in keystone and not here, or the account
    is disabled or expired, the service still reports to nova and is up. Guests keep running. But
    servers are not built on the host, and ports and volumes are not attached or detached; what nova
    shows of a guest's network gets old.

    Authority: keystone.

    Traps: A token that expired is renewed without a message in the log. A user's token that expired
    during a long operation is refused once, and only for that operation. Refusals from before
    nova-compute's last start may be of an older password. nova-compute keeps a token until it
    expires, so a wrong password shows up to an hour after a change in keystone.

    Next: Read the refusals, and the accounts that nova-compute uses; the commands print no
    password:

        grep -n -E 'HTTP 401|credential' LOG
        grep -n -E '^(.SECTION.|auth_url|username|user_domain|project)' NOVA_CONF

    Check whether keystone has the account, enabled and not expired (password_expires_at). Then list
    the services as that account; the command asks for its password, which is in nova.conf:

        openstack user show --domain ACCOUNT_DOMAIN ACCOUNT
        env -u OS_PASSWORD openstack --os-username ACCOUNT --os-project-name OF_PROJECT catalog list

    If the password is refused, correct it in the file, or enable the account. Then restart
    nova-compute, which reads the file again; guests keep running:

        systemctl restart UNIT

    It worked if the log has no new refusal after a few minutes:

        grep -n -E 'HTTP 401|credential' LOG

    Not yet: Do not delete servers, ports or volumes whose operations failed: nova-compute can't
    clean them up until it is accepted. Do not change the password in keystone before you know which
    other hosts use it.

    Source: nova network/neutron.py `ClientWrapper`; nova scheduler/client/report.py `safe_connect`;
    nova compute/manager.py `_heal_instance_info_cache`; keystoneauth session.py `request` (renews a
    refused token once).
    """
    log = nova_log_of(host.bundle, host.name)
    found = list(refusals(host.bundle, log))
    if not found or log.at - found[-1].at > STILL:
        return
    daemon = host.daemons.lasting("nova-compute")
    if daemon is None:
        return
    started = host.daemons.since(daemon)
    if started is None:
        raise UnheardError("the time of nova-compute's last start was not collected")
    found = [one for one in found if one.at > started]
    if not found or (len(found) < 2 and not found[0].is_own):
        return
    services = sorted({one.service for one in found if one.service is not None})
    who = " and ".join(services) if services else "A service of the cloud"
    verb = "refuse" if len(services) > 1 else "refuses"
    last = found[-1]
    path = log.query.rpartition(" ")[2] if log.query.startswith("tail") else None
    yield problem(
        f"{who} {verb} nova-compute's requests on {host.name} (HTTP 401):"
        f" {counted(len(found), 'time')} {since(found[0].at, log.at)}",
        hears(log, "log", last=f"{last.at:%H:%M:%S}", message=last.message),
        hears(host.daemons.census, "daemons", "nova-compute", daemon="nova-compute").and_so(
            pid=daemon.pid, started=f"{started:%H:%M:%S}"
        ),
        LOG=path,
        SECTION=services[0] if len(services) == 1 else None,
        UNIT=daemon.unit,
        NOVA_CONF=host.file_of(services[0], "password") if services else None,
    )
