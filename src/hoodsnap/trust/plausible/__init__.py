"""Plausibility of a bundle: values that a host reports twice, of which a forger may edit only one.

This proves nothing. A patient forger can make everything fit, and a clock that was set, or an
unusual host, can make a genuine bundle look forged. So every contradiction names both places, and a
person decides. A layer that was not collected raises no doubts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hoodsnap.bundle import Bundle
from hoodsnap.facts.fact import caught
from hoodsnap.trust.plausible import clocks, files, processes, rows
from hoodsnap.trust.plausible.visit import HostAnswers

Rule = Callable[[HostAnswers], Iterator[str]]

RULES: tuple[Rule, ...] = (
    clocks.asked_while_collecting,
    clocks.one_boot,
    clocks.clocks_go_together,
    processes.numbered_alike,
    processes.started_before_seen,
    processes.busy_no_longer_than_alive,
    processes.command_line_twice,
    processes.domain_id_twice,
    processes.started_as_logged,
    processes.younger_than_its_row,
    files.one_path_one_file,
    files.one_file_one_path,
    files.changed_before_seen,
    rows.times_in_order,
    rows.times_before_seen,
    rows.numbers_in_order,
    rows.created_twice,
)


class Contradiction(NamedTuple):
    """Two places in a bundle that can't both be true."""

    rule: str
    host: str
    reason: str


def doubts(bundle: Bundle) -> Iterator[Contradiction]:
    """Yield the contradictions in a bundle, host by host."""
    for host in dict.fromkeys(answer.host for answer in bundle.answers):
        visit = HostAnswers(bundle, host)
        for rule in RULES:
            for reason in dict.fromkeys(_netted(rule, visit)):
                yield Contradiction(rule.__name__.replace("_", "-"), host, reason)


def _netted(rule: Rule, visit: HostAnswers) -> Iterator[str]:
    try:
        yield from rule(visit)
    except Exception as error:  # a net: a value that breaks a rule is not plausible
        yield str(caught(error))
