"""Allow-list for the column in which nova caches the ports of an instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.neutron_api import network_body
from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import Shape, kept_json, words

_VIF_META = Shape(
    words(
        "injected tenant_id mtu physical_network tunneled multi_host bridge vlan rxtx_cap"
        " should_create_bridge should_create_vlan bridge_interface"
    )
)
_VIF_ADDRESS = Shape(words("address type version"), {"meta": Shape()})
_VIF_SUBNET = Shape(
    words("cidr version"),
    {
        "dns": _VIF_ADDRESS,
        "gateway": _VIF_ADDRESS,
        "ips": Shape(
            words("address type version"), {"meta": Shape(), "floating_ips": _VIF_ADDRESS}
        ),
        "routes": Shape(words("cidr interface"), {"gateway": _VIF_ADDRESS, "meta": Shape()}),
        "meta": Shape(words("dhcp_server")),
    },
)
_VIF = Shape(
    words(
        "id address type devname ovs_interfaceid active vnic_type preserve_on_delete"
        " delegate_create"
    ),
    {
        "network": Shape(
            words("id bridge label"),
            {
                "subnets": _VIF_SUBNET,
                "meta": _VIF_META,
            },
        ),
        "meta": _VIF_META,
        "qbh_params": Shape(),
        "qbg_params": Shape(words("profileid")),
    },
)


def network_info(text: str) -> str:
    """Keep the allowed keys of the column instance_info_caches.network_info."""
    return str(kept_json(text, _vifs)) if text else WITHHELD


def _vifs(vifs: Any) -> Any:
    if not isinstance(vifs, list) or not all(isinstance(vif, dict) for vif in vifs):
        raise ValueError
    return [_vif(vif) for vif in vifs]


def _vif(vif: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the allowed keys of a port; binding details and profile as in neutron's API."""
    kept = _VIF.kept(vif)
    of_driver = {key: network_body(vif[key]) for key in ("details", "profile") if key in vif}
    return {key: {**kept, **of_driver}[key] for key in vif if key in kept or key in of_driver}
