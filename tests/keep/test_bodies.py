from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import FAULTS, HEALTHY

from hoodsnap.bundle import load
from hoodsnap.keep.cinder_api import volume_body
from hoodsnap.keep.connection_info import connection_info
from hoodsnap.keep.glance_api import image_body
from hoodsnap.keep.network_info import network_info
from hoodsnap.keep.neutron_api import network_body
from hoodsnap.keep.nova_api import KINDS, api_body
from hoodsnap.keep.placement_api import placement_body
from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import Names, Shape
from hoodsnap.keep.tables import SYSTEM_METADATA
from hoodsnap.keep.versioned_object import nova_object, request_spec

SECRET = "sesame42"  # noqa: S105 (planted, and searched for)

VOLUME = {
    "driver_volume_type": "iscsi",
    "serial": "c3986145-e8da-4fae-bf62-e538855cec65",
    "data": {
        "target_iqn": "iqn.2010-10.org.openstack:volume-c3986145",
        "target_portal": "10.0.0.5:3260",
        "target_lun": 1,
        "device_path": "/dev/sdb",
        "qos_specs": {"total_iops_sec": "500"},
    },
}

# Keys that are kept of a driver, keys that must not be kept, and any others.
KEYS = st.sampled_from(
    [*VOLUME, "target_iqns", "hosts", "qos_specs", "auth_password", "secret_uuid", "keyring"]
) | st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
_KEPT_TEXT = """
driver_volume_type serial volume_id instance status attached_at detached_at multiattach data
qos_specs consumer target_iqn target_iqns target_lun target_luns target_portal target_portals
target_wwn target_nqn nqn volume_nguid ns_id device_path multipath_id export name format encrypted
access_mode hosts ports discard cluster_name
"""
KEPT = set(_KEPT_TEXT.split())


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys(item)


def test_a_connection_without_credentials_is_kept_verbatim() -> None:
    assert connection_info(json.dumps(VOLUME)) == json.dumps(VOLUME)


@pytest.mark.parametrize(
    "data",
    [
        {"auth_method": "CHAP", "auth_username": SECRET, "auth_password": SECRET},
        {"discovery_auth_password": SECRET, "secret_type": "ceph", "secret_uuid": SECRET},
        {"keyring": f"[client.cinder]\nkey = {SECRET}\n"},
        {"options": f"-o username=cinder,password={SECRET}"},
        {"hosts": [{"auth": SECRET}]},
        {"qos_specs": {"consumer": "front-end", "auth_password": SECRET}},
    ],
)
def test_no_credential_of_a_volume_is_kept(data: dict[str, Any]) -> None:
    kept = connection_info(json.dumps({**VOLUME, "data": {**VOLUME["data"], **data}}))  # type: ignore[dict-item]  # a literal of mixed values

    assert SECRET not in kept
    assert json.loads(kept)["data"]["target_lun"] == 1


@given(JSON)
def test_no_unlisted_key_of_a_connection_is_kept(value: Any) -> None:
    kept = connection_info(json.dumps(value))

    if kept != WITHHELD:
        assert not set(keys(json.loads(kept))) - KEPT


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '"x"', "[" * 100_000])
def test_a_text_that_is_no_json_object_is_withheld(text: str) -> None:
    assert network_info(text) == ("[]" if text == "[]" else WITHHELD)
    assert connection_info(text) == WITHHELD
    assert request_spec(text) == WITHHELD


def test_a_request_spec_keeps_what_decides_about_the_next_move() -> None:
    data = {
        "instance_uuid": "c5925b92",
        "availability_zone": "az1",
        "force_hosts": ["vm"],
        "scheduler_hints": {"group": ["g1"], "password": [SECRET]},
        "requested_networks": {"fixed_ip": SECRET},
        "requested_destination": {
            "nova_object.data": {
                "host": "vm",
                "cell": {
                    "nova_object.data": {"transport_url": SECRET, "database_connection": SECRET}
                },
            }
        },
        "flavor": {"nova_object.data": {"vcpus": 1}, "nova_object.changes": ["vcpus"]},
    }
    spec = {
        "nova_object.name": "RequestSpec",
        "nova_object.version": "1.14",
        "nova_object.data": data,
    }

    kept = request_spec(json.dumps(spec))

    assert SECRET not in kept
    data = json.loads(kept)["nova_object.data"]
    assert data["scheduler_hints"] == {"group": ["g1"], "password": WITHHELD}
    assert data["requested_destination"]["nova_object.data"]["host"] == "vm"
    assert data["flavor"] == {"nova_object.data": {"vcpus": 1}}
    assert data["force_hosts"] == ["vm"]


def test_values_of_unknown_keys_in_a_cached_port_profile_are_withheld() -> None:
    plain = {"id": "127bc193", "profile": {}, "meta": {"mtu": 1450}}
    odd = {**plain, "profile": {"pci_slot": "0000:3b:02.1", "token": SECRET, "x": [SECRET]}}

    assert network_info(json.dumps([plain])) == json.dumps([plain])
    assert json.loads(network_info(json.dumps([plain, odd]))) == [
        plain,
        {**odd, "profile": {"pci_slot": "0000:3b:02.1", "token": WITHHELD, "x": WITHHELD}},
    ]


def test_image_properties_that_nova_acts_on_stay_in_a_request_spec() -> None:
    properties = {"hw_cpu_policy": "dedicated", "os_command_line": SECRET, "traits_required": ["T"]}
    image = {"id": "f4cc0a13", "properties": {"nova_object.data": properties}}
    spec = {"nova_object.data": {"image": {"nova_object.data": image}}}

    kept = json.loads(request_spec(json.dumps(spec)))["nova_object.data"]["image"]

    assert kept["nova_object.data"] == {
        "id": "f4cc0a13",
        "properties": {
            "nova_object.data": {"hw_cpu_policy": "dedicated", "traits_required": ["T"]}
        },
    }


@pytest.mark.parametrize("properties", [None, [SECRET], {"os_command_line": SECRET}])
def test_an_image_of_another_shape_keeps_nothing_unknown(properties: object) -> None:
    for image in ({"nova_object.data": {"properties": properties}}, {"properties": properties}):
        spec = {"nova_object.data": {"image": image}}

        assert SECRET not in request_spec(json.dumps(spec))


def test_users_texts_about_a_volume_are_withheld_and_their_keys_stay() -> None:
    metadata = {"image_id": "f4cc0a13", "image_name": "debian", "min_ram": "0", "license": SECRET}
    volume = {"id": "c3986145", "description": SECRET, "metadata": {"plan": SECRET}}
    plain = {"id": "5a2c9d10", "description": None}
    empty = {"id": "b7707b4c", "description": ""}

    assert volume_body(
        {"volumes": [{**volume, "volume_image_metadata": metadata}, plain, empty]}
    ) == {
        "volumes": [
            {
                "id": "c3986145",
                "description": WITHHELD,
                "metadata": {"plan": WITHHELD},
                "volume_image_metadata": {**metadata, "license": WITHHELD},
            },
            plain,
            empty,
        ]
    }


def test_a_server_is_kept_except_for_its_secrets() -> None:
    server = {
        "id": "c5925b92",
        "metadata": {"role": "db", "password": SECRET},
        "OS-EXT-SRV-ATTR:user_data": SECRET,
        "adminPass": SECRET,
        "fault": {"code": 500, "message": "No valid host", "details": f"Traceback {SECRET}"},
        "addresses": {"lab-net": [{"addr": "10.20.0.3", "version": 4}]},
    }

    assert api_body({"servers": [server]}) == {
        "servers": [
            {
                "id": "c5925b92",
                "metadata": {"role": WITHHELD, "password": WITHHELD},
                "OS-EXT-SRV-ATTR:user_data": WITHHELD,
                "adminPass": WITHHELD,
                "fault": {"code": 500, "message": "No valid host", "details": WITHHELD},
                "addresses": {"lab-net": [{"addr": "10.20.0.3", "version": 4}]},
            }
        ]
    }


def test_empty_user_data_stays_empty() -> None:
    server: dict[str, Any] = {"OS-EXT-SRV-ATTR:user_data": None, "description": None, "tags": []}

    assert api_body({"server": server}) == {"server": server}


def test_users_texts_are_withheld_and_their_keys_stay() -> None:
    server = {
        "description": SECRET,
        "locked_reason": SECRET,
        "tags": [SECRET, "b"],
        "name": "web",
        "OS-SCH-HNT:scheduler_hints": {"password": SECRET},
        "keypair": {"private_key": SECRET},
        "of_a_later_microversion": SECRET,
    }

    assert api_body({"server": server, SECRET: [SECRET], "private_key": SECRET}) == {
        "server": {
            "description": WITHHELD,
            "locked_reason": WITHHELD,
            "tags": [WITHHELD, WITHHELD],
            "name": "web",
        }
    }


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (
            {"keypairs": [{"keypair": {"name": "k", "private_key": SECRET, "public_key": SECRET}}]},
            {"keypairs": [{"keypair": {"name": "k", "private_key": WITHHELD,
                                       "public_key": WITHHELD}}]},
        ),
        (
            {"aggregates": [{"name": "a", "metadata": {"availability_zone": "az", "k": SECRET}}]},
            {"aggregates": [{"name": "a", "metadata": {"availability_zone": "az", "k": WITHHELD}}]},
        ),
        (
            {"hypervisors": [{"cpu_info": json.dumps({"model": "m", "x": SECRET})}]},
            {"hypervisors": [{"cpu_info": json.dumps({"model": "m"})}]},
        ),
        (
            {"instanceAction": {"action": "stop", "events": [{"event": "e", "details": SECRET}]}},
            {"instanceAction": {"action": "stop", "events": [{"event": "e", "details": WITHHELD}]}},
        ),
        ({"server_groups": [{"rules": {"x": SECRET}}]}, {"server_groups": [{"rules": {}}]}),
        ({"servers": [{"image": "", "flavor": SECRET}]},
         {"servers": [{"image": "", "flavor": WITHHELD}]}),
        ({"servers": SECRET, "servers_links": [{"rel": "next", "href": "u", "x": SECRET}]},
         {"servers": WITHHELD, "servers_links": [{"rel": "next", "href": "u"}]}),
    ],
)  # fmt: skip
def test_each_kind_of_body_keeps_its_own_keys(body: dict[str, Any], kept: object) -> None:
    assert api_body(body) == kept


def _known(shape: Shape | Names) -> Iterator[str]:
    if isinstance(shape, Names):
        if shape.shape is not None:
            yield from _known(shape.shape)
        return
    yield from (*shape.plain, *shape.hidden, *shape.inner, *shape.documents)
    for inner in (*shape.inner.values(), *shape.documents.values()):
        yield from _known(inner)


_OF_NOVA = {key for shape in KINDS.values() for key in _known(shape)} | set(KINDS)

BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted(_OF_NOVA)) | st.text(min_size=1, max_size=8).map("x-".__add__),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


def _unnamed(value: Any) -> Any:
    """Return the value without the objects whose keys users choose."""
    names = ("addresses", "metadata", "extra_specs", "description", "tags", "user_data")
    if isinstance(value, dict):
        return {key: _unnamed(item) for key, item in value.items() if key not in names}
    return [_unnamed(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.sampled_from(sorted(KINDS)) | st.text(max_size=8), BODIES))
def test_no_unknown_key_of_a_body_of_any_microversion_is_kept(body: dict[str, Any]) -> None:
    kept = _unnamed(api_body(body))
    hidden = {key for shape in KINDS.values() for key in _hidden(shape)}

    assert set(keys(_without(kept, hidden))) <= _OF_NOVA | {f"{kind}_links" for kind in KINDS}


def _hidden(shape: Shape | Names) -> Iterator[str]:
    if isinstance(shape, Shape):
        yield from shape.hidden
        for inner in (*shape.inner.values(), *shape.documents.values()):
            yield from _hidden(inner)
    elif shape.shape is not None:
        yield from _hidden(shape.shape)


def _without(value: Any, names: set[str]) -> Any:
    """Return the value without the entries under these keys, whose values are withheld."""
    if isinstance(value, dict):
        return {k: _without(item, names) for k, item in value.items() if k not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=8), BODIES))
def test_no_unknown_key_of_a_body_of_placement_or_cinder_is_kept(body: dict[str, Any]) -> None:
    assert not {key for key in placement_body(body) if key.startswith("x-")}
    assert not {key for key in volume_body(body) if key.startswith("x-")}


def test_the_user_and_options_in_a_volumes_location_are_withheld() -> None:
    for data, kept in (
        ({"export": f"//u:{SECRET}@h/share"}, {"export": f"//{WITHHELD}@h/share"}),
        ({"name": f"rbd://p/v?key={SECRET}"}, {"name": f"rbd://p/v?{WITHHELD}"}),
        ({"export": "vm@nfs:/srv/volumes"}, {"export": "vm@nfs:/srv/volumes"}),
    ):
        info = json.loads(connection_info(json.dumps({"data": data})))

        assert info == {"data": kept}


def test_an_attachment_without_a_driver_is_kept() -> None:
    body = {"attachment": {"id": "a", "connection_info": {"export": "h:/x"}}}

    assert volume_body(body) == body


def test_unknown_keys_of_a_cached_port_are_not_kept() -> None:
    vif = {
        "id": "127bc193",
        "details": {"bridge_name": "br-int", "token": SECRET},
        "network": {"id": "n", "meta": {"mtu": 1450, "note": SECRET}},
        "later": SECRET,
    }

    assert json.loads(network_info(json.dumps([vif]))) == [
        {
            "id": "127bc193",
            "details": {"bridge_name": "br-int", "token": WITHHELD},
            "network": {"id": "n", "meta": {"mtu": 1450}},
        }
    ]


def test_a_versioned_object_keeps_its_known_fields() -> None:
    cell = {"id": 0, "cpu_pinning_raw": {"0": 3}, "note": SECRET}
    flavor = {"vcpus": 1, "extra_specs": {"hw:cpu_policy": "dedicated"}, "description": SECRET}
    column = {"cur": {"nova_object.data": {**flavor, "cells": [{"nova_object.data": cell}]}}}

    kept = json.loads(nova_object(json.dumps(column)))["cur"]["nova_object.data"]

    assert kept == {
        **flavor,
        "description": WITHHELD,
        "cells": [{"nova_object.data": {"id": 0, "cpu_pinning_raw": {"0": 3}}}],
    }


def test_an_ovn_chassis_and_its_bridge_mappings_stay() -> None:
    options = {"chassis_name": "c1", "bridge-mappings": "physnet1:br-ex", "x": SECRET}

    kept = network_body({"agents": [{"configurations": options, "description": SECRET}]})

    assert kept["agents"][0] == {
        "configurations": {**options, "x": WITHHELD},
        "description": WITHHELD,
    }


def test_a_long_image_property_is_cut() -> None:
    kept = image_body({"hw_machine_type": "x" * 10_000, "hw_video_model": {"a": SECRET}})

    assert kept["hw_machine_type"].endswith("x[withheld: 5904 more characters]")
    assert kept["hw_video_model"] == WITHHELD


@pytest.mark.parametrize("path", [HEALTHY, *sorted(FAULTS.glob("*.zst"))[::9]])
def test_recorded_answers_are_kept_unchanged(path: Path) -> None:
    """Except for users' texts: the recordings are older than the rule that withholds them."""
    keep = {"nova": api_body, "cinder": volume_body, "placement": placement_body}
    for answer in load(path).answers:
        if answer.layer in keep and answer.error is None and not answer.query.startswith("HEAD"):
            assert keep[answer.layer](answer.value) == answer.value


def test_image_properties_that_nova_acts_on_stay() -> None:
    image = {
        "id": "ee3f0f1c",
        "hw_disk_bus": "virtio",
        "os_distro": "debian",
        "os_admin_password": SECRET,
        "license": SECRET,
        "direct_url": f"swift+https://tenant:user:{SECRET}@keystone/v3/glance/ee3f0f1c",
        "locations": [{"url": "rbd://f5b/images/ee3f0f1c/snap", "metadata": {"key": SECRET}}],
    }

    assert image_body(image) == {
        "id": "ee3f0f1c",
        "hw_disk_bus": "virtio",
        "os_distro": "debian",
        "os_admin_password": WITHHELD,
        "license": WITHHELD,
        "direct_url": WITHHELD,
        "locations": [{"url": "rbd://f5b/images/ee3f0f1c/snap"}],
    }


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("image_hw_machine_type", True),
        ("image_base_image_ref", True),
        ("instance_type_memory_mb", True),
        ("old_instance_type_id", True),
        ("new_instance_type_flavorid", True),
        ("shelved_image_id", True),
        ("clean_attempts", True),
        ("vtpm_secret_uuid", True),
        ("image_license", False),
        ("image_os_admin_password", False),
        ("boot_roles", False),
        ("owner_user_name", False),
        ("password_0", False),
        ("xclean_attempts", False),
    ],
)
def test_system_metadata_is_read_by_its_keys(key: str, kept: bool) -> None:
    assert (re.search(SYSTEM_METADATA, key) is not None) == kept
