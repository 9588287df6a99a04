"""Stand-in for keystone, as far as clients need it: tokens, and the catalog of APIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoodsnap.replay.apis.services import SERVICES, ReplayedApi
from hoodsnap.replay.recording import NotRecordedError, Recording

REGION = "RegionOne"


class Keystone:
    """Keystone that gives every client a token for the user who collected the bundle."""

    def __init__(self, recording: Recording, base: str) -> None:
        self._recording = recording
        self._base = base

    def discovery(self, path: str) -> tuple[int, Any, str]:
        """Return status, body and (empty) microversion of the documents that list versions."""
        version = {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self._base}/v3/"}],
            "media-types": [],
        }
        if path:
            return 200, {"version": version}, ""
        return 300, {"versions": {"values": [version]}}, ""

    @property
    def project(self) -> Mapping[str, Any]:
        """The project of the user who collected; empty if it was not recorded."""
        found = self._access().get("project")
        return found if isinstance(found, dict) else {}

    def _access(self) -> Mapping[str, Any]:
        """Return keystone's recorded answer about the token of the user who collected."""
        try:
            value = self._recording.value("keystone", "GET /v3/auth/tokens")
        except NotRecordedError:
            return {}
        token = value.get("token") if isinstance(value, dict) else None
        return token if isinstance(token, dict) else {}

    def token(self) -> Any:
        """Return a token that is valid for these stand-ins only, for the user who collected."""
        access = self._access()
        domain = {"id": "default", "name": "Default"}
        catalog = [self._endpoints(service, kind) for service in SERVICES for kind in service.types]
        return {
            "token": {
                "methods": ["password"],
                "user": {
                    "domain": domain,
                    **(access.get("user") or {"id": "recorded", "name": "recorded"}),
                },
                "project": {
                    "domain": domain,
                    **(access.get("project") or {"id": "recorded", "name": "recorded"}),
                },
                "roles": access.get("roles") or [{"id": "reader", "name": "reader"}],
                "audit_ids": ["hoodsnap"],
                "is_domain": False,
                "issued_at": "2000-01-01T00:00:00.000000Z",
                "expires_at": "2999-01-01T00:00:00.000000Z",
                "catalog": catalog,
            }
        }

    def _endpoints(self, service: ReplayedApi, kind: str) -> dict[str, Any]:
        """The entry of the catalog for one of a service's types."""
        endpoints = [
            {
                "id": f"{kind}-{interface}",
                "interface": interface,
                "region": REGION,
                "region_id": REGION,
                "url": self._base + service.endpoint,
            }
            for interface in ("public", "internal", "admin")
        ]
        return {"type": kind, "name": kind, "id": kind, "endpoints": endpoints}
