"""Answers that no check needs, but that clients of a cloud will request from the recording.

Each is requested in the microversion that today's clients use (most use none), because a newer
answer lacks much of what an older one has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from hoodsnap.collect.cloud_client import PATIENCE, CloudClient
from hoodsnap.collect.crew import together
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.rest_api import LIST_PATIENCE, object_of, quote, unversioned
from hoodsnap.keep.glance_api import image_body
from hoodsnap.keep.nova_api import api_body

IMAGES, IMAGE_PAGES = 1000, 5
"""Number of images in a page, and number of pages."""


def ask_for_clients(recorder: Recorder, cloud: CloudClient, nova: str, host: str | None) -> None:
    """Ask for our user and project, and for the lists of nova and glance.

    `nova`: URL of the nova API. `host`: list only the servers of this host; None: of all hosts.
    """
    recorder.ask("keystone", "GET /v3/auth/tokens", cloud.access)
    together([*_plain(recorder, cloud, nova, host), partial(_ask_images, recorder, cloud)])


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
            body = cloud.get(nova + target, headers, patience=LIST_PATIENCE).body
            return object_of(api_body(body), "nova")

        yield partial(recorder.ask, "nova", text, how, patience=LIST_PATIENCE + 10)


def _ask_images(recorder: Recorder, cloud: CloudClient) -> None:
    """Ask for the list of images, up to `IMAGE_PAGES` pages."""

    def how(target: str) -> object:
        root, _ = unversioned(cloud.endpoint("image"))
        body = object_of(cloud.get(f"{root}{target}", {}).body, "glance")
        if not isinstance(images := body.get("images"), list):
            raise RefusedError("failed", "the answer of glance contains no list of images")
        following = body.get("next")
        # It is appended to the address of the API, and must not lead anywhere else.
        is_path = isinstance(following, str) and following.startswith("/v2/images?")
        return {
            "images": [image_body(image) for image in images],
            "next": following if is_path else None,
        }

    target: str | None = f"/v2/images?limit={IMAGES}"
    for _ in range(IMAGE_PAGES):
        if target is None:
            break
        asked = partial(how, target)
        answer = recorder.ask("glance", f"GET {target}", asked, patience=PATIENCE + 10)
        target = answer.value["next"] if answer.error is None else None
