"""Edits of a recording that has the host's daemons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer
from hoodsnap.facts.host.daemon import CENSUS, PROPERTIES, UNIT_FILES, UNITS

Rows = list[dict[str, Any]]

# What systemd 252 of Debian 12 printed for units that were made to fail, loop and wait.
UNITS_SHOWN = """\
multipathd.service                loaded active     running      runs
neutron-openvswitch-agent.service loaded activating auto-restart loops
nova-compute.service              loaded failed     failed       dies of ACME
virtqemud.service                 loaded inactive   dead         virtqemud.service
virtqemud.socket                  loaded active     listening    virtqemud.socket
customer-acme.service             loaded active     running      other
"""

FILES_SHOWN = """\
multipathd.service                disabled enabled
neutron-dhcp-agent.service        disabled enabled
nova-compute.service              static   -
virtlogd.service                  indirect enabled
virtqemud.socket                  disabled enabled
"""

PROPERTIES_SHOWN = """\
Result=exit-code
NRestarts=0
ExecMainCode=1
ExecMainStatus=3
Id=nova-compute.service
StateChangeTimestampMonotonic=1761181968

Result=exit-code
NRestarts=7
ExecMainCode=1
ExecMainStatus=1
Id=neutron-openvswitch-agent.service
StateChangeTimestampMonotonic=1761181541

Result=success
Id=virtqemud.socket
StateChangeTimestampMonotonic=1761128971
"""


def listed(host: RecordedHost, change: Callable[[Rows], Rows], *, looks: int = 2) -> None:
    """Change the list of daemons, in the last so many of the times that it was asked for."""
    asked = [one for one in host.bundle.answers if one.query == CENSUS]
    chosen = {id(one) for one in asked[-looks:]}
    assert len(asked) == 2

    def edited(answer: Answer) -> Answer:
        if id(answer) not in chosen:
            return answer
        rows = change([dict(row) for row in answer.value])
        return answer.model_copy(update={"value": rows})

    host.bundle = host.bundle.with_answers(map(edited, host.bundle.answers))


def end(host: RecordedHost, name: str, *, looks: int = 2) -> None:
    """Remove a daemon's processes."""

    def without(rows: Rows) -> Rows:
        kept = [row for row in rows if row["name"] != name]
        assert len(kept) < len(rows)
        return kept

    listed(host, without, looks=looks)


def alter(host: RecordedHost, name: str, *, looks: int = 2, **fields: Any) -> None:
    """Set fields of a daemon's processes."""

    def altered(rows: Rows) -> Rows:
        assert name in {row["name"] for row in rows}
        return [row | fields if row["name"] == name else row for row in rows]

    listed(host, altered, looks=looks)


def systemd(
    host: RecordedHost, units: str, files: str = "", shown: list[dict[str, str]] | None = None
) -> None:
    """Add the answers of systemd, which the lab does not have."""
    census = host.last("daemons", CENSUS).model_dump(exclude={"error", "value", "query"})
    host.add(Answer(**census, query=UNITS, value=units))
    host.add(Answer(**census, query=UNIT_FILES, value=files))
    host.add(Answer(**census, query=PROPERTIES, value=shown or []))
