"""What neutron says of an agent: the program on a host that does what neutron wants there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact, text, unheard
from hoodsnap.facts.layer import NEUTRON, Layer

WIRING = frozenset(["Open vSwitch agent", "Linux bridge agent", "OVN Controller agent"])
"""The kinds that make the way for a guest's packets. Ports are bound to no host without one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Agent(Fact):
    """One agent. Only administrators are shown them."""

    layer: ClassVar[Layer] = NEUTRON
    noun: ClassVar[str] = "agent"
    raw: Mapping[str, object]

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "kind": ("agent", "agent_type"),
        "heartbeat": ("agent", "heartbeat_timestamp"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the agent's id."""
        answer, place = super().where(name)
        return answer, f"agents[id={self.raw.get('id')}].{place}"

    @property
    def kind(self) -> str:
        """`Open vSwitch agent`, `DHCP agent` …"""
        return text(self.raw, "agent_type") or ""

    @property
    def host(self) -> str:
        """neutron's name of its host."""
        return text(self.raw, "host") or ""

    @property
    def alive(self) -> bool:
        """Whether neutron has heard of it lately: within `agent_down_time`, 75 s, by its clock."""
        said = self.raw.get("alive")
        return said if isinstance(said, bool) else unheard("whether the agent is alive")

    @property
    def heartbeat(self) -> str | None:
        """When neutron heard of it last, UTC."""
        return text(self.raw, "heartbeat_timestamp")
