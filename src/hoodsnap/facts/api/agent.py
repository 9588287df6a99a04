"""neutron agents: the programs on hosts that carry out neutron's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact, mapping, text, unheard
from hoodsnap.facts.layer import NEUTRON, Layer

WIRING = frozenset(["Open vSwitch agent", "Linux bridge agent", "OVN Controller agent"])
"""Kinds of agents that wire ports. neutron binds no port to a host without one of them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Agent(Fact):
    """One agent. Only administrators see agents."""

    layer: ClassVar[Layer] = NEUTRON
    noun: ClassVar[str] = "agent"
    raw: Mapping[str, object]

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "kind": ("agent", "agent_type"),
        "binary": ("agent", "binary"),
        "enabled": ("agent", "admin_state_up"),
        "heartbeat": ("agent", "heartbeat_timestamp"),
        "integration_bridge": ("agent", "configurations.integration_bridge"),
        "tunneling_ip": ("agent", "configurations.tunneling_ip"),
        "bridge_mappings": ("agent", "configurations.bridge_mappings"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the agent's id."""
        answer, place = super().where(name)
        return answer, f"agents[id={self.raw.get('id')}].{place}"

    @property
    def kind(self) -> str:
        """`Open vSwitch agent`, `DHCP agent` …"""
        return text(self.raw, "agent_type") or ""

    @property
    def binary(self) -> str:
        """Name of its program: `neutron-openvswitch-agent`, `ovn-controller` …"""
        return text(self.raw, "binary") or ""

    @property
    def host(self) -> str:
        """Name of the agent's host in neutron."""
        return text(self.raw, "host") or ""

    @property
    def alive(self) -> bool:
        """True if neutron counts the agent as alive.

        By neutron's clock, its last heartbeat is younger than `agent_down_time` (75 s).
        """
        said = self.raw.get("alive")
        return said if isinstance(said, bool) else unheard("alive of the agent was not collected")

    @property
    def enabled(self) -> bool | None:
        """False if an operator has disabled it in neutron; None if that was not collected."""
        said = self.raw.get("admin_state_up")
        return said if isinstance(said, bool) else None

    @property
    def integration_bridge(self) -> str | None:
        """Bridge that it plugs guests into; None for an agent without one."""
        return _word(self._configurations, "integration_bridge")

    @property
    def tunneling_ip(self) -> str | None:
        """The host's address for tunnels to other hosts; None without tunnels."""
        return _word(self._configurations, "tunneling_ip") or None

    @property
    def bridge_mappings(self) -> Mapping[str, str]:
        """Physical network → bridge. OVN's agent reports them as `physnet1:br-ex,…`."""
        config = self._configurations
        found = config.get("bridge_mappings", config.get("bridge-mappings"))
        if isinstance(found, str):
            pairs = (pair.strip().partition(":") for pair in found.split(","))
            return {net: bridge for net, _, bridge in pairs if bridge}
        items = found.items() if isinstance(found, dict) else ()
        return {net: bridge for net, bridge in items if isinstance(bridge, str)}

    @property
    def _configurations(self) -> Mapping[str, object]:
        return mapping(self.raw, "configurations")

    @property
    def heartbeat(self) -> str | None:
        """Time of the agent's last heartbeat, UTC."""
        return text(self.raw, "heartbeat_timestamp")


def _word(config: Mapping[str, object], key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) else None
