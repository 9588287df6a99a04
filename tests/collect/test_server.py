"""Nova API, against a small cloud of the tests' own, served over HTTP, and against the lab."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.collect.small_cloud import PASSWORD, TOKEN, SmallCloud, log_in, log_out

from hoodsnap.bundle import Answer
from hoodsnap.collect import cloud_client as cloud_module
from hoodsnap.collect import rest_api
from hoodsnap.collect import server as server_module
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.server import ServerApi
from hoodsnap.keep.fence import _looks
from hoodsnap.keep.secret import WITHHELD

# The SDK warns of deprecated features even if they are not used.
pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")

HERE = "10000000-0000-4000-8000-000000000000"
IMAGE = "ee3f0f1c-7c56-4edb-95c5-2c07d88d3c5b"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder("vm")


@pytest.fixture
def api(recorder: Recorder, small: SmallCloud) -> Iterator[ServerApi]:
    found = ServerApi(recorder)
    assert found.connect()
    yield found
    found.close()


def queries(recorder: Recorder) -> list[str]:
    return [answer.query for answer in recorder.answers]


def last(recorder: Recorder) -> Answer:
    return recorder.answers[-1]


def kinds(recorder: Recorder) -> list[str | None]:
    return [answer.error.kind if answer.error else None for answer in recorder.answers]


def everything(recorder: Recorder) -> str:
    return json.dumps([answer.as_json() for answer in recorder.answers])


def a_server(uuid: str = HERE, **more: Any) -> dict[str, Any]:
    return {"id": uuid, "updated": "2099-01-01T00:00:00Z", "image": {"id": IMAGE}, **more}


def test_the_versions_and_the_clock_are_asked_first(api: ServerApi, recorder: Recorder) -> None:
    assert queries(recorder) == ["GET /v2.1/", "HEAD /v2.1/"]
    assert recorder.answers[0].value == {"version": {"id": "v2.1", "version": "2.100"}}
    assert recorder.answers[1].value["date"].endswith("GMT")


def test_a_query_contains_its_microversion(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    small.reply("/compute/v2.1/servers/detail?all_tenants=True&host=vm", {"servers": [a_server()]})

    assert api.ask_servers("vm") == {HERE}

    assert last(recorder).query == "GET /v2.1/servers/detail?all_tenants=True&host=vm [2.96]"
    assert last(recorder).value == {"servers": [a_server()]}
    assert small.heard[-1] == ("/compute/v2.1/servers/detail?all_tenants=True&host=vm", "2.96")


@pytest.mark.parametrize(("theirs", "asked"), [("2.1", "2.1"), ("2.79", "2.79"), ("2.104", "2.96")])
def test_the_highest_microversion_that_both_sides_know_is_requested(
    recorder: Recorder, small: SmallCloud, theirs: str, asked: str
) -> None:
    small.reply("/compute/v2.1/", {"version": {"id": "v2.1", "version": theirs}})
    api = ServerApi(recorder)
    api.connect()
    api.ask_servers()
    api.close()

    assert last(recorder).query == f"GET /v2.1/servers/detail?all_tenants=True [{asked}]"


def test_a_cloud_older_than_microversions_gets_no_header(
    recorder: Recorder, small: SmallCloud
) -> None:
    del small.replies["/compute/v2.1/"]
    small.endpoints["compute"] = f"{small.url}/compute/v2/{'a' * 32}"
    small.reply("/compute/v2/", {"version": {"id": "v2.0", "status": "CURRENT"}})
    path = f"/compute/v2/{'a' * 32}/servers/detail?all_tenants=True"
    small.reply(path, {"servers": [a_server()]})
    small.reply(f"{path}&marker={HERE}", {"servers": []})
    api = ServerApi(recorder)
    assert api.connect()
    assert api.ask_servers() == {HERE}
    api.close()

    assert queries(recorder) == [
        "GET /v2.1/",
        "GET /v2/",
        "HEAD /v2/",
        "GET /v2/servers/detail?all_tenants=True [2.0]",
        f"GET /v2/servers/detail?all_tenants=True&marker={HERE} [2.0]",
    ]
    assert small.heard[-1] == (f"{path}&marker={HERE}", None)


def _page(small: SmallCloud, marker: str, uuids: list[str], then: str | None) -> None:
    path = "/compute/v2.1/servers/detail?all_tenants=True" + (marker and f"&marker={marker}")
    body: dict[str, Any] = {"servers": [a_server(uuid) for uuid in uuids]}
    if then is not None:
        # Behind a proxy nova often returns links with a wrong host: only the marker can be trusted.
        link = f"http://nova.internal:8774/v2.1/servers/detail?all_tenants=True&marker={then}"
        body["servers_links"] = [{"rel": "next", "href": link}]
    small.reply(path, body)


def test_a_list_is_read_to_its_end(api: ServerApi, recorder: Recorder, small: SmallCloud) -> None:
    _page(small, "", ["a", "b"], "b")
    _page(small, "b", ["c", "d"], "d")
    _page(small, "d", ["e"], None)

    assert api.ask_servers() == set("abcde")
    assert kinds(recorder)[2:] == [None, None, None]


def test_a_circular_list_ends_with_a_failure(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    _page(small, "", ["a"], "a")
    _page(small, "a", ["b"], "b")
    _page(small, "b", ["a"], "a")

    assert api.ask_servers() == {"a", "b"}
    assert kinds(recorder)[2:] == [None, None, None, "timeout"]
    assert "without end" in last(recorder).error.message  # type: ignore[union-attr]  # it is an error


def test_an_endless_list_ends_with_a_failure(
    api: ServerApi, recorder: Recorder, small: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_api, "MOST_PAGES", 5)
    for number in range(10):
        _page(small, str(number) if number else "", [f"u{number}"], str(number + 1))

    assert len(api.ask_servers()) == 5
    assert kinds(recorder)[2:] == [None] * 5 + ["timeout"]


def test_an_empty_page_is_the_last(api: ServerApi, recorder: Recorder, small: SmallCloud) -> None:
    _page(small, "", [], "x")

    assert api.ask_servers() == set()
    assert len(recorder.answers) == 3


def test_a_tenant_gets_the_servers_it_may_see(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    denied = {"forbidden": {"code": 403, "message": "Policy doesn't allow it."}}
    small.reply("/compute/v2.1/servers/detail?all_tenants=True&host=vm", denied, 403)
    small.reply("/compute/v2.1/servers/detail", {"servers": [a_server()]})

    assert api.ask_servers("vm") == {HERE}
    assert kinds(recorder)[2:] == ["denied", None]
    assert recorder.answers[2].error.message == "HTTP 403: Policy doesn't allow it."  # type: ignore[union-attr]  # it is an error

    api.ask_servers("vm")
    assert last(recorder).query == "GET /v2.1/servers/detail [2.96]"
    assert len(recorder.answers) == 5  # what was denied once is not asked again


def test_a_server_that_does_not_exist_is_absent(api: ServerApi, recorder: Recorder) -> None:
    answer = api.ask_server(HERE)

    assert answer is not None
    assert answer.subject == HERE
    assert answer.query == f"GET /v2.1/servers/{HERE} [2.96]"
    assert kinds(recorder)[-1] == "absent"


def test_the_image_of_a_single_server_is_asked_for(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    small.reply(f"/compute/v2.1/servers/{HERE}", {"server": a_server(metadata={"pw": PASSWORD})})
    small.reply(f"/image/v2/images/{IMAGE}", {"id": IMAGE, "license": PASSWORD})

    api.ask_server(HERE)
    assert last(recorder).value["server"]["metadata"] == {"pw": WITHHELD}
    api.ask_surroundings()

    (image,) = [answer for answer in recorder.answers if answer.layer == "glance"]
    assert (image.query, image.subject) == (f"GET /v2/images/{IMAGE}", IMAGE)
    assert image.value == {"id": IMAGE, "license": WITHHELD}


def test_no_password_or_token_is_kept(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    api.ask_servers()
    api.ask_surroundings()

    assert PASSWORD not in everything(recorder)
    assert TOKEN not in everything(recorder)


def test_flavors_images_and_services_are_asked_for_once_each(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    servers = [a_server(), a_server("b"), a_server("c", image="")]
    small.reply("/compute/v2.1/servers/detail?all_tenants=True&host=vm", {"servers": servers})
    api.ask_servers("vm")
    api.ask_surroundings("vm", events=False)

    asked = [query for query in queries(recorder) if "os-instance-actions" not in query]
    assert sorted(asked[3:]) == [
        "GET /v2.1/flavors/detail?is_public=None [2.96]",
        "GET /v2.1/os-hypervisors/detail [2.87]",
        "GET /v2.1/os-migrations?host=vm [2.96]",
        "GET /v2.1/os-server-groups?all_projects=True [2.96]",
        "GET /v2.1/os-services [2.96]",
        f"GET /v2/images/{IMAGE}",
    ]


def test_recent_actions_are_asked_for_recently_changed_servers(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    servers = [a_server(), a_server("old", updated="2020-01-01T00:00:00Z")]
    small.reply("/compute/v2.1/servers/detail?all_tenants=True", {"servers": servers})
    actions = [
        {"request_id": "req-1", "start_time": "2099-01-01T00:00:00.000000"},
        {"request_id": "req-0", "start_time": "2020-01-01T00:00:00.000000"},
    ]
    path = f"/compute/v2.1/servers/{HERE}/os-instance-actions"
    small.reply(path, {"instanceActions": actions})
    small.reply(f"{path}/req-1", {"instanceAction": {"events": [{"traceback": PASSWORD}]}})
    api.ask_servers()
    api.ask_surroundings(days=3)

    history = [answer for answer in recorder.answers if "os-instance-actions" in answer.query]
    assert [answer.query.partition("?")[0] for answer in history] == [
        f"GET /v2.1/servers/{HERE}/os-instance-actions",
        f"GET /v2.1/servers/{HERE}/os-instance-actions/req-1 [2.96]",
    ]
    assert history[1].value == {"instanceAction": {"events": [{"traceback": WITHHELD}]}}
    assert [answer.subject for answer in history] == [HERE, HERE]


def test_histories_that_take_too_long_are_not_asked_for(
    api: ServerApi, recorder: Recorder, small: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HISTORY_TIME", -1.0)
    small.reply("/compute/v2.1/servers/detail?all_tenants=True", {"servers": [a_server()]})
    api.ask_servers()
    api.ask_surroundings()

    (history,) = [answer for answer in recorder.answers if "os-instance-actions" in answer.query]
    assert history.error is not None
    assert history.error.kind == "timeout"
    assert not any("os-instance-actions" in path for path, _ in small.heard)


def test_an_answer_that_is_too_large_is_not_kept(
    api: ServerApi, recorder: Recorder, small: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "LARGEST", 1000)
    body = {"servers": [a_server(name="x" * 100_000)]}
    small.reply("/compute/v2.1/servers/detail?all_tenants=True", body)

    assert api.ask_servers() == set()
    assert kinds(recorder)[-1] == "too-large"


def test_an_api_that_does_not_answer_is_abandoned(
    api: ServerApi, recorder: Recorder, small: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module.ServerApi._ask, "__kwdefaults__", _hurried())
    ended = threading.Event()

    def hang() -> tuple[int, Any]:
        ended.wait(10)
        return 200, {}

    small.replies[f"/compute/v2.1/servers/{HERE}"] = hang
    start = time.monotonic()
    for _ in range(4):
        api.ask_server(HERE)
    ended.set()

    assert time.monotonic() - start < 5
    assert kinds(recorder)[2:] == ["timeout"] * 4
    assert last(recorder).error.message.startswith("not asked: ")  # type: ignore[union-attr]  # it is an error


def _hurried() -> dict[str, Any]:
    defaults = server_module.ServerApi._ask.__kwdefaults__
    assert defaults is not None
    return {**defaults, "patience": 0.3}


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (500, {"computeFault": {"message": "Oops", "code": 500}}, "failed", "HTTP 500: Oops"),
        (503, b"<html>Service Unavailable</html>", "unreachable", "HTTP 503"),
        (401, {"error": {"message": "Token."}}, "denied", "HTTP 401: Token."),
        (200, b"<html>Horizon</html>", "failed", "the answer is not JSON"),
        (200, [1, 2], "failed", "the answer is not a JSON object"),
    ],
)
def test_an_invalid_response_is_recorded_in_one_line(
    api: ServerApi,
    recorder: Recorder,
    small: SmallCloud,
    status: int,
    body: Any,
    kind: str,
    message: str,
) -> None:
    small.reply(f"/compute/v2.1/servers/{HERE}", body, status)

    answer = api.ask_server(HERE)

    assert answer is not None
    assert answer.error is not None
    assert answer.error.kind == kind
    assert answer.error.message.startswith(message)


def _silent_afterwards(api: ServerApi, recorder: Recorder) -> None:
    api.ask_servers("vm")
    api.ask_server(HERE)
    api.ask_surroundings("vm")
    api.close()
    assert len(recorder.answers) == 1
    assert recorder.answers[0].query == "GET /v2.1/"


def test_without_credentials_nothing_is_asked(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openstack")
    log_out(monkeypatch, tmp_path)
    api = ServerApi(recorder)

    assert not api.connect()
    assert kinds(recorder) == ["missing"]
    message = last(recorder).error.message  # type: ignore[union-attr]  # it is an error
    assert message.startswith("can't log in: neither OS_CLOUD nor OS_AUTH_URL is set")
    assert _looks(message) is None  # the last search for secrets must not withhold the advice
    _silent_afterwards(api, recorder)


def test_a_cloud_missing_from_clouds_yaml_is_a_failed_login(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openstack")
    log_out(monkeypatch, tmp_path)

    assert not ServerApi(recorder, "nosuch").connect()
    assert kinds(recorder) == ["failed"]
    assert last(recorder).error.message == "can't log in: Cloud nosuch was not found."  # type: ignore[union-attr]  # it is an error


def test_a_keystone_that_is_down_is_unreachable(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openstack")
    log_in(monkeypatch, tmp_path, "http://127.0.0.1:1")
    api = ServerApi(recorder)

    assert not api.connect()
    assert kinds(recorder) == ["unreachable"]
    assert last(recorder).error.message == "http://127.0.0.1:1: Connection refused"  # type: ignore[union-attr]  # it is an error
    _silent_afterwards(api, recorder)


def test_a_wrong_password_is_recorded_as_denied(
    recorder: Recorder, small: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_PASSWORD", "wrong")
    api = ServerApi(recorder)

    assert not api.connect()
    assert kinds(recorder) == ["denied"]
    _silent_afterwards(api, recorder)


def test_a_catalog_without_nova_is_recorded(recorder: Recorder, small: SmallCloud) -> None:
    del small.endpoints["compute"]
    api = ServerApi(recorder)

    assert not api.connect()
    assert kinds(recorder) == ["absent"]
    _silent_afterwards(api, recorder)


@pytest.fixture
def clouds_yaml(cloud: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log_out(monkeypatch, tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud / "clouds.yaml"))


@pytest.mark.lab
def test_the_labs_admin_sees_all_servers(recorder: Recorder, clouds_yaml: None) -> None:
    api = ServerApi(recorder, "hoodlab")
    assert api.connect()
    servers = api.ask_servers()
    api.ask_surroundings()
    api.close()

    assert len(servers) >= 10
    assert set(kinds(recorder)) == {None}
    assert len(everything(recorder)) < 20_000 * len(servers)


@pytest.mark.lab
def test_a_tenant_in_the_lab_sees_its_own_servers(recorder: Recorder, clouds_yaml: None) -> None:
    api = ServerApi(recorder, "hoodlab-tenant")
    assert api.connect()
    servers = api.ask_servers("vm")
    api.ask_surroundings("vm")
    api.close()

    assert 0 < len(servers) < 10
    denied = [a.query.split("?")[0].split(" [")[0] for a in recorder.answers if a.error is not None]
    assert sorted(denied) == [
        "GET /v2.1/os-hypervisors/detail",
        "GET /v2.1/os-migrations",
        "GET /v2.1/os-services",
        "GET /v2.1/servers/detail",
    ]
    assert set(kinds(recorder)) == {None, "denied"}


def test_an_endless_answer_of_keystone_is_not_read(
    recorder: Recorder, small: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "LARGEST", 100)

    assert not ServerApi(recorder).connect()
    assert kinds(recorder) == ["too-large"]


def test_an_oversized_list_is_not_parsed(
    api: ServerApi, recorder: Recorder, small: SmallCloud
) -> None:
    body = b'{"servers":[' + b"[]," * 500_000 + b"[]]}"
    small.replies["/compute/v2.1/servers/detail?all_tenants=True"] = (200, body)

    assert api.ask_servers() == set()
    assert kinds(recorder)[-1] == "too-large"


def test_no_api_gets_a_password_from_netrc(
    recorder: Recorder, small: SmallCloud, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login root password sesame\n")
    (tmp_path / ".netrc").chmod(0o600)
    api = ServerApi(recorder)

    assert api.connect()
    api.close()

    assert small.heard
    assert small.authorized == []
