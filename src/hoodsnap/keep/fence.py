"""The last fence: whatever still looks like a secret in a finished bundle is withheld, in place.

The allow-lists of the collectors keep secrets out, and the door blanks what slips through. What is
found here passed both. Mostly it is a name: a tenant may call a server `password: reset the VM`,
and must not be able to prevent the bundle by that. So the one text is withheld, its place is
reported, and the rest of the bundle is written.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.keep.secret import WITHHELD, without_secrets
from hoodsnap.printable import clean, cut

_NONE = (
    rf"(?!{re.escape(WITHHELD)}|\*\*\*|(?:on|off|yes|no|true|false|null|none|None|True|False)\b)"
)
"""No secret begins so."""

_WORDS = (
    r"(?:pass(?:w(?:or)?d|phrase)|admin_?pass|secret_?key|api_?key|private_?key|master_?key_?data"
    r"|(?:auth|session|access|x-?(?:auth|subject))[-_]?token|keyring|user_?data)"
)

_NAMES = (
    r"(?:[a-z0-9]{1,20}_){0,3}(?:passwort|kennwort|pass|pwd?|psk|secret|token|credentials?"
    r"|password_in|secret_access_key)"
    r"|(?:client|consumer|shared|app|api|auth|access|bearer|tls)-(?:secret|token|psk|key)"
    r"|(?:chap|luks|vnc|spice|ipmi|bmc)-pass(?:word)?"
)
"""Names of secrets that are also parts of other names: they count where they stand alone."""

_REST = r"[^\n\0'\"<>\\]*+"
"""Up to the end of a line, of a word that ends with a NUL, of a text in JSON or XML."""

_LOOKS: dict[str, re.Pattern[str]] = {
    "a private key": re.compile(
        r"()-----BEGIN (?:[A-Z0-9]++ )*PRIVATE KEY[^\0'\"<>]*?(?=-----END|[\0'\"<>]|\Z)"
    ),
    "a password": re.compile(
        rf"((?<![A-Za-z]){_WORDS}['\"]?[ \t]*+[=:][ \t]*+['\"]?){_NONE}"
        rf"[^\s\0'\",;&)}}\]<>\\]{_REST}",
        re.IGNORECASE,
    ),
    "a named secret": re.compile(
        rf"((?<![\w-])(?:{_NAMES})['\"]?[ \t]*+[=:][ \t]*+['\"]?){_NONE}"
        rf"[^\s\0'\",;&)}}\]<>\\]{{4,}}+{_REST}",
        re.IGNORECASE,
    ),
    "an encoded password": re.compile(
        rf"((?<![A-Za-z]){_WORDS}(?:%22|%27)?%3[AD](?>(?:%20|%22|%27)*))[^\s\0'\"&<>\\]++",
        re.IGNORECASE,
    ),
    "a password of a command": re.compile(
        rf"((?<![\w-])--?pass(?:w(?:or)?d|phrase)?[ \t]++){_NONE}[^\s\0'\"<>\\-]{_REST}"
    ),
    "a login over HTTP": re.compile(
        r"(\bauthorization['\"]?[ \t]*+[=:][ \t]*+['\"]?(?>(?:[a-z]++[ \t]++)?))"
        rf"{_NONE}[^\s\0'\"<>\\]{{4,}}+{_REST}"
        r"|(\b(?:bearer[ \t]++(?=[\w.~+/=-]{16})|basic[ \t]++(?=[A-Za-z0-9+/]{8,400}+=)))"
        r"[\w.~+/=-]++",
        re.IGNORECASE,
    ),
    "a key of a service": re.compile(
        r"()(?<![\w-])(?:(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|gh[pousr]_[A-Za-z0-9]{30,}+"
        r"|glpat-[\w-]{20,}+|xox[abeprs]-[\w-]{10,}+|AIza[\w-]{35}|sk_live_[A-Za-z0-9]{16,}+"
        r"|AGE-SECRET-KEY-1[A-Z0-9]{20,}+)"
    ),
    "a token of keystone": re.compile(r"\b()gAAAA[A-Za-z0-9_-]{50,}+"),
    "a web token": re.compile(
        r"(?<![A-Za-z0-9_-])()eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+"
    ),
    "a hash of a password": re.compile(
        r"(\$(?:1|5|6|y|2[aby]|argon2id?)\$|\{S?SHA\d{0,3}\})[^\s:'\"<>\\]{8,}+"
    ),
    "a secret of QEMU": re.compile(rf"(:key=)(?!{re.escape(WITHHELD)})[^ :,\0'\"<>\\]++"),
}
"""Patterns beside those of the door. The first group stays."""

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
    "a named secret": (
        *("pass", "kennwort", "pwd", "pw", "psk", "secret", "token", "credential"),
        "-key",
    ),
    "an encoded password": ("%3a", "%3d"),
    "a password of a command": ("-pass",),
    "a login over HTTP": ("authorization", "bearer", "basic"),
    "a key of a service": (
        *("akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "xox", "aiza"),
        *("sk_live_", "age-secret-key"),
    ),
    "a token of keystone": ("gaaaa",),
    "a web token": ("eyj",),
    "a hash of a password": ("$", "{sha", "{ssha"),
    "a secret of QEMU": (":key=",),
}
"""What a text in small letters must have in it to be looked at closer: finding that is cheap."""

_OF_DOOR = (
    ("a secret of QEMU", re.compile(r"\bsecret,|:key=|keyvalue-pairs")),
    ("a key of ceph", re.compile(r"(?<![A-Za-z0-9+/])AQ[A-Za-z0-9+/]{36}==")),
    ("a URL with credentials", re.compile(r"://[^\s\0'\"<>@]{0,256}:")),
)
"""Name of a text that the door would have changed, by what is in it."""

_KEY = re.compile(rf"(?:.*[._:-])?{_WORDS}", re.IGNORECASE | re.DOTALL)
"""Keys of what nobody may read."""

_LONGEST_KEY = 256
"""Characters. A longer key is not the name of a secret but a text."""

_NAME = 255
"""Characters of the longest name. A longer text, or one of several lines, is a document: only what
looks like a secret in it is withheld."""

_SHOWN = 120
"""Characters of a key or a question in a report."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Place in a bundle where a text looked like a secret, without the text."""

    layer: str
    query: str
    place: str
    looks: str

    def __str__(self) -> str:
        return f"{self.layer}, {self.query}, {self.place}: it looks like {self.looks}"


def fenced(bundle: Bundle) -> tuple[Bundle, list[Leak]]:
    """The bundle without whatever looks like a secret, and the places where something did.

    A bundle in which nothing does is returned as it is.
    """
    leaks: list[Leak] = []
    answers = tuple(_fenced(answer, leaks) for answer in bundle.answers)
    return (bundle.with_answers(answers) if leaks else bundle), leaks


def leaks(bundle: Bundle) -> list[Leak]:
    """Every place in the bundle that looks like a secret."""
    return fenced(bundle)[1]


def _fenced(answer: Answer, leaks: list[Leak]) -> Answer:
    found: list[tuple[str, str]] = []
    query = _Walk(found).text(answer.query, "the query", whole=False)
    shown = "(a query)" if found else _shown(answer.query)
    changed: dict[str, Any] = {"query": query, "host": _Walk(found).text(answer.host, "the host")}
    if answer.subject is not None:
        changed["subject"] = _Walk(found).text(answer.subject, "the subject", whole=False)
    if answer.error is None:
        changed["value"] = _Walk(found).value(answer.value, "the answer")
    else:
        message = _Walk(found).text(answer.error.message, "the error", whole=False)
        changed["error"] = answer.error.model_copy(update={"message": message})
    leaks += (Leak(answer.layer, shown, place, looks) for place, looks in found)
    return answer.model_copy(update=changed) if found else answer


class _Walk:
    """Goes through a value, and notes each place (and what it looks like) where it changes it."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        self._found = found

    def value(self, value: Any, place: str) -> Any:
        """The value without secrets."""
        if isinstance(value, str):
            return self.text(value, place)
        if isinstance(value, dict):
            return self._object(value, place)
        if isinstance(value, list | tuple):
            return [self.value(item, f"{place}/{number}") for number, item in enumerate(value)]
        return value

    def _object(self, value: dict[Any, Any], place: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        number = 0
        for key, item in value.items():
            name = str(key)
            if _looks(name):
                self._found.append((f"a key in {place}", "a secret"))
                number += 1
                while (unused := f"{WITHHELD} {number}") in value:
                    number += 1
                kept[unused] = WITHHELD
            elif _is_secret(name, item):
                self._found.append((f"{place}/{_shown(name)}", "a password"))
                kept[name] = WITHHELD
            else:
                kept[name] = self.value(item, f"{place}/{_shown(name)}")
        return kept

    def text(self, text: str, place: str, *, whole: bool = True) -> str:
        """The text, or what may be kept of it. `whole`: a name is withheld as a whole."""
        what = _looks(text)
        if what is None:
            return text
        self._found.append((place, what))
        if whole and len(text) <= _NAME and "\n" not in text and not text.startswith(("{", "[")):
            return WITHHELD if "\0" not in text else _cleaned(text)
        return _of_json(text) or _cleaned(text)


def _is_secret(key: str, value: Any) -> bool:
    """Is a value kept under the name of a secret, whatever its own form?"""
    if value in ("", WITHHELD, None, [], {}) or isinstance(value, bool):
        return False
    if len(key) > _LONGEST_KEY or _KEY.fullmatch(key) is None:
        return False
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return not all(item == WITHHELD for item in items)
    return True


def _looks(text: str) -> str | None:
    """Return the kind of secret that a text looks like; None if it looks like none."""
    small = text.lower()
    for what, pattern in _LOOKS.items():
        if any(mark in small for mark in _MARKS[what]) and pattern.search(text):
            return what
    if without_secrets(text) == text:
        return None
    named = (what for what, pattern in _OF_DOOR if pattern.search(text))
    return next(named, "a password" if "pass" in small else "a secret")


def _cleaned(text: str) -> str:
    """A document without what looks like a secret in it."""
    text = without_secrets(text)
    for pattern in _LOOKS.values():
        text = pattern.sub(lambda found: f"{''.join(filter(None, found.groups()))}{WITHHELD}", text)
    return WITHHELD if _looks(text) else text


def _of_json(text: str) -> str | None:
    """The same for a document in JSON, which stays one; None if it is no such document."""
    if not text.startswith(("{", "[")):
        return None
    try:
        document = json.loads(text)
        kept = json.dumps(_Walk([]).value(document, ""))
    except (ValueError, RecursionError):
        return None
    return None if _looks(kept) else kept


def _shown(text: str) -> str:
    """A key or question as a line of a report shows it: without control characters, cut short."""
    return cut(clean(text[: _SHOWN + 1]), _SHOWN)


def report(leaks: list[Leak], most: int = 10) -> list[str]:
    """Lines for a person: what was withheld, of many the first and how many more."""
    lines = [f"withheld: {leak}" for leak in leaks[:most]]
    if len(leaks) > most:
        of = len({(leak.layer, leak.query) for leak in leaks[most:]})
        lines.append(f"withheld: {len(leaks) - most} more places, in the answers to {of} questions")
    return lines
