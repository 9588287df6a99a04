"""Allow-list for what keystone says of a log-in: no token, and nothing that opens anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ENDPOINT = ("interface", "region", "region_id", "url")


def catalog(services: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep of keystone's catalog which services there are, and where."""
    return [
        {
            "type": service.get("type"),
            "name": service.get("name"),
            "endpoints": [
                {key: endpoint.get(key) for key in _ENDPOINT}
                for endpoint in service.get("endpoints", ())
            ],
        }
        for service in services
    ]
