"""neutron's subnets, routers and floating IPs: what its API lists beside ports and networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, mapping, text


@dataclass(frozen=True, eq=False)
class NeutronItem:
    """An item of one of neutron's lists. Fields that were not collected raise `UnheardError`."""

    raw: Mapping[str, object]
    answer: Answer
    """The list that has it."""

    @property
    def id(self) -> str:
        """Its id, lower case."""
        return (text(self.raw, "id") or "").lower()

    @property
    def network_id(self) -> str | None:
        """Id of its network."""
        return text(self.raw, "network_id")

    def _list(self, key: str) -> Iterator[Mapping[str, object]]:
        listed = self.raw.get(key)
        if not isinstance(listed, list):
            raise UnheardError(f"{key} was not collected")
        yield from (item for item in listed if isinstance(item, dict))


class Subnet(NeutronItem):
    """One subnet."""

    @property
    def cidr(self) -> str | None:
        """Its addresses: `10.20.0.0/24`."""
        return text(self.raw, "cidr")

    @property
    def gateway(self) -> str | None:
        """Address of its gateway; None without one."""
        return text(self.raw, "gateway_ip")

    @property
    def dns(self) -> tuple[str, ...]:
        """Name servers that guests are given."""
        listed = self.raw.get("dns_nameservers")
        if not isinstance(listed, list):
            raise UnheardError("dns_nameservers was not collected")
        return tuple(str(ip) for ip in listed)

    @property
    def serves_dhcp(self) -> bool:
        """True if neutron's DHCP servers give out its addresses."""
        return self.raw.get("enable_dhcp") is True

    @property
    def is_ipv4(self) -> bool:
        """True for IPv4."""
        return self.raw.get("ip_version") == 4

    @property
    def segment(self) -> str | None:
        """Segment of a routed network; None for a network of one segment."""
        found = self.raw.get("segment_id")
        return found if isinstance(found, str) else None

    @property
    def pools(self) -> tuple[tuple[str, str], ...]:
        """First and last address of each range that ports get their addresses from."""
        pools = self._list("allocation_pools")
        return tuple((text(pool, "start") or "", text(pool, "end") or "") for pool in pools)


class Router(NeutronItem):
    """One router."""

    @property
    def name(self) -> str:
        """Its name, chosen by its owner."""
        return text(self.raw, "name") or ""

    @property
    def is_plain(self) -> bool:
        """True if one host routes for it: it is neither distributed nor highly available.

        Tenants don't see that.
        """
        for key in ("distributed", "ha"):
            if key not in self.raw:
                raise UnheardError(f"neutron API: {key} of the router was not collected")
        return not self.raw["distributed"] and not self.raw["ha"]

    @property
    def gateway_network(self) -> str | None:
        """External network that it leads to; None without one."""
        return text(self._gateway, "network_id") if self._gateway else None

    @property
    def gateway_addresses(self) -> tuple[str, ...]:
        """Its addresses in the external network."""
        fixed = self._gateway.get("external_fixed_ips")
        ips = (ip.get("ip_address") for ip in fixed or () if isinstance(ip, dict))  # type: ignore[attr-defined]
        return tuple(ip for ip in ips if isinstance(ip, str))

    @property
    def translates(self) -> bool:
        """True if packets of its guests leave with the router's own address (SNAT)."""
        return self.snat is True

    @property
    def snat(self) -> bool | None:
        """`enable_snat` of its gateway; None without a gateway, or if that was not collected."""
        told = self._gateway.get("enable_snat")
        return told if isinstance(told, bool) else None

    @property
    def enabled(self) -> bool | None:
        """False if its owner has disabled it, so it routes nothing; None if not collected."""
        told = self.raw.get("admin_state_up")
        return told if isinstance(told, bool) else None

    @property
    def updated_at(self) -> str | None:
        """Time of the last update, UTC (Newton and later)."""
        return text(self.raw, "updated_at") if "updated_at" in self.raw else None

    @property
    def has_own_default(self) -> bool:
        """True if its owner gave it a default route."""
        return any(text(route, "destination") == "0.0.0.0/0" for route in self._list("routes"))

    @property
    def _gateway(self) -> Mapping[str, object]:
        if self.raw.get("external_gateway_info") is None and "external_gateway_info" in self.raw:
            return {}
        return mapping(self.raw, "external_gateway_info")


class FloatingIp(NeutronItem):
    """One floating IP that leads to a port."""

    @property
    def address(self) -> str:
        """The address outside."""
        return text(self.raw, "floating_ip_address") or ""

    @property
    def fixed(self) -> str | None:
        """The port's address that it leads to."""
        return text(self.raw, "fixed_ip_address")

    @property
    def port_id(self) -> str | None:
        """The port that it leads to; None if it is not in use."""
        return text(self.raw, "port_id")

    @property
    def router_id(self) -> str | None:
        """The router that translates it."""
        return text(self.raw, "router_id")

    @property
    def outside(self) -> str | None:
        """Id of the external network that it belongs to."""
        return text(self.raw, "floating_network_id")

    @property
    def status(self) -> str:
        """`ACTIVE` once the router's agent has set it up; `DOWN`, `ERROR`."""
        return text(self.raw, "status") or ""

    @property
    def updated_at(self) -> str | None:
        """Time of the last update, UTC (Newton and later)."""
        return text(self.raw, "updated_at")


class SecurityGroup(NeutronItem):
    """One security group."""

    @property
    def has_state(self) -> bool:
        """False if its rules hold for single packets, not for connections."""
        return self.raw.get("stateful") is not False

    @property
    def rules(self) -> tuple[Mapping[str, object], ...]:
        """Its rules: `direction`, `ethertype`, `protocol`, `remote_group_id` …"""
        return tuple(self._list("security_group_rules"))
