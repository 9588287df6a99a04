"""A resize that waits for its confirmation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost


def _extra(host: RecordedHost, column: str) -> Any:
    instance = host.guest("vm-verify").instance
    assert instance is not None and instance.instance_extra
    return json.loads(str(instance.instance_extra[column]))


def _flavor(host: RecordedHost, which: str, **fields: object) -> None:
    stored = _extra(host, "flavor")
    stored[which]["nova_object.data"] |= fields
    host.row("instance_extra", host.uuid("vm-verify"), flavor=json.dumps(stored))


def _found(host: RecordedHost) -> list[str]:
    name = "resize-record-differs"
    return [f.headline for f in host.report().everything() if f.check.name == name]


@pytest.mark.parametrize("key", ["memory_mb", "vcpus", "root_gb", "ephemeral_gb", "swap"])
def test_resize_record_differs(host: RecordedHost, key: str) -> None:
    _flavor(host, "old", **{key: 77})

    [headline] = _found(host)
    assert headline.startswith(f"vm-verify's old flavor of its resize has {key} 77, but the flavor")


@pytest.mark.parametrize("key", ["flavorid", "name"])
def test_the_new_flavor_is_the_current_one(host: RecordedHost, key: str) -> None:
    _flavor(host, "new", **{key: "other"})

    assert len(_found(host)) == 2  # also from the flavor of its migration
    assert _found(host)[0].startswith(
        f"vm-verify's resize ends with a flavor of {key} other, but the server has one of "
    )


def test_the_migration_context_is_of_the_servers_migration(host: RecordedHost) -> None:
    context = _extra(host, "migration_context")
    context["nova_object.data"]["migration_id"] = 77
    host.row("instance_extra", host.uuid("vm-verify"), migration_context=json.dumps(context))

    assert _found(host) == [
        "vm-verify's resize is of migration 77 in its migration context, but its migration is 2"
    ]


def test_a_flavor_that_was_deleted_is_not_compared(host: RecordedHost) -> None:
    _flavor(host, "old", memory_mb=77)
    for answer in host.bundle.by_layer["nova-db"]:
        if ".flavors" in answer.query and answer.query.startswith("SELECT"):
            host.set("nova-db", answer.query, {**answer.value, "rows": []})

    assert _found(host) == []
