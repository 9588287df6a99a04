"""The image cache."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer

LONG_AGO = "2020-01-01T00:00:00.000000Z"


def _base(host: RecordedHost, name: str) -> str:
    guest = host.guest(name)
    assert guest.images
    return guest.images[0].chain[-1].path


def _listing(host: RecordedHost) -> Answer:
    return host.last("images", f"find {host.top} -ls")


def _reapable(host: RecordedHost) -> list[tuple[str, str]]:
    return [
        (finding.severity.word, str(finding.evidence[0]))
        for finding in host.report().findings
        if finding.check.name == "base-image-reapable"
    ]


def test_base_image_reapable(host: RecordedHost) -> None:
    # nova has vm-snap, the only server made from its image, on another host.
    base = _base(host, "vm-snap")
    host.row("instances", host.uuid("vm-snap"), host="other")
    host.file(base, mtime=(_listing(host).at - timedelta(hours=5)).isoformat())

    assert _reapable(host) == [
        (
            "warning",
            f"images reports base = {base}, untouched_for = 5.0 hours, removed_after = 24.0 hours",
        )
    ]
    assert (
        "nova on vm will remove …/_base/a11ab982 in 19 h, but vm-snap uses it" in host.headlines()
    )


def test_base_image_reapable_at_the_next_pass(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-snap"), host="other")
    host.file(_base(host, "vm-snap"), mtime=LONG_AGO)

    assert [severity for severity, _ in _reapable(host)] == ["error"]
    assert (
        "nova on vm will remove …/_base/a11ab982 at its next pass, but vm-snap uses it"
        in host.headlines()
    )


def test_base_image_reapable_below_a_disk_with_another_name(host: RecordedHost) -> None:
    # vm-rescued is from another image, so nova looks at its `disk` only, not at `disk.rescue`.
    base = _base(host, "vm-snap")
    path = f"{host.folder('vm-rescued')}/disk.rescue"
    host.row("instances", host.uuid("vm-snap"), host="other")
    host.image(
        path,
        lambda layers: layers[0].update({"backing-filename": base, "full-backing-filename": base}),
    )

    [finding] = [one for one in host.report().findings if one.check.name == "base-image-reapable"]
    assert {str(evidence) for evidence in finding.evidence[1:]} == {
        f"image reports path = {disk}, backing_filename = {base}"
        for disk in (path, f"{host.folder('vm-snap')}/disk")
    }
    assert (
        "nova on vm will remove …/_base/a11ab982 in 23 h 57 min, but vm-rescued and vm-snap use it"
        in host.headlines()
    )


def test_a_base_below_a_servers_disk_is_kept_whatever_its_name(host: RecordedHost) -> None:
    # The server's image has changed since; its disk still uses the old base.
    host.row("instances", host.uuid("vm-snap"), image_ref="another")
    host.file(_base(host, "vm-snap"), mtime=LONG_AGO)

    assert _reapable(host) == []


def test_bases_stay_if_nova_is_configured_to_keep_them(host: RecordedHost) -> None:
    conf = host.last("host", "/etc/nova/nova.conf").value
    host.row("instances", host.uuid("vm-snap"), host="other")
    for section, option, value in (
        ("image_cache", "remove_unused_base_images", "false"),
        ("DEFAULT", "remove_unused_base_images", "False"),
        ("DEFAULT", "image_cache_manager_interval", "-1"),
    ):
        kept = {**conf, section: {**conf.get(section, {}), option: value}}
        host.set("host", "/etc/nova/nova.conf", kept)

        assert _reapable(host) == []


def test_the_base_of_a_server_with_a_task_in_flight_may_go(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-snap"), host="other")
    host.task("vm-snap", "migrating")

    assert _reapable(host) == []


def test_a_base_is_kept_for_servers_of_hosts_that_share_the_directory(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-snap"), host="other")
    own = host.guest("vm-snap").host
    assert own is not None
    now = _listing(host).at.timestamp()
    _register(host, {own.nova_name: now - 60, "other": now - 3600})

    assert _reapable(host) == []


def test_hosts_whose_servers_were_not_read_are_not_judged(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-snap"), host="other")
    own = host.guest("vm-snap").host
    assert own is not None
    _register(host, {"third": _listing(host).at.timestamp()})
    host.bundle = host.bundle.with_answers(
        tuple(
            answer.model_copy(
                update={
                    "query": answer.query.replace(
                        " WHERE deleted = 0 OR", f" WHERE host = '{own.nova_name}' AND"
                    )
                }
            )
            for answer in host.bundle.answers
        )
    )

    assert _reapable(host) == []
    reasons = " ".join(skip.reason for skip in host.report().skips)
    assert "a full list of instances on third was not collected from nova" in reasons


def _register(host: RecordedHost, signed: object) -> None:
    """Register hosts in the instances directory."""
    query = f"cat {host.top}/compute_nodes"
    asked = host.last("images", query).model_dump(exclude={"value", "error"})
    written = signed if isinstance(signed, str) else json.dumps(signed)
    host.drop(lambda answer: answer.query != query)
    host.add(Answer(**asked, value=written))


def test_shared_cache_registry_stale(host: RecordedHost) -> None:
    own = host.guest("vm-plain").host
    assert own is not None
    now = _listing(host).at.timestamp()
    host.row("instances", host.uuid("vm-stopped"), host="other")
    _register(host, {own.nova_name: now - 60, "other": now - 30 * 3600})

    assert [line for line in host.findings() if line.startswith("shared-cache")] == [
        "shared-cache-registry-stale: compute_nodes reports host = other, signed_up = 30.0 hours ago,"
        " servers = 1"
    ]
    assert (
        "Host other, which has 1 server, last registered in /var/lib/nova/instances/compute_nodes 1 d 6 h ago"
        in host.headlines()
    )


@pytest.mark.parametrize(("hours", "stale"), [(23.5, False), (24.5, True)])
def test_a_registration_counts_for_a_day(host: RecordedHost, hours: float, stale: bool) -> None:
    own = host.guest("vm-plain").host
    assert own is not None
    now = _listing(host).at.timestamp()
    host.row("instances", host.uuid("vm-stopped"), host="other")
    _register(host, {own.nova_name: now - 60, "other": now - hours * 3600})

    found = [line for line in host.findings() if line.startswith("shared-cache-registry-stale")]
    assert bool(found) == stale


def test_shared_cache_registry_stale_if_this_host_is_missing(host: RecordedHost) -> None:
    _register(host, {"other": _listing(host).at.timestamp() - 60})

    [finding] = host.report().findings
    assert (finding.severity.word, finding.check.name) == ("warning", "shared-cache-registry-stale")
    assert "signed_up = never" in str(finding.evidence[0])
    assert host.headlines() == [
        "Host vm, which has 14 servers, never registered in /var/lib/nova/instances/compute_nodes",
    ]


def test_a_registry_that_lists_only_this_host_is_quiet(host: RecordedHost) -> None:
    own = host.guest("vm-plain").host
    assert own is not None
    _register(host, {own.nova_name: _listing(host).at.timestamp() - 90 * 3600})

    assert host.findings() == []


def test_a_host_without_servers_need_not_register(host: RecordedHost) -> None:
    own = host.guest("vm-plain").host
    assert own is not None
    now = _listing(host).at.timestamp()
    _register(host, {own.nova_name: now - 60, "retired": now - 900 * 3600})

    assert host.findings() == []


def test_a_registry_that_cannot_be_read_is_not_a_finding(host: RecordedHost) -> None:
    for written in (
        "",
        "[]",
        '{"other": "yesterday"}',
        '{"other": null}',
        '{"other": true}',
        '{"other": 1e300}',
        "[" * 9000,
    ):
        fresh = RecordedHost(host.bundle)
        _register(fresh, written)

        assert fresh.findings() == []


def _add_base(host: RecordedHost, name: str, **fields: object) -> None:
    query = f"find {host.top} -ls"
    lines = _listing(host).value
    like = next(line for line in lines if line["path"] == _base(host, "vm-plain"))
    path = f"{host.top}/_base/{name}"
    host.set("images", query, [*lines, {**like, "path": path, "ino": 4711, **fields}])


def test_base_cache_orphans(host: RecordedHost) -> None:
    _add_base(host, "0" * 40, mtime=LONG_AGO, blocks=8)

    report = host.report()
    assert [(one.severity.word, one.check.name) for one in report.findings] == [
        ("note", "base-cache-orphans")
    ]
    assert host.findings() == [
        f"base-cache-orphans: images reports unused = {'0' * 40}, bytes_taken = 4096"
    ]
    assert host.headlines() == [
        "1 unused file (4 KiB) in vm's _base will not be removed by nova: 00000000",
    ]


def test_base_cache_orphans_are_counted(host: RecordedHost) -> None:
    for number in range(5):
        _add_base(host, f"{number:040x}.part", mtime=LONG_AGO, blocks=2)

    names = ", ".join(f"{number:040x}.part" for number in range(3))
    assert host.findings() == [
        f"base-cache-orphans: images reports unused = {names} and 2 more, bytes_taken = 5120"
    ]
    assert host.headlines() == [
        "5 unused files (5 KiB) in vm's _base will not be removed by nova: 00000000.part, 00000000.part, 00000000.part and 2 more",
    ]


def test_a_base_that_is_not_used_yet_is_not_an_orphan(host: RecordedHost) -> None:
    recent = (_listing(host).at - timedelta(hours=20)).isoformat()
    _add_base(host, "0" * 40, mtime=recent)

    assert host.findings() == []


def test_a_base_of_a_server_is_not_an_orphan(host: RecordedHost) -> None:
    # The disk was flattened; the server's image still keeps the base.
    base = _base(host, "vm-snap")
    host.file(base, mtime=LONG_AGO)
    host.image(
        f"{host.folder('vm-snap')}/disk",
        lambda layers: layers[0].update({"backing-filename": None, "full-backing-filename": None}),
    )

    assert not [line for line in host.findings() if line.startswith("base-cache")]


def test_a_disk_that_was_not_read_may_use_any_base(host: RecordedHost) -> None:
    _add_base(host, "0" * 40, mtime=LONG_AGO)
    disk = f"{host.folder('vm-plain')}/disk"
    host.drop(lambda answer: not (answer.query.startswith("qemu-img") and answer.subject == disk))

    assert host.findings() == []


def _call_cache(host: RecordedHost, name: str, section: str, option: str) -> None:
    """Rename the image cache, in nova.conf and in every path to it."""
    answers = []
    for answer in host.bundle.answers:
        raw = json.loads(answer.model_dump_json(exclude_unset=True))
        answers.append(Answer.model_validate(_renamed(raw, f"/{name}")))
    host.bundle = host.bundle.with_answers(tuple(answers))
    host.conf(section, **{option: name})


def _renamed(raw: Any, name: str) -> Any:
    if isinstance(raw, str):
        return re.sub(r"/_base\b", name, raw)
    if isinstance(raw, list):
        return [_renamed(one, name) for one in raw]
    if isinstance(raw, dict):
        return {_renamed(key, name): _renamed(one, name) for key, one in raw.items()}
    return raw


@pytest.mark.parametrize(
    ("section", "option"),
    [
        ("image_cache", "subdirectory_name"),
        ("DEFAULT", "image_cache_subdirectory_name"),
        ("DEFAULT", "base_dir_name"),
    ],
)
def test_a_renamed_cache_is_judged_like_any_other(
    host: RecordedHost, section: str, option: str
) -> None:
    base = _base(host, "vm-snap").replace("/_base/", "/_base_10.0.0.7/")
    _call_cache(host, "_base_10.0.0.7", section, option)
    assert host.findings() == []

    host.row("instances", host.uuid("vm-snap"), host="other")
    host.file(base, mtime=LONG_AGO)
    assert [severity for severity, _ in _reapable(host)] == ["error"]


def test_another_hosts_cache_is_not_cleaned_by_this_host(host: RecordedHost) -> None:
    _call_cache(host, "_base_10.0.0.7", "image_cache", "subdirectory_name")
    host.conf("image_cache", subdirectory_name="_base_10.0.0.8")
    host.row("instances", host.uuid("vm-snap"), host="other")

    assert _reapable(host) == []


def test_a_cache_name_that_cannot_be_read_is_not_guessed(host: RecordedHost) -> None:
    _call_cache(host, "_base_10.0.0.7", "image_cache", "subdirectory_name")
    host.conf("image_cache", subdirectory_name="_base_$my_ip")

    skips = {skip.check.name: skip for skip in host.report().skips if not skip.legal}
    assert "the name of the image cache" in skips["base-image-reapable"].reason


def test_a_base_in_a_renamed_cache_may_be_replaced(host: RecordedHost) -> None:
    base = _base(host, "vm-snap").replace("/_base/", "/cache/")
    _call_cache(host, "cache", "image_cache", "subdirectory_name")
    host.file(base, ino=4711)

    assert "base-replaced-or-truncated of vm-snap" in "".join(host.findings())


def test_a_base_in_a_renamed_cache_belongs_to_an_image(host: RecordedHost) -> None:
    _call_cache(host, "cache", "image_cache", "subdirectory_name")
    host.row("instances", host.uuid("vm-snap"), image_ref="another")
    host.server(host.uuid("vm-snap"), image={"id": "another"})

    assert "backing-not-image-ref of vm-snap" in "".join(host.findings())
