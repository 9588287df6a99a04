"""Names of the users and projects that requested an action."""

from __future__ import annotations

from hoodsnap.bundle import Bundle


class People:
    """Users and projects by id, as far as a bundle has their names.

    Only the account that the collector used is known by name: keystone lists no other accounts.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._names: dict[object, str] = {}
        for answer in bundle.asked("keystone", "GET /v3/auth/tokens"):
            token = answer.value.get("token") if isinstance(answer.value, dict) else None
            for key in ("user", "project"):
                account = token.get(key) if isinstance(token, dict) else None
                if isinstance(account, dict) and isinstance(account.get("name"), str):
                    self._names[(key, str(account.get("id")))] = account["name"]

    def who(self, user: object, project: object) -> str:
        """Return `by admin`, or `by demo of project lab`; ids for unknown names; "" if both are
        missing."""
        name, group = (
            str(self._names.get((key, str(id)), id)) if id else ""
            for key, id in (("user", user), ("project", project))
        )
        if not name:
            return f"in project {group}" if group else ""
        return f"by {name}" if group in ("", name) else f"by {name} of project {group}"
