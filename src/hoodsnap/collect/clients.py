"""What clients of a cloud ask for, and no check does: so that they can ask it of the recording.

Each in the microversion that today's clients name (most name none): much of an older answer can't
be made of a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import quote

from hoodsnap.collect.cloud_client import PATIENCE, CloudClient
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.keep.allow_list import api_body, image_body

LIST_PATIENCE = 60.0
"""Seconds for a list."""

IMAGES, IMAGE_PAGES = 1000, 5
"""Images in a page, and pages."""

AT_ONCE = 4
"""Requests at the same time."""


def ask_for_clients(recorder: Recorder, cloud: CloudClient, nova: str, host: str | None) -> None:
    """Ask who we are, and for the lists of nova and glance. `nova` is the URL of its API."""
    recorder.ask("keystone", "GET /v3/auth/tokens", cloud.access)
    tasks = [*_plain(recorder, cloud, nova, host), partial(_ask_images, recorder, cloud)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda task: task(), tasks):
            pass


def _plain(
    recorder: Recorder, cloud: CloudClient, nova: str, host: str | None
) -> Iterator[Callable[[], object]]:
    of_host = "" if host is None else f"&host={quote(host)}"
    targets = (
        (f"/servers/detail?all_tenants=True{of_host}", ""),
        ("/os-hypervisors/detail", ""),
        ("/os-services", ""),
        ("/os-aggregates", ""),
        ("/os-aggregates", "2.81"),
        ("/flavors/detail?is_public=None", ""),
        ("/flavors/detail?is_public=None", "2.61"),
    )
    for target, number in targets:
        headers = {"OpenStack-API-Version": f"compute {number}"} if number else {}
        text = f"GET /v2.1{target}" + (f" [{number}]" if number else "")

        def how(target: str = target, headers: dict[str, str] = headers) -> object:
            return api_body(cloud.get(nova + target, headers, patience=LIST_PATIENCE).body)

        yield partial(recorder.ask, "nova", text, how, patience=LIST_PATIENCE + 10)


def _ask_images(recorder: Recorder, cloud: CloudClient) -> None:
    """The list, as far as it goes in a few pages."""

    def how(target: str) -> object:
        root = cloud.endpoint("image").rstrip("/").removesuffix("/v2")
        body = cloud.get(f"{root}{target}", {}).body
        images = body.get("images") if isinstance(body, dict) else None
        if not isinstance(images, list):
            raise RefusedError("failed", "the answer holds no images")
        return {"images": [image_body(image) for image in images], "next": body.get("next")}

    target: str | None = f"/v2/images?limit={IMAGES}"
    for _ in range(IMAGE_PAGES):
        if target is None:
            break
        asked = partial(how, target)
        answer = recorder.ask("glance", f"GET {target}", asked, patience=PATIENCE + 10)
        target = answer.value["next"] if answer.error is None else None
