"""Cinder API, against a small cloud of the tests' own, served over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.collect.small_cloud import SmallCloud

from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.volume import VolumeApi

pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")

HERE = "10000000-0000-4000-8000-000000000000"
SECRET = "sesame42"  # noqa: S105 (planted, and searched for)

VOLUME = "aaaaaaaa-0000-4000-8000-000000000000"
GONE = "bbbbbbbb-0000-4000-8000-000000000000"
ATTACHMENT = "cccccccc-0000-4000-8000-000000000000"


def a_volume(**more: Any) -> dict[str, Any]:
    return {"id": VOLUME, "status": "in-use", "metadata": {"note": SECRET}, "size": 1, **more}


def an_attachment() -> dict[str, Any]:
    way = {"driver_volume_type": "iscsi", "target_iqn": "iqn.x", "target_lun": 1}
    way |= {"auth_username": SECRET, "auth_password": SECRET}
    return {"id": ATTACHMENT, "volume_id": VOLUME, "instance": HERE, "connection_info": way}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder("vm")


@pytest.fixture
def cinder(recorder: Recorder, small: SmallCloud) -> Iterator[VolumeApi]:
    small.endpoints["block-storage"] = f"{small.url}/volume/v3/p"
    versions = [{"id": "v3.0", "version": "3.50", "status": "CURRENT"}]
    small.reply("/volume/v3/", {"versions": versions})
    small.reply("/volume/v3/p/os-services", {"services": []})
    found = VolumeApi(recorder)
    assert found.connect()
    yield found
    found.close()


def queries(recorder: Recorder) -> list[str]:
    return [answer.query for answer in recorder.answers]


def kinds(recorder: Recorder) -> list[str]:
    return [answer.error.kind for answer in recorder.answers if answer.error is not None]


def everything(recorder: Recorder) -> str:
    return json.dumps([answer.as_json() for answer in recorder.answers])


def asked(path: str) -> str:
    return f"GET /v3{path} [3.50]"


def test_volumes_of_all_projects_are_asked_for(
    cinder: VolumeApi,
    recorder: Recorder,
    small: SmallCloud,
) -> None:
    more = {"rel": "next", "href": f"http://x/v3/p/volumes/detail?limit=1&marker={VOLUME}"}
    path = "/volume/v3/p/volumes/detail?all_tenants=True"
    small.reply(path, {"volumes": [a_volume()], "volumes_links": [more]})
    small.reply(f"{path}&marker={VOLUME}", {"volumes": []})

    cinder.ask_everything()

    assert set(queries(recorder)) == {
        "GET /v3/",
        asked("/os-services"),
        asked("/volumes/detail?all_tenants=True"),
        asked(f"/volumes/detail?all_tenants=True&marker={VOLUME}"),
        asked("/attachments/detail?all_tenants=True"),
        asked("/snapshots/detail?all_tenants=True"),
    }


def test_a_missing_volume_is_recorded_as_absent(
    cinder: VolumeApi,
    recorder: Recorder,
    small: SmallCloud,
) -> None:
    path = f"/attachments/detail?all_tenants=True&instance_id={HERE}"
    small.reply(f"/volume/v3/p{path}", {"attachments": [an_attachment()]})
    small.reply(f"/volume/v3/p/volumes/{VOLUME}", {"volume": a_volume()})

    cinder.ask_about([HERE], [GONE, "None", ""], [ATTACHMENT])
    cinder.ask_about([HERE], [GONE], [ATTACHMENT])

    assert sorted(queries(recorder)[1:]) == sorted(
        [asked(path), asked(f"/volumes/{VOLUME}"), asked(f"/volumes/{GONE}")]
    )
    assert kinds(recorder).count("absent") == 1


def test_credentials_of_a_volume_are_not_kept(
    cinder: VolumeApi,
    recorder: Recorder,
    small: SmallCloud,
) -> None:
    small.reply(f"/volume/v3/p/volumes/{VOLUME}", {"volume": a_volume()})
    small.reply(f"/volume/v3/p/attachments/{ATTACHMENT}", {"attachment": an_attachment()})

    cinder.ask_about([], [VOLUME], [ATTACHMENT])

    text = everything(recorder)
    assert SECRET not in text
    assert "target_iqn" in text


def test_only_volumes_are_asked_for_before_attachments_had_an_api(
    recorder: Recorder,
    small: SmallCloud,
) -> None:
    small.endpoints["block-storage"] = f"{small.url}/volume/v2/p"
    small.reply("/volume/v2/", {"versions": [{"id": "v2.0", "version": "", "status": "CURRENT"}]})
    small.reply(f"/volume/v2/p/volumes/{VOLUME}", {"volume": a_volume()})
    cinder = VolumeApi(recorder)

    assert cinder.connect()
    cinder.ask_about([HERE], [VOLUME], [ATTACHMENT])
    cinder.close()

    assert queries(recorder) == ["GET /v3/", "GET /v2/", f"GET /v2/volumes/{VOLUME}"]


def test_a_cloud_without_cinder_gets_no_more_requests(
    recorder: Recorder, small: SmallCloud
) -> None:
    cinder = VolumeApi(recorder)

    assert not cinder.connect()
    cinder.ask_everything()
    cinder.ask_about([HERE], [VOLUME], [])
    cinder.close()

    assert kinds(recorder) == ["absent"]
