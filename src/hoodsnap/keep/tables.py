"""Allow-list for nova's databases: the tables that are read, and the columns of each.

It lists the columns of all releases; those that a database does not have are left out of a query.
Columns that are not listed (user data, key material, tokens, tracebacks) are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hoodsnap.keep.connection_info import connection_info
from hoodsnap.keep.glance_api import IMAGE_PROPERTIES
from hoodsnap.keep.log_line import line_without_secrets
from hoodsnap.keep.network_info import network_info
from hoodsnap.keep.shape import hidden
from hoodsnap.keep.versioned_object import nova_object, request_spec

RECENT = "UTC_TIMESTAMP() - INTERVAL 7 DAY"


Rows = dict[str, list[Any]]
"""Rows of a table: `{"columns": [name, ...], "rows": [[value, ...], ...]}`"""


@dataclass(frozen=True)
class ReadableTable:
    """Table of which only these columns may be read."""

    name: str

    columns: tuple[str, ...]
    """Columns that may be read."""

    key: str = "instance_uuid"
    """Column by which rows are selected."""

    only: str = ""
    """Further condition in SQL; `{database}` stands for the database's name."""

    keep: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    """Column → function that returns the part of its text that may be kept."""

    def kept(self, rows: Rows) -> Rows:
        """Apply `keep` to rows of this table, in place, and return them."""
        for number, column in enumerate(rows["columns"]):
            if column in self.keep:
                for row in rows["rows"]:
                    if isinstance(row[number], str):
                        row[number] = self.keep[column](row[number])
        return rows


SYSTEM_METADATA = (
    f"^(image_({IMAGE_PROPERTIES})"
    "|((old|new)_)?instance_type_.+|old_vm_state|clean_attempts"
    "|shelved_(at|host|image_id)|vtpm_secret_uuid)$"
)
"""Keys of instance_system_metadata whose rows are read, as a regular expression for MySQL."""


def _newest(table: str, count: int) -> str:
    """Return the condition for the newest rows per instance, in SQL for every release of MySQL."""
    return (
        f"{table}.id >= COALESCE((SELECT newer.id FROM {{database}}.{table} AS newer"  # noqa: S608 (names of this file)
        f" WHERE newer.instance_uuid = {table}.instance_uuid"
        f" ORDER BY newer.id DESC LIMIT {count - 1}, 1), 0)"
    )


# A server that attaches and detaches volumes all day leaves thousands of deleted rows. For a
# deleted server, its deleted rows are all that is left, so they are read.
_NOT_LONG_DELETED = (
    f"(deleted = 0 OR deleted_at > {RECENT} OR instance_uuid NOT IN"  # noqa: S608 (a constant)
    " (SELECT uuid FROM {database}.instances WHERE deleted = 0))"
)


def _columns(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_INSTANCE_MARKERS = _columns("uuid host node vm_state task_state power_state updated_at deleted")

INSTANCE_MARKERS = ReadableTable("instances", _INSTANCE_MARKERS, key="uuid")
"""Columns that change when an instance changes. Read first and last, with the same query."""

MIGRATION_MARKERS = ReadableTable(
    "migrations",
    _columns(
        "uuid status updated_at id instance_uuid migration_type source_compute dest_compute deleted"
    ),
)
"""Columns that change while an instance is migrated or resized."""

INSTANCES = ReadableTable(
    "instances",
    _columns(
        "id uuid host node compute_id vm_state task_state power_state created_at"
        " updated_at deleted_at deleted cleaned hidden launched_at terminated_at"
        " scheduled_at launched_on display_name display_description hostname user_id"
        " project_id image_ref kernel_id ramdisk_id key_name memory_mb vcpus root_gb"
        " ephemeral_gb instance_type_id availability_zone config_drive root_device_name"
        " default_ephemeral_device default_swap_device ephemeral_key_uuid os_type vm_mode"
        " architecture launch_index reservation_id access_ip_v4 access_ip_v6 progress"
        " auto_disk_config shutdown_terminate disable_terminate locked locked_by cell_name"
        " internal_id"
    ),
    key="uuid",
    keep={"display_description": hidden},
)

SHADOW_INSTANCES = ReadableTable(
    "shadow_instances",
    _columns(
        "id uuid host node vm_state task_state power_state created_at updated_at"
        " deleted_at deleted cleaned display_name project_id image_ref"
    ),
    key="uuid",
)
"""Table to which `nova-manage db archive_deleted_rows` moves deleted instances."""

MIGRATIONS = ReadableTable(
    "migrations",
    _columns(
        "id uuid instance_uuid migration_type status created_at updated_at deleted"
        " source_compute source_node dest_compute dest_node dest_host dest_compute_id"
        " old_instance_type_id new_instance_type_id hidden cross_cell_move memory_total"
        " memory_processed memory_remaining disk_total disk_processed disk_remaining"
        " user_id project_id"
    ),
)

MIGRATIONS_BY_UUID = ReadableTable("migrations", MIGRATIONS.columns, key="uuid")
"""Migrations by their own UUIDs, under which they hold resources in placement since Queens."""

ACTIONS = ReadableTable(
    "instance_actions",
    _columns(
        "id action instance_uuid request_id user_id project_id start_time finish_time"
        " message created_at updated_at"
    ),
    only=_newest("instance_actions", 10),
    keep={"message": line_without_secrets},
)

EVENTS = ReadableTable(
    "instance_actions_events",
    _columns("id action_id event start_time finish_time result host"),
    key="action_id",
)

_MAPPING = _columns(
    "id uuid instance_uuid boot_index source_type destination_type device_name"
    " device_type disk_bus guest_format volume_id volume_size volume_type"
    " snapshot_id image_id attachment_id no_device delete_on_termination tag"
    " encrypted encryption_format encryption_secret_uuid connection_info"
    " virtual_name created_at updated_at deleted_at deleted"
)

_OF_MAPPING: Mapping[str, Callable[[str], str]] = {
    "connection_info": connection_info,
    "tag": hidden,
}

MAPPING_MARKERS = ReadableTable(
    "block_device_mapping",
    _columns("updated_at id instance_uuid volume_id attachment_id deleted"),
    only="deleted = 0",
)
"""Columns that change when a volume is attached or detached. The row in `instances` does not."""

MAPPINGS_OF_VOLUMES = ReadableTable(
    "block_device_mapping",
    _MAPPING,
    key="volume_id",
    only="deleted = 0",
    keep=_OF_MAPPING,
)
"""Block device mappings by volume id, of instances on any host."""

MAPPINGS_OF_DELETED = (
    "deleted = 0 AND volume_id IS NOT NULL AND instance_uuid IN"
    " (SELECT uuid FROM {instances} WHERE deleted <> 0{host})"
)
"""Condition for rows of MAPPINGS_OF_VOLUMES that have outlived their instance."""

OF_AN_INSTANCE = (
    ReadableTable(
        "instance_extra",
        _columns(
            "instance_uuid flavor numa_topology pci_requests vcpu_model migration_context"
            " vpmems resources updated_at deleted"
        ),
        keep=dict.fromkeys(
            (
                *("flavor", "numa_topology", "pci_requests", "vcpu_model"),
                *("migration_context", "vpmems", "resources"),
            ),
            nova_object,
        ),
    ),
    ReadableTable(
        "instance_system_metadata",
        _columns("instance_uuid key value deleted"),
        only=f"`key` REGEXP '{SYSTEM_METADATA}'",
    ),
    ReadableTable(
        "block_device_mapping",
        _MAPPING,
        only=_NOT_LONG_DELETED,
        keep=_OF_MAPPING,
    ),
    ReadableTable(
        "instance_info_caches",
        _columns("instance_uuid network_info updated_at deleted"),
        keep={"network_info": network_info},
    ),
    ReadableTable(
        "instance_faults",
        _columns("id instance_uuid code message host created_at deleted"),
        only=_newest("instance_faults", 3),
        keep={"message": line_without_secrets},
    ),
    ReadableTable("instance_id_mappings", _columns("id uuid deleted"), key="uuid"),
    ReadableTable(
        "virtual_interfaces",
        _columns("id uuid instance_uuid address network_id tag created_at deleted_at deleted"),
        only=_NOT_LONG_DELETED,
        keep={"tag": hidden},
    ),
    ReadableTable(
        "console_auth_tokens",
        _columns("id instance_uuid console_type host port tls_port expires created_at"),
    ),
    MIGRATIONS,
)
"""Tables of a cell's database that are read by instance UUID."""

PCI_DEVICES = ReadableTable(
    "pci_devices",
    _columns(
        "id uuid compute_node_id address parent_addr vendor_id product_id dev_type dev_id"
        " label status extra_info instance_uuid request_id numa_node updated_at deleted"
    ),
    key="compute_node_id",
)

SERVICES = ReadableTable(
    "services",
    _columns(
        "id uuid host binary topic report_count disabled disabled_reason last_seen_up"
        " forced_down version created_at updated_at deleted_at deleted"
    ),
)

COMPUTE_NODES = ReadableTable(
    "compute_nodes",
    _columns(
        "id uuid service_id host hypervisor_hostname host_ip hypervisor_type"
        " hypervisor_version vcpus vcpus_used memory_mb memory_mb_used free_ram_mb"
        " local_gb local_gb_used free_disk_gb disk_available_least running_vms"
        " current_workload cpu_allocation_ratio ram_allocation_ratio disk_allocation_ratio"
        " cpu_info supported_instances numa_topology pci_stats metrics stats"
        " extra_resources mapped created_at updated_at deleted_at deleted"
    ),
)

CELL_MAPPINGS = ReadableTable(
    "cell_mappings", _columns("id uuid name disabled database_connection")
)
"""Cells. `database_connection` is the only column that is read but not kept: it is the URL of a
cell's database."""

API_OF_AN_INSTANCE = (
    ReadableTable(
        "instance_mappings",
        _columns(
            "id instance_uuid cell_id project_id user_id queued_for_delete created_at updated_at"
        ),
    ),
    ReadableTable(
        "request_specs",
        _columns("id instance_uuid spec created_at updated_at"),
        keep={"spec": request_spec},
    ),
    ReadableTable("build_requests", _columns("id instance_uuid created_at updated_at")),
)
"""Tables of the API database that are read by instance UUID."""

HOST_MAPPINGS = ReadableTable(
    "host_mappings", _columns("id cell_id host created_at updated_at"), key="host"
)

AGGREGATES = (
    ReadableTable("aggregates", _columns("id uuid name deleted")),
    ReadableTable("aggregate_hosts", _columns("id host aggregate_id deleted")),
    ReadableTable(
        "aggregate_metadata",
        _columns("id aggregate_id key value deleted"),
        only="`key` = 'availability_zone'",
    ),
)
"""Tables that are read whole, because a host's availability zone is that of its aggregate. Before
Newton they are in the cell's database."""

GROUP_MEMBERS = ReadableTable(
    "instance_group_member", _columns("id instance_uuid group_id created_at")
)

OLD_GROUP_MEMBERS = ReadableTable(
    "instance_group_member", _columns("id instance_id group_id deleted"), key="instance_id"
)
"""Group members in a cell's database, before Newton. `instance_id` holds a UUID all the same."""

GROUPS = (
    ReadableTable("instance_groups", _columns("id uuid name user_id project_id deleted"), key="id"),
    ReadableTable(
        "instance_group_policy", _columns("id group_id policy rules deleted"), key="group_id"
    ),
)
"""Tables that are read by group id."""

_FLAVOR = _columns(
    "id flavorid name memory_mb vcpus root_gb ephemeral_gb swap vcpu_weight rxtx_factor"
    " disabled is_public deleted"
)

FLAVORS = (
    ReadableTable("flavors", _FLAVOR, key="id"),
    ReadableTable("flavor_extra_specs", _columns("id flavor_id key value"), key="flavor_id"),
)
"""Tables that are read by flavor id."""

INSTANCE_TYPES = (
    ReadableTable("instance_types", _FLAVOR, key="id"),
    ReadableTable(
        "instance_type_extra_specs",
        _columns("id instance_type_id key value deleted"),
        key="instance_type_id",
    ),
)
"""Tables of flavors in a cell's database before Mitaka."""
