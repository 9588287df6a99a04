"""HTTP client for a cloud's APIs, with one keystone session: credentials, endpoints, GET.

Answers are the bodies as the APIs sent them. Tokens and passwords stay in the session.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hoodsnap import bounds
from hoodsnap.collect.question import AbandonedError, must_go_on
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.ownership import opened, operators
from hoodsnap.keep.keystone_api import catalog

LARGEST = 16 << 20
"""Bytes of one body. A page of a thousand servers has five million."""

PATIENCE = 20.0
"""Seconds for one request, unless the caller sets another limit."""

LOGIN_TIME = 40.0
"""Seconds for the first request, including the login."""

_CONNECT_TIME = 5.0
_KEYSTONE_TIME = 10.0

_TOO_SLOW = 3
"""Number of requests to one API that may time out; after that, no more are sent to it."""


class Response(NamedTuple):
    """Response of an API: the parsed body and the headers."""

    body: Any
    headers: Mapping[str, str]


class CloudClient:
    """A cloud as one user sees it.

    Its methods raise `RefusedError`, so call them inside `Recorder.ask`.
    """

    def __init__(self, name: str | None = None) -> None:
        """`name`: a cloud in clouds.yaml; without it, OS_CLOUD or OS_AUTH_URL select the cloud."""
        self._name = name
        self._lock = threading.Lock()
        self._region: Any = None  # openstack.config.cloud_region.CloudRegion
        self._session: Any = None  # keystoneauth1.session.Session
        self._late: Counter[str] = Counter()

    def endpoint(self, service: str) -> str:
        """Return the URL of a service (`compute`, `image`). The first call logs in to keystone."""
        session = self._open()
        try:
            return str(
                self._region.get_endpoint(service)
                or session.get_endpoint(
                    service_type=self._region.get_service_type(service),
                    interface=self._region.get_interface(service),
                    region_name=self._region.get_region_name(service) or None,
                    skip_discovery=True,
                )
                or _none(service)
            )
        except Exception as error:
            refusal = _refusal(error)
            if refusal.kind == "failed":
                refusal = RefusedError("failed", f"can't log in: {refusal}")
            raise refusal from None

    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        patience: float = PATIENCE,
    ) -> Response:
        """Send one request. Raises `RefusedError` unless it succeeds."""
        api = urlsplit(url).netloc
        if self._late[api] >= _TOO_SLOW:
            message = f"not asked: {api} did not answer {_TOO_SLOW} earlier requests in time"
            raise RefusedError("timeout", message)
        end = time.monotonic() + patience
        try:
            response = self._session.request(
                url,
                method,
                headers={"Accept": "application/json", **headers},
                raise_exc=False,
                log=False,
                stream=True,
                timeout=(_CONNECT_TIME, patience),
            )
            with response:
                body = _body(response, end)
        except Exception as error:
            refusal = _refusal(error)
            if refusal.kind == "timeout":
                with self._lock:
                    self._late[api] += 1
            raise refusal from None
        if response.status_code >= 300:
            raise _refused(response.status_code, body)
        return Response(_parsed(body), response.headers)

    def access(self) -> dict[str, Any]:
        """Return our user, project, roles and the catalog: a token without its secret parts."""
        session = self._open()
        access = session.auth.get_access(session)
        token = {
            "user": {"id": access.user_id, "name": access.username},
            "project": {"id": access.project_id, "name": access.project_name},
            "roles": [{"name": name} for name in access.role_names],
            "catalog": catalog(access.service_catalog.catalog),
        }
        return {"token": token}

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.session.close()

    def _open(self) -> Any:
        """Return the session, with the credentials from clouds.yaml or the environment."""
        with self._lock:
            if self._session is None:
                from keystoneauth1.exceptions import ClientException
                from openstack.config import OpenStackConfig
                from openstack.exceptions import SDKException

                for name in ("keystoneauth", "openstack"):
                    # Without a handler, Python prints their warnings on stderr.
                    logging.getLogger(name).addHandler(logging.NullHandler())
                try:
                    self._region = OpenStackConfig(**_own_files({})).get_one(
                        cloud=self._name, api_timeout=_KEYSTONE_TIME
                    )
                    session = self._region.get_session()
                    _guard(session.session)
                    self._session = session
                except (ClientException, SDKException) as error:
                    raise self._no_credentials(error) from None
            return self._session

    def _no_credentials(self, error: Exception) -> RefusedError:
        reason = " ".join(str(error).split())
        if self._name or os.environ.get("OS_CLOUD") or os.environ.get("OS_AUTH_URL"):
            return RefusedError("failed", f"can't log in: {reason}")  # the operator named it
        return RefusedError(
            "missing",
            "can't log in: neither OS_CLOUD nor OS_AUTH_URL is set, and clouds.yaml does not name"
            " the cloud to use; choose one with --os-cloud",
        )


def _guard(session: Any) -> None:
    """Limit the size of all bodies that a `requests.Session` reads, including keystone's, and keep
    it from sending passwords of ~/.netrc: a redirect could lead to any port of a host in there."""
    session.hooks["response"].append(_bounded)
    session.auth = lambda request: request


def _bounded(response: Any, **_: object) -> None:
    pieces = response.iter_content

    def limited(*arguments: Any, **named: Any) -> Iterator[bytes]:
        size = 0
        try:
            for piece in pieces(*arguments, **named):
                must_go_on()
                size += len(piece)
                if size > LARGEST:
                    raise RefusedError("too-large", f"the answer has more than {LARGEST >> 20} MiB")
                yield piece
        except (RefusedError, AbandonedError):
            response.close()  # otherwise its connection waits for the rest
            raise

    response.iter_content = limited


def say_files(recorder: Recorder) -> None:
    """Record which clouds.yaml and secure.yaml files are not used, and why."""
    refused: dict[str, RefusedError] = {}
    try:
        _own_files(refused)
    except ModuleNotFoundError:  # the APIs report it
        return
    for path, refusal in refused.items():
        recorder.refuse("host", f"ls -ld {path}", refusal)


def _own_files(refused: dict[str, RefusedError]) -> dict[str, Any]:
    """Return the files in which openstacksdk looks for clouds, without those that other accounts
    could have written, which are added to `refused`.

    openstacksdk begins in the current folder, and may combine the address of a cloud in one file
    with the password in another.
    """
    from openstack.config import loader

    own = operators()

    def is_own(path: str) -> bool:
        if not os.path.exists(path):
            return False
        try:
            with opened(path, own):
                return True
        except RefusedError as refusal:
            refused[path] = refusal
            return False

    lists = {
        "config_files": loader.CONFIG_FILES,
        "secure_files": loader.SECURE_FILES,
        "vendor_files": loader.VENDOR_FILES,
    }
    return {name: [path for path in paths if is_own(path)] for name, paths in lists.items()}


def _none(service: str) -> str:
    raise RefusedError("absent", f"keystone's catalog has no endpoint for {service}")


def _body(response: Any, end: float) -> bytes:
    parts = []
    for part in response.iter_content(1 << 16):  # at most `LARGEST` bytes, see `_bounded`
        parts.append(part)
        if time.monotonic() > end:
            raise RefusedError("timeout", "the answer was not complete in time")
    return b"".join(parts)


def _parsed(body: bytes) -> Any:
    try:
        bounds.check_bytes(body)
        return json.loads(body) if body else None
    except bounds.OutOfBoundsError as reason:
        raise RefusedError("too-large", f"the answer can't be kept: {reason}") from None
    except ValueError:
        raise RefusedError(
            "failed", "the answer is not JSON: something other than the API may have sent it"
        ) from None


# An API from before v2.1 answers 300 to a request for v2.1.
_KINDS = {
    300: "absent",
    401: "denied",
    403: "denied",
    404: "absent",
    410: "absent",
    413: "too-large",
}


def _refused(status: int, body: bytes) -> RefusedError:
    """Return the refusal for an HTTP error, with the message in its body.

    The message is in `{"itemNotFound": {"message": …}}`, for placement in
    `{"errors": [{"detail": …}]}`. A body of HTML has none.
    """
    kind = _KINDS.get(status, "unreachable" if status in (502, 503, 504) else "failed")
    try:
        parsed = json.loads(body)
        if isinstance(parsed, dict) and len(parsed) == 1:
            parsed = next(iter(parsed.values()))
        if isinstance(parsed, list):
            parsed = {"message": " ".join(parsed[0]["detail"].split())}
        message = str(parsed["message"])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        message = ""
    return RefusedError(kind, f"HTTP {status}" + (message and f": {message}"))


def _refusal(error: Exception) -> RefusedError:
    """Return the refusal for an error of keystoneauth or requests, with a message of one line."""
    from keystoneauth1 import exceptions
    from requests import exceptions as http

    if isinstance(error, RefusedError):
        return error
    if isinstance(error, exceptions.Unauthorized):
        return RefusedError("denied", f"keystone rejected the user, password or project: {error}")
    if isinstance(error, exceptions.Forbidden):
        return RefusedError("denied", str(error))
    if isinstance(error, exceptions.EndpointNotFound):
        return RefusedError("absent", f"keystone's catalog: {error}")
    found = re.search(r"https?://[^/\s]+[^/\s:]", str(error))
    place = found[0] if found else "the API"
    if isinstance(error, exceptions.ConnectTimeout) or "timed out" in str(error):
        return RefusedError("timeout", f"{place} did not answer in time")
    cause = _cause(error)
    if cause is not None:
        return RefusedError("unreachable", f"{place}: {cause.strerror or cause}")
    if isinstance(error, exceptions.ConnectionError | http.RequestException):
        return RefusedError("unreachable", f"{place}: {error}")
    return RefusedError("failed", str(error))


def _cause(error: BaseException | None) -> OSError | None:
    """Return the innermost error of the operating system in the chain of causes.

    The errors of requests are OSErrors too, but have no number.
    """
    found = None
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            found = error
        error = error.__cause__ or error.__context__
    return found
