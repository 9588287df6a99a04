"""Allow-list for keystone's answer to a login: no token, and nothing else that gives access."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ENDPOINT = ("interface", "region", "region_id", "url")


def catalog(services: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep the services in keystone's catalog, and their endpoints."""
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
