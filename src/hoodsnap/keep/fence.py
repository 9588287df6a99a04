"""Last search of a finished bundle: withhold whatever still looks like a secret.

Allow-lists keep secrets out, and `secret.py` withholds what passes them. Texts found here passed
both. Most of them are names: a tenant may call a server `password: reset the VM`, and must not be
able to prevent a bundle that way. So only the text is withheld, its location is reported, and the
rest of the bundle is written.
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
"""Lookahead for values that are not secrets."""

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
"""Names of secrets that are also parts of other names: they count only as whole words."""

_REST = r"[^\n\0'\"<>\\]*+"
"""Rest of a line, of a word that ends with a NUL, or of a text in JSON or XML."""

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
"""Patterns in addition to those in `secret.py`. Groups are kept; the rest is withheld."""

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
"""Substrings, in lower case, of which a text must have one to be searched with the pattern. Finding
them is cheap."""

_OF_DOOR = (
    ("a secret of QEMU", re.compile(r"\bsecret,|:key=|keyvalue-pairs")),
    ("a key of ceph", re.compile(r"(?<![A-Za-z0-9+/])AQ[A-Za-z0-9+/]{36}==")),
    ("a URL with credentials", re.compile(r"://[^\s\0'\"<>@]{0,256}:")),
)
"""Kinds of texts that `secret.py` would have changed, with a pattern for each."""

_KEY = re.compile(rf"(?:.*[._:-])?{_WORDS}", re.IGNORECASE | re.DOTALL)
"""Keys whose values are secrets."""

_LONGEST_KEY = 256
"""Characters. A longer key is a text, not the name of a secret."""

_NAME = 255
"""Characters of the longest name. A longer text, or a text of several lines, is a document: only
the parts of it that look like secrets are withheld."""

_SHOWN = 120
"""Characters of a key or a query in a report."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Location in a bundle at which a text looked like a secret, without the text."""

    layer: str
    query: str
    place: str
    looks: str

    def __str__(self) -> str:
        return f"{self.layer}, {self.query}, {self.place}: it looks like {self.looks}"


def fenced(bundle: Bundle) -> tuple[Bundle, list[Leak]]:
    """Return the bundle without texts that look like secrets, and the locations of these texts.

    If nothing looks like a secret, the bundle is returned unchanged.
    """
    leaks: list[Leak] = []
    answers = tuple(_fenced(answer, leaks) for answer in bundle.answers)
    return (bundle.with_answers(answers) if leaks else bundle), leaks


def leaks(bundle: Bundle) -> list[Leak]:
    """Return every location in the bundle at which a text looks like a secret."""
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
    """Walk through a value. Adds each changed location, and its kind of secret, to `found`."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        self._found = found

    def value(self, value: Any, place: str) -> Any:
        """Return the value without secrets."""
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
        """Return the text without secrets. `whole`: a name with a secret is withheld entirely."""
        what = _looks(text)
        if what is None:
            return text
        self._found.append((place, what))
        if whole and len(text) <= _NAME and "\n" not in text and not text.startswith(("{", "[")):
            return WITHHELD if "\0" not in text else _cleaned(text)
        return _of_json(text) or _cleaned(text)


def _is_secret(key: str, value: Any) -> bool:
    """Return True if a value stands under a key that names a secret, whatever it looks like."""
    if value in ("", WITHHELD, None, [], {}) or isinstance(value, bool):
        return False
    if len(key) > _LONGEST_KEY or _KEY.fullmatch(key) is None:
        return False
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return not all(item == WITHHELD for item in items)
    return True


def _looks(text: str) -> str | None:
    """Return the kind of secret that a text looks like; None if it does not look like any."""
    small = text.lower()
    for what, pattern in _LOOKS.items():
        if any(mark in small for mark in _MARKS[what]) and pattern.search(text):
            return what
    if without_secrets(text) == text:
        return None
    named = (what for what, pattern in _OF_DOOR if pattern.search(text))
    return next(named, "a password" if "pass" in small else "a secret")


def _cleaned(text: str) -> str:
    """Return a document with the parts that look like secrets withheld."""
    text = without_secrets(text)
    for pattern in _LOOKS.values():
        text = pattern.sub(lambda found: f"{''.join(filter(None, found.groups()))}{WITHHELD}", text)
    return WITHHELD if _looks(text) else text


def _of_json(text: str) -> str | None:
    """Return a JSON document without secrets, as JSON.

    None if the text is not JSON, or still looks like a secret.
    """
    if not text.startswith(("{", "[")):
        return None
    try:
        document = json.loads(text)
        kept = json.dumps(_Walk([]).value(document, ""))
    except (ValueError, RecursionError):
        return None
    return None if _looks(kept) else kept


def _shown(text: str) -> str:
    """Return a key or query as a report shows it: without control characters, cut short."""
    return cut(clean(text[: _SHOWN + 1]), _SHOWN)


def report(leaks: list[Leak], most: int = 10) -> list[str]:
    """Return lines for the operator: the first `most` locations, and how many more there are."""
    lines = [f"withheld: {leak}" for leak in leaks[:most]]
    if len(leaks) > most:
        queries = len({(leak.layer, leak.query) for leak in leaks[most:]})
        more = len(leaks) - most
        answers = "one query" if queries == 1 else f"{queries} queries"
        lines.append(f"withheld: {more} more locations, in the answers to {answers}")
    return lines
