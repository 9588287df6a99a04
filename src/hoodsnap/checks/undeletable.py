"""Servers that nova does not delete."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, derives
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.fact import integer


@check(Severity.NOTE)
def deletion_disabled(guest: Guest, instance: Instance) -> Problems:
    """nova ignores each request to delete the server, because its record forbids it.

    The column disable_terminate is left from the EC2 API, and no command of nova sets it. nova-api
    accepts a request to delete the server with status 204, writes "instance termination disabled"
    into its log, and does nothing. The owner sees no error, and the server stays.

    Authority: The nova database.

    Traps: Somebody may have set it on purpose, to protect the server. A locked server is something
    else: nova refuses to delete it, and says so.

    Next: Check the record, and whether its owner tried to delete the server:

        SELECT disable_terminate, updated_at FROM DATABASE.instances WHERE uuid = 'UUID' AND deleted = 0
        openstack server event list UUID

    If nobody wants to protect the server, allow its deletion, after a backup of the cell's
    database; no command of nova does it:

        UPDATE DATABASE.instances SET disable_terminate = 0 WHERE uuid = 'UUID' AND deleted = 0

    It worked if the record is 0:

        SELECT disable_terminate FROM DATABASE.instances WHERE uuid = 'UUID' AND deleted = 0

    Not yet: Do not delete the server's rows, domain or disks by hand.

    Source: nova compute/api.py `_delete`, `disable_terminate`.
    """  # noqa: E501 (an SQL statement is one line)
    if not instance.deleted and integer(instance.raw, "disable_terminate"):
        yield problem(
            f"{guest.title} can't be deleted: nova's record has disable_terminate, and ignores "
            "each request",
            derives(instance, "raw", disable_terminate=True),
            DATABASE=plain_name(instance.database),
        )
