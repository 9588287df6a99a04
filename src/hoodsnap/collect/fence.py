"""The last fence: a bundle in which something looks like a secret is not written.

The allow-lists of the collectors keep secrets out, and the door blanks what slips through. Whatever
is found here passed both, which is a defect; so the bundle is refused, and not mended in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hoodsnap.bundle import Bundle
from hoodsnap.collect.recorder import WITHHELD, without_secrets

_NONE = rf"(?!{re.escape(WITHHELD)}|\*\*\*|on\b|off\b|yes\b|no\b|true\b|false\b|null\b|none\b)"
"""No secret begins so."""

_WORDS = (
    r"(?:pass(?:w(?:or)?d|phrase)|admin_?pass|secret_?key|api_?key|private_?key|master_?key_?data"
    r"|(?:auth|session|access|x-?(?:auth|subject))[-_]?token|keyring|user_?data)"
)

_LOOKS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"),
    "a password": re.compile(
        rf"(?i)(?<![A-Za-z]){_WORDS}['\"]?[ \t]*[=:][ \t]*['\"]?{_NONE}[^\s\0'\",;&)}}\]]"
    ),
    "a token of keystone": re.compile(r"\bgAAAA[A-Za-z0-9_-]{50,}"),
    "a web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a key of ceph": re.compile(r"(?<![A-Za-z0-9+/])AQ[A-Za-z0-9+/]{36}=="),
    "a URL with credentials": re.compile(
        rf"://[^/\s\0:@'\"<>]*:(?!{re.escape(WITHHELD)})[^/\s\0@'\"<>]+@"
    ),
    "a hash of a password": re.compile(r"\$(?:1|5|6|y|2[aby])\$[^\s:'\"]{8,}"),
    "a secret of QEMU": re.compile(
        rf"\bsecret,[^ \0]*?\bdata=(?!{re.escape(WITHHELD)})[^ ,\0]"
        rf"|:key=(?!{re.escape(WITHHELD)})[^ :,\0]"
    ),
}

_MARKS = {
    "a private key": ("private key",),
    "a password": (
        *(
            "passw",
            "passphrase",
            "pass_phrase",
            "adminpass",
            "admin_pass",
            "secret",
            "api",
            "token",
        ),
        *("private_key", "privatekey", "master", "keyring", "userdata", "user_data"),
    ),
    "a token of keystone": ("gaaaa",),
    "a web token": ("eyj",),
    "a key of ceph": ("==",),
    "a URL with credentials": ("@",),
    "a hash of a password": ("$",),
    "a secret of QEMU": ("data=", ":key="),
}
"""What a text in small letters must have in it to be looked at closer: finding that is cheap."""

_KEY = re.compile(rf"(?i)(?:.*[._:-])?{_WORDS}")
"""Keys of what nobody may read."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A place in a bundle where something looks like a secret. What it is stays unsaid."""

    layer: str
    query: str
    place: str
    looks: str

    def __str__(self) -> str:
        return f"{self.layer}, {self.query}, {self.place}: it looks like {self.looks}"


def leaks(bundle: Bundle) -> Iterator[Leak]:
    """Every place in the bundle that looks like a secret."""
    for answer in bundle.answers:
        said = {
            "the query": answer.query,
            "the subject": answer.subject,
            "the answer": answer.value,
            "the error": answer.error.message if answer.error is not None else None,
        }
        for name, value in said.items():
            for place, looks in _found(value, name):
                query = answer.query if name != "the query" else "(a query)"
                yield Leak(answer.layer, query, place, looks)


def _found(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if looks := _looks(value):
            yield place, looks
    elif isinstance(value, dict):
        for key, item in value.items():
            if _looks(key):
                yield f"a key in {place}", "a secret"
                continue
            if isinstance(item, str) and item not in ("", WITHHELD) and _KEY.fullmatch(key):
                yield f"{place}/{key}", "a password"
            else:
                yield from _found(item, f"{place}/{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _found(item, f"{place}/{number}")


def _looks(text: str) -> str | None:
    small = text.lower()
    for what, looks in _LOOKS.items():
        if any(mark in small for mark in _MARKS[what]) and looks.search(text):
            return what
    return "a secret" if without_secrets(text) != text else None
